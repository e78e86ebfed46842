//! Changing, watching and steering a proxy that serves, through real sockets.

mod wire;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;
use tollgate_harness::catalog::Search;
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::proxy::{Config, Proxy, ReloadError, Source};
use wire::authority::CertificateAuthority;
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
fn a_reload_takes_up_certificates_and_limits_for_the_connections_that_come() {
    let authority = CertificateAuthority::new();
    let yaml = |limits: &str| {
        let tls = format!("tls: {{certificate: it.pem, private_key: it.key}}{limits}");
        format!(
            "{{access_log: false, workers: 1, listeners: [{{address: 127.0.0.1:0, {tls}}}],
              routes: [{{direct_response: {{status: 200}}}}], clusters: {{}}}}"
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        for (file, to) in authority.issue(name).iter().zip(["it.pem", "it.key"]) {
            fs::copy(file, directory.path().join(to)).unwrap();
        }
    };
    let file = directory.path().join("tollgate.yaml");
    place("old.test");
    fs::write(&file, yaml("")).unwrap();
    let mut source = Source::new(file.clone(), Search::from_here(None));
    let proxy = Proxy::start(source.load().unwrap().config).unwrap();
    let status = |name: &str| {
        let client = authority.client(&["http/1.1"]);
        let head = wire::secure::head(proxy.addresses()[0], name, client);
        head.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(status("old.test").as_deref(), Some("200"));

    place("new.test");
    until(|| source.changed());
    proxy.reload(source.load()).unwrap();
    assert_eq!(status("new.test").as_deref(), Some("200"));

    fs::write(directory.path().join("it.pem"), "no certificate").unwrap();
    let error = proxy.reload(source.load()).unwrap_err().to_string();
    assert!(error.contains("listeners[0].tls.certificate: "), "{error}");
    assert_eq!(status("new.test").as_deref(), Some("200"));

    place("new.test");
    fs::write(&file, yaml(", max_uri_bytes: 4")).unwrap();
    proxy.reload(source.load()).unwrap();
    assert_eq!(status("new.test").as_deref(), Some("414"));
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

/// What a filter leaves in Envoy's filter state, `tollgate.identity`, and a secret that must not be shown.
fn key_auth(upstream: SocketAddr, log: &str) -> String {
    let config = serde_json::json!({
        "consumers": [{"username": "alice", "credentials": [{"key": "alice-key"}]}],
        "key_names": ["apikey"],
    });
    format!(
        "{{access_log: {log}, workers: 1, listeners: [{{address: 127.0.0.1:0}}], admin: {{address: 127.0.0.1:0}},
          routes: [{{prefix: /v1, cluster: llm, filters: [auth]}}], clusters: {{llm: {{endpoints: ['{upstream}']}}}},
          filters: {{auth: {{wasm: key-auth, environment: {{REGION: hush-env}}, config: {config}}}}}}}"
    )
}

/// The lines of the log once there are so many.
fn log_lines(path: &Path, count: usize) -> Vec<Value> {
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    };
    until(|| lines().len() >= count);
    lines()
}

