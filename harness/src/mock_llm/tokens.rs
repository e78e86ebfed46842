//! The provider's token rule. No real tokenizer: one that anybody can compute, so that tests know the truth.
//!
//! - A text has one token for each 4 bytes of its UTF-8, rounded up; an empty text has none.
//! - A prompt has the tokens of each message's text, [`PER_MESSAGE`] more for each message, and [`PER_PROMPT`] more
//!   once. Only text counts: images and other parts of a message are free.
//! - A completion has the tokens of its text. A stream carries one token an event.
//! - An embedding's input has the tokens of its text, or as many as it lists when it comes as token numbers.

/// Bytes of UTF-8 in a token.
pub const BYTES: usize = 4;

/// Tokens that each message of a prompt costs besides its text, for role and delimiters.
pub const PER_MESSAGE: usize = 3;

/// Tokens that each prompt costs once, for the opening of the answer.
pub const PER_PROMPT: usize = 3;

/// The tokens of a text of that many bytes.
#[must_use]
pub fn count(bytes: usize) -> usize {
    bytes.div_ceil(BYTES)
}

/// The tokens of a prompt, from the length in bytes of each message's text.
#[must_use]
pub fn prompt(messages: impl IntoIterator<Item = usize>) -> usize {
    messages
        .into_iter()
        .map(|bytes| PER_MESSAGE + count(bytes))
        .sum::<usize>()
        + PER_PROMPT
}

/// Cuts a text into its tokens: each ends at the last character boundary within its 4 bytes, so that there are
/// exactly [`count`] of them and none is empty.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let cut = |index: usize| text.floor_char_boundary(index.saturating_mul(BYTES));
    (0..count(text.len())).map(move |index| {
        let end = if index + 1 == count(text.len()) {
            text.len()
        } else {
            cut(index + 1)
        };
        text.get(cut(index)..end).unwrap_or_default()
    })
}

/// The opening of a text that has at most `limit` tokens, and whether anything was left off.
#[must_use]
pub fn truncate(text: &str, limit: usize) -> (&str, bool) {
    if count(text.len()) <= limit {
        return (text, false);
    }
    let end = text.floor_char_boundary(limit.saturating_mul(BYTES));
    (text.get(..end).unwrap_or_default(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_many_as_the_count_and_join_to_the_text() {
        for text in [
            "",
            "a",
            "abcd",
            "abcde",
            "a😀",
            "😀😀",
            "aé😀ü日本語x",
            "日本語日本語日本語",
        ] {
            let cut: Vec<&str> = pieces(text).collect();
            assert_eq!(cut.len(), count(text.len()), "{text}");
            assert_eq!(cut.concat(), text);
            assert!(cut.iter().all(|piece| !piece.is_empty()), "{text}: {cut:?}");
        }
    }

    #[test]
    fn a_prompt_counts_text_messages_and_once_the_opening() {
        assert_eq!(prompt([]), 3);
        assert_eq!(prompt([5]), 3 + 2 + 3);
        assert_eq!(prompt([8, 0]), (3 + 2) + 3 + 3);
    }

    #[test]
    fn a_truncated_text_never_splits_a_character() {
        assert_eq!(truncate("abcdefgh", 2), ("abcdefgh", false));
        assert_eq!(truncate("abcdefghi", 2), ("abcdefgh", true));
        assert_eq!(truncate("abc😀", 1), ("abc", true));
        assert_eq!(truncate("abc", 0), ("", true));
    }
}
