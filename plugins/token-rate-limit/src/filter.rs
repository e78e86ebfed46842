//! The phases: charge the request, read its body, reserve what it may use, watch the answer, settle.

mod answer;
mod desk;
mod learned;
mod remote;
mod reply;
mod reserve;
mod tenancy;

use crate::config::{Config, LimitHeaders};
use crate::headers::{self, Line};
use crate::lease::Tenancy;
use crate::ledger::{Account, Admission, Charge, Held, Ledger, Oddities};
use crate::metering::Demand;
use crate::own_limits::OwnLimits;
use crate::rule::Rule;
use crate::subject::{self, Client};
use answer::Answering;
use desk::Question;
use learned::Learned;
use remote::{Pending, Remote};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::{Failure, Host, HostKind, Level};
use tollgate_kit::identity::Identity;
use tollgate_kit::metric::Metric;
use tollgate_kit::step::{
    Body, Call, CallOutcome, HeaderEdit, RequestStep, ResponseEdits, ResponseStep, StreamStep,
};
use tollgate_kit::{Exchange, Fallback, Filter};
use tollgate_llm::Endpoint;

/// The filter with its configuration, and what it has learned.
#[derive(Debug)]
pub struct TokenRateLimit {
    config: Config,
    learned: Learned,
    /// Redis, where counters are kept there.
    remote: Option<Remote>,
    /// Whether counters could not be reached the last time: one log line for a failure that lasts.
    unavailable: bool,
}

/// One request.
#[derive(Debug, Default)]
pub struct Limiting {
    /// Kept while the body is awaited.
    request: Option<Rc<Incoming>>,
    /// The head of an operator's order, kept while its body is awaited.
    order: Option<HeaderMap>,
    /// Kept while Redis is asked.
    pending: Option<Box<Pending>>,
    /// The same, of a client that asks for its budget, or an operator.
    question: Option<Box<Question>>,
    /// The request limits have been seen to.
    counts: bool,
    /// What it holds as long as it is under way.
    leases: Vec<Tenancy>,
    /// The charge of the request limits.
    counted: Vec<Held>,
    /// What has been reserved, and the answer as far as it has come.
    answering: Option<Answering>,
    /// The limit headers of the answer.
    lines: Vec<Line>,
}

/// What is known of a request from its head.
#[derive(Debug)]
struct Incoming {
    headers: HeaderMap,
    identity: Option<Identity>,
    own_limits: OwnLimits,
    path: Vec<u8>,
    endpoint: Endpoint,
}

/// How a request came out, for the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Admitted,
    Limited,
    Denied,
    Rejected,
    Shadowed,
    Failed,
}

impl Outcome {
    /// The counter's name, ready-made.
    fn metric(self) -> &'static str {
        match self {
            Outcome::Admitted => "tollgate_token_rate_limit_requests;result=admitted",
            Outcome::Limited => "tollgate_token_rate_limit_requests;result=limited",
            Outcome::Denied => "tollgate_token_rate_limit_requests;result=denied",
            Outcome::Rejected => "tollgate_token_rate_limit_requests;result=rejected",
            Outcome::Shadowed => "tollgate_token_rate_limit_requests;result=shadowed",
            Outcome::Failed => "tollgate_token_rate_limit_requests;result=failed",
        }
    }
}

const LIMITED: Metric = Metric {
    name: "tollgate_token_rate_limit_limited",
    labels: &["rule"],
    help: "Requests that a rule would not admit, by its name (`requests` for Kong's request limits).",
};

const UNMETERED: Metric = Metric {
    name: "tollgate_token_rate_limit_unmetered",
    labels: &["kind"],
    help: "Requests that passed without being counted in tokens, by kind.",
};

