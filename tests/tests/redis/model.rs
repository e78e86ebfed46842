//! The scripts that keep counters in Redis decide as the filter's own counters do: whatever is charged and settled, in whatever
//! windows.
//!
//! Clocks may differ by one window here, so by a second. Beyond that there is nothing to agree on: whose clock is right nobody knows.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;
use tollgate_kit::store::Change;
use tollgate_tests::redis::{Connection, Redis, Reply};
use tollgate_token_rate_limit::counter::{
    self, Kind, Limit, Settlement, Standing, Total, charge, settle, standings, standings_of,
};
use tollgate_token_rate_limit::window::Window;

const CHARGE: &str = concat!(
    include_str!("../../../plugins/token-rate-limit/src/redis/window.lua"),
    include_str!("../../../plugins/token-rate-limit/src/redis/charge.lua")
);
const MERGE: &str = concat!(
    include_str!("../../../plugins/token-rate-limit/src/redis/window.lua"),
    include_str!("../../../plugins/token-rate-limit/src/redis/merge.lua")
);

/// So long, in milliseconds, Redis remembers an operation here.
const KNOWN: &str = "60000";

/// 2026-03-01 00:00:00 UTC, a few seconds before which a month, a day, an hour and a minute end.
const MARCH: u64 = 1_772_323_200;

/// The scripts on a real Redis.
struct Scripts {
    connection: RefCell<Connection>,
    charge: String,
    merge: String,
    operations: Cell<u64>,
    _redis: Redis,
}

thread_local! {
    static SCRIPTS: Scripts = Scripts::load();
}

/// What a script has been told and has answered: how each window of each counter stands now.
type Totals = Vec<Vec<Total>>;

impl Scripts {
    fn load() -> Self {
        let redis = Redis::start().unwrap();
        let mut connection = redis.connect().unwrap();
        let mut load = |script: &str| {
            let digest = connection.ask(&["SCRIPT", "LOAD", script]).unwrap();
            digest.to_string()
        };
        let (charge, merge) = (load(CHARGE), load(MERGE));
        // They have to run with the rights that deploy/redis gives them.
        let connection = redis.connect_confined().unwrap();
        Self {
            connection: RefCell::new(connection),
            charge,
            merge,
            operations: Cell::new(0),
            _redis: redis,
        }
    }

    /// The name of a new operation, or of a counter's case.
    fn id(&self) -> String {
        self.operations.set(self.operations.get() + 1);
        format!("{:032x}", self.operations.get())
    }

    /// Runs a script for an operation. What it answers behind the operation's id.
    fn run(&self, script: &str, id: &str, keys: &[String], words: &[String]) -> Vec<u64> {
        let count = (keys.len() + 1).to_string();
        let operation = operation(id);
        let mut command = vec!["EVALSHA", script, &count, &operation];
        command.extend(keys.iter().map(String::as_str));
        command.push(KNOWN);
        command.extend(words.iter().map(String::as_str));
        let reply = self.connection.borrow_mut().ask(&command).unwrap();
        let Reply::Bulk(_) = reply else {
            panic!("{command:?}: {reply}");
        };
        let answer = reply.to_string();
        let (answered, numbers) = answer.split_once(' ').unwrap_or((&answer, ""));
        assert_eq!(answered, id, "the answer to another operation");
        let numbers = numbers.split(' ').filter(|word| !word.is_empty());
        numbers.map(|word| word.parse().unwrap()).collect()
    }

    fn charge(&self, id: &str, charges: &[(&Counter, u64)], now: u64) -> (bool, Totals) {
        let mut words = Vec::new();
        for (counter, amount) in charges {
            words.extend([amount.to_string(), counter.limits.len().to_string()]);
            for limit in &counter.limits {
                let number = limit.window.number(now);
                words.extend(window(limit, number));
                words.push((limit.window.end(number) - now).to_string());
                words.push(length(limit, number));
            }
        }
        let keys: Vec<_> = charges.iter().map(|(it, _)| it.name.clone()).collect();
        let numbers = self.run(&self.charge, id, &keys, &words);
        let counters = charges.iter().map(|(counter, _)| *counter);
        (numbers[0] == 1, totals(counters, &numbers[1..]))
    }

