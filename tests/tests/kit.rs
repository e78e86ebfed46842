//! What the kit does with a filter's decisions, on each host's profile, by the probe guest.

use serde_json::{Value, json};
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Answer, Request, Sim, in_every_chunking};
use tollgate_tests::load;

const HOSTS: [(Profile, &str); 3] = [
    (Profile::Envoy, "envoy"),
    (Profile::Envoy, "envoy-headers-pass"),
    (Profile::Kong, "kong"),
];

/// What the probe asks, by the name the host wants.
fn asked(host: &str) -> &'static str {
    if host == "kong" {
        "127.0.0.1:9000"
    } else {
        "asked"
    }
}

fn probe(profile: Profile, host: &str, mut orders: Value) -> Sim {
    let module = load("probe");
    orders["host"] = json!(host);
    if orders.get("ask").is_some() {
        orders["ask"] = json!(asked(host));
    }
    let knobs = Knobs {
        headers_stop_iteration: host == "envoy",
        ..Knobs::default()
    };
    let setting = Sim::of(profile).knobs(knobs).filter(&module, orders);
    setting
        .on_call(asked(host), |_| Answer::status(200).body("answer"))
        .start()
        .expect("it starts")
}

/// A request with a body of five bytes.
fn hello() -> Request {
    Request::post("/")
        .header("content-length", "5")
        .body("hello")
}

#[test]
fn a_held_body_is_edited_whole_however_it_came() {
    for (profile, host) in [HOSTS[0], HOSTS[2]] {
        let mut sim = probe(profile, host, json!({"hold": 100}));
        in_every_chunking(5, |pieces| {
            let got = sim.send(hello().delivered_in(pieces));
            got.assert_upstream_header("x-body", "5 bytes")
                .assert_upstream_body("[hello]");
        });
    }
}

#[test]
fn a_request_without_a_body_does_not_wait_for_one() {
    for (profile, host) in HOSTS {
        for request in [
            Request::get("/"),
            Request::post("/").header("content-length", "0"),
            Request::post("/").header("content-length", "00"),
        ] {
            let mut sim = probe(profile, host, json!({"hold": 100}));
            sim.send(request).assert_upstream_header("x-body", "none");
        }
    }
}

#[test]
fn a_body_past_what_the_filter_wants_passes_unread() {
    for (profile, host) in [HOSTS[0], HOSTS[2]] {
        let mut sim = probe(profile, host, json!({"hold": 4}));
        in_every_chunking(5, |pieces| {
            let got = sim.send(hello().delivered_in(pieces));
            got.assert_upstream_header("x-body", "too large")
                .assert_upstream_body("hello");
        });
    }
}

#[test]
fn a_body_that_ends_with_trailers_has_ended() {
    let mut sim = probe(Profile::Envoy, "envoy", json!({"hold": 100}));
    let got = sim.send(Request::post("/").body("hello").trailer("x-sum", "1"));
    got.assert_upstream_header("x-body", "5 bytes")
        .assert_upstream_body("[hello]");
}

#[test]
fn a_call_is_waited_for() {
    for (profile, host) in HOSTS {
        for request in [Request::get("/"), hello().delivered_in(&[2, 3])] {
            let mut sim = probe(profile, host, json!({"ask": ""}));
            sim.send(request)
                .assert_upstream_header("x-answer", "200 answer");
        }
    }
}

#[test]
fn a_call_can_come_before_the_body_is_held_for() {
    for (profile, host) in [HOSTS[0], HOSTS[2]] {
        let mut sim = probe(profile, host, json!({"ask": "", "hold": 100}));
        sim.send(hello().delivered_in(&[2, 3]))
            .assert_upstream_header("x-answer", "200 answer")
            .assert_upstream_body("[hello]");
        sim.send(Request::get("/"))
            .assert_upstream_header("x-body", "none");
    }
}

#[test]
fn a_body_can_be_edited_after_a_call_on_envoy_and_on_kong_that_is_refused() {
    let orders = json!({"ask": "", "hold": 100, "ask_after_body": true});
    let mut envoy = probe(Profile::Envoy, "envoy", orders.clone());
    let got = envoy.send(hello());
    got.assert_upstream_header("x-answer", "200 answer")
        .assert_upstream_body("[hello]");
    // The host would trap, and let it pass.
    let mut kong = probe(Profile::Kong, "kong", orders);
    kong.send(hello()).assert_status(500).assert_no_upstream();
    kong.assert_untrapped();
}

