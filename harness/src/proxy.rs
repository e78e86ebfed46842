//! A streaming reverse proxy for HTTP/1.1 and HTTP/2 whose requests and answers pass through filters.
//!
//! ```yaml
//! profile: envoy                # whose behaviour the filters meet: spec, envoy or kong
//! allow_on_headers_stop_iteration: true  # Envoy's option for filters that decide after the body
//! workers: 2                    # threads, each with filter VMs of its own; 0: one for each processor
//! body_buffer: 1048576          # bytes a host buffers of one body for the filters
//! shutdown_timeout: 30          # seconds for open requests once it was told to stop
//! access_log:                   # or true: stdout; false: none
//!   path: access.log            # opened again at SIGHUP; left out: stdout
//!   fields: {consumer: tollgate.identity.username}     # what filters set, beside the fields of each line
//! admin: {address: 127.0.0.1:9901}      # the live page /, /ready, /metrics, /config, /shared
//! listeners:
//!   - address: 127.0.0.1:8080
//! routes:                       # the most specific one that fits
//!   - {prefix: /v1, cluster: llm, filters: [auth]}
//!   - {path: /health, direct_response: {status: 200, body: fine}}
//!   - prefix: /try
//!     host: "*.example.com"     # or a whole name; without a port
//!     methods: [POST]
//!     headers: [{name: X-Plan, exact: gold}, {name: X-Beta}]   # with that value; with any
//!     clusters: [{name: llm, weight: 9}, {name: new, weight: 1}]
//!     prefix_rewrite: /v1       # in the place of the matched path
//!     host_rewrite: api.example.com
//! clusters:
//!   llm: {endpoints: [127.0.0.1:9001, {address: 127.0.0.1:9002, weight: 3}], connect_timeout: 5}
//!   new: {endpoints: [127.0.0.1:9003]}
//! filters:
//!   auth:
//!     wasm: key-auth            # a filter's name, or the path of a .wasm file
//!     config: {key_names: [apikey]}     # or config_file: PATH
//!     environment: {}           # for ${env:NAME} in the filter's configuration
//!     on_trap: closed           # or open, reload
//! ```
//!
//! - Bodies pass piece by piece in both directions, and a slow receiver holds the sender back.
//! - A client that hangs up, or resets its stream, ends its upstream request; an upstream that breaks off ends the
//!   client's connection, on HTTP/2 its stream alone.
//! - The most specific route is taken: a whole host before a wildcard before none, then a whole path before a prefix and a
//!   longer prefix before a shorter one, then one that names methods, then one that names more headers, then the first
//!   (the order of Kubernetes' Gateway API). Paths are compared as they are written.
//! - Under the `envoy` profile the route is chosen again by the headers and the path that the filters leave, as Envoy does
//!   after a filter changed them. Only its cluster, answer and rewrites count then: the filters were those of the route
//!   that the request entered by. So a route that fits by a header that a filter sets needs that filter too: a client
//!   could send the header itself.
//! - Clusters of a route and endpoints of a cluster take turns by weight, in each worker by itself.
//! - An endpoint to which no connection can be made is passed by for 5 seconds, by the worker that found out, and the
//!   request goes to the next: nothing of it can have arrived. Where none is left, or all are passed by, they are tried
//!   all the same.
//! - An upstream that gives no answer is a 502, 503 or 504 that filters see like any answer; the log line tells the
//!   reason, and so does `tollgate_requests_failed_total{reason}`.
//! - Target and Host go on as the client wrote them; `X-Forwarded-For` is extended, `X-Forwarded-Proto` set,
//!   `X-Request-ID` kept or made. Headers of the connection stay on it.
//!
//! # Transport
//!
//! Clients speak HTTP/1.1 or HTTP/2 on each listener: what ALPN settles under TLS, else what their first bytes say. Filters
//! see the same headers in both: `:authority` for Host, one Cookie, no headers of the connection but `te: trailers`.
//! Trailers pass both ways; HTTP/1.1 has room only for those that `Trailer` announces, and for answers only to clients that
//! sent `TE: trailers`.
//!
//! | of a listener | default | |
//! |---|---|---|
//! | `tls: {certificate: FILE, private_key: FILE}` | none | PEM; TLS 1.2 and 1.3 |
//! | `header_timeout` | 30 s | for a request's head (else 408), a TLS handshake, the first byte (else closed) |
//! | `keep_alive_timeout` | 75 s | a connection without a request; closed, on HTTP/2 with GOAWAY |
//! | `max_request_bytes` | any | a body over it is a 413, before an upstream is asked where Content-Length tells |
//! | `max_header_bytes`, `max_headers` | 65536, 100 | a head over it is a 431 |
//! | `max_uri_bytes` | 8192 | a target over it is a 414 |
//! | `max_concurrent_streams` | 100 | requests at a time on an HTTP/2 connection |
//!
//! | of a cluster | default | |
//! |---|---|---|
//! | `protocol` | `auto` | `http1`, `http2` (without TLS with prior knowledge), `auto`: what ALPN settles, without TLS HTTP/1.1 |
//! | `tls: {ca: FILE, server_name: NAME}` | none | `{}` trusts the system's roots and expects the endpoint's host |
//! | `connect_timeout` | 5 s | a connection with its TLS, or the wait for a free one; 504, 503 |
//! | `headers_timeout` | 300 s | from the last piece of the request to the answer's headers; 504 |
//! | `idle_timeout` | 300 s | without a piece of a body either way; 504, 408 where the client stopped, or a cut stream |
//! | `timeout` | none | the whole request; 504 or a cut stream. Without it a stream that moves lives for ever |
//! | `max_response_bytes` | any | an answer over it is a 502 where Content-Length tells, else a cut stream |
//! | `max_connections` | 1024 | open to each endpoint, by each worker |
//! | `max_pending` | 1024 | requests that wait for one of them; one more is a 503 |
//! | `max_idle`, `keep_alive_timeout` | 100, 50 s | connections kept without a request |
//! | `max_streams` | 100 | requests at a time on an HTTP/2 connection; the next opens another |
//!
//! - `upgrades: [websocket]` of a route lets clients on HTTP/1.1 change to that protocol: filters see the heads, the bytes
//!   pass unseen until either side ends or nothing moves for `idle_timeout`. Any other upgrade is a 501, but for the offer
//!   of `h2c`, which is passed over; `CONNECT` is a 405. WebSockets over HTTP/2 (RFC 8441) are not served.
//! - Until the filters let a request go it is not known to which of a route's clusters: the timeouts are then those of the
//!   first.
//! - Filters' gRPC calls go over HTTP/2 whatever `protocol` says, by TLS where the cluster has it.
//! - A request that met a kept connection as the upstream closed it is sent once more: if nothing of it was sent, or it is
//!   of an idempotent method and has no body.
//! - `100 Continue` is sent when the body is first read: not where the proxy or a filter refuses before, nor while a filter
//!   waits for a call. `Expect` goes no further.
//! - HTTP/1.1 is read strictly. Two lengths, a length beside a transfer coding, folded lines, bare line feeds, white space
//!   before a colon, bad chunk sizes: 400, and the connection is closed.
//! - Told to stop, the proxy closes idle connections, says `Connection: close` or GOAWAY on the others, and gives their
//!   requests `shutdown_timeout`.
//!
//! # Reload
//!
//! `tollgate serve` reads its file again at SIGHUP, and when its content or that of a file it names changes (looked at
//! twice a second; links, as of a Kubernetes ConfigMap, are followed). [`Proxy::reload`] changes over:
//!
//! - Requests under way finish with the filters they began with, new ones meet the new. No connection is closed but those
//!   to a listener that is gone, and these after their request.
//! - A configuration that can't be used is refused whole, and what ran before goes on: it is not YAML, a field is wrong,
//!   a module does not compile, a filter refuses its configuration, a new port is taken. `profile`, `workers` and `admin`
//!   can't change while it runs.
//! - Listeners that stay take up their new certificates, timeouts and limits for the connections that come from then on.
//! - Filters are tried on the side, in a state of their own, before a worker meets them. Then each worker starts them
//!   between two requests: `on_configure` that takes long is time in which that worker serves nobody.
//! - Shared data, queues and metrics stay. Modules are compiled again only when their bytes are new.
//! - Old filters tick on until their last request is over, as Envoy's do, and once more after it, so that what they
//!   queued for a tick is not lost; then they are dropped.
//!
//! Neither log has headers or queries: keys travel in both.

