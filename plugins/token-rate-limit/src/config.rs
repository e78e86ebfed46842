//! The configuration: Kong's fields, and Tollgate's own.

use crate::counter::{Kind, Limit};
use crate::decimal::{Decimal, NotDecimal};
use crate::subject::LimitBy;
use crate::window::Window;
use tollgate_kit::config::{Configuration, Field, HeaderName, Reader};
use tollgate_kit::host::HostKind;
use tollgate_kit::json::{Kind as JsonKind, Value};
use tollgate_kit::reply::ErrorFormat;
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;
use tollgate_kit::store::Table;
use tollgate_kit::{keyword, record};

keyword! {
    /// Whose behaviour, where Tollgate's is better by default.
    pub enum Compat {
        /// Kong's, to the letter.
        Kong = "kong",
    }
}

record! {
    /// Kong's `rate-limiting`, field for field.
    pub struct RawConfig {
        /// Requests in a calendar second, UTC.
        pub second: Option<Positive>,
        /// Requests in a calendar minute.
        pub minute: Option<Positive>,
        /// Requests in a calendar hour.
        pub hour: Option<Positive>,
        /// Requests in a calendar day.
        pub day: Option<Positive>,
        /// Requests in a calendar month.
        pub month: Option<Positive>,
        /// Requests in a calendar year.
        pub year: Option<Positive>,
        /// Whom these are counted for.
        pub limit_by: LimitBy = LimitBy::Consumer,
        /// The header of `limit_by: header`.
        pub header_name: Option<HeaderName>,
        /// The path of `limit_by: path`, as it is after normalising, without a query.
        pub path: Option<Path>,
        /// Where counters are kept: `local`, shared by all workers of this gateway. (`redis`, shared by all gateways, is to come;
        /// `cluster` needs Kong's database.)
        pub policy: Policy = Policy::Local,
        /// Let requests pass when counters can't be reached; without it they get 500.
        pub fault_tolerant: bool = true,
        /// Send no limit headers to clients.
        pub hide_client_headers: bool = false,
        /// The status of a refusal.
        pub error_code: ErrorCode = ErrorCode(429),
        /// The message of a refusal.
        pub error_message: String = "API rate limit exceeded".to_owned(),
        /// Kong's: `-1`. It is for the redis policy.
        pub sync_rate: SyncRate = SyncRate,
        /// The name by which `limit_by: service` counts. Left out, the gateway's own: Envoy's cluster, Kong's service.
        pub service: Option<String>,
        /// Tells these counters from those of other instances of the filter: two with one namespace share their counters.
        pub namespace: String = "default".to_owned(),
        /// About so many counters are kept at once; past that, new ones share (see the README).
        pub max_counters: u64 = 10_000,
        /// The shape of error answers: `kong` (by `Accept`) or `openai`.
        pub error_format: ErrorFormat = ErrorFormat::Kong,
        /// Where the filter runs: `envoy`, `envoy-headers-pass` or `kong`. Left out, Envoy and Kong are told apart at the first request.
        pub host: Option<HostKind>,
        /// `kong` gives Kong's behaviour to the letter where Tollgate's differs.
        pub compat: Option<Compat>,
    }
}

/// Where counters are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In the gateway's own memory, shared by its workers.
    Local,
}

impl Field for Policy {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Policy> {
        match reader.text(value)?.as_ref() {
            "local" => return Some(Policy::Local),
            "cluster" => reader.error("expected one of: local; cluster counts in Kong's database, which a filter can't reach"),
            _ => reader.error("expected one of: local"),
        }
        None
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        tollgate_kit::schema::one_of(&["local"])
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from("local")
    }
}

/// A number above 0, kept exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positive(pub(crate) Decimal);

impl Field for Positive {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Positive> {
        let JsonKind::Number(text) = value.kind() else {
            reader.error("expected a number, without quotes");
            return None;
        };
        match Decimal::parse(text) {
            Ok(number) if number > Decimal::whole(0) => return Some(Positive(number)),
            Ok(_) | Err(NotDecimal::Negative) => reader.error("value must be greater than 0"),
            Err(NotDecimal::TooFine) => reader.error("at most six decimals are kept: round it"),
            Err(NotDecimal::TooLarge) => {
                reader.error(format_args!("value must be at most {}", Decimal::MOST));
            }
            Err(NotDecimal::Malformed) => reader.error("expected a number, as 1000 or 1.5"),
        }
        None
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "number", "minimum": 0, "exclusiveMinimum": true})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        serde_json::from_str(&self.0.to_string()).unwrap_or(Json::Null)
    }
}

/// A path without a query: begins with `/`, has no empty segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(pub(crate) String);

impl Field for Path {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Path> {
        let text = reader.text(value)?;
        if !text.starts_with('/') {
            reader.error("should start with: /");
        } else if text.contains("//") {
            reader.error("must not have empty segments");
        } else {
            return Some(Path(text.into_owned()));
        }
        None
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "string", "pattern": "^/"})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.0.as_str())
    }
}

