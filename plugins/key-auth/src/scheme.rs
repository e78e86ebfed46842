//! Keys inside an `Authorization` header.
//!
//! OpenAI's clients send `Authorization: Bearer K`; curl's `-u` sends `Basic` with the key as the user or as the password. Kong's
//! key-auth compares the header whole and refuses all of them, which is the most frequent mistake its users make.

use std::borrow::Cow;

tollgate_kit::keyword! {
    /// A way to wrap a key.
    pub enum Scheme {
        /// `Bearer K` (RFC 6750 section 2.1); the word's case and the number of spaces do not matter.
        Bearer = "bearer",
        /// `Basic` (RFC 7617) with `K:` or `:K`: one half is the key, the other is empty.
        Basic = "basic",
    }
}

/// The key inside a header's value. A value in no known scheme is the key itself.
pub fn unwrap<'v>(value: &'v [u8], schemes: &[Scheme]) -> Cow<'v, [u8]> {
    for scheme in schemes {
        let Some(rest) = after_word(value, scheme.word()) else {
            continue;
        };
        match scheme {
            Scheme::Bearer => return Cow::Borrowed(rest),
            Scheme::Basic => {
                let Some(pair) = base64(rest) else { continue };
                match (pair.strip_prefix(b":"), pair.strip_suffix(b":")) {
                    (Some(key), _) | (None, Some(key)) if !key.contains(&b':') => {
                        return Cow::Owned(key.to_vec());
                    }
                    _ => {}
                }
            }
        }
    }
    Cow::Borrowed(value)
}

/// What follows the scheme's name and at least one space.
fn after_word<'v>(value: &'v [u8], word: &str) -> Option<&'v [u8]> {
    let value = value.trim_ascii();
    let (start, rest) = value.split_at_checked(word.len())?;
    let spaced = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    (start.eq_ignore_ascii_case(word.as_bytes()) && spaced).then(|| rest.trim_ascii())
}

/// Decodes base64 (RFC 4648 section 4), padded or not.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text
        .strip_suffix(b"==")
        .or(text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut out = Vec::with_capacity(text.len());
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit.wrapping_sub(b'A'),
                b'a'..=b'z' => digit.wrapping_sub(b'a').wrapping_add(26),
                b'0'..=b'9' => digit.wrapping_sub(b'0').wrapping_add(52),
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let [_, first, second, third] = match group.len() {
            4 => bits.to_be_bytes(),
            3 => (bits << 6).to_be_bytes(),
            2 => (bits << 12).to_be_bytes(),
            _ => return None,
        };
        out.extend(
            [first, second, third]
                .into_iter()
                .take(group.len().saturating_sub(1)),
        );
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(value: &str) -> String {
        String::from_utf8_lossy(&unwrap(value.as_bytes(), &[Scheme::Bearer, Scheme::Basic]))
            .into_owned()
    }

    #[test]
    fn every_spelling_of_a_key_gives_the_key() {
        for value in [
            "K-1",
            "Bearer K-1",
            "bearer  K-1",
            "BEARER\tK-1 ",
            "Basic OkstMQ==",
            "basic SyTi",
            "Basic Sy0xOg==",
            "Basic Sy0xOg",
        ] {
            let wanted = if value == "basic SyTi" {
                "basic SyTi"
            } else {
                "K-1"
            };
            assert_eq!(both(value), wanted, "{value}");
        }
    }

    #[test]
    fn what_is_no_wrapping_is_left_alone() {
        // Two halves that are both there, no base64, a word that only begins like a scheme.
        for value in ["Basic dTpw", "Basic !!!!", "BearerK", "Digest x", ""] {
            assert_eq!(both(value), value);
        }
    }

    #[test]
    fn a_scheme_without_a_key_gives_an_empty_one() {
        assert_eq!(
            (both("Bearer"), both("Bearer  "), both("Basic Og==")),
            (String::new(), String::new(), String::new())
        );
    }

    #[test]
    fn no_schemes_leave_kongs_raw_comparison() {
        assert_eq!(&*unwrap(b"Bearer K", &[]), b"Bearer K");
    }
}
