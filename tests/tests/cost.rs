//! What the shipped modules cost, in figures that don't depend on the machine: fuel (about one for each instruction),
//! host calls, bytes copied, size and memory. They are compared with the golden ones, so that a change that makes
//! requests dearer is seen when it is made. `just fuel-accept` accepts the present ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::{Map, Value, json};
use tollgate_harness::engine::Module;
use tollgate_harness::sim::{Answer, Request, Response, Sim};
use tollgate_harness::vm::Cost;
use tollgate_tests::redis::{Redis, Webdis};
use tollgate_tests::traffic::{
    NO_KEY, chat, request, setting, simulation, tell_usage, token_rules,
};
use tollgate_tests::{consumers, load, module, root};

/// How far a figure may be from the golden one, in hundredths of it.
const TOLERANCE_PERCENT: u64 = 2;

/// The promises of the documentation, in bytes.
const LARGEST_MODULE: u64 = 300 * 1024;
const LARGEST_MEMORY: u64 = 512 * 1024;

/// The key of one consumer out of a thousand.
const KEY: &str = "sk-0000000500-abcdefghijklmnopqrstuvwxyz";

fn configuration(more: Value) -> Value {
    let mut configuration = json!({"host": "envoy", "consumers": consumers(0..1000)});
    configuration
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    configuration
}

fn keyed(method: &str, key: &str) -> Request {
    request(method, ("apikey", key))
}

/// The cost of a request after a first one like it.
fn cost(sim: &mut Sim, request: &Request, status: u16) -> Cost {
    let send = |sim: &mut Sim| -> Response {
        let response = sim.send(request.clone());
        assert_eq!(response.status(), status, "{}", response.text());
        response
    };
    send(sim);
    send(sim).cost().clone()
}

fn key_auth_figures() -> Value {
    let path = module("key_auth");
    let module = load("key_auth");
    let mut plain = simulation(&module, &configuration(json!({})));
    let mut body = simulation(&module, &configuration(json!({"key_in_body": true})));
    let json_body = format!(
        "{{\"apikey\":\"{KEY}\",\"messages\":[\"{}\"]}}",
        "word ".repeat(400)
    );
    let requests = BTreeMap::from([
        ("key in a header", cost(&mut plain, &keyed("GET", KEY), 200)),
        ("no key", cost(&mut plain, &request("GET", NO_KEY), 401)),
        (
            "wrong key",
            cost(&mut plain, &keyed("GET", "sk-wrong"), 401),
        ),
        (
            "key in a JSON body of 2 KB",
            cost(&mut body, &request("POST", NO_KEY).body(json_body), 200),
        ),
    ]);
    json!({
        "module_bytes": fs::metadata(path).unwrap().len(),
        "memory_bytes_at_1000_credentials": plain.worker().memory_bytes(),
        "requests_with_20_headers": requests,
    })
}

/// Every number in a document, by its path.
fn numbers(path: &str, value: &Value, into: &mut BTreeMap<String, u64>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                numbers(&format!("{path}/{name}"), member, into);
            }
        }
        other => {
            into.insert(path.to_owned(), other.as_u64().unwrap());
        }
    }
}

fn flattened(figures: &Value) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    numbers("", figures, &mut found);
    found
}

fn golden_path(filter: &str) -> PathBuf {
    root().join(format!("tests/golden-cost/{filter}.json"))
}

/// Compares figures with the golden ones of a filter.
fn compare(filter: &str, figures: &Value) {
    println!("{figures:#}");
    let path = golden_path(filter);
    if env::var_os("TOLLGATE_ACCEPT_COST").is_some() {
        fs::write(&path, format!("{figures:#}\n")).unwrap();
    }
    let golden =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (golden, figures) = (
        flattened(&serde_json::from_str(&golden).unwrap()),
        flattened(figures),
    );
    let mut changed = Map::new();
    for path in golden.keys().chain(figures.keys()) {
        let before = golden.get(path).copied().unwrap_or_default();
        let now = figures.get(path).copied().unwrap_or_default();
        if before.abs_diff(now) * 100 > before * TOLERANCE_PERCENT {
            changed.insert(path.clone(), json!({"before": before, "now": now}));
        }
    }
    assert!(
        changed.is_empty(),
        "if it is worth it, accept it with `just fuel-accept`: {:#}",
        Value::Object(changed)
    );
}

#[test]
fn key_auth_costs_what_it_cost_before() {
    compare("key_auth", &key_auth_figures());
}

/// The rules of one user's Kong: two headers added, one removed.
fn header_rules() -> Value {
    json!({"host": "envoy", "request": {
        "add": {"headers": ["X-Gateway-Version:2.0.0", "X-Cluster-ID:prod-01"]},
        "remove": {"headers": ["X-Internal-Debug"]},
    }})
}

fn body_rules(compat: &str) -> Value {
    let mut rules = json!({"host": "envoy", "request": {
        "remove": {"body": ["debug"]},
        "rename": {"body": ["input:prompt"]},
        "replace": {"body": ["model:gpt-4o-mini"]},
        "add": {"body": ["user:$(headers['x-stainless-lang'])"]},
        "append": {"body": ["tags:gateway"]},
    }});
    if !compat.is_empty() {
        rules["compat"] = json!(compat);
    }
    rules
}

