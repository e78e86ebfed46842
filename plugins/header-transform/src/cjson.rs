//! JSON written as Kong's encoder (lua-cjson) writes it, for `compat: kong`: no white space, `/` as `\/`, numbers as doubles with 14
//! digits (KONG-SPEC 0.4). Members keep their order; in Kong it is undefined.

use crate::template::spell_number;
use tollgate_kit::json::Value;

/// A value's text, written anew.
#[must_use]
pub fn rewritten(value: Value<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.text().len());
    let mut rest = value.text();
    while let Some(&first) = rest.first() {
        let length = match first {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => rest
                .iter()
                .position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                .unwrap_or(rest.len()),
            _ => 1,
        };
        let (token, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = behind;
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let text = Value::parse(token).ok();
                write_string(
                    &text.and_then(Value::as_bytes).unwrap_or_default(),
                    &mut out,
                );
            }
            b'-' | b'0'..=b'9' => out.extend_from_slice(number(token).as_bytes()),
            _ => out.extend_from_slice(token),
        }
    }
    out
}

/// The length of the string that begins here, quotes included. The text is known to be well-formed.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().skip(1).position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end.saturating_add(2))
}

/// A number through a double; an integer first through 64 bits, which is where large ones stop.
fn number(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap_or_default();
    if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return spell_number(text.parse().unwrap_or_default());
    }
    let limit = if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    spell_number(text.parse().unwrap_or(limit) as f64)
}

/// Writes a string in quotes.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' | b'/' => out.extend_from_slice(&[b'\\', byte]),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..0x20 | 0x7F => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_slashes_and_spaces_change_and_the_order_stays() {
        let text = r#" { "b" : [ ] , "a/\u0041\"\\\n": 12345678901234567890, "c": -1.0e0, "é": [1.50 , true,null , {} ]}"#;
        assert_eq!(
            String::from_utf8(rewritten(Value::parse(text.as_bytes()).unwrap())).unwrap(),
            r#"{"b":[],"a\/A\"\\\n":9.2233720368548e+18,"c":-1,"é":[1.5,true,null,{}]}"#
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_json_and_stays_as_it_is_when_written_again(text in r#"[\[\]{}",:0-9.eE\-tfn ale\\u]{0,24}"#) {
            if let Ok(value) = Value::parse(text.as_bytes()) {
                let once = rewritten(value);
                let again = rewritten(Value::parse(&once).unwrap());
                prop_assert_eq!(once, again);
            }
        }
    }
}
