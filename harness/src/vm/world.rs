//! What all VMs of a worker work on. It is lent to a VM for the length of a callback.

use std::collections::{HashMap, VecDeque};

use super::{Faults, LogLine};
use crate::abi::{HOSTCALLS, LogLevel};
use crate::exchange::{Call, CallId, Direction, ExchangeId, Register};
use crate::profile::Finding;
use crate::worker::grpc::Grpc;

/// A worker's mutable state, without its VMs.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) exchanges: Register,
    /// Who made the calls under way.
    pub(crate) owners: HashMap<CallId, Owner>,
    pub(crate) next_call: u32,
    pub(crate) root_calls: Vec<Call>,
    pub(crate) grpc: Grpc,
    /// Seats that a guest told to go on, in order.
    pub(crate) resumed: Vec<(ExchangeId, usize, Direction)>,
    /// Exchanges that a guest closed.
    pub(crate) closed: Vec<ExchangeId>,
    pub(crate) logs: VecDeque<LogLine>,
    pub(crate) faults: Faults,
    pub(crate) findings: Vec<Finding>,
    pub(crate) fuel: u64,
    pub(crate) callbacks: u64,
    pub(crate) bytes_copied: u64,
    pub(crate) hostcalls: Counts,
}

/// How often each function of [`HOSTCALLS`] was called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts(pub(crate) [u64; HOSTCALLS.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; HOSTCALLS.len()])
    }
}

/// Who made a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) vm: usize,
    pub(crate) generation: u64,
    pub(crate) root: u32,
    /// The exchange and the seat; `None` for a root context.
    pub(crate) seat: Option<(ExchangeId, usize)>,
}

impl World {
    pub(crate) fn log(&mut self, filter: &str, level: LogLevel, message: impl Into<String>) {
        if self.logs.len() >= LogLine::KEPT {
            self.logs.pop_front();
        }
        self.logs.push_back(LogLine {
            filter: filter.to_owned(),
            level,
            message: message.into(),
        });
    }

    /// Notes what would not work elsewhere: once for each rule, and the first for each exchange.
    pub(crate) fn find(&mut self, exchange: Option<ExchangeId>, finding: Finding) {
        let served = exchange.and_then(|id| self.exchanges.get_mut(&id));
        if let Some(served) = served {
            served.breach.get_or_insert(finding);
        }
        let known = |f: &Finding| f.host == finding.host && f.row == finding.row;
        if !self.findings.iter().any(known) {
            self.findings.push(finding);
        }
    }
}
