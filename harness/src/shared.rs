//! The state that all workers of a process share: shared data, queues, metrics.

mod data;
mod metrics;
mod queues;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use data::DataError;
pub use metrics::{Metric, MetricError};
pub use queues::QueueError;
pub(crate) use queues::{Reader, Wake};

use crate::abi::MetricKind;
use crate::profile::{Profile, Rules};
use data::Data;
use metrics::Metrics;
use queues::Queues;

/// Shared data, queues and metrics of one process. Calls lock; none waits for anything else.
#[derive(Debug)]
pub struct Shared {
    rules: &'static Rules,
    data: Mutex<Data>,
    queues: Mutex<Queues>,
    metrics: Mutex<Metrics>,
}

/// A lock whose holder panicked still guards whole values: every change under it is a single assignment or insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// An empty state that follows `profile`'s rules.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            rules: profile.rules(),
            data: Mutex::default(),
            queues: Mutex::default(),
            metrics: Mutex::default(),
        }
    }

    /// Every metric, by the name the filter gave it.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        lock(&self.metrics).all()
    }

    /// A shared value, as a filter's `get` finds it.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.data_get(key.as_bytes()).map(|(value, _)| value)
    }

    /// Puts a shared value there, whatever was there.
    pub fn put(&self, key: &str, value: &[u8]) {
        lock(&self.data).put(&self.rules.shared_data, key.as_bytes(), value);
    }

    /// Keys (by the bytes they were set under) and sizes of all shared values.
    #[must_use]
    pub fn sizes(&self) -> Vec<(Vec<u8>, usize)> {
        lock(&self.data).sizes()
    }

    /// Names of all queues (by the bytes they were registered under) and how many items each holds.
    #[must_use]
    pub fn queue_lengths(&self) -> Vec<(Vec<u8>, usize)> {
        lock(&self.queues).lengths()
    }

    pub(crate) fn data_get(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        lock(&self.data).get(&self.rules.shared_data, key)
    }

    /// `value` is `None` for the SDK's removal, which hands over a null pointer.
    pub(crate) fn data_set(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        cas: u32,
        capacity: usize,
    ) -> Result<(), DataError> {
        lock(&self.data).set(&self.rules.shared_data, key, value, cas, capacity)
    }

    /// A number for a worker, which is no other's.
    pub(crate) fn add_worker(&self) -> u64 {
        lock(&self.queues).add_worker()
    }

    pub(crate) fn remove_worker(&self, worker: u64) {
        let wakes = lock(&self.queues).remove_worker(worker);
        for wake in wakes {
            wake();
        }
    }

    /// From now on `wake` is called when something comes for the worker's readers.
    pub(crate) fn wake_worker_with(&self, worker: u64, wake: Wake) {
        let waiting = lock(&self.queues).set_wake(worker, Wake::clone(&wake));
        if waiting {
            wake();
        }
    }

    pub(crate) fn queue_register(&self, name: &[u8], reader: Reader) -> u32 {
        lock(&self.queues).register(name, reader)
    }

    pub(crate) fn queue_resolve(&self, name: &[u8]) -> Option<u32> {
        lock(&self.queues).resolve(name)
    }

    pub(crate) fn queue_push(&self, queue: u32, item: &[u8]) -> Result<(), QueueError> {
        let wake = lock(&self.queues).push(queue, item)?;
        if let Some(wake) = wake {
            wake();
        }
        Ok(())
    }

    pub(crate) fn queue_pop(&self, queue: u32) -> Result<Vec<u8>, QueueError> {
        lock(&self.queues).pop(queue)
    }

    /// The readers of a worker that are to be told, once for each item that came.
    pub(crate) fn queues_take_untold(&self, worker: u64) -> Vec<(u32, Reader)> {
        lock(&self.queues).take_untold(worker)
    }

    pub(crate) fn metric_define(&self, kind: MetricKind, name: &str) -> Result<u32, MetricError> {
        lock(&self.metrics).define(self.rules.metrics, kind, name)
    }

    pub(crate) fn metric_get(&self, id: u32) -> Result<u64, MetricError> {
        lock(&self.metrics).get(self.rules.metrics, id)
    }

    pub(crate) fn metric_record(&self, id: u32, value: u64) -> Result<(), MetricError> {
        lock(&self.metrics).record(self.rules.metrics, id, value)
    }

    pub(crate) fn metric_increment(&self, id: u32, by: i64) -> Result<(), MetricError> {
        lock(&self.metrics).increment(self.rules.metrics, id, by)
    }

    pub(crate) fn metric_kind(&self, id: u32) -> Option<MetricKind> {
        lock(&self.metrics).kind(id)
    }
}
