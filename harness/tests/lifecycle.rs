//! Starting, failing, calling, replying, ticking, where the hosts differ.

mod guest;

use std::time::Duration;

use guest::{Guest, said};
use serde_json::json;
use tollgate_harness::abi::HOSTCALLS;
use tollgate_harness::engine::{Engine, LoadError, Module};
use tollgate_harness::exchange::{CallFailure, ResetReason};
use tollgate_harness::profile::{Host, Profile, Row};
use tollgate_harness::sim::{Answer, Outcome, Request, Sim};
use tollgate_harness::vm::{Callback, Faults, TrapCause};
use tollgate_harness::worker::{FailurePolicy, Limits, StartFailure};

const PAUSE: &str = "(return (i32.const 1))";
const BOTH: [Profile; 2] = [Profile::Envoy, Profile::Kong];

// Loading

#[test]
fn what_is_no_filter_of_this_abi_is_refused_with_what_to_do() {
    let engine = Engine::for_simulation().unwrap();
    let load = |text: &str| Module::from_bytes(&engine, "m", text.as_bytes());
    assert!(matches!(load("no wasm"), Err(LoadError::NotWasm { .. })));
    assert!(matches!(load("(module)"), Err(LoadError::NoAbi { .. })));
    let other = load(r#"(module (func (export "proxy_abi_version_0_1_0")))"#).unwrap_err();
    assert!(
        other.to_string().contains("proxy_abi_version_0_1_0"),
        "{other}"
    );
    let unknown = load(
        r#"(module (import "env" "proxy_frobnicate" (func)) (memory (export "memory") 1)
            (func (export "malloc") (param i32) (result i32) unreachable)
            (func (export "proxy_abi_version_0_2_1")))"#,
    );
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("env.proxy_frobnicate")
    );
    let arity = load(
        r#"(module (import "env" "proxy_log" (func)) (memory (export "memory") 1)
            (func (export "malloc") (param i32) (result i32) unreachable)
            (func (export "proxy_abi_version_0_2_1")))"#,
    );
    assert!(matches!(arity, Err(LoadError::ImportType { .. })));
    let missing = Module::load(&engine, "no/such.wasm".as_ref()).unwrap_err();
    assert!(missing.to_string().contains("no/such.wasm"));
}

#[test]
fn a_refused_configuration_carries_the_filters_words() {
    let mut guest = Guest::new();
    let words = guest.text("limits[0]: must be > 0");
    let guest = guest.on(
        "configure",
        &format!("(call $say {words}) (return (i32.const 0))"),
    );
    let error = guest.setting(Profile::Envoy).start().err().unwrap();
    assert!(matches!(error.cause, StartFailure::ConfigurationRefused));
    assert!(
        error.to_string().contains("limits[0]: must be > 0"),
        "{error}"
    );
}

#[test]
fn importing_the_log_level_kills_kongs_workers() {
    let guest = Guest::new();
    let source = guest.source().replacen(
        "(import",
        "(import \"env\" \"proxy_get_log_level\" (func (param i32) (result i32)))\n(import",
        1,
    );
    let engine = Engine::for_simulation().unwrap();
    let module = Module::from_bytes(&engine, "guest", source.as_bytes()).unwrap();
    assert!(
        Sim::of(Profile::Envoy)
            .filter(&module, json!({}))
            .start()
            .is_ok()
    );
    let error = Sim::of(Profile::Kong)
        .filter(&module, json!({}))
        .start()
        .err();
    assert!(matches!(
        error.map(|e| e.cause),
        Some(StartFailure::FatalImport("proxy_get_log_level"))
    ));
}