#[test]
fn the_query_that_a_filter_sets_is_the_one_that_is_sent() {
    for (profile, host) in [HOSTS[0], HOSTS[2]] {
        for (query, sent) in [("b=2", "/a%20b?b=2"), ("", "/a%20b")] {
            let mut sim = probe(profile, host, json!({"query": query}));
            sim.send(Request::get("/a%20b?a=1"))
                .assert_upstream_path(sent);
        }
    }
}

#[test]
fn a_response_is_rewritten_as_it_passes() {
    for (profile, host) in HOSTS {
        let mut sim = probe(profile, host, json!({"response": "bracket"}));
        sim.upstream(|_| {
            Answer::status(200)
                .header("content-length", "6")
                .streamed(&["one", "two"])
        });
        sim.send(Request::get("/"))
            .assert_body("[one][two]")
            .assert_header("x-probe", "response");
    }
}

#[test]
fn a_swallowed_response_ends_where_the_length_says_so() {
    for (profile, host) in HOSTS {
        let mut sim = probe(profile, host, json!({"response": "count"}));
        sim.upstream(|_| {
            Answer::status(200)
                .header("content-length", "6")
                .streamed(&["one", "two"])
        });
        assert_eq!(
            sim.send(Request::get("/")).text(),
            "6",
            "{host}: with a length"
        );
        sim.upstream(|_| Answer::status(200).streamed(&["one", "two"]));
        assert_eq!(sim.send(Request::get("/")).text(), "6", "{host}: chunked");
    }
}

#[test]
fn a_held_response_is_edited_whole_and_a_large_one_passes() {
    for (profile, host) in HOSTS {
        let mut sim = probe(profile, host, json!({"response": "reverse"}));
        sim.upstream(|_| Answer::status(200).streamed(&["ab", "cd"]));
        assert_eq!(sim.send(Request::get("/")).text(), "dcba", "{host}");
        let large = vec!["x".repeat(30_000); 5];
        sim.upstream(move |_| Answer::status(200).streamed(&large));
        assert_eq!(sim.send(Request::get("/")).body().len(), 150_000, "{host}");
    }
}

#[test]
fn several_configurations_share_a_vm_and_nothing_else() {
    let module = load("probe");
    let knobs = Knobs {
        headers_stop_iteration: true,
        ..Knobs::default()
    };
    let setting = Sim::of(Profile::Envoy)
        .knobs(knobs)
        .filter(&module, json!({"query": "first"}))
        .filter(&module, json!({"query": "second"}));
    let mut sim = setting.start().expect("it starts");
    for (entry, sent) in [(0, "/?first"), (1, "/?second"), (0, "/?first")] {
        let got = sim.send_through(&[entry], Request::get("/"));
        assert_eq!(got.upstream().map(|seen| seen.path.as_str()), Some(sent));
    }
    assert_eq!(sim.metric("tollgate_probe_logged"), 3);
}

#[test]
fn a_later_filter_learns_who_the_client_is_and_no_client_can_say_so() {
    for (profile, host) in [HOSTS[0], HOSTS[2]] {
        let consumers = json!([{
            "id": "1", "username": "bob", "groups": ["gold"], "metadata": {"plan": 1}, "credentials": [{"id": "c", "key": "K"}],
        }]);
        let knobs = Knobs {
            headers_stop_iteration: true,
            ..Knobs::default()
        };
        let mut sim = Sim::of(profile)
            .knobs(knobs)
            .filter(
                &load("key_auth"),
                json!({"host": host, "consumers": consumers, "run_on_preflight": false}),
            )
            .filter(&load("probe"), json!({"host": host, "identity": true}))
            .start()
            .expect("it starts");
        let bob = r#"{"consumer":"1","username":"bob","credential":"c","groups":["gold"],"metadata":{"plan":1}}"#;
        let claims = |request: Request| {
            request
                .header("x-consumer-id", "evil")
                .header("tollgate.identity", bob)
        };
        sim.send(claims(Request::get("/").header("apikey", "K")))
            .assert_upstream_header("x-identity", bob);
        sim.send(claims(Request::new("OPTIONS", "/")))
            .assert_upstream_header("x-identity", "nobody");
    }
}
