//! Where Redis is: Kong's fields, and the HTTP front through which a filter reaches it.

use super::RawConfig;
use super::requests::Policy;
use std::time::Duration;
use tollgate_kit::config::{Field, Reader, Table};
use tollgate_kit::json::{Kind, Value};
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;
use tollgate_kit::{keyword, record};

keyword! {
    /// What the HTTP front of Redis speaks.
    pub enum Dialect {
        /// [Webdis](https://webd.is): the command as a path, in the body of a POST.
        Webdis = "webdis",
        /// Upstash's REST API and what follows it: the command as a JSON array.
        Upstash = "upstash",
    }
}

record! {
    /// Where Redis is. Kong's fields are accepted as they are; what a filter uses of them is `timeout`, since it speaks to an HTTP front
    /// of Redis, given by `http`, and the front connects to Redis.
    pub struct RawRedis {
        /// Redis' host. Not used; the front has it.
        pub host: Option<String>,
        /// Redis' port. Not used; the front has it.
        pub port: u64 = 6379,
        /// How long one question may take, in milliseconds.
        pub timeout: u64 = 2000,
        /// Not used: the front logs in to Redis.
        pub username: Option<String>,
        /// Not used: the front logs in to Redis.
        pub password: Option<String>,
        /// Not used: the front chooses the database.
        pub database: u64 = 0,
        /// Not used: the gateway's cluster for the front says whether it speaks TLS.
        pub ssl: bool = false,
        /// Not used, as `ssl`.
        pub ssl_verify: bool = false,
        /// Not used, as `ssl`.
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
        /// Further headers, as an `authorization` with the front's token.
        pub headers: Table<String> = Table(Vec::new()),
    }
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
        let Kind::Number(text) = value.kind() else {
            reader.error("expected a number, without quotes");
            return None;
        };
        match text.parse::<f64>() {
            Ok(-1.0) => Some(SyncRate::EachRequest),
            Ok(seconds) => Duration::try_from_secs_f64(seconds)
                .ok()
                .map(SyncRate::Every)
                .or_else(|| {
                    reader.error("sync_rate must be greater than 0.02, or -1 to disable");
                    None
                }),
            Err(_) => {
                reader.error("expected a number, without quotes");
                None
            }
        }
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

/// The HTTP front of Redis, as it is asked.
#[derive(Clone, Debug)]
pub struct Front {
    pub(crate) upstream: String,
    pub(crate) dialect: Dialect,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) timeout: Duration,
}

/// Kong's least time between two exchanges.
const LEAST_SYNC: Duration = Duration::from_millis(20);

/// The front, where the policy is redis; what is wrong is reported.
pub(super) fn front(raw: &RawConfig, reader: &mut Reader<'_>) -> Option<Front> {
    if raw.policy != Policy::Redis {
        if raw.sync_rate != SyncRate::EachRequest {
            reader.error("sync_rate can only be used with the redis policy");
        }
        return None;
    }
    match raw.sync_rate {
        SyncRate::Every(period) if period < LEAST_SYNC => {
            reader.error("sync_rate must be greater than 0.02, or -1 to disable");
        }
        SyncRate::Every(_) => reader.member("sync_rate", |reader| {
            reader.error("not supported yet: -1 asks Redis about each request");
        }),
        SyncRate::EachRequest => {}
    }
    let redis = raw.redis.as_ref();
    let host = redis
        .and_then(|redis| redis.host.as_ref())
        .or(raw.redis_host.as_ref());
    let http = redis.and_then(|redis| redis.http.as_ref());
    reader.member("redis", |reader| {
        if host.is_none() && http.is_none() {
            reader.member("host", |reader| reader.error("required field missing"));
        }
        let Some(http) = http else {
            reader.member("http", |reader| {
                reader.error(
                    "required field missing: a filter reaches Redis through an HTTP front, as Webdis; write \
                     {\"upstream\": \"webdis\"} with a cluster's name (Envoy) or host:port (Kong)",
                );
            });
            return None;
        };
        let mut headers = Vec::new();
        reader.member("http", |reader| {
            if http.upstream.is_empty() {
                reader.member("upstream", |reader| {
                    reader.error("length must be at least 1")
                });
            }
            if !http.path.starts_with('/') {
                reader.member("path", |reader| reader.error("should start with: /"));
            }
            for (name, value) in &http.headers.0 {
                if value.bytes().any(|byte| byte.is_ascii_control()) {
                    reader.member(format_args!("headers.{name}"), |reader| {
                        reader.error("control characters are not allowed in a header");
                    });
                }
                headers.push((name.to_ascii_lowercase(), value.clone().into_bytes()));
            }
        });
        let timeout = redis.map_or(2000, |redis| redis.timeout);
        let timeout = raw.redis_timeout.unwrap_or(timeout);
        if timeout == 0 {
            reader.member("timeout", |reader| {
                reader.error("value must be greater than 0")
            });
        }
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
        })
    })
}
