//! Counters, gauges and histograms.

use std::collections::{BTreeMap, HashMap};

use crate::abi::MetricKind;
use crate::profile::MetricMisuse;

/// A metric's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its kind.
    pub kind: MetricKind,
    /// What a counter or gauge shows.
    pub value: i64,
    /// What was recorded in a histogram, in order of value: how often each.
    pub samples: BTreeMap<u64, u64>,
}

/// Why a metric was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Answered with `BadArgument`.
    #[error("the metric does not exist or does not take this")]
    Refused,
    /// No metric has this number, on a host that traps.
    #[error("could not find the metric of this id")]
    Unknown,
    /// Increment of something else than a counter, on a host that traps.
    #[error("can only increment counters")]
    IncrementedNoCounter,
    /// Record of a counter, on a host that traps.
    #[error("can only record gauges and histograms")]
    RecordedCounter,
    /// Get of a histogram, on a host that traps.
    #[error("can't get a histogram")]
    GotHistogram,
    /// The name is longer than the host takes.
    #[error("the metric's name is too long")]
    NameTooLong,
}

/// The longest name that Kong takes, its `pw:<module>:` prefix included. The prefix is counted with a module name of 32
/// bytes here, so that a name that passes fits for any module.
const NAME_LIMIT: usize = 256 - "pw::".len() - 32;

#[derive(Debug, Default)]
pub(super) struct Metrics {
    ids: HashMap<String, u32>,
    metrics: Vec<(String, Metric)>,
}

impl Metrics {
    pub(super) fn define(
        &mut self,
        misuse: MetricMisuse,
        kind: MetricKind,
        name: &str,
    ) -> Result<u32, MetricError> {
        if misuse == MetricMisuse::Traps && name.len() > NAME_LIMIT {
            return Err(MetricError::NameTooLong);
        }
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let id = u32::try_from(self.metrics.len()).map_err(|_| MetricError::Refused)?;
        let metric = Metric {
            kind,
            value: 0,
            samples: BTreeMap::new(),
        };
        self.metrics.push((name.to_owned(), metric));
        self.ids.insert(name.to_owned(), id);
        Ok(id)
    }

    pub(super) fn get(&mut self, misuse: MetricMisuse, id: u32) -> Result<u64, MetricError> {
        let metric = self.find(misuse, id)?;
        match (metric.kind, misuse) {
            (MetricKind::Histogram, MetricMisuse::Answers) => Err(MetricError::Refused),
            (MetricKind::Histogram, MetricMisuse::Traps) => Err(MetricError::GotHistogram),
            _ => Ok(metric.value.cast_unsigned()),
        }
    }

    pub(super) fn record(
        &mut self,
        misuse: MetricMisuse,
        id: u32,
        value: u64,
    ) -> Result<(), MetricError> {
        let metric = self.find(misuse, id)?;
        match (metric.kind, misuse) {
            (MetricKind::Gauge, _) => metric.value = value.cast_signed(),
            (MetricKind::Histogram, _) => *metric.samples.entry(value).or_default() += 1,
            (MetricKind::Counter, MetricMisuse::Answers) => {
                metric.value = metric.value.wrapping_add(value.cast_signed());
            }
            (MetricKind::Counter, MetricMisuse::Traps) => return Err(MetricError::RecordedCounter),
        }
        Ok(())
    }

    pub(super) fn increment(
        &mut self,
        misuse: MetricMisuse,
        id: u32,
        by: i64,
    ) -> Result<(), MetricError> {
        let metric = self.find(misuse, id)?;
        match (metric.kind, misuse) {
            (MetricKind::Counter, MetricMisuse::Answers) if by <= 0 => {
                return Err(MetricError::Refused);
            }
            (MetricKind::Counter, _) | (MetricKind::Gauge, MetricMisuse::Answers) => {
                metric.value = metric.value.wrapping_add(by);
            }
            (MetricKind::Histogram, MetricMisuse::Answers) => return Err(MetricError::Refused),
            (_, MetricMisuse::Traps) => return Err(MetricError::IncrementedNoCounter),
        }
        Ok(())
    }

    pub(super) fn kind(&self, id: u32) -> Option<MetricKind> {
        let index = usize::try_from(id).ok()?;
        self.metrics.get(index).map(|(_, metric)| metric.kind)
    }

    pub(super) fn all(&self) -> BTreeMap<String, Metric> {
        self.metrics.iter().cloned().collect()
    }

    fn find(&mut self, misuse: MetricMisuse, id: u32) -> Result<&mut Metric, MetricError> {
        usize::try_from(id)
            .ok()
            .and_then(|index| self.metrics.get_mut(index))
            .map(|(_, metric)| metric)
            .ok_or(match misuse {
                MetricMisuse::Answers => MetricError::Refused,
                MetricMisuse::Traps => MetricError::Unknown,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{MetricError, Metrics};
    use crate::abi::MetricKind;
    use crate::profile::MetricMisuse::{Answers, Traps};

    #[test]
    fn envoy_refuses_counters_that_do_not_grow_and_lets_gauges_be_incremented() {
        let mut metrics = Metrics::default();
        let counter = metrics.define(Answers, MetricKind::Counter, "c").unwrap();
        let gauge = metrics.define(Answers, MetricKind::Gauge, "g").unwrap();
        assert_eq!(
            metrics.increment(Answers, counter, 0),
            Err(MetricError::Refused)
        );
        assert_eq!(metrics.increment(Answers, counter, 2), Ok(()));
        assert_eq!(metrics.record(Answers, counter, 3), Ok(()));
        assert_eq!(metrics.get(Answers, counter), Ok(5));
        assert_eq!(metrics.increment(Answers, gauge, -2), Ok(()));
        assert_eq!(metrics.all()["g"].value, -2);
        assert_eq!(metrics.get(Answers, 7), Err(MetricError::Refused));
    }

    #[test]
    fn kong_traps_on_the_wrong_kind() {
        let mut metrics = Metrics::default();
        let counter = metrics.define(Traps, MetricKind::Counter, "c").unwrap();
        let gauge = metrics.define(Traps, MetricKind::Gauge, "g").unwrap();
        let histogram = metrics.define(Traps, MetricKind::Histogram, "h").unwrap();
        assert_eq!(metrics.increment(Traps, counter, -1), Ok(()));
        assert_eq!(
            metrics.increment(Traps, gauge, 1),
            Err(MetricError::IncrementedNoCounter)
        );
        assert_eq!(
            metrics.record(Traps, counter, 1),
            Err(MetricError::RecordedCounter)
        );
        assert_eq!(
            metrics.get(Traps, histogram),
            Err(MetricError::GotHistogram)
        );
        assert_eq!(metrics.get(Traps, 7), Err(MetricError::Unknown));
        assert_eq!(
            metrics.define(Traps, MetricKind::Counter, &"n".repeat(300)),
            Err(MetricError::NameTooLong)
        );
    }
}