impl Filter for TokenRateLimit {
    const NAME: &'static str = "token-rate-limit";
    const METRICS: &'static [Metric] = &[
        Metric {
            name: "tollgate_token_rate_limit_requests",
            labels: &["result"],
            help: "Requests by result: admitted, limited (429), denied (403), rejected (400, 413), shadowed, failed (counters out of reach).",
        },
        LIMITED,
        UNMETERED,
        Metric {
            name: "tollgate_token_rate_limit_settled",
            labels: &["result"],
            help: "Reservations by how they were settled: told, estimated, aborted, free, lost (counters out of reach: they stay charged).",
        },
        Metric {
            name: "tollgate_token_rate_limit_tokens",
            labels: &["kind"],
            help: "Tokens charged, by kind: prompt, cached (part of prompt), completion, reasoning (part of completion).",
        },
        Metric {
            name: "tollgate_token_rate_limit_overshoot",
            labels: &[],
            help: "Tokens used beyond what was reserved.",
        },
        Metric {
            name: "tollgate_token_rate_limit_leases",
            labels: &["event"],
            help: "Leases of concurrent requests: renewed (half of their time had passed), left (counters out of reach: they end by themselves).",
        },
        Metric {
            name: "tollgate_token_rate_limit_enquiries",
            labels: &["result"],
            help: "Questions about counters: budget (a client's own), read and corrected (an operator's), refused (without the operator's key).",
        },
        Metric {
            name: "tollgate_token_rate_limit_counters",
            labels: &["event"],
            help: "What counters met with: damaged, overflowed, taken_back, lost (an update made again: another worker was faster).",
        },
        Metric {
            name: "tollgate_token_rate_limit_redis",
            labels: &["result"],
            help: "Exchanges with Redis: answered, merged (those of them that told it something), failed; and lost: what found no room to wait for one.",
        },
    ];

    type Config = Config;
    type Exchange = Limiting;

    fn new(config: Config) -> TokenRateLimit {
        let learned = Learned::new(config.metering.guess, &config.namespace, config.table);
        let front = config.redis.clone();
        TokenRateLimit {
            remote: front.map(|front| Remote::new(front, &config.namespace)),
            config,
            learned,
            unavailable: false,
        }
    }

    fn tick_period(&self) -> Option<Duration> {
        self.remote.as_ref().map(Remote::tick_period)
    }

    fn tick(&mut self, host: &dyn Host) -> Option<Call> {
        self.remote.as_mut()?.tick(host)
    }

    fn call_done(&mut self, outcome: CallOutcome, host: &dyn Host) {
        self.told(&outcome, host);
    }

    fn host_kind(&self) -> Option<HostKind> {
        self.config.host
    }

    fn exchange(&self) -> Limiting {
        Limiting::default()
    }
}

impl TokenRateLimit {
    fn ledger<'h>(&self, host: &'h dyn Host) -> Ledger<'h, dyn Host + 'h> {
        Ledger {
            table: self.config.table,
            host,
            now: host.now().as_secs(),
        }
    }

    /// The rule of this place: the request limits come behind all others.
    fn rule(&self, place: usize) -> Option<&Rule> {
        match self.config.tokens.get(place) {
            None => self.config.requests.as_ref().map(|requests| &requests.rule),
            rule => rule,
        }
    }

    fn charge(
        &self,
        place: usize,
        rule: &Rule,
        client: &Client<'_>,
        amount: impl FnOnce(&[crate::counter::Limit]) -> u64,
    ) -> Charge {
        let limits = rule.limits_of(client.own_limits);
        Charge {
            rule: place,
            key: client.key(
                &rule.scope(&self.config.namespace),
                &rule.by,
                !self.config.kong,
            ),
            overflow: rule.overflow,
            amount: amount(&limits),
            limits,
        }
    }

    fn make(&mut self, charges: Vec<Charge>, host: &dyn Host) -> Result<Admission, Failure> {
        let mut oddities = Oddities::default();
        let asked = if self.remote.is_some() {
            charges.clone()
        } else {
            Vec::new()
        };
        let admission = self.ledger(host).charge(charges, &mut oddities);
        oddities.count(host);
        self.reached(admission.is_ok(), host);
        if let Ok(admission) = &admission {
            self.note(&asked, admission, host);
        }
        admission
    }

    /// Says once that counters are out of reach, and once that they are back.
    fn reached(&mut self, reached: bool, host: &dyn Host) {
        if reached == self.unavailable {
            self.unavailable = !reached;
            let (level, message) = match (reached, self.config.fault_tolerant) {
                (true, _) => (Level::Info, "tollgate token-rate-limit: counters are back"),
                (false, true) => (
                    Level::Error,
                    "tollgate token-rate-limit: counters can't be reached: requests pass unlimited (fault_tolerant)",
                ),
                (false, false) => (
                    Level::Error,
                    "tollgate token-rate-limit: counters can't be reached: requests get 500",
                ),
            };
            host.log(level, message);
        }
    }

    /// Whether a charge is that of the request limits.
    fn is_requests(&self, place: usize) -> bool {
        place >= self.config.tokens.len()
    }

    /// Whether Redis decides about each request.
    fn is_decided_elsewhere(&self) -> bool {
        self.remote.as_ref().is_some_and(Remote::decides)
    }

    fn shows(&self, headers: LimitHeaders) -> bool {
        self.config.limit_headers.contains(&headers)
    }
}

