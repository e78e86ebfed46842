//! Query strings and url-encoded forms (KONG-SPEC 0.4).
//!
//! Names and values are percent-decoded with `+` for a space; `a` without `=` is a flag, `a=` has an empty value. Names
//! are case-sensitive, repeats keep their order.

use std::borrow::Cow;

/// Kong reads this many arguments and leaves out the rest.
pub const MOST_ARGUMENTS: usize = 100;

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// The decoded name.
    pub name: Cow<'a, [u8]>,
    /// The decoded value; `None` for a flag.
    pub value: Option<Cow<'a, [u8]>>,
    /// The bytes it was written as, without the `&`.
    pub raw: &'a [u8],
}

/// The arguments in order, empty ones (`&&`) left out.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Argument<'_>> {
    text.split(|&byte| byte == b'&')
        .filter(|raw| !raw.is_empty())
        .map(|raw| {
            let mut halves = raw.splitn(2, |&byte| byte == b'=');
            let name = decode(halves.next().unwrap_or_default());
            Argument {
                name,
                value: halves.next().map(decode),
                raw,
            }
        })
}

/// The text without the arguments of that name; every other byte stays as it was.
pub fn without(text: &[u8], name: &[u8]) -> Vec<u8> {
    let kept = text.split(|&byte| byte == b'&').filter(|raw| {
        let encoded = raw
            .splitn(2, |&byte| byte == b'=')
            .next()
            .unwrap_or_default();
        raw.is_empty() || decode(encoded).as_ref() != name
    });
    kept.collect::<Vec<_>>().join(&b'&')
}

/// Resolves `%XX` and `+`. A `%` that starts no escape stands for itself.
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let hex = |byte: Option<&u8>| {
        byte.and_then(|&byte| char::from(byte).to_digit(16))
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, hex(tail.first()), hex(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// Which bytes are written as they are; every other becomes `%XX`, a space `%20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescaped {
    /// RFC 3986's unreserved characters: what nginx's Lua module leaves.
    Unreserved,
    /// The set of `application/x-www-form-urlencoded` ([URL standard](https://url.spec.whatwg.org/#urlencoded-serializing)).
    Form,
}

/// Appends `text`, percent-encoded.
pub fn encode(text: &[u8], unescaped: Unescaped, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for &byte in text {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_')
            || byte
                == if unescaped == Unescaped::Form {
                    b'*'
                } else {
                    b'~'
                };
        match plain {
            true => out.push(byte),
            false => out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, Option<String>)> {
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        parse(text.as_bytes())
            .map(|argument| {
                (
                    string(&argument.name),
                    argument.value.as_deref().map(string),
                )
            })
            .collect()
    }

    #[test]
    fn flags_empty_values_and_repeats_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read("a&b=&a=1&&c%6B=x+y%20z=%"),
            [
                ("a".into(), None),
                ("b".into(), some("")),
                ("a".into(), some("1")),
                ("ck".into(), some("x y z=%"))
            ]
        );
        assert!(read("").is_empty());
    }

    #[test]
    fn taking_one_out_leaves_the_rest_byte_for_byte() {
        let cases = [
            ("c=%61&k=1&b+&%6b=2&kk", "c=%61&b+&kk"),
            ("k", ""),
            ("a&&k=1&", "a&&"),
            ("a=k", "a=k"),
        ];
        for (text, left) in cases {
            assert_eq!(without(text.as_bytes(), b"k"), left.as_bytes(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in proptest::collection::vec(any::<u8>(), 0..32)) {
            for unescaped in [Unescaped::Form, Unescaped::Unreserved] {
                let mut out = Vec::new();
                encode(&text, unescaped, &mut out);
                let decoded = decode(&out);
                prop_assert_eq!(&decoded[..], &text[..]);
            }
        }
    }
}
