//! Filters' gRPC calls and streams: HTTP/2, over the connections that each worker keeps to a cluster's endpoints.
//!
//! What a filter sees of a failure, the words included, is what it sees on Envoy (running): a connection that is refused
//! or breaks before an answer is status 14, a stream that breaks later 13, an HTTP status without a gRPC one the code
//! that gRPC's table gives it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::body::{CutOff, PipedBody};
use super::failure::Failure;
use super::lines;
use super::pool::{self, Pool, Purpose};
use super::upstream::Upstreams;
use crate::http::Headers;
use crate::worker::{GrpcAction, GrpcEvent, GrpcId, GrpcRequest, GrpcStatus};

/// The largest message that is taken: as for the answer to an HTTP call.
const MESSAGE_LIMIT: usize = 64 << 20;

/// What may wait to be sent on one stream; Envoy has no bound.
const UNSENT_LIMIT: usize = 64 << 20;

/// A flag, and four bytes of length: what stands before each message.
const PREFIX: usize = 5;

/// What is to be told of a call, and to whom.
pub(super) type Tell = Rc<dyn Fn(GrpcId, GrpcEvent)>;

/// The calls of one worker.
pub(super) struct GrpcCalls {
    upstreams: Rc<Upstreams>,
    under_way: Rc<RefCell<HashMap<GrpcId, UnderWay>>>,
}

struct UnderWay {
    /// None once this side has ended.
    messages: Option<mpsc::UnboundedSender<Result<Bytes, CutOff>>>,
    unsent: Arc<AtomicUsize>,
    task: AbortHandle,
    /// Whether it is a call with one message each way, not a stream.
    unary: bool,
}

impl GrpcCalls {
    pub(super) fn new(upstreams: Rc<Upstreams>) -> Self {
        Self {
            upstreams,
            under_way: Rc::default(),
        }
    }

    /// Does what a filter wants; `tell` gets everything that comes of it, never before this returns.
    pub(super) fn act(&self, action: GrpcAction, tell: &Tell) {
        match action {
            GrpcAction::Open(request) => self.open(request, Rc::clone(tell)),
            GrpcAction::Send { id, message } => self.send(id, &message, tell),
            GrpcAction::End(id) => {
                if let Some(call) = self.under_way.borrow_mut().get_mut(&id) {
                    call.messages = None;
                }
            }
            GrpcAction::Cancel(id) => self.cancel(id),
        }
    }

    /// Calls under way, streams not counted.
    pub(super) fn calls_open(&self) -> usize {
        let under_way = self.under_way.borrow();
        under_way.values().filter(|call| call.unary).count()
    }

    /// Ends everything under way: nobody is left to be told of it.
    pub(super) fn cancel_all(&self) {
        let ids: Vec<GrpcId> = self.under_way.borrow().keys().copied().collect();
        for id in ids {
            self.cancel(id);
        }
    }

    fn open(&self, request: GrpcRequest, tell: Tell) {
        let (id, timeout) = (request.id, request.timeout);
        let unary = request.message.is_some();
        let (messages, outgoing) = mpsc::unbounded_channel();
        let unsent = Arc::new(AtomicUsize::new(0));
        let body = Outgoing {
            messages: outgoing,
            unsent: Arc::clone(&unsent),
        };
        let messages = match &request.message {
            Some(message) => {
                let message = framed(message);
                unsent.store(message.len(), Ordering::Relaxed);
                // The other end is `body`, a line above.
                let _ = messages.send(Ok(message));
                None
            }
            None => Some(messages),
        };
        let call = exchange(
            self.upstreams.grpc(&request.upstream),
            request,
            body,
            Rc::clone(&tell),
        );
        let under_way = Rc::clone(&self.under_way);
        let task = tokio::task::spawn_local(async move {
            let status = match timeout {
                Some(timeout) => tokio::time::timeout(timeout, call)
                    .await
                    .unwrap_or_else(|_| GrpcStatus::timed_out()),
                None => call.await,
            };
            under_way.borrow_mut().remove(&id);
            tell(id, GrpcEvent::Closed(status));
        });
        let call = UnderWay {
            messages,
            unsent,
            task: task.abort_handle(),
            unary,
        };
        self.under_way.borrow_mut().insert(id, call);
    }

    fn send(&self, id: GrpcId, message: &[u8], tell: &Tell) {
        let message = framed(message);
        let full = match self.under_way.borrow().get(&id) {
            Some(call) => {
                let waiting = call
                    .unsent
                    .fetch_add(message.len(), Ordering::Relaxed)
                    .saturating_add(message.len());
                if let Some(messages) = call.messages.as_ref().filter(|_| waiting <= UNSENT_LIMIT) {
                    // A stream that has just ended takes no more, and its end is on its way to the filter.
                    let _ = messages.send(Ok(message));
                }
                waiting > UNSENT_LIMIT
            }
            None => false,
        };
        if full {
            self.cancel(id);
            let tell = Rc::clone(tell);
            tokio::task::spawn_local(async move {
                let words = "too much waits to be sent on this stream";
                let status = GrpcStatus::new(GrpcStatus::RESOURCE_EXHAUSTED, words);
                tell(id, GrpcEvent::TrailingMetadata(Headers::new()));
                tell(id, GrpcEvent::Closed(status));
            });
        }
    }

