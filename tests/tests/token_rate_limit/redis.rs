//! Counters in Redis: gateways in simulation, a real Redis and a real Webdis.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_harness::exchange::CallFailure;
use tollgate_harness::http::Headers;
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::faults::Sweep;
use tollgate_harness::sim::{Answer, Request, Response, Setting, Sim};
use tollgate_harness::wire;
use tollgate_tests::redis::{Redis, RestFront, Webdis};

use super::{chat, left, reserved, setting, tokens, usage};
use tollgate_tests::load;

/// What happens on the way between a gateway and Webdis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing arrives.
    Closed,
    /// What is asked arrives, and the answer does not.
    NoWayBack,
    /// The answer to the question before comes back.
    Mixed,
}

/// Gateways that share a Redis.
struct Site {
    redis: Redis,
    webdis: Arc<Webdis>,
    gateways: Cell<u64>,
}

/// One of them.
struct Gateway {
    sim: Sim,
    way: Arc<Mutex<Way>>,
}

impl Site {
    fn start() -> Self {
        let redis = Redis::start().unwrap();
        let webdis = Arc::new(Webdis::start(&redis).unwrap());
        let gateways = Cell::new(0);
        Self {
            redis,
            webdis,
            gateways,
        }
    }

    /// A gateway with its way to Webdis, yet to be started.
    fn setting(&self, profile: Profile, config: &Value) -> (Setting, Arc<Mutex<Way>>) {
        let mut config = config.clone();
        config["policy"] = json!("redis");
        config["redis"] = json!({"timeout": 500, "http": {"upstream": "webdis:7379"}});
        let way = Arc::new(Mutex::new(Way::Open));
        let (webdis, seen) = (Arc::clone(&self.webdis), Arc::clone(&way));
        let mut last = None;
        // Each draws random numbers of its own.
        self.gateways.set(self.gateways.get() + 1);
        let setting = setting(profile, &config).seed(self.gateways.get());
        let setting = setting.on_call("webdis:7379", move |call| {
            let way = *seen.lock().unwrap();
            if way == Way::Closed {
                return Answer::failed(CallFailure::Refused);
            }
            let answer = webdis.post(&call.body);
            let before = last.replace(answer.clone());
            let answer = match (way, before) {
                (Way::NoWayBack, _) => return Answer::failed(CallFailure::Timeout),
                (Way::Mixed, Some(before)) => before,
                _ => answer,
            };
            Answer::status(answer.status).body(answer.body)
        });
        (setting, way)
    }

    fn gateway(&self, profile: Profile, config: &Value) -> Gateway {
        let (setting, way) = self.setting(profile, config);
        let sim = setting.start().unwrap();
        Gateway { sim, way }
    }

    /// What Redis has used of the only counter's first window.
    fn used(&self) -> Option<u64> {
        let names = self.redis.command(&["KEYS", "tollgate:*:counter:*"]);
        let mut names = names.lines();
        let name = names.next().filter(|name| !name.is_empty())?;
        assert_eq!(names.next(), None, "more than one counter");
        let fields = self.redis.command(&["HGETALL", name]);
        let lines: Vec<_> = fields.lines().collect();
        let (_, used) = lines
            .chunks(2)
            .map(|pair| (pair[0], pair[1]))
            .find(|(field, _)| field.ends_with('u'))?;
        used.parse().ok()
    }
}

impl Gateway {
    fn way(&self, way: Way) {
        *self.way.lock().unwrap() = way;
    }

    /// Long enough for all that is to be told, and for a breaker that has opened just now.
    fn pass(&mut self) {
        self.sim.advance(Duration::from_millis(2500));
    }

    fn status(&mut self, request: Request) -> u16 {
        self.sim.send(request).status()
    }

    fn lines(&self, word: &str) -> usize {
        let logs = self.sim.logs().iter();
        logs.filter(|line| line.message.contains(word)).count()
    }
}

const PROFILES: [Profile; 2] = [Profile::Envoy, Profile::Kong];

fn requests(limit: u64) -> Value {
    json!({"minute": limit, "limit_by": "ip"})
}

