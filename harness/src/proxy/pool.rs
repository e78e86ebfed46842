//! A worker's connections to one endpoint: opened as requests need them, shared where HTTP/2 allows it, kept for a
//! while, and never more than the cluster allows.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::body::PipedBody;
use super::config::{Protocol, Transport, Trust};
use super::door::OnThisThread;
use super::failure::Failure;
use super::lines;
use super::socket::Socket;
use super::tls::{self, ServerName};

/// How often an upstream that is silent while it owes an answer is asked whether it still is there, on HTTP/2, and how
/// long it may take to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// The connections to one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    endpoint: Authority,
    transport: Rc<Transport>,
    /// One for each request under way: as many as connections may be open, times the streams of each where HTTP/2 is
    /// spoken.
    slots: Arc<Semaphore>,
    pending: Cell<usize>,
    /// None until ALPN has told.
    speaks_http2: Cell<Option<bool>>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    /// Held while a connection is opened that others may share.
    opening: Mutex<()>,
    reaping: Cell<bool>,
    itself: Weak<Pool>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<PipedBody>,
    since: Instant,
}

/// An HTTP/2 connection.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<PipedBody>,
    streams: Cell<usize>,
    /// When the last stream ended.
    since: Cell<Instant>,
}

/// A stream of an HTTP/2 connection, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Stream(Rc<Shared>);

impl Stream {
    fn of(shared: &Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.since.set(Instant::now());
    }
}

/// An upstream's answer, and the place that its request takes until the answer is over.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// The request's body, if there was no connection to send anything of it on.
    pub(super) unsent: Option<PipedBody>,
}

/// To be kept for as long as the answer's body is read.
#[derive(Debug)]
#[expect(dead_code, reason = "what it holds counts by being held")]
pub(super) enum Lease {
    /// The connection goes back by itself.
    Returned,
    /// A connection of its own.
    Held(OwnedSemaphorePermit),
    /// One of the streams of a connection.
    Stream {
        _stream: Stream,
        _slot: OwnedSemaphorePermit,
    },
}

enum Connection {
    Http1 {
        sender: http1::SendRequest<PipedBody>,
        reused: bool,
    },
    Http2 {
        stream: Stream,
        reused: bool,
    },
}

/// What is wanted of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Exchange,
    /// The protocol is to be changed, which only HTTP/1.1 can.
    Upgrade,
}

struct Pending<'a>(&'a Cell<usize>);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Pool {
    pub(super) fn new(endpoint: Authority, transport: Rc<Transport>) -> Rc<Self> {
        let limits = transport.limits;
        let speaks_http2 = match (transport.protocol, &transport.tls) {
            (Protocol::Http2, _) => Some(true),
            (Protocol::Auto, Some(_)) => None,
            (Protocol::Http1, _) | (Protocol::Auto, None) => Some(false),
        };
        let slots = if speaks_http2 == Some(true) {
            limits.open.saturating_mul(limits.streams)
        } else {
            limits.open
        };
        Rc::new_cyclic(|itself| Self {
            endpoint,
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            transport,
            pending: Cell::new(0),
            speaks_http2: Cell::new(speaks_http2),
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Mutex::new(()),
            reaping: Cell::new(false),
            itself: Weak::clone(itself),
        })
    }

    pub(super) fn endpoint(&self) -> &Authority {
        &self.endpoint
    }

