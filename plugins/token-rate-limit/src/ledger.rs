//! Counters of this gateway, in the data that its workers share.
//!
//! A request is charged to all its rules or to none. Shared data has no transaction over several values, so the rules are charged one
//! after the other, in the order of the configuration, which is the same in all workers; what has been charged is taken back when a
//! later rule refuses. Until then it may have made another request look too large: such takings-back are counted
//! (`tollgate_token_rate_limit_taken_back`), and only they can refuse what would have fitted. Nothing is ever let through that does
//! not fit.

use crate::counter::{self, Correction, Limit, Settlement, Standing, Total, Verdict};
use crate::window::Window;
use std::rc::Rc;
use tollgate_kit::host::{Failure, SharedData};
use tollgate_kit::store::{Key, Place, Table, Updated};

/// What a request is to be charged by one rule.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    /// The rule's place in the configuration.
    pub(crate) rule: usize,
    pub(crate) key: Key,
    pub(crate) overflow: Key,
    pub(crate) limits: Rc<[Limit]>,
    pub(crate) amount: u64,
}

impl Charge {
    /// Whether nothing may ever pass: a model or a path that is not allowed.
    pub(crate) fn is_denied(&self) -> bool {
        self.limits.is_empty() || self.limits.iter().any(|limit| limit.most == 0)
    }

    /// Whether it is more than an empty window holds.
    pub(crate) fn never_fits(&self) -> bool {
        self.limits.iter().any(|limit| limit.most < self.amount)
    }
}

/// What has been charged by one rule.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) rule: usize,
    pub(crate) key: Key,
    /// Where it stands in shared data; `None` where only Redis was charged.
    pub(crate) place: Option<Place>,
    pub(crate) limits: Rc<[Limit]>,
    /// The windows in which it was charged.
    pub(crate) windows: Vec<u64>,
    pub(crate) amount: u64,
}

/// How the counters of a rule stand for a request.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) rule: usize,
    pub(crate) limits: Rc<[Limit]>,
    pub(crate) standings: Vec<Standing>,
}

/// What Redis has told of a counter.
pub(crate) struct Told<'t> {
    pub(crate) key: &'t Key,
    pub(crate) overflow: &'t Key,
    pub(crate) limits: &'t [Limit],
    pub(crate) totals: &'t [Total],
    /// So much of what was counted here it has been told just now, of these windows.
    pub(crate) amount: i64,
    pub(crate) windows: &'t [u64],
}

/// What became of charges.
#[derive(Debug)]
pub(crate) enum Admission {
    /// All were made.
    Admitted(Vec<Held>, Vec<Account>),
    /// None was made: the last of these accounts refuses.
    Refused(Vec<Account>),
}

/// What went on beside, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oddities {
    /// Counters begun anew because what stood there could not be read.
    pub(crate) damaged: u64,
    /// Charges to a counter that several keys share.
    pub(crate) overflowed: u64,
    /// Charges that were taken back because a later rule refused.
    pub(crate) taken_back: u64,
    /// Writes that were made again because another worker was faster.
    pub(crate) lost: u64,
}

impl Oddities {
    /// Counts what an update met with.
    pub(crate) fn note<T>(&mut self, updated: &Updated<T>) {
        self.damaged = self.damaged.saturating_add(u64::from(updated.damaged));
        let overflowed = u64::from(updated.place.is_overflow());
        self.overflowed = self.overflowed.saturating_add(overflowed);
        let lost = u64::try_from(updated.lost).unwrap_or(u64::MAX);
        self.lost = self.lost.saturating_add(lost);
    }
}

/// The counters, at one moment.
pub(crate) struct Ledger<'h, H: SharedData + ?Sized> {
    pub(crate) table: Table,
    pub(crate) host: &'h H,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

