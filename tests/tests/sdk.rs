//! The providers' own clients, unchanged: straight to the mock provider, so that its answers are what their types
//! demand, through the shipped key-auth module in `tollgate serve` and in a real Envoy, and against limits there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tollgate_harness::catalog::Search;
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::proxy::{Config, Proxy};
use tollgate_tests::{module, python, root};

const KEY: &str = "sk-ada-0123456789";

/// A client's program and the script it runs.
struct Client {
    program: PathBuf,
    script: PathBuf,
}

impl Client {
    /// A script by its name without the end: `openai_client`.
    fn python(script: &str) -> Self {
        Self {
            program: python(),
            script: root().join(format!("tests/python/{script}.py")),
        }
    }

    fn node(script: &str) -> Self {
        let package = root().join("tests/node-sdk");
        assert!(
            package.join("node_modules/openai").is_dir(),
            "no client for Node: set it up with `just setup`"
        );
        Self {
            program: PathBuf::from("node"),
            script: package.join(format!("{script}.mjs")),
        }
    }

    /// Runs the script against a base URL, next to the ledger of the provider behind it.
    fn run(&self, base_url: &str, provider: &MockLlm) {
        self.run_with(&[base_url, KEY], provider);
    }

    /// Runs the script with these arguments and the URL of the provider's ledger.
    fn run_with(&self, arguments: &[&str], provider: &MockLlm) {
        let ledger = format!("http://{}/ledger", provider.address());
        let ran = Command::new(&self.program)
            .arg(&self.script)
            .args(arguments)
            .arg(ledger)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        assert!(
            ran.status.success(),
            "{} with {arguments:?}:\n{}{}",
            self.script.display(),
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    fn works_without_a_gateway(&self) {
        let provider = MockLlm::start(Settings {
            api_keys: vec![KEY.to_owned()],
            ..Settings::default()
        })
        .unwrap();
        self.run(&provider.base_url(), &provider);
    }

    fn works_behind_tollgate_serve(&self) {
        let provider = MockLlm::start(Settings::default()).unwrap();
        let yaml = json!({
            "profile": "envoy",
            "access_log": false,
            "workers": 2,
            "listeners": [{"address": "127.0.0.1:0"}],
            "routes": [{"cluster": "llm", "filters": ["auth"]}],
            "clusters": {"llm": {"endpoints": [provider.address().to_string()]}},
            "filters": {"auth": {"wasm": module("key_auth"), "config": key_auth("openai")}},
        });
        let config = Config::read(&yaml.to_string(), Path::new("."), &Search::from_here(None))
            .unwrap_or_else(|error| panic!("{error}"));
        let gateway = Proxy::start(config.config).unwrap();
        let base_url = format!("http://{}/v1", gateway.addresses()[0]);
        self.run(&base_url, &provider);
        gateway.shutdown();
    }

    /// Runs a script against three gateways with limits, in one Envoy: a wide limit, room for one request in four seconds, and streams that
    /// end when they have used 20 completion tokens.
    fn meets_limits(&self) {
        let provider = MockLlm::start(Settings::default()).unwrap();
        let gateways = [
            ("wide", json!({"year": 100_000}), json!({"year": 1_000_000})),
            (
                "tight",
                json!({}),
                json!({"window_seconds": 4, "limit": 130}),
            ),
            (
                "cut",
                json!({"stream_cutoff": true, "default_completion": 20}),
                json!({"year": 1_000_000}),
            ),
        ];
        let listener = |(name, more, limits): &(&str, Value, Value)| {
            let rule = merged(json!({"name": "all", "by": ["ip"]}), limits);
            let config = json!({"host": "envoy", "error_format": "openai", "limit_by": "ip", "tokens": [rule]});
            Listener {
                name: (*name).to_owned(),
                filters: vec![Filter {
                    name: "token-rate-limit".to_owned(),
                    module: module("token_rate_limit"),
                    configuration: merged(config, more).to_string(),
                    vm_id: (*name).to_owned(),
                }],
                upstream: provider.address(),
                proxy_protocol: false,
            }
        };
        let listeners: Vec<_> = gateways.iter().map(listener).collect();
        let envoy = Envoy::start(&envoy::find().unwrap(), &listeners, 2).unwrap();
        let base_urls =
            gateways.map(|(name, ..)| format!("http://{}/v1", envoy.address(name).unwrap()));
        self.run_with(&base_urls.each_ref().map(String::as_str), &provider);
        let log = envoy.log().unwrap();
        assert!(!log.contains("[critical]"), "{log}");
    }
}

fn merged(mut object: Value, more: &Value) -> Value {
    let fields = object.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    object
}

/// Keys where each provider's client puts them.
fn key_auth(error_format: &str) -> Value {
    json!({
        "host": "envoy",
        "key_names": ["authorization", "x-api-key", "x-goog-api-key"],
        "hide_credentials": true,
        "error_format": error_format,
        "consumers": [{"id": "ada-id", "username": "ada", "credentials": [{"id": "laptop", "key": KEY}]}],
    })
}

#[test]
fn openais_client_for_python_works_without_a_gateway() {
    Client::python("openai_client").works_without_a_gateway();
}

#[test]
fn openais_client_for_python_works_behind_tollgate_serve() {
    Client::python("openai_client").works_behind_tollgate_serve();
}

#[test]
fn openais_client_for_node_works_without_a_gateway() {
    Client::node("openai_client").works_without_a_gateway();
}

#[test]
fn openais_client_for_node_works_behind_tollgate_serve() {
    Client::node("openai_client").works_behind_tollgate_serve();
}

#[test]
fn anthropics_client_works_without_a_gateway() {
    Client::python("anthropic_client").works_without_a_gateway();
}

#[test]
fn anthropics_client_works_behind_tollgate_serve() {
    Client::python("anthropic_client").works_behind_tollgate_serve();
}

#[test]
fn googles_client_works_without_a_gateway() {
    Client::python("gemini_client").works_without_a_gateway();
}

#[test]
fn googles_client_works_behind_tollgate_serve() {
    Client::python("gemini_client").works_behind_tollgate_serve();
}

#[test]
fn openais_client_works_behind_envoy_and_understands_both_forms_of_refusal() {
    for error_format in ["kong", "openai"] {
        let provider = MockLlm::start(Settings::default()).unwrap();
        let listener = Listener {
            name: "llm".to_owned(),
            filters: vec![Filter {
                name: "key-auth".to_owned(),
                module: module("key_auth"),
                configuration: key_auth(error_format).to_string(),
                vm_id: "llm".to_owned(),
            }],
            upstream: provider.address(),
            proxy_protocol: false,
        };
        let envoy = Envoy::start(&envoy::find().unwrap(), &[listener], 1).unwrap();
        let base_url = format!("http://{}/v1", envoy.address("llm").unwrap());
        Client::python("openai_client").run(&base_url, &provider);
        let reloads = envoy.stats("vm_reload").unwrap();
        assert!(reloads.values().all(|count| *count == 0), "{reloads:?}");
    }
}

#[test]
fn openais_client_for_python_understands_limits_and_waits_as_told() {
    Client::python("openai_limits").meets_limits();
}

#[test]
fn openais_client_for_node_understands_limits_and_waits_as_told() {
    Client::node("openai_limits").meets_limits();
}
