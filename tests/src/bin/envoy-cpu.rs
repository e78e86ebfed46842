//! Measures the CPU that a request costs a real Envoy: without filters, with one that does nothing, with key-auth, and with three
//! header rules by header-transform, by Envoy's own header_mutation and by Lua.
//!
//! All run in one Envoy with one worker, in interleaved rounds, so that what else happens on the machine hits all
//! alike; the medians are printed. CPU time, not latency: it is what an operator pays, and it depends less on the load
//! generator, which takes its share of the same machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Besides, Envoy, Filter, Listener};
use tollgate_harness::wire::{self, Recorder, Response};
use tollgate_tests::{consumers, module};

/// Rounds that count. One more goes before them, to warm up.
const ROUNDS: usize = 5;

/// Connections that send at the same time.
const CONNECTIONS: usize = 4;

/// Requests of each connection in a round.
const REQUESTS: usize = 4000;

/// What the kernel counts CPU time in, as it tells programs (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

const KEY: &str = "sk-0000000500-abcdefghijklmnopqrstuvwxyz";

fn main() -> anyhow::Result<()> {
    let upstream = Recorder::start()?;
    let contenders = contenders();
    let listeners: Vec<Listener> = contenders
        .iter()
        .map(|(name, filters)| Listener {
            name: (*name).to_owned(),
            filters: filters.clone(),
            upstream: upstream.address(),
            proxy_protocol: false,
        })
        .collect();
    let besides = Besides {
        native: native(),
        ..Besides::default()
    };
    let envoy = Envoy::start_with(&envoy::find()?, &listeners, 1, &besides)?;
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for ((name, _), samples) in contenders.iter().zip(&mut samples) {
            let before = cpu_seconds(envoy.process_id())?;
            send(envoy.address(name)?)?;
            let spent = cpu_seconds(envoy.process_id())? - before;
            drop(upstream.take_seen());
            if round > 0 {
                samples.push(spent * 1e6 / (CONNECTIONS * REQUESTS) as f64);
            }
        }
    }
    print(&contenders, &mut samples)
}

/// What is compared: names and filters.
fn contenders() -> Vec<(&'static str, Vec<Filter>)> {
    let filter = |name: &str, configuration: Value, vm_id: &str| Filter {
        name: name.to_owned(),
        module: module(&name.replace('-', "_")),
        configuration: configuration.to_string(),
        vm_id: vm_id.to_owned(),
    };

    vec![
        ("no filter", Vec::new()),
        ("no-op filter", vec![filter("noop", json!({}), "noop")]),
        (
            "key-auth",
            vec![filter(
                "key-auth",
                json!({"host": "envoy", "consumers": consumers(500..501)}),
                "one",
            )],
        ),
        (
            "header-transform, 3 rules",
            vec![filter(
                "header-transform",
                json!({"host": "envoy", "request": {
                    "add": {"headers": ["X-Gateway-Version:2.0.0", "X-Cluster-ID:prod-01"]},
                    "remove": {"headers": ["X-Internal-Debug"]},
                }}),
                "headers",
            )],
        ),
        (HEADER_MUTATION, Vec::new()),
        (LUA, Vec::new()),
        (
            "key-auth, 1,000 credentials",
            vec![filter(
                "key-auth",
                json!({"host": "envoy", "consumers": consumers(500..1500)}),
                "thousand",
            )],
        ),
    ]
}

/// The same three header rules by Envoy's own filters.
const HEADER_MUTATION: &str = "Envoy's header_mutation";
const LUA: &str = "Envoy's Lua";

fn native() -> BTreeMap<String, Value> {
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

/// Sends all requests of a round.
fn send(address: SocketAddr) -> anyhow::Result<()> {
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|_| thread::spawn(move || send_one_by_one(address)))
        .collect();
    for sender in senders {
        sender
            .join()
            .map_err(|_| anyhow::anyhow!("a sender ended early"))??;
    }
    Ok(())
}

fn send_one_by_one(address: SocketAddr) -> anyhow::Result<()> {
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nHost: gateway.test\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n\
         User-Agent: OpenAI/Python 3.54.0\r\nX-Stainless-Lang: python\r\nX-Stainless-Os: Linux\r\n\
         X-Request-Id: 2f9d3f6c-8d0d-4a52-b7c5-0c1b5c0f3a11\r\nX-Internal-Debug: 1\r\napikey: {KEY}\r\n\r\n"
    );
    let connection = wire::connect(address)?;
    let mut from = BufReader::new(&connection);
    for _ in 0..REQUESTS {
        (&connection).write_all(request.as_bytes())?;
        let response = Response::read(&mut from, "GET")?;
        ensure!(response.status == 200, "status {}", response.status);
    }
    Ok(())
}

/// The CPU time of a process so far, user and system.
fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything; the times are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(") ").context("no process name in /proc")?;
    let mut ticks = fields.split(' ').skip(11);
    let mut next =
        || -> anyhow::Result<f64> { Ok(ticks.next().context("no CPU time in /proc")?.parse()?) };
    Ok((next()? + next()?) / TICKS_PER_SECOND)
}

fn print(contenders: &[(&str, Vec<Filter>)], samples: &mut [Vec<f64>]) -> anyhow::Result<()> {
    let mut medians = Vec::new();
    for sample in samples.iter_mut() {
        sample.sort_by(f64::total_cmp);
        medians.push(*sample.get(ROUNDS / 2).context("no samples")?);
    }
    let baseline = *medians.first().context("nothing compared")?;
    let noop = *medians.get(1).context("no no-op filter")?;
    println!(
        "CPU a request on Envoy 1.40, one worker: medians of {ROUNDS} rounds of {} requests, in us",
        CONNECTIONS * REQUESTS
    );
    println!(
        "{:<28} {:>8} {:>17} {:>12} {:>12}",
        "", "median", "lowest-highest", "to no filter", "to no-op"
    );
    for (((name, _), sample), median) in contenders.iter().zip(samples.iter()).zip(&medians) {
        let (low, high) = (
            sample.first().context("no samples")?,
            sample.last().context("no samples")?,
        );
        println!(
            "{name:<28} {median:>8.1} {:>17} {:>+12.1} {:>+12.1}",
            format!("{low:.1}-{high:.1}"),
            median - baseline,
            median - noop
        );
    }
    Ok(())
}
