//! Decoding what an upstream received: queries and forms as Kong reads them (KONG-SPEC 0.4), and multipart forms.

use serde_json::{Map, Value};

/// Query or form arguments: a string each, `true` for one without `=`, a list for a repeated one.
pub(crate) fn arguments(text: &str) -> Map<String, Value> {
    let mut decoded = Map::new();
    for piece in text.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = match piece.split_once('=') {
            Some((name, value)) => (name, Value::String(percent_decode(value))),
            None => (piece, Value::Bool(true)),
        };
        add(&mut decoded, percent_decode(name), value);
    }
    decoded
}

/// The fields of a multipart form by the boundary in its content type. None when it isn't one.
pub(crate) fn multipart(content_type: &str, body: &[u8]) -> Option<Map<String, Value>> {
    let boundary = parameter(content_type, "boundary")?;
    let text = String::from_utf8_lossy(body);
    let delimiter = format!("--{boundary}");
    let mut fields = Map::new();
    let mut parts = text.split(delimiter.as_str());
    parts.next()?;
    for part in parts {
        if part.starts_with("--") {
            return Some(fields);
        }
        let part = part.strip_prefix("\r\n")?.strip_suffix("\r\n")?;
        let (head, value) = part.split_once("\r\n\r\n")?;
        let name = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let disposition = name.trim().eq_ignore_ascii_case("content-disposition");
            disposition.then(|| parameter(value, "name")).flatten()
        })?;
        add(&mut fields, name, Value::String(value.to_owned()));
    }
    None
}

fn add(fields: &mut Map<String, Value>, name: String, value: Value) {
    match fields.get_mut(&name) {
        None => {
            fields.insert(name, value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

fn parameter(header: &str, wanted: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let found = name.trim().eq_ignore_ascii_case(wanted);
        found.then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (*first, tail) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high * 16 + low);
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            (byte, _) => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_keep_flags_empties_and_repeats_apart() {
        let decoded = Value::Object(arguments("a=1&b&c=&a=%32&%61+b=x%zz&&a"));
        assert_eq!(
            decoded,
            json!({"a": ["1", "2", true], "b": true, "c": "", "a b": "x%zz"})
        );
    }

    #[test]
    fn multipart_fields_are_read_by_name() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\n\
            content-disposition: form-data; name=b; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\n\r\n--x--\r\n";
        let fields = multipart("multipart/form-data; boundary=x", body).map(Value::Object);
        assert_eq!(fields, Some(json!({"a": "1", "b": ""})));
    }

    #[test]
    fn multipart_without_its_end_is_no_form() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n";
        assert_eq!(multipart("multipart/form-data; boundary=x", body), None);
        assert_eq!(multipart("multipart/form-data", body), None);
    }

    #[test]
    fn an_empty_multipart_form_has_no_fields() {
        assert_eq!(
            multipart("multipart/form-data; boundary=x", b"--x--\r\n"),
            Some(Map::new())
        );
    }
}
