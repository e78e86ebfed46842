//! A streaming HTTP/1.1 reverse proxy whose requests and answers pass through filters.
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
//! - A client that hangs up ends its upstream request; an upstream that breaks off ends the client's connection.
//! - An upstream that can't be reached is a 502 that filters see like any answer; the log line tells the reason.
//! - Target and Host go on as the client wrote them; `X-Forwarded-For` is extended, `X-Forwarded-Proto` set,
//!   `X-Request-ID` kept or made. Headers of the connection stay on it.
//! - `CONNECT`, upgrades and TLS are not served.
//!
//! Neither log has headers or queries: keys travel in both.

mod access_log;
mod admin;
mod body;
mod config;
mod counters;
mod exchange;
mod exposition;
mod filters;
mod flow;
mod journal;
mod lane;
mod lines;
mod own_answer;
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
pub use config::{Checked, Config, ConfigError, Source, json_from_yaml};
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
            let shared = listener::bind_shared(*listen, workers)?;
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
