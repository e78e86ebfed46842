//! What the proxy counts of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::failure::Failures;

/// Figures of one proxy, shared by its workers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: Mutex<BTreeMap<u16, u64>>,
    /// Requests whose client went away before the end of the answer.
    pub(super) aborted: AtomicU64,
    /// Requests that found no upstream.
    pub(super) unreachable: AtomicU64,
    /// Requests that the proxy itself ended, by reason.
    pub(super) failures: Failures,
    /// Traps of filters.
    pub(super) traps: AtomicU64,
    /// VMs made anew after a trap.
    pub(super) reloads: AtomicU64,
    /// Requests under way.
    pub(super) open: AtomicI64,
    /// Workers whose filters are configured and that take connections.
    pub(super) ready: AtomicU64,
}

impl Counters {
    /// Counts a request by the status that its client got.
    pub(super) fn answered(&self, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let count = requests.entry(status).or_default();
        *count = count.saturating_add(1);
    }

    /// Requests by status.
    pub(super) fn requests(&self) -> BTreeMap<u16, u64> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Adds one.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request as under way until the answer is dropped.
    pub(super) fn opened(&self) -> Open<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(&self.open)
    }
}

/// A request under way.
pub(super) struct Open<'a>(&'a AtomicI64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
