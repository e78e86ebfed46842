//! What templates read from, in one request (KONG-SPEC 0.4, 4.8).

use crate::config::RuleSet;
use crate::header_draft::HeaderDraft;
use crate::request::Request;
use crate::template::{Source, Sources, Value};
use regex_lite::Captures;
use std::cell::{Cell, OnceCell, RefCell};
use tollgate_kit::args::{self, MOST_ARGUMENTS};
use tollgate_kit::host::Host;

/// The request as one set of rules sees it. Headers and arguments are read once, when a template first asks for them: one that asks
/// before the header rules sees them as they came, and so does every later one.
pub struct RequestSources<'a> {
    host: &'a dyn Host,
    request: &'a Request,
    set: &'a RuleSet,
    kong: bool,
    before: HeaderDraft<'a>,
    after: RefCell<Option<HeaderDraft<'a>>>,
    /// Which of the two is read: set by the first look.
    reads_after: Cell<Option<bool>>,
    query: RefCell<Vec<u8>>,
    arguments: OnceCell<Vec<(Vec<u8>, Value)>>,
    captures: OnceCell<Option<Captures<'a>>>,
}

impl<'a> RequestSources<'a> {
    /// The request before the rules of this set.
    pub fn new(
        host: &'a dyn Host,
        request: &'a Request,
        set: &'a RuleSet,
        kong: bool,
        headers: HeaderDraft<'a>,
        query: Option<&[u8]>,
    ) -> RequestSources<'a> {
        RequestSources {
            host,
            request,
            set,
            kong,
            before: headers,
            after: RefCell::new(None),
            reads_after: Cell::new(None),
            query: RefCell::new(query.unwrap_or_default().to_vec()),
            arguments: OnceCell::new(),
            captures: OnceCell::new(),
        }
    }

    /// The header rules have been applied.
    pub fn headers_done(&self, headers: &HeaderDraft<'a>) {
        if self.reads_after.get().is_none() && self.set.reads(Source::Headers) {
            self.after.replace(Some(headers.clone()));
        }
    }

    /// The query has changed before its rules.
    pub fn query_changed(&self, query: &[u8]) {
        self.query.replace(query.to_vec());
    }

    fn header(&self, name: &[u8]) -> Vec<Value> {
        let Ok(name) = std::str::from_utf8(name) else {
            return Vec::new();
        };
        if name.is_empty() || name.starts_with(':') {
            return Vec::new();
        }
        let after = self.after.borrow();
        let reads_after = self.reads_after.get().unwrap_or(after.is_some());
        self.reads_after.set(Some(reads_after));
        let headers = after
            .as_ref()
            .filter(|_| reads_after)
            .unwrap_or(&self.before);
        let lower = name.to_ascii_lowercase();
        let mut values = Vec::new();
        if !self.kong || name == lower {
            values = headers.values(&lower);
        }
        if values.is_empty() {
            values = headers.values(&lower.replace('_', "-"));
        }
        if values.is_empty() && lower == "host" {
            values = headers.values(":authority");
        }
        values
            .into_iter()
            .map(|value| Value::Text(value.to_vec()))
            .collect()
    }

    fn captures(&self) -> Option<&Captures<'a>> {
        let find = || {
            let path = std::str::from_utf8(&self.request.path).ok()?;
            self.set.uri_pattern.as_ref()?.captures(path)
        };
        self.captures.get_or_init(find).as_ref()
    }

    fn consumer(&self, name: &[u8]) -> Vec<Value> {
        let Some(identity) = &self.request.identity else {
            return Vec::new();
        };
        let text = |text: &String| Value::Text(text.clone().into_bytes());
        let one = |value: Option<&String>| value.map(text).into_iter().collect();
        match name {
            b"id" => one(Some(&identity.consumer)),
            b"username" => one(identity.username.as_ref()),
            b"custom_id" => one(identity.custom_id.as_ref()),
            b"credential" => one(identity.credential.as_ref()),
            b"groups" => identity.groups.iter().map(text).collect(),
            _ => Vec::new(),
        }
    }
}

impl Sources for RequestSources<'_> {
    fn look_up(&self, source: Source, name: &[u8]) -> Vec<Value> {
        match source {
            Source::Headers => self.header(name),
            Source::Query => {
                let arguments = self.arguments.get_or_init(|| read(&self.query.borrow()));
                arguments
                    .iter()
                    .filter(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
                    .collect()
            }
            Source::Captures => {
                let named = std::str::from_utf8(name)
                    .ok()
                    .and_then(|name| self.captures()?.name(name));
                named
                    .map(|capture| Value::Text(capture.as_str().into()))
                    .into_iter()
                    .collect()
            }
            Source::Shared => std::str::from_utf8(name)
                .ok()
                .filter(|name| !name.is_empty())
                .and_then(|name| self.host.shared(name))
                .map(Value::Text)
                .into_iter()
                .collect(),
            Source::Consumer => self.consumer(name),
        }
    }

    fn at(&self, source: Source, index: usize) -> Option<Value> {
        if source != Source::Captures {
            return None;
        }
        let capture = self.captures()?.get(index)?;
        Some(Value::Text(capture.as_str().into()))
    }

    fn shows_tables(&self) -> bool {
        self.kong
    }
}

fn read(query: &[u8]) -> Vec<(Vec<u8>, Value)> {
    args::parse(query)
        .take(MOST_ARGUMENTS)
        .map(|argument| {
            let value = match argument.value {
                Some(value) => Value::Text(value.into_owned()),
                None => Value::Bool(true),
            };
            (argument.name.into_owned(), value)
        })
        .collect()
}
