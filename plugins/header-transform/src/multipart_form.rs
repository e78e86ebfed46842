//! `multipart/form-data` bodies while rules work on them (KONG-SPEC 4.5).

use std::borrow::Cow;
use tollgate_kit::multipart;

/// A form in parts.
#[derive(Clone, Debug)]
pub struct MultipartForm<'a> {
    boundary: &'a [u8],
    preamble: &'a [u8],
    parts: Vec<Part<'a>>,
    ending: Cow<'a, [u8]>,
    changed: bool,
}

#[derive(Clone, Debug)]
struct Part<'a> {
    name: Option<Cow<'a, [u8]>>,
    value: Cow<'a, [u8]>,
    /// All of it, from its boundary line on, as it is to be written.
    text: Cow<'a, [u8]>,
}

impl<'a> MultipartForm<'a> {
    /// Reads a body with the boundary that its content type names; an empty body is a form without parts. `None` when there is
    /// no boundary, or the body is not made with it.
    #[must_use]
    pub fn read(content_type: &'a [u8], body: &'a [u8]) -> Option<MultipartForm<'a>> {
        let boundary = multipart::boundary(content_type)?;
        if body.is_empty() {
            return Some(MultipartForm {
                boundary,
                preamble: b"",
                parts: Vec::new(),
                ending: Cow::Owned([b"--", boundary, b"--\r\n"].concat()),
                changed: false,
            });
        }
        let (parts, end) = multipart::read(body, boundary)?;
        let start = parts.first().map_or(end, |part| part.place.start);
        Some(MultipartForm {
            boundary,
            preamble: body.get(..start)?,
            parts: parts
                .into_iter()
                .map(|part| Part {
                    name: part.name.map(Cow::Borrowed),
                    value: Cow::Borrowed(part.value),
                    text: Cow::Borrowed(body.get(part.place).unwrap_or_default()),
                })
                .collect(),
            ending: Cow::Borrowed(body.get(end..)?),
            changed: false,
        })
    }

    /// Whether a text can stand in a part without ending it.
    #[must_use]
    pub fn can_hold(&self, value: &[u8]) -> bool {
        let delimiter = [b"--", self.boundary].concat();
        !value
            .windows(delimiter.len())
            .any(|window| window == delimiter)
    }

    /// Whether there is a part of that name.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        self.parts.iter().any(|part| part.is_named(name))
    }

    /// Takes the parts of that name out; only the first of them where `first_only`, as Kong does.
    pub fn remove(&mut self, name: &[u8], first_only: bool) {
        let before = self.parts.len();
        let mut left = if first_only { 1 } else { usize::MAX };
        self.parts.retain(|part| {
            let goes = left > 0 && part.is_named(name);
            left = left.saturating_sub(usize::from(goes));
            !goes
        });
        self.changed |= self.parts.len() != before;
    }

    /// Gives the first part of a name another one, over what has that name. The part's headers go, as in Kong.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) {
        if from == to || !self.has(from) {
            return;
        }
        self.parts.retain(|part| !part.is_named(to));
        let boundary = self.boundary;
        if let Some(part) = self.parts.iter_mut().find(|part| part.is_named(from)) {
            *part = Part::new(boundary, to, &part.value);
        }
        self.changed = true;
    }

    /// Gives the first part of a name another value, where there is one. The part's headers go: what they say is of the old value.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) {
        let boundary = self.boundary;
        if let Some(part) = self.parts.iter_mut().find(|part| part.is_named(name)) {
            *part = Part::new(boundary, name, value);
            self.changed = true;
        }
    }

    /// Adds a part, unless there is one of that name.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        if !self.has(name) {
            self.parts.push(Part::new(self.boundary, name, value));
            self.changed = true;
        }
    }

    /// The body; `None` when nothing was changed.
    #[must_use]
    pub fn into_text(self) -> Option<Vec<u8>> {
        if !self.changed {
            return None;
        }
        let mut out = self.preamble.to_vec();
        for part in &self.parts {
            out.extend_from_slice(&part.text);
        }
        out.extend_from_slice(&self.ending);
        Some(out)
    }
}

