//! Where Redis is: Kong's fields, and the HTTP front through which a filter reaches it.

use super::requests::Policy;
use super::{OnLimit, RawConfig};
use std::time::Duration;
use tollgate_kit::config::{Field, HeaderName, Reader, Table};
use tollgate_kit::host::HostKind;
use tollgate_kit::json::{Kind, Value};
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;
use tollgate_kit::step::is_address;
use tollgate_kit::{keyword, record};

keyword! {
    /// What the HTTP front of Redis speaks.
    pub enum Dialect {
        /// Webdis: the command's words, with slashes between them, as the body of a POST.
        Webdis = "webdis",
        /// Upstash's REST API and what follows it: the command as a JSON array.
        Upstash = "upstash",
    }
}

record! {
    /// Where Redis is. Kong's fields are accepted as they are. A filter speaks to an HTTP front of Redis, given by `http`; the front
    /// connects to Redis, so of the others only `timeout` is used.
    pub struct RawRedis {
        /// Redis' host. The front has it.
        pub host: Option<String>,
        /// Redis' port. The front has it.
        pub port: u64 = 6379,
        /// How long one question may take, in milliseconds.
        pub timeout: u64 = 2000,
        /// The name to log in with. The front logs in.
        pub username: Option<String>,
        /// The password to log in with. The front logs in.
        pub password: Option<String>,
        /// The number of the database. The front chooses it.
        pub database: u64 = 0,
        /// Speak TLS. The front does, and the gateway's cluster for the front.
        pub ssl: bool = false,
        /// Check Redis' certificate, as `ssl`.
        pub ssl_verify: bool = false,
        /// The name in the certificate, as `ssl`.
        pub server_name: Option<String>,
        /// The HTTP front of Redis.
        pub http: Option<RawFront>,
    }
}

record! {
    /// The HTTP front of Redis.
    pub struct RawFront {
        /// Whom to ask: a cluster's name on Envoy, `host:port` on Kong.
        pub upstream: String,
        /// What it speaks.
        pub dialect: Dialect = Dialect::Webdis,
        /// The `Host` to ask for; the upstream's name where it is left out.
        pub authority: Option<String>,
        /// The path of its commands.
        pub path: String = "/".to_owned(),
        /// Further headers, such as an `authorization` with the front's token.
        pub headers: Table<String> = Table(Vec::new()),
    }
}

/// The HTTP front of Redis, as it is asked.
#[derive(Clone, Debug)]
pub struct Front {
    pub(crate) upstream: String,
    pub(crate) dialect: Dialect,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) timeout: Duration,
    /// How often it is told what has been counted; `None` where it is asked about each request.
    pub(crate) sync: Option<Duration>,
}

/// How often Redis is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncRate {
    /// About each request.
    EachRequest,
    /// Never in a request: counts are exchanged so often.
    Every(Duration),
}

impl Field for SyncRate {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<SyncRate> {
        let number = match value.kind() {
            Kind::Number(text) => text.parse::<f64>().ok(),
            _ => None,
        };
        let Some(seconds) = number else {
            reader.error("expected a number, without quotes");
            return None;
        };
        if seconds == -1.0 {
            return Some(SyncRate::EachRequest);
        }
        // Any other negative number is too small as well.
        let period = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        Some(SyncRate::Every(period))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "number", "minimum": -1})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        match self {
            SyncRate::EachRequest => Json::from(-1),
            SyncRate::Every(period) => Json::from(period.as_secs_f64()),
        }
    }
}

/// Kong's least time between two exchanges.
const LEAST_SYNC: Duration = Duration::from_millis(20);

/// The front, where the policy is redis; what is wrong is reported.
pub(super) fn front(raw: &RawConfig, reader: &mut Reader<'_>) -> Option<Front> {
    let every = match raw.sync_rate {
        SyncRate::Every(period) => Some(period),
        SyncRate::EachRequest => None,
    };
    if raw.policy != Policy::Redis {
        if every.is_some() {
            reader.error("sync_rate can only be used with the redis policy");
        }
        return None;
    }
    match every {
        Some(period) if period < LEAST_SYNC => {
            reader.error("sync_rate must be greater than 0.02, or -1 to disable");
        }
        _ => {}
    }
    if every.is_none() && raw.host == Some(HostKind::Kong) && raw.on_limit == OnLimit::Clamp {
        reader.member("on_limit", |reader| {
            reader.error("clamp can't work with policy: redis on Kong, where a body can't be changed after a call");
        });
    }
    let redis = raw.redis.as_ref();
    let host = redis.and_then(|redis| redis.host.as_ref());
    let http = redis.and_then(|redis| redis.http.as_ref());
    reader.member("redis", |reader| {
        if host.or(raw.redis_host.as_ref()).is_none() && http.is_none() {
            reader.member("host", |reader| reader.error("required field missing"));
        }
        let Some(http) = http else {
            reader.member("http", |reader| {
                reader.error(
                    "required field missing: a filter reaches Redis through an HTTP front such as Webdis; write \
                     {\"upstream\": \"webdis\"} with a cluster's name (Envoy) or host:port (Kong)",
                );
            });
            return None;
        };
        let timeout = raw
            .redis_timeout
            .unwrap_or_else(|| redis.map_or(2000, |redis| redis.timeout));
        if timeout == 0 {
            reader.member("timeout", |reader| {
                reader.error("value must be greater than 0");
            });
        }
        let headers = reader.member("http", |reader| http.checked(raw.host, reader));
        Some(Front {
            upstream: http.upstream.clone(),
            dialect: http.dialect,
            authority: http
                .authority
                .clone()
                .unwrap_or_else(|| http.upstream.clone()),
            path: http.path.clone(),
            headers,
            timeout: Duration::from_millis(timeout),
            sync: every,
        })
    })
}

impl RawFront {
    /// Its headers; what is wrong is reported.
    fn checked(&self, host: Option<HostKind>, reader: &mut Reader<'_>) -> Vec<(String, Vec<u8>)> {
        reader.member("upstream", |reader| {
            if self.upstream.is_empty() {
                reader.error("length must be at least 1");
            } else if host == Some(HostKind::Kong) && !is_address(&self.upstream) {
                reader.error("expected host:port, which is what Kong can call");
            }
        });
        if !self.path.starts_with('/') {
            reader.member("path", |reader| reader.error("should start with: /"));
        }
        let mut headers = Vec::with_capacity(self.headers.0.len());
        for (name, value) in &self.headers.0 {
            reader.member(format_args!("headers.{name}"), |reader| {
                if HeaderName::new(name).is_none() {
                    reader.error(
                        "bad header name, allowed characters are A-Z, a-z, 0-9, '_', and '-'",
                    );
                }
                if value.bytes().any(|byte| byte.is_ascii_control()) {
                    reader.error("control characters are not allowed in a header");
                }
            });
            headers.push((name.to_ascii_lowercase(), value.clone().into_bytes()));
        }
        headers
    }
}
