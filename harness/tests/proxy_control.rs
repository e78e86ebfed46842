//! Changing, watching and steering a proxy that serves, through real sockets.

mod wire;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;
use tollgate_harness::catalog::Search;
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::proxy::{Proxy, ReloadError, Source};
use wire::{Answer, Wire, get, request, until};

/// A filter that refuses its configuration unless it begins with `ok`, counts a request in `requests`, and answers
/// nothing itself.
const GUEST: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $every (param i32) (result i32)))
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 65536))
    (global $metric (mut i32) (i32.const 0))
    (global $flushed (mut i32) (i32.const 0))
    (global $queued (mut i64) (i64.const 0))
    (global $text (mut i32) (i32.const 0))
    (global $length (mut i32) (i32.const 0))
    (data (i32.const 16) "requests")
    (data (i32.const 32) "flushed")
    (data (i32.const 48) "x-filter")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32)
        global.get $free global.get $free local.get 0 i32.add global.set $free)
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $define (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 8)))
        (global.set $metric (i32.load (i32.const 8)))
        (drop (call $define (i32.const 0) (i32.const 32) (i32.const 7) (i32.const 8)))
        (global.set $flushed (i32.load (i32.const 8)))
        (drop (call $every (i32.const 3600000)))
        (drop (call $buffer (i32.const 7) (i32.const 0) (local.get 1) (i32.const 8) (i32.const 12)))
        (global.set $text (i32.load (i32.const 8)))
        (global.set $length (i32.load (i32.const 12)))
        (i32.eq (i32.load16_u (global.get $text)) (i32.const 0x6b6f)))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $increment (global.get $metric) (i64.const 1)))
        (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $add (i32.const 2) (i32.const 48) (i32.const 8) (global.get $text) (global.get $length)))
        (i32.const 0))
    (func (export "proxy_on_log") (param i32)
        (global.set $queued (i64.add (global.get $queued) (i64.const 1))))
    (func (export "proxy_on_tick") (param i32)
        (if (i64.gt_s (global.get $queued) (i64.const 0))
            (then (drop (call $increment (global.get $flushed) (global.get $queued)))))
        (global.set $queued (i64.const 0))))"#;

/// A proxy with a directory of files to change, before an upstream.
struct Gateway {
    directory: TempDir,
    source: Source,
    proxy: Proxy,
}

impl Gateway {
    /// `{upstream}` in the text stands for the upstream's address.
    fn start(yaml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("guest.wasm"), GUEST).unwrap();
        fs::write(directory.path().join("tollgate.yaml"), yaml).unwrap();
        let search = Search::from_here(None);
        let mut source = Source::new(directory.path().join("tollgate.yaml"), search);
        let checked = source.load().unwrap_or_else(|error| panic!("{error}"));
        let proxy = Proxy::start(checked.config).unwrap_or_else(|error| panic!("{error}"));
        Self {
            directory,
            source,
            proxy,
        }
    }

    fn reload(&mut self, yaml: &str) -> Result<(), ReloadError> {
        fs::write(self.directory.path().join("tollgate.yaml"), yaml).unwrap();
        self.proxy.reload(self.source.load())
    }

    fn address(&self) -> SocketAddr {
        self.proxy.addresses()[0]
    }

    fn admin(&self, target: &str) -> Answer {
        get(self.proxy.admin_address().unwrap(), target)
    }

    /// The figure of a line of the metrics page.
    fn metric(&self, name: &str) -> f64 {
        let page = self.admin("/metrics");
        let line = page.text().lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{}", page.text()))
            .trim()
            .parse()
            .unwrap()
    }
}

fn with_filter(upstream: SocketAddr, config: &str) -> String {
    format!(
        "{{access_log: false, workers: 2, listeners: [{{address: 127.0.0.1:0}}], admin: {{address: 127.0.0.1:0}},
          routes: [{{cluster: llm, filters: [it]}}], clusters: {{llm: {{endpoints: ['{upstream}']}}}},
          filters: {{it: {{wasm: ./guest.wasm, config: '{config}'}}}}}}"
    )
}

fn upstream() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

const CHAT: &str = r#"{"model": "gpt-4.1", "stream": true, "messages": [{"role": "user", "content": "Is the toll paid?"}]}"#;

