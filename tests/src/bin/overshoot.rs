//! Measures how well a token limit is kept under load: 64 clients at once, against real Envoys with two workers each
//! (two of them where they share a Redis), and a provider whose
//! ledger says what was really used.
//!
//! Each client asks until it is refused. When all have been, and all answers have ended, the storm is over:
//! - **overshoot** is what was used beyond the limit;
//! - **under-use** is what was left of it although requests were refused: they were refused for reservations that came back later;
//! - **left in the end** is what is still left when clients have come again, one after the other, until none fits.
//!
//! Answers have 30 to 100 % of the completion tokens that were asked for; those to requests that set no limit have 100 to 1,500.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Filter, Listener, cluster_name};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::wire;
use tollgate_tests::module;
use tollgate_tests::redis::{Redis, Webdis};

/// Clients at once.
const CLIENTS: usize = 64;

/// The limit, in tokens; its window does not end while this runs.
const LIMIT: u64 = 200_000;

/// Tokens that the provider writes a second, for each answer.
const RATE: u64 = 1_000;

/// A client that comes again one after the other gives up after so many refusals in a row.
const REFUSALS: usize = 5;

/// A way to limit.
struct Mode {
    name: &'static str,
    /// The filter's configuration, to which the rule is added.
    configuration: Value,
    /// Envoys that the clients ask by turns; several share a Redis.
    gateways: usize,
}

/// Redis, and the Webdis through which it is asked.
struct Shared {
    _redis: Redis,
    webdis: Webdis,
}

fn modes() -> Vec<Mode> {
    vec![
        Mode {
            name: "local",
            configuration: json!({}),
            gateways: 1,
        },
        Mode {
            name: "local, exact",
            configuration: json!({"exact": true}),
            gateways: 1,
        },
        Mode {
            name: "redis",
            configuration: json!({"policy": "redis"}),
            gateways: 2,
        },
        Mode {
            name: "redis, exact",
            configuration: json!({"policy": "redis", "exact": true}),
            gateways: 2,
        },
        Mode {
            name: "sync, exact",
            configuration: json!({"policy": "redis", "sync_rate": 0.5, "exact": true}),
            gateways: 2,
        },
    ]
}

/// Whether requests say how many tokens they want at most.
#[derive(Clone, Copy)]
enum Traffic {
    AllSetLimits,
    AQuarterSetsNone,
}