#[test]
fn every_function_of_the_abi_links() {
    // Each with the type of the ABI, as an SDK declares it.
    let arity = |name: &str| match name {
        "proxy_done" => 0,
        "proxy_get_log_level" | "proxy_get_current_time_nanoseconds" => 1,
        "proxy_set_tick_period_milliseconds" | "proxy_set_effective_context" => 1,
        "proxy_continue_stream" | "proxy_close_stream" => 1,
        "proxy_grpc_cancel" | "proxy_grpc_close" => 1,
        "proxy_get_header_map_size" | "proxy_get_metric" => 2,
        "proxy_log" | "proxy_get_buffer_status" | "proxy_get_status" => 3,
        "proxy_get_header_map_pairs" | "proxy_set_header_map_pairs" => 3,
        "proxy_remove_header_map_value" | "proxy_register_shared_queue" => 3,
        "proxy_enqueue_shared_queue" | "proxy_dequeue_shared_queue" => 3,
        "proxy_get_property" | "proxy_set_property" => 4,
        "proxy_define_metric" | "proxy_grpc_send" => 4,
        "proxy_call_foreign_function" => 6,
        "proxy_send_local_response" => 8,
        "proxy_grpc_stream" => 9,
        "proxy_http_call" => 10,
        "proxy_grpc_call" => 12,
        _ => 5,
    };
    let imports: String = HOSTCALLS
        .iter()
        .map(|name| match *name {
            "proxy_record_metric" | "proxy_increment_metric" => {
                format!("(import \"env\" \"{name}\" (func (param i32 i64) (result i32)))")
            }
            name => format!(
                "(import \"env\" \"{name}\" (func (param {}) (result i32)))",
                "i32 ".repeat(arity(name))
            ),
        })
        .collect();
    let module = format!(
        "(module {imports} (memory (export \"memory\") 1)
          (func (export \"malloc\") (param i32) (result i32) unreachable)
          (func (export \"proxy_abi_version_0_2_1\")))"
    );
    let engine = Engine::for_simulation().unwrap();
    Module::from_bytes(&engine, "all", module.as_bytes()).unwrap();
}

#[test]
fn a_foreign_function_that_nobody_has_is_not_found_and_any_traps_on_kong() {
    let zeros = "(i32.const 0) ".repeat(6);
    let guest = Guest::new().on(
        "request_headers",
        &format!("(call $num (call $foreign {zeros}))"),
    );
    let mut sim = guest.sim(Profile::Envoy);
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["1"]);
    assert_eq!(sim.portability()[0].row, Row::MissingFunction);
    assert_eq!(
        guest.sim(Profile::Kong).send(Request::get("/")).status(),
        500
    );
}

// Memory and time

#[test]
fn bad_pointers_answer_and_never_reach_the_host() {
    let reads = "(call $num (call $log (i32.const 2) (i32.const -8) (i32.const 4)))
        (call $num (call $log (i32.const 2) (i32.const 131070) (i32.const 4)))
        (call $num (call $log (i32.const 2) (i32.const 0) (i32.const -1)))
        (call $num (call $time (i32.const 131068)))
        (call $num (call $get_map (i32.const 0) (i32.const -4) (i32.const 20)))
        (call $num (call $set_shared (i32.const -4) (i32.const 9) (i32.const 1) (i32.const 1) (i32.const 0)))";
    let mut sim = Guest::new()
        .on("request_headers", reads)
        .sim(Profile::Envoy);
    let got = sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["6"; 6]);
    assert_eq!(got.status(), 200);
}

#[test]
fn memory_does_not_grow_past_its_limit() {
    let guest = Guest::new().on(
        "request_headers",
        "(call $num (i32.eq (memory.grow (i32.const 1)) (i32.const -1)))
         (call $num (i32.eq (memory.grow (i32.const 64)) (i32.const -1)))",
    );
    let limits = Limits {
        memory_bytes: 4 * 65536,
        ..Limits::default()
    };
    let mut sim = guest
        .setting(Profile::Envoy)
        .limits(limits)
        .start()
        .unwrap();
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["0", "1"], "one page fits, 64 do not");
    assert_eq!(sim.worker().memory_bytes(), 3 * 65536);
}

#[test]
fn an_endless_loop_traps_at_its_deadline_and_is_named() {
    let limits = Limits {
        callback: Duration::from_millis(20),
        ..Limits::default()
    };
    let guest = Guest::new()
        .on("request_headers", "(call $spin)")
        .with("(func $spin (loop $again (br $again)))");
    let mut sim = guest
        .setting(Profile::Envoy)
        .limits(limits)
        .start()
        .unwrap();
    let got = sim.send(Request::get("/"));
    assert_eq!(got.status(), 503);
    let trap = &sim.traps()[0];
    assert_eq!(
        (&trap.cause, trap.callback),
        (&TrapCause::Deadline, Callback::RequestHeaders)
    );
    assert_eq!(trap.filter, "guest");
    assert_eq!(trap.backtrace[0], "spin");
    assert!(trap.exchange.is_some());
}

#[test]
fn the_same_request_costs_the_same_fuel_each_time() {
    let mut sim = Guest::new()
        .on("request_headers", "(call $num (i32.const 1))")
        .sim(Profile::Envoy);
    let first = sim.send(Request::get("/")).cost().clone();
    let second = sim.send(Request::get("/")).cost().clone();
    assert!(first.fuel > 0);
    assert_eq!(first, second);
    assert_eq!(first.hostcalls["proxy_log"], 1);
}

// Traps

/// Traps in a callback for requests that have the header `x-trap`.
fn trapper(callback: &str) -> Guest {
    let mut guest = Guest::new();
    let name = guest.text("x-trap");
    let check = format!(
        "(global.set $armed (i32.eqz (call $get_header (i32.const 0) {name} (i32.const 16) (i32.const 20))))"
    );
    let fire = "(if (global.get $armed) (then unreachable))";
    let guest = guest.with("(global $armed (mut i32) (i32.const 0))\n");
    if callback == "request_headers" {
        guest.on("request_headers", &format!("{check} {fire}"))
    } else {
        guest.on("request_headers", &check).on(callback, fire)
    }
}

fn trap() -> Request {
    Request::get("/").header("x-trap", "1")
}

#[test]
fn on_envoy_a_trap_kills_the_vm_for_everyone_unless_the_policy_says_otherwise() {
    let guest = trapper("request_headers");
    let statuses = |policy| {
        let mut sim = Sim::of(Profile::Envoy)
            .on_trap(policy)
            .filter(&guest.module(), json!({}))
            .start()
            .unwrap();
        sim.advance(Duration::from_secs(2));
        let statuses = [
            sim.send(Request::get("/")).status(),
            sim.send(trap()).status(),
            sim.send(Request::get("/")).status(),
        ];
        (statuses, sim.worker().reloads())
    };
    assert_eq!(statuses(FailurePolicy::Closed), ([200, 503, 503], 0));
    assert_eq!(statuses(FailurePolicy::Open), ([200, 503, 200], 0));
    assert_eq!(statuses(FailurePolicy::Reload), ([200, 503, 200], 1));
}

#[test]
fn on_kong_a_trap_in_a_request_phase_is_500_and_later_requests_get_a_new_instance() {
    let mut sim = trapper("request_headers")
        .on("vm_start", "(call $num (i32.const 7))")
        .on("configure", "(call $num (i32.const 8))")
        .sim(Profile::Kong);
    assert_eq!(sim.send(trap()).status(), 500);
    assert_eq!(sim.send(Request::get("/")).status(), 200);
    assert_eq!(said(&sim), ["7", "8", "8"], "only on_configure runs again");
}

#[test]
fn on_kong_a_trap_in_a_response_phase_lets_the_response_pass_unfiltered() {
    for callback in ["response_headers", "response_body"] {
        let mut sim = trapper(callback).sim(Profile::Kong);
        let got = sim.send(trap());
        assert_eq!((got.status(), sim.traps().len()), (200, 1), "{callback}");
    }
    let mut sim = trapper("response_headers").sim(Profile::Envoy);
    assert_eq!(sim.send(trap()).status(), 503);
}

#[test]
fn on_kong_a_trap_in_on_done_takes_the_worker_down() {
    let mut sim = trapper("done").sim(Profile::Kong);
    assert_eq!(sim.send(trap()).status(), 200);
    assert!(sim.traps()[0].kills_worker);
    assert_eq!(sim.send(Request::get("/")).status(), 200, "a new worker");
}

// Calls

/// Calls `auth` in the request headers, logs the answer's status and lines, and what `then` says.
fn caller(action: &str, then: &str) -> Guest {
    let mut guest = Guest::new();
    let target = guest.text("auth:80");
    let headers = guest.map(&[(":method", "GET"), (":path", "/"), (":authority", "auth")]);
    let status = guest.text(":status");
    let why = guest.text(":dispatch_status");
    guest
        .with("(global $stream (mut i32) (i32.const 0))")
        .on(
            "request_headers",
            &format!(
                "(global.set $stream (local.get $id)) (call $dispatch {target} {headers}) {action}"
            ),
        )
        .on(
            "http_call_response",
            &format!(
                "(drop (call $effective (global.get $stream)))
                 (call $num (local.get $headers)) (call $show_header (i32.const 6) {status})
                 (call $show_header (i32.const 6) {why}) {then}"
            ),
        )
}

#[test]
fn a_call_holds_the_request_until_its_answer() {
    let resume = "(drop (call $continue (i32.const 0)))";
    for profile in BOTH {
        let guest = caller(PAUSE, resume);
        let delayed = |_: &_| Answer::status(204).after(Duration::from_millis(5));
        let mut sim = guest
            .setting(profile)
            .on_call("auth:80", delayed)
            .start()
            .unwrap();
        let before = sim.now_unix_nanos();
        let got = sim.send(Request::post("/").body("b"));
        assert_eq!(&got.upstream().unwrap().body[..], b"b", "{profile}");
        assert_eq!(said(&sim)[..3], ["0", "1", "204"]);
        assert_eq!(sim.now_unix_nanos() - before, 5_000_000);
    }
}

#[test]
fn kong_goes_on_by_itself_after_the_last_answer_and_envoy_does_not() {
    for (profile, outcome) in [
        (Profile::Envoy, Outcome::Waiting),
        (Profile::Kong, Outcome::Answered),
    ] {
        let guest = caller(PAUSE, "");
        let setting = guest
            .setting(profile)
            .on_call("auth:80", |_: &_| Answer::status(200));
        assert_eq!(
            setting.start().unwrap().send(Request::get("/")).outcome(),
            outcome
        );
    }
}

#[test]
fn failed_calls_look_as_each_host_shows_them() {
    let seen = |profile, failure| {
        let guest = caller(PAUSE, "(drop (call $continue (i32.const 0)))");
        let mut sim = guest
            .setting(profile)
            .on_call("auth:80", move |_: &_| failure)
            .start()
            .unwrap();
        assert_eq!(sim.send(Request::get("/")).status(), 200);
        said(&sim)[1..].join(" ")
    };
    assert_eq!(seen(Profile::Envoy, CallFailure::Refused), "3 503 1");
    assert_eq!(seen(Profile::Envoy, CallFailure::Timeout), "3 504 1");
    assert_eq!(seen(Profile::Envoy, CallFailure::Reset), "3 503 1");
    assert_eq!(seen(Profile::Envoy, CallFailure::Truncated), "0 2 2");
    assert_eq!(
        seen(Profile::Kong, CallFailure::Refused),
        "0 1 broken connection"
    );
    assert_eq!(seen(Profile::Kong, CallFailure::Timeout), "0 1 timeout");
    assert_eq!(seen(Profile::Kong, CallFailure::Reset), "0 1 ok");
}

#[test]
fn a_call_that_outlasts_its_timeout_fails() {
    let guest = caller(PAUSE, "(drop (call $continue (i32.const 0)))");
    let slow = |_: &_| Answer::status(200).after(Duration::from_secs(9));
    let mut sim = guest
        .setting(Profile::Envoy)
        .on_call("auth:80", slow)
        .start()
        .unwrap();
    let before = sim.now_unix_nanos();
    sim.send(Request::get("/"));
    assert_eq!(said(&sim)[2], "504", "an answer that the host makes");
    assert_eq!(sim.now_unix_nanos() - before, 1_000_000_000);
}

#[test]
fn on_envoy_an_answer_comes_to_the_root_context() {
    let mut guest = Guest::new();
    let target = guest.text("auth:80");
    let headers = guest.map(&[(":method", "GET"), (":path", "/"), (":authority", "auth")]);
    let path = guest.text(":path");
    let guest = guest
        .on(
            "request_headers",
            &format!("(call $dispatch {target} {headers}) {PAUSE}"),
        )
        .on(
            "http_call_response",
            &format!("(call $show_header (i32.const 0) {path})"),
        );
    for (profile, seen) in [(Profile::Envoy, "2"), (Profile::Kong, "/")] {
        let setting = guest.setting(profile);
        let mut sim = setting
            .on_call("auth:80", |_: &_| Answer::status(200))
            .start()
            .unwrap();
        sim.send(Request::get("/"));
        assert_eq!(said(&sim)[1], seen, "{profile}");
    }
}

#[test]
fn the_503_for_a_dead_filter_passes_the_filters_before_it() {
    let module = Guest::new().on("request_headers", "unreachable").module();
    let mut sim = Sim::of(Profile::Envoy)
        .filter(&replier("a").module(), json!({}))
        .filter(&module, json!({}))
        .filter(&replier("c").module(), json!({}))
        .start()
        .unwrap();
    assert_eq!(sim.send(Request::get("/")).status(), 503);
    assert_eq!(said(&sim).join(" "), "a a a c");
}

#[test]
fn an_unknown_cluster_is_refused_at_once() {
    let mut sim = caller("", "").sim(Profile::Envoy);
    assert_eq!(sim.send(Request::get("/")).status(), 200);
    assert_eq!(said(&sim), ["2"]);
}

#[test]
fn calling_and_continuing_crashes_kongs_worker() {
    let guest = caller("", "");
    let setting = |profile| {
        guest
            .setting(profile)
            .on_call("auth:80", |_: &_| Answer::status(200))
    };
    let mut sim = setting(Profile::Kong).start().unwrap();
    let got = sim.send(Request::get("/"));
    assert_eq!(got.outcome(), Outcome::Reset(ResetReason::WorkerCrash));
    let mut sim = setting(Profile::Envoy).start().unwrap();
    assert_eq!(sim.send(Request::get("/")).status(), 200);
    let found: Vec<_> = sim.portability().iter().map(|f| (f.host, f.row)).collect();
    assert_eq!(found, [(Host::Kong, Row::CallThenContinue)]);
}

#[test]
fn a_call_from_a_response_phase_works_on_envoy_and_traps_on_kong() {
    let mut guest = Guest::new();
    let target = guest.text("auth:80");
    let headers = guest.map(&[(":method", "GET"), (":path", "/"), (":authority", "auth")]);
    let guest = guest.on(
        "response_headers",
        &format!("(call $dispatch {target} {headers})"),
    );
    let setting = |profile| {
        guest
            .setting(profile)
            .on_call("auth:80", |_: &_| Answer::status(200))
    };
    let mut sim = setting(Profile::Envoy).start().unwrap();
    assert_eq!(sim.send(Request::get("/")).status(), 200);
    assert_eq!(sim.calls().len(), 1);
    assert_eq!(sim.portability()[0].row, Row::CallPhase);
    let mut sim = setting(Profile::Kong).start().unwrap();
    assert_eq!(sim.send(Request::get("/")).status(), 200, "fails open");
    assert!(matches!(sim.traps()[0].cause, TrapCause::Host(_)));
}

// Replies

/// Replies in the request headers when asked by `x-reply`, and logs `name` in every other callback.
fn replier(name: &str) -> Guest {
    let mut guest = Guest::new();
    let (asked, body, who) = (
        guest.text(&format!("x-reply-{name}")),
        guest.text("no"),
        guest.text(name),
    );
    guest
        .on(
            "request_headers",
            &format!(
                "(if (i32.eqz (call $get_header (i32.const 0) {asked} (i32.const 16) (i32.const 20)))
                   (then (drop (call $reply (i32.const 403) (i32.const 0) (i32.const 0) {body} (i32.const 0) (i32.const 0) (i32.const -1))) {PAUSE}))
                 (call $say {who})"
            ),
        )
        .on("response_headers", &format!("(call $say {who})"))
        .on("log", &format!("(call $say {who})"))
}

