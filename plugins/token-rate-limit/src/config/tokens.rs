//! Limits in tokens and money, and how tokens are counted.

use super::number::{Amount, Positive};
use super::{Metering, RawConfig, overflow};
use crate::counter::Kind;
use crate::decimal::Decimal;
use crate::rule::{self, Ending, Matching, Rule, Unit};
use crate::subject::Part;
use crate::window::Window;
use tollgate_kit::config::{Field, HeaderName, Reader, Table};
use tollgate_kit::json::{Kind as JsonKind, Value};
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;
use tollgate_kit::{keyword, record};
use tollgate_llm::{Calibration, Glob, PerMillion, Price, Pricing};

record! {
    /// A limit in tokens, money or requests.
    pub struct RawTokenRule {
        /// What it is called, in headers, metrics and consumers' metadata. Counters belong to the name.
        pub name: String,
        /// What it counts.
        pub count: Unit = Unit::Total,
        /// Whom it counts: each combination has a counter of its own.
        pub by: Vec<Origin> = vec![Origin(Part::Consumer)],
        /// Which requests it is for; all that is given has to match. Left out, all requests.
        pub matching as "match": Option<RawMatch>,
        /// The limit of a calendar second, UTC.
        pub second: Option<Amount>,
        /// The limit of a calendar minute.
        pub minute: Option<Amount>,
        /// The limit of a calendar hour.
        pub hour: Option<Amount>,
        /// The limit of a calendar day.
        pub day: Option<Amount>,
        /// The limit of a calendar month.
        pub month: Option<Amount>,
        /// The limit of a calendar year.
        pub year: Option<Amount>,
        /// The length of a window of one's own, which `limit` is for. Such windows begin at whole multiples since 1970.
        pub window_seconds: Option<u64>,
        /// The limit of `window_seconds`; 0, alone, denies what matches (403).
        pub limit: Option<Amount>,
        /// How a window's end is felt.
        pub window: Ending = Ending::Fixed,
    }
}

record! {
    /// Which requests a rule is for.
    pub struct RawMatch {
        /// The model that is asked for.
        pub model: Option<Globs>,
        /// The consumer's id, name or custom id.
        pub consumer: Option<Globs>,
        /// One of the consumer's groups.
        pub group: Option<Globs>,
        /// The normalised path, without the query.
        pub path: Option<Globs>,
        /// Headers, by name.
        pub headers: Table<Matched> = Table(Vec::new()),
    }
}

/// A pattern: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched(pub(crate) Glob);

impl Field for Matched {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Matched> {
        reader
            .text(value)
            .map(|pattern| Matched(Glob::new(&pattern)))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        tollgate_kit::schema::of_type("string")
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.0.as_str())
    }
}

/// A pattern, or a list of patterns of which one has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globs(pub(crate) Vec<Glob>);

impl Field for Globs {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Globs> {
        if matches!(value.kind(), JsonKind::String) {
            return Matched::read(value, reader).map(|glob| Globs(vec![glob.0]));
        }
        let globs = Vec::<Matched>::read(value, reader)?;
        if globs.is_empty() {
            reader.error("length must be at least 1");
            return None;
        }
        Some(Globs(globs.into_iter().map(|glob| glob.0).collect()))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        self.0
            .iter()
            .map(|glob| Json::from(glob.as_str()))
            .collect()
    }
}

/// One part of whom a rule counts: `consumer`, `credential`, `group`, `ip`, `header:NAME`, `route`, `service`, `path`, `model` or
/// `provider`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub(crate) Part);

impl Field for Origin {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Origin> {
        let text = reader.text(value)?;
        let part = match text.as_ref() {
            "consumer" => Part::Consumer,
            "credential" => Part::Credential,
            "group" => Part::Group,
            "ip" => Part::Ip,
            "route" => Part::Route,
            "service" => Part::Service,
            "path" => Part::Path,
            "model" => Part::Model,
            "provider" => Part::Provider,
            other => match other.strip_prefix("header:").and_then(HeaderName::new) {
                Some(name) => Part::Header(name.as_str().to_owned()),
                None => {
                    reader.error(
                        "expected one of: consumer, credential, group, ip, header:NAME, route, service, path, model, provider",
                    );
                    return None;
                }
            },
        };
        Some(Origin(part))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({
            "type": "string",
            "pattern": "^(consumer|credential|group|ip|route|service|path|model|provider|header:[A-Za-z0-9_-]+)$",
        })
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.0.word())
    }
}

