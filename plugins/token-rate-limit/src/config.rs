//! The configuration: Kong's fields, and Tollgate's own.

mod concurrency;
mod desk;
mod number;
mod redis;
mod requests;
mod tokens;

pub use concurrency::RawConcurrency;
pub(crate) use desk::{Admin, Desk, Errand};
pub use desk::{RawAdmin, Secret, Sha256};
pub use number::{Amount, Positive};
pub use redis::{Dialect, Front, RawFront, RawRedis, SyncRate};
pub use requests::{ErrorCode, LimitBy, Path, Policy};
pub use tokens::{
    Globs, Matched, OnLimit, Origin, RawMatch, RawPrice, RawTokenRule, Unmetered, Unreadable,
};

use crate::rule::{Concurrency, Rule};
use crate::subject;
use requests::Requests;
use tollgate_kit::config::{Configuration, HeaderName, Reader, Table as Named};
use tollgate_kit::host::HostKind;
use tollgate_kit::reply::ErrorFormat;
use tollgate_kit::store::Table;
use tollgate_kit::{keyword, record};
use tollgate_llm::{Calibration, Pricing};

keyword! {
    /// Whose behaviour, where Tollgate's is better by default.
    pub enum Compat {
        /// Kong's, to the letter.
        Kong = "kong",
    }
}

keyword! {
    /// A family of headers that tell a client about its limits.
    pub enum LimitHeaders {
        /// Of request limits, as Kong names them: `RateLimit-*`, `X-RateLimit-*-Minute`.
        Kong = "kong",
        /// OpenAI's, which its SDKs read: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, for requests to LLM APIs.
        OpenAi = "openai",
        /// Of token limits, as Kong's AI plugins name them: `X-AI-RateLimit-*-<window>-<rule>`.
        KongAi = "kong-ai",
    }
}

