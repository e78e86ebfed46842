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
//! got.assert_status(401).assert_no_upstream();
//! # Ok(())
//! # }
//! ```

mod agenda;
mod answer;
mod assertions;
mod chunking;
pub mod faults;
mod grpc;
mod quiet;
pub mod race;
mod request;
mod response;
mod setting;
mod surroundings;

use std::time::Duration;

pub use answer::Answer;
pub use chunking::{chunkings, in_every_chunking};
pub use grpc::{GrpcAnswer, GrpcCall};
pub use request::{Abort, Request};
pub use response::{Outcome, Response, UpstreamRequest};
pub use setting::Setting;

use crate::exchange::{Call, ExchangeId};
use crate::profile::{Finding, Profile};
use crate::shared::{Metric, Shared};
use crate::vm::{Cost, Faults, LogLine, TrapReport};
use crate::worker::{Clock, VirtualClock, Worker};

use surroundings::{Surroundings, nanos};

/// How long an exchange may wait for a tick, in virtual time, before it counts as [`Outcome::Waiting`].
const PATIENCE: Duration = Duration::from_secs(60);

/// What answers a question of the kind `Q`.
type Script<Q, A> = Box<dyn FnMut(&Q) -> A + Send>;
/// The upstream, which answers requests.
type Upstream = Script<UpstreamRequest, Answer>;
/// What answers a filter's calls.
type CallScript = Script<Call, Answer>;
/// A gRPC service, which says what it does at each moment of a call.
type GrpcScript = Script<GrpcCall, GrpcAnswer>;

/// A worker with scripted surroundings.
///
/// An upstream's or a call's answer comes at once unless it says [`Answer::after`]; then it comes when the clock gets
/// there, which [`Sim::send`] and [`Sim::finish`] see to.
pub struct Sim {
    surroundings: Surroundings,
    entries: usize,
    requests: u64,
}

impl Sim {
    /// Sets up a simulation under `profile`: no filter yet, an upstream that echoes, time 2026-01-01 00:00 UTC.
    pub fn of(profile: Profile) -> Setting {
        Setting::new(profile)
    }

    /// From now on the upstream answers what `answer` says. Until then it echoes ([`Answer::echo`]).
    pub fn upstream<A: Into<Answer>>(
        &mut self,
        mut answer: impl FnMut(&UpstreamRequest) -> A + Send + 'static,
    ) {
        self.surroundings.scripts.upstream = Box::new(move |request| answer(request).into());
    }

    /// From now on calls to `upstream` get what `answer` says. Without a script a call fails as unknown. Under Envoy's
    /// profile only upstreams known from the start ([`Setting::on_call`], [`Setting::cluster`]) can be called at all.
    pub fn on_call<A: Into<Answer>>(
        &mut self,
        upstream: &str,
        mut answer: impl FnMut(&Call) -> A + Send + 'static,
    ) {
        self.surroundings.scripts.calls.insert(
            upstream.to_owned(),
            Box::new(move |call| answer(call).into()),
        );
    }

    /// Sends a request through all entries and waits, in virtual time, until it is answered or nothing more happens.
    pub fn send(&mut self, request: Request) -> Response {
        let id = self.begin(request);
        self.finish(id)
    }

    /// Sends a request through the entries of these indices alone, as a route with its own chain does.
    pub fn send_through(&mut self, entries: &[usize], request: Request) -> Response {
        let id = self.begin_through(entries, request);
        self.finish(id)
    }

    /// Sends a request and returns when it is answered or waits for something. [`Sim::finish`] takes it up again.
    pub fn begin(&mut self, request: Request) -> ExchangeId {
        let entries: Vec<_> = (0..self.entries).collect();
        self.begin_through(&entries, request)
    }

    fn begin_through(&mut self, entries: &[usize], request: Request) -> ExchangeId {
        self.requests += 1;
        let now = self.surroundings.now();
        let id = self.surroundings.open(self.requests, now, entries, request);
        self.surroundings.settle();
        id
    }

