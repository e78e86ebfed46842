//! A real Envoy as a child process: its configuration, its start, its administration, its end.
//!
//! The same modules run here and in the simulated host, so that a difference between the two is seen and not guessed.
//! Every listener answers on a free port of the loopback interface, and a filter that traps closes its VM for good
//! (`FAIL_CLOSED`) unless its [`Tuning`] says otherwise: reloading would hide the trap.

mod bootstrap;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use serde_json::Value;
use tempfile::TempDir;

pub use bootstrap::{cluster_name, grpc_cluster_name};

use crate::wire::{self, WireError};
use crate::worker::FailurePolicy;

/// How long Envoy may take until it is ready. Compiling many modules on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// The lines of Envoy's log that an error shows.
const LOG_LINES: usize = 12;

/// One listener, its filters, and the upstream that its requests go to.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The name to find the address by.
    pub name: String,
    /// The filters, in the order of the request path.
    pub filters: Vec<Filter>,
    /// Where requests go.
    pub upstream: SocketAddr,
    /// Expect a PROXY protocol line in front of each connection, and take the client's address from it.
    pub proxy_protocol: bool,
}

/// One wasm filter.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The name in logs and statistics.
    pub name: String,
    /// The module's file.
    pub module: PathBuf,
    /// The configuration, as text.
    pub configuration: String,
    /// Filters with the same module and id share a VM and its shared data.
    pub vm_id: String,
}

/// What an operator sets for a filter, besides its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// What becomes of requests once the VM has trapped.
    pub failure_policy: FailurePolicy,
    /// With [`FailurePolicy::Reload`], the time between two reloads; none: Envoy's own, 1 s.
    pub reload_back_off: Option<Duration>,
    /// `allow_on_headers_stop_iteration`.
    pub headers_stop_iteration: bool,
    /// The environment the VM sees.
    pub environment: BTreeMap<String, String>,
}

impl Default for Tuning {
    /// A trap closes the VM for good, and a pause from the headers holds the headers alone.
    fn default() -> Self {
        Self {
            failure_policy: FailurePolicy::Closed,
            reload_back_off: None,
            headers_stop_iteration: true,
            environment: BTreeMap::new(),
        }
    }
}

/// Why there is no Envoy, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// Occurs when no Envoy can be found.
    #[error(
        "no Envoy found: install one with `just setup`, or name its executable in TOLLGATE_ENVOY"
    )]
    NotFound,
    /// Occurs when a file of the configuration can't be written or the process can't be started.
    #[error("starting Envoy: {0}")]
    Spawn(#[from] io::Error),
    /// Occurs when Envoy ends before it is ready.
    #[error("Envoy ended before it was ready:\n{log}")]
    Ended {
        /// The end of its log.
        log: String,
    },
    /// Occurs when Envoy isn't ready in time.
    #[error("Envoy was not ready after {} s:\n{log}", PATIENCE.as_secs())]
    Late {
        /// The end of its log.
        log: String,
    },
    /// Occurs when Envoy didn't take a listener, most often because a filter refused its configuration.
    #[error("Envoy refused the listener {name}: {reason}")]
    Refused {
        /// The listener.
        name: String,
        /// Envoy's reason.
        reason: String,
    },
    /// Occurs when the administration interface doesn't answer as it should.
    #[error("Envoy's administration, {path}: {source}")]
    Administration {
        /// What was asked for.
        path: String,
        /// The reason.
        source: WireError,
    },
    /// Occurs when the administration interface answers something unexpected.
    #[error("Envoy's administration, {path}: unexpected answer")]
    Answer {
        /// What was asked for.
        path: String,
    },
}

