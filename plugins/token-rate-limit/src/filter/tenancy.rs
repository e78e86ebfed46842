//! The leases of a request: taken before it is counted, renewed while it is answered, given back when it is over.

use super::{Incoming, LIMITED, Limiting, Outcome, TokenRateLimit};
use crate::lease::{Claim, Grant, Register};
use crate::ledger::Oddities;
use crate::metering::Demand;
use crate::rule::Concurrency;
use crate::subject::Client;
use tollgate_kit::host::Host;
use tollgate_kit::step::{RequestStep, ResponseStep};

impl Limiting {
    /// Takes the leases that can be told by what is known: before the body has been read those of the rules that do not ask for it, and
    /// then (`demand`) those of the others. `None` lets the request go on.
    pub(super) fn take_leases(
        &mut self,
        filter: &mut TokenRateLimit,
        incoming: &Incoming,
        demand: Option<&Demand>,
        host: &dyn Host,
    ) -> Option<RequestStep> {
        let claims = filter.claims(incoming, demand, host);
        if claims.is_empty() {
            return None;
        }
        if let Some(denied) = claims.iter().find(|claim| claim.most == 0) {
            let rule = denied.rule;
            return self.lease_refused(filter, rule, Outcome::Denied, incoming, host);
        }
        let mut oddities = Oddities::default();
        let taken = filter.register(host).take(claims, &mut oddities);
        oddities.count(host);
        filter.reached(taken.is_ok(), host);
        match taken {
            Ok(Grant::Granted(tenancies)) => {
                self.leases.extend(tenancies);
                None
            }
            Ok(Grant::Refused(claim)) => {
                self.lease_refused(filter, claim.rule, Outcome::Limited, incoming, host)
            }
            Err(_) => {
                let ended = self.unreached(filter, incoming, host);
                if ended.is_some() {
                    self.release(filter, host);
                }
                ended
            }
        }
    }

    /// Ends a request that would be one too many, or only says so.
    fn lease_refused(
        &mut self,
        filter: &mut TokenRateLimit,
        rule: usize,
        outcome: Outcome,
        incoming: &Incoming,
        host: &dyn Host,
    ) -> Option<RequestStep> {
        let rule = filter.config.concurrency.get(rule)?;
        host.count(&LIMITED.with(&[&rule.name]), 1);
        if filter.config.shadow {
            host.count(Outcome::Shadowed.metric(), 1);
            return None;
        }
        let reply = if outcome == Outcome::Denied {
            filter.denied(None, &incoming.headers, host)
        } else {
            filter.too_many_at_once(&rule.name, &incoming.headers, host)
        };
        Some(self.refuse(filter, outcome, reply, host))
    }

    /// Renews what has been held for long. A lease whose holder hears nothing for its whole time to live is over.
    pub(super) fn renew_leases(&mut self, filter: &TokenRateLimit, host: &dyn Host) {
        if self.leases.is_empty() {
            return;
        }
        let register = filter.register(host);
        for tenancy in &mut self.leases {
            // What fails has half of its time left to be tried again.
            if register.renew(tenancy) == Ok(true) {
                host.count("tollgate_token_rate_limit_leases;event=renewed", 1);
            }
        }
    }

    /// Gives back what is held.
    pub(super) fn release_leases(&mut self, filter: &TokenRateLimit, host: &dyn Host) {
        if self.leases.is_empty() {
            return;
        }
        let register = filter.register(host);
        for tenancy in std::mem::take(&mut self.leases) {
            if register.release(&tenancy).is_err() {
                host.count("tollgate_token_rate_limit_leases;event=left", 1);
            }
        }
    }

    /// What the response is to be, with its chunks shown as long as a lease may have to be renewed.
    pub(super) fn watched(&self, step: ResponseStep) -> ResponseStep {
        match step {
            ResponseStep::Continue(edits) if !self.leases.is_empty() => ResponseStep::Watch(edits),
            step => step,
        }
    }
}

impl TokenRateLimit {
    pub(super) fn register<'h>(&self, host: &'h dyn Host) -> Register<'h, dyn Host + 'h> {
        Register {
            table: self.config.table,
            host,
            now: host.now().as_secs(),
        }
    }

    /// What the rules that match want, of those that ask for the body or of the others.
    fn claims(&self, incoming: &Incoming, demand: Option<&Demand>, host: &dyn Host) -> Vec<Claim> {
        let rules = self.config.concurrency.iter().enumerate();
        let mut rules = rules
            .filter(|(_, rule)| rule.reads_body() == demand.is_some())
            .peekable();
        if rules.peek().is_none() {
            return Vec::new();
        }
        let client = incoming.client(self, demand, host);
        rules
            .filter(|(_, rule)| rule.matching.matches(&client))
            .map(|(place, rule)| self.claim(place, rule, &client))
            .collect()
    }

    /// What one rule wants of a client.
    pub(super) fn claim(&self, place: usize, rule: &Concurrency, client: &Client<'_>) -> Claim {
        Claim {
            rule: place,
            key: client.key(&rule.scope(&self.config.namespace), &rule.by, true),
            overflow: rule.overflow,
            most: rule.limit_of(client.own_limits),
            ttl: rule.ttl,
        }
    }
}