impl Oddities {
    fn count(self, host: &dyn Host) {
        for (metric, count) in [
            (
                "tollgate_token_rate_limit_counters;event=damaged",
                self.damaged,
            ),
            (
                "tollgate_token_rate_limit_counters;event=overflowed",
                self.overflowed,
            ),
            (
                "tollgate_token_rate_limit_counters;event=taken_back",
                self.taken_back,
            ),
            ("tollgate_token_rate_limit_counters;event=lost", self.lost),
        ] {
            if count > 0 {
                host.count(metric, count);
            }
        }
    }
}

impl Incoming {
    fn client<'r>(
        &'r self,
        filter: &'r TokenRateLimit,
        demand: Option<&'r Demand>,
        host: &'r dyn Host,
    ) -> Client<'r> {
        let model = demand.and_then(|demand| demand.model.as_deref());
        Client {
            headers: &self.headers,
            identity: self.identity.as_ref(),
            own_limits: &self.own_limits,
            path: &self.path,
            host,
            address: OnceCell::new(),
            service: filter.config.service.as_deref(),
            model,
            provider: demand.map(|demand| subject::provider(model, demand.api)),
        }
    }
}

impl Limiting {
    /// Counts the request by Kong's limits.
    fn count(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        host: &dyn Host,
    ) -> Option<RequestStep> {
        let charge = filter.count(incoming, host)?;
        self.counts = true;
        match filter.make(vec![charge], host) {
            Ok(Admission::Admitted(held, accounts)) => {
                self.counted = held;
                self.show_requests(filter, &accounts, true, incoming, host);
                None
            }
            Ok(Admission::Refused(accounts)) => self.too_many(filter, &accounts, incoming, host),
            Err(_) => self.unreached(filter, incoming, host),
        }
    }

    /// Refuses a request by Kong's limits: the last of the accounts is theirs.
    fn too_many(
        &mut self,
        filter: &TokenRateLimit,
        accounts: &[Account],
        incoming: &Incoming,
        host: &dyn Host,
    ) -> Option<RequestStep> {
        self.show_requests(filter, accounts, false, incoming, host);
        host.count(&LIMITED.with(&["requests"]), 1);
        if filter.config.shadow {
            host.count(Outcome::Shadowed.metric(), 1);
            return None;
        }
        host.count(Outcome::Limited.metric(), 1);
        let lines = std::mem::take(&mut self.lines);
        let reply = filter.too_many_requests(accounts, lines, incoming, host);
        Some(RequestStep::Reply(reply))
    }

