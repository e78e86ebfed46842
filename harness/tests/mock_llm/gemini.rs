//! Gemini's content.

use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};

use super::wire::{get, post, request};
use super::{chunks, provider};

const MODEL: &str = "/v1beta/models/gemini-2.5-flash";

fn content(text: &str) -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": text}]}]})
}

fn texts(events: &[Value]) -> String {
    let texts = events
        .iter()
        .filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str());
    texts.collect()
}

#[test]
fn both_kinds_of_stream_join_to_the_whole_content() {
    let provider = provider();
    let asked = content("12345");
    let whole = post(
        provider.address(),
        &format!("{MODEL}:generateContent"),
        &asked,
    )
    .json();
    let text = whole["candidates"][0]["content"]["parts"][0]["text"]
        .as_str()
        .unwrap();
    let stream = format!("{MODEL}:streamGenerateContent");
    let sse = post(provider.address(), &format!("{stream}?alt=sse"), &asked);
    let array = post(provider.address(), &stream, &asked);
    assert_eq!(array.header("content-type"), Some("application/json"));
    for events in [chunks(sse.text()), array.json().as_array().unwrap().clone()] {
        assert_eq!(texts(&events), text);
        let last = events.last().unwrap();
        assert_eq!(last["candidates"][0]["finishReason"], "STOP");
        assert_eq!(last["usageMetadata"], whole["usageMetadata"]);
    }
    assert_eq!(whole["usageMetadata"]["promptTokenCount"], 8);
    assert_eq!(
        whole["usageMetadata"]["candidatesTokenCount"],
        text.len().div_ceil(4)
    );
}

#[test]
fn a_function_is_called_whole_in_one_event() {
    let provider = provider();
    let mut asked = content("hello");
    asked["tools"] = json!([{"functionDeclarations": [{"name": "add", "parameters": {
        "type": "OBJECT", "properties": {"a": {"type": "INTEGER"}}, "required": ["a"],
    }}]}]);
    asked["toolConfig"] = json!({"functionCallingConfig": {"mode": "ANY"}});
    let path = format!("{MODEL}:streamGenerateContent?alt=sse");
    let events = chunks(post(provider.address(), &path, &asked).text());
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0]["candidates"][0]["content"]["parts"][0]["functionCall"],
        json!({"name": "add", "args": {"a": 1}})
    );
    assert_eq!(
        events[0]["usageMetadata"]["candidatesTokenCount"],
        3 + 1 + 2
    );
}

#[test]
fn tokens_are_counted_and_texts_embedded() {
    let provider = provider();
    let counted = post(
        provider.address(),
        &format!("{MODEL}:countTokens"),
        &content("12345"),
    );
    assert_eq!(counted.json()["totalTokens"], 8);
    let embed = json!({"content": {"parts": [{"text": "12345"}]}, "outputDimensionality": 4});
    let one = post(provider.address(), &format!("{MODEL}:embedContent"), &embed).json();
    let both = json!({"requests": [embed, embed]});
    let two = post(
        provider.address(),
        &format!("{MODEL}:batchEmbedContents"),
        &both,
    )
    .json();
    assert_eq!(one["embedding"]["values"].as_array().unwrap().len(), 4);
    assert_eq!(
        two["embeddings"],
        json!([one["embedding"], one["embedding"]])
    );
}

#[test]
fn keys_and_errors_are_geminis() {
    let settings = Settings {
        api_keys: vec!["upstream-secret".to_owned()],
        ..Settings::default()
    };
    let provider = MockLlm::start(settings).unwrap();
    let models = |query: &str, lines: &[&str]| {
        request(
            provider.address(),
            "GET",
            &format!("/v1beta/models{query}"),
            lines,
            "",
        )
    };
    assert_eq!(models("?key=upstream-secret", &[]).status(), 200);
    assert_eq!(
        models("", &["x-goog-api-key: upstream-secret"]).status(),
        200
    );
    let missing = models("", &["Authorization: Bearer upstream-secret"]);
    assert_eq!(missing.json()["error"]["status"], "PERMISSION_DENIED");
    let wrong = models("?key=guess-me", &[]);
    assert_eq!(
        (wrong.status(), &wrong.json()["error"]["code"]),
        (400, &json!(400))
    );
    let nowhere = get(provider.address(), "/v1beta/nothing");
    assert_eq!(nowhere.json()["error"]["status"], "NOT_FOUND");
}
