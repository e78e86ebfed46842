//! The capabilities of [`crate::host`], on this host.

use super::imports::{self, Map, Status};
use crate::headers::HeaderMap;
use crate::host::{
    Authenticated, Clock, Entropy, Failure, Headers, HostKind, Level, Log, Metrics, Platform,
    Shared, SharedData, Stored, Traffic, Written,
};
use crate::identity::Identity;
use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::time::Duration;

/// nginx marshals this many lines of a request, besides the four pseudo-headers. Past it, it not only leaves lines out: the size it
/// allocates is not the size it writes, so that the map must not even be asked for.
const MOST_LINES_ON_NGINX: usize = 96;

/// The numbers of this many counters are remembered; past it each count asks the host again.
const MOST_COUNTERS: usize = 1024;

/// The host of one module instance.
#[derive(Default)]
pub(crate) struct WasmHost {
    /// What it is, as soon as that is known.
    pub(crate) kind: Option<HostKind>,
    /// By name, in order: a list is looked through as fast as a tree and takes a module less code.
    counters: RefCell<Vec<(String, u32)>>,
    drawn: Cell<u64>,
    /// What tells this instance's random numbers from those of other workers, once some were drawn.
    seed: Cell<Option<u128>>,
}

impl WasmHost {
    /// What it is, asked of a request when the configuration does not tell: only nginx has `ngx.*` properties.
    pub(crate) fn detect(&mut self, configured: Option<HostKind>) -> HostKind {
        if let Some(kind) = configured.or(self.kind) {
            return kind;
        }
        let kind = match imports::property(&["ngx", "nginx_version"]) {
            Ok(Some(version)) if !version.is_empty() => HostKind::Kong,
            _ => HostKind::Envoy,
        };
        self.kind = Some(kind);
        kind
    }
}

/// The host as one request of one filter sees it.
pub(crate) struct RequestHost<'h> {
    pub(crate) host: &'h WasmHost,
    pub(crate) kind: HostKind,
    /// How many header lines the request came with, as the host said.
    pub(crate) lines: usize,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        match status {
            Status::NOT_FOUND | Status::BAD_ARGUMENT => Failure::NotNow,
            _ => Failure::Broken,
        }
    }
}

/// Reads one of the host's maps. Whether all lines are there is for the caller to ask.
pub(crate) fn header_map(map: Map) -> Result<HeaderMap, Failure> {
    Ok(HeaderMap::unmarshal(imports::header_map(map)?))
}

impl Headers for RequestHost<'_> {
    fn request_headers(&self) -> Result<HeaderMap, Failure> {
        if self.kind == HostKind::Kong && self.lines > MOST_LINES_ON_NGINX {
            return Err(Failure::Refused);
        }
        let map = header_map(Map::Request)?;
        // Lines that an earlier filter has added may have made the map too large since.
        let cut_off =
            map.len() > MOST_LINES_ON_NGINX.saturating_add(3) && self.lines < MOST_LINES_ON_NGINX;
        match self.kind {
            _ if map.is_empty() => Err(Failure::NotNow),
            HostKind::Kong if cut_off || !map.is_complete() => Err(Failure::Refused),
            _ if !map.is_complete() => Err(Failure::Broken),
            _ => Ok(map),
        }
    }

    fn request_query(&self, headers: &HeaderMap) -> Result<Option<Vec<u8>>, Failure> {
        match self.kind {
            // `:path` is decoded there; `$args` is what the client wrote.
            HostKind::Kong => {
                Ok(imports::property(&["ngx", "args"])?.filter(|query| !query.is_empty()))
            }
            HostKind::Envoy | HostKind::EnvoyHeadersPass => {
                let path = headers.first(":path").ok_or(Failure::NotNow)?;
                Ok(path
                    .splitn(2, |&byte| byte == b'?')
                    .nth(1)
                    .map(<[u8]>::to_vec))
            }
        }
    }

    fn request_path(&self, headers: &HeaderMap) -> Result<Vec<u8>, Failure> {
        let target = match self.kind {
            HostKind::Kong => imports::property(&["ngx", "request_uri"])?,
            HostKind::Envoy | HostKind::EnvoyHeadersPass => {
                headers.first(":path").map(<[u8]>::to_vec)
            }
        };
        let mut path = target.ok_or(Failure::NotNow)?;
        let end = path.iter().position(|&byte| byte == b'?');
        path.truncate(end.unwrap_or(path.len()));
        Ok(path)
    }

    fn response_headers(&self) -> Result<HeaderMap, Failure> {
        header_map(Map::Response)
    }

    fn request_id(&self, headers: &HeaderMap) -> Option<Vec<u8>> {
        match self.kind {
            HostKind::Kong => ["kong_request_id", "request_id"]
                .iter()
                .find_map(|name| imports::property(&["ngx", name]).ok().flatten()),
            HostKind::Envoy | HostKind::EnvoyHeadersPass => {
                headers.first("x-request-id").map(<[u8]>::to_vec)
            }
        }
    }
}

impl Authenticated for RequestHost<'_> {
    fn identity(&self) -> Option<Identity> {
        Identity::from_json(&imports::property(Identity::path(self.kind)).ok()??)
    }
}

