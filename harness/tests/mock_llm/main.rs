//! The mock provider through real sockets: three providers' wire formats, what can go wrong, and the ledger.

#[path = "../wire/mod.rs"]
mod wire;

mod anthropic;
mod faults;
mod gemini;
mod http2;
mod ledger;
mod openai;

use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use wire::{Answer, Wire, get, request};

const CHAT: &str = "/v1/chat/completions";

fn provider() -> MockLlm {
    MockLlm::start(Settings::default()).unwrap()
}

fn question(text: &str) -> Value {
    json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": text}]})
}

fn streamed(text: &str) -> Value {
    let mut question = question(text);
    question["stream"] = json!(true);
    question["stream_options"] = json!({"include_usage": true});
    question
}

/// Asks with a plan.
fn ask(provider: &MockLlm, path: &str, plan: &str, body: &Value) -> Answer {
    let lines = [
        format!("x-mock: {plan}"),
        "anthropic-version: 2023-06-01".to_owned(),
    ];
    let lines = lines.each_ref().map(String::as_str);
    request(provider.address(), "POST", path, &lines, &body.to_string())
}

/// Sends a request and leaves the answer to be read.
fn begin(provider: &MockLlm, path: &str, lines: &str, body: &Value) -> Wire {
    let mut wire = Wire::connect(provider.address());
    let body = body.to_string();
    wire.send(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{lines}\r\n{body}",
        body.len()
    ));
    wire
}

/// The data of each event of a stream, `[DONE]` included.
fn events(body: &str) -> Vec<String> {
    let events: Vec<_> = body.split_terminator("\n\n").collect();
    events
        .into_iter()
        .map(|event| {
            let (_, data) = event.split_once("data: ").unwrap();
            data.to_owned()
        })
        .collect()
}

/// The events of a stream, without `[DONE]`.
fn chunks(body: &str) -> Vec<Value> {
    let events = events(body);
    let data = events.iter().filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// What the ledger says once every response has ended.
fn ledger(provider: &MockLlm) -> Value {
    get(provider.address(), "/ledger?wait=20").json()
}

/// The ledger's only entry.
fn entry(provider: &MockLlm) -> Value {
    let ledger = ledger(provider);
    let entries = ledger["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{ledger}");
    entries[0].clone()
}