    fn cancel(&self, id: GrpcId) {
        if let Some(call) = self.under_way.borrow_mut().remove(&id) {
            if let Some(messages) = call.messages {
                // The end of the messages alone could go out as the end of the stream; an error can't.
                let _ = messages.send(Err(CutOff));
            }
            call.task.abort();
        }
    }
}

/// The messages that go out, each with its prefix, until the sending side is dropped.
#[derive(Debug)]
pub(super) struct Outgoing {
    messages: mpsc::UnboundedReceiver<Result<Bytes, CutOff>>,
    unsent: Arc<AtomicUsize>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let message = std::task::ready!(self.messages.poll_recv(context));
        if let Some(Ok(message)) = &message {
            self.unsent.fetch_sub(message.len(), Ordering::Relaxed);
        }
        Poll::Ready(message.map(|message| message.map(Frame::data)))
    }
}

/// Makes a call, tells what comes of it, and returns how it ended.
async fn exchange(
    pool: Option<Rc<Pool>>,
    request: GrpcRequest,
    body: Outgoing,
    tell: Tell,
) -> GrpcStatus {
    let id = request.id;
    let Some(pool) = pool else {
        return GrpcStatus::new(GrpcStatus::UNAVAILABLE, "Cluster not available");
    };
    let request = match head(&request) {
        Ok(head) => Request::from_parts(head, PipedBody::messages(body)),
        Err(unsendable) => {
            tell(id, GrpcEvent::TrailingMetadata(Headers::new()));
            return GrpcStatus::new(GrpcStatus::INTERNAL, unsendable.to_string());
        }
    };
    let answer = match pool.send(request, Purpose::Exchange).await {
        Ok(pool::Answer { response, lease }) => {
            let answer = Answer::of(id, &tell, response).await;
            drop(lease);
            answer
        }
        Err(unanswered) => Answer::without(unanswered.failure.into()),
    };
    if let Some(none) = answer.unbegun {
        tell(id, GrpcEvent::InitialMetadata(none));
    }
    tell(id, GrpcEvent::TrailingMetadata(answer.trailing));
    answer.status
}

/// The head of a call: Envoy's lines, then the filter's.
fn head(request: &GrpcRequest) -> Result<http::request::Parts, lines::Unsendable> {
    let path = format!("/{}/{}", request.service, request.method);
    let target: PathAndQuery = path.parse().map_err(|_| lines::Unsendable::Path)?;
    let authority = request.authority.parse::<Authority>().ok();
    let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::POST;
    head.uri = Uri::from(target);
    head.headers
        .insert(TE, HeaderValue::from_static("trailers"));
    if request.message.is_some() {
        // Without a timeout Envoy sends 0 (running), which servers take for one that is over.
        let timeout = request.timeout.unwrap_or_default();
        head.headers.insert(GRPC_TIMEOUT, timeout_value(timeout));
    }
    head.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.extend(lines::to_map(&request.metadata)?);
    head.headers
        .insert(HOST, host.ok_or(lines::Unsendable::Header)?);
    Ok(head)
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A number of at most eight digits with its unit.
fn timeout_value(timeout: Duration) -> HeaderValue {
    const LARGEST: u128 = 99_999_999;
    let (milliseconds, seconds) = (timeout.as_millis(), u128::from(timeout.as_secs()));
    let text = if milliseconds <= LARGEST {
        format!("{milliseconds}m")
    } else {
        format!("{}S", seconds.min(LARGEST))
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("99999999S"))
}

/// Why no answer began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoAnswer {
    Unconnected,
    Reset,
    Closed,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reset => Self::Reset,
            failure if failure.before_connection() => Self::Unconnected,
            _ => Self::Closed,
        }
    }
}

/// How a call ended, with what is still to be told before its end.
struct Answer {
    /// The initial metadata, where it was not told.
    unbegun: Option<Headers>,
    trailing: Headers,
    status: GrpcStatus,
}

