//! A VM's place in a worker, which outlives its VMs.

use super::{StartFailure, Worker};
use crate::engine::Module;
use crate::exchange::ResetReason;
use crate::profile::Traps;
use crate::vm::{RootSpec, TrapReport, Vm, VmSetup};

/// A module with an environment, its entries, and the VM that serves them now.
pub(super) struct Slot {
    pub(super) module: Module,
    pub(super) environment: Vec<(String, String)>,
    pub(super) roots: Vec<RootSpec>,
    /// `None` when it trapped.
    pub(super) vm: Option<Vm>,
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
        Ok(())
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
    pub(super) fn trapped(&mut self, index: usize, report: TrapReport) {
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
