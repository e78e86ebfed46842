//! Two real Envoys, with two workers each, that share their limits through a real Webdis and a real Redis.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Filter, Listener, cluster_name};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::wire::{self, Response};
use tollgate_tests::module;
use tollgate_tests::redis::{Redis, Webdis};

const CLIENTS: usize = 64;

/// Two gateways, the Redis that they share, and a provider that keeps a ledger.
struct Site {
    gateways: [Envoy; 2],
    redis: Redis,
    webdis: Webdis,
    provider: MockLlm,
}

impl Site {
    fn start(limits: &Value) -> Self {
        let redis = Redis::start().unwrap();
        let webdis = Webdis::start(&redis).unwrap();
        let provider = MockLlm::start(Settings::default()).unwrap();
        let http = json!({
            "upstream": cluster_name(webdis.address()),
            "headers": {"authorization": Webdis::authorization()},
        });
        let mut config = limits.clone();
        config["host"] = json!("envoy");
        config["policy"] = json!("redis");
        config["redis"] = json!({"timeout": 2000, "http": http});
        let gateways = [0, 1].map(|_| {
            let filter = Filter {
                name: "token-rate-limit".to_owned(),
                module: module("token_rate_limit"),
                configuration: config.to_string(),
                vm_id: "main".to_owned(),
            };
            let listener = |name: &str, filters, upstream| Listener {
                name: name.to_owned(),
                filters,
                upstream,
                proxy_protocol: false,
            };
            let listeners = [
                listener("main", vec![filter], provider.address()),
                // For its cluster.
                listener("webdis", Vec::new(), webdis.address()),
            ];
            Envoy::start(&envoy::find().unwrap(), &listeners, 2).unwrap()
        });
        Self {
            gateways,
            redis,
            webdis,
            provider,
        }
    }

    fn address(&self, number: usize) -> SocketAddr {
        self.gateways[number % 2].address("main").unwrap()
    }

    fn chat(&self, number: usize, plan: &str) -> Response {
        let body = json!({
            "model": "gpt-4.1", "stream": number % 4 < 2, "max_tokens": 40,
            "messages": [{"role": "user", "content": "Tell me of the gate"}],
        });
        self.ask(number, &body, plan)
    }

