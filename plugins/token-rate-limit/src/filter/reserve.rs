//! What the token rules do with a request: read it, reserve what it may use, refuse it.

use super::{Answering, Incoming, LIMITED, Limiting, Outcome, TokenRateLimit, UNMETERED};
use crate::config::{LimitHeaders, OnLimit};
use crate::headers;
use crate::ledger::{Account, Admission, Charge, Held};
use crate::metering::{Demand, Interest, Reading};
use crate::rule::Unit;
use crate::subject;
use std::borrow::Cow;
use tollgate_kit::host::{Host, HostKind};
use tollgate_kit::reply::Reply;
use tollgate_kit::step::{HeaderEdit, RequestEdits, RequestStep};
use tollgate_llm::Change;

/// So often a clamped request is charged anew because others were faster.
const CLAMPS: usize = 4;

impl Limiting {
    /// The token rules, once the body is there.
    pub(super) fn decide(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
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
        if let Some(ended) = self.take_leases(filter, incoming, Some(&demand), host) {
            return ended;
        }
        self.reserve(filter, incoming, body, demand, host)
    }

    /// Charges every rule that matches, with a smaller completion where the configuration allows that.
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
                host.count(Outcome::Admitted.metric(), 1);
                return RequestStep::unchanged();
            }
            if let Some(denied) = charges.iter().find(|charge| charge.is_denied()) {
                return self.turn_away(filter, denied.rule, Outcome::Denied, host, |host| {
                    filter.denied(demand.model.as_deref(), &incoming.headers, host)
                });
            }
            let clamps = demand.can_be_clamped(&filter.config.metering);
            let never = charges.iter().find(|charge| charge.never_fits());
            if let (Some(charge), false) = (never, clamps) {
                return self.turn_away(filter, charge.rule, Outcome::Rejected, host, |host| {
                    filter.never_fits(charge, &incoming.headers, host)
                });
            }
            // What can only go on when it is clamped is not charged as it is.
            let refused = if never.is_some() {
                filter.accounts(&charges, host)
            } else {
                match filter.make(charges.clone(), host) {
                    Ok(Admission::Admitted(held, accounts)) => {
                        self.show_tokens(filter, &accounts, host);
                        if clamped {
                            let each = demand.each.to_string().into_bytes();
                            self.lines.push(("X-Tollgate-Max-Tokens".to_owned(), each));
                        }
                        return self.admit(filter, incoming, body, demand, held, host);
                    }
                    Ok(Admission::Refused(accounts)) => accounts,
                    Err(_) => {
                        let ended = self.unreached(filter, incoming, host);
                        if ended.is_some() {
                            self.release(filter, host);
                        }
                        return ended.unwrap_or_else(RequestStep::unchanged);
                    }
                }
            };
            match filter.room(&charges, &demand, host) {
                Some(each) if clamps => {
                    demand.clamp(each);
                    clamped = true;
                }
                _ => return self.limited(filter, incoming, &charges, &refused, host),
            }
        }
        // Others were faster each time.
        let charges = filter.charges(incoming, &demand, host);
        let accounts = filter.accounts(&charges, host);
        self.limited(filter, incoming, &charges, &accounts, host)
    }

    /// Ends a request that a rule will not have, or only says so.
    fn turn_away(
        &mut self,
        filter: &TokenRateLimit,
        rule: usize,
        outcome: Outcome,
        host: &dyn Host,
        reply: impl FnOnce(&dyn Host) -> Reply,
    ) -> RequestStep {
        let name = filter.rule(rule).map_or("", |rule| rule.name.as_str());
        host.count(&LIMITED.with(&[name]), 1);
        if filter.config.shadow {
            host.count(Outcome::Shadowed.metric(), 1);
            return RequestStep::unchanged();
        }
        let reply = reply(host);
        self.refuse(filter, outcome, reply, host)
    }

    fn limited(
        &mut self,
        filter: &TokenRateLimit,
        incoming: &Incoming,
        charges: &[Charge],
        accounts: &[Account],
        host: &dyn Host,
    ) -> RequestStep {
        self.show_tokens(filter, accounts, host);
        let rule = accounts.last().map_or(usize::MAX, |account| account.rule);
        let lines = if filter.config.shadow {
            Vec::new()
        } else {
            std::mem::take(&mut self.lines)
        };
        self.turn_away(filter, rule, Outcome::Limited, host, |host| {
            filter.limited(charges, accounts, lines, &incoming.headers, host)
        })
    }

    /// Lets a request go on whose reservation has been made.
    fn admit(
        &mut self,
        filter: &TokenRateLimit,
        incoming: &Incoming,
        body: &[u8],
        demand: Demand,
        held: Vec<Held>,
        host: &dyn Host,
    ) -> RequestStep {
        host.count(Outcome::Admitted.metric(), 1);
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
            .map(|charge| Account {
                rule: charge.rule,
                limits: charge.limits.clone(),
                standings: ledger.standings(charge).unwrap_or_default(),
            })
            .collect();
        // The one that refuses comes last.
        accounts.sort_by_key(Account::refuses);
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
