//! Kong's limits in requests.

use super::number::Positive;
use super::{RawConfig, overflow};
use crate::counter::Kind;
use crate::decimal::Decimal;
use crate::rule::{self, Matching, Rule, Unit};
use crate::subject::Part;
use crate::window::Window;
use tollgate_kit::config::{Field, Reader};
use tollgate_kit::json::Value;
use tollgate_kit::keyword;
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;

keyword! {
    /// Whom Kong's `rate-limiting` counts (KONG-SPEC 2.2). What a request does not have is its client's address.
    pub enum LimitBy {
        /// The consumer, else the credential.
        Consumer = "consumer",
        /// The credential.
        Credential = "credential",
        /// The client's address.
        Ip = "ip",
        /// The service that the gateway sends the request to.
        Service = "service",
        /// The first value of a header.
        Header = "header",
        /// One path, for all clients together.
        Path = "path",
    }
}

/// Where counters are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In the gateway's own memory, shared by its workers.
    Local,
    /// In Redis, shared by all gateways.
    Redis,
}

impl Field for Policy {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Policy> {
        match reader.text(value)?.as_ref() {
            "local" => return Some(Policy::Local),
            "redis" => return Some(Policy::Redis),
            "cluster" => reader.error(
                "expected one of: local, redis; cluster counts in Kong's database, which a filter can't reach",
            ),
            _ => reader.error("expected one of: local, redis"),
        }
        None
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        tollgate_kit::schema::one_of(&["local", "redis"])
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(match self {
            Policy::Local => "local",
            Policy::Redis => "redis",
        })
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
        let code = Positive::read(value, reader)?.0;
        let whole = Decimal::whole(code.ceil()) == code;
        match u16::try_from(code.ceil()) {
            Ok(status) if whole && status < 1000 => Some(ErrorCode(status)),
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

/// The request limits: a rule, and how it refuses.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) rule: Rule,
    pub(crate) error_code: u16,
    pub(crate) error_message: String,
}

/// The rule's name, in keys and metrics.
const NAME: &str = "requests";

impl Requests {
    /// The limits; `None` where there are none or they are wrong, which is reported.
    pub(super) fn validate(
        raw: &RawConfig,
        kong: bool,
        reader: &mut Reader<'_>,
    ) -> Option<Requests> {
        let windows = [
            ("second", Window::Second, raw.second),
            ("minute", Window::Minute, raw.minute),
            ("hour", Window::Hour, raw.hour),
            ("day", Window::Day, raw.day),
            ("month", Window::Month, raw.month),
            ("year", Window::Year, raw.year),
        ];
        let given: Vec<_> = windows
            .into_iter()
            .filter_map(|(name, window, limit)| Some((name, window, limit?.0)))
            .collect();
        for (index, (short, _, lower)) in given.iter().enumerate() {
            for (long, _, upper) in given.iter().skip(index.saturating_add(1)) {
                if upper < lower {
                    reader.error(format_args!(
                        "The limit for {long}({}) cannot be lower than the limit for {short}({})",
                        one_decimal(*upper),
                        one_decimal(*lower)
                    ));
                }
            }
        }
        let mut needed = |name, missing| {
            if missing {
                reader.member(name, |reader| reader.error("required field missing"));
            }
        };
        needed(
            "header_name",
            raw.limit_by == LimitBy::Header && raw.header_name.is_none(),
        );
        needed("path", raw.limit_by == LimitBy::Path && raw.path.is_none());
        if !kong && !(400..600).contains(&raw.error_code.0) {
            reader.member("error_code", |reader| {
                reader.warn("no status of an error: every refusal is a 500; write 400 to 599");
            });
        }
        if given.is_empty() {
            return None;
        }
        let part = match raw.limit_by {
            LimitBy::Consumer => Part::Consumer,
            LimitBy::Credential => Part::Credential,
            LimitBy::Ip => Part::Ip,
            LimitBy::Service => Part::Service,
            LimitBy::Header => Part::Header(raw.header_name.as_ref()?.as_str().to_owned()),
            LimitBy::Path => Part::ThisPath(raw.path.as_ref()?.0.clone()),
        };
        let counted = given
            .iter()
            .map(|(_, window, limit)| (*window, limit.ceil()));
        Some(Requests {
            rule: Rule {
                name: NAME.to_owned(),
                unit: Unit::Requests,
                by: vec![part],
                matching: Matching::default(),
                limits: rule::limits(counted, Kind::Fixed),
                written: given.iter().map(|(_, _, limit)| *limit).collect(),
                // Kong has one limit for all.
                can_be_own: !kong,
                overflow: overflow(&raw.namespace, NAME),
            },
            error_code: raw.error_code.0,
            error_message: raw.error_message.clone(),
        })
    }
}

/// As Lua's `%.1f` writes it.
fn one_decimal(number: Decimal) -> String {
    let tenths = number.millionths().saturating_add(50_000) / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}
