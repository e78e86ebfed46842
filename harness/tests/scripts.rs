//! Scripted clients and upstreams, and the time they take.

mod guest;

use std::time::Duration;

use guest::{Guest, said};
use serde_json::json;
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Abort, Answer, Outcome, Request, Sim, in_every_chunking};

const BOTH: [Profile; 2] = [Profile::Envoy, Profile::Kong];
const MS: Duration = Duration::from_millis(1);

/// Says 7 when an exchange is over, as a filter that settles does.
fn settler() -> Guest {
    Guest::new().on("log", "(call $num (i32.const 7))")
}

/// Sends a request before an upstream that answers in this way; the response, how long it took, whether the filter
/// settled.
fn send(
    profile: Profile,
    request: Request,
    answer: Answer,
) -> (tollgate_harness::sim::Response, Duration, bool) {
    let mut sim = settler().sim(profile);
    sim.upstream(move |_| answer.clone());
    let before = sim.now_unix_nanos();
    let got = sim.send(request);
    let took = Duration::from_nanos(sim.now_unix_nanos() - before);
    (got, took, said(&sim) == ["7"])
}

#[test]
fn a_paced_answer_takes_its_time_and_ends_with_its_trailers() {
    for profile in BOTH {
        let answer = Answer::status(200)
            .streamed(&["a", "b"])
            .trailer("x-sum", "2");
        let answer = answer.after(5 * MS).paced(10 * MS);
        let (got, took, settled) = send(profile, Request::get("/"), answer);
        got.assert_status(200).assert_body("ab");
        // nginx does not pass trailers on.
        let passes = profile == Profile::Envoy;
        assert_eq!(got.trailers().contains("x-sum"), passes, "{profile}");
        // Headers at 5 ms, then two pieces and the trailers.
        assert_eq!((took, settled), (35 * MS, true), "{profile}");
    }
}

#[test]
fn an_upstream_that_breaks_off_takes_the_client_along_and_the_filter_settles() {
    for profile in BOTH {
        for bytes in [0, 2, 5] {
            let answer = Answer::status(200)
                .body("hello")
                .delivered_in(&[1])
                .breaks_at(bytes);
            let (got, _, settled) = send(profile, Request::get("/"), answer);
            got.assert_outcome(Outcome::UpstreamLost)
                .assert_body(&"hello"[..bytes]);
            assert_eq!(got.header("content-length"), Some("5"), "{profile}");
            assert!(settled, "{profile}: after {bytes} bytes");
        }
    }
}

#[test]
fn an_upstream_that_stalls_keeps_the_client_waiting_until_its_patience_ends() {
    for profile in BOTH {
        for (answer, body) in [
            (Answer::never(), ""),
            (Answer::status(200).body("hello").stalls_at(3), "hel"),
            (
                Answer::status(200).streamed(&["hello"]).stalls_at(5),
                "hello",
            ),
        ] {
            let (got, took, settled) = send(profile, Request::get("/"), answer);
            got.assert_outcome(Outcome::Waiting).assert_body(body);
            assert_eq!(
                (took, settled),
                (Duration::from_secs(60), true),
                "{profile}"
            );
        }
    }
}

#[test]
fn a_client_leaves_where_it_is_told_to() {
    let request = || Request::post("/").body("hello").delivered_in(&[2]);
    let answer = || Answer::status(200).streamed(&["a", "b", "c"]).paced(MS);
    for profile in BOTH {
        for (abort, reached, body) in [
            (Abort::BeforeEnd, false, ""),
            (Abort::AtResponseHeaders, true, ""),
            (Abort::AfterChunks(2), true, "ab"),
            (Abort::After(MS * 3 / 2), true, "a"),
        ] {
            let (got, _, settled) = send(profile, request().aborted(abort), answer());
            got.assert_outcome(Outcome::Aborted).assert_body(body);
            assert_eq!(got.upstream().is_some(), reached, "{profile}: {abort:?}");
            assert!(settled, "{profile}: {abort:?}");
        }
    }
}

#[test]
fn a_client_that_leaves_after_the_last_byte_got_all() {
    let answer = Answer::status(200).body("hello");
    let (got, ..) = send(
        Profile::Envoy,
        Request::get("/").aborted(Abort::AfterChunks(9)),
        answer,
    );
    got.assert_status(200).assert_body("hello");
}

