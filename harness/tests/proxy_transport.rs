//! The proxy's transport on HTTP/1.1: what it refuses, how long it waits, what it holds, and how it lets go.

mod wire;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use wire::gateway::{Gateway, upstream};
use wire::{Wire, get, until};

const REQUEST: &str = "GET /v1/x HTTP/1.1\r\nHost: gateway\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A client with a request on its way, and the upstream that has it.
fn asked(gateway: &Gateway, listener: &TcpListener) -> (Wire, Wire) {
    let mut client = Wire::connect(gateway.address());
    client.send(REQUEST);
    let mut server = Wire::accept(listener);
    server.head();
    (client, server)
}

// What is refused.

#[test]
fn a_request_that_two_readers_could_understand_in_two_ways_is_a_400_and_the_end_of_the_connection()
{
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "Transfer-Encoding: xchunked, chunked\r\n\r\n0\r\n\r\n",
        "X: a\r\n folded\r\n\r\n",
        "X: a\nY: b\r\n\r\n",
        "Content-Length : 5\r\n\r\nabcde",
    ] {
        let mut client = Wire::connect(gateway.address());
        client.send(format!("POST /v1/x HTTP/1.1\r\nHost: gateway\r\n{lines}"));
        let answer = client.answer();
        let expected = if lines.starts_with("Transfer") {
            501
        } else {
            400
        };
        assert_eq!(
            (answer.status(), answer.header("connection")),
            (expected, Some("close")),
            "{lines:?}"
        );
        assert_eq!(client.rest(), b"");
    }
    assert_nobody_came(&listener);
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"malformed_request\"} 5"));
}

fn assert_nobody_came(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the upstream was asked");
    listener.set_nonblocking(false).unwrap();
}

#[test]
fn a_refused_request_behind_good_ones_waits_until_they_are_answered() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let mut client = Wire::connect(gateway.address());
    client.send(format!(
        "{REQUEST}{REQUEST}GET /v1/bad HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n"
    ));
    for text in ["one", "two"] {
        let mut server = Wire::accept(&listener);
        server.head();
        server.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n{text}"
        ));
        assert_eq!(client.answer().text(), text);
    }
    assert_eq!(client.answer().status(), 400);
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_bad_chunk_ends_the_upload_and_is_a_400() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let mut client = Wire::connect(gateway.address());
    client.send(
        "POST /v1/x HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    let mut server = Wire::accept(&listener);
    server.head();
    assert_eq!(server.chunk().unwrap(), b"abc");
    client.send("zz\r\nabc\r\n");
    // The upload never looks complete.
    assert_eq!(server.rest(), b"");
    assert_eq!(client.answer().status(), 400);
}

#[test]
fn targets_and_headers_over_the_limits_are_told_apart() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(
        upstream,
        "max_uri_bytes: 100, max_headers: 5, max_header_bytes: 1000",
        "",
        "",
    );
    let long = "x".repeat(2000);
    let many = "X: 1\r\n".repeat(5);
    for (request, status) in [
        (format!("GET /v1/{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (
            format!("GET /v1 HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"),
            431,
        ),
        (format!("GET /v1 HTTP/1.1\r\nHost: h\r\n{many}\r\n"), 431),
        (
            "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n".to_owned(),
            405,
        ),
        ("GET / HTTP/1.9\r\nHost: h\r\n\r\n".to_owned(), 505),
    ] {
        let mut client = Wire::connect(gateway.address());
        client.send(&request);
        assert_eq!(client.answer().status(), status, "{request:?}");
    }
    assert_nobody_came(&listener);
}

#[test]
fn a_target_in_absolute_form_names_the_host() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let mut client = Wire::connect(gateway.address());
    client.send("GET http://named.example/v1/x?y HTTP/1.1\r\nHost: other\r\n\r\n");
    let mut server = Wire::accept(&listener);
    let head = server.head();
    assert_eq!(
        (head.first.as_str(), head.header("host")),
        ("GET /v1/x?y HTTP/1.1", Some("named.example"))
    );
}

