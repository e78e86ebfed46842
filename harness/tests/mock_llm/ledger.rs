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

/// The entry of a request with this body, whatever became of it.
fn entry_of(path: &str, plan: &str, body: &Value) -> Value {
    let provider = provider();
    // A broken connection is what some of them ask for.
    let lines = format!("anthropic-version: 2023-06-01\r\nConnection: close\r\nx-mock: {plan}\r\n");
    begin(&provider, path, &lines, body).rest();
    entry(&provider)
}

#[test]
fn a_client_that_does_not_read_is_noted_with_what_the_system_took_to_the_byte() {
    let provider = provider();
    let mut asked = streamed("hi");
    asked["stream_options"] = Value::Null;
    let plan = "x-mock: tokens=60000\r\n";
    let mut wire = begin(&provider, CHAT, plan, &asked);
    wire.head();
    drop(wire);
    let entry = entry(&provider);
    let written = |field: &str| usize::try_from(entry[field].as_u64().unwrap()).unwrap();
    assert_eq!(entry["ended"], "client");
    assert!(written("written_tokens") < 60_000, "{entry}");
    // The same again, read to its end: only the number in its id is another one, and as long.
    let whole = ask(&provider, CHAT, "tokens=60000", &asked);
    let came = &whole.body[..written("written_bytes")];
    let came = String::from_utf8_lossy(came);
    let (came, _) = came.rsplit_once("\n\n").unwrap_or_default();
    let tokens = came.matches("\"delta\":{\"content\":\"").count();
    assert_eq!(written("written_tokens"), tokens);
}

#[test]
fn usage_is_noted_as_far_as_it_was_told() {
    let noted = |path: &str, plan: &str, body: &Value| {
        let entry = entry_of(path, plan, body);
        let fields = ["usage_sent", "told_prompt_tokens", "told_completion_tokens"];
        fields.map(|field| entry[field].clone())
    };
    let nothing = [json!(false), Value::Null, Value::Null];
    // "hi" is one token, the rest of the prompt six; OpenAI tells nothing before the end.
    assert_eq!(noted(CHAT, "close=5", &streamed("hi")), nothing);
    assert_eq!(noted(CHAT, "usage=missing", &streamed("hi")), nothing);
    let all = noted(CHAT, "usage=twice; tokens=9", &streamed("hi"));
    assert_eq!(all, [json!(true), json!(7), json!(9)]);
    // Anthropic tells the prompt's first, Gemini all so far in each event.
    let message = json!({"model": "claude-sonnet-4.5", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let begun = noted("/v1/messages", "reset=5", &message);
    assert_eq!(begun, [json!(false), json!(7), json!(1)]);
    let ended = noted("/v1/messages", "none", &message);
    assert_eq!(ended, [json!(true), json!(7), json!(9)]);
    let content = json!({"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"candidateCount": 2}});
    let path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    let so_far = noted(path, "close=5", &content);
    assert_eq!(so_far, [json!(false), json!(7), json!(5)]);
    let ended = noted(path, "tokens=4", &content);
    assert_eq!(ended, [json!(true), json!(7), json!(8)]);
}

#[test]
fn what_cannot_be_read_is_noted_as_written_bytes_only() {
    let carried = |plan: &str, body: &Value| {
        let entry = entry_of(CHAT, plan, body);
        assert!(entry["written_bytes"].as_u64().unwrap() > 0, "{entry}");
        (entry["written_tokens"].clone(), entry["usage_sent"].clone())
    };
    let nothing = (json!(0), json!(false));
    for plan in ["malformed=0", "length=short", "reset=body", "chunk=bad"] {
        assert_eq!(carried(plan, &question("hi")), nothing, "{plan}");
    }
    // The events: the role, four tokens, the reason to end, the usage, `[DONE]`.
    let stream = streamed("hi");
    assert_eq!(
        carried("tokens=4; malformed=2", &stream),
        (json!(3), json!(true))
    );
    assert_eq!(
        carried("tokens=4; malformed=6", &stream),
        (json!(4), json!(false))
    );
}

#[test]
fn totals_tell_usage_that_came_apart_from_tokens_that_were_spent() {
    let provider = provider();
    for plan in [
        "tokens=10",
        "tokens=10; usage=missing",
        "tokens=10; status=429",
    ] {
        ask(&provider, CHAT, plan, &streamed("hi"));
    }
    ask(&provider, CHAT, "tokens=10", &question("hi"));
    let totals = ledger(&provider)["totals"][0].clone();
    let of = |fields: [&str; 4]| fields.map(|field| totals[field].as_u64().unwrap());
    assert_eq!(
        of(["requests", "errors", "aborted", "usage_sent"]),
        [4, 1, 0, 2]
    );
    let spent = [
        "prompt_tokens",
        "completion_tokens",
        "written_tokens",
        "told_prompt_tokens",
    ];
    assert_eq!(of(spent), [21, 30, 30, 14]);
    assert_eq!(totals["told_completion_tokens"], 20);
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
