//! A client asks for its budget, an operator reads and corrects counters: neither reaches the upstream.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Answer, Request, Response, Sim};
use tollgate_harness::vm::Faults;

use super::{chat, gateway, usage};

const BOTH: [Profile; 2] = [Profile::Envoy, Profile::Kong];
const KEY: &str = "an-operators-key-of-some-length";

/// Every kind of limit, for consumers that something in front tells, and both paths.
fn config() -> Value {
    json!({
        "trust_identity_headers": true, "minute": 5, "budget_path": "/budget", "admin": {"path": "/limits", "key": KEY},
        "tokens": [
            {"name": "all", "minute": 1000, "window_seconds": 7200, "limit": 50_000},
            {"name": "money", "by": ["consumer", "model"], "count": "cost", "day": 0.5},
            {"name": "trial", "match": {"group": "trial"}, "limit": 0},
        ],
        "concurrency": [{"name": "parallel", "limit": 3}],
        "pricing": {"gpt-4.1": {"input": 1000, "output": 2000}},
    })
}

fn start(profile: Profile, config: &Value) -> Sim {
    let mut sim = gateway(profile, config);
    sim.upstream(|_| usage(10, 20));
    sim
}

/// A request of a consumer.
fn by(consumer: &str, request: Request) -> Request {
    request.header("x-consumer-id", consumer.to_owned())
}

fn document(got: &Response) -> Value {
    got.assert_no_upstream();
    serde_json::from_slice(got.body()).unwrap_or_else(|_| panic!("{}", got.text()))
}

/// The lines of a budget.
fn budget(sim: &mut Sim, consumer: &str, query: &str) -> Vec<Value> {
    let got = sim.send(by(consumer, Request::get(&format!("/budget{query}"))));
    got.assert_status(200)
        .assert_header("content-type", "application/json")
        .assert_header("cache-control", "no-store");
    document(&got)["limits"].as_array().expect("a list").clone()
}

fn ask(sim: &mut Sim, order: &Value) -> Response {
    let request = Request::post("/limits").header("x-admin-key", KEY);
    sim.send(request.body(order.to_string()))
}

/// What an operator is told.
fn told(sim: &mut Sim, order: &Value) -> Value {
    let got = ask(sim, order);
    got.assert_status(200);
    document(&got)
}

/// What is used of a rule's first window.
fn used(sim: &mut Sim, rule: &str, by: &Value) -> Value {
    told(sim, &json!({"rule": rule, "by": by}))["windows"][0]["used"].clone()
}

#[test]
fn a_client_is_told_its_own_counters_and_charged_nothing() {
    for profile in BOTH {
        let mut sim = start(profile, &config());
        sim.send(by("ada", chat(&json!({})))).assert_status(200);
        let mine = [
            json!({"rule": "all", "count": "total", "windows": [
                {"window": "minute", "limit": 1000, "used": 30, "remaining": 970, "reset": 55},
                {"window": "window_seconds", "seconds": 7200, "limit": 50_000, "used": 30, "remaining": 49_970, "reset": 7195},
            ]}),
            json!({"rule": "requests", "count": "requests", "windows": [
                {"window": "minute", "limit": 5, "used": 1, "remaining": 4, "reset": 55},
            ]}),
            json!({"rule": "parallel", "count": "concurrent", "limit": 3, "used": 0, "remaining": 3}),
            json!({"rule": "money", "count": "cost", "needs": ["model"]}),
        ];
        for _ in 0..8 {
            assert_eq!(budget(&mut sim, "ada", ""), mine, "{profile}");
        }
        let money = &budget(&mut sim, "ada", "?model=gpt-4.1")[1];
        let day = json!({"window": "day", "limit": 0.5, "used": 0.05, "remaining": 0.45, "reset": 43_195});
        assert_eq!(
            *money,
            json!({"rule": "money", "count": "cost", "windows": [day]})
        );
        assert_eq!(
            budget(&mut sim, "ada", "?model=other")[1]["windows"][0]["used"],
            0
        );
    }
}