#[test]
fn the_access_log_tells_who_was_served_by_whom_and_how_it_ended_and_no_secret() {
    let (listener, upstream) = upstream();
    let log = "{path: access.log, fields: {consumer: tollgate.identity.username}}";
    let gateway = Gateway::start(&key_auth(upstream, log));
    let path = gateway.directory.path().join("access.log");
    let mut client = Wire::connect(gateway.address());
    client.send("POST /v1/chat?apikey=alice-key HTTP/1.1\r\nHost: a\r\nX-Request-ID: one\r\nContent-Length: 5\r\n\r\nhello");
    let mut server = Wire::accept(&listener);
    let head = server.head();
    server.body(&head);
    server.send("HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\ngoodbye");
    assert_eq!(client.answer().status(), 201);
    assert_eq!(
        request(
            gateway.address(),
            "GET",
            "/v1/chat",
            &["apikey: guessed"],
            ""
        )
        .status(),
        401
    );
    // Broken off by the upstream, then by the client.
    client.send("GET /v1/a HTTP/1.1\r\nHost: a\r\napikey: alice-key\r\n\r\n");
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngood");
    assert_eq!(client.head().status(), 200);
    drop(server);
    client.wait_for_end();
    let mut client = Wire::connect(gateway.address());
    client.send("GET /v1/b HTTP/1.1\r\nHost: a\r\napikey: alice-key\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    log_lines(&path, 3);
    drop(client);
    let lines = log_lines(&path, 4);
    let served = &lines[0];
    assert_eq!(served["method"], "POST");
    assert_eq!(served["path"], "/v1/chat");
    assert_eq!(served["status"], 201);
    assert_eq!(served["request_id"], "one");
    assert_eq!(served["route"], "/v1");
    assert_eq!(served["cluster"], "llm");
    assert_eq!(served["upstream"], upstream.to_string());
    assert_eq!(
        (&served["bytes_in"], &served["bytes_out"]),
        (&5.into(), &7.into())
    );
    assert_eq!(served["protocol"], "HTTP/1.1");
    assert_eq!(served["consumer"], "alice");
    assert_eq!(served["ended"], "complete");
    assert!(served["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(served["latency_ms"].as_f64() >= served["upstream_ms"].as_f64());
    let time = served["time"].as_str().unwrap();
    assert!(
        time.starts_with("20") && time.ends_with('Z') && time.len() == 24,
        "{time}"
    );
    assert_eq!(lines[1]["status"], 401);
    assert_eq!(lines[1].get("consumer"), None);
    assert_eq!(lines[1].get("upstream"), None);
    assert_eq!(lines[2]["ended"], "upstream_aborted");
    assert_eq!(lines[3]["ended"], "client_aborted");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("alice-key") && !text.contains("guessed"),
        "{text}"
    );
}

#[test]
fn a_log_that_was_moved_away_goes_on_under_its_name() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let gateway = Gateway::start(&key_auth(provider.address(), "{path: access.log}"));
    let path = gateway.directory.path().join("access.log");
    let moved = gateway.directory.path().join("access.log.1");
    get(gateway.address(), "/v1/first");
    log_lines(&path, 1);
    fs::rename(&path, &moved).unwrap();
    gateway.proxy.reopen_log();
    until(|| path.exists());
    get(gateway.address(), "/v1/second");
    assert_eq!(log_lines(&path, 1)[0]["path"], "/v1/second");
    assert_eq!(log_lines(&moved, 1).len(), 1);
}

#[test]
fn the_admin_port_shows_the_configuration_in_force_and_no_secret() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let good = key_auth(provider.address(), "false");
    let mut gateway = Gateway::start(&good);
    gateway
        .reload(&good.replace("prefix: /v1", "prefix: /v2"))
        .unwrap();
    gateway.reload("routes: [oh-hush: {").unwrap_err();
    let shown = gateway.admin("/config");
    let config = shown.json();
    assert_eq!(config["generation"], 2);
    assert_eq!(config["config"]["routes"][0]["prefix"], "/v2");
    assert_eq!(config["listening"][0], gateway.address().to_string());
    assert_eq!(
        config["config"]["filters"]["auth"]["config"]["key_names"][0],
        "apikey"
    );
    assert_eq!(
        config["config"]["filters"]["auth"]["config"]["consumers"][0]["username"],
        "alice"
    );
    assert!(
        config["last_error"].as_str().unwrap().contains("not YAML"),
        "{config}"
    );
    for secret in ["alice-key", "hush"] {
        assert!(
            !shown.text().contains(secret),
            "{secret} in {}",
            shown.text()
        );
    }
}

#[test]
fn shared_data_is_shown_by_key_and_size_alone() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let gateway = Gateway::start(&key_auth(provider.address(), "false"));
    gateway.proxy.shared().put("limit/alice", b"secret state");
    let shown = gateway.admin("/shared");
    assert_eq!(
        shown.json()["data"][0],
        serde_json::json!({"key": "limit/alice", "bytes": 12})
    );
    assert_eq!(shown.json()["bytes"], 12);
    assert!(!shown.text().contains("secret"));
}

#[test]
fn the_admin_port_only_answers_get_and_only_those_who_name_this_machine() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let gateway = Gateway::start(&key_auth(provider.address(), "false"));
    let admin = gateway.proxy.admin_address().unwrap();
    for path in ["/", "/ready", "/metrics", "/config", "/shared", "/events"] {
        let answer = request(admin, "POST", path, &[], "");
        assert_eq!(
            (answer.status(), answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{path}"
        );
    }
    assert_eq!(get(admin, "/other").status(), 404);
    let mut wire = Wire::connect(admin);
    wire.send("GET /config HTTP/1.1\r\nHost: rebound.example\r\n\r\n");
    assert_eq!(wire.answer().status(), 403);
}

