//! Scripted traffic on a virtual clock: tests of a filter in a few lines.
//!
//! ```no_run
//! use serde_json::json;
//! use tollgate_harness::engine::{Engine, Module};
//! use tollgate_harness::profile::Profile;
//! use tollgate_harness::sim::{Request, Sim};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let filter = Module::load(&Engine::for_simulation()?, "tollgate_key_auth.wasm".as_ref())?;
//! let mut sim = Sim::of(Profile::Envoy).filter(&filter, json!({ "consumers": [] })).start()?;
//! let got = sim.send(Request::post("/v1/chat").header("apikey", "k").body("{}").delivered_in(&[1, 1]));
//! assert_eq!(got.status(), 401);
//! assert!(got.upstream().is_none());
//! # Ok(())
//! # }
//! ```

mod answer;
mod request;
mod response;

use std::time::Duration;

use serde::Serialize;

pub use answer::Answer;
pub use request::Request;
pub use response::{Outcome, Response, UpstreamRequest};

use crate::engine::Module;
use crate::exchange::{Call, ExchangeId};
use crate::profile::{Finding, Knobs, Profile};
use crate::shared::Metric;
use crate::vm::{Faults, LogLine};
use crate::worker::{FailurePolicy, FilterSpec, Limits, StartError};

/// A simulation that is being set up.
pub struct Setting {}

/// A worker with scripted surroundings.
pub struct Sim {}

impl Sim {
    /// Sets up a simulation under `profile`: no filter yet, an upstream that echoes, time 2026-01-01 00:00 UTC.
    #[must_use]
    pub fn of(_profile: Profile) -> Setting {
        Setting {}
    }

    /// From now on the upstream answers what `answer` says.
    pub fn upstream<A: Into<Answer>>(
        &mut self,
        _answer: impl FnMut(&UpstreamRequest) -> A + 'static,
    ) {
    }

    /// From now on calls to `upstream` get what `answer` says. Without a script for it a call fails as unknown, and
    /// under Envoy's profile can't be made.
    pub fn on_call<A: Into<Answer>>(
        &mut self,
        _upstream: &str,
        _answer: impl FnMut(&Call) -> A + 'static,
    ) {
    }

    /// Sends a request through all entries and waits, in virtual time, until it is answered or nothing more happens.
    pub fn send(&mut self, _request: Request) -> Response {
        Response::default()
    }

    /// Sends a request and returns when it is answered or waits for something. [`Sim::finish`] takes it up again.
    pub fn begin(&mut self, _request: Request) -> ExchangeId {
        ExchangeId(0)
    }

    /// Waits for an exchange that [`Sim::begin`] began, as [`Sim::send`] does.
    pub fn finish(&mut self, _id: ExchangeId) -> Response {
        Response::default()
    }

    /// The client of an exchange that [`Sim::begin`] began goes away.
    pub fn abort(&mut self, _id: ExchangeId) -> Response {
        Response::default()
    }

    /// Lets time pass; ticks and answers that fall due on the way happen at their moments.
    pub fn advance(&mut self, _by: Duration) {}

    /// The virtual time, in nanoseconds since 1970.
    #[must_use]
    pub fn now_unix_nanos(&self) -> u64 {
        0
    }

    /// The value of a counter or gauge, 0 while it does not exist.
    #[must_use]
    pub fn metric(&self, _name: &str) -> i64 {
        0
    }

    /// A metric in full.
    #[must_use]
    pub fn metric_full(&self, _name: &str) -> Option<Metric> {
        None
    }

    /// Everything that was logged since the start.
    #[must_use]
    pub fn logs(&self) -> &[LogLine] {
        &[]
    }

    /// Every call that filters made since the start.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &[]
    }

    /// Host functions that fail from now on.
    pub fn set_faults(&mut self, _faults: Faults) {}

    /// What the filters did that another host would not stand.
    #[must_use]
    pub fn portability(&self) -> &[Finding] {
        &[]
    }
}

impl Setting {
    /// Adds an entry of `module` with a configuration, written as JSON.
    #[must_use]
    pub fn filter(self, _module: &Module, _configuration: impl Serialize) -> Self {
        self
    }

    /// Adds an entry in full.
    #[must_use]
    pub fn entry(self, _entry: FilterSpec) -> Self {
        self
    }

    /// Sets an environment variable for all entries added by [`Setting::filter`] from now on.
    #[must_use]
    pub fn environment(self, _name: &str, _value: &str) -> Self {
        self
    }

    /// The failure policy of all entries added by [`Setting::filter`] from now on.
    #[must_use]
    pub fn on_trap(self, _policy: FailurePolicy) -> Self {
        self
    }

    /// What an operator sets on the host.
    #[must_use]
    pub fn knobs(self, _knobs: Knobs) -> Self {
        self
    }

    /// What a guest may use.
    #[must_use]
    pub fn limits(self, _limits: Limits) -> Self {
        self
    }

    /// The clock at the start, in seconds since 1970.
    #[must_use]
    pub fn clock_at(self, _unix_seconds: u64) -> Self {
        self
    }

    /// The seed of the guests' random numbers.
    #[must_use]
    pub fn seed(self, _seed: u64) -> Self {
        self
    }

    /// Host functions that fail from the start.
    #[must_use]
    pub fn faults(self, _faults: Faults) -> Self {
        self
    }

    /// The script for calls to `upstream`, as [`Sim::on_call`], from before the filters start.
    #[must_use]
    pub fn on_call<A: Into<Answer>>(
        self,
        _upstream: &str,
        _answer: impl FnMut(&Call) -> A + 'static,
    ) -> Self {
        self
    }

    /// Starts the filters.
    ///
    /// # Errors
    /// When a filter refuses its configuration, traps, or can't be instantiated.
    pub fn start(self) -> Result<Sim, StartError> {
        Ok(Sim {})
    }
}
