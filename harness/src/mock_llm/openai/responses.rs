//! `POST /v1/responses`, streamed with its named events, and the responses that can be fetched again by their id.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{Answer, Content as Body, Event, Form, Told};
use super::super::api::Api;
use super::super::prompt::{Ask, Prompt, Role, Tool, Turn};
use super::super::refusal::Refusal;
use super::super::reply::{Choice, Delta, Finish, Reply, Usage};
use super::super::tokens;
use super::chat::Identity;
use super::{Content, Function, RawToolChoice, limit, role, tool_choice};

/// The most responses that are kept; the oldest goes first.
const MOST_STORED: usize = 1024;

/// A request, as far as the provider reads it.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Request {
    input: Option<Input>,
    instructions: Option<String>,
    stream: Option<bool>,
    max_output_tokens: Option<usize>,
    tools: Option<Vec<RawTool>>,
    tool_choice: Option<RawToolChoice>,
    store: Option<bool>,
    previous_response_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// A message, a call of a tool, its result, or something that counts as one of these.
#[derive(Debug, Deserialize)]
struct Item {
    role: Option<String>,
    content: Option<Content>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<Content>,
}

#[derive(Debug, Deserialize)]
struct RawTool {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(flatten)]
    function: Function,
}

/// How an answer is written, and what is kept of it.
#[derive(Clone, Debug)]
pub(in super::super) struct Style {
    stream: bool,
    store: bool,
    previous: Option<String>,
}

/// Responses that were given, by their ids.
#[derive(Debug, Default)]
pub(in super::super) struct Stored(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    responses: HashMap<String, Response>,
    order: VecDeque<String>,
}

#[derive(Clone, Debug)]
struct Response {
    document: Value,
    /// All that was said up to it, itself included: what a request that follows it begins with.
    turns: Vec<Turn>,
}

impl Stored {
    /// The response's document.
    pub(in super::super) fn document(&self, id: &str) -> Result<Value, Refusal> {
        self.find(id, |response| response.document.clone())
    }

    /// Forgets a response.
    pub(in super::super) fn remove(&self, id: &str) -> Result<Value, Refusal> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.order.retain(|kept| kept != id);
        match kept.responses.remove(id) {
            Some(_) => Ok(json!({"id": id, "object": "response", "deleted": true})),
            None => Err(Refusal::NoSuchResponse { id: id.to_owned() }),
        }
    }

    fn find<T>(&self, id: &str, take: impl FnOnce(&Response) -> T) -> Result<T, Refusal> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let response = kept.responses.get(id);
        response
            .map(take)
            .ok_or_else(|| Refusal::NoSuchResponse { id: id.to_owned() })
    }

    fn keep(&self, id: String, response: Response) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.responses.insert(id.clone(), response);
        kept.order.push_back(id);
        if kept.order.len() > MOST_STORED
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.responses.remove(&oldest);
        }
    }
}

impl Request {
    pub(in super::super) fn read(
        self,
        model: String,
        stored: &Stored,
    ) -> Result<(Ask, Style), Refusal> {
        let mut turns = match &self.previous_response_id {
            Some(id) => stored.find(id, |response| response.turns.clone())?,
            None => Vec::new(),
        };
        // Those of an earlier request don't carry over.
        turns.retain(|turn| turn.role != Role::System);
        if let Some(instructions) = self.instructions {
            turns.insert(0, Turn::system(instructions));
        }
        match self.input.ok_or(Refusal::Missing { field: "input" })? {
            Input::Text(text) => turns.push(Turn {
                text,
                ..Turn::new(Role::User)
            }),
            Input::Items(items) => turns.extend(items.iter().map(turn)),
        }
        let tools = self.tools.unwrap_or_default().into_iter();
        let prompt = Prompt {
            turns,
            tools: tools
                .filter(|tool| tool.kind.as_deref().is_none_or(|kind| kind == "function"))
                .map(|tool| Tool::from(tool.function))
                .collect(),
            plain: false,
        };
        let style = Style {
            stream: self.stream.unwrap_or(false),
            store: self.store.unwrap_or(true),
            previous: self.previous_response_id,
        };
        let ask = Ask {
            thinks: tokens::thinks(&model),
            model,
            limit: limit(&[("max_output_tokens", self.max_output_tokens)])?,
            stop: Vec::new(),
            choices: 1,
            tool_choice: tool_choice(self.tool_choice, &prompt)?,
            prompt,
        };
        Ok((ask, style))
    }
}

