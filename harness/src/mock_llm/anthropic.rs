//! Anthropic's APIs: `POST /v1/messages`, `POST /v1/messages/count_tokens`, and the form of its models.
//!
//! A model thinks where its name says so (see [`super::tokens`]) or the request's `thinking` asks for it; in the latter case the
//! answer begins with a `thinking` block.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Content as Body, Event, Form, Told};
use super::api::Api;
use super::openai::chat::Identity;
use super::prompt::{Ask, Prompt, Role, Tool, ToolChoice, Turn};
use super::refusal::Refusal;
use super::reply::{Call, Delta, Finish, Reply, Usage};
use super::tokens;

/// Completion tokens that the first event of a stream tells, as Anthropic's does.
const BEGUN: usize = 1;

/// A request, as far as the provider reads it.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    messages: Option<Vec<Message>>,
    system: Option<Content>,
    max_tokens: Option<usize>,
    stream: Option<bool>,
    stop_sequences: Option<Vec<String>>,
    tools: Option<Vec<RawTool>>,
    tool_choice: Option<RawToolChoice>,
    thinking: Option<Thinking>,
    cache_control: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: Option<String>,
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

/// A block of any type: its fields say what it is.
#[derive(Debug, Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    name: Option<String>,
    input: Option<Value>,
    content: Option<Box<Content>>,
    cache_control: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct RawTool {
    name: String,
    description: Option<String>,
    #[serde(default)]
    input_schema: Value,
    cache_control: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct RawToolChoice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    stream: bool,
    shows_thinking: bool,
    /// Whether the request marks something to cache.
    pub(super) caches: bool,
}

impl Content {
    fn read_into(&self, turn: &mut Turn) {
        match self {
            Self::Text(text) => turn.text.push_str(text),
            Self::Blocks(blocks) => blocks.iter().for_each(|block| block.read_into(turn)),
        }
    }

    fn caches(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Blocks(blocks) => blocks.iter().any(|block| {
                block.cache_control.is_some()
                    || block.content.as_ref().is_some_and(|inner| inner.caches())
            }),
        }
    }
}

impl Block {
    fn read_into(&self, turn: &mut Turn) {
        match self.kind.as_str() {
            "tool_use" => {
                turn.text.push_str(self.name.as_deref().unwrap_or_default());
                if let Some(input) = &self.input {
                    turn.text.push_str(&input.to_string());
                }
            }
            "tool_result" => {
                turn.role = Role::Tool;
                if let Some(content) = &self.content {
                    content.read_into(turn);
                }
            }
            _ => match self.text.as_ref().or(self.thinking.as_ref()) {
                Some(text) => turn.text.push_str(text),
                None => turn.images += 1,
            },
        }
    }
}

impl Request {
    /// The prompt alone, for counting its tokens.
    pub(super) fn prompt(&self) -> Result<Prompt, Refusal> {
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
        let system = self.system.as_ref().map(|content| (Role::System, content));
        let messages = messages.iter().map(|message| {
            let role = Role::of(message.role.as_deref().unwrap_or("user"));
            (role, &message.content)
        });
        let turns = system.into_iter().chain(messages).map(|(role, content)| {
            let mut turn = Turn::new(role);
            content.read_into(&mut turn);
            turn
        });
        let tools = self.tools.iter().flatten().map(|tool| Tool {
            name: tool.name.clone(),
            description: tool.description.clone().unwrap_or_default(),
            schema: tool.input_schema.clone(),
        });
        Ok(Prompt {
            turns: turns.collect(),
            tools: tools.collect(),
            plain: false,
        })
    }

    pub(super) fn read(self, model: String) -> Result<(Ask, Style), Refusal> {
        let limit = self.max_tokens.ok_or(Refusal::Missing {
            field: "max_tokens",
        })?;
        if limit == 0 {
            return Err(Refusal::Invalid {
                field: "max_tokens",
                rule: "must be at least 1",
            });
        }
        let prompt = self.prompt()?;
        let shows_thinking = self
            .thinking
            .as_ref()
            .is_some_and(|thinking| thinking.kind != "disabled");
        let contents = self
            .messages
            .iter()
            .flatten()
            .map(|message| &message.content);
        let caches = self.cache_control.is_some()
            || contents.chain(&self.system).any(Content::caches)
            || self
                .tools
                .iter()
                .flatten()
                .any(|tool| tool.cache_control.is_some());
        let style = Style {
            stream: self.stream.unwrap_or(false),
            shows_thinking,
            caches,
        };
        let ask = Ask {
            thinks: shows_thinking || tokens::thinks(&model),
            model,
            limit: Some(limit),
            stop: self.stop_sequences.unwrap_or_default(),
            choices: 1,
            tool_choice: tool_choice(self.tool_choice, &prompt)?,
            prompt,
        };
        Ok((ask, style))
    }
}

