//! Changing the configuration of a proxy that serves: all of it or nothing.
//!
//! The new filters start beside the old ones, first in a state of their own, so that one that refuses its configuration
//! has touched nothing; then on each worker thread. Only when all have started do the threads change over. Requests under
//! way finish with the filters they began with.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::access_log::LogError;
use super::config::{Checked, Config, ConfigError};
use crate::listener::BindError;
use crate::worker;

/// Why a configuration was not taken; the one before it goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Occurs when it can't be read, or anything in it is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Occurs when it changes what a running process can't change.
    #[error("{}", .0.join("\n"))]
    Fixed(Vec<String>),
    /// Occurs when the port of a new listener can't be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Occurs when the access log's file can't be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Occurs when a filter does not start.
    #[error(transparent)]
    Filter(#[from] worker::StartError),
    /// Occurs when a worker thread has ended, which is a bug; it has printed why.
    #[error("a worker thread has ended")]
    Died,
}

impl ReloadError {
    /// The message for the admin port. A parser's shows a piece of the text, where secrets may stand.
    fn shown(&self) -> String {
        match self {
            Self::Config(ConfigError::NotYaml(_)) => {
                "the file is not YAML: the log tells where".to_owned()
            }
            error => error.to_string(),
        }
    }
}

/// What a reload changes that the process can't.
pub(super) fn fixed(old: &Config, new: &Config) -> Result<(), ReloadError> {
    let admin = |config: &Config| config.admin.map_or("none".to_owned(), |at| at.to_string());
    let rows = [
        ("profile", old.profile.to_string(), new.profile.to_string()),
        ("workers", old.workers.to_string(), new.workers.to_string()),
        ("admin", admin(old), admin(new)),
    ];
    let changed: Vec<String> = rows
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(field, old, new)| {
            format!(
                "{field}: can't change from {old} to {new} while it runs: restart it, or keep {old}"
            )
        })
        .collect();
    if changed.is_empty() {
        Ok(())
    } else {
        Err(ReloadError::Fixed(changed))
    }
}

/// Which configuration serves, and how the last attempt at another went.
#[derive(Debug)]
pub(super) struct InForce(Mutex<State>);

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) config: Option<std::sync::Arc<Config>>,
    /// Counts the configurations that were taken; the first is 1.
    pub(super) generation: u64,
    pub(super) since_unix_seconds: u64,
    pub(super) failed: u64,
    /// Why the last attempt failed; none: it did not.
    pub(super) last_error: Option<String>,
    /// Where it listens, in the order of the configuration: as configured, and as bound.
    pub(super) listening: Vec<(SocketAddr, SocketAddr)>,
}

impl InForce {
    /// Before the first configuration.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            config: None,
            generation: 0,
            since_unix_seconds: 0,
            failed: 0,
            last_error: None,
            listening: Vec::new(),
        }))
    }

    pub(super) fn now(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn taken(
        &self,
        config: std::sync::Arc<Config>,
        listening: Vec<(SocketAddr, SocketAddr)>,
    ) {
        let mut state = self.now();
        state.config = Some(config);
        state.generation = state.generation.saturating_add(1);
        state.since_unix_seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        state.last_error = None;
        state.listening = listening;
    }

    pub(super) fn refused(&self, error: &ReloadError) {
        let mut state = self.now();
        state.failed = state.failed.saturating_add(1);
        state.last_error = Some(error.shown());
    }
}

/// What reading a configuration came to: [`super::Source::load`]'s result.
pub type Read = Result<Checked, ConfigError>;
