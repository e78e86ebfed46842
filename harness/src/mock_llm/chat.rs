//! Chat completions: what a request asks for, and the answer to it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::tokens;

/// Characters of the last message that an answer repeats: enough to recognise it, little enough for a terminal.
const REPEATED: usize = 200;

/// A chat request, as far as the provider reads it; everything else (`temperature`, `tools`, ...) changes nothing.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    pub(super) model: Option<String>,
    messages: Option<Vec<Message>>,
    #[serde(default)]
    pub(super) stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    n: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    text: Option<String>,
}

impl Message {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let (whole, parts) = match &self.content {
            None => (None, [].as_slice()),
            Some(Content::Text(text)) => (Some(text.as_str()), [].as_slice()),
            Some(Content::Parts(parts)) => (None, parts.as_slice()),
        };
        whole
            .into_iter()
            .chain(parts.iter().filter_map(|part| part.text.as_deref()))
    }

    fn bytes(&self) -> usize {
        self.texts().map(str::len).sum()
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
}

impl Finish {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// The answer to a chat request, before it takes the form of one body or of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) text: String,
    pub(super) finish: Finish,
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
}

impl ChatRequest {
    /// Whether usage ends the stream.
    pub(super) fn include_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage)
    }

    /// The answer, the same for the same request but for `id` and `created` (Unix seconds).
    pub(super) fn complete(
        &self,
        provider: &str,
        id: String,
        created: u64,
    ) -> Result<Completion, Refusal> {
        let model = self
            .model
            .clone()
            .ok_or(Refusal::Missing { field: "model" })?;
        let messages = self
            .messages
            .as_deref()
            .ok_or(Refusal::Missing { field: "messages" })?;
        if messages.is_empty() {
            return Err(Refusal::Invalid {
                field: "messages",
                rule: "must hold at least one message",
            });
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(Refusal::Invalid {
                field: "n",
                rule: "this provider gives one choice, so n must be 1",
            });
        }
        let limit = self.max_completion_tokens.or(self.max_tokens);
        if limit == Some(0) {
            let field = if self.max_completion_tokens.is_some() {
                "max_completion_tokens"
            } else {
                "max_tokens"
            };
            return Err(Refusal::Invalid {
                field,
                rule: "must be at least 1",
            });
        }
        let whole = answer(provider, messages);
        let (text, cut) = limit.map_or((whole.as_str(), false), |limit| {
            tokens::truncate(&whole, limit)
        });
        Ok(Completion {
            id,
            created,
            model,
            text: text.to_owned(),
            finish: if cut { Finish::Length } else { Finish::Stop },
            prompt_tokens: tokens::prompt(messages.iter().map(Message::bytes)),
            completion_tokens: tokens::count(text.len()),
        })
    }
}

fn answer(provider: &str, messages: &[Message]) -> String {
    let asked: String = messages
        .iter()
        .rev()
        .find(|message| message.role == "user")
        .map(|message| {
            message
                .texts()
                .flat_map(str::chars)
                .take(REPEATED)
                .collect()
        })
        .unwrap_or_default();
    format!(
        "This is {provider}. You said: \"{asked}\" The same question always gets this same answer."
    )
}

impl Completion {
    pub(super) fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        })
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.text, "refusal": null, "annotations": []},
                "logprobs": null,
                "finish_reason": self.finish.name(),
            }],
            "usage": self.usage(),
            "service_tier": "default",
            "system_fingerprint": null,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(request: Value) -> Result<Completion, Refusal> {
        serde_json::from_value::<ChatRequest>(request)
            .unwrap()
            .complete("p", "id".to_owned(), 0)
    }

    #[test]
    fn usage_follows_the_rule_for_texts_and_parts_alike() {
        let text =
            complete(json!({"model": "m", "messages": [{"role": "user", "content": "12345"}]}))
                .unwrap();
        let parts = complete(
            json!({"model": "m", "messages": [{"role": "user", "content": [
                {"type": "text", "text": "123"},
                {"type": "image_url", "image_url": {"url": "data:"}},
                {"type": "text", "text": "45"},
            ]}]}),
        )
        .unwrap();
        assert_eq!(text.prompt_tokens, 3 + 2 + 3);
        assert_eq!(text, parts);
        assert_eq!(text.completion_tokens, text.text.len().div_ceil(4));
    }

    #[test]
    fn a_token_limit_cuts_the_answer_and_says_so() {
        let cut = complete(json!({
            "model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]
        }))
        .unwrap();
        assert_eq!((cut.completion_tokens, cut.finish), (2, Finish::Length));
    }

    #[test]
    fn what_is_missing_is_named() {
        let no_messages = complete(json!({"model": "m"})).unwrap_err();
        assert_eq!(no_messages, Refusal::Missing { field: "messages" });
        let no_model = complete(json!({"messages": []})).unwrap_err();
        assert_eq!(no_model, Refusal::Missing { field: "model" });
    }
}
