//! What a filter did that another host would not stand.

use std::fmt;

use super::Difference;

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
    /// The row that the act falls under.
    pub row: Row,
    /// The filter entry's callback in which it happened first.
    pub callback: &'static str,
}

impl Finding {
    /// The row of the table.
    #[must_use]
    pub fn difference(&self) -> Option<&'static Difference> {
        Difference::named(self.row.id())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.host {
            Host::Envoy => "envoy",
            Host::Kong => "kong",
        };
        let id = self.row.id();
        write!(f, "{host} profile, {id}, in {}", self.callback)?;
        match self.difference() {
            Some(row) => write!(f, ": {}: {}", row.act, row.on(self.host).does),
            None => Ok(()),
        }
    }
}

/// The acts that a run is watched for, whatever its profile. Each is a row of the table of differences.
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
    /// Two replies in one callback.
    ReplyTwice,
    /// A queue registered.
    SharedQueue,
    /// A body read where the host of the other kind traps.
    AbsentBody,
    /// A request header set that came more than once.
    SetDuplicatedRequest,
    /// A response header set that came more than once.
    SetDuplicatedResponse,
    /// A line added of a header that nginx knows.
    AddBuiltin,
    /// A property read while starting.
    PropertyInConfigure,
    /// A call's headers read outside of its callback.
    CallHeadersOutside,
    /// A counter incremented by 0 or less.
    CounterDown,
    /// A tick period set in a stream's callback.
    TickInStream,
    /// A function imported whose import alone is fatal.
    FatalImport,
    /// A header removed that was not there, of those that must be.
    FatalRemoval,
}

impl Row {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::CallPhase,
        Self::CallThenContinue,
        Self::PauseWithoutCall,
        Self::TickSetAgain,
        Self::WholeMap,
        Self::BufferOffset,
        Self::BufferReplacement,
        Self::MissingFunction,
        Self::PropertySet,
        Self::MetricKind,
        Self::UnconditionalWrite,
        Self::LateReply,
        Self::ReplyTwice,
        Self::SharedQueue,
        Self::AbsentBody,
        Self::SetDuplicatedRequest,
        Self::SetDuplicatedResponse,
        Self::AddBuiltin,
        Self::PropertyInConfigure,
        Self::CallHeadersOutside,
        Self::CounterDown,
        Self::TickInStream,
        Self::FatalImport,
        Self::FatalRemoval,
    ];

    /// The id of its row in the table of differences.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::CallPhase => "call-phase",
            Self::CallThenContinue => "call-then-continue",
            Self::PauseWithoutCall => "headers-pause",
            Self::TickSetAgain => "tick-again",
            Self::WholeMap => "whole-map",
            Self::BufferOffset => "buffer-offset",
            Self::BufferReplacement => "buffer-replacement",
            Self::MissingFunction => "missing-function",
            Self::PropertySet => "property-set",
            Self::MetricKind => "gauge-increment",
            Self::UnconditionalWrite => "shared-data-cas-zero",
            Self::LateReply => "reply-in-response-headers",
            Self::ReplyTwice => "reply-twice",
            Self::SharedQueue => "queue-ready",
            Self::AbsentBody => "absent-body",
            Self::SetDuplicatedRequest => "set-duplicated-request",
            Self::SetDuplicatedResponse => "set-duplicated-response",
            Self::AddBuiltin => "add-builtin",
            Self::PropertyInConfigure => "property-in-configure",
            Self::CallHeadersOutside => "call-headers-outside",
            Self::CounterDown => "counter-down",
            Self::TickInStream => "tick-in-stream",
            Self::FatalRemoval => "absent-header-removal",
            Self::FatalImport => "log-level-import",
        }
    }
}
