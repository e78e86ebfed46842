//! What the filter does works on every host, and what it writes is what clients read.

use serde_json::json;
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Answer, Request};

use super::{chat, gateway, tokens, usage};

#[test]
fn nothing_it_does_is_beyond_another_host() {
    let requests = json!({"minute": 5, "limit_by": "ip"});
    let mut both = tokens(&json!({"minute": 400}));
    both["minute"] = json!(5);
    // How to wait for a body differs, and `host` says it; all else is the same everywhere.
    for (profile, config) in [
        (Profile::Spec, &requests),
        (Profile::Envoy, &requests),
        (Profile::Kong, &both),
    ] {
        let mut sim = gateway(profile, config);
        sim.upstream(|_| usage(7, 13));
        for _ in 0..7 {
            sim.send(chat(&json!({})));
        }
        sim.send(Request::get("/v1/models"));
        sim.assert_portable();
    }
}

#[test]
fn openais_headers_tell_what_is_left() {
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut config = tokens(&json!({"minute": 1000, "day": 5000}));
        config["minute"] = json!(5);
        let mut sim = gateway(profile, &config);
        let got = sim.send(chat(&json!({})));
        got.assert_header("x-ratelimit-limit-tokens", "1000")
            .assert_header("x-ratelimit-reset-tokens", "55s")
            .assert_header("x-ratelimit-limit-requests", "5")
            .assert_header("x-ratelimit-remaining-requests", "4")
            .assert_header("ratelimit-remaining", "4");
    }
}

#[test]
fn a_refusal_is_one_that_sdks_understand() {
    let mut config = tokens(&json!({"minute": 150}));
    config["error_format"] = json!("openai");
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway(profile, &config);
        sim.upstream(|_| usage(100, 50));
        sim.send(chat(&json!({}))).assert_status(200);
        let got = sim.send(chat(&json!({})));
        got.assert_status(429)
            .assert_no_upstream()
            .assert_header("retry-after", "55")
            .assert_header("x-ratelimit-remaining-tokens", "0");
        let body: serde_json::Value = serde_json::from_slice(got.body()).unwrap();
        assert_eq!(body["error"]["type"], "rate_limit_error", "{body}");
        assert_eq!(body["error"]["code"], "rate_limit_exceeded", "{body}");
    }
}

#[test]
fn an_answer_is_asked_for_in_no_code_that_is_not_read() {
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway(profile, &tokens(&json!({"minute": 1000})));
        let got = sim.send(chat(&json!({})).header("accept-encoding", "gzip, br"));
        got.assert_upstream_header("accept-encoding", "identity");
    }
}

#[test]
fn an_upstreams_own_limit_headers_do_not_stand_beside_ours() {
    let mut sim = gateway(Profile::Envoy, &json!({"minute": 5, "limit_by": "ip"}));
    sim.upstream(|_| Answer::status(200).header("RateLimit-Remaining", "999"));
    let got = sim.send(Request::get("/"));
    let lines: Vec<_> = got.headers().get_all("ratelimit-remaining").collect();
    assert_eq!(lines, ["4"]);
}
