//! A client's budget and an operator's orders in a real Envoy with two workers, behind key-auth.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::wire::{self, Recorder, Response};
use tollgate_tests::{consumers, module};

const ADMIN: &str = "an-operators-key-of-some-length";

fn gateway(upstream: SocketAddr) -> Envoy {
    let keys = json!({"host": "envoy", "consumers": consumers(0..2)});
    let limits = json!({
        "host": "envoy", "hour": 100, "concurrency": [{"name": "parallel", "limit": 3}],
        "budget_path": "/budget", "admin": {"path": "/limits", "key": ADMIN, "header": "x-operator"},
    });
    let filter = |name: &str, configuration: Value| Filter {
        name: name.replace('_', "-"),
        module: module(name),
        configuration: configuration.to_string(),
        vm_id: "main".to_owned(),
    };
    let listener = Listener {
        name: "main".to_owned(),
        filters: vec![filter("key_auth", keys), filter("token_rate_limit", limits)],
        upstream,
        proxy_protocol: false,
    };
    Envoy::start(&envoy::find().unwrap(), &[listener], 2).unwrap()
}

fn send(gateway: SocketAddr, consumer: u32, head: &str, more: &str, body: &str) -> Response {
    let key = format!("sk-{consumer:010}-abcdefghijklmnopqrstuvwxyz");
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: gateway.test\r\napikey: {key}\r\n{more}Content-Length: {length}\r\n\r\n{body}"
    );
    wire::exchange(gateway, "POST", request.as_bytes()).unwrap()
}

fn document(got: &Response) -> Value {
    serde_json::from_slice(&got.body).unwrap_or_else(|_| panic!("{got:?}"))
}

#[test]
fn a_client_reads_its_own_budget_and_an_operator_corrects_it() {
    let upstream = Recorder::start().unwrap();
    let envoy = gateway(upstream.address());
    let address = envoy.address("main").unwrap();
    let used = |consumer| {
        let got = send(address, consumer, "GET /budget", "", "");
        assert_eq!(got.status, 200, "{got:?}");
        document(&got)["limits"][0]["windows"][0]["used"].clone()
    };
    let operate = |key: &str, order: &Value| {
        let key = format!("x-operator: {key}\r\n");
        send(address, 1, "POST /limits", &key, &order.to_string())
    };
    for _ in 0..7 {
        assert_eq!(send(address, 0, "GET /a", "", "").status, 200);
    }
    assert_eq!(upstream.take_seen().len(), 7);
    assert_eq!((used(0), used(1)), (json!(7), json!(0)));

    let mut order = json!({"rule": "requests", "by": {"consumer": "consumer-0"}, "action": "add", "amount": 93});
    assert_eq!(operate("wrong", &order).status, 401);
    assert_eq!(used(0), 7);
    let got = operate(ADMIN, &order);
    assert_eq!(
        (got.status, &document(&got)["windows"][0]["remaining"]),
        (200, &json!(0))
    );
    assert_eq!(send(address, 0, "GET /a", "", "").status, 429);
    order["action"] = json!("reset");
    assert_eq!(operate(ADMIN, &order).status, 400);
    order.as_object_mut().unwrap().remove("amount");
    assert_eq!(operate(ADMIN, &order).status, 200);
    assert_eq!((used(0), used(1)), (json!(0), json!(0)));
    assert!(upstream.take_seen().is_empty(), "a question went upstream");
    let log = envoy.log().unwrap();
    assert!(!log.contains("[critical]") && !log.contains(ADMIN), "{log}");
}