#[test]
fn the_live_page_stands_alone_and_its_events_tell_what_happens() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let gateway = Gateway::start(&key_auth(
        provider.address(),
        "{fields: {consumer: tollgate.identity.username}}",
    ));
    let page = gateway.admin("/");
    assert!(page.text().contains("new EventSource(\"/events\")"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let found = page.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(outside), "the page asks for {outside}");
    }
    let mut events = Wire::connect(gateway.proxy.admin_address().unwrap());
    events.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        events.head().header("content-type"),
        Some("text/event-stream")
    );
    let mut next = || -> Value {
        let event = String::from_utf8(events.chunk().unwrap()).unwrap();
        let data = event.strip_prefix("event: figures\ndata: ").unwrap();
        serde_json::from_str(data).unwrap()
    };
    let before = next();
    assert_eq!(before["figures"]["state"], "ready");
    assert_eq!(before["figures"]["requests"], 0);
    request(
        gateway.address(),
        "GET",
        "/v1/models?apikey=alice-key",
        &[],
        "",
    );
    let (mut ended, mut figures) = (Vec::new(), Value::Null);
    while ended.is_empty() {
        let mut event = next();
        ended = event["ended"].as_array().unwrap().clone();
        figures = event["figures"].take();
    }
    assert_eq!(ended[0]["path"], "/v1/models");
    assert_eq!(ended[0]["consumer"], "alice");
    assert_eq!(figures["classes"]["2xx"], 1);
    assert_eq!(figures["upstreams"][0]["requests"], 1);
    assert!(figures["callbacks"].as_u64() > before["figures"]["callbacks"].as_u64());
    // Told once.
    assert_eq!(next()["ended"], serde_json::json!([]));
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        eprintln!("SKIPPED: promtool is not installed (Debian: apt-get install prometheus)");
        return;
    };
    let provider = MockLlm::start(Settings::default()).unwrap();
    let gateway = Gateway::start(&key_auth(provider.address(), "false"));
    request(
        gateway.address(),
        "GET",
        "/v1/models",
        &["apikey: alice-key"],
        "",
    );
    let metrics = gateway.admin("/metrics");
    // A filter names its metrics as on every other host, which promtool may not like.
    let own: String = metrics
        .text()
        .split("# HELP ")
        .filter(|family| !family.is_empty() && !family.contains(" Defined by a filter."))
        .map(|family| format!("# HELP {family}"))
        .collect();
    for name in [
        "tollgate_request_duration_seconds_bucket{le=\"0.001\"}",
        "tollgate_upstream_requests_total{cluster=\"llm\"",
        "process_resident_memory_bytes",
    ] {
        assert!(own.contains(name), "{name} not in\n{own}");
    }
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(own.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `tollgate serve` as a process of its own.
struct Serving {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Serving {
    fn start(file: &Path, stdout: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("serve")
            .arg(file)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// Reads what it says up to a line with `part`.
    fn says(&mut self, part: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(
                self.said.read_line(&mut line).unwrap(),
                0,
                "it never said {part}:\n{all}"
            );
            if line.contains(part) {
                return line;
            }
            all.push_str(&line);
        }
    }

    /// The address at the end of a line, behind `http://`.
    fn address(&mut self, part: &str) -> SocketAddr {
        let line = self.says(part);
        let (_, rest) = line.split_once("http://").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_reads_its_files_again_at_a_signal_and_when_one_changes() {
    let (directory, provider) = (
        tempfile::tempdir().unwrap(),
        MockLlm::start(Settings::default()).unwrap(),
    );
    let file = directory.path().join("tollgate.yaml");
    let write = |config: &str| fs::write(&file, with_filter(provider.address(), config)).unwrap();
    fs::write(directory.path().join("guest.wasm"), GUEST).unwrap();
    write("ok first");
    let mut serving = Serving::start(&file, Stdio::null());
    let address = serving.address("listening on");
    let shown = || {
        get(address, "/v1/models")
            .header("x-filter")
            .unwrap()
            .to_owned()
    };
    assert_eq!(shown(), "ok first");
    write("ok changed");
    serving.says("reloaded");
    assert_eq!(shown(), "ok changed");
    // Nothing changed, and asked for all the same.
    serving.signal("-HUP");
    serving.says("reloaded");
    // The filter's own module is watched too; this one answers false.
    fs::write(
        directory.path().join("guest.wasm"),
        GUEST.replace("0x6b6f", "0x6b6e"),
    )
    .unwrap();
    serving.says("refused its configuration");
    assert_eq!(shown(), "ok changed");
    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());
}

#[test]
fn a_stdout_whose_reader_has_gone_stops_nothing() {
    let (directory, provider) = (
        tempfile::tempdir().unwrap(),
        MockLlm::start(Settings::default()).unwrap(),
    );
    let file = directory.path().join("tollgate.yaml");
    fs::write(directory.path().join("guest.wasm"), GUEST).unwrap();
    let yaml =
        with_filter(provider.address(), "ok").replace("access_log: false", "access_log: true");
    fs::write(&file, yaml).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut serving = Serving::start(&file, Stdio::from(writer));
    let address = serving.address("listening on");
    for _ in 0..3 {
        assert_eq!(get(address, "/v1/models").status(), 200);
    }
    serving.says("the access log can't be written");
    assert_eq!(get(address, "/v1/models").status(), 200);
    // The commands that only print.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["meta", "key-auth"])
        .stdout(writer)
        .output()
        .unwrap();
    assert!(
        !String::from_utf8_lossy(&ended.stderr).contains("panicked"),
        "{ended:?}"
    );
    assert!(ended.status.success(), "{ended:?}");
}

/// A proxy with one worker, so that turns are taken in one order.
fn with_routes(routes: &str, clusters: &str) -> String {
    format!(
        "{{access_log: false, workers: 1, listeners: [{{address: 127.0.0.1:0}}], admin: {{address: 127.0.0.1:0}},
          routes: [{routes}], clusters: {{{clusters}}}}}"
    )
}

/// A mock provider by a name that its answers tell.
fn provider(name: &str) -> MockLlm {
    MockLlm::start(Settings {
        name: name.to_owned(),
        ..Settings::default()
    })
    .unwrap()
}

fn cluster(name: &str, provider: &MockLlm) -> String {
    format!("{name}: {{endpoints: ['{}']}}", provider.address())
}

/// Which provider answered.
fn who(answer: &Answer) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["provider"].as_str().unwrap().to_owned()
}