record! {
    /// What a million tokens cost, in whatever currency the limits are in.
    pub struct RawPrice {
        /// Prompt tokens.
        pub input: Amount,
        /// Prompt tokens that came from the provider's cache; left out, as `input`.
        pub cached_input: Option<Amount>,
        /// Prompt tokens that were written to its cache; left out, as `input`.
        pub cache_write: Option<Amount>,
        /// Generated tokens, reasoning included.
        pub output: Amount,
    }
}

keyword! {
    /// What happens to a request that does not fit into what is left of a limit.
    pub enum OnLimit {
        /// It is refused.
        Reject = "reject",
        /// Its completion is limited to what is left, where that is at least `min_completion`.
        Clamp = "clamp",
    }
}

keyword! {
    /// What happens to requests whose tokens can't be counted.
    pub enum Unmetered {
        /// They pass, and nothing is charged.
        Pass = "pass",
        /// They are charged by their size and `default_completion`, or what the answer says.
        Estimate = "estimate",
        /// They are refused (403).
        Refuse = "refuse",
    }
}

keyword! {
    /// What happens to a request that the provider might read differently.
    pub enum Unreadable {
        /// It is refused (400), with the reason.
        Refuse = "refuse",
        /// It is charged by its size and `default_completion`, or what the answer says.
        Estimate = "estimate",
    }
}

impl RawPrice {
    fn price(&self, reader: &mut Reader<'_>) -> Price {
        let mut read = |name, amount: Amount| {
            PerMillion::parse(&amount.0.to_string()).unwrap_or_else(|reason| {
                reader.member(name, |reader| reader.error(reason));
                PerMillion::default()
            })
        };
        let input = read("input", self.input);
        Price {
            input,
            cached_input: self
                .cached_input
                .map_or(input, |amount| read("cached_input", amount)),
            cache_write: self
                .cache_write
                .map_or(input, |amount| read("cache_write", amount)),
            output: read("output", self.output),
        }
    }
}

/// The rules; what is wrong is reported.
pub(super) fn rules(raw: &RawConfig, reader: &mut Reader<'_>) -> Vec<Rule> {
    reader.member("tokens", |reader| {
        let mut rules: Vec<Rule> = Vec::new();
        for (index, token) in raw.tokens.iter().enumerate() {
            reader.element(index, |reader| {
                let taken = rules.iter().any(|rule| rule.name == token.name);
                check_name(&token.name, taken, reader);
                if let Some(rule) = token.rule(raw, reader) {
                    rules.push(rule);
                }
            });
        }
        rules
    })
}

/// Reports a name that can't stand in headers and metrics, or belongs to another limit.
pub(super) fn check_name(name: &str, taken: bool, reader: &mut Reader<'_>) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    reader.member("name", |reader| {
        if taken || name == "requests" {
            reader.error("the name of another limit: its counters would be the same");
        }
        if !(1..=64).contains(&name.len()) || !name.bytes().all(fits) {
            reader.error("1 to 64 characters of A-Z, a-z, 0-9, '-', '_' and '.': it stands in headers and metrics");
        }
    });
}

/// Reports a rule that counts nobody.
pub(super) fn check_by(by: &[Origin], reader: &mut Reader<'_>) {
    if by.is_empty() {
        reader.member("by", |reader| {
            reader.error("length must be at least 1; [\"service\"] counts all clients together");
        });
    }
}

impl RawTokenRule {
    fn rule(&self, raw: &RawConfig, reader: &mut Reader<'_>) -> Option<Rule> {
        check_by(&self.by, reader);
        let limits = self.limits(reader)?;
        if self.count == Unit::Cost && raw.pricing.0.is_empty() && raw.unknown_model_price.is_none()
        {
            reader.member("count", |reader| {
                reader.error("cost needs prices: give pricing, or unknown_model_price");
            });
        }
        let kind = match self.window {
            Ending::Fixed => Kind::FixedWithDebt,
            Ending::Sliding => Kind::Sliding,
        };
        let counted = limits
            .into_iter()
            .map(|(window, limit)| (window, self.count.counted(limit)));
        Some(Rule {
            name: self.name.clone(),
            unit: self.count,
            by: self.by.iter().map(|origin| origin.0.clone()).collect(),
            matching: self
                .matching
                .as_ref()
                .map(RawMatch::matching)
                .unwrap_or_default(),
            limits: rule::limits(counted, kind),
            written: Vec::new(),
            can_be_own: true,
            overflow: overflow(&raw.namespace, &self.name),
        })
    }