    /// Sends a request and waits for the answer's head. A request that met a kept connection just as the upstream
    /// closed it is sent once more on another, if the upstream can't have acted on it or would not mind.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn send(
        self: Rc<Self>,
        request: Request<PipedBody>,
        purpose: Purpose,
    ) -> Result<Answer, Unanswered> {
        let copy = Replay::of(&request, purpose);
        let tried = self.try_send(request, purpose).await;
        let failed = match tried {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if !failed.reused {
            return Err(failed.into());
        }
        let may_repeat = failed.failure == Failure::Closed || failed.refused;
        let again = match (failed.unsent, copy) {
            (Some(request), _) => *request,
            (None, Some(copy)) if may_repeat => copy.request(),
            (None, _) => return Err(failed.failure.into()),
        };
        tracing::debug!("{} on a kept connection: sent on another", failed.failure);
        let tried = self.try_send(again, purpose).await;
        tried.map_err(Unanswered::from)
    }

    async fn try_send(
        &self,
        request: Request<PipedBody>,
        purpose: Purpose,
    ) -> Result<Answer, Failed> {
        let time = self.transport.connect_timeout;
        let connected = tokio::time::timeout(time, self.connection(purpose)).await;
        let (slot, connection) = match connected.unwrap_or_else(|_| Err(self.too_late())) {
            Ok(connected) => connected,
            Err(failure) => {
                return Err(Failed {
                    unsent: Some(Box::new(request)),
                    ..Failed::from(failure)
                });
            }
        };
        let (head, body) = request.into_parts();
        match connection {
            Connection::Http1 { mut sender, reused } => {
                let request = Request::from_parts(lines::for_http1(head), body);
                let response = sender.try_send_request(request).await;
                let response = response.map_err(|error| Failed::new(error, reused))?;
                let lease = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    Lease::Held(slot)
                } else {
                    self.take_back(sender, slot);
                    Lease::Returned
                };
                Ok(Answer { response, lease })
            }
            Connection::Http2 { stream, reused } => {
                let head = lines::for_http2(head, self.transport.tls.is_some(), &self.endpoint);
                let mut sender = stream.0.sender.clone();
                let response = sender
                    .try_send_request(Request::from_parts(head, body))
                    .await;
                let response = response.map_err(|error| Failed::new(error, reused))?;
                let lease = Lease::Stream {
                    _stream: stream,
                    _slot: slot,
                };
                Ok(Answer { response, lease })
            }
        }
    }

    /// What happened where no connection was to be had in time.
    fn too_late(&self) -> Failure {
        if self.slots.available_permits() == 0 {
            Failure::Queued
        } else {
            Failure::ConnectTimeout
        }
    }

    /// The right to have one more request under way.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        if self.pending.get() >= self.transport.limits.pending {
            return Err(Failure::Overloaded);
        }
        self.pending.set(self.pending.get() + 1);
        let _pending = Pending(&self.pending);
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        // It is never closed.
        slot.map_err(|_| Failure::Overloaded)
    }

    async fn connection(
        &self,
        purpose: Purpose,
    ) -> Result<(OwnedSemaphorePermit, Connection), Failure> {
        let slot = self.slot().await?;
        if purpose == Purpose::Upgrade {
            let connection = match self.kept() {
                Some(sender) => Connection::Http1 {
                    sender,
                    reused: true,
                },
                None => self.open(purpose).await?,
            };
            return Ok((slot, connection));
        }
        if let Some(connection) = self.at_hand() {
            return Ok((slot, connection));
        }
        if self.speaks_http2.get() == Some(false) {
            return Ok((slot, self.open(purpose).await?));
        }
        // Those who come meanwhile share what is opened here.
        let _opening = self.opening.lock().await;
        let connection = match self.at_hand() {
            Some(connection) => connection,
            None => self.open(purpose).await?,
        };
        Ok((slot, connection))
    }

    /// A connection that is open and has room.
    fn at_hand(&self) -> Option<Connection> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|shared| !shared.sender.is_closed());
        let room = shared
            .iter()
            .find(|shared| shared.streams.get() < self.transport.limits.streams);
        if let Some(shared) = room {
            return Some(Connection::Http2 {
                stream: Stream::of(shared),
                reused: true,
            });
        }
        drop(shared);
        self.kept().map(|sender| Connection::Http1 {
            sender,
            reused: true,
        })
    }

    /// The connection that was used last: the others may then grow old.
    fn kept(&self) -> Option<http1::SendRequest<PipedBody>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(kept) = idle.pop() {
            if kept.sender.is_ready() && kept.since.elapsed() < self.transport.limits.idle_time {
                return Some(kept.sender);
            }
        }
        None
    }

    async fn open(&self, purpose: Purpose) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.endpoint.as_str())
            .await
            .map_err(|error| unconnected(&error))?;
        // It fails only on a connection that is gone already, which the request will notice.
        let _ = stream.set_nodelay(true);
        let socket = match &self.transport.tls {
            None => Socket::Plain(stream),
            Some(trust) => self.secured(stream, trust, purpose).await?,
        };
        let http2 = match self.transport.protocol {
            _ if purpose == Purpose::Upgrade => false,
            Protocol::Http2 if socket.is_secure() && !socket.settled_on_http2() => {
                tracing::debug!("{}: the upstream does not offer h2 by ALPN", self.endpoint);
                return Err(Failure::Tls);
            }
            Protocol::Http2 => true,
            Protocol::Auto => socket.settled_on_http2(),
            Protocol::Http1 => false,
        };
        if purpose == Purpose::Exchange {
            self.learn(http2);
        }
        let io = TokioIo::new(socket);
        if http2 {
            let (sender, connection) = http2::Builder::new(OnThisThread)
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PONG)
                .handshake(io)
                .await
                .map_err(|error| failure(&error))?;
            run(connection);
            let shared = Rc::new(Shared {
                sender,
                streams: Cell::new(0),
                since: Cell::new(Instant::now()),
            });
            let stream = Stream::of(&shared);
            self.shared.borrow_mut().push(shared);
            self.reap();
            return Ok(Connection::Http2 {
                stream,
                reused: false,
            });
        }
        let (sender, connection) = http1::Builder::new()
            .handshake(io)
            .await
            .map_err(|error| failure(&error))?;
        run(connection.with_upgrades());
        Ok(Connection::Http1 {
            sender,
            reused: false,
        })
    }

    async fn secured(
        &self,
        stream: TcpStream,
        trust: &Trust,
        purpose: Purpose,
    ) -> Result<Socket, Failure> {
        let name = match &trust.server_name {
            Some(name) => name.clone(),
            None => {
                let host = self.endpoint.host();
                let bare = host
                    .strip_prefix('[')
                    .and_then(|host| host.strip_suffix(']'));
                ServerName::try_from(bare.unwrap_or(host).to_owned()).map_err(|_| Failure::Tls)?
            }
        };
        let mut connector = TlsConnector::from(Arc::clone(&trust.config));
        if purpose == Purpose::Upgrade {
            connector = TlsConnector::from(tls::without_http2(&trust.config));
        }
        let stream = connector.connect(name, stream).await.map_err(|error| {
            tracing::warn!("TLS with {}: {error}", self.endpoint);
            Failure::Tls
        })?;
        Ok(Socket::Secure(Box::new(stream.into())))
    }

    /// Where ALPN decides, the first connection tells how many requests fit on the others.
    fn learn(&self, http2: bool) {
        if self.speaks_http2.replace(Some(http2)).is_none() && http2 {
            let limits = self.transport.limits;
            let more = limits.open.saturating_mul(limits.streams.saturating_sub(1));
            let room = Semaphore::MAX_PERMITS.saturating_sub(limits.open);
            self.slots.add_permits(more.min(room));
        }
    }

    /// Keeps a connection once the answer on it is read to its end.
    fn take_back(&self, mut sender: http1::SendRequest<PipedBody>, slot: OwnedSemaphorePermit) {
        let pool = Weak::clone(&self.itself);
        tokio::task::spawn_local(async move {
            let ready = sender.ready().await;
            if let (Ok(()), Some(pool)) = (ready, pool.upgrade()) {
                pool.keep(sender);
            }
            drop(slot);
        });
    }

    fn keep(&self, sender: http1::SendRequest<PipedBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.transport.limits.idle {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
            drop(idle);
            self.reap();
        }
    }

    /// Sees to it that connections which nobody needs are closed in time.
    fn reap(&self) {
        if self.reaping.replace(true) {
            return;
        }
        let pool = Weak::clone(&self.itself);
        let time = self.transport.limits.idle_time;
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(time).await;
                let Some(pool) = pool.upgrade() else {
                    return;
                };
                if !pool.close_old(time) {
                    pool.reaping.set(false);
                    return;
                }
            }
        });
    }

    /// Closes what is old; tells whether anything is left.
    fn close_old(&self, time: Duration) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|kept| kept.since.elapsed() < time && !kept.sender.is_closed());
        let mut shared = self.shared.borrow_mut();
        shared.retain(|shared| {
            let used = shared.streams.get() > 0 || shared.since.get().elapsed() < time;
            used && !shared.sender.is_closed()
        });
        !idle.is_empty() || !shared.is_empty()
    }
}

