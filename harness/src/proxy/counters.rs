//! What the proxy counts of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::recent::Recent;

/// Upper bounds of the buckets of request durations, in seconds: from an answer of a filter to a long stream.
pub(super) const DURATIONS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

use super::failure::Failures;

/// Figures of one proxy, shared by its workers.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) began: SystemTime,
    requests: Mutex<Requests>,
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
    /// Workers that ended by a panic.
    pub(super) died: AtomicU64,
    /// Lines that the access log could not take.
    pub(super) log_dropped: Arc<AtomicU64>,
    /// Callbacks of filters and functions of the host that they called.
    pub(super) callbacks: AtomicU64,
    pub(super) hostcalls: AtomicU64,
    /// Linear memory of the filters' VMs, those that only wait for their last request included, in bytes.
    pub(super) vm_memory: AtomicI64,
    /// The requests that ended last.
    pub(super) recent: Recent,
}

/// What is counted when a request is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// By the status that the client got.
    pub(super) by_status: BTreeMap<u16, u64>,
    pub(super) durations: Histogram,
    /// Bytes of bodies, from clients and to clients.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// By cluster and endpoint.
    pub(super) upstreams: BTreeMap<(String, String), Upstream>,
}

/// What one endpoint was asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Upstream {
    pub(super) requests: u64,
    /// Requests that it gave no answer to.
    pub(super) failures: u64,
    /// Until the answers' headers.
    pub(super) durations: Histogram,
}

/// Durations in the buckets of [`DURATIONS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// How many fell into each bucket alone; the last is for what is longer than all bounds.
    pub(super) buckets: [u64; DURATIONS.len() + 1],
    pub(super) sum: Duration,
}

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = DURATIONS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket = bucket.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(duration);
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished<'a> {
    pub(super) status: Option<u16>,
    pub(super) latency: Duration,
    pub(super) cluster: Option<&'a str>,
    pub(super) endpoint: Option<&'a str>,
    /// Until the upstream's headers; none where none came.
    pub(super) upstream_time: Option<Duration>,
    /// Whether it was the upstream's fault that none came.
    pub(super) upstream_failed: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            began: SystemTime::now(),
            requests: Mutex::default(),
            aborted: AtomicU64::default(),
            unreachable: AtomicU64::default(),
            failures: Failures::default(),
            traps: AtomicU64::default(),
            reloads: AtomicU64::default(),
            open: AtomicI64::default(),
            ready: AtomicU64::default(),
            died: AtomicU64::default(),
            log_dropped: Arc::default(),
            callbacks: AtomicU64::default(),
            hostcalls: AtomicU64::default(),
            vm_memory: AtomicI64::default(),
            recent: Recent::default(),
        }
    }
}

impl Counters {
    /// Counts a request that is over.
    pub(super) fn finished(&self, request: &Finished<'_>) {
        let mut requests = self.lock();
        if let Some(status) = request.status {
            let count = requests.by_status.entry(status).or_default();
            *count = count.saturating_add(1);
        }
        requests.durations.add(request.latency);
        requests.received = requests.received.saturating_add(request.received);
        requests.sent = requests.sent.saturating_add(request.sent);
        if let (Some(cluster), Some(endpoint)) = (request.cluster, request.endpoint) {
            let key = (cluster.to_owned(), endpoint.to_owned());
            let upstream = requests.upstreams.entry(key).or_default();
            upstream.requests = upstream.requests.saturating_add(1);
            upstream.failures = upstream
                .failures
                .saturating_add(u64::from(request.upstream_failed));
            if let Some(time) = request.upstream_time {
                upstream.durations.add(time);
            }
        }
    }

    /// Counts a request that was answered without having been read to the end of its head.
    pub(super) fn turned_away(&self, status: u16) {
        let mut requests = self.lock();
        let count = requests.by_status.entry(status).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts a request that found no connection to an endpoint, and asks another.
    pub(super) fn unconnected(&self, cluster: &str, endpoint: &str) {
        let mut requests = self.lock();
        let key = (cluster.to_owned(), endpoint.to_owned());
        let upstream = requests.upstreams.entry(key).or_default();
        upstream.requests = upstream.requests.saturating_add(1);
        upstream.failures = upstream.failures.saturating_add(1);
    }

    /// What was counted of the requests that are over.
    pub(super) fn requests(&self) -> Requests {
        self.lock().clone()
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

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
pub(super) struct Open<'a>(&'a AtomicI64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