#[test]
fn one_limit_holds_for_two_gateways() {
    for profile in PROFILES {
        let site = Site::start();
        let mut gateways = [0, 1].map(|_| site.gateway(profile, &requests(5)));
        let remaining: Vec<_> = (0..7)
            .map(|number| {
                let got = gateways[number % 2].sim.send(Request::get("/"));
                let left = got.header("ratelimit-remaining").unwrap().to_owned();
                (got.status(), left)
            })
            .collect();
        let expected = [
            (200, "4"),
            (200, "3"),
            (200, "2"),
            (200, "1"),
            (200, "0"),
            (429, "0"),
            (429, "0"),
        ];
        assert_eq!(
            remaining,
            expected.map(|(status, left)| (status, left.to_owned()))
        );
    }
}

#[test]
fn tokens_are_charged_before_and_settled_after_for_all_gateways() {
    let config = tokens(&json!({"minute": 1000}));
    for profile in PROFILES {
        let reserves = reserved(profile, &config, chat(&json!({})));
        let site = Site::start();
        let mut gateways = [0, 1].map(|_| site.gateway(profile, &config));
        for gateway in &mut gateways {
            gateway.sim.upstream(|_| usage(7, 13));
        }
        assert_eq!(
            left(&gateways[0].sim.send(chat(&json!({})))),
            1000 - reserves
        );
        gateways[0].pass();
        assert_eq!(
            left(&gateways[1].sim.send(chat(&json!({})))),
            1000 - 20 - reserves
        );
        gateways[1].pass();
        assert_eq!(site.used(), Some(40));
    }
}

#[test]
fn a_request_is_changed_although_redis_is_asked() {
    for profile in PROFILES {
        let site = Site::start();
        let mut config = tokens(&json!({"minute": 10_000}));
        config["exact"] = json!(true);
        config["default_completion"] = json!(77);
        let mut gateway = site.gateway(profile, &config);
        let body = json!({"model": "m", "stream": true, "messages": []}).to_string();
        let got = gateway
            .sim
            .send(Request::post("/v1/chat/completions").body(body));
        let sent: Value = serde_json::from_slice(&got.upstream().unwrap().body).unwrap();
        assert_eq!(sent["max_tokens"], 77, "{profile:?}");
        assert_eq!(sent["stream_options"]["include_usage"], true);
    }
}

#[test]
fn both_kinds_of_limits_are_charged_together_or_not_at_all() {
    for profile in PROFILES {
        let site = Site::start();
        let mut config = tokens(&json!({"minute": 250}));
        config["minute"] = json!(3);
        config["limit_by"] = json!("ip");
        let mut gateway = site.gateway(profile, &config);
        gateway.sim.upstream(|_| usage(7, 100));
        let ask = |gateway: &mut Gateway| {
            let got = gateway.sim.send(chat(&json!({})));
            (
                got.status(),
                got.header("ratelimit-remaining")
                    .unwrap_or_default()
                    .to_owned(),
            )
        };
        assert_eq!(ask(&mut gateway), (200, "2".to_owned()));
        assert_eq!(ask(&mut gateway), (200, "1".to_owned()));
        // Too many tokens: the request does not count either.
        gateway.pass();
        assert_eq!(ask(&mut gateway), (429, "1".to_owned()));
        assert_eq!(gateway.status(Request::get("/health")), 200);
        assert_eq!(gateway.status(Request::get("/health")), 429);
    }
}

#[test]
fn a_request_is_clamped_to_what_redis_has_left() {
    let site = Site::start();
    let mut config = tokens(&json!({"minute": 250}));
    config["on_limit"] = json!("clamp");
    config["min_completion"] = json!(10);
    let mut gateways = [0, 1].map(|_| site.gateway(Profile::Envoy, &config));
    gateways[0].sim.upstream(|_| usage(10, 150));
    let first = gateways[0].sim.send(chat(&json!({"max_tokens": 150})));
    first.assert_status(200);
    gateways[0].pass();
    let got = gateways[1].sim.send(chat(&json!({"max_tokens": 150})));
    got.assert_status(200);
    let most: u64 = got
        .header("x-tollgate-max-tokens")
        .unwrap()
        .parse()
        .unwrap();
    let sent: Value = serde_json::from_slice(&got.upstream().unwrap().body).unwrap();
    assert_eq!(sent["max_tokens"], most);
    assert!((10..90).contains(&most), "{most}");
    assert_eq!(left(&got), 0);
}

