//! The fields as they are written: those of Kong's two plugins, and Tollgate's own.

use std::borrow::Cow;
use tollgate_kit::config::{Field, Reader, Table};
use tollgate_kit::host::HostKind;
use tollgate_kit::json::{Kind, Value};
use tollgate_kit::reply::ErrorFormat;
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;
use tollgate_kit::{keyword, record};

keyword! {
    /// Whose behaviour, where Tollgate's is better by default.
    pub enum Compat {
        /// Kong's, to the letter.
        Kong = "kong",
    }
}

keyword! {
    /// What happens to a message whose body is too large for its body rules.
    pub enum LargeBody {
        /// It goes on with its body as it is.
        Pass = "pass",
        /// A request is answered with 413; a response has begun by then, and goes on.
        Refuse = "refuse",
    }
}

keyword! {
    /// The type of a JSON value that is written as a text.
    pub enum JsonType {
        /// `true` is true, anything else false.
        Boolean = "boolean",
        /// A number; a rule whose value is none is skipped.
        Number = "number",
        /// The text itself.
        String = "string",
    }
}

record! {
    /// Rules for requests and responses. Kong's plugin configurations go into `request` and `response` as they are.
    pub struct RawConfig {
        /// Kong's `request-transformer`.
        pub request: Option<RawRequest>,
        /// Kong's `response-transformer`.
        pub response: Option<RawResponse>,
        /// Rules for values anywhere in JSON request bodies; a text may hold a template.
        pub request_json: Option<RawJson>,
        /// Rules for values anywhere in JSON response bodies.
        pub response_json: Option<RawJson>,
        /// Which messages the rules above are for. Default: all.
        pub when: Option<RawWhen>,
        /// A regular expression for the start of the path, whose groups are `uri_captures` in templates: outside Kong no host knows
        /// captures. `/user/(?<name>\w+)` gives `uri_captures.name` and `uri_captures[1]`.
        pub uri_pattern: Option<String>,
        /// More sets of rules, each with its own condition. They see what the ones before have done.
        pub sets: Vec<RawSet> = Vec::new(),
        /// Apply the JSON rules of responses to each event of a `text/event-stream`, as it passes.
        pub sse: bool = false,
        /// Allow rules on `max_tokens` and its like, which token-rate-limit has counted by then: only where there is none.
        pub owns_max_tokens: bool = false,
        /// The largest body, in bytes, that is held for body rules.
        pub max_body_bytes: u64 = 1_048_576,
        /// What happens to a message whose body is larger, or can't be read.
        pub large_body: LargeBody = LargeBody::Pass,
        /// The shape of error answers: `kong` (by `Accept`) or `openai`.
        pub error_format: ErrorFormat = ErrorFormat::Kong,
        /// Where the filter runs: `envoy` (with `allow_on_headers_stop_iteration`), `envoy-headers-pass` (without it, as under
        /// Istio's WasmPlugin) or `kong`. Left out, Envoy and Kong are told apart at the first request.
        pub host: Option<HostKind>,
        /// `kong` gives Kong's behaviour to the letter where Tollgate's differs.
        pub compat: Option<Compat>,
    }
}

record! {
    /// Rules with a condition.
    pub struct RawSet {
        /// Which messages they are for. Default: all.
        pub when: Option<RawWhen>,
        /// Kong's `request-transformer`.
        pub request: Option<RawRequest>,
        /// Kong's `response-transformer`.
        pub response: Option<RawResponse>,
        /// Rules for values anywhere in JSON request bodies; a text may hold a template.
        pub request_json: Option<RawJson>,
        /// Rules for values anywhere in JSON response bodies.
        pub response_json: Option<RawJson>,
        /// A regular expression for the start of the path, whose groups are `uri_captures` in templates.
        pub uri_pattern: Option<String>,
    }
}

record! {
    /// Kong's `request-transformer`, field for field. Values may hold templates, `$(headers.x)`.
    pub struct RawRequest {
        /// The method that the upstream gets, in capital letters.
        pub http_method: Option<String>,
        /// What to take out, by name.
        pub remove: Option<RawRequestNames>,
        /// What to rename, as `old:new`.
        pub rename: Option<RawRequestRules>,
        /// What to replace where it is there, as `name:value`.
        pub replace: Option<RawRequestReplace>,
        /// What to add where it is not there, as `name:value`.
        pub add: Option<RawRequestRules>,
        /// What to add in any case, as `name:value`.
        pub append: Option<RawRequestRules>,
    }
}

record! {
    /// Names in a request.
    pub struct RawRequestNames {
        /// Of headers.
        pub headers: List<String> = List::empty(),
        /// Of arguments of the query.
        pub querystring: List<String> = List::empty(),
        /// Of fields of a form, parts of a multipart form, or members of a JSON object.
        pub body: List<String> = List::empty(),
    }
}

record! {
    /// Rules for a request, each `name:value`.
    pub struct RawRequestRules {
        /// For headers.
        pub headers: List<String> = List::empty(),
        /// For arguments of the query.
        pub querystring: List<String> = List::empty(),
        /// For fields of a form, parts of a multipart form, or members of a JSON object.
        pub body: List<String> = List::empty(),
    }
}

record! {
    /// Rules for a request, each `name:value`, and the path.
    pub struct RawRequestReplace {
        /// For headers; `host` too.
        pub headers: List<String> = List::empty(),
        /// For arguments of the query.
        pub querystring: List<String> = List::empty(),
        /// For fields of a form, parts of a multipart form, or members of a JSON object.
        pub body: List<String> = List::empty(),
        /// The path that the upstream gets; the query stays.
        pub uri: Option<String>,
    }
}

