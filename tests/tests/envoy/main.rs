//! The shipped key-auth module in a real Envoy: who gets in, what reaches the upstream, and that nothing a client sends
//! takes the VM down.
//!
//! A filter that traps is closed for good here: every later request would get 503, and nothing would hide it.

mod concurrency;
mod desk;
mod header_transform;
mod hostile;
mod kit;
mod limits;
mod redis;
mod rotation;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, EnvoyError, Filter, Listener};
use tollgate_harness::wire::{self, Recorder, Request, Response};
use tollgate_tests::{module, root};

/// The key of the consumer `ada`.
const KEY: &str = "sk-ada-0123456789";

/// An Envoy with one listener for each configuration of key-auth, and an upstream that notes what comes.
struct Gateway {
    envoy: Envoy,
    upstream: Recorder,
}

impl Gateway {
    /// One listener with key-auth for each configuration.
    fn start(configurations: &[(&str, Value)]) -> Self {
        let module = module("key_auth");
        let configurations = configurations.iter();
        let filters =
            configurations.map(|(name, value)| (*name, module.as_path(), value.to_string()));
        Self::with_filters(&filters.collect::<Vec<_>>())
    }

    /// One listener for each module and configuration.
    fn with_filters(filters: &[(&str, &Path, String)]) -> Self {
        let upstream = Recorder::start().unwrap();
        let listeners: Vec<Listener> = filters
            .iter()
            .map(|(name, module, configuration)| Listener {
                name: (*name).to_owned(),
                filters: vec![Filter {
                    name: "key-auth".to_owned(),
                    module: module.to_path_buf(),
                    configuration: configuration.clone(),
                    vm_id: (*name).to_owned(),
                }],
                upstream: upstream.address(),
                proxy_protocol: false,
            })
            .collect();
        let envoy = Envoy::start(&envoy::find().unwrap(), &listeners, 1).unwrap();
        Self { envoy, upstream }
    }

    /// Sends bytes to a listener. The answer, and what the upstream got of it.
    fn send(&self, listener: &str, request: &[u8]) -> (Response, Option<Request>) {
        let address = self.envoy.address(listener).unwrap();
        let method = request
            .split(|byte| *byte == b' ')
            .next()
            .unwrap_or_default();
        let method = String::from_utf8_lossy(method).into_owned();
        let response = wire::exchange(address, &method, request)
            .unwrap_or_else(|error| panic!("{listener}: {error}\n{}", self.envoy.log().unwrap()));
        (response, self.upstream.take_seen().pop())
    }

    /// Sends a GET request with these header lines.
    fn get(&self, listener: &str, lines: &[&str]) -> (Response, Option<Request>) {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(
            listener,
            format!("GET / HTTP/1.1\r\nHost: gateway.test\r\n{lines}\r\n").as_bytes(),
        )
    }

    /// Asserts that no VM was lost.
    fn assert_vms_alive(&self) {
        let signs = self.signs_of_lost_vms();
        assert!(signs.is_empty(), "{signs:#?}");
    }

    /// What tells of a VM that trapped: a counted reload, or a line in the log. (With `FAIL_CLOSED` Envoy logs the trap
    /// and counts nothing.)
    fn signs_of_lost_vms(&self) -> Vec<String> {
        let reloads = self.envoy.stats("vm_reload").unwrap();
        assert!(
            !reloads.is_empty(),
            "Envoy counts no VM reloads any more: find their new name"
        );
        let counted = reloads.into_iter().filter(|(_, count)| *count > 0);
        let log = self.envoy.log().unwrap();
        let trapped = |line: &&str| line.contains("[critical]") || line.contains("] Function: ");
        counted
            .map(|(name, count)| format!("{name}: {count}"))
            .chain(log.lines().filter(trapped).map(str::to_owned))
            .collect()
    }
}

/// A configuration with the consumer `ada` and these further fields.
fn configuration(more: Value) -> Value {
    let mut configuration = json!({
        "host": "envoy",
        "key_names": ["apikey", "authorization"],
        "consumers": [{
            "id": "ada-id",
            "username": "ada",
            "custom_id": "ada-1815",
            "credentials": [{"id": "ada-laptop", "key": KEY}],
        }],
    });
    let fields = configuration.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    configuration
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get_str(name)
}

#[test]
fn a_key_lets_in_and_names_its_consumer_to_the_upstream() {
    let gateway = Gateway::start(&[("main", configuration(json!({})))]);
    let ways = [
        format!("apikey: {KEY}"),
        format!("Authorization: Bearer {KEY}"),
        format!("authorization: bearer  {KEY}"),
    ];
    for way in ways {
        let (response, seen) = gateway.get("main", &[&way]);
        assert_eq!(response.status, 200, "{way}");
        let seen = seen.unwrap();
        assert_eq!(header(&seen, "x-consumer-id"), Some("ada-id"), "{way}");
        assert_eq!(header(&seen, "x-consumer-username"), Some("ada"), "{way}");
        assert_eq!(
            header(&seen, "x-consumer-custom-id"),
            Some("ada-1815"),
            "{way}"
        );
        assert_eq!(
            header(&seen, "x-credential-identifier"),
            Some("ada-laptop"),
            "{way}"
        );
    }
    gateway.assert_vms_alive();
}

#[test]
fn without_a_right_key_the_upstream_sees_nothing() {
    let gateway = Gateway::start(&[("main", configuration(json!({"realm": "llm"})))]);
    for (line, message) in [
        ("X-Other: 1", "No API key found in request"),
        ("apikey: wrong", "Unauthorized"),
        ("apikey: sk-ada-012345678", "Unauthorized"),
        ("Authorization: Bearer wrong", "Unauthorized"),
    ] {
        let (response, seen) = gateway.get("main", &[line]);
        assert_eq!(response.status, 401, "{line}");
        assert_eq!(
            response.headers.get_str("www-authenticate"),
            Some("Key realm=\"llm\""),
            "{line}"
        );
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["message"], message, "{line}");
        assert!(seen.is_none(), "{line}");
    }
    gateway.assert_vms_alive();
}

