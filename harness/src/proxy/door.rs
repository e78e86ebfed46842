//! A listening socket and its connections: TLS, the choice between HTTP/1.1 and HTTP/2, and their end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::{self, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::config::Listen;
use super::counters::Counters;
use super::exchange;
use super::failure::Failure;
use super::framing::Framing;
use super::lane::CurrentLane;
use super::lines;
use super::own_answer;
use super::reception::{Reception, TurnedAway, Visits, speaks_http2};
use super::socket::Socket;
use crate::exchange::Peer;

/// How long accepting pauses when the system gives no more sockets; connections that end meanwhile free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection that is told to end, and has no request, may take to do so.
const GOODBYE: Duration = Duration::from_secs(5);

/// What is still read of a connection whose last message was refused, so that the client gets the answer and not a
/// reset.
const LINGER_BYTES: usize = 1 << 20;

/// How long it is read.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// How often a silent HTTP/2 client is asked whether it still is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(20);

/// Runs futures on the thread that they are made on.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnThisThread;

impl<F> Executor<F> for OnThisThread
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A listening socket of one worker, and the connections that came through it.
#[derive(Debug)]
pub(super) struct Door {
    /// As it is configured; port 0 stays 0.
    address: SocketAddr,
    listen: Rc<RefCell<Rc<Listen>>>,
    accepting: JoinHandle<()>,
    closing: watch::Sender<bool>,
    /// Ends with the last connection.
    over: mpsc::Receiver<Infallible>,
}

impl Door {
    /// Takes connections, each with the options of that moment; their requests go to the lane of that moment.
    ///
    /// # Errors
    /// When the system does not watch the socket.
    pub(super) fn open(
        socket: net::TcpListener,
        listen: Listen,
        lane: CurrentLane,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(socket)?;
        let address = listen.address;
        let listen = Rc::new(RefCell::new(Rc::new(listen)));
        let (closing, closed) = watch::channel(false);
        let (open, over) = mpsc::channel(1);
        let entrance = Entrance {
            lane,
            closed,
            _open: open,
        };
        let accepting = accept(listener, Rc::clone(&listen), entrance);
        Ok(Self {
            address,
            listen,
            accepting: tokio::task::spawn_local(accepting),
            closing,
            over,
        })
    }

    /// Where it listens, as it is configured.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The options for the connections that come from now on.
    pub(super) fn change(&self, listen: Listen) {
        self.listen.replace(Rc::new(listen));
    }

    /// Stops listening, tells the connections to end after their requests, and waits until they have.
    pub(super) async fn shut(mut self) {
        self.accepting.abort();
        // A task that panicked has said so.
        let _ = self.accepting.await;
        self.closing.send_replace(true);
        self.over.recv().await;
    }
}

/// What a connection needs to know of the inside.
#[derive(Clone)]
struct Entrance {
    lane: CurrentLane,
    /// Whether the connections are to end.
    closed: watch::Receiver<bool>,
    /// Held by each connection, so that the door knows when the last is over.
    _open: mpsc::Sender<Infallible>,
}

impl Entrance {
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.lane.borrow().counters)
    }
}