fn tool_choice(raw: Option<RawToolChoice>, prompt: &Prompt) -> Result<ToolChoice, Refusal> {
    let Some(raw) = raw else {
        return Ok(ToolChoice::Auto);
    };
    match (raw.kind.as_str(), raw.name) {
        ("auto", _) => Ok(ToolChoice::Auto),
        ("none", _) => Ok(ToolChoice::Never),
        ("any", _) => Ok(ToolChoice::Any),
        ("tool", Some(name)) if prompt.tools.iter().any(|tool| tool.name == name) => {
            Ok(ToolChoice::Named(name))
        }
        _ => Err(Refusal::Invalid {
            field: "tool_choice",
            rule: "type must be \"auto\", \"any\", \"none\" or \"tool\" with the name of one of the tools",
        }),
    }
}

pub(super) fn count(prompt: &Prompt) -> Answer {
    Answer::whole(
        Api::AnthropicTokens,
        json!({"input_tokens": prompt.tokens()}),
    )
}

/// A model in Anthropic's form.
pub(super) fn model(id: &str) -> Value {
    json!({
        "type": "model",
        "id": id,
        "display_name": id,
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
    })
}

pub(super) fn models(ids: &[String]) -> Value {
    let data: Value = ids.iter().map(|id| model(id)).collect();
    json!({"data": data, "has_more": false, "first_id": ids.first(), "last_id": ids.last()})
}

/// What an exchange's answer is made of.
struct Frame {
    identity: Identity,
    style: Style,
    reply: Reply,
}

pub(super) fn answer(identity: Identity, style: Style, reply: Reply) -> Answer {
    let usage = reply.usage;
    let frame = Frame {
        identity,
        style,
        reply,
    };
    let content = if style.stream {
        Body::Events {
            form: Form::Sse,
            events: events(Arc::new(frame)),
        }
    } else {
        Body::Whole {
            document: frame.document(),
            at: frame.reply.longest().saturating_sub(1),
        }
    };
    Answer {
        usage,
        content,
        ..Answer::whole(Api::Messages, Value::Null)
    }
}

fn stop_reason(finish: Option<&Finish>) -> &'static str {
    match finish {
        None | Some(Finish::Stop) => "end_turn",
        Some(Finish::StopSequence(_)) => "stop_sequence",
        Some(Finish::Length) => "max_tokens",
        Some(Finish::ToolCalls) => "tool_use",
    }
}

/// `input_tokens` are those that were neither read from the cache nor written to it.
fn usage(usage: &Usage, output: usize) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached - usage.cache_written,
        "cache_creation_input_tokens": usage.cache_written,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": output,
        "service_tier": "standard",
    })
}

impl Frame {
    fn finish(&self) -> Option<&Finish> {
        self.reply.choices.first().map(|choice| &choice.finish)
    }

    fn stop_sequence(&self) -> Option<&str> {
        match self.finish() {
            Some(Finish::StopSequence(text)) => Some(text),
            _ => None,
        }
    }

    /// The text of the thinking block: as many tokens as thinking cost.
    fn thought(&self) -> Option<String> {
        let tokens = self.reply.usage.reasoning;
        (self.style.shows_thinking && tokens > 0).then(|| "hmm ".repeat(tokens))
    }

    fn signature(&self) -> String {
        format!("sig_{}", self.identity.id)
    }

    fn text(&self) -> &str {
        self.reply.choices.first().map_or("", |choice| &choice.text)
    }

    fn calls(&self) -> &[Call] {
        self.reply
            .choices
            .first()
            .map_or(&[], |choice| &choice.calls)
    }

    fn tool_use(&self, call: usize, name: &str, input: &Value) -> Value {
        json!({"type": "tool_use", "id": format!("toolu_{}_{call}", self.identity.id), "name": name, "input": input})
    }

    fn message(&self, content: Vec<Value>, stop: Option<&str>, usage: Value) -> Value {
        json!({
            "id": format!("msg_{}", self.identity.id),
            "type": "message",
            "role": "assistant",
            "model": self.identity.model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": stop.and_then(|_| self.stop_sequence()),
            "usage": usage,
        })
    }