    fn ask(&self, number: usize, body: &Value, plan: &str) -> Response {
        let body = body.to_string();
        let length = body.len();
        let plan = if plan.is_empty() {
            String::new()
        } else {
            format!("x-mock: {plan}\r\n")
        };
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\n{plan}Content-Length: {length}\r\n\r\n{body}"
        );
        wire::exchange(self.address(number), "POST", request.as_bytes()).unwrap()
    }

    /// Many clients at once, each so many times in turn at either gateway; how many got which status.
    fn crowd(&self, each: usize, ask: impl Fn(usize) -> Response + Sync) -> [usize; 3] {
        let next = AtomicUsize::new(0);
        let counts = [200, 429, 500].map(|status| (status, AtomicUsize::new(0)));
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    for _ in 0..each {
                        let got = ask(next.fetch_add(1, Ordering::Relaxed));
                        let count = counts.iter().find(|(status, _)| *status == got.status);
                        count
                            .unwrap_or_else(|| panic!("{got:?}"))
                            .1
                            .fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        counts.map(|(_, count)| count.into_inner())
    }

    /// The tokens of all requests, once none is under way.
    fn ledger(&self) -> u64 {
        let request = b"GET /ledger?wait=20 HTTP/1.1\r\nHost: ledger\r\n\r\n";
        let got = wire::exchange(self.provider.address(), "GET", request).unwrap();
        let ledger: Value = serde_json::from_slice(&got.body).unwrap();
        let entries = ledger["entries"].as_array().unwrap().iter();
        let tokens = |entry: &Value, field: &str| entry[field].as_u64().unwrap_or_default();
        entries
            .map(|entry| tokens(entry, "prompt_tokens") + tokens(entry, "completion_tokens"))
            .sum()
    }

    /// What Redis has used of the only counter's only window; nothing before it has been told of it.
    fn used(&self) -> u64 {
        let names = self.redis.command(&["KEYS", "tollgate:*:counter:*"]);
        let mut names = names.lines().filter(|name| !name.is_empty());
        let Some(name) = names.next() else {
            return 0;
        };
        assert_eq!(names.next(), None, "more than one counter");
        let fields = self.redis.command(&["HGETALL", name]);
        let lines: Vec<_> = fields.lines().collect();
        let used = lines.chunks(2).find(|pair| pair[0].ends_with('u')).unwrap();
        used[1].parse().unwrap()
    }

    /// Waits until Redis has used so much: settlements come by and by.
    fn assert_settles(&self, used: u64) {
        let start = Instant::now();
        while self.used() != used {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{} used, not {used}",
                self.used()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn assert_alive(&self) {
        for gateway in &self.gateways {
            let log = gateway.log().unwrap();
            assert!(
                !log.contains("[critical]") && !log.contains("] Function: "),
                "{log}"
            );
        }
    }
}

/// A request that fits into the limit of 3,000 and not into the little that is left of it.
fn large() -> Value {
    json!({"model": "gpt-4.1", "max_tokens": 2_000, "messages": []})
}

fn tokens(limit: u64) -> Value {
    json!({"exact": true, "tokens": [{"name": "all", "by": ["ip"], "year": limit}]})
}

#[test]
fn two_gateways_admit_as_many_requests_as_the_limit_says() {
    let site = Site::start(&json!({"year": 100, "limit_by": "ip"}));
    let counts = site.crowd(4, |number| {
        let request = b"GET /v1/models HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
        wire::exchange(site.address(number), "GET", request).unwrap()
    });
    assert_eq!(counts, [100, CLIENTS * 4 - 100, 0]);
    site.assert_settles(100);
    site.assert_alive();
}

#[test]
fn two_gateways_never_pass_a_token_limit_and_the_ledger_agrees() {
    let site = Site::start(&tokens(3_000));
    let [passed, refused, failed] = site.crowd(5, |number| {
        site.chat(number, if number % 7 == 0 { "status=500" } else { "" })
    });
    assert!(
        passed > 0 && refused > 0 && failed > 0,
        "{passed} {refused} {failed}"
    );
    let used = site.ledger();
    assert!(used <= 3_000, "{used}");
    site.assert_settles(used);
    site.assert_alive();
}

#[test]
fn with_sync_rate_a_limit_is_passed_by_no_more_than_the_other_gateway_admits() {
    let mut limits = tokens(3_000);
    limits["sync_rate"] = json!(0.1);
    let site = Site::start(&limits);
    let [passed, refused, failed] = site.crowd(5, |number| site.chat(number, ""));
    assert!(
        passed > 0 && refused > 0 && failed == 0,
        "{passed} {refused} {failed}"
    );
    let used = site.ledger();
    // Each gateway keeps to the limit by itself, whatever it has heard of the other.
    assert!(used <= 2 * 3_000, "{used}");
    site.assert_settles(used);
    // Both hear what is left, although nothing more fits.
    let start = Instant::now();
    let left = 3_000_u64.saturating_sub(used).to_string();
    for number in [0, 1] {
        loop {
            let got = site.ask(number, &large(), "");
            assert_eq!(got.status, 429, "{got:?}");
            if got.headers.get_str("x-ratelimit-remaining-tokens") == Some(&left) {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{got:?}, {left} left"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
    site.assert_alive();
}

#[test]
fn whatever_happens_to_webdis_each_token_is_counted_once() {
    let mut site = Site::start(&tokens(10_000_000));
    let before = site.crowd(2, |number| site.chat(number, ""));
    assert_eq!(before, [CLIENTS * 2, 0, 0]);
    site.webdis.kill();
    let without = site.crowd(2, |number| site.chat(number, ""));
    assert_eq!(
        without,
        [CLIENTS * 2, 0, 0],
        "each gateway counts by itself"
    );
    site.webdis.restart().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| site.crowd(4, |number| site.chat(number, "")));
        // What it is asked meanwhile it does later, when nobody waits for the answer any more.
        thread::sleep(Duration::from_millis(300));
        site.webdis.pause();
        thread::sleep(Duration::from_millis(2_500));
        site.webdis.resume();
    });
    site.assert_settles(site.ledger());
    site.assert_alive();
}
