//! Limits of a consumer's own: its metadata, as key-auth hands it on, in place of the configuration's.

use serde_json::{Value, json};
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Request, Response, Sim};
use tollgate_tests::load;

use super::START;

/// key-auth with the consumers `gold`, who has limits of its own, and `plain`, and the limits behind it.
fn gateway(more: &Value) -> Sim {
    let consumer = |name: &str, metadata: Value| json!({"id": name, "metadata": metadata, "credentials": [{"key": name}]});
    let own = json!({"limits": {"requests": {"minute": 3.5, "year": 1}, "all": {"minute": 5000}}});
    let keys = json!({"host": "envoy", "consumers": [consumer("gold", own), consumer("plain", json!({}))]});
    let mut limits = json!({"host": "envoy", "minute": 2, "hour": 100});
    let fields = limits.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let knobs = Knobs {
        headers_stop_iteration: true,
        ..Knobs::default()
    };
    Sim::of(Profile::Envoy)
        .knobs(knobs)
        .clock_at(START)
        .filter(&load("key_auth"), keys)
        .filter(&load("token_rate_limit"), limits)
        .start()
        .unwrap()
}

fn ask(sim: &mut Sim, consumer: &str) -> Response {
    let body = r#"{"model":"gpt-4.1","max_tokens":100,"messages":[]}"#;
    let request = Request::post("/v1/chat/completions").header("apikey", consumer.to_owned());
    sim.send(request.body(body))
}

/// How many pass in a minute.
fn passes(sim: &mut Sim, consumer: &str) -> usize {
    let passed = |_: &u32| ask(sim, consumer).status() == 200;
    (0..10).filter(passed).count()
}

#[test]
fn request_limits_of_its_own_are_shown_and_hold() {
    let mut sim = gateway(&json!({}));
    let got = ask(&mut sim, "gold");
    for (name, wanted) in [
        ("x-ratelimit-limit-minute", "3.5"),
        ("x-ratelimit-remaining-minute", "2.5"),
        ("x-ratelimit-limit-hour", "100"),
        ("ratelimit-limit", "3.5"),
        ("x-ratelimit-limit-requests", "4"),
    ] {
        assert_eq!(got.header(name), Some(wanted), "{name}");
    }
    assert_eq!(got.header("x-ratelimit-limit-year"), None);
    assert_eq!(passes(&mut sim, "gold"), 3, "as a begun one counts, of 3.5");
}

#[test]
fn others_keep_the_limits_of_the_configuration() {
    let mut sim = gateway(&json!({}));
    let got = ask(&mut sim, "plain");
    assert_eq!(got.header("x-ratelimit-limit-minute"), Some("2"));
    assert_eq!(passes(&mut sim, "plain"), 1);
}

#[test]
fn kongs_request_limits_are_the_same_for_all_consumers() {
    let mut sim = gateway(&json!({"compat": "kong"}));
    let got = ask(&mut sim, "gold");
    assert_eq!(got.header("x-ratelimit-limit-minute"), Some("2"));
    assert_eq!(passes(&mut sim, "gold"), 1);
}

#[test]
fn token_limits_of_its_own_are_shown() {
    for compat in [json!(null), json!("kong")] {
        let config = json!({"compat": compat, "tokens": [{"name": "all", "minute": 150}]});
        let mut sim = gateway(&config);
        let plain = ask(&mut sim, "plain");
        assert_eq!(plain.header("x-ratelimit-limit-tokens"), Some("150"));
        let gold = ask(&mut sim, "gold");
        assert_eq!(gold.header("x-ratelimit-limit-tokens"), Some("5000"));
    }
}
