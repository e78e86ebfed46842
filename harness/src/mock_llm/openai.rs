//! OpenAI's APIs.

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod embeddings;
pub(super) mod images;
pub(super) mod responses;

use serde::Deserialize;
use serde_json::{Value, json};

use super::prompt::{Prompt, Role, Tool, ToolChoice, Turn};
use super::refusal::Refusal;
use super::reply::{Finish, Usage};

/// The most choices of one request, as OpenAI has it.
const MOST_CHOICES: usize = 128;

#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Whether usage ends the stream.
fn include_usage(options: Option<&StreamOptions>) -> bool {
    options.is_some_and(|options| options.include_usage == Some(true))
}

/// A text or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

/// A message's content in the forms of both chat completions and responses.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    text: Option<String>,
    refusal: Option<String>,
}

impl Content {
    /// Adds what it says to a turn. A part without a text is an image, a sound or a file.
    fn read_into(&self, turn: &mut Turn) {
        match self {
            Self::Text(text) => turn.text.push_str(text),
            Self::Parts(parts) => {
                for part in parts {
                    match part.text.as_ref().or(part.refusal.as_ref()) {
                        Some(text) => turn.text.push_str(text),
                        None => turn.images += 1,
                    }
                }
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Function {
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    parameters: Value,
}

impl From<Function> for Tool {
    fn from(function: Function) -> Self {
        Self {
            name: function.name.unwrap_or_default(),
            description: function.description.unwrap_or_default(),
            schema: function.parameters,
        }
    }
}

/// `tool_choice` in the forms of both chat completions and responses.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawToolChoice {
    Mode(String),
    Chat { function: Named },
    Responses(Named),
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

fn tool_choice(raw: Option<RawToolChoice>, prompt: &Prompt) -> Result<ToolChoice, Refusal> {
    let named = match raw {
        None => return Ok(ToolChoice::Auto),
        Some(RawToolChoice::Mode(mode)) => {
            return match mode.as_str() {
                "auto" => Ok(ToolChoice::Auto),
                "none" => Ok(ToolChoice::Never),
                "required" => Ok(ToolChoice::Any),
                _ => Err(Refusal::Invalid {
                    field: "tool_choice",
                    rule: "must be \"none\", \"auto\", \"required\" or a tool's name",
                }),
            };
        }
        Some(RawToolChoice::Chat { function } | RawToolChoice::Responses(function)) => function,
    };
    if prompt.tools.iter().any(|tool| tool.name == named.name) {
        Ok(ToolChoice::Named(named.name))
    } else {
        Err(Refusal::Invalid {
            field: "tool_choice",
            rule: "must name one of the tools",
        })
    }
}

/// A token limit, from the first of these fields that is there.
fn limit(fields: &[(&'static str, Option<usize>)]) -> Result<Option<usize>, Refusal> {
    let set = fields
        .iter()
        .find_map(|(field, limit)| limit.map(|limit| (*field, limit)));
    match set {
        Some((field, 0)) => Err(Refusal::Invalid {
            field,
            rule: "must be at least 1",
        }),
        Some((_, limit)) => Ok(Some(limit)),
        None => Ok(None),
    }
}

fn choices(n: Option<usize>) -> Result<usize, Refusal> {
    match n.unwrap_or(1) {
        n @ 1..=MOST_CHOICES => Ok(n),
        _ => Err(Refusal::Invalid {
            field: "n",
            rule: "must be from 1 to 128",
        }),
    }
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

fn role(name: Option<&str>) -> Role {
    Role::of(name.unwrap_or("user"))
}

/// A log probability that depends on the token alone.
fn logprob(token: &str, bytes: bool, top: usize) -> Value {
    let entry = |token: &str, logprob: f64| {
        let mut entry = json!({"token": token, "logprob": logprob});
        if bytes {
            entry["bytes"] = json!(token.as_bytes());
        }
        entry
    };
    let mut given = entry(token, -0.125);
    // The token itself leads its rivals, each of which is half as likely as the one before.
    let rivals = (0..top).map(|rank| match rank {
        0 => entry(token, -0.125),
        rank => entry(
            &format!("{token}~{rank}"),
            f64::from(u32::try_from(rank).unwrap_or(u32::MAX)) * -std::f64::consts::LN_2 - 2.0,
        ),
    });
    given["top_logprobs"] = rivals.collect();
    given
}
