//! A streaming reverse proxy for HTTP/1.1 and HTTP/2 whose requests and answers pass through filters.
//!
//! ```yaml
//! profile: envoy                # whose behaviour the filters meet: spec, envoy or kong
//! allow_on_headers_stop_iteration: true  # Envoy's option for filters that decide after the body
//! workers: 2                    # threads, each with filter VMs of its own; 0: one for each processor
//! body_buffer: 1048576          # bytes a host buffers of one body for the filters
//! shutdown_timeout: 30          # seconds for open requests once it was told to stop
//! access_log: true              # one line of JSON a request on stdout
//! admin: {address: 127.0.0.1:9901}      # /ready and /metrics
//! listeners:
//!   - address: 127.0.0.1:8080
//! routes:                       # the longest prefix wins
//!   - {prefix: /v1, cluster: llm, filters: [auth]}
//!   - {prefix: /health, cluster: llm}
//! clusters:
//!   llm: {endpoints: [127.0.0.1:9001, 127.0.0.1:9002], connect_timeout: 5}
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
//! - A request that met a kept connection as the upstream closed it is sent once more: if nothing of it was sent, or it is
//!   of an idempotent method and has no body.
//! - `100 Continue` is sent when the body is first read: not where the proxy or a filter refuses before, nor while a filter
//!   waits for a call. `Expect` goes no further.
//! - HTTP/1.1 is read strictly. Two lengths, a length beside a transfer coding, folded lines, bare line feeds, white space
//!   before a colon, bad chunk sizes: 400, and the connection is closed.
//! - Told to stop, the proxy closes idle connections, says `Connection: close` or GOAWAY on the others, and gives their
//!   requests `shutdown_timeout`.
//!
//! Neither log has headers or queries: keys travel in both.

mod access_log;
mod admin;
mod body;
mod config;
mod counters;
mod deadlines;
mod door;
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
mod reception;
mod socket;
mod tls;
mod tunnel;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::listener::{self, BindError};
use crate::profile::Knobs;
use crate::shared::Shared;
use crate::worker::{self, Limits, Setup, Worker};
use admin::Admin;
pub use config::{Checked, Config, ConfigError, json_from_yaml};
use counters::Counters;

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
}

/// A proxy that is serving, on threads of its own. Dropping it stops it as [`Proxy::shutdown`] does.
#[derive(Debug)]
pub struct Proxy {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    lanes: Vec<JoinHandle<()>>,
    gone: watch::Sender<bool>,
    admin_thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Opens the ports, starts every worker's filters, and serves.
    ///
    /// # Errors
    /// When a port can't be had or a filter does not start; nothing is left running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let workers = config.workers.get();
        let mut sockets: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for listen in &config.listeners {
            let shared = listener::bind_shared(listen.address, workers)?;
            addresses.extend(
                shared
                    .first()
                    .map(|socket| socket.local_addr())
                    .transpose()?,
            );
            for (lane, socket) in sockets.iter_mut().zip(shared) {
                lane.push(socket);
            }
        }
        let admin_socket = config.admin.map(listener::bind).transpose()?;
        let admin = admin_socket
            .as_ref()
            .map(std::net::TcpListener::local_addr)
            .transpose()?;

        let shared = Arc::new(Shared::new(config.profile));
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(false);
        let (gone, all_gone) = watch::channel(false);
        let admin_thread = admin_socket
            .map(|socket| {
                let admin = Admin {
                    counters: Arc::clone(&counters),
                    shared: Arc::clone(&shared),
                    workers,
                    stop: stopped.clone(),
                };
                spawn("tollgate-admin", move || {
                    Ok(admin::serve(socket, admin, all_gone))
                })
            })
            .transpose()?;
        let mut proxy = Self {
            addresses,
            admin,
            shared: Arc::clone(&shared),
            stop,
            lanes: Vec::new(),
            gone,
            admin_thread,
        };

        let (report, started) = mpsc::channel();
        for (index, sockets) in sockets.into_iter().enumerate() {
            let config = config.clone();
            let setup = setup(&config, Arc::clone(&shared));
            let counters = Arc::clone(&counters);
            let stopped = stopped.clone();
            let report = report.clone();
            let lane = spawn(&format!("tollgate-{index}"), move || {
                // Here, because a worker can't leave its thread.
                match Worker::start(setup, config.filters.clone()) {
                    Ok(worker) => {
                        let _ = report.send(Ok(()));
                        Ok(lane::serve(
                            config, index, worker, counters, sockets, stopped,
                        ))
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                        Err(NotStarted)
                    }
                }
            })?;
            proxy.lanes.push(lane);
        }
        drop(report);
        for _ in 0..workers {
            started.recv().map_err(|_| StartError::Died)??;
        }
        Ok(proxy)
    }

    /// Runs the filters of a configuration as far as their start, without opening a port.
    ///
    /// # Errors
    /// When a filter does not start.
    pub fn try_filters(config: &Config) -> Result<(), worker::StartError> {
        let setup = setup(config, Arc::new(Shared::new(config.profile)));
        Worker::start(setup, config.filters.clone()).map(drop)
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where `/ready` and `/metrics` are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What the workers' filters share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
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
            let _ = lane.join();
        }
        self.gone.send_replace(true);
        if let Some(admin) = self.admin_thread.take() {
            let _ = admin.join();
        }
    }
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

/// The thread's work did not begin; whoever waits for it knows why.
struct NotStarted;

/// A thread with an event loop, for work that is made on it.
fn spawn<W>(
    name: &str,
    make: impl FnOnce() -> Result<W, NotStarted> + Send + 'static,
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
            if let Ok(work) = make()
                && let Err(error) = LocalSet::new().block_on(&runtime, work)
            {
                tracing::error!("cannot use a listening socket: {error}");
            }
        })
}