/// A bodiless request of a method that may be repeated (RFC 9110 section 9.2.2), to be sent once more.
struct Replay {
    method: Method,
    uri: http::Uri,
    headers: http::HeaderMap,
}

impl Replay {
    fn of(request: &Request<PipedBody>, purpose: Purpose) -> Option<Self> {
        let repeatable = purpose == Purpose::Exchange
            && request.method().is_idempotent()
            && request.body().is_end_stream();
        repeatable.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(self) -> Request<PipedBody> {
        let mut request = Request::new(PipedBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// A request without an answer.
struct Failed {
    failure: Failure,
    /// The request, if nothing of it was sent.
    unsent: Option<Box<Request<PipedBody>>>,
    /// Whether the upstream said that it did nothing about it.
    refused: bool,
    /// Whether the connection had served another request before.
    reused: bool,
}

impl Failed {
    fn new(mut error: TrySendError<Request<PipedBody>>, reused: bool) -> Self {
        let unsent = error.take_message().map(Box::new);
        let error = error.into_error();
        Self {
            failure: failure(&error),
            unsent,
            refused: reset(&error) == Some(h2::Reason::REFUSED_STREAM),
            reused,
        }
    }
}

impl From<Failed> for Unanswered {
    fn from(failed: Failed) -> Self {
        Self {
            failure: failed.failure,
            unsent: failed
                .unsent
                .filter(|_| failed.failure.before_connection())
                .map(|request| request.into_body()),
        }
    }
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            unsent: None,
        }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            unsent: None,
            refused: false,
            reused: false,
        }
    }
}

/// Runs a connection until it ends; its requests learn of its errors.
fn run(connection: impl Future<Output = hyper::Result<()>> + 'static) {
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!("upstream connection ended: {error}");
        }
    });
}

fn unconnected(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
        io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        _ => Failure::Unreachable,
    }
}

fn failure(error: &hyper::Error) -> Failure {
    if error.is_parse() {
        Failure::Malformed
    } else if reset(error).is_some() {
        Failure::Reset
    } else {
        Failure::Closed
    }
}

/// The reason with which the upstream reset the stream, on HTTP/2.
fn reset(error: &hyper::Error) -> Option<h2::Reason> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<h2::Error>() {
            return error.reason().filter(|_| error.is_reset());
        }
        cause = inner.source();
    }
    None
}
