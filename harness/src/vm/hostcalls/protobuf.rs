//! Just enough of the protobuf wire format to read the few messages that guests hand a host.
//!
//! Hosts take bytes that do not parse for something else (a gRPC target for a cluster's name), so what parses here must
//! parse there: unknown fields, groups and all.

/// The nesting at which protobuf's own parsers give up.
const DEPTH: usize = 100;

/// A field's value as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number of variable length: integers, booleans, enumerations.
    Number(u64),
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
    /// Fixed-width numbers and groups, which no message here uses.
    Other,
}

/// The fields of a message in order, those inside of groups left out; `None` where the bytes are no message.
pub(super) fn fields(bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut rest = bytes;
    let mut fields = Vec::new();
    let mut groups: Vec<u32> = Vec::new();
    while !rest.is_empty() {
        let tag = u32::try_from(number(&mut rest)?).ok()?;
        let field = tag >> 3;
        if field == 0 {
            return None;
        }
        let value = match tag & 7 {
            0 => Value::Number(number(&mut rest)?),
            1 => take(&mut rest, 8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, length)?)
            }
            3 if groups.len() < DEPTH => {
                groups.push(field);
                continue;
            }
            4 if groups.pop() == Some(field) => Value::Other,
            5 => take(&mut rest, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        if groups.is_empty() {
            fields.push((field, value));
        }
    }
    groups.is_empty().then_some(fields)
}

/// The last value of a string field, as the wire format wants it; `Err` where it is not UTF-8.
pub(super) fn text<'a>(
    fields: &[(u32, Value<'a>)],
    wanted: u32,
) -> Result<&'a str, std::str::Utf8Error> {
    let mut last = "";
    for (field, value) in fields {
        if let Value::Bytes(bytes) = value
            && *field == wanted
        {
            last = std::str::from_utf8(bytes)?;
        }
    }
    Ok(last)
}

/// The last value of a number field, 0 where there is none.
pub(super) fn integer(fields: &[(u32, Value<'_>)], wanted: u32) -> u64 {
    let mut numbers = fields.iter().filter_map(|(field, value)| match value {
        Value::Number(number) if *field == wanted => Some(*number),
        _ => None,
    });
    numbers.next_back().unwrap_or_default()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// A number of at most ten bytes, seven bits each, the lowest first; what does not fit 64 bits is cut off.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for index in 0..10 {
        let byte = *take(rest, 1)?.first()?;
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Value, fields, integer, text};

    #[test]
    fn the_last_of_a_field_counts_and_unknown_ones_are_passed_over() {
        let message = b"\x0a\x01a\x0a\x02bc\x10\x96\x01\x1d....\x21........";
        let found = fields(message).unwrap();
        assert_eq!(text(&found, 1), Ok("bc"));
        assert_eq!(integer(&found, 2), 150);
        assert_eq!((text(&found, 9), integer(&found, 9)), (Ok(""), 0));
        assert!(found.contains(&(4, Value::Other)));
    }

    #[test]
    fn broken_bytes_are_no_message() {
        for broken in [
            &b"\x0a\x05a"[..],
            b"\x00\x01",
            b"\x80",
            b"\x0f",
            b"\x0b",
            b"\x0c",
        ] {
            assert_eq!(fields(broken), None, "{broken:?}");
        }
        let deep = vec![0x0b; super::DEPTH + 1];
        assert_eq!(fields(&deep), None);
        assert!(text(&fields(b"\x0a\x01\xff").unwrap(), 1).is_err());
    }

    #[test]
    fn some_names_are_messages_too() {
        // Envoy parses before it looks for a cluster of that name.
        assert_eq!(fields(b"auth-grpc"), Some(vec![(12, Value::Other)]));
        assert_eq!(fields(b"cd"), Some(vec![(12, Value::Other)]));
        assert_eq!(fields(b"ratelimit"), None);
    }
}
