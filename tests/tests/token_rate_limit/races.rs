//! Workers that race: whatever order they get at the shared counters in, nothing passes a limit and nothing is lost.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::race::{self, Race, RaceSetting};

use super::{chat, left, reserved, setting, tokens, usage};

const WORKERS: usize = 4;
const SCHEDULES: u64 = 1500;
const BOTH: [Profile; 2] = [Profile::Envoy, Profile::Kong];

fn workers(profile: Profile, config: &Value) -> RaceSetting {
    setting(profile, config).workers(WORKERS)
}

fn admitted(race: &Race) -> u64 {
    let passed = race.responses().into_iter();
    passed.filter(|got| got.status() == 200).count() as u64
}

/// Two requests to each worker.
fn crowd(race: &mut Race) {
    for number in 0..2 * WORKERS {
        race.spawn(number % WORKERS, chat(&json!({})));
    }
}

#[test]
fn as_many_requests_pass_as_the_limit_says() {
    for profile in BOTH {
        let config = json!({"minute": 3, "hour": 100, "limit_by": "ip"});
        race::check(
            0..SCHEDULES,
            || workers(profile, &config),
            |race| {
                crowd(race);
                race.run();
                assert_eq!(admitted(race), 3);
            },
        );
    }
}

#[test]
fn reservations_fit_into_the_limit_and_every_one_is_settled() {
    for profile in BOTH {
        let config = tokens(&json!({"minute": 500}));
        let each = reserved(profile, &config, chat(&json!({})));
        race::check(
            0..SCHEDULES,
            || workers(profile, &config),
            |race| {
                // Nobody is answered before all have been decided.
                race.upstream(|_| usage(7, 13).after(Duration::from_millis(100)));
                crowd(race);
                race.run();
                let passed = admitted(race);
                assert_eq!(passed, 500 / each);
                let look = race.spawn(0, chat(&json!({})));
                race.run();
                assert_eq!(left(&race.response(look)), 500 - passed * 20 - each);
            },
        );
    }
}

#[test]
fn what_a_later_rule_refuses_is_taken_back_from_the_earlier() {
    let config = json!({"minute": 6, "limit_by": "ip", "tokens": [
        {"name": "all", "by": ["ip"], "minute": 100_000},
        {"name": "completions", "by": ["ip"], "count": "completion", "minute": 300},
    ]});
    race::check(
        0..SCHEDULES,
        || workers(Profile::Envoy, &config),
        |race| {
            race.upstream(|_| usage(7, 13).after(Duration::from_millis(100)));
            crowd(race);
            race.run();
            let passed = admitted(race);
            // A charge that is taken back may have refused another, which is counted.
            let taken_back = race.metric("tollgate_token_rate_limit_counters;event=taken_back");
            assert!(passed <= 3, "{passed} passed");
            assert!(passed == 3 || taken_back > 0, "{passed} passed");
            let look = race.spawn(0, chat(&json!({"max_tokens": 1})));
            race.run();
            let got = race.response(look);
            // Of both rules the tighter is told: completions.
            assert_eq!(left(&got), 300 - passed * 13 - 1);
            let requests = got.header("x-ratelimit-remaining-minute");
            assert_eq!(requests, Some(&*(5 - passed).to_string()));
        },
    );
}

#[test]
fn time_that_passes_in_the_middle_loses_nothing() {
    let mut config = tokens(&json!({"second": 250, "hour": 100_000}));
    config["limit_headers"] = json!(["kong-ai"]);
    let each = reserved(Profile::Envoy, &tokens(&json!({})), chat(&json!({})));
    race::check(
        0..SCHEDULES / 3,
        || workers(Profile::Envoy, &config).stalls(),
        |race| {
            race.upstream(|_| usage(7, 13).after(Duration::from_millis(700)));
            crowd(race);
            race.run();
            let passed = admitted(race);
            assert!(passed >= 2, "{passed} passed");
            race.run_for(Duration::from_secs(120));
            let look = race.spawn(0, chat(&json!({})));
            race.run();
            let got = race.response(look);
            // The hour has them all; the seconds that are over have none.
            let left = |window: &str, limit: u64, used: u64| {
                let name = format!("x-ai-ratelimit-remaining-{window}-all");
                got.assert_header(&name, &(limit - used - each).to_string());
            };
            left("hour", 100_000, passed * 20);
            left("second", 250, 0);
        },
    );
}
