//! header-transform on the simulated hosts: what the upstream gets and what the client gets, beyond what the golden cases of Kong's
//! two plugins ask.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::OnceLock;
use tollgate_harness::engine::Module;
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Answer, Request, Response, Sim, UpstreamRequest};
use tollgate_tests::load;

/// A module, compiled once for all tests.
fn loaded(name: &str) -> &'static Module {
    static MODULES: [OnceLock<Module>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let names = ["header_transform", "key_auth", "noop"];
    let at = names
        .iter()
        .position(|known| *known == name)
        .expect("a module of these tests");
    MODULES[at].get_or_init(|| load(name))
}

/// A gateway with the filter alone.
fn gateway(profile: Profile, config: Value) -> Sim {
    gateway_of(profile, &[("header_transform", config)])
}

fn envoy(config: Value) -> Sim {
    gateway(Profile::Envoy, config)
}

fn kong(config: Value) -> Sim {
    gateway(Profile::Kong, config)
}

fn gateway_of(profile: Profile, filters: &[(&str, Value)]) -> Sim {
    let host = match profile {
        Profile::Kong => "kong",
        Profile::Spec | Profile::Envoy => "envoy",
    };
    let knobs = Knobs {
        headers_stop_iteration: true,
        proxy_set_header: vec!["x-internal-debug".into()],
        ..Knobs::default()
    };
    let mut setting = Sim::of(profile).knobs(knobs);
    for (name, config) in filters {
        let mut config = config.clone();
        config["host"] = json!(host);
        setting = setting.filter(loaded(name), config);
    }
    setting
        .start()
        .unwrap_or_else(|refused| panic!("{refused:?}"))
}

fn passed(sim: &mut Sim, request: Request) -> UpstreamRequest {
    let got = sim.send(request);
    let seen = got.upstream().cloned();
    assert!(sim.traps().is_empty(), "{:?}", sim.traps());
    seen.unwrap_or_else(|| panic!("{:?}: {}", got.outcome(), got.text()))
}

fn body(seen: &UpstreamRequest) -> String {
    String::from_utf8(seen.body.to_vec()).unwrap()
}

fn header<'a>(seen: &'a UpstreamRequest, name: &'a str) -> Vec<&'a str> {
    seen.headers
        .get_all(name)
        .map(|value| std::str::from_utf8(value).unwrap())
        .collect()
}

fn json_post(body: &'static str) -> Request {
    Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .header("content-length", body.len().to_string())
        .body(body)
}

/// What a client gets when the upstream answers so.
fn answered(sim: &mut Sim, answer: Answer) -> Response {
    sim.upstream(move |_| answer.clone());
    let got = sim.send(Request::get("/"));
    assert!(sim.traps().is_empty(), "{:?}", sim.traps());
    got
}