/// The status of a refusal. Kong takes any number above 0, and breaks on those that are no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub(crate) u16);

impl Field for ErrorCode {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<ErrorCode> {
        match Positive::read(value, reader)?.0 {
            code if code < Decimal::whole(1000) && Decimal::whole(code.ceil()) == code => {
                u16::try_from(code.ceil()).ok().map(ErrorCode)
            }
            _ => {
                reader.error("expected a status: an integer from 400 to 599");
                None
            }
        }
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "integer", "minimum": 1, "maximum": 999})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.0)
    }
}

/// `-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncRate;

impl Field for SyncRate {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<SyncRate> {
        match value.kind() {
            JsonKind::Number(text) if text.parse() == Ok(-1.0) => Some(SyncRate),
            JsonKind::Number(_) => {
                reader.top(|reader| reader.error("sync_rate can only be used with the redis policy"));
                None
            }
            _ => {
                reader.error("expected a number, without quotes");
                None
            }
        }
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "number", "minimum": -1, "maximum": -1})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(-1)
    }
}

/// The validated configuration.
#[derive(Debug)]
pub struct Config {
    pub(crate) requests: RequestLimits,
    pub(crate) table: Table,
    pub(crate) namespace: String,
    pub(crate) service: Option<String>,
    pub(crate) fault_tolerant: bool,
    pub(crate) hide_headers: bool,
    pub(crate) error_format: ErrorFormat,
    pub(crate) host: Option<HostKind>,
    pub(crate) kong: bool,
}

/// Kong's limits.
#[derive(Debug)]
pub(crate) struct RequestLimits {
    /// From the shortest window to the longest.
    pub(crate) limits: Vec<Limit>,
    /// As written: the headers show fractions.
    pub(crate) shown: Vec<Decimal>,
    pub(crate) by: LimitBy,
    /// In lower case; empty unless it is asked for.
    pub(crate) header: String,
    pub(crate) path: String,
    pub(crate) error_code: u16,
    pub(crate) error_message: String,
}

impl Configuration for Config {
    type Raw = RawConfig;

    fn validate(raw: RawConfig, reader: &mut Reader<'_>) -> Option<Config> {
        let windows = [
            ("second", Window::Second, raw.second),
            ("minute", Window::Minute, raw.minute),
            ("hour", Window::Hour, raw.hour),
            ("day", Window::Day, raw.day),
            ("month", Window::Month, raw.month),
            ("year", Window::Year, raw.year),
        ];
        let given = || windows.iter().filter_map(|(name, window, limit)| Some((*name, *window, (*limit)?.0)));
        if given().next().is_none() {
            reader.error(
                "at least one of these fields must be non-empty: 'config.second', 'config.minute', 'config.hour', 'config.day', \
                 'config.month', 'config.year'",
            );
        }
        for (index, (short, _, lower)) in given().enumerate() {
            for (long, _, upper) in given().skip(index.saturating_add(1)) {
                if upper < lower {
                    reader.error(format_args!(
                        "The limit for {long}({}) cannot be lower than the limit for {short}({})",
                        one_decimal(upper),
                        one_decimal(lower)
                    ));
                }
            }
        }
        let mut needed = |name, missing| {
            if missing {
                reader.member(name, |reader| reader.error("required field missing"));
            }
        };
        needed("header_name", raw.limit_by == LimitBy::Header && raw.header_name.is_none());
        needed("path", raw.limit_by == LimitBy::Path && raw.path.is_none());
        let kong = raw.compat.is_some();
        if !kong && !(400..600).contains(&raw.error_code.0) {
            reader.member("error_code", |reader| {
                reader.warn("no status of an error: every refusal is a 500; write 400 to 599");
            });
        }
        let max_counters = u32::try_from(raw.max_counters).ok().filter(|max| (1..=10_000_000).contains(max));
        if max_counters.is_none() {
            reader.member("max_counters", |reader| reader.error("value should be between 1 and 10000000"));
        }
        if !reader.is_clean() {
            return None;
        }
        let requests = RequestLimits {
            limits: given()
                .map(|(_, window, limit)| Limit {
                    window,
                    most: limit.ceil(),
                    kind: Kind::Fixed,
                })
                .collect(),
            shown: given().map(|(_, _, limit)| limit).collect(),
            by: raw.limit_by,
            header: raw.header_name.map(|name| name.as_str().to_ascii_lowercase()).unwrap_or_default(),
            path: raw.path.map(|path| path.0).unwrap_or_default(),
            error_code: raw.error_code.0,
            error_message: raw.error_message,
        };
        Some(Config {
            requests,
            table: Table::for_keys(max_counters?),
            namespace: raw.namespace,
            service: raw.service,
            fault_tolerant: raw.fault_tolerant,
            hide_headers: raw.hide_client_headers,
            error_format: raw.error_format,
            host: raw.host,
            kong,
        })
    }
}

/// As Lua's `%.1f` writes it.
fn one_decimal(number: Decimal) -> String {
    let tenths = number.millionths().saturating_add(50_000) / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}