record! {
    /// Kong's `rate-limiting`, field for field, and limits in tokens and money.
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
        /// Where counters are kept: `local`, shared by all workers of this gateway, or `redis`, shared by all gateways.
        /// (`cluster` needs Kong's database.)
        pub policy: Policy = Policy::Local,
        /// When counters can't be reached: with Redis let each gateway count by itself, without it let requests pass; `false` refuses them (500).
        pub fault_tolerant: bool = true,
        /// Send no limit headers to clients.
        pub hide_client_headers: bool = false,
        /// The status of a refusal by a request limit: 400 to 599.
        pub error_code: ErrorCode = ErrorCode(429),
        /// The message of a refusal by a request limit.
        pub error_message: String = "API rate limit exceeded".to_owned(),
        /// Seconds between two exchanges with Redis, 0.02 at least: each gateway decides by itself meanwhile. -1 asks Redis about each request, and is all
        /// that `policy: local` takes.
        pub sync_rate: SyncRate = SyncRate::EachRequest,
        /// Where Redis is.
        pub redis: Option<RawRedis>,
        /// Kong's older spelling of `redis.host`.
        pub redis_host: Option<String>,
        /// Kong's older spelling of `redis.port`.
        pub redis_port: Option<u64>,
        /// Kong's older spelling of `redis.timeout`.
        pub redis_timeout: Option<u64>,
        /// Kong's older spelling of `redis.username`.
        pub redis_username: Option<String>,
        /// Kong's older spelling of `redis.password`.
        pub redis_password: Option<String>,
        /// Kong's older spelling of `redis.database`.
        pub redis_database: Option<u64>,
        /// Kong's older spelling of `redis.ssl`.
        pub redis_ssl: Option<bool>,
        /// Kong's older spelling of `redis.ssl_verify`.
        pub redis_ssl_verify: Option<bool>,
        /// Kong's older spelling of `redis.server_name`.
        pub redis_server_name: Option<String>,
        /// Limits in tokens and money. All that match a request hold, together with the request limits above.
        pub tokens: Vec<RawTokenRule> = Vec::new(),
        /// How many requests may be under way at once, by each gateway, whatever the policy. All that match a request hold.
        pub concurrency: Vec<RawConcurrency> = Vec::new(),
        /// What a million tokens cost, by model; `*` and `?` are wild, the most specific pattern counts.
        pub pricing: Named<RawPrice> = Named(Vec::new()),
        /// The price of a model that `pricing` does not name. Left out, such a model is refused (400) where a rule counts cost.
        pub unknown_model_price: Option<RawPrice>,
        /// Never let a request use more than was reserved for it: writes `default_completion` as the limit of requests that set none,
        /// reserves the upper bound of the prompt, and refuses (400) what could never fit or can't be bounded.
        pub exact: bool = false,
        /// Completion tokens to reserve for a request that sets no limit; with `exact`, the limit that it is given.
        pub default_completion: u64 = 1024,
        /// The most completion tokens that one request may ask for; a request above is refused (400).
        pub most_completion: Option<u64>,
        /// The most prompt tokens that one request may have, by the estimate; a request above is refused (413).
        pub most_prompt: Option<u64>,
        /// When a request does not fit into what is left: `reject` it (429), or `clamp` its completion to what is left.
        pub on_limit: OnLimit = OnLimit::Reject,
        /// The fewest completion tokens that are worth a clamped request.
        pub min_completion: u64 = 64,
        /// Charge answers that a cache gave (`X-Cache-Status: Hit`) as if the provider had; they are free otherwise.
        pub charge_cache_hits: bool = false,
        /// End a stream for the client when its limit is reached: with the current event, a finish event and `[DONE]`.
        pub stream_cutoff: bool = false,
        /// The first guess of how many bytes make a token, before anything has been learned.
        pub bytes_per_token: Positive = Positive(crate::decimal::Decimal::whole(3)),
        /// What becomes of requests that can't be counted (files, audio, batches, realtime, background): `pass`, `estimate` or `refuse`.
        pub unmetered: Unmetered = Unmetered::Pass,
        /// What becomes of a request body that the provider might read differently: `refuse` (400), or `estimate` by its size.
        pub unreadable: Unreadable = Unreadable::Refuse,
        /// The largest request body that is read, in bytes; a larger one is refused (413).
        pub max_body_bytes: u64 = 10_485_760,
        /// The name by which `limit_by: service` counts. Left out, the gateway's own: Envoy's cluster, Kong's service.
        pub service: Option<String>,
        /// Take the consumer from `X-Consumer-*` headers where no Tollgate filter has told it. Only where something in front of
        /// this filter sets them and removes a client's own.
        pub trust_identity_headers: bool = false,
        /// Tells these counters from those of other instances of the filter: two with one namespace share their counters.
        pub namespace: String = "default".to_owned(),
        /// About so many counters are kept at once; past that, new ones share (see the README).
        pub max_counters: u64 = 10_000,
        /// A path, without a query, where a client asks for its own budget with GET: the filter answers.
        pub budget_path: Option<Path>,
        /// Where an operator reads, resets and adjusts counters.
        pub admin: Option<RawAdmin>,
        /// Decide and report, but refuse nothing.
        pub shadow: bool = false,
        /// Which limit headers clients get.
        pub limit_headers: Vec<LimitHeaders> = vec![LimitHeaders::Kong, LimitHeaders::OpenAi],
        /// The shape of error answers: `kong` (by `Accept`) or `openai`.
        pub error_format: ErrorFormat = ErrorFormat::Kong,
        /// Where the filter runs: `envoy`, `envoy-headers-pass` or `kong`. Left out, Envoy and Kong are told apart at the first request.
        pub host: Option<HostKind>,
        /// `kong` gives Kong's behaviour to the letter where Tollgate's differs.
        pub compat: Option<Compat>,
    }
}

/// The validated configuration.
#[derive(Debug)]
pub struct Config {
    pub(crate) requests: Option<Requests>,
    pub(crate) tokens: Vec<Rule>,
    pub(crate) concurrency: Vec<Concurrency>,
    pub(crate) metering: Metering,
    pub(crate) desk: Desk,
    pub(crate) table: Table,
    pub(crate) namespace: String,
    pub(crate) service: Option<String>,
    pub(crate) trust_headers: bool,
    /// `None`: counters are kept in this gateway.
    pub(crate) redis: Option<Front>,
    pub(crate) fault_tolerant: bool,
    pub(crate) shadow: bool,
    /// Empty where none are to be sent.
    pub(crate) limit_headers: Vec<LimitHeaders>,
    pub(crate) error_format: ErrorFormat,
    pub(crate) host: Option<HostKind>,
    pub(crate) kong: bool,
}

