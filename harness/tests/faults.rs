//! The sweep over failing host functions finds what a filter does not stand, and says which failure it was.

mod guest;

use guest::Guest;
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::Request;
use tollgate_harness::sim::faults::{Breach, Often, Sweep};
use tollgate_harness::vm::Callback;

/// Refuses who has no `x-a`, and lets everyone in where it can't tell whether there is one: 1 says that there is none.
fn gullible() -> Guest {
    let mut guest = Guest::new();
    let (name, body) = (guest.text("x-a"), guest.text("no"));
    guest.on(
        "request_headers",
        &format!(
            "(if (i32.eq (call $get_header (i32.const 0) {name} (i32.const 16) (i32.const 20)) (i32.const 1))
               (then (call $answer (i32.const 403) {body}) (return (i32.const 1))))"
        ),
    )
}

fn sweep(guest: &Guest) -> Result<(), Vec<Breach>> {
    let sweep = Sweep::of(|| guest.setting(Profile::Envoy)).request(Request::get("/"));
    sweep.run(|_, got| _ = got.assert_no_upstream()).map(|_| ())
}

#[test]
fn a_status_that_lets_everyone_in_is_named() {
    let breaches = sweep(&gullible()).unwrap_err();
    let failures: Vec<_> = breaches
        .iter()
        .filter_map(|breach| breach.failure)
        .collect();
    // All but the one that means that there is none, once and always.
    assert_eq!(failures.len(), 14 * 2, "{breaches:?}");
    assert!(failures.iter().all(|failure| {
        failure.hostcall == "proxy_get_header_map_value"
            && failure.phase == Callback::RequestHeaders
    }));
    assert!(
        failures
            .iter()
            .all(|failure| failure.often != Often::Second)
    );
    assert_eq!(
        breaches[0].to_string().lines().next(),
        Some(
            "proxy_get_header_map_value answers 2 in on_request_headers, once; request 0: the request reached the \
             upstream: GET / "
        )
    );
}

#[test]
fn a_trap_is_a_breach() {
    let guest = Guest::new()
        .with("(func $checked (if (call $log (i32.const 2) (i32.const 0) (i32.const 1)) (then unreachable)))")
        .on("log", "(call $checked)");
    let sweep = Sweep::of(|| guest.setting(Profile::Envoy)).request(Request::get("/"));
    let breaches = sweep.statuses(&[10]).run(|_, _| {}).unwrap_err();
    assert!(
        breaches[0].message.contains("trapped in on_log"),
        "{breaches:?}"
    );
}

#[test]
fn a_filter_that_stands_everything_passes() {
    let mut guest = Guest::new();
    let name = guest.text("x-a");
    let read =
        format!("(drop (call $get_header (i32.const 0) {name} (i32.const 16) (i32.const 20)))");
    let guest = guest
        .on("request_headers", &read)
        .on("configure", "(call $num (i32.const 1))");
    let sweep = Sweep::of(|| guest.setting(Profile::Envoy)).request(Request::get("/"));
    let swept = sweep
        .statuses(&[2, 99])
        .check(|_, got| _ = got.assert_status(200));
    // Two functions in a phase each, two statuses, once, the second time, always.
    assert_eq!(swept.failures, 2 * 2 * 3);
    // Before everything; during each; and after each that did not fail the start.
    assert_eq!(swept.requests, 1 + 12 + 6);
}