fn turn(item: &Item) -> Turn {
    let mut turn = match (&item.role, &item.output, &item.arguments) {
        (None, Some(_), _) => Turn::new(Role::Tool),
        (None, _, Some(_)) => Turn::new(Role::Assistant),
        (name, ..) => Turn::new(role(name.as_deref())),
    };
    for content in item.content.iter().chain(&item.output) {
        content.read_into(&mut turn);
    }
    for text in item.name.iter().chain(&item.arguments) {
        turn.text.push_str(text);
    }
    turn
}

pub(in super::super) fn answer(
    identity: Identity,
    style: &Style,
    ask: Ask,
    reply: Reply,
    stored: &Stored,
) -> Answer {
    let usage = reply.usage;
    let frame = Frame::new(identity, style, &ask, &reply);
    let document = frame.finished();
    if style.store {
        let mut turns = ask.prompt.turns;
        turns.extend(reply.choices.iter().map(|choice| {
            let mut turn = Turn::new(Role::Assistant);
            turn.text.push_str(&choice.text);
            for call in &choice.calls {
                turn.text.push_str(&call.name);
                turn.text.push_str(&call.arguments);
            }
            turn
        }));
        let response = Response {
            document: document.clone(),
            turns,
        };
        stored.keep(frame.id.clone(), response);
    }
    let content = if style.stream {
        Body::Events {
            form: Form::Sse,
            events: events(Arc::new(frame), document),
        }
    } else {
        Body::Whole {
            document,
            at: reply.longest().saturating_sub(1),
        }
    };
    Answer {
        usage,
        content,
        ..Answer::whole(Api::Responses, Value::Null)
    }
}

/// What a response's object and its items are made of.
#[derive(Clone, Debug)]
struct Frame {
    id: String,
    identity: Identity,
    previous: Option<String>,
    store: bool,
    tools: Value,
    choice: Choice,
    usage: Usage,
}

impl Frame {
    fn new(identity: Identity, style: &Style, ask: &Ask, reply: &Reply) -> Self {
        let tools = ask.prompt.tools.iter().map(|tool| {
            json!({
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.schema,
                "strict": false,
            })
        });
        Self {
            id: format!("resp_{}", identity.id),
            identity,
            previous: style.previous.clone(),
            store: style.store,
            tools: tools.collect(),
            choice: reply.choices.first().cloned().unwrap_or_else(|| Choice {
                text: String::new(),
                calls: Vec::new(),
                finish: Finish::Stop,
            }),
            usage: reply.usage,
        }
    }

    fn cut(&self) -> bool {
        self.choice.finish == Finish::Length
    }

    fn object(&self, status: &str, output: Vec<Value>, usage: Value) -> Value {
        let incomplete = match status {
            "incomplete" => json!({"reason": "max_output_tokens"}),
            _ => Value::Null,
        };
        json!({
            "id": self.id,
            "object": "response",
            "created_at": self.identity.created,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": incomplete,
            "instructions": null,
            "max_output_tokens": null,
            "model": self.identity.model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": self.previous,
            "reasoning": {"effort": null, "summary": null},
            "service_tier": "default",
            "store": self.store,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": self.tools,
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "user": null,
            "metadata": {},
        })
    }

