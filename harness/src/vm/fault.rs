//! Host functions that fail on purpose.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::{Callback, Site};

/// Tells host functions to answer a status without doing anything.
///
/// ```
/// use tollgate_harness::vm::{Callback, Faults};
/// let faults = Faults::new()
///     .answer("proxy_get_shared_data", 10).always()
///     .answer("proxy_get_property", 2).in_phase(Callback::Log).nth(3)
///     .answer("proxy_set_shared_data", 8).from_exchange(2).sometimes(25, 7);
/// # let _ = faults;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Vec<Fault>,
    /// The exchange that was opened last, among those that made a call.
    latest: u64,
    /// Which calls were made in which phase, where that is wanted.
    seen: Option<BTreeSet<(Callback, &'static str)>>,
}

#[derive(Clone, Debug)]
struct Fault {
    hostcall: String,
    status: u32,
    phase: Option<Callback>,
    from: u64,
    when: When,
    calls: u64,
}

#[derive(Clone, Debug)]
enum When {
    Always,
    Nth(u64),
    /// In so many of a hundred calls.
    Sometimes(u32, Rng),
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No faults, but [`Faults::seen`] tells which functions were called.
    #[must_use]
    pub fn noting() -> Self {
        Self {
            seen: Some(BTreeSet::new()),
            ..Self::default()
        }
    }

    /// Makes `hostcall` answer `status`, which need not be one that the ABI knows. Say next where, if not everywhere, and
    /// when.
    pub fn answer(self, hostcall: &str, status: u32) -> FaultRule {
        FaultRule {
            faults: self,
            fault: Fault {
                hostcall: hostcall.to_owned(),
                status,
                phase: None,
                from: 0,
                when: When::Always,
                calls: 0,
            },
        }
    }

    /// The functions that were called since [`Faults::noting`], with the callbacks that called them.
    #[must_use]
    pub fn seen(&self) -> Vec<(Callback, &'static str)> {
        self.seen.iter().flatten().copied().collect()
    }

    /// Counts a call of `hostcall`; the status it must answer, where a rule is due.
    pub(crate) fn take(&mut self, hostcall: &'static str, site: Site) -> Option<u32> {
        if let Some(seen) = &mut self.seen {
            seen.insert((site.callback, hostcall));
        }
        if self.rules.is_empty() {
            return None;
        }
        self.latest = self.latest.max(site.exchange.map_or(0, |id| id.0));
        let mut answer = None;
        for fault in &mut self.rules {
            let elsewhere = fault.phase.is_some_and(|phase| phase != site.callback);
            if fault.hostcall != hostcall || elsewhere || self.latest < fault.from {
                continue;
            }
            fault.calls += 1;
            let due = match &mut fault.when {
                When::Always => true,
                When::Nth(n) => fault.calls == *n,
                When::Sometimes(percent, random) => random.u32(..100) < *percent,
            };
            if due && answer.is_none() {
                answer = Some(fault.status);
            }
        }
        answer
    }
}

/// A fault without its time.
#[derive(Clone, Debug)]
#[must_use = "say when: once, always, nth or sometimes"]
pub struct FaultRule {
    faults: Faults,
    fault: Fault,
}

impl FaultRule {
    /// Only calls from this callback count and fail.
    pub fn in_phase(mut self, phase: Callback) -> Self {
        self.fault.phase = Some(phase);
        self
    }

    /// Only calls count and fail that are made when the `n`-th exchange of the worker, counted from 1, or a later one has
    /// made a call.
    pub fn from_exchange(mut self, n: u64) -> Self {
        self.fault.from = n;
        self
    }

    /// The first call fails.
    #[must_use]
    pub fn once(self) -> Faults {
        self.when(When::Nth(1))
    }

    /// Every call fails.
    #[must_use]
    pub fn always(self) -> Faults {
        self.when(When::Always)
    }

    /// The `n`-th call fails, counted from 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Faults {
        self.when(When::Nth(n))
    }

    /// Each call fails with a chance of `percent` in a hundred. The same seed makes the same calls fail.
    #[must_use]
    pub fn sometimes(self, percent: u32, seed: u64) -> Faults {
        self.when(When::Sometimes(percent, Rng::with_seed(seed)))
    }

    fn when(mut self, when: When) -> Faults {
        self.fault.when = when;
        self.faults.rules.push(self.fault);
        self.faults
    }
}

#[cfg(test)]
mod tests {
    use super::{Callback, Faults, Site};
    use crate::exchange::ExchangeId;

    const CALL: &str = "proxy_get_shared_data";

    fn site(callback: Callback, exchange: u64) -> Site {
        Site {
            callback,
            context: 0,
            exchange: Some(ExchangeId(exchange)),
        }
    }

    #[test]
    fn a_rule_counts_only_calls_of_its_phase_and_its_exchanges() {
        let rule = Faults::new().answer(CALL, 10).in_phase(Callback::Log);
        let mut faults = rule.from_exchange(2).nth(2);
        let calls = [
            (Callback::Log, 1, None),
            (Callback::RequestHeaders, 2, None),
            (Callback::Log, 2, None),
            (Callback::Tick, 2, None),
            (Callback::Log, 1, Some(10)),
            (Callback::Log, 3, None),
        ];
        for (callback, exchange, answer) in calls {
            assert_eq!(faults.take(CALL, site(callback, exchange)), answer);
        }
    }

    #[test]
    fn a_chance_is_kept_to_and_the_same_each_time() {
        let failing = |percent| {
            let mut faults = Faults::new().answer(CALL, 8).sometimes(percent, 7);
            let calls = (0..1000).map(|_| faults.take(CALL, site(Callback::Tick, 1)));
            calls.collect::<Vec<_>>()
        };
        assert_eq!(failing(25), failing(25));
        let failed = |percent| failing(percent).into_iter().flatten().count();
        assert!((200..300).contains(&failed(25)), "{}", failed(25));
        assert_eq!((failed(0), failed(100)), (0, 1000));
    }
}
