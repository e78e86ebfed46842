//! The fields as they are written, each valid by itself.

use std::net::SocketAddr;
use std::time::Duration;

use tollgate_kit::config::{Field, HeaderName, Reader, Seconds, Table};
use tollgate_kit::json::{Kind, Value};
use tollgate_kit::schema::Json;
use tollgate_kit::{keyword, record};

use super::transport::{Protocol, RawListen, RawTrust, Timeouts};
use crate::profile;
use crate::worker::FailurePolicy;

keyword! {
    /// Whose behaviour the filters meet.
    pub(super) enum Profile {
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
    pub(super) enum OnTrap {
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
    pub(super) struct RawConfig {
        /// Whose behaviour the filters meet: spec, envoy or kong.
        pub(super) profile: Profile = Profile::Envoy,
        /// Envoy's option of that name: a filter may hold the headers until it has the body. Istio's WasmPlugin can't set it.
        pub(super) allow_on_headers_stop_iteration: bool = true,
        /// Threads, each with filter VMs of its own; 0: one for each processor.
        pub(super) workers: u64 = 0,
        /// What a host buffers of one body for the filters, in bytes. On Envoy a request over it gets 413.
        pub(super) body_buffer: u64 = 1_048_576,
        /// How long open requests may take to finish once the proxy was told to stop.
        pub(super) shutdown_timeout: Seconds = Seconds(Duration::from_secs(30)),
        /// Whether each request writes a line of JSON to stdout; or where it goes and what it tells.
        pub(super) access_log: RawAccessLog = RawAccessLog::Stdout(true),
        /// Where the live page, /ready, /metrics, /config and /shared are served; left out: nowhere.
        pub(super) admin: Option<RawAdmin>,
        /// Where clients connect.
        pub(super) listeners: Vec<RawListen>,
        /// Which requests go where; the most specific one that fits is taken.
        pub(super) routes: Vec<RawRoute>,
        /// The upstreams, by name.
        pub(super) clusters: Table<RawCluster>,
        /// The filters, by a name of your own.
        pub(super) filters: Table<RawFilter> = Table(Vec::new()),
    }
}

record! {
    /// Where the access log goes.
    pub(super) struct RawLog {
        /// A file to append to, relative to this file, opened again at SIGHUP; left out: stdout.
        pub(super) path: Option<String>,
        /// Further fields of each line: names, and the properties set by filters that they show.
        pub(super) fields: Table<String> = Table(Vec::new()),
    }
}

/// `true`, `false`, or where the log goes.
#[derive(Clone, Debug)]
pub(super) enum RawAccessLog {
    Stdout(bool),
    Described(RawLog),
}

impl Field for RawAccessLog {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.kind() {
            Kind::Bool(on) => Some(Self::Stdout(on)),
            Kind::Object => RawLog::read(value, reader).map(Self::Described),
            _ => {
                reader.error("expected true, false, or an object as {path: access.log}");
                None
            }
        }
    }

    fn schema() -> Json {
        serde_json::json!({"anyOf": [tollgate_kit::schema::of_type("boolean"), RawLog::schema()]})
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Stdout(on) => Json::from(*on),
            Self::Described(log) => log.to_json(),
        }
    }
}

record! {
    /// The admin port. It has no password.
    pub(super) struct RawAdmin {
        /// Address and port; port 0 takes a free one.
        pub(super) address: Address = Address(SocketAddr::from(([127, 0, 0, 1], 9901))),
    }
}

record! {
    /// Where some requests go: those that fit all that is given.
    pub(super) struct RawRoute {
        /// Names it in the log; left out: its path.
        pub(super) name: Option<String>,
        /// The beginning of the path; left out, and without `path`: "/", every one. "/v1" takes /v1 and /v1/x, not /v10.
        pub(super) prefix: Option<String>,
        /// The whole path instead.
        pub(super) path: Option<String>,
        /// The host without a port, or *.example.com for all below.
        pub(super) host: Option<String>,
        /// Any of these methods.
        pub(super) methods: Vec<String> = Vec::new(),
        /// All of these headers.
        pub(super) headers: Vec<RawHeaderMatch> = Vec::new(),
        /// The cluster's name.
        pub(super) cluster: Option<String>,
        /// Several clusters instead, each with its share.
        pub(super) clusters: Vec<RawShare> = Vec::new(),
        /// An answer from here instead.
        pub(super) direct_response: Option<RawDirectResponse>,
        /// What stands upstream in the place of the matched path.
        pub(super) prefix_rewrite: Option<String>,
        /// The Host that the upstream sees; left out: the client's.
        pub(super) host_rewrite: Option<String>,
        /// The filters' names, in the order in which requests pass them.
        pub(super) filters: Vec<String> = Vec::new(),
        /// The protocols that clients may change to, such as websocket: bytes then pass unseen by filters.
        pub(super) upgrades: Vec<String> = Vec::new(),
    }
}

