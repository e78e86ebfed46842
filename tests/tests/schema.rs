//! The schemas that Kong reads, by the judgement of an independent draft-04 validator: they are draft-04, they accept what
//! the filters take, and they refuse what is wrong by itself.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tollgate_key_auth::{Config, KeyAuth};
use tollgate_kit::config::check;
use tollgate_kit::schema;
use tollgate_tests::{python, root};

/// For each document, whether it is valid.
fn validated(schema: &Value, documents: &[Value]) -> Vec<bool> {
    let mut validator = Command::new(python())
        .arg(root().join("tests/python/draft4.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let question = json!({"schema": schema, "documents": documents}).to_string();
    validator
        .stdin
        .take()
        .unwrap()
        .write_all(question.as_bytes())
        .unwrap();
    let answer = validator.wait_with_output().unwrap();
    assert!(answer.status.success(), "not draft-04: {schema:#}");
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// Configurations of every kind: those of the golden cases, and more with consumers and with each field broken.
fn configurations() -> Vec<Value> {
    let golden = std::fs::read_to_string(root().join("tests/golden/key-auth.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&golden).unwrap();
    let mut configurations: Vec<Value> = cases.iter().map(|case| case["config"].clone()).collect();
    let consumer = json!({"id": "a", "username": "b", "custom_id": "c", "groups": ["g"], "metadata": {"k": "v"},
        "credentials": [{"id": "1", "key": "k"}, {"id": "2", "key_sha256": "0".repeat(64), "expires_at": 1}]});
    configurations.extend([
        json!({"consumers": [consumer]}),
        json!({"consumers": [{"credentials": "none"}]}),
        json!({"consumers": "none"}),
        json!({"consumers": []}),
        json!({"consumers_from": {"upstream": "keys", "path": "/keys.json", "refresh": 10}}),
        json!({"consumers_from": {"upstream": "keys"}}),
        json!({"consumers_from": {"upstream": "keys", "path": "/", "headers": {"authorization": "x"}, "more": 1}}),
        json!({"schemes": true}),
        json!({"schemes": ["bearer", "basic"]}),
        json!({"schemes": ["digest"]}),
        json!({"schemes": "bearer"}),
        json!({"error_format": "openai", "host": "kong", "compat": "kong"}),
        json!({"error_format": "xml"}),
        json!({"host": "apache"}),
        json!({"compat": "envoy"}),
        json!({"key_in_body": "yes"}),
        json!({"max_body_bytes": 1.5}),
        json!({"anonymous": null, "realm": null}),
        json!({"realm": ""}),
        json!("text"),
    ]);
    configurations
}

#[test]
fn the_schema_of_key_auth_is_draft_04_and_accepts_what_the_filter_takes() {
    let meta = schema::meta::<KeyAuth>();
    let configurations = configurations();
    let verdicts = validated(&meta["config_schema"], &configurations);
    assert_eq!(verdicts.len(), configurations.len());
    for (configuration, valid) in configurations.iter().zip(verdicts) {
        let text = configuration.to_string();
        let checked = check::<Config>(text.as_bytes(), &|_| None);
        // The filter knows more than a schema can say; what the schema refuses, it refuses too.
        assert!(
            valid || checked.is_err(),
            "the schema refuses what the filter takes: {text}"
        );
    }
}

#[test]
fn the_schema_of_key_auth_refuses_what_is_wrong_by_itself() {
    let meta = schema::meta::<KeyAuth>();
    let wrong = [
        json!({"nope": 1}),
        json!({"key_names": "apikey"}),
        json!({"key_names": ["a b"]}),
        json!({"key_in_body": "yes"}),
        json!({"schemes": ["digest"]}),
        json!({"error_format": "xml"}),
        json!({"host": "apache"}),
        json!({"consumers": "none"}),
        json!({"consumers_from": {"upstream": "keys"}}),
        json!("text"),
    ];
    let verdicts = validated(&meta["config_schema"], &wrong);
    for (configuration, valid) in wrong.iter().zip(verdicts) {
        assert!(!valid, "{configuration}");
    }
}

/// Configurations of header-transform: those of the golden cases, and more with each of its own fields.
fn transformations() -> Vec<Value> {
    let mut configurations = Vec::new();
    for (plugin, field) in [
        ("request-transformer", "request"),
        ("response-transformer", "response"),
    ] {
        let path = format!("tests/golden/{plugin}.json");
        let golden = std::fs::read_to_string(root().join(path)).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&golden).unwrap();
        configurations.extend(cases.iter().map(|case| json!({field: case["config"]})));
    }
    let when = json!({"methods": ["GET"], "paths": ["/v1/*"], "headers": {"x": "*"}, "consumers": ["a"], "groups": ["b"],
        "models": ["m*"], "content_types": ["application/json"]});
    configurations.extend([
        json!({"when": when, "request": {"add": {"headers": ["a:1"]}}}),
        json!({"when": {"statuses": [404, "2xx", "400-499"]}, "response": {"add": {"headers": ["a:1"]}}}),
        json!({"when": {"statuses": [true]}}),
        json!({"request_json": {"remove": ["a.b"], "set": {"a": null, "b": [1], "c": "x"}, "set_if_absent": {"d": {}},
            "at_most": {"e": 1.5}, "at_least": {"f": -1}}}),
        json!({"response_json": {"remove": "a"}}),
        json!({"sets": [{"uri_pattern": "/(a)", "request": null, "response": {"remove": {"json": ["a"]}}}]}),
        json!({"sse": true, "owns_max_tokens": false, "max_body_bytes": 5, "large_body": "refuse", "error_format": "openai",
            "host": "kong", "compat": "kong", "uri_pattern": "x"}),
        json!({"large_body": "drop"}),
        json!({"request": {"remove": {"header": []}}}),
        json!({"request": {"remove": {"headers": "a"}}}),
        json!({}),
    ]);
    configurations
}

#[test]
fn the_schema_of_header_transform_is_draft_04_and_accepts_what_the_filter_takes() {
    let meta = schema::meta::<tollgate_header_transform::HeaderTransform>();
    let configurations = transformations();
    let verdicts = validated(&meta["config_schema"], &configurations);
    let mut refused = 0;
    for (configuration, valid) in configurations.iter().zip(verdicts) {
        let text = configuration.to_string();
        let checked = check::<tollgate_header_transform::Config>(text.as_bytes(), &|_| None);
        assert!(
            valid || checked.is_err(),
            "the schema refuses what the filter takes: {text}"
        );
        refused += usize::from(!valid);
    }
    assert!(refused >= 6, "{refused}");
}
