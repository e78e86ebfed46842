//! Any hostcall answers any status, in any phase: nothing traps, and where counters can't be reached the configuration decides.

use serde_json::{Value, json};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::faults::{Sweep, Tried};
use tollgate_harness::sim::{Request, Response, Setting};
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

/// Questions of a client and of an operator, and a request that shows what has become of its counter.
fn questions(profile: Profile) -> Sweep<impl Fn() -> Setting> {
    const KEY: &str = "an-operators-key-of-some-length";
    let order =
        json!({"rule": "requests", "by": {"ip": "127.0.0.1"}, "action": "add", "amount": 1});
    let ask = move || Request::post("/limits").body(order.to_string());
    let setting = move || {
        let mut config = config(true);
        config["budget_path"] = json!("/budget");
        config["admin"] = json!({"path": "/limits", "key": KEY});
        setting(profile, &config)
    };
    Sweep::of(setting).requests([
        Request::get("/budget"),
        ask(),
        ask().header("x-admin-key", KEY),
        chat(&json!({})),
    ])
}

#[test]
fn no_question_reaches_the_upstream_and_none_is_answered_without_the_key() {
    for profile in [Profile::Envoy, Profile::Kong] {
        questions(profile).check(|tried, got| {
            let path = tried.failure.filter(|failure| {
                // Where the host does not tell the path, nobody can know what a request is for.
                failure.hostcall.contains("header") || failure.hostcall.contains("property")
            });
            if tried.index < 3 && path.is_none() {
                assert!(got.upstream().is_none(), "a question went upstream");
            }
            if tried.index == 1 {
                assert_ne!(got.status(), 200);
            }
        });
    }
}
