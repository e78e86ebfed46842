//! Filters in the proxy through real sockets: key-auth as it is shipped, and small guests that misbehave.

mod wire;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use serde_json::json;
use tollgate_harness::catalog::Search;
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::proxy::{Config, Proxy};
use wire::{Answer, Wire, get, request, until};

const KEY: &str = "apikey: alice-key";

/// A gateway with one filter before a mock provider.
struct Gateway {
    proxy: Proxy,
    _provider: MockLlm,
}

impl Gateway {
    /// `filter` is the filter's entry, `more` are further lines of the file and of `clusters`.
    fn start(profile: &str, filter: &str, clusters: &str, base: &Path) -> Self {
        let provider = MockLlm::start(Settings::default()).unwrap();
        let yaml = format!(
            "
profile: {profile}
access_log: false
workers: 2
listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
routes: [{{cluster: llm, filters: [it]}}]
clusters:
  llm: {{endpoints: ['{}']}}
  {clusters}
filters:
  it: {filter}
",
            provider.address()
        );
        let config = Config::read(&yaml, base, &Search::from_here(None))
            .unwrap_or_else(|error| panic!("{error}"));
        let proxy = Proxy::start(config.config).unwrap_or_else(|error| panic!("{error}"));
        Self {
            proxy,
            _provider: provider,
        }
    }

    fn key_auth(profile: &str, config: &serde_json::Value) -> Self {
        Self::start(
            profile,
            &json!({"wasm": "key-auth", "config": config}).to_string(),
            "",
            Path::new("."),
        )
    }