#[test]
fn nobody_is_told_what_is_somebody_elses() {
    for profile in BOTH {
        let mut sim = start(profile, &config());
        sim.send(by("ada", chat(&json!({})))).assert_status(200);
        for query in [
            "",
            "?consumer=ada",
            "?x-consumer-id=ada&credential=ada",
            "?ip=ada",
        ] {
            let lines = budget(&mut sim, "bob", query);
            assert_eq!(lines[0]["windows"][0]["used"], 0, "{query}");
            assert_eq!(lines[1]["windows"][0]["used"], 0, "{query}");
        }
        sim.send(Request::get("/budget"))
            .assert_status(401)
            .assert_no_upstream();
    }
}

#[test]
fn what_is_counted_for_all_needs_no_name() {
    for profile in BOTH {
        let config = json!({"limit_by": "path", "path": "/v1/chat/completions", "hour": 10, "budget_path": "/me/../budget",
            "tokens": [{"name": "place", "by": ["path"], "count": "requests", "hour": 10}]});
        let mut sim = start(profile, &config);
        sim.send(chat(&json!({}))).assert_status(200);
        let lines = document(&sim.send(Request::get("//budget")))["limits"].clone();
        assert_eq!(lines[0]["windows"][0]["used"], 1, "{profile}");
        assert_eq!(lines[1]["needs"], json!(["path"]));
        let lines =
            document(&sim.send(Request::get("/budget?path=/v1//%63hat/completions")))["limits"]
                .clone();
        assert_eq!(lines[0]["windows"][0]["used"], 1);
        assert_eq!(lines[1]["windows"][0]["used"], 1);
        let lines = document(&sim.send(Request::get("/budget?path=/other")))["limits"].clone();
        assert_eq!(lines[0]["windows"][0]["used"], 0);
        sim.send(Request::post("/budget"))
            .assert_status(405)
            .assert_header("allow", "GET")
            .assert_no_upstream();
    }
}

#[test]
fn an_operator_reads_resets_and_adjusts() {
    let ada = json!({"consumer": "ada"});
    for profile in BOTH {
        let mut sim = start(profile, &config());
        sim.send(by("ada", chat(&json!({})))).assert_status(200);
        assert_eq!(used(&mut sim, "all", &ada), 30);
        let order = |action: &str, amount: Value| json!({"rule": "all", "by": ada, "action": action, "amount": amount});
        let after = told(&mut sim, &order("add", json!(900)));
        assert_eq!(after["windows"][0]["used"], 930, "{profile}");
        sim.send(by("ada", chat(&json!({})))).assert_status(429);
        assert_eq!(used(&mut sim, "all", &json!({"consumer": "bob"})), 0);

        let mut minute = order("subtract", json!(500));
        minute["window"] = json!("minute");
        let after = told(&mut sim, &minute);
        assert_eq!(after["windows"][0]["used"], 430);
        assert_eq!(after["windows"][1]["used"], 930, "the other window stays");
        sim.send(by("ada", chat(&json!({})))).assert_status(200);

        let after = told(&mut sim, &order("reset", Value::Null));
        assert_eq!(after["windows"][0]["used"], 0);
        assert_eq!(after["windows"][1]["used"], 0);
        let after = told(&mut sim, &order("subtract", json!(7)));
        assert_eq!(after["windows"][0]["used"], 0, "not below nothing");
        assert_eq!(budget(&mut sim, "ada", "")[0]["windows"][0]["used"], 0);

        let both = json!({"consumer": "ada", "model": "gpt-4.1"});
        let after = told(
            &mut sim,
            &json!({"rule": "money", "by": both, "action": "add", "amount": 0.25}),
        );
        assert_eq!(
            after["windows"][0]["used"], 0.35,
            "two answers for 0.05 each"
        );
        assert_eq!(used(&mut sim, "requests", &ada), 2);
        assert_eq!(
            sim.metric("tollgate_token_rate_limit_enquiries;result=corrected"),
            5
        );
    }
}

#[test]
fn requests_of_nobody_are_found_by_their_address() {
    for profile in BOTH {
        let mut config = config();
        config["minute"] = json!(1);
        let mut sim = start(profile, &config);
        sim.send(Request::get("/a")).assert_status(200);
        sim.send(Request::get("/a")).assert_status(429);
        let nobody = json!({"rule": "requests", "by": {"ip": "127.0.0.1"}, "action": "reset"});
        assert_eq!(
            told(&mut sim, &nobody)["windows"][0]["remaining"],
            1,
            "{profile}"
        );
        sim.send(Request::get("/a")).assert_status(200);
    }
}

