//! The leases of this gateway, in the data that its workers share.

use super::{Lease, Verdict};
use crate::ledger::Oddities;
use tollgate_kit::host::{Failure, SharedData};
use tollgate_kit::store::{Change, Key, Place, Table, Updated};

/// What a request wants of one rule.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The rule's place in the configuration.
    pub(crate) rule: usize,
    pub(crate) key: Key,
    pub(crate) overflow: Key,
    /// How many leases there may be.
    pub(crate) most: u64,
    /// How long one lasts, in seconds.
    pub(crate) ttl: u64,
}

/// A lease that a request holds.
#[derive(Debug)]
pub(crate) struct Tenancy {
    place: Place,
    lease: Lease,
    ttl: u64,
    /// From this second on it is worth renewing: half of its time has passed.
    renew_at: u64,
}

/// What became of claims.
#[derive(Debug)]
pub(crate) enum Grant {
    /// All were granted.
    Granted(Vec<Tenancy>),
    /// None was: this one is refused.
    Refused(Claim),
}

/// The leases, at one moment.
pub(crate) struct Register<'h, H: SharedData + ?Sized> {
    pub(crate) table: Table,
    pub(crate) host: &'h H,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

impl<H: SharedData + ?Sized> Register<'_, H> {
    /// Grants all claims, or none. As with counters, what is taken is given back when a later claim is refused, and may have made
    /// another request look like one too many until then; that is counted.
    ///
    /// # Errors
    /// When the host does not keep leases. What had been taken by then is given back as far as it can be.
    pub(crate) fn take(
        &self,
        claims: Vec<Claim>,
        oddities: &mut Oddities,
    ) -> Result<Grant, Failure> {
        let mut held: Vec<Tenancy> = Vec::with_capacity(claims.len());
        for claim in claims {
            let updated = match self.one(&claim) {
                Ok(updated) => updated,
                Err(failure) => {
                    self.take_back(&held, oddities);
                    return Err(failure);
                }
            };
            oddities.note(&updated);
            match updated.result {
                Verdict::Granted(lease) => held.push(Tenancy {
                    place: updated.place,
                    lease,
                    ttl: claim.ttl,
                    renew_at: self.now.saturating_add(claim.ttl.div_ceil(2)),
                }),
                Verdict::Refused => {
                    self.take_back(&held, oddities);
                    return Ok(Grant::Refused(claim));
                }
            }
        }
        Ok(Grant::Granted(held))
    }

    fn one(&self, claim: &Claim) -> Result<Updated<Verdict>, Failure> {
        self.table.update(
            self.host,
            &claim.key,
            &claim.overflow,
            self.now,
            |payload| super::acquire(payload, claim.most, claim.ttl, self.now),
        )
    }

    fn take_back(&self, held: &[Tenancy], oddities: &mut Oddities) {
        for tenancy in held {
            // The host that has just written fails now: the lease ends by itself.
            let _ = self.release(tenancy);
            oddities.taken_back = oddities.taken_back.saturating_add(1);
        }
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// When the host does not keep leases; then it ends by itself.
    pub(crate) fn release(&self, tenancy: &Tenancy) -> Result<(), Failure> {
        let Tenancy { lease, ttl, .. } = *tenancy;
        let updated = self
            .table
            .update_at(self.host, &tenancy.place, self.now, |payload| {
                (super::release(payload, lease, ttl, self.now), ())
            });
        updated.map(|_| ())
    }

    /// Makes a lease last on, where half of its time has passed. Whether it has been renewed.
    ///
    /// # Errors
    /// When the host does not keep leases; then it stays as it was, and may be renewed later.
    pub(crate) fn renew(&self, tenancy: &mut Tenancy) -> Result<bool, Failure> {
        if self.now < tenancy.renew_at {
            return Ok(false);
        }
        let Tenancy { lease, ttl, .. } = *tenancy;
        let updated = self
            .table
            .update_at(self.host, &tenancy.place, self.now, |payload| {
                super::renew(payload, lease, ttl, self.now)
            })?;
        tenancy.lease = updated.result;
        tenancy.renew_at = self.now.saturating_add(ttl.div_ceil(2));
        Ok(true)
    }

    /// How many leases are held, and whether they are shared with others for want of room, after they have been forgotten (`reset`).
    /// Leases that are shared are nobody's to forget.
    ///
    /// # Errors
    /// When the host does not keep leases.
    pub(crate) fn consult(&self, claim: &Claim, reset: bool) -> Result<(u64, bool), Failure> {
        let (ttl, now) = (claim.ttl, self.now);
        let found = self
            .table
            .update(self.host, &claim.key, &claim.overflow, now, |payload| {
                (Change::Keep, super::held(payload, ttl, now))
            })?;
        let shared = found.place.is_overflow();
        if !reset || shared {
            return Ok((found.result, shared));
        }
        self.table
            .update_at(self.host, &found.place, now, |payload| {
                (super::reset(payload, ttl, now), ())
            })?;
        Ok((0, shared))
    }
}
