//! What filters do to the shared state, for whoever watches.

use std::fmt;

/// Watches the operations of filters on a [`super::Shared`], and decides when each may go on.
pub(crate) trait Watch: fmt::Debug + Send + Sync {
    /// A filter is about to do something. Another worker may run before this returns.
    fn before(&self);

    /// The filter did it. Nothing else was done since `before` returned.
    fn after(&self, operation: Operation, effect: Effect);
}

/// What a filter does to the shared state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads shared data.
    Get {
        /// Under which key.
        key: Vec<u8>,
    },
    /// Writes shared data.
    Set {
        /// Under which key.
        key: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
        /// The compare-and-set number it expects.
        cas: u32,
    },
    /// Removes shared data.
    Remove {
        /// Under which key.
        key: Vec<u8>,
        /// The compare-and-set number it expects.
        cas: u32,
    },
    /// Makes a queue, or finds the one there is.
    Register {
        /// The queue's name.
        queue: Vec<u8>,
    },
    /// Finds a queue.
    Resolve {
        /// The queue's name.
        queue: Vec<u8>,
    },
    /// Puts something into a queue.
    Push {
        /// The queue's number.
        queue: u32,
        /// What.
        item: Vec<u8>,
    },
    /// Takes something out of a queue.
    Pop {
        /// The queue's number.
        queue: u32,
    },
    /// Makes a metric, or finds the one there is.
    Define {
        /// The metric's name.
        metric: String,
    },
    /// Reads a metric.
    Read {
        /// The metric's name.
        metric: String,
    },
    /// Sets a gauge or adds a sample to a histogram.
    Record {
        /// The metric's name.
        metric: String,
        /// The value.
        value: u64,
    },
    /// Adds to a counter.
    Increment {
        /// The metric's name.
        metric: String,
        /// How much.
        by: i64,
    },
}

/// What came of an [`Operation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was done.
    Done,
    /// There is no such thing.
    Absent,
    /// These bytes were read, with this compare-and-set number (0 out of a queue).
    Found(Vec<u8>, u32),
    /// This number was read.
    Number(u64),
    /// The host refused it, for this reason.
    Refused(String),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get { key } => write!(f, "get {}", Excerpt(key)),
            Self::Set { key, value, cas } => {
                write!(f, "set {} = {} cas {cas}", Excerpt(key), Excerpt(value))
            }
            Self::Remove { key, cas } => write!(f, "remove {} cas {cas}", Excerpt(key)),
            Self::Register { queue } => write!(f, "register queue {}", Excerpt(queue)),
            Self::Resolve { queue } => write!(f, "resolve queue {}", Excerpt(queue)),
            Self::Push { queue, item } => write!(f, "push {} into queue {queue}", Excerpt(item)),
            Self::Pop { queue } => write!(f, "pop from queue {queue}"),
            Self::Define { metric } => write!(f, "define metric {metric}"),
            Self::Read { metric } => write!(f, "read metric {metric}"),
            Self::Record { metric, value } => write!(f, "record {value} in metric {metric}"),
            Self::Increment { metric, by } => write!(f, "add {by} to metric {metric}"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Absent => f.write_str("there is none"),
            Self::Found(bytes, 0) => write!(f, "{}", Excerpt(bytes)),
            Self::Found(bytes, cas) => write!(f, "{} cas {cas}", Excerpt(bytes)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

/// The beginning of some bytes, escaped.
struct Excerpt<'a>(&'a [u8]);

/// How many bytes of a key or value are shown.
const SHOWN: usize = 48;

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN).unwrap_or(self.0);
        write!(f, "\"{}\"", shown.escape_ascii())?;
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} bytes more"),
            _ => Ok(()),
        }
    }
}
