//! Anthropic's Messages.

use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};

use super::wire::{get, post, request};
use super::{ask, chunks, provider};

const MESSAGES: &str = "/v1/messages";

fn message(text: &str) -> Value {
    json!({"model": "claude-sonnet-4.5", "max_tokens": 1000, "messages": [{"role": "user", "content": text}]})
}

#[test]
fn a_stream_joins_to_the_whole_message_and_tells_its_usage() {
    let provider = provider();
    let mut asked = message("12345");
    asked["system"] = json!("Be kind.");
    let whole = ask(&provider, MESSAGES, "none", &asked).json();
    asked["stream"] = json!(true);
    let events = chunks(ask(&provider, MESSAGES, "none", &asked).text());
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds[..4],
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta"
        ]
    );
    assert_eq!(
        kinds[kinds.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let text: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(whole["content"][0]["text"], text);
    assert_eq!(
        events[0]["message"]["usage"]["input_tokens"],
        (3 + 2) + (3 + 2) + 3
    );
    let told = &events[events.len() - 2]["usage"]["output_tokens"];
    assert_eq!(told, text.len().div_ceil(4));
    assert_eq!(told, &whole["usage"]["output_tokens"]);
    assert_eq!(whole["stop_reason"], "end_turn");
}

#[test]
fn tokens_are_counted_before_they_are_spent() {
    let provider = provider();
    let asked = message("12345");
    let counted = ask(&provider, "/v1/messages/count_tokens", "none", &asked).json();
    let spent = ask(&provider, MESSAGES, "none", &asked).json();
    assert_eq!(counted["input_tokens"], 8);
    assert_eq!(spent["usage"]["input_tokens"], 8);
}

#[test]
fn a_tool_is_used_with_input_in_pieces() {
    let provider = provider();
    let mut asked = message("hello");
    asked["tools"] = json!([{"name": "add", "input_schema": {
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
    }}]);
    asked["tool_choice"] = json!({"type": "any"});
    asked["stream"] = json!(true);
    let events = chunks(ask(&provider, MESSAGES, "none", &asked).text());
    let opened = events
        .iter()
        .find(|event| event["type"] == "content_block_start")
        .unwrap();
    assert_eq!(opened["content_block"]["name"], "add");
    let input: String = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(input, r#"{"a":1}"#);
    let end = events
        .iter()
        .find(|event| event["type"] == "message_delta")
        .unwrap();
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
}

#[test]
fn what_is_marked_is_written_to_the_cache_once_and_read_after_that() {
    let provider = provider();
    let mut asked = message("hi");
    asked["system"] =
        json!([{"type": "text", "text": "x".repeat(8000), "cache_control": {"type": "ephemeral"}}]);
    let [first, second] =
        [0, 1].map(|_| ask(&provider, MESSAGES, "none", &asked).json()["usage"].clone());
    assert_eq!(first["cache_creation_input_tokens"], 1920);
    assert_eq!(first["cache_read_input_tokens"], 0);
    assert_eq!(second["cache_creation_input_tokens"], 0);
    assert_eq!(second["cache_read_input_tokens"], 1920);
    assert_eq!(second["input_tokens"], 2003 + 4 + 3 - 1920);
}

#[test]
fn thinking_is_shown_where_it_is_asked_for() {
    let provider = provider();
    let mut asked = message("12345");
    asked["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let answer = ask(&provider, MESSAGES, "none", &asked).json();
    assert_eq!(answer["content"][0]["type"], "thinking");
    let text = answer["content"][1]["text"].as_str().unwrap();
    assert_eq!(answer["usage"]["output_tokens"], 8 + text.len().div_ceil(4));
}

#[test]
fn keys_and_errors_are_anthropics() {
    let settings = Settings {
        api_keys: vec!["upstream-secret".to_owned()],
        ..Settings::default()
    };
    let provider = MockLlm::start(settings).unwrap();
    let models = |key: &str| {
        let lines = ["anthropic-version: 2023-06-01", key];
        request(provider.address(), "GET", "/v1/models", &lines, "")
    };
    assert_eq!(
        models("x-api-key: upstream-secret").json()["has_more"],
        false
    );
    assert_eq!(
        models("Authorization: Bearer upstream-secret").status(),
        200
    );
    let wrong = models("x-api-key: guess-me");
    assert_eq!(wrong.status(), 401);
    assert_eq!(wrong.json()["error"]["type"], "authentication_error");
    assert_eq!(
        wrong.json()["request_id"],
        wrong.header("request-id").unwrap()
    );
    // Without the version it is OpenAI's path.
    let openai = get(provider.address(), "/v1/models");
    assert_eq!(openai.json()["error"]["type"], "invalid_request_error");
}

#[test]
fn a_version_and_a_limit_are_demanded() {
    let provider = provider();
    let unversioned = post(provider.address(), MESSAGES, &message("hi"));
    assert_eq!(unversioned.status(), 400);
    assert!(
        unversioned.text().contains("anthropic-version"),
        "{unversioned:?}"
    );
    let mut unlimited = message("hi");
    unlimited.as_object_mut().unwrap().remove("max_tokens");
    let unlimited = ask(&provider, MESSAGES, "none", &unlimited);
    assert_eq!(
        (unlimited.status(), unlimited.text().contains("max_tokens")),
        (400, true)
    );
}
