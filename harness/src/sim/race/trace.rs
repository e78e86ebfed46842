//! What happened in a race, in order.

use std::fmt;
use std::time::Duration;

use super::schedule::Lane;
use crate::shared::{Effect, Operation};
use crate::sim::agenda::Source;

/// One step of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub(super) lane: Lane,
    pub(super) what: What,
    /// Whether the worker that ran before was in the middle of a callback.
    pub(super) preempts: bool,
}

/// What was done in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A source told the worker something.
    Event(String),
    /// A filter did something to the shared state.
    Operation(Operation, Effect),
    /// So much time passed.
    Time(Duration),
}

impl Step {
    /// The worker, where it is one's.
    #[must_use]
    pub fn worker(&self) -> Option<usize> {
        self.lane.worker()
    }

    /// What a filter did to the shared state, where it did something.
    #[must_use]
    pub fn operation(&self) -> Option<(&Operation, &Effect)> {
        match &self.what {
            What::Operation(operation, effect) => Some((operation, effect)),
            What::Event(_) | What::Time(_) => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.preempts { '*' } else { ' ' };
        let who = match self.lane {
            Lane::Clock => "clock".to_owned(),
            Lane::Worker(worker, source) => {
                let source = match source {
                    Source::Client(number) => format!("client {number}"),
                    Source::Upstream(number) => format!("upstream {number}"),
                    Source::Call(call) => format!("call {}", call.0),
                    Source::Grpc(call) => format!("gRPC {}", call.0),
                    Source::Tick(timer) => format!("tick {}.{}", timer.slot, timer.root),
                    Source::Queue => "queue".to_owned(),
                };
                format!("worker {worker}, {source}")
            }
        };
        match &self.what {
            What::Event(event) => write!(f, "{mark} {who:<22} {event}"),
            What::Operation(operation, effect) => {
                write!(f, "{mark} {who:<22}   {operation}: {effect}")
            }
            What::Time(time) => write!(f, "{mark} {who:<22} {time:?} later"),
        }
    }
}
