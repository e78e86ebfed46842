//! OpenAI's own Python client, unchanged, through the shipped key-auth module in a real Envoy.

use std::process::Command;

use serde_json::json;
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_tests::{module, python, root};

const KEY: &str = "sk-ada-0123456789";

#[test]
fn the_openai_client_works_with_a_key_and_understands_the_refusal_of_another() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    for error_format in ["kong", "openai"] {
        let configuration = json!({
            "host": "envoy",
            "key_names": ["authorization"],
            "hide_credentials": true,
            "error_format": error_format,
            "consumers": [{"id": "ada-id", "username": "ada", "credentials": [{"id": "laptop", "key": KEY}]}],
        });
        let listener = Listener {
            name: "llm".to_owned(),
            filters: vec![Filter {
                name: "key-auth".to_owned(),
                module: module("key_auth"),
                configuration: configuration.to_string(),
                vm_id: "llm".to_owned(),
            }],
            upstream: provider.address(),
            proxy_protocol: false,
        };
        let envoy = Envoy::start(&envoy::find().unwrap(), &[listener], 1).unwrap();
        let client = Command::new(python())
            .arg(root().join("tests/python/openai_client.py"))
            .arg(format!("http://{}/v1", envoy.address("llm").unwrap()))
            .arg(KEY)
            .output()
            .unwrap();
        assert!(
            client.status.success(),
            "{error_format}: {}{}",
            String::from_utf8_lossy(&client.stdout),
            String::from_utf8_lossy(&client.stderr)
        );
        let reloads = envoy.stats("vm_reload").unwrap();
        assert!(reloads.values().all(|count| *count == 0), "{reloads:?}");
    }
}
