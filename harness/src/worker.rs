//! A worker: the filters of one thread and the exchanges that pass through them.
//!
//! It does no I/O and reads no clock of its own: a driver feeds [`Event`]s, does the [`Action`]s and makes the calls.

mod clock;
mod limits;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use clock::{Clock, SystemClock, VirtualClock};
pub use limits::Limits;

use crate::engine::{Engine, Module};
use crate::exchange::{Action, Call, CallId, CallOutcome, Event, ExchangeId, Peer};
use crate::profile::{Finding, Knobs, Profile};
use crate::shared::Shared;
use crate::vm::{Cost, Faults, LogLine, TrapReport};

/// One entry of a chain: a module with a configuration. Entries with the same module and environment share a VM and
/// have a root context each.
#[derive(Clone, Debug)]
pub struct FilterSpec {
    /// Names the entry in logs and reports.
    pub name: String,
    /// The compiled module.
    pub module: Module,
    /// What the filter reads as its configuration, mostly JSON.
    pub configuration: Vec<u8>,
    /// The environment the VM sees. Kong gives filters none.
    pub environment: Vec<(String, String)>,
    /// What becomes of requests when the VM is dead. Kong does not let one choose: its profile ignores this.
    pub on_trap: FailurePolicy,
}

/// What becomes of requests once a VM has trapped: Envoy's `failure_policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailurePolicy {
    /// Every later request answers 503.
    #[default]
    Closed,
    /// Every later request passes without the filter.
    Open,
    /// The next request gets a new VM.
    Reload,
}

/// All that a worker needs besides its filters.
#[derive(Clone)]
pub struct Setup {
    /// Whose behaviour to show.
    pub profile: Profile,
    /// What an operator sets on that host.
    pub knobs: Knobs,
    /// The process-wide state.
    pub shared: Arc<Shared>,
    /// What a guest may use.
    pub limits: Limits,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// The clusters that a call may name, where the profile knows clusters; `None`: any.
    pub clusters: Option<BTreeSet<String>>,
    /// Seeds the guests' random numbers; `None`: the system's.
    pub seed: Option<u64>,
    /// Host functions that fail on purpose.
    pub faults: Faults,
}

impl Setup {
    /// A worker of `profile` with the system's clock, default limits and a state of its own.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            knobs: Knobs::default(),
            shared: Arc::new(Shared::new(profile)),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            clusters: None,
            seed: None,
            faults: Faults::new(),
        }
    }
}

/// Why a worker can't start. Carries what the filter logged, since the filter's own words tell what to mend.
#[derive(Debug)]
pub struct StartError {
    /// The filter entry.
    pub filter: String,
    /// What happened.
    pub cause: StartFailure,
    /// What the filter logged until then.
    pub logs: Vec<LogLine>,
}

/// The ways in which a filter does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// `on_vm_start` answered false.
    #[error("the filter refused to start (on_vm_start answered false)")]
    VmStartRefused,
    /// `on_configure` answered false.
    #[error("the filter refused its configuration")]
    ConfigurationRefused,
    /// A callback trapped.
    #[error("{0}")]
    Trapped(Box<TrapReport>),
    /// The module can't be instantiated.
    #[error("the module can't be instantiated: {0}")]
    Instantiate(wasmtime::Error),
    /// The profile's host dies on an import that the ABI allows.
    #[error(
        "importing `{0}` kills every worker of the host of this profile; build the filter without it"
    )]
    FatalImport(&'static str),
}

/// The filters of one thread.
pub struct Worker {}

impl Worker {
    /// Makes the VMs, runs `on_vm_start` and `on_configure` of every entry.
    ///
    /// # Errors
    /// When a module can't be instantiated, or a filter traps or refuses its configuration.
    pub fn start(
        _engine: &Engine,
        _setup: Setup,
        _filters: Vec<FilterSpec>,
    ) -> Result<Self, StartError> {
        Ok(Self {})
    }

    /// Begins an exchange through the entries `filters`, in the order of a route's chain. Indices that name no entry
    /// are left out.
    pub fn open(&mut self, _filters: &[usize], _peer: Peer) -> ExchangeId {
        ExchangeId(0)
    }

    /// Feeds one event. Events of an exchange that is closed are ignored.
    pub fn deliver(&mut self, _id: ExchangeId, _event: Event) {}

    /// What the driver must do now, in order.
    pub fn take_actions(&mut self, _id: ExchangeId) -> Vec<Action> {
        Vec::new()
    }

    /// The exchanges that have actions waiting: a tick or another exchange's callback may have resumed them.
    pub fn with_actions(&self) -> Vec<ExchangeId> {
        Vec::new()
    }

    /// Ends an exchange, done or aborted: `on_log`, `on_done` and `on_delete` run in the profile's order.
    pub fn close(&mut self, _id: ExchangeId) {}

    /// How many bytes of the request and of the response the filters hold: a driver stops reading above its limit.
    pub fn held(&self, _id: ExchangeId) -> (usize, usize) {
        (0, 0)
    }

    /// How long until the next tick is due, by the clock; `None` without ticks.
    pub fn next_tick(&self) -> Option<Duration> {
        None
    }

    /// Runs the ticks that are due, and tells queues' readers what came.
    pub fn tick_due(&mut self) {}

    /// Calls made by root contexts (in `on_configure`, ticks), to be answered by [`Worker::root_call_done`].
    pub fn take_root_calls(&mut self) -> Vec<Call> {
        Vec::new()
    }

    /// Ends a call of a root context.
    pub fn root_call_done(&mut self, _id: CallId, _outcome: CallOutcome) {}

    /// The log lines since the last time. At most [`LogLine::KEPT`] are kept.
    pub fn take_logs(&mut self) -> Vec<LogLine> {
        Vec::new()
    }

    /// Every trap so far.
    pub fn traps(&self) -> &[TrapReport] {
        &[]
    }

    /// What the guests cost so far.
    pub fn cost(&self) -> Cost {
        Cost::default()
    }

    /// The linear memory of all VMs, in bytes.
    pub fn memory_bytes(&self) -> usize {
        0
    }

    /// How many VMs were made anew after a trap.
    pub fn reloads(&self) -> u64 {
        0
    }

    /// What the filters did that another host would not stand.
    pub fn portability(&self) -> &[Finding] {
        &[]
    }
}