record! {
    /// Kong's `response-transformer`, field for field.
    pub struct RawResponse {
        /// What to take out, by name.
        pub remove: Option<RawResponseNames>,
        /// What to rename, as `old:new`.
        pub rename: Option<RawResponseNames>,
        /// What to replace where it is there, as `name:value`.
        pub replace: Option<RawResponseRules>,
        /// What to add where it is not there, as `name:value`.
        pub add: Option<RawResponseRules>,
        /// What to add in any case, as `name:value`.
        pub append: Option<RawResponseRules>,
    }
}

record! {
    /// Names in a response.
    pub struct RawResponseNames {
        /// Of headers.
        pub headers: List<String> = List::empty(),
        /// Of members of a JSON object.
        pub json: List<String> = List::empty(),
    }
}

record! {
    /// Rules for a response, each `name:value`.
    pub struct RawResponseRules {
        /// For headers.
        pub headers: List<String> = List::empty(),
        /// For members of a JSON object.
        pub json: List<String> = List::empty(),
        /// The types of the values in `json`, in the same order; `string` where there is none.
        pub json_types: List<JsonType> = List::empty(),
    }
}

record! {
    /// Rules by path: `/messages/0/role` (a JSON Pointer) or `metadata.user`; `*` stands for every element of a list.
    pub struct RawJson {
        /// Paths of what to take out.
        pub remove: Vec<String> = Vec::new(),
        /// Paths with what to put there; objects on the way are made.
        pub set: Table<Literal> = Table(Vec::new()),
        /// The same, where nothing is there, or null.
        pub set_if_absent: Table<Literal> = Table(Vec::new()),
        /// Paths with the largest number that may be there.
        pub at_most: Table<Literal> = Table(Vec::new()),
        /// Paths with the smallest number that may be there.
        pub at_least: Table<Literal> = Table(Vec::new()),
    }
}

record! {
    /// A condition: all that is given has to hold. `*` in a text stands for anything.
    pub struct RawWhen {
        /// Methods.
        pub methods: Vec<String> = Vec::new(),
        /// Paths, without the query, as `/v1/chat/*`.
        pub paths: Vec<String> = Vec::new(),
        /// Request headers with values, as `{"x-team": "blue*"}`; `*` asks for the header only.
        pub headers: Table<String> = Table(Vec::new()),
        /// Ids or usernames of consumers, as an earlier filter has authenticated them.
        pub consumers: Vec<String> = Vec::new(),
        /// Groups of consumers.
        pub groups: Vec<String> = Vec::new(),
        /// The `model` of a JSON request body.
        pub models: Vec<String> = Vec::new(),
        /// Statuses of responses: `404`, `"2xx"`, `"400-499"`.
        pub statuses: Vec<Statuses> = Vec::new(),
        /// Media types of the message that the rules are for, without parameters.
        pub content_types: Vec<String> = Vec::new(),
    }
}

/// A list that Kong does not take null for.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

impl<T> List<T> {
    /// No elements.
    #[must_use]
    pub fn empty() -> List<T> {
        List(Vec::new())
    }
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List::empty()
    }
}

impl<T: Field> Field for List<T> {
    const NULL_IS_ABSENT: bool = false;

    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<List<T>> {
        if matches!(value.kind(), Kind::Null) {
            reader.error("required field missing: write [], or leave it out");
            return None;
        }
        Vec::read(value, reader).map(List)
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        Vec::<T>::schema()
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        self.0.to_json()
    }
}

/// Any JSON value, by its text; in a string, `${env:NAME}` is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// A string, decoded.
    Text(String),
    /// Anything else, as it is spelled.
    Other(Vec<u8>),
}

impl Field for Literal {
    const NULL_IS_ABSENT: bool = false;

    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Literal> {
        Some(match value.kind() {
            Kind::String => Literal::Text(reader.text(value)?.into_owned()),
            _ => Literal::Other(value.text().to_vec()),
        })
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        match self {
            Literal::Text(text) => Json::from(text.as_str()),
            Literal::Other(text) => serde_json::from_slice(text).unwrap_or_default(),
        }
    }
}

/// Statuses, from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses(pub u16, pub u16);

impl Statuses {
    fn parse(text: &str) -> Option<Statuses> {
        let status = |text: &str| {
            let status: u16 = text.parse().ok()?;
            (100..=599).contains(&status).then_some(status)
        };
        if let Some(class) = text.strip_suffix("xx") {
            let low = status(&format!("{class}00"))?;
            return Some(Statuses(low, low.saturating_add(99)));
        }
        match text.split_once('-') {
            Some((low, high)) => {
                let (low, high) = (status(low)?, status(high)?);
                (low <= high).then_some(Statuses(low, high))
            }
            None => status(text).map(|status| Statuses(status, status)),
        }
    }
}

impl Field for Statuses {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Statuses> {
        let text = match value.kind() {
            Kind::Number(text) => Cow::Borrowed(text),
            _ => reader.text(value)?,
        };
        let statuses = Statuses::parse(&text);
        if statuses.is_none() {
            reader.error("expected a status: 404, \"2xx\" or \"400-499\"");
        }
        statuses
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": ["string", "integer"]})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(format!("{}-{}", self.0, self.1))
    }
}
