//! `POST /v1/chat/completions`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{Answer, Content as Body, Event, Form, Told};
use super::super::api::Api;
use super::super::prompt::{Ask, Prompt, Tool, Turn};
use super::super::refusal::Refusal;
use super::super::reply::{Choice, Delta, Reply};
use super::super::tokens;
use super::{
    Content, Function, OneOrMore, RawToolChoice, StreamOptions, choices, finish_reason,
    include_usage, limit, logprob, role, tool_choice, usage,
};

/// The most rivals of a token that can be asked for, as OpenAI has it.
const MOST_TOP_LOGPROBS: usize = 20;

/// A chat request, as far as the provider reads it; everything else (`temperature`, `seed`, ...) changes nothing.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Request {
    messages: Option<Vec<Message>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    n: Option<usize>,
    stop: Option<OneOrMore>,
    tools: Option<Vec<RawTool>>,
    tool_choice: Option<RawToolChoice>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: Option<String>,
    content: Option<Content>,
    tool_calls: Option<Vec<RawCall>>,
}

#[derive(Debug, Deserialize)]
struct RawCall {
    function: Option<CalledFunction>,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    arguments: String,
}

#[derive(Debug, Deserialize)]
struct RawTool {
    function: Option<Function>,
}

/// How a chat's answer is written.
#[derive(Clone, Debug)]
pub(in super::super) struct Style {
    stream: bool,
    include_usage: bool,
    /// Rivals of each token, where log probabilities are asked for.
    logprobs: Option<usize>,
}

/// What stands in each answer and event of one exchange.
#[derive(Clone, Debug)]
pub(in super::super) struct Identity {
    /// Without the prefix that says what it is.
    pub(in super::super) id: String,
    /// Unix seconds.
    pub(in super::super) created: u64,
    pub(in super::super) model: String,
}

impl Request {
    pub(in super::super) fn read(self, model: String) -> Result<(Ask, Style), Refusal> {
        let messages = self
            .messages
            .ok_or(Refusal::Missing { field: "messages" })?;
        if messages.is_empty() {
            return Err(Refusal::Invalid {
                field: "messages",
                rule: "must hold at least one message",
            });
        }
        let tools = self.tools.unwrap_or_default().into_iter();
        let prompt = Prompt {
            turns: messages.iter().map(turn).collect(),
            tools: tools
                .filter_map(|tool| tool.function)
                .map(Tool::from)
                .collect(),
            plain: false,
        };
        let logprobs = match (self.logprobs, self.top_logprobs) {
            (Some(true), top) => Some(top.unwrap_or(0)),
            (_, None) => None,
            (_, Some(_)) => {
                return Err(Refusal::Invalid {
                    field: "top_logprobs",
                    rule: "needs logprobs: true",
                });
            }
        };
        if logprobs.is_some_and(|top| top > MOST_TOP_LOGPROBS) {
            return Err(Refusal::Invalid {
                field: "top_logprobs",
                rule: "must be at most 20",
            });
        }
        let style = Style {
            stream: self.stream.unwrap_or(false),
            include_usage: include_usage(self.stream_options.as_ref()),
            logprobs,
        };
        let ask = Ask {
            thinks: tokens::thinks(&model),
            model,
            limit: limit(&[
                ("max_completion_tokens", self.max_completion_tokens),
                ("max_tokens", self.max_tokens),
            ])?,
            stop: self.stop.map(OneOrMore::list).unwrap_or_default(),
            choices: choices(self.n)?,
            tool_choice: tool_choice(self.tool_choice, &prompt)?,
            prompt,
        };
        Ok((ask, style))
    }
}

fn turn(message: &Message) -> Turn {
    let mut turn = Turn::new(role(message.role.as_deref()));
    if let Some(content) = &message.content {
        content.read_into(&mut turn);
    }
    for call in message.tool_calls.iter().flatten() {
        if let Some(function) = &call.function {
            turn.text.push_str(&function.name);
            turn.text.push_str(&function.arguments);
        }
    }
    turn
}

pub(in super::super) fn answer(identity: Identity, style: &Style, reply: Reply) -> Answer {
    let usage = reply.usage;
    let content = if style.stream {
        Body::Events {
            form: Form::Sse,
            events: events(identity, style.clone(), Arc::new(reply)),
        }
    } else {
        Body::Whole {
            document: document(&identity, style, &reply),
            at: reply.longest().saturating_sub(1),
        }
    };
    Answer {
        usage,
        content,
        ..Answer::whole(Api::Chat, Value::Null)
    }
}

fn call_id(identity: &Identity, choice: usize, call: usize) -> String {
    format!("call_{}_{choice}_{call}", identity.id)
}