/// Finds Envoy's executable: the variable TOLLGATE_ENVOY, then PATH, then the project's virtual environment.
///
/// # Errors
/// [`EnvoyError::NotFound`] when it is in none of them.
pub fn find() -> Result<PathBuf, EnvoyError> {
    if let Some(named) = env::var_os("TOLLGATE_ENVOY") {
        return Some(PathBuf::from(named))
            .filter(|path| path.is_file())
            .ok_or(EnvoyError::NotFound);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let here = env::current_dir()?;
    let environments = here.ancestors().map(|dir| dir.join(".cache/venv/bin"));
    env::split_paths(&path)
        .chain(environments)
        .map(|dir| dir.join("envoy"))
        .find(|path| path.is_file())
        .ok_or(EnvoyError::NotFound)
}

/// A running Envoy. It is killed when dropped.
#[derive(Debug)]
pub struct Envoy {
    process: Child,
    administration: SocketAddr,
    addresses: BTreeMap<String, SocketAddr>,
    listeners: Vec<Listener>,
    directory: TempDir,
}

/// What an Envoy is configured with besides its listeners.
#[derive(Clone)]
pub struct Besides<'a> {
    /// HTTP filters of Envoy's own, as its configuration has them, before those of the listener of that name: to compare with.
    pub native: BTreeMap<String, Value>,
    /// gRPC services, with a cluster for each: [`grpc_cluster_name`].
    pub grpc_services: Vec<SocketAddr>,
    /// What an operator sets for each filter.
    pub tune: &'a dyn Fn(&Filter) -> Tuning,
}

impl Default for Besides<'_> {
    /// Nothing, and for each filter what [`Tuning::default`] says.
    fn default() -> Self {
        Self {
            native: BTreeMap::new(),
            grpc_services: Vec::new(),
            tune: &|_| Tuning::default(),
        }
    }
}

impl Envoy {
    /// Starts the executable with these listeners and this number of worker threads, and waits until it is ready.
    ///
    /// A listener that Envoy refuses doesn't stop the others: see [`Envoy::address`].
    ///
    /// # Errors
    /// Fails when Envoy can't be started, ends, or isn't ready within two minutes.
    pub fn start(
        executable: &Path,
        listeners: &[Listener],
        workers: u32,
    ) -> Result<Self, EnvoyError> {
        Self::start_with(executable, listeners, workers, &Besides::default())
    }

