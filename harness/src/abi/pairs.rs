//! The wire form of a header map: a count, the lengths of all names and values, then the bytes, each with a NUL behind.

use bytes::Bytes;

use crate::http::Headers;

/// Writes a map.
#[must_use]
pub fn encode_pairs<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let pairs: Vec<_> = pairs.collect();
    let bytes: usize = pairs.iter().map(|(n, v)| n.len() + v.len() + 2).sum();
    let mut out = Vec::with_capacity(4 + pairs.len() * 8 + bytes);
    out.extend_from_slice(&length(pairs.len()));
    for (name, value) in &pairs {
        out.extend_from_slice(&length(name.len()));
        out.extend_from_slice(&length(value.len()));
    }
    for (name, value) in &pairs {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// A length as the wire has it. Guest memory is addressed with 32 bits: nothing longer gets there.
fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads a map; `None` where a length points outside of the bytes.
#[must_use]
pub fn decode_pairs(bytes: &[u8]) -> Option<Headers> {
    let word = |at: usize| -> Option<usize> {
        let word = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(word.try_into().ok()?)).ok()
    };
    if bytes.is_empty() {
        return Some(Headers::new());
    }
    let count = word(0)?;
    let mut at = count.checked_mul(8)?.checked_add(4)?;
    if at > bytes.len() {
        return None;
    }
    let mut take = |len: usize| -> Option<Bytes> {
        let end = at.checked_add(len)?;
        let text = Bytes::copy_from_slice(bytes.get(at..end)?);
        at = end.checked_add(1)?;
        Some(text)
    };
    let mut headers = Headers::new();
    for index in 0..count {
        let sizes = 4 + index * 8;
        let name = take(word(sizes)?)?;
        let value = take(word(sizes + 4)?)?;
        headers.push(name, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::{decode_pairs, encode_pairs};
    use crate::http::Headers;

    fn encoded(headers: &Headers) -> Vec<u8> {
        encode_pairs(headers.iter().map(|(n, v)| (&n[..], &v[..])))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let headers: Headers = [(":path", "/"), ("a", ""), ("b", "x y")]
            .into_iter()
            .collect();
        assert_eq!(decode_pairs(&encoded(&headers)), Some(headers));
    }

    #[test]
    fn an_empty_map_is_no_bytes_or_a_count_of_none() {
        assert_eq!(decode_pairs(&[]), Some(Headers::new()));
        assert_eq!(decode_pairs(&[0; 4]), Some(Headers::new()));
    }

    #[test]
    fn lengths_that_point_outside_are_refused() {
        let mut bytes = encoded(&[("name", "value")].into_iter().collect());
        bytes[4] = 200;
        assert_eq!(decode_pairs(&bytes), None);
        assert_eq!(decode_pairs(&[255, 255, 255, 255]), None);
        assert_eq!(decode_pairs(&[1, 0]), None);
    }
}
