//! Trying many schedules, and making the one that breaks something small.

use std::env;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::schedule::Schedule;
use super::strategy::Lead;
use super::{Race, RaceSetting};
use crate::sim::quiet::{message, quietly};

/// Runs the one seed of this number instead of those that the test names.
const SEED: &str = "TOLLGATE_SEED";

/// Runs this schedule instead.
const SCHEDULE: &str = "TOLLGATE_SCHEDULE";

/// How often shrinking may try.
const TRIES: usize = 2000;

/// What was tried, and did not break anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// How many schedules.
    pub schedules: usize,
    /// How many steps they had in all.
    pub steps: usize,
    /// In how many steps a worker cut in on another's callback.
    pub preemptions: usize,
}

/// A schedule that breaks the scenario, as small as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The seed that found it; `None` where a schedule was given.
    pub seed: Option<u64>,
    /// How many schedules held before it.
    pub held: usize,
    /// What the scenario said.
    pub message: String,
    /// The schedule that the seed led to.
    pub found: Schedule,
    /// What is left of it: without any one of its switches the scenario holds.
    pub schedule: Schedule,
    /// What happens in it, step by step.
    pub trace: String,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)?;
        if let Some(seed) = self.seed {
            writeln!(
                f,
                "\nseed {seed} ({SEED}={seed}), after {} schedules that held",
                self.held
            )?;
        }
        writeln!(
            f,
            "\nschedule, shrunk from {} switches to {}: {SCHEDULE}=\"{}\"\n",
            self.found.switches(),
            self.schedule.switches(),
            self.schedule
        )?;
        f.write_str(&self.trace)
    }
}

/// Runs a scenario under the schedules of many seeds. `setting` sets each race up anew; `scenario` spawns requests, runs,
/// and panics where something does not hold.
///
/// The environment variables `TOLLGATE_SEED` and `TOLLGATE_SCHEDULE` replace the seeds by one seed or one schedule.
///
/// # Errors
/// With the first seed's schedule that breaks the scenario, shrunk.
///
/// # Panics
/// When a race does not start, or an environment variable can't be read.
pub fn explore(
    seeds: impl IntoIterator<Item = u64>,
    setting: impl Fn() -> RaceSetting,
    scenario: impl Fn(&mut Race),
) -> Result<Explored, Box<Counterexample>> {
    let trial = Trial { setting, scenario };
    let mut explored = Explored::default();
    if let Ok(text) = env::var(SCHEDULE) {
        let schedule = text.parse::<Schedule>();
        let schedule = schedule.unwrap_or_else(|error| panic!("{SCHEDULE}: {error}"));
        return match trial.run(&Lead::Replay(schedule)).broken() {
            Some(broken) => Err(Box::new(broken.unshrunk())),
            None => Ok(explored),
        };
    }
    let one = env::var(SEED).ok().map(|text| {
        let seed = text.parse::<u64>();
        seed.unwrap_or_else(|error| panic!("{SEED}={text}: {error}"))
    });
    let mut seeds = seeds.into_iter();
    let seeds: &mut dyn Iterator<Item = u64> = match one {
        Some(seed) => &mut std::iter::once(seed),
        None => &mut seeds,
    };
    for seed in seeds {
        let ran = trial.run(&Lead::Seed(seed));
        let (steps, preemptions) = (ran.steps, ran.preemptions);
        if let Some(broken) = ran.broken() {
            let counterexample = Counterexample {
                seed: Some(seed),
                held: explored.schedules,
                ..trial.shrink(broken)
            };
            return Err(Box::new(counterexample));
        }
        explored.schedules += 1;
        explored.steps += steps;
        explored.preemptions += preemptions;
    }
    Ok(explored)
}

/// [`explore`] for a test: what breaks the scenario fails it.
///
/// # Panics
/// With the [`Counterexample`], and as [`explore`] does.
#[track_caller]
pub fn check(
    seeds: impl IntoIterator<Item = u64>,
    setting: impl Fn() -> RaceSetting,
    scenario: impl Fn(&mut Race),
) -> Explored {
    match explore(seeds, setting, scenario) {
        Ok(explored) => explored,
        Err(counterexample) => panic!("{counterexample}"),
    }
}

/// A scenario with all that it takes to run it.
struct Trial<S, F> {
    setting: S,
    scenario: F,
}

/// How a run went.
struct Ran {
    failure: Option<String>,
    schedule: Schedule,
    trace: String,
    steps: usize,
    preemptions: usize,
}

/// A run that went wrong.
struct Broken {
    message: String,
    schedule: Schedule,
    trace: String,
}

impl Ran {
    fn broken(self) -> Option<Broken> {
        let message = self.failure?;
        Some(Broken {
            message,
            schedule: self.schedule,
            trace: self.trace,
        })
    }
}

impl Broken {
    fn unshrunk(self) -> Counterexample {
        Counterexample {
            seed: None,
            held: 0,
            message: self.message,
            found: self.schedule.clone(),
            schedule: self.schedule,
            trace: self.trace,
        }
    }
}

impl<S: Fn() -> RaceSetting, F: Fn(&mut Race)> Trial<S, F> {
    fn run(&self, lead: &Lead) -> Ran {
        let race = (self.setting)().led_by(lead.clone()).start();
        let mut race = race.unwrap_or_else(|error| panic!("{error}"));
        let scenario = AssertUnwindSafe(|| (self.scenario)(&mut race));
        let result = quietly(|| catch_unwind(scenario));
        let failure = result.err().map(|panic| message(&*panic));
        let steps = race.steps();
        Ran {
            // Only a run that failed is looked at.
            trace: failure.as_ref().map_or_else(String::new, |_| race.trace()),
            failure,
            schedule: race.schedule(),
            preemptions: steps.iter().filter(|step| step.preempts).count(),
            steps: steps.len(),
        }
    }

    /// Leaves out switches, many at once and then one by one, as long as the scenario breaks without them
    /// (delta debugging; Zeller and Hildebrandt, 2002, without the complements).
    fn shrink(&self, broken: Broken) -> Counterexample {
        let found = broken.schedule.clone();
        let mut smallest = broken;
        let mut tries = 0;
        let mut size = smallest.schedule.switches().max(1);
        while tries < TRIES {
            let mut shrunk = false;
            let mut from = 0;
            while from < smallest.schedule.switches() && tries < TRIES {
                tries += 1;
                let mut less = smallest.schedule.0.clone();
                less.drain(from..(from + size).min(less.len()));
                let ran = self.run(&Lead::Replay(Schedule(less)));
                match ran.broken() {
                    // A switch that did not come to pass is left out too.
                    Some(less) if less.schedule.switches() < smallest.schedule.switches() => {
                        smallest = less;
                        shrunk = true;
                    }
                    _ => from += size,
                }
            }
            if !shrunk && size == 1 {
                break;
            }
            size = (size / 2).max(1);
        }
        Counterexample {
            found,
            ..smallest.unshrunk()
        }
    }
}
