//! A worker thread: listening sockets, filters and upstream connections of its own, and an event loop over them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::access_log::AccessLog;
use super::config::{Config, Timeouts};
use super::counters::Counters;
use super::door::Door;
use super::filters::Filters;
use super::routes::{self, Route, Target};
use super::turns::Turns;
use super::upstream::Upstreams;
use crate::exchange::Destination;
use crate::http::Headers;
use crate::profile::Profile;
use crate::worker::{Setup, StartError, Worker};

/// What the requests of one thread share under one configuration. A reload puts another in its place; requests under way
/// keep theirs.
pub(super) struct Lane {
    pub(super) filters: Rc<Filters>,
    pub(super) upstreams: Rc<Upstreams>,
    pub(super) counters: Arc<Counters>,
    /// The most specific first.
    routes: Vec<Route>,
    /// Whose turn it is among each route's clusters.
    turns: RefCell<Vec<Turns>>,
    /// Whether the route is chosen anew by the headers that filters leave, as Envoy does.
    reselects: bool,
    /// Bytes that filters may hold of one body before reading stops.
    pub(super) body_buffer: usize,
    pub(super) log: Option<Arc<AccessLog>>,
    /// Names of fields in the log, and the properties they show.
    pub(super) log_fields: Vec<(String, String)>,
    /// Held by each exchange under way, so that whoever retires the lane knows when the last is over.
    pub(super) running: mpsc::Sender<Infallible>,
}

impl Lane {
    /// The route that a request with these header lines takes, and its number.
    pub(super) fn route(&self, headers: &Headers) -> Option<(usize, &Route)> {
        let index = routes::select(&self.routes, headers)?;
        Some((index, self.routes.get(index)?))
    }

    /// Where a route sends requests, for filters. Which of several clusters it will be is not known before they have run.
    pub(super) fn destination(&self, route: &Route) -> Destination {
        let service = match &route.target {
            Target::Clusters(shares) => match shares.as_slice() {
                [(cluster, _)] => self.upstreams.name(*cluster),
                _ => None,
            },
            Target::Direct { .. } => None,
        };
        Destination {
            route: route.name.clone(),
            service: service.unwrap_or_default().to_owned(),
        }
    }

    /// The route that a request takes which entered by `route` and left the filters with these header lines.
    pub(super) fn route_after_filters(
        &self,
        route: usize,
        headers: &Headers,
    ) -> Option<(usize, &Route)> {
        if self.reselects {
            self.route(headers)
        } else {
            Some((route, self.routes.get(route)?))
        }
    }

    /// How long a request to a route may take before it is known which of its clusters it goes to: as long as to the
    /// first.
    pub(super) fn timeouts(&self, route: &Route) -> Timeouts {
        let first = match &route.target {
            Target::Clusters(shares) => shares.first().map(|(cluster, _)| *cluster),
            Target::Direct { .. } => None,
        };
        first
            .and_then(|cluster| self.upstreams.transport(cluster))
            .map_or(Timeouts::DEFAULT, |transport| transport.timeouts)
    }

    /// The cluster whose turn it is at a route, of those with these shares.
    pub(super) fn cluster(&self, route: usize, shares: &[(usize, u32)]) -> Option<usize> {
        let share = self.turns.borrow_mut().get_mut(route)?.next(|_| true)?;
        shares.get(share).map(|(cluster, _)| *cluster)
    }
}

/// The lane that new requests go to, as connections know it: a reload puts another in.
pub(super) type CurrentLane = Rc<RefCell<Rc<Lane>>>;

/// What a worker thread is told. Each is answered, so that all threads change over together or none does.
#[derive(Debug)]
pub(super) enum Command {
    /// Start a configuration's filters beside those that serve.
    Prepare {
        next: Box<Next>,
        report: std_mpsc::Sender<Result<(), StartError>>,
    },
    /// Serve with what was prepared.
    Switch { report: std_mpsc::Sender<()> },
    /// Forget what was prepared.
    Discard,
    #[cfg(test)]
    Panic,
}

/// A configuration to change over to.
pub(super) struct Next {
    pub(super) config: Arc<Config>,
    pub(super) setup: Setup,
    pub(super) log: Option<Arc<AccessLog>>,
    /// This thread's sockets of the listeners that are new, by the configured address.
    pub(super) sockets: Vec<(SocketAddr, TcpListener)>,
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// Serves what it is told to until it is told to stop, then until the open requests are done or their time is over.
pub(super) async fn serve(
    index: usize,
    counters: Arc<Counters>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut serving = Serving {
        index,
        counters,
        prepared: None,
        current: None,
        doors: Vec::new(),
        leaving: JoinSet::new(),
    };
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            command = commands.recv() => match command {
                Some(command) => serving.obey(command)?,
                None => break,
            },
        }
    }
    serving.finish().await;
    Ok(())
}

/// A worker thread's state.
struct Serving {
    index: usize,
    counters: Arc<Counters>,
    prepared: Option<Prepared>,
    current: Option<Current>,
    doors: Vec<Door>,
    /// Earlier lanes whose requests are not over, and connections to listeners that are gone.
    leaving: JoinSet<()>,
}