impl<H: SharedData + ?Sized> Ledger<'_, H> {
    /// Makes all charges, or none.
    ///
    /// # Errors
    /// When the host does not keep counters. What had been charged by then is taken back as far as it can be.
    pub(crate) fn charge(
        &self,
        charges: Vec<Charge>,
        oddities: &mut Oddities,
    ) -> Result<Admission, Failure> {
        let mut held: Vec<Held> = Vec::with_capacity(charges.len());
        let mut accounts = Vec::with_capacity(charges.len());
        for charge in charges {
            let updated = match self.one(&charge, oddities) {
                Ok(updated) => updated,
                Err(failure) => {
                    self.take_back(&held, oddities);
                    return Err(failure);
                }
            };
            let (place, verdict) = updated;
            let windows = verdict.standings.iter().map(|it| it.number).collect();
            accounts.push(Account {
                rule: charge.rule,
                limits: charge.limits.clone(),
                standings: verdict.standings,
            });
            if !verdict.admitted {
                self.take_back(&held, oddities);
                return Ok(Admission::Refused(accounts));
            }
            held.push(Held {
                rule: charge.rule,
                key: charge.key,
                place: Some(place),
                limits: charge.limits,
                windows,
                amount: charge.amount,
            });
        }
        Ok(Admission::Admitted(held, accounts))
    }

    fn one(&self, charge: &Charge, oddities: &mut Oddities) -> Result<(Place, Verdict), Failure> {
        let updated = self.table.update(
            self.host,
            &charge.key,
            &charge.overflow,
            self.now,
            |payload| counter::charge(payload, &charge.limits, charge.amount, self.now),
        )?;
        oddities.note(&updated);
        Ok((updated.place, updated.result))
    }

    fn take_back(&self, held: &[Held], oddities: &mut Oddities) {
        for held in held {
            // The host that has just written fails now: what is charged too much ends with its window.
            let _ = self.settle(held, 0);
            oddities.taken_back = oddities.taken_back.saturating_add(1);
        }
    }

    /// Settles one charge, now that it is known what the request came to.
    ///
    /// # Errors
    /// When the host does not keep counters; then the charge stays as it was.
    pub(crate) fn settle(&self, held: &Held, actual: u64) -> Result<(), Failure> {
        let settlement = Settlement::between(held.amount, actual);
        let place = match &held.place {
            Some(place) if held.amount != actual => place,
            _ => return Ok(()),
        };
        let updated = self.table.update_at(self.host, place, self.now, |payload| {
            let change =
                counter::settle(payload, &held.limits, &held.windows, settlement, self.now);
            (change, ())
        });
        updated.map(|_| ())
    }

    /// Takes over what Redis has of a counter. One that shares its entry with others is left as it is.
    ///
    /// # Errors
    /// When the host does not keep counters.
    pub(crate) fn adopt(&self, told: &Told<'_>) -> Result<(), Failure> {
        self.table
            .update_own(self.host, told.key, told.overflow, self.now, |payload| {
                counter::adopt(
                    payload,
                    told.limits,
                    told.totals,
                    told.windows,
                    told.amount,
                    self.now,
                )
            })
    }

    /// How a rule's counters stand, without a charge.
    ///
    /// # Errors
    /// When the host does not keep counters.
    pub(crate) fn standings(&self, charge: &Charge) -> Result<Vec<Standing>, Failure> {
        let updated = self.table.update(
            self.host,
            &charge.key,
            &charge.overflow,
            self.now,
            |payload| {
                let (limits, amount) = (&charge.limits, charge.amount);
                let standings = counter::standings(payload, limits, amount, self.now);
                (tollgate_kit::store::Change::Keep, standings)
            },
        )?;
        Ok(updated.result)
    }

    /// How a rule's counters stand, and whether they are shared with others for want of room, after a correction. Counters that are shared
    /// are nobody's to correct, and stay as they are.
    ///
    /// # Errors
    /// When the host does not keep counters.
    pub(crate) fn consult(
        &self,
        charge: &Charge,
        correction: Option<(Correction, Option<Window>)>,
    ) -> Result<(Vec<Standing>, bool), Failure> {
        let limits = &charge.limits;
        let found = self.table.update(
            self.host,
            &charge.key,
            &charge.overflow,
            self.now,
            |payload| {
                let standings = counter::standings(payload, limits, 0, self.now);
                (tollgate_kit::store::Change::Keep, standings)
            },
        )?;
        let shared = found.place.is_overflow();
        let Some((correction, only)) = correction.filter(|_| !shared) else {
            return Ok((found.result, shared));
        };
        let concerns = |limit: &Limit| only.is_none_or(|window| limit.window == window);
        let updated = self
            .table
            .update_at(self.host, &found.place, self.now, |payload| {
                counter::correct(payload, limits, correction, concerns, self.now)
            })?;
        Ok((updated.result, shared))
    }
}

impl Account {
    /// What is left in the window of this place.
    fn left(&self, index: usize) -> u64 {
        match (self.limits.get(index), self.standings.get(index)) {
            (Some(limit), Some(standing)) => limit.most.saturating_sub(standing.used),
            _ => 0,
        }
    }

    /// The place of the window with the least left; of several the longest.
    pub(crate) fn tightest(&self) -> Option<usize> {
        (0..self.limits.len().min(self.standings.len()))
            .rev()
            .min_by_key(|index| self.left(*index))
    }

    /// The least that is left in any window.
    pub(crate) fn least_left(&self) -> u64 {
        self.tightest().map_or(0, |index| self.left(index))
    }

    /// Whether a window refuses.
    pub(crate) fn refuses(&self) -> bool {
        self.standings.iter().any(|standing| standing.exceeded)
    }

    /// Seconds until every window that refuses would not do so any more.
    pub(crate) fn retry_after(&self) -> u64 {
        let waits = self.standings.iter().map(|standing| standing.wait);
        waits.max().unwrap_or_default().max(1)
    }
}

#[cfg(test)]
mod tests;
