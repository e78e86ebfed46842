//! The proxy's YAML: read whole, every mistake reported at once with its path and what to write instead.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use tollgate_kit::config::{Field, Problem, Reader, Seconds, Table};
use tollgate_kit::json::Value;
use tollgate_kit::schema::Json;
use tollgate_kit::{keyword, record};

use crate::catalog::{self, Search};
use crate::engine::{Engine, Module};
use crate::profile;
use crate::worker::{FailurePolicy, FilterSpec};

keyword! {
    /// Whose behaviour the filters meet.
    enum Profile {
        /// What the ABI's text promises.
        Spec = "spec",
        /// Envoy's.
        Envoy = "envoy",
        /// Kong's: ngx_wasm_module in nginx.
        Kong = "kong",
    }
}

impl From<Profile> for profile::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Spec => Self::Spec,
            Profile::Envoy => Self::Envoy,
            Profile::Kong => Self::Kong,
        }
    }
}

keyword! {
    /// What becomes of requests after a filter has trapped.
    enum OnTrap {
        /// They get 503.
        Closed = "closed",
        /// They pass without the filter.
        Open = "open",
        /// They get a new VM.
        Reload = "reload",
    }
}

impl From<OnTrap> for FailurePolicy {
    fn from(on_trap: OnTrap) -> Self {
        match on_trap {
            OnTrap::Closed => Self::Closed,
            OnTrap::Open => Self::Open,
            OnTrap::Reload => Self::Reload,
        }
    }
}

record! {
    /// A reverse proxy with proxy-wasm filters.
    struct RawConfig {
        /// Whose behaviour the filters meet: spec, envoy or kong.
        profile: Profile = Profile::Envoy,
        /// Envoy's option of that name: a filter may hold the headers until it has the body. Istio's WasmPlugin can't set it.
        allow_on_headers_stop_iteration: bool = true,
        /// Threads, each with filter VMs of its own; 0: one for each processor.
        workers: u64 = 0,
        /// What a host buffers of one body for the filters, in bytes. On Envoy a request over it gets 413.
        body_buffer: u64 = 1_048_576,
        /// How long open requests may take to finish once the proxy was told to stop.
        shutdown_timeout: Seconds = Seconds(Duration::from_secs(30)),
        /// Whether each request writes a line of JSON to stdout.
        access_log: bool = true,
        /// Where /ready and /metrics are served; left out: nowhere.
        admin: Option<RawListener>,
        /// Where clients connect.
        listeners: Vec<RawListener>,
        /// Which requests go where; the longest prefix wins.
        routes: Vec<RawRoute>,
        /// The upstreams, by name.
        clusters: Table<RawCluster>,
        /// The filters, by a name of your own.
        filters: Table<RawFilter> = Table(Vec::new()),
    }
}

record! {
    /// A listening socket.
    struct RawListener {
        /// Address and port, as 127.0.0.1:8080; port 0 takes a free one.
        address: Address,
    }
}

record! {
    /// Where requests of one path prefix go.
    struct RawRoute {
        /// The beginning of the path; "/" for every one. "/v1" takes /v1 and /v1/x, not /v10.
        prefix: String = "/".to_owned(),
        /// The cluster's name.
        cluster: String,
        /// The filters' names, in the order in which requests pass them.
        filters: Vec<String> = Vec::new(),
    }
}

record! {
    /// An upstream and its endpoints.
    struct RawCluster {
        /// host:port of each; requests take turns.
        endpoints: Vec<Endpoint>,
        /// How long opening a connection may take.
        connect_timeout: Seconds = Seconds(Duration::from_secs(5)),
    }
}

record! {
    /// A filter with its configuration.
    struct RawFilter {
        /// A filter's name, such as key-auth, or the path of a .wasm file, relative to this file.
        wasm: String,
        /// The filter's configuration.
        config: Option<Document>,
        /// A file with the filter's configuration instead, YAML or JSON, relative to this file.
        config_file: Option<String>,
        /// The environment variables that the filter sees, for ${env:NAME} in its configuration.
        environment: Table<String> = Table(Vec::new()),
        /// What becomes of requests after the filter has trapped: closed, open or reload.
        on_trap: OnTrap = OnTrap::Closed,
    }
}

/// A socket address with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address(SocketAddr);

