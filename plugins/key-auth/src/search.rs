//! Where a key is looked for, and what the request looks like without it (KONG-SPEC 1.2, 1.3, 1.5).

use crate::config::{KeyName, Rules};
use crate::payload::{Found, Payload, may_hold_key};
use crate::scheme;
use std::borrow::Cow;
use tollgate_kit::args::{self, Unescaped};
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::step::{HeaderEdit, RequestEdits};

/// A request as far as it is needed to find a key.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    pub(crate) query: Option<Vec<u8>>,
}

/// What a search found.
#[derive(Debug)]
pub(crate) enum Search<'r> {
    /// A key, and the name it stood under.
    Key(Cow<'r, [u8]>, &'r KeyName),
    /// Several under one name.
    Duplicate,
    /// None.
    Missing,
    /// The body has to be looked at first.
    NeedsBody,
}

impl Request {
    fn content_type(&self) -> &[u8] {
        self.headers.first("content-type").unwrap_or_default()
    }

    fn query(&self) -> &[u8] {
        self.query.as_deref().unwrap_or_default()
    }

    /// Looks for a key: name by name, and for each name header, query, body. What is there hides what comes after it for that
    /// name, even where it is empty or no text. `body` is `None` as long as it has not been read.
    pub(crate) fn search<'r>(&'r self, rules: &'r Rules, body: Option<&'r [u8]>) -> Search<'r> {
        let wants_body = rules.in_body && may_hold_key(self.content_type());
        let payload = body
            .filter(|_| wants_body)
            .map(|body| Payload::read(self.content_type(), body));
        for name in &rules.names {
            let mut found = Found::Absent;
            if rules.in_header {
                found = self.in_headers(name, rules);
            }
            if found == Found::Absent && rules.in_query {
                let arguments = args::parse(self.query()).take(args::MOST_ARGUMENTS);
                found = Found::among(
                    arguments
                        .filter(|argument| argument.name == name.name.as_bytes())
                        .map(|argument| argument.value),
                );
            }
            if found == Found::Absent && wants_body {
                match payload {
                    Some(payload) => found = payload.find(name.name.as_bytes(), rules.kong),
                    None => return Search::NeedsBody,
                }
            }
            match found {
                // Hiding a key takes it out of the body as well, wherever it was found.
                Found::Text(_) if rules.hide && wants_body && body.is_none() => {
                    return Search::NeedsBody;
                }
                Found::Text(text) if text.is_empty() => return Search::Missing,
                Found::Text(text) => return Search::Key(text, name),
                Found::Several => return Search::Duplicate,
                Found::NoText | Found::Absent => {}
            }
        }
        Search::Missing
    }

    fn in_headers(&self, name: &KeyName, rules: &Rules) -> Found<'_> {
        for header in &name.headers {
            let values = self.headers.all(header).map(|value| {
                Some(if name.authorization {
                    scheme::unwrap(value, &rules.schemes)
                } else {
                    Cow::Borrowed(value)
                })
            });
            match Found::among(values) {
                Found::Absent => {}
                found => return found,
            }
        }
        Found::Absent
    }

    /// Takes everything of this name out of the request.
    pub(crate) fn hide(
        &self,
        name: &KeyName,
        rules: &Rules,
        body: Option<&[u8]>,
        edits: &mut RequestEdits,
    ) {
        // Kong takes out the header as it is configured, and leaves the other spelling that it accepts (a credential leak).
        let headers = if rules.kong {
            name.headers.get(..1).unwrap_or_default()
        } else {
            &name.headers
        };
        for header in headers
            .iter()
            .filter(|header| self.headers.all(header).next().is_some())
        {
            edits
                .headers
                .push(HeaderEdit::Remove(Cow::Owned(header.clone())));
        }
        if args::parse(self.query()).any(|argument| argument.name == name.name.as_bytes()) {
            edits.query = Some(if rules.kong {
                canonical_without(self.query(), name.name.as_bytes())
            } else {
                args::without(self.query(), name.name.as_bytes())
            });
        }
        if let Some(body) = body.filter(|body| rules.in_body && !body.is_empty()) {
            let payload = Payload::read(self.content_type(), body);
            edits.body = if rules.kong {
                payload.rewritten_without(name.name.as_bytes())
            } else {
                payload.without(name.name.as_bytes())
            };
        }
    }
}

/// The query without one name, every argument written anew as Kong does it: order kept, escapes and spaces made alike, a flag given
/// its `=`.
fn canonical_without(query: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for argument in args::parse(query).filter(|argument| argument.name != name) {
        if !out.is_empty() {
            out.push(b'&');
        }
        args::encode(&argument.name, Unescaped::Form, &mut out);
        out.push(b'=');
        args::encode(
            argument.value.as_deref().unwrap_or_default(),
            Unescaped::Form,
            &mut out,
        );
    }
    out
}