#[test]
fn every_part_of_a_request_changes_on_every_host() {
    let config = json!({"uri_pattern": "/v1/(?<rest>.*)", "request": {
        "http_method": "PUT",
        "remove": {"headers": ["x-internal-debug"], "querystring": ["debug"], "body": ["debug"]},
        "rename": {"headers": ["x-old:x-new"]},
        "replace": {"uri": "/v2/$(uri_captures.rest)", "headers": ["host:llm.internal"]},
        "add": {"headers": ["x-gateway-version:2.0.0"], "querystring": ["via:gw"], "body": ["user:$(headers['x-new'])"]},
        "append": {"headers": ["accept:text/plain", "x-many:2", "x-many:3"]},
    }});
    for profile in [Profile::Spec, Profile::Envoy, Profile::Kong] {
        let request = json_post(r#"{"n": 12345678901234567890, "debug":1}"#)
            .header("x-internal-debug", "1")
            .header("x-old", "bob")
            .header("accept", "application/json")
            .header("x-many", "1");
        let mut sim = gateway(profile, config.clone());
        let mut request = request;
        request = request.delivered_in(&[5, 7]);
        let seen = passed(&mut sim, request);
        assert_eq!(
            (
                seen.method.as_str(),
                seen.path.as_str(),
                &seen.authority[..]
            ),
            ("PUT", "/v2/chat/completions?via=gw", "llm.internal"),
            "{profile}"
        );
        assert_eq!(
            body(&seen),
            r#"{"n": 12345678901234567890,"user":"bob"}"#,
            "{profile}"
        );
        assert!(header(&seen, "x-internal-debug").is_empty(), "{profile}");
        assert!(
            header(&seen, "x-old").iter().all(|value| value.is_empty()),
            "{profile}"
        );
        assert_eq!(header(&seen, "x-new"), ["bob"], "{profile}");
        assert_eq!(header(&seen, "x-gateway-version"), ["2.0.0"], "{profile}");
        // Envoy keeps one line of it.
        let accept = header(&seen, "accept").join(",");
        assert_eq!(accept, "application/json,text/plain", "{profile}");
        assert_eq!(header(&seen, "x-many"), ["1", "2", "3"], "{profile}");
        assert_eq!(
            header(&seen, "content-length"),
            [seen.body.len().to_string()],
            "{profile}"
        );
    }
}

#[test]
fn nothing_that_a_client_sends_breaks_out_of_its_place() {
    let config = json!({"request": {
        "add": {"headers": ["x-q:$(query_params.q)"]},
        "replace": {"uri": "/u/$(query_params.id or 'none')", "headers": ["host:$(query_params.host or 'a.test')"]},
    }});
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway(profile, config.clone());
        for target in [
            "/?q=a%0d%0aX-Evil:%201",
            "/?q=a%00",
            "/?q=%0a",
            "/?id=..%2fadmin",
            "/?id=a/../../b",
            "/?id=%252e%252e/b",
            "/?host=a%20b",
            "/?host=a%0d%0ab",
            "/?host=user@b",
        ] {
            let got = sim.send(Request::get(target));
            assert_eq!(
                (got.status(), got.upstream().is_some()),
                (400, false),
                "{profile} {target}"
            );
        }
        let seen = passed(
            &mut sim,
            Request::get("/?q=a%20b&id=x%3fy%23z%20%0a&host=b.test:80"),
        );
        assert!(
            seen.path.starts_with("/u/x%3Fy%23z%20%0A?q=a%20b"),
            "{profile}: {}",
            seen.path
        );
        assert_eq!(&seen.authority[..], "b.test:80");
        assert_eq!(header(&seen, "x-q"), ["a b"]);
    }
    let mut sim = envoy(json!({"request": {"add": {"body": ["role:$(query_params.q)"]}}}));
    let form = Request::post(
        "/?q=x%0d%0a--B%0d%0aContent-Disposition:%20form-data;%20name=admin%0d%0a%0d%0a1",
    )
    .header("content-type", "multipart/form-data; boundary=B")
    .body("--B--\r\n");
    assert_eq!(sim.send(form).status(), 400);
}