fn chain(profile: Profile, names: &[&str]) -> Sim {
    let setting = names.iter().fold(Sim::of(profile), |setting, name| {
        setting.filter(&replier(name).module(), json!({}))
    });
    setting.start().unwrap()
}

#[test]
fn responses_pass_the_filters_in_reverse_on_envoy_and_in_order_on_kong() {
    for (profile, order) in [
        (Profile::Envoy, "a b b a a b"),
        (Profile::Kong, "a b a b a b"),
    ] {
        let mut sim = chain(profile, &["a", "b"]);
        sim.send(Request::get("/"));
        assert_eq!(said(&sim).join(" "), order, "{profile}");
    }
}

#[test]
fn a_reply_passes_the_filters_that_saw_the_request_on_envoy_and_all_on_kong() {
    for (profile, order) in [
        (Profile::Envoy, "a b a a b c"),
        (Profile::Kong, "a a b c a b c"),
    ] {
        let mut sim = chain(profile, &["a", "b", "c"]);
        let got = sim.send(Request::get("/").header("x-reply-b", "1"));
        assert_eq!(said(&sim).join(" "), order, "{profile}");
        assert_eq!((got.status(), got.upstream()), (403, None));
    }
}

#[test]
fn kong_appends_a_line_feed_to_replies() {
    for (profile, body) in [(Profile::Envoy, "no"), (Profile::Kong, "no\n")] {
        let got = chain(profile, &["a"]).send(Request::get("/").header("x-reply-a", "1"));
        assert_eq!(
            (got.outcome(), got.text().as_str()),
            (Outcome::Answered, body)
        );
    }
}