    fn document(&self) -> Value {
        let mut content = Vec::new();
        if let Some(thought) = self.thought() {
            content.push(
                json!({"type": "thinking", "thinking": thought, "signature": self.signature()}),
            );
        }
        if !self.text().is_empty() {
            content.push(json!({"type": "text", "text": self.text()}));
        }
        content.extend(self.calls().iter().enumerate().map(|(number, call)| {
            // A call that the limit cut has no whole input to show.
            let input = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            self.tool_use(number, &call.name, &input)
        }));
        let told = usage(&self.reply.usage, self.reply.usage.completion);
        self.message(content, Some(stop_reason(self.finish())), told)
    }

    /// The events of the part with that index. `first` is the number of the block that the parts begin with.
    fn events_of(&self, index: usize, first: usize) -> Vec<Event> {
        let Some(delta) = self.reply.delta(0, index) else {
            return Vec::new();
        };
        let event = |name, data| Event::new(Some(name), index, data);
        let (block, opening, piece) = match delta {
            Delta::Text(piece) => {
                let opening = (index == 0).then(|| json!({"type": "text", "text": ""}));
                (
                    first,
                    opening,
                    Some(json!({"type": "text_delta", "text": piece})),
                )
            }
            Delta::Call { call, name } => (
                first + call,
                Some(self.tool_use(call, name, &json!({}))),
                None,
            ),
            Delta::Arguments { call, piece } => (
                first + call,
                None,
                Some(json!({"type": "input_json_delta", "partial_json": piece})),
            ),
        };
        let mut events = Vec::new();
        if let Some(opening) = opening {
            events.push(event(
                "content_block_start",
                json!({"type": "content_block_start", "index": block, "content_block": opening}),
            ));
            if index == 0 {
                events.push(event("ping", json!({"type": "ping"})));
            }
        }
        if let Some(piece) = piece {
            events.push(event(
                "content_block_delta",
                json!({"type": "content_block_delta", "index": block, "delta": piece}),
            ));
        }
        if let Some(last) = events.last_mut() {
            last.tally.tokens = delta.tokens();
        }
        if matches!(
            self.reply.delta(0, index + 1),
            None | Some(Delta::Call { .. })
        ) {
            events.push(event(
                "content_block_stop",
                json!({"type": "content_block_stop", "index": block}),
            ));
        }
        events
    }
}

fn events(frame: Arc<Frame>) -> Box<dyn Iterator<Item = Event> + Send> {
    let length = frame.reply.longest();
    let last = length.saturating_sub(1);
    let begun = frame.message(Vec::new(), None, usage(&frame.reply.usage, BEGUN));
    let mut opening = vec![
        Event::new(
            Some("message_start"),
            0,
            json!({"type": "message_start", "message": begun}),
        )
        .telling(Told::SoFar { completion: BEGUN }),
    ];
    let thought = frame.thought();
    let first = usize::from(thought.is_some());
    if let Some(thought) = thought {
        let block = json!({"type": "thinking", "thinking": "", "signature": ""});
        let deltas = [
            json!({"type": "thinking_delta", "thinking": thought}),
            json!({"type": "signature_delta", "signature": frame.signature()}),
        ];
        opening.push(Event::new(
            Some("content_block_start"),
            0,
            json!({"type": "content_block_start", "index": 0, "content_block": block}),
        ));
        opening.extend(deltas.map(|delta| {
            let data = json!({"type": "content_block_delta", "index": 0, "delta": delta});
            Event::new(Some("content_block_delta"), 0, data)
        }));
        opening.push(Event::new(
            Some("content_block_stop"),
            0,
            json!({"type": "content_block_stop", "index": 0}),
        ));
    }
    let total = &frame.reply.usage;
    let ending = [
        Event::new(
            Some("message_delta"),
            last,
            json!({
                "type": "message_delta",
                "delta": {"stop_reason": stop_reason(frame.finish()), "stop_sequence": frame.stop_sequence()},
                "usage": usage(total, total.completion),
            }),
        )
        .telling(Told::Also),
        Event::new(Some("message_stop"), last, json!({"type": "message_stop"})),
    ];
    let middle = (0..length).flat_map(move |index| frame.events_of(index, first));
    Box::new(opening.into_iter().chain(middle).chain(ending))
}
