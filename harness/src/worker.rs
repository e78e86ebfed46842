//! A worker: the filters of one thread and the exchanges that pass through them.
//!
//! It does no I/O and reads no clock of its own: a driver feeds [`Event`]s, does the [`Action`]s and makes the calls.

mod callbacks;
mod clock;
pub(crate) mod grpc;
mod limits;
mod set_properties;
mod slot;
mod strict;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use clock::{Clock, SystemClock, VirtualClock};
pub use grpc::{GrpcAction, GrpcEvent, GrpcId, GrpcRequest, GrpcStatus};
pub use limits::Limits;
pub use set_properties::SetProperties;

use crate::abi::HOSTCALLS;
use crate::engine::Module;
use crate::exchange::{
    Action, Call, CallId, CallOutcome, Destination, Event, Exchange, ExchangeId, Peer, ResetReason,
    Seat,
};
use crate::profile::{Finding, Flow, Host, Knobs, Profile, Row, Traps};
use crate::shared::Shared;
use crate::vm::{Callback, Cost, Faults, LogLine, RootSpec, Site, TrapReport, World};

pub(crate) use callbacks::Ran;
use slot::Slot;

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
    /// Every later request passes without the filter. Those under way fail, as with the other policies.
    Open,
    /// The next request gets a new VM, unless the one that trapped was loaded within [`Knobs::reload_back_off`]; then
    /// it answers 503.
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
    /// Whether a filter that does what does not work on every host fails: at the start it does not start, for a request
    /// that is answered 500.
    pub strict: bool,
}

impl Setup {
    /// A worker of `profile` with the system's clock, default limits and a state of its own.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            knobs: Knobs::default(),
            shared: Arc::new(Shared::new(profile)),
            limits: Limits::of(profile),
            clock: Arc::new(SystemClock),
            clusters: None,
            seed: None,
            faults: Faults::new(),
            strict: false,
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

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "filter {}: {}", self.filter, self.cause)?;
        for line in &self.logs {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StartError {}

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
    /// Strict: the filter does what does not work on every host.
    #[error("strict: {0}")]
    NotPortable(Finding),
}

/// The filters of one thread.
pub struct Worker {
    pub(crate) setup: Setup,
    entries: Vec<Entry>,
    slots: Vec<Slot>,
    pub(crate) world: World,
    traps: Vec<TrapReport>,
    reloads: u64,
    next_exchange: u64,
    random: fastrand::Rng,
    membership: Membership,
}

/// A worker's place among those of its process.
struct Membership {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.remove_worker(self.id);
    }
}

/// The timer of a root context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Timer {
    /// The VM's place in its worker.
    pub(crate) slot: usize,
    /// The root context.
    pub(crate) root: u32,
}

/// A filter entry: its root context is the `root`-th of the VM in `slot`.
struct Entry {
    slot: usize,
    root: usize,
    on_trap: FailurePolicy,
}

impl Worker {
    /// Makes the VMs, runs `on_vm_start` and `on_configure` of every entry. Modules bring their engine with them.
    ///
    /// # Errors
    /// When a module can't be instantiated, or a filter traps or refuses its configuration.
    pub fn start(setup: Setup, filters: Vec<FilterSpec>) -> Result<Self, StartError> {
        let world = World {
            faults: setup.faults.clone(),
            ..World::default()
        };
        let random = setup
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let membership = Membership {
            shared: Arc::clone(&setup.shared),
            id: setup.shared.add_worker(),
        };
        let mut worker = Self {
            membership,
            setup,
            entries: Vec::new(),
            slots: Vec::new(),
            world,
            traps: Vec::new(),
            reloads: 0,
            next_exchange: 0,
            random,
        };
        for filter in filters {
            worker.add(filter);
        }
        for index in 0..worker.slots.len() {
            worker
                .start_slot(index, true)
                .map_err(|(filter, cause)| StartError {
                    filter,
                    cause,
                    logs: worker.world.logs.drain(..).collect(),
                })?;
        }
        worker.after_callbacks();
        if let Some(finding) = worker.not_portable_yet() {
            return Err(StartError {
                filter: finding.0,
                cause: StartFailure::NotPortable(finding.1),
                logs: worker.world.logs.drain(..).collect(),
            });
        }
        Ok(worker)
    }

    fn add(&mut self, filter: FilterSpec) {
        let kong_dies = Profile::Kong.rules().fatal_import;
        if kong_dies.is_some_and(|import| filter.module.imports(import)) {
            let finding = Finding {
                host: Host::Kong,
                row: Row::FatalImport,
                callback: Callback::Initialize.name(),
            };
            self.world.find(None, finding);
        }
        let known = self.slots.iter().position(|slot| {
            slot.module.is(&filter.module) && slot.environment == filter.environment
        });
        let slot = known.unwrap_or_else(|| {
            self.slots
                .push(Slot::new(filter.module.clone(), filter.environment.clone()));
            self.slots.len() - 1
        });
        let roots = &mut self.slots[slot].roots;
        self.entries.push(Entry {
            slot,
            root: roots.len(),
            on_trap: filter.on_trap,
        });
        roots.push(RootSpec {
            name: filter.name,
            configuration: Bytes::from(filter.configuration),
        });
    }