#[test]
fn defaults_caps_and_nested_values_are_set_by_path() {
    let config = json!({
        "request_json": {
            "remove": ["/messages/*/name", "logit_bias"],
            "set": {"metadata.user": "$(consumer.username or 'nobody')", "/stream_options/include_usage": true},
            "set_if_absent": {"temperature": 0.7, "top_p": null},
            "at_most": {"temperature": 1.2, "n": 4},
            "at_least": {"top_p": 0.1},
        },
    });
    let mut sim = envoy(config.clone());
    let seen = passed(
        &mut sim,
        json_post(
            r#"{"temperature":1.99, "n": 3, "messages":[{"name":"x","content":"1e400"}], "top_p":0.01,"seed":1234567890123456789012}"#,
        ),
    );
    assert_eq!(
        body(&seen),
        r#"{"temperature":1.2, "n": 3, "messages":[{"content":"1e400"}], "top_p":0.1,"seed":1234567890123456789012,"metadata":{"user":"nobody"},"stream_options":{"include_usage":true}}"#
    );
    let mut sim = gateway_of(
        Profile::Envoy,
        &[
            (
                "key_auth",
                json!({"consumers": [{"id": "1", "username": "bob", "credentials": [{"id": "c", "key": "K"}]}]}),
            ),
            ("header_transform", config),
        ],
    );
    let seen = passed(
        &mut sim,
        json_post(r#"{"temperature":null}"#).header("apikey", "K"),
    );
    assert_eq!(
        body(&seen),
        r#"{"temperature":0.7,"metadata":{"user":"bob"},"stream_options":{"include_usage":true},"top_p":null}"#
    );
}

#[test]
fn max_tokens_is_left_to_token_rate_limit() {
    let config = json!({"request_json": {"at_most": {"max_tokens": 100}}});
    let refused = Sim::of(Profile::Envoy)
        .filter(loaded("header_transform"), config)
        .start()
        .err()
        .expect("refused");
    assert!(format!("{refused:?}").contains("max_tokens belongs to token-rate-limit"));
    let mut sim =
        envoy(json!({"request_json": {"at_most": {"max_tokens": 100}}, "owns_max_tokens": true}));
    assert_eq!(
        body(&passed(&mut sim, json_post(r#"{"max_tokens":500}"#))),
        r#"{"max_tokens":100}"#
    );
}

#[test]
fn sets_are_for_the_messages_that_their_condition_names() {
    let config = json!({"sets": [
        {"when": {"models": ["gpt-4o*"]}, "request": {"add": {"headers": ["x-model:big"]}}, "response": {"add": {"headers": ["x-was:big"]}}},
        {"when": {"methods": ["POST"], "paths": ["/v1/*"], "headers": {"x-team": "b*"}}, "request": {"add": {"headers": ["x-team-b:1"]}}},
        {"when": {"groups": ["gold"]}, "request": {"add": {"headers": ["x-gold:1"]}}},
        {"when": {"statuses": ["2xx"], "content_types": ["text/*"]}, "response": {"add": {"headers": ["x-text:1"]}}},
        {"when": {"statuses": [404]}, "response": {"add": {"headers": ["x-missing:1"]}}},
        {"request": {"append": {"headers": ["x-model:seen"]}}},
    ]});
    let key_auth = json!({"anonymous": "2", "consumers": [
        {"id": "1", "groups": ["gold"], "credentials": [{"id": "c", "key": "K"}]}, {"id": "2"},
    ]});
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway_of(
            profile,
            &[
                ("key_auth", key_auth.clone()),
                ("header_transform", config.clone()),
            ],
        );
        sim.upstream(|_| {
            Answer::status(200)
                .header("content-type", "text/plain")
                .body("x")
        });
        let request = json_post(r#"{"model":"gpt-4o-mini"}"#)
            .header("x-team", "blue")
            .header("apikey", "K");
        let got = sim.send(request);
        let seen = got.upstream().unwrap();
        assert_eq!(header(seen, "x-model"), ["big", "seen"], "{profile}");
        assert_eq!(
            (header(seen, "x-team-b"), header(seen, "x-gold")),
            (vec!["1"], vec!["1"]),
            "{profile}"
        );
        assert_eq!(
            (got.header("x-was"), got.header("x-text")),
            (Some("big"), Some("1")),
            "{profile}"
        );
        assert_eq!(got.header("x-missing"), None);

        sim.upstream(|_| {
            Answer::status(404)
                .header("content-type", "text/plain")
                .body("x")
        });
        let got = sim.send(json_post(r#"{"model":"claude"}"#).header("x-team", "red"));
        let seen = got.upstream().unwrap();
        assert_eq!(header(seen, "x-model"), ["seen"], "{profile}");
        assert!(
            header(seen, "x-team-b").is_empty() && header(seen, "x-gold").is_empty(),
            "{profile}"
        );
        assert_eq!(
            (
                got.header("x-was"),
                got.header("x-text"),
                got.header("x-missing")
            ),
            (None, None, Some("1")),
            "{profile}"
        );
    }
}

#[test]
fn events_of_a_stream_are_edited_as_they_pass() {
    let config = json!({
        "sse": true,
        "response": {"remove": {"json": ["system_fingerprint"]}, "add": {"headers": ["x-gw:1"]}},
        "response_json": {"remove": ["/choices/*/logprobs"]},
    });
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway(profile, config.clone());
        let chunks = [
            "data: {\"system_fingerprint\":\"fp\",\"choices\":[{\"logprobs\":1,\"delta\":{}}]}\n\n",
            ": ping\n\ndata: {\"a\":1}\n\n",
            "data: {\"system_finger",
            "print\":2}\n\n",
            "data: [DONE]\n\n",
        ];
        let answer = Answer::status(200)
            .header("content-type", "text/event-stream")
            .streamed(&chunks);
        let got = answered(&mut sim, answer);
        assert_eq!(
            got.text(),
            "data: {\"choices\":[{\"delta\":{}}]}\n\n: ping\n\ndata: {\"a\":1}\n\ndata: {}\n\ndata: [DONE]\n\n",
            "{profile}"
        );
        assert_eq!(got.header("x-gw"), Some("1"));
        let pieces: Vec<_> = got
            .chunks()
            .iter()
            .filter(|chunk| !chunk.is_empty())
            .collect();
        assert_eq!(
            pieces.len(),
            4,
            "each event goes on when it has ended: {profile} {pieces:?}"
        );
    }
}

#[test]
fn what_no_rule_reads_is_not_held() {
    let config = json!({"response": {"remove": {"json": ["a"]}, "add": {"headers": ["x:1"]}}});
    for (kind, encoding) in [
        ("text/event-stream", ""),
        ("text/plain", ""),
        ("application/json", "gzip"),
    ] {
        let mut sim = envoy(config.clone());
        let answer = Answer::status(200)
            .header("content-type", kind)
            .header("content-encoding", encoding)
            .streamed(&["{\"a\"", ":1}"]);
        let got = answered(&mut sim, answer);
        let pieces: Vec<_> = got
            .chunks()
            .iter()
            .filter(|chunk| !chunk.is_empty())
            .collect();
        assert_eq!(
            (got.text().as_str(), pieces.len()),
            ("{\"a\":1}", 2),
            "{kind}"
        );
        assert_eq!(got.header("x"), Some("1"));
        assert!(
            !got.cost().hostcalls.contains_key("proxy_get_buffer_bytes"),
            "{kind}"
        );
    }
    // A compressed request body is not read either.
    let mut sim = envoy(json!({"request": {"add": {"body": ["a:1"]}}}));
    let seen = passed(&mut sim, json_post("{}").header("content-encoding", "gzip"));
    assert_eq!(body(&seen), "{}");
}

#[test]
fn a_body_past_the_cap_passes_and_says_so_or_is_refused() {
    let rules = |large: &str| {
        json!({"max_body_bytes": 10, "large_body": large, "request": {"add": {"body": ["a:1"], "headers": ["x-seen:1"]}},
            "response": {"add": {"json": ["a:1"]}}})
    };
    let counted = |sim: &Sim, why: &str| {
        sim.metric(&format!(
            "tollgate_header_transform_untransformed;why={why}"
        ))
    };
    let long = "{\"long\":\"0123456789\"}";
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway(profile, rules("pass"));
        sim.upstream(|_| Answer::status(200).body("x"));
        let got = sim.send(json_post(long));
        let seen = got.upstream().unwrap();
        assert_eq!(
            (body(seen).as_str(), header(seen, "x-seen")),
            (long, vec!["1"]),
            "{profile}"
        );
        assert_eq!(
            got.header("x-tollgate-untransformed"),
            Some("request-too-large"),
            "{profile}"
        );
        assert_eq!(counted(&sim, "request-too-large"), 1, "{profile}");

        let answer = Answer::status(200).header("content-type", "application/json");
        let got = answered(&mut sim, answer.clone().body(long));
        assert_eq!(got.text(), long);
        assert_eq!(
            got.header("x-tollgate-untransformed"),
            Some("response-too-large"),
            "{profile}"
        );
        // Without a length it is found out when the head has gone.
        let got = answered(&mut sim, answer.streamed(&[&long[..8], &long[8..]]));
        assert_eq!(
            (got.text().as_str(), got.header("x-tollgate-untransformed")),
            (long, None)
        );
        assert_eq!(counted(&sim, "response-too-large"), 2, "{profile}");

        let mut sim = gateway(profile, rules("refuse"));
        let got = sim.send(json_post(long));
        assert_eq!(
            (got.status(), got.upstream().is_some()),
            (413, false),
            "{profile}"
        );
    }
    // Of a body of unknown length as much is held as may be.
    let mut sim = envoy(rules("pass"));
    sim.upstream(|_| Answer::status(200).body("x"));
    let request = Request::post("/")
        .header("content-type", "application/json")
        .body(long)
        .delivered_in(&[6, 7]);
    let got = sim.send(request);
    assert_eq!(got.upstream().map(body).as_deref(), Some(long));
    assert_eq!(
        got.header("x-tollgate-untransformed"),
        Some("request-too-large")
    );
}

#[test]
fn on_kong_a_body_that_was_not_announced_is_transformed_when_it_comes() {
    let config = json!({"request": {
        "append": {"headers": ["x-many:2"]}, "replace": {"headers": ["x-a:new"]}, "add": {"body": ["a:1"], "querystring": ["q:1"]},
    }});
    let mut sim = kong(config);
    let request = Request::post("/x")
        .header("content-type", "application/json")
        .header("transfer-encoding", "chunked")
        .header("x-many", "1")
        .header("x-a", "old")
        .body("{\"b\":2}");
    let seen = passed(&mut sim, request);
    assert_eq!(
        (body(&seen).as_str(), seen.path.as_str()),
        (r#"{"b":2,"a":"1"}"#, "/x?q=1")
    );
    assert_eq!(
        (header(&seen, "x-many"), header(&seen, "x-a")),
        (vec!["1", "2"], vec!["new"])
    );
}

#[test]
fn on_kong_a_repeated_header_is_not_changed_by_half() {
    let config = json!({"request": {"remove": {"headers": ["x-internal-debug"]}, "append": {"headers": ["x-many:3", "user-agent:gw"]}}});
    let mut sim = kong(config);
    let twice = Request::get("/")
        .header("x-internal-debug", "1")
        .header("x-internal-debug", "2");
    let got = sim.send(twice);
    assert_eq!((got.status(), got.upstream().is_some()), (400, false));
    let request = Request::get("/")
        .header("x-many", "1")
        .header("x-many", "2")
        .header("user-agent", "curl");
    let seen = passed(&mut sim, request);
    assert_eq!(header(&seen, "x-many"), ["1", "2", "3"]);
    // nginx has room for one line of it.
    assert_eq!(header(&seen, "user-agent"), ["curl, gw"]);
}

#[test]
fn a_client_that_did_not_ask_with_head_does_not_wait_for_a_body() {
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway(profile, json!({"request": {"http_method": "HEAD"}}));
        sim.upstream(|_| Answer::status(200).body("hello"));
        let got = sim.send(Request::get("/"));
        assert_eq!(
            (got.status(), got.header("content-length")),
            (200, Some("0")),
            "{profile}"
        );
        assert_eq!(got.upstream().unwrap().method, "HEAD");
    }
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = gateway(profile, json!({"response": {"add": {"json": ["a:1"]}}}));
        sim.upstream(|_| {
            Answer::status(200)
                .header("content-type", "application/json")
                .body("{}")
        });
        let got = sim.send(Request::new("HEAD", "/"));
        assert_eq!(
            got.header("content-length"),
            Some("2"),
            "{profile}: as long as that of a GET"
        );
    }
}

#[test]
fn the_deepest_templates_patterns_and_bodies_fit_the_stack() {
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    let add =
        |value: String| json!({"request": {"add": {"headers": [format!("x-deep:$({value})")]}}});
    let accepted = |config: &Value| {
        let mut config = config.clone();
        config["host"] = json!("envoy");
        let knobs = Knobs {
            headers_stop_iteration: true,
            ..Knobs::default()
        };
        Sim::of(Profile::Envoy)
            .knobs(knobs)
            .filter(loaded("header_transform"), config)
            .start()
            .ok()
    };
    let deepest = |values: &dyn Fn(usize) -> Value| {
        let mut deepest = None;
        for depth in 1..300 {
            if let Some(sim) = accepted(&values(depth)) {
                deepest = Some(sim);
            } else {
                break;
            }
        }
        deepest.expect("one level works")
    };
    type Make<'m> = &'m dyn Fn(usize) -> Value;
    let kinds: [Make<'_>; 7] = [
        &|depth| add(nested(depth)),
        &|depth| add(format!("{}1", "1 + ".repeat(depth))),
        &|depth| add(format!("{}1", "not ".repeat(depth))),
        &|depth| add(format!("{}1", "2 ^ ".repeat(depth))),
        &|depth| add(format!("tostring{}", nested(depth))),
        &|depth| {
            json!({"uri_pattern": format!("/{}a*{}", "(?:b".repeat(depth), ")*".repeat(depth)),
                "request": {"add": {"headers": ["x-deep:$(uri_captures[0])"]}}})
        },
        &|depth| {
            let path = vec!["a"; depth].join(".");
            json!({"request_json": {"set": {path: 1}}, "request": {"add": {"headers": ["x-deep:1"]}}})
        },
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let mut sim = deepest(kind);
        let request = Request::post(&format!("/{}", "ba".repeat(200)))
            .header("content-type", "application/json")
            .body("{\"a\":".repeat(900) + "1" + &"}".repeat(900));
        let seen = passed(&mut sim, request);
        assert!(!header(&seen, "x-deep").is_empty(), "{number}");
    }
    let pattern = format!(
        "x-deep:$(headers.x:match('{}') or 'none')",
        "a-a*a+a?(b*)".repeat(4)
    );
    let mut sim = envoy(json!({"request": {"add": {"headers": [pattern]}}}));
    passed(&mut sim, Request::get("/").header("x", "a".repeat(40)));
}

#[test]
fn a_template_that_costs_too_much_ends_its_request_alone() {
    let config =
        json!({"request": {"add": {"headers": ["x:$(headers.y:match('.-.-.-.-x') or 'none')"]}}});
    let mut sim = envoy(config);
    let got = sim.send(Request::get("/").header("y", "a".repeat(3000)));
    assert_eq!((got.status(), got.upstream().is_some()), (500, false));
    assert_eq!(
        sim.metric("tollgate_header_transform_refused;why=template"),
        1
    );
    let seen = passed(&mut sim, Request::get("/").header("y", "aax"));
    assert_eq!(header(&seen, "x"), ["aax"]);
}

#[test]
fn templates_read_headers_once_as_they_are_when_first_asked_for() {
    let rules = |more: Value| {
        let mut config = json!({"request": {
            "replace": {"headers": ["x-a:new"]},
            "add": {"querystring": ["q:$(headers['x-a'])"]},
        }});
        config["request"]["append"] = more;
        config
    };
    let query =
        |config: Value| passed(&mut envoy(config), Request::get("/").header("x-a", "old")).path;
    assert_eq!(query(rules(json!({}))), "/?q=new");
    assert_eq!(
        query(rules(json!({"headers": ["x-b:$(headers['x-a'])"]}))),
        "/?q=old"
    );
    // One that asks only for something else does not count.
    assert_eq!(
        query(rules(json!({"headers": ["x-b:$(query_params.q)"]}))),
        "/?q=new"
    );
}

#[test]
fn what_only_kong_does_comes_with_compat() {
    let kong = |mut config: Value| {
        config["compat"] = json!("kong");
        envoy(config)
    };
    let failed = |mut sim: Sim, request: Request| {
        let got = sim.send(request);
        (got.status(), got.upstream().is_some()) == (500, false)
    };
    assert!(failed(
        kong(json!({"request": {"http_method": "PURGE"}})),
        Request::get("/")
    ));
    assert!(failed(
        kong(json!({"request": {"replace": {"uri": "x"}}})),
        Request::get("/")
    ));
    let scalar = kong(json!({"request": {"add": {"body": ["a:1"]}}}));
    assert!(failed(scalar, json_post("5")));
    let ours = passed(
        &mut envoy(json!({"request": {"add": {"body": ["a:1"]}, "http_method": "PURGE"}})),
        json_post("5"),
    );
    assert_eq!((body(&ours).as_str(), ours.method.as_str()), ("5", "PURGE"));

    let path = |config: Value, target: &str| passed(&mut kong(config), Request::get(target)).path;
    let uri = json!({"request": {"replace": {"uri": "/n?x=1"}, "add": {"querystring": ["b:2"]}}});
    assert_eq!(path(uri.clone(), "/o?a=1"), "/n?x=1?a=1&b=2");
    let many: Vec<String> = (100..250).map(|number| format!("a{number}=1")).collect();
    let touched = path(
        json!({"request": {"remove": {"querystring": ["zzz"]}}}),
        &format!("/?{}", many.join("&")),
    );
    assert_eq!(touched.split('&').count(), 100);
    let repeated = passed(
        &mut kong(json!({"request": {"add": {"headers": ["x-l:$(headers.x)", "x-e:$(nil)"]}}})),
        Request::get("/").header("x", "1").header("x", "2"),
    );
    assert!(header(&repeated, "x-l")[0].starts_with("table: 0x"));
    assert_eq!(header(&repeated, "x-e"), [""]);
    let written = passed(
        &mut kong(json!({"request": {"add": {"body": ["u:a/b"]}}})),
        json_post("{ \"n\": 12345678901234567890, \"f\": 1.0 }"),
    );
    assert_eq!(
        body(&written),
        r#"{"n":9.2233720368548e+18,"f":1,"u":"a\/b"}"#
    );
}

#[test]
fn rules_that_promise_it_come_to_the_same_a_second_time() {
    let rules = json!({
        "request": {
            "http_method": "PUT",
            "remove": {"headers": ["x-a"], "querystring": ["a"], "body": ["a"]},
            "rename": {"headers": ["x-b:x-c"], "querystring": ["b:c"], "body": ["b:c"]},
            "replace": {"headers": ["x-d:new", "host:h.test"], "querystring": ["d:new"], "body": ["d:new"], "uri": "/fixed"},
            "add": {"headers": ["x-e:new"], "querystring": ["e:new"], "body": ["e:new"]},
        },
        "request_json": {"set": {"f.g": 1}, "set_if_absent": {"h": 2}, "at_most": {"i": 3}, "at_least": {"j": 4}},
        "response": {"remove": {"headers": ["x-a"], "json": ["a"]}, "replace": {"headers": ["x-d:new"], "json": ["d:new"]},
            "add": {"headers": ["x-e:new"], "json": ["e:new"]}},
    });
    let request = || {
        Request::post("/?a=1&b=2&d=3&z=%7e")
            .header("content-type", "application/json")
            .header("x-a", "1")
            .header("x-b", "2")
            .header("x-d", "3")
            .body(r#"{"a":1,"b":2,"d":3,"i":9,"j":1}"#)
    };
    let outcome = |times: usize| {
        let filters = vec![("header_transform", rules.clone()); times];
        let mut sim = gateway_of(Profile::Envoy, &filters);
        sim.upstream(|_| {
            Answer::status(200)
                .header("content-type", "application/json")
                .header("x-a", "1")
                .header("x-d", "3")
                .body(r#"{"a":1,"d":3}"#)
        });
        let got = sim.send(request());
        let seen = got.upstream().unwrap();
        let lines = |headers: &tollgate_harness::http::Headers| {
            let mut lines: Vec<String> = headers
                .iter()
                .map(|(name, value)| {
                    format!(
                        "{}: {}",
                        String::from_utf8_lossy(name),
                        String::from_utf8_lossy(value)
                    )
                })
                .filter(|line| !line.starts_with("x-request-id"))
                .collect();
            lines.sort();
            lines
        };
        (
            seen.method.clone(),
            seen.path.clone(),
            lines(&seen.headers),
            body(seen),
            lines(got.headers()),
            got.text(),
        )
    };
    assert_eq!(outcome(2), outcome(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_rules_every_request_and_response_is_the_same(
        target in "/[a-z%2F.?&=+~]{0,20}",
        lines in proptest::collection::vec(("x-[a-c]", "[ -~]{0,8}"), 0..6),
        kind in prop_oneof![Just("application/json"), Just("application/x-www-form-urlencoded"), Just("multipart/form-data; boundary=B"), Just("text/event-stream")],
        content in proptest::collection::vec(any::<u8>(), 1..48),
        cut in 1..48usize,
    ) {
        let send = |filter: &str, config: Value| {
            let mut sim = gateway_of(Profile::Envoy, &[(filter, config)]);
            let answer = content.clone();
            sim.upstream(move |_| Answer::status(200).header("content-type", kind).header("x-a", "1").header("x-a", "2").body(answer.clone()));
            let request = lines.iter().fold(Request::post(&target), |request, (name, value)| request.header(name, value.trim().to_owned()));
            let got = sim.send(request.header("content-type", kind).header("x-request-id", "7").body(content.clone()).delivered_in(&[cut.min(content.len()), 64]));
            let seen = got.upstream().cloned().unwrap();
            let lines: Vec<_> = seen.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let answered: Vec<_> = got.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            (seen.method, seen.path, lines, seen.body, answered, got.body().to_vec())
        };
        let untouched = send("noop", json!({}));
        prop_assert_eq!(&send("header_transform", json!({})), &untouched);
        // Rules that fit nothing leave everything, too.
        let idle = json!({"sse": true, "when": {"paths": ["*"]},
            "request": {"remove": {"headers": ["q-x"], "querystring": ["q-x"], "body": ["q-x"]}, "replace": {"headers": ["q-x:1"], "querystring": ["q-x:1"], "body": ["q-x:1"]}},
            "request_json": {"remove": ["q-x.y"]},
            "response": {"remove": {"headers": ["q-x"]}, "rename": {"headers": ["q-x:q-y"]}}});
        prop_assert_eq!(&send("header_transform", idle), &untouched);
    }
}