    fn finished(&self) -> Value {
        let usage = &self.usage;
        let usage = json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt + usage.completion,
        });
        let mut output: Vec<Value> = self.thought().into_iter().collect();
        if self.has_message() {
            output.push(self.message(true));
        }
        output.extend((0..self.choice.calls.len()).map(|call| self.call(call, true)));
        let status = if self.cut() {
            "incomplete"
        } else {
            "completed"
        };
        self.object(status, output, usage)
    }

    /// The item that stands for thinking, if there was any.
    fn thought(&self) -> Option<Value> {
        (self.usage.reasoning > 0)
            .then(|| json!({"id": format!("rs_{}", self.identity.id), "type": "reasoning", "summary": []}))
    }

    fn has_message(&self) -> bool {
        !self.choice.text.is_empty()
    }

    fn message_id(&self) -> String {
        format!("msg_{}", self.identity.id)
    }

    fn call_item_id(&self, call: usize) -> String {
        format!("fc_{}_{call}", self.identity.id)
    }

    fn message_index(&self) -> usize {
        usize::from(self.usage.reasoning > 0)
    }

    fn call_index(&self, call: usize) -> usize {
        self.message_index() + usize::from(self.has_message()) + call
    }

    fn status(&self, done: bool) -> &'static str {
        match (done, self.cut()) {
            (false, _) => "in_progress",
            (true, false) => "completed",
            (true, true) => "incomplete",
        }
    }

    fn message(&self, done: bool) -> Value {
        let content = if done {
            vec![self.text_part(true)]
        } else {
            Vec::new()
        };
        json!({
            "id": self.message_id(),
            "type": "message",
            "status": self.status(done),
            "role": "assistant",
            "content": content,
        })
    }

    fn text_part(&self, done: bool) -> Value {
        let text = if done { self.choice.text.as_str() } else { "" };
        json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    }

    fn call(&self, number: usize, done: bool) -> Value {
        let call = self.choice.calls.get(number);
        let arguments = call.map_or("", |call| call.arguments.as_str());
        json!({
            "id": self.call_item_id(number),
            "type": "function_call",
            "status": self.status(done),
            "call_id": format!("call_{}_{number}", self.identity.id),
            "name": call.map_or("", |call| call.name.as_str()),
            "arguments": if done { arguments } else { "" },
        })
    }

    /// The events of the part with that index.
    fn events_of(&self, index: usize) -> Vec<Event> {
        let Some(delta) = self.choice.delta(index) else {
            return Vec::new();
        };
        let event = |name: &'static str, data: Value| Event::new(Some(name), index, data);
        let mut events = match delta {
            Delta::Text(piece) => vec![event(
                "response.output_text.delta",
                json!({
                    "item_id": self.message_id(),
                    "output_index": self.message_index(),
                    "content_index": 0,
                    "delta": piece,
                    "logprobs": [],
                }),
            )],
            Delta::Call { call, .. } => vec![event(
                "response.output_item.added",
                json!({"output_index": self.call_index(call), "item": self.call(call, false)}),
            )],
            Delta::Arguments { call, piece } => vec![event(
                "response.function_call_arguments.delta",
                json!({
                    "item_id": self.call_item_id(call),
                    "output_index": self.call_index(call),
                    "delta": piece,
                }),
            )],
        };
        for event in &mut events {
            event.tally.tokens = delta.tokens();
        }
        let next = self.choice.delta(index + 1);
        if let Delta::Call { call, .. } | Delta::Arguments { call, .. } = delta
            && !matches!(next, Some(Delta::Arguments { .. }))
        {
            let arguments = self.choice.calls.get(call).map(|call| &call.arguments);
            events.push(event(
                "response.function_call_arguments.done",
                json!({
                    "item_id": self.call_item_id(call),
                    "output_index": self.call_index(call),
                    "name": self.choice.calls.get(call).map(|call| &call.name),
                    "arguments": arguments,
                }),
            ));
            events.push(event(
                "response.output_item.done",
                json!({"output_index": self.call_index(call), "item": self.call(call, true)}),
            ));
        }
        events
    }
}

fn events(frame: Arc<Frame>, document: Value) -> Box<dyn Iterator<Item = Event> + Send> {
    let last = frame.choice.len().saturating_sub(1);
    let begun = frame.object("in_progress", Vec::new(), Value::Null);
    let mut opening = vec![
        Event::new(Some("response.created"), 0, json!({"response": begun})),
        Event::new(Some("response.in_progress"), 0, json!({"response": begun})),
    ];
    if let Some(thought) = frame.thought() {
        for name in ["response.output_item.added", "response.output_item.done"] {
            let data = json!({"output_index": 0, "item": thought});
            opening.push(Event::new(Some(name), 0, data));
        }
    }
    let part = |done: bool| {
        json!({
            "item_id": frame.message_id(),
            "output_index": frame.message_index(),
            "content_index": 0,
            "part": frame.text_part(done),
        })
    };
    let item =
        |done: bool| json!({"output_index": frame.message_index(), "item": frame.message(done)});
    let mut ending = Vec::new();
    if frame.has_message() {
        opening.push(Event::new(
            Some("response.output_item.added"),
            0,
            item(false),
        ));
        opening.push(Event::new(
            Some("response.content_part.added"),
            0,
            part(false),
        ));
        let text = json!({
            "item_id": frame.message_id(),
            "output_index": frame.message_index(),
            "content_index": 0,
            "text": frame.choice.text,
            "logprobs": [],
        });
        ending.push(Event::new(Some("response.output_text.done"), last, text));
        ending.push(Event::new(
            Some("response.content_part.done"),
            last,
            part(true),
        ));
        ending.push(Event::new(
            Some("response.output_item.done"),
            last,
            item(true),
        ));
    }
    let end = if frame.cut() {
        "response.incomplete"
    } else {
        "response.completed"
    };
    ending.push(Event::new(Some(end), last, json!({"response": document})).telling(Told::Also));
    let length = frame.choice.len();
    let middle = (0..length).flat_map(move |index| frame.events_of(index));
    let numbered = opening.into_iter().chain(middle).chain(ending).enumerate();
    Box::new(numbered.map(|(number, mut event)| {
        if let super::super::answer::Data::Json(data) = &mut event.data {
            data["type"] = json!(event.name);
            data["sequence_number"] = json!(number);
        }
        event
    }))
}