impl Field for Address {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(value)?;
        let address = text.parse().ok().map(Address);
        if address.is_none() {
            reader.error(format_args!(
                "'{text}' is no address: write an IP address and a port, as 127.0.0.1:8080 or [::1]:8080"
            ));
        }
        address
    }

    fn schema() -> Json {
        tollgate_kit::schema::of_type("string")
    }

    fn to_json(&self) -> Json {
        Json::from(self.0.to_string())
    }
}

/// An upstream's `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint(http::uri::Authority);

impl Field for Endpoint {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(value)?;
        let authority = text.parse::<http::uri::Authority>().ok();
        let endpoint = authority.filter(|authority| {
            authority.port_u16().is_some_and(|port| port > 0) && !authority.as_str().contains('@')
        });
        if endpoint.is_none() {
            reader.error(format_args!(
                "'{text}' is no endpoint: write host and port without a scheme or path, as 127.0.0.1:9001"
            ));
        }
        endpoint.map(Endpoint)
    }

    fn schema() -> Json {
        tollgate_kit::schema::of_type("string")
    }

    fn to_json(&self) -> Json {
        Json::from(self.0.as_str())
    }
}

/// A configuration inside the configuration, which its filter reads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Document(Vec<u8>);

impl Field for Document {
    fn read(value: Value<'_>, _reader: &mut Reader<'_>) -> Option<Self> {
        // A string is the text itself, as Envoy's StringValue has it.
        Some(Self(value.as_bytes().map_or_else(
            || value.text().to_vec(),
            |text| text.into_owned(),
        )))
    }

    fn schema() -> Json {
        Json::Object(serde_json::Map::new())
    }

    fn to_json(&self) -> Json {
        serde_json::from_slice(&self.0).unwrap_or(Json::Null)
    }
}

/// A validated configuration, its modules compiled.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) profile: profile::Profile,
    pub(super) headers_stop_iteration: bool,
    pub(super) workers: NonZeroUsize,
    pub(super) body_buffer: usize,
    pub(super) shutdown_timeout: Duration,
    pub(super) access_log: bool,
    pub(super) admin: Option<SocketAddr>,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) routes: Vec<Route>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) filters: Vec<FilterSpec>,
}

/// Where requests of one path prefix go. Routes stand longest prefix first.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) prefix: String,
    /// Index into the clusters.
    pub(super) cluster: usize,
    /// Indices into the filters.
    pub(super) filters: Vec<usize>,
}

impl Route {
    /// Whether a path without its query belongs here: prefixes end at a slash.
    pub(super) fn takes(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix.as_str()).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || self.prefix.ends_with('/')
        })
    }
}