/// Takes connections for as long as it is polled.
async fn accept(listener: TcpListener, listen: Rc<RefCell<Rc<Listen>>>, entrance: Entrance) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let listen = Rc::clone(&listen.borrow());
                tokio::task::spawn_local(visit(stream, client, listen, entrance.clone()));
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first byte to its last.
async fn visit(stream: TcpStream, client: SocketAddr, listen: Rc<Listen>, entrance: Entrance) {
    // Both fail only on a connection that is gone already.
    let (Ok(destination), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else {
        return;
    };
    let mut closed = entrance.closed.clone();
    let first = tokio::select! {
        first = tokio::time::timeout(listen.header_timeout, first_bytes(stream, &listen)) => first,
        _ = closed.wait_for(|closed| *closed) => return,
    };
    let (socket, first) = match first {
        Ok(Some(first)) => first,
        // It has sent nothing that could be answered.
        Ok(None) => return,
        Err(_) => {
            let counters = entrance.counters();
            counters.failures.count(Failure::HeaderTimeout);
            tracing::debug!(%client, "the connection sent nothing in time");
            return;
        }
    };
    let over_http2 = socket.settled_on_http2() || speaks_http2(&first) == Some(true);
    let scheme = if socket.is_secure() { "https" } else { "http" };
    let visits = Arc::new(Visits::default());
    let framing = (!over_http2).then(|| Framing::new(listen.limits));
    let (reception, back) = Reception::new(
        socket,
        first,
        framing,
        listen.header_timeout,
        Arc::clone(&visits),
    );
    let service = service_fn({
        let (visits, listen, lane) = (
            Arc::clone(&visits),
            Rc::clone(&listen),
            Rc::clone(&entrance.lane),
        );
        move |request: http::Request<_>| {
            let peer = Peer {
                source: client,
                destination,
                scheme: scheme.to_owned(),
                protocol: lines::protocol(request.version()).to_owned(),
            };
            exchange::answer(
                Rc::clone(&lane.borrow()),
                listen.limits,
                visits.begin(),
                peer,
                request,
            )
        }
    });
    let ended = if over_http2 {
        let mut builder = http2::Builder::new(OnThisThread);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(listen.max_concurrent_streams)
            .max_header_list_size(u32::try_from(listen.limits.head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let connection = builder.serve_connection(reception, service);
        attend(
            connection,
            http2::Connection::graceful_shutdown,
            &visits,
            &listen,
            closed,
        )
        .await
    } else {
        let mut builder = http1::Builder::new();
        // The reception tells the time.
        builder.header_read_timeout(None);
        if listen.limits.headers != DEFAULT_MAX_HEADERS {
            builder.max_headers(listen.limits.headers);
        }
        let connection = builder.serve_connection(reception, service).with_upgrades();
        attend(
            connection,
            http1::UpgradeableConnection::graceful_shutdown,
            &visits,
            &listen,
            closed,
        )
        .await
    };
    if let Err(error) = ended {
        // A client that hung up, or sent no HTTP.
        tracing::debug!(%client, "connection ended: {error}");
    }
    if let Ok(turned_away) = back.await {
        turn_away(turned_away, client, &entrance.counters()).await;
    }
}

/// What hyper reads without allocating.
const DEFAULT_MAX_HEADERS: usize = 100;

/// The socket, its TLS established, with what had to be read to tell its protocol; none if it ended before.
async fn first_bytes(stream: TcpStream, listen: &Listen) -> Option<(Socket, BytesMut)> {
    let mut socket = match &listen.tls {
        None => Socket::Plain(stream),
        Some(config) => {
            let accepted = TlsAcceptor::from(Arc::clone(config)).accept(stream).await;
            let stream = accepted
                .map_err(|error| tracing::debug!("TLS handshake: {error}"))
                .ok()?;
            Socket::Secure(Box::new(stream.into()))
        }
    };
    let mut first = BytesMut::new();
    while !socket.settled_on_http2() && speaks_http2(&first).is_none() {
        let read = socket.read_buf(&mut first).await.ok()?;
        if read == 0 {
            break;
        }
    }
    (socket.settled_on_http2() || !first.is_empty()).then_some((socket, first))
}

/// Runs a connection to its end: until the client or hyper ends it, it has been idle for too long, or the proxy stops.
async fn attend<C, E>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    visits: &Visits,
    listen: &Listen,
    mut closed: watch::Receiver<bool>,
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = visits.idle_for(listen.keep_alive_timeout) => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
    end(connection.as_mut());
    tokio::select! {
        ended = connection => ended,
        // A client that does not answer to the goodbye.
        () = visits.idle_for(GOODBYE) => Ok(()),
    }
}

/// Answers a refused message, and ends the connection in a way in which the client still gets the answer.
async fn turn_away(turned_away: TurnedAway, client: SocketAddr, counters: &Counters) {
    let TurnedAway { mut socket, answer } = turned_away;
    let Some(failure) = answer else {
        return;
    };
    let status = failure.status();
    counters.failures.count(failure);
    counters.turned_away(status.as_u16());
    tracing::info!(%client, "{failure}, answered {}", status.as_u16());
    let body = own_answer::body(status, &failure.to_string());
    let head = format!(
        "HTTP/1.1 {status}\r\n{CONTENT_TYPE}: application/json\r\n{CONTENT_LENGTH}: {}\r\n{CONNECTION}: close\r\n\r\n",
        body.len()
    );
    let answer = async {
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(&body).await?;
        socket.shutdown().await?;
        let mut left = LINGER_BYTES;
        let mut scratch = [0; 1024];
        while left > 0 {
            match socket.read(&mut scratch).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    // The client has gone, or sends on and on: either way it is over.
    let _ = tokio::time::timeout(LINGER_TIME, answer).await;
}