    fn merge(&self, id: &str, items: &[Item<'_>], now: u64) -> Totals {
        let (mut keys, mut words) = (Vec::new(), Vec::new());
        for item in items {
            keys.push(operation(item.takes_back.unwrap_or(id)));
            keys.push(item.counter.name.clone());
            words.extend([item.within.to_string(), item.over.to_string()]);
            words.push(item.counter.limits.len().to_string());
            for (limit, charged) in item.counter.limits.iter().zip(&item.windows) {
                let number = limit.window.number(now);
                words.extend(window(limit, number));
                words.push(length(limit, number));
                words.push(charged.to_string());
            }
        }
        let numbers = self.run(&self.merge, id, &keys, &words);
        totals(items.iter().map(|item| item.counter), &numbers)
    }
}

fn operation(id: &str) -> String {
    format!("tollgate:{{model}}:operation:{id}")
}

/// What all scripts are told of a window first: its code, number, limit, kind.
fn window(limit: &Limit, number: u64) -> [String; 4] {
    let kind = match limit.kind {
        Kind::Fixed => "0",
        Kind::FixedWithDebt => "1",
        Kind::Sliding => "2",
    };
    // The scripts only tell windows apart by it.
    [
        limit.window.length().to_string(),
        number.to_string(),
        limit.most.to_string(),
        kind.to_owned(),
    ]
}

fn length(limit: &Limit, number: u64) -> String {
    (limit.window.end(number) - limit.window.start(number)).to_string()
}

fn totals<'c>(counters: impl Iterator<Item = &'c Counter>, numbers: &[u64]) -> Totals {
    let (triples, rest) = numbers.as_chunks::<3>();
    assert!(rest.is_empty(), "{numbers:?}");
    let mut all = triples.iter().map(|[number, used, before]| Total {
        number: *number,
        used: *used,
        before: *before,
    });
    let totals = counters
        .map(|counter| all.by_ref().take(counter.limits.len()).collect())
        .collect();
    assert_eq!(all.next(), None, "{numbers:?}");
    totals
}

/// What is told of one counter.
struct Item<'c> {
    counter: &'c Counter,
    takes_back: Option<&'c str>,
    windows: Vec<u64>,
    within: i64,
    over: u64,
}

/// A counter, in Redis by its name and as the filter keeps it.
#[derive(Clone, Debug)]
struct Counter {
    name: String,
    limits: Vec<Limit>,
    payload: Option<Vec<u8>>,
}

impl Counter {
    fn new(case: &str, number: usize, limits: &[Limit]) -> Self {
        Self {
            name: format!("tollgate:{{model}}:counter:{case}-{number}"),
            limits: limits.to_vec(),
            payload: None,
        }
    }

    fn standings(&self, amount: u64, now: u64) -> Vec<Standing> {
        standings(self.payload.as_deref(), &self.limits, amount, now)
    }

    fn change(&mut self, change: Change) {
        if let Change::Write { payload, .. } = change {
            self.payload = Some(payload);
        }
    }
}

/// A charge that was made.
struct Made {
    counter: usize,
    windows: Vec<u64>,
    amount: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// A request: how much of each counter.
    Charge(Vec<u64>),
    /// The end of an earlier one, by its place, and what it came to.
    Settle(prop::sample::Index, u64),
}

/// Time goes on by a part of a window, or by a few.
fn on() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..3, 3 => 3_u64..30, 2 => 30_u64..400, 1 => 400_u64..100_000]
}

fn limit() -> impl Strategy<Value = Limit> {
    let seconds = |seconds| Window::Seconds(NonZeroU32::new(seconds).unwrap());
    let windows = vec![
        Window::Second,
        Window::Minute,
        Window::Hour,
        Window::Day,
        Window::Month,
        seconds(7),
        seconds(90),
    ];
    let most = prop_oneof![Just(0), 1_u64..20, 20_u64..2000, Just(1 << 40)];
    let kinds = vec![Kind::Fixed, Kind::FixedWithDebt, Kind::Sliding];
    let window = prop::sample::select(windows);
    (window, most, prop::sample::select(kinds)).prop_map(|(window, most, kind)| Limit {
        window,
        most,
        kind,
    })
}

/// The limits of a counter: no window twice.
fn limits() -> impl Strategy<Value = Vec<Limit>> {
    vec(limit(), 1..4).prop_map(|mut limits| {
        limits.sort_by_key(|limit| limit.window.length());
        limits.dedup_by_key(|limit| limit.window.length());
        limits
    })
}

