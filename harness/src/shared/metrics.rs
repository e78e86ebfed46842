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
    /// The metric does not take this.
    #[error("a metric of this kind does not take this")]
    Refused,
    /// No metric has this number.
    #[error("no such metric")]
    NotFound,
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

/// A number's low bits tell the kind, as Envoy's do.
const KIND_BITS: u32 = 2;
const KIND_MASK: u32 = (1 << KIND_BITS) - 1;

fn kind_bits(kind: MetricKind) -> u32 {
    match kind {
        MetricKind::Counter => 0,
        MetricKind::Gauge => 1,
        MetricKind::Histogram => 2,
    }
}

/// Envoy looks at the kind that a number claims before it looks whether there is such a metric.
fn refuse_histogram(misuse: MetricMisuse, id: u32) -> Result<(), MetricError> {
    let histogram = id & KIND_MASK == kind_bits(MetricKind::Histogram);
    if histogram && misuse == MetricMisuse::Answers {
        return Err(MetricError::Refused);
    }
    Ok(())
}

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
        let index = u32::try_from(self.metrics.len()).map_err(|_| MetricError::Refused)?;
        let id = index << KIND_BITS | kind_bits(kind);
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
        refuse_histogram(misuse, id)?;
        let metric = self.find(misuse, id)?;
        match metric.kind {
            MetricKind::Histogram => Err(MetricError::GotHistogram),
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
        refuse_histogram(misuse, id)?;
        let metric = self.find(misuse, id)?;
        match (metric.kind, misuse) {
            (MetricKind::Counter, MetricMisuse::Answers) if by <= 0 => {
                return Err(MetricError::Refused);
            }
            (MetricKind::Counter, _) | (MetricKind::Gauge, MetricMisuse::Answers) => {
                metric.value = metric.value.wrapping_add(by);
            }
            (MetricKind::Gauge | MetricKind::Histogram, _) => {
                return Err(MetricError::IncrementedNoCounter);
            }
        }
        Ok(())
    }

    pub(super) fn kind(&self, id: u32) -> Option<MetricKind> {
        let index = usize::try_from(id >> KIND_BITS).ok()?;
        self.metrics
            .get(index)
            .map(|(_, metric)| metric.kind)
            .filter(|kind| kind_bits(*kind) == id & KIND_MASK)
    }

    /// The name the filter gave it; its number where there is no such metric.
    pub(super) fn name(&self, id: u32) -> String {
        let index = usize::try_from(id >> KIND_BITS).ok();
        let metric = index.and_then(|index| self.metrics.get(index));
        metric.map_or_else(|| format!("#{id}"), |(name, _)| name.clone())
    }

    pub(super) fn all(&self) -> BTreeMap<String, Metric> {
        self.metrics.iter().cloned().collect()
    }

    fn find(&mut self, misuse: MetricMisuse, id: u32) -> Result<&mut Metric, MetricError> {
        let known = self.kind(id).is_some();
        usize::try_from(id >> KIND_BITS)
            .ok()
            .and_then(|index| self.metrics.get_mut(index))
            .map(|(_, metric)| metric)
            .filter(|_| known)
            .ok_or(match misuse {
                // No kind has these bits.
                MetricMisuse::Answers if id & KIND_MASK == KIND_MASK => MetricError::Refused,
                MetricMisuse::Answers => MetricError::NotFound,
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
        assert_eq!(metrics.get(Answers, 400), Err(MetricError::NotFound));
        assert_eq!(
            metrics.increment(Answers, 402, 1),
            Err(MetricError::Refused)
        );
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