#[test]
fn a_route_takes_requests_by_host_path_method_and_header() {
    let (a, b) = (provider("a"), provider("b"));
    let routes = "{cluster: a},
        {path: /health, direct_response: {status: 200, body: fine}},
        {prefix: /v1, methods: [DELETE], direct_response: {status: 405}},
        {prefix: /v1, headers: [{name: X-Plan, exact: gold}], cluster: b},
        {prefix: /api, cluster: b, prefix_rewrite: /v1, host_rewrite: 'inside:81'},
        {host: '*.b.example', cluster: b}";
    let gateway = Gateway::start(&with_routes(
        routes,
        &format!("{}, {}", cluster("a", &a), cluster("b", &b)),
    ));
    let send =
        |method, target, lines: &[&str]| request(gateway.address(), method, target, lines, "");
    let health = send("GET", "/health?x", &[]);
    assert_eq!((health.status(), health.text()), (200, "fine"));
    assert_eq!(
        send("DELETE", "/v1/whoami", &["X-Plan: gold"]).status(),
        405
    );
    assert_eq!(who(&send("GET", "/v1/whoami", &[])), "a");
    assert_eq!(who(&send("GET", "/v1/whoami", &["X-Plan: gold"])), "b");
    let rewritten = send("GET", "/api/whoami?q=1", &[]);
    assert_eq!(who(&rewritten), "b");
    assert_eq!(
        rewritten.json()["headers"]["host"],
        serde_json::json!(["inside:81"])
    );
    let mut wire = Wire::connect(gateway.address());
    wire.send("GET /v1/whoami HTTP/1.1\r\nHost: c.B.example:80\r\n\r\n");
    assert_eq!(who(&wire.answer()), "b");
}

#[test]
fn what_a_filter_sets_chooses_the_cluster_on_envoy_and_nowhere_else() {
    let (a, b) = (provider("a"), provider("b"));
    for (profile, expected) in [("envoy", "b"), ("kong", "a"), ("spec", "a")] {
        let yaml = with_routes(
            "{cluster: a, filters: [auth]},
             {headers: [{name: X-Consumer-Username, exact: alice}], cluster: b, filters: [auth]}",
            &format!("{}, {}", cluster("a", &a), cluster("b", &b)),
        );
        let yaml = yaml.replacen(
            '{',
            &format!(
                "{{profile: {profile}, filters: {{auth: {{wasm: key-auth, config: {{consumers: [
                   {{username: alice, credentials: [{{key: alice-key}}]}}, {{username: bob, credentials: [{{key: bob-key}}]}}]}}}}}}, "
            ),
            1,
        );
        let gateway = Gateway::start(&yaml);
        let send = |lines: &[&str]| request(gateway.address(), "GET", "/v1/whoami", lines, "");
        assert_eq!(who(&send(&["apikey: alice-key"])), expected, "{profile}");
        assert_eq!(who(&send(&["apikey: bob-key"])), "a", "{profile}");
        if profile == "envoy" {
            // What the client claims is taken off before it could choose.
            let forged = send(&["apikey: bob-key", "X-Consumer-Username: alice"]);
            assert_eq!(who(&forged), "a");
        }
    }
}

