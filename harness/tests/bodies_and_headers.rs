//! What filters read and change of messages, where the hosts differ.

mod guest;

use guest::{Guest, said};
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Answer, Outcome, Request, Sim};
use tollgate_harness::worker::Limits;

const PAUSE: &str = "(return (i32.const 1))";

/// Logs the length and the end of each body callback, and pauses until the end.
fn collector() -> Guest {
    Guest::new().on(
        "request_body",
        "(call $num (local.get $n)) (call $num (local.get $end)) (return (i32.eqz (local.get $end)))",
    )
}

#[test]
fn a_held_body_is_shown_again_with_what_came() {
    let mut sim = collector().sim(Profile::Envoy);
    let got = sim.send(Request::post("/").body("abcdef").delivered_in(&[2, 3]));
    assert_eq!(said(&sim), ["2", "0", "5", "0", "6", "0", "6", "1"]);
    assert_eq!(&got.upstream().unwrap().body[..], b"abcdef");
}

#[test]
fn kong_shows_the_body_once_and_whole_and_not_at_all_when_there_is_none() {
    let mut sim = collector().sim(Profile::Kong);
    let got = sim.send(Request::post("/").body("abcdef").delivered_in(&[2, 3]));
    assert_eq!(said(&sim), ["6", "1"]);
    assert_eq!(&got.upstream().unwrap().body[..], b"abcdef");
    sim.send(Request::post("/"));
    assert_eq!(said(&sim).len(), 2);
}

#[test]
fn the_end_is_told_with_the_headers_on_envoy_and_never_on_kong() {
    for (profile, end) in [(Profile::Envoy, "1"), (Profile::Kong, "0")] {
        let mut sim = Guest::new()
            .on("request_headers", "(call $num (local.get $end))")
            .sim(profile);
        sim.send(Request::get("/"));
        assert_eq!(said(&sim), [end], "{profile}");
    }
}

#[test]
fn a_held_body_over_the_limit_is_413_on_envoy_and_unreadable_on_kong() {
    let limits = Limits {
        body_buffer: 4,
        ..Limits::default()
    };
    let guest = collector();
    let mut sim = guest
        .setting(Profile::Envoy)
        .limits(limits)
        .start()
        .unwrap();
    let got = sim.send(Request::post("/").body("abcdef").delivered_in(&[3]));
    assert_eq!((got.status(), got.upstream()), (413, None));

    let guest = Guest::new().on(
        "request_body",
        "(call $num (local.get $n)) (call $show_buffer (i32.const 0) (i32.const 0) (i32.const 100))",
    );
    let mut sim = guest.setting(Profile::Kong).limits(limits).start().unwrap();
    let got = sim.send(Request::post("/").body("abcdef"));
    assert_eq!(
        said(&sim),
        ["6", "1"],
        "the length is told, the body NotFound"
    );
    assert_eq!(&got.upstream().unwrap().body[..], b"abcdef");
}

/// Pauses in the headers, resumes at the end of the body after changing the path.
fn decides_after_the_body() -> Guest {
    let mut guest = Guest::new();
    let (path, new) = (guest.text(":path"), guest.text("/decided"));
    guest.on("request_headers", PAUSE).on(
        "request_body",
        &format!(
            "(call $num (local.get $n)) (if (i32.eqz (local.get $end)) (then {PAUSE}))
             (call $num (call $set_header (i32.const 0) {path} {new}))"
        ),
    )
}

#[test]
fn with_the_flag_headers_wait_for_the_body_and_can_still_be_changed() {
    let mut sim = decides_after_the_body()
        .setting(Profile::Envoy)
        .knobs(Knobs {
            headers_stop_iteration: true,
            ..Knobs::default()
        })
        .start()
        .unwrap();
    let got = sim.send(Request::post("/asked").body("ab"));
    assert_eq!(said(&sim), ["2", "2", "0"]);
    assert_eq!(got.upstream().unwrap().path, "/decided");
    assert_eq!(&got.upstream().unwrap().body[..], b"ab");
}

#[test]
fn without_the_flag_paused_headers_stop_everything() {
    let mut sim = decides_after_the_body().sim(Profile::Envoy);
    let got = sim.send(Request::post("/asked").body("ab"));
    assert_eq!(got.outcome(), Outcome::Waiting);
    assert!(said(&sim).is_empty());
}

#[test]
fn kong_never_wakes_a_request_that_paused_without_a_call() {
    let mut sim = Guest::new().on("request_headers", PAUSE).sim(Profile::Kong);
    let got = sim.send(Request::get("/"));
    assert!(
        matches!(got.outcome(), Outcome::Hung(_)),
        "{:?}",
        got.outcome()
    );
}

