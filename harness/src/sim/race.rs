//! Many workers that share state, and every order in which they can get at it.
//!
//! A filter's callback runs without a pause, yet on a real host another worker may read or write shared data between any
//! two of its own operations. Here each of them is a point where another worker may go on: operations on shared data,
//! queues and metrics, and all that comes from outside (a client's or an upstream's piece, the answer to a call, a tick).
//! A seed decides which does. What lies between two such points touches nothing that workers share, so no order of it
//! makes a difference.
//!
//! ```no_run
//! use serde_json::json;
//! use tollgate_harness::engine::{Engine, Module};
//! use tollgate_harness::profile::Profile;
//! use tollgate_harness::sim::{Request, Sim, race};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let filter = Module::load(&Engine::for_simulation()?, "tollgate_token_rate_limit.wasm".as_ref())?;
//! race::check(
//!     0..2000,
//!     || Sim::of(Profile::Envoy).filter(&filter, json!({ "limit": 3 })).workers(4),
//!     |race| {
//!         for worker in 0..4 {
//!             race.spawn(worker, Request::get("/"));
//!         }
//!         race.run();
//!         let admitted = race.responses().iter().filter(|got| got.status() == 200).count();
//!         assert_eq!(admitted, 3);
//!     },
//! );
//! # Ok(())
//! # }
//! ```

mod baton;
mod explore;
mod schedule;
mod scripts;
mod strategy;
mod trace;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use explore::{Counterexample, Explored, check, explore};
pub use schedule::{Schedule, ScheduleError};
pub use strategy::Lead;
pub use trace::Step;

use super::quiet::{self, message};
use super::setting::Setting;
use super::surroundings::{Surroundings, nanos};
use super::{Answer, GrpcCall, PATIENCE, Request, Response, UpstreamRequest};
use crate::exchange::Call;
use crate::shared::Shared;
use crate::vm::{LogLine, TrapReport};
use crate::worker::{Clock, FilterSpec, Limits, Setup, StartError, VirtualClock, Worker};
use baton::{Arrival, Baton, Goal, Turn};
use scripts::CommonScripts;
use strategy::Scheduler;
use trace::What;

/// The most steps of a race, unless set.
const STEPS: usize = 100_000;

/// How long a callback may take of the clock on the wall. It waits for other workers, which is none of its doing.
const CALLBACK: Duration = Duration::from_secs(60);

/// A race that is being set up.
#[must_use = "nothing happens before `start`"]
pub struct RaceSetting {
    setting: Setting,
    workers: usize,
    lead: Lead,
    stalls: bool,
    steps: usize,
}

impl RaceSetting {
    pub(super) fn new(setting: Setting, workers: usize) -> Self {
        Self {
            setting,
            workers,
            lead: Lead::Undisturbed,
            stalls: false,
            steps: STEPS,
        }
    }

    /// Who leads it. [`check`] and [`explore()`] see to that themselves.
    pub fn led_by(mut self, lead: Lead) -> Self {
        self.lead = lead;
        self
    }

    /// Time may pass also while there is something to do, as when the system keeps a worker from running: clocks move on
    /// in the middle of a callback, ticks and timeouts come late.
    pub fn stalls(mut self) -> Self {
        self.stalls = true;
        self
    }

    /// The most steps that a race may take before it counts as one that never ends, 100,000 unless set.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Starts the filters of all workers, one after the other and undisturbed.
    ///
    /// # Errors
    /// When a filter refuses its configuration, traps, or can't be instantiated.
    pub fn start(self) -> Result<Race, StartError> {
        let (setup, clock, filters, scripts) = self.setting.into_parts();
        let scheduler = Scheduler::new(&self.lead);
        let baton = Arc::new(Baton::new(
            self.workers,
            scheduler,
            clock.clone(),
            self.stalls,
            self.steps,
        ));
        let shared = Arc::new(Shared::watched(setup.profile, baton.clone()));
        // The first race of this baton: the place is free.
        let _ = baton.shared.set(Arc::downgrade(&shared));
        let mut race = Race {
            baton,
            threads: Vec::new(),
            shared,
            clock,
            scripts: CommonScripts::new(scripts),
            spawned: 0,
        };
        for worker in 0..self.workers {
            race.start_worker(worker, &setup, &filters)?;
        }
        Ok(race)
    }
}

/// Workers that share state. Exactly one of them runs at any moment.
pub struct Race {
    baton: Arc<Baton>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    clock: Arc<VirtualClock>,
    scripts: CommonScripts,
    spawned: u64,
}

impl Race {
    fn start_worker(
        &mut self,
        index: usize,
        setup: &Setup,
        filters: &[FilterSpec],
    ) -> Result<(), StartError> {
        let setup = Setup {
            shared: self.shared.clone(),
            // Workers of one process do not draw the same numbers.
            seed: setup.seed.map(|seed| seed.wrapping_add(index as u64)),
            limits: Limits {
                callback: setup.limits.callback.max(CALLBACK),
                ..setup.limits
            },
            ..setup.clone()
        };
        let clock = self.clock.clone();
        let worker = Worker::start(setup, filters.to_vec())?;
        let mut surroundings = Surroundings::new(worker, clock, self.scripts.of_worker());
        self.baton.publish(index, &mut surroundings);
        let baton = self.baton.clone();
        self.threads.push(std::thread::spawn(move || {
            quiet::forever();
            let ran = catch_unwind(AssertUnwindSafe(|| work(&baton, index, &mut surroundings)));
            if let Err(panic) = ran {
                baton.abandon(message(&*panic));
            }
        }));
        Ok(())
    }

