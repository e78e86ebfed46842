//! The configuration: Kong's fields, and Tollgate's own.

use crate::consumers::Consumers;
use crate::scheme::Scheme;
use std::borrow::Cow;
use std::time::Duration;
use tollgate_kit::config::{Configuration, Field, HeaderName, Reader, Seconds, Table};
use tollgate_kit::host::HostKind;
use tollgate_kit::json::{Kind, Value};
use tollgate_kit::reply::ErrorFormat;
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::{Json, list_of};
use tollgate_kit::step::is_address;
use tollgate_kit::{keyword, record};

keyword! {
    /// Whose behaviour, where Tollgate's is better by default.
    pub enum Compat {
        /// Kong's, to the letter.
        Kong = "kong",
    }
}

record! {
    /// Kong's `key-auth`, field for field, with the consumers that a filter has no database for.
    pub struct RawConfig {
        /// Names to look for a key under, in this order, in each place that is searched.
        pub key_names: Vec<HeaderName> = default_key_names(),
        /// Look in the request's headers.
        pub key_in_header: bool = true,
        /// Look in the query string.
        pub key_in_query: bool = true,
        /// Look in the body: form, JSON (top level) or multipart.
        pub key_in_body: bool = false,
        /// Take the key out of the request before it goes upstream.
        pub hide_credentials: bool = false,
        /// Id or username of the consumer that stands for everybody who can't be authenticated.
        pub anonymous: Option<NonEmpty>,
        /// Ask for a key in OPTIONS requests too.
        pub run_on_preflight: bool = true,
        /// The realm of the `WWW-Authenticate` challenge.
        pub realm: Option<NonEmpty>,
        /// Ways a key may be wrapped in the `authorization` header: a list of `bearer` and `basic`; `true` for both, `false` or an
        /// empty list for none. Default: both; none with `compat: kong`.
        pub schemes: Option<Schemes>,
        /// Who may come in.
        pub consumers: Consumers = Consumers::default(),
        /// Where to get the consumers from instead: a JSON document `{"consumers": [...]}` that is polled.
        pub consumers_from: Option<RawSource>,
        /// The largest body, in bytes, that is read for a key. A larger one is refused with 413.
        pub max_body_bytes: u64 = 1_048_576,
        /// The shape of error answers: `kong` (by `Accept`) or `openai`.
        pub error_format: ErrorFormat = ErrorFormat::Kong,
        /// Where the filter runs: `envoy` (with `allow_on_headers_stop_iteration`), `envoy-headers-pass` (without it, as under
        /// Istio's WasmPlugin) or `kong`. Left out, Envoy and Kong are told apart at the first request.
        pub host: Option<HostKind>,
        /// `kong` gives Kong's behaviour to the letter where Tollgate's differs.
        pub compat: Option<Compat>,
    }
}

record! {
    /// A document of consumers, polled.
    pub struct RawSource {
        /// Whom to ask: a cluster's name on Envoy, `host:port` on Kong.
        pub upstream: NonEmpty,
        /// Path and query of the document.
        pub path: NonEmpty,
        /// How often, in seconds.
        pub refresh: Seconds = Seconds(Duration::from_secs(30)),
        /// How long one poll may take, in seconds.
        pub timeout: Seconds = Seconds(Duration::from_secs(5)),
        /// Headers to ask with, such as `authorization`. `host` sets the authority; by default it is the upstream.
        pub headers: Table<String> = Table(Vec::new()),
    }
}

fn default_key_names() -> Vec<HeaderName> {
    HeaderName::new("apikey").into_iter().collect()
}

/// A text of at least one character, and no control characters: it ends up in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonEmpty(String);

impl NonEmpty {
    /// The text.
    pub fn into_inner(self) -> String {
        self.0
    }
}

/// Reads such a text without keeping it.
pub(crate) fn non_empty<'v>(value: Value<'v>, reader: &mut Reader<'_>) -> Option<Cow<'v, str>> {
    let text = reader.text(value)?;
    if text.is_empty() {
        reader.error("length must be at least 1");
        return None;
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        reader.error("control characters are not allowed");
        return None;
    }
    Some(text)
}

impl Field for NonEmpty {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<NonEmpty> {
        non_empty(value, reader).map(|text| NonEmpty(text.into_owned()))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "string", "minLength": 1})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.0.as_str())
    }
}

