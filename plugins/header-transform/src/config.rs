//! The configuration: what is written, and what requests are transformed by. Everything is parsed here; nothing is in a request.

mod raw;
mod validate;

pub use raw::*;
pub(crate) use validate::is_header_value;

use crate::condition::Condition;
use crate::json_path::{JsonPath, Number};
use crate::template::{Source, Template};
use regex_lite::Regex;
use tollgate_kit::host::HostKind;
use tollgate_kit::reply::ErrorFormat;

/// The validated configuration.
#[derive(Debug)]
pub struct Config {
    pub(crate) sets: Vec<RuleSet>,
    pub(crate) sse: bool,
    pub(crate) max_body: usize,
    pub(crate) large_body: LargeBody,
    pub(crate) error_format: ErrorFormat,
    pub(crate) host: Option<HostKind>,
    pub(crate) kong: bool,
}

/// Rules with a condition.
#[derive(Debug, Default)]
pub(crate) struct RuleSet {
    pub(crate) when: Condition,
    pub(crate) request: RequestRules,
    pub(crate) response: ResponseRules,
    pub(crate) request_json: JsonRules,
    pub(crate) response_json: JsonRules,
    pub(crate) uri_pattern: Option<Regex>,
}

/// A name and what it is to be.
#[derive(Debug)]
pub(crate) struct Rule<V> {
    pub(crate) name: String,
    pub(crate) value: V,
}

/// Kong's five lists.
#[derive(Debug)]
pub(crate) struct Rules<V, R = V> {
    pub(crate) remove: Vec<String>,
    pub(crate) rename: Vec<Rule<R>>,
    pub(crate) replace: Vec<Rule<V>>,
    pub(crate) add: Vec<Rule<V>>,
    pub(crate) append: Vec<Rule<V>>,
}

impl<V, R> Default for Rules<V, R> {
    fn default() -> Self {
        Rules {
            remove: Vec::new(),
            rename: Vec::new(),
            replace: Vec::new(),
            add: Vec::new(),
            append: Vec::new(),
        }
    }
}

impl<V, R> Rules<V, R> {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.replace.is_empty()
            && self.add.is_empty()
            && self.append.is_empty()
    }
}

/// What happens to requests.
#[derive(Debug, Default)]
pub(crate) struct RequestRules {
    pub(crate) method: Option<Method>,
    pub(crate) uri: Option<Template>,
    /// The upstream's `Host`.
    pub(crate) authority: Option<Template>,
    pub(crate) headers: Rules<Template, String>,
    pub(crate) query: Rules<Template>,
    pub(crate) body: Rules<Template>,
}

/// The method that the upstream gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    pub(crate) name: String,
    /// Kong does not know it, and fails. Only with `compat: kong`.
    pub(crate) unknown: bool,
}

impl Method {
    /// Whether a form's fields go into the query.
    pub(crate) fn moves_form(&self) -> bool {
        matches!(self.name.as_str(), "GET" | "HEAD" | "TRACE")
    }
}

/// What happens to responses.
#[derive(Debug, Default)]
pub(crate) struct ResponseRules {
    pub(crate) headers: Rules<Vec<u8>, String>,
    /// Values are JSON texts.
    pub(crate) json: Rules<Vec<u8>, String>,
}

/// Rules by path, in the order in which they apply.
#[derive(Debug, Default)]
pub(crate) struct JsonRules(pub(crate) Vec<JsonRule>);

#[derive(Debug)]
pub(crate) struct JsonRule {
    pub(crate) path: JsonPath,
    pub(crate) change: JsonChange,
}

#[derive(Debug)]
pub(crate) enum JsonChange {
    Remove,
    Set(JsonValue),
    SetIfAbsent(JsonValue),
    AtMost(Number),
    AtLeast(Number),
}

/// A value to be written.
#[derive(Debug)]
pub(crate) enum JsonValue {
    /// A JSON text.
    Literal(Vec<u8>),
    /// The content of a string.
    Template(Template),
}

impl RuleSet {
    /// Whether it does anything with requests.
    pub(crate) fn edits_requests(&self) -> bool {
        let request = &self.request;
        request.method.is_some()
            || request.uri.is_some()
            || request.authority.is_some()
            || !request.headers.is_empty()
            || !request.query.is_empty()
            || self.edits_request_bodies()
    }

    /// Whether it has rules for the bodies of requests.
    pub(crate) fn edits_request_bodies(&self) -> bool {
        !self.request.body.is_empty() || !self.request_json.0.is_empty()
    }

    /// Whether it does anything with responses.
    pub(crate) fn edits_responses(&self) -> bool {
        !self.response.headers.is_empty() || self.edits_response_bodies()
    }

    /// Whether it has rules for the bodies of responses.
    pub(crate) fn edits_response_bodies(&self) -> bool {
        !self.response.json.is_empty() || !self.response_json.0.is_empty()
    }

    /// Every template of its rules.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &Template> {
        let request = &self.request;
        fn values(rules: [&[Rule<Template>]; 3]) -> impl Iterator<Item = &Template> {
            rules.into_iter().flatten().map(|rule| &rule.value)
        }
        let headers = &request.headers;
        let json = self
            .request_json
            .0
            .iter()
            .filter_map(|rule| match &rule.change {
                JsonChange::Set(JsonValue::Template(template))
                | JsonChange::SetIfAbsent(JsonValue::Template(template)) => Some(template),
                _ => None,
            });
        let named = [&request.query, &request.body]
            .into_iter()
            .flat_map(|rules| {
                values([&rules.replace, &rules.add, &rules.append])
                    .chain(rules.rename.iter().map(|rule| &rule.value))
            });
        values([&headers.replace, &headers.add, &headers.append])
            .chain(named)
            .chain(json)
            .chain(&request.uri)
            .chain(&request.authority)
    }

    /// Whether a template reads from a source.
    pub(crate) fn reads(&self, source: Source) -> bool {
        self.templates().any(|template| template.reads(source))
    }
}

#[cfg(test)]
mod tests;
