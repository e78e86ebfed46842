//! An answer as a value, before anything is done to it and before it is bytes.

use hyper::StatusCode;
use serde_json::Value;

use super::api::Api;
use super::refusal::Refusal;
use super::reply::Usage;

/// What a request gets.
pub(super) struct Answer {
    pub(super) api: Api,
    pub(super) status: StatusCode,
    /// Headers besides those of the content: names in lower case.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Content,
    /// What it costs, whether the client is told or not.
    pub(super) usage: Usage,
}

/// An answer's content.
pub(super) enum Content {
    /// A JSON document, due when the token with that index would be in a stream.
    Whole { document: Value, at: usize },
    /// Events as they are due.
    Events { form: Form, events: Events },
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events.
    Sse,
    /// The elements of one JSON array, as Gemini streams without `alt=sse`.
    Array,
}

pub(super) type Events = Box<dyn Iterator<Item = Event> + Send>;

/// An event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: Option<&'static str>,
    pub(super) data: Data,
    /// The index of the token it waits for.
    pub(super) at: usize,
    pub(super) tally: Tally,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Json(Value),
    /// `[DONE]`, with which OpenAI ends a stream.
    Done,
}

/// What a client has when it has a piece of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Completion tokens.
    pub(super) tokens: usize,
    pub(super) usage: Told,
}

/// Whether an event tells the usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    No,
    /// It tells the prompt's tokens, and how many of the completion's there are so far.
    SoFar { completion: usize },
    /// It tells all of it, and says other things too.
    Also,
    /// It is there for nothing else.
    Only,
}

impl Answer {
    pub(super) fn whole(api: Api, document: Value) -> Self {
        Self {
            api,
            status: StatusCode::OK,
            headers: Vec::new(),
            content: Content::Whole { document, at: 0 },
            usage: Usage::default(),
        }
    }

    pub(super) fn refusal(api: Api, refusal: &Refusal) -> Self {
        Self {
            status: refusal.status(),
            ..Self::whole(api, refusal.body(api.family()))
        }
    }
}

impl Event {
    /// An event that waits for the token with that index and carries none.
    pub(super) fn new(name: Option<&'static str>, at: usize, data: Value) -> Self {
        Self {
            name,
            data: Data::Json(data),
            at,
            tally: Tally::default(),
        }
    }

    /// `[DONE]`.
    pub(super) fn done(at: usize) -> Self {
        Self {
            data: Data::Done,
            ..Self::new(None, at, Value::Null)
        }
    }

    pub(super) fn carrying(mut self, tokens: usize) -> Self {
        self.tally.tokens = tokens;
        self
    }

    pub(super) fn telling(mut self, usage: Told) -> Self {
        self.tally.usage = usage;
        self
    }
}
