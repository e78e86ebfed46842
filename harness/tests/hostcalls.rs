//! Every function of the ABI has a test that shows what it does; those that no other file shows are shown here.

mod guest;

use std::time::Duration;

use guest::{Guest, said};
use tollgate_harness::abi::HOSTCALLS;
use tollgate_harness::exchange::CallFailure;
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Answer, Request};

const BODIES: &str = include_str!("bodies_and_headers.rs");
const LIFECYCLE: &str = include_str!("lifecycle.rs");
const HERE: &str = include_str!("hostcalls.rs");
const QUEUES: &str = include_str!("queues.rs");
const CALLS: &str = include_str!("../../tests/tests/calls.rs");

/// Which test shows a function, and the file that it stands in.
const SHOWN: &[(&str, &str, &str)] = &[
    (
        "proxy_log",
        LIFECYCLE,
        "bad_pointers_answer_and_never_reach_the_host",
    ),
    (
        "proxy_get_log_level",
        HERE,
        "guests_are_told_to_log_everything",
    ),
    (
        "proxy_get_current_time_nanoseconds",
        HERE,
        "the_time_is_the_virtual_clocks",
    ),
    (
        "proxy_set_tick_period_milliseconds",
        HERE,
        "a_tick_period_of_0_ends_the_ticks",
    ),
    (
        "proxy_get_buffer_bytes",
        BODIES,
        "kong_reads_buffers_from_their_start_whatever_the_offset",
    ),
    (
        "proxy_get_buffer_status",
        HERE,
        "a_buffers_status_is_its_length",
    ),
    (
        "proxy_set_buffer_bytes",
        BODIES,
        "envoys_upstream_reads_no_more_than_the_old_content_length",
    ),
    (
        "proxy_get_header_map_size",
        HERE,
        "a_map_is_measured_and_replaced_as_a_whole",
    ),
    (
        "proxy_get_header_map_pairs",
        BODIES,
        "kongs_map_is_cut_at_100_lines_and_broken_past_104",
    ),
    (
        "proxy_set_header_map_pairs",
        HERE,
        "a_map_is_measured_and_replaced_as_a_whole",
    ),
    (
        "proxy_get_header_map_value",
        HERE,
        "request_trailers_are_held_and_edited",
    ),
    (
        "proxy_add_header_map_value",
        HERE,
        "request_trailers_are_held_and_edited",
    ),
    (
        "proxy_replace_header_map_value",
        HERE,
        "request_trailers_are_held_and_edited",
    ),
    (
        "proxy_remove_header_map_value",
        HERE,
        "request_trailers_are_held_and_edited",
    ),
    (
        "proxy_continue_stream",
        LIFECYCLE,
        "a_tick_resumes_a_waiting_request_on_envoy",
    ),
    ("proxy_close_stream", LIFECYCLE, "a_guest_closes_its_stream"),
    (
        "proxy_send_local_response",
        LIFECYCLE,
        "kong_keeps_the_last_of_a_replys_duplicate_headers",
    ),
    (
        "proxy_http_call",
        LIFECYCLE,
        "a_call_holds_the_request_until_its_answer",
    ),
    (
        "proxy_grpc_call",
        CALLS,
        "in_a_real_envoy_the_guest_sees_this",
    ),
    (
        "proxy_grpc_stream",
        CALLS,
        "in_the_proxy_the_guest_sees_what_it_sees_in_envoy",
    ),
    (
        "proxy_grpc_send",
        CALLS,
        "in_the_simulation_the_guest_sees_what_it_sees_in_envoy",
    ),
    (
        "proxy_grpc_cancel",
        CALLS,
        "in_the_proxy_the_guest_sees_what_it_sees_in_envoy",
    ),
    (
        "proxy_grpc_close",
        CALLS,
        "in_the_simulation_the_guest_sees_what_it_sees_in_envoy",
    ),
    (
        "proxy_get_status",
        HERE,
        "the_status_of_a_failed_call_has_its_words_in_the_callback_alone",
    ),
    (
        "proxy_set_effective_context",
        LIFECYCLE,
        "a_tick_resumes_a_waiting_request_on_envoy",
    ),
    (
        "proxy_done",
        LIFECYCLE,
        "a_context_that_is_not_done_is_deleted_after_proxy_done",
    ),
    (
        "proxy_get_shared_data",
        LIFECYCLE,
        "shared_data_follows_the_host",
    ),
    (
        "proxy_set_shared_data",
        LIFECYCLE,
        "shared_data_follows_the_host",
    ),
    (
        "proxy_register_shared_queue",
        QUEUES,
        "the_worker_that_registered_last_is_woken_for_each_item",
    ),
    (
        "proxy_resolve_shared_queue",
        QUEUES,
        "a_queue_is_found_by_its_name",
    ),
    (
        "proxy_enqueue_shared_queue",
        QUEUES,
        "the_worker_that_registered_last_is_woken_for_each_item",
    ),
    (
        "proxy_dequeue_shared_queue",
        LIFECYCLE,
        "queues_tell_their_readers",
    ),
    ("proxy_define_metric", LIFECYCLE, "metrics_are_read_by_name"),
    ("proxy_get_metric", HERE, "a_gauge_is_recorded_and_read"),
    ("proxy_record_metric", HERE, "a_gauge_is_recorded_and_read"),
    (
        "proxy_increment_metric",
        LIFECYCLE,
        "metrics_are_read_by_name",
    ),
    (
        "proxy_get_property",
        LIFECYCLE,
        "envoys_properties_are_binary_and_kongs_are_text",
    ),
    (
        "proxy_set_property",
        LIFECYCLE,
        "what_a_filter_sets_as_a_property_is_read_by_the_next_one_and_not_by_the_next_request",
    ),
    (
        "proxy_call_foreign_function",
        HERE,
        "a_foreign_functions_result_goes_where_the_guest_wants_it",
    ),
];

