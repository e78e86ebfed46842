//! An experiment in simulation.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::json;
use tollgate_harness::engine::{Engine, Module};
use tollgate_harness::exchange::CallFailure;
use tollgate_harness::profile::{Knobs, Profile, Row};
use tollgate_harness::sim::{Answer, Outcome, Response, Sim};
use tollgate_harness::vm::{TrapCause, TrapReport};
use tollgate_harness::worker::FailurePolicy;
use tollgate_tests::load;

use crate::experiment::{Client, Experiment, Seen, Step, Upstream};

pub(crate) static QUIRKS: LazyLock<Module> = LazyLock::new(|| load("quirks"));

/// Time between two steps: ticks come.
const PAUSE: Duration = Duration::from_micros(1_234_567);

/// What an experiment shows under a profile.
pub(crate) fn observe(experiment: &Experiment, profile: Profile) -> String {
    match run(experiment, profile) {
        Some((_, seen)) => experiment.report(&seen),
        None => "does not start".to_owned(),
    }
}

/// What is found not to be portable of an experiment under a profile.
pub(crate) fn found(experiment: &Experiment, profile: Profile) -> BTreeSet<Row> {
    let found = run(experiment, profile).map(|(sim, _)| sim.portability().to_vec());
    found
        .into_iter()
        .flatten()
        .map(|finding| finding.row)
        .collect()
}

/// Runs an experiment; `None` where its filters do not start.
fn run(experiment: &Experiment, profile: Profile) -> Option<(Sim, Seen)> {
    let mut setting = Sim::of(profile)
        .knobs(Knobs {
            headers_stop_iteration: experiment.headers_stop_iteration,
            ..Knobs::default()
        })
        .on_trap(FailurePolicy::Closed)
        .environment("QUIRK", "set")
        .on_call("asked", |_| {
            Answer::status(404).header("x-from", "asked").body("answer")
        })
        .on_call("nobody", |_| CallFailure::Refused)
        .on_call("closing", |_| CallFailure::Reset)
        .on_call("silent", |_| {
            Answer::status(200).after(Duration::from_secs(100))
        });
    for name in experiment.entries {
        let orders = json!({
            "do": experiment.id, "as": name,
            "asked": "asked", "nobody": "nobody", "silent": "silent", "closing": "closing",
        });
        setting = match experiment.guest {
            Some(source) => setting.filter(&written(source), orders),
            None => setting.filter(&QUIRKS, orders),
        };
    }
    let mut sim = setting.start().ok()?;
    let told = experiment.told.clone();
    sim.upstream(move |_| told.to_sim());
    let mut seen = Seen::default();
    let mut started = Vec::new();
    sim.advance(PAUSE);
    for step in &experiment.steps {
        match step {
            Step::Send(ask) => {
                let response = sim.send(ask.to_sim());
                take(&mut seen, &response);
            }
            Step::Start(ask) => started.push(sim.begin(ask.to_sim())),
        }
        sim.advance(Duration::from_millis(100));
    }
    for id in started {
        let response = sim.finish(id);
        take(&mut seen, &response);
    }
    let said = sim
        .logs()
        .iter()
        .filter_map(|line| line.message.strip_prefix("quirks: "));
    seen.said = said.map(str::to_owned).collect();
    let mut refused: Vec<_> = sim.traps().iter().filter_map(refusal).collect();
    // What each new instance does again is refused again.
    refused.dedup();
    seen.said.extend(refused);
    seen.asked = sim
        .calls()
        .iter()
        .filter_map(|call| Some(call.headers.get_str(":path")?.to_owned()))
        .collect();
    Some((sim, seen))
}

fn written(source: &str) -> Module {
    let engine = Engine::for_simulation().expect("an engine");
    Module::from_bytes(&engine, "written", source.as_bytes()).expect("a module")
}

/// A trap that the host made of what a filter did. One that the filter made itself is the experiment's own.
fn refusal(trap: &TrapReport) -> Option<String> {
    match (&trap.cause, trap.kills_worker) {
        (_, true) => Some("the worker died".to_owned()),
        (TrapCause::Host(rule), _) => Some(format!("trap: {rule}")),
        _ => None,
    }
}

fn take(seen: &mut Seen, response: &Response) {
    seen.clients.push(match response.outcome() {
        Outcome::Answered => Client::Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.body().to_vec(),
        },
        Outcome::Misframed { declared, sent } if declared < sent => Client::Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.body().to_vec(),
        },
        Outcome::Hung(_) | Outcome::Waiting | Outcome::Misframed { .. } => Client::Nothing,
        Outcome::Reset(_) | Outcome::Aborted | Outcome::UpstreamLost => Client::Cut,
    });
    seen.upstream
        .extend(response.upstream().map(|request| Upstream {
            path: request.path.clone(),
            headers: request.headers.clone(),
            body: request.body.to_vec(),
        }));
}
