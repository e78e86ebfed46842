//! One HTTP exchange as the machine sees it: what happens to it ([`Event`]) and what is to be done ([`Action`]).

mod arrival;
mod joined;
mod phased;
mod register;
mod state;
mod streamed;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use joined::join_lines;
pub(crate) use register::Register;
pub(crate) use state::{Direction, Exchange, Message, Reply, Seat};

use crate::http::Headers;

/// Names an exchange of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub(crate) u64);

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The two ends of the client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's address.
    pub source: SocketAddr,
    /// The address the client connected to.
    pub destination: SocketAddr,
    /// `http` or `https`.
    pub scheme: String,
    /// `HTTP/1.1` and the like.
    pub protocol: String,
}

/// What happens to an exchange.
///
/// Request headers carry `:method`, `:path`, `:authority` and `:scheme`, response headers `:status`.
/// `end` tells that nothing follows. Events of a direction that is over are ignored.
#[derive(Clone, Debug)]
pub enum Event {
    /// The client's headers are complete.
    RequestHeaders {
        /// The lines, pseudo-headers first.
        headers: Headers,
        /// Whether there is no body.
        end: bool,
    },
    /// The client sent a piece of the body.
    RequestBody {
        /// The piece; may be empty together with `end`.
        chunk: Bytes,
        /// Whether it is the last.
        end: bool,
    },
    /// The client ended its body with trailers.
    RequestTrailers(Headers),
    /// The upstream's headers are complete. An upstream that can't be reached is an answer that the driver makes.
    ResponseHeaders {
        /// The lines, `:status` first.
        headers: Headers,
        /// Whether there is no body.
        end: bool,
    },
    /// The upstream sent a piece of the body.
    ResponseBody {
        /// The piece; may be empty together with `end`.
        chunk: Bytes,
        /// Whether it is the last.
        end: bool,
    },
    /// The upstream ended its body with trailers.
    ResponseTrailers(Headers),
    /// A call that a filter made is over.
    CallDone(CallId, CallOutcome),
}

/// What the driver is to do for an exchange, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Choose the upstream and send it these headers.
    SendRequestHeaders {
        /// The lines, pseudo-headers first; `:path` is the request target as it goes on the wire.
        headers: Headers,
        /// Whether no body follows.
        end: bool,
    },
    /// Send the upstream a piece of the body.
    SendRequestBody {
        /// The piece; may be empty together with `end`.
        chunk: Bytes,
        /// Whether it is the last.
        end: bool,
    },
    /// End the request with trailers.
    SendRequestTrailers(Headers),
    /// Send the client these headers, of the upstream's answer or of a filter's own.
    SendResponseHeaders {
        /// The lines, `:status` first.
        headers: Headers,
        /// Whether no body follows.
        end: bool,
    },
    /// Send the client a piece of the body.
    SendResponseBody {
        /// The piece; may be empty together with `end`.
        chunk: Bytes,
        /// Whether it is the last.
        end: bool,
    },
    /// End the response with trailers.
    SendResponseTrailers(Headers),
    /// Give the upstream up: the answer comes from here. Comes only after [`Action::SendRequestHeaders`].
    DropUpstream,
    /// Make this call; its end is told by [`Event::CallDone`].
    Call(Call),
    /// Forget a call: its answer is wanted no more.
    CancelCall(CallId),
    /// Cut the client's connection (and the upstream's).
    Reset(ResetReason),
    /// Nothing will ever happen again in this exchange by itself; a proxy answers 504 and writes a line.
    Hung(HungReason),
}

/// Why an exchange is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResetReason {
    /// A filter failed after the response's headers had gone.
    #[error("a filter failed after the response had begun")]
    FilterFailed,
    /// A filter answered after the response's headers had gone.
    #[error("a filter replied after the response had begun")]
    LateReply,
    /// The response body outgrew the buffer while a filter held it, after the headers had gone.
    #[error("a filter held more of the response body than the buffer takes")]
    ResponseTooLarge,
    /// Strict: a filter did what does not work on every host, after the response's headers had gone.
    #[error("a filter did what does not work on every host, after the response had begun")]
    NotPortable,
    /// A filter asked for it.
    #[error("a filter closed the stream")]
    ClosedByFilter,
    /// The host's worker would have died here; see [`crate::vm::TrapReport`].
    #[error("the host's worker process would have crashed")]
    WorkerCrash,
}

/// Why an exchange hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HungReason {
    /// `Pause` from the request headers with no call under way: nothing wakes the request on this host.
    #[error("on_request_headers paused with no call under way: this host never resumes it")]
    PausedHeaders,
    /// The VM of a filter that waits for a call's answer has trapped, in this callback or for another request.
    #[error(
        "a filter waits for a call's answer and its VM has trapped: this host never resumes it"
    )]
    DeadFilter,
    /// `Pause` from the request body with no call under way.
    #[error("on_request_body paused with no call under way: this host never resumes it")]
    PausedBody,
}

/// Names a call of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub(crate) u32);

/// An HTTP call that a filter makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Names it in its [`CallOutcome`].
    pub id: CallId,
    /// Where to: a cluster's name (Envoy) or `host:port` (Kong).
    pub upstream: String,
    /// The lines, with `:method`, `:path` and mostly `:authority`.
    pub headers: Headers,
    /// The whole body.
    pub body: Bytes,
    /// The trailers; mostly none.
    pub trailers: Headers,
    /// After this long without a complete answer the driver reports [`CallFailure::Timeout`].
    pub timeout: Duration,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// A complete answer, of any status.
    Response {
        /// The lines, `:status` first.
        headers: Headers,
        /// The whole body.
        body: Bytes,
        /// The trailers; mostly none.
        trailers: Headers,
    },
    /// No complete answer. What a guest sees of it is the profile's matter.
    Failed(CallFailure),
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallFailure {
    /// The name leads nowhere.
    #[error("the upstream is not known")]
    UnknownUpstream,
    /// The connection was refused.
    #[error("the connection was refused")]
    Refused,
    /// No complete answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection ended before an answer.
    #[error("the connection ended before an answer")]
    Reset,
    /// The answer began, and no complete one came.
    #[error("the answer broke off")]
    Truncated,
}