/// Which schemes are taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schemes(Vec<Scheme>);

impl Schemes {
    const ALL: [Scheme; 2] = [Scheme::Bearer, Scheme::Basic];
}

impl Field for Schemes {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Schemes> {
        match value.kind() {
            Kind::Bool(all) => Some(Schemes(if all {
                Schemes::ALL.to_vec()
            } else {
                Vec::new()
            })),
            _ => Vec::read(value, reader).map(Schemes),
        }
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"anyOf": [list_of(Scheme::schema()), {"type": "boolean"}]})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        self.0.to_json()
    }
}

/// The validated configuration.
#[derive(Debug)]
pub struct Config {
    pub(crate) rules: Rules,
    pub(crate) consumers: Consumers,
    pub(crate) source: Option<Source>,
}

/// What requests are judged by.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) names: Vec<KeyName>,
    pub(crate) in_header: bool,
    pub(crate) in_query: bool,
    pub(crate) in_body: bool,
    pub(crate) hide: bool,
    pub(crate) anonymous: Option<String>,
    pub(crate) run_on_preflight: bool,
    /// The value of `WWW-Authenticate`.
    pub(crate) challenge: String,
    pub(crate) schemes: Vec<Scheme>,
    pub(crate) max_body: usize,
    pub(crate) error_format: ErrorFormat,
    pub(crate) host: Option<HostKind>,
    pub(crate) kong: bool,
}

/// A name to look for a key under.
#[derive(Debug)]
pub(crate) struct KeyName {
    /// As configured: the name of arguments, fields and members, whose case counts.
    pub(crate) name: String,
    /// The header names it stands for, in the order they are tried (KONG-SPEC 0.4).
    pub(crate) headers: Vec<String>,
    /// Whether the header may wrap the key in a scheme.
    pub(crate) authorization: bool,
}

impl KeyName {
    fn new(name: &HeaderName, kong: bool) -> KeyName {
        let lower = name.as_str().to_ascii_lowercase();
        let hyphens = lower.replace('_', "-");
        // Kong finds the spelling with `_` only where it is configured in lower case.
        let exact = !kong || name.as_str() == lower;
        let mut headers = Vec::new();
        if exact {
            headers.push(lower.clone());
        }
        if !headers.contains(&hyphens) {
            headers.push(hyphens);
        }
        KeyName {
            name: name.as_str().to_owned(),
            headers,
            authorization: lower == "authorization",
        }
    }
}

/// Where consumers are polled from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) upstream: String,
    pub(crate) path: String,
    pub(crate) authority: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) refresh: Duration,
    pub(crate) timeout: Duration,
}

impl Configuration for Config {
    type Raw = RawConfig;

    fn validate(raw: RawConfig, reader: &mut Reader<'_>) -> Option<Config> {
        let kong = raw.compat.is_some();
        if raw.key_in_body && raw.host == Some(HostKind::EnvoyHeadersPass) {
            reader.member("key_in_body", |reader| {
                reader.error(
                    "can't work with host: envoy-headers-pass: the headers have gone when the body is read, so that no identity can be \
                     set; use a header or the query, or set allow_on_headers_stop_iteration and host: envoy",
                );
            });
        }
        if raw.key_in_body && raw.host.is_none() {
            reader.member("host", |reader| {
                reader.warn("not set: with key_in_body, Envoy needs allow_on_headers_stop_iteration, or requests hang; write envoy or kong");
            });
        }
        if raw.key_names.is_empty() {
            reader.member("key_names", |reader| {
                reader
                    .warn("an empty list: every request fails with \"No API key found in request\"")
            });
        }
        if raw.consumers_from.is_some() && !raw.consumers.directory.is_empty() {
            reader.member("consumers_from", |reader| {
                reader.error("give consumers or consumers_from, not both")
            });
        }
        let source = match raw.consumers_from {
            Some(source) => {
                Some(reader.member("consumers_from", |reader| source.validate(raw.host, reader))?)
            }
            None => None,
        };
        if let Some(anonymous) = &raw.anonymous
            && source.is_none()
            && raw.consumers.directory.consumer(&anonymous.0).is_none()
        {
            reader.member("anonymous", |reader| {
                reader.warn(format_args!(
                    "there is no consumer {}: whoever can't be authenticated gets 500",
                    anonymous.0
                ));
            });
        }
        if !reader.is_clean() {
            return None;
        }
        let default_schemes = if kong {
            Vec::new()
        } else {
            Schemes::ALL.to_vec()
        };
        let rules = Rules {
            names: raw
                .key_names
                .iter()
                .map(|name| KeyName::new(name, kong))
                .collect(),
            in_header: raw.key_in_header,
            in_query: raw.key_in_query,
            in_body: raw.key_in_body,
            hide: raw.hide_credentials,
            anonymous: raw.anonymous.map(NonEmpty::into_inner),
            run_on_preflight: raw.run_on_preflight,
            challenge: raw.realm.map_or("Key".to_owned(), |realm| {
                format!(
                    "Key realm=\"{}\"",
                    realm.0.replace('\\', "\\\\").replace('"', "\\\"")
                )
            }),
            schemes: raw.schemes.map_or(default_schemes, |schemes| schemes.0),
            max_body: usize::try_from(raw.max_body_bytes).unwrap_or(usize::MAX),
            error_format: raw.error_format,
            host: raw.host,
            kong,
        };
        Some(Config {
            rules,
            consumers: raw.consumers,
            source,
        })
    }
}