#[test]
fn every_function_of_the_abi_has_a_test() {
    for name in HOSTCALLS {
        let shown = SHOWN.iter().find(|(shown, ..)| shown == name);
        let (_, file, test) = shown.unwrap_or_else(|| panic!("no test shows {name}"));
        let is_there = file.contains(&format!("#[test]\nfn {test}("));
        assert!(is_there, "{name}: the test {test} is gone");
    }
    assert_eq!(SHOWN.len(), HOSTCALLS.len());
}

#[test]
fn guests_are_told_to_log_everything() {
    let mut sim = Guest::new()
        .import(
            "env",
            "proxy_get_log_level",
            "$level (param i32) (result i32)",
        )
        .on(
            "request_headers",
            "(i32.store (i32.const 16) (i32.const 9))
             (call $num (call $level (i32.const 16))) (call $num (i32.load (i32.const 16)))",
        )
        .sim(Profile::Envoy);
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["0", "0"]);
}

#[test]
fn the_time_is_the_virtual_clocks() {
    let seconds = "(call $num (call $time (i32.const 16)))
        (call $num (i32.wrap_i64 (i64.rem_u (i64.div_u (i64.load (i32.const 16)) (i64.const 1000000000)) (i64.const 1000))))";
    for profile in [Profile::Envoy, Profile::Kong] {
        let guest = Guest::new().on("request_headers", seconds);
        let mut sim = guest.setting(profile).clock_at(7_000_123).start().unwrap();
        sim.advance(Duration::from_secs(5));
        sim.send(Request::get("/"));
        assert_eq!(said(&sim), ["0", "128"], "{profile}");
    }
}