    /// With a guest in WebAssembly's text form; `callbacks` are its functions.
    fn guest(profile: &str, callbacks: &str, on_trap: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let module = format!(
            "(module
                (import \"env\" \"proxy_define_metric\" (func $define (param i32 i32 i32 i32) (result i32)))
                (import \"env\" \"proxy_increment_metric\" (func $increment (param i32 i64) (result i32)))
                (memory (export \"memory\") 2)
                (global $free (mut i32) (i32.const 65536))
                (data (i32.const 16) \"guest.seen;kind=request\")
                (func (export \"proxy_abi_version_0_2_1\"))
                (func (export \"malloc\") (param i32) (result i32)
                    global.get $free global.get $free local.get 0 i32.add global.set $free)
                {callbacks})"
        );
        std::fs::write(directory.path().join("guest.wasm"), module).unwrap();
        let filter = format!("{{wasm: ./guest.wasm, on_trap: {on_trap}}}");
        Self::start(profile, &filter, "", directory.path())
    }

    fn address(&self) -> SocketAddr {
        self.proxy.addresses()[0]
    }

    fn metric(&self, line: &str) -> bool {
        let metrics = get(self.proxy.admin_address().unwrap(), "/metrics");
        metrics.text().lines().any(|present| present == line)
    }

    fn whoami(&self, lines: &[&str]) -> Answer {
        request(self.address(), "GET", "/v1/whoami", lines, "")
    }
}

fn alice() -> serde_json::Value {
    json!({"consumers": [{"username": "alice", "credentials": [{"key": "alice-key"}]}]})
}

#[test]
fn key_auth_lets_the_consumer_in_and_names_it_upstream_under_each_profile() {
    for profile in ["envoy", "kong", "spec"] {
        let gateway = Gateway::key_auth(profile, &alice());
        let seen = gateway.whoami(&[KEY, "X-Consumer-Username: root"]);
        assert_eq!(seen.status(), 200, "{profile}");
        assert_eq!(
            seen.json()["headers"]["x-consumer-username"],
            json!(["alice"]),
            "{profile}"
        );
        let refused = gateway.whoami(&["apikey: guessed"]);
        assert_eq!(refused.status(), 401, "{profile}");
        assert_eq!(refused.json()["message"], "Unauthorized", "{profile}");
    }
}

#[test]
fn bytes_that_are_no_text_in_a_header_pass_and_harm_nobody() {
    let gateway = Gateway::key_auth("envoy", &alice());
    let mut wire = Wire::connect(gateway.address());
    wire.send(
        b"GET /v1/whoami HTTP/1.1\r\nHost: a\r\napikey: alice-key\r\nUser-Agent: a\xff\xfe\r\n\r\n",
    );
    assert_eq!(wire.answer().status(), 200);
    let mut wire = Wire::connect(gateway.address());
    wire.send(b"GET /v1/whoami HTTP/1.1\r\nHost: a\r\napikey: a\xff\r\n\r\n");
    assert_eq!(wire.answer().status(), 401);
    assert_eq!(gateway.whoami(&[KEY]).status(), 200);
    assert!(gateway.metric("tollgate_filter_traps_total 0"));
}

#[test]
fn a_large_upload_with_a_wrong_key_gets_its_401_and_not_a_reset() {
    let gateway = Gateway::key_auth("envoy", &alice());
    let mut wire = Wire::connect(gateway.address());
    let body = vec![b'x'; 4 << 20];
    wire.send(format!(
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    wire.send(&body);
    assert_eq!(wire.answer().status(), 401);
}

#[test]
fn a_key_in_a_body_that_comes_in_pieces_is_found_and_the_body_goes_on_whole() {
    let mut config = alice();
    config["key_in_body"] = json!(true);
    config["host"] = json!("envoy");
    let gateway = Gateway::key_auth("envoy", &config);
    let body = json!({"apikey": "alice-key", "model": "text-embedding-3-small", "input": "hi", "dimensions": 2}).to_string();
    let mut wire = Wire::connect(gateway.address());
    wire.send("POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(7) {
        wire.send_chunk(piece);
    }
    wire.send_chunk("");
    let answer = wire.answer();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["data"][0]["object"], "embedding");
}

#[test]
fn a_body_that_outgrows_the_buffer_while_a_filter_waits_for_it_gets_a_413() {
    let mut config = alice();
    config["key_in_body"] = json!(true);
    config["host"] = json!("envoy");
    config["max_body_bytes"] = json!(16 << 20);
    let gateway = Gateway::key_auth("envoy", &config);
    let mut wire = Wire::connect(gateway.address());
    let body = vec![b'x'; 3 << 20];
    wire.send(format!(
        "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    wire.send(&body);
    assert_eq!(wire.answer().status(), 413);
}

#[test]
fn keys_are_polled_from_a_cluster_and_rotated_without_a_restart() {
    let keys = TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = format!("keys: {{endpoints: ['{}']}}", keys.local_addr().unwrap());
    let config = json!({"host": "envoy", "consumers_from": {"upstream": "keys", "path": "/keys.json", "refresh": 0.05}});
    let filter = json!({"wasm": "key-auth", "config": config}).to_string();
    let (publish, published) = std::sync::mpsc::channel::<&str>();
    // Answers every poll with the latest key; none before the first.
    thread::spawn(move || {
        let mut key = None;
        loop {
            let mut wire = Wire::accept(&keys);
            let published = &published;
            let key = &mut key;
            while wire
                .try_head()
                .is_some_and(|head| head.first == "GET /keys.json HTTP/1.1")
            {
                *key = published.try_iter().last().or(*key);
                let answer = key.map(|key| {
                    json!({"consumers": [{"username": "alice", "credentials": [{"key": key}]}]})
                        .to_string()
                });
                match answer {
                    Some(body) => wire.send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )),
                    None => wire.send("HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
                }
            }
        }
    });
    let gateway = Gateway::start("envoy", &filter, &cluster, Path::new("."));
    let before = gateway.whoami(&["apikey: first"]);
    assert_eq!(before.status(), 503);
    assert!(before.header("retry-after").is_some());
    for key in ["first", "second"] {
        publish.send(key).unwrap();
        // Both workers have to have polled: the kernel spreads connections over them.
        until(|| (0..16).all(|_| gateway.whoami(&[&format!("apikey: {key}")]).status() == 200));
    }
    assert_eq!(gateway.whoami(&["apikey: first"]).status(), 401);
}

const TRAP: &str = "
    (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) unreachable)";

#[test]
fn a_filter_that_trapped_stops_traffic_when_closed() {
    let gateway = Gateway::guest("envoy", TRAP, "closed");
    for _ in 0..3 {
        assert_eq!(gateway.whoami(&[]).status(), 503);
    }
    assert!(gateway.metric("tollgate_requests_total{status=\"503\"} 3"));
    assert!(!gateway.metric("tollgate_filter_traps_total 0"));
}

#[test]
fn a_filter_that_trapped_is_passed_by_when_open() {
    let gateway = Gateway::guest("envoy", TRAP, "open");
    // Each of the two workers has a VM to lose.
    until(|| (0..16).all(|_| gateway.whoami(&[]).status() == 200));
}

#[test]
fn a_filter_that_trapped_gets_a_new_vm_when_it_is_reloaded() {
    // Traps at its second request: a VM that lives on never answers 200 again.
    let callbacks = "
        (global $requests (mut i32) (i32.const 0))
        (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32)
            (global.set $requests (i32.add (global.get $requests) (i32.const 1)))
            (if (i32.gt_u (global.get $requests) (i32.const 1)) (then unreachable))
            (i32.const 0))";
    let gateway = Gateway::guest("envoy", callbacks, "reload");
    // Each of the two workers starts with a VM; every further 200 is a reload's, once its back-off is over.
    let mut answered = 0;
    until(|| {
        answered += usize::from(gateway.whoami(&[]).status() == 200);
        answered > 2
    });
    assert!(!gateway.metric("tollgate_vm_reloads_total 0"));
}

#[test]
fn a_filter_that_would_hang_a_request_for_ever_on_kong_is_a_504() {
    let callbacks = "
        (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) i32.const 1)";
    let gateway = Gateway::guest("kong", callbacks, "closed");
    let answer = gateway.whoami(&[]);
    assert_eq!(answer.status(), 504);
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("paused with no call under way"),
        "{message}"
    );
}

#[test]
fn a_filters_metrics_show_their_labels() {
    let callbacks = "
        (global $metric (mut i32) (i32.const 0))
        (func (export \"proxy_on_configure\") (param i32 i32) (result i32)
            (drop (call $define (i32.const 0) (i32.const 16) (i32.const 23) (i32.const 8)))
            (global.set $metric (i32.load (i32.const 8)))
            (i32.const 1))
        (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32)
            (drop (call $increment (global.get $metric) (i64.const 1)))
            (i32.const 0))";
    let gateway = Gateway::guest("envoy", callbacks, "closed");
    for _ in 0..5 {
        assert_eq!(gateway.whoami(&[]).status(), 200);
    }
    assert!(gateway.metric("guest_seen{kind=\"request\"} 5"));
    assert!(gateway.metric("# TYPE guest_seen counter"));
}