#[test]
fn kong_keeps_the_last_of_a_replys_duplicate_headers() {
    let mut guest = Guest::new();
    let headers = guest.map(&[("set-cookie", "a"), ("set-cookie", "b")]);
    let guest = guest.on(
        "request_headers",
        &format!(
            "(drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) {headers} (i32.const -1))) {PAUSE}"
        ),
    );
    for (profile, lines) in [(Profile::Envoy, 2), (Profile::Kong, 1)] {
        let got = guest.sim(profile).send(Request::get("/"));
        assert_eq!(
            got.headers().get_all("set-cookie").count(),
            lines,
            "{profile}"
        );
    }
}

#[test]
fn a_reply_from_the_response_headers_replaces_the_upstreams_on_envoy_and_hangs_the_client_on_kong()
{
    let mut guest = Guest::new();
    let body = guest.text("short");
    let guest = guest.on(
        "response_headers",
        &format!("(call $answer (i32.const 418) {body}) {PAUSE}"),
    );
    let send = |profile| {
        let mut sim = guest.sim(profile);
        sim.upstream(|_| Answer::status(200).body("what the upstream says"));
        sim.send(Request::get("/"))
    };
    let got = send(Profile::Envoy);
    assert_eq!((got.status(), got.text().as_str()), (418, "short"));
    let got = send(Profile::Kong);
    assert_eq!(got.status(), 418);
    assert!(matches!(
        got.outcome(),
        Outcome::Misframed {
            declared: 22,
            sent: 5
        }
    ));
}

