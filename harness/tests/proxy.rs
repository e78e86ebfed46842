//! The proxy through real sockets, client and upstream both in the test's hand.

mod wire;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_harness::catalog::Search;
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::proxy::{Config, ConfigError, Proxy, StartError};
use wire::{Wire, get, post, request};

/// An upstream that does what the test tells it.
fn upstream() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn read(yaml: &str) -> Result<Config, ConfigError> {
    Config::read(yaml, Path::new("."), &Search::from_here(None)).map(|checked| checked.config)
}

/// A proxy without filters in front of `upstream`.
fn plain(upstream: SocketAddr) -> Config {
    read(&format!(
        "{{access_log: false, workers: 1, listeners: [{{address: 127.0.0.1:0}}], admin: {{address: 127.0.0.1:0}},
          routes: [{{prefix: /v1, cluster: llm}}], clusters: {{llm: {{endpoints: ['{upstream}']}}}}}}"
    ))
    .unwrap()
}

fn start(upstream: SocketAddr) -> (Proxy, SocketAddr) {
    let proxy = Proxy::start(plain(upstream)).unwrap();
    let address = proxy.addresses()[0];
    (proxy, address)
}

#[test]
fn each_piece_of_a_stream_reaches_the_client_before_the_next_is_sent() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("GET /v1/stream HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let head = client.head();
    assert_eq!(
        (head.status(), head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    for piece in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        server.send_chunk(piece);
        assert_eq!(client.chunk().unwrap(), piece.as_bytes());
    }
    server.send_chunk("");
    assert_eq!(client.chunk(), None);
}

#[test]
fn each_piece_of_an_upload_reaches_the_upstream_before_the_next_is_sent() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("POST /v1/files HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = Wire::accept(&listener);
    let head = server.head();
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    for piece in ["one", "two", "three"] {
        client.send_chunk(piece);
        assert_eq!(server.chunk().unwrap(), piece.as_bytes());
    }
    client.send_chunk("");
    assert_eq!(server.chunk(), None);
    server.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text()), (201, "ok"));
}

#[test]
fn the_upstream_sees_target_host_and_headers_as_the_client_wrote_them() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send(
        "DELETE /v1/a%2Fb/../c?q=%20x&q HTTP/1.1\r\nHost: gateway:80\r\nX-Forwarded-For: 192.0.2.1\r\n\
         X-Request-ID: mine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Kept: a\r\nX-Kept: b\r\n\r\n",
    );
    let mut server = Wire::accept(&listener);
    let head = server.head();
    assert_eq!(head.first, "DELETE /v1/a%2Fb/../c?q=%20x&q HTTP/1.1");
    assert_eq!(head.header("host"), Some("gateway:80"));
    assert_eq!(head.header("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    assert_eq!(head.header("x-request-id"), Some("mine"));
    assert_eq!(head.header("x-hop"), None);
    let kept: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| name == "x-kept")
        .map(|(_, value)| value)
        .collect();
    assert_eq!(kept, ["a", "b"]);
    server.send("HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=5\r\n\r\n");
    let answer = client.head();
    assert_eq!((answer.status(), answer.header("keep-alive")), (204, None));
}

#[test]
fn trailers_pass_in_both_directions() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send(
        "POST /v1/files HTTP/1.1\r\nHost: gateway\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let mut server = Wire::accept(&listener);
    server.head();
    assert_eq!(server.chunk().unwrap(), b"abc");
    assert_eq!(server.trailers(), [("x-sum".to_owned(), "1".to_owned())]);
    server.send(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 2\r\n\r\n",
    );
    client.head();
    assert_eq!(client.chunk().unwrap(), b"abc");
    assert_eq!(client.trailers(), [("x-sum".to_owned(), "2".to_owned())]);
}

#[test]
fn a_client_that_hangs_up_ends_the_upstream_request() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("GET /v1/stream HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.send_chunk("first");
    client.head();
    drop(client);
    server.wait_for_end();
}