#[test]
fn a_consumers_own_limits_are_used_where_they_are_given() {
    let mut sim = start(Profile::Envoy, &config());
    let metadata = json!({"limits": {"all": {"minute": 9}, "parallel": {"limit": 7}}});
    let by = json!({"consumer": "ada"});
    let all = told(
        &mut sim,
        &json!({"rule": "all", "by": by, "metadata": metadata}),
    );
    assert_eq!(all["windows"][0]["limit"], 9);
    let parallel = told(
        &mut sim,
        &json!({"rule": "parallel", "by": by, "metadata": metadata}),
    );
    assert_eq!(parallel["limit"], 7);
}

#[test]
fn an_operator_frees_leases_that_nobody_gives_back() {
    for profile in BOTH {
        let mut sim = start(profile, &config());
        sim.upstream(|_| Answer::status(200).after(Duration::from_secs(30)));
        let ids = [(); 3].map(|()| sim.begin(by("ada", Request::get("/a"))));
        sim.send(by("ada", Request::get("/a"))).assert_status(429);
        let mut order = json!({"rule": "parallel", "by": {"consumer": "ada"}});
        assert_eq!(told(&mut sim, &order)["used"], 3, "{profile}");
        order["action"] = json!("reset");
        assert_eq!(told(&mut sim, &order)["used"], 0);
        sim.upstream(|_| Answer::status(200).after(Duration::from_secs(50)));
        let again = sim.begin(by("ada", Request::get("/a")));
        for id in ids {
            sim.finish(id).assert_status(200);
        }
        order["action"] = json!("read");
        // Those that were forgotten take nobody's place away when they end.
        assert_eq!(told(&mut sim, &order)["used"], 1);
        sim.finish(again).assert_status(200);
        assert_eq!(told(&mut sim, &order)["used"], 0);
    }
}

#[test]
fn every_mistake_of_an_order_is_told() {
    let ada = json!({"consumer": "ada"});
    let names = "all, money, trial, requests, parallel";
    for profile in BOTH {
        let mut sim = start(profile, &config());
        for (order, problems) in [
            (json!({}), vec!["rule: required field missing".to_owned()]),
            (json!([1]), vec!["expected an object, as {\"field\": value}".to_owned()]),
            (json!({"rule": "none"}), vec![format!("rule: expected one of: {names}")]),
            (json!({"rule": "all", "by": ada, "buy": 1}), vec!["buy: unknown field: did you mean by?".to_owned()]),
            (
                json!({"rule": "all", "action": "raise", "by": ada}),
                vec!["action: expected one of: read, reset, add, subtract".to_owned()],
            ),
            (
                json!({"rule": "money", "by": {"consumer": "ada"}}),
                vec!["by.model: required field missing".to_owned()],
            ),
            (
                json!({"rule": "all", "by": {}}),
                vec!["by.consumer: required field missing (or credential, ip, for requests that have none)".to_owned()],
            ),
            (
                json!({"rule": "all", "by": {"consumer": "ada", "model": "m"}}),
                vec!["by.model: the rule counts by consumer".to_owned()],
            ),
            (
                json!({"rule": "all", "by": ada, "action": "add", "amount": 0.5, "window": "day"}),
                vec![
                    "window: expected one of: minute, window_seconds".to_owned(),
                    "amount: expected an integer: only cost has fractions".to_owned(),
                ],
            ),
            (
                json!({"rule": "all", "by": ada, "action": "add"}),
                vec!["amount: required field missing".to_owned()],
            ),
            (
                json!({"rule": "all", "by": ada, "action": "subtract", "amount": -1}),
                vec!["amount: value must not be negative".to_owned()],
            ),
            (
                json!({"rule": "all", "by": ada, "action": "reset", "amount": 1}),
                vec!["amount: only for add and subtract".to_owned()],
            ),
            (
                json!({"rule": "all", "by": ada, "window": "minute"}),
                vec!["window: all windows are read: leave it out".to_owned()],
            ),
            (
                json!({"rule": "parallel", "by": ada, "action": "add", "amount": 1}),
                vec!["action: expected one of: read, reset; requests at once can't be made up".to_owned()],
            ),
            (
                json!({"rule": "trial", "by": ada}),
                vec!["rule: it denies what it matches, and counts nothing".to_owned()],
            ),
        ] {
            let got = ask(&mut sim, &order);
            got.assert_status(400);
            assert_eq!(document(&got)["problems"], json!(problems), "{profile}: {order}");
        }
        let post = || Request::post("/limits").header("x-admin-key", KEY);
        for request in [
            post(),
            post().body("{\"rule\": "),
            post().body(vec![b' '; 70_000]),
        ] {
            let got = sim.send(request);
            got.assert_status(400);
            assert_eq!(document(&got)["problems"].as_array().map(Vec::len), Some(1));
        }
        assert_eq!(used(&mut sim, "all", &ada), 0);
    }
}