impl Shared for RequestHost<'_> {
    fn shared(&self, name: &str) -> Option<Vec<u8>> {
        match self.kind {
            HostKind::Kong => imports::property(&["kong", "ctx", "shared", name]),
            HostKind::Envoy | HostKind::EnvoyHeadersPass => imports::property(&[name]),
        }
        .ok()
        .flatten()
    }
}

impl Platform for RequestHost<'_> {
    fn kind(&self) -> HostKind {
        self.kind
    }
}

impl Traffic for RequestHost<'_> {
    fn client_address(&self) -> Option<Vec<u8>> {
        let mut address = named(&["source", "address"])?;
        if self.kind != HostKind::Kong {
            // `127.0.0.1:40000`, `[::1]:40000`.
            let port = address.iter().rposition(|&byte| byte == b':')?;
            address.truncate(port);
            address.retain(|byte| !matches!(byte, b'[' | b']'));
        }
        Some(address)
    }

    fn service(&self) -> Option<Vec<u8>> {
        match self.kind {
            HostKind::Kong => named(&["kong", "service_id"]),
            HostKind::Envoy | HostKind::EnvoyHeadersPass => named(&["xds", "cluster_name"]),
        }
    }

    fn route(&self) -> Option<Vec<u8>> {
        match self.kind {
            HostKind::Kong => named(&["kong", "route_id"]),
            HostKind::Envoy | HostKind::EnvoyHeadersPass => named(&["xds", "route_name"]),
        }
    }
}

/// A property that says something.
fn named(path: &[&str]) -> Option<Vec<u8>> {
    imports::property(path)
        .ok()
        .flatten()
        .filter(|value| !value.is_empty())
}

impl Clock for RequestHost<'_> {
    fn now(&self) -> Duration {
        // A host without a clock has no time: everything with an expiry has expired.
        imports::now_nanoseconds().map_or(Duration::MAX, Duration::from_nanos)
    }
}

impl Entropy for RequestHost<'_> {
    fn random(&self) -> [u8; 16] {
        // The time alone is no good on nginx, which looks at its clock once a millisecond: workers that have drawn as often as each other would draw
        // alike.
        let seed = self.host.seed.get().unwrap_or_else(imports::random);
        self.host.seed.set(Some(seed));
        let (low, high) = (seed.to_le_bytes(), seed.to_be_bytes());
        let word = |bytes: [u8; 16]| {
            bytes
                .first_chunk()
                .map_or(0, |word| u64::from_le_bytes(*word))
        };
        let (low, high) = (word(low), word(high));
        let drawn = self.host.drawn.get().wrapping_add(1);
        self.host.drawn.set(drawn);
        let time = imports::now_nanoseconds().unwrap_or_default();
        let high = mix(time ^ drawn.rotate_left(48) ^ high);
        (u128::from(high) << 64 | u128::from(mix(high.wrapping_add(drawn) ^ low))).to_le_bytes()
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

impl SharedData for RequestHost<'_> {
    fn stored(&self, name: &[u8]) -> Result<Stored, Failure> {
        match imports::shared_data(name).map_err(|_| Failure::Broken)? {
            None => Ok(Stored::default()),
            // 0 is no state of a value: on Envoy it would write over another worker's count.
            Some((value, cas)) => Ok(Stored {
                value,
                version: Some(NonZeroU32::new(cas).ok_or(Failure::Broken)?),
            }),
        }
    }

    fn replace_stored(&self, name: &[u8], seen: &Stored, value: &[u8]) -> Result<Written, Failure> {
        let Some(version) = seen.version else {
            // On Envoy a state that can't be creates what is absent, and 0 writes over anything. On nginx the first is
            // never right, and 0 creates what is absent.
            return match write_stored(name, value, u32::MAX)? {
                Written::Lost if self.stored(name)?.version.is_none() => {
                    write_stored(name, value, 0)
                }
                written => Ok(written),
            };
        };
        write_stored(name, value, version.get())
    }
}

/// Kept in one place of the module, which every filter pays for.
#[inline(never)]
fn write_stored(name: &[u8], value: &[u8], cas: u32) -> Result<Written, Failure> {
    match imports::set_shared_data(name, value, cas) {
        Ok(()) => Ok(Written::Done),
        Err(Status::CAS_MISMATCH) => Ok(Written::Lost),
        Err(_) => Err(Failure::Broken),
    }
}

impl Metrics for RequestHost<'_> {
    fn count(&self, name: &str, by: u64) {
        let mut counters = self.host.counters.borrow_mut();
        let place = counters.binary_search_by(|(known, _)| known.as_str().cmp(name));
        let id = match place {
            Ok(place) => counters.get(place).map(|(_, id)| *id),
            Err(place) => {
                let id = imports::define_counter(name).ok();
                if let Some(id) = id.filter(|_| counters.len() < MOST_COUNTERS) {
                    counters.insert(place, (name.to_owned(), id));
                }
                id
            }
        };
        let Some(id) = id else { return };
        let _ = imports::increment(id, i64::try_from(by).unwrap_or(i64::MAX));
    }
}

impl Log for RequestHost<'_> {
    fn log(&self, level: Level, message: &str) {
        imports::log(level as u32, message);
    }
}
