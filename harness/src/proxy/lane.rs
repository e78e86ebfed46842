//! A worker thread: listening sockets, filters and upstream connections of its own, and an event loop over them.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::config::{Config, Route};
use super::counters::Counters;
use super::exchange;
use super::filters::Filters;
use super::upstream::Upstreams;
use crate::exchange::Peer;
use crate::worker::Worker;

/// How long accepting pauses when the system gives no more sockets; connections that end meanwhile free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the requests of one thread share.
pub(super) struct Lane {
    pub(super) filters: Rc<Filters>,
    pub(super) upstreams: Rc<Upstreams>,
    pub(super) counters: Arc<Counters>,
    /// Longest prefix first.
    routes: Vec<Route>,
    /// Bytes that filters may hold of one body before reading stops.
    pub(super) body_buffer: usize,
    pub(super) access_log: bool,
    /// Held by each exchange under way, so that a lane that stops knows when the last is over.
    pub(super) running: mpsc::Sender<Infallible>,
}

impl Lane {
    /// The route that a path without its query belongs to.
    pub(super) fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.takes(path))
    }
}

/// Serves until told to stop, then until the open requests are done or their time is over.
pub(super) async fn serve(
    config: Config,
    index: usize,
    worker: Worker,
    counters: Arc<Counters>,
    listeners: Vec<TcpListener>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let upstreams = Rc::new(Upstreams::new(config.clusters, config.profile, index));
    let (running, mut all_over) = mpsc::channel(1);
    let lane = Rc::new(Lane {
        filters: Filters::new(worker, Rc::clone(&upstreams), Arc::clone(&counters)),
        upstreams,
        counters: Arc::clone(&counters),
        routes: config.routes,
        body_buffer: config.body_buffer,
        access_log: config.access_log,
        running,
    });
    let ticks = tokio::task::spawn_local(Rc::clone(&lane.filters).tick());
    let open = Rc::new(GracefulShutdown::new());
    let mut doors = Vec::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        doors.push(tokio::task::spawn_local(accept(
            listener,
            Rc::clone(&lane),
            Rc::clone(&open),
            stop.clone(),
        )));
    }
    counters.ready.fetch_add(1, Ordering::Relaxed);
    for door in doors {
        // A task that panicked has said so; the others go on.
        let _ = door.await;
    }
    counters.ready.fetch_sub(1, Ordering::Relaxed);
    let finish = async {
        if let Ok(open) = Rc::try_unwrap(open) {
            open.shutdown().await;
        }
        drop(lane);
        all_over.recv().await;
    };
    if tokio::time::timeout(config.shutdown_timeout, finish)
        .await
        .is_err()
    {
        let cut = counters.open.load(Ordering::Relaxed);
        tracing::warn!("stopping with {cut} requests still open: shutdown_timeout is over");
    }
    ticks.abort();
    Ok(())
}

async fn accept(
    listener: tokio::net::TcpListener,
    lane: Rc<Lane>,
    open: Rc<GracefulShutdown>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => connect(stream, client, &lane, &open),
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn connect(stream: TcpStream, client: SocketAddr, lane: &Rc<Lane>, open: &GracefulShutdown) {
    // Both fail only on a connection that is gone already.
    let (Ok(destination), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else {
        return;
    };
    let lane = Rc::clone(lane);
    let service = service_fn(move |request: http::Request<_>| {
        let peer = Peer {
            source: client,
            destination,
            scheme: "http".to_owned(),
            protocol: format!("{:?}", request.version()),
        };
        exchange::answer(Rc::clone(&lane), peer, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let watched = open.watch(connection);
    tokio::task::spawn_local(async move {
        if let Err(error) = watched.await {
            // A client that hung up, or sent no HTTP and got its 400.
            tracing::debug!(%client, "connection ended: {error}");
        }
    });
}