#[test]
fn a_tick_period_of_0_ends_the_ticks() {
    let mut sim = Guest::new()
        .on("configure", "(drop (call $tick (i32.const 100)))")
        .on("tick", "(call $num (call $tick (i32.const 0)))")
        .sim(Profile::Envoy);
    sim.advance(Duration::from_secs(1));
    assert_eq!(said(&sim), ["0"], "one tick, and none after it");
}

#[test]
fn a_buffers_status_is_its_length() {
    let look = "(call $num (call $status (i32.const 0) (i32.const 16) (i32.const 20)))
        (call $num (i32.load (i32.const 16))) (call $num (i32.load (i32.const 20)))
        (call $num (call $status (i32.const 9) (i32.const 16) (i32.const 20)))";
    let mut sim = Guest::new()
        .import(
            "env",
            "proxy_get_buffer_status",
            "$status (param i32 i32 i32) (result i32)",
        )
        .on("request_body", look)
        .sim(Profile::Envoy);
    sim.send(Request::post("/").body("twelve bytes"));
    assert_eq!(said(&sim)[..4], ["0", "12", "0", "2"]);
}

#[test]
fn a_map_is_measured_and_replaced_as_a_whole() {
    let mut guest = Guest::new();
    let map = guest.map(&[
        (":method", "PUT"),
        (":path", "/new"),
        (":authority", "h"),
        ("X-Only", "1"),
    ]);
    let look = "(call $num (call $size (i32.const 0) (i32.const 16))) (call $num (i32.load (i32.const 16)))";
    let mut sim = guest
        .import(
            "env",
            "proxy_get_header_map_size",
            "$size (param i32 i32) (result i32)",
        )
        .import(
            "env",
            "proxy_set_header_map_pairs",
            "$set_map (param i32 i32 i32) (result i32)",
        )
        .on(
            "request_headers",
            &format!("(call $num (call $set_map (i32.const 0) {map})) {look}"),
        )
        .sim(Profile::Envoy);
    let got = sim.send(Request::get("/old").header("x-gone", "1"));
    assert_eq!(
        said(&sim),
        ["0", "0", "37"],
        "the bytes of all names and values"
    );
    let upstream = got.upstream().unwrap();
    assert_eq!(
        (upstream.method.as_str(), upstream.path.as_str()),
        ("PUT", "/new")
    );
    assert_eq!(upstream.headers.get_str("x-only"), Some("1"));
    assert!(!upstream.headers.contains("x-gone"));
}

/// Reads, adds, replaces and removes lines of the trailers, and holds them until the first tick.
fn edits_trailers(direction: &str, map: u32, stream: u32) -> Guest {
    let mut guest = Guest::new();
    let mut text = |text| guest.text(text);
    let (sum, old, new) = (text("x-sum"), text("x-old"), text("x-new"));
    let (one, two) = (text("one"), text("two"));
    let edit = format!(
        "(call $show_header (i32.const {map}) {sum})
         (call $num (call $add_header (i32.const {map}) {new} {one}))
         (call $num (call $set_header (i32.const {map}) {sum} {two}))
         (call $num (call $remove_header (i32.const {map}) {old}))
         (global.set $waits (local.get $id)) (drop (call $tick (i32.const 100)))
         (return (i32.const 1))"
    );
    guest
        .with("(global $waits (mut i32) (i32.const 0))")
        .on(&format!("{direction}_trailers"), &edit)
        .on(
            "tick",
            &format!(
                "(drop (call $tick (i32.const 0))) (drop (call $effective (global.get $waits)))
                 (call $num (call $continue (i32.const {stream})))"
            ),
        )
}

#[test]
fn request_trailers_are_held_and_edited() {
    let mut sim = edits_trailers("request", 1, 0).sim(Profile::Envoy);
    let before = sim.now_unix_nanos();
    let request = Request::post("/")
        .header("transfer-encoding", "chunked")
        .body("b");
    let got = sim.send(request.trailer("x-sum", "9").trailer("x-old", "1"));
    assert_eq!(said(&sim), ["9", "0", "0", "0", "0"]);
    assert_eq!(
        sim.now_unix_nanos() - before,
        100_000_000,
        "held until the tick"
    );
    let trailers = &got.upstream().unwrap().trailers;
    assert_eq!(trailers.get_str("x-sum"), Some("two"));
    assert_eq!(trailers.get_str("x-new"), Some("one"));
    assert!(!trailers.contains("x-old"));
}