impl Traffic {
    fn name(self) -> &'static str {
        match self {
            Traffic::AllSetLimits => "all set max_tokens",
            Traffic::AQuarterSetsNone => "a quarter sets none",
        }
    }

    /// The request of this number.
    fn request(self, number: u64) -> Vec<u8> {
        let mut chance = fastrand::Rng::with_seed(number);
        let text = "word ".repeat(chance.usize(10..200));
        let mut body = json!({
            "model": "gpt-4.1",
            "stream": chance.bool(),
            "messages": [{"role": "user", "content": text}],
        });
        let tokens = match self {
            Traffic::AQuarterSetsNone if number.is_multiple_of(4) => chance.u64(100..=1500),
            _ => {
                let most = chance.u64(50..=800);
                body["max_tokens"] = json!(most);
                most * chance.u64(30..=100) / 100
            }
        };
        let body = body.to_string();
        let length = body.len();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nX-Mock: tokens={tokens}; rate={RATE}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// What came of a mode under some traffic.
#[derive(Default)]
struct Outcome {
    /// Until each client had been refused once.
    admitted: u64,
    /// By the provider's ledger, when the storm was over.
    used: u64,
    /// And when no request was admitted any more.
    used_in_the_end: u64,
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    println!(
        "{CLIENTS} clients at once on Envoy 1.40 with two workers, a limit of {LIMIT} tokens, by the provider's ledger"
    );
    println!(
        "{:<16} {:<20} {:>9} {:>9} {:>10} {:>10} {:>12} {:>8}",
        "mode", "requests", "admitted", "used", "overshoot", "under-use", "left in end", "seconds"
    );
    for mode in modes() {
        for traffic in [Traffic::AllSetLimits, Traffic::AQuarterSetsNone] {
            let outcome = run(&mode, traffic)?;
            let percent = |tokens: u64| format!("{:.2} %", tokens as f64 * 100.0 / LIMIT as f64);
            println!(
                "{:<16} {:<20} {:>9} {:>9} {:>10} {:>10} {:>12} {:>8.1}",
                mode.name,
                traffic.name(),
                outcome.admitted,
                outcome.used,
                percent(outcome.used.saturating_sub(LIMIT)),
                percent(LIMIT.saturating_sub(outcome.used)),
                percent(LIMIT.saturating_sub(outcome.used_in_the_end)),
                outcome.seconds,
            );
        }
    }
    Ok(())
}

fn run(mode: &Mode, traffic: Traffic) -> anyhow::Result<Outcome> {
    let provider = MockLlm::start(Settings::default())?;
    let mut configuration =
        json!({"host": "envoy", "tokens": [{"name": "all", "by": ["ip"], "year": LIMIT}]});
    let more = mode.configuration.as_object();
    if let (Some(fields), Some(more)) = (configuration.as_object_mut(), more) {
        fields.extend(more.clone());
    }
    let shared = if mode.gateways > 1 {
        let redis = Redis::start()?;
        let webdis = Webdis::start(&redis)?;
        configuration["redis"] = json!({"http": {
            "upstream": cluster_name(webdis.address()),
            "headers": {"authorization": Webdis::authorization()},
        }});
        let _redis = redis;
        Some(Shared { _redis, webdis })
    } else {
        None
    };
    let listener = |name: &str, filters, upstream| Listener {
        name: name.to_owned(),
        filters,
        upstream,
        proxy_protocol: false,
    };
    let filter = Filter {
        name: "token-rate-limit".to_owned(),
        module: module("token_rate_limit"),
        configuration: configuration.to_string(),
        vm_id: "main".to_owned(),
    };
    let mut listeners = vec![listener("main", vec![filter], provider.address())];
    // For its cluster.
    let webdis = shared.as_ref().map(|shared| shared.webdis.address());
    listeners.extend(webdis.map(|webdis| listener("webdis", Vec::new(), webdis)));
    let envoys = (0..mode.gateways)
        .map(|_| Envoy::start(&envoy::find()?, &listeners, 2))
        .collect::<Result<Vec<_>, _>>()?;
    let addresses = envoys
        .iter()
        .map(|envoy| envoy.address("main"))
        .collect::<Result<Vec<_>, _>>()?;
    let next = AtomicUsize::new(0);
    let passes = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let address = addresses.get(number % addresses.len());
        admits(
            *address.context("no gateway")?,
            &traffic.request(number as u64),
        )
    };

    let began = Instant::now();
    let mut outcome = Outcome::default();
    let passed = thread::scope(|scope| {
        let client = || -> anyhow::Result<u64> {
            let mut passed = 0;
            while passes()? {
                passed += 1;
            }
            Ok(passed)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let joined = clients.into_iter().map(|client| {
            let ended = client.join();
            ended.map_err(|_| anyhow::anyhow!("a client ended early"))?
        });
        joined.sum::<anyhow::Result<u64>>()
    })?;
    outcome.admitted = passed;
    outcome.used = used(&provider)?;
    outcome.seconds = began.elapsed().as_secs_f64();
    let mut refusals = 0;
    while refusals < REFUSALS {
        refusals = if passes()? { 0 } else { refusals + 1 };
    }
    outcome.used_in_the_end = used(&provider)?;
    for envoy in envoys {
        let log = envoy.log()?;
        ensure!(!log.contains("[critical]"), "{log}");
    }
    Ok(outcome)
}

/// Whether a request passes; its answer is read to the end.
fn admits(address: SocketAddr, request: &[u8]) -> anyhow::Result<bool> {
    let got = wire::exchange(address, "POST", request)?;
    match got.status {
        200 => Ok(true),
        429 => Ok(false),
        status => bail!("status {status}: {}", String::from_utf8_lossy(&got.body)),
    }
}

/// What the provider has counted, once nothing is under way.
fn used(provider: &MockLlm) -> anyhow::Result<u64> {
    let request = b"GET /ledger?wait=60 HTTP/1.1\r\nHost: ledger\r\n\r\n";
    let got = wire::exchange(provider.address(), "GET", request)?;
    let ledger: Value = serde_json::from_slice(&got.body)?;
    let entries = ledger["entries"].as_array().context("no entries")?;
    let of = |entry: &Value, field: &str| entry[field].as_u64().unwrap_or_default();
    let both = |entry| of(entry, "prompt_tokens") + of(entry, "completion_tokens");
    Ok(entries.iter().map(both).sum())
}
