//! `POST /v1/completions`, the legacy API: a text goes on.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{Answer, Content as Body, Event, Form, Told};
use super::super::api::Api;
use super::super::prompt::{Ask, Prompt, Role, ToolChoice, Turn};
use super::super::refusal::Refusal;
use super::super::reply::{Choice, Delta, Reply, Size, Usage};
use super::super::tokens;
use super::chat::Identity;
use super::{OneOrMore, StreamOptions, choices, finish_reason, include_usage, limit, usage};

/// The answer's limit when none is asked for, as OpenAI has it.
const USUAL_LIMIT: usize = 16;

/// A request, as far as the provider reads it.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Request {
    prompt: Option<RawPrompt>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    n: Option<usize>,
    stop: Option<OneOrMore>,
    logprobs: Option<usize>,
    echo: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawPrompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Style {
    stream: bool,
    include_usage: bool,
    logprobs: Option<usize>,
}

impl RawPrompt {
    /// Token numbers have no text here: each counts as four bytes of one.
    fn texts(self) -> Vec<String> {
        let numbers = |list: Vec<u32>| "#tok".repeat(list.len());
        match self {
            Self::Text(text) => vec![text],
            Self::Texts(texts) => texts,
            Self::Tokens(list) => vec![numbers(list)],
            Self::TokenLists(lists) => lists.into_iter().map(numbers).collect(),
        }
    }
}

impl Request {
    /// What is asked, once for each prompt.
    pub(in super::super) fn read(self, model: &str) -> Result<(Vec<Ask>, Style), Refusal> {
        let prompts = self
            .prompt
            .ok_or(Refusal::Missing { field: "prompt" })?
            .texts();
        if prompts.is_empty() {
            return Err(Refusal::Invalid {
                field: "prompt",
                rule: "must hold at least one text",
            });
        }
        if self.echo == Some(true) {
            return Err(Refusal::Invalid {
                field: "echo",
                rule: "must be false: this provider does not repeat the prompt",
            });
        }
        let style = Style {
            stream: self.stream.unwrap_or(false),
            include_usage: include_usage(self.stream_options.as_ref()),
            logprobs: self.logprobs,
        };
        let choices = choices(self.n)?;
        let limit = limit(&[("max_tokens", self.max_tokens)])?.or(Some(USUAL_LIMIT));
        let stop = self.stop.map(OneOrMore::list).unwrap_or_default();
        let asks = prompts.into_iter().map(|text| Ask {
            model: model.to_owned(),
            prompt: Prompt {
                turns: vec![Turn {
                    text,
                    ..Turn::new(Role::User)
                }],
                tools: Vec::new(),
                plain: true,
            },
            limit,
            stop: stop.clone(),
            choices,
            tool_choice: ToolChoice::Never,
            thinks: false,
        });
        Ok((asks.collect(), style))
    }
}

/// The answers to all prompts as one: the choices of the first prompt, then those of the second, ...
pub(in super::super) fn reply(asks: &[Ask], provider: &str, size: Option<Size>) -> Reply {
    let mut all = Reply {
        choices: Vec::new(),
        usage: Usage::default(),
    };
    for ask in asks {
        // A length that is wanted takes the place of the usual limit.
        let ask = &Ask {
            limit: ask
                .limit
                .filter(|limit| size.is_none() || *limit != USUAL_LIMIT),
            ..ask.clone()
        };
        let reply = ask.reply(provider, size);
        all.choices.extend(reply.choices);
        all.usage.prompt += reply.usage.prompt;
        all.usage.completion += reply.usage.completion;
    }
    all
}

pub(in super::super) fn answer(identity: &Identity, style: Style, reply: Reply) -> Answer {
    let usage = reply.usage;
    let last = reply.longest().saturating_sub(1);
    let content = if style.stream {
        Body::Events {
            form: Form::Sse,
            events: events(identity, style, Arc::new(reply)),
        }
    } else {
        Body::Whole {
            document: document(identity, style, &reply),
            at: last,
        }
    };
    Answer {
        usage,
        content,
        ..Answer::whole(Api::Completions, Value::Null)
    }
}

fn frame(identity: &Identity, choices: Value) -> Value {
    json!({
        "id": format!("cmpl-{}", identity.id),
        "object": "text_completion",
        "created": identity.created,
        "model": identity.model,
        "choices": choices,
        "system_fingerprint": null,
    })
}

fn logprobs<'a>(pieces: impl Iterator<Item = &'a str>, offset: usize, top: usize) -> Value {
    let (mut tokens, mut values, mut offsets, mut tops) = (vec![], vec![], vec![], vec![]);
    let mut at = offset;
    for piece in pieces {
        tokens.push(piece);
        values.push(-0.125);
        offsets.push(at);
        tops.push(if top == 0 {
            json!({})
        } else {
            json!({piece: -0.125})
        });
        at += piece.chars().count();
    }
    json!({"tokens": tokens, "token_logprobs": values, "text_offset": offsets, "top_logprobs": tops})
}

fn document(identity: &Identity, style: Style, reply: &Reply) -> Value {
    let choice = |(index, choice): (usize, &Choice)| {
        json!({
            "index": index,
            "text": choice.text,
            "logprobs": style.logprobs.map(|top| logprobs(tokens::pieces(&choice.text), 0, top)),
            "finish_reason": finish_reason(&choice.finish),
        })
    };
    let mut document = frame(
        identity,
        reply.choices.iter().enumerate().map(choice).collect(),
    );
    document["usage"] = usage(&reply.usage);
    document
}

fn events(
    identity: &Identity,
    style: Style,
    reply: Arc<Reply>,
) -> Box<dyn Iterator<Item = Event> + Send> {
    let last = reply.longest().saturating_sub(1);
    let chunk = {
        let identity = identity.clone();
        move |index: usize, text: &str, logprobs: Value, finish: Option<&str>| {
            let choice = json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish});
            let mut chunk = frame(&identity, json!([choice]));
            if style.include_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        }
    };
    let ends: Vec<Event> = reply
        .choices
        .iter()
        .enumerate()
        .map(|(index, choice)| {
            let finish = Some(finish_reason(&choice.finish));
            Event::new(None, last, chunk(index, "", Value::Null, finish))
        })
        .collect();
    let total = style.include_usage.then(|| {
        let mut chunk = frame(identity, json!([]));
        chunk["usage"] = usage(&reply.usage);
        Event::new(None, last, chunk).telling(Told::Only)
    });
    let order = reply.order();
    let middle = order.filter_map(move |(choice, index)| {
        let Delta::Text(piece) = reply.delta(choice, index)? else {
            return None;
        };
        let text = &reply.choices.get(choice)?.text;
        let logprobs = style.logprobs.map_or(Value::Null, |top| {
            let before = tokens::pieces(text).take(index);
            let offset = before.map(|piece| piece.chars().count()).sum();
            logprobs([piece].into_iter(), offset, top)
        });
        Some(Event::new(None, index, chunk(choice, piece, logprobs, None)).carrying(1))
    });
    Box::new(middle.chain(ends).chain(total).chain([Event::done(last)]))
}