mod access_log;
mod admin;
mod body;
mod config;
mod counters;
mod deadlines;
mod door;
mod events;
mod exchange;
mod exposition;
mod failure;
mod filters;
mod flow;
mod framing;
mod grpc;
mod journal;
mod lane;
mod lines;
mod own_answer;
mod pool;
mod process;
mod recent;
mod reception;
pub mod reload;
mod routes;
mod socket;
mod tls;
mod tunnel;
mod turns;
mod upstream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::listener::{self, BindError};
use crate::profile::Knobs;
use crate::shared::Shared;
use crate::worker::{self, Limits, Setup, Worker};
use access_log::AccessLog;
pub use access_log::LogError;
use admin::Admin;
pub use config::{Checked, Config, ConfigError, Source, json_from_yaml};
use counters::Counters;
use lane::{Command, Next};
use reload::InForce;
pub use reload::ReloadError;

/// A proxy that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Occurs when a port can't be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Occurs when a filter does not start.
    #[error(transparent)]
    Filter(#[from] worker::StartError),
    /// Occurs when the system refuses a thread or an event queue.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[from] io::Error),
    /// Occurs when a worker thread ends while it starts, which is a bug; it has printed why.
    #[error("a worker thread ended while it was starting")]
    Died,
    /// Occurs when the access log's file can't be written.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<ReloadError> for StartError {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Bind(error) => Self::Bind(error),
            ReloadError::Filter(error) => Self::Filter(error),
            ReloadError::Log(error) => Self::Log(error),
            // The first configuration was read before, and there is none that it could differ from.
            ReloadError::Died | ReloadError::Config(_) | ReloadError::Fixed(_) => Self::Died,
        }
    }
}

