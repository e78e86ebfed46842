//! What it costs to keep a limit, here or in Redis.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Filter, Listener, cluster_name};
use tollgate_tests::module;
use tollgate_tests::redis::{Redis, Webdis};

use super::contest::Serving;
use super::{Options, Pace, median, on_this_thread};

/// A limit that nothing here reaches.
const LIMIT: u64 = 1_000_000_000;

/// Sends through each by turns and prints the medians.
pub(super) fn compare(options: &Options) -> anyhow::Result<()> {
    let rounds = options.number("rounds", 5)?;
    let connections = options.number("connections", 32)?;
    let length = Duration::from_secs(options.number("seconds", 3)? as u64);
    let upstream = Serving::upstream()?;
    let redis = Redis::start()?;
    let webdis = Webdis::start(&redis)?;
    let http = json!({
        "upstream": cluster_name(webdis.address()),
        "headers": {"authorization": Webdis::authorization()},
    });
    let listener = |name: &str, filters, upstream| Listener {
        name: name.to_owned(),
        filters,
        upstream,
        proxy_protocol: false,
    };
    let limited = |name: &str, more: Value| {
        let mut configuration =
            json!({"host": "envoy", "year": LIMIT, "limit_by": "ip", "namespace": name});
        if let (Some(fields), Value::Object(more)) = (configuration.as_object_mut(), more) {
            fields.extend(more);
        }
        let filter = Filter {
            name: name.to_owned(),
            module: module("token_rate_limit"),
            configuration: configuration.to_string(),
            vm_id: name.to_owned(),
        };
        anyhow::Ok(listener(name, vec![filter], upstream.address.parse()?))
    };
    let listeners = [
        listener("no filter", Vec::new(), upstream.address.parse()?),
        limited("local", json!({}))?,
        limited(
            "redis",
            json!({"policy": "redis", "redis": {"http": &http}}),
        )?,
        limited(
            "sync",
            json!({"policy": "redis", "redis": {"http": &http}, "sync_rate": 0.5}),
        )?,
        // For its cluster.
        listener("webdis", Vec::new(), webdis.address()),
    ];
    let envoy = Envoy::start(&envoy::find()?, &listeners, 1)?;
    let contenders = ["no filter", "local", "redis", "sync"];
    let mut paces: [Vec<Pace>; 4] = Default::default();
    // One round more, to warm up.
    for round in 0..=rounds {
        for (name, paces) in contenders.iter().zip(&mut paces) {
            let request = |_| "GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n".to_owned();
            let target = envoy.address(name)?.to_string();
            let pace = on_this_thread(super::measure(target, request, connections, length))?;
            if round > 0 {
                paces.push(pace);
            }
        }
    }
    let log = envoy.log()?;
    ensure!(!log.contains("Redis can't be reached"), "{log}");
    println!("medians of {rounds} rounds, {connections} connections, Envoy with one worker");
    for (name, paces) in contenders.iter().zip(&paces) {
        println!(
            "{name:<10} {:>7.0} requests/s   P50 {:>6.0} us   P99 {:>6.0} us",
            median(paces, |pace| pace.rate),
            median(paces, |pace| pace.p50 as f64),
            median(paces, |pace| pace.p99 as f64),
        );
    }
    Ok(())
}