#[test]
fn no_request_and_no_stream_is_lost_while_the_configuration_changes_twenty_times() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let mut gateway = Gateway::start(&with_filter(provider.address(), "ok 0"));
    let address = gateway.address();
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for client in 0..4 {
            let (done, sent) = (&done, &sent);
            scope.spawn(move || {
                // Two of them stay on one connection.
                let mut kept = Wire::connect(address);
                while !done.load(Ordering::Relaxed) {
                    let answer = match client {
                        0 => request(
                            address,
                            "POST",
                            "/v1/chat/completions",
                            &["Content-Type: application/json"],
                            CHAT,
                        ),
                        1 => get(address, "/v1/models"),
                        _ => {
                            kept.send("GET /v1/whoami HTTP/1.1\r\nHost: a\r\n\r\n");
                            kept.answer()
                        }
                    };
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    if client == 0 {
                        assert!(
                            answer.text().ends_with("data: [DONE]\n\n"),
                            "{}",
                            answer.text()
                        );
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for flip in 1..=20 {
            let enough = sent.load(Ordering::Relaxed) + 8;
            until(|| sent.load(Ordering::Relaxed) >= enough);
            if flip % 5 == 0 {
                gateway
                    .reload(&with_filter(provider.address(), "refused"))
                    .unwrap_err();
            }
            let config = with_filter(provider.address(), &format!("ok {flip}"));
            gateway.reload(&config).unwrap();
            let answer = get(address, "/v1/models");
            assert_eq!(
                answer.header("x-filter"),
                Some(format!("ok {flip}").as_str())
            );
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(gateway.metric("tollgate_config_generation "), 21.0);
    assert_eq!(gateway.metric("tollgate_config_reloads_total "), 20.0);
    assert_eq!(gateway.metric("tollgate_config_reloads_failed_total "), 4.0);
    assert_eq!(gateway.metric("tollgate_requests_aborted_total "), 0.0);
    // Requests were counted through all of it, by filters that came and went.
    assert_eq!(
        gateway.metric("requests "),
        gateway.metric("tollgate_requests_total{status=\"200\"} ")
    );
}

#[test]
fn a_stream_ends_with_the_filters_it_began_with_and_they_flush_what_they_queued() {
    let (listener, upstream) = upstream();
    let mut gateway = Gateway::start(&with_filter(upstream, "ok old"));
    let mut client = Wire::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    gateway.reload(&with_filter(upstream, "ok new")).unwrap();
    server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().header("x-filter"), Some("ok old"));
    server.send_chunk("late");
    assert_eq!(client.chunk().unwrap(), b"late");
    // The tick of this filter is an hour away; what it queued is written once its last request is over.
    assert_eq!(gateway.metric("flushed "), 0.0);
    server.send_chunk("");
    assert_eq!(client.chunk(), None);
    until(|| gateway.metric("flushed ") == 1.0);
    // The same connection, the new filters.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.head().header("x-filter"), Some("ok new"));
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_whole_and_the_one_before_goes_on() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let good = with_filter(provider.address(), "ok good");
    let mut gateway = Gateway::start(&good);
    let taken = upstream();
    let listening =
        |address| format!("listeners: [{{address: 127.0.0.1:0}}, {{address: '{address}'}}]");
    let two_errors = good
        .replace("cluster: llm", "cluster: lm")
        .replace("./guest", "./ghost");
    for (bad, complaints) in [
        ("{routes: [".to_owned(), vec!["not YAML"]),
        (two_errors, vec!["routes[0].cluster", "filters.it.wasm"]),
        (
            with_filter(provider.address(), "no"),
            vec!["refused its configuration"],
        ),
        (
            good.replace("workers: 2", "workers: 3"),
            vec!["workers: can't change from 2 to 3"],
        ),
        (
            good.replace("{access_log", "{profile: kong, access_log"),
            vec!["profile: can't change"],
        ),
        (
            good.replace("listeners: [{address: 127.0.0.1:0}]", &listening(taken.1)),
            vec!["is in use"],
        ),
    ] {
        let error = gateway.reload(&bad).unwrap_err().to_string();
        for complaint in complaints {
            assert!(error.contains(complaint), "{complaint} not in {error}");
        }
        assert_eq!(
            gateway.metric("tollgate_config_last_reload_successful "),
            0.0
        );
        assert_eq!(gateway.admin("/ready").status(), 200);
        assert_eq!(
            get(gateway.address(), "/v1/models").header("x-filter"),
            Some("ok good")
        );
    }
    gateway.reload(&good).unwrap();
    assert_eq!(
        gateway.metric("tollgate_config_last_reload_successful "),
        1.0
    );
    assert_eq!(gateway.metric("tollgate_config_generation "), 2.0);
}

#[test]
fn listeners_come_and_go_and_the_one_that_stays_keeps_its_connections() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let one = with_filter(provider.address(), "ok");
    let two = one.replace(
        "listeners: [{address: 127.0.0.1:0}]",
        "listeners: [{address: 127.0.0.1:0}, {address: '[::1]:0'}]",
    );
    let mut gateway = Gateway::start(&one);
    let stays = gateway.address();
    let mut kept = Wire::connect(stays);
    gateway.reload(&two).unwrap();
    let added = gateway.proxy.addresses()[1];
    assert_eq!(gateway.address(), stays);
    assert_eq!(get(added, "/v1/models").status(), 200);
    let mut leaving = Wire::connect(added);
    leaving.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(leaving.answer().status(), 200);
    gateway.reload(&one).unwrap();
    // An idle connection to a listener that is gone is ended, and no new one is taken.
    leaving.wait_for_end();
    until(|| std::net::TcpStream::connect(added).is_err());
    kept.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.answer().status(), 200);
}
