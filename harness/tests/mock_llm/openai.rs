//! OpenAI's APIs: whole and streamed, errors, keys.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};

use super::wire::{Wire, get, post, request};
use super::{CHAT, chunks, events, provider, question, streamed};

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

#[test]
fn several_choices_stream_in_turns_and_all_of_them_count() {
    let provider = provider();
    let mut asked = streamed("hi");
    asked["n"] = json!(3);
    let chunks = chunks(post(provider.address(), CHAT, &asked).text());
    asked["stream"] = json!(false);
    let whole = post(provider.address(), CHAT, &asked).json();
    for choice in 0..3 {
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"].get(0))
            .filter(|part| part["index"] == choice)
            .filter_map(|part| part["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, whole["choices"][choice]["message"]["content"]);
    }
    let total: usize = (0..3)
        .map(|choice| {
            whole["choices"][choice]["message"]["content"]
                .as_str()
                .unwrap()
        })
        .map(|text| text.len().div_ceil(4))
        .sum();
    assert_eq!(whole["usage"]["completion_tokens"], total);
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
}

#[test]
fn a_tool_is_called_with_arguments_that_its_schema_wants() {
    let provider = provider();
    let mut asked = streamed("What is call:weather like?");
    asked["tools"] = json!([{"type": "function", "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }}]);
    let chunks = chunks(post(provider.address(), CHAT, &asked).text());
    let calls: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0)?["delta"]["tool_calls"].get(0))
        .collect();
    assert_eq!(calls[0]["function"]["name"], "weather");
    let arguments: String = calls
        .iter()
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(arguments, r#"{"city":"text"}"#);
    let finish = &chunks[chunks.len() - 2]["choices"][0]["finish_reason"];
    assert_eq!(finish, "tool_calls");
    // 3 for the call, 2 for its name, 4 for its arguments.
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 9);
}

#[test]
fn a_model_that_thinks_spends_its_limit_on_it_first() {
    let provider = provider();
    let mut asked = question("12345");
    asked["model"] = json!("o4-mini");
    asked["max_completion_tokens"] = json!(10);
    let answer = post(provider.address(), CHAT, &asked).json();
    // The prompt has 8 tokens, and thinking costs as many.
    assert_eq!(
        answer["usage"]["completion_tokens_details"]["reasoning_tokens"],
        8
    );
    assert_eq!(answer["usage"]["completion_tokens"], 10);
    assert_eq!(answer["choices"][0]["message"]["content"], "This is ");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[test]
fn a_long_opening_is_cached_for_the_same_key_only() {
    let provider = provider();
    let long = "x".repeat(8000);
    let cached = |key: &str, last: &str| {
        let body = json!({"model": "gpt-4.1", "messages": [
            {"role": "system", "content": long}, {"role": "user", "content": last},
        ]});
        let line = format!("Authorization: Bearer {key}");
        let answer = request(
            provider.address(),
            "POST",
            CHAT,
            &[&line],
            &body.to_string(),
        );
        answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"].clone()
    };
    assert_eq!(cached("a", "one"), 0);
    assert_eq!(cached("a", "two"), 1920);
    assert_eq!(cached("b", "two"), 0);
}

#[test]
fn log_probabilities_are_given_for_each_token() {
    let provider = provider();
    let mut asked = question("hi");
    asked["logprobs"] = json!(true);
    asked["top_logprobs"] = json!(2);
    let answer = post(provider.address(), CHAT, &asked).json();
    let tokens = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    let text: String = tokens
        .iter()
        .map(|token| token["token"].as_str().unwrap())
        .collect();
    assert_eq!(text, answer["choices"][0]["message"]["content"]);
    assert!(
        tokens
            .iter()
            .all(|token| token["top_logprobs"].as_array().unwrap().len() == 2)
    );
}

#[test]
fn a_text_goes_on_in_the_legacy_api_streamed_and_whole() {
    let provider = provider();
    let mut asked =
        json!({"model": "gpt-4.1", "prompt": ["12345", "ab"], "max_tokens": 4, "stop": "is"});
    let whole = post(provider.address(), "/v1/completions", &asked).json();
    assert_eq!(whole["choices"][1]["text"], "Th");
    assert_eq!(whole["choices"][1]["finish_reason"], "stop");
    assert_eq!(whole["usage"]["prompt_tokens"], 2 + 1);
    assert_eq!(whole["usage"]["completion_tokens"], 2);
    asked["stream"] = json!(true);
    asked["stream_options"] = json!({"include_usage": true});
    let chunks = chunks(post(provider.address(), "/v1/completions", &asked).text());
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
}

#[test]
fn a_response_streams_its_named_events_and_is_fetched_again() {
    let provider = provider();
    let asked = json!({"model": "gpt-4.1", "input": "12345", "stream": true});
    let answer = post(provider.address(), "/v1/responses", &asked);
    let named: Vec<&str> = answer
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let events = chunks(answer.text());
    for (number, (name, event)) in named.iter().zip(&events).enumerate() {
        assert_eq!(event["type"], *name);
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(
        named[..3],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added"
        ]
    );
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["status"], "completed");
    assert_eq!(last["usage"]["input_tokens"], 8);
    let text: String = events
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(last["output"][0]["content"][0]["text"], text);
    assert_eq!(last["usage"]["output_tokens"], text.len().div_ceil(4));
    let path = format!("/v1/responses/{}", last["id"].as_str().unwrap());
    assert_eq!(&get(provider.address(), &path).json(), last);
    let follows = json!({"model": "gpt-4.1", "input": "12345", "previous_response_id": last["id"]});
    let second = post(provider.address(), "/v1/responses", &follows).json();
    assert_eq!(
        second["usage"]["input_tokens"],
        8 + 3 + text.len().div_ceil(4) + (3 + 2)
    );
    assert_eq!(
        request(provider.address(), "DELETE", &path, &[], "").status(),
        200
    );
    assert_eq!(get(provider.address(), &path).status(), 404);
}

#[test]
fn a_picture_is_a_png_and_costs_what_the_rule_says() {
    let provider = provider();
    let asked = json!({"model": "gpt-image-1", "prompt": "a cat", "n": 2});
    let answer = post(provider.address(), "/v1/images/generations", &asked).json();
    assert!(
        answer["data"][1]["b64_json"]
            .as_str()
            .unwrap()
            .starts_with("iVBORw0KGgo")
    );
    assert_eq!(answer["usage"]["total_tokens"], 2 + 2 * 272);
}
