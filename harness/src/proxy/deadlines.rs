//! When a request has taken too long, and who is to blame.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Timeouts;
use super::failure::Failure;

/// The times of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    timeouts: Timeouts,
    began: Instant,
    moved: Instant,
}

/// What the request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The client is to send more of its request.
    Upload,
    /// The upstream is to take what it was sent, or to send more of its answer.
    Upstream,
    /// The upstream has the whole request and is to answer.
    Headers,
    /// The client is to read.
    Download,
    /// The filters hold it.
    Filters,
    /// Something with a timeout of its own: a filter's call, a tunnel.
    Other,
}

impl Deadlines {
    pub(super) fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self {
            timeouts,
            began: now,
            moved: now,
        }
    }

    /// The cluster is known now. The whole request's time has begun with the request.
    pub(super) fn adopt(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// A piece of the request or its answer went on.
    pub(super) fn moved(&mut self, now: Instant) {
        self.moved = now;
    }

    /// An answer of the proxy's own takes the place of what was waited for, and has all the time anew.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Self::new(self.timeouts, now);
    }

    /// When the wait is over, and what is then said to have happened; none: never.
    pub(super) fn next(&self, wait: Wait) -> Option<(Instant, Failure)> {
        let after = |time: Duration, failure| {
            // None: further away than the clock reaches.
            self.moved.checked_add(time).map(|due| (due, failure))
        };
        let idle = self.timeouts.idle;
        let stalled = match wait {
            Wait::Upload => after(idle, Failure::UploadIdle),
            Wait::Upstream => after(idle, Failure::UpstreamIdle),
            Wait::Headers => after(self.timeouts.headers, Failure::HeadersTimeout),
            Wait::Download => after(idle, Failure::DownloadIdle),
            Wait::Filters => after(idle, Failure::FiltersIdle),
            Wait::Other => None,
        };
        let whole = self
            .timeouts
            .whole
            .and_then(|time| self.began.checked_add(time))
            .map(|due| (due, Failure::Timeout));
        [stalled, whole]
            .into_iter()
            .flatten()
            .min_by_key(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn deadlines(whole: Option<Duration>) -> (Deadlines, Instant) {
        let now = Instant::now();
        let timeouts = Timeouts {
            headers: 3 * SECOND,
            idle: 5 * SECOND,
            whole,
        };
        (Deadlines::new(timeouts, now), now)
    }

    #[test]
    fn a_stream_that_moves_lives_for_ever_without_a_timeout_for_the_whole() {
        let (mut deadlines, now) = deadlines(None);
        for hour in 1..100 {
            let later = now + hour * 3600 * SECOND;
            deadlines.moved(later);
            let due = (later + 5 * SECOND, Failure::UpstreamIdle);
            assert_eq!(deadlines.next(Wait::Upstream), Some(due));
        }
        assert_eq!(deadlines.next(Wait::Other), None);
    }

    #[test]
    fn the_nearest_end_counts_and_names_who_is_waited_for() {
        let (mut deadlines, now) = deadlines(Some(7 * SECOND));
        let due = |deadlines: &Deadlines, wait| {
            let (due, failure) = deadlines.next(wait).unwrap();
            ((due - now).as_secs(), failure)
        };
        assert_eq!(due(&deadlines, Wait::Headers), (3, Failure::HeadersTimeout));
        assert_eq!(due(&deadlines, Wait::Upload), (5, Failure::UploadIdle));
        deadlines.moved(now + 3 * SECOND);
        assert_eq!(due(&deadlines, Wait::Headers), (6, Failure::HeadersTimeout));
        assert_eq!(due(&deadlines, Wait::Download), (7, Failure::Timeout));
        deadlines.restart(now + 7 * SECOND);
        assert_eq!(due(&deadlines, Wait::Download), (12, Failure::DownloadIdle));
    }
}
