//! The SHA-256 of a secret: all that is kept of one, and all that is compared.

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these bytes.
    pub fn of(secret: &[u8]) -> Digest {
        Digest(Sha256::digest(secret).into())
    }

    /// Reads 64 hex digits, as `sha256sum` writes them.
    pub fn from_hex(text: &str) -> Option<Digest> {
        let mut digest = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| {
                digits
                    .get(at)
                    .and_then(|digit| char::from(*digit).to_digit(16))
            };
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Digest(digest))
    }

    /// Whether they are equal, in a time that does not depend on where they differ.
    pub fn same(&self, other: &Digest) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }

    /// The first eight bytes, to find it by. Knowing them tells nobody a key.
    pub fn prefix(&self) -> u64 {
        self.0
            .first_chunk()
            .map_or(0, |prefix| u64::from_le_bytes(*prefix))
    }
}

/// Not even a digest is printed: for a key that can be guessed it is as good as the key.
impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_bytes_agree() {
        // FIPS 180-4's own example.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(Digest::from_hex(hex).unwrap().same(&Digest::of(b"abc")));
        assert!(
            Digest::from_hex(&hex.to_uppercase())
                .unwrap()
                .same(&Digest::of(b"abc"))
        );
        assert!(!Digest::of(b"abd").same(&Digest::of(b"abc")));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let almost = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a";
        for text in [
            "",
            "abc",
            almost,
            &format!("{almost}g"),
            &format!("{almost}\u{e9}"),
        ] {
            assert!(Digest::from_hex(text).is_none(), "{text}");
        }
    }
}