/// A proxy that is serving, on threads of its own. Dropping it stops it as [`Proxy::shutdown`] does.
#[derive(Debug)]
pub struct Proxy {
    admin: Option<SocketAddr>,
    shared: Arc<Shared>,
    in_force: Arc<InForce>,
    stop: watch::Sender<bool>,
    lanes: Vec<LaneThread>,
    gone: watch::Sender<bool>,
    admin_thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    /// The open access log. Locked for the length of a reload, so that there is one at a time.
    log: Mutex<Option<Arc<AccessLog>>>,
}

/// A worker thread and how to tell it something.
#[derive(Debug)]
struct LaneThread {
    commands: UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Opens the ports, starts every worker's filters, and serves.
    ///
    /// # Errors
    /// When a port can't be had or a filter does not start; nothing is left running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let workers = config.workers.get();
        let (listening, sockets) = bind(&config, &[])?;
        let admin_socket = config.admin.map(listener::bind).transpose()?;
        let admin = admin_socket
            .as_ref()
            .map(std::net::TcpListener::local_addr)
            .transpose()?;

        let shared = Arc::new(Shared::new(config.profile));
        let counters = Arc::new(Counters::default());
        if admin.is_some() {
            counters.recent.watch();
        }
        let in_force = Arc::new(InForce::new());
        let (stop, stopped) = watch::channel(false);
        let (gone, all_gone) = watch::channel(false);
        let admin_thread = admin_socket
            .map(|socket| {
                let admin = Admin {
                    counters: Arc::clone(&counters),
                    shared: Arc::clone(&shared),
                    in_force: Arc::clone(&in_force),
                    workers,
                    stop: stopped.clone(),
                };
                spawn(
                    "tollgate-admin",
                    move || admin::serve(socket, admin, all_gone),
                    || tracing::error!("the admin port is not served any more"),
                )
            })
            .transpose()?;
        let mut proxy = Self {
            admin,
            shared,
            in_force,
            stop,
            lanes: Vec::new(),
            gone,
            admin_thread,
            counters: Arc::clone(&counters),
            log: Mutex::new(None),
        };
        for index in 0..workers {
            let (commands, told) = unbounded_channel();
            let counters = Arc::clone(&counters);
            let stopped = stopped.clone();
            let deaths = Arc::clone(&counters);
            let thread = spawn(
                &format!("tollgate-{index}"),
                move || lane::serve(index, counters, told, stopped),
                move || {
                    Counters::count(&deaths.died);
                    tracing::error!("worker {index} has died: this is a bug");
                },
            )?;
            proxy.lanes.push(LaneThread { commands, thread });
        }
        let log = proxy.open_log(&config, None)?;
        *proxy.log() = log.clone();
        proxy.change_over(Arc::new(config), log, listening, sockets)?;
        Ok(proxy)
    }

    /// Changes over to another configuration, as [`reload`] describes. Takes the outcome of reading it, so that one that
    /// can't be read is shown as refused on the admin port too. Blocks until new requests go the new way.
    ///
    /// # Errors
    /// When it is not taken; nothing has changed then.
    pub fn reload(&self, read: reload::Read) -> Result<(), ReloadError> {
        let mut log = self.log();
        let outcome = read
            .map_err(ReloadError::from)
            .and_then(|checked| self.take(checked.config, &mut log));
        if let Err(error) = &outcome {
            self.in_force.refused(error);
        }
        outcome
    }

    fn take(&self, config: Config, log: &mut Option<Arc<AccessLog>>) -> Result<(), ReloadError> {
        let (before, listening) = {
            let state = self.in_force.now();
            (state.config.clone(), state.listening.clone())
        };
        if let Some(before) = before {
            reload::fixed(&before, &config)?;
        }
        Self::try_filters(&config)?;
        let (listening, sockets) = bind(&config, &listening)?;
        let new_log = self.open_log(&config, log.clone())?;
        self.change_over(Arc::new(config), new_log.clone(), listening, sockets)?;
        *log = new_log;
        Ok(())
    }

    /// Goes on in new files of the access log's name: to be called when the old ones were moved away.
    pub fn reopen_log(&self) {
        if let Some(log) = self.log().as_ref() {
            log.reopen();
        }
    }

    fn log(&self) -> MutexGuard<'_, Option<Arc<AccessLog>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log that a configuration asks for: the open one if it goes to the same place.
    fn open_log(
        &self,
        config: &Config,
        open: Option<Arc<AccessLog>>,
    ) -> Result<Option<Arc<AccessLog>>, LogError> {
        let Some(wanted) = &config.access_log else {
            return Ok(None);
        };
        if let Some(open) = open.filter(|open| *open.destination() == wanted.destination) {
            return Ok(Some(open));
        }
        let dropped = Arc::clone(&self.counters.log_dropped);
        AccessLog::open(wanted.destination.clone(), dropped).map(|log| Some(Arc::new(log)))
    }

    /// Starts the filters on every thread, then lets all threads change over, or none.
    fn change_over(
        &self,
        config: Arc<Config>,
        log: Option<Arc<AccessLog>>,
        listening: Vec<(SocketAddr, SocketAddr)>,
        mut sockets: Vec<NewSockets>,
    ) -> Result<(), ReloadError> {
        let (report, started) = mpsc::channel();
        for lane in &self.lanes {
            let next = Box::new(Next {
                config: Arc::clone(&config),
                setup: setup(&config, Arc::clone(&self.shared)),
                log: log.clone(),
                sockets: sockets
                    .iter_mut()
                    .filter_map(|new| Some((new.address, new.sockets.pop()?)))
                    .collect(),
            });
            let report = report.clone();
            // A thread that has ended drops the report, which is noticed below.
            let _ = lane.commands.send(Command::Prepare { next, report });
        }
        drop(report);
        // All of them, so that each has prepared when it is told to discard.
        let reports: Vec<_> = started.iter().collect();
        let all = reports.len() == self.lanes.len();
        let prepared: Result<Vec<()>, _> = reports.into_iter().collect();
        if prepared.is_err() || !all {
            for lane in &self.lanes {
                let _ = lane.commands.send(Command::Discard);
            }
        }
        prepared?;
        if !all {
            return Err(ReloadError::Died);
        }
        let (report, switched) = mpsc::channel();
        for lane in &self.lanes {
            let report = report.clone();
            let _ = lane.commands.send(Command::Switch { report });
        }
        drop(report);
        // From here there is no way back: a thread that dies now ends the process.
        let switched = switched.iter().count();
        self.in_force.taken(config, listening);
        if switched == self.lanes.len() {
            Ok(())
        } else {
            Err(ReloadError::Died)
        }
    }

    /// Runs the filters of a configuration as far as their start, without opening a port.
    ///
    /// # Errors
    /// When a filter does not start.
    pub fn try_filters(config: &Config) -> Result<(), worker::StartError> {
        let setup = setup(config, Arc::new(Shared::new(config.profile)));
        Worker::start(setup, config.filters.clone()).map(drop)
    }

    /// Where it listens, in the order of the configuration in force.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let state = self.in_force.now();
        state.listening.iter().map(|(_, bound)| *bound).collect()
    }

    /// Where the admin port is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What the workers' filters share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether a worker thread has ended by a panic. What it served is lost; the others go on, but the process is better
    /// ended, so that something starts a whole one.
    pub fn has_died(&self) -> bool {
        self.counters.died.load(Ordering::Relaxed) > 0
    }

    /// Stops taking connections, and waits until the open requests are done or the configured time is over.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for lane in self.lanes.drain(..) {
            // A panic there was printed by its thread.
            let _ = lane.thread.join();
        }
        self.gone.send_replace(true);
        if let Some(admin) = self.admin_thread.take() {
            let _ = admin.join();
        }
    }
}