/// Filters that have started, and what they will serve.
struct Prepared {
    worker: Worker,
    next: Box<Next>,
}

/// The lane that new requests go to.
struct Current {
    lane: CurrentLane,
    retiring: Retiring,
    shutdown_timeout: Duration,
}

/// What is left of a lane that no request goes to any more.
struct Retiring {
    filters: Rc<Filters>,
    ticks: JoinHandle<()>,
    over: mpsc::Receiver<Infallible>,
}

impl Serving {
    fn obey(&mut self, command: Command) -> std::io::Result<()> {
        // What has left is forgotten here, as each reload adds to it.
        while self.leaving.try_join_next().is_some() {}
        match command {
            Command::Prepare { next, report } => {
                let started = Worker::start(next.setup.clone(), next.config.filters.clone());
                let started = started.map(|worker| {
                    self.prepared = Some(Prepared { worker, next });
                });
                let _ = report.send(started);
            }
            Command::Discard => self.prepared = None,
            Command::Switch { report } => {
                if let Some(prepared) = self.prepared.take() {
                    self.change_over(prepared)?;
                }
                let _ = report.send(());
            }
            #[cfg(test)]
            #[allow(clippy::panic, reason = "a test wants to see a thread die")]
            Command::Panic => panic!("a test wants it"),
        }
        Ok(())
    }

    fn change_over(&mut self, Prepared { worker, next }: Prepared) -> std::io::Result<()> {
        let Next {
            config,
            log,
            sockets,
            ..
        } = *next;
        let (lane, retiring) = self.lane(&config, log, worker);
        let first = self.current.is_none();
        let lane = match self.current.take() {
            None => Rc::new(RefCell::new(lane)),
            Some(before) => {
                before.lane.replace(lane);
                self.leaving.spawn_local(before.retiring.over());
                before.lane
            }
        };
        let mut stay = config.listeners.clone();
        // In their order, since port 0 may stand there twice.
        let mut take = |address: SocketAddr| {
            let found = stay.iter().position(|listen| listen.address == address)?;
            Some(stay.remove(found))
        };
        for door in std::mem::take(&mut self.doors) {
            match take(door.address()) {
                Some(listen) => {
                    door.change(listen);
                    self.doors.push(door);
                }
                None => {
                    self.leaving.spawn_local(door.shut());
                }
            }
        }
        for (address, socket) in sockets {
            if let Some(listen) = take(address) {
                self.doors
                    .push(Door::open(socket, listen, Rc::clone(&lane))?);
            }
        }
        self.current = Some(Current {
            lane,
            retiring,
            shutdown_timeout: config.shutdown_timeout,
        });
        if first {
            self.counters.ready.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lane(
        &self,
        config: &Config,
        log: Option<Arc<AccessLog>>,
        worker: Worker,
    ) -> (Rc<Lane>, Retiring) {
        let upstreams = Rc::new(Upstreams::new(
            config.clusters.clone(),
            config.profile,
            self.index,
        ));
        let (running, over) = mpsc::channel(1);
        let filters = Filters::new(worker, Rc::clone(&upstreams), Arc::clone(&self.counters));
        let retiring = Retiring {
            filters: Rc::clone(&filters),
            ticks: tokio::task::spawn_local(Rc::clone(&filters).tick()),
            over,
        };
        let lane = Lane {
            filters,
            upstreams,
            counters: Arc::clone(&self.counters),
            turns: RefCell::new(config.routes.iter().map(turns).collect()),
            reselects: matches!(config.profile, Profile::Envoy),
            routes: config.routes.clone(),
            body_buffer: config.body_buffer,
            log,
            log_fields: config
                .access_log
                .as_ref()
                .map_or_else(Vec::new, |log| log.fields.clone()),
            running,
        };
        (Rc::new(lane), retiring)
    }

    /// Lets the open requests finish.
    async fn finish(mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        self.counters.ready.fetch_sub(1, Ordering::Relaxed);
        let finish = async {
            for door in std::mem::take(&mut self.doors) {
                self.leaving.spawn_local(door.shut());
            }
            self.leaving.spawn_local(current.retiring.over());
            drop(current.lane);
            while self.leaving.join_next().await.is_some() {}
        };
        if tokio::time::timeout(current.shutdown_timeout, finish)
            .await
            .is_err()
        {
            let cut = self.counters.open.load(Ordering::Relaxed);
            tracing::warn!("stopping with {cut} requests still open: shutdown_timeout is over");
        }
    }
}

impl Retiring {
    /// Waits for the last request, then for what its filters still have to hand over.
    async fn over(mut self) {
        self.over.recv().await;
        self.ticks.abort();
        self.filters.settle_accounts().await;
    }
}

fn turns(route: &Route) -> Turns {
    let shares = match &route.target {
        Target::Clusters(shares) => shares.as_slice(),
        Target::Direct { .. } => &[],
    };
    Turns::new(shares.iter().map(|(_, weight)| *weight))
}