    fn limits(&self, reader: &mut Reader<'_>) -> Option<Vec<(Window, Decimal)>> {
        let calendar = [
            ("second", Window::Second, self.second),
            ("minute", Window::Minute, self.minute),
            ("hour", Window::Hour, self.hour),
            ("day", Window::Day, self.day),
            ("month", Window::Month, self.month),
            ("year", Window::Year, self.year),
        ];
        let mut limits: Vec<(Window, Decimal)> = Vec::new();
        for (name, window, limit) in calendar {
            if let Some(Amount(limit)) = limit {
                self.check_whole(name, limit, reader);
                limits.push((window, limit));
            }
        }
        match (self.window_seconds, self.limit) {
            (Some(seconds), Some(Amount(limit))) => match rule::custom(seconds) {
                Some(window) => {
                    self.check_whole("limit", limit, reader);
                    limits.push((window, limit));
                }
                None => reader.member("window_seconds", |reader| {
                    reader.error("value should be between 1 and 2147483647");
                }),
            },
            (Some(_), None) => {
                reader.member("limit", |reader| {
                    reader.error("required field missing: the limit of window_seconds");
                });
                return None;
            }
            (None, Some(Amount(limit))) if limit > Decimal::whole(0) => {
                reader.member("window_seconds", |reader| {
                    reader.error("required field missing: the length of limit's window");
                });
                return None;
            }
            // Denied: there is no window to have room in.
            (None, Some(_)) => return Some(Vec::new()),
            (None, None) => {}
        }
        if limits.is_empty() {
            reader.error(
                "no limit: give one of second, minute, hour, day, month, year, or limit with window_seconds",
            );
            return None;
        }
        Some(limits)
    }

    fn check_whole(&self, name: &str, limit: Decimal, reader: &mut Reader<'_>) {
        if self.count != Unit::Cost && Decimal::whole(limit.ceil()) != limit {
            reader.member(name, |reader| {
                reader.error("expected an integer: only cost has fractions")
            });
        }
    }
}

impl RawMatch {
    pub(super) fn matching(&self) -> Matching {
        let globs = |globs: &Option<Globs>| {
            globs
                .as_ref()
                .map(|globs| globs.0.clone())
                .unwrap_or_default()
        };
        let headers = self.headers.0.iter();
        Matching {
            model: globs(&self.model),
            consumer: globs(&self.consumer),
            group: globs(&self.group),
            path: globs(&self.path),
            headers: headers
                .map(|(name, glob)| (name.clone(), glob.0.clone()))
                .collect(),
        }
    }
}

/// How tokens are counted; what is wrong is reported.
pub(super) fn metering(raw: &RawConfig, reader: &mut Reader<'_>) -> Option<Metering> {
    let models = reader.member("pricing", |reader| {
        let named = raw.pricing.0.iter();
        named
            .map(|(model, price)| {
                let price = reader.member(model, |reader| price.price(reader));
                (Glob::new(model), price)
            })
            .collect()
    });
    let unknown = raw
        .unknown_model_price
        .as_ref()
        .map(|price| reader.member("unknown_model_price", |reader| price.price(reader)));
    let mut positive = |name, value: u64| {
        if value == 0 || value > tollgate_llm::request::MOST {
            reader.member(name, |reader| {
                reader.error("value should be between 1 and 2147483647");
            });
        }
    };
    positive("default_completion", raw.default_completion);
    positive("min_completion", raw.min_completion);
    positive("max_body_bytes", raw.max_body_bytes);
    if let Some(most) = raw.most_completion {
        positive("most_completion", most);
        if raw.default_completion > most {
            reader.member("default_completion", |reader| {
                reader.error(format_args!(
                    "value must be at most most_completion ({most})"
                ));
            });
        }
    }
    let Positive(bytes) = raw.bytes_per_token;
    let milli = u32::try_from(bytes.millionths() / 1000).unwrap_or(u32::MAX);
    if !(1000..=16_000).contains(&milli) {
        reader.member("bytes_per_token", |reader| {
            reader.error("value should be between 1 and 16");
        });
    }
    Some(Metering {
        pricing: Pricing { models, unknown },
        exact: raw.exact,
        default_completion: raw.default_completion,
        most_completion: raw.most_completion,
        most_prompt: raw.most_prompt,
        on_limit: raw.on_limit,
        min_completion: raw.min_completion,
        charge_cache_hits: raw.charge_cache_hits,
        stream_cutoff: raw.stream_cutoff,
        guess: Calibration::guess(milli),
        unmetered: raw.unmetered,
        unreadable: raw.unreadable,
        most_body: usize::try_from(raw.max_body_bytes).ok()?,
    })
}
