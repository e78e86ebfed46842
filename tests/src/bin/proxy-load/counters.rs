//! How many decisions a second Redis makes through Webdis, and how long each takes.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tollgate_tests::redis::{Redis, Webdis, escaped};

use super::{Options, median, on_this_thread};

/// The script of `token-rate-limit`, without comments and indentation, as the filter sends it.
fn charge() -> String {
    let script = concat!(
        include_str!("../../../../plugins/token-rate-limit/src/redis/window.lua"),
        include_str!("../../../../plugins/token-rate-limit/src/redis/charge.lua")
    );
    let lines = script.lines().map(str::trim);
    let code = lines.filter(|line| !line.is_empty() && !line.starts_with("--"));
    code.collect::<Vec<_>>().join("\n")
}

/// Charges one counter with one window over and over, each time as a new operation.
pub(super) fn measure(options: &Options) -> anyhow::Result<()> {
    let rounds = options.number("rounds", 3)?;
    let connections = options.number("connections", 32)?;
    let length = Duration::from_secs(options.number("seconds", 3)? as u64);
    let redis = Redis::start()?;
    let script = charge();
    let digest = redis.command(&["SCRIPT", "LOAD", &script]);
    println!(
        "medians of {rounds} rounds, {connections} connections; the script has {} bytes",
        script.len()
    );
    for threads in [1, 4, 8] {
        let webdis = Webdis::with(&redis, json!({"threads": threads}))?;
        for (command, name) in [("EVALSHA", &digest), ("EVAL", &script)] {
            let mut paces = Vec::new();
            // One round more, to warm up.
            for round in 0..=rounds {
                ensure!(redis.command(&["FLUSHALL"]) == "OK", "Redis is not emptied");
                let head = escaped(&[command, name, "2"]);
                let request = move |number: u64| {
                    let body = format!(
                        "{head}/tollgate:{{load}}:operation:{number:032x}/tollgate:{{load}}:counter:1/\
                         120000/1/1/60/29000000/1000000000000/0/30/60"
                    );
                    format!(
                        "POST / HTTP/1.1\r\nHost: webdis\r\nauthorization: {}\r\ncontent-type: text/plain\r\n\
                         content-length: {}\r\n\r\n{body}",
                        Webdis::authorization(),
                        body.len()
                    )
                };
                let work =
                    super::measure(webdis.address().to_string(), request, connections, length);
                let pace = on_this_thread(work)?;
                let counted = redis.command(&["HGET", "tollgate:{load}:counter:1", "60u"]);
                ensure!(
                    counted == pace.count.to_string(),
                    "{counted} counted of {}",
                    pace.count
                );
                if round > 0 {
                    paces.push(pace);
                }
            }
            println!(
                "{threads} threads, {command:<7} {:>7.0} requests/s   P50 {:>6.0} us   P99 {:>6.0} us",
                median(&paces, |pace| pace.rate),
                median(&paces, |pace| pace.p50 as f64),
                median(&paces, |pace| pace.p99 as f64),
            );
        }
    }
    memory(&redis)
}

/// What counters and operations take of Redis' memory.
fn memory(redis: &Redis) -> anyhow::Result<()> {
    let key = "tollgate:{default}:counter:00000000000000000000000000000000";
    let operation = "tollgate:{default}:operation:00000000000000000000000000000000";
    let said = format!("{:032x} 1 29000000 999999 999999", 1);
    ensure!(
        redis.command(&["SET", operation, &said, "PX", "120000"]) == "OK",
        "not written"
    );
    println!(
        "memory of an operation: {} bytes",
        redis.command(&["MEMORY", "USAGE", operation])
    );
    for windows in [1, 3, 6] {
        let _ = redis.command(&["DEL", key]);
        for window in 0..windows {
            let [n, u, b] =
                ["n", "u", "b"].map(|field| format!("{}{field}", 2_147_483_648_u64 + window));
            let _ = redis.command(&["HSET", key, &n, "29000000", &u, "999999", &b, "999999"]);
        }
        let _ = redis.command(&["EXPIRE", key, "100"]);
        println!(
            "memory of a counter with {windows} windows: {} bytes",
            redis.command(&["MEMORY", "USAGE", key])
        );
    }
    Ok(())
}