#[test]
fn request_headers_are_gone_after_continue_on_envoy_and_back_in_the_log() {
    let read = |guest: &mut Guest| {
        let name = guest.text("x-a");
        format!("(call $show_header (i32.const 0) {name})")
    };
    for (profile, in_body) in [(Profile::Envoy, "2"), (Profile::Kong, "v")] {
        let mut guest = Guest::new();
        let read = read(&mut guest);
        let mut sim = guest
            .on("request_headers", &read)
            .on("request_body", &read)
            .on("log", &read)
            .sim(profile);
        sim.send(Request::post("/").header("x-a", "v").body("b"));
        let seen = said(&sim);
        assert_eq!(seen.first(), Some(&"v"), "{profile}");
        assert_eq!(seen.get(1), Some(&in_body), "{profile}");
        assert_eq!(seen.last(), Some(&"v"), "{profile}");
    }
}

#[test]
fn a_whole_map_that_is_gone_is_empty() {
    let mut sim = Guest::new()
        .on(
            "request_body",
            "(call $num (call $get_map (i32.const 0) (i32.const 16) (i32.const 20))) (call $num (i32.load (i32.const 20)))",
        )
        .sim(Profile::Envoy);
    sim.send(Request::post("/").body("b"));
    assert_eq!(said(&sim)[..2], ["0", "0"]);
}

/// Does something with the header `x-key` in the request headers.
fn edits(work: impl FnOnce(&mut Guest, &str) -> String) -> Guest {
    let mut guest = Guest::new();
    let name = guest.text("x-key");
    let work = work(&mut guest, &name);
    guest.on("request_headers", &work)
}

fn keys(sim: &mut Sim, request: Request) -> Vec<String> {
    let got = sim.send(request);
    got.upstream()
        .unwrap()
        .headers
        .get_all("x-key")
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}

#[test]
fn a_removed_request_header_still_reaches_kongs_upstream() {
    let guest = edits(|_, name| {
        format!(
            "(drop (call $remove_header (i32.const 0) {name})) (call $show_header (i32.const 0) {name})"
        )
    });
    for (profile, left) in [(Profile::Envoy, vec![]), (Profile::Kong, vec!["secret"])] {
        let mut sim = guest.sim(profile);
        assert_eq!(
            keys(&mut sim, Request::get("/").header("X-Key", "secret")),
            left
        );
        assert_eq!(said(&sim), ["1"], "the filter itself does not find it");
    }
}

#[test]
fn blanked_and_removed_it_leaves_an_empty_line_that_a_setting_drops() {
    let guest = edits(|guest, name| {
        let empty = guest.text("");
        format!(
            "(drop (call $set_header (i32.const 0) {name} {empty})) (drop (call $remove_header (i32.const 0) {name}))"
        )
    });
    let request = || Request::get("/").header("x-key", "secret");
    assert_eq!(keys(&mut guest.sim(Profile::Kong), request()), [""]);
    let knobs = Knobs {
        proxy_set_header: vec!["X-Key".to_owned()],
        ..Knobs::default()
    };
    let mut sim = guest.setting(Profile::Kong).knobs(knobs).start().unwrap();
    assert!(keys(&mut sim, request()).is_empty());
}

#[test]
fn setting_a_duplicated_header_replaces_all_on_envoy_and_the_first_on_kong() {
    let guest = edits(|guest, name| {
        let new = guest.text("new");
        format!("(drop (call $set_header (i32.const 0) {name} {new}))")
    });
    let request = || Request::get("/").header("x-key", "1").header("x-key", "2");
    assert_eq!(keys(&mut guest.sim(Profile::Envoy), request()), ["new"]);
    assert_eq!(keys(&mut guest.sim(Profile::Kong), request()), ["new", "2"]);
}

#[test]
fn setting_a_duplicated_response_header_loses_all_copies_on_kong() {
    let mut guest = Guest::new();
    let (name, new) = (guest.text("set-cookie"), guest.text("n"));
    let guest = guest.on(
        "response_headers",
        &format!("(drop (call $set_header (i32.const 2) {name} {new}))"),
    );
    for (profile, left) in [(Profile::Envoy, 1), (Profile::Kong, 0)] {
        let mut sim = guest.sim(profile);
        sim.upstream(|_| {
            Answer::status(200)
                .header("set-cookie", "a")
                .header("set-cookie", "b")
        });
        let got = sim.send(Request::get("/"));
        assert_eq!(
            got.headers().get_all("set-cookie").count(),
            left,
            "{profile}"
        );
    }
}