/// How tokens are counted and what follows from it.
#[derive(Debug)]
pub(crate) struct Metering {
    pub(crate) pricing: Pricing,
    pub(crate) exact: bool,
    pub(crate) default_completion: u64,
    pub(crate) most_completion: Option<u64>,
    pub(crate) most_prompt: Option<u64>,
    pub(crate) on_limit: OnLimit,
    pub(crate) min_completion: u64,
    pub(crate) charge_cache_hits: bool,
    pub(crate) stream_cutoff: bool,
    pub(crate) guess: Calibration,
    pub(crate) unmetered: Unmetered,
    pub(crate) unreadable: Unreadable,
    pub(crate) most_body: usize,
}

impl Config {
    /// All rules that count in windows, by their places: the request limits come behind all others.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        let requests = self.requests.iter().map(|requests| &requests.rule);
        self.tokens.iter().chain(requests)
    }
}

impl Configuration for Config {
    type Raw = RawConfig;

    fn validate(raw: RawConfig, reader: &mut Reader<'_>) -> Option<Config> {
        let kong = raw.compat.is_some();
        let requests = Requests::validate(&raw, kong, reader);
        let tokens = tokens::rules(&raw, reader);
        let redis = redis::front(&raw, reader);
        let concurrency = concurrency::rules(&raw, reader);
        let desk = Desk::validate(&raw, reader);
        if tokens.is_empty() && concurrency.is_empty() && requests.is_none() && reader.is_clean() {
            reader.error(
                "at least one of these fields must be non-empty: 'config.second', 'config.minute', 'config.hour', 'config.day', \
                 'config.month', 'config.year', 'config.tokens', 'config.concurrency'",
            );
        }
        let max_counters = u32::try_from(raw.max_counters)
            .ok()
            .filter(|max| (1..=10_000_000).contains(max));
        if max_counters.is_none() {
            reader.member("max_counters", |reader| {
                reader.error("value should be between 1 and 10000000");
            });
        }
        if raw.namespace.len() > 100 {
            reader.member("namespace", |reader| {
                reader.error("length must be at most 100")
            });
        }
        let reads_bodies = !tokens.is_empty()
            || raw.admin.is_some()
            || concurrency.iter().any(Concurrency::reads_body);
        if raw.host.is_none() && reads_bodies {
            reader.member("host", |reader| {
                reader.warn("say where the filter runs (envoy, envoy-headers-pass or kong): reading bodies depends on it");
            });
        }
        if raw.host == Some(HostKind::EnvoyHeadersPass) {
            let mut needs_body = |name, asked| {
                if asked {
                    reader.member(name, |reader| {
                        reader.error("can't work with host: envoy-headers-pass, where a request's body can't be changed");
                    });
                }
            };
            needs_body("exact", raw.exact);
            needs_body("on_limit", raw.on_limit == OnLimit::Clamp);
        }
        let metering = tokens::metering(&raw, reader);
        if !reader.is_clean() {
            return None;
        }
        let limit_headers = if raw.hide_client_headers {
            Vec::new()
        } else {
            raw.limit_headers
        };
        Some(Config {
            requests,
            tokens,
            concurrency,
            metering: metering?,
            desk: desk?,
            table: Table::for_keys(max_counters?),
            namespace: raw.namespace,
            service: raw.service,
            trust_headers: raw.trust_identity_headers,
            redis,
            fault_tolerant: raw.fault_tolerant,
            shadow: raw.shadow,
            limit_headers,
            error_format: raw.error_format,
            host: raw.host,
            kong,
        })
    }
}

/// The key of the counter that keys share which found no room, one for each rule.
fn overflow(namespace: &str, rule: &str) -> tollgate_kit::store::Key {
    subject::key(&["overflow", namespace, rule])
}
