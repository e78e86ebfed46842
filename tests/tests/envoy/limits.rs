//! token-rate-limit in a real Envoy with two workers and 64 clients at once, against a provider that keeps a ledger.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::wire::{self, Response};
use tollgate_tests::module;

const CLIENTS: usize = 64;
const EACH: usize = 5;

/// A provider behind an Envoy with one token rule, of `limit` a year: no window ends while a test runs.
struct Metered {
    envoy: Envoy,
    provider: MockLlm,
    limit: u64,
}

impl Metered {
    fn start(limit: u64, more: &Value, provider: Settings) -> Self {
        let provider = MockLlm::start(provider).unwrap();
        let mut config =
            json!({"host": "envoy", "tokens": [{"name": "all", "by": ["ip"], "year": limit}]});
        let fields = config.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let listener = Listener {
            name: "main".to_owned(),
            filters: vec![Filter {
                name: "token-rate-limit".to_owned(),
                module: module("token_rate_limit"),
                configuration: config.to_string(),
                vm_id: "main".to_owned(),
            }],
            upstream: provider.address(),
            proxy_protocol: false,
        };
        let envoy = Envoy::start(&envoy::find().unwrap(), &[listener], 2).unwrap();
        Self {
            envoy,
            provider,
            limit,
        }
    }

    fn address(&self) -> SocketAddr {
        self.envoy.address("main").unwrap()
    }

    fn send(&self, body: &Value, plan: &str) -> Response {
        wire::exchange(self.address(), "POST", &request(body, plan)).unwrap()
    }

    /// What was charged in all: what is left beside the reservation of a request that is as large as `reserves` says.
    fn charged(&self, reserves: u64) -> u64 {
        let got = self.send(&chat(false), "");
        self.limit - reserves - remaining(&got)
    }

    /// The entries and totals of the provider, once nothing is under way.
    fn ledger(&self) -> Value {
        let request = b"GET /ledger?wait=20 HTTP/1.1\r\nHost: ledger\r\n\r\n";
        let got = wire::exchange(self.provider.address(), "GET", request).unwrap();
        serde_json::from_slice(&got.body).unwrap()
    }

    /// Asks from many clients at once, each several times.
    fn crowd(&self, ask: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        ask(next.fetch_add(1, Ordering::Relaxed));
                    }
                });
            }
        });
    }

    fn assert_alive(&self) {
        let log = self.envoy.log().unwrap();
        assert!(
            !log.contains("[critical]") && !log.contains("] Function: "),
            "{log}"
        );
    }
}

fn chat(stream: bool) -> Value {
    json!({"model": "gpt-4.1", "stream": stream, "max_tokens": 40, "messages": [{"role": "user", "content": "Tell me of the gate"}]})
}

fn request(body: &Value, plan: &str) -> Vec<u8> {
    let body = body.to_string();
    let plan = if plan.is_empty() {
        String::new()
    } else {
        format!("x-mock: {plan}\r\n")
    };
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\n{plan}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn remaining(got: &Response) -> u64 {
    let text = got.headers.get_str("x-ratelimit-remaining-tokens");
    text.and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{got:?}"))
}

/// What one [`chat`] reserves.
fn reservation(more: &Value) -> u64 {
    let limit = 1_000_000;
    let fresh = Metered::start(limit, more, Settings::default());
    limit - remaining(&fresh.send(&chat(false), ""))
}

fn sum(entries: &Value, field: &str) -> u64 {
    let entries = entries["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry[field].as_u64().unwrap_or_default())
        .sum()
}

#[test]
fn with_exact_not_one_token_passes_the_limit_and_the_ledger_agrees() {
    let exact = json!({"exact": true});
    let reserves = reservation(&exact);
    let metered = Metered::start(3_000, &exact, Settings::default());
    let (passed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    metered.crowd(|number| {
        let plan = if number % 7 == 0 { "status=500" } else { "" };
        let got = metered.send(&chat(number % 2 == 0), plan);
        match got.status {
            200 => passed.fetch_add(1, Ordering::Relaxed),
            429 => refused.fetch_add(1, Ordering::Relaxed),
            500 => 0,
            status => panic!("{status}: {got:?}"),
        };
    });
    assert!(passed.into_inner() > 0 && refused.into_inner() > 0);
    let ledger = metered.ledger();
    let used = sum(&ledger, "prompt_tokens") + sum(&ledger, "completion_tokens");
    assert!(used <= 3_000, "{used}");
    // Every request that was answered told its usage, and all of it was charged, to the token. A refused look costs nothing.
    let left = remaining(&metered.send(&chat(false), ""));
    let looked = sum(&metered.ledger(), "prompt_tokens")
        + sum(&metered.ledger(), "completion_tokens")
        - used;
    let reserved = if looked > 0 { reserves } else { 0 };
    assert_eq!(3_000 - left - reserved, used);
    metered.assert_alive();
}

#[test]
fn what_providers_told_is_charged_to_the_token() {
    let none = json!({});
    let reserves = reservation(&none);
    let metered = Metered::start(10_000_000, &none, Settings::default());
    metered.crowd(|number| {
        let plan = ["", "", "status=429", "status=503", "write=3"][number % 5];
        metered.send(&chat(number % 2 == 0), plan);
    });
    let ledger = metered.ledger();
    let told = sum(&ledger, "told_prompt_tokens") + sum(&ledger, "told_completion_tokens");
    assert_eq!(
        told,
        sum(&ledger, "prompt_tokens") + sum(&ledger, "completion_tokens")
    );
    assert_eq!(metered.charged(reserves), told);
    metered.assert_alive();
}

#[test]
fn clients_that_leave_are_charged_near_what_was_written() {
    let none = json!({});
    let reserves = reservation(&none);
    let slow = Settings {
        tokens_per_second: NonZeroU32::new(200),
        ..Settings::default()
    };
    let metered = Metered::start(10_000_000, &none, slow);
    metered.crowd(|number| {
        let mut connection = wire::connect(metered.address()).unwrap();
        connection.write_all(&request(&chat(true), "")).unwrap();
        let mut read = vec![0; 400 + 100 * (number % 20)];
        connection.read_exact(&mut read).unwrap();
    });
    let ledger = metered.ledger();
    let aborted = ledger["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["aborted"] == true)
        .count();
    assert!(aborted > CLIENTS, "{aborted} aborted");
    let written = sum(&ledger, "prompt_tokens") + sum(&ledger, "written_tokens");
    let charged = metered.charged(reserves);
    // The filter does not know the provider's tokenizer. Its estimate has a margin of an eighth above what it has learned or guessed
    // (a token for three bytes; the mock's words are longer), so it charges more rather than less.
    assert!(
        charged >= written * 9 / 10 && charged <= written * 3,
        "{charged} of {written}"
    );
    metered.assert_alive();
}