// Ticks and contexts

#[test]
fn ticks_come_by_the_virtual_clock_and_can_be_set_again_on_envoy_only() {
    let guest = Guest::new()
        .on("configure", "(call $num (call $tick (i32.const 100)))")
        .on("tick", "(call $num (i32.const 5))");
    for profile in BOTH {
        let mut sim = guest.sim(profile);
        sim.advance(Duration::from_millis(350));
        assert_eq!(said(&sim), ["0", "5", "5", "5"], "{profile}");
    }
    let again = guest.on("vm_start", "(drop (call $tick (i32.const 50)))");
    assert!(again.setting(Profile::Envoy).start().is_ok());
    assert!(matches!(
        again.setting(Profile::Kong).start().err().map(|e| e.cause),
        Some(StartFailure::Trapped(_))
    ));
}

#[test]
fn a_tick_resumes_a_waiting_request_on_envoy() {
    let guest = Guest::new()
        .with("(global $waits (mut i32) (i32.const 0))")
        .on("configure", "(drop (call $tick (i32.const 100)))")
        .on(
            "request_headers",
            &format!("(global.set $waits (local.get $id)) {PAUSE}"),
        )
        .on(
            "tick",
            "(if (global.get $waits) (then
               (call $num (call $effective (global.get $waits)))
               (drop (call $continue (i32.const 0)))
               (global.set $waits (i32.const 0))))
             (call $num (call $effective (i32.const 999)))",
        );
    let mut sim = guest.sim(Profile::Envoy);
    let got = sim.send(Request::post("/").body("b"));
    assert_eq!(got.outcome(), Outcome::Answered);
    assert_eq!(
        said(&sim),
        ["0", "2"],
        "and an unknown context is a bad argument"
    );
}

