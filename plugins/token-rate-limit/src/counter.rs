//! What one rule has counted for one identity, in each of the rule's windows: the payload of a table entry.
//!
//! All windows of a rule stand in one entry, so that a request is admitted by all of them or counted in none. Charging,
//! refusing and settling are functions of the stored bytes and the time; who writes first is the table's business.
//!
//! ```text
//! payload = use *
//! use     = window (4), number (8), used (8), before (8), known (8)      little-endian
//! ```

use crate::window::Window;
use tollgate_kit::store::Change;

#[cfg(test)]
mod tests;

/// One window of a rule, with its limit for the identity at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted over.
    pub window: Window,
    /// How much there may be in one window.
    pub most: u64,
    /// How the end of a window is felt.
    pub kind: Kind,
}

/// How the end of a window is felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At its end everything starts from 0, as Kong's request limits do.
    Fixed,
    /// As fixed, but what was used beyond the limit is debt, and counts in the windows after it until it is paid.
    FixedWithDebt,
    /// What was used in the window before counts by the share of it that the last `length` seconds still cover, rounded up, as if it had been
    /// used evenly.
    Sliding,
}

/// How a window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// So much of the limit is used, all that counts now taken together. Above the limit where there is debt.
    pub used: u64,
    /// The window's number: where a reservation is settled.
    pub number: u64,
    /// Whether this window refuses.
    pub exceeded: bool,
    /// In how many seconds it would not refuse any more, if nothing else were counted; 0 where it does not refuse.
    pub wait: u64,
}

/// Whether a request may go on, and how the windows stand: after it was counted, or as they were where it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Whether it has been counted.
    pub admitted: bool,
    /// One for each limit, in order.
    pub standings: Vec<Standing>,
}

/// A window's own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    window: u32,
    number: u64,
    used: u64,
    /// What was used in the window before.
    before: u64,
    /// As much of `used` as Redis told when it was last asked; the rest is still to be told there. 0 without Redis.
    known: u64,
}

const USE_BYTES: usize = 36;

/// The bytes of a payload for so many windows.
#[must_use]
pub fn payload_bytes(windows: usize) -> usize {
    windows.saturating_mul(USE_BYTES)
}

/// Debt is remembered for so many windows.
const MOST_WINDOWS_OF_DEBT: u64 = 1000;

/// Counts `amount` in every window, if it fits into all of them.
pub fn charge(
    payload: Option<&[u8]>,
    limits: &[Limit],
    amount: u64,
    now: u64,
) -> (Change, Verdict) {
    let mut uses = uses(payload, limits, now);
    let mut standings = judged(&uses, limits, amount, now);
    let admitted = !standings.iter().any(|standing| standing.exceeded);
    if admitted {
        for (used, standing) in uses.iter_mut().zip(&mut standings) {
            used.used = used.used.saturating_add(amount);
            standing.used = standing.used.saturating_add(amount);
        }
    }
    // What a wrong clock has counted has to be written down under the right one, or it would be found anew for ever.
    let change = if admitted && amount > 0 || from_the_future(payload, &uses) {
        written(&uses, limits)
    } else {
        Change::Keep
    };
    let verdict = Verdict {
        admitted,
        standings,
    };
    (change, verdict)
}

/// How the windows stand for a request of so much, without counting it.
#[must_use]
pub fn standings(payload: Option<&[u8]>, limits: &[Limit], amount: u64, now: u64) -> Vec<Standing> {
    judged(&uses(payload, limits, now), limits, amount, now)
}

/// A window's count as somebody else keeps it: Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// The window's number.
    pub number: u64,
    /// What is used of it.
    pub used: u64,
    /// What was used of the window before.
    pub before: u64,
}

/// How windows stand of which somebody else keeps count, one total for each limit, for a request of so much.
#[must_use]
pub fn standings_of(totals: &[Total], limits: &[Limit], amount: u64, now: u64) -> Vec<Standing> {
    let pairs = limits.iter().zip(totals);
    let uses: Vec<_> = pairs
        .map(|(limit, total)| Use {
            window: limit.window.code(),
            number: total.number,
            used: total.used,
            before: total.before,
            known: 0,
        })
        .collect();
    judged(&uses, limits, amount, now)
}

