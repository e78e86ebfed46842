//! What becomes of requests after a trap: the failure policies, in simulation and in a real Envoy.
//!
//! The back-off runs by the clock: in simulation by the virtual one; in Envoy it is set so long that no second load comes
//! within a test, or so short that one comes at once.

use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_harness::envoy::{self, Besides, Envoy, Filter, Listener, Tuning};
use tollgate_harness::exchange::CallFailure;
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Outcome, Sim};
use tollgate_harness::wire::Recorder;
use tollgate_harness::worker::FailurePolicy;
use tollgate_tests::module;

use crate::experiment::Client;
use crate::message::{Ask, get};
use crate::on_envoy::send;
use crate::on_sim::QUIRKS;

/// A listener or a simulation: a policy, a back-off, where the filter traps.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    policy: FailurePolicy,
    back_off: Duration,
    traps: &'static str,
    /// What three requests get: one that traps, one after it, one that traps again.
    gets: [&'static str; 3],
}

const NEVER: Duration = Duration::from_secs(3600);
/// Not 1 ms, of which Envoy 1.40 dies at the first reload: it divides by half of it.
const AT_ONCE: Duration = Duration::from_millis(2);

const fn case(
    name: &'static str,
    policy: FailurePolicy,
    back_off: Duration,
    traps: &'static str,
    gets: [&'static str; 3],
) -> Case {
    Case {
        name,
        policy,
        back_off,
        traps,
        gets,
    }
}

use FailurePolicy::{Closed, Open, Reload};

const CASES: &[Case] = &[
    case(
        "closed",
        Closed,
        AT_ONCE,
        "trap-request",
        ["503", "503", "503"],
    ),
    // The request that traps fails all the same.
    case("open", Open, AT_ONCE, "trap-request", ["503", "200", "200"]),
    case(
        "open, response",
        Open,
        AT_ONCE,
        "trap-response",
        ["503", "200", "200"],
    ),
    case(
        "open, response body",
        Open,
        AT_ONCE,
        "trap-response-body",
        ["cut", "200", "200"],
    ),
    case(
        "open, call",
        Open,
        AT_ONCE,
        "trap-call-response",
        ["hangs", "200", "200"],
    ),
    case(
        "reload",
        Reload,
        AT_ONCE,
        "trap-request",
        ["503", "200", "503"],
    ),
    case(
        "reload, response",
        Reload,
        AT_ONCE,
        "trap-response",
        ["503", "200", "503"],
    ),
    case(
        "reload, call",
        Reload,
        AT_ONCE,
        "trap-call-response",
        ["hangs", "200", "hangs"],
    ),
    case(
        "reload, log",
        Reload,
        AT_ONCE,
        "trap-log",
        ["200", "200", "200"],
    ),
    case(
        "reload, backing off",
        Reload,
        NEVER,
        "trap-request",
        ["503", "503", "503"],
    ),
];

fn requests() -> [Ask; 3] {
    [
        get("/").header("x-trap", "1"),
        get("/"),
        get("/").header("x-trap", "1"),
    ]
}

fn on_sim(case: Case) -> [String; 3] {
    let mut sim = Sim::of(Profile::Envoy)
        .knobs(Knobs {
            reload_back_off: Some(case.back_off),
            ..Knobs::default()
        })
        .on_trap(case.policy)
        .on_call("asked", |_| CallFailure::Refused)
        .filter(&QUIRKS, json!({"do": case.traps, "asked": "asked"}))
        .start()
        .expect("it starts");
    requests().map(|ask| {
        sim.advance(Duration::from_millis(10));
        let got = sim.send(ask.to_sim());
        match got.outcome() {
            Outcome::Answered => got.status().to_string(),
            Outcome::Reset(_) => "cut".to_owned(),
            _ => "hangs".to_owned(),
        }
    })
}

#[test]
fn the_failure_policies_are_envoys_in_simulation_and_in_a_real_envoy() {
    let upstream = Recorder::start().expect("a port for the upstream");
    let listener = |name: &str, filters| Listener {
        name: name.to_owned(),
        filters,
        upstream: upstream.address(),
        proxy_protocol: false,
    };
    let filter = |case: &Case| Filter {
        name: "quirks".to_owned(),
        module: module("quirks"),
        configuration: json!({"do": case.traps, "asked": envoy::cluster_name(upstream.address())})
            .to_string(),
        vm_id: case.name.to_owned(),
    };
    let listeners: Vec<_> = CASES
        .iter()
        .map(|case| listener(case.name, vec![filter(case)]))
        .collect();
    let tune = |filter: &Filter| {
        let case = CASES.iter().find(|case| case.name == filter.vm_id);
        let case = case.expect("a case of that name");
        Tuning {
            failure_policy: case.policy,
            reload_back_off: Some(case.back_off),
            ..Tuning::default()
        }
    };
    let besides = Besides {
        tune: &tune,
        ..Besides::default()
    };
    let executable = envoy::find().expect("an Envoy");
    let envoy = Envoy::start_with(&executable, &listeners, 1, &besides).expect("it starts");
    for case in CASES {
        let address = envoy.address(case.name).expect("it listens");
        // A client that may wait in vain waits shortly; the others as long as a busy machine needs.
        let patience = if case.gets.contains(&"hangs") { 2 } else { 20 };
        let got = requests().map(
            |ask| match send(address, &ask, Duration::from_secs(patience)) {
                Client::Answer { status, .. } => status.to_string(),
                Client::Nothing => "hangs".to_owned(),
                Client::Cut => "cut".to_owned(),
            },
        );
        assert_eq!(got, case.gets, "{}, real Envoy", case.name);
        assert_eq!(on_sim(*case), case.gets, "{}, simulation", case.name);
    }
}

#[test]
fn a_second_load_waits_for_the_back_off_in_simulation() {
    let mut sim = Sim::of(Profile::Envoy)
        .on_trap(Reload)
        .filter(&QUIRKS, json!({"do": "trap-request"}))
        .start()
        .expect("it starts");
    let [trap, plain, _] = requests();
    sim.advance(Duration::from_secs(2));
    assert_eq!(sim.send(trap.to_sim()).status(), 503);
    assert_eq!(
        sim.send(plain.to_sim()).status(),
        200,
        "the VM was two seconds old"
    );
    assert_eq!(sim.send(trap.to_sim()).status(), 503);
    sim.advance(Duration::from_millis(999));
    assert_eq!(
        sim.send(plain.to_sim()).status(),
        503,
        "within the base interval of 1 s"
    );
    sim.advance(Duration::from_millis(501));
    assert_eq!(
        sim.send(plain.to_sim()).status(),
        200,
        "past it and half of it more"
    );
    assert_eq!(sim.worker().reloads(), 2);
}

/// Envoy's own interval, with room on both sides for a machine that stalls.
#[test]
fn a_second_load_waits_for_the_back_off_in_a_real_envoy() {
    let upstream = Recorder::start().expect("a port for the upstream");
    let listeners = [Listener {
        name: "reload".to_owned(),
        filters: vec![Filter {
            name: "quirks".to_owned(),
            module: module("quirks"),
            configuration: json!({"do": "trap-request"}).to_string(),
            vm_id: "reload".to_owned(),
        }],
        upstream: upstream.address(),
        proxy_protocol: false,
    }];
    let tune = |_: &Filter| Tuning {
        failure_policy: Reload,
        reload_back_off: Some(Duration::from_secs(3)),
        ..Tuning::default()
    };
    let besides = Besides {
        tune: &tune,
        ..Besides::default()
    };
    let executable = envoy::find().expect("an Envoy");
    let envoy = Envoy::start_with(&executable, &listeners, 1, &besides).expect("it starts");
    let address = envoy.address("reload").expect("it listens");
    let status = |ask: &Ask| match send(address, ask, Duration::from_secs(20)) {
        Client::Answer { status, .. } => status,
        Client::Nothing | Client::Cut => 0,
    };
    let [trap, plain, _] = requests();
    assert_eq!(status(&trap), 503);
    let trapped = Instant::now();
    while status(&plain) != 200 {
        assert!(
            trapped.elapsed() < Duration::from_secs(30),
            "it never came back"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let reloads = envoy.stats("vm_reload").expect("statistics");
    let counted = |name: &str| {
        reloads
            .iter()
            .any(|(stat, n)| stat.ends_with(name) && *n > 0)
    };
    assert!(counted("vm_reload_success"), "{reloads:?}");
    assert!(
        counted("vm_reload_backoff"),
        "some requests came too early: {reloads:?}"
    );
}

#[test]
fn a_trap_tells_whose_it_is_and_what_else_was_lost() {
    let mut sim = Sim::of(Profile::Envoy)
        .on_call("silent", |_| CallFailure::Timeout)
        .filter(
            &QUIRKS,
            json!({"do": "call-trap-elsewhere", "silent": "silent"}),
        )
        .start()
        .expect("it starts");
    sim.on_call("silent", |_| {
        tollgate_harness::sim::Answer::status(200).after(Duration::from_secs(9))
    });
    let waits = sim.begin(get("/").header("x-wait", "1").to_sim());
    sim.send(get("/chat?key=secret").header("x-trap", "1").to_sim());
    let trap = &sim.traps()[0];
    assert_eq!(trap.request.as_deref(), Some("GET /chat"));
    assert_eq!(
        (trap.lost.exchanges.as_slice(), trap.lost.calls),
        (&[waits][..], 1)
    );
    let told = trap.to_string();
    assert!(
        told.contains("trap_elsewhere"),
        "the guest's functions: {told}"
    );
    assert!(
        told.contains(&format!("exchanges {waits}; 1 calls under way")),
        "{told}"
    );
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn a_trap_tells_whose_ticks_stop() {
    let mut sim = Sim::of(Profile::Envoy)
        .filter(&QUIRKS, json!({"do": "tick-resumes-request"}))
        .filter(&QUIRKS, json!({"do": "trap-request"}))
        .start()
        .expect("it starts");
    sim.send_through(&[1], get("/").header("x-trap", "1").to_sim());
    assert_eq!(sim.traps()[0].lost.ticks, ["tollgate_quirks"]);
    sim.advance(Duration::from_secs(1));
    assert_eq!(sim.worker().next_tick(), None);
}
