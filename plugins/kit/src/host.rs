//! What a filter may ask of its host, in narrow pieces. A function takes the piece it needs, and tests give it one.

use crate::headers::HeaderMap;
use crate::identity::Identity;
use std::time::Duration;

crate::keyword! {
    /// Which host the filter runs on, where that decides how it has to wait for a body.
    pub enum HostKind {
        /// Envoy with `allow_on_headers_stop_iteration: true`: headers wait for the body.
        Envoy = "envoy",
        /// Envoy without that flag (Istio's WasmPlugin, before 1.35): headers go before the body is there, so a decision on the
        /// body can refuse the request but not change its headers or path.
        EnvoyHeadersPass = "envoy-headers-pass",
        /// Kong, or nginx with ngx_wasm_module.
        Kong = "kong",
    }
}

/// Why the host gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not there in this phase. Nothing is broken.
    NotNow,
    /// The host answered with a status that has no business there, or with an answer that can't be read.
    Broken,
    /// The host can't do this one thing to this one request, and doing it half would be unsafe.
    Refused,
}

/// Reads the heads of the request and of the response.
pub trait Headers {
    /// All header lines of the request, pseudo-headers among them.
    ///
    /// # Errors
    /// [`Failure::Refused`] when the host can't show all of them: nginx shows 100.
    fn request_headers(&self) -> Result<HeaderMap, Failure>;

    /// The query string as the client wrote it, without the `?`; `None` without a `?`.
    ///
    /// # Errors
    /// When the host does not tell.
    fn request_query(&self, headers: &HeaderMap) -> Result<Option<Vec<u8>>, Failure>;

    /// The path as the client wrote it, without the query.
    ///
    /// # Errors
    /// When the host does not tell.
    fn request_path(&self, headers: &HeaderMap) -> Result<Vec<u8>, Failure>;

    /// All header lines of the response, `:status` among them; only in the response phases. What is not asked for is not paid for.
    ///
    /// # Errors
    /// When the host does not show them.
    fn response_headers(&self) -> Result<HeaderMap, Failure>;

    /// The id the host has given the request, as it spells it.
    fn request_id(&self, headers: &HeaderMap) -> Option<Vec<u8>>;
}

/// Knows who the client is, when an earlier filter has found out.
pub trait Authenticated {
    /// The identity that an earlier filter passed on. No client can set it.
    fn identity(&self) -> Option<Identity>;
}

/// Knows what other filters and plugins have left for this request.
pub trait Shared {
    /// The value under a name: `kong.ctx.shared.<name>` on Kong, the filter state that another filter has set under that name on
    /// Envoy. No client can set either.
    fn shared(&self, name: &str) -> Option<Vec<u8>>;
}

/// Knows where a request comes from and where it goes, as far as the gateway knows.
pub trait Traffic {
    /// The client's address, as text without a port: after what the gateway makes of `X-Forwarded-For`.
    fn client_address(&self) -> Option<Vec<u8>>;

    /// The service the request goes to: Envoy's cluster by its name, Kong's service by its id.
    fn service(&self) -> Option<Vec<u8>>;

    /// The route the request has taken: Envoy's by its name, Kong's by its id.
    fn route(&self) -> Option<Vec<u8>>;
}

/// Says what it is.
pub trait Platform {
    /// Which host this is, for what can't be done on all of them.
    fn kind(&self) -> HostKind;
}

/// Tells the time.
pub trait Clock {
    /// Since 1970-01-01 UTC.
    fn now(&self) -> Duration;
}

/// Gives bytes that differ from call to call and from worker to worker. Not for secrets: on Kong they come from libc's `random()`, which two
/// gateways may have seeded alike.
pub trait Entropy {
    /// 16 of them.
    fn random(&self) -> [u8; 16];
}

/// Counts. See [`metric`](crate::metric) for the grammar of names. A host that refuses loses the count, nothing else.
pub trait Metrics {
    /// Adds to a counter.
    fn count(&self, name: &str, by: u64);
}

/// Bytes that all workers of the host share, under names: proxy-wasm's shared data with the one rule that holds on every host, a
/// write that happens only if nobody has written since. Nothing there expires, Envoy never evicts, and nginx evicts what was used
/// least recently when its zone is full. [`store`](crate::store) makes a bounded table of it.
pub trait SharedData {
    /// What stands under a name.
    ///
    /// # Errors
    /// When the host has no shared data, or gives none in this phase.
    fn stored(&self, name: &[u8]) -> Result<Stored, Failure>;

    /// Writes, if what [`SharedData::stored`] has shown is still there.
    ///
    /// # Errors
    /// When the host does not write. Whether it has done so all the same is not known then.
    fn replace_stored(&self, name: &[u8], seen: &Stored, value: &[u8]) -> Result<Written, Failure>;
}

/// What stood under a name in shared data when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The bytes; empty where there is nothing (Envoy stores nothing for what was removed).
    pub value: Vec<u8>,
    /// The host's number for this state of it; `None` where the name was never written.
    pub version: Option<std::num::NonZeroU32>,
}

/// What became of a write that depends on nobody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is there.
    Done,
    /// Somebody else has written first: read again.
    Lost,
}

/// How loud a log line is, by proxy-wasm's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever debugs the filter.
    Debug = 1,
    /// For the record.
    Info = 2,
    /// Something is doubtful.
    Warn = 3,
    /// Something does not work.
    Error = 4,
}

/// Writes to the host's log. Never a key, never a header's value.
pub trait Log {
    /// One line.
    fn log(&self, level: Level, message: &str);
}

/// All of it: what each phase of a filter is given.
pub trait Host:
    Headers + Authenticated + Traffic + Shared + SharedData + Platform + Clock + Entropy + Metrics + Log
{
}

impl<T> Host for T where
    T: Headers
        + Authenticated
        + Traffic
        + Shared
        + SharedData
        + Platform
        + Clock
        + Entropy
        + Metrics
        + Log
{
}
