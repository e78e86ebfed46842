//! The provider's token rule. No real tokenizer: one that anybody can compute, so that tests know the truth. It is the
//! same for every API; what differs is only the names that an API gives its counts.
//!
//! - A text has one token for each 4 bytes of its UTF-8, rounded up; an empty text has none.
//! - A prompt has, for each message, the tokens of its texts joined, [`PER_MESSAGE`] more, and [`PER_IMAGE`] for each image,
//!   sound or file in it, whatever its size; and [`PER_PROMPT`] once. A system prompt (`system`, `instructions`,
//!   `systemInstruction`) is a message. Texts of a message are what it says, the names and arguments of the tool calls
//!   it makes, and the results of tools that it brings.
//! - Each tool that the prompt offers has [`PER_TOOL`] tokens and those of its name, its description and its schema as
//!   compact JSON, joined.
//! - A completion has the tokens of its text. Each tool call in it has [`PER_CALL`] more, and the tokens of its name, and
//!   those of its arguments. A stream carries one token of text or arguments an event.
//! - A model that thinks ([`thinks`]) spends the tokens of [`reasoning`] on it in each choice, before any text. They count as
//!   part of the completion and of its limit.
//! - The legacy completions API has no messages: its prompt has the tokens of its text alone. So has an input to embed. Where an
//!   API takes token numbers, each is a token.
//!
//! Which of a prompt's tokens count as cached stands in [`super`].

/// Bytes of UTF-8 in a token.
pub const BYTES: usize = 4;

/// Tokens that each message of a prompt costs besides its text, for role and delimiters.
pub const PER_MESSAGE: usize = 3;

/// Tokens that each prompt costs once, for the opening of the answer.
pub const PER_PROMPT: usize = 3;

/// Tokens that an image, a sound or a file in a prompt costs, as a small image does at OpenAI.
pub const PER_IMAGE: usize = 85;

/// Tokens that each tool offered in a prompt costs besides its text.
pub const PER_TOOL: usize = 3;

/// Tokens that each tool call in a completion costs besides its name and its arguments.
pub const PER_CALL: usize = 3;

/// Tokens that an image made costs, as a small one of low quality does at OpenAI.
pub const PER_MADE_IMAGE: usize = 272;

/// The most tokens that a thinking model spends on thinking.
pub const MOST_REASONING: usize = 64;

/// Whether a model of that name thinks: `o` and a digit in front (`o3`, `o4-mini`), or `-thinking` at the end.
#[must_use]
pub fn thinks(model: &str) -> bool {
    let reasoner = model
        .strip_prefix('o')
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    reasoner || model.ends_with("-thinking")
}

/// The tokens that thinking about a prompt costs: as many as the prompt has, and at most [`MOST_REASONING`].
#[must_use]
pub fn reasoning(prompt: usize) -> usize {
    prompt.min(MOST_REASONING)
}

/// The tokens of a text of that many bytes.
#[must_use]
pub fn count(bytes: usize) -> usize {
    bytes.div_ceil(BYTES)
}

/// Cuts a text into its tokens: each ends at the last character boundary within its 4 bytes, so that there are
/// exactly [`count`] of them and none is empty.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    (0..count(text.len())).map(|index| piece(text, index).unwrap_or_default())
}

/// The token of a text with that index; none past its end.
#[must_use]
pub fn piece(text: &str, index: usize) -> Option<&str> {
    let tokens = count(text.len());
    if index >= tokens {
        return None;
    }
    let cut = |index: usize| text.floor_char_boundary(index.saturating_mul(BYTES));
    let end = if index + 1 == tokens {
        text.len()
    } else {
        cut(index + 1)
    };
    text.get(cut(index)..end)
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
    fn reasoners_are_known_by_their_names() {
        let thinking = ["o3", "o4-mini", "claude-sonnet-4.5-thinking"];
        assert!(thinking.iter().all(|model| thinks(model)));
        let others = ["gpt-4o", "ollama", "o", "thinking-machine"];
        assert!(!others.iter().any(|model| thinks(model)));
    }

    #[test]
    fn a_truncated_text_never_splits_a_character() {
        assert_eq!(truncate("abcdefgh", 2), ("abcdefgh", false));
        assert_eq!(truncate("abcdefghi", 2), ("abcdefgh", true));
        assert_eq!(truncate("abc😀", 1), ("abc", true));
        assert_eq!(truncate("abc", 0), ("", true));
    }
}
