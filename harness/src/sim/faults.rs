//! Every host function that a filter calls fails in every way, in each phase, while requests come.
//!
//! ```no_run
//! use serde_json::json;
//! use tollgate_harness::engine::{Engine, Module};
//! use tollgate_harness::profile::Profile;
//! use tollgate_harness::sim::faults::Sweep;
//! use tollgate_harness::sim::{Request, Sim};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let filter = Module::load(&Engine::for_simulation()?, "tollgate_key_auth.wasm".as_ref())?;
//! Sweep::of(|| Sim::of(Profile::Envoy).filter(&filter, json!({ "consumers": [] })))
//!     .request(Request::get("/"))
//!     .check(|_, got| assert!(got.upstream().is_none(), "let through without a key"));
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::quiet::{message, quietly};
use super::{Request, Response, Setting, Sim};
use crate::vm::{Callback, Faults};
use crate::worker::{StartError, StartFailure};

/// All statuses of the ABI but Ok, one that hosts are known to answer beyond them, and two that nobody defines.
pub const STATUSES: [u32; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99, u32::MAX];

/// How often a host function fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Often {
    /// At its first call during a request.
    Once,
    /// At its second call during a request.
    Second,
    /// At every call.
    Always,
}

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The host function.
    pub hostcall: &'static str,
    /// What it answers.
    pub status: u32,
    /// In which callback.
    pub phase: Callback,
    /// How often.
    pub often: Often,
}

impl Failure {
    fn faults(self) -> Faults {
        let rule = Faults::new().answer(self.hostcall, self.status);
        let rule = rule.in_phase(self.phase);
        match self.often {
            Often::Once => rule.once(),
            Often::Second => rule.nth(2),
            Often::Always => rule.always(),
        }
    }

    /// Whether it shows before there are requests.
    fn at_start(self) -> bool {
        use Callback::{Configure, ContextCreate, Initialize, VmStart};
        matches!(self.phase, Initialize | ContextCreate | VmStart | Configure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hostcall,
            status,
            phase,
            often,
        } = self;
        let status = status.cast_signed();
        write!(f, "{hostcall} answers {status} in {phase}, ")?;
        f.write_str(match often {
            Often::Once => "once",
            Often::Second => "the second time",
            Often::Always => "always",
        })
    }
}

/// A request of a sweep, and what failed while it was served.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// What failed; `None` when everything works, before the first failure and after it is over.
    pub failure: Option<Failure>,
    /// The request.
    pub request: &'a Request,
    /// Which of the sweep's requests it is, from 0.
    pub index: usize,
}

/// A sweep that is being set up.
#[must_use = "nothing fails before `check` or `run`"]
pub struct Sweep<S> {
    setting: S,
    requests: Vec<Request>,
    statuses: Vec<u32>,
    between: Duration,
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many failures were tried.
    pub failures: usize,
    /// How many requests were sent.
    pub requests: usize,
    /// How many failures made the filter refuse to start.
    pub refusals: usize,
}

/// What a filter did not stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// What failed; `None` where it broke without.
    pub failure: Option<Failure>,
    /// Which of the requests, from 0; `None` at the start.
    pub request: Option<usize>,
    /// What the invariant said, or the trap.
    pub message: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure {
            Some(failure) => write!(f, "{failure}")?,
            None => f.write_str("nothing fails")?,
        }
        match self.request {
            Some(request) => write!(f, "; request {request}: ")?,
            None => f.write_str("; start: ")?,
        }
        f.write_str(&self.message)
    }
}

impl<S: Fn() -> Setting> Sweep<S> {
    /// A sweep over simulations that `setting` sets up, without requests yet.
    pub fn of(setting: S) -> Self {
        Self {
            setting,
            requests: Vec::new(),
            statuses: STATUSES.to_vec(),
            between: Duration::ZERO,
        }
    }

    /// Adds a request.
    pub fn request(mut self, request: Request) -> Self {
        self.requests.push(request);
        self
    }

    /// Adds requests.
    pub fn requests(mut self, requests: impl IntoIterator<Item = Request>) -> Self {
        self.requests.extend(requests);
        self
    }

    /// The statuses to answer, [`STATUSES`] unless set. 0 is Ok without doing anything.
    pub fn statuses(mut self, statuses: &[u32]) -> Self {
        self.statuses = statuses.to_vec();
        self
    }

    /// So much virtual time passes after each request, so that ticks come.
    pub fn between(mut self, time: Duration) -> Self {
        self.between = time;
        self
    }

