//! What the kit does with a filter's decisions, in a real Envoy, by the probe guest. The same is asked of the simulated hosts.

use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::http::Headers;
use tollgate_harness::wire::Answer;
use tollgate_harness::wire::{self, Recorder, Request, Response};
use tollgate_tests::module;

/// An Envoy with a chain of filters for each name, an upstream, and a second one that filters may ask.
struct Gateway {
    envoy: Envoy,
    upstream: Recorder,
}

fn probe(orders: &Value) -> Filter {
    let configuration = orders.to_string();
    Filter {
        name: "probe".to_owned(),
        module: module("probe"),
        configuration,
        vm_id: "kit".to_owned(),
    }
}

impl Gateway {
    fn start(chains: Vec<(&str, Vec<Filter>)>, asked: &Recorder) -> Self {
        let upstream = Recorder::start().unwrap();
        let listener = |name: &str, filters, upstream| Listener {
            name: name.to_owned(),
            filters,
            upstream,
            proxy_protocol: false,
        };
        let mut listeners: Vec<_> = chains
            .into_iter()
            .map(|(name, filters)| listener(name, filters, upstream.address()))
            .collect();
        // Makes Envoy know the cluster.
        listeners.push(listener("asked", Vec::new(), asked.address()));
        let envoy = Envoy::start(&envoy::find().unwrap(), &listeners, 1).unwrap();
        Self { envoy, upstream }
    }

    fn send(&self, listener: &str, head: &str, body: &str) -> (Response, Option<Request>) {
        let request = format!("{head}\r\nHost: gateway.test\r\n{body}");
        let method = head.split(' ').next().unwrap();
        let response = wire::exchange(
            self.envoy.address(listener).unwrap(),
            method,
            request.as_bytes(),
        )
        .unwrap_or_else(|error| panic!("{listener}: {error}\n{}", self.envoy.log().unwrap()));
        (response, self.upstream.take_seen().pop())
    }

    /// A header and the body as the upstream got them.
    fn seen(
        &self,
        listener: &str,
        head: &str,
        body: &str,
        header: &str,
    ) -> (Option<String>, String) {
        let (response, seen) = self.send(listener, head, body);
        let seen = seen.unwrap_or_else(|| panic!("{listener}: {response:?}"));
        (
            seen.headers.get_str(header).map(str::to_owned),
            String::from_utf8_lossy(&seen.body).into_owned(),
        )
    }

    fn text(&self, listener: &str) -> String {
        String::from_utf8_lossy(&self.send(listener, "GET / HTTP/1.1", "\r\n").0.body).into_owned()
    }
}

const GET: &str = "GET / HTTP/1.1";
const POST: &str = "POST / HTTP/1.1";
const SIZED: &str = "content-length: 5\r\n\r\nhello";
const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";

#[test]
fn decisions_about_requests_are_carried_out() {
    let asked = Recorder::start().unwrap();
    asked.answer(Answer {
        body: "answer".into(),
        ..Answer::ok()
    });
    let ask = envoy::cluster_name(asked.address());
    let gateway = Gateway::start(
        vec![
            ("hold", vec![probe(&json!({"host": "envoy", "hold": 100}))]),
            (
                "hold little",
                vec![probe(&json!({"host": "envoy", "hold": 4}))],
            ),
            ("ask", vec![probe(&json!({"host": "envoy", "ask": ask}))]),
            (
                "ask nobody",
                vec![probe(&json!({"host": "envoy", "ask": "no such cluster"}))],
            ),
            (
                "ask, hold",
                vec![probe(&json!({"host": "envoy", "ask": ask, "hold": 100}))],
            ),
            (
                "hold, ask",
                vec![probe(
                    &json!({"host": "envoy", "ask": ask, "hold": 100, "ask_after_body": true}),
                )],
            ),
            (
                "query",
                vec![probe(&json!({"host": "envoy", "query": "b=2"}))],
            ),
        ],
        &asked,
    );
    for body in [SIZED, CHUNKED] {
        assert_eq!(
            gateway.seen("hold", POST, body, "x-body"),
            (Some("5 bytes".into()), "[hello]".into())
        );
        assert_eq!(
            gateway.seen("hold little", POST, body, "x-body"),
            (Some("too large".into()), "hello".into())
        );
        assert_eq!(
            gateway.seen("ask", POST, body, "x-answer"),
            (Some("200 answer".into()), "hello".into())
        );
        for both in ["ask, hold", "hold, ask"] {
            assert_eq!(
                gateway.seen(both, POST, body, "x-answer"),
                (Some("200 answer".into()), "[hello]".into()),
                "{both}"
            );
        }
    }
    assert_eq!(
        gateway.seen("hold", GET, "\r\n", "x-body").0.as_deref(),
        Some("none")
    );
    assert_eq!(
        gateway
            .seen("ask nobody", GET, "\r\n", "x-answer")
            .0
            .as_deref(),
        Some("failed")
    );
    let (_, seen) = gateway.send("query", "GET /a%20b?a=1 HTTP/1.1", "\r\n");
    assert_eq!(seen.unwrap().target, "/a%20b?b=2");
}