#[test]
fn a_client_that_hangs_up_before_the_answer_ends_the_upstream_request() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("GET /v1/slow HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    drop(client);
    server.wait_for_end();
}

#[test]
fn an_answer_that_breaks_off_never_looks_complete() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("GET /v1/stream HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.send_chunk("first");
    client.head();
    assert_eq!(client.chunk().unwrap(), b"first");
    drop(server);
    // The end would be a chunk of size 0.
    assert_eq!(client.rest(), b"");
}

#[test]
fn an_upstream_that_refuses_the_connection_is_a_502_and_the_next_request_works() {
    let (listener, upstream) = upstream();
    drop(listener);
    let (_proxy, address) = start(upstream);
    let answer = get(address, "/v1/models");
    assert_eq!(answer.status(), 502);
    assert_eq!(
        answer.json()["error"]["message"],
        "upstream connection refused"
    );
    let listener = TcpListener::bind(upstream).unwrap();
    let mut client = Wire::connect(address);
    client.send("GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn an_upstream_that_speaks_no_http_is_a_502() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status(), 502);
    assert_eq!(
        answer.json()["error"]["message"],
        "upstream answered with something that is no HTTP"
    );
}

#[test]
fn a_path_without_a_route_is_a_404_and_prefixes_end_at_slashes() {
    let (_listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    for target in ["/", "/v10/models", "/V1"] {
        assert_eq!(get(address, target).status(), 404, "{target}");
    }
}

#[test]
fn a_request_that_is_no_http_gets_a_400() {
    let (_listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("\x16\x03\x01 this is no HTTP\r\n\r\n");
    assert_eq!(client.head().status(), 400);
    client.wait_for_end();
    let mut client = Wire::connect(address);
    client.send("GET /v1/models HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status(), 400);
}

#[test]
fn head_gets_the_headers_of_the_answer_and_the_connection_lives_on() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    let mut server = None;
    for _ in 0..2 {
        client.send("HEAD /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n");
        let server = server.get_or_insert_with(|| Wire::accept(&listener));
        assert_eq!(server.head().first, "HEAD /v1/models HTTP/1.1");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
        let head = client.head();
        assert_eq!(
            (head.status(), head.header("content-length")),
            (200, Some("1234"))
        );
    }
}

#[test]
fn head_to_an_upstream_that_is_gone_gets_headers_only() {
    let (listener, upstream) = upstream();
    drop(listener);
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    for _ in 0..2 {
        client.send("HEAD /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n");
        assert_eq!(client.head().status(), 502);
    }
}

#[test]
fn one_connection_serves_many_requests_over_one_upstream_connection() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    let mut server = None;
    for number in 0..5 {
        client.send(format!(
            "POST /v1/{number} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 3\r\n\r\nabc"
        ));
        let server = server.get_or_insert_with(|| Wire::accept(&listener));
        let head = server.head();
        assert_eq!(head.first, format!("POST /v1/{number} HTTP/1.1"));
        assert_eq!(server.body(&head), b"abc");
        server.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"
        ));
        assert_eq!(client.answer().text(), number.to_string());
    }
}

