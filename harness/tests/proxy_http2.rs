//! HTTP/2 on both sides of the proxy, with and without TLS.

mod wire;

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response, StatusCode};
use wire::authority::CertificateAuthority;
use wire::frames::{self, Framed, block, frame};
use wire::gateway::{Gateway, upstream};
use wire::http2::{Client, Upstream, request, soon, whole};
use wire::until;
use wire::{Wire, get};

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn ok() -> Response<()> {
    Response::new(())
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    [(name.parse().unwrap(), value.parse().unwrap())]
        .into_iter()
        .collect()
}

/// Does what blocks while the rest goes on.
async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    soon(tokio::task::spawn_blocking(what)).await.unwrap()
}

#[tokio::test]
async fn an_http2_client_and_an_http1_upstream_see_the_same_request() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let server = std::thread::spawn(move || {
        let mut server = Wire::accept(&listener);
        let head = server.head();
        let chunk = server.chunk();
        let trailers = server.trailers();
        server.send(
            "HTTP/1.1 201 Created\r\nKeep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTrailer: x-sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n",
        );
        (head, chunk, trailers)
    });
    let client = Client::connect(gateway.address()).await;
    let mut asked = request("POST", "/v1/a%2Fb?q=%20");
    let headers = asked.headers_mut();
    headers.append("cookie", "a=1".parse().unwrap());
    headers.append("cookie", "b=2".parse().unwrap());
    headers.insert("te", "trailers".parse().unwrap());
    headers.insert("trailer", "x-sum".parse().unwrap());
    let (answer, mut body) = client.send.clone().send_request(asked, false).unwrap();
    body.send_data("abc".into(), false).unwrap();
    body.send_trailers(trailers("x-sum", "1")).unwrap();
    let (head, body) = soon(answer).await.unwrap().into_parts();
    let answer = whole(head, body).await.unwrap();
    assert_eq!(
        (answer.head.status, answer.body),
        (StatusCode::CREATED, b"ok".to_vec())
    );
    assert_eq!(answer.trailers, Some(trailers("x-sum", "2")));
    for name in ["keep-alive", "connection", "x-hop", "transfer-encoding"] {
        assert_eq!(answer.head.headers.get(name), None, "{name}");
    }
    let (head, chunk, trailers) = server.join().unwrap();
    assert_eq!(head.first, "POST /v1/a%2Fb?q=%20 HTTP/1.1");
    for (name, line) in [
        ("host", "gateway"),
        ("cookie", "a=1; b=2"),
        ("te", "trailers"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(head.header(name), Some(line), "{name}");
    }
    assert_eq!(chunk.unwrap(), b"abc");
    assert_eq!(trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn an_http1_client_and_an_http2_upstream_see_the_same_request() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let address = gateway.address();
    let client = std::thread::spawn(move || {
        let mut client = Wire::connect(address);
        client.send(
            "POST /v1/x?y HTTP/1.1\r\nHost: gateway:81\r\nTE: trailers\r\nConnection: TE, X-Hop\r\nX-Hop: 1\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
        );
        let head = client.head();
        (head, client.chunk(), client.trailers())
    });
    let (asked, mut answer) = upstream.asked().await;
    let (head, body) = asked.into_parts();
    assert_eq!(head.uri.to_string(), "http://gateway:81/v1/x?y");
    for name in ["host", "connection", "x-hop", "transfer-encoding"] {
        assert_eq!(head.headers.get(name), None, "{name}");
    }
    assert_eq!(head.headers.get("te").unwrap(), "trailers");
    let asked = whole((), body).await.unwrap();
    assert_eq!(
        (asked.body, asked.trailers),
        (b"abc".to_vec(), Some(trailers("x-sum", "1")))
    );
    let mut said = ok();
    said.headers_mut()
        .insert("trailer", "x-sum".parse().unwrap());
    let mut body = answer.send_response(said, false).unwrap();
    body.send_data("ok".into(), false).unwrap();
    body.send_trailers(trailers("x-sum", "2")).unwrap();
    let (head, chunk, trailers) = blocking(|| client.join().unwrap()).await;
    assert_eq!((head.status(), chunk.unwrap()), (200, b"ok".to_vec()));
    assert_eq!(trailers, [("x-sum".to_owned(), "2".to_owned())]);
}

#[tokio::test]
async fn trailers_without_a_body_and_without_an_announcement_pass_as_grpc_needs_them() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let client = Client::connect(gateway.address()).await;
    let answer = client.get("/v1/x");
    let serve = async {
        let (_, mut answer) = upstream.asked().await;
        let mut body = answer.send_response(ok(), false).unwrap();
        body.send_trailers(trailers("grpc-status", "0")).unwrap();
    };
    let (answer, ()) = tokio::join!(answer, serve);
    assert_eq!(answer.unwrap().trailers, Some(trailers("grpc-status", "0")));
}

