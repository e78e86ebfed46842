//! Requests under way at once: leases, which their holders give back, and which end by themselves where nobody does.
//!
//! The leases of a rule for one identity are counted by when they end, which is rounded up to a sixteenth of their time to live. So an
//! entry stays small however many are held, and a worker that dies takes its leases with it for no longer than that time and a
//! sixteenth of it. Taking, renewing and giving back are functions of the stored bytes and the time; who writes first is the table's
//! business.
//!
//! ```text
//! payload = epoch (8), bucket *          the soonest first
//! bucket  = ends (8), held (4)           little-endian
//! ```
//!
//! The **epoch** tells leases of this entry from those of one that stood there before and was lost or reset: what is given back to
//! another epoch than its own changes nothing.

mod register;

#[cfg(test)]
mod tests;

pub(crate) use register::{Claim, Grant, Register, Tenancy};

use tollgate_kit::store::Change;

/// The longest time to live, in seconds: a day.
pub const MOST_TTL: u64 = 86_400;

/// Leases end at so many moments in a time to live.
const STEPS: u64 = 16;

const EPOCH_BYTES: usize = 8;
const BUCKET_BYTES: usize = 12;

/// The most bytes of a payload: a time to live and two steps have no more than 18 moments in them.
pub const MOST_PAYLOAD: usize = EPOCH_BYTES + 18 * BUCKET_BYTES;

/// One lease, as its holder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    epoch: u64,
    /// From this second on (Unix time) it is over.
    ends: u64,
}

/// What became of a request for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It was granted.
    Granted(Lease),
    /// As many as may be are held.
    Refused,
}

/// The leases of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    epoch: u64,
    buckets: Vec<Bucket>,
}

/// Leases that end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    ends: u64,
    held: u32,
}

/// Takes a lease of `ttl` seconds where fewer than `most` are held.
pub fn acquire(payload: Option<&[u8]>, most: u64, ttl: u64, now: u64) -> (Change, Verdict) {
    let mut held = Held::read(payload, ttl, now);
    if held.count() >= most {
        return (Change::Keep, Verdict::Refused);
    }
    let lease = held.add(ends(ttl, now));
    (held.written(now), Verdict::Granted(lease))
}

/// Gives a lease back. One that is over has been given back by time.
pub fn release(payload: Option<&[u8]>, lease: Lease, ttl: u64, now: u64) -> Change {
    let mut held = Held::read(payload, ttl, now);
    if held.remove(lease, now) {
        held.written(now)
    } else {
        Change::Keep
    }
}

/// Makes a lease last `ttl` seconds from now. One that is over, or was lost with its entry, is counted anew, even beyond the limit: its
/// request is still under way.
pub fn renew(payload: Option<&[u8]>, lease: Lease, ttl: u64, now: u64) -> (Change, Lease) {
    let mut held = Held::read(payload, ttl, now);
    let _ = held.remove(lease, now);
    let lease = held.add(ends(ttl, now));
    (held.written(now), lease)
}

/// How many are held.
#[must_use]
pub fn held(payload: Option<&[u8]>, ttl: u64, now: u64) -> u64 {
    Held::read(payload, ttl, now).count()
}

/// Forgets all leases; those who hold them give back nothing any more, and count again when they renew.
pub fn reset(payload: Option<&[u8]>, ttl: u64, now: u64) -> Change {
    let before = Held::read(payload, ttl, now);
    let held = Held {
        epoch: before.epoch.saturating_add(1).max(now),
        buckets: Vec::new(),
    };
    Change::Write {
        payload: held.bytes(),
        // The epoch outlives the leases of the one before.
        expires: ends(ttl, now),
    }
}

/// How far apart the moments are at which leases end, in seconds.
fn step(ttl: u64) -> u64 {
    ttl.div_ceil(STEPS).max(1)
}

/// When a lease ends that is taken now.
fn ends(ttl: u64, now: u64) -> u64 {
    let ends = now.saturating_add(ttl);
    ends.checked_next_multiple_of(step(ttl)).unwrap_or(ends)
}

impl Held {
    /// What is held at `now`. Leases that end later than any could that a worker has just taken were taken under a clock that was
    /// wrong, or for a longer time to live: they end with the latest that could.
    fn read(payload: Option<&[u8]>, ttl: u64, now: u64) -> Held {
        let payload = payload.unwrap_or_default();
        let Some((epoch, rest)) = payload.split_first_chunk::<EPOCH_BYTES>() else {
            return Held {
                epoch: now,
                buckets: Vec::new(),
            };
        };
        // Workers do not read the clock at the same moment.
        let latest = ends(ttl, now).saturating_add(step(ttl));
        let mut held = Held {
            epoch: u64::from_le_bytes(*epoch),
            buckets: Vec::new(),
        };
        let (stored, _) = rest.as_chunks::<BUCKET_BYTES>();
        for bucket in stored.iter().map(Bucket::read) {
            if bucket.ends > now {
                held.put(bucket.ends.min(latest), bucket.held);
            }
        }
        held
    }

    fn count(&self) -> u64 {
        let held = self.buckets.iter().map(|bucket| u64::from(bucket.held));
        held.fold(0, u64::saturating_add)
    }

    fn put(&mut self, ends: u64, more: u32) {
        let at = self.buckets.partition_point(|bucket| bucket.ends < ends);
        match self.buckets.get_mut(at).filter(|it| it.ends == ends) {
            Some(bucket) => bucket.held = bucket.held.saturating_add(more),
            None => self.buckets.insert(at, Bucket { ends, held: more }),
        }
    }

    fn add(&mut self, ends: u64) -> Lease {
        self.put(ends, 1);
        Lease {
            epoch: self.epoch,
            ends,
        }
    }

    /// Whether the lease was still held. It ends when it says, or, where a clock was wrong, sooner.
    fn remove(&mut self, lease: Lease, now: u64) -> bool {
        if lease.epoch != self.epoch || lease.ends <= now {
            return false;
        }
        let mut sooner = self.buckets.iter_mut().rev();
        let Some(bucket) = sooner.find(|bucket| bucket.ends <= lease.ends) else {
            return false;
        };
        bucket.held = bucket.held.saturating_sub(1);
        self.buckets.retain(|bucket| bucket.held > 0);
        true
    }

    fn bytes(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(MOST_PAYLOAD);
        payload.extend_from_slice(&self.epoch.to_le_bytes());
        for bucket in &self.buckets {
            payload.extend_from_slice(&bucket.ends.to_le_bytes());
            payload.extend_from_slice(&bucket.held.to_le_bytes());
        }
        payload
    }

    fn written(&self, now: u64) -> Change {
        Change::Write {
            payload: self.bytes(),
            expires: self.buckets.last().map_or(now, |bucket| bucket.ends),
        }
    }
}

impl Bucket {
    fn read(bytes: &[u8; BUCKET_BYTES]) -> Bucket {
        let [ends @ .., h0, h1, h2, h3] = *bytes;
        Bucket {
            ends: u64::from_le_bytes(ends),
            held: u32::from_le_bytes([h0, h1, h2, h3]),
        }
    }
}