#[test]
fn identity_headers_of_the_client_never_reach_the_upstream() {
    let gateway = Gateway::start(&[
        ("keyed", configuration(json!({}))),
        ("anonymous", configuration(json!({"anonymous": "ada"}))),
        (
            "preflight",
            configuration(json!({"run_on_preflight": false})),
        ),
    ]);
    let spoofed = [
        "X-Consumer-ID: root",
        "x-consumer-username: root",
        "X-CONSUMER-CUSTOM-ID: root",
        "X-Credential-Identifier: root",
        "X-Credential-Identifier: root2",
        "X-Anonymous-Consumer: root",
        "X-Consumer-ID: root2",
    ];
    let lines = |request: &Request| -> Vec<String> {
        let lines = request.headers.iter();
        lines
            .map(|(name, value)| {
                format!(
                    "{}: {}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                )
            })
            .collect()
    };
    let key = format!("apikey: {KEY}");
    let (_, keyed) = gateway.get("keyed", &[&spoofed[..], &[&key]].concat());
    let (_, anonymous) = gateway.get("anonymous", &spoofed);
    let preflight = format!(
        "OPTIONS / HTTP/1.1\r\nHost: gateway.test\r\n{}\r\n\r\n",
        spoofed.join("\r\n")
    );
    let (_, preflight) = gateway.send("preflight", preflight.as_bytes());
    for (case, seen) in [
        ("keyed", keyed),
        ("anonymous", anonymous),
        ("preflight", preflight),
    ] {
        let lines = lines(&seen.unwrap());
        assert!(
            lines.iter().all(|line| !line.contains("root")),
            "{case}: {lines:#?}"
        );
    }
    gateway.assert_vms_alive();
}

#[test]
fn a_refused_configuration_is_told_with_all_its_mistakes() {
    let broken = configuration(json!({"key_names": ["a b"], "key_in_heder": true}));
    let gateway = Gateway::start(&[("good", configuration(json!({}))), ("broken", broken)]);
    let refused = gateway.envoy.address("broken").unwrap_err();
    assert!(matches!(refused, EnvoyError::Refused { .. }), "{refused}");
    let reason = refused.to_string();
    for part in [
        "key_names[0]: bad header name 'a b'",
        "key_in_heder: unknown field",
    ] {
        assert!(reason.contains(part), "{part:?} is not in {reason}");
    }
    assert!(!reason.contains(KEY), "{reason}");
    let (response, _) = gateway.get("good", &[&format!("apikey: {KEY}")]);
    assert_eq!(response.status, 200);
}

#[test]
fn no_key_is_ever_logged() {
    let gateway = Gateway::start(&[("main", configuration(json!({})))]);
    let (good, _) = gateway.get("main", &[&format!("apikey: {KEY}")]);
    let (bad, _) = gateway.get("main", &["apikey: sk-bad-9876543210"]);
    assert_eq!((good.status, bad.status), (200, 401));
    let log = gateway.envoy.log().unwrap();
    assert!(
        !log.contains(KEY) && !log.contains("sk-bad-9876543210"),
        "{log}"
    );
}

#[test]
fn the_examples_for_users_are_configurations_that_envoy_takes() {
    for (filter, example) in [
        ("key_auth", "envoy/key-auth.yaml"),
        ("header_transform", "envoy/header-transform.yaml"),
        ("token_rate_limit", "envoy/token-rate-limit.yaml"),
    ] {
        assert!(module(filter).is_file());
        let validated = Command::new(envoy::find().unwrap())
            .args(["--mode", "validate", "--config-path", example])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(
            validated.status.success(),
            "{example}: {}",
            String::from_utf8_lossy(&validated.stderr)
        );
    }
}

/// A filter that traps on a request with more than 20 headers.
const FRAGILE: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $end i32) (result i32)
        (if (i32.gt_u (local.get $count) (i32.const 20)) (then (unreachable)))
        (i32.const 0)))"#;

#[test]
fn a_lost_vm_would_be_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let module = directory.path().join("fragile.wasm");
    std::fs::write(&module, wat::parse_str(FRAGILE).unwrap()).unwrap();
    let gateway = Gateway::with_filters(&[("fragile", &module, String::new())]);
    assert_eq!(gateway.get("fragile", &[]).0.status, 200);
    gateway.assert_vms_alive();
    assert_eq!(gateway.get("fragile", &["X-Many: 1"; 21]).0.status, 503);
    assert_eq!(
        gateway.get("fragile", &[]).0.status,
        503,
        "the VM stays dead"
    );
    assert!(!gateway.signs_of_lost_vms().is_empty());
}

#[test]
fn nothing_a_client_sends_takes_a_vm_down() {
    let body = json!({"key_in_body": true, "hide_credentials": true});
    let gateway = Gateway::start(&[
        ("plain", configuration(json!({}))),
        ("body", configuration(body)),
    ]);
    let good = format!("apikey: {KEY}");
    for attack in hostile::attacks(KEY) {
        for listener in ["plain", "body"] {
            attack.run(&gateway, listener);
            for alive in ["plain", "body"] {
                let (response, _) = gateway.get(alive, &[&good]);
                assert_eq!(
                    response.status,
                    200,
                    "{alive} after {} on {listener}: {}",
                    attack.name,
                    gateway.envoy.log().unwrap()
                );
            }
        }
    }
    gateway.assert_vms_alive();
}
