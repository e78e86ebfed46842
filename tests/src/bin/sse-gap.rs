//! Measures the time between two events of a stream as a client sees it through a real Envoy: without filters, and through
//! token-rate-limit, which looks at each event.
//!
//! The same number of streams is open through each at the same time, so that what else happens on the machine hits all alike. The mock
//! provider writes an event every 10 ms. A filter that held events back, or collected them, would show here; a delay that all events share
//! does not: that is the CPU that an event costs, which `envoy-cpu` measures.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::wire;
use tollgate_tests::module;

/// Streams open at the same time through each listener.
const STREAMS: usize = 8;

/// Streams one after the other on each of these.
const ROUNDS: usize = 6;

/// Events that carry a token in each stream, and how many of them come in a second.
const TOKENS: usize = 400;
const RATE: u64 = 100;

fn main() -> anyhow::Result<()> {
    let provider = MockLlm::start(Settings::default())?;
    let contenders = [
        ("no filter", Vec::new()),
        ("no-op filter", vec![filter("noop", &json!({}))]),
        (
            "token-rate-limit",
            vec![filter("token-rate-limit", &limits())],
        ),
    ];
    let listeners = contenders.map(|(name, filters)| Listener {
        name: name.to_owned(),
        filters,
        upstream: provider.address(),
        proxy_protocol: false,
    });
    let envoy = Envoy::start(&envoy::find()?, &listeners, 1)?;
    let mut samples = vec![Vec::new(); listeners.len()];
    // The first round is to warm up.
    for round in 0..=ROUNDS {
        let mut readers = Vec::new();
        for (place, listener) in listeners.iter().enumerate() {
            let address = envoy.address(&listener.name)?;
            for _ in 0..STREAMS {
                readers.push((place, thread::spawn(move || gaps(address))));
            }
        }
        for (place, reader) in readers {
            let gaps = reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader ended early"))??;
            if round > 0 {
                samples
                    .get_mut(place)
                    .context("no such listener")?
                    .extend(gaps);
            }
        }
    }
    print(&listeners, &mut samples)
}

fn filter(name: &str, configuration: &Value) -> Filter {
    Filter {
        name: name.to_owned(),
        module: module(&name.replace('-', "_")),
        configuration: configuration.to_string(),
        vm_id: name.to_owned(),
    }
}

fn limits() -> Value {
    let rule =
        json!({"name": "all", "by": ["ip"], "minute": 1_000_000_000, "day": 100_000_000_000_u64});
    json!({"host": "envoy", "minute": 1_000_000_000, "limit_by": "ip", "tokens": [rule]})
}

/// The times between the events of one stream.
fn gaps(address: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let body =
        r#"{"model":"gpt-4.1","stream":true,"messages":[{"role":"user","content":"Go on."}]}"#;
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nX-Mock: tokens={TOKENS}; rate={RATE}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let connection = wire::connect(address)?;
    (&connection).write_all(request.as_bytes())?;
    let mut lines = BufReader::new(&connection);
    let mut came = Vec::with_capacity(TOKENS);
    loop {
        let mut line = String::new();
        ensure!(lines.read_line(&mut line)? > 0, "the stream ended early");
        if line.starts_with("data: [DONE]") {
            break;
        }
        // Those that say how a stream begins and ends come together with others.
        if line.starts_with("data: ") && line.contains(r#""content":"#) {
            came.push(Instant::now());
        }
    }
    ensure!(came.len() >= TOKENS, "{} events", came.len());
    Ok(came.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

fn print(listeners: &[Listener], samples: &mut [Vec<Duration>]) -> anyhow::Result<()> {
    println!(
        "time between two events on Envoy 1.40, one worker: {} streams through each listener at once, {RATE} events a second, in ms",
        STREAMS
    );
    println!(
        "{:<20} {:>8} {:>10} {:>10} {:>10} {:>10}",
        "", "gaps", "median", "P90", "P99", "P99.9"
    );
    for (listener, gaps) in listeners.iter().zip(samples) {
        gaps.sort_unstable();
        let at = |per_mille: usize| -> anyhow::Result<f64> {
            let gap = gaps.get((gaps.len() - 1) * per_mille / 1000);
            Ok(gap.context("no gaps")?.as_secs_f64() * 1e3)
        };
        println!(
            "{:<20} {:>8} {:>10.3} {:>10.3} {:>10.3} {:>10.3}",
            listener.name,
            gaps.len(),
            at(500)?,
            at(900)?,
            at(990)?,
            at(999)?
        );
    }
    Ok(())
}