/// Takes over what somebody else has counted. What has been counted here and not been told yet goes on top; of that, `told` has now
/// been told, of the windows of these numbers.
pub fn adopt(
    payload: Option<&[u8]>,
    limits: &[Limit],
    totals: &[Total],
    told_of: &[u64],
    told: i64,
    now: u64,
) -> Change {
    let mut uses = uses(payload, limits, now);
    let before = uses.clone();
    for ((used, total), told_of) in uses.iter_mut().zip(totals).zip(told_of) {
        if used.number != total.number {
            continue;
        }
        let told = if *told_of == used.number { told } else { 0 };
        let untold = i128::from(used.used)
            .saturating_sub(i128::from(used.known))
            .saturating_sub(i128::from(told));
        let sum = i128::from(total.used).saturating_add(untold);
        used.used = u64::try_from(sum.max(0)).unwrap_or(u64::MAX);
        used.known = total.used;
        // What is still to be told of the window before is not in its total.
        used.before = used.before.max(total.before);
    }
    if uses == before {
        Change::Keep
    } else {
        written(&uses, limits)
    }
}

fn judged(uses: &[Use], limits: &[Limit], amount: u64, now: u64) -> Vec<Standing> {
    let pairs = limits.iter().zip(uses);
    pairs
        .map(|(limit, used)| {
            let counted = used.counted(limit, now);
            let exceeded = counted.saturating_add(amount) > limit.most;
            Standing {
                used: counted,
                number: used.number,
                exceeded,
                wait: if exceeded {
                    used.wait(limit, amount, now)
                } else {
                    0
                },
            }
        })
        .collect()
}

/// What a request really came to, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Less than was charged, by so much.
    Refund(u64),
    /// More than was charged, by so much.
    Overshoot(u64),
}

impl Settlement {
    /// The difference between what was charged and what it came to.
    #[must_use]
    pub fn between(charged: u64, actual: u64) -> Settlement {
        match charged.checked_sub(actual) {
            Some(refund) => Settlement::Refund(refund),
            None => Settlement::Overshoot(actual.saturating_sub(charged)),
        }
    }
}

/// Settles a request that was charged in the windows of these numbers. A refund goes to the window in which it was charged and is
/// dropped when that is over; an overshoot goes there too, or into the present window when that is over.
pub fn settle(
    payload: Option<&[u8]>,
    limits: &[Limit],
    charged_in: &[u64],
    settlement: Settlement,
    now: u64,
) -> Change {
    let mut uses = uses(payload, limits, now);
    let before = uses.clone();
    for (used, number) in uses.iter_mut().zip(charged_in) {
        match settlement {
            Settlement::Overshoot(more) => used.used = used.used.saturating_add(more),
            Settlement::Refund(less) if used.number == *number => {
                used.used = used.used.saturating_sub(less);
            }
            // It still weighs in a sliding window, so it is taken back there as well.
            Settlement::Refund(less) if used.number == number.saturating_add(1) => {
                used.before = used.before.saturating_sub(less);
            }
            Settlement::Refund(_) => {}
        }
    }
    if uses == before {
        Change::Keep
    } else {
        written(&uses, limits)
    }
}

/// What an operator does to a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Nothing is used, now or in the window before.
    Reset,
    /// So much more is used, beyond the limit too.
    Add(u64),
    /// So much less is used, down to nothing.
    Subtract(u64),
}

/// Corrects the counts of the windows for which `concerns` holds.
pub fn correct(
    payload: Option<&[u8]>,
    limits: &[Limit],
    correction: Correction,
    concerns: impl Fn(&Limit) -> bool,
    now: u64,
) -> (Change, Vec<Standing>) {
    let mut uses = uses(payload, limits, now);
    let before = uses.clone();
    let concerned = uses.iter_mut().zip(limits);
    for (used, _) in concerned.filter(|(_, limit)| concerns(limit)) {
        match correction {
            Correction::Reset => (used.used, used.before) = (0, 0),
            Correction::Add(more) => used.used = used.used.saturating_add(more),
            Correction::Subtract(less) => used.used = used.used.saturating_sub(less),
        }
    }
    let change = if uses == before {
        Change::Keep
    } else {
        written(&uses, limits)
    };
    (change, judged(&uses, limits, 0, now))
}

/// The stored counts of these limits, as they are at `now`. What is stored of other windows is forgotten: the configuration has
/// changed.
fn uses(payload: Option<&[u8]>, limits: &[Limit], now: u64) -> Vec<Use> {
    let (stored, _) = payload.unwrap_or_default().as_chunks::<USE_BYTES>();
    limits
        .iter()
        .map(|limit| {
            let code = limit.window.code();
            let known = stored
                .iter()
                .map(Use::read)
                .find(|used| used.window == code);
            match known {
                Some(used) => used.at(limit, now),
                None => Use {
                    window: code,
                    number: limit.window.number(now),
                    used: 0,
                    before: 0,
                    known: 0,
                },
            }
        })
        .collect()
}

