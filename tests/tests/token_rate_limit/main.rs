//! token-rate-limit in simulation: every interleaving of workers, every way an answer may come, every failing hostcall.

mod answers;
mod concurrency;
mod desk;
mod faults;
mod own_limits;
mod peers;
mod portable;
mod races;
mod redis;

use serde_json::{Value, json};
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Answer, Request, Response, Setting, Sim};
use tollgate_tests::load;

/// 12:00:05 on the first of January 2024, UTC.
const START: u64 = 1_704_110_405;

/// A filter with this configuration behind nothing; `host` is added.
fn setting(profile: Profile, config: &Value) -> Setting {
    let module = load("token_rate_limit");
    let mut config = config.clone();
    let host = if profile == Profile::Kong {
        "kong"
    } else {
        "envoy"
    };
    config["host"] = json!(host);
    let knobs = Knobs {
        headers_stop_iteration: true,
        ..Knobs::default()
    };
    Sim::of(profile)
        .knobs(knobs)
        .clock_at(START)
        .filter(&module, config)
}

fn gateway(profile: Profile, config: &Value) -> Sim {
    setting(profile, config).start().expect("it starts")
}

/// One token rule for all clients together.
fn tokens(limits: &Value) -> Value {
    let mut rule = json!({"name": "all", "by": ["ip"]});
    let fields = rule.as_object_mut().expect("it is an object");
    fields.extend(limits.as_object().cloned().unwrap_or_default());
    json!({"tokens": [rule]})
}

fn chat(more: &Value) -> Request {
    let mut body = json!({"model": "gpt-4.1", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]});
    let fields = body.as_object_mut().expect("it is an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    Request::post("/v1/chat/completions").body(body.to_string())
}

fn usage(prompt: u64, completion: u64) -> Answer {
    let body = json!({
        "object": "chat.completion", "model": "gpt-4.1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    });
    Answer::status(200)
        .header("content-type", "application/json")
        .body(body.to_string())
}

/// The tokens that are left, as the client is told.
fn left(got: &Response) -> u64 {
    let text = got.header("x-ratelimit-remaining-tokens");
    text.and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no remaining tokens in {:?}", got.headers()))
}

/// What one such request reserves: what it takes from an empty counter.
fn reserved(profile: Profile, config: &Value, request: Request) -> u64 {
    let limit: u64 = 1_000_000_000;
    let mut config = config.clone();
    config["tokens"][0]["minute"] = json!(limit);
    limit - left(&gateway(profile, &config).send(request))
}

/// What has been used, by a request that tells what is left beside what it reserves itself.
fn used(sim: &mut Sim, limit: u64, request: Request, reserves: u64) -> u64 {
    limit - reserves - left(&sim.send(request))
}
