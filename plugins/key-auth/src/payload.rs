//! A key inside a request body (KONG-SPEC 1.3), and the body without it.
//!
//! What is not the key stays byte for byte as the client sent it. Kong parses and writes the whole body again: it sorts forms,
//! loses file names, rounds large numbers and reorders JSON; with `compat: kong` forms and multipart bodies are written its way.

use std::borrow::Cow;
use tollgate_kit::args::{self, Unescaped};
use tollgate_kit::json::{Kind, Value};
use tollgate_kit::multipart;

/// A body that may hold a key.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// `application/x-www-form-urlencoded`
    Form(&'a [u8]),
    /// `application/json`: an object.
    Json(Value<'a>),
    /// `multipart/form-data`, with its boundary.
    Multipart {
        /// The whole body.
        body: &'a [u8],
        /// What separates its parts.
        boundary: &'a [u8],
    },
    /// Anything else, and what can't be read as what it claims to be.
    Other,
}

/// What stands under a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A text: the key.
    Text(Cow<'a, [u8]>),
    /// Several values, or a list or an object.
    Several,
    /// Something that is no text: a flag, a number, null.
    NoText,
    /// Nothing.
    Absent,
}

impl<'a> Found<'a> {
    /// From each value of that name: a text, or `None` for what is there but no text.
    pub fn among(mut values: impl Iterator<Item = Option<Cow<'a, [u8]>>>) -> Found<'a> {
        match (values.next(), values.next()) {
            (None, _) => Found::Absent,
            (Some(_), Some(_)) => Found::Several,
            (Some(Some(text)), None) => Found::Text(text),
            (Some(None), None) => Found::NoText,
        }
    }
}

/// Whether a body of this type can hold a key. The type counts by how it begins; its case does not matter.
pub fn may_hold_key(content_type: &[u8]) -> bool {
    Type::of(content_type).is_some()
}

#[derive(Clone, Copy)]
enum Type {
    Form,
    Json,
    Multipart,
}

impl Type {
    fn of(content_type: &[u8]) -> Option<Type> {
        let begins = |with: &str| {
            content_type
                .get(..with.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
        };
        match () {
            () if begins("application/x-www-form-urlencoded") => Some(Type::Form),
            () if begins("application/json") => Some(Type::Json),
            () if begins("multipart/form-data") => Some(Type::Multipart),
            () => None,
        }
    }
}

impl<'a> Payload<'a> {
    /// Reads a body as what its content type says it is.
    pub fn read(content_type: &'a [u8], body: &'a [u8]) -> Payload<'a> {
        match Type::of(content_type) {
            Some(Type::Form) => Payload::Form(body),
            Some(Type::Json) => match Value::parse(body) {
                Ok(value) if matches!(value.kind(), Kind::Object) => Payload::Json(value),
                _ => Payload::Other,
            },
            Some(Type::Multipart) => match multipart::boundary(content_type) {
                Some(boundary) => Payload::Multipart { body, boundary },
                None => Payload::Other,
            },
            None => Payload::Other,
        }
    }

    /// What stands under this name at the top level. A JSON member that is repeated counts as several unless `last_wins`, as
    /// Kong's decoder has it: two decoders that differ on which one counts would authenticate one key and forward another.
    pub fn find(self, name: &[u8], last_wins: bool) -> Found<'a> {
        match self {
            Payload::Form(body) => Found::among(
                args::parse(body)
                    .take(args::MOST_ARGUMENTS)
                    .filter(|argument| argument.name == name)
                    .map(|argument| argument.value),
            ),
            Payload::Json(object) => {
                let mut values = object
                    .members()
                    .filter(|(key, _)| key.as_bytes().as_deref() == Some(name))
                    .map(|(_, value)| value);
                let value = if last_wins {
                    values.last()
                } else {
                    values.next().filter(|_| values.next().is_none())
                };
                match value.map(|value| (value, value.kind())) {
                    Some((value, Kind::String)) => {
                        value.as_bytes().map_or(Found::NoText, Found::Text)
                    }
                    Some((_, Kind::Array | Kind::Object)) => Found::Several,
                    Some((_, Kind::Null | Kind::Bool(_) | Kind::Number(_))) => Found::NoText,
                    None if object
                        .members()
                        .any(|(key, _)| key.as_bytes().as_deref() == Some(name)) =>
                    {
                        Found::Several
                    }
                    None => Found::Absent,
                }
            }
            Payload::Multipart { body, boundary } => {
                let parts = multipart::parts(body, boundary);
                Found::among(
                    parts
                        .into_iter()
                        .filter(|part| part.name == Some(name))
                        .map(|part| Some(Cow::Borrowed(part.value))),
                )
            }
            Payload::Other => Found::Absent,
        }
    }

    /// The body without everything of that name; `None` where it has nothing of it, or can't be read.
    pub fn without(self, name: &[u8]) -> Option<Vec<u8>> {
        match self {
            Payload::Form(body) => args::parse(body)
                .any(|argument| argument.name == name)
                .then(|| args::without(body, name)),
            Payload::Json(object) => {
                let there = object
                    .members()
                    .any(|(key, _)| key.as_bytes().as_deref() == Some(name));
                there.then(|| object.without(name))
            }
            Payload::Multipart { body, boundary } => {
                let mut left = body.to_vec();
                let mut found = false;
                // From the end, so that places before stay right.
                for part in multipart::parts(body, boundary)
                    .iter()
                    .rev()
                    .filter(|part| part.name == Some(name))
                {
                    found = true;
                    left.drain(part.place.clone());
                }
                found.then_some(left)
            }
            Payload::Other => None,
        }
    }

    /// The body without everything of that name, as Kong writes it: a form sorted by its encoded text, a multipart body of
    /// names and values only, sorted by name. JSON is not written again: its order is undefined in Kong, and what Kong's encoder
    /// does to large numbers is damage, not a format.
    pub fn rewritten_without(self, name: &[u8]) -> Option<Vec<u8>> {
        match self {
            Payload::Form(body) => {
                let mut pieces: Vec<Vec<u8>> = Vec::new();
                for argument in args::parse(body)
                    .take(args::MOST_ARGUMENTS)
                    .filter(|argument| argument.name != name)
                {
                    let mut piece = Vec::new();
                    args::encode(&argument.name, Unescaped::Unreserved, &mut piece);
                    if let Some(value) = &argument.value {
                        piece.push(b'=');
                        args::encode(value, Unescaped::Unreserved, &mut piece);
                    }
                    let place = pieces.partition_point(|known| known <= &piece);
                    pieces.insert(place, piece);
                }
                Some(pieces.join(&b'&'))
            }
            Payload::Multipart { body, boundary } => {
                let mut parts = multipart::parts(body, boundary);
                if parts.is_empty() {
                    return None;
                }
                parts.retain(|part| part.name != Some(name));
                parts.sort_unstable_by_key(|part| (part.name, part.place.start));
                let mut out = Vec::new();
                for part in parts {
                    let field = part.name.unwrap_or_default();
                    for piece in [
                        b"--",
                        boundary,
                        b"\r\nContent-Disposition: form-data; name=\"",
                        field,
                        b"\"\r\n\r\n",
                        part.value,
                        b"\r\n",
                    ] {
                        out.extend_from_slice(piece);
                    }
                }
                for piece in [b"--", boundary, b"--\r\n"] {
                    out.extend_from_slice(piece);
                }
                Some(out)
            }
            Payload::Json(_) | Payload::Other => self.without(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MULTIPART: &str = "multipart/form-data; boundary=B";
    const FORM: &str = "application/x-www-form-urlencoded";

    fn find(kind: &str, body: &str) -> String {
        match Payload::read(kind.as_bytes(), body.as_bytes()).find(b"k", false) {
            Found::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            other => format!("{other:?}"),
        }
    }

    fn without(kind: &str, body: &str) -> Option<String> {
        Payload::read(kind.as_bytes(), body.as_bytes())
            .without(b"k")
            .map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_key_is_found_in_each_kind_of_body() {
        for (kind, body, found) in [
            (FORM, "a=1&k=x%20y", "x y"),
            (FORM, "k=1&k=2", "Several"),
            (FORM, "k&a", "NoText"),
            (FORM, "k[]=1", "Absent"),
            (
                "Application/JSON; charset=utf-8",
                r#"{"a":{"k":"no"},"k":"yes"}"#,
                "yes",
            ),
            ("application/json", r#"{"k":["x"]}"#, "Several"),
            ("application/json", r#"{"k":{"x":1}}"#, "Several"),
            ("application/json", r#"{"k":1}"#, "NoText"),
            ("application/json", r#"{"k":null}"#, "NoText"),
            ("application/json", r#"{"k":"a","\u006b":"b"}"#, "Several"),
            ("application/json", r#"{"k":"a""#, "Absent"),
            ("application/json", r#"["k"]"#, "Absent"),
            (
                MULTIPART,
                "--B\r\ncontent-disposition: form-data; name=k\r\n\r\nx\r\n--B--",
                "x",
            ),
            (
                MULTIPART,
                "--B\r\ncontent-disposition: form-data; name=k\r\n\r\nx",
                "Absent",
            ),
            ("multipart/form-data", "--B", "Absent"),
            ("text/plain", "k=1", "Absent"),
            ("", "k=1", "Absent"),
        ] {
            assert_eq!(find(kind, body), found, "{kind} {body}");
        }
    }

    #[test]
    fn what_is_not_the_key_stays_byte_for_byte() {
        let part = |name: &str| {
            format!(
                "--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\nX: y\r\n\r\nv\r\n"
            )
        };
        for (kind, body, left) in [
            (
                FORM,
                "z=%7e&k=1&a+b".to_owned(),
                Some("z=%7e&a+b".to_owned()),
            ),
            (FORM, "z=1".into(), None),
            (
                "application/json",
                r#"{ "n": 12345678901234567890, "k" : "x" , "z":1.0 }"#.into(),
                Some(r#"{ "n": 12345678901234567890, "z":1.0 }"#.into()),
            ),
            ("application/json", r#"{"k":"x"}"#.into(), Some("{}".into())),
            ("application/json", "{\"k\":".into(), None),
            (
                MULTIPART,
                format!("{}{}--B--\r\n", part("k"), part("z")),
                Some(format!("{}--B--\r\n", part("z"))),
            ),
        ] {
            assert_eq!(without(kind, &body), left, "{kind} {body}");
        }
    }

    #[test]
    fn kong_sorts_what_it_writes() {
        let rewritten = |kind: &'static str, body: &str| {
            let body = Payload::read(kind.as_bytes(), body.as_bytes())
                .rewritten_without(b"k")
                .unwrap();
            String::from_utf8(body).unwrap()
        };
        assert_eq!(
            rewritten(FORM, "z=1&k=x&a=2&m=x+y&k10&k1="),
            "a=2&k10&k1=&m=x%20y&z=1"
        );
        let part = |name: &str, more: &str| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\nv\r\n")
        };
        let body = format!(
            "{}{}{}--B--\r\n",
            part("z", "; filename=\"f\""),
            part("k", ""),
            part("a", "")
        );
        assert_eq!(
            rewritten(MULTIPART, &body),
            format!("{}{}--B--\r\n", part("a", ""), part("z", ""))
        );
    }
}