/// Whether something is stored of windows that lie far ahead of the present ones.
fn from_the_future(payload: Option<&[u8]>, uses: &[Use]) -> bool {
    let (stored, _) = payload.unwrap_or_default().as_chunks::<USE_BYTES>();
    stored.iter().map(Use::read).any(|stored| {
        uses.iter()
            .any(|used| used.window == stored.window && used.number < stored.number)
    })
}

fn written(uses: &[Use], limits: &[Limit]) -> Change {
    let mut payload = Vec::with_capacity(payload_bytes(uses.len()));
    let mut expires = 0;
    for (used, limit) in uses.iter().zip(limits) {
        used.write(&mut payload);
        expires = expires.max(used.expires(limit));
    }
    Change::Write { payload, expires }
}

impl Use {
    fn read(bytes: &[u8; USE_BYTES]) -> Use {
        let [w0, w1, w2, w3, rest @ ..] = *bytes;
        let (words, _) = rest.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or_default();
        Use {
            window: u32::from_le_bytes([w0, w1, w2, w3]),
            number: next(),
            used: next(),
            before: next(),
            known: next(),
        }
    }

    fn write(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&self.window.to_le_bytes());
        for word in [self.number, self.used, self.before, self.known] {
            payload.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// The count as it is at `now`. A clock that was set back does not open a window anew: one window back is a worker that has read the
    /// clock before another did, and counts there; more is a clock that was wrong, and what it counted counts now.
    fn at(self, limit: &Limit, now: u64) -> Use {
        let number = limit.window.number(now);
        if self.number > number.saturating_add(1) {
            return Use { number, ..self };
        }
        let passed = number.saturating_sub(self.number);
        if passed == 0 {
            return self;
        }
        let debt = self.used.saturating_sub(limit.most.saturating_mul(passed));
        let carried = match limit.kind {
            Kind::FixedWithDebt => debt,
            Kind::Fixed | Kind::Sliding => 0,
        };
        Use {
            number,
            used: carried,
            // What Redis is told too late it carries over itself.
            known: carried,
            before: if passed == 1 { self.used } else { 0 },
            ..self
        }
    }

    /// What counts against the limit.
    fn counted(&self, limit: &Limit, now: u64) -> u64 {
        match limit.kind {
            Kind::Fixed | Kind::FixedWithDebt => self.used,
            Kind::Sliding => {
                let (start, end) = (
                    limit.window.start(self.number),
                    limit.window.end(self.number),
                );
                let length = u128::from(end.saturating_sub(start).max(1));
                let left = u128::from(end.saturating_sub(now.max(start)));
                let share = u128::from(self.before)
                    .saturating_mul(left)
                    .div_ceil(length);
                self.used
                    .saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
            }
        }
    }

    /// In how many seconds so much more would fit.
    fn wait(&self, limit: &Limit, amount: u64, now: u64) -> u64 {
        let (start, end) = (
            limit.window.start(self.number),
            limit.window.end(self.number),
        );
        let until_end = end.saturating_sub(now).max(1);
        let length = end.saturating_sub(start);
        // The seconds of a window that are left when no more than `room` of `used` is covered.
        let fades = |used: u64, room: u64| {
            let left = u128::from(room)
                .saturating_mul(u128::from(length))
                .checked_div(u128::from(used));
            u64::try_from(left.unwrap_or_default())
                .unwrap_or(u64::MAX)
                .min(length)
        };
        let wanted = self.used.saturating_add(amount);
        match limit.kind {
            Kind::Fixed => limit.window.reset(now),
            Kind::FixedWithDebt => {
                let windows = wanted
                    .saturating_sub(limit.most)
                    .div_ceil(limit.most.max(1));
                let more = windows.saturating_sub(1).min(MOST_WINDOWS_OF_DEBT);
                until_end.saturating_add(more.saturating_mul(length))
            }
            Kind::Sliding if wanted <= limit.most => {
                let left = fades(self.before, limit.most.saturating_sub(wanted));
                end.saturating_sub(left).saturating_sub(now).max(1)
            }
            Kind::Sliding => {
                let left = fades(self.used, limit.most.saturating_sub(amount));
                until_end.saturating_add(length.saturating_sub(left))
            }
        }
    }

    /// The second from which on it says nothing any more.
    fn expires(&self, limit: &Limit) -> u64 {
        let windows = match limit.kind {
            Kind::Fixed => 1,
            Kind::Sliding => 2,
            // Each window pays as much as its limit; where that is nothing, debt is never paid.
            Kind::FixedWithDebt => match limit.most {
                0 => MOST_WINDOWS_OF_DEBT,
                most => self.used.div_ceil(most).clamp(1, MOST_WINDOWS_OF_DEBT),
            },
        };
        limit.window.start(self.number.saturating_add(windows))
    }
}
