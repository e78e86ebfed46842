//! What `inspect` tells of a module.

use tollgate_harness::inspect::{Inspection, Severity, inspect};
use tollgate_harness::profile::Host;

/// The smallest module that both hosts take, with `extra` in it.
fn module(imports: &str, extra: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {imports}
            (memory (export "memory") 2 8)
            (global $stack (mut i32) (i32.const 65536))
            (data (i32.const 65536) "data")
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) unreachable)
            (func (export "proxy_on_context_create") (param i32 i32))
            (func (export "proxy_on_vm_start") (param i32 i32) (result i32) unreachable)
            (func (export "proxy_on_configure") (param i32 i32) (result i32) unreachable)
            {extra})"#
    );
    wat::parse_str(text).unwrap()
}

const MARKER: &str = r#"(func (export "proxy_abi_version_0_2_1"))"#;

fn fatal(inspection: &Inspection, host: Host) -> Vec<&str> {
    inspection
        .refusals
        .iter()
        .filter(|refusal| refusal.host == host && refusal.severity == Severity::Fatal)
        .map(|refusal| refusal.what.as_str())
        .collect()
}

#[test]
fn a_good_module_is_measured_and_not_refused() {
    let bytes = module("", MARKER);
    let found = inspect("tollgate_x", &bytes).unwrap();
    assert_eq!(found.abi, ["proxy_abi_version_0_2_1"]);
    assert_eq!(
        (found.memory_pages, found.memory_max_pages),
        (Some(2), Some(8))
    );
    assert_eq!(found.stack_bytes, Some(65536));
    assert_eq!(found.bytes, bytes.len());
    assert!(found.names && found.refusals.is_empty(), "{found}");
    assert!(found.exports.contains(&"proxy_on_configure".to_owned()));
    assert!(found.to_string().contains("stack    64 KiB"), "{found}");
}

#[test]
fn a_module_without_a_marker_is_refused_by_both_hosts() {
    let found = inspect("x", &module("", "")).unwrap();
    for host in [Host::Envoy, Host::Kong] {
        assert!(fatal(&found, host)[0].contains("proxy_abi_version_0_2_1"));
    }
}

#[test]
fn unknown_imports_are_named() {
    let import = r#"(import "env" "proxy_frobnicate" (func))"#;
    let found = inspect("x", &module(import, MARKER)).unwrap();
    assert_eq!(found.imports, ["env.proxy_frobnicate"]);
    assert!(fatal(&found, Host::Envoy)[0].contains("env.proxy_frobnicate"));
}

#[test]
fn functions_of_wasi_that_no_host_has_are_named_and_the_others_pass() {
    let import = r#"(import "wasi_snapshot_preview1" "fd_teleport" (func))
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func (param i32 i32) (result i32)))"#;
    let found = inspect("x", &module(import, MARKER)).unwrap();
    assert_eq!(fatal(&found, Host::Envoy).len(), 1, "{found}");
    assert!(fatal(&found, Host::Envoy)[0].contains("wasi_snapshot_preview1.fd_teleport"));
}

#[test]
fn what_kong_does_not_stand_is_told() {
    let imports = r#"(import "env" "proxy_get_log_level" (func (param i32) (result i32)))
        (import "env" "proxy_done" (func (result i32)))"#;
    let found = inspect("my-filter", &module(imports, MARKER)).unwrap();
    assert!(fatal(&found, Host::Kong)[0].contains("proxy_get_log_level"));
    assert!(fatal(&found, Host::Envoy).is_empty());
    let text = found.to_string();
    assert!(text.contains("calling proxy_done traps"), "{text}");
    assert!(text.contains("hyphen"), "{text}");
    let found = inspect("key-auth", &module("", MARKER)).unwrap();
    assert!(fatal(&found, Host::Kong)[0].contains("bundled plugin"));
}

#[test]
fn a_stack_above_the_data_is_not_guessed() {
    let text =
        r#"(module (memory 17) (global (mut i32) (i32.const 1048576)) (data (i32.const 8) "x"))"#;
    assert_eq!(
        inspect("x", &wat::parse_str(text).unwrap())
            .unwrap()
            .stack_bytes,
        None
    );
}

#[test]
fn what_is_no_module_is_said_to_be_none() {
    assert!(inspect("x", b"#!/bin/sh").is_err());
}