impl RawSource {
    fn validate(self, host: Option<HostKind>, reader: &mut Reader<'_>) -> Option<Source> {
        if host == Some(HostKind::Kong) && !is_address(&self.upstream.0) {
            reader.member("upstream", |reader| {
                reader.error("expected host:port, which is what Kong can call");
            });
        }
        if !self.path.0.starts_with('/') {
            reader.member("path", |reader| reader.error("should start with: /"));
        }
        let mut authority = self.upstream.0.clone();
        let mut headers = Vec::new();
        reader.member("headers", |reader| {
            for (name, value) in self.headers.0 {
                reader.member(&name, |reader| {
                    if HeaderName::new(&name).is_none() {
                        reader.error(
                            "bad header name, allowed characters are A-Z, a-z, 0-9, '_', and '-'",
                        );
                    }
                    if value.bytes().any(|byte| byte.is_ascii_control()) {
                        reader.error("control characters are not allowed in a header");
                    }
                });
                match name.to_ascii_lowercase() {
                    host if host == "host" => authority = value,
                    name => headers.push((name, value.into_bytes())),
                }
            }
        });
        let (upstream, path) = (self.upstream.0, self.path.0);
        Some(Source {
            upstream,
            path,
            authority,
            headers,
            refresh: self.refresh.0,
            timeout: self.timeout.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_kit::config::check;

    fn problems(text: &str) -> Vec<String> {
        let problems = check::<Config>(text.as_bytes(), &|_| None)
            .map(|checked| checked.config)
            .unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    fn warnings(text: &str) -> Vec<String> {
        let checked = check::<Config>(text.as_bytes(), &|_| None)
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        checked.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn kongs_defaults() {
        let rules = check::<Config>(b"{}", &|_| None).unwrap().config.rules;
        assert_eq!(
            rules
                .names
                .iter()
                .map(|name| name.name.as_str())
                .collect::<Vec<_>>(),
            ["apikey"]
        );
        assert_eq!(
            (
                rules.in_header,
                rules.in_query,
                rules.in_body,
                rules.hide,
                rules.run_on_preflight
            ),
            (true, true, false, false, true)
        );
        assert_eq!(
            (
                rules.challenge.as_str(),
                rules.schemes.len(),
                rules.anonymous
            ),
            ("Key", 2, None)
        );
    }

    #[test]
    fn schemes_are_off_with_compat_kong_unless_asked_for() {
        let schemes = |text: &str| {
            check::<Config>(text.as_bytes(), &|_| None)
                .unwrap()
                .config
                .rules
                .schemes
                .len()
        };
        assert_eq!(schemes(r#"{"compat":"kong"}"#), 0);
        assert_eq!(schemes(r#"{"compat":"kong","schemes":["bearer"]}"#), 1);
        assert_eq!(
            (
                schemes(r#"{"schemes":false}"#),
                schemes(r#"{"schemes":{}}"#),
                schemes(r#"{"schemes":true}"#)
            ),
            (0, 0, 2)
        );
    }

    #[test]
    fn every_mistake_of_a_consumer_has_its_path() {
        let digest = "0".repeat(64);
        let text = format!(
            r#"{{"consumers":[
                {{"id":"1","username":"bob","credentials":[{{"id":"a","key":"k"}},{{"key_sha256":"xyz"}},{{"id":"b"}},{{"key":"k"}}]}},
                {{"id":"1"}},{{"id":"2","username":"bob"}},{{"custom_id":"x"}},{{"id":""}},{{"id":"3","colour":1}},
                {{"id":"4","metadata":[1],"groups":["a",1],"credentials":[{{"key_sha256":"{digest}","expires_at":"soon"}},{{"key":"x","key_sha256":"{digest}"}}]}}
            ]}}"#
        );
        assert_eq!(
            problems(&text),
            [
                "consumers[0].credentials[1].key_sha256: expected 64 hex digits: printf %s \"$KEY\" | sha256sum",
                "consumers[0].credentials[2]: a credential needs key_sha256 (or key)",
                "consumers[0].credentials[3].key: duplicate credential: another one has this key",
                "consumers[1].id: duplicate consumer: another one has this id",
                "consumers[2].username: duplicate consumer: another one has this username",
                "consumers[3]: a consumer needs an id, or at least a username",
                "consumers[4].id: length must be at least 1",
                "consumers[4]: a consumer needs an id, or at least a username",
                "consumers[5].colour: unknown field: one of id, username, custom_id, groups, metadata, credentials",
                "consumers[6].groups[1]: expected a string, in quotes",
                "consumers[6].metadata: expected an object, as {\"plan\": \"gold\"}",
                "consumers[6].credentials[0].expires_at: expected seconds since 1970, or a time as \"2026-12-31T23:59:59Z\"",
                "consumers[6].credentials[1]: give key or key_sha256, not both",
            ]
        );
    }

    #[test]
    fn what_can_not_work_together_is_refused() {
        let key_in_body = problems(r#"{"key_in_body":true,"host":"envoy-headers-pass"}"#);
        assert!(
            key_in_body[0].starts_with("key_in_body: can't work with host: envoy-headers-pass"),
            "{key_in_body:?}"
        );
        let both = problems(
            r#"{"consumers":[{"id":"1","credentials":[{"key":"k"}]}],"consumers_from":{"upstream":"u","path":"x","headers":{"a b":"c\n"},"refresh":0}}"#,
        );
        assert_eq!(
            both,
            ["consumers_from.refresh: value must be greater than 0: a number of seconds"]
        );
        let spanning = problems(
            r#"{"consumers":[{"id":"1","credentials":[{"key":"k"}]}],"consumers_from":{"upstream":"u","path":"x","headers":{"a b":"c\n"}}}"#,
        );
        assert_eq!(
            spanning,
            [
                "consumers_from: give consumers or consumers_from, not both",
                "consumers_from.path: should start with: /",
                "consumers_from.headers.a b: bad header name, allowed characters are A-Z, a-z, 0-9, '_', and '-'",
                "consumers_from.headers.a b: control characters are not allowed in a header",
            ]
        );
    }

    #[test]
    fn doubtful_settings_are_said() {
        assert_eq!(warnings(r#"{"host":"kong"}"#), [] as [&str; 0]);
        let doubtful = warnings(
            r#"{"key_names":[],"key_in_body":true,"anonymous":"nobody","consumers":[{"id":"1","credentials":[{"key":"k"}]}]}"#,
        );
        let places: Vec<_> = doubtful
            .iter()
            .map(|warning| warning.split(':').next().unwrap())
            .collect();
        assert_eq!(places, ["consumers", "host", "key_names", "anonymous"]);
        assert!(
            !doubtful.iter().any(|warning| warning.contains("\"k\"")),
            "no key in a warning"
        );
    }

    #[test]
    fn a_realm_can_not_break_out_of_its_quotes() {
        let rules = check::<Config>(br#"{"realm":"my \"realm\""}"#, &|_| None)
            .unwrap()
            .config
            .rules;
        assert_eq!(rules.challenge, r#"Key realm="my \"realm\"""#);
        assert_eq!(
            problems(r#"{"realm":"a\r\nb"}"#),
            ["realm: control characters are not allowed"]
        );
    }
}
