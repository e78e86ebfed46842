//! The mock provider through real sockets: OpenAI's wire format, whole and streamed, its errors, its keys.

mod wire;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use wire::{Wire, get, post, request};

fn provider() -> MockLlm {
    MockLlm::start(Settings::default()).unwrap()
}

fn question(text: &str) -> Value {
    json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": text}]})
}

/// The data of each event of a stream, `[DONE]` included.
fn events(body: &str) -> Vec<String> {
    let events: Vec<_> = body.split_terminator("\n\n").collect();
    events
        .into_iter()
        .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
        .collect()
}

#[test]
fn the_same_question_gets_the_same_answer_and_exact_usage() {
    let provider = provider();
    let [first, again] = [0, 1].map(|_| {
        post(
            provider.address(),
            "/v1/chat/completions",
            &question("12345"),
        )
        .json()
    });
    let text = first["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("12345"), "{text}");
    assert_eq!(text, again["choices"][0]["message"]["content"]);
    assert_ne!(first["id"], again["id"]);
    let completion = text.len().div_ceil(4);
    assert_eq!(first["usage"]["prompt_tokens"], 8);
    assert_eq!(first["usage"]["completion_tokens"], completion);
    assert_eq!(first["usage"]["total_tokens"], 8 + completion);
}

#[test]
fn a_stream_joins_to_the_whole_answer_and_ends_with_the_usage_that_was_asked_for() {
    let provider = provider();
    let whole = post(provider.address(), "/v1/chat/completions", &question("hi")).json();
    let mut streamed = question("hi");
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let answer = post(provider.address(), "/v1/chat/completions", &streamed);
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let mut events = events(answer.text());
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let mut chunks: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let last = chunks.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole["usage"]);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some())
    );
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
    let pieces: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(
        pieces.concat(),
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
    let tokens = pieces.iter().filter(|piece| !piece.is_empty()).count();
    assert_eq!(whole["usage"]["completion_tokens"], tokens);
}

#[test]
fn a_stream_names_no_usage_unless_asked() {
    let provider = provider();
    let mut streamed = question("hi");
    streamed["stream"] = json!(true);
    let answer = post(provider.address(), "/v1/chat/completions", &streamed);
    assert!(!answer.text().contains("usage"), "{}", answer.text());
}

#[test]
fn tokens_keep_the_configured_pace() {
    let settings = Settings {
        first_token_delay: Duration::from_millis(60),
        tokens_per_second: NonZeroU32::new(100),
        ..Settings::default()
    };
    let provider = MockLlm::start(settings).unwrap();
    let mut asked = question("hi");
    asked["stream"] = json!(true);
    asked["max_tokens"] = json!(6);
    let body = asked.to_string();
    let mut wire = Wire::connect(provider.address());
    let start = Instant::now();
    wire.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let head = wire.head();
    wire.chunk().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));
    wire.body(&head);
    assert!(start.elapsed() >= Duration::from_millis(60 + 50));
}

#[test]
fn a_provider_with_keys_tells_a_missing_one_from_a_wrong_one() {
    let settings = Settings {
        api_keys: vec!["upstream-secret".to_owned()],
        ..Settings::default()
    };
    let provider = MockLlm::start(settings).unwrap();
    let models = |lines: &[&str]| request(provider.address(), "GET", "/v1/models", lines, "");
    let missing = models(&[]);
    assert_eq!(
        (missing.status(), &missing.json()["error"]["code"]),
        (401, &Value::Null)
    );
    let wrong = models(&["Authorization: Bearer guess-me"]);
    assert_eq!(
        (wrong.status(), &wrong.json()["error"]["code"]),
        (401, &json!("invalid_api_key"))
    );
    assert!(!wrong.text().contains("guess-me"));
    assert_eq!(
        models(&["Authorization: Bearer upstream-secret"]).status(),
        200
    );
    assert_eq!(get(provider.address(), "/health").status(), 200);
}

#[test]
fn errors_have_the_form_and_status_of_openai() {
    let provider = provider();
    let address = provider.address();
    let chat = "/v1/chat/completions";
    let mut unknown = question("hi");
    unknown["model"] = json!("gpt-0");
    let cases = [
        (
            post(address, chat, &json!({"model": "gpt-4.1"})),
            400,
            json!("messages"),
            json!("missing_required_parameter"),
        ),
        (
            request(address, "POST", chat, &[], "{not json"),
            400,
            Value::Null,
            Value::Null,
        ),
        (
            post(address, chat, &unknown),
            404,
            json!("model"),
            json!("model_not_found"),
        ),
        (get(address, "/v1/nothing"), 404, Value::Null, Value::Null),
        (
            get(address, chat),
            405,
            Value::Null,
            json!("method_not_supported"),
        ),
    ];
    for (answer, status, param, code) in cases {
        let body = answer.json();
        assert_eq!(answer.status(), status, "{body}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(
            (&body["error"]["param"], &body["error"]["code"]),
            (&param, &code),
            "{body}"
        );
        assert!(
            body["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
    }
    assert_eq!(get(address, chat).header("allow"), Some("POST"));
}

#[test]
fn whoami_shows_every_header_as_it_arrived() {
    let provider = provider();
    let lines = ["X-Consumer-Username: alice", "X-Tag: one", "X-Tag: two"];
    let seen = request(provider.address(), "PUT", "/v1/whoami?a=b", &lines, "").json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/v1/whoami?a=b");
    assert_eq!(seen["headers"]["x-consumer-username"], json!(["alice"]));
    assert_eq!(seen["headers"]["x-tag"], json!(["one", "two"]));
}

#[test]
fn models_are_listed_and_found_by_name() {
    let settings = Settings {
        models: vec!["a/b".to_owned(), "c".to_owned()],
        ..Settings::default()
    };
    let provider = MockLlm::start(settings).unwrap();
    let list = get(provider.address(), "/v1/models").json();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["a/b", "c"]);
    assert_eq!(
        get(provider.address(), "/v1/models/a/b").json()["id"],
        "a/b"
    );
    assert_eq!(get(provider.address(), "/v1/models/d").status(), 404);
}

#[test]
fn a_dropped_provider_frees_its_port() {
    let first = provider();
    let address = first.address();
    let taken = MockLlm::start(Settings {
        listen: address,
        ..Settings::default()
    })
    .unwrap_err();
    assert!(
        taken
            .to_string()
            .contains(&format!("port {} is in use", address.port())),
        "{taken}"
    );
    drop(first);
    let second = MockLlm::start(Settings {
        listen: address,
        ..Settings::default()
    })
    .unwrap();
    assert_eq!(get(second.address(), "/health").status(), 200);
}
