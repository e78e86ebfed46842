//! What others get wrong about token limits, each as a test.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Answer, Request};

use super::{chat, gateway, left, reserved, tokens, usage, used};

/// LiteLLM #18730 let 663 tokens through a limit of 100; Higress #2464 lets all through.
#[test]
fn a_hundred_clients_at_once_stay_below_a_limit_of_a_hundred() {
    let mut sim = gateway(Profile::Envoy, &tokens(&json!({"minute": 100})));
    sim.upstream(|_| usage(10, 20).after(Duration::from_secs(1)));
    let open: Vec<_> = (0..100)
        .map(|_| sim.begin(chat(&json!({"max_tokens": 20}))))
        .collect();
    let got: Vec<_> = open.into_iter().map(|id| sim.finish(id)).collect();
    let passed = got.iter().filter(|got| got.status() == 200).count() as u64;
    assert!(passed > 0 && passed * 30 <= 100, "{passed} passed");
}

/// LiteLLM's fix refused the first request without `max_tokens`; TensorZero refuses all of them.
#[test]
fn a_request_without_max_tokens_passes() {
    for exact in [false, true] {
        let mut config = tokens(&json!({"minute": 2000}));
        config["exact"] = json!(exact);
        let mut sim = gateway(Profile::Envoy, &config);
        let request = Request::post("/v1/chat/completions").body(r#"{"model":"m","messages":[]}"#);
        sim.send(request).assert_status(200);
    }
}

/// Kuadrant reserves 5000 tokens for any request.
#[test]
fn a_reservation_is_no_larger_than_the_request_may_become() {
    let config = tokens(&json!({"minute": 1}));
    let small = reserved(Profile::Envoy, &config, chat(&json!({"max_tokens": 10})));
    assert!((10..40).contains(&small), "{small}");
}

/// Higress stops adding once over the limit; agentgateway clamps at zero.
#[test]
fn what_was_used_beyond_the_limit_is_not_forgotten() {
    let config = tokens(&json!({"minute": 200}));
    let mut sim = gateway(Profile::Envoy, &config);
    sim.upstream(|_| usage(10, 690));
    sim.send(chat(&json!({}))).assert_status(200);
    for minute in 0..3 {
        sim.send(chat(&json!({}))).assert_status(429);
        sim.advance(Duration::from_secs(60));
        assert!(minute < 3);
    }
    sim.send(chat(&json!({"max_tokens": 20})))
        .assert_status(200);
}

/// Higress and agentgateway lose the count when a client does not ask for usage, or declines it.
#[test]
fn usage_is_asked_for_whatever_the_client_says() {
    for options in [json!(null), json!({"include_usage": false}), json!({})] {
        let mut sim = gateway(Profile::Envoy, &tokens(&json!({"minute": 1000})));
        let got = sim.send(chat(&json!({"stream": true, "stream_options": options})));
        let sent: Value = serde_json::from_slice(&got.assert_upstream().body).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true, "{sent}");
    }
}

/// Kong #14536: leaving the content type out bypassed the enforcement.
#[test]
fn a_body_is_judged_by_what_it_is() {
    for kind in ["", "text/plain", "application/x-www-form-urlencoded"] {
        let mut config = tokens(&json!({"minute": 1000}));
        config["tokens"][0] = json!({"name": "no", "match": {"model": "gpt-4.1"}, "limit": 0});
        let mut sim = gateway(Profile::Envoy, &config);
        let request = chat(&json!({})).header("content-type", kind);
        sim.send(request).assert_status(403);
    }
}

/// WSO2 #3253 charges nothing, others 1, where a provider tells no usage.
#[test]
fn an_answer_without_usage_is_estimated() {
    let mut sim = gateway(Profile::Envoy, &tokens(&json!({"minute": 1000})));
    let text = "word ".repeat(60);
    let body = json!({"object": "chat.completion", "choices": [{"message": {"content": text}}]});
    let answer = Answer::status(200).body(body.to_string());
    sim.upstream(move |_| answer.clone());
    sim.send(chat(&json!({})));
    let each = reserved(
        Profile::Envoy,
        &tokens(&json!({"minute": 1000})),
        chat(&json!({})),
    );
    let used = used(&mut sim, 1000, chat(&json!({})), each);
    assert!((60..160).contains(&used), "{used}");
}

/// Kong charges the model that was asked for, when failover answered with another.
#[test]
fn the_model_that_answered_is_paid_for() {
    let config = json!({
        "tokens": [{"name": "money", "by": ["ip"], "count": "cost", "day": 1}], "limit_headers": ["kong-ai"],
        "pricing": {"gpt-4.1": {"input": 8, "output": 24}, "deepseek-v3.2": {"input": 0.42, "output": 1.68}},
    });
    let mut sim = gateway(Profile::Envoy, &config);
    sim.upstream(|_| {
        Answer::status(200).body(r#"{"model":"deepseek-v3.2","usage":{"prompt_tokens":100000,"completion_tokens":100000}}"#)
    });
    sim.send(chat(&json!({})));
    let got = sim.send(chat(&json!({"max_tokens": 1})));
    let left: f64 = got
        .header("x-ai-ratelimit-remaining-day-money")
        .unwrap()
        .parse()
        .unwrap();
    // 0.042 + 0.168 by the prices of the one that answered; 3.2 by the other's, more than there was.
    assert!((0.78..0.79).contains(&left), "{left}");
}

/// Envoy AI Gateway #1754: headers that never move.
#[test]
fn headers_move_with_every_request() {
    let mut sim = gateway(Profile::Envoy, &tokens(&json!({"minute": 1000})));
    sim.upstream(|_| usage(7, 13));
    let seen: Vec<_> = (0..3).map(|_| left(&sim.send(chat(&json!({}))))).collect();
    assert_eq!(seen[0] - seen[1], 20);
    assert_eq!(seen[1] - seen[2], 20);
}

/// Higress #1826 and others: nothing happens, and nothing is said.
#[test]
fn a_configuration_that_can_not_work_is_refused() {
    let check = |config: Value| {
        let filter = tollgate_harness::catalog::find("token-rate-limit").unwrap();
        (filter.check)(config.to_string().as_bytes(), &|_| None)
    };
    for (config, wanted) in [
        (json!({"tokens": [{"name": "a"}]}), "tokens[0]: no limit"),
        (
            json!({"minute": 1, "policy": "cluster"}),
            "policy: expected one of: local, redis; cluster",
        ),
        (
            json!({"tokens": [{"name": "a", "count": "cost", "day": 1}]}),
            "tokens[0].count: cost needs prices",
        ),
        (
            json!({"tokens": [{"name": "a", "by": ["user"], "day": 1}]}),
            "tokens[0].by[0]: expected one of",
        ),
        (
            json!({"tokens": [{"name": "a", "day": 1}, {"name": "a", "day": 2}]}),
            "tokens[1].name: the name of another",
        ),
        (json!({}), "at least one of these fields"),
    ] {
        let problems = check(config.clone()).unwrap_err();
        let found = problems
            .iter()
            .any(|problem| problem.to_string().starts_with(wanted));
        assert!(found, "{config}: {problems:?}");
    }
}
