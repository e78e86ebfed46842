//! What the client got and what the upstream saw.

use bytes::Bytes;

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
