//! The experiments, one file a topic. Each is named after its row in the table of differences.

mod bodies;
mod calls;
mod headers;
mod lifecycle;
mod metrics;
mod properties;
mod queues;
mod replies;
mod shared_data;
mod traps;

use std::fmt::Display;

use crate::host::Answer;
use crate::stage::{Action, Turn};

/// What an entry does in each callback.
pub(crate) type Experiment = fn(&Turn) -> Action;

type Named = (&'static str, Experiment);

/// The experiment of a row.
pub(crate) fn named(id: &str) -> Option<Experiment> {
    [
        lifecycle::ALL,
        traps::ALL,
        headers::ALL,
        bodies::ALL,
        calls::ALL,
        replies::ALL,
        shared_data::ALL,
        queues::ALL,
        metrics::ALL,
        properties::ALL,
    ]
    .into_iter()
    .flatten()
    .find(|(name, _)| *name == id)
    .map(|(_, experiment)| *experiment)
}

/// `Ok`, or the status.
fn status<T>(answer: Answer<T>) -> String {
    match answer {
        Ok(_) => "Ok".to_owned(),
        Err(status) => status.to_string(),
    }
}

/// The bytes as text, `nothing` for none, or the status.
fn text(answer: Answer<Vec<u8>>) -> String {
    match answer {
        Ok(bytes) if bytes.is_empty() => "nothing".to_owned(),
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(status) => status.to_string(),
    }
}

/// The value, or the status.
fn value<T: Display>(answer: Answer<T>) -> String {
    match answer {
        Ok(value) => value.to_string(),
        Err(status) => status.to_string(),
    }
}
