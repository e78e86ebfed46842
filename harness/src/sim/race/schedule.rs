//! Who ran when, as little of it as has to be said.

use std::fmt;
use std::str::FromStr;

use crate::exchange::CallId;
use crate::sim::agenda::Source;
use crate::worker::{GrpcId, Timer};

/// Something that goes its way by itself, in steps: what comes from one source to one worker, or the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Lane {
    /// A worker's dealings with a source.
    Worker(usize, Source),
    /// Time passes until something is due.
    Clock,
}

impl Lane {
    pub(super) fn worker(self) -> Option<usize> {
        match self {
            Self::Worker(worker, _) => Some(worker),
            Self::Clock => None,
        }
    }
}

/// A departure from the way things go by themselves: before step `step` (from 0) of `from`, `to` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    /// The lane that ran last; `None` at the start.
    pub(super) from: Option<Lane>,
    pub(super) step: u32,
    pub(super) to: Lane,
}

/// An interleaving, written as its departures from the one in which each worker runs for as long as it has something
/// to do. It shows and reads as a short text, `0:c1/3>1:c2`: before step 3 of client 1 on worker 0, client 2 on worker 1
/// runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(pub(super) Vec<Switch>);

impl Schedule {
    /// How many departures there are.
    #[must_use]
    pub fn switches(&self) -> usize {
        self.0.len()
    }
}

/// Occurs when a text is no [`Schedule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no switch of a schedule: {0:?}; one looks like 0:c1/3>1:c2")]
pub struct ScheduleError(String);

const START: &str = "start";
const CLOCK: &str = "clock";

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, switch) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            match switch.from {
                Some(lane) => write!(f, "{space}{lane}/{}>{}", switch.step, switch.to)?,
                None => write!(f, "{space}{START}/{}>{}", switch.step, switch.to)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let switch = |text: &str| {
            let (from, to) = text.split_once('>')?;
            let (from, step) = from.rsplit_once('/')?;
            let from = match from {
                START => None,
                lane => Some(lane_of(lane)?),
            };
            Some(Switch {
                from,
                step: step.parse().ok()?,
                to: lane_of(to)?,
            })
        };
        text.split_whitespace()
            .map(|text| switch(text).ok_or_else(|| ScheduleError(text.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Worker(worker, source) = self else {
            return f.write_str(CLOCK);
        };
        match source {
            Source::Client(number) => write!(f, "{worker}:c{number}"),
            Source::Upstream(number) => write!(f, "{worker}:u{number}"),
            Source::Call(CallId(number)) => write!(f, "{worker}:k{number}"),
            Source::Grpc(GrpcId(number)) => write!(f, "{worker}:g{number}"),
            Source::Tick(Timer { slot, root }) => write!(f, "{worker}:t{slot}.{root}"),
            Source::Queue => write!(f, "{worker}:q"),
        }
    }
}

fn lane_of(text: &str) -> Option<Lane> {
    if text == CLOCK {
        return Some(Lane::Clock);
    }
    let (worker, source) = text.split_once(':')?;
    let (kind, number) = source.split_at_checked(1)?;
    let source = match kind {
        "c" => Source::Client(number.parse().ok()?),
        "u" => Source::Upstream(number.parse().ok()?),
        "k" => Source::Call(CallId(number.parse().ok()?)),
        "g" => Source::Grpc(GrpcId(number.parse().ok()?)),
        "t" => {
            let (slot, root) = number.split_once('.')?;
            Source::Tick(Timer {
                slot: slot.parse().ok()?,
                root: root.parse().ok()?,
            })
        }
        "q" if number.is_empty() => Source::Queue,
        _ => return None,
    };
    Some(Lane::Worker(worker.parse().ok()?, source))
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn a_schedule_reads_as_it_is_written() {
        let text = "start/0>1:c2 0:c1/3>1:u2 clock/0>2:k7 2:k7/1>0:g4 3:t0.1/12>clock 0:q/1>0:c1";
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.to_string(), text);
        assert_eq!(schedule.switches(), 6);
        assert_eq!("".parse(), Ok(Schedule::default()));
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        for text in [
            "0:c1/3",
            "0:x1/3>1:c2",
            "c1/3>1:c2",
            "0:c1/x>1:c2",
            "0:q1/0>clock",
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
