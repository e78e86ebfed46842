//! The path that `replace.uri` makes (KONG-SPEC 4.7).

/// The path is none that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriError {
    /// Occurs when it does not begin with `/`.
    NoPath,
    /// Occurs when a value brought `.` or `..` in as a segment: the upstream would go elsewhere than the rule says.
    DotSegment,
}

/// Percent-escapes what may not stand in a path and keeps the escapes that are there.
///
/// With `kong`, `?` and `#` stay as they are, as Kong leaves them; else they are escaped, since the query is not part of it.
///
/// # Errors
/// When it is no path.
pub fn escaped(text: &[u8], kong: bool) -> Result<Vec<u8>, UriError> {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    if text.first() != Some(&b'/') {
        return Err(UriError::NoPath);
    }
    if !kong && text.split(|&byte| byte == b'/').any(is_dot_segment) {
        return Err(UriError::DotSegment);
    }
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        let plain = byte.is_ascii_alphanumeric()
            || b"-_.~!$&'()*+,/:;=@[]%".contains(&byte)
            || (kong && matches!(byte, b'#' | b'?'));
        if plain {
            out.push(byte);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Ok(out)
}

/// `.` or `..`, however it is spelled.
fn is_dot_segment(segment: &[u8]) -> bool {
    let decoded = tollgate_kit::args::decode(segment);
    matches!(&*decoded, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_a_path_is_escaped() {
        let path = |text: &str, kong| {
            escaped(text.as_bytes(), kong).map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(
            path("/a b/t\u{e9}st", false).as_deref(),
            Ok("/a%20b/t%C3%A9st")
        );
        assert_eq!(
            path("/a%2Fb/$&;=@[]~", false).as_deref(),
            Ok("/a%2Fb/$&;=@[]~")
        );
        assert_eq!(path("/a?b#c", false).as_deref(), Ok("/a%3Fb%23c"));
        assert_eq!(path("/a?b#c", true).as_deref(), Ok("/a?b#c"));
        assert_eq!(path("/a\r\nX: y", true).as_deref(), Ok("/a%0D%0AX:%20y"));
        assert_eq!(path("a", true), Err(UriError::NoPath));
        assert_eq!(path("", false), Err(UriError::NoPath));
    }

    #[test]
    fn no_value_leads_out_of_its_place() {
        for path in ["/u/..", "/u/%2e%2E/admin", "/./x"] {
            assert_eq!(
                escaped(path.as_bytes(), false),
                Err(UriError::DotSegment),
                "{path}"
            );
            assert!(escaped(path.as_bytes(), true).is_ok(), "{path}");
        }
        assert!(escaped(b"/u/...", false).is_ok());
    }
}