/// A chat request of 32 KB.
fn chat_of_32_kb() -> String {
    let message = json!({"role": "user", "content": "word ".repeat(190)});
    let messages: Vec<_> = std::iter::repeat_n(message, 33).collect();
    json!({"model": "gpt-4o", "debug": true, "input": "x", "tags": ["a"], "temperature": 0.7, "messages": messages}).to_string()
}

fn header_transform_figures() -> Value {
    let module = load("header_transform");
    let mut headers = simulation(&module, &header_rules());
    let mut body = simulation(&module, &body_rules(""));
    let mut kong = simulation(&module, &body_rules("kong"));
    let mut responses = simulation(
        &module,
        &json!({"host": "envoy", "response": {"remove": {"headers": ["server"]}}}),
    );
    let debugged = request("GET", NO_KEY).header("x-internal-debug", "1");
    let chat = chat_of_32_kb();
    assert!((32_000..33_000).contains(&chat.len()), "{}", chat.len());
    let post = request("POST", NO_KEY).body(chat);
    let requests = BTreeMap::from([
        ("3 header rules", cost(&mut headers, &debugged, 200)),
        (
            "1 header rule for the response",
            cost(&mut responses, &debugged, 200),
        ),
        ("5 rules, JSON body of 32 KB", cost(&mut body, &post, 200)),
        (
            "5 rules, JSON body of 32 KB, compat",
            cost(&mut kong, &post, 200),
        ),
    ]);
    json!({
        "module_bytes": fs::metadata(tollgate_tests::module("header_transform")).unwrap().len(),
        "memory_bytes": headers.worker().memory_bytes(),
        "memory_bytes_after_bodies_of_32_kb": body.worker().memory_bytes(),
        "requests_with_20_headers": requests,
    })
}

/// A simulation of token-rate-limit with so many token rules, whose upstream answers with usage.
fn limiting(module: &Module, rules: usize) -> Sim {
    let rules = token_rules(rules, "ip");
    let configuration =
        json!({"host": "envoy", "minute": 1_000_000, "limit_by": "ip", "tokens": rules});
    let mut sim = simulation(module, &configuration);
    tell_usage(&mut sim);
    sim
}

/// The same, with its counters in Redis.
fn limiting_in_redis(module: &Module, rules: usize, sync_rate: f64) -> Sim {
    let redis = Redis::start().unwrap();
    let webdis = Webdis::start(&redis).unwrap();
    let configuration = json!({
        "host": "envoy", "minute": 1_000_000, "limit_by": "ip", "tokens": token_rules(rules, "ip"),
        "policy": "redis", "sync_rate": sync_rate, "redis": {"http": {"upstream": "webdis"}},
    });
    let setting = setting(module, &configuration).on_call("webdis", move |call| {
        // It lives as long as Webdis is asked.
        let _ = &redis;
        let answer = webdis.post(&call.body);
        Answer::status(answer.status).body(answer.body)
    });
    let mut sim = setting.start().unwrap();
    tell_usage(&mut sim);
    sim
}

fn token_rate_limit_figures() -> Value {
    let module = load("token_rate_limit");
    let mut redis = limiting_in_redis(&module, 1, -1.0);
    let mut synced = limiting_in_redis(&module, 1, 1.0);
    let [mut none, mut one, mut five, mut twenty] =
        [0, 1, 5, 20].map(|rules| limiting(&module, rules));
    let get = request("GET", NO_KEY);
    let (whole, streamed) = (chat("", NO_KEY), chat(r#","stream":true"#, NO_KEY));
    let requests = BTreeMap::from([
        ("request limit", cost(&mut none, &get, 200)),
        ("and 1 token rule", cost(&mut one, &whole, 200)),
        ("and a stream of 200 events", cost(&mut one, &streamed, 200)),
        ("and 1 token rule, in Redis", cost(&mut redis, &whole, 200)),
        (
            "and 1 token rule, with sync_rate",
            cost(&mut synced, &whole, 200),
        ),
        ("and 5 token rules", cost(&mut five, &whole, 200)),
        ("and 20 token rules", cost(&mut twenty, &whole, 200)),
    ]);
    json!({
        "module_bytes": fs::metadata(tollgate_tests::module("token_rate_limit")).unwrap().len(),
        "memory_bytes": one.worker().memory_bytes(),
        "requests_with_20_headers": requests,
    })
}

#[test]
fn token_rate_limit_costs_what_it_cost_before() {
    compare("token_rate_limit", &token_rate_limit_figures());
}

#[test]
fn header_transform_costs_what_it_cost_before() {
    compare("header_transform", &header_transform_figures());
}

#[test]
fn key_auth_is_as_small_as_promised() {
    let size = fs::metadata(module("key_auth")).unwrap().len();
    assert!(size <= LARGEST_MODULE, "the module has {size} bytes");
    let module = load("key_auth");
    let mut sim = simulation(&module, &configuration(json!({})));
    cost(&mut sim, &keyed("GET", KEY), 200);
    let memory = sim.worker().memory_bytes() as u64;
    assert!(
        memory <= LARGEST_MEMORY,
        "1,000 credentials take {memory} bytes of memory"
    );
}
