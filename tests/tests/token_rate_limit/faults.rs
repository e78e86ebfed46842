//! Any hostcall answers any status, in any phase: nothing traps, and where counters can't be reached the configuration decides.

use serde_json::{Value, json};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::faults::{Sweep, Tried};
use tollgate_harness::sim::{Response, Setting};
use tollgate_harness::vm::Callback;

use super::{chat, setting, tokens};

fn config(tolerant: bool) -> Value {
    let mut config = tokens(&json!({"minute": 10_000}));
    config["minute"] = json!(100);
    config["limit_by"] = json!("ip");
    config["concurrency"] = json!([
        {"name": "parallel", "by": ["ip"], "limit": 4, "ttl_seconds": 1},
        {"name": "model", "by": ["model"], "limit": 4},
    ]);
    config["fault_tolerant"] = json!(tolerant);
    config
}

fn sweep(profile: Profile, tolerant: bool) -> Sweep<impl Fn() -> Setting> {
    Sweep::of(move || setting(profile, &config(tolerant))).requests([
        chat(&json!({})),
        chat(&json!({"stream": true})).delivered_in(&[5, 7]),
    ])
}

/// What a client may get: an answer of the upstream or of the filter, and none else.
fn answered(_: &Tried<'_>, got: &Response) {
    assert!(
        matches!(got.status(), 200 | 400 | 413 | 429 | 431 | 500 | 503),
        "status {}",
        got.status()
    );
}

#[test]
fn nothing_traps_whatever_the_host_answers() {
    for profile in [Profile::Envoy, Profile::Kong] {
        for tolerant in [true, false] {
            sweep(profile, tolerant).check(answered);
        }
    }
}

#[test]
fn without_tolerance_nothing_passes_uncounted() {
    let shared = ["proxy_get_shared_data", "proxy_set_shared_data"];
    sweep(Profile::Envoy, false).check(|tried, got| {
        let lost = tried.failure.filter(|failure| {
            shared.contains(&failure.hostcall)
                && matches!(
                    failure.phase,
                    Callback::RequestHeaders | Callback::RequestBody
                )
        });
        // Not there (1) and written by another (4) are what counters are made of.
        if lost.is_some_and(|failure| failure.status != 1 && failure.status != 4) {
            assert!(got.status() == 500 || got.header("x-ratelimit-remaining-tokens").is_some());
        }
    });
}
