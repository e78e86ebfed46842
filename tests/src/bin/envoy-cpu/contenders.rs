//! What is compared: filters, and what Envoy itself has for the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate_harness::envoy::Filter;
use tollgate_tests::{consumers, module};

use crate::load::Load;

/// A listener with filters.
pub struct Contender {
    /// The listener's name, and the row's.
    pub name: String,
    pub load: Load,
    pub filters: Vec<Filter>,
}

/// Those that get this load: first the one without filters, then the one with a filter that does nothing.
pub fn contenders(load: Load) -> Vec<Contender> {
    let filters = match load {
        Load::Get => vec![
            ("key-auth", vec![key_auth("one", 500..501)]),
            (
                "header-transform, 3 rules",
                vec![filter("header-transform", "headers", &header_rules())],
            ),
            (HEADER_MUTATION, Vec::new()),
            (LUA, Vec::new()),
            (
                "key-auth, 1,000 credentials",
                vec![key_auth("thousand", 500..1500)],
            ),
            (
                "token-rate-limit, requests",
                vec![filter("token-rate-limit", "requests", &request_limit())],
            ),
        ],
        Load::Chat | Load::Stream => vec![(
            "token-rate-limit",
            vec![filter("token-rate-limit", "tokens", &token_limits())],
        )],
    };
    let none = [
        ("no filter", Vec::new()),
        ("no-op filter", vec![filter("noop", "noop", &json!({}))]),
    ];
    none.into_iter()
        .chain(filters)
        .map(|(name, filters)| Contender {
            name: name.to_owned(),
            load,
            filters,
        })
        .collect()
}

impl Contender {
    /// The name of its listener: names are told apart by their load.
    pub fn listener(&self) -> String {
        match self.load {
            Load::Get => self.name.clone(),
            load => format!("{}, {}", self.name, load.title()),
        }
    }
}

fn filter(name: &str, vm_id: &str, configuration: &Value) -> Filter {
    Filter {
        name: name.to_owned(),
        module: module(&name.replace('-', "_")),
        configuration: configuration.to_string(),
        vm_id: vm_id.to_owned(),
    }
}

fn key_auth(vm_id: &str, numbers: std::ops::Range<u32>) -> Filter {
    let configuration = json!({"host": "envoy", "consumers": consumers(numbers)});
    filter("key-auth", vm_id, &configuration)
}

fn header_rules() -> Value {
    json!({"host": "envoy", "request": {
        "add": {"headers": ["X-Gateway-Version:2.0.0", "X-Cluster-ID:prod-01"]},
        "remove": {"headers": ["X-Internal-Debug"]},
    }})
}

fn request_limit() -> Value {
    json!({"host": "envoy", "minute": 1_000_000_000, "limit_by": "ip"})
}

/// A request limit, and a token rule of two windows.
fn token_limits() -> Value {
    let rule =
        json!({"name": "all", "by": ["ip"], "minute": 1_000_000_000, "day": 100_000_000_000_u64});
    json!({"host": "envoy", "minute": 1_000_000_000, "limit_by": "ip", "tokens": [rule]})
}

/// The same three header rules by Envoy's own filters.
const HEADER_MUTATION: &str = "Envoy's header_mutation";
const LUA: &str = "Envoy's Lua";

/// Filters of Envoy's own, by listener.
pub fn native() -> BTreeMap<String, Value> {
    let add = |name: &str, value: &str| json!({"append": {"header": {"key": name, "value": value}, "append_action": "ADD_IF_ABSENT"}});
    let mutation = json!({
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [
                {"remove": "x-internal-debug"},
                add("x-gateway-version", "2.0.0"),
                add("x-cluster-id", "prod-01"),
            ]},
        },
    });
    let script = "function envoy_on_request(handle)
        local headers = handle:headers()
        headers:remove('x-internal-debug')
        if not headers:get('x-gateway-version') then headers:add('x-gateway-version', '2.0.0') end
        if not headers:get('x-cluster-id') then headers:add('x-cluster-id', 'prod-01') end
    end";
    let lua = json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script},
        },
    });
    BTreeMap::from([
        (HEADER_MUTATION.to_owned(), mutation),
        (LUA.to_owned(), lua),
    ])
}