impl Part<'_> {
    fn is_named(&self, name: &[u8]) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// A part with nothing but a name and a value.
    fn new(boundary: &[u8], name: &[u8], value: &[u8]) -> Part<'static> {
        let mut text = [
            b"--",
            boundary,
            b"\r\nContent-Disposition: form-data; name=\"",
        ]
        .concat();
        // As browsers escape it (HTML, "multipart/form-data encoding algorithm").
        for &byte in name {
            match byte {
                b'"' => text.extend_from_slice(b"%22"),
                b'\r' => text.extend_from_slice(b"%0D"),
                b'\n' => text.extend_from_slice(b"%0A"),
                byte => text.push(byte),
            }
        }
        text.extend_from_slice(b"\"\r\n\r\n");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
        Part {
            name: Some(Cow::Owned(name.to_vec())),
            value: Cow::Owned(value.to_vec()),
            text: Cow::Owned(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &[u8] = b"multipart/form-data; boundary=B";
    const BODY: &[u8] = b"hello\r\n--B\r\nX: y\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
        --B\r\nContent-Disposition: form-data; name=b; filename=f\r\n\r\n2\r\n--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n3\r\n--B--\r\nbye";

    fn edited(edit: impl FnOnce(&mut MultipartForm<'_>)) -> Option<Vec<(String, String)>> {
        let mut form = MultipartForm::read(TYPE, BODY).unwrap();
        edit(&mut form);
        let text = form.into_text()?;
        assert!(text.starts_with(b"hello\r\n--B") && text.ends_with(b"--B--\r\nbye"));
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let parts = multipart::parts(&text, b"B");
        Some(
            parts
                .iter()
                .map(|part| (string(part.name.unwrap()), string(part.value)))
                .collect(),
        )
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Some(pairs.iter().map(owned).collect())
    }

    #[test]
    fn parts_are_edited_and_the_others_stay() {
        assert_eq!(edited(|_| ()), None);
        assert_eq!(
            edited(|form| form.remove(b"a", false)),
            pairs(&[("b", "2")])
        );
        assert_eq!(
            edited(|form| form.remove(b"a", true)),
            pairs(&[("b", "2"), ("a", "3")])
        );
        assert_eq!(
            edited(|form| form.rename(b"a", b"b")),
            pairs(&[("b", "1"), ("a", "3")])
        );
        assert_eq!(edited(|form| form.rename(b"z", b"b")), None);
        assert_eq!(
            edited(|form| form.replace(b"b", b"x\r\ny")),
            pairs(&[("a", "1"), ("b", "x\r\ny"), ("a", "3")])
        );
        assert_eq!(edited(|form| form.add(b"a", b"4")), None);
        assert_eq!(
            edited(|form| form.add(b"c", b"4")),
            pairs(&[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")])
        );
    }

    #[test]
    fn a_form_can_begin_with_nothing() {
        for body in [&b""[..], b"--B--\r\n"] {
            let mut form = MultipartForm::read(TYPE, body).unwrap();
            form.add(b"a\"\r\n", b"1");
            assert_eq!(
                String::from_utf8(form.into_text().unwrap()).unwrap(),
                "--B\r\nContent-Disposition: form-data; name=\"a%22%0D%0A\"\r\n\r\n1\r\n--B--\r\n"
            );
        }
    }

    #[test]
    fn what_is_no_form_is_not_read() {
        assert!(MultipartForm::read(b"multipart/form-data", BODY).is_none());
        assert!(MultipartForm::read(TYPE, b"--C--\r\n").is_none());
        assert!(MultipartForm::read(TYPE, &BODY[..60]).is_none());
    }

    #[test]
    fn a_value_that_would_end_its_part_is_seen() {
        let form = MultipartForm::read(TYPE, BODY).unwrap();
        assert!(!form.can_hold(b"x\r\n--B\r\nY") && form.can_hold(b"x\r\n-B"));
    }

    proptest! {
        #[test]
        fn any_body_is_edited_or_left(body in "(--B|--|\r\n|[-B:;=\"a ]|content-disposition: form-data; name=a\r\n\r\n){0,16}", value in "[a\r\n-]{0,8}") {
            if let Some(mut form) = MultipartForm::read(TYPE, body.as_bytes()) {
                prop_assert!(form.clone().into_text().is_none());
                form.rename(b"a", b"b");
                form.replace(b"b", value.as_bytes());
                form.add(b"c", value.as_bytes());
                form.remove(b"b", false);
                let text = form.into_text().unwrap();
                prop_assert!(text.len() <= body.len() + value.len() + 100);
                let again = MultipartForm::read(TYPE, &text).unwrap();
                prop_assert!(again.has(b"c") && !again.has(b"b"));
            }
        }
    }
}