    /// Begins an exchange through the entries `filters`, in the order of a route's chain. Indices that name no entry
    /// are left out.
    pub fn open(&mut self, filters: &[usize], peer: Peer) -> ExchangeId {
        let mut seats = Vec::with_capacity(filters.len());
        for index in filters {
            let Some(entry) = self.entries.get(*index) else {
                continue;
            };
            let (slot, policy) = (entry.slot, entry.on_trap);
            if policy == FailurePolicy::Reload
                && self.slots[slot].vm.is_none()
                && self.may_reload(slot)
            {
                self.reload(slot, false);
            }
            let mut seat = Seat::new(*index, slot, self.slots[slot].generation);
            let kills = self.setup.profile.rules().traps == Traps::KillVm;
            seat.bypassed = kills && policy == FailurePolicy::Open && self.slots[slot].vm.is_none();
            seats.push(seat);
        }
        self.next_exchange += 1;
        let id = ExchangeId(self.next_exchange);
        let request_id = self.request_id();
        let now = self.setup.clock.now_unix_nanos();
        self.world
            .exchanges
            .insert(id, Exchange::new(peer, seats, request_id, now));
        id
    }

    /// Tells filters where the gateway sends an exchange, from before its first event.
    pub fn set_destination(&mut self, id: ExchangeId, destination: Destination) {
        if let Some(exchange) = self.world.exchanges.get_mut(&id) {
            exchange.destination = destination;
        }
    }

    /// Envoy's are UUIDs, nginx's 32 hexadecimal digits.
    fn request_id(&mut self) -> String {
        let hex = format!("{:032x}", self.random.u128(..));
        match self.setup.profile.rules().flow {
            Flow::Phased => hex,
            Flow::Streamed => format!(
                "{}-{}-4{}-a{}-{}",
                &hex[..8],
                &hex[8..12],
                &hex[13..16],
                &hex[17..20],
                &hex[20..]
            ),
        }
    }

    /// Feeds one event. Events of an exchange that is closed are ignored, but for the ends of calls.
    pub fn deliver(&mut self, id: ExchangeId, event: Event) {
        match (event, self.setup.profile.rules().flow) {
            (Event::CallDone(call, outcome), _) => self.call_done(call, outcome),
            (event, Flow::Streamed) => self.deliver_streamed(id, event),
            (event, Flow::Phased) => self.deliver_phased(id, event),
        }
        self.after_callbacks();
        self.refuse_unportable();
    }

    /// What the driver must do now, in order.
    pub fn take_actions(&mut self, id: ExchangeId) -> Vec<Action> {
        let actions = match self.world.exchanges.get_mut(&id) {
            Some(exchange) => std::mem::take(&mut exchange.actions),
            None => Vec::new(),
        };
        self.world.exchanges.settle(id);
        actions
    }

    /// The exchanges that have actions waiting: a tick or another exchange's callback may have resumed them.
    #[must_use]
    pub fn with_actions(&self) -> Vec<ExchangeId> {
        self.world.exchanges.with_actions()
    }

    /// Ends an exchange, done or aborted: `on_log`, `on_done` and `on_delete` run in the profile's order. Calls that it
    /// made and that are still to be made come out of [`Worker::take_root_calls`]. What filters set as properties is left;
    /// nothing, if the exchange was closed before.
    pub fn close(&mut self, id: ExchangeId) -> SetProperties {
        let properties = self.end_exchange(id);
        self.after_callbacks();
        properties
    }

    /// How many bytes of the request and of the response the filters hold: a driver stops reading above its limit.
    #[must_use]
    pub fn held(&self, id: ExchangeId) -> (usize, usize) {
        let Some(exchange) = self.world.exchanges.get(&id) else {
            return (0, 0);
        };
        let request: usize = exchange
            .seats
            .iter()
            .map(|seat| seat.request.held.len())
            .sum();
        let response = exchange
            .seats
            .iter()
            .map(|seat| seat.response.held.len())
            .sum();
        (request + exchange.request.body.len(), response)
    }

