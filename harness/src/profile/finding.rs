//! What a filter did that another host would not stand.

use std::fmt;

/// A host that filters are deployed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Envoy and Istio.
    Envoy,
    /// Kong Gateway.
    Kong,
}

/// One act that does not work everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    /// The host that would break.
    pub host: Host,
    /// The rule that the act breaks.
    pub row: Row,
    /// The filter entry's callback in which it happened first.
    pub callback: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.host {
            Host::Envoy => "Envoy",
            Host::Kong => "Kong",
        };
        write!(f, "{host}: {} (in {})", self.row.text(), self.callback)
    }
}

/// The rules of portability that a run is checked against, whatever its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// A call made outside of request headers, request body, tick and call response.
    CallPhase,
    /// `Continue` with a call under way.
    CallThenContinue,
    /// `Pause` from request headers or body with no call under way.
    PauseWithoutCall,
    /// A tick period set twice.
    TickSetAgain,
    /// A whole header map of more than 100 lines read.
    WholeMap,
    /// A buffer read from elsewhere than its start.
    BufferOffset,
    /// A buffer replaced by something longer than the length given.
    BufferReplacement,
    /// A function used that the host has not.
    MissingFunction,
    /// A property set that the host refuses.
    PropertySet,
    /// A metric used in another way than its kind allows.
    MetricKind,
    /// Shared data written unconditionally (`cas` 0).
    UnconditionalWrite,
    /// A local reply from a response phase.
    LateReply,
}

impl Row {
    /// The rule and what happens to those who break it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::CallPhase => "a call in this phase traps",
            Self::CallThenContinue => "a call made and `Continue` returned crashes the worker",
            Self::PauseWithoutCall => "`Pause` without a call under way hangs the request for ever",
            Self::TickSetAgain => "setting the tick period again traps",
            Self::WholeMap => "a map of more than 100 lines arrives broken",
            Self::BufferOffset => "a buffer is always read from its start, whatever the offset",
            Self::BufferReplacement => {
                "a replacement is cut to the length given: give the largest there is"
            }
            Self::MissingFunction => "the function traps",
            Self::PropertySet => "setting this property is refused",
            Self::MetricKind => "this use of a metric of this kind traps",
            Self::UnconditionalWrite => "a `cas` of 0 means `only if absent`",
            Self::LateReply => "a reply from a response phase traps, or leaves the client hanging",
        }
    }
}