#[test]
fn entries_of_one_module_share_a_vm_and_keep_their_configurations() {
    let guest = Guest::new()
        .with("(global $seen (mut i32) (i32.const 0))")
        .on(
            "configure",
            "(call $show_buffer (i32.const 7) (i32.const 0) (i32.const 100))",
        )
        .on(
            "request_headers",
            "(global.set $seen (i32.add (global.get $seen) (i32.const 1))) (call $num (global.get $seen))",
        );
    let module = guest.module();
    for profile in BOTH {
        let mut sim = Sim::of(profile)
            .filter(&module, json!({"n": 1}))
            .filter(&module, json!({"n": 2}))
            .start()
            .unwrap();
        sim.send(Request::get("/"));
        assert_eq!(
            said(&sim),
            [r#"{"n":1}"#, r#"{"n":2}"#, "1", "2"],
            "{profile}"
        );
        assert_eq!(sim.worker().memory_bytes(), 2 * 65536);
    }
}

#[test]
fn on_envoy_the_log_comes_before_done_and_on_kong_after() {
    let guest = Guest::new()
        .on("log", "(call $num (i32.const 1))")
        .on("done", "(call $num (i32.const 2))")
        .on("delete", "(call $num (i32.const 3))");
    for (profile, order) in [(Profile::Envoy, "1 2 3"), (Profile::Kong, "2 1 3")] {
        let mut sim = guest.sim(profile);
        sim.send(Request::get("/"));
        assert_eq!(said(&sim).join(" "), order, "{profile}");
    }
}

#[test]
fn a_context_that_is_not_done_is_deleted_after_proxy_done() {
    let guest = Guest::new()
        .with("(global $waits (mut i32) (i32.const 0))")
        .on("configure", "(drop (call $tick (i32.const 100)))")
        .on(
            "done",
            "(global.set $waits (local.get $id)) (return (i32.const 0))",
        )
        .on(
            "tick",
            "(drop (call $effective (global.get $waits))) (call $num (call $done))",
        )
        .on("delete", "(call $num (i32.const 3))");
    let mut sim = guest.sim(Profile::Spec);
    sim.send(Request::get("/"));
    assert!(said(&sim).is_empty());
    sim.advance(Duration::from_millis(100));
    assert_eq!(said(&sim), ["0", "3"]);
}

#[test]
fn a_client_that_goes_away_ends_the_exchange() {
    let guest = caller(PAUSE, "").on("log", "(call $num (i32.const 77))");
    let slow = |_: &_| Answer::status(200).after(Duration::from_secs(9));
    let mut sim = guest
        .setting(Profile::Envoy)
        .on_call("auth:80", slow)
        .start()
        .unwrap();
    let id = sim.begin(Request::get("/"));
    let got = sim.abort(id);
    assert_eq!(got.outcome(), Outcome::Aborted);
    assert_eq!(said(&sim).last(), Some(&"77"));
}

// State

#[test]
fn shared_data_follows_the_host() {
    let mut guest = Guest::new();
    let key = guest.text("k");
    let set = |cas: &str| {
        format!(
            "(call $num (call $set_shared {key} (i32.const 1024) (i32.const 1) (i32.const {cas})))"
        )
    };
    let get = format!(
        "(call $show (call $get_shared {key} (i32.const 16) (i32.const 20) (i32.const 24)))"
    );
    let removed = format!(
        "(call $num (call $set_shared {key} (i32.const 0) (i32.const 0) (i32.load (i32.const 24))))"
    );
    let work = format!(
        "{get} {} {} {} {get} {removed} {get}",
        set("-1"),
        set("0"),
        set("0")
    );
    let guest = guest.on("request_headers", &work);
    for (profile, seen) in [
        (Profile::Envoy, ["1", "0", "0", "0", "k", "0", ""]),
        (Profile::Kong, ["1", "8", "0", "8", "k", "0", "1"]),
    ] {
        let mut sim = guest.sim(profile);
        sim.send(Request::get("/"));
        assert_eq!(said(&sim), seen, "{profile}");
    }
}

#[test]
fn what_a_filter_sets_as_a_property_is_read_by_the_next_one_and_not_by_the_next_request() {
    let mut guest = Guest::new();
    let (path, value) = (guest.text("tollgate.x"), guest.text("me"));
    let state = guest.text("filter_state\0wasm.tollgate.x");
    let kong = guest.text("kong.ctx.shared.x");
    let version = guest.text("kong\0version");
    let guest = guest.on(
        "request_headers",
        &format!(
            "(call $show_property {path}) (call $show_property {kong}) (call $show_property {version})
             (call $num (call $set_property {path} {value})) (call $num (call $set_property {kong} {value}))
             (call $show_property {path}) (call $show_property {state}) (call $show_property {kong})"
        ),
    );
    for (profile, seen) in [
        (Profile::Envoy, "1 1 1 0 0 me me me"),
        (Profile::Kong, "1 1 3.9.1 1 0 1 1 me"),
    ] {
        let mut sim = guest.sim(profile);
        sim.send(Request::get("/"));
        assert_eq!(said(&sim).join(" "), seen, "{profile}");
        sim.send(Request::get("/"));
        assert_eq!(said(&sim)[8..10], ["1", "1"]);
    }
}

#[test]
fn envoys_properties_are_binary_and_kongs_are_text() {
    let mut guest = Guest::new();
    let names = [
        "source\0address",
        "request\0path",
        "request\0query",
        "request\0method",
    ];
    let reads: String = names
        .iter()
        .map(|name| format!("(call $show_property {})", guest.text(name)))
        .collect();
    let port = guest.text("source\0port");
    let guest = guest.on(
        "request_headers",
        &format!(
            "{reads} (drop (call $get_property {port} (i32.const 16) (i32.const 20))) (call $num (i32.load (i32.const 20)))"
        ),
    );
    for (profile, address, port) in [
        (Profile::Envoy, "127.0.0.1:40000", "8"),
        (Profile::Kong, "127.0.0.1", "5"),
    ] {
        let mut sim = guest.sim(profile);
        sim.send(Request::get("/p%20?q=1"));
        assert_eq!(
            said(&sim),
            [address, "/p%20?q=1", "q=1", "GET", port],
            "{profile}"
        );
    }
}

#[test]
fn what_envoy_derives_from_headers_goes_with_them_and_is_back_in_the_log_to_be_read() {
    let mut guest = Guest::new();
    let (path, protocol) = (guest.text("request\0path"), guest.text("request\0protocol"));
    let name = guest.text("x-a");
    let reads = format!("(call $show_property {path}) (call $show_property {protocol})");
    let writes = format!("(call $num (call $set_header (i32.const 0) {name} {name}))");
    let guest = guest
        .on("request_headers", &reads)
        .on("response_headers", &reads)
        .on("log", &format!("{reads} {writes}"));
    let mut sim = guest.sim(Profile::Envoy);
    sim.send(Request::get("/p"));
    assert_eq!(
        said(&sim),
        ["/p", "HTTP/1.1", "1", "HTTP/1.1", "/p", "HTTP/1.1", "2"]
    );
    let mut sim = guest.sim(Profile::Kong);
    sim.send(Request::get("/p"));
    assert_eq!(said(&sim)[2], "/p");
}

#[test]
fn envoy_gives_each_request_an_id_that_filters_see() {
    let mut guest = Guest::new();
    let (header, property) = (guest.text("x-request-id"), guest.text("request\0id"));
    let guest = guest.on(
        "request_headers",
        &format!("(call $show_header (i32.const 0) {header}) (call $show_property {property})"),
    );
    let mut sim = guest.sim(Profile::Envoy);
    sim.send(Request::get("/"));
    let seen = said(&sim);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].len(), 36);
    let mut sim = guest.sim(Profile::Kong);
    sim.send(Request::get("/"));
    assert_eq!((said(&sim)[0], said(&sim)[1].len()), ("1", 32));
}