// Sizes.

#[test]
fn a_request_that_announces_too_large_a_body_is_a_413_that_no_upstream_sees() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "max_request_bytes: 10", "", "");
    let mut client = Wire::connect(gateway.address());
    client.send("POST /v1/x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 11\r\n\r\nabcdefghijk");
    assert_eq!(client.answer().status(), 413);
    assert_nobody_came(&listener);
    let mut client = Wire::connect(gateway.address());
    client.send("POST /v1/x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10\r\n\r\nabcdefghij");
    let mut server = Wire::accept(&listener);
    let head = server.head();
    assert_eq!(server.body(&head), b"abcdefghij");
}

#[test]
fn a_request_that_grows_too_large_is_a_413_and_never_looks_complete_upstream() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "max_request_bytes: 10", "", "");
    let mut client = Wire::connect(gateway.address());
    client.send("POST /v1/x HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    client.send_chunk("12345");
    assert_eq!(server.chunk().unwrap(), b"12345");
    client.send_chunk("678901");
    assert_eq!(client.answer().status(), 413);
    assert_eq!(server.rest(), b"");
}

#[test]
fn an_answer_that_is_too_large_is_a_502_or_breaks_off() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "max_response_bytes: 10", "");
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nabcdefghijk");
    assert_eq!(client.answer().status(), 502);
    let counted = "tollgate_requests_failed_total{reason=\"response_too_large\"} 1";
    until(|| gateway.metric(counted));
    let gateway = Gateway::with(upstream, "", "max_response_bytes: 10", "");
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send(STREAM);
    server.send_chunk("1234567890");
    client.head();
    assert_eq!(client.chunk().unwrap(), b"1234567890");
    server.send_chunk("1");
    assert_eq!(client.rest(), b"");
    until(|| gateway.metric(counted));
}

// Times.

#[test]
fn an_upstream_that_does_not_answer_in_time_is_a_504_and_its_request_is_ended() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "headers_timeout: 0.2", "");
    let (mut client, mut server) = asked(&gateway, &listener);
    let answer = client.answer();
    assert_eq!(
        (answer.status(), answer.json()["error"]["message"].as_str()),
        (504, Some("upstream did not answer in time"))
    );
    server.wait_for_end();
    until(|| {
        gateway.metric("tollgate_requests_failed_total{reason=\"upstream_headers_timeout\"} 1")
    });
}

#[test]
fn an_answer_that_stops_in_the_middle_is_cut() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "idle_timeout: 0.3", "");
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send(STREAM);
    server.send_chunk("first");
    client.head();
    assert_eq!(client.chunk().unwrap(), b"first");
    assert_eq!(client.rest(), b"");
    server.wait_for_end();
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"upstream_idle_timeout\"} 1"));
}

#[test]
fn an_answer_that_takes_longer_than_the_timeout_of_the_whole_is_cut_though_it_moves() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "timeout: 0.4", "");
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send(STREAM);
    let writer = std::thread::spawn(move || {
        // Far more pieces than there is time for.
        for _ in 0..2000 {
            if !server.try_send_chunk(b"x", Duration::from_secs(1)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    });
    client.head();
    let rest = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    assert!(writer.join().unwrap(), "the upstream was never told");
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"timeout\"} 1"));
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_upload_is_a_408() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "idle_timeout: 0.3", "");
    let mut client = Wire::connect(gateway.address());
    client.send("POST /v1/x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 10\r\n\r\nabc");
    let mut server = Wire::accept(&listener);
    server.head();
    assert_eq!(client.answer().status(), 408);
    server.wait_for_end();
}