    /// Waits for an exchange that [`Sim::begin`] began, as [`Sim::send`] does. An exchange that is not known, or was
    /// finished before, gives an empty response that is [`Outcome::Waiting`].
    pub fn finish(&mut self, id: ExchangeId) -> Response {
        let patience = self.surroundings.now().saturating_add(nanos(PATIENCE));
        self.surroundings.settle();
        while self.is_open(id) {
            match self.next_moment() {
                Some(at) if self.surroundings.agenda.awaits(id) || at <= patience => {
                    self.go_to(at);
                }
                _ => {
                    self.go_to(patience);
                    break;
                }
            }
        }
        self.surroundings.end(id, Outcome::Waiting)
    }

    /// The client of an exchange that [`Sim::begin`] began goes away.
    pub fn abort(&mut self, id: ExchangeId) -> Response {
        self.surroundings.end(id, Outcome::Aborted)
    }

    /// Lets time pass; ticks and answers that fall due on the way happen at their moments.
    pub fn advance(&mut self, by: Duration) {
        self.advance_until(self.surroundings.now().saturating_add(nanos(by)));
    }

    /// Lets time pass until the virtual clock shows `unix_nanos`: the edge of a window, say. An earlier time changes
    /// nothing; [`VirtualClock::set`] puts the clock back.
    pub fn advance_to(&mut self, unix_nanos: u64) {
        let by = unix_nanos.saturating_sub(self.now_unix_nanos());
        self.advance_until(self.surroundings.now().saturating_add(by));
    }

    fn advance_until(&mut self, end: u64) {
        self.surroundings.settle();
        while let Some(at) = self.next_moment().filter(|at| *at <= end) {
            self.go_to(at);
        }
        self.pass_to(end);
        self.surroundings.settle();
    }

    /// The virtual clock, for jumps.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.surroundings.clock
    }

    /// The virtual time, in nanoseconds since 1970.
    #[must_use]
    pub fn now_unix_nanos(&self) -> u64 {
        self.surroundings.clock.now_unix_nanos()
    }

    /// The value of a counter or gauge, 0 while it does not exist.
    #[must_use]
    pub fn metric(&self, name: &str) -> i64 {
        self.metric_full(name).map_or(0, |metric| metric.value)
    }

    /// A metric in full.
    #[must_use]
    pub fn metric_full(&self, name: &str) -> Option<Metric> {
        self.surroundings.worker.shared().metrics().remove(name)
    }

    /// Shared data, queues and metrics.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        self.surroundings.worker.shared()
    }

    /// Everything that was logged since the start.
    #[must_use]
    pub fn logs(&self) -> &[LogLine] {
        &self.surroundings.logs
    }

    /// Every call that filters made since the start.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.surroundings.calls
    }

    /// Every trap since the start.
    #[must_use]
    pub fn traps(&self) -> &[TrapReport] {
        self.surroundings.worker.traps()
    }

    /// What the guests cost since the start.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.surroundings.worker.cost()
    }

    /// The worker itself.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.surroundings.worker
    }

    /// Host functions that fail from now on, instead of those before.
    pub fn set_faults(&mut self, faults: Faults) {
        self.surroundings.worker.set_faults(faults);
    }

    /// The faults that are set, with what they noted.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.surroundings.worker.faults()
    }

    /// What the filters did that another host would not stand.
    #[must_use]
    pub fn portability(&self) -> &[Finding] {
        self.surroundings.worker.portability()
    }

    fn is_open(&self, id: ExchangeId) -> bool {
        let exchange = self.surroundings.exchanges.get(&id);
        exchange.is_some_and(|exchange| !exchange.over)
    }

    /// When something happens next, by the time that passes: an answer comes or a tick is due.
    fn next_moment(&self) -> Option<u64> {
        let ticks = self.surroundings.worker.ticks();
        let tick = ticks.into_iter().map(|(_, due)| due).min();
        self.surroundings
            .agenda
            .next()
            .into_iter()
            .chain(tick)
            .min()
    }

    fn go_to(&mut self, at: u64) {
        self.pass_to(at);
        self.surroundings.settle();
        self.surroundings.worker.tick_due();
        self.surroundings.settle();
    }

    fn pass_to(&mut self, at: u64) {
        let by = at.saturating_sub(self.surroundings.now());
        self.surroundings.clock.advance(Duration::from_nanos(by));
    }
}
