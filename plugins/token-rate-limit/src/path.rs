//! Paths as Kong compares them.

/// A path without its query, normalised (RFC 3986 section 6.2.2, as Kong does before it compares): escapes of unreserved characters
/// decoded and all others in upper case, repeated slashes merged, dot segments resolved.
pub(crate) fn normalised(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        let escaped = match (byte, behind) {
            (b'%', [high_digit, low_digit, after @ ..]) => hex(*high_digit)
                .zip(hex(*low_digit))
                .map(|(high, low)| (high << 4 | low, [*high_digit, *low_digit], after)),
            _ => None,
        };
        match escaped {
            Some((byte, _, after)) if is_unreserved(byte) => {
                decoded.push(byte);
                rest = after;
            }
            Some((_, digits, after)) => {
                decoded.push(b'%');
                decoded.extend(digits.map(|digit| digit.to_ascii_uppercase()));
                rest = after;
            }
            None => decoded.push(byte),
        }
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut out = Vec::with_capacity(decoded.len());
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    let last = decoded.rsplit(|&byte| byte == b'/').next();
    if out.is_empty() || matches!(last, Some(b"" | b"." | b"..")) {
        out.push(b'/');
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::normalised;
    use proptest::prelude::*;

    #[test]
    fn one_place_has_one_spelling() {
        for (written, normal) in [
            ("/a/b", "/a/b"),
            ("", "/"),
            ("/", "/"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/a/", "/a/"),
            ("/a/b/..", "/a/"),
            ("/%61%2fb%2F%7e", "/a%2Fb%2F~"),
            ("/a%2", "/a%2"),
            ("/%zz", "/%zz"),
            ("/%2e%2e/a", "/a"),
        ] {
            assert_eq!(
                normalised(written.as_bytes()),
                normal.as_bytes(),
                "{written}"
            );
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "(/|\\.|%2[eEfF]|%[0-9a-f]|[a-z%])*") {
            let once = normalised(path.as_bytes());
            prop_assert!(once.starts_with(b"/"));
            // An escape may only become one by decoding, as in `%%36%31`: then the second look sees what the first has made.
            prop_assume!(!once.windows(1).any(|byte| byte == b"%") || !path.contains("%%"));
            prop_assert_eq!(normalised(&once), once);
        }
    }
}