#[test]
fn headers_that_come_too_slowly_are_a_408_and_silence_is_nothing() {
    let (_listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "header_timeout: 0.3", "", "");
    let mut slow = Wire::connect(gateway.address());
    let mut silent = Wire::connect(gateway.address());
    slow.send("GET /v1/x HTTP/1.1\r\nHost: gate");
    assert_eq!(slow.answer().status(), 408);
    slow.wait_for_end();
    assert_eq!(silent.rest(), b"");
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"client_header_timeout\"} 2"));
}

#[test]
fn a_connection_without_a_request_is_closed_after_a_while() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "keep_alive_timeout: 0.2", "", "");
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send(EMPTY);
    assert_eq!(client.answer().status(), 200);
    assert_eq!(client.rest(), b"");
}

// What is kept and what is held back.

#[test]
fn a_connection_that_the_upstream_closed_meanwhile_costs_no_request() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let mut client = Wire::connect(gateway.address());
    for number in 0..5 {
        client.send(format!(
            "GET /v1/{number} HTTP/1.1\r\nHost: gateway\r\n\r\n"
        ));
        let mut server = Wire::accept(&listener);
        server.head();
        // Closed right behind the answer, without a word.
        server.send(EMPTY);
        drop(server);
        assert_eq!(client.answer().status(), 200, "request {number}");
    }
}

#[test]
fn a_kept_connection_that_ends_instead_of_an_answer_is_tried_once_more_for_a_get_and_not_for_a_post()
 {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let (listener, upstream) = upstream();
        let gateway = Gateway::to(upstream);
        let mut client = Wire::connect(gateway.address());
        let request =
            format!("{method} /v1/x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n");
        client.send(&request);
        let mut server = Wire::accept(&listener);
        server.head();
        server.send(EMPTY);
        assert_eq!(client.answer().status(), 200);
        client.send(&request);
        server.head();
        drop(server);
        if status == 200 {
            let mut server = Wire::accept(&listener);
            server.head();
            server.send(EMPTY);
        }
        assert_eq!(client.answer().status(), status, "{method}");
    }
}

#[test]
fn requests_over_the_connections_wait_and_over_the_places_get_a_503() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "max_connections: 1, max_pending: 1", "");
    let (mut first, mut server) = asked(&gateway, &listener);
    let mut second = Wire::connect(gateway.address());
    let mut third = Wire::connect(gateway.address());
    second.send(REQUEST);
    until(|| gateway.metric("tollgate_requests_open 2"));
    third.send(REQUEST);
    assert_eq!(third.answer().status(), 503);
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"upstream_overloaded\"} 1"));
    server.send(EMPTY);
    assert_eq!(first.answer().status(), 200);
    // On the same connection.
    server.head();
    server.send(EMPTY);
    assert_eq!(second.answer().status(), 200);
    assert_nobody_came(&listener);
}

#[test]
fn an_idle_upstream_connection_is_closed_after_its_time() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "keep_alive_timeout: 0.2", "");
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send(EMPTY);
    assert_eq!(client.answer().status(), 200);
    server.wait_for_end();
}

#[test]
fn a_websocket_on_which_nothing_happens_is_ended() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "idle_timeout: 0.2", "upgrades: [websocket]");
    let mut client = Wire::connect(gateway.address());
    client.send(HANDSHAKE);
    let mut server = Wire::accept(&listener);
    server.head();
    server.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.head().status(), 101);
    client.wait_for_end();
    server.wait_for_end();
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"tunnel_idle_timeout\"} 1"));
}

/// More than the sockets of both connections and the proxy hold together, far less than there is to send.
const HELD: usize = 24 << 20;

#[test]
fn a_slow_client_holds_back_an_upstream_that_has_a_gigabyte() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send(STREAM);
    let writer = std::thread::spawn(move || {
        let (piece, mut sent) = (vec![b'x'; 64 << 10], 0);
        while sent < 1 << 30 && server.try_send_chunk(&piece, Duration::from_millis(500)) {
            sent += piece.len();
        }
        sent
    });
    client.head();
    client.trickle(1024, 20);
    let sent = writer.join().unwrap();
    assert!(
        sent < HELD,
        "the proxy took {sent} bytes of which the client read 20 KiB"
    );
}