#[test]
fn response_trailers_are_held_and_edited() {
    let mut sim = edits_trailers("response", 3, 1).sim(Profile::Envoy);
    sim.upstream(|_| {
        let answer = Answer::status(200).streamed(&["b"]);
        answer.trailer("x-sum", "9").trailer("x-old", "1")
    });
    let got = sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["9", "0", "0", "0", "0"]);
    assert_eq!(got.trailers().get_str("x-sum"), Some("two"));
    assert_eq!(got.trailers().get_str("x-new"), Some("one"));
    assert!(!got.trailers().contains("x-old"));
}

#[test]
fn the_status_of_a_failed_call_has_its_words_in_the_callback_alone() {
    let mut guest = Guest::new();
    let target = guest.text("auth");
    let headers = guest.map(&[(":method", "GET"), (":path", "/"), (":authority", "auth")]);
    let look = "(call $show (call $status (i32.const 12) (i32.const 16) (i32.const 20)))
        (call $num (i32.load (i32.const 12)))";
    let guest = guest
        .import(
            "env",
            "proxy_get_status",
            "$status (param i32 i32 i32) (result i32)",
        )
        .on(
            "request_headers",
            &format!("(call $dispatch {target} {headers})"),
        )
        .on("http_call_response", look)
        .on("log", look);
    let lost = |_: &_| CallFailure::Truncated;
    let mut sim = guest
        .setting(Profile::Envoy)
        .on_call("auth", lost)
        .start()
        .unwrap();
    sim.upstream(|_| Answer::status(200).after(Duration::from_millis(1)));
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["0", "reset", "11", "", "11"]);
}

#[test]
fn a_gauge_is_recorded_and_read() {
    let mut guest = Guest::new();
    let name = guest.text("depth");
    let mut sim = guest
        .import(
            "env",
            "proxy_record_metric",
            "$record (param i32 i64) (result i32)",
        )
        .import(
            "env",
            "proxy_get_metric",
            "$metric (param i32 i32) (result i32)",
        )
        .on(
            "request_headers",
            &format!(
                "(call $num (call $define (i32.const 1) {name} (i32.const 32)))
                 (call $num (call $record (i32.load (i32.const 32)) (i64.const 42)))
                 (call $num (call $metric (i32.load (i32.const 32)) (i32.const 40)))
                 (call $num (i32.load (i32.const 40)))"
            ),
        )
        .sim(Profile::Envoy);
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["0", "0", "0", "42"]);
    assert_eq!(sim.metric("depth"), 42);
}

#[test]
fn a_foreign_functions_result_goes_where_the_guest_wants_it() {
    let mut guest = Guest::new();
    let (name, argument) = (guest.text("compress"), guest.text("aaaaaaaaa"));
    let call = |ptr: u32, len: u32| {
        format!("(call $num (call $foreign {name} {argument} (i32.const {ptr}) (i32.const {len})))")
    };
    let work = format!(
        "{} {} (call $num (i32.load (i32.const 20)))
         (i32.store (i32.const 20) (i32.const 0))
         {} (call $num (i32.load8_u (i32.load (i32.const 16)))) (call $num (i32.load (i32.const 20)))",
        call(0, 0),
        call(0, 20),
        call(16, 0)
    );
    let mut sim = guest.on("request_headers", &work).sim(Profile::Envoy);
    sim.send(Request::get("/"));
    // 0x78 is what a zlib stream begins with.
    assert_eq!(said(&sim), ["0", "0", "11", "0", "120", "0"]);
}
