//! A VM's place in a worker, which outlives its VMs.

use std::time::Duration;

use super::{StartFailure, Worker};
use crate::engine::Module;
use crate::exchange::{ExchangeId, ResetReason, Seat};
use crate::profile::Traps;
use crate::vm::{Lost, RootSpec, TrapReport, Vm, VmSetup};

/// Envoy's base interval between two loads, unless it is configured.
const RELOAD_BACK_OFF: Duration = Duration::from_secs(1);

/// A module with an environment, its entries, and the VM that serves them now.
pub(super) struct Slot {
    pub(super) module: Module,
    pub(super) environment: Vec<(String, String)>,
    pub(super) roots: Vec<RootSpec>,
    /// `None` when it trapped.
    pub(super) vm: Option<Vm>,
    /// When it was loaded, by [`super::Clock::elapsed_nanos`].
    pub(super) loaded: u64,
    /// How many VMs stood here before this one.
    pub(super) generation: u64,
}

impl Slot {
    pub(super) fn new(module: Module, environment: Vec<(String, String)>) -> Self {
        Self {
            module,
            environment,
            roots: Vec::new(),
            vm: None,
            loaded: 0,
            generation: 0,
        }
    }
}

impl Worker {
    /// Makes the slot's VM; `fresh` in a process that just began.
    pub(super) fn start_slot(
        &mut self,
        index: usize,
        fresh: bool,
    ) -> Result<(), (String, StartFailure)> {
        let slot = &mut self.slots[index];
        let spec = VmSetup {
            module: &slot.module,
            setup: &self.setup,
            worker: self.membership.id,
            vm: index,
            generation: slot.generation,
            fresh,
            environment: &slot.environment,
            roots: &slot.roots,
        };
        slot.vm = Some(Vm::start(&spec, &mut self.world)?);
        slot.loaded = self.setup.clock.elapsed_nanos();
        Ok(())
    }

    /// Whether the back-off since the last load is over: Envoy waits for the base interval and, anew at each attempt, up
    /// to half of it more (running).
    pub(super) fn may_reload(&mut self, index: usize) -> bool {
        let base = self.setup.knobs.reload_back_off.unwrap_or(RELOAD_BACK_OFF);
        let base = u64::try_from(base.as_nanos()).unwrap_or(u64::MAX);
        let wait = base.saturating_add(self.random.u64(..(base / 2).max(1)));
        let now = self.setup.clock.elapsed_nanos();
        now.saturating_sub(self.slots[index].loaded) >= wait
    }

    /// Puts a new VM into a slot. One that does not start leaves the slot empty; what it says is in the log.
    pub(super) fn reload(&mut self, index: usize, fresh: bool) {
        let slot = &mut self.slots[index];
        slot.vm = None;
        slot.generation += 1;
        self.reloads += 1;
        if let Err((filter, failure)) = self.start_slot(index, fresh) {
            let message = format!("the filter did not start again: {failure}");
            self.world
                .log(&filter, crate::abi::LogLevel::Critical, message);
        }
    }

    /// A callback trapped: the VM is dead, or replaced, or the whole worker is.
    pub(super) fn trapped(&mut self, index: usize, mut report: TrapReport) {
        report.request = report.exchange.and_then(|id| self.request_line(id));
        report.lost = self.lost(index, report.exchange);
        self.world.log(
            &report.filter,
            crate::abi::LogLevel::Critical,
            report.to_string(),
        );
        let kills_worker = report.kills_worker;
        self.traps.push(report);
        let slot = &mut self.slots[index];
        slot.vm = None;
        self.world.grpc.forget(index);
        match self.setup.profile.rules().traps {
            _ if kills_worker => self.crash(),
            Traps::KillVm => {}
            Traps::NewInstance => self.reload(index, false),
        }
    }

    /// A request's method and path; not its query, where keys are.
    fn request_line(&self, id: ExchangeId) -> Option<String> {
        let headers = &self.world.exchanges.get(&id)?.request.headers;
        let path = headers.get_str(":path")?;
        let path = path.split('?').next().unwrap_or_default();
        Some(format!("{} {path}", headers.get_str(":method")?))
    }

    /// What goes down with a slot's VM, besides the exchange whose callback trapped.
    fn lost(&self, index: usize, own: Option<ExchangeId>) -> Lost {
        let generation = self.slots[index].generation;
        let there = |seat: &Seat| {
            seat.vm == index && seat.generation == generation && seat.context.is_some()
        };
        let exchanges = self.world.exchanges.iter();
        let mut exchanges: Vec<_> = exchanges
            .filter(|(id, exchange)| Some(**id) != own && exchange.seats.iter().any(there))
            .map(|(id, _)| *id)
            .collect();
        exchanges.sort_unstable();
        let owners = self.world.owners.values();
        let calls = owners.filter(|owner| owner.vm == index && owner.generation == generation);
        let vm = self.slots[index].vm.as_ref();
        Lost {
            exchanges,
            calls: calls.count(),
            ticks: vm.map_or_else(Vec::new, Vm::ticking),
        }
    }

    /// The worker process of the modelled host dies and is started again: every exchange is cut, every VM is new.
    pub(crate) fn crash(&mut self) {
        let mut ids: Vec<_> = self.world.exchanges.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.reset(id, ResetReason::WorkerCrash);
            if let Some(exchange) = self.world.exchanges.get_mut(&id) {
                exchange.unlogged = true;
                exchange.calls.clear();
            }
        }
        self.world.owners.clear();
        self.world.root_calls.clear();
        self.world.resumed.clear();
        for index in 0..self.slots.len() {
            self.reload(index, true);
        }
    }

    /// Notes a crash that no guest's trap announced.
    pub(crate) fn crash_with(&mut self, report: TrapReport) {
        self.world.log(
            &report.filter,
            crate::abi::LogLevel::Critical,
            report.to_string(),
        );
        self.traps.push(report);
        self.crash();
    }
}