#[test]
fn decisions_about_responses_are_carried_out() {
    let asked = Recorder::start().unwrap();
    let chain = |response: &str| vec![probe(&json!({"host": "envoy", "response": response}))];
    let names = ["head", "bracket", "count", "reverse"];
    let gateway = Gateway::start(
        names.iter().map(|name| (*name, chain(name))).collect(),
        &asked,
    );
    for chunked in [false, true] {
        gateway.upstream.answer(Answer {
            status: 200,
            headers: Headers::new(),
            body: "abcdef".into(),
            chunked,
        });
        let (response, _) = gateway.send("head", GET, "\r\n");
        assert_eq!(
            (response.headers.get_str("x-probe"), &response.body[..]),
            (Some("response"), &b"abcdef"[..])
        );
        let unbracketed = gateway.text("bracket").replace(['[', ']'], "");
        assert_eq!(unbracketed, "abcdef", "chunked {chunked}");
        assert_eq!(gateway.text("count"), "6", "chunked {chunked}");
        assert_eq!(gateway.text("reverse"), "fedcba", "chunked {chunked}");
        let (head, _) = gateway.send("reverse", "HEAD / HTTP/1.1", "\r\n");
        assert_eq!(head.status, 200);
    }
    gateway.upstream.answer(Answer {
        status: 200,
        headers: Headers::new(),
        body: vec![b'x'; 300_000].into(),
        chunked: false,
    });
    assert_eq!(
        gateway.text("reverse").len(),
        300_000,
        "past what is held, all of it passes"
    );
}

#[test]
fn a_later_filter_learns_who_the_client_is_and_no_client_can_say_so() {
    let asked = Recorder::start().unwrap();
    let bob = r#"{"consumer":"1","username":"bob","credential":"c","groups":["gold"]}"#;
    let consumers = json!([{"id": "1", "username": "bob", "groups": ["gold"], "credentials": [{"id": "c", "key": "K"}]}]);
    let key_auth = Filter {
        name: "key-auth".to_owned(),
        module: module("key_auth"),
        configuration: json!({"host": "envoy", "consumers": consumers, "run_on_preflight": false})
            .to_string(),
        vm_id: "auth".to_owned(),
    };
    let gateway = Gateway::start(
        vec![(
            "both",
            vec![key_auth, probe(&json!({"host": "envoy", "identity": true}))],
        )],
        &asked,
    );
    let claims = format!("x-consumer-id: evil\r\ntollgate.identity: {bob}\r\n\r\n");
    assert_eq!(
        gateway
            .seen("both", GET, &format!("apikey: K\r\n{claims}"), "x-identity")
            .0
            .as_deref(),
        Some(bob)
    );
    assert_eq!(
        gateway
            .seen("both", "OPTIONS / HTTP/1.1", &claims, "x-identity")
            .0
            .as_deref(),
        Some("nobody")
    );
}
