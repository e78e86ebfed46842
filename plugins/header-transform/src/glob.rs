//! Texts with `*` for anything.

/// Whether a text fits, the case counted.
#[must_use]
pub fn fits(glob: &[u8], text: &[u8]) -> bool {
    let mut pieces = glob.split(|&byte| byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&[u8]> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        if piece.is_empty() {
            continue;
        }
        let found = rest.windows(piece.len()).position(|window| window == piece);
        let Some(at) = found else { return false };
        rest = rest
            .get(at.saturating_add(piece.len())..)
            .unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        for (glob, text, wanted) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("/v1/*", "/v1/chat", true),
            ("/v1/*", "/v1", false),
            ("*mini*", "gpt-4o-mini-2", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("ab*ba", "aba", false),
            ("**a", "a", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(
                fits(glob.as_bytes(), text.as_bytes()),
                wanted,
                "{glob} {text}"
            );
        }
    }
}
