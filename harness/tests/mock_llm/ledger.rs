//! What the ledger tells, next to what clients got.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};

use super::wire::{get, request};
use super::{CHAT, ask, begin, entry, ledger, provider, question, streamed};

#[test]
fn an_entry_tells_whom_what_was_served_and_no_key() {
    let provider = provider();
    let lines = ["Authorization: Bearer sk-secret"];
    let answer = request(
        provider.address(),
        "POST",
        CHAT,
        &lines,
        &question("12345").to_string(),
    );
    let ledger = ledger(&provider);
    let entry = &ledger["entries"][0];
    assert_eq!(entry["request_id"], answer.header("x-request-id").unwrap());
    assert_eq!(entry["prompt_tokens"], 8);
    assert_eq!(
        entry["completion_tokens"],
        answer.json()["usage"]["completion_tokens"]
    );
    assert_eq!(entry["written_tokens"], entry["completion_tokens"]);
    assert_eq!(
        (&entry["usage_sent"], &entry["aborted"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&entry["api"], &entry["model"]),
        (&json!("openai.chat"), &json!("gpt-4.1"))
    );
    assert_eq!(entry["key"].as_str().map(str::len), Some(12));
    assert!(!ledger.to_string().contains("sk-secret"));
    assert_eq!(
        ledger["totals"][0]["completion_tokens"],
        entry["completion_tokens"]
    );
}

#[test]
fn entries_after_a_sequence_are_given_and_deleting_begins_anew() {
    let provider = provider();
    for _ in 0..3 {
        ask(&provider, CHAT, "none", &question("hi"));
    }
    let since = get(provider.address(), "/ledger?wait=20&since=2").json();
    assert_eq!(since["entries"].as_array().unwrap().len(), 1);
    assert_eq!(since["entries"][0]["sequence"], 3);
    assert_eq!(since["totals"][0]["requests"], 3);
    let mut stalled = begin(&provider, CHAT, "x-mock: stall=1\r\n", &streamed("hi"));
    stalled.head();
    request(provider.address(), "DELETE", "/ledger", &[], "");
    drop(stalled);
    ask(&provider, CHAT, "none", &question("hi"));
    assert_eq!(entry(&provider)["sequence"], 1);
}

#[test]
fn usage_that_was_not_asked_for_is_not_noted_as_sent() {
    let provider = provider();
    let mut asked = streamed("hi");
    asked["stream_options"] = Value::Null;
    ask(&provider, CHAT, "none", &asked);
    let entry = entry(&provider);
    assert_eq!(entry["usage_sent"], false);
    assert_eq!(entry["written_tokens"], entry["completion_tokens"]);
}

#[test]
fn a_client_that_leaves_is_noted_with_what_it_got() {
    let provider = provider();
    let mut wire = begin(&provider, CHAT, "x-mock: rate=1\r\n", &streamed("hi"));
    wire.head();
    wire.chunk().unwrap();
    wire.chunk().unwrap();
    drop(wire);
    let entry = entry(&provider);
    assert_eq!(
        (&entry["ended"], &entry["written_tokens"]),
        (&json!("client"), &json!(1))
    );
}

/// What one client did, and what it counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    requests: u64,
    aborted: u64,
    errors: u64,
    prompt: u64,
    written: u64,
}

/// The tokens of the events that come until `enough` of them or the end.
fn read_stream(provider: &MockLlm, key: usize, plan: &str, enough: usize) -> u64 {
    let lines = format!("Authorization: Bearer key-{key}\r\nx-mock: {plan}\r\n");
    let mut wire = begin(provider, CHAT, &lines, &streamed("hello"));
    wire.head();
    let mut tokens = 0;
    for _ in 0..enough {
        let Some(chunk) = wire.chunk() else {
            break;
        };
        let text = String::from_utf8(chunk).unwrap();
        tokens += u64::from(
            text.contains("\"delta\":{\"content\":\"") && !text.contains("\"content\":\"\""),
        );
    }
    tokens
}

#[test]
fn two_hundred_clients_streams_and_aborts_add_up_to_what_they_counted() {
    let provider = MockLlm::start(Settings {
        threads: NonZeroUsize::new(2).unwrap(),
        ..Settings::default()
    })
    .unwrap();
    let counted: [Mutex<Counted>; 4] = Default::default();
    thread::scope(|scope| {
        for client in 0..200 {
            let (provider, counted) = (&provider, &counted);
            scope.spawn(move || {
                let key = client % 4;
                let mut own = Counted {
                    requests: 4,
                    // "hello" is two tokens.
                    prompt: 4 * 8,
                    ..Counted::default()
                };
                own.written += read_stream(provider, key, "none", usize::MAX);
                // The provider waits behind what this client reads, so that both count the same.
                let events = 1 + client % 9;
                own.written += read_stream(provider, key, &format!("stall={events}"), events);
                own.written += read_stream(provider, key, "rate=1", 1 + 1);
                own.aborted = 2;
                let lines = [
                    format!("Authorization: Bearer key-{key}"),
                    "x-mock: status=500".to_owned(),
                ];
                let lines = lines.each_ref().map(String::as_str);
                let failed = request(
                    provider.address(),
                    "POST",
                    CHAT,
                    &lines,
                    &question("hello").to_string(),
                );
                own.errors += u64::from(failed.status() == 500);
                own.prompt -= 8;
                let mut all = counted[key].lock().unwrap();
                all.requests += own.requests;
                all.aborted += own.aborted;
                all.errors += own.errors;
                all.prompt += own.prompt;
                all.written += own.written;
            });
        }
    });
    let ledger = ledger(&provider);
    assert_eq!(ledger["open"], 0);
    let sum = |field: &str| -> u64 {
        let entries = ledger["entries"].as_array().unwrap().iter();
        entries.filter_map(|entry| entry[field].as_u64()).sum()
    };
    let totals = ledger["totals"].as_array().unwrap();
    assert_eq!(totals.len(), 4);
    let mut expected: Vec<[u64; 5]> = counted
        .iter()
        .map(|counted| *counted.lock().unwrap())
        .map(|own| {
            [
                own.requests,
                own.aborted,
                own.errors,
                own.prompt,
                own.written,
            ]
        })
        .collect();
    let mut told: Vec<[u64; 5]> = totals
        .iter()
        .map(|total| {
            [
                "requests",
                "aborted",
                "errors",
                "prompt_tokens",
                "written_tokens",
            ]
            .map(|field| total[field].as_u64().unwrap())
        })
        .collect();
    expected.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, expected);
    assert_eq!(
        sum("written_tokens"),
        expected.iter().map(|own| own[4]).sum::<u64>()
    );
    assert_eq!(ledger["last"], 800);
}
