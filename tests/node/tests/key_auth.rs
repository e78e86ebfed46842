//! Key-auth's decisions without a host: the golden cases step by step, and what no case thinks of.

use serde_json::{Map, Value, json};
use tollgate_key_auth::{Config, KeyAuth};
use tollgate_kit::config::check;
use tollgate_kit::step::{Body, HeaderEdit, RequestEdits, RequestStep};
use tollgate_kit::testing::ScriptedHost;
use tollgate_kit::{Exchange, Filter};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const CASES: &str = include_str!("../../golden/key-auth.json");

/// The scripted time, in seconds since 1970.
const NOW: u64 = 1000;

fn filter(configuration: &Value) -> KeyAuth {
    let text = configuration.to_string();
    let checked = check::<Config>(text.as_bytes(), &|_| None);
    KeyAuth::new(
        checked
            .unwrap_or_else(|problems| panic!("{problems:?}"))
            .config,
    )
}

/// The configuration of a case: Kong's fields, and the consumers with their credentials.
fn configuration(case: &Value) -> Value {
    let mut configuration = case["config"].as_object().unwrap().clone();
    let credentials: &[Value] = case["credentials"].as_array().map_or(&[], Vec::as_slice);
    let mut consumers = case["consumers"].clone();
    for consumer in consumers.as_array_mut().into_iter().flatten() {
        let id = consumer["id"].clone();
        let own = credentials
            .iter()
            .filter(|credential| credential["consumer_id"] == id);
        consumer["credentials"] = own
            .map(|credential| {
                let mut entry = json!({"id": credential["id"], "key": credential["key"]});
                if let Some(ttl) = credential["ttl"].as_u64() {
                    entry["expires_at"] = json!(if ttl == 0 { NOW - 1 } else { NOW + ttl });
                }
                entry
            })
            .collect();
    }
    configuration.insert("consumers".into(), consumers);
    configuration.insert("compat".into(), json!("kong"));
    configuration.insert("host".into(), json!("envoy"));
    Value::Object(configuration)
}

/// The header lines of a request, pseudo-headers first.
fn lines(request: &Value) -> Vec<(String, String)> {
    let text = |name: &str| request[name].as_str().unwrap().to_owned();
    let mut lines = vec![
        (":method".to_owned(), text("method")),
        (":path".to_owned(), text("path")),
    ];
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        let values = value
            .as_array()
            .map_or_else(|| vec![value.clone()], Clone::clone);
        lines.extend(values.iter().map(|value| {
            (
                name.to_ascii_lowercase(),
                value.as_str().unwrap().to_owned(),
            )
        }));
    }
    lines
}

/// What the filter decides, with the body if it asks for it.
fn decide(filter: &mut KeyAuth, lines: &[(String, String)], body: Option<&str>) -> RequestStep {
    let host = ScriptedHost::with_headers(lines);
    host.set_now(std::time::Duration::from_secs(NOW));
    let mut exchange = filter.exchange();
    match exchange.request_headers(filter, &host) {
        RequestStep::HoldForBody { .. } => {
            let body = body.map_or(Body::None, |body| Body::Whole(body.as_bytes()));
            exchange.request_body(filter, body, &host)
        }
        step => step,
    }
}

/// The values of a header after the edits.
fn after(edits: &RequestEdits, lines: &[(String, String)], name: &str) -> Vec<String> {
    let name = name.to_ascii_lowercase();
    let mut values: Vec<String> = lines
        .iter()
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value.clone())
        .collect();
    for edit in &edits.headers {
        match edit {
            HeaderEdit::Set(set, value) if *set == name => {
                values = vec![String::from_utf8(value.clone()).unwrap()]
            }
            HeaderEdit::Remove(removed) if *removed == name => values.clear(),
            _ => {}
        }
    }
    values
}

fn assert_passed(
    edits: &RequestEdits,
    lines: &[(String, String)],
    request: &Value,
    saw: &Value,
    at: &str,
) {
    for (name, value) in saw["headers"].as_object().unwrap_or(&Map::new()) {
        if let Some(value) = value
            .as_str()
            .filter(|_| !name.eq_ignore_ascii_case("content-length"))
        {
            assert_eq!(after(edits, lines, name), [value], "{at}: {name}");
        }
    }
    for name in saw["absent"].as_array().into_iter().flatten() {
        assert!(
            after(edits, lines, name.as_str().unwrap()).is_empty(),
            "{at}: {name}"
        );
    }
    if let Some(expected) = saw["raw_query"].as_str() {
        let before = request["path"]
            .as_str()
            .unwrap()
            .split_once('?')
            .map_or("", |(_, query)| query);
        let query = edits.query.as_ref().map_or(before.to_owned(), |query| {
            String::from_utf8(query.clone()).unwrap()
        });
        assert_eq!(query, expected, "{at}");
    }
    if let Some(expected) = saw["body_equals"].as_str() {
        let before = request["body"].as_str().unwrap_or_default();
        let body = edits.body.as_ref().map_or(before.to_owned(), |body| {
            String::from_utf8(body.clone()).unwrap()
        });
        assert_eq!(body, expected, "{at}");
    }
}

#[test]
fn the_golden_cases_are_decided_alike_everywhere() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let mut decided = 0;
    for case in cases.iter().filter(|case| case["steps"].is_array()) {
        let mut filter = filter(&configuration(case));
        for (index, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let at = format!("{} step {index}", case["id"]);
            let (request, expect) = (&step["request"], &step["expect"]);
            let lines = lines(request);
            match decide(&mut filter, &lines, request["body"].as_str()) {
                RequestStep::Continue(edits) => {
                    assert_eq!(expect["status"], 200, "{at}");
                    assert_passed(&edits, &lines, request, &expect["upstream_saw"], &at);
                }
                RequestStep::Reply(reply) => {
                    assert_eq!(expect["status"], reply.status, "{at}");
                    let body = String::from_utf8(reply.body).unwrap();
                    let message = expect["body_json_subset"]["message"]
                        .as_str()
                        .unwrap_or_default();
                    assert!(body.contains(message), "{at}: {body}");
                }
                other => panic!("{at}: {other:?}"),
            }
            decided += 1;
        }
    }
    assert_eq!(decided, 207, "steps with a decision");
}

#[test]
fn a_body_that_lies_about_its_lengths_is_no_key() {
    let configuration = json!({
        "key_in_body": true,
        "consumers": [{"id": "a", "credentials": [{"id": "c", "key": "k"}]}],
    });
    let mut filter = filter(&configuration);
    let deep = format!("{{\"x\":{}", "[".repeat(200_000));
    let bodies = [
        ("application/json", deep.as_str()),
        ("application/json", "{\"apikey\":\"\\uD800\\"),
        (
            "application/json",
            "{\"apikey\":1e99999999999999999999,\"a\":-}",
        ),
        ("application/x-www-form-urlencoded", "%=%&apikey%"),
        ("multipart/form-data; boundary=b", "--b\r\n--b\r\n\r\n--b"),
        ("multipart/form-data; boundary=", "--\r\n--"),
    ];
    for (content_type, body) in bodies {
        let lines = [
            (":method", "POST"),
            (":path", "/"),
            ("content-type", content_type),
        ];
        let lines = lines.map(|(name, value)| (name.to_owned(), value.to_owned()));
        match decide(&mut filter, &lines, Some(body)) {
            RequestStep::Reply(reply) => assert_eq!(reply.status, 401, "{content_type}"),
            other => panic!("{content_type}: {other:?}"),
        }
    }
}
