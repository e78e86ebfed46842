//! The filter by itself, against a host that answers as it is told.

use super::*;
use serde_json::{Value as Json, json};
use std::time::Duration;
use tollgate_kit::config::check;
use tollgate_kit::testing::ScriptedHost;

/// 12:00:05 on the first of January 2024, UTC.
const START: u64 = 1_704_110_405;

const CHAT: &str =
    r#"{"model":"gpt-4.1","max_tokens":100,"messages":[{"role":"user","content":"Hello"}]}"#;

/// A filter and the host it runs on, for one request after the other.
struct Bench {
    filter: TokenRateLimit,
    host: ScriptedHost,
}

/// How a request was decided.
#[derive(Debug, PartialEq, Eq)]
enum Decided {
    Passed {
        body: Option<String>,
    },
    Answered {
        status: u16,
        retry_after: Option<u64>,
        body: String,
    },
}

fn filter(config: &Json) -> TokenRateLimit {
    let checked = check::<Config>(config.to_string().as_bytes(), &|_| None);
    TokenRateLimit::new(checked.expect("it is valid").config)
}

impl Bench {
    fn of(config: Json) -> Bench {
        let host = ScriptedHost::with_headers(&[
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            ("accept-encoding", "gzip"),
        ]);
        host.set_now(Duration::from_secs(START));
        Bench {
            filter: filter(&config),
            host,
        }
    }

