//! What a scripted client sends.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;

use super::answer::pieces;
use crate::exchange::Event;
use crate::http::Headers;

/// A request, written line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) authority: Bytes,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) pieces: Vec<usize>,
    pub(super) trailers: Headers,
    pub(super) client: IpAddr,
    pub(super) protocol: String,
    pub(super) after: Duration,
    pub(super) pace: Duration,
    pub(super) abort: Option<Abort>,
}

/// When a client goes away before its exchange is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// When all pieces of the request are sent, instead of saying that the request ends there.
    BeforeEnd,
    /// When the response's headers are there, unless they are all of it.
    AtResponseHeaders,
    /// When so many pieces of the response's body are there, counted from 1, unless the last one is the end.
    AfterChunks(usize),
    /// When so much virtual time has passed since it connected.
    After(Duration),
}

/// What a client does at a moment of its script.
pub(super) enum Said {
    Event(Event),
    /// It goes away.
    Nothing,
}

impl Request {
    /// A request for `target` (path and query as they go on the wire) on host `gateway.test`.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            authority: Bytes::from_static(b"gateway.test"),
            headers: Headers::new(),
            body: Bytes::new(),
            pieces: Vec::new(),
            trailers: Headers::new(),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            protocol: "HTTP/1.1".to_owned(),
            after: Duration::ZERO,
            pace: Duration::ZERO,
            abort: None,
        }
    }

    /// A GET request.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST request.
    #[must_use]
    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// Adds a header line. `host` replaces the default one.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        if name.eq_ignore_ascii_case("host") {
            self.authority = value.into();
        } else {
            self.headers.push(name.to_owned(), value);
        }
        self
    }

    /// Sets the body. A Content-Length is added when the request is sent, unless one or a Transfer-Encoding is given.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The body arrives in pieces of these lengths, what is left as the last one.
    #[must_use]
    pub fn delivered_in(mut self, pieces: &[usize]) -> Self {
        self.pieces = pieces.to_vec();
        self
    }

    /// Adds a trailer line.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.trailers.push(name.to_owned(), value);
        self
    }

    /// The client's address.
    #[must_use]
    pub fn client(mut self, address: IpAddr) -> Self {
        self.client = address;
        self
    }

    /// The protocol, `HTTP/1.1` unless set.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        protocol.clone_into(&mut self.protocol);
        self
    }

    /// The headers come so much later than the connection, in virtual time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// Each piece of the body, and the end, comes so much later than what was before, in virtual time.
    #[must_use]
    pub fn paced(mut self, gap: Duration) -> Self {
        self.pace = gap;
        self
    }

    /// The client goes away.
    #[must_use]
    pub fn aborted(mut self, abort: Abort) -> Self {
        self.abort = Some(abort);
        self
    }

    /// What the client does, and how long after it connected.
    pub(super) fn script(self) -> Vec<(Duration, Said)> {
        let (mut at, pace, abort) = (self.after, self.pace, self.abort);
        let mut script = Vec::new();
        for event in self.into_events() {
            script.push((at, Said::Event(event)));
            at = at.saturating_add(pace);
        }
        match abort {
            Some(Abort::BeforeEnd) => {
                if let Some((_, last)) = script.last_mut() {
                    *last = Said::Nothing;
                }
            }
            Some(Abort::After(delay)) => script.push((delay, Said::Nothing)),
            Some(Abort::AtResponseHeaders | Abort::AfterChunks(_)) | None => {}
        }
        script
    }

    /// What the worker is told, in order.
    fn into_events(self) -> Vec<Event> {
        let mut headers = Headers::new();
        headers.push(":method", self.method.clone());
        headers.push(":path", self.target);
        headers.push(":authority", self.authority);
        headers.push(":scheme", "http");
        let framed =
            self.headers.contains("content-length") || self.headers.contains("transfer-encoding");
        for (name, value) in self.headers {
            headers.push(name, value);
        }
        let takes_body = matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        if !framed && (takes_body || !self.body.is_empty()) {
            headers.push("content-length", self.body.len().to_string());
        }
        let bodyless = self.body.is_empty() && self.trailers.is_empty();
        let mut events = vec![Event::RequestHeaders {
            headers,
            end: bodyless,
        }];
        if bodyless {
            return events;
        }
        for chunk in pieces(self.body, &self.pieces) {
            events.push(Event::RequestBody { chunk, end: false });
        }
        events.push(if self.trailers.is_empty() {
            Event::RequestBody {
                chunk: Bytes::new(),
                end: true,
            }
        } else {
            Event::RequestTrailers(self.trailers)
        });
        events
    }
}
