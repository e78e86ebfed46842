//! What the token rules do with a request: read it, reserve what it may use, refuse it.

use super::remote::{self, Pending, Remote, Said};
use super::{Answering, Incoming, LIMITED, Limiting, Outcome, TokenRateLimit, UNMETERED};
use crate::config::{LimitHeaders, OnLimit};
use crate::headers;
use crate::ledger::{Account, Admission, Charge, Held};
use crate::metering::{Demand, Interest, Reading};
use crate::redis::Spelt;
use crate::rule::Unit;
use crate::subject;
use std::borrow::Cow;
use std::rc::Rc;
use tollgate_kit::host::{Host, HostKind};
use tollgate_kit::reply::Reply;
use tollgate_kit::step::{CallOutcome, HeaderEdit, RequestEdits, RequestStep};
use tollgate_llm::Change;

/// So often a clamped request is charged anew because others were faster.
const CLAMPS: usize = 4;

/// A request whose charges have been made.
struct Admitted {
    demand: Option<Demand>,
    held: Vec<Held>,
    accounts: Vec<Account>,
    /// Its completion has been lowered.
    clamped: bool,
}

impl Limiting {
    /// The token rules, once the body is there.
    pub(super) fn decide(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Rc<Incoming>,
        body: &[u8],
        host: &dyn Host,
    ) -> RequestStep {
        let interest = |api, model: Option<&str>| {
            let mut client = incoming.client(filter, None, host);
            client.model = model;
            client.provider = Some(subject::provider(model, api));
            let rules = filter.config.tokens.iter();
            let mut interest = Interest {
                any: false,
                cost: false,
            };
            for rule in rules.filter(|rule| rule.matching.matches(&client)) {
                interest.any = true;
                interest.cost |= rule.unit == Unit::Cost;
            }
            interest
        };
        let calibration = |model: Option<&str>| filter.learned.of(model);
        let metering = &filter.config.metering;
        let reading = metering.read(&incoming.endpoint, body, &calibration, &interest);
        let demand = match reading {
            Reading::Free(kind) => {
                host.count(&UNMETERED.with(&[kind]), 1);
                return self.charge(filter, incoming, body, None, host);
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
        if let Some(ended) = self.take_leases(filter, incoming, Some(&demand), host) {
            return ended;
        }
        self.charge(filter, incoming, body, Some(demand), host)
    }

    /// Charges every rule that is for the request: those that match its demand, and the request limits where they have not been seen
    /// to. Here or in Redis.
    pub(super) fn charge(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Rc<Incoming>,
        body: &[u8],
        demand: Option<Demand>,
        host: &dyn Host,
    ) -> RequestStep {
        match filter.remote.as_ref().map(Remote::answers) {
            Some(true) if !is_bound_to_change(incoming, body, demand.as_ref(), host) => {
                self.ask(filter, incoming, body, demand, 0, host)
            }
            Some(false) if filter.is_decided_elsewhere() => {
                self.alone(filter, incoming, body, demand, host)
            }
            _ => self.count_here(filter, incoming, body, demand, host),
        }
    }

    /// The charges of a request, if anything has to be charged and can be at all.
    fn charges(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        demand: Option<&Demand>,
        host: &dyn Host,
    ) -> Result<Vec<Charge>, Box<RequestStep>> {
        let mut charges = Vec::new();
        if !self.counts {
            charges.extend(filter.count(incoming, host));
        }
        let requests = charges.len();
        if let Some(demand) = demand {
            charges.extend(filter.charges(incoming, demand, host));
        }
        if charges.is_empty() {
            host.count(Outcome::Admitted.metric(), 1);
            return Err(Box::new(RequestStep::unchanged()));
        }
        let of_tokens = charges.iter().skip(requests);
        if let Some(denied) = of_tokens.clone().find(|charge| charge.is_denied()) {
            let model = demand.and_then(|demand| demand.model.as_deref());
            let reply = filter.denied(model, &incoming.headers, host);
            let ended = self.turn_away(filter, denied.rule, Outcome::Denied, reply, host);
            return Err(Box::new(ended));
        }
        let clamps = demand.is_some_and(|demand| demand.can_be_clamped(&filter.config.metering));
        let never = of_tokens.clone().find(|charge| charge.never_fits());
        if let (Some(charge), false) = (never, clamps) {
            let reply = filter.never_fits(charge, &incoming.headers, host);
            let ended = self.turn_away(filter, charge.rule, Outcome::Rejected, reply, host);
            return Err(Box::new(ended));
        }
        Ok(charges)
    }

    /// Charges the filter's own counters.
    fn count_here(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        body: &[u8],
        mut demand: Option<Demand>,
        host: &dyn Host,
    ) -> RequestStep {
        for clamps in 0..=CLAMPS {
            let charges = match self.charges(filter, incoming, demand.as_ref(), host) {
                Ok(charges) => charges,
                Err(ended) => return *ended,
            };
            // What can only go on when it is clamped is not charged as it is.
            let never = charges
                .iter()
                .any(|charge| !filter.is_requests(charge.rule) && charge.never_fits());
            let refused = if never || clamps == CLAMPS {
                filter.accounts(&charges, host)
            } else {
                match filter.make(charges.clone(), host) {
                    Ok(Admission::Admitted(held, accounts)) => {
                        let admitted = Admitted {
                            demand,
                            held,
                            accounts,
                            clamped: clamps > 0,
                        };
                        return self.admit(filter, incoming, body, admitted, host);
                    }
                    Ok(Admission::Refused(accounts)) => accounts,
                    Err(_) => return self.unreached_at(filter, incoming, host),
                }
            };
            let room = demand
                .as_ref()
                .and_then(|demand| filter.room(demand, || filter.accounts(&charges, host)));
            match (&mut demand, room) {
                (Some(demand), Some(each)) if clamps < CLAMPS => demand.clamp(each),
                _ => return self.limited(filter, incoming, &charges, refused, host),
            }
        }
        RequestStep::unchanged()
    }

    /// Asks Redis.
    fn ask(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Rc<Incoming>,
        body: &[u8],
        demand: Option<Demand>,
        clamps: usize,
        host: &dyn Host,
    ) -> RequestStep {
        let charges = match self.charges(filter, incoming, demand.as_ref(), host) {
            Ok(charges) => charges,
            Err(ended) => return *ended,
        };
        let request = host.request_id(&incoming.headers).unwrap_or_default();
        let id = remote::operation(&request, host);
        let Some(remote) = &filter.remote else {
            return self.count_here(filter, incoming, body, demand, host);
        };
        let call = remote
            .redis
            .charge(Spelt::Briefly, &id, &charges, host.now().as_secs());
        self.pending = Some(Box::new(Pending {
            incoming: Rc::clone(incoming),
            demand,
            body: body.to_vec(),
            charges,
            id,
            clamps,
            spelt: Spelt::Briefly,
        }));
        RequestStep::Call(call)
    }

    /// Redis has answered, or has not.
    pub(super) fn hear(
        &mut self,
        filter: &mut TokenRateLimit,
        mut pending: Pending,
        outcome: &CallOutcome,
        host: &dyn Host,
    ) -> RequestStep {
        let said = filter.decision(&mut pending, outcome, host);
        if let Said::Again(call) = said {
            self.pending = Some(Box::new(pending));
            return RequestStep::Call(call);
        }
        let Pending {
            incoming,
            mut demand,
            body,
            charges,
            clamps,
            ..
        } = pending;
        let Said::Decided(decision) = said else {
            return self.alone(filter, &incoming, &body, demand, host);
        };
        if decision.admitted {
            let held = charges
                .into_iter()
                .zip(&decision.totals)
                .map(|(charge, totals)| Held {
                    rule: charge.rule,
                    key: charge.key,
                    place: None,
                    limits: charge.limits,
                    windows: totals.iter().map(|total| total.number).collect(),
                    amount: charge.amount,
                });
            let admitted = Admitted {
                demand,
                held: held.collect(),
                accounts: decision.accounts,
                clamped: clamps > 0,
            };
            return self.admit(filter, &incoming, &body, admitted, host);
        }
        let room = demand
            .as_ref()
            .and_then(|demand| filter.room(demand, || decision.accounts.clone()));
        match (&mut demand, room) {
            (Some(clamped), Some(each)) if clamps < CLAMPS => {
                clamped.clamp(each);
                self.ask(
                    filter,
                    &incoming,
                    &body,
                    demand,
                    clamps.saturating_add(1),
                    host,
                )
            }
            _ => self.limited(filter, &incoming, &charges, decision.accounts, host),
        }
    }

    /// Redis does not answer.
    fn alone(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        body: &[u8],
        demand: Option<Demand>,
        host: &dyn Host,
    ) -> RequestStep {
        if filter.config.fault_tolerant && !filter.config.kong {
            self.count_here(filter, incoming, body, demand, host)
        } else {
            self.unreached_at(filter, incoming, host)
        }
    }

    /// What becomes of a request whose counters are out of reach.
    fn unreached_at(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        host: &dyn Host,
    ) -> RequestStep {
        if let Some(ended) = self.unreached(filter, incoming, host) {
            self.release(filter, host);
            return ended;
        }
        RequestStep::unchanged()
    }

    /// Ends a request that a rule will not have, or only says so.
    fn turn_away(
        &mut self,
        filter: &mut TokenRateLimit,
        rule: usize,
        outcome: Outcome,
        reply: Reply,
        host: &dyn Host,
    ) -> RequestStep {
        let name = filter.rule(rule).map_or("", |rule| rule.name.as_str());
        host.count(&LIMITED.with(&[name]), 1);
        if filter.config.shadow {
            host.count(Outcome::Shadowed.metric(), 1);
            return RequestStep::unchanged();
        }
        self.refuse(filter, outcome, reply, host)
    }

    /// Refuses a request by the accounts of its charges, one of which at least refuses.
    fn limited(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        charges: &[Charge],
        mut accounts: Vec<Account>,
        host: &dyn Host,
    ) -> RequestStep {
        // The one that refuses comes last, and the request limits speak first.
        accounts.sort_by_key(|account| (account.refuses(), filter.is_requests(account.rule)));
        let Some(last) = accounts.last() else {
            return RequestStep::Reply(filter.unexpected(&incoming.headers, host));
        };
        if filter.is_requests(last.rule) {
            let Some(ended) = self.too_many(filter, &accounts, incoming, host) else {
                return RequestStep::unchanged();
            };
            self.release(filter, host);
            return ended;
        }
        self.show_requests(filter, &accounts, true, incoming, host);
        self.show_tokens(filter, &accounts, host);
        let lines = if filter.config.shadow {
            Vec::new()
        } else {
            std::mem::take(&mut self.lines)
        };
        let rule = last.rule;
        let reply = filter.limited(charges, &accounts, lines, &incoming.headers, host);
        self.turn_away(filter, rule, Outcome::Limited, reply, host)
    }

    /// Lets a request go on whose charges have been made.
    fn admit(
        &mut self,
        filter: &TokenRateLimit,
        incoming: &Incoming,
        body: &[u8],
        admitted: Admitted,
        host: &dyn Host,
    ) -> RequestStep {
        let Admitted {
            demand,
            held,
            accounts,
            clamped,
        } = admitted;
        host.count(Outcome::Admitted.metric(), 1);
        self.show_requests(filter, &accounts, true, incoming, host);
        self.show_tokens(filter, &accounts, host);
        let (counted, held): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|held| filter.is_requests(held.rule));
        self.counts = true;
        self.counted.extend(counted);
        let Some(demand) = demand else {
            return RequestStep::unchanged();
        };
        if clamped {
            let each = demand.each.to_string().into_bytes();
            self.lines.push(("X-Tollgate-Max-Tokens".to_owned(), each));
        }
        let edits = edits(incoming, body, &demand, host);
        let cutoff = filter.config.metering.stream_cutoff;
        let can_edit = host.kind() != HostKind::EnvoyHeadersPass;
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

/// What a request is to become for its usage to be told and its limit to hold.
fn edits(incoming: &Incoming, body: &[u8], demand: &Demand, host: &dyn Host) -> RequestEdits {
    let mut edits = RequestEdits::default();
    if host.kind() == HostKind::EnvoyHeadersPass {
        return edits;
    }
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
    edits
}

/// Whether it is a request on nginx whose body has to be changed. That can't be done around a call: before it nginx forgets that the length has
/// changed, and after it the worker's instance ends.
fn is_bound_to_change(
    incoming: &Incoming,
    body: &[u8],
    demand: Option<&Demand>,
    host: &dyn Host,
) -> bool {
    host.kind() == HostKind::Kong
        && demand.is_some_and(|demand| edits(incoming, body, demand, host).body.is_some())
}

impl TokenRateLimit {
    /// What the request limits are to be charged.
    pub(super) fn count(&self, incoming: &Incoming, host: &dyn Host) -> Option<Charge> {
        let requests = self.config.requests.as_ref()?;
        let client = incoming.client(self, None, host);
        Some(self.charge(self.config.tokens.len(), &requests.rule, &client, |_| 1))
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
        charges
            .iter()
            .map(|charge| Account {
                rule: charge.rule,
                limits: charge.limits.clone(),
                standings: ledger.standings(charge).unwrap_or_default(),
            })
            .collect()
    }

    /// The completion tokens that fit into what is left everywhere, where so few are still worth a request.
    fn room(&self, demand: &Demand, accounts: impl FnOnce() -> Vec<Account>) -> Option<u64> {
        if !demand.can_be_clamped(&self.config.metering) {
            return None;
        }
        let mut each = demand.each;
        for account in &accounts() {
            if self.is_requests(account.rule) {
                // No clamp makes room for one more request.
                if account.refuses() {
                    return None;
                }
                continue;
            }
            let rule = self.rule(account.rule)?;
            each = each.min(demand.fitting(rule.unit, account.least_left())?);
        }
        let least = self.config.metering.min_completion.max(demand.least);
        (each >= least && each < demand.each).then_some(each)
    }
}