    /// A client connects to a worker (counted from 0) and sends a request, in the next [`Race::run`]. Returns the
    /// request's number, which counts from 1.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn spawn(&mut self, worker: usize, request: Request) -> u64 {
        let workers = self.threads.len();
        assert!(worker < workers, "no worker {worker}: there are {workers}");
        self.spawned += 1;
        let (number, at) = (self.spawned, self.clock.elapsed_nanos());
        let arrival = Arrival {
            number,
            at,
            request,
        };
        self.baton.arrive(worker, arrival);
        number
    }

    /// Runs until all requests are answered and readers of queues are told of every item, but for at most 60 s of virtual
    /// time.
    ///
    /// # Panics
    /// When the race never ends, or a script panicked.
    pub fn run(&mut self) {
        let now = self.clock.elapsed_nanos();
        self.go(Goal::Answered(now.saturating_add(nanos(PATIENCE))));
    }

    /// Runs for so much virtual time.
    ///
    /// # Panics
    /// When the race never ends, or a script panicked.
    pub fn run_for(&mut self, time: Duration) {
        let now = self.clock.elapsed_nanos();
        self.go(Goal::Until(now.saturating_add(nanos(time))));
    }

    fn go(&mut self, goal: Goal) {
        self.baton.run(goal);
        let abandoned = self.baton.board().abandoned.clone();
        assert!(abandoned.is_none(), "{}", abandoned.unwrap_or_default());
    }

    /// From now on the upstream of all workers answers what `answer` says. Until then it echoes ([`Answer::echo`]).
    pub fn upstream<A: Into<Answer>>(
        &mut self,
        mut answer: impl FnMut(&UpstreamRequest) -> A + Send + 'static,
    ) {
        let upstream = Box::new(move |request: &UpstreamRequest| answer(request).into());
        self.scripts.set_upstream(upstream);
    }

    /// What came of a request, by its number. One that is not answered is [`super::Outcome::Waiting`].
    #[must_use]
    pub fn response(&self, number: u64) -> Response {
        let responses = &self.baton.board().responses;
        responses.get(&number).cloned().unwrap_or_default()
    }

    /// What came of all requests, in the order in which they were spawned.
    #[must_use]
    pub fn responses(&self) -> Vec<Response> {
        (1..=self.spawned).map(|n| self.response(n)).collect()
    }

    /// Shared data, queues and metrics.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The value of a counter or gauge, 0 while it does not exist.
    #[must_use]
    pub fn metric(&self, name: &str) -> i64 {
        let metrics = self.shared.metrics();
        metrics.get(name).map_or(0, |metric| metric.value)
    }

    /// The virtual clock that all workers see, for jumps.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Everything that was logged since the start, with the worker that did.
    #[must_use]
    pub fn logs(&self) -> Vec<(usize, LogLine)> {
        self.baton.board().logs.clone()
    }

    /// Every trap since the start, with the worker.
    #[must_use]
    pub fn traps(&self) -> Vec<(usize, TrapReport)> {
        self.baton.board().traps.clone()
    }

    /// Every call that filters made since the start, with the worker.
    #[must_use]
    pub fn calls(&self) -> Vec<(usize, Call)> {
        self.baton.board().calls.clone()
    }

    /// Every gRPC call and stream that filters made since the start, as far as it came, with the worker.
    #[must_use]
    pub fn grpc_calls(&self) -> Vec<(usize, GrpcCall)> {
        self.baton.board().grpc_calls()
    }

    /// The interleaving so far. [`Lead::Replay`] makes it happen again.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.baton.board().scheduler.taken().clone()
    }

    /// Everything that happened so far, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.baton.board().steps.clone()
    }

    /// The steps as text, a line each. `*` marks where a worker was stopped in the middle of a callback.
    #[must_use]
    pub fn trace(&self) -> String {
        let board = self.baton.board();
        board.steps.iter().map(|step| format!("{step}\n")).collect()
    }
}

impl Drop for Race {
    fn drop(&mut self) {
        self.baton.abandon("the race is over".to_owned());
        for thread in self.threads.drain(..) {
            // A thread that panicked said so through the baton.
            let _ = thread.join();
        }
    }
}

/// A worker's thread.
fn work(baton: &Baton, index: usize, surroundings: &mut Surroundings) {
    let entries: Vec<_> = (0..surroundings.worker.entries()).collect();
    while let Turn::Step(source, arrivals) = baton.turn(index) {
        for arrival in arrivals {
            surroundings.open(arrival.number, arrival.at, &entries, arrival.request);
        }
        baton.note(What::Event(surroundings.describe(source)));
        surroundings.step(source);
        baton.publish(index, surroundings);
        baton.hand_on();
    }
}