#[tokio::test]
async fn many_requests_share_one_connection_on_both_sides() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let client = Client::connect(gateway.address()).await;
    let answers = futures_util::future::join_all((0..50).map(|_| client.get("/v1/x")));
    let serve = async {
        // Answered only when all are there.
        let mut waiting = Vec::new();
        for _ in 0..50 {
            waiting.push(upstream.asked().await.1);
        }
        for mut answer in waiting {
            answer.send_response(ok(), true).unwrap();
        }
    };
    let (answers, ()) = tokio::join!(answers, serve);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().head.status() == 200)
    );
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn streams_over_the_limit_of_a_connection_get_another_connection() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(
        upstream.address,
        "",
        "protocol: http2, max_streams: 10, max_connections: 3",
        "",
    );
    let client = Client::connect(gateway.address()).await;
    let answers = futures_util::future::join_all((0..40).map(|_| client.get("/v1/x")));
    let serve = async {
        let mut waiting = Vec::new();
        for _ in 0..30 {
            waiting.push(upstream.asked().await.1);
        }
        // The others wait.
        for mut answer in waiting {
            answer.send_response(ok(), true).unwrap();
        }
        for _ in 0..10 {
            upstream.asked().await.1.send_response(ok(), true).unwrap();
        }
    };
    let (answers, ()) = tokio::join!(answers, serve);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().head.status() == 200)
    );
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_reset_upstream_and_the_others_live() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let client = Client::connect(gateway.address()).await;
    let (_, mut given_up) = client
        .send
        .clone()
        .send_request(request("GET", "/v1/given-up"), false)
        .unwrap();
    let (_, mut waiting) = upstream.asked().await;
    let (read, mut broken) = client
        .send
        .clone()
        .send_request(request("POST", "/v1/broken"), false)
        .unwrap();
    let (_, mut begun) = upstream.asked().await;
    let mut begun = begun.send_response(ok(), false).unwrap();
    begun.send_data("first".into(), false).unwrap();
    soon(read).await.unwrap();
    given_up.send_reset(Reason::CANCEL);
    broken.send_reset(Reason::CANCEL);
    for reset in [
        soon(std::future::poll_fn(|context| waiting.poll_reset(context))).await,
        soon(std::future::poll_fn(|context| begun.poll_reset(context))).await,
    ] {
        reset.unwrap();
    }
    let (answer, ()) = tokio::join!(client.get("/v1/x"), async {
        upstream.asked().await.1.send_response(ok(), true).unwrap();
    });
    assert_eq!(answer.unwrap().head.status(), 200);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_stream_that_the_upstream_resets_is_a_502_or_a_reset_stream_and_the_others_live() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let client = Client::connect(gateway.address()).await;
    let (answer, ()) = tokio::join!(client.get("/v1/x"), async {
        upstream.asked().await.1.send_reset(Reason::INTERNAL_ERROR);
    });
    assert_eq!(answer.unwrap().head.status(), 502);
    let (answer, ()) = tokio::join!(client.get("/v1/x"), async {
        let mut body = upstream.asked().await.1.send_response(ok(), false).unwrap();
        body.send_data("first".into(), false).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        body.send_reset(Reason::INTERNAL_ERROR);
    });
    assert!(answer.unwrap_err().is_reset());
    let (answer, ()) = tokio::join!(client.get("/v1/x"), async {
        upstream.asked().await.1.send_response(ok(), true).unwrap();
    });
    assert_eq!(answer.unwrap().head.status(), 200);
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"upstream_reset\"} 1"));
    until(|| gateway.metric("tollgate_requests_failed_total{reason=\"upstream_cut_off\"} 1"));
}

