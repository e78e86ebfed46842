//! The events that end a stream at its limit, as the provider would have ended it there.
//!
//! | API | events |
//! |---|---|
//! | Chat, Completions | one chunk with `finish_reason: "length"` for each choice that is still open, with the stream's own `id`, `created` and `model`, then `[DONE]` |
//! | Messages | `content_block_stop` if a block is open, `message_delta` with `stop_reason: "max_tokens"`, `message_stop`; nothing before `message_start` |
//! | Responses | `response.incomplete` with the reason `max_output_tokens` |
//! | Gemini | one chunk with `finishReason: "MAX_TOKENS"` |
//!
//! A client that asked for usage gets none: it has not come yet.

use crate::answer::{Dialect, Told};
use crate::json::quoted;

/// Ends a stream in this way; `completion` is what Anthropic's clients are told of its tokens, where the stream told less.
pub(crate) fn at_limit(told: &Told, dialect: Dialect, completion: u64) -> Vec<u8> {
    match dialect {
        Dialect::Chat => choices(told, "chat.completion.chunk", "\"delta\":{}"),
        Dialect::Completions => choices(told, "text_completion", "\"text\":\"\""),
        Dialect::Messages => message(told, completion),
        Dialect::Responses => response(told),
        Dialect::Generate => candidate(told),
    }
}

/// An object that is being written.
struct Writer(Vec<u8>);

impl Writer {
    fn event(name: &str) -> Writer {
        let mut out = Vec::new();
        if !name.is_empty() {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
        }
        out.extend_from_slice(b"data: {");
        Writer(out)
    }

    fn raw(mut self, text: &str) -> Writer {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// A member that the stream has told as a string; left out if it has not.
    fn told(mut self, name: &str, value: &[u8]) -> Writer {
        if !value.is_empty() {
            self.0.extend_from_slice(&quoted(name.as_bytes()));
            self.0.push(b':');
            self.0.extend_from_slice(&quoted(value));
            self.0.push(b',');
        }
        self
    }

    fn number(mut self, name: &str, value: Option<u64>) -> Writer {
        if let Some(value) = value {
            self.0.extend_from_slice(&quoted(name.as_bytes()));
            self.0.push(b':');
            self.0.extend_from_slice(value.to_string().as_bytes());
            self.0.push(b',');
        }
        self
    }

    fn end(self, last: &str) -> Vec<u8> {
        let mut out = self.raw(last).0;
        out.extend_from_slice(b"}\n\n");
        out
    }
}

fn choices(told: &Told, object: &str, content: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let open = match told.begun {
        0 => 1,
        begun => begun & !told.ended,
    };
    for index in 0..u128::BITS {
        let bit = 1u128.checked_shl(index).unwrap_or_default();
        // A stream that has not begun has one choice at least.
        if open & bit == 0 {
            continue;
        }
        let choice = Writer::event("")
            .told("id", &told.id)
            .raw("\"object\":\"")
            .raw(object)
            .raw("\",")
            .number("created", told.created)
            .told("model", &told.model)
            .raw("\"choices\":[{\"index\":")
            .raw(&index.to_string())
            .raw(",")
            .raw(content)
            .end(",\"logprobs\":null,\"finish_reason\":\"length\"}]");
        out.extend_from_slice(&choice);
    }
    out.extend_from_slice(b"data: [DONE]\n\n");
    out
}

fn message(told: &Told, completion: u64) -> Vec<u8> {
    if told.dialect.is_none() {
        return Vec::new();
    }
    let mut out = Vec::new();
    if let Some(index) = told.open_block {
        let stop = Writer::event("content_block_stop")
            .number("index", Some(index))
            .end("\"type\":\"content_block_stop\"");
        out.extend_from_slice(&stop);
    }
    let completion = told
        .counts
        .usage()
        .and_then(|usage| usage.completion)
        .unwrap_or_default()
        .max(completion);
    let delta = Writer::event("message_delta")
        .raw("\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":")
        .raw(&completion.to_string())
        .end("}");
    out.extend_from_slice(&delta);
    out.extend_from_slice(&Writer::event("message_stop").end("\"type\":\"message_stop\""));
    out
}

fn response(told: &Told) -> Vec<u8> {
    let sequence = told.sequence.map_or(0, |last| last.saturating_add(1));
    Writer::event("response.incomplete")
        .raw("\"type\":\"response.incomplete\",")
        .number("sequence_number", Some(sequence))
        .raw("\"response\":{")
        .told("id", &told.id)
        .number("created_at", told.created)
        .told("model", &told.model)
        .end("\"object\":\"response\",\"status\":\"incomplete\",\"incomplete_details\":{\"reason\":\"max_output_tokens\"},\"error\":null,\"instructions\":null,\"metadata\":{},\"output\":[],\"parallel_tool_calls\":true,\"temperature\":null,\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":null,\"usage\":null}")
}

fn candidate(told: &Told) -> Vec<u8> {
    Writer::event("")
        .told("modelVersion", &told.model)
        .told("responseId", &told.id)
        .end("\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":\"MAX_TOKENS\",\"index\":0}]")
}