    fn show_requests(
        &mut self,
        filter: &TokenRateLimit,
        accounts: &[Account],
        admitted: bool,
        incoming: &Incoming,
        host: &dyn Host,
    ) {
        let of_requests = accounts
            .iter()
            .find(|account| filter.is_requests(account.rule));
        let (Some(requests), Some(account)) = (&filter.config.requests, of_requests) else {
            return;
        };
        let now = host.now().as_secs();
        if filter.shows(LimitHeaders::Kong) {
            let written = requests.rule.written_of(&incoming.own_limits);
            self.lines
                .extend(headers::kong(&written, account, admitted, now));
        }
        let llm = matches!(incoming.endpoint, Endpoint::Metered { .. });
        if filter.shows(LimitHeaders::OpenAi) && llm && !filter.config.kong {
            self.lines.extend(headers::openai("requests", account, now));
        }
    }

    /// What becomes of a request whose counters are out of reach: `None` lets it go on.
    fn unreached(
        &mut self,
        filter: &TokenRateLimit,
        incoming: &Incoming,
        host: &dyn Host,
    ) -> Option<RequestStep> {
        host.count(Outcome::Failed.metric(), 1);
        if filter.config.fault_tolerant || filter.config.shadow {
            return None;
        }
        Some(RequestStep::Reply(
            filter.unexpected(&incoming.headers, host),
        ))
    }

    /// Ends a request that has been counted: only what goes on counts.
    fn refuse(
        &mut self,
        filter: &mut TokenRateLimit,
        outcome: Outcome,
        reply: tollgate_kit::reply::Reply,
        host: &dyn Host,
    ) -> RequestStep {
        host.count(outcome.metric(), 1);
        self.release(filter, host);
        RequestStep::Reply(reply)
    }

    /// Takes back what was charged for a request that does not go on.
    fn release(&mut self, filter: &mut TokenRateLimit, host: &dyn Host) {
        self.release_leases(filter, host);
        if let Some(pending) = self.pending.take() {
            filter.forget(&pending, host);
        }
        let answering = self.answering.take();
        let held = answering.into_iter().flat_map(|answering| answering.held);
        let held: Vec<_> = std::mem::take(&mut self.counted)
            .into_iter()
            .chain(held)
            .collect();
        if held.is_empty() {
            return;
        }
        let now = host.now().as_secs();
        for held in held {
            filter.settle(&held, 0, now, host);
        }
    }
}

impl Exchange<TokenRateLimit> for Limiting {
    fn request_headers(&mut self, filter: &mut TokenRateLimit, host: &dyn Host) -> RequestStep {
        let (headers, path) = match host
            .request_headers()
            .and_then(|headers| host.request_path(&headers).map(|path| (headers, path)))
        {
            Ok(read) => read,
            Err(failure) => {
                return match self.host_failed(filter, failure, host) {
                    Fallback::Reply(reply) => RequestStep::Reply(reply),
                    Fallback::Continue => RequestStep::unchanged(),
                };
            }
        };
        let mut identity = host.identity();
        if identity.is_none() && filter.config.trust_headers {
            identity = subject::claimed(&headers);
        }
        let metadata = identity
            .as_ref()
            .and_then(|identity| identity.metadata.as_deref());
        let incoming = Rc::new(Incoming {
            own_limits: metadata.map(OwnLimits::of).unwrap_or_default(),
            endpoint: Endpoint::of(&path),
            headers,
            identity,
            path,
        });
        if let Some(step) = self.at_desk(filter, &incoming, host) {
            return step;
        }
        if let Some(ended) = self.take_leases(filter, &incoming, None, host) {
            return ended;
        }
        if !filter.is_decided_elsewhere()
            && let Some(ended) = self.count(filter, &incoming, host)
        {
            self.release_leases(filter, host);
            return ended;
        }
        let read = incoming.client(filter, None, host);
        // A rule that matches some models may match this one: the body tells.
        let tokens = filter.config.tokens.iter().map(|rule| &rule.matching);
        let concurrency = filter.config.concurrency.iter();
        let any = concurrency
            .filter(|rule| rule.reads_body())
            .map(|rule| &rule.matching)
            .chain(tokens)
            .any(|matching| matching.matches_but_for_model(&read));
        if !any {
            return self.charge(filter, &incoming, &[], None, host);
        }
        if !filter.config.metering.needs_body(&incoming.endpoint) {
            return self.decide(filter, &incoming, &[], host);
        }
        self.request = Some(incoming);
        RequestStep::HoldForBody {
            most: filter.config.metering.most_body,
        }
    }