#[tokio::test]
async fn a_get_that_the_upstream_refused_unprocessed_is_sent_again() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let client = Client::connect(gateway.address()).await;
    for refuse in [false, true] {
        let (answer, ()) = tokio::join!(client.get("/v1/x"), async {
            if refuse {
                upstream.asked().await.1.send_reset(Reason::REFUSED_STREAM);
            }
            upstream.asked().await.1.send_response(ok(), true).unwrap();
        });
        assert_eq!(answer.unwrap().head.status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_gives_no_window_holds_the_upstream_back() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let client = Client::connect(gateway.address()).await;
    let (answer, _) = client
        .send
        .clone()
        .send_request(request("GET", "/v1/x"), true)
        .unwrap();
    let (_, mut respond) = upstream.asked().await;
    let mut body = respond.send_response(ok(), false).unwrap();
    let answer = soon(answer).await.unwrap();
    let sent = sent_before_held(&mut body).await;
    assert!(sent < HELD, "the proxy took {sent} bytes that nobody read");
    drop(answer);
}

#[tokio::test]
async fn an_upstream_that_gives_no_window_holds_the_client_back() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::with(upstream.address, "", "protocol: http2", "");
    let client = Client::connect(gateway.address()).await;
    let (_answer, mut body) = client
        .send
        .clone()
        .send_request(request("POST", "/v1/x"), false)
        .unwrap();
    let asked = upstream.asked().await;
    let sent = sent_before_held(&mut body).await;
    assert!(sent < HELD, "the proxy took {sent} bytes that nobody read");
    drop(asked);
}

/// More than the windows of both connections and the proxy hold.
const HELD: usize = 8 << 20;