#[test]
fn kong_shows_a_decoded_path_and_its_own_name_and_sends_what_the_variable_says() {
    let mut guest = Guest::new();
    let path = guest.text(":path");
    let authority = guest.text(":authority");
    let host = guest.text("host");
    let raw = guest.text("request.path");
    let changed = guest.text("/changed");
    let guest = guest.on(
        "request_headers",
        &format!(
            "(call $show_header (i32.const 0) {path}) (call $show_header (i32.const 0) {authority})
             (call $show_header (i32.const 0) {host}) (call $show_property {raw})
             (drop (call $set_header (i32.const 0) {path} {changed}))"
        ),
    );
    let request = || Request::get("/a%20b/../c?q=%2F").header("host", "shop.test");
    let mut sim = guest.sim(Profile::Kong);
    let got = sim.send(request());
    assert_eq!(
        said(&sim),
        ["/c?q=%2F", "kong:8000", "shop.test", "/a%20b/../c?q=%2F"]
    );
    assert_eq!(got.upstream().unwrap().path, "/a%20b/../c?q=%2F");
    let mut sim = guest.sim(Profile::Envoy);
    let got = sim.send(request());
    assert_eq!(said(&sim)[1..3], ["shop.test", "shop.test"]);
    assert_eq!(got.upstream().unwrap().path, "/changed");
}

#[test]
fn on_kong_the_upstream_target_is_a_variable_that_filters_set() {
    let mut guest = Guest::new();
    let uri = guest.text("ngx\0upstream_uri");
    let host = guest.text("ngx.upstream_host");
    let query = guest.text("request.query");
    let to = guest.text("/v2?x=1");
    let at = guest.text("other.test");
    let mut sim = guest
        .on(
            "request_headers",
            &format!(
                "(call $show_property {uri}) (call $num (call $set_property {uri} {to}))
                 (call $num (call $set_property {host} {at})) (call $num (call $set_property {query} {to}))"
            ),
        )
        .sim(Profile::Kong);
    let got = sim.send(Request::get("/v1?y=2"));
    assert_eq!(said(&sim), ["/v1?y=2", "0", "0", "0"]);
    assert_eq!(got.upstream().unwrap().path, "/v2?x=1");
    assert_eq!(got.upstream().unwrap().authority, "other.test");
}

/// Replaces the request body by something longer, naming the old length.
fn replacer(length: &str) -> Guest {
    let mut guest = Guest::new();
    let (new, name) = (guest.text("longer"), guest.text("content-length"));
    guest
        .on(
            "request_headers",
            &format!("(drop (call $remove_header (i32.const 0) {name}))"),
        )
        .on(
            "request_body",
            &format!(
                "(if (i32.eqz (local.get $end)) (then {PAUSE}))
                 (drop (call $set_buffer (i32.const 0) (i32.const 0) {length} {new}))"
            ),
        )
}

#[test]
fn kong_cuts_a_replaced_body_to_the_old_length_unless_the_length_is_the_largest() {
    let seen = |guest: &Guest, profile| {
        let got = guest.sim(profile).send(Request::post("/").body("old"));
        String::from_utf8_lossy(&got.upstream().unwrap().body).into_owned()
    };
    let (by_length, whole) = (replacer("(local.get $n)"), replacer("(i32.const -1)"));
    assert_eq!(seen(&by_length, Profile::Envoy), "longer");
    assert_eq!(seen(&by_length, Profile::Kong), "lon");
    assert_eq!(seen(&whole, Profile::Kong), "longer");
}

#[test]
fn envoys_upstream_reads_no_more_than_the_old_content_length() {
    let mut guest = Guest::new();
    let new = guest.text("longer");
    let mut sim = guest
        .on(
            "request_body",
            &format!(
                "(if (i32.eqz (local.get $end)) (then {PAUSE}))
                 (drop (call $set_buffer (i32.const 0) (i32.const 0) (i32.const -1) {new}))"
            ),
        )
        .sim(Profile::Envoy);
    let got = sim.send(Request::post("/").body("old"));
    assert_eq!(&got.upstream().unwrap().body[..], b"lon");
}

#[test]
fn kong_reads_buffers_from_their_start_whatever_the_offset() {
    let guest = Guest::new().on(
        "request_body",
        "(call $show_buffer (i32.const 0) (i32.const 2) (i32.const 2))
         (call $show_buffer (i32.const 0) (i32.const 99) (i32.const 2))",
    );
    for (profile, seen) in [(Profile::Envoy, ["cd", ""]), (Profile::Kong, ["ab", "ab"])] {
        let mut sim = guest.sim(profile);
        sim.send(Request::post("/").body("abcd"));
        assert_eq!(said(&sim)[..2], seen, "{profile}");
    }
}