    fn request_body(
        &mut self,
        filter: &mut TokenRateLimit,
        body: Body<'_>,
        host: &dyn Host,
    ) -> RequestStep {
        if let Some(order) = self.order.take() {
            return self.carry_out(filter, order, body, host);
        }
        let Some(incoming) = self.request.take() else {
            return RequestStep::unchanged();
        };
        match body {
            Body::TooLarge => {
                let reply = filter.too_large(&incoming.headers, host);
                self.refuse(filter, Outcome::Rejected, reply, host)
            }
            Body::Unreadable => {
                let reply = filter.unexpected(&incoming.headers, host);
                self.refuse(filter, Outcome::Rejected, reply, host)
            }
            Body::None => {
                // On Kong it may come after all.
                self.request = Some(Rc::clone(&incoming));
                self.decide(filter, &incoming, &[], host)
            }
            Body::Whole(body) => self.decide(filter, &incoming, body, host),
        }
    }

    fn call_done(
        &mut self,
        filter: &mut TokenRateLimit,
        outcome: CallOutcome,
        host: &dyn Host,
    ) -> RequestStep {
        if let Some(question) = self.question.take() {
            return self.hear_of(filter, *question, &outcome, host);
        }
        match self.pending.take() {
            Some(pending) => self.hear(filter, *pending, &outcome, host),
            // Nothing was asked.
            None => RequestStep::Reply(filter.unexpected(&HeaderMap::default(), host)),
        }
    }

    fn host_failed(
        &mut self,
        filter: &mut TokenRateLimit,
        failure: Failure,
        host: &dyn Host,
    ) -> Fallback {
        let headers = host.request_headers().unwrap_or_default();
        let reply = match failure {
            Failure::Refused => filter.headers_too_large(&headers, host),
            Failure::NotNow | Failure::Broken => filter.unexpected(&headers, host),
        };
        host.count(Outcome::Rejected.metric(), 1);
        self.release(filter, host);
        Fallback::Reply(reply)
    }

    fn response_headers(&mut self, filter: &mut TokenRateLimit, host: &dyn Host) -> ResponseStep {
        let mut edits = ResponseEdits::default();
        for (name, value) in std::mem::take(&mut self.lines) {
            let name = Cow::Owned(name);
            // Kong leaves an upstream's own beside them.
            edits.headers.push(if filter.config.kong {
                HeaderEdit::Add(name, value)
            } else {
                HeaderEdit::Set(name, value)
            });
        }
        self.renew_leases(filter, host);
        let step = match &mut self.answering {
            Some(answering) => answering.begin(filter, edits, host),
            None => ResponseStep::Continue(edits),
        };
        self.watched(step)
    }

    fn response_chunk(
        &mut self,
        filter: &mut TokenRateLimit,
        chunk: &[u8],
        end: bool,
        host: &dyn Host,
    ) -> StreamStep {
        self.renew_leases(filter, host);
        match &mut self.answering {
            Some(answering) => answering.chunk(filter, chunk, end),
            None => StreamStep::Pass,
        }
    }

    fn response_passed(
        &mut self,
        filter: &mut TokenRateLimit,
        chunk: &[u8],
        end: bool,
        host: &dyn Host,
    ) {
        self.renew_leases(filter, host);
        if let Some(answering) = &mut self.answering {
            let _ = answering.chunk(filter, chunk, end);
        }
    }

    fn log(&mut self, filter: &mut TokenRateLimit, host: &dyn Host) {
        if let Some(pending) = self.pending.take() {
            filter.forget(&pending, host);
        }
        if let Some(answering) = self.answering.take() {
            answering.settle(filter, host);
        }
        self.release_leases(filter, host);
    }
}

#[cfg(test)]
mod tests;
