//! Counters in Redis: who is asked when, and what happens while nobody answers.
//!
//! Redis is asked about each request, or (with `sync_rate`) told so often what has been counted here. In both ways the filter's own
//! counters hold what Redis last said and, on top of it, what it is still to be told; so they can decide by themselves, and do: between
//! two exchanges, and while Redis does not answer (`fault_tolerant`). What they have counted is merged when it is back.

use super::{Incoming, TokenRateLimit};
use crate::breaker::Breaker;
use crate::config::Front;
use crate::counter::Total;
use crate::ledger::{Admission, Charge, Held, Ledger, Told};
use crate::metering::Demand;
use crate::outbox::{BATCH, Outbox};
use crate::redis::{Decision, Redis, Spelt, Unanswered};
use crate::subject;
use std::rc::Rc;
use std::time::Duration;
use tollgate_kit::host::{Host, Level};
use tollgate_kit::step::{Call, CallOutcome};
use tollgate_kit::store::Key;

/// How often there is a look at what is to be told, at least; and it is told, where Redis is asked about each request.
const TICK: Duration = Duration::from_millis(250);

/// How often Redis is asked what it does when its memory is full: an operator may change it.
const LOOK: Duration = Duration::from_secs(600);

/// Redis, and what goes on with it.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) redis: Redis,
    pub(super) outbox: Outbox,
    breaker: Breaker,
    /// How often it is told; `None` where it is asked about each request.
    sync: Option<Duration>,
    asking: Option<Asking>,
    /// How the next batch names its script.
    spelt: Spelt,
    /// When it was told something last, and when to do so again, since 1970.
    sent: Duration,
    due: Duration,
    /// When to look again what it does when its memory is full, since 1970.
    look: Duration,
}

/// What the tick's call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    Batch,
    Memory,
}

/// A request whose charges Redis is asked about.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) incoming: Rc<Incoming>,
    /// `None` where only requests are counted.
    pub(super) demand: Option<Demand>,
    /// To be changed once the answer is there.
    pub(super) body: Vec<u8>,
    pub(super) charges: Vec<Charge>,
    pub(super) id: Key,
    /// How often it has been clamped.
    pub(super) clamps: usize,
    /// How the script was named.
    pub(super) spelt: Spelt,
}

/// What Redis says to a request.
pub(super) enum Said {
    Decided(Decision),
    /// It wants the whole script.
    Again(Call),
    /// Nothing: what was asked is to be taken back.
    Nothing,
}

impl Remote {
    pub(super) fn new(front: Front, namespace: &str) -> Remote {
        Remote {
            sync: front.sync,
            redis: Redis::new(front, namespace),
            outbox: Outbox::default(),
            breaker: Breaker::default(),
            asking: None,
            spelt: Spelt::Briefly,
            sent: Duration::ZERO,
            due: Duration::ZERO,
            look: Duration::ZERO,
        }
    }

    pub(super) fn tick_period(&self) -> Duration {
        self.sync.map_or(TICK, |sync| sync.min(TICK))
    }

    /// Whether each request is Redis' to decide.
    pub(super) fn decides(&self) -> bool {
        self.sync.is_none()
    }

    /// Whether it is to be asked about a request now.
    pub(super) fn answers(&self) -> bool {
        self.decides() && self.is_reachable()
    }

    /// Whether it may be asked now.
    pub(super) fn is_reachable(&self) -> bool {
        !self.breaker.is_open()
    }

    /// What is to be told now.
    pub(super) fn tick(&mut self, host: &dyn Host) -> Option<Call> {
        let now = host.now();
        if self.asking.is_some() || !self.breaker.may_try(now) {
            return None;
        }
        if now >= self.look {
            self.look = now.saturating_add(LOOK);
            self.asking = Some(Asking::Memory);
            return Some(self.redis.memory());
        }
        let idle = now < self.due || self.outbox.is_empty();
        if idle && !self.breaker.is_open() {
            return None;
        }
        self.asking = Some(Asking::Batch);
        self.sent = now;
        // It may have no items: an attempt all the same.
        let batch = self.outbox.batch(operation(&[], host));
        Some(
            self.redis
                .merge(self.spelt, &batch.id, &batch.items, now.as_secs()),
        )
    }
}

/// An id that no other operation has: two that have one count as one. Randomness alone is not enough for that on nginx, where gateways may
/// have seeded it alike; what the gateway calls the request, if there is one, helps.
pub(super) fn operation(request: &[u8], host: &dyn Host) -> Key {
    let now = host.now().as_nanos().to_le_bytes();
    subject::digest(&[&host.random(), &now, request])
}

impl TokenRateLimit {
    /// What became of the call that the tick made.
    pub(super) fn told(&mut self, outcome: &CallOutcome, host: &dyn Host) {
        let Some(remote) = &mut self.remote else {
            return;
        };
        let answer = match remote.asking.take() {
            None => return,
            Some(Asking::Memory) => remote.redis.eviction(outcome).map(|eviction| {
                if let Some(policy) = eviction {
                    host.log(
                        Level::Error,
                        &format!(
                            "tollgate token-rate-limit: Redis forgets counters when its memory is full (maxmemory-policy \
                             {policy}): limits are lost then; set noeviction"
                        ),
                    );
                }
            }),
            Some(Asking::Batch) => self.merged(outcome, host),
        };
        self.answered(answer.err(), host);
    }