#[test]
fn an_answer_that_got_lost_counts_once() {
    for profile in PROFILES {
        let site = Site::start();
        let mut gateway = site.gateway(profile, &requests(100));
        assert_eq!(gateway.status(Request::get("/")), 200);
        gateway.way(Way::NoWayBack);
        // Redis has charged it, and this gateway does not know: it has counted it as well.
        assert_eq!(gateway.status(Request::get("/")), 200);
        assert_eq!(site.used(), Some(2));
        // The batch that puts this right arrives, and its answer does not: it is told again.
        gateway.pass();
        gateway.way(Way::Open);
        gateway.sim.advance(Duration::from_secs(10));
        assert_eq!(site.used(), Some(2), "{profile:?}");
        let got = gateway.sim.send(Request::get("/"));
        got.assert_header("ratelimit-remaining", "97");
    }
}

#[test]
fn while_redis_is_away_a_gateway_goes_on_from_what_it_knew_and_merges_later() {
    for profile in PROFILES {
        let site = Site::start();
        let mut gateways = [0, 1].map(|_| site.gateway(profile, &requests(10)));
        for number in 0..6 {
            assert_eq!(gateways[number % 2].status(Request::get("/")), 200);
        }
        let [first, second] = &mut gateways;
        // The first has seen 5 of 6.
        first.way(Way::Closed);
        let passed = (0..8).filter(|_| first.status(Request::get("/")) == 200);
        assert_eq!(passed.count(), 5, "{profile:?}");
        assert_eq!(site.used(), Some(6));
        assert_eq!(first.lines("Redis can't be reached"), 1);
        first.way(Way::Open);
        first.pass();
        assert_eq!(site.used(), Some(11));
        assert_eq!(first.lines("Redis is back"), 1);
        let got = second.sim.send(Request::get("/"));
        got.assert_status(429);
    }
}

#[test]
fn nobody_waits_for_a_redis_that_does_not_answer() {
    let site = Site::start();
    let mut gateway = site.gateway(Profile::Envoy, &requests(1000));
    gateway.pass();
    gateway.way(Way::Closed);
    let before = gateway.sim.calls().len();
    for _ in 0..50 {
        assert_eq!(gateway.status(Request::get("/")), 200);
    }
    assert_eq!(gateway.sim.calls().len() - before, 3);
    gateway.sim.advance(Duration::from_secs(100));
    let attempts = gateway.sim.calls().len() - before - 3;
    assert!((5..9).contains(&attempts), "{attempts} in 100 s");
    gateway.way(Way::Open);
    gateway.sim.advance(Duration::from_secs(31));
    assert_eq!(site.used(), Some(0), "its minute is over");
}

#[test]
fn who_does_not_tolerate_faults_refuses_and_kong_lets_pass() {
    for profile in PROFILES {
        let site = Site::start();
        let mut strict = requests(5);
        strict["fault_tolerant"] = json!(false);
        let mut gateway = site.gateway(profile, &strict);
        gateway.way(Way::Closed);
        let got = gateway.sim.send(Request::get("/"));
        got.assert_status(500).assert_no_upstream();
        let mut kong = requests(1);
        kong["compat"] = json!("kong");
        let mut gateway = site.gateway(profile, &kong);
        gateway.way(Way::Closed);
        for _ in 0..5 {
            let got = gateway.sim.send(Request::get("/"));
            got.assert_status(200);
            assert_eq!(got.header("ratelimit-remaining"), None);
        }
    }
}

#[test]
fn an_answer_that_is_another_requests_is_not_believed() {
    let site = Site::start();
    let mut gateway = site.gateway(Profile::Envoy, &requests(100));
    gateway.status(Request::get("/"));
    gateway.way(Way::Mixed);
    gateway.status(Request::get("/"));
    gateway.way(Way::Open);
    gateway.pass();
    assert_eq!(site.used(), Some(2));
}

