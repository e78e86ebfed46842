//! What filters log.

use std::fmt;

use crate::abi::LogLevel;

/// One line that a filter logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The filter entry that logged it.
    pub filter: String,
    /// How important it is.
    pub level: LogLevel,
    /// The text; bytes that are no UTF-8 are replaced.
    pub message: String,
}

impl LogLine {
    /// How many lines a worker keeps for a driver that does not fetch them; the oldest go first.
    pub const KEPT: usize = 10_000;
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}] {}: {}", self.level, self.filter, self.message)
    }
}