fn document(identity: &Identity, style: &Style, reply: &Reply) -> Value {
    let choice = |(index, choice): (usize, &Choice)| {
        let mut message = json!({"role": "assistant", "content": choice.text, "refusal": null, "annotations": []});
        if !choice.calls.is_empty() {
            message["content"] = Value::Null;
            let calls = choice.calls.iter().enumerate().map(|(number, call)| {
                json!({
                    "id": call_id(identity, index, number),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                })
            });
            message["tool_calls"] = calls.collect();
        }
        let logprobs = style.logprobs.map(|top| {
            let content: Value = tokens::pieces(&choice.text)
                .map(|piece| logprob(piece, true, top))
                .collect();
            json!({"content": content, "refusal": null})
        });
        json!({
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": finish_reason(&choice.finish),
        })
    };
    let choices: Value = reply.choices.iter().enumerate().map(choice).collect();
    json!({
        "id": format!("chatcmpl-{}", identity.id),
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "choices": choices,
        "usage": usage(&reply.usage),
        "service_tier": "default",
        "system_fingerprint": null,
    })
}

/// In OpenAI's order: each choice's role, one event a token, each choice's reason to end, the usage if it was asked
/// for, `[DONE]`.
fn events(
    identity: Identity,
    style: Style,
    reply: Arc<Reply>,
) -> Box<dyn Iterator<Item = Event> + Send> {
    let last = reply.longest().saturating_sub(1);
    let count = reply.choices.len();
    let identity = Arc::new(identity);
    let include_usage = style.include_usage;
    let chunk = {
        let identity = Arc::clone(&identity);
        move |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({
                "id": format!("chatcmpl-{}", identity.id),
                "object": "chat.completion.chunk",
                "created": identity.created,
                "model": identity.model,
                "service_tier": "default",
                "system_fingerprint": null,
                "choices": choices,
            });
            if include_usage {
                // OpenAI names the field in every chunk then, and fills it in the last.
                chunk["usage"] = usage.unwrap_or(Value::Null);
            }
            chunk
        }
    };
    let delta = move |choice: usize, delta: Value, logprobs: Value, finish: Option<&str>| {
        let choice =
            json!({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        chunk(json!([choice]), None)
    };
    let open = delta.clone();
    let opening = (0..count).map(move |choice| {
        let role = json!({"role": "assistant", "content": "", "refusal": null});
        Event::new(None, 0, open(choice, role, Value::Null, None))
    });
    let ends: Vec<Event> = (0..count)
        .zip(&reply.choices)
        .map(|(number, choice)| {
            let finish = Some(finish_reason(&choice.finish));
            Event::new(None, last, delta(number, json!({}), Value::Null, finish))
        })
        .collect();
    let total = include_usage.then(|| {
        let chunk = json!({
            "id": format!("chatcmpl-{}", identity.id),
            "object": "chat.completion.chunk",
            "created": identity.created,
            "model": identity.model,
            "service_tier": "default",
            "system_fingerprint": null,
            "choices": [],
            "usage": usage(&reply.usage),
        });
        Event::new(None, last, chunk).telling(Told::Only)
    });
    let order = reply.order();
    let middle = order.filter_map(move |(choice, index)| {
        let part = reply.delta(choice, index)?;
        let (content, logprobs) = match part {
            Delta::Text(piece) => (
                json!({"content": piece}),
                style.logprobs.map_or(
                    Value::Null,
                    |top| json!({"content": [logprob(piece, true, top)], "refusal": null}),
                ),
            ),
            Delta::Call { call, name } => (
                json!({"tool_calls": [{
                    "index": call,
                    "id": call_id(&identity, choice, call),
                    "type": "function",
                    "function": {"name": name, "arguments": ""},
                }]}),
                Value::Null,
            ),
            Delta::Arguments { call, piece } => (
                json!({"tool_calls": [{"index": call, "function": {"arguments": piece}}]}),
                Value::Null,
            ),
        };
        let event = Event::new(None, index, delta(choice, content, logprobs, None));
        Some(event.carrying(part.tokens()))
    });
    Box::new(
        opening
            .chain(middle)
            .chain(ends)
            .chain(total)
            .chain([Event::done(last)]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(request: Value) -> Result<Reply, Refusal> {
        let request: Request = serde_json::from_value(request).unwrap();
        let (ask, _) = request.read("m".to_owned())?;
        Ok(ask.reply("p", None))
    }

    #[test]
    fn usage_follows_the_rule_for_texts_and_parts_alike() {
        let text = complete(json!({"messages": [{"role": "user", "content": "12345"}]})).unwrap();
        let parts = complete(json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "123"},
            {"type": "image_url", "image_url": {"url": "data:"}},
            {"type": "text", "text": "45"},
        ]}]}))
        .unwrap();
        assert_eq!(text.usage.prompt, 3 + 2 + 3);
        assert_eq!(parts.usage.prompt, text.usage.prompt + 85);
        assert_eq!(text.choices, parts.choices);
        assert_eq!(
            text.usage.completion,
            text.choices[0].text.len().div_ceil(4)
        );
    }

    #[test]
    fn a_token_limit_cuts_the_answer_and_says_so() {
        let cut =
            complete(json!({"max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}))
                .unwrap();
        assert_eq!(
            (cut.usage.completion, finish_reason(&cut.choices[0].finish)),
            (2, "length")
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let no_messages = complete(json!({})).unwrap_err();
        assert_eq!(no_messages, Refusal::Missing { field: "messages" });
    }
}