    fn begin(&mut self, body: &str) -> (Limiting, Decided) {
        let mut exchange = self.filter.exchange();
        let mut step = exchange.request_headers(&mut self.filter, &self.host);
        if matches!(step, RequestStep::HoldForBody { .. }) {
            step =
                exchange.request_body(&mut self.filter, Body::Whole(body.as_bytes()), &self.host);
        }
        let decided = match step {
            RequestStep::Continue(edits) => Decided::Passed {
                body: edits.body.map(|body| String::from_utf8(body).unwrap()),
            },
            RequestStep::Reply(reply) => Decided::Answered {
                status: reply.status,
                retry_after: reply
                    .headers
                    .iter()
                    .find(|(name, _)| name == "Retry-After")
                    .map(|(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap()),
                body: String::from_utf8(reply.body).unwrap(),
            },
            other => panic!("{other:?}"),
        };
        (exchange, decided)
    }

    /// The answer of the upstream, all at once, and the end of the exchange. What the client got.
    fn finish(&mut self, mut exchange: Limiting, status: u16, body: &str) -> String {
        let host = std::mem::take(&mut self.host);
        self.host = host.answering(&[(":status", status.to_string())]);
        let step = exchange.response_headers(&mut self.filter, &self.host);
        let got = match step {
            ResponseStep::Stream(_) => {
                match exchange.response_chunk(&mut self.filter, body.as_bytes(), true, &self.host) {
                    StreamStep::Pass => body.to_owned(),
                    StreamStep::Replace(bytes) => String::from_utf8(bytes).unwrap(),
                    StreamStep::Swallow => String::new(),
                }
            }
            ResponseStep::Watch(_) => {
                exchange.response_passed(&mut self.filter, body.as_bytes(), true, &self.host);
                body.to_owned()
            }
            _ => body.to_owned(),
        };
        exchange.log(&mut self.filter, &self.host);
        got
    }

    /// A request that is answered with this usage; whether it passed.
    fn send(&mut self, body: &str, prompt: u64, completion: u64) -> bool {
        let (exchange, decided) = self.begin(body);
        let passed = matches!(decided, Decided::Passed { .. });
        if passed {
            self.finish(exchange, 200, &answer(prompt, completion));
        } else {
            let mut exchange = exchange;
            exchange.log(&mut self.filter, &self.host);
        }
        passed
    }

    /// What is used of the first token rule's first window.
    fn used(&mut self) -> u64 {
        let incoming = Incoming {
            headers: self.host_headers(),
            identity: None,
            own_limits: OwnLimits::default(),
            path: b"/v1/chat/completions".to_vec(),
            endpoint: Endpoint::of(b"/v1/chat/completions"),
        };
        let client = incoming.client(&self.filter, None, &self.host);
        let rule = self.filter.config.tokens.first().unwrap();
        let charge = self.filter.charge(0, rule, &client, |_| 0);
        let standings = self.filter.ledger(&self.host).standings(&charge).unwrap();
        standings.first().unwrap().used
    }

    fn host_headers(&self) -> HeaderMap {
        use tollgate_kit::host::Headers as _;
        self.host.request_headers().unwrap()
    }
}

fn answer(prompt: u64, completion: u64) -> String {
    json!({"object": "chat.completion", "model": "gpt-4.1", "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}).to_string()
}

fn minute(limit: u64) -> Json {
    json!({"host": "envoy", "tokens": [{"name": "all", "by": ["ip"], "minute": limit}]})
}

fn with(mut config: Json, more: Json) -> Json {
    let fields = config.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    config
}

#[test]
fn a_reservation_is_settled_by_what_the_provider_says() {
    let mut bench = Bench::of(minute(1000));
    let (exchange, decided) = bench.begin(CHAT);
    assert_eq!(decided, Decided::Passed { body: None });
    let reserved = bench.used();
    assert!(reserved > 100 && reserved < 150, "{reserved}");
    bench.finish(exchange, 200, &answer(9, 17));
    assert_eq!(bench.used(), 26);
}

#[test]
fn a_limit_is_never_passed_by_requests_at_once() {
    let mut bench = Bench::of(minute(1000));
    let mut passed = 0;
    let open: Vec<_> = (0..100)
        .map(|_| bench.begin(CHAT))
        .filter(|(_, decided)| matches!(decided, Decided::Passed { .. }))
        .map(|(exchange, _)| {
            passed += 1;
            exchange
        })
        .collect();
    assert!((7..10).contains(&passed), "{passed}");
    for exchange in open {
        bench.finish(exchange, 200, &answer(9, 100));
    }
    assert_eq!(bench.used(), passed * 109);
}

#[test]
fn upstream_errors_cost_nothing_and_no_answer_costs_the_prompt() {
    let mut bench = Bench::of(minute(1000));
    for status in [400, 429, 500, 503] {
        let (exchange, _) = bench.begin(CHAT);
        bench.finish(exchange, status, "{}");
        assert_eq!(bench.used(), 0, "{status}");
    }
    let (mut exchange, _) = bench.begin(CHAT);
    exchange.log(&mut bench.filter, &bench.host);
    let used = bench.used();
    assert!((1..20).contains(&used), "{used}");
}

#[test]
fn exact_mode_writes_the_limit_and_bounds_the_prompt() {
    let mut bench = Bench::of(with(
        minute(1000),
        json!({"exact": true, "default_completion": 50}),
    ));
    let (_, decided) = bench.begin(r#"{"model":"m","messages":[]}"#);
    let body = Some(r#"{"max_tokens":50,"model":"m","messages":[]}"#.to_owned());
    assert_eq!(decided, Decided::Passed { body });
    let (_, decided) = bench.begin(&CHAT.replace("100", "2000"));
    let Decided::Answered {
        status: 400, body, ..
    } = decided
    else {
        panic!("{decided:?}")
    };
    assert!(body.contains("limit 'all' is 1000"), "{body}");
}

#[test]
fn overshoot_is_debt() {
    let mut bench = Bench::of(minute(200));
    assert!(bench.send(CHAT, 10, 450));
    assert_eq!(bench.used(), 460);
    assert!(!bench.send(CHAT, 1, 1));
    // Each minute pays 200 of it.
    bench.host.set_now(Duration::from_secs(START + 60));
    assert_eq!(bench.used(), 260);
    bench.host.set_now(Duration::from_secs(START + 120));
    assert_eq!(bench.used(), 60);
    assert!(bench.send(CHAT, 1, 1));
}

#[test]
fn a_stream_is_asked_for_usage_which_its_client_does_not_see() {
    let mut bench = Bench::of(minute(1000));
    let (exchange, decided) = bench.begin(r#"{"stream":true,"messages":[]}"#);
    let body =
        Some(r#"{"stream_options":{"include_usage":true},"stream":true,"messages":[]}"#.to_owned());
    assert_eq!(decided, Decided::Passed { body });
    let events = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";
    let got = bench.finish(exchange, 200, &format!("{events}{usage}data: [DONE]\n\n"));
    assert_eq!(got, format!("{events}data: [DONE]\n\n"));
    assert_eq!(bench.used(), 7);
}

#[test]
fn clamping_lowers_the_completion_to_what_is_left() {
    let clamp = json!({"on_limit": "clamp", "min_completion": 20});
    let mut bench = Bench::of(with(minute(300), clamp));
    let (first, _) = bench.begin(&CHAT.replace("100", "200"));
    let (_, decided) = bench.begin(CHAT);
    let Decided::Passed { body: Some(body) } = decided else {
        panic!("{decided:?}")
    };
    let value: Json = serde_json::from_str(&body).unwrap();
    let clamped = value["max_tokens"].as_u64().unwrap();
    assert!((60..100).contains(&clamped), "{clamped}");
    assert!(bench.used() <= 300);
    // Now nothing worth a request is left.
    let (_, decided) = bench.begin(CHAT);
    assert!(
        matches!(decided, Decided::Answered { status: 429, .. }),
        "{decided:?}"
    );
    bench.finish(first, 500, "");
}

#[test]
fn all_rules_are_charged_or_none() {
    let config = json!({"host": "envoy", "minute": 5, "limit_by": "ip", "tokens": [
        {"name": "all", "by": ["ip"], "minute": 100_000},
        {"name": "prompts", "by": ["ip"], "count": "prompt", "minute": 20},
    ]});
    let mut bench = Bench::of(config);
    assert!(bench.send(CHAT, 10, 1));
    assert!(!bench.send(CHAT, 10, 1) || !bench.send(CHAT, 10, 1));
    let used = bench.used();
    assert!(!bench.send(CHAT, 10, 1));
    assert_eq!(
        bench.used(),
        used,
        "what the first rule was charged is taken back"
    );
    assert!(
        bench
            .host
            .counted("tollgate_token_rate_limit_counters;event=taken_back")
            > 0
    );
}

#[test]
fn cost_is_charged_by_the_model_that_answers() {
    let config = json!({
        "host": "envoy", "tokens": [{"name": "money", "by": ["ip"], "count": "cost", "day": 0.01}],
        "pricing": {"gpt-4.1*": {"input": 8, "output": 24}, "cheap": {"input": 1, "output": 1}},
    });
    let mut bench = Bench::of(config);
    let (exchange, _) = bench.begin(CHAT);
    // 20 x 8 + 50 x 24 millionths, in 10^-9.
    bench.finish(exchange, 200, &answer(20, 50));
    assert_eq!(bench.used(), 1_360_000);
    let (exchange, _) = bench.begin(CHAT);
    bench.finish(exchange, 200, &answer(20, 50).replace("gpt-4.1", "cheap"));
    assert_eq!(bench.used(), 1_360_000 + 70_000);
    let (_, decided) = bench.begin(&CHAT.replace("gpt-4.1", "unheard-of"));
    assert!(
        matches!(decided, Decided::Answered { status: 400, .. }),
        "{decided:?}"
    );
}

#[test]
fn what_no_rule_is_for_needs_no_price_and_no_bound() {
    let config = json!({
        "host": "envoy", "exact": true, "pricing": {"gpt-4.1": {"input": 8, "output": 24}},
        "tokens": [{"name": "money", "match": {"model": "gpt-*"}, "by": ["ip"], "count": "cost", "day": 1}],
    });
    let mut bench = Bench::of(config);
    let stored = r#","previous_response_id":"r_1""#;
    let of = |model: &str| format!(r#"{{"model":"{model}","input":"Hello"{stored}}}"#);
    let (_, decided) = bench.begin(&of("llama"));
    assert_eq!(decided, Decided::Passed { body: None });
    let (_, decided) = bench.begin(&of("gpt-4.1"));
    assert!(
        matches!(decided, Decided::Answered { status: 400, .. }),
        "{decided:?}"
    );
}

#[test]
fn a_limit_of_0_denies_what_it_matches() {
    let config = json!({"host": "envoy", "tokens": [
        {"name": "no-opus", "match": {"model": "claude-opus*"}, "limit": 0},
        {"name": "all", "by": ["ip"], "minute": 1000},
    ]});
    let mut bench = Bench::of(config);
    let (_, decided) = bench.begin(&CHAT.replace("gpt-4.1", "claude-opus-4"));
    assert!(
        matches!(decided, Decided::Answered { status: 403, .. }),
        "{decided:?}"
    );
    assert!(bench.send(CHAT, 1, 1));
}

#[test]
fn a_consumers_metadata_overrides_its_limits() {
    let mut bench = Bench::of(with(
        minute(200),
        json!({"tokens": [{"name": "all", "minute": 200}]}),
    ));
    let identity = Identity {
        consumer: "gold".into(),
        metadata: Some(r#"{"limits": {"all": {"minute": 100000}}}"#.into()),
        ..Identity::default()
    };
    assert!(bench.send(CHAT, 10, 300));
    assert!(!bench.send(CHAT, 1, 1));
    let host = std::mem::take(&mut bench.host);
    bench.host = host.authenticated(identity);
    for _ in 0..5 {
        assert!(bench.send(CHAT, 10, 300));
    }
}

#[test]
fn a_consumers_metadata_overrides_how_many_it_may_have_at_once() {
    let mut bench =
        Bench::of(json!({"host": "envoy", "concurrency": [{"name": "parallel", "limit": 1}]}));
    let passed = |bench: &mut Bench| matches!(bench.begin(CHAT).1, Decided::Passed { .. });
    assert_eq!([(); 3].map(|()| passed(&mut bench)), [true, false, false]);
    for (consumer, metadata, most) in [
        ("gold", r#"{"limits": {"parallel": {"limit": 3}}}"#, 3),
        (
            "plain",
            r#"{"limits": {"parallel": {"limit": "3"}, "other": 1}}"#,
            1,
        ),
        ("banned", r#"{"limits": {"parallel": {"limit": 0}}}"#, 0),
    ] {
        let identity = Identity {
            consumer: consumer.into(),
            metadata: Some(metadata.into()),
            ..Identity::default()
        };
        bench.host = std::mem::take(&mut bench.host).authenticated(identity);
        let times = [(); 5].map(|()| passed(&mut bench));
        let count = times.into_iter().filter(|passed| *passed).count();
        assert_eq!(count, most, "{consumer}");
    }
}

#[test]
fn bodies_that_providers_read_differently_are_refused() {
    let mut bench = Bench::of(minute(1000));
    for body in [
        r#"{"model":"a","model":"b","messages":[]}"#,
        r#"{"max_tokens":1,"max_tokens":9999,"messages":[]}"#,
        "\u{feff}{}",
        "\u{1f}\u{8b}",
    ] {
        let (_, decided) = bench.begin(body);
        assert!(
            matches!(decided, Decided::Answered { status: 400, .. }),
            "{body}: {decided:?}"
        );
    }
    assert_eq!(bench.used(), 0);
}

#[test]
fn shadow_refuses_nothing_and_reports() {
    let mut bench = Bench::of(with(
        minute(200),
        json!({"shadow": true, "minute": 1, "limit_by": "ip"}),
    ));
    for _ in 0..5 {
        assert!(bench.send(CHAT, 10, 100));
    }
    assert!(
        bench
            .host
            .counted("tollgate_token_rate_limit_limited;rule=all")
            > 0
    );
    assert!(
        bench
            .host
            .counted("tollgate_token_rate_limit_limited;rule=requests")
            > 0
    );
}

#[test]
fn a_stream_is_cut_at_its_limit() {
    let mut bench = Bench::of(with(
        minute(60),
        json!({"stream_cutoff": true, "default_completion": 20}),
    ));
    let (mut exchange, decided) = bench.begin(r#"{"stream":true,"messages":[]}"#);
    assert!(matches!(decided, Decided::Passed { .. }));
    let host = std::mem::take(&mut bench.host);
    bench.host = host.answering(&[(":status", "200")]);
    let _ = exchange.response_headers(&mut bench.filter, &bench.host);
    let mut got = Vec::new();
    for _ in 0..100 {
        let event = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word word \"}}]}\n\n";
        match exchange.response_chunk(&mut bench.filter, event.as_bytes(), false, &bench.host) {
            StreamStep::Pass => got.extend_from_slice(event.as_bytes()),
            StreamStep::Replace(bytes) => got.extend(bytes),
            StreamStep::Swallow => {}
        }
    }
    let end = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":200}}\n\ndata: [DONE]\n\n";
    let last = exchange.response_chunk(&mut bench.filter, end.as_bytes(), true, &bench.host);
    assert_eq!(last, StreamStep::Swallow);
    exchange.log(&mut bench.filter, &bench.host);
    let got = String::from_utf8(got).unwrap();
    assert!(got.matches("word").count() < 20, "{got}");
    assert!(
        got.contains("\"finish_reason\":\"length\"") && got.ends_with("data: [DONE]\n\n"),
        "{got}"
    );
    assert_eq!(
        bench.used(),
        203,
        "what the client did not get has been paid for"
    );
}

#[test]
fn counters_out_of_reach_let_pass_or_stop() {
    // The scripted host fails as a whole, so the request's own phase is asked.
    for (tolerant, passes) in [(true, true), (false, false)] {
        let config = with(minute(1000), json!({"fault_tolerant": tolerant}));
        let mut bench = Bench::of(config);
        bench.host.fail_shared_data(true);
        let (_, decided) = bench.begin(CHAT);
        assert_eq!(
            matches!(decided, Decided::Passed { .. }),
            passes,
            "{decided:?}"
        );
        let (_, _) = bench.begin(CHAT);
        assert_eq!(
            bench.host.lines().len(),
            1,
            "one line for a failure that lasts"
        );
        bench.host.fail_shared_data(false);
        assert!(bench.send(CHAT, 1, 1));
        assert_eq!(bench.host.lines().len(), 2);
    }
}