#[test]
fn queues_tell_their_readers() {
    let mut guest = Guest::new();
    let (name, item) = (guest.text("jobs"), guest.text("job 1"));
    let guest = guest
        .on(
            "configure",
            &format!("(drop (call $register {name} (i32.const 32)))"),
        )
        .on(
            "request_headers",
            &format!("(call $num (call $enqueue (i32.load (i32.const 32)) {item}))"),
        )
        .on(
            "queue_ready",
            "(call $show (call $dequeue (local.get $n) (i32.const 16) (i32.const 20)))
             (call $show (call $dequeue (local.get $n) (i32.const 16) (i32.const 20)))",
        );
    let mut sim = guest.sim(Profile::Envoy);
    sim.send(Request::get("/"));
    assert_eq!(said(&sim), ["0", "job 1", "7"]);
}

#[test]
fn metrics_are_read_by_name() {
    let mut guest = Guest::new();
    let name = guest.text("hits");
    let guest = guest
        .on(
            "configure",
            &format!("(drop (call $define (i32.const 0) {name} (i32.const 32)))"),
        )
        .on(
            "request_headers",
            "(call $num (call $increment (i32.load (i32.const 32)) (i64.const 2)))
             (call $num (call $increment (i32.load (i32.const 32)) (i64.const 0)))",
        );
    let mut sim = guest.sim(Profile::Envoy);
    sim.send(Request::get("/"));
    assert_eq!(sim.metric("hits"), 2);
    assert_eq!(said(&sim), ["0", "2"]);
}

