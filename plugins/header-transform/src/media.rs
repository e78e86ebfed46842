//! What a body is, by its headers.

/// The kinds of request bodies that rules know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// `application/json`
    Json,
    /// `multipart/form-data`
    Multipart,
    /// `application/x-www-form-urlencoded`
    Form,
}

impl BodyKind {
    /// The kind by a request's content type: what it contains, whatever its case (KONG-SPEC 4.5).
    #[must_use]
    pub fn of(content_type: &[u8]) -> Option<BodyKind> {
        let contains = |wanted: &str| {
            content_type
                .windows(wanted.len())
                .any(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        match () {
            () if contains("application/json") => Some(BodyKind::Json),
            () if contains("multipart/form-data") => Some(BodyKind::Multipart),
            () if contains("application/x-www-form-urlencoded") => Some(BodyKind::Form),
            () => None,
        }
    }
}

/// Whether a response is JSON: an element of its content type is `application/json` or `application/<x>+json`, with well-formed
/// parameters (KONG-SPEC 5.3).
#[must_use]
pub fn is_json(content_type: &[u8]) -> bool {
    content_type.split(|&byte| byte == b',').any(|element| {
        let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let subtype = media.strip_prefix(b"application/");
        let json = subtype.is_some_and(|subtype| {
            subtype == b"json"
                || subtype
                    .strip_suffix(b"+json")
                    .is_some_and(|name| !name.is_empty() && !name.contains(&b' '))
        });
        json && parts.all(|parameter| {
            let mut halves = parameter.splitn(2, |&byte| byte == b'=');
            let name = halves.next().unwrap_or_default();
            !name.is_empty() && halves.next().is_some_and(|value| !value.is_empty())
        })
    })
}

/// Whether a content type is that of a stream of events.
#[must_use]
pub fn is_event_stream(content_type: &[u8]) -> bool {
    let media = content_type
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default();
    media
        .trim_ascii()
        .eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether a body comes as it is written: no rule reads a compressed one.
#[must_use]
pub fn is_plain(content_encoding: Option<&[u8]>) -> bool {
    content_encoding.is_none_or(|encoding| {
        let encoding = encoding.trim_ascii();
        encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_bodies_are_told_by_what_the_type_contains() {
        for (text, kind) in [
            ("Application/JSON; charset=utf-8", Some(BodyKind::Json)),
            ("multipart/form-data; boundary=x", Some(BodyKind::Multipart)),
            ("application/x-www-form-urlencoded", Some(BodyKind::Form)),
            (
                "application/x-www-form-urlencoded, application/json",
                Some(BodyKind::Json),
            ),
            ("application/vnd.api+json", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(BodyKind::of(text.as_bytes()), kind, "{text}");
        }
    }

    #[test]
    fn json_responses_are_told_by_their_media_type() {
        for (text, json) in [
            ("application/json", true),
            ("APPLICATION/JSON", true),
            ("application/problem+json; charset=utf-8", true),
            ("application/vnd.api+json", true),
            ("text/plain, application/json", true),
            ("application/json;", false),
            ("application/json; charset", false),
            ("application/jsonp", false),
            ("application/+json", false),
            ("text/json", false),
            ("", false),
        ] {
            assert_eq!(is_json(text.as_bytes()), json, "{text}");
        }
    }

    #[test]
    fn only_plain_bodies_are_read() {
        assert!(is_plain(None) && is_plain(Some(b"identity")) && is_plain(Some(b"")));
        assert!(!is_plain(Some(b"gzip")) && !is_plain(Some(b"br, gzip")));
        assert!(
            is_event_stream(b"Text/Event-Stream; charset=utf-8") && !is_event_stream(b"text/plain")
        );
    }
}