#[test]
fn a_large_body_passes_unchanged_in_both_directions() {
    let body: Vec<u8> = (0..20_000_000_u32)
        .map(|index| (index % 251) as u8)
        .collect();
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let sent = body.clone();
    let server = std::thread::spawn(move || {
        let mut server = Wire::accept(&listener);
        let head = server.head();
        let body = server.body(&head);
        server.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        server.send(&body);
        server
    });
    let mut client = Wire::connect(address);
    client.send(format!(
        "POST /v1/files HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n",
        sent.len()
    ));
    client.send(&sent);
    let answer = client.answer();
    assert_eq!(answer.status(), 200);
    assert!(answer.body == body);
    drop(server.join().unwrap());
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    let (listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("GET /v1/stream HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    // Far more than the sockets of both connections buffer.
    let (limit, mut sent) = (256 << 20, 0);
    let piece = vec![b'x'; 64 << 10];
    while sent < limit && server.try_send_chunk(&piece, Duration::from_millis(300)) {
        sent += piece.len();
    }
    assert!(sent < limit, "the proxy took {sent} bytes that nobody read");
}

#[test]
fn an_answer_that_comes_before_the_upload_is_done_reaches_the_client() {
    let (_listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    let body = vec![b'x'; 4 << 20];
    client.send(format!(
        "POST /nowhere HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    assert_eq!(client.answer().status(), 404);
}

#[test]
fn shutdown_lets_open_requests_finish_and_takes_no_new_ones() {
    let (listener, upstream) = upstream();
    let (proxy, address) = start(upstream);
    let mut client = Wire::connect(address);
    client.send("GET /v1/stream HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.send_chunk("first");
    client.head();
    assert_eq!(client.chunk().unwrap(), b"first");
    let stopping = std::thread::spawn(move || proxy.shutdown());
    wire::until(|| std::net::TcpStream::connect(address).is_err());
    server.send_chunk("last");
    server.send_chunk("");
    assert_eq!(client.chunk().unwrap(), b"last");
    assert_eq!(client.chunk(), None);
    stopping.join().unwrap();
    client.wait_for_end();
}

#[test]
fn shutdown_does_not_wait_longer_than_configured() {
    let (listener, upstream) = upstream();
    let config = read(&format!(
        "{{access_log: false, shutdown_timeout: 0.2, listeners: [{{address: 127.0.0.1:0}}],
          routes: [{{cluster: llm}}], clusters: {{llm: {{endpoints: ['{upstream}']}}}}}}"
    ))
    .unwrap();
    let proxy = Proxy::start(config).unwrap();
    let mut client = Wire::connect(proxy.addresses()[0]);
    client.send("GET / HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    let start = Instant::now();
    proxy.shutdown();
    assert!(start.elapsed() < Duration::from_secs(10));
    client.wait_for_end();
}

#[test]
fn requests_take_turns_at_a_clusters_endpoints_and_go_by_the_longest_prefix() {
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        MockLlm::start(Settings {
            name: name.to_owned(),
            ..Settings::default()
        })
        .unwrap()
    });
    let config = read(&format!(
        "{{access_log: false, workers: 1, listeners: [{{address: 127.0.0.1:0}}],
          routes: [{{prefix: /, cluster: two}}, {{prefix: /v1/models, cluster: one}}],
          clusters: {{two: {{endpoints: ['{}', '{}']}}, one: {{endpoints: ['{}']}}}}}}",
        a.address(),
        b.address(),
        c.address()
    ))
    .unwrap();
    let proxy = Proxy::start(config).unwrap();
    let address = proxy.addresses()[0];
    let provider = || {
        get(address, "/health").json()["provider"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let turns = [provider(), provider(), provider(), provider()];
    assert_eq!((&turns[0], &turns[1]), (&turns[2], &turns[3]));
    assert_ne!(turns[0], turns[1]);
    assert_eq!(
        get(address, "/v1/models").json()["data"][0]["owned_by"],
        "c"
    );
}

#[test]
fn a_streamed_chat_passes_the_proxy() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let (_proxy, address) = start(provider.address());
    let question = json!({"model": "gpt-4.1", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let direct = post(provider.address(), "/v1/chat/completions", &question);
    let through = post(address, "/v1/chat/completions", &question);
    assert_eq!(
        through.header("content-type"),
        direct.header("content-type")
    );
    assert_eq!(
        through.text().matches("data: ").count(),
        direct.text().matches("data: ").count()
    );
    assert!(through.text().ends_with("data: [DONE]\n\n"));
}

#[test]
fn the_admin_port_tells_readiness_and_figures() {
    let (listener, upstream) = upstream();
    drop(listener);
    let (proxy, address) = start(upstream);
    let admin = proxy.admin_address().unwrap();
    let ready = get(admin, "/ready");
    assert_eq!((ready.status(), ready.text()), (200, "ready\n"));
    get(address, "/v1/models");
    get(address, "/nowhere");
    get(address, "/nowhere");
    let metrics = get(admin, "/metrics");
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for line in [
        "tollgate_requests_total{status=\"404\"} 2",
        "tollgate_requests_total{status=\"502\"} 1",
        "tollgate_upstream_unreachable_total 1",
        "tollgate_requests_open 0",
        "tollgate_workers 1",
    ] {
        assert!(
            metrics.text().lines().any(|present| present == line),
            "{line} not in\n{}",
            metrics.text()
        );
    }
    assert_eq!(get(admin, "/nowhere").status(), 404);
    assert_eq!(request(admin, "POST", "/ready", &[], "").status(), 405);
}

#[test]
fn a_port_in_use_is_named_and_nothing_stays_behind() {
    let (_listener, upstream) = upstream();
    let (_proxy, address) = start(upstream);
    let taken = read(&format!(
        "{{listeners: [{{address: 127.0.0.1:0}}, {{address: '{address}'}}], routes: [{{cluster: llm}}],
          clusters: {{llm: {{endpoints: ['{upstream}']}}}}}}"
    ))
    .unwrap();
    let error = Proxy::start(taken).unwrap_err();
    assert!(matches!(error, StartError::Bind(_)));
    assert!(
        error
            .to_string()
            .contains(&format!("port {} is in use", address.port())),
        "{error}"
    );
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once() {
    let yaml = "
profile: nginx
workers: -1
listeners:
  - address: 127.0.0.1
  - adress: 127.0.0.1:8080
routes:
  - {prefix: /, cluster: llm, filters: auth}
clusters:
  llm: {endpoints: ['http://127.0.0.1:9001']}
colour: red
";
    let error = read(yaml).unwrap_err().to_string();
    let lines: Vec<_> = error
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    for path in [
        "colour",
        "profile",
        "workers",
        "listeners[0].address",
        "listeners[1].adress",
        "listeners[1].address",
        "routes[0].filters",
        "clusters.llm.endpoints[0]",
    ] {
        assert!(lines.contains(&path), "{path} not in\n{error}");
    }
}

#[test]
fn names_that_lead_nowhere_are_told_at_once_with_what_there_is() {
    let yaml = "
admin: {address: 127.0.0.1:8080}
listeners:
  - address: 127.0.0.1:8080
routes:
  - {prefix: v1, cluster: lm, filters: [auth, log]}
  - {prefix: v1, cluster: llm}
clusters:
  llm: {endpoints: []}
filters:
  auth: {wasm: no-such-filter}
  other: {wasm: ./missing.wasm}
";
    let error = read(yaml).unwrap_err().to_string();
    for line in [
        "listeners[0].address: 127.0.0.1:8080 is taken by another listener or by admin: choose another port",
        "clusters.llm.endpoints: must name at least one host:port",
        "routes[0].prefix: must begin with /",
        "routes[0].cluster: no cluster named 'lm': one of llm, or describe it under clusters",
        "routes[0].filters[1]: no filter named 'log': one of auth, other, or describe it under filters",
        "routes[1].prefix: another route has v1 already: merge the two",
        "filters.auth.wasm: no filter named 'no-such-filter': one of key-auth, token-rate-limit, header-transform, or the path of a .wasm file",
    ] {
        assert!(
            error.lines().any(|present| present == line),
            "{line}\nnot in\n{error}"
        );
    }
}

#[test]
fn a_module_that_is_not_built_is_told_with_the_command_that_builds_it() {
    let directory = tempfile::tempdir().unwrap();
    let search = Search::from_here(Some(directory.path().to_owned()));
    let yaml = "
listeners: [{address: 127.0.0.1:0}]
routes: [{cluster: llm, filters: [auth]}]
clusters: {llm: {endpoints: ['127.0.0.1:1']}}
filters: {auth: {wasm: key-auth}}
";
    let error = Config::read(yaml, directory.path(), &search)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("filters.auth.wasm: no tollgate_key_auth.wasm in "),
        "{error}"
    );
    assert!(
        error.contains(directory.path().to_str().unwrap()) && error.contains("`just wasm`"),
        "{error}"
    );
}