#[test]
fn functions_fail_when_told() {
    let mut guest = Guest::new();
    let name = guest.text("x-a");
    let guest = guest.on(
        "request_headers",
        &format!("(call $show_header (i32.const 0) {name})"),
    );
    let faults = Faults::new()
        .answer("proxy_get_header_map_value", 99)
        .nth(2)
        .answer("proxy_get_header_map_value", 10)
        .nth(3);
    let mut sim = guest
        .setting(Profile::Envoy)
        .faults(faults)
        .start()
        .unwrap();
    for _ in 0..4 {
        sim.send(Request::get("/").header("x-a", "v"));
    }
    assert_eq!(said(&sim), ["v", "99", "10", "v"]);
}

#[test]
fn a_guest_closes_its_stream() {
    let mut sim = Guest::new()
        .on("request_headers", "(call $num (call $close (i32.const 0)))")
        .sim(Profile::Envoy);
    let got = sim.send(Request::get("/"));
    assert_eq!(got.outcome(), Outcome::Reset(ResetReason::ClosedByFilter));
}

#[test]
fn an_upstream_that_can_not_be_reached_is_answered_by_the_host() {
    for (profile, status) in [(Profile::Envoy, 503), (Profile::Kong, 502)] {
        let mut sim = Guest::new().sim(profile);
        sim.upstream(|_| CallFailure::Refused);
        assert_eq!(sim.send(Request::get("/")).status(), status);
    }
}
