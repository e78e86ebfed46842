//! The state that all workers of a process share: shared data, queues, metrics.

mod data;
mod metrics;
mod operation;
mod queues;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use data::DataError;
pub use metrics::{Metric, MetricError};
pub use operation::{Effect, Operation};
pub use queues::QueueError;
pub(crate) use queues::{Reader, Wake};

use crate::abi::MetricKind;
use crate::profile::{Profile, Rules};
pub(crate) use operation::Watch;

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
    /// Nobody, but in a race.
    watch: Option<Arc<dyn Watch>>,
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
            watch: None,
        }
    }

    /// An empty state whose operations `watch` lets happen one by one.
    pub(crate) fn watched(profile: Profile, watch: Arc<dyn Watch>) -> Self {
        Self {
            watch: Some(watch),
            ..Self::new(profile)
        }
    }

    /// Does an operation of a filter, where somebody watches at the moment that he allows.
    fn operate<T>(
        &self,
        work: impl FnOnce() -> T,
        describe: impl FnOnce(&T) -> (Operation, Effect),
    ) -> T {
        let Some(watch) = &self.watch else {
            return work();
        };
        watch.before();
        let result = work();
        let (operation, effect) = describe(&result);
        watch.after(operation, effect);
        result
    }

    /// Every metric, by the name the filter gave it.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        lock(&self.metrics).all()
    }

    /// A shared value, as a filter's `get` finds it.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        let found = lock(&self.data).get(&self.rules.shared_data, key.as_bytes());
        found.map(|(value, _)| value)
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
        self.operate(
            || lock(&self.data).get(&self.rules.shared_data, key),
            |found| {
                let effect = match found {
                    Some((value, cas)) => Effect::Found(value.clone(), *cas),
                    None => Effect::Absent,
                };
                (Operation::Get { key: key.to_vec() }, effect)
            },
        )
    }

    /// Whether there is such a value, asked by the host and not by a filter.
    pub(crate) fn data_present(&self, key: &[u8]) -> bool {
        lock(&self.data).contains(&self.rules.shared_data, key)
    }

    /// `value` is `None` for the SDK's removal, which hands over a null pointer.
    pub(crate) fn data_set(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        cas: u32,
        capacity: usize,
    ) -> Result<(), DataError> {
        self.operate(
            || lock(&self.data).set(&self.rules.shared_data, key, value, cas, capacity),
            |written| {
                let key = key.to_vec();
                let operation = match value.map(<[u8]>::to_vec) {
                    Some(value) => Operation::Set { key, value, cas },
                    None => Operation::Remove { key, cas },
                };
                (operation, done(written))
            },
        )
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
        self.operate(
            || lock(&self.queues).register(name, reader),
            |id| {
                let queue = name.to_vec();
                (Operation::Register { queue }, Effect::Number((*id).into()))
            },
        )
    }

    pub(crate) fn queue_resolve(&self, name: &[u8]) -> Option<u32> {
        self.operate(
            || lock(&self.queues).resolve(name),
            |id| {
                let queue = name.to_vec();
                let effect = id.map_or(Effect::Absent, |id| Effect::Number(id.into()));
                (Operation::Resolve { queue }, effect)
            },
        )
    }

    pub(crate) fn queue_push(&self, queue: u32, item: &[u8]) -> Result<(), QueueError> {
        let pushed = self.operate(
            || lock(&self.queues).push(queue, item),
            |pushed| {
                let item = item.to_vec();
                (Operation::Push { queue, item }, done(pushed))
            },
        );
        if let Some(wake) = pushed? {
            wake();
        }
        Ok(())
    }

    pub(crate) fn queue_pop(&self, queue: u32) -> Result<Vec<u8>, QueueError> {
        self.operate(
            || lock(&self.queues).pop(queue),
            |popped| {
                let effect = match popped {
                    Ok(item) => Effect::Found(item.clone(), 0),
                    Err(error) => Effect::Refused(error.to_string()),
                };
                (Operation::Pop { queue }, effect)
            },
        )
    }

    /// The readers of a worker that are to be told now, once for each item that came. In a race there are none: who
    /// watches says when each is told.
    pub(crate) fn queues_take_untold(&self, worker: u64) -> Vec<(u32, Reader)> {
        match self.watch {
            None => lock(&self.queues).take_untold(worker),
            Some(_) => Vec::new(),
        }
    }

    /// The reader of a worker that is to be told next, for whoever watches.
    pub(crate) fn queues_take_next_untold(&self, worker: u64) -> Option<(u32, Reader)> {
        lock(&self.queues).take_next_untold(worker)
    }

    /// Whether a worker has readers that are to be told of something.
    pub(crate) fn queues_have_untold(&self, worker: u64) -> bool {
        lock(&self.queues).has_untold(worker)
    }

    pub(crate) fn metric_define(&self, kind: MetricKind, name: &str) -> Result<u32, MetricError> {
        self.operate(
            || lock(&self.metrics).define(self.rules.metrics, kind, name),
            |defined| {
                let metric = name.to_owned();
                (Operation::Define { metric }, done(defined))
            },
        )
    }

    pub(crate) fn metric_get(&self, id: u32) -> Result<u64, MetricError> {
        self.operate(
            || lock(&self.metrics).get(self.rules.metrics, id),
            |read| {
                let metric = lock(&self.metrics).name(id);
                let effect = match read {
                    Ok(value) => Effect::Number(*value),
                    Err(error) => Effect::Refused(error.to_string()),
                };
                (Operation::Read { metric }, effect)
            },
        )
    }

    pub(crate) fn metric_record(&self, id: u32, value: u64) -> Result<(), MetricError> {
        self.operate(
            || lock(&self.metrics).record(self.rules.metrics, id, value),
            |recorded| {
                let metric = lock(&self.metrics).name(id);
                (Operation::Record { metric, value }, done(recorded))
            },
        )
    }

    pub(crate) fn metric_increment(&self, id: u32, by: i64) -> Result<(), MetricError> {
        self.operate(
            || lock(&self.metrics).increment(self.rules.metrics, id, by),
            |incremented| {
                let metric = lock(&self.metrics).name(id);
                (Operation::Increment { metric, by }, done(incremented))
            },
        )
    }

    pub(crate) fn metric_kind(&self, id: u32) -> Option<MetricKind> {
        lock(&self.metrics).kind(id)
    }
}

fn done<T, E: std::fmt::Display>(result: &Result<T, E>) -> Effect {
    match result {
        Ok(_) => Effect::Done,
        Err(error) => Effect::Refused(error.to_string()),
    }
}