/// A new listener's sockets, one for each worker.
struct NewSockets {
    /// As it is configured.
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// Opens what the configuration listens on and what is not open yet; with each address as configured goes the one that
/// is bound.
#[expect(
    clippy::type_complexity,
    reason = "two lists, used at once by the callers"
)]
fn bind(
    config: &Config,
    open: &[(SocketAddr, SocketAddr)],
) -> Result<(Vec<(SocketAddr, SocketAddr)>, Vec<NewSockets>), BindError> {
    let mut listening = Vec::new();
    let mut new = Vec::new();
    let mut open = open.to_vec();
    for address in config.listeners.iter().map(|listen| &listen.address) {
        // Taken out, since port 0 may stand there twice.
        if let Some(known) = open
            .iter()
            .position(|(configured, _)| configured == address)
        {
            listening.push(open.remove(known));
            continue;
        }
        let sockets = listener::bind_shared(*address, config.workers.get())?;
        let bound = sockets.first().and_then(|socket| socket.local_addr().ok());
        listening.push((*address, bound.unwrap_or(*address)));
        new.push(NewSockets {
            address: *address,
            sockets,
        });
    }
    Ok((listening, new))
}

fn setup(config: &Config, shared: Arc<Shared>) -> Setup {
    let limits = Limits {
        body_buffer: config.body_buffer,
        ..Limits::default()
    };
    let knobs = Knobs {
        headers_stop_iteration: config.headers_stop_iteration,
        ..Knobs::default()
    };
    Setup {
        knobs,
        shared,
        limits,
        clusters: Some(config.cluster_names()),
        strict: config.strict,
        ..Setup::new(config.profile)
    }
}

