//! WASI as guests meet it: nothing of the machine is behind it.

mod guest;

use std::time::Duration;

use guest::{Guest, said};
use tollgate_harness::abi::LogLevel;
use tollgate_harness::engine::{Engine, LoadError, Module};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Request, Sim};
use tollgate_harness::vm::TrapCause;

const WASI: &str = "wasi_snapshot_preview1";

/// A guest that has these functions of WASI.
fn wasi(functions: &[(&str, &str)]) -> Guest {
    functions
        .iter()
        .fold(Guest::new(), |guest, (name, params)| {
            guest.import(WASI, name, &format!("${name} {params}"))
        })
}

fn run(guest: Guest, instructions: &str) -> Sim {
    let mut sim = guest
        .on("request_headers", instructions)
        .sim(Profile::Envoy);
    sim.send(Request::get("/"));
    sim
}

const CLOCK: (&str, &str) = ("clock_time_get", "(param i32 i64 i32) (result i32)");

/// Logs the seconds that a clock shows, modulo 1000.
fn seconds(clock: u32) -> String {
    format!(
        "(call $num (call $clock_time_get (i32.const {clock}) (i64.const 1) (i32.const 16)))
         (call $num (i32.wrap_i64 (i64.rem_u (i64.div_u (i64.load (i32.const 16)) (i64.const 1000000000)) (i64.const 1000))))"
    )
}

#[test]
fn both_clocks_are_the_virtual_one_and_only_the_wall_clock_jumps_back() {
    let look = format!(
        "{} {} (call $num (call $clock_time_get (i32.const 2) (i64.const 1) (i32.const 16)))",
        seconds(0),
        seconds(1)
    );
    let guest = wasi(&[CLOCK]).on("request_headers", &look);
    let mut sim = guest
        .setting(Profile::Envoy)
        .clock_at(5_000_100)
        .start()
        .unwrap();
    sim.advance(Duration::from_secs(20));
    sim.clock().set(5_000_050 * 1_000_000_000);
    sim.advance(Duration::from_secs(3));
    sim.send(Request::get("/"));
    assert_eq!(
        said(&sim),
        ["0", "53", "0", "23", "58"],
        "and there is no third clock"
    );
}

#[test]
fn random_bytes_follow_the_seed_and_are_given_in_small_portions() {
    let roll = "(call $num (call $random_get (i32.const 256) (i32.const 4)))
        (call $num (i32.rem_u (i32.load (i32.const 256)) (i32.const 1000)))
        (call $num (call $random_get (i32.const 256) (i32.const 65537)))
        (call $num (call $random_get (i32.const -4) (i32.const 8)))";
    let guest = wasi(&[("random_get", "(param i32 i32) (result i32)")]).on("request_headers", roll);
    let rolled = |seed: u64| {
        let mut sim = guest.setting(Profile::Envoy).seed(seed).start().unwrap();
        sim.send(Request::get("/"));
        said(&sim)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let first = rolled(1);
    assert_eq!(
        (first[0].as_str(), first[2].as_str(), first[3].as_str()),
        ("0", "28", "21")
    );
    assert_eq!(rolled(1), first);
    assert_ne!(rolled(2), first);
}

#[test]
fn what_goes_to_the_standard_streams_is_logged_line_by_line() {
    let mut guest = wasi(&[("fd_write", "(param i32 i32 i32 i32) (result i32)")]);
    let (begin, rest, fault) = (
        guest.text("one\ntw"),
        guest.text("o\nleft"),
        guest.text("broken\n"),
    );
    let write = |fd: u32, text: &str| {
        let (at, len) = text.split_once(") ").unwrap();
        format!(
            "(i32.store (i32.const 32) {at})) (i32.store (i32.const 36) {len})
             (call $num (call $fd_write (i32.const {fd}) (i32.const 32) (i32.const 1) (i32.const 40)))"
        )
    };
    let work = [
        write(1, &begin),
        write(1, &rest),
        write(2, &fault),
        write(3, &fault),
    ]
    .join("\n");
    let sim = run(guest, &work);
    assert_eq!(said(&sim), ["one", "0", "two", "0", "0", "8"]);
    let errors = sim
        .logs()
        .iter()
        .filter(|line| line.level == LogLevel::Error);
    assert_eq!(
        errors.map(|line| line.message.as_str()).collect::<Vec<_>>(),
        ["broken"]
    );
}

#[test]
fn there_are_no_arguments_and_no_files() {
    let guest = wasi(&[
        ("args_sizes_get", "(param i32 i32) (result i32)"),
        (
            "path_open",
            "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
        ),
        ("fd_prestat_get", "(param i32 i32) (result i32)"),
        ("fd_read", "(param i32 i32 i32 i32) (result i32)"),
        ("fd_close", "(param i32) (result i32)"),
        ("sock_accept", "(param i32 i32 i32) (result i32)"),
        ("sched_yield", "(result i32)"),
        ("fd_fdstat_get", "(param i32 i32) (result i32)"),
    ]);
    let sim = run(
        guest,
        "(i32.store (i32.const 16) (i32.const 9))
         (call $num (call $args_sizes_get (i32.const 16) (i32.const 20))) (call $num (i32.load (i32.const 16)))
         (call $num (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
           (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 16)))
         (call $num (call $fd_prestat_get (i32.const 3) (i32.const 16)))
         (call $num (call $fd_read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16)))
         (call $num (call $fd_close (i32.const 1)))
         (call $num (call $sock_accept (i32.const 1) (i32.const 0) (i32.const 16)))
         (call $num (call $sched_yield))
         (call $num (call $fd_fdstat_get (i32.const 1) (i32.const 64)))
         (call $num (call $fd_fdstat_get (i32.const 0) (i32.const 64)))",
    );
    assert_eq!(
        said(&sim),
        ["0", "0", "44", "8", "52", "0", "58", "0", "0", "8"]
    );
}

#[test]
fn a_guest_that_exits_traps_with_its_code() {
    let guest = wasi(&[("proc_exit", "(param i32)")]);
    let sim = run(guest, "(call $proc_exit (i32.const 3))");
    assert_eq!(sim.traps()[0].cause, TrapCause::Exit(3));
}

#[test]
fn a_function_that_no_host_has_can_not_be_imported() {
    let source = wasi(&[("fd_teleport", "(param i32) (result i32)")]).source();
    let engine = Engine::for_simulation().unwrap();
    let refused = Module::from_bytes(&engine, "m", source.as_bytes());
    assert!(
        matches!(&refused, Err(LoadError::UnknownImport { function, .. }) if function == "fd_teleport"),
        "{refused:?}"
    );
}