#[test]
fn a_slow_upstream_holds_back_a_client_that_has_a_gigabyte() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let mut client = Wire::connect(gateway.address());
    client.send("POST /v1/x HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = Wire::accept(&listener);
    server.head();
    let writer = std::thread::spawn(move || {
        let (piece, mut sent) = (vec![b'x'; 64 << 10], 0);
        while sent < 1 << 30 && client.try_send_chunk(&piece, Duration::from_millis(500)) {
            sent += piece.len();
        }
        sent
    });
    server.trickle(1024, 20);
    let sent = writer.join().unwrap();
    assert!(
        sent < HELD,
        "the proxy took {sent} bytes of which the upstream read 20 KiB"
    );
}

// Expectations and upgrades.

#[test]
fn a_client_is_asked_to_continue_when_its_body_is_wanted_and_not_when_it_is_refused() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "max_request_bytes: 10", "", "");
    let mut client = Wire::connect(gateway.address());
    client.send(
        "POST /v1/x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.head().status(), 100);
    client.send("abc");
    let mut server = Wire::accept(&listener);
    let head = server.head();
    assert_eq!(head.header("expect"), None);
    assert_eq!(server.body(&head), b"abc");
    server.send(EMPTY);
    assert_eq!(client.answer().status(), 200);
    for (target, length, status) in [("/v1/x", 11, 413), ("/nowhere", 3, 404)] {
        let mut client = Wire::connect(gateway.address());
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(client.answer().status(), status);
        client.wait_for_end();
    }
}

const HANDSHAKE: &str = "GET /v1/chat HTTP/1.1\r\nHost: gateway\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_websocket_passes_where_the_route_allows_it() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "", "upgrades: [websocket]");
    let mut client = Wire::connect(gateway.address());
    client.send(HANDSHAKE);
    let mut server = Wire::accept(&listener);
    let head = server.head();
    assert_eq!(
        (head.header("connection"), head.header("upgrade")),
        (Some("upgrade"), Some("websocket"))
    );
    assert_eq!(
        head.header("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n\x01first");
    let head = client.head();
    assert_eq!(
        (
            head.status(),
            head.header("upgrade"),
            head.header("sec-websocket-accept")
        ),
        (101, Some("websocket"), Some("x"))
    );
    assert_eq!(client.bytes(6), b"\x01first");
    // Nothing of it is read as HTTP.
    client.send("\n\0not HTTP\r\n\r\n");
    assert_eq!(server.bytes(14), b"\n\0not HTTP\r\n\r\n");
    until(|| gateway.metric("tollgate_requests_open 1"));
    drop(client);
    server.wait_for_end();
    drop(server);
    until(|| gateway.metric("tollgate_requests_open 0"));
    until(|| gateway.metric("tollgate_requests_total{status=\"101\"} 1"));
}

#[test]
fn an_upgrade_that_the_upstream_declines_is_an_ordinary_answer() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(upstream, "", "", "upgrades: [websocket]");
    let mut client = Wire::connect(gateway.address());
    client.send(HANDSHAKE);
    let mut server = Wire::accept(&listener);
    server.head();
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text()), (403, "no"));
}

#[test]
fn upgrades_are_refused_where_no_route_allows_them_but_an_offer_of_h2c_is_passed_over() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let mut client = Wire::connect(gateway.address());
    client.send(HANDSHAKE);
    assert_eq!(client.answer().status(), 501);
    let mut client = Wire::connect(gateway.address());
    client.send(
        "GET /v1/x HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    let mut server = Wire::accept(&listener);
    let head = server.head();
    assert_eq!(
        (head.header("upgrade"), head.header("http2-settings")),
        (None, None)
    );
    server.send(EMPTY);
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let (mut client, mut server) = asked(&gateway, &listener);
    server.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.answer().status(), 502);
}