    /// The same, with more in its configuration.
    ///
    /// # Errors
    /// As [`Envoy::start`].
    pub fn start_with(
        executable: &Path,
        listeners: &[Listener],
        workers: u32,
        besides: &Besides<'_>,
    ) -> Result<Self, EnvoyError> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        fs::write(
            at("listeners.json"),
            bootstrap::listeners(listeners, besides).to_string(),
        )?;
        fs::write(
            at("envoy.json"),
            bootstrap::bootstrap(&at("listeners.json"), listeners, &besides.grpc_services)
                .to_string(),
        )?;
        let log = File::create(at("log"))?;
        let process = Command::new(executable)
            .arg("--config-path")
            .arg(at("envoy.json"))
            .arg("--admin-address-path")
            .arg(at("administration"))
            .args(["--concurrency", &workers.to_string()])
            .args(["--log-level", "warning", "--use-dynamic-base-id"])
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()?;
        let mut envoy = Self {
            process,
            administration: SocketAddr::from(([127, 0, 0, 1], 0)),
            addresses: BTreeMap::new(),
            listeners: listeners.to_vec(),
            directory,
        };
        envoy.wait_until_ready()?;
        envoy.addresses = envoy.listener_addresses()?;
        Ok(envoy)
    }

    fn wait_until_ready(&mut self) -> Result<(), EnvoyError> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.process.try_wait()?.is_some() {
                return Err(EnvoyError::Ended {
                    log: self.log_end(),
                });
            }
            let told = fs::read_to_string(self.directory.path().join("administration"));
            if let Some(address) = told.ok().and_then(|text| text.trim().parse().ok()) {
                self.administration = address;
                if self.get("/ready").is_ok() {
                    return Ok(());
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(EnvoyError::Late {
            log: self.log_end(),
        })
    }

    fn listener_addresses(&self) -> Result<BTreeMap<String, SocketAddr>, EnvoyError> {
        const PATH: &str = "/listeners?format=json";
        let unexpected = || EnvoyError::Answer {
            path: PATH.to_owned(),
        };
        let listed: Value = serde_json::from_str(&self.get(PATH)?).map_err(|_| unexpected())?;
        let listeners = listed.get("listener_statuses").and_then(Value::as_array);
        let mut addresses = BTreeMap::new();
        for listener in listeners.into_iter().flatten() {
            let name = listener.get("name").and_then(Value::as_str);
            let port = listener
                .pointer("/local_address/socket_address/port_value")
                .and_then(Value::as_u64)
                .and_then(|port| u16::try_from(port).ok());
            let (Some(name), Some(port)) = (name, port) else {
                return Err(unexpected());
            };
            addresses.insert(name.to_owned(), SocketAddr::from(([127, 0, 0, 1], port)));
        }
        Ok(addresses)
    }

    /// Where a listener answers.
    ///
    /// # Errors
    /// [`EnvoyError::Refused`] with Envoy's reason when it didn't take the listener.
    pub fn address(&self, listener: &str) -> Result<SocketAddr, EnvoyError> {
        self.addresses
            .get(listener)
            .copied()
            .ok_or_else(|| EnvoyError::Refused {
                name: listener.to_owned(),
                reason: self.reason_of_refusal(listener),
            })
    }

    /// Envoy says that a filter refused; why, only the filter's own log lines say.
    fn reason_of_refusal(&self, listener: &str) -> String {
        let mut reason = self.error_state(listener).unwrap_or_else(|| self.log_end());
        let filters = self
            .listeners
            .iter()
            .filter(|known| known.name == listener)
            .flat_map(|known| &known.filters);
        let marks: Vec<String> = filters
            .map(|filter| format!("] wasm log {}: ", filter.vm_id))
            .collect();
        for line in self.log().unwrap_or_default().lines() {
            if let Some((_, said)) = marks.iter().find_map(|mark| line.split_once(mark.as_str())) {
                reason.push_str("\n  ");
                reason.push_str(said);
            }
        }
        reason
    }

    fn error_state(&self, listener: &str) -> Option<String> {
        let dump = self.get("/config_dump?resource=dynamic_listeners").ok()?;
        let dump: Value = serde_json::from_str(&dump).ok()?;
        let configs = dump.get("configs")?.as_array()?;
        let named = |config: &&Value| config.get("name").and_then(Value::as_str) == Some(listener);
        let details = configs
            .iter()
            .find(named)?
            .pointer("/error_state/details")?;
        Some(details.as_str()?.to_owned())
    }

    /// The process, for what the system knows about it.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// Fails when the system can't tell.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// The counters and gauges whose names match a regular expression.
    ///
    /// # Errors
    /// Fails when the administration interface doesn't answer.
    pub fn stats(&self, pattern: &str) -> Result<BTreeMap<String, u64>, EnvoyError> {
        let text = self.get(&format!("/stats?filter={pattern}"))?;
        Ok(text
            .lines()
            .filter_map(|line| {
                let (name, value) = line.split_once(": ")?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// Envoy's log so far.
    ///
    /// # Errors
    /// Fails when it can't be read.
    pub fn log(&self) -> io::Result<String> {
        let log = fs::read(self.directory.path().join("log"))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    fn log_end(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let start = lines.len().saturating_sub(LOG_LINES);
        lines.get(start..).unwrap_or_default().join("\n")
    }

    /// Asks the administration interface.
    fn get(&self, path: &str) -> Result<String, EnvoyError> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        let response =
            wire::exchange(self.administration, "GET", request.as_bytes()).map_err(|source| {
                EnvoyError::Administration {
                    path: path.to_owned(),
                    source,
                }
            })?;
        if response.status != 200 {
            return Err(EnvoyError::Answer {
                path: path.to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&response.body).into_owned())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Either fails only when the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
