//! `multipart/form-data` ([RFC 7578](https://www.rfc-editor.org/rfc/rfc7578)), read in place.

/// One part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The field's name; `None` if the part names none.
    pub name: Option<&'a [u8]>,
    /// Its content.
    pub value: &'a [u8],
    /// Where it stands in the body: from its boundary line to the next one.
    pub place: std::ops::Range<usize>,
}

/// The boundary that a content type names: `multipart/form-data; boundary=...`.
pub fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let boundary = parameter(content_type, b"boundary")?;
    (!boundary.is_empty()).then_some(boundary)
}

/// The parts of a body, in order; empty if it is not made with this boundary or does not end.
pub fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<Part<'a>> {
    read(body, boundary).map_or_else(Vec::new, |(parts, _)| parts)
}

/// The parts of a body, in order, and where its last boundary line begins. `None` if it is not made with this boundary or does
/// not end.
pub fn read<'a>(body: &'a [u8], boundary: &[u8]) -> Option<(Vec<Part<'a>>, usize)> {
    let mut parts = Vec::new();
    let mut at = delimiter(body, boundary, 0)?;
    loop {
        if at.last {
            return Some((parts, at.start));
        }
        let next = delimiter(body, boundary, at.end)?;
        let content = body.get(at.end..next.start).unwrap_or_default();
        let (head, value) = match content.strip_prefix(b"\r\n") {
            Some(value) => (b"".as_slice(), value),
            None => split(content, b"\r\n\r\n").unwrap_or((content, &[])),
        };
        let disposition = head
            .split(|&byte| byte == b'\n')
            .find(|line| starts_with_ignoring_case(line, b"content-disposition:"));
        parts.push(Part {
            name: disposition.and_then(|line| parameter(line, b"name")),
            value: value.strip_suffix(b"\r\n").unwrap_or(value),
            place: at.start..next.start,
        });
        at = next;
    }
}

/// Where a boundary line stands.
struct Delimiter {
    start: usize,
    /// Behind its line break.
    end: usize,
    last: bool,
}

/// The next boundary line at or after `from`: at the start of a line, with nothing behind it but white space.
fn delimiter(body: &[u8], boundary: &[u8], from: usize) -> Option<Delimiter> {
    let mut start = from;
    loop {
        let line_end = find(body, b"\n", start).map_or(body.len(), |end| end.saturating_add(1));
        let line = body.get(start..line_end)?;
        if let Some(rest) = line
            .strip_prefix(b"--")
            .and_then(|rest| rest.strip_prefix(boundary))
        {
            let last = rest.starts_with(b"--");
            let rest = rest.strip_prefix(b"--").unwrap_or(rest);
            if rest.trim_ascii().is_empty() {
                return Some(Delimiter {
                    start,
                    end: line_end,
                    last,
                });
            }
        }
        if line_end >= body.len() {
            return None;
        }
        start = line_end;
    }
}

fn find(text: &[u8], what: &[u8], from: usize) -> Option<usize> {
    text.get(from..)?
        .windows(what.len())
        .position(|window| window == what)
        .map(|at| at.saturating_add(from))
}

fn split<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = find(text, at, 0)?;
    Some((
        text.get(..found)?,
        text.get(found.saturating_add(at.len())..)?,
    ))
}

fn starts_with_ignoring_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The value of a parameter in a header such as `form-data; name="a"`, without its quotes.
fn parameter<'a>(header: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut rest = split(header, b";")?.1;
    loop {
        let (name, after) = split(rest, b"=")?;
        let after = after.trim_ascii_start();
        let (value, after) = match after.strip_prefix(b"\"") {
            Some(quoted) => split(quoted, b"\"")?,
            None => {
                let end = find(after, b";", 0).unwrap_or(after.len());
                (after.get(..end)?.trim_ascii(), after.get(end..)?)
            }
        };
        if name.trim_ascii().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = split(after, b";")?.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &[u8] = b"preamble\r\n--B\r\nContent-Disposition: form-data; name=\"apikey\"\r\n\r\nko\r\nng\r\n--B\r\n\
        content-type: text/plain\r\ncontent-disposition: form-data; filename=\"x=;y\"; name=file\r\n\r\n--Bx\r\n--B--\r\n";

    #[test]
    fn the_boundary_may_be_quoted() {
        assert_eq!(
            boundary(b"multipart/form-data; charset=x; Boundary=\"a;b\""),
            Some(&b"a;b"[..])
        );
        assert_eq!(
            boundary(b"multipart/form-data; boundary=ab ; x=y"),
            Some(&b"ab"[..])
        );
        assert_eq!(boundary(b"multipart/form-data"), None);
        assert_eq!(boundary(b"multipart/form-data; boundary="), None);
    }

    #[test]
    fn parts_have_names_values_and_bytes() {
        let parts = parts(BODY, b"B");
        let shown: Vec<_> = parts
            .iter()
            .map(|part| (part.name.unwrap(), part.value))
            .collect();
        assert_eq!(
            shown,
            [(&b"apikey"[..], &b"ko\r\nng"[..]), (b"file", b"--Bx")]
        );
        assert_eq!(
            &BODY[parts[0].place.clone()],
            b"--B\r\nContent-Disposition: form-data; name=\"apikey\"\r\n\r\nko\r\nng\r\n"
        );
    }

    #[test]
    fn a_form_without_parts_is_not_one_that_can_not_be_read() {
        assert_eq!(read(b"--B--\r\n", b"B"), Some((Vec::new(), 0)));
        assert_eq!(read(b"", b"B"), None);
        let (parts, end) = read(BODY, b"B").unwrap();
        assert_eq!((parts.len(), &BODY[end..]), (2, &b"--B--\r\n"[..]));
    }

    #[test]
    fn a_form_that_does_not_end_has_no_parts() {
        for length in 0..BODY.len() - 4 {
            assert!(parts(&BODY[..length], b"B").is_empty(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(body in "[-B\r\n:;=\"a ]{0,48}", kind in "[-a-z;=\" ]{0,24}") {
            let _ = parts(body.as_bytes(), b"B");
            let _ = boundary(kind.as_bytes());
        }
    }
}
