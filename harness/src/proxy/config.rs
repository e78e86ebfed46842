//! The proxy's YAML: read whole, every mistake reported at once with its path and what to write instead.

mod raw;
mod shown;
mod source;
mod transport;
mod validate;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_kit::config::{Field, Problem, Reader};
use tollgate_kit::schema::Json;

use super::access_log::Destination;
use super::routes::Route;
use crate::catalog::Search;
use crate::profile::Profile;
use crate::worker::FilterSpec;
use raw::RawConfig;
pub use source::Source;
use source::{Files, Workshop};
pub(super) use transport::{
    ConnectionLimits, Listen, Protocol, RequestLimits, Timeouts, Transport, Trust,
};
use validate::{Place, validate};

/// A validated configuration, its modules compiled.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) profile: Profile,
    pub(super) headers_stop_iteration: bool,
    pub(super) workers: NonZeroUsize,
    pub(super) body_buffer: usize,
    pub(super) shutdown_timeout: Duration,
    /// Whether filters fail that do what does not work on every host.
    pub(super) strict: bool,
    pub(super) access_log: Option<Log>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) listeners: Vec<Listen>,
    /// The most specific first.
    pub(super) routes: Vec<Route>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) filters: Vec<FilterSpec>,
    /// The whole as it may be shown.
    pub(super) shown: Json,
}

/// Where the access log goes, and what it tells besides its own fields.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) destination: Destination,
    /// Names of fields and the properties they show.
    pub(super) fields: Vec<(String, String)>,
}

/// An upstream.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) name: String,
    /// `host:port`, and how many turns it gets for each turn of one with 1.
    pub(super) endpoints: Vec<(http::uri::Authority, u32)>,
    pub(super) transport: Transport,
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Occurs when the file can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Occurs when the text is no YAML.
    #[error("not YAML: {0}")]
    NotYaml(#[from] serde_saphyr::Error),
    /// Occurs when something in it is wrong; carries all that is.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
    /// Occurs when the wasm engine can't start.
    #[error("the wasm engine does not start: {0}")]
    Engine(wasmtime::Error),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A configuration that can be used, and what is doubtful about it.
#[derive(Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// What works but may not be meant.
    pub warnings: Vec<Problem>,
}

/// Turns YAML (or JSON, which is YAML) into JSON text.
///
/// # Errors
/// When it is neither.
pub fn json_from_yaml(text: &str) -> Result<String, serde_saphyr::Error> {
    let value: Option<Json> = serde_saphyr::from_str(text)?;
    Ok(value.unwrap_or(Json::Null).to_string())
}

impl Config {
    /// Reads a file; paths in it are relative to its directory.
    ///
    /// # Errors
    /// When it can't be read, or anything in it is wrong.
    pub fn load(path: &Path, search: &Search) -> Result<Checked, ConfigError> {
        Source::new(path.to_path_buf(), search.clone()).load()
    }

    /// Reads a text; paths in it are relative to `base`.
    ///
    /// # Errors
    /// When anything in it is wrong.
    pub fn read(text: &str, base: &Path, search: &Search) -> Result<Checked, ConfigError> {
        let workshop = Workshop::open().map_err(ConfigError::Engine)?;
        Self::read_in(text, base, search, &workshop, &Files::default())
    }

    fn read_in(
        text: &str,
        base: &Path,
        search: &Search,
        workshop: &Workshop,
        files: &Files,
    ) -> Result<Checked, ConfigError> {
        let text = json_from_yaml(text)?;
        let environment = |name: &str| std::env::var(name).ok();
        let mut reader = Reader::new(&environment);
        let config = reader
            .document(text.as_bytes())
            .and_then(|value| RawConfig::read(value, &mut reader))
            .and_then(|raw| {
                let place = Place {
                    base,
                    search,
                    workshop,
                    files,
                };
                validate(raw, &place, &mut reader)
            });
        let (errors, warnings) = reader.finish();
        match config {
            Some(mut config) if errors.is_empty() => {
                // It was read as JSON above.
                let document = serde_json::from_str(&text).unwrap_or_default();
                config.shown = shown::shown(&document, &config.filters);
                Ok(Checked { config, warnings })
            }
            _ => Err(ConfigError::Wrong(errors)),
        }
    }

    /// The same, where filters fail that do what does not work on every host.
    #[must_use]
    pub fn strict(self) -> Self {
        Self {
            strict: true,
            ..self
        }
    }

    /// The cluster names, which is what filters' calls may name.
    pub(super) fn cluster_names(&self) -> BTreeSet<String> {
        self.clusters
            .iter()
            .map(|cluster| cluster.name.clone())
            .collect()
    }
}