#[test]
fn kongs_map_is_cut_at_100_lines_and_broken_past_104() {
    // Logs how many pairs the map claims and how long it is.
    let guest = Guest::new().on(
        "request_headers",
        "(drop (call $get_map (i32.const 0) (i32.const 16) (i32.const 20)))
         (call $num (i32.load (i32.load (i32.const 16)))) (call $num (local.get $n)) (call $fresh)",
    );
    let many = |count: usize| {
        (0..count).fold(Request::get("/"), |request, index| {
            request.header(&format!("x-{index}"), "v")
        })
    };
    // Four pseudo-headers and the Host are there besides.
    for (extra, claimed) in [(95, "100"), (97, "100"), (100, "101")] {
        let mut sim = guest.sim(Profile::Kong);
        sim.send(many(extra));
        assert_eq!(said(&sim)[0], claimed, "{extra}");
        let finding = sim.portability().iter().map(|f| f.to_string()).next();
        assert_eq!(finding.is_some(), extra > 95);
    }
    let mut sim = guest.sim(Profile::Envoy);
    sim.send(many(99));
    assert_eq!(
        said(&sim)[0],
        "105",
        "four pseudo-headers and two lines of Envoy's own"
    );
}

#[test]
fn envoy_shows_each_response_chunk_and_then_the_end() {
    let guest = Guest::new().on(
        "response_body",
        "(call $num (local.get $n)) (call $num (local.get $end))",
    );
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = guest.sim(profile);
        sim.upstream(|_| Answer::status(200).streamed(&["data: 1\n\n", "data: 22\n\n"]));
        let got = sim.send(Request::get("/"));
        assert_eq!(said(&sim), ["9", "0", "10", "0", "0", "1"], "{profile}");
        assert_eq!(got.chunks().len(), 2);
    }
}

#[test]
fn kong_never_tells_the_end_of_a_response_of_known_length_in_several_chunks() {
    let guest = Guest::new().on(
        "response_body",
        "(call $num (local.get $n)) (call $num (local.get $end))",
    );
    let mut sim = guest.sim(Profile::Kong);
    sim.upstream(|_| Answer::status(200).body("abcd").delivered_in(&[2]));
    let got = sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["2", "0", "2", "0"]);
    assert_eq!(
        (got.outcome(), got.text().as_str()),
        (Outcome::Answered, "abcd")
    );
    sim.upstream(|_| Answer::status(200).body("abcd"));
    sim.send(Request::get("/"));
    assert_eq!(said(&sim)[4..], ["4", "1"]);
}

#[test]
fn kong_holds_a_response_up_to_its_buffers_and_then_lets_it_go() {
    let guest = Guest::new().on(
        "response_body",
        "(call $num (local.get $n)) (call $num (local.get $end)) (return (i32.const 1))",
    );
    let held = |buffers| {
        let limits = Limits {
            response_buffers: buffers,
            ..Limits::default()
        };
        let mut sim = guest.setting(Profile::Kong).limits(limits).start().unwrap();
        sim.upstream(|_| Answer::status(200).body("abcdef").delivered_in(&[2, 2]));
        let got = sim.send(Request::get("/"));
        assert_eq!(got.text(), "abcdef");
        said(&sim)
            .iter()
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(held(100), ["2", "0", "6", "1"]);
    assert_eq!(held(3), ["2", "0", "4", "0", "2", "0"]);
}

#[test]
fn a_changed_response_with_the_old_length_misleads_the_client() {
    let mut guest = Guest::new();
    let new = guest.text("much longer");
    let mut sim = guest
        .on(
            "response_body",
            &format!(
                "(if (local.get $n) (then (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const -1) {new}))))"
            ),
        )
        .sim(Profile::Envoy);
    sim.upstream(|_| Answer::status(200).body("old"));
    let got = sim.send(Request::get("/"));
    assert_eq!(
        got.outcome(),
        Outcome::Misframed {
            declared: 3,
            sent: 11
        }
    );
}

#[test]
fn trailers_pass_and_can_be_read() {
    let mut guest = Guest::new();
    let name = guest.text("x-sum");
    let mut sim = guest
        .on(
            "request_trailers",
            &format!("(call $num (local.get $n)) (call $show_header (i32.const 1) {name})"),
        )
        .sim(Profile::Envoy);
    let request = Request::post("/")
        .body("b")
        .header("transfer-encoding", "chunked");
    let got = sim.send(request.trailer("x-sum", "9"));
    assert_eq!(said(&sim), ["1", "9"]);
    assert_eq!(got.upstream().unwrap().trailers.get_str("x-sum"), Some("9"));
}