#[test]
fn a_client_that_leaves_while_redis_is_asked_is_not_charged() {
    for profile in PROFILES {
        let site = Site::start();
        let mut gateway = site.gateway(profile, &requests(100));
        gateway.status(Request::get("/"));
        let webdis = Arc::clone(&site.webdis);
        gateway.sim.on_call("webdis:7379", move |call| {
            let answer = webdis.post(&call.body);
            Answer::status(answer.status)
                .body(answer.body)
                .after(Duration::from_millis(100))
        });
        let leaves = gateway.sim.begin(Request::get("/"));
        assert_eq!(site.used(), Some(2));
        gateway.sim.abort(leaves);
        gateway.pass();
        assert_eq!(site.used(), Some(1), "{profile:?}");
    }
}

#[test]
fn with_sync_rate_gateways_decide_by_themselves_and_drift_by_one_period() {
    for profile in PROFILES {
        let site = Site::start();
        let mut config = requests(20);
        config["sync_rate"] = json!(1);
        let mut gateways = [0, 1].map(|_| site.gateway(profile, &config));
        let ask = |gateway: &mut Gateway, times: usize| {
            (0..times)
                .filter(|_| gateway.status(Request::get("/")) == 200)
                .count()
        };
        let [first, second] = &mut gateways;
        assert_eq!((ask(first, 5), ask(second, 5)), (5, 5));
        assert_eq!(site.used(), None, "nobody has asked Redis");
        // Each tells, and with the second time knows of the other.
        for _ in 0..2 {
            first.pass();
            second.pass();
            assert_eq!((ask(first, 1), ask(second, 1)), (1, 1));
        }
        first.pass();
        second.pass();
        assert_eq!(site.used(), Some(14));
        // What the limit has left, and once more what each admits before it hears of the other: no more than that.
        let admitted = ask(first, 20) + ask(second, 20);
        assert!((6..=7 + 7).contains(&admitted), "{admitted}");
        first.pass();
        second.pass();
        assert_eq!(site.used(), Some(14 + admitted as u64));
        assert_eq!((ask(first, 3), ask(second, 3)), (0, 0), "{profile:?}");
    }
}

#[test]
fn a_front_that_speaks_as_upstashs_does_is_as_good() {
    let redis = Redis::start().unwrap();
    let front = RestFront::start(&redis, "secret").unwrap();
    let ask = move |headers: &Headers, body: &[u8]| {
        let authorization = headers.get_str("authorization").unwrap_or_default();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: front\r\nauthorization: {authorization}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        wire::exchange(front.address(), "POST", &[head.as_bytes(), body].concat()).unwrap()
    };
    let mut config = requests(3);
    config["policy"] = json!("redis");
    config["redis"] = json!({"http": {
        "upstream": "upstash", "dialect": "upstash", "headers": {"authorization": "Bearer secret"},
    }});
    let setting = setting(Profile::Envoy, &config).on_call("upstash", move |call| {
        let answer = ask(&call.headers, &call.body);
        Answer::status(answer.status).body(answer.body)
    });
    let mut sim = setting.start().unwrap();
    let statuses: Vec<_> = (0..5)
        .map(|_| sim.send(Request::get("/")).status())
        .collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    sim.advance(Duration::from_secs(1));
    assert_eq!(
        sim.metric("tollgate_token_rate_limit_redis;result=failed"),
        0
    );
}

#[test]
fn a_redis_that_forgets_is_complained_of() {
    let site = Site::start();
    let mut gateway = site.gateway(Profile::Envoy, &requests(5));
    gateway.pass();
    assert_eq!(gateway.lines("maxmemory-policy"), 0);
    let _ = site
        .redis
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let mut gateway = site.gateway(Profile::Envoy, &requests(5));
    gateway.pass();
    assert_eq!(gateway.lines("allkeys-lru"), 1);
}

#[test]
fn a_redis_that_was_restarted_is_told_the_scripts_again() {
    let mut site = Site::start();
    let mut gateway = site.gateway(Profile::Envoy, &requests(5));
    assert_eq!(gateway.status(Request::get("/")), 200);
    site.redis.restart().unwrap();
    // Webdis needs a moment to find it again.
    let found = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        site.webdis.ask(&["INFO", "memory"]).status == 200
    });
    assert!(found);
    let got = gateway.sim.send(Request::get("/"));
    // What Redis held is gone; nothing else is.
    got.assert_header("ratelimit-remaining", "4");
}