/// A thread with an event loop, for work that is made on it. `ended_badly` is called where the work panics or fails.
fn spawn<W>(
    name: &str,
    make: impl FnOnce() -> W + Send + 'static,
    ended_badly: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    W: Future<Output = io::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nothing of the thread is used afterwards.
            let work =
                AssertUnwindSafe(|| LocalSet::new().block_on(&runtime, async { make().await }));
            match catch_unwind(work) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!("cannot use a listening socket: {error}");
                    ended_badly();
                }
                // The panic's message was printed where it happened.
                Err(_) => ended_badly(),
            }
        })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::catalog::Search;

    #[test]
    fn a_worker_that_dies_is_noticed_and_the_proxy_is_not_ready_any_more() {
        let yaml = "{access_log: false, workers: 2, shutdown_timeout: 0.1, listeners: [{address: 127.0.0.1:0}],
            routes: [{cluster: a}], clusters: {a: {endpoints: ['127.0.0.1:1']}}}";
        let search = Search::from_here(None);
        let read = || Config::read(yaml, Path::new("."), &search);
        let proxy = Proxy::start(read().unwrap().config).unwrap();
        let admin = Admin {
            counters: Arc::clone(&proxy.counters),
            shared: Arc::clone(&proxy.shared),
            in_force: Arc::clone(&proxy.in_force),
            workers: 2,
            stop: proxy.stop.subscribe(),
        };
        assert!(!proxy.has_died());
        assert_eq!(admin.ready().0, 200);
        proxy.lanes[0].commands.send(Command::Panic).unwrap();
        let start = Instant::now();
        while !proxy.has_died() {
            assert!(start.elapsed() < Duration::from_secs(20), "not noticed");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(
            admin.ready(),
            (
                http::StatusCode::SERVICE_UNAVAILABLE,
                "1 of 2 workers died\n".to_owned()
            )
        );
        assert!(matches!(proxy.reload(read()), Err(ReloadError::Died)));
    }
}
