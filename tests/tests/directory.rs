//! Many credentials: they load, from the configuration and from a URL, and no step of loading keeps a worker for long.

use serde_json::json;
use std::time::{Duration, Instant};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Answer, Request, Setting, Sim};
use tollgate_tests::load;

/// Consumers as an identity provider would list them: UUIDs, names, digests.
fn consumers(count: usize) -> serde_json::Value {
    let digest = |n: usize| {
        use sha2::{Digest, Sha256};
        Sha256::digest(format!("key-{n}"))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    (0..count)
        .map(|n| {
            json!({
                "id": format!("00000000-0000-4000-8000-{n:012}"), "username": format!("user-{n}"), "groups": ["gold"],
                "credentials": [{"id": format!("c0c00000-0000-4000-8000-{n:012}"), "key_sha256": digest(n)}],
            })
        })
        .collect()
}

fn with_key(n: usize) -> Request {
    Request::get("/").header("apikey", format!("key-{n}"))
}

fn configured(count: usize) -> Sim {
    let config = json!({"host": "envoy", "consumers": consumers(count)});
    Sim::of(Profile::Envoy)
        .filter(&load("key_auth"), config)
        .start()
        .expect("it starts")
}

#[test]
fn a_thousand_credentials_fit_into_nine_pages() {
    let memory = configured(1000).worker().memory_bytes();
    println!(
        "linear memory with 1,000 credentials: {} KiB",
        memory / 1024
    );
    assert!(memory <= 9 * 64 * 1024, "{memory} bytes");
}

#[test]
fn finding_one_of_a_hundred_thousand_costs_what_finding_one_of_a_hundred_does() {
    let cost = |count: usize| {
        let mut sim = configured(count);
        let got = sim.send(with_key(count - 1));
        assert_eq!(got.status(), 200);
        assert_eq!(sim.send(with_key(count)).status(), 401);
        got.cost().fuel
    };
    let (few, many) = (cost(100), cost(100_000));
    println!("fuel for a request: {few} with 100 credentials, {many} with 100,000");
    // Where in the table a digest lands is chance; how many there are is not to matter.
    assert!(many < few + few / 10, "{few} against {many}");
}

#[test]
fn loading_a_hundred_thousand_from_a_url_never_stalls_a_worker() {
    let document = serde_json::to_vec(&json!({"consumers": consumers(100_000)})).expect("JSON");
    let size = document.len();
    let setting: Setting = Sim::of(Profile::Envoy)
        .filter(&load("key_auth"), json!({"host": "envoy", "consumers_from": {"upstream": "directory", "path": "/", "refresh": 3600}}))
        .on_call("directory", move |_| Answer::status(200).header("etag", "\"1\"").body(document.clone()));
    let mut sim = setting.start().expect("it starts");
    assert_eq!(sim.send(with_key(0)).status(), 503);
    let (mut longest, mut most_fuel, mut steps) = (Duration::ZERO, 0, 0);
    while sim.send(with_key(99_999)).status() == 503 {
        let (fuel, started) = (sim.cost().fuel, Instant::now());
        sim.advance(Duration::from_millis(25));
        longest = longest.max(started.elapsed());
        most_fuel = most_fuel.max(sim.cost().fuel - fuel);
        steps += 1;
        assert!(steps < 10_000, "it loads at last");
    }
    assert_eq!(sim.send(with_key(99_999)).status(), 200);
    println!(
        "{size} bytes in {steps} ticks; the longest took {most_fuel} fuel (here {longest:?}); memory {} MiB",
        sim.worker().memory_bytes() >> 20
    );
    // A slice is 64 KiB; clearing new tables is the most that comes on top.
    assert!(most_fuel < 20_000_000, "{most_fuel}");
}
