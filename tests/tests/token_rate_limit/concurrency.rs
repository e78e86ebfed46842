//! Limits of requests under way at once: held while a request is, given back however it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Abort, Answer, Outcome, Request, Sim};
use tollgate_harness::vm::{Callback, Faults};

use super::{chat, gateway, usage};

const BOTH: [Profile; 2] = [Profile::Envoy, Profile::Kong];

/// One rule for all clients together.
fn at_once(limit: u64, more: &Value) -> Value {
    let mut rule = json!({"name": "parallel", "by": ["ip"], "limit": limit});
    let fields = rule.as_object_mut().expect("it is an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    json!({"concurrency": [rule]})
}

fn slow(seconds: u64) -> Answer {
    usage(7, 13).after(Duration::from_secs(seconds))
}

fn get() -> Request {
    Request::get("/files/1")
}

/// Whether one more would be let through now; it does not stay.
fn has_room(sim: &mut Sim) -> bool {
    let id = sim.begin(get().header("x-quick", "1"));
    sim.finish(id).status() == 200
}

/// Answers at once whoever asks for it, and all others after so many seconds.
fn slow_for_some(sim: &mut Sim, answer: Answer) {
    sim.upstream(move |request| match request.headers.get("x-quick") {
        Some(_) => Answer::status(200),
        None => answer.clone(),
    });
}

#[test]
fn one_more_than_the_limit_gets_429_until_one_has_ended() {
    for profile in BOTH {
        let mut sim = gateway(profile, &at_once(2, &json!({})));
        slow_for_some(&mut sim, slow(10));
        let first = sim.begin(get());
        sim.advance(Duration::from_secs(5));
        let second = sim.begin(get());
        let refused = sim.send(get().header("accept", "application/json"));
        refused
            .assert_status(429)
            .assert_header("retry-after", "1")
            .assert_no_upstream();
        assert!(
            refused.text().contains("Rate limit 'parallel' reached"),
            "{profile}"
        );
        assert_eq!(
            sim.metric("tollgate_token_rate_limit_limited;rule=parallel"),
            1
        );
        sim.finish(first).assert_status(200);
        assert!(has_room(&mut sim), "{profile}");
        sim.finish(second).assert_status(200);
    }
}

#[test]
fn a_stream_counts_until_its_end_or_until_its_client_leaves() {
    let chunks = ["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"];
    for profile in BOTH {
        let mut sim = gateway(profile, &at_once(1, &json!({})));
        let stream = Answer::status(200)
            .streamed(&chunks)
            .paced(Duration::from_secs(5));
        slow_for_some(&mut sim, stream);
        let request = || chat(&json!({"stream": true}));
        let stays = sim.begin(request());
        sim.advance(Duration::from_secs(8));
        assert!(!has_room(&mut sim), "{profile}");
        sim.finish(stays).assert_outcome(Outcome::Answered);
        assert!(has_room(&mut sim), "{profile}");
        for abort in [
            Abort::BeforeEnd,
            Abort::AtResponseHeaders,
            Abort::AfterChunks(1),
        ] {
            sim.send(request().aborted(abort))
                .assert_outcome(Outcome::Aborted);
            assert!(has_room(&mut sim), "{profile} {abort:?}");
        }
        let leaves = sim.begin(request());
        assert!(!has_room(&mut sim), "{profile}");
        sim.abort(leaves);
        assert!(has_room(&mut sim), "{profile}");
    }
}

#[test]
fn however_an_upstream_fails_the_lease_is_given_back_once() {
    use tollgate_harness::exchange::CallFailure;
    for profile in BOTH {
        let mut sim = gateway(profile, &at_once(2, &json!({})));
        // Were a lease given back twice, this one's place would be free.
        slow_for_some(&mut sim, slow(50));
        let other = sim.begin(get());
        for answer in [
            Answer::status(500).body("no"),
            Answer::failed(CallFailure::Refused),
            Answer::status(200).body("cut short").breaks_at(3),
        ] {
            slow_for_some(&mut sim, answer);
            sim.send(get());
            slow_for_some(&mut sim, slow(1));
            let beside = sim.begin(get());
            assert!(!has_room(&mut sim), "{profile}");
            sim.finish(beside).assert_status(200);
            assert!(has_room(&mut sim), "{profile}");
        }
        sim.finish(other).assert_status(200);
    }
}

#[test]
fn what_another_limit_refuses_holds_nothing() {
    for profile in BOTH {
        let mut config = at_once(1, &json!({}));
        config["minute"] = json!(1);
        config["limit_by"] = json!("ip");
        config["tokens"] = json!([
            {"name": "tiny", "match": {"model": "tiny"}, "by": ["ip"], "minute": 1},
            {"name": "no", "match": {"model": "no"}, "limit": 0},
        ]);
        config["exact"] = json!(true);
        let mut sim = gateway(profile, &config);
        for (request, status) in [
            (chat(&json!({"model": "no"})), 403),
            (chat(&json!({"model": "tiny"})), 400),
            (chat(&json!({"model": 7})), 400),
            (get(), 200),
            (get(), 429),
        ] {
            sim.send(request).assert_status(status);
        }
        sim.advance(Duration::from_secs(60));
        // Nothing stayed behind in all that: the limit of one has its one place free.
        sim.send(get()).assert_status(200);
    }
}

#[test]
fn a_stream_that_outlives_its_lease_renews_it() {
    for profile in BOTH {
        let mut sim = gateway(profile, &at_once(1, &json!({"ttl_seconds": 60})));
        let chunks = vec!["data: more\n\n"; 30];
        let stream = Answer::status(200)
            .streamed(&chunks)
            .paced(Duration::from_secs(20));
        slow_for_some(&mut sim, stream);
        for request in [get(), chat(&json!({"stream": true}))] {
            let id = sim.begin(request);
            for second in (0..600).step_by(10) {
                assert!(!has_room(&mut sim), "{profile} after {second} s");
                sim.advance(Duration::from_secs(10));
            }
            sim.finish(id).assert_outcome(Outcome::Answered);
            assert!(has_room(&mut sim), "{profile}");
        }
        assert!(sim.metric("tollgate_token_rate_limit_leases;event=renewed") > 20);
    }
}

#[test]
fn a_lease_that_nobody_gives_back_is_over_after_its_time_to_live() {
    for profile in BOTH {
        let mut sim = gateway(profile, &at_once(1, &json!({"ttl_seconds": 60})));
        // What a worker that dies in the middle leaves behind: nothing it would have written at the end is there.
        let dead = Faults::new()
            .answer("proxy_set_shared_data", 10)
            .in_phase(Callback::Log)
            .always();
        sim.set_faults(dead);
        sim.send(get()).assert_status(200);
        sim.set_faults(Faults::new());
        assert_eq!(
            sim.metric("tollgate_token_rate_limit_leases;event=left"),
            1,
            "{profile}"
        );
        sim.advance(Duration::from_secs(59));
        assert!(!has_room(&mut sim), "{profile}");
        sim.advance(Duration::from_secs(5));
        assert!(has_room(&mut sim), "{profile}");
    }
}

#[test]
fn a_rule_by_model_reads_the_body_and_each_model_counts_for_itself() {
    for profile in BOTH {
        let config = at_once(
            1,
            &json!({"by": ["ip", "model"], "match": {"model": "gpt-*"}}),
        );
        let mut sim = gateway(profile, &config);
        slow_for_some(&mut sim, slow(10));
        let ask = |model: &str| chat(&json!({"model": model}));
        let ids = ["gpt-4.1", "gpt-5", "claude", "claude"].map(|model| sim.begin(ask(model)));
        sim.send(ask("gpt-4.1")).assert_status(429);
        sim.send(ask("gpt-5")).assert_status(429);
        assert!(has_room(&mut sim), "{profile}: it has no body");
        for id in ids {
            sim.finish(id).assert_status(200);
        }
        let again = sim.begin(ask("gpt-5"));
        sim.finish(again).assert_status(200);
    }
}

#[test]
fn a_limit_of_0_denies() {
    for profile in BOTH {
        let config = at_once(0, &json!({"match": {"path": "/files/*"}}));
        let mut sim = gateway(profile, &config);
        sim.send(get()).assert_status(403).assert_no_upstream();
        sim.send(chat(&json!({}))).assert_status(200);
    }
}

#[test]
fn shadow_counts_and_refuses_nothing() {
    let mut config = at_once(1, &json!({}));
    config["shadow"] = json!(true);
    let mut sim = gateway(Profile::Envoy, &config);
    slow_for_some(&mut sim, slow(10));
    let first = sim.begin(get());
    assert!(has_room(&mut sim));
    assert_eq!(
        sim.metric("tollgate_token_rate_limit_limited;rule=parallel"),
        1
    );
    sim.finish(first).assert_status(200);
}

#[test]
fn leases_out_of_reach_let_pass_or_stop() {
    for profile in BOTH {
        for (tolerant, status) in [(true, 200), (false, 500)] {
            let mut config = at_once(1, &json!({}));
            config["fault_tolerant"] = json!(tolerant);
            let mut sim = gateway(profile, &config);
            sim.set_faults(Faults::new().answer("proxy_get_shared_data", 10).always());
            sim.send(get()).assert_status(status);
            sim.set_faults(Faults::new());
            assert!(has_room(&mut sim) && has_room(&mut sim), "{profile}");
        }
    }
}

mod interleaved {
    //! Four workers, in every order in which they can get at the leases.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tollgate_harness::sim::race::{self, Race};

    use super::super::setting;
    use super::*;

    const WORKERS: usize = 4;
    const SCHEDULES: u64 = 1500;

    /// A client that comes at some moment, in milliseconds, and is done at another, unless it is refused.
    #[derive(Clone, Copy)]
    struct Visit {
        comes: u64,
        stays: u64,
        leaves_early: bool,
    }

    const fn visit(comes: u64, stays: u64, leaves_early: bool) -> Visit {
        Visit {
            comes,
            stays,
            leaves_early,
        }
    }

    const VISITS: [Visit; 14] = [
        visit(0, 15, false),
        visit(0, 25, false),
        visit(0, 15, true),
        visit(0, 40, false),
        visit(0, 5, false),
        visit(7, 20, false),
        visit(7, 3, false),
        visit(12, 30, true),
        visit(18, 10, false),
        visit(18, 10, false),
        visit(29, 10, false),
        visit(29, 1, false),
        visit(33, 20, true),
        visit(33, 20, false),
    ];

    fn spawn(race: &mut Race, number: usize, visit: Visit) -> u64 {
        let stays = Duration::from_millis(visit.stays);
        let comes = Duration::from_millis(visit.comes);
        // The upstream of one that leaves would take for ever.
        let takes = if visit.leaves_early {
            1_000_000
        } else {
            visit.stays
        };
        let mut request = get().header("x-takes", takes.to_string()).after(comes);
        if visit.leaves_early {
            request = request.aborted(Abort::After(comes + stays));
        }
        race.spawn(number % WORKERS, request)
    }

    fn takes(race: &mut Race, admitted: &Arc<AtomicUsize>) {
        let admitted = admitted.clone();
        race.upstream(move |request| {
            admitted.fetch_add(1, Ordering::Relaxed);
            let text = request
                .headers
                .get("x-takes")
                .map_or(&b"0"[..], |text| text);
            let takes = std::str::from_utf8(text).unwrap().parse().unwrap();
            Answer::status(200).after(Duration::from_millis(takes))
        });
    }

    #[test]
    fn never_more_than_the_limit_at_once_and_nobody_is_refused_without_need() {
        for profile in BOTH {
            let config = at_once(3, &json!({}));
            race::check(
                0..SCHEDULES,
                || setting(profile, &config).workers(WORKERS),
                |race| {
                    takes(race, &Arc::default());
                    let numbers: Vec<_> = VISITS
                        .iter()
                        .enumerate()
                        .map(|(number, visit)| spawn(race, number, *visit))
                        .collect();
                    race.run();
                    let passed: Vec<_> = numbers
                        .iter()
                        .map(|number| race.response(*number).upstream().is_some())
                        .collect();
                    let under_way = |at: u64, with_ends: bool| {
                        let there = VISITS.iter().zip(&passed).filter(|(visit, passed)| {
                            let end = visit.comes + visit.stays;
                            **passed && visit.comes <= at && (at < end || with_ends && at == end)
                        });
                        there.count()
                    };
                    for (visit, passed) in VISITS.iter().zip(&passed) {
                        assert!(under_way(visit.comes, false) <= 3);
                        assert!(*passed || under_way(visit.comes, true) >= 3);
                    }
                    // All of them have been given back: the limit is there again, whole.
                    let crowd: Vec<_> = (0..2 * WORKERS)
                        .map(|number| spawn(race, number, visit(0, 10, false)))
                        .collect();
                    race.run();
                    let again = crowd
                        .iter()
                        .filter(|number| race.response(**number).status() == 200);
                    assert_eq!(again.count(), 3);
                },
            );
        }
    }

    #[test]
    fn two_rules_grant_together_or_not_at_all() {
        let config = json!({"concurrency": [
            {"name": "all", "by": ["service"], "limit": 5},
            {"name": "each", "by": ["header:x-team"], "limit": 2},
        ]});
        race::check(
            0..SCHEDULES,
            || setting(Profile::Envoy, &config).workers(WORKERS),
            |race| {
                let admitted = Arc::default();
                takes(race, &admitted);
                let crowd = |race: &mut Race| {
                    for number in 0..2 * WORKERS {
                        let team = ["blue", "red", "green", "blue"][number % 4];
                        let request = get().header("x-takes", "50").header("x-team", team);
                        race.spawn(number * 3 % WORKERS, request);
                    }
                    race.run();
                    admitted.swap(0, Ordering::Relaxed)
                };
                let passed = crowd(race);
                let taken_back = race.metric("tollgate_token_rate_limit_counters;event=taken_back");
                assert!(passed <= 5, "{passed} passed");
                assert!(passed == 5 || taken_back > 0, "{passed} passed");
                race.run_for(Duration::from_secs(1));
                // One at a time, so that nothing is taken back beside: all places are free.
                for team in ["blue", "blue", "red", "red", "green"] {
                    let request = get().header("x-takes", "5000").header("x-team", team);
                    race.spawn(0, request);
                    race.run_for(Duration::from_millis(1));
                }
                assert_eq!(admitted.load(Ordering::Relaxed), 5);
                race.run();
            },
        );
    }
}