#[test]
fn clusters_and_endpoints_get_their_shares() {
    let providers = ["a", "b", "c"].map(provider);
    let [a, b, c] = providers.each_ref().map(MockLlm::address);
    let gateway = Gateway::start(&with_routes(
        "{clusters: [{name: most, weight: 3}, {name: rest}, {name: none, weight: 0}]}",
        &format!(
            "most: {{endpoints: [{{address: '{a}', weight: 4}}, '{b}']}}, rest: {{endpoints: ['{c}']}}, none: {{endpoints: ['{c}']}}"
        ),
    ));
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..80 {
        *counts
            .entry(who(&get(gateway.address(), "/v1/whoami")))
            .or_insert(0) += 1;
    }
    let expected = [("a", 48), ("b", 12), ("c", 20)];
    assert_eq!(
        counts,
        expected
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    );
}

#[test]
fn a_request_that_finds_no_connection_goes_whole_to_the_next_endpoint() {
    // Nothing listens there any more.
    let dead = [upstream().1, upstream().1];
    let (listener, alive) = upstream();
    let gateway = Gateway::start(&with_routes(
        "{prefix: /v1, cluster: some}, {prefix: /none, cluster: none}",
        &format!(
            "some: {{endpoints: ['{}', '{}', '{alive}']}}, none: {{endpoints: ['{}', '{}']}}",
            dead[0], dead[1], dead[0], dead[1]
        ),
    ));
    for number in 0..5 {
        let mut client = Wire::connect(gateway.address());
        client.send("POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send_chunk("one ");
        let mut server = Wire::accept(&listener);
        let head = server.head();
        client.send_chunk(format!("two {number}"));
        client.send_chunk("");
        assert_eq!(server.body(&head), format!("one two {number}").into_bytes());
        server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.answer().status(), 200);
    }
    // Each was found out once, and passed by from then on.
    for dead in dead {
        let name =
            format!("tollgate_upstream_failures_total{{cluster=\"some\",endpoint=\"{dead}\"}} ");
        assert_eq!(gateway.metric(&name), 1.0);
    }
    // Where all are passed by they are tried all the same.
    for _ in 0..2 {
        assert_eq!(get(gateway.address(), "/none").status(), 502);
    }
}

#[test]
fn routes_that_cannot_be_told_apart_or_lead_nowhere_are_refused() {
    let yaml = with_routes(
        "{prefix: /a, methods: [GET, PUT], cluster: a}, {prefix: /a, methods: [PUT, GET], cluster: a},
         {path: /a, prefix: /b, cluster: a, clusters: [{name: a}]}, {prefix: /c},
         {prefix: /d, host: 'h:80', methods: [get], clusters: [{name: a, weight: 0}, {name: x}], prefix_rewrite: v1},
         {prefix: '/e?q', direct_response: {status: 99}, host_rewrite: 'http://a'}",
        "a: {endpoints: [{address: '127.0.0.1:1', weight: 0}]}",
    );
    let error = Config::read(&yaml, Path::new("."), &Search::from_here(None))
        .unwrap_err()
        .to_string();
    for complaint in [
        "routes[1].prefix: another route has /a already: merge the two",
        "routes[2].prefix: path is given too: keep one of the two",
        "routes[2].clusters: cluster is given too: keep one of the two",
        "routes[3].cluster: must name where requests go; or give clusters, or a direct_response",
        "routes[4].host: 'h:80' is no host: write api.example.com or *.example.com, without a port",
        "routes[4].methods[0]: 'get' is no method: write it as GET",
        "routes[4].clusters[1].name: no cluster named 'x': one of a, or describe it under clusters",
        "routes[4].prefix_rewrite: must begin with /",
        "routes[5].prefix: has no query: a route is chosen by the path alone",
        "routes[5].direct_response.status: must be from 200 to 599",
        "routes[5].host_rewrite: 'http://a' is no host: write api.example.com or api.example.com:8080",
        "clusters.a.endpoints: at least one must have a weight above 0",
    ] {
        assert!(
            error.lines().any(|line| line == complaint),
            "{complaint} not in\n{error}"
        );
    }
    assert_eq!(error.lines().count(), 12, "{error}");
}