/// How much of a gigabyte can be sent before there is no window for half a second.
async fn sent_before_held(body: &mut h2::SendStream<Bytes>) -> usize {
    let (piece, mut sent) = (Bytes::from(vec![b'x'; 16 << 10]), 0);
    while sent < 1 << 30 {
        body.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|context| body.poll_capacity(context));
        match tokio::time::timeout(Duration::from_millis(500), room).await {
            Ok(room) => {
                let piece = piece.slice(..room.unwrap().unwrap().min(piece.len()));
                sent += piece.len();
                body.send_data(piece, false).unwrap();
            }
            Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn shutdown_says_goodbye_and_lets_streams_finish() {
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::patient(upstream.address, "protocol: http2");
    let address = gateway.address();
    let client = Client::connect(address).await;
    let (answer, _) = client
        .send
        .clone()
        .send_request(request("GET", "/v1/x"), true)
        .unwrap();
    let (_, mut respond) = upstream.asked().await;
    let mut body = respond.send_response(ok(), false).unwrap();
    let answer = soon(answer).await.unwrap();
    let stopping = tokio::task::spawn_blocking(move || drop(gateway));
    soon(async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    body.send_data("last".into(), true).unwrap();
    assert_eq!(whole((), answer.into_body()).await.unwrap().body, b"last");
    soon(stopping).await.unwrap();
    // The connection ended by GOAWAY with NO_ERROR, not by a reset.
    soon(client.connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_client_is_told_goodbye() {
    let upstream = Upstream::start(None).await;
    let gateway = Gateway::with(
        upstream.address,
        "keep_alive_timeout: 0.2",
        "protocol: http2",
        "",
    );
    let client = Client::connect(gateway.address()).await;
    soon(client.connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn head_and_expect_pass_on_http2() {
    let (listener, address) = upstream();
    let gateway = Gateway::to(address);
    let server = std::thread::spawn(move || {
        let mut server = Wire::accept(&listener);
        let head = server.head();
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
        head
    });
    let client = Client::connect(gateway.address()).await;
    let mut asked = request("HEAD", "/v1/x");
    asked
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    let (answer, _) = client.send.clone().send_request(asked, true).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.headers().get("content-length").unwrap(), "1234");
    assert!(answer.body().is_end_stream());
    assert_eq!(server.join().unwrap().header("expect"), None);
}

// TLS.

const IDENTITY: &str = "tls: {certificate: localhost.pem, private_key: localhost.key}";

#[tokio::test]
async fn clients_settle_on_http2_or_http1_by_alpn() {
    let authority = CertificateAuthority::new();
    authority.issue("localhost");
    let mut upstream = Upstream::start(None).await;
    let gateway = Gateway::at(
        &upstream.address.to_string(),
        authority.path(),
        IDENTITY,
        "protocol: http2",
        "",
    );
    let client = Client::secure(
        gateway.address(),
        "localhost",
        authority.client(&["h2", "http/1.1"]),
    )
    .await;
    let (answer, asked) = tokio::join!(client.get("/v1/x"), async {
        let (asked, mut answer) = upstream.asked().await;
        answer.send_response(ok(), true).unwrap();
        asked
    });
    assert_eq!(answer.unwrap().head.status(), 200);
    assert_eq!(asked.headers().get("x-forwarded-proto").unwrap(), "https");

    let address = gateway.address();
    for protocols in [&["http/1.1"][..], &[]] {
        let config = authority.client(protocols);
        let client =
            tokio::task::spawn_blocking(move || wire::secure::head(address, "localhost", config));
        upstream.asked().await.1.send_response(ok(), true).unwrap();
        assert!(
            soon(client)
                .await
                .unwrap()
                .starts_with("HTTP/1.1 200 OK\r\n")
        );
    }
}

#[tokio::test]
async fn upstreams_are_reached_by_tls_and_settle_on_a_protocol() {
    let authority = CertificateAuthority::new();
    for (protocol, offered) in [("auto", &["h2", "http/1.1"][..]), ("http2", &["h2"])] {
        let mut upstream = Upstream::start(Some(authority.server("localhost", offered))).await;
        let gateway = Gateway::at(
            &format!("localhost:{}", upstream.address.port()),
            authority.path(),
            "",
            &format!("protocol: {protocol}, tls: {{ca: ca.pem}}"),
            "",
        );
        let client = Client::connect(gateway.address()).await;
        let (answer, asked) = tokio::join!(client.get("/v1/x"), async {
            let (asked, mut answer) = upstream.asked().await;
            answer.send_response(ok(), true).unwrap();
            asked
        });
        assert_eq!(answer.unwrap().head.status(), 200);
        assert_eq!(asked.uri().scheme_str(), Some("https"));
    }
}

#[tokio::test]
async fn an_upstream_that_offers_no_http2_is_spoken_to_in_http1() {
    let authority = CertificateAuthority::new();
    let server = wire::secure::answers(authority.server("localhost", &["http/1.1"]), EMPTY);
    for (protocol, status) in [("auto", 200), ("http1", 200), ("http2", 502)] {
        let gateway = Gateway::at(
            &server.to_string(),
            authority.path(),
            "",
            &format!("protocol: {protocol}, tls: {{ca: ca.pem, server_name: localhost}}"),
            "",
        );
        let address = gateway.address();
        assert_eq!(
            blocking(move || get(address, "/v1/x").status()).await,
            status,
            "{protocol}"
        );
    }
}

#[tokio::test]
async fn an_upstream_with_another_name_or_another_authority_is_a_502() {
    let (authority, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let server = wire::secure::answers(authority.server("localhost", &["http/1.1"]), EMPTY);
    for (trusted, name, status) in [
        (&authority, "localhost", 200),
        (&authority, "example.org", 502),
        (&other, "localhost", 502),
    ] {
        let gateway = Gateway::at(
            &server.to_string(),
            trusted.path(),
            "",
            &format!("tls: {{ca: ca.pem, server_name: {name}}}"),
            "",
        );
        let address = gateway.address();
        let answer = blocking(move || get(address, "/v1/x")).await;
        assert_eq!(answer.status(), status, "{name}");
        if status == 502 {
            assert_eq!(
                answer.json()["error"]["message"],
                "upstream TLS handshake failed"
            );
            until(|| gateway.metric("tollgate_requests_failed_total{reason=\"upstream_tls\"} 1"));
        }
    }
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_or_stops_in_its_handshake_is_dropped() {
    let authority = CertificateAuthority::new();
    authority.issue("localhost");
    let (_listener, upstream) = upstream();
    let gateway = Gateway::at(
        &upstream.to_string(),
        authority.path(),
        &format!("{IDENTITY}, header_timeout: 0.3"),
        "",
        "",
    );
    let address = gateway.address();
    blocking(move || {
        let mut plain = Wire::connect(address);
        plain.send("GET /v1/x HTTP/1.1\r\nHost: gateway\r\n\r\n");
        plain.wait_for_end();
        Wire::connect(address).wait_for_end();
    })
    .await;
}

// Frame by frame.

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

fn framed() -> (std::net::TcpListener, Gateway, Framed) {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let client = Framed::connect(gateway.address());
    (listener, gateway, client)
}

#[test]
fn settings_and_pings_are_acknowledged() {
    let (_listener, _gateway, mut client) = framed();
    let settings = client.expect(frames::SETTINGS);
    assert_eq!((settings.flags, settings.stream), (0, 0));
    assert_eq!(client.expect(frames::SETTINGS).flags, frames::ACK);
    client.send(frames::PING, 0, 0, b"12345678");
    let pong = client.expect(frames::PING);
    assert_eq!(
        (pong.flags, &pong.payload[..]),
        (frames::ACK, &b"12345678"[..])
    );
}

#[test]
fn frames_that_break_the_protocol_end_the_connection_with_a_reason() {
    let get = block(&frames::GET);
    let window = |size: u32| size.to_be_bytes();
    let cases = [
        (
            "DATA on stream 0",
            frame(frames::DATA, 0, 0, b"x"),
            PROTOCOL_ERROR,
        ),
        (
            "HEADERS on a stream of ours",
            frame(frames::HEADERS, 5, 2, &get),
            PROTOCOL_ERROR,
        ),
        (
            "DATA on an idle stream",
            frame(frames::DATA, 0, 1, b"x"),
            PROTOCOL_ERROR,
        ),
        (
            // RFC 9113 section 6.7 has FRAME_SIZE_ERROR; h2 says it less exactly.
            "a PING of 7 bytes",
            frame(frames::PING, 0, 0, b"1234567"),
            PROTOCOL_ERROR,
        ),
        (
            "a frame over the maximum",
            frame(frames::DATA, 0, 1, &vec![0; 17_000]),
            FRAME_SIZE_ERROR,
        ),
        (
            "a header block that is none",
            frame(frames::HEADERS, 5, 1, &[0xff; 16]),
            // RFC 9113 section 4.3 has COMPRESSION_ERROR; as above.
            PROTOCOL_ERROR,
        ),
        (
            "more window than 2^31-1",
            [
                frame(frames::WINDOW_UPDATE, 0, 0, &window(0x7fff_ffff)),
                frame(frames::WINDOW_UPDATE, 0, 0, &window(1)),
            ]
            .concat(),
            FLOW_CONTROL_ERROR,
        ),
        (
            // RFC 9113 section 5.1 has STREAM_CLOSED; as above.
            "DATA behind the end of a request",
            [
                frame(frames::HEADERS, 5, 1, &get),
                frame(frames::DATA, 0, 1, b"x"),
            ]
            .concat(),
            PROTOCOL_ERROR,
        ),
        (
            "no window",
            frame(frames::WINDOW_UPDATE, 0, 0, &window(0)),
            PROTOCOL_ERROR,
        ),
        (
            "something between HEADERS and CONTINUATION",
            [
                frame(frames::HEADERS, 1, 1, &get),
                frame(frames::PING, 0, 0, b"12345678"),
            ]
            .concat(),
            PROTOCOL_ERROR,
        ),
    ];
    for (what, bytes, reason) in cases {
        let (_listener, _gateway, mut client) = framed();
        client.0.send(bytes);
        assert_eq!(client.goodbye(), Some(reason), "{what}");
    }
}

#[test]
fn requests_that_are_malformed_are_reset_and_go_nowhere() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let without = |name: &str| -> Vec<(&str, &str)> {
        frames::GET
            .into_iter()
            .filter(|(known, _)| *known != name)
            .collect()
    };
    let with = |line: (&'static str, &'static str)| [&frames::GET[..], &[line]].concat();
    let bad = [
        without(":method"),
        without(":path"),
        with((":path", "/v1/other")),
        with((":unknown", "x")),
        with(("Upper", "x")),
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("te", "gzip")),
        with(("x", "a\r\nb: c")),
    ];
    for lines in &bad {
        let mut client = Framed::connect(gateway.address());
        client.send(
            frames::HEADERS,
            frames::END_HEADERS | frames::END_STREAM,
            1,
            &block(lines),
        );
        // Of the stream, or of the connection, as RFC 9113 section 5.4.2 leaves open.
        let end = std::iter::from_fn(|| client.next())
            .find(|frame| {
                [frames::HEADERS, frames::RST_STREAM, frames::GOAWAY].contains(&frame.kind)
            })
            .unwrap_or_else(|| panic!("the connection ended without a word: {lines:?}"));
        assert_ne!(end.kind, frames::HEADERS, "{lines:?}");
        let reason = &end.payload[end.payload.len() - 4..];
        assert_eq!(frames::number(reason), PROTOCOL_ERROR, "{lines:?}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the upstream was asked");
    drop(gateway);
}

#[test]
fn a_flood_of_reset_streams_ends_the_connection() {
    let (_listener, gateway, mut client) = framed();
    let (lines, mut flooded) = (block(&frames::GET), true);
    for stream in (1..20_000).step_by(2) {
        let flood = [
            frame(
                frames::HEADERS,
                frames::END_HEADERS | frames::END_STREAM,
                stream,
                &lines,
            ),
            frame(frames::RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ];
        flooded = client.try_send(&flood.concat());
        if !flooded {
            break;
        }
    }
    // It ended before the flood did. The goodbye is lost where the flood goes on behind it.
    assert!([Some(ENHANCE_YOUR_CALM), None].contains(&client.goodbye()));
    assert!(!flooded, "10,000 resets on one connection");
    assert_eq!(get(gateway.address(), "/nowhere").status(), 404);
}

#[test]
fn a_header_block_that_never_ends_ends_the_connection() {
    let (_listener, gateway, mut client) = framed();
    client.send(frames::HEADERS, frames::END_STREAM, 1, &block(&frames::GET));
    let more = block(&[("x", "y")]);
    let mut flooded = true;
    for _ in 0..100_000 {
        flooded = client.try_send(&frame(frames::CONTINUATION, 0, 1, &more));
        if !flooded {
            break;
        }
    }
    // As above.
    assert!([Some(ENHANCE_YOUR_CALM), None].contains(&client.goodbye()));
    assert!(!flooded, "100,000 CONTINUATION frames on one connection");
    assert_eq!(get(gateway.address(), "/nowhere").status(), 404);
}

#[test]
fn data_on_a_stream_that_is_over_is_refused_and_the_connection_lives() {
    let (_listener, _gateway, mut client) = framed();
    let lines: Vec<(&str, &str)> = frames::GET
        .into_iter()
        .map(|(name, value)| (name, if name == ":path" { "/nowhere" } else { value }))
        .collect();
    let ends = frames::END_HEADERS | frames::END_STREAM;
    client.send(frames::HEADERS, ends, 1, &block(&lines));
    let over = |frame: &frames::Frame| frame.flags & frames::END_STREAM != 0;
    while !over(&client.expect(frames::DATA)) {}
    client.send(frames::DATA, 0, 1, b"late");
    let refused = client.expect(frames::RST_STREAM);
    assert_eq!(
        (refused.stream, frames::number(&refused.payload)),
        (1, STREAM_CLOSED)
    );
    client.send(frames::HEADERS, ends, 3, &block(&lines));
    assert_eq!(client.expect(frames::HEADERS).stream, 3);
}

#[test]
fn headers_over_the_limit_are_a_431_and_too_many_streams_are_refused() {
    let (listener, upstream) = upstream();
    let gateway = Gateway::with(
        upstream,
        "max_header_bytes: 2000, max_concurrent_streams: 2",
        "",
        "",
    );
    let mut client = Framed::connect(gateway.address());
    let long = "x".repeat(4000);
    let lines = [&frames::GET[..], &[("x", long.as_str())]].concat();
    client.send(
        frames::HEADERS,
        frames::END_HEADERS | frames::END_STREAM,
        1,
        &block(&lines),
    );
    let answer = client.expect(frames::HEADERS);
    assert_eq!(
        (answer.stream, answer.flags & frames::END_STREAM),
        (1, frames::END_STREAM)
    );
    for stream in [3, 5, 7] {
        client.send(
            frames::HEADERS,
            frames::END_HEADERS | frames::END_STREAM,
            stream,
            &block(&frames::GET),
        );
    }
    let refused = client.expect(frames::RST_STREAM);
    assert_eq!((refused.stream, frames::number(&refused.payload)), (7, 7));
    drop(listener);
}

#[test]
fn a_preface_that_is_none_is_a_400() {
    let (_listener, upstream) = upstream();
    let gateway = Gateway::to(upstream);
    let mut client = Wire::connect(gateway.address());
    client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert_eq!(client.answer().status(), 505);
}