/// How much a request is of each counter.
fn amounts(counters: usize) -> impl Strategy<Value = Vec<u64>> {
    vec(
        prop_oneof![4 => 0_u64..12, 1 => 12_u64..1500, 1 => Just(1 << 39)],
        counters,
    )
}

fn step(counters: usize) -> impl Strategy<Value = Step> {
    let actual = prop_oneof![3 => 0_u64..20, 1 => 20_u64..3000];
    let settle = (any::<prop::sample::Index>(), actual);
    prop_oneof![
        3 => amounts(counters).prop_map(Step::Charge),
        2 => settle.prop_map(|(which, actual)| Step::Settle(which, actual)),
    ]
}

/// Takes the same steps in Redis and in the filter's own counters: each with the time that goes by before it, and how far behind the
/// clock is of the one who asks.
fn agree(limits: &[Vec<Limit>], steps: Vec<(Step, u64, u64)>) -> Result<(), TestCaseError> {
    SCRIPTS.with(|scripts| {
        let case = scripts.id();
        let counters = limits.iter().enumerate();
        let mut counters: Vec<_> = counters
            .map(|(number, limits)| Counter::new(&case, number, limits))
            .collect();
        let mut made: Vec<Made> = Vec::new();
        let mut time = MARCH - 10;
        for (step, on, behind) in steps {
            time += on;
            let now = time - behind;
            match step {
                Step::Charge(amounts) => {
                    let charges: Vec<_> = counters.iter().zip(amounts.iter().copied()).collect();
                    let (admitted, totals) = scripts.charge(&scripts.id(), &charges, now);
                    let fits = charges.iter().all(|(counter, amount)| {
                        let standings = counter.standings(*amount, now);
                        !standings.iter().any(|it| it.exceeded)
                    });
                    prop_assert_eq!(admitted, fits);
                    for (index, amount) in amounts.into_iter().enumerate() {
                        let counter = &mut counters[index];
                        let payload = counter.payload.as_deref();
                        let (change, verdict) = charge(payload, &counter.limits, amount, now);
                        let told = |left| standings_of(&totals[index], &counter.limits, left, now);
                        if admitted {
                            let windows = verdict.standings.iter().map(|it| it.number).collect();
                            made.push(Made {
                                counter: index,
                                windows,
                                amount,
                            });
                            prop_assert_eq!(told(0), verdict.standings);
                            counter.change(change);
                        } else {
                            prop_assert_eq!(told(amount), counter.standings(amount, now));
                            if !verdict.admitted {
                                // What a wrong clock has counted is put right, even so.
                                counter.change(change);
                            }
                        }
                    }
                }
                Step::Settle(which, actual) => {
                    if made.is_empty() {
                        continue;
                    }
                    let Made {
                        counter,
                        windows,
                        amount,
                    } = made.swap_remove(which.index(made.len()));
                    let settlement = Settlement::between(amount, actual);
                    let (within, over) = match settlement {
                        Settlement::Refund(less) => (-i64::try_from(less).unwrap(), 0),
                        Settlement::Overshoot(more) => (0, more),
                    };
                    let counter = &mut counters[counter];
                    let payload = counter.payload.as_deref();
                    let change = settle(payload, &counter.limits, &windows, settlement, now);
                    let item = Item {
                        counter,
                        takes_back: None,
                        windows,
                        within,
                        over,
                    };
                    let totals = scripts.merge(&scripts.id(), &[item], now);
                    counter.change(change);
                    let told = standings_of(&totals[0], &counter.limits, 0, now);
                    prop_assert_eq!(told, counter.standings(0, now));
                }
            }
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn redis_decides_and_settles_as_the_filters_own_counters_do(
        limits in vec(limits(), 2),
        steps in vec((step(2), on()), 1..40),
    ) {
        let steps = steps.into_iter().map(|(step, on)| (step, on, 0));
        agree(&limits, steps.collect())?;
    }

    #[test]
    fn redis_decides_as_the_filters_own_counters_do_when_a_clock_is_a_second_behind(
        limits in vec(limits(), 2),
        steps in vec((amounts(2), on(), 0_u64..2), 1..40),
    ) {
        let steps = steps.into_iter().map(|(amounts, on, behind)| (Step::Charge(amounts), on, behind));
        agree(&limits, steps.collect())?;
    }

    #[test]
    fn a_charge_that_is_told_in_the_next_window_counts_as_if_it_had_been_told_at_once(
        limits in limits(),
        amounts in vec((0_u64..50, 0_u64..20, any::<bool>()), 1..12),
    ) {
        SCRIPTS.with(|scripts| {
            let case = scripts.id();
            let (prompt, late) = (Counter::new(&case, 0, &limits), Counter::new(&case, 1, &limits));
            let tell = |counter: &Counter, at: u64, amount: u64, now: u64| {
                let windows = limits.iter().map(|limit| limit.window.number(at)).collect();
                let within = i64::try_from(amount).unwrap();
                let item = Item { counter, takes_back: None, windows, within, over: 0 };
                scripts.merge(&scripts.id(), &[item], now).remove(0)
            };
            let mut now = MARCH;
            let mut kept: Vec<(u64, u64)> = Vec::new();
            for (amount, on, keep) in amounts {
                now += on;
                tell(&prompt, now, amount, now);
                kept.push((now, amount));
                // Nothing is kept for longer than the shortest window that follows.
                let soon = limits.iter().map(|limit| limit.window.length()).min().unwrap_or(1);
                let (first, _) = kept[0];
                if !keep || now + 20 > first + soon {
                    for (at, amount) in kept.drain(..) {
                        tell(&late, at, amount, now);
                    }
                }
            }
            for (at, amount) in kept {
                tell(&late, at, amount, now);
            }
            prop_assert_eq!(tell(&late, now, 0, now), tell(&prompt, now, 0, now));
            Ok(())
        })?;
    }

    #[test]
    fn a_charge_that_is_taken_back_leaves_nothing_and_a_repeat_changes_nothing(
        limits in limits(),
        before in 0_u64..10,
        amount in 1_u64..10,
        on in 0_u64..100,
        overtaken in any::<bool>(),
    ) {
        SCRIPTS.with(|scripts| {
            let counter = Counter::new(&scripts.id(), 0, &limits);
            let mut now = MARCH;
            let _ = scripts.charge(&scripts.id(), &[(&counter, before)], now);
            let (_, untouched) = scripts.charge(&scripts.id(), &[(&counter, 0)], now);
            let windows: Vec<u64> = limits.iter().map(|limit| limit.window.number(now)).collect();
            let (id, batch) = (scripts.id(), scripts.id());
            let item = || Item {
                counter: &counter,
                takes_back: Some(&id),
                windows: windows.clone(),
                within: -i64::try_from(amount).unwrap(),
                over: 0,
            };
            if !overtaken {
                let first = scripts.charge(&id, &[(&counter, amount)], now);
                prop_assert_eq!(&scripts.charge(&id, &[(&counter, amount)], now), &first);
            }
            now += on;
            let told = scripts.merge(&batch, &[item()], now);
            prop_assert_eq!(&scripts.merge(&batch, &[item()], now), &told);
            // Under another name: it has been taken back once and for all.
            prop_assert_eq!(&scripts.merge(&scripts.id(), &[item()], now), &told);
            let limits = &counter.limits;
            let expected: Vec<_> = standings_of(&untouched[0], limits, 0, now);
            if windows.iter().zip(limits).all(|(it, limit)| *it == limit.window.number(now)) {
                prop_assert_eq!(standings_of(&told[0], limits, 0, now), expected);
            }
            Ok(())
        })?;
    }
}

/// Not by its name in this file: what a counter's window is told by must differ from window to window.
#[test]
fn a_counter_holds_windows_apart() {
    SCRIPTS.with(|scripts| {
        let most = 10;
        let limits = [Window::Second, Window::Month].map(|window| Limit {
            window,
            most,
            kind: counter::Kind::Fixed,
        });
        let counter = Counter::new(&scripts.id(), 0, &limits);
        for second in 0..3 {
            let (admitted, totals) =
                scripts.charge(&scripts.id(), &[(&counter, 4)], MARCH + second);
            let used: Vec<u64> = totals[0].iter().map(|total| total.used).collect();
            let expected = if second < 2 {
                [4, 4 * (second + 1)]
            } else {
                [0, 8]
            };
            assert_eq!((admitted, used), (second < 2, expected.to_vec()));
        }
    });
}
