//! The phases: charge the request, read its body, reserve what it may use, watch the answer, settle.

mod answer;
mod learned;
mod reply;

use crate::config::{Config, LimitHeaders, OnLimit};
use crate::headers::{self, Line};
use crate::ledger::{Account, Admission, Charge, Held, Ledger, Oddities};
use crate::metering::{Demand, Reading};
use crate::rule::Rule;
use crate::subject::{self, Client};
use answer::Answering;
use learned::Learned;
use std::borrow::Cow;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::{Failure, Host, HostKind, Level};
use tollgate_kit::identity::Identity;
use tollgate_kit::metric::Metric;
use tollgate_kit::step::{
    Body, HeaderEdit, RequestEdits, RequestStep, ResponseEdits, ResponseStep, StreamStep,
};
use tollgate_kit::{Exchange, Fallback, Filter};
use tollgate_llm::{Change, Endpoint};

/// The filter with its configuration, and what it has learned.
#[derive(Debug)]
pub struct TokenRateLimit {
    config: Config,
    learned: Learned,
    /// Whether counters could not be reached the last time: one log line for a failure that lasts.
    unavailable: bool,
}

/// One request.
#[derive(Debug, Default)]
pub struct Limiting {
    /// Kept while the body is awaited.
    request: Option<Incoming>,
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

/// So often a clamped request is charged anew because others were faster.
const CLAMPS: usize = 4;

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
            name: "tollgate_token_rate_limit_counters",
            labels: &["event"],
            help: "What counters met with: damaged, overflowed, taken_back, lost (an update made again: another worker was faster).",
        },
    ];

    type Config = Config;
    type Exchange = Limiting;

    fn new(config: Config) -> TokenRateLimit {
        let learned = Learned::new(config.metering.guess, &config.namespace, config.table);
        TokenRateLimit {
            config,
            learned,
            unavailable: false,
        }
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
        let metadata = client
            .identity
            .and_then(|identity| identity.metadata.as_deref());
        let limits = rule.limits_of(metadata).into_owned();
        Charge {
            rule: place,
            key: client.key(
                [&self.config.namespace, &rule.name],
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
        let admission = self.ledger(host).charge(charges, &mut oddities);
        for (metric, count) in [
            (
                "tollgate_token_rate_limit_counters;event=damaged",
                oddities.damaged,
            ),
            (
                "tollgate_token_rate_limit_counters;event=overflowed",
                oddities.overflowed,
            ),
            (
                "tollgate_token_rate_limit_counters;event=taken_back",
                oddities.taken_back,
            ),
            (
                "tollgate_token_rate_limit_counters;event=lost",
                oddities.lost,
            ),
        ] {
            if count > 0 {
                host.count(metric, count);
            }
        }
        self.reached(admission.is_ok(), host);
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

    fn shows(&self, headers: LimitHeaders) -> bool {
        self.config.limit_headers.contains(&headers)
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
            path: &self.path,
            host,
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
        let requests = filter.config.requests.as_ref()?;
        let place = filter.config.tokens.len();
        let client = incoming.client(filter, None, host);
        let charge = filter.charge(place, &requests.rule, &client, |_| 1);
        match filter.make(vec![charge], host) {
            Ok(Admission::Admitted(held, accounts)) => {
                self.counted = held;
                self.show_requests(filter, &accounts, true, incoming, host);
                None
            }
            Ok(Admission::Refused(accounts)) => {
                self.show_requests(filter, &accounts, false, incoming, host);
                host.count(&LIMITED.with(&["requests"]), 1);
                if filter.config.shadow {
                    host.count(Outcome::Shadowed.metric(), 1);
                    return None;
                }
                host.count(Outcome::Limited.metric(), 1);
                let reply = filter.too_many_requests(
                    &accounts,
                    std::mem::take(&mut self.lines),
                    incoming,
                    host,
                );
                Some(RequestStep::Reply(reply))
            }
            Err(_) => self.unreached(filter, incoming, host),
        }
    }

    fn show_requests(
        &mut self,
        filter: &TokenRateLimit,
        accounts: &[Account],
        admitted: bool,
        incoming: &Incoming,
        host: &dyn Host,
    ) {
        let (Some(requests), Some(account)) = (&filter.config.requests, accounts.last()) else {
            return;
        };
        let now = host.now().as_secs();
        if filter.shows(LimitHeaders::Kong) {
            self.lines
                .extend(headers::kong(&requests.rule, account, admitted, now));
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
        filter: &TokenRateLimit,
        outcome: Outcome,
        reply: tollgate_kit::reply::Reply,
        host: &dyn Host,
    ) -> RequestStep {
        host.count(outcome.metric(), 1);
        self.release(filter, host);
        RequestStep::Reply(reply)
    }

    /// Takes back what was charged for a request that does not go on.
    fn release(&mut self, filter: &TokenRateLimit, host: &dyn Host) {
        let ledger = filter.ledger(host);
        for held in std::mem::take(&mut self.counted) {
            let _ = ledger.settle(&held, 0);
        }
        if let Some(answering) = self.answering.take() {
            for held in answering.held {
                let _ = ledger.settle(&held, 0);
            }
        }
    }

    /// The token rules, once the body is there.
    fn decide(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        body: &[u8],
        host: &dyn Host,
    ) -> RequestStep {
        let cost = filter.counts_cost();
        let learned = &filter.learned;
        let reading =
            filter
                .config
                .metering
                .read(&incoming.endpoint, body, &|model| learned.of(model), cost);
        let demand = match reading {
            Reading::Free(kind) => {
                host.count(&UNMETERED.with(&[kind]), 1);
                host.count(Outcome::Admitted.metric(), 1);
                return RequestStep::unchanged();
            }
            Reading::Rejected(rejected) if filter.config.shadow => {
                host.count(&UNMETERED.with(&[rejected.word()]), 1);
                host.count(Outcome::Shadowed.metric(), 1);
                return RequestStep::unchanged();
            }
            Reading::Rejected(rejected) => {
                let reply = filter.rejected(&rejected, &incoming.headers, host);
                return self.refuse(filter, Outcome::Rejected, reply, host);
            }
            Reading::Metered(demand) => *demand,
        };
        self.reserve(filter, incoming, body, demand, host)
    }

    fn reserve(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        body: &[u8],
        mut demand: Demand,
        host: &dyn Host,
    ) -> RequestStep {
        let mut clamped = false;
        for _ in 0..CLAMPS {
            let charges = filter.charges(incoming, &demand, host);
            if charges.is_empty() {
                // No rule is for it.
                host.count(Outcome::Admitted.metric(), 1);
                return RequestStep::unchanged();
            }
            if let Some(denied) = charges.iter().find(|charge| Rule::denies(&charge.limits)) {
                let name = filter
                    .rule(denied.rule)
                    .map_or("", |rule| rule.name.as_str());
                host.count(&LIMITED.with(&[name]), 1);
                if filter.config.shadow {
                    host.count(Outcome::Shadowed.metric(), 1);
                    return RequestStep::unchanged();
                }
                let reply = filter.denied(demand.model.as_deref(), &incoming.headers, host);
                return self.refuse(filter, Outcome::Denied, reply, host);
            }
            let never = charges
                .iter()
                .find(|charge| charge.limits.iter().any(|limit| limit.most < charge.amount));
            let clamps = demand.can_be_clamped(&filter.config.metering);
            if let (Some(charge), false) = (never, clamps && !clamped) {
                let name = filter
                    .rule(charge.rule)
                    .map_or("", |rule| rule.name.as_str());
                host.count(&LIMITED.with(&[name]), 1);
                if filter.config.shadow {
                    host.count(Outcome::Shadowed.metric(), 1);
                    return RequestStep::unchanged();
                }
                let reply = filter.never_fits(charge, &incoming.headers, host);
                return self.refuse(filter, Outcome::Rejected, reply, host);
            }
            let made = match never {
                // It can only be clamped: there is nothing to charge as it is.
                Some(_) => Ok(None),
                None => filter.make(charges.clone(), host).map(Some),
            };
            match made {
                Ok(Some(Admission::Admitted(held, accounts))) => {
                    return self.admit(
                        filter, incoming, body, demand, held, &accounts, clamped, host,
                    );
                }
                Ok(refused) => {
                    if clamps && let Some(each) = filter.room(&charges, &demand, host) {
                        demand.clamp(each);
                        clamped = true;
                        continue;
                    }
                    let accounts = match refused {
                        Some(Admission::Refused(accounts)) => accounts,
                        _ => filter.accounts(&charges, host),
                    };
                    return self.limited(filter, incoming, &charges, &accounts, host);
                }
                Err(_) => {
                    return match self.unreached(filter, incoming, host) {
                        Some(RequestStep::Reply(reply)) => {
                            self.release(filter, host);
                            RequestStep::Reply(reply)
                        }
                        _ => RequestStep::unchanged(),
                    };
                }
            }
        }
        // Others were faster each time.
        let charges = filter.charges(incoming, &demand, host);
        let accounts = filter.accounts(&charges, host);
        self.limited(filter, incoming, &charges, &accounts, host)
    }

    fn limited(
        &mut self,
        filter: &TokenRateLimit,
        incoming: &Incoming,
        charges: &[Charge],
        accounts: &[Account],
        host: &dyn Host,
    ) -> RequestStep {
        let refusing = accounts.last();
        let rule = refusing.and_then(|account| filter.rule(account.rule));
        host.count(
            &LIMITED.with(&[rule.map_or("", |rule| rule.name.as_str())]),
            1,
        );
        self.show_tokens(filter, accounts, host);
        if filter.config.shadow {
            host.count(Outcome::Shadowed.metric(), 1);
            return RequestStep::unchanged();
        }
        let lines = std::mem::take(&mut self.lines);
        let reply = filter.limited(charges, accounts, lines, &incoming.headers, host);
        self.refuse(filter, Outcome::Limited, reply, host)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one admission, each used once"
    )]
    fn admit(
        &mut self,
        filter: &TokenRateLimit,
        incoming: &Incoming,
        body: &[u8],
        demand: Demand,
        held: Vec<Held>,
        accounts: &[Account],
        clamped: bool,
        host: &dyn Host,
    ) -> RequestStep {
        host.count(Outcome::Admitted.metric(), 1);
        self.show_tokens(filter, accounts, host);
        if clamped {
            let each = demand.each.to_string().into_bytes();
            self.lines.push(("X-Tollgate-Max-Tokens".to_owned(), each));
        }
        let mut edits = RequestEdits::default();
        let can_edit = host.kind() != HostKind::EnvoyHeadersPass;
        if can_edit {
            // An answer in a code that is not read here would tell no usage.
            if incoming.headers.first("accept-encoding").is_some() {
                let identity = (Cow::Borrowed("accept-encoding"), b"identity".to_vec());
                edits.headers.push(HeaderEdit::Set(identity.0, identity.1));
            }
            let change = Change {
                limit: demand.limit,
                include_usage: true,
            };
            edits.body = demand
                .request
                .as_ref()
                .and_then(|request| change.apply(body, request));
        }
        let cutoff = filter.config.metering.stream_cutoff;
        self.answering = Some(Answering::new(demand, held, can_edit, cutoff));
        RequestStep::Continue(edits)
    }

    fn show_tokens(&mut self, filter: &TokenRateLimit, accounts: &[Account], host: &dyn Host) {
        let now = host.now().as_secs();
        if filter.shows(LimitHeaders::OpenAi) {
            let of_tokens = accounts.iter().filter(|account| {
                filter
                    .rule(account.rule)
                    .is_some_and(|rule| headers::is_tokens(rule.unit))
            });
            if let Some(tightest) = of_tokens.min_by_key(|account| account.least_left()) {
                self.lines.extend(headers::openai("tokens", tightest, now));
            }
        }
        if filter.shows(LimitHeaders::KongAi) {
            for account in accounts {
                if let Some(rule) = filter.rule(account.rule) {
                    self.lines.extend(headers::kong_ai(rule, account, now));
                }
            }
        }
    }
}

impl TokenRateLimit {
    fn counts_cost(&self) -> bool {
        self.config
            .tokens
            .iter()
            .any(|rule| rule.unit == crate::rule::Unit::Cost)
    }

    /// What each rule that matches is to be charged. Without `exact` no more is reserved than a window holds: what a request uses
    /// beyond is debt then.
    fn charges(&self, incoming: &Incoming, demand: &Demand, host: &dyn Host) -> Vec<Charge> {
        let client = incoming.client(self, Some(demand), host);
        let metering = &self.config.metering;
        let capped = !metering.exact && metering.on_limit == OnLimit::Reject;
        let rules = self.config.tokens.iter().enumerate();
        rules
            .filter(|(_, rule)| rule.matching.matches(&client))
            .map(|(place, rule)| {
                self.charge(place, rule, &client, |limits| {
                    let amount = demand.amount(rule.unit);
                    let least = limits.iter().map(|limit| limit.most).min();
                    match least {
                        Some(least) if capped => amount.min(least),
                        _ => amount,
                    }
                })
            })
            .collect()
    }

    /// How the counters of charges stand. One that can't be read counts as full.
    fn accounts(&self, charges: &[Charge], host: &dyn Host) -> Vec<Account> {
        let ledger = self.ledger(host);
        let mut accounts: Vec<_> = charges
            .iter()
            .map(|charge| {
                let mut standings = ledger.standings(charge).unwrap_or_default();
                for (limit, standing) in charge.limits.iter().zip(&mut standings) {
                    standing.exceeded = standing.used.saturating_add(charge.amount) > limit.most;
                }
                Account {
                    rule: charge.rule,
                    limits: charge.limits.clone(),
                    standings,
                }
            })
            .collect();
        // The one that refuses comes last.
        accounts.sort_by_key(|account| account.exceeded().next().is_some());
        accounts
    }

    /// The completion tokens that fit into what is left everywhere, where so few are still worth a request.
    fn room(&self, charges: &[Charge], demand: &Demand, host: &dyn Host) -> Option<u64> {
        let accounts = self.accounts(charges, host);
        let mut each = demand.each;
        for account in &accounts {
            let rule = self.rule(account.rule)?;
            each = each.min(demand.fitting(rule.unit, account.least_left())?);
        }
        let least = self.config.metering.min_completion.max(demand.least);
        (each >= least && each < demand.each).then_some(each)
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
        let incoming = Incoming {
            endpoint: Endpoint::of(&path),
            headers,
            identity,
            path,
        };
        if let Some(ended) = self.count(filter, &incoming, host) {
            return ended;
        }
        let read = incoming.client(filter, None, host);
        // A rule that matches some models may match this one: the body tells.
        let any = filter
            .config
            .tokens
            .iter()
            .any(|rule| rule.matching.matches_but_for_model(&read));
        if !any {
            host.count(Outcome::Admitted.metric(), 1);
            return RequestStep::unchanged();
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
        let Some(incoming) = self.request.take() else {
            return RequestStep::unchanged();
        };
        let step = match body {
            Body::TooLarge => {
                let reply = filter.too_large(&incoming.headers, host);
                self.refuse(filter, Outcome::Rejected, reply, host)
            }
            Body::Unreadable => {
                let reply = filter.unexpected(&incoming.headers, host);
                self.refuse(filter, Outcome::Rejected, reply, host)
            }
            Body::None => {
                let step = self.decide(filter, &incoming, &[], host);
                // On Kong it may come after all.
                self.request = Some(incoming);
                return step;
            }
            Body::Whole(body) => self.decide(filter, &incoming, body, host),
        };
        step
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
        let Some(answering) = &mut self.answering else {
            return ResponseStep::Continue(edits);
        };
        answering.begin(edits, host)
    }

    fn response_chunk(
        &mut self,
        filter: &mut TokenRateLimit,
        chunk: &[u8],
        end: bool,
        _host: &dyn Host,
    ) -> StreamStep {
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
        _host: &dyn Host,
    ) {
        if let Some(answering) = &mut self.answering {
            let _ = answering.chunk(filter, chunk, end);
        }
    }

    fn log(&mut self, filter: &mut TokenRateLimit, host: &dyn Host) {
        if let Some(answering) = self.answering.take() {
            answering.settle(filter, host);
        }
    }
}

#[cfg(test)]
mod tests;
