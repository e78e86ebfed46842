//! Kong's fields for Redis.

use super::RawConfig;
use super::requests::Policy;
use std::time::Duration;
use tollgate_kit::config::{Field, Reader};
use tollgate_kit::json::{Kind, Value};
use tollgate_kit::record;
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;

record! {
    /// Where Redis is, as Kong's configuration says it.
    pub struct RawRedis {
        /// Redis' host.
        pub host: Option<String>,
        /// Redis' port.
        pub port: u64 = 6379,
        /// How long one question may take, in milliseconds.
        pub timeout: u64 = 2000,
        /// The name to log in with.
        pub username: Option<String>,
        /// The password to log in with.
        pub password: Option<String>,
        /// The number of the database.
        pub database: u64 = 0,
        /// Speak TLS.
        pub ssl: bool = false,
        /// Check Redis' certificate.
        pub ssl_verify: bool = false,
        /// The name in the certificate.
        pub server_name: Option<String>,
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

/// Reports what is wrong with the policy. Kong's own checks come first; counters in Redis are refused whatever they say.
pub(super) fn check(raw: &RawConfig, reader: &mut Reader<'_>) {
    let every = match raw.sync_rate {
        SyncRate::Every(period) => Some(period),
        SyncRate::EachRequest => None,
    };
    if raw.policy != Policy::Redis {
        if every.is_some() {
            reader.error("sync_rate can only be used with the redis policy");
        }
        return;
    }
    if every.is_some_and(|period| period < LEAST_SYNC) {
        reader.error("sync_rate must be greater than 0.02, or -1 to disable");
    }
    let host = raw.redis.as_ref().and_then(|redis| redis.host.as_ref());
    if host.or(raw.redis_host.as_ref()).is_none() {
        reader.member("redis.host", |reader| {
            reader.error("required field missing")
        });
    }
    reader.member("policy", |reader| {
        reader.error("this version counts in the gateway's own memory only: write local");
    });
}
