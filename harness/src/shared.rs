//! The state that all workers of a process share: shared data, queues, metrics.

use std::collections::BTreeMap;

use crate::abi::MetricKind;
use crate::profile::Profile;

/// Shared data, queues and metrics of one process. Calls lock; none waits for anything else.
#[derive(Debug)]
pub struct Shared {}

/// A metric's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its kind.
    pub kind: MetricKind,
    /// What a counter or gauge shows.
    pub value: i64,
    /// What was recorded in a histogram, in order of value: how often each.
    pub samples: BTreeMap<u64, u64>,
}

impl Shared {
    /// An empty state that follows `profile`'s rules.
    #[must_use]
    pub fn new(_profile: Profile) -> Self {
        Self {}
    }

    /// Every metric, by the name the filter gave it.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        BTreeMap::new()
    }

    /// A shared value, as a filter's `get` finds it.
    #[must_use]
    pub fn value(&self, _key: &str) -> Option<Vec<u8>> {
        None
    }

    /// Puts a shared value there, whatever was there.
    pub fn put(&self, _key: &str, _value: &[u8]) {}

    /// Keys (by the bytes they were set under) and sizes of all shared values.
    #[must_use]
    pub fn sizes(&self) -> Vec<(Vec<u8>, usize)> {
        Vec::new()
    }
}