#[test]
fn a_slow_client_sends_its_pieces_one_by_one() {
    let guest = Guest::new().on("request_body", "(call $num (local.get $n))");
    let mut sim = guest.sim(Profile::Envoy);
    let request = Request::post("/").body("hello").delivered_in(&[2]);
    let id = sim.begin(request.after(10 * MS).paced(100 * MS));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(said(&sim).join(" "));
        sim.advance(100 * MS);
    }
    // Headers at 10 ms, pieces at 110 and 210, the end at 310.
    assert_eq!(seen, ["", "", "2", "2 3"]);
    sim.finish(id)
        .assert_status(200)
        .assert_upstream_body("hello");
}

#[test]
fn a_clock_that_jumps_changes_what_filters_read_and_no_timer() {
    let guest = Guest::new()
        .on("configure", "(drop (call $tick (i32.const 100)))")
        .on(
            "tick",
            "(drop (call $time (i32.const 32)))
             (call $num (i32.wrap_i64 (i64.rem_u (i64.div_u (i64.load (i32.const 32)) (i64.const 1000000000)) (i64.const 1000))))",
        );
    for profile in BOTH {
        let mut sim = guest.setting(profile).clock_at(500).start().unwrap();
        let set = |sim: &Sim, seconds: u64| sim.clock().set(seconds * 1_000_000_000);
        set(&sim, 300);
        sim.advance(250 * MS);
        set(&sim, 800);
        sim.advance(50 * MS);
        assert_eq!(said(&sim), ["300", "300", "800"], "{profile}");
    }
}

#[test]
fn the_edge_of_a_window_is_reached_to_the_nanosecond() {
    let mut sim = Guest::new()
        .setting(Profile::Envoy)
        .clock_at(59)
        .start()
        .unwrap();
    sim.advance_to(59_999_999_999);
    assert_eq!(sim.now_unix_nanos(), 59_999_999_999);
    sim.advance_to(60_000_000_000);
    sim.advance_to(1);
    assert_eq!(sim.now_unix_nanos(), 60_000_000_000);
}

#[test]
fn a_call_without_a_timeout_gets_the_hosts_own() {
    let mut guest = Guest::new();
    let target = guest.text("auth:80");
    let headers = guest.map(&[(":method", "GET"), (":path", "/"), (":authority", "auth")]);
    let guest = guest
        .on(
            "request_headers",
            &format!(
                "(drop (call $call {target} {headers} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 24)))
                 (return (i32.const 1))"
            ),
        )
        .on("http_call_response", "(call $num (local.get $headers))");
    for (profile, answers) in [(Profile::Envoy, 0), (Profile::Kong, 1)] {
        let setting = guest
            .setting(profile)
            .on_call("auth:80", |_| Answer::never());
        let mut sim = setting.start().unwrap();
        let id = sim.begin(Request::get("/"));
        sim.advance(Duration::from_secs(59));
        assert!(said(&sim).is_empty(), "{profile}");
        sim.advance(Duration::from_secs(2));
        assert_eq!(said(&sim).len(), answers, "{profile}");
        sim.finish(id);
    }
}

#[test]
fn a_call_whose_answer_breaks_off_fails() {
    let mut guest = Guest::new();
    let target = guest.text("auth:80");
    let headers = guest.map(&[(":method", "GET"), (":path", "/"), (":authority", "auth")]);
    let guest = guest
        .on(
            "request_headers",
            &format!("(call $dispatch {target} {headers}) (return (i32.const 1))"),
        )
        .on("http_call_response", "(call $num (local.get $headers))");
    let broken = |_: &_| Answer::status(200).body("hello").breaks_at(2);
    let setting = guest.setting(Profile::Envoy).on_call("auth:80", broken);
    let mut sim = setting.start().unwrap();
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["0", "0"], "no headers");
}

#[test]
fn a_body_is_the_same_in_all_its_pieces() {
    let module = Guest::new().module();
    let mut sim = Sim::of(Profile::Envoy)
        .filter(&module, json!({}))
        .start()
        .unwrap();
    let body = br#"{"model": "m"}"#;
    let seen = in_every_chunking(body.len(), |pieces| {
        let request = Request::post("/").body(&body[..]).delivered_in(pieces);
        sim.send(request).assert_upstream().body.clone()
    });
    assert_eq!(&seen[..], body);
}
