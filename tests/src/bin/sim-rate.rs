//! How many schedules of a race the simulator tries in a second: four workers with a module each, a request to each worker.

use std::time::Instant;

use serde_json::{Value, json};
use tollgate_harness::engine::Module;
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::race::{self, Race, RaceSetting};
use tollgate_harness::sim::{Request, Sim};
use tollgate_tests::{consumers, load};

const SCHEDULES: u64 = 2000;
const WORKERS: usize = 4;

fn setting(module: &Module, config: &Value) -> RaceSetting {
    let knobs = Knobs {
        headers_stop_iteration: true,
        ..Knobs::default()
    };
    Sim::of(Profile::Envoy)
        .knobs(knobs)
        .filter(module, config)
        .workers(WORKERS)
}

fn requests(race: &mut Race) {
    for worker in 0..WORKERS {
        race.spawn(
            worker,
            Request::get("/").header("apikey", "sk-0000000000-abcdefghijklmnopqrstuvwxyz"),
        );
    }
    race.run();
    assert!(race.responses().iter().all(|got| got.status() == 200));
}

fn main() {
    let configs = [
        ("noop", json!({})),
        (
            "key_auth",
            json!({"host": "envoy", "consumers": consumers(0..10)}),
        ),
    ];
    for (filter, config) in configs {
        let module = load(filter);
        let started = Instant::now();
        let explored = race::check(0..SCHEDULES, || setting(&module, &config), requests);
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{filter}: {:.0} schedules a second, {:.0} steps a second ({explored:?})",
            explored.schedules as f64 / seconds,
            explored.steps as f64 / seconds,
        );
    }
}