impl Answer {
    /// Envoy makes an answer of its own, of trailers alone.
    fn without(reason: NoAnswer) -> Self {
        let (words, details) = match reason {
            NoAnswer::Unconnected => (
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
                "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
            ),
            NoAnswer::Reset => (
                "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
                "upstream_reset_before_response_started{remote_reset}",
            ),
            NoAnswer::Closed => (
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
                "upstream_reset_before_response_started{connection_termination}",
            ),
        };
        let code = GrpcStatus::UNAVAILABLE;
        let trailing = [
            (":status", "200".to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("grpc-status", code.to_string()),
            ("grpc-message", words.to_owned()),
        ];
        Self {
            unbegun: Some(Headers::new()),
            trailing: trailing.into_iter().collect(),
            status: GrpcStatus::detailed(code, words, details),
        }
    }

    /// An answer that broke, or that broke the protocol.
    fn broken(code: u32, details: &str) -> Self {
        Self {
            unbegun: None,
            trailing: Headers::new(),
            status: GrpcStatus::detailed(code, "", details),
        }
    }

    /// The status that trailers name.
    fn ended(trailers: &HeaderMap, trailing: Headers) -> Self {
        let text = |name: &str| Some(String::from_utf8_lossy(trailers.get(name)?.as_bytes()));
        let code = text("grpc-status").and_then(|code| code.parse().ok());
        // As it stands on the wire: Envoy leaves the percent signs in (running).
        let words = text("grpc-message");
        Self {
            unbegun: None,
            trailing,
            status: GrpcStatus::detailed(
                code.unwrap_or(GrpcStatus::UNKNOWN),
                &words.unwrap_or_default(),
                VIA_UPSTREAM,
            ),
        }
    }

    async fn of(id: GrpcId, tell: &Tell, response: Response<Incoming>) -> Self {
        let (head, mut body) = response.into_parts();
        let lines = lines::from_response(&head);
        let ended = body.is_end_stream();
        let named = head.headers.contains_key("grpc-status");
        if ended && (head.status == StatusCode::OK || named) {
            return Self {
                unbegun: Some(Headers::new()),
                ..Self::ended(&head.headers, lines)
            };
        }
        tell(
            id,
            GrpcEvent::InitialMetadata(if ended { Headers::new() } else { lines }),
        );
        if head.status != StatusCode::OK {
            return Self::broken(of_http(head.status), VIA_UPSTREAM);
        }
        let mut messages = Messages::default();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                let details = "upstream_reset_after_response_started{remote_reset}";
                return Self::broken(GrpcStatus::INTERNAL, details);
            };
            match frame.into_data() {
                Ok(data) => {
                    messages.received.extend_from_slice(&data);
                    loop {
                        match messages.next() {
                            Ok(Some(message)) => tell(id, GrpcEvent::Message(message)),
                            Ok(None) => break,
                            Err(code) => return Self::broken(code, VIA_UPSTREAM),
                        }
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let trailing = lines::from_trailers(&trailers);
                        return Self::ended(&trailers, trailing);
                    }
                }
            }
        }
        Self::broken(GrpcStatus::UNKNOWN, VIA_UPSTREAM)
    }
}

/// Envoy's words for what the other side itself said.
const VIA_UPSTREAM: &str = "via_upstream";

/// The code for an HTTP status ([the table](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md)).
fn of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => GrpcStatus::INTERNAL,
        401 => GrpcStatus::UNAUTHENTICATED,
        403 => GrpcStatus::PERMISSION_DENIED,
        404 => GrpcStatus::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => GrpcStatus::UNAVAILABLE,
        _ => GrpcStatus::UNKNOWN,
    }
}

/// A message behind its prefix, never compressed.
fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.len());
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    bytes.extend_from_slice(message);
    bytes.freeze()
}

/// What came and was not told yet.
#[derive(Default)]
struct Messages {
    received: BytesMut,
}

impl Messages {
    /// The next whole message; the status with which the stream ends where it can't be taken.
    fn next(&mut self) -> Result<Option<Bytes>, u32> {
        let Some(([flag], length)) = self
            .received
            .get(..PREFIX)
            .and_then(|p| p.split_first_chunk())
        else {
            return Ok(None);
        };
        let length = length
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if *flag != 0 && length > 0 {
            return Err(GrpcStatus::INTERNAL);
        }
        if length > MESSAGE_LIMIT {
            return Err(GrpcStatus::RESOURCE_EXHAUSTED);
        }
        if self.received.len() < PREFIX + length {
            return Ok(None);
        }
        self.received.advance(PREFIX);
        Ok(Some(self.received.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let bytes = [framed(b"one"), framed(b""), framed(b"three")].concat();
        for size in 1..bytes.len() {
            let mut messages = Messages::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                messages.received.extend_from_slice(piece);
                while let Some(message) = messages.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, ["one", "", "three"], "in pieces of {size}");
        }
    }

    #[test]
    fn what_can_not_be_taken_ends_the_stream() {
        let refused = |bytes: &[u8]| {
            Messages {
                received: bytes.into(),
            }
            .next()
            .unwrap_err()
        };
        assert_eq!(refused(&[1, 0, 0, 0, 1, 0]), GrpcStatus::INTERNAL);
        assert_eq!(refused(&[0, 255, 0, 0, 0]), GrpcStatus::RESOURCE_EXHAUSTED);
    }

    #[test]
    fn a_timeout_has_eight_digits() {
        assert_eq!(timeout_value(Duration::from_millis(250)), "250m");
        assert_eq!(timeout_value(Duration::from_secs(200_000)), "200000S");
    }
}