    /// What became of a batch. What has arrived is taken over; all else is told again.
    fn merged(&mut self, outcome: &CallOutcome, host: &dyn Host) -> Result<(), Unanswered> {
        let Some(remote) = &mut self.remote else {
            return Ok(());
        };
        let Some(batch) = remote.outbox.under_way() else {
            return Ok(());
        };
        let windows = batch.items.iter().map(|item| item.limits.len());
        let totals = remote.redis.totals(outcome, &batch.id, windows);
        remote.spelt = match &totals {
            Err(Unanswered::NoScript) => Spelt::Out,
            _ => Spelt::Briefly,
        };
        let totals = totals?;
        let items = remote.outbox.arrived();
        // A full batch has left something behind.
        let rests = remote.sync.filter(|_| items.len() < BATCH);
        remote.due = remote.sent.saturating_add(rests.unwrap_or_default());
        let ledger = self.ledger(host);
        for (item, totals) in items.iter().zip(&totals) {
            let Some(rule) = self.rule(item.rule) else {
                continue;
            };
            // Without them it goes by what it has counted itself.
            let _ = ledger.adopt(&Told {
                key: &item.key,
                overflow: &rule.overflow,
                limits: &item.limits,
                totals,
                amount: item.own,
                windows: &item.windows,
            });
        }
        host.count("tollgate_token_rate_limit_redis;result=merged", 1);
        Ok(())
    }

    /// What Redis says to a request.
    pub(super) fn decision(
        &mut self,
        pending: &mut Pending,
        outcome: &CallOutcome,
        host: &dyn Host,
    ) -> Said {
        let now = host.now().as_secs();
        let Some(remote) = &mut self.remote else {
            return Said::Nothing;
        };
        match remote
            .redis
            .decision(outcome, &pending.id, &pending.charges, now)
        {
            Ok(decision) => {
                self.answered(None, host);
                self.adopt(pending.charges.iter().zip(&decision.totals), host);
                Said::Decided(decision)
            }
            Err(Unanswered::NoScript) if pending.spelt == Spelt::Briefly => {
                pending.spelt = Spelt::Out;
                Said::Again(
                    remote
                        .redis
                        .charge(Spelt::Out, &pending.id, &pending.charges, now),
                )
            }
            Err(why) => {
                remote.outbox.take_back(pending.id, &pending.charges, now);
                self.answered(Some(why), host);
                Said::Nothing
            }
        }
    }

    /// Takes over what Redis has of counters.
    pub(super) fn adopt<'c>(
        &self,
        counters: impl Iterator<Item = (&'c Charge, &'c Vec<Total>)>,
        host: &dyn Host,
    ) {
        let ledger = self.ledger(host);
        for (charge, totals) in counters {
            let windows: Vec<_> = totals.iter().map(|total| total.number).collect();
            // Without it this gateway goes by what it has counted itself.
            let _ = ledger.adopt(&Told {
                key: &charge.key,
                overflow: &charge.overflow,
                limits: &charge.limits,
                totals,
                amount: 0,
                windows: &windows,
            });
        }
    }

    /// Sees to the breaker, and says once that Redis does not answer and once that it is back.
    pub(super) fn answered(&mut self, failure: Option<Unanswered>, host: &dyn Host) {
        let Some(remote) = &mut self.remote else {
            return;
        };
        let lost = remote.outbox.lost();
        if lost > 0 {
            host.count("tollgate_token_rate_limit_redis;result=lost", lost);
        }
        let why = match failure {
            // It answers, and has forgotten its scripts.
            None | Some(Unanswered::NoScript) => None,
            Some(Unanswered::Because(why)) => Some(why),
        };
        let Some(why) = why else {
            host.count("tollgate_token_rate_limit_redis;result=answered", 1);
            if remote.breaker.succeed() {
                host.log(Level::Info, "tollgate token-rate-limit: Redis is back");
            }
            return;
        };
        host.count("tollgate_token_rate_limit_redis;result=failed", 1);
        if remote.breaker.fail(host.now()) {
            let meanwhile = match (
                remote.decides(),
                self.config.fault_tolerant,
                self.config.kong,
            ) {
                (false, ..) => "what is counted meanwhile is told later",
                (true, false, _) => "requests get 500",
                (true, true, true) => "requests pass unlimited (fault_tolerant, compat: kong)",
                (true, true, false) => "this gateway counts by itself (fault_tolerant)",
            };
            host.log(
                Level::Error,
                &format!("tollgate token-rate-limit: Redis can't be reached: {why}; {meanwhile}"),
            );
        }
    }

    /// Notes what has become of charges without Redis, for it to be told, and to tell.
    pub(super) fn note(&mut self, charges: &[Charge], admission: &Admission, host: &dyn Host) {
        let Some(Remote { outbox, .. }) = &mut self.remote else {
            return;
        };
        match admission {
            Admission::Admitted(held, _) => held.iter().for_each(|held| outbox.charged(held)),
            Admission::Refused(_) => {
                let now = host.now().as_secs();
                charges
                    .iter()
                    .for_each(|charge| outbox.refused(charge, now));
            }
        }
    }

    /// Settles a charge, here and in Redis, at this second. False where it stays charged.
    pub(super) fn settle(&mut self, held: &Held, actual: u64, now: u64, host: &dyn Host) -> bool {
        let table = self.config.table;
        let done = Ledger { table, host, now }.settle(held, actual).is_ok();
        if let Some(remote) = &mut self.remote {
            remote.outbox.settled(held, actual, now);
        }
        done
    }

    /// Takes back what Redis was asked for a request that is over before it has answered.
    pub(super) fn forget(&mut self, pending: &Pending, host: &dyn Host) {
        if let Some(remote) = &mut self.remote {
            let now = host.now().as_secs();
            remote.outbox.take_back(pending.id, &pending.charges, now);
        }
    }
}
