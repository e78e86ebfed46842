use crate::experiment::{Experiment, row};
use crate::message::get;

/// A guest of its own: one that imports the function can do nothing else in the kong profile.
const READS_LOG_LEVEL: &str = r#"(module
    (import "env" "proxy_get_log_level" (func $level (param i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "quirks: read")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (if (i32.eqz (call $level (i32.const 0)))
            (then (drop (call $log (i32.const 3) (i32.const 64) (i32.const 12)))))
        (i32.const 0)))"#;

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        row("log-level-import")
            .guest(READS_LOG_LEVEL)
            .send(get("/"))
            .envoy("read")
            .kong("does not start"),
        row("missing-function")
            .send(get("/"))
            .envoy("NotFound")
            .kong("trap: host trap (function not yet implemented)"),
        row("vm-start")
            .entries(&["a", "b"])
            .send(get("/"))
            .everywhere("2 starts, 2 configurations, 2 starts, 2 configurations"),
        row("entries-share-a-vm")
            .entries(&["a", "b"])
            .send(get("/"))
            .everywhere("a 1, b 2"),
        row("filter-order")
            .entries(&["a", "b", "c"])
            .send(get("/"))
            .envoy("c, b, a")
            .kong("a, b, c"),
        row("log-and-done")
            .send(get("/"))
            .envoy("log, done")
            .kong("done, log"),
        row("done-false")
            .send(get("/"))
            .spec("not done")
            .everywhere("not done, deleted"),
        row("tick-again")
            .send(get("/"))
            .envoy("again true")
            .kong("trap: tick_period already set"),
        row("tick-in-stream")
            .send(get("/"))
            .envoy("Ok")
            .kong("trap: can only set tick_period in root context"),
        row("tick-resumes-request")
            .send(get("/"))
            .client()
            .envoy("take Ok, go on Ok, answered | 200")
            .kong("take Ok, go on Ok | hangs"),
        row("effective-context-unknown")
            .send(get("/"))
            .envoy("BadArgument")
            .kong("Ok"),
        row("clock-step")
            .send(get("/"))
            .envoy("nanoseconds")
            .kong("milliseconds"),
        row("environment")
            .send(get("/"))
            .envoy("set")
            .kong("nothing"),
        row("configuration-late")
            .send(get("/"))
            .envoy("NotFound")
            .kong("there"),
        row("configuration-refused")
            .send(get("/"))
            .everywhere("does not start"),
    ]
}