#[test]
fn budgets_and_orders_are_about_what_redis_keeps() {
    const KEY: &str = "an-operators-key-of-some-length";
    let mut config = requests(10);
    config["hour"] = json!(100);
    config["budget_path"] = json!("/budget");
    config["admin"] = json!({"path": "/limits", "key": KEY});
    for (profile, rate) in [
        (Profile::Envoy, -1),
        (Profile::Kong, -1),
        (Profile::Envoy, 1),
    ] {
        let site = Site::start();
        config["sync_rate"] = json!(rate);
        let mut gateways = [0, 1].map(|_| site.gateway(profile, &config));
        let [first, second] = &mut gateways;
        for _ in 0..4 {
            assert_eq!(first.status(Request::get("/")), 200);
        }
        first.pass();
        let used = |got: &Response| {
            got.assert_status(200).assert_no_upstream();
            let found: Value = serde_json::from_slice(got.body()).unwrap();
            let windows = found
                .pointer("/limits/0/windows")
                .unwrap_or(&found["windows"]);
            [0, 1].map(|window| windows[window]["used"].as_u64().unwrap())
        };
        let order = |gateway: &mut Gateway, mut order: Value| {
            order["rule"] = json!("requests");
            order["by"] = json!({"ip": "127.0.0.1"});
            let request = Request::post("/limits").header("x-admin-key", KEY);
            gateway.sim.send(request.body(order.to_string()))
        };
        // The second has never heard of the counter.
        assert_eq!(
            used(&second.sim.send(Request::get("/budget"))),
            [4, 4],
            "{profile:?} {rate}"
        );
        let add = json!({"action": "add", "amount": 6, "window": "minute"});
        assert_eq!(used(&order(second, add)), [10, 4]);
        second.sim.send(Request::get("/")).assert_status(429);
        assert_eq!(used(&order(first, json!({"action": "reset"}))), [0, 0]);
        assert_eq!(used(&order(second, json!({}))), [0, 0]);
        second.sim.send(Request::get("/")).assert_status(200);
        // Nobody is told a budget that nobody knows.
        second.way(Way::Closed);
        let got = second.sim.send(Request::get("/budget"));
        got.assert_status(503).assert_no_upstream();
    }
}

#[test]
fn nothing_traps_whatever_the_host_answers() {
    let site = Site::start();
    for profile in PROFILES {
        for rate in [-1, 1] {
            let mut config = tokens(&json!({"minute": 1_000_000_000}));
            config["minute"] = json!(1_000_000);
            config["limit_by"] = json!("ip");
            config["sync_rate"] = json!(rate);
            let sweep = Sweep::of(|| site.setting(profile, &config).0);
            sweep.requests([chat(&json!({}))]).check(|tried, got| {
                // A host that neither goes back to the request nor on with it keeps it waiting.
                let stuck = ["proxy_continue_stream", "proxy_set_effective_context"];
                let waits = tried
                    .failure
                    .is_some_and(|failure| stuck.contains(&failure.hostcall));
                let status = got.status();
                assert!(
                    matches!(status, 200 | 413 | 431 | 500 | 503) || waits,
                    "{status}"
                );
            });
        }
    }
}

#[test]
fn an_upstream_that_would_end_nginxs_worker_is_refused_or_at_least_not_called() {
    let mut config = requests(2);
    config["policy"] = json!("redis");
    config["redis"] = json!({"http": {"upstream": "bad:host:name"}});
    let refused = setting(Profile::Kong, &config).start();
    let why = refused.err().expect("it is refused").to_string();
    assert!(
        why.contains("redis.http.upstream") && why.contains("host:port"),
        "{why}"
    );
    // Where it is not known which host it will be, it may be a cluster's name.
    let module = load("token_rate_limit");
    let mut sim = Sim::of(Profile::Kong)
        .filter(&module, &config)
        .start()
        .unwrap();
    sim.advance(Duration::from_secs(5));
    let statuses: Vec<_> = (0..3)
        .map(|_| sim.send(Request::get("/")).status())
        .collect();
    assert_eq!(statuses, [200, 200, 429], "it counts by itself");
    assert_eq!(sim.traps().len(), 0);
}
