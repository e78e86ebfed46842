//! The one place where this crate uses the kit: its JSON scanner, for texts that are whole.

pub(crate) use tollgate_kit::json::{MAX_DEPTH, Value, quote};

/// Writes `text` as a JSON string, quotes included.
pub(crate) fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len().saturating_add(2));
    quote(text, &mut out);
    out
}
