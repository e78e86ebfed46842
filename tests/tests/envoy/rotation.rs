//! Keys rotate in a real Envoy, without touching it: consumers are polled from a URL.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::http::Headers;
use tollgate_harness::wire::{self, Answer, Recorder, Response};
use tollgate_tests::module;

/// How long a change may take to arrive: a poll every tenth of a second, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Gateway {
    envoy: Envoy,
    directory: Recorder,
    _upstream: Recorder,
}

impl Gateway {
    /// Envoy with key-auth, and a directory that answers this to begin with.
    fn start(first: Answer) -> Self {
        let (upstream, directory) = (Recorder::start().unwrap(), Recorder::start().unwrap());
        directory.answer(first);
        let source = json!({
            "upstream": envoy::cluster_name(directory.address()),
            "path": "/consumers",
            "refresh": 0.1,
            "headers": {"authorization": "Bearer of-the-directory"},
        });
        let key_auth = Filter {
            name: "key-auth".to_owned(),
            module: module("key_auth"),
            configuration: json!({"host": "envoy", "consumers_from": source}).to_string(),
            vm_id: "rotation".to_owned(),
        };
        let listener = |name: &str, filters, upstream: &Recorder| Listener {
            name: name.to_owned(),
            filters,
            upstream: upstream.address(),
            proxy_protocol: false,
        };
        let listeners = [
            listener("gateway", vec![key_auth], &upstream),
            listener("directory", Vec::new(), &directory),
        ];
        let envoy = Envoy::start(&envoy::find().unwrap(), &listeners, 1).unwrap();
        Self {
            envoy,
            directory,
            _upstream: upstream,
        }
    }

    fn ask(&self, key: &str) -> Response {
        let request = format!("GET / HTTP/1.1\r\nHost: gateway.test\r\napikey: {key}\r\n\r\n");
        let address = self.envoy.address("gateway").unwrap();
        wire::exchange(address, "GET", request.as_bytes()).unwrap()
    }

    /// Waits until a key gets this status.
    fn wait_for(&self, key: &str, status: u16) {
        let started = Instant::now();
        while self.ask(key).status != status {
            let log = || self.envoy.log().unwrap();
            assert!(
                started.elapsed() < PATIENCE,
                "{key} never got {status}:\n{}",
                log()
            );
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the directory has been asked twice more by each VM, so that its present answer has been taken: Envoy
    /// has one on its worker thread and one on its main thread.
    fn wait_for_polls(&self) {
        self.wait_for_etags(|etags| etags.len() > 4);
    }

    /// Waits until the ETags that the directory was asked with since are enough.
    fn wait_for_etags(&self, enough: impl Fn(&[Option<String>]) -> bool) {
        let started = Instant::now();
        let mut etags = Vec::new();
        let _before = self.directory.take_seen();
        while !enough(&etags) {
            assert!(
                started.elapsed() < PATIENCE,
                "the directory was asked with {etags:?} alone"
            );
            sleep(Duration::from_millis(20));
            for request in self.directory.take_seen() {
                assert_eq!(request.target, "/consumers");
                assert_eq!(
                    request.headers.get_str("authorization"),
                    Some("Bearer of-the-directory")
                );
                etags.push(request.headers.get_str("if-none-match").map(str::to_owned));
            }
        }
    }
}

fn document(etag: &str, key: &str) -> Answer {
    let consumers = json!({"consumers": [{"id": "1", "credentials": [{"id": "c", "key": key}]}]});
    answer(200, etag, &consumers.to_string())
}

fn answer(status: u16, etag: &str, body: &str) -> Answer {
    let headers: Headers = [("ETag", etag.to_owned())].into_iter().collect();
    let body = body.to_owned().into();
    Answer {
        status,
        headers,
        body,
        chunked: false,
    }
}

#[test]
fn keys_rotate_and_the_last_good_ones_stay() {
    let gateway = Gateway::start(answer(503, "\"none\"", "not yet"));

    let early = gateway.ask("first");
    assert_eq!(
        early.status, 503,
        "nobody is refused before anybody is known"
    );
    assert!(early.headers.get_str("retry-after").is_some());

    gateway.directory.answer(document("\"v1\"", "first"));
    gateway.wait_for("first", 200);
    assert_eq!(gateway.ask("second").status, 401);

    gateway.directory.answer(answer(304, "\"v1\"", ""));
    // The VM on the main thread may have missed that document; the worker's, which let the request pass, has it, and has
    // it still after it was told that it is the newest.
    let known = Some("\"v1\"".to_owned());
    gateway.wait_for_etags(|etags| etags.iter().filter(|etag| **etag == known).count() > 2);
    assert_eq!(gateway.ask("first").status, 200);

    for bad in [
        answer(200, "\"bad\"", "{\"consumers\": [{}]}"),
        answer(200, "\"bad\"", "<html>"),
        answer(500, "\"bad\"", "oops"),
    ] {
        gateway.directory.answer(bad);
        gateway.wait_for_polls();
        assert_eq!(gateway.ask("first").status, 200);
    }
    let log = gateway.envoy.log().unwrap();
    assert!(
        log.contains("document refused: consumers[0]: a consumer needs an id"),
        "{log}"
    );

    gateway.directory.answer(document("\"v2\"", "second"));
    gateway.wait_for("second", 200);
    assert_eq!(gateway.ask("first").status, 401, "a rotated key is no key");
}