    /// How long until the next tick is due, by the clock; `None` without ticks.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        let now = self.setup.clock.elapsed_nanos();
        let due = self.ticks().into_iter().map(|(_, due)| due).min()?;
        Some(Duration::from_nanos(due.saturating_sub(now)))
    }

    /// Runs the ticks that are due.
    pub fn tick_due(&mut self) {
        let now = self.setup.clock.elapsed_nanos();
        for (timer, _) in self.ticks().into_iter().filter(|(_, due)| *due <= now) {
            self.tick(timer);
        }
    }

    /// Runs the ticks of every filter that asked for ticks, due or not: the last chance to send what waits for one.
    pub fn tick_all(&mut self) {
        for (timer, _) in self.ticks() {
            self.tick(timer);
        }
    }

    /// The timers that run, in the order of the root contexts, and when each is due by [`Clock::elapsed_nanos`].
    pub(crate) fn ticks(&self) -> Vec<(Timer, u64)> {
        let vms = self.slots.iter().enumerate();
        vms.filter_map(|(slot, place)| Some((slot, place.vm.as_ref()?)))
            .flat_map(|(slot, vm)| {
                let timers = vm.ticks().into_iter();
                timers.map(move |(root, due)| (Timer { slot, root }, due))
            })
            .collect()
    }

    /// Runs a tick and starts its timer again.
    pub(crate) fn tick(&mut self, timer: Timer) {
        let now = self.setup.clock.elapsed_nanos();
        let Some(vm) = self.slots.get_mut(timer.slot).and_then(|s| s.vm.as_mut()) else {
            return;
        };
        if !vm.rearm(timer.root, now) {
            return;
        }
        if let Err(report) = vm.on_tick(&mut self.world, timer.root) {
            self.trapped(timer.slot, *report);
        }
        self.after_callbacks();
        self.refuse_unportable();
    }

    /// How many filter entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Calls that belong to no open exchange (made in `on_configure`, ticks, `on_log`), to be answered by
    /// [`Worker::root_call_done`].
    pub fn take_root_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.world.root_calls)
    }

    /// Ends a call of [`Worker::take_root_calls`].
    pub fn root_call_done(&mut self, id: CallId, outcome: CallOutcome) {
        self.call_done(id, outcome);
        self.after_callbacks();
    }

    /// From now on `wake` is called, from any thread, when another worker has put something into a queue that is read
    /// here: the driver then calls [`Worker::tell_readers`] on the worker's own thread.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        let wake = Arc::new(wake);
        self.setup.shared.wake_worker_with(self.membership.id, wake);
    }

    /// Tells the readers of queues what other workers put in.
    pub fn tell_readers(&mut self) {
        self.after_callbacks();
    }

    /// Tells a reader of the one item that came first, where a race's scheduler orders that.
    pub(crate) fn tell_next_reader(&mut self) {
        let shared = &self.setup.shared;
        if let Some((queue, reader)) = shared.queues_take_next_untold(self.membership.id) {
            self.tell_reader(queue, reader);
            self.after_callbacks();
        }
    }

    /// The worker's number in the shared state.
    pub(crate) fn id(&self) -> u64 {
        self.membership.id
    }

    /// The log lines since the last time. At most [`LogLine::KEPT`] are kept.
    pub fn take_logs(&mut self) -> Vec<LogLine> {
        self.world.logs.drain(..).collect()
    }

    /// Every trap so far.
    #[must_use]
    pub fn traps(&self) -> &[TrapReport] {
        &self.traps
    }

    /// What the guests cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let calls = HOSTCALLS.iter().zip(self.world.hostcalls.0);
        Cost {
            fuel: self.world.fuel,
            callbacks: self.world.callbacks,
            hostcalls: calls
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| (*name, count))
                .collect(),
            bytes_copied: self.world.bytes_copied,
        }
    }

    /// How many callbacks ran and how many functions of the host they called, so far.
    #[must_use]
    pub fn crossings(&self) -> (u64, u64) {
        (self.world.callbacks, self.world.hostcalls.0.iter().sum())
    }

    /// The linear memory of all VMs, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let vms = self.slots.iter().filter_map(|slot| slot.vm.as_ref());
        vms.map(|vm| vm.memory_bytes()).sum()
    }

    /// How many VMs were made anew after a trap.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.reloads
    }

    /// What the filters did that another host would not stand.
    #[must_use]
    pub fn portability(&self) -> &[Finding] {
        &self.world.findings
    }

    /// Host functions that fail from now on, instead of those before.
    pub fn set_faults(&mut self, faults: Faults) {
        self.world.faults = faults;
    }

    /// The faults that are set, with what they noted.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.world.faults
    }

    /// Whose behaviour it shows.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.setup.profile
    }

    /// The process-wide state.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.setup.shared
    }

    /// A callback of a root context or a seat, for reports.
    fn site(callback: Callback, context: u32, exchange: Option<ExchangeId>) -> Site {
        Site {
            callback,
            context,
            exchange,
        }
    }

    /// Cuts an exchange.
    pub(crate) fn reset(&mut self, id: ExchangeId, reason: ResetReason) {
        if let Some(exchange) = self.world.exchanges.get_mut(&id)
            && !exchange.over
        {
            exchange.over = true;
            exchange.actions.push(Action::Reset(reason));
        }
    }
}