#[test]
fn without_the_key_nothing_is_told_and_nothing_is_changed() {
    for profile in BOTH {
        let mut sim = start(profile, &config());
        let order = json!({"rule": "all", "by": {"consumer": "ada"}, "action": "add", "amount": 9})
            .to_string();
        let post = || Request::post("/limits").body(order.clone());
        let wrong = [
            post(),
            post().header("x-admin-key", ""),
            post().header("x-admin-key", &KEY[1..]),
            post()
                .header("x-admin-key", "wrong")
                .header("x-admin-key", KEY),
            post().header("x-admin-key", KEY).header("x-admin-key", KEY),
            post().header("authorization", KEY),
            Request::get("/limits"),
        ];
        let answers = wrong.map(|request| {
            let got = sim.send(request.header("accept", "text/plain"));
            got.assert_status(401).assert_no_upstream();
            got.text().lines().next().map(str::to_owned)
        });
        assert!(
            answers.windows(2).all(|two| two[0] == two[1]),
            "{answers:?}"
        );
        assert_eq!(
            sim.metric("tollgate_token_rate_limit_enquiries;result=refused"),
            7
        );
        sim.send(Request::get("/limits").header("x-admin-key", KEY))
            .assert_status(405)
            .assert_header("allow", "POST");
        assert_eq!(used(&mut sim, "all", &json!({"consumer": "ada"})), 0);
        assert!(sim.logs().iter().all(|line| !line.message.contains(KEY)));
    }
}

#[test]
fn what_is_shared_for_want_of_room_is_said_and_not_corrected() {
    for profile in BOTH {
        let mut config = config();
        config["max_counters"] = json!(1);
        let mut sim = start(profile, &config);
        for number in 0..30 {
            sim.send(by(&format!("c{number}"), Request::get("/a")));
        }
        let line = &budget(&mut sim, "c29", "")[1];
        assert_eq!(line["shared"], true, "{profile}: {line}");
        let order = json!({"rule": "requests", "by": {"consumer": "c29"}, "action": "reset"});
        let got = ask(&mut sim, &order);
        got.assert_status(409);
        assert!(got.text().contains("max_counters"));
        assert_eq!(budget(&mut sim, "c29", "")[1], *line);
    }
}

#[test]
fn counters_out_of_reach_are_no_budget() {
    for profile in BOTH {
        let mut sim = start(profile, &config());
        sim.set_faults(Faults::new().answer("proxy_get_shared_data", 10).always());
        sim.send(by("ada", Request::get("/budget")))
            .assert_status(503);
        ask(&mut sim, &json!({"rule": "all", "by": {"consumer": "ada"}})).assert_status(503);
    }
}

#[test]
fn unless_they_are_configured_the_paths_are_the_upstreams() {
    for profile in BOTH {
        let mut sim = start(profile, &json!({"minute": 5, "limit_by": "ip"}));
        sim.send(Request::get("/budget"))
            .assert_status(200)
            .assert_upstream();
        sim.send(Request::post("/limits").header("x-admin-key", KEY))
            .assert_status(200)
            .assert_upstream();
    }
}
