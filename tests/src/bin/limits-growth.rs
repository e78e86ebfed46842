//! What a request costs token-rate-limit as there are more clients and more rules: fuel (about one for each instruction), host calls,
//! and bytes copied, which are the same on every machine.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tollgate_harness::sim::Sim;
use tollgate_harness::vm::Cost;
use tollgate_tests::load;
use tollgate_tests::traffic::{chat, simulation, tell_usage, token_rules};

const CLIENTS: [u32; 3] = [10, 1_000, 100_000];
const RULES: [usize; 3] = [1, 5, 20];

/// The clients whose requests are measured, spread over all.
const SAMPLES: u32 = 200;

fn main() -> anyhow::Result<()> {
    let of_clients = configuration(1);
    let mut rows = Vec::new();
    let mut sim = start(&of_clients);
    let mut known = 0;
    for clients in CLIENTS {
        let began = Instant::now();
        for client in known..clients {
            ask(&mut sim, client)?;
        }
        known = clients;
        eprintln!("{clients} clients after {:.1?}", began.elapsed());
        let samples = SAMPLES.min(clients);
        let measured = (0..samples).map(|sample| ask(&mut sim, sample * (clients / samples)));
        let costs = measured.collect::<anyhow::Result<Vec<_>>>()?;
        rows.push((format!("clients: {clients}, rules: 1"), costs));
    }
    for rules in RULES {
        let mut sim = start(&configuration(rules));
        ask(&mut sim, 0)?;
        let costs = vec![ask(&mut sim, 0)?];
        rows.push((format!("clients: 1, rules: {rules}"), costs));
    }
    print(&rows)
}

/// A request limit, and token rules of two windows, with a counter of each for every client.
fn configuration(rules: usize) -> Value {
    json!({
        "host": "envoy",
        "minute": 1_000_000,
        "limit_by": "header",
        "header_name": "x-client",
        "tokens": token_rules(rules, "header:x-client"),
        "max_counters": 200_000,
    })
}

fn start(configuration: &Value) -> Sim {
    let mut sim = simulation(&load("token_rate_limit"), configuration);
    tell_usage(&mut sim);
    sim
}

fn ask(sim: &mut Sim, client: u32) -> anyhow::Result<Cost> {
    let client = format!("client-{client:06}");
    let response = sim.send(chat("", ("x-client", &client)));
    ensure!(response.status() == 200, "{}", response.text());
    Ok(response.cost().clone())
}

fn print(rows: &[(String, Vec<Cost>)]) -> anyhow::Result<()> {
    println!(
        "token-rate-limit: a chat request of 0.5 KB with 20 headers, a request limit and token rules of 2 windows"
    );
    println!(
        "{:<24} {:>10} {:>10} {:>11} {:>13} {:>13}",
        "", "fuel", "most", "host calls", "shared data", "bytes copied"
    );
    for (name, costs) in rows {
        let mean = |of: &dyn Fn(&Cost) -> u64| {
            let total: u64 = costs.iter().map(of).sum();
            total as f64 / costs.len() as f64
        };
        let most = costs.iter().map(|cost| cost.fuel).max();
        let shared = |cost: &Cost| {
            let calls = ["proxy_get_shared_data", "proxy_set_shared_data"];
            calls
                .iter()
                .filter_map(|call| cost.hostcalls.get(call))
                .sum()
        };
        println!(
            "{name:<24} {:>10.0} {:>10} {:>11.1} {:>13.1} {:>13.0}",
            mean(&|cost| cost.fuel),
            most.context("nothing measured")?,
            mean(&|cost| cost.hostcalls.values().sum()),
            mean(&shared),
            mean(&|cost| cost.bytes_copied),
        );
    }
    Ok(())
}
