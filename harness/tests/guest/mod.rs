//! Small guests in the text form, for tests of the host.
//!
//! A guest's callbacks are written as instructions. What it reads it logs, so that a test sees what the guest saw.

#![allow(
    dead_code,
    reason = "each test file builds this module by itself and uses a part of it"
)]

use serde_json::json;
use tollgate_harness::engine::{Engine, Module};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Setting, Sim};

/// A guest that is being written.
#[derive(Default)]
pub(crate) struct Guest {
    data: Vec<u8>,
    imports: String,
    functions: String,
}

/// Where the guest's texts begin; below it are the host's out-parameters and numbers being written.
const DATA: usize = 1024;

impl Guest {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Puts a text into the guest's memory; two constants for its address and length.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let at = DATA + self.data.len();
        self.data.extend_from_slice(text.as_bytes());
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// A header map in its wire form; two constants for its address and length.
    pub(crate) fn map(&mut self, pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let bytes = tollgate_harness::abi::encode_pairs(pairs);
        let at = DATA + self.data.len();
        self.data.extend_from_slice(&bytes);
        format!("(i32.const {at}) (i32.const {})", bytes.len())
    }

    /// Adds a callback by its name without `proxy_on_`. Instructions leave nothing on the stack; the callback answers
    /// 0 (`Continue`; for `vm_start`, `configure` and `done` 1) unless they return.
    pub(crate) fn on(mut self, name: &str, instructions: &str) -> Self {
        let (params, result) = match name {
            "request_headers" | "request_body" | "response_headers" | "response_body" => {
                ("(param $id i32) (param $n i32) (param $end i32)", Some(0))
            }
            "request_trailers" | "response_trailers" => ("(param $id i32) (param $n i32)", Some(0)),
            "vm_start" | "configure" => ("(param $id i32) (param $n i32)", Some(1)),
            "done" => ("(param $id i32)", Some(1)),
            "tick" | "log" | "delete" => ("(param $id i32)", None),
            "context_create" | "queue_ready" => ("(param $id i32) (param $n i32)", None),
            "http_call_response" => (
                "(param $id i32) (param $token i32) (param $headers i32) (param $n i32) (param $trailers i32)",
                None,
            ),
            other => panic!("no callback {other}"),
        };
        let (result, last) = match result {
            Some(value) => ("(result i32)", format!("(i32.const {value})")),
            None => ("", String::new()),
        };
        self.functions.push_str(&format!(
            "(func (export \"proxy_on_{name}\") {params} {result} {instructions} {last})\n"
        ));
        self
    }

    /// Imports a function besides those that every guest has.
    pub(crate) fn import(mut self, module: &str, name: &str, function: &str) -> Self {
        let line = format!("(import \"{module}\" \"{name}\" (func {function}))\n");
        self.imports.push_str(&line);
        self
    }

    /// Adds anything else.
    pub(crate) fn with(mut self, text: &str) -> Self {
        self.functions.push_str(text);
        self
    }

    pub(crate) fn source(&self) -> String {
        let data: String = self
            .data
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!(
            "(module\n{}{PRELUDE}\n(data (i32.const {DATA}) \"{data}\")\n{}\n)",
            self.imports, self.functions
        )
    }

    pub(crate) fn module(&self) -> Module {
        let engine = Engine::for_simulation().unwrap();
        Module::from_bytes(&engine, "guest", self.source().as_bytes()).unwrap()
    }

    pub(crate) fn setting(&self, profile: Profile) -> Setting {
        Sim::of(profile).filter(&self.module(), json!({}))
    }

    pub(crate) fn sim(&self, profile: Profile) -> Sim {
        self.setting(profile).start().unwrap()
    }
}

/// What guests logged, line by line.
pub(crate) fn said(sim: &Sim) -> Vec<&str> {
    sim.logs()
        .iter()
        .filter(|line| line.level == tollgate_harness::abi::LogLevel::Info)
        .map(|line| line.message.as_str())
        .collect()
}

const PRELUDE: &str = r#"
(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
(import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
(import "env" "proxy_done" (func $done (result i32)))
(import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_pairs" (func $get_map (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_replace_header_map_value" (func $set_header (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_remove_header_map_value" (func $remove_header (param i32 i32 i32) (result i32)))
(import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
(import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
(import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_shared_data" (func $get_shared (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
(import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
(import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
(import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
(import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
(memory (export "memory") 2)
(global $heap (mut i32) (i32.const 65536))
(func (export "proxy_abi_version_0_2_1"))
;; Allocations last for one callback: the heap starts again in each.
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (global.get $heap))
  (global.set $heap (i32.add (global.get $heap) (local.get $size)))
  (local.get $at))
(func $fresh (global.set $heap (i32.const 65536)))
;; Logs bytes.
(func $say (param $at i32) (param $len i32)
  (drop (call $log (i32.const 2) (local.get $at) (local.get $len))))
;; Logs a number below 1000.
(func $num (param $n i32)
  (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $n) (i32.const 100)) (i32.const 10))))
  (i32.store8 (i32.const 65) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $n) (i32.const 10)) (i32.const 10))))
  (i32.store8 (i32.const 66) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
  (if (i32.lt_u (local.get $n) (i32.const 10)) (then (call $say (i32.const 66) (i32.const 1)))
  (else (if (i32.lt_u (local.get $n) (i32.const 100)) (then (call $say (i32.const 65) (i32.const 2)))
  (else (call $say (i32.const 64) (i32.const 3)))))))
;; Logs what the host handed over through 16 and 20, or the status it answered instead.
(func $show (param $status i32)
  (if (local.get $status)
    (then (call $num (local.get $status)))
    (else (call $say (i32.load (i32.const 16)) (i32.load (i32.const 20)))))
  (call $fresh))
;; Logs a request header, a body, a property.
(func $show_header (param $map i32) (param $at i32) (param $len i32)
  (call $show (call $get_header (local.get $map) (local.get $at) (local.get $len) (i32.const 16) (i32.const 20))))
(func $show_buffer (param $kind i32) (param $start i32) (param $max i32)
  (call $show (call $get_buffer (local.get $kind) (local.get $start) (local.get $max) (i32.const 16) (i32.const 20))))
(func $show_property (param $at i32) (param $len i32)
  (call $show (call $get_property (local.get $at) (local.get $len) (i32.const 16) (i32.const 20))))
;; Answers with a status and a body, without headers.
(func $answer (param $status i32) (param $at i32) (param $len i32)
  (call $num (call $reply (local.get $status) (i32.const 0) (i32.const 0) (local.get $at) (local.get $len) (i32.const 0) (i32.const 0) (i32.const -1))))
;; Calls an upstream with headers, no body, one second.
(func $dispatch (param $at i32) (param $len i32) (param $headers i32) (param $headers_len i32)
  (call $num (call $call (local.get $at) (local.get $len) (local.get $headers) (local.get $headers_len)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 24))))
"#;