#[test]
fn answers_without_a_body_keep_the_connection_in_step() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let (mut client, mut server) = asked(&gateway, &listener);
    for status in ["204 No Content", "304 Not Modified"] {
        server.send(format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\n\r\n"));
        let head = client.head();
        assert_eq!(
            (head.header("etag"), head.header("transfer-encoding")),
            (Some("\"x\""), None)
        );
        client.send(REQUEST);
        server.head();
    }
    server.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.answer().text(), "ok");
}

// The end.

#[test]
fn shutdown_closes_kept_connections_at_once_and_says_so_on_those_in_use() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::patient(upstream, "");
    let (mut idle, mut server) = asked(&gateway, &listener);
    server.send(EMPTY);
    assert_eq!(idle.answer().status(), 200);
    let mut busy = Wire::connect(gateway.address());
    busy.send(REQUEST);
    server.head();
    let address = gateway.address();
    let stopping = std::thread::spawn(move || drop(gateway));
    idle.wait_for_end();
    until(|| std::net::TcpStream::connect(address).is_err());
    server.send(EMPTY);
    let answer = busy.answer();
    assert_eq!(
        (answer.status(), answer.header("connection")),
        (200, Some("close"))
    );
    stopping.join().unwrap();
}

// Configuration.

#[test]
fn options_that_can_not_be_used_are_told_with_their_paths() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("empty.pem"), "nothing\n").unwrap();
    let error = wire::gateway::mistakes(
        directory.path(),
        "listeners:
  - {address: '127.0.0.1:0', tls: {certificate: missing.pem, private_key: empty.pem}, max_headers: 0}
  - {address: '127.0.0.1:0', header_timeout: 0}
routes: [{cluster: a}]
clusters:
  a: {endpoints: ['a:1'], tls: {ca: empty.pem, server_name: 'not a name'}, max_connections: 0, protocol: http3}
",
    );
    for start in [
        "listeners[1].header_timeout: value must be greater than 0",
        "clusters.a.protocol: ",
    ] {
        assert!(
            error.lines().any(|line| line.starts_with(start)),
            "{start}\nnot in\n{error}"
        );
    }
    let error = wire::gateway::mistakes(
        directory.path(),
        "listeners:
  - {address: '127.0.0.1:0', tls: {certificate: missing.pem, private_key: empty.pem}, max_headers: 0}
routes: [{cluster: a}]
clusters:
  a: {endpoints: ['a:1'], tls: {ca: empty.pem, server_name: 'not a name'}, max_connections: 0}
",
    );
    for (start, end) in [
        (
            "listeners[0].tls.certificate: cannot read ",
            "missing.pem: No such file or directory (os error 2)",
        ),
        ("listeners[0].max_headers: must be from 1 to 2147483647", ""),
        (
            "clusters.a.tls.server_name: 'not a name' is neither a host's name nor an IP address",
            "",
        ),
        (
            "clusters.a.tls.ca: ",
            "empty.pem has no section BEGIN CERTIFICATE",
        ),
        (
            "clusters.a.max_connections: must be from 1 to 2147483647",
            "",
        ),
    ] {
        assert!(
            error
                .lines()
                .any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start}...{end}\nnot in\n{error}"
        );
    }
}

#[test]
fn an_upstream_that_does_not_take_connections_is_a_504() {
    // A full backlog: the kernel answers no more connection requests.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let upstream = socket.local_addr().unwrap().as_socket().unwrap();
    let _waiting: Vec<_> = (0..8)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&upstream.into());
            socket
        })
        .collect();
    let gateway = Gateway::with(upstream, "", "connect_timeout: 0.3", "");
    let answer = get(gateway.address(), "/v1/x");
    assert_eq!(answer.status(), 504);
    assert_eq!(
        answer.json()["error"]["message"],
        "upstream connection timed out"
    );
}
