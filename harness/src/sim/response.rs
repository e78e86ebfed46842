//! What the client got and what the upstream saw.

use bytes::{Bytes, BytesMut};

use super::Abort;
use crate::exchange::{HungReason, ResetReason};
use crate::http::Headers;
use crate::vm::Cost;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The client got a complete response.
    Answered,
    /// The client got nothing, or not all, and never will.
    Hung(HungReason),
    /// The exchange waits for something that did not come in the time it was given.
    #[default]
    Waiting,
    /// The client's connection was cut.
    Reset(ResetReason),
    /// The client went away.
    Aborted,
    /// The upstream's connection ended in the middle of its answer, and the client's with it.
    UpstreamLost,
    /// A message's body did not match its Content-Length: the receiver waits for the rest, or cuts the body off.
    Misframed {
        /// What Content-Length said.
        declared: u64,
        /// What was sent.
        sent: u64,
    },
}

/// The request as the upstream received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamRequest {
    /// The method.
    pub method: String,
    /// Path and query as they came on the wire.
    pub path: String,
    /// The Host.
    pub authority: String,
    /// The other lines, without pseudo-headers.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Headers,
}

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub(super) outcome: Outcome,
    pub(super) headers: Headers,
    pub(super) chunks: Vec<Bytes>,
    pub(super) body: Bytes,
    pub(super) trailers: Headers,
    pub(super) upstream: Option<UpstreamRequest>,
    pub(super) cost: Cost,
}

impl Response {
    /// How the exchange ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The status, 0 where there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.headers
            .get_str(":status")
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }

    /// The first value of a header, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get_str(name)
    }

    /// All lines, `:status` first.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The whole body as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body in the pieces in which the client got it.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The trailers.
    #[must_use]
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// What the upstream received; `None` when the request did not reach it.
    #[must_use]
    pub fn upstream(&self) -> Option<&UpstreamRequest> {
        self.upstream.as_ref()
    }

    /// What the exchange cost the guests, from its first callback to its last.
    #[must_use]
    pub fn cost(&self) -> &Cost {
        &self.cost
    }
}

/// An exchange of the simulation under way.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Which of all requests of the simulation it is, from 1.
    pub(super) number: u64,
    pub(super) abort: Option<Abort>,
    pub(super) request: UpstreamRequest,
    pub(super) request_body: BytesMut,
    pub(super) response: Response,
    pub(super) over: bool,
    pub(super) head: bool,
    pub(super) before: Cost,
}

impl Exchange {
    pub(super) fn new(number: u64, before: Cost, head: bool, abort: Option<Abort>) -> Self {
        Self {
            number,
            abort,
            request: UpstreamRequest::default(),
            request_body: BytesMut::new(),
            response: Response::default(),
            over: false,
            head,
            before,
        }
    }

    pub(super) fn request_headers(&mut self, headers: Headers) {
        let text = |name: &str| {
            let value = headers.get(name).cloned().unwrap_or_default();
            String::from_utf8_lossy(&value).into_owned()
        };
        self.request.method = text(":method");
        self.request.path = text(":path");
        self.request.authority = text(":authority");
        self.request.headers = headers
            .into_iter()
            .filter(|(name, _)| !name.starts_with(b":"))
            .collect();
    }

    /// The upstream reads as much as Content-Length says, and waits for ever for what does not come.
    pub(super) fn complete_request(&mut self) -> Result<(), Outcome> {
        let sent = std::mem::take(&mut self.request_body).freeze();
        let chunked = self.request.headers.contains("transfer-encoding");
        self.request.body = match declared(&self.request.headers).filter(|_| !chunked) {
            Some(declared) if declared > sent.len() as u64 => {
                return Err(Outcome::Misframed {
                    declared,
                    sent: sent.len() as u64,
                });
            }
            Some(declared) => cut(&sent, declared),
            None => sent,
        };
        Ok(())
    }

    /// The client reads as the upstream does.
    pub(super) fn complete_response(&mut self) -> Outcome {
        let sent: Bytes = self.response.chunks.concat().into();
        let bare = self.head || matches!(self.response.status(), 204 | 304);
        match declared(&self.response.headers).filter(|_| !bare) {
            Some(declared) if declared != sent.len() as u64 => {
                self.response.body = cut(&sent, declared);
                Outcome::Misframed {
                    declared,
                    sent: sent.len() as u64,
                }
            }
            _ => {
                self.response.body = sent;
                Outcome::Answered
            }
        }
    }
}

fn declared(headers: &Headers) -> Option<u64> {
    headers.get_str("content-length")?.parse().ok()
}

fn cut(body: &Bytes, declared: u64) -> Bytes {
    let end = usize::try_from(declared).unwrap_or(usize::MAX);
    body.slice(..end.min(body.len()))
}
