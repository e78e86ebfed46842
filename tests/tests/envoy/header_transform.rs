//! The shipped header-transform module in a real Envoy. (The golden cases of Kong's two plugins run there as well.)

use serde_json::{Value, json};
use tollgate_harness::http::Headers;
use tollgate_harness::wire::{Answer, Request};
use tollgate_tests::module;

use super::hostile::attacks;
use super::{Gateway, KEY};

fn gateway(configurations: &[(&str, Value)]) -> Gateway {
    let module = module("header_transform");
    let filters = configurations.iter().map(|(name, rules)| {
        let mut configuration = rules.clone();
        configuration["host"] = json!("envoy");
        (*name, module.as_path(), configuration.to_string())
    });
    Gateway::with_filters(&filters.collect::<Vec<_>>())
}

fn answer(content_type: &str, body: &str) -> Answer {
    Answer {
        status: 200,
        headers: [("content-type", content_type.to_owned())]
            .into_iter()
            .collect::<Headers>(),
        body: body.to_owned().into(),
        chunked: false,
    }
}

fn post(target: &str, lines: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn lines<'a>(request: &'a Request, name: &'a str) -> Vec<&'a str> {
    request
        .headers
        .get_all(name)
        .map(|value| std::str::from_utf8(value).unwrap())
        .collect()
}

#[test]
fn every_part_of_a_request_changes() {
    let gateway = gateway(&[(
        "main",
        json!({"uri_pattern": "/v1/(?<rest>.*)", "request": {
            "http_method": "PUT",
            "remove": {"headers": ["x-internal-debug"], "querystring": ["debug"], "body": ["debug"]},
            "replace": {"uri": "/v2/$(uri_captures.rest)", "headers": ["host:llm.internal"]},
            "add": {"querystring": ["via:gw"], "body": ["agent:$(headers['user-agent'])"]},
            "append": {"headers": ["x-many:2", "x-many:3", "authorization:b"]},
        }, "request_json": {"set_if_absent": {"a.b": 1}}}),
    )]);
    let request = post(
        "/v1/chat?debug=1&x=%7e",
        "X-Internal-Debug: 1\r\nx-internal-debug: 2\r\nX-Many: 1\r\nAuthorization: a\r\nUser-Agent: curl\r\n",
        "{\"n\": 12345678901234567890, \"debug\":1}",
    );
    let (response, seen) = gateway.send("main", request.as_bytes());
    let seen = seen.unwrap_or_else(|| panic!("{response:?}"));
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("PUT", "/v2/chat?x=%7e&via=gw")
    );
    assert_eq!(
        String::from_utf8_lossy(&seen.body),
        "{\"n\": 12345678901234567890,\"agent\":\"curl\",\"a\":{\"b\":1}}"
    );
    assert_eq!(lines(&seen, "host"), ["llm.internal"]);
    assert_eq!(lines(&seen, "x-many"), ["1", "2", "3"]);
    assert!(lines(&seen, "x-internal-debug").is_empty());
    // Envoy joins the lines of a header that it keeps one line of.
    assert_eq!(lines(&seen, "authorization"), ["a,b"]);
    gateway.assert_vms_alive();
}

#[test]
fn responses_and_events_change() {
    let gateway = gateway(&[(
        "main",
        json!({"sse": true, "response": {
            "remove": {"headers": ["openai-organization"], "json": ["system_fingerprint"]},
            "append": {"headers": ["x-gw:1", "x-gw:2"]},
        }}),
    )]);
    for (kind, body, wanted) in [
        (
            "application/json",
            "{\"system_fingerprint\":1, \"n\":1.0}",
            "{ \"n\":1.0}",
        ),
        (
            "text/event-stream",
            "data: {\"system_fingerprint\":1}\n\ndata: [DONE]\n\n",
            "data: {}\n\ndata: [DONE]\n\n",
        ),
        (
            "text/plain",
            "{\"system_fingerprint\":1}",
            "{\"system_fingerprint\":1}",
        ),
    ] {
        for chunked in [false, true] {
            let mut answer = answer(kind, body);
            answer.chunked = chunked;
            answer.headers.push("openai-organization", "acme");
            gateway.upstream.answer(answer);
            let (response, _) = gateway.get("main", &[]);
            assert_eq!(String::from_utf8_lossy(&response.body), wanted, "{kind}");
            assert_eq!(
                response.headers.get_str("openai-organization"),
                None,
                "{kind}"
            );
            let added: Vec<_> = response
                .headers
                .get_all("x-gw")
                .map(|value| value.to_vec())
                .collect();
            assert_eq!(added, [b"1", b"2"], "{kind}");
        }
    }
    gateway.assert_vms_alive();
}

#[test]
fn a_body_past_the_cap_passes_whole() {
    let gateway = gateway(&[(
        "main",
        json!({"max_body_bytes": 1000, "request": {"add": {"body": ["a:1"], "headers": ["x-seen:1"]}}}),
    )]);
    let body = format!("{{\"long\":\"{}\"}}", "x".repeat(3_000_000));
    let (response, seen) = gateway.send("main", post("/", "", &body).as_bytes());
    let seen = seen.unwrap_or_else(|| panic!("{response:?}"));
    assert_eq!(
        (seen.body.len(), lines(&seen, "x-seen")),
        (body.len(), vec!["1"])
    );
    assert_eq!(
        response.headers.get_str("x-tollgate-untransformed"),
        Some("request-too-large")
    );
    let counted = gateway
        .envoy
        .stats("header_transform_untransformed")
        .unwrap();
    assert_eq!(counted.values().sum::<u64>(), 1, "{counted:?}");
    gateway.assert_vms_alive();
}

#[test]
fn no_client_takes_the_vm_down() {
    let everything = |compat: Value| {
        json!({"compat": compat, "sse": true, "uri_pattern": "/(.*)", "request": {
            "http_method": "PUT",
            "remove": {"headers": ["apikey"], "querystring": ["apikey"], "body": ["apikey"]},
            "rename": {"headers": ["x-long:x-longer"], "querystring": ["a:b"], "body": ["model:engine"]},
            "replace": {"uri": "/$(uri_captures[1] or query_params.a or 'none')"},
            "add": {"headers": ["x-agent:$(headers['user-agent'] or 'none')"], "querystring": ["q:1"], "body": ["x:$(query_params.apikey)"]},
            "append": {"headers": ["accept:a"], "querystring": ["a:1"], "body": ["x:1"]},
        }, "response": {"add": {"json": ["a:1"], "headers": ["b:1"]}}})
    };
    let mut ours = everything(Value::Null);
    ours["request_json"] = json!({"set": {"x.y": 1}, "remove": ["/x/*/y"]});
    let gateway = gateway(&[("ours", ours), ("kong", everything(json!("kong")))]);
    for listener in ["ours", "kong"] {
        gateway
            .upstream
            .answer(answer("application/json", "{\"b\":[1]}"));
        for attack in attacks(KEY) {
            attack.send(&gateway, listener);
        }
        let (response, seen) =
            gateway.send(listener, post("/?a=1", "", "{\"model\":\"m\"}").as_bytes());
        assert_eq!(response.status, 200, "{listener}: {response:?}");
        let body = String::from_utf8_lossy(&seen.unwrap().body).into_owned();
        assert!(body.contains("\"engine\":\"m\""), "{listener}: {body}");
    }
    gateway.assert_vms_alive();
}
