//! Setting up a simulation.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::race::RaceSetting;
use super::surroundings::{Scripts, Surroundings};
use super::{Answer, CallScript, GrpcAnswer, GrpcCall, Sim};
use crate::engine::Module;
use crate::exchange::Call;
use crate::profile::{Knobs, Profile};
use crate::vm::Faults;
use crate::worker::{FailurePolicy, FilterSpec, Limits, Setup, StartError, VirtualClock, Worker};

/// 2026-01-01 00:00 UTC, in seconds since 1970.
const START: u64 = 1_767_225_600;

/// What workers are made of: all but their filters, the clock they see, the filters, what answers them.
pub(super) type Parts = (Setup, Arc<VirtualClock>, Vec<FilterSpec>, Scripts);

/// A simulation that is being set up.
#[must_use = "nothing happens before `start`"]
pub struct Setting {
    setup: Setup,
    start: u64,
    filters: Vec<FilterSpec>,
    environment: Vec<(String, String)>,
    on_trap: FailurePolicy,
    scripts: Scripts,
    clusters: BTreeSet<String>,
}

impl Setting {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            setup: Setup {
                seed: Some(0),
                ..Setup::new(profile)
            },
            start: START,
            filters: Vec::new(),
            environment: Vec::new(),
            on_trap: FailurePolicy::default(),
            scripts: Scripts::default(),
            clusters: BTreeSet::new(),
        }
    }

    /// Adds an entry of `module` with a configuration, written as JSON. The entry is named after the module.
    pub fn filter(self, module: &Module, configuration: impl Serialize) -> Self {
        // What can't be written as JSON reaches the filter as nothing, which it refuses with a message of its own.
        let configuration = serde_json::to_vec(&configuration).unwrap_or_default();
        self.filter_with_bytes(module, configuration)
    }

    /// Adds an entry of `module` with a configuration of any bytes.
    pub fn filter_with_bytes(mut self, module: &Module, configuration: impl Into<Vec<u8>>) -> Self {
        self.filters.push(FilterSpec {
            name: module.name().to_owned(),
            module: module.clone(),
            configuration: configuration.into(),
            environment: self.environment.clone(),
            on_trap: self.on_trap,
        });
        self
    }

    /// Adds an entry in full.
    pub fn entry(mut self, entry: FilterSpec) -> Self {
        self.filters.push(entry);
        self
    }

    /// Sets an environment variable for all entries added by [`Setting::filter`] from now on.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The failure policy of all entries added by [`Setting::filter`] from now on.
    pub fn on_trap(mut self, policy: FailurePolicy) -> Self {
        self.on_trap = policy;
        self
    }

    /// What an operator sets on the host.
    pub fn knobs(mut self, knobs: Knobs) -> Self {
        self.setup.knobs = knobs;
        self
    }

    /// What a guest may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.limits = limits;
        self
    }

    /// The clock at the start, in seconds since 1970.
    pub fn clock_at(mut self, unix_seconds: u64) -> Self {
        self.start = unix_seconds;
        self
    }

    /// The seed of the guests' random numbers.
    pub fn seed(mut self, seed: u64) -> Self {
        self.setup.seed = Some(seed);
        self
    }

    /// A filter that does what does not work on every host fails: it does not start, or its request is answered 500 with
    /// the row of the table of differences.
    pub fn strict(mut self) -> Self {
        self.setup.strict = true;
        self
    }

    /// Host functions that fail from the start.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.setup.faults = faults;
        self
    }

    /// Makes an upstream known that calls may name, without a script yet.
    pub fn cluster(mut self, name: &str) -> Self {
        self.clusters.insert(name.to_owned());
        self
    }

    /// The script for calls to `upstream`, as [`Sim::on_call`], from before the filters start.
    pub fn on_call<A: Into<Answer>>(
        mut self,
        upstream: &str,
        mut answer: impl FnMut(&Call) -> A + Send + 'static,
    ) -> Self {
        let script: CallScript = Box::new(move |call| answer(call).into());
        self.scripts.calls.insert(upstream.to_owned(), script);
        self.cluster(upstream)
    }

    /// The script for gRPC calls and streams to the cluster `upstream`, as [`Sim::on_grpc`], from before the filters
    /// start.
    pub fn on_grpc(
        mut self,
        upstream: &str,
        answer: impl FnMut(&GrpcCall) -> GrpcAnswer + Send + 'static,
    ) -> Self {
        let answer = Box::new(answer);
        self.scripts.grpc.insert(upstream.to_owned(), answer);
        self.cluster(upstream)
    }

    /// So many workers with these filters, which share their state.
    pub fn workers(self, workers: usize) -> RaceSetting {
        RaceSetting::new(self, workers)
    }

    pub(super) fn into_parts(self) -> Parts {
        let clock = Arc::new(VirtualClock::at(self.start.saturating_mul(1_000_000_000)));
        let setup = Setup {
            clock: clock.clone(),
            clusters: Some(self.clusters),
            ..self.setup
        };
        (setup, clock, self.filters, self.scripts)
    }

    /// Starts the filters.
    ///
    /// # Errors
    /// When a filter refuses its configuration, traps, or can't be instantiated.
    pub fn start(self) -> Result<Sim, StartError> {
        let entries = self.filters.len();
        let (setup, clock, filters, scripts) = self.into_parts();
        let worker = Worker::start(setup, filters)?;
        let mut surroundings = Surroundings::new(worker, clock, scripts);
        surroundings.settle();
        Ok(Sim {
            surroundings,
            entries,
            requests: 0,
        })
    }
}