    /// Which functions a healthy run calls in which callbacks: those there are to fail.
    ///
    /// # Panics
    /// When the simulation does not start.
    #[must_use]
    pub fn calls(&self) -> Vec<(Callback, &'static str)> {
        let setting = (self.setting)().faults(Faults::noting());
        let mut sim = setting.start().unwrap_or_else(|error| panic!("{error}"));
        for request in &self.requests {
            self.send(&mut sim, request);
        }
        sim.faults().seen()
    }

    /// Tries every failure with every request; after each failure all requests come once more with everything working.
    /// `invariant` panics where a response is not as it should be. A trap is a breach in any case; a filter that refuses
    /// to start while something fails is not.
    ///
    /// # Errors
    /// With all breaches.
    ///
    /// # Panics
    /// When the simulation does not start although nothing fails.
    pub fn run(&self, invariant: impl Fn(&Tried<'_>, &Response)) -> Result<Swept, Vec<Breach>> {
        let mut swept = Swept::default();
        let mut breaches = Vec::new();
        let mut sim = (self.setting)()
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        self.round(&mut sim, None, false, &invariant, &mut swept, &mut breaches);
        for failure in self.failures() {
            swept.failures += 1;
            match self.start(failure) {
                Err(error) => {
                    swept.refusals += 1;
                    if matches!(error.cause, StartFailure::Trapped(_)) {
                        breaches.push(Breach {
                            failure: Some(failure),
                            request: None,
                            message: error.to_string(),
                        });
                    }
                }
                Ok(mut sim) => {
                    let some = Some(failure);
                    self.round(&mut sim, some, true, &invariant, &mut swept, &mut breaches);
                    // What failed at the start was to refuse it: nothing is known of what works after it.
                    if !failure.at_start() {
                        sim.set_faults(Faults::new());
                        self.round(&mut sim, some, false, &invariant, &mut swept, &mut breaches);
                    }
                }
            }
        }
        if breaches.is_empty() {
            Ok(swept)
        } else {
            Err(breaches)
        }
    }

    /// [`Sweep::run`] for a test: a breach fails it.
    ///
    /// # Panics
    /// With all breaches, and when there is nothing that could fail.
    #[track_caller]
    pub fn check(&self, invariant: impl Fn(&Tried<'_>, &Response)) -> Swept {
        match self.run(invariant) {
            Ok(swept) => {
                assert!(
                    swept.failures > 0,
                    "the filter calls nothing that could fail"
                );
                swept
            }
            Err(breaches) => {
                let lines: String = breaches.iter().map(|b| format!("\n{b}")).collect();
                panic!("{} breaches:{lines}", breaches.len());
            }
        }
    }

    fn failures(&self) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (phase, hostcall) in self.calls() {
            for status in &self.statuses {
                for often in [Often::Once, Often::Second, Often::Always] {
                    failures.push(Failure {
                        hostcall,
                        status: *status,
                        phase,
                        often,
                    });
                }
            }
        }
        failures
    }

    fn start(&self, failure: Failure) -> Result<Sim, StartError> {
        let setting = (self.setting)();
        if failure.at_start() {
            setting.faults(failure.faults()).start()
        } else {
            setting.start()
        }
    }

    /// Sends all requests, each with the failure before it.
    fn round(
        &self,
        sim: &mut Sim,
        failure: Option<Failure>,
        fails: bool,
        invariant: &impl Fn(&Tried<'_>, &Response),
        swept: &mut Swept,
        breaches: &mut Vec<Breach>,
    ) {
        let present = failure.filter(|_| fails);
        for (index, request) in self.requests.iter().enumerate() {
            if let Some(failure) = present {
                sim.set_faults(failure.faults());
            }
            let traps = sim.traps().len();
            let got = self.send(sim, request);
            swept.requests += 1;
            let tried = Tried {
                failure: present,
                request,
                index,
            };
            let judged = quietly(|| catch_unwind(AssertUnwindSafe(|| invariant(&tried, &got))));
            let over = if fails || failure.is_none() {
                ""
            } else {
                "when it is over: "
            };
            let mut breach = |message: String| {
                breaches.push(Breach {
                    failure,
                    request: Some(index),
                    message: format!("{over}{message}"),
                });
            };
            if let Some(trap) = sim.traps().get(traps) {
                breach(trap.to_string());
            }
            if let Err(panic) = judged {
                breach(message(&*panic));
            }
        }
    }

    fn send(&self, sim: &mut Sim, request: &Request) -> Response {
        let got = sim.send(request.clone());
        sim.advance(self.between);
        got
    }
}
