//! Queues between workers: who is woken, and that a proxy's lanes are.

mod guest;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use guest::{Guest, said};
use serde_json::json;
use tollgate_harness::catalog::Search;
use tollgate_harness::exchange::{Event, Peer};
use tollgate_harness::profile::Profile;
use tollgate_harness::proxy::{Config, Proxy};
use tollgate_harness::sim::Request;
use tollgate_harness::worker::{FailurePolicy, FilterSpec, Setup, Worker};
use wire::{get, until};

/// Registers `jobs`, puts an item in with each request, and counts in `done` what it takes out.
fn jobs() -> Guest {
    let mut guest = Guest::new();
    let (name, item, done) = (guest.text("jobs"), guest.text("job"), guest.text("done"));
    guest
        .on(
            "configure",
            &format!(
                "(drop (call $register {name} (i32.const 32)))
                 (drop (call $define (i32.const 0) {done} (i32.const 36)))"
            ),
        )
        .on(
            "request_headers",
            &format!("(drop (call $enqueue (i32.load (i32.const 32)) {item}))"),
        )
        .on(
            "queue_ready",
            "(if (i32.eqz (call $dequeue (local.get $n) (i32.const 16) (i32.const 20)))
               (then (drop (call $increment (i32.load (i32.const 36)) (i64.const 1)))))
             (call $fresh)",
        )
}

fn worker(setup: &Setup, guest: &Guest) -> Worker {
    let filter = FilterSpec {
        name: "jobs".to_owned(),
        module: guest.module(),
        configuration: Vec::new(),
        environment: Vec::new(),
        on_trap: FailurePolicy::Closed,
    };
    Worker::start(setup.clone(), vec![filter]).unwrap()
}

/// Shows a request's headers to the worker's filters.
fn request(worker: &mut Worker) {
    let peer = Peer {
        source: ([127, 0, 0, 1], 1).into(),
        destination: ([127, 0, 0, 1], 2).into(),
        scheme: "http".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
    };
    let lines = [(":method", "GET"), (":path", "/"), (":authority", "h")];
    let headers = lines.into_iter().collect();
    let id = worker.open(&[0], peer);
    worker.deliver(id, Event::RequestHeaders { headers, end: true });
    worker.close(id);
}

#[test]
fn the_worker_that_registered_last_is_woken_for_each_item() {
    let (setup, guest) = (Setup::new(Profile::Envoy), jobs());
    let mut first = worker(&setup, &guest);
    let mut last = worker(&setup, &guest);
    let woken = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    for (index, worker) in [&first, &last].into_iter().enumerate() {
        let woken = Arc::clone(&woken);
        worker.wake_with(move || {
            woken[index].fetch_add(1, Ordering::Relaxed);
        });
    }
    let done = || {
        setup
            .shared
            .metrics()
            .get("done")
            .map_or(0, |done| done.value)
    };
    for _ in 0..3 {
        request(&mut first);
    }
    assert_eq!(woken[0].load(Ordering::Relaxed), 0);
    assert_eq!(woken[1].load(Ordering::Relaxed), 3);
    first.tell_readers();
    assert_eq!(done(), 0, "the first reads no more");
    last.tell_readers();
    assert_eq!(done(), 3, "once for each item");
}

#[test]
fn what_came_before_the_driver_listens_wakes_it_at_once() {
    let (setup, guest) = (Setup::new(Profile::Envoy), jobs());
    let mut writer = worker(&setup, &guest);
    let reader = worker(&setup, &guest);
    request(&mut writer);
    let woken = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&woken);
    reader.wake_with(move || {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(woken.load(Ordering::Relaxed), 1);
}

#[test]
fn a_queue_is_found_by_its_name() {
    let mut guest = Guest::new();
    let (name, other) = (guest.text("jobs"), guest.text("nowhere"));
    let resolve = |name: &str| {
        format!("(call $num (call $resolve (i32.const 0) (i32.const 0) {name} (i32.const 36)))")
    };
    let mut sim = guest
        .import(
            "env",
            "proxy_resolve_shared_queue",
            "$resolve (param i32 i32 i32 i32 i32) (result i32)",
        )
        .on(
            "configure",
            &format!("(drop (call $register {name} (i32.const 32)))"),
        )
        .on(
            "request_headers",
            &format!(
                "{} (call $num (i32.eq (i32.load (i32.const 32)) (i32.load (i32.const 36)))) {}",
                resolve(&name),
                resolve(&other)
            ),
        )
        .sim(Profile::Envoy);
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["0", "1", "1"]);
}

#[test]
fn a_proxys_lane_is_woken_by_another_lanes_item() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("jobs.wasm"), jobs().source()).unwrap();
    let config = json!({
        "access_log": false,
        "workers": 2,
        "listeners": [{"address": "127.0.0.1:0"}],
        "routes": [{"cluster": "none", "filters": ["jobs"]}],
        "clusters": {"none": {"endpoints": ["127.0.0.1:1"]}},
        "filters": {"jobs": {"wasm": "./jobs.wasm"}},
    });
    let config = Config::read(
        &config.to_string(),
        directory.path(),
        &Search::from_here(None),
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let proxy = Proxy::start(config.config).unwrap_or_else(|error| panic!("{error}"));
    let done = || {
        proxy
            .shared()
            .metrics()
            .get("done")
            .map_or(0, |done| done.value)
    };
    // Each on a connection of its own, which either lane takes; there is no tick to look by chance.
    for sent in 1..=20 {
        assert_eq!(get(proxy.addresses()[0], "/").status(), 502);
        until(|| done() == sent);
    }
}
