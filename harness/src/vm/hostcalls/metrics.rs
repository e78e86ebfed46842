//! Metrics.

use super::Answer;
use crate::abi::{MetricKind, Status};
use crate::profile::{Host, Row};
use crate::shared::MetricError;
use crate::vm::memory::{Env, Refusal};

impl From<MetricError> for Refusal {
    fn from(error: MetricError) -> Self {
        match error {
            MetricError::Refused => Self::Status(Status::BadArgument),
            MetricError::NotFound => Self::Status(Status::NotFound),
            MetricError::Unknown => Self::Trap("could not find the metric of this id"),
            MetricError::IncrementedNoCounter => Self::Trap("can only increment counters"),
            MetricError::RecordedCounter => Self::Trap("can only record gauges and histograms"),
            MetricError::GotHistogram => Self::Trap("can't get a histogram"),
            MetricError::NameTooLong => Self::Trap("the metric's name is too long"),
        }
    }
}

pub(super) fn define(env: &mut Env<'_>, kind: u32, name: u32, name_len: u32, out: u32) -> Answer {
    let kind = MetricKind::from_raw(kind).ok_or(Status::BadArgument)?;
    let name = env.read(name, name_len)?;
    let name = String::from_utf8(name).map_err(|_| Status::BadArgument)?;
    let id = env.guest().setup.shared.metric_define(kind, &name)?;
    env.write_u32(out, id)
}

pub(super) fn get(env: &mut Env<'_>, id: u32, out: u32) -> Answer {
    note(env, id, &[MetricKind::Counter, MetricKind::Gauge]);
    let value = env.guest().setup.shared.metric_get(id)?;
    env.write_u64(out, value)
}

pub(super) fn record(env: &mut Env<'_>, id: u32, value: u64) -> Answer {
    note(env, id, &[MetricKind::Gauge, MetricKind::Histogram]);
    Ok(env.guest().setup.shared.metric_record(id, value)?)
}

pub(super) fn increment(env: &mut Env<'_>, id: u32, by: i64) -> Answer {
    note(env, id, &[MetricKind::Counter]);
    let guest = env.guest();
    if by <= 0 && guest.setup.shared.metric_kind(id) == Some(MetricKind::Counter) {
        guest.find(Host::Envoy, Row::CounterDown);
    }
    Ok(env.guest().setup.shared.metric_increment(id, by)?)
}

/// Notes a use that only some kinds take everywhere.
fn note(env: &mut Env<'_>, id: u32, kinds: &[MetricKind]) {
    let guest = env.guest();
    let kind = guest.setup.shared.metric_kind(id);
    if kind.is_none_or(|kind| !kinds.contains(&kind)) {
        guest.find(Host::Kong, Row::MetricKind);
    }
}
