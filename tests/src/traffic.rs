//! The traffic that costs are measured with, in simulation: requests as client SDKs send them, and answers that tell usage.

use serde_json::{Value, json};
use tollgate_harness::engine::Module;
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Answer, Request, Setting, Sim};

/// A request with 20 headers, as a browser's client sends them behind two proxies; `last` is one of them, a name and a value.
#[must_use]
pub fn request(method: &str, last: (&'static str, &str)) -> Request {
    let lines = [
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.9"),
        ("cache-control", "no-cache"),
        ("content-type", "application/json"),
        ("origin", "https://app.example.com"),
        ("pragma", "no-cache"),
        ("referer", "https://app.example.com/chat"),
        ("sec-fetch-mode", "cors"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("user-agent", "OpenAI/Python 2.8.0"),
        ("x-forwarded-for", "203.0.113.7, 10.0.0.2"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "2f9d3f6c-8d0d-4a52-b7c5-0c1b5c0f3a11"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-lang", "python"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-runtime", "CPython"),
    ];
    let request = Request::new(method, "/v1/chat/completions");
    let request = lines.into_iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    request.header(last.0, last.1.to_owned())
}

/// The last header of a request without a key.
pub const NO_KEY: (&str, &str) = ("x-stainless-async", "false");

/// A chat request of half a kilobyte, with these further fields as they stand in JSON: `,"stream":true`.
#[must_use]
pub fn chat(more: &str, last: (&'static str, &str)) -> Request {
    let text = "word ".repeat(80);
    let body = format!(
        r#"{{"model":"gpt-4.1","max_tokens":200{more},"messages":[{{"role":"user","content":"{text}"}}]}}"#
    );
    request("POST", last).body(body)
}

/// A module on Envoy with `allow_on_headers_stop_iteration`, yet to be started.
pub fn setting(module: &Module, configuration: &Value) -> Setting {
    let knobs = Knobs {
        headers_stop_iteration: true,
        ..Knobs::default()
    };
    Sim::of(Profile::Envoy)
        .knobs(knobs)
        .filter(module, configuration)
}

/// The same, started.
///
/// # Panics
/// When it can't be started: nothing could be measured.
#[must_use]
pub fn simulation(module: &Module, configuration: &Value) -> Sim {
    let started = setting(module, configuration).start();
    started.unwrap_or_else(|error| panic!("{error}"))
}

/// An upstream that tells usage: in a stream of 200 events where the request asks for one.
pub fn tell_usage(sim: &mut Sim) {
    sim.upstream(|request| {
        let streamed = request.body.windows(8).any(|window| window == b"\"stream\"");
        if !streamed {
            let body = r#"{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":200}}"#;
            return Answer::status(200).body(body);
        }
        let event = |inner: &str| format!("data: {{\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4.1\",{inner}}}\n\n");
        let word = event(r#""choices":[{"index":0,"delta":{"content":"word "}}]"#);
        let usage = event(r#""choices":[],"usage":{"prompt_tokens":100,"completion_tokens":200}"#);
        let mut events = vec![word; 199];
        events.extend([usage, "data: [DONE]\n\n".to_owned()]);
        Answer::status(200)
            .header("content-type", "text/event-stream")
            .streamed(&events)
    });
}

/// So many token rules, each with a counter of two windows for each `by`.
#[must_use]
pub fn token_rules(count: usize, by: &str) -> Value {
    (0..count)
        .map(|rule| json!({"name": format!("rule-{rule}"), "by": [by], "minute": 1_000_000, "day": 100_000_000}))
        .collect()
}
