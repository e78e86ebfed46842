//! A worker thread: listening sockets, filters and upstream connections of its own, and an event loop over them.

use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, watch};

use super::config::{Config, Route};
use super::counters::Counters;
use super::door;
use super::filters::Filters;
use super::upstream::Upstreams;
use crate::worker::Worker;

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
    /// Held by each connection and each exchange under way, so that a lane that stops knows when the last is over.
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
    let mut doors = Vec::new();
    for (listener, listen) in listeners.into_iter().zip(config.listeners) {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        doors.push(tokio::task::spawn_local(door::accept(
            listener,
            Rc::new(listen),
            Rc::clone(&lane),
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