record! {
    /// A header that has to be there.
    pub(super) struct RawHeaderMatch {
        /// Its name.
        pub(super) name: HeaderName,
        /// Its value; left out: any.
        pub(super) exact: Option<String>,
    }
}

record! {
    /// A cluster's share of a route's requests.
    pub(super) struct RawShare {
        /// The cluster's name.
        pub(super) name: String,
        /// Its share, beside the weights of the others. 0: none.
        pub(super) weight: u64 = 1,
    }
}

record! {
    /// An answer that needs no upstream.
    pub(super) struct RawDirectResponse {
        /// From 200 to 599.
        pub(super) status: u64,
        /// Plain text.
        pub(super) body: String = String::new(),
    }
}

record! {
    /// An upstream and its endpoints.
    pub(super) struct RawCluster {
        /// host:port of each, or {address: host:port, weight: 2}; requests take turns by weight.
        pub(super) endpoints: Vec<RawEndpoint>,
        /// How long opening a connection may take, TLS included, or the wait for one where max_connections are open.
        pub(super) connect_timeout: Seconds = Seconds(Duration::from_secs(5)),
        /// What is spoken with the endpoints: http1, http2, or auto: what ALPN settles on under TLS, else HTTP/1.1.
        pub(super) protocol: Protocol = Protocol::Auto,
        /// TLS with the endpoints; {} trusts the system's roots. Left out: none.
        pub(super) tls: Option<RawTrust>,
        /// How long the headers of the answer may take, from the last of the request.
        pub(super) headers_timeout: Seconds = Seconds(Timeouts::DEFAULT.headers),
        /// How long no piece of a body may pass in either direction.
        pub(super) idle_timeout: Seconds = Seconds(Timeouts::DEFAULT.idle),
        /// How long a request may take to the end of its answer; left out: as long as it moves.
        pub(super) timeout: Option<Seconds>,
        /// The largest body of an answer, in bytes; left out: any.
        pub(super) max_response_bytes: Option<u64>,
        /// The most connections that each worker opens to each endpoint.
        pub(super) max_connections: u64 = 1_024,
        /// The most requests of each worker that wait for a connection to an endpoint; one more gets 503.
        pub(super) max_pending: u64 = 1_024,
        /// The most connections that each worker keeps to each endpoint while no request needs them.
        pub(super) max_idle: u64 = 100,
        /// How long such a connection is kept. Many servers close theirs after 60 s.
        pub(super) keep_alive_timeout: Seconds = Seconds(Duration::from_secs(50)),
        /// The most requests at a time on one HTTP/2 connection.
        pub(super) max_streams: u64 = 100,
    }
}

record! {
    /// An endpoint with its share.
    pub(super) struct RawWeighted {
        /// host:port.
        pub(super) address: Endpoint,
        /// Its share, beside the weights of the others. 0: none.
        pub(super) weight: u64 = 1,
    }
}

/// An endpoint, with its weight or without.
#[derive(Clone, Debug)]
pub(super) struct RawEndpoint(pub(super) RawWeighted);

impl Field for RawEndpoint {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let weighted = match value.kind() {
            Kind::Object => RawWeighted::read(value, reader)?,
            _ => RawWeighted {
                address: Endpoint::read(value, reader)?,
                weight: 1,
            },
        };
        Some(Self(weighted))
    }

    fn schema() -> Json {
        serde_json::json!({"anyOf": [Endpoint::schema(), RawWeighted::schema()]})
    }

    fn to_json(&self) -> Json {
        self.0.to_json()
    }
}

record! {
    /// A filter with its configuration.
    pub(super) struct RawFilter {
        /// A filter's name, such as key-auth, or the path of a .wasm file, relative to this file.
        pub(super) wasm: String,
        /// The filter's configuration.
        pub(super) config: Option<Document>,
        /// A file with the filter's configuration instead, YAML or JSON, relative to this file.
        pub(super) config_file: Option<String>,
        /// The environment variables that the filter sees, for ${env:NAME} in its configuration.
        pub(super) environment: Table<String> = Table(Vec::new()),
        /// What becomes of requests after the filter has trapped: closed, open or reload.
        pub(super) on_trap: OnTrap = OnTrap::Closed,
    }
}

/// A socket address with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) SocketAddr);

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
pub(super) struct Endpoint(pub(super) http::uri::Authority);

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
pub(super) struct Document(pub(super) Vec<u8>);

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
