//! When to stop asking somebody who does not answer.

use std::time::Duration;

/// So many failures in a row open it.
const FAILURES: u32 = 3;

/// How long it stays open at first; twice as long after each attempt that fails, up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A circuit breaker. While it is open nobody is asked, but for one attempt each time its period is over.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    /// The next attempt, since 1970, and the period behind it.
    open: Option<(Duration, Duration)>,
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether something may be tried that nobody waits for.
    pub(crate) fn may_try(&self, now: Duration) -> bool {
        self.open.is_none_or(|(until, _)| now >= until)
    }

    /// An answer came. Whether it was open.
    pub(crate) fn succeed(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// None came. Whether this has opened it.
    pub(crate) fn fail(&mut self, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        match self.open {
            // Those who were asked before it opened say nothing new.
            Some((until, _)) if now < until => false,
            Some((_, period)) => {
                let period = period.saturating_mul(2).min(LONGEST);
                self.open = Some((now.saturating_add(period), period));
                false
            }
            None if self.failures >= FAILURES => {
                self.open = Some((now.saturating_add(SHORTEST), SHORTEST));
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_waits_longer_each_time() {
        let mut breaker = Breaker::default();
        assert!(!breaker.fail(at(0)) && !breaker.fail(at(0)));
        breaker.succeed();
        let opened = (0..3).map(|_| breaker.fail(at(10)));
        assert_eq!(opened.collect::<Vec<_>>(), [false, false, true]);
        let mut now = 10;
        for period in [1, 2, 4, 8, 16, 30, 30] {
            assert!(
                breaker.is_open() && !breaker.may_try(at(now + period - 1)),
                "{period}"
            );
            now += period;
            assert!(breaker.may_try(at(now)), "{period}");
            breaker.fail(at(now));
        }
        assert!(breaker.succeed() && !breaker.is_open());
    }
}
