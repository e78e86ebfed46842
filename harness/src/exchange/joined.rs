//! Header lines that a host keeps as one.

use bytes::Bytes;

use crate::http::Headers;

/// Joins the lines of each of these names with commas, in the place of the first (RFC 9110 section 5.3).
pub(crate) fn join_lines(headers: &mut Headers, names: &[&str]) {
    for name in names {
        let values: Vec<Bytes> = headers.get_all(name).cloned().collect();
        if values.len() > 1 {
            headers.set((*name).to_owned(), values.join(&b","[..]));
        }
    }
}