/// An upstream.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) endpoints: Vec<http::uri::Authority>,
    pub(super) connect_timeout: Duration,
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
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_path_buf(),
            source,
        })?;
        Self::read(&text, path.parent().unwrap_or(Path::new(".")), search)
    }

    /// Reads a text; paths in it are relative to `base`.
    ///
    /// # Errors
    /// When anything in it is wrong.
    pub fn read(text: &str, base: &Path, search: &Search) -> Result<Checked, ConfigError> {
        let text = json_from_yaml(text)?;
        let engine = Engine::for_traffic().map_err(ConfigError::Engine)?;
        let environment = |name: &str| std::env::var(name).ok();
        let mut reader = Reader::new(&environment);
        let config = reader
            .document(text.as_bytes())
            .and_then(|value| RawConfig::read(value, &mut reader))
            .and_then(|raw| validate(raw, base, search, engine, &mut reader));
        let (errors, warnings) = reader.finish();
        match config {
            Some(config) if errors.is_empty() => Ok(Checked { config, warnings }),
            _ => Err(ConfigError::Wrong(errors)),
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

fn validate(
    raw: RawConfig,
    base: &Path,
    search: &Search,
    engine: Engine,
    reader: &mut Reader<'_>,
) -> Option<Config> {
    let listeners = reader.member("listeners", |reader| {
        addresses(&raw.listeners, raw.admin.as_ref(), reader)
    });
    let clusters: Vec<Cluster> = raw
        .clusters
        .0
        .into_iter()
        .map(|(name, cluster)| {
            if cluster.endpoints.is_empty() {
                report(
                    reader,
                    &["clusters", &name, "endpoints"],
                    "must name at least one host:port",
                );
            }
            Cluster {
                name,
                endpoints: cluster
                    .endpoints
                    .into_iter()
                    .map(|endpoint| endpoint.0)
                    .collect(),
                connect_timeout: cluster.connect_timeout.0,
            }
        })
        .collect();
    let names: Vec<String> = raw.filters.0.iter().map(|(name, _)| name.clone()).collect();
    let routes = reader.member("routes", |reader| {
        routes(raw.routes, &clusters, &names, reader)
    });
    let place = Place {
        base,
        search,
        engine: &engine,
        profile: raw.profile,
    };
    let filters: Vec<FilterSpec> = reader.member("filters", |reader| {
        let filters = raw.filters.0.into_iter();
        filters
            .filter_map(|(name, filter)| {
                reader.member(&name, |reader| place.filter(&name, filter, reader))
            })
            .collect()
    });
    let workers = usize::try_from(raw.workers)
        .ok()
        .and_then(NonZeroUsize::new);
    let config = Config {
        profile: raw.profile.into(),
        headers_stop_iteration: raw.allow_on_headers_stop_iteration,
        workers: workers
            .or_else(|| available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN),
        body_buffer: usize::try_from(raw.body_buffer).unwrap_or(usize::MAX),
        shutdown_timeout: raw.shutdown_timeout.0,
        access_log: raw.access_log,
        admin: raw.admin.map(|admin| admin.address.0),
        listeners,
        routes,
        clusters,
        filters,
    };
    reader.is_clean().then_some(config)
}

/// Reports at a path below the current place.
fn report(reader: &mut Reader<'_>, path: &[&str], message: impl fmt::Display) {
    match path {
        [] => reader.error(message),
        [first, rest @ ..] => reader.member(first, |reader| report(reader, rest, message)),
    }
}

fn addresses(
    raw: &[RawListener],
    admin: Option<&RawListener>,
    reader: &mut Reader<'_>,
) -> Vec<SocketAddr> {
    if raw.is_empty() {
        reader.error("must hold at least one: - address: 127.0.0.1:8080");
    }
    let mut taken: Vec<SocketAddr> = admin.map(|admin| admin.address.0).into_iter().collect();
    let mut listeners = Vec::new();
    for (index, listener) in raw.iter().enumerate() {
        let address = listener.address.0;
        if address.port() != 0 && taken.contains(&address) {
            reader.element(index, |reader| {
                report(
                    reader,
                    &["address"],
                    format_args!(
                        "{address} is taken by another listener or by admin: choose another port"
                    ),
                );
            });
        }
        taken.push(address);
        listeners.push(address);
    }
    listeners
}

fn routes(
    raw: Vec<RawRoute>,
    clusters: &[Cluster],
    filters: &[String],
    reader: &mut Reader<'_>,
) -> Vec<Route> {
    if raw.is_empty() {
        reader.error("must hold at least one: - {prefix: /, cluster: NAME}");
    }
    let mut routes: Vec<Route> = Vec::new();
    for (index, route) in raw.into_iter().enumerate() {
        reader.element(index, |reader| {
            if !route.prefix.starts_with('/') {
                report(reader, &["prefix"], "must begin with /");
            }
            if routes.iter().any(|other| other.prefix == route.prefix) {
                report(
                    reader,
                    &["prefix"],
                    format_args!("another route has {} already: merge the two", route.prefix),
                );
            }
            let cluster = clusters
                .iter()
                .position(|cluster| cluster.name == route.cluster);
            if cluster.is_none() {
                let known: Vec<_> = clusters
                    .iter()
                    .map(|cluster| cluster.name.as_str())
                    .collect();
                report(
                    reader,
                    &["cluster"],
                    unknown("cluster", &route.cluster, &known),
                );
            }
            let chain = reader.member("filters", |reader| chain(&route.filters, filters, reader));
            routes.push(Route {
                prefix: route.prefix,
                cluster: cluster.unwrap_or_default(),
                filters: chain,
            });
        });
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    routes
}

fn chain(names: &[String], filters: &[String], reader: &mut Reader<'_>) -> Vec<usize> {
    let known: Vec<_> = filters.iter().map(String::as_str).collect();
    let mut chain = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match filters.iter().position(|filter| filter == name) {
            Some(filter) => chain.push(filter),
            None => reader.element(index, |reader| {
                reader.error(unknown("filter", name, &known))
            }),
        }
    }
    chain
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    match known {
        [] => format!("no {kind} named '{name}': there is none, describe it under {kind}s"),
        _ => format!(
            "no {kind} named '{name}': one of {}, or describe it under {kind}s",
            known.join(", ")
        ),
    }
}

/// What reading a filter's entry needs to know.
struct Place<'a> {
    base: &'a Path,
    search: &'a Search,
    engine: &'a Engine,
    profile: Profile,
}

impl Place<'_> {
    fn filter(&self, name: &str, raw: RawFilter, reader: &mut Reader<'_>) -> Option<FilterSpec> {
        let known = catalog::find(&raw.wasm);
        let module = reader.member("wasm", |reader| self.module(&raw.wasm, known, reader));
        let configuration = self.configuration(raw.config, raw.config_file, reader);
        let environment = raw.environment.0;
        if self.profile == Profile::Kong && !environment.is_empty() {
            report(
                reader,
                &["environment"],
                "Kong gives filters no environment: write the values into config",
            );
        }
        if let (Some(known), Some((field, configuration))) = (known, &configuration) {
            reader.member(field, |reader| {
                let checked =
                    (known.check)(configuration, &|name: &str| variable(&environment, name));
                let (errors, warnings) = match checked {
                    Ok(warnings) => (Vec::new(), warnings),
                    Err(errors) => (errors, Vec::new()),
                };
                for problem in errors {
                    at(reader, &problem.path, |reader| {
                        reader.error(&problem.message)
                    });
                }
                for problem in warnings {
                    at(reader, &problem.path, |reader| {
                        reader.warn(&problem.message)
                    });
                }
            });
        }
        Some(FilterSpec {
            name: name.to_owned(),
            module: module?,
            configuration: configuration?.1,
            environment,
            on_trap: raw.on_trap.into(),
        })
    }

    fn module(
        &self,
        wasm: &str,
        known: Option<&catalog::Filter>,
        reader: &mut Reader<'_>,
    ) -> Option<Module> {
        let path = if let Some(filter) = known.filter(|filter| filter.name == wasm) {
            self.search
                .find(filter)
                .map_err(|error| reader.error(error))
                .ok()?
        } else if wasm.ends_with(".wasm") || wasm.contains('/') {
            self.base.join(wasm)
        } else {
            let names: Vec<_> = catalog::FILTERS.iter().map(|filter| filter.name).collect();
            reader.error(format_args!(
                "no filter named '{wasm}': one of {}, or the path of a .wasm file",
                names.join(", ")
            ));
            return None;
        };
        Module::load(self.engine, &path)
            .map_err(|error| reader.error(error))
            .ok()
    }

    /// The text that the filter gets, and the field it comes from.
    fn configuration(
        &self,
        inline: Option<Document>,
        file: Option<String>,
        reader: &mut Reader<'_>,
    ) -> Option<(&'static str, Vec<u8>)> {
        match (inline, file) {
            (Some(_), Some(_)) => {
                report(
                    reader,
                    &["config_file"],
                    "config is given too: keep one of the two",
                );
                None
            }
            (Some(document), None) => Some(("config", document.0)),
            (None, None) => Some(("config", Vec::new())),
            (None, Some(file)) => reader.member("config_file", |reader| {
                let path = self.base.join(file);
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| {
                        reader.error(format_args!("cannot read {}: {error}", path.display()))
                    })
                    .ok()?;
                let json = json_from_yaml(&text)
                    .map_err(|error| {
                        reader.error(format_args!("{} is not YAML: {error}", path.display()))
                    })
                    .ok()?;
                Some(("config_file", json.into_bytes()))
            }),
        }
    }
}

/// Does something at a path that is written out, which may be empty.
fn at(reader: &mut Reader<'_>, path: &str, report: impl FnOnce(&mut Reader<'_>)) {
    if path.is_empty() {
        report(reader)
    } else {
        reader.member(path, report)
    }
}

fn variable(variables: &[(String, String)], name: &str) -> Option<String> {
    variables
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.clone())
}
