use super::*;
use proptest::prelude::*;
use std::num::NonZeroU32;

fn ten_seconds(most: u64, kind: Kind) -> Limit {
    let window = Window::Seconds(NonZeroU32::new(10).unwrap());
    Limit { window, most, kind }
}

/// A stored entry.
#[derive(Default)]
struct Stored(Option<Vec<u8>>);

impl Stored {
    fn take(&mut self, change: Change, now: u64) {
        if let Change::Write { payload, expires } = change {
            assert!(expires > now, "what has just been written has expired");
            self.0 = Some(payload);
        }
    }

    fn charge(&mut self, limits: &[Limit], amount: u64, now: u64) -> Verdict {
        let (change, verdict) = charge(self.0.as_deref(), limits, amount, now);
        self.take(change, now);
        verdict
    }

    fn settle(&mut self, limits: &[Limit], charged: &Verdict, settlement: Settlement, now: u64) {
        let numbers: Vec<_> = charged
            .standings
            .iter()
            .map(|standing| standing.number)
            .collect();
        let change = settle(self.0.as_deref(), limits, &numbers, settlement, now);
        self.take(change, now);
    }

    fn used(&self, limits: &[Limit], now: u64) -> Vec<u64> {
        let standings = standings(self.0.as_deref(), limits, 0, now);
        standings.iter().map(|standing| standing.used).collect()
    }
}

#[test]
fn all_windows_count_or_none() {
    let limits = [
        Limit {
            window: Window::Second,
            most: 2,
            kind: Kind::Fixed,
        },
        Limit {
            window: Window::Minute,
            most: 3,
            kind: Kind::Fixed,
        },
    ];
    let mut stored = Stored::default();
    assert!(stored.charge(&limits, 1, 60).admitted);
    assert!(stored.charge(&limits, 1, 60).admitted);
    let refused = stored.charge(&limits, 1, 60);
    assert!(!refused.admitted);
    let exceeded: Vec<_> = refused
        .standings
        .iter()
        .map(|s| (s.used, s.exceeded))
        .collect();
    assert_eq!(exceeded, [(2, true), (2, false)]);
    assert!(stored.charge(&limits, 1, 61).admitted);
    assert!(!stored.charge(&limits, 1, 62).admitted);
    assert_eq!(stored.used(&limits, 62), [0, 3]);
}

#[test]
fn a_refund_goes_to_its_window_and_is_dropped_after_it() {
    let limits = [ten_seconds(100, Kind::FixedWithDebt)];
    let mut stored = Stored::default();
    let early = stored.charge(&limits, 60, 1);
    stored.settle(&limits, &early, Settlement::between(60, 10), 9);
    assert_eq!(stored.used(&limits, 9), [10]);
    let late = stored.charge(&limits, 60, 9);
    assert!(stored.charge(&limits, 5, 11).admitted);
    stored.settle(&limits, &late, Settlement::between(60, 10), 12);
    assert_eq!(stored.used(&limits, 12), [5]);
}

#[test]
fn an_overshoot_is_debt_wherever_it_becomes_known() {
    let limits = [ten_seconds(100, Kind::FixedWithDebt)];
    let mut stored = Stored::default();
    let request = stored.charge(&limits, 90, 1);
    stored.settle(&limits, &request, Settlement::between(90, 250), 5);
    assert_eq!(stored.used(&limits, 5), [250]);
    // 150 over: the next window is used up, half of the one after it too.
    assert_eq!(stored.used(&limits, 11), [150]);
    assert!(!stored.charge(&limits, 1, 11).admitted);
    assert_eq!(stored.used(&limits, 21), [50]);
    assert!(stored.charge(&limits, 50, 21).admitted);
    // Known only after its window: it counts in the present one.
    let late = stored.charge(&limits, 10, 31);
    stored.settle(&limits, &late, Settlement::between(10, 40), 45);
    assert_eq!(stored.used(&limits, 45), [30]);
}

#[test]
fn a_settlement_outlives_its_entry() {
    let limits = [ten_seconds(100, Kind::FixedWithDebt)];
    let mut stored = Stored::default();
    let request = stored.charge(&limits, 10, 1);
    stored.0 = None;
    stored.settle(&limits, &request, Settlement::Refund(5), 2);
    assert_eq!(stored.used(&limits, 2), [0]);
    stored.settle(&limits, &request, Settlement::Overshoot(5), 2);
    assert_eq!(stored.used(&limits, 2), [5]);
}

#[test]
fn a_sliding_window_forgets_evenly() {
    let limits = [ten_seconds(100, Kind::Sliding)];
    let mut stored = Stored::default();
    assert!(stored.charge(&limits, 100, 9).admitted);
    assert!(!stored.charge(&limits, 1, 10).admitted);
    assert_eq!(stored.used(&limits, 13), [70]);
    assert!(stored.charge(&limits, 30, 13).admitted);
    assert!(!stored.charge(&limits, 1, 13).admitted);
    assert_eq!(stored.used(&limits, 20), [30]);
    assert_eq!(stored.used(&limits, 31), [0]);
}

#[test]
fn a_clock_that_is_set_back_opens_nothing() {
    for kind in [Kind::Fixed, Kind::FixedWithDebt, Kind::Sliding] {
        let limits = [ten_seconds(100, kind)];
        let mut stored = Stored::default();
        assert!(stored.charge(&limits, 100, 1000).admitted);
        assert!(!stored.charge(&limits, 1, 999).admitted, "{kind:?}");
        assert!(!stored.charge(&limits, 1, 500).admitted, "{kind:?}");
        assert!(
            stored.charge(&limits, 1, 521).admitted,
            "{kind:?}: a wrong clock shut it for ever"
        );
    }
}

#[test]
fn a_limit_of_nothing_refuses_everything() {
    let limits = [ten_seconds(0, Kind::FixedWithDebt)];
    assert!(!Stored::default().charge(&limits, 1, 1).admitted);
}

#[test]
fn a_window_that_is_new_in_the_configuration_starts_at_nothing() {
    let minute = Limit {
        window: Window::Minute,
        most: 5,
        kind: Kind::Fixed,
    };
    let hour = Limit {
        window: Window::Hour,
        most: 9,
        kind: Kind::Fixed,
    };
    let mut stored = Stored::default();
    assert!(stored.charge(&[minute], 2, 1).admitted);
    assert_eq!(stored.used(&[hour, minute], 1), [0, 2]);
}

proptest! {
    /// Against an oracle that remembers every request.
    #[test]
    fn a_fixed_window_never_holds_more_than_its_limit(
        most in 1_u64..50,
        requests in prop::collection::vec((0_u64..8, 1_u64..20, 0_u64..40), 1..100),
    ) {
        let limits = [ten_seconds(most, Kind::FixedWithDebt)];
        let mut stored = Stored::default();
        let (mut now, mut number, mut used) = (0_u64, 0, 0_u64);
        for (later, amount, actual) in requests {
            now += later;
            while number < now / 10 {
                (number, used) = (number + 1, used.saturating_sub(most));
            }
            let verdict = stored.charge(&limits, amount, now);
            prop_assert_eq!(verdict.admitted, used + amount <= most);
            if verdict.admitted {
                stored.settle(&limits, &verdict, Settlement::between(amount, actual), now);
                used += actual;
            }
            prop_assert_eq!(stored.used(&limits, now), [used]);
        }
    }

    /// A sliding window never lets through more than twice its limit in any span of its length, nor more than its limit in its own.
    #[test]
    fn a_sliding_window_stays_near_its_limit(
        most in 1_u64..50,
        requests in prop::collection::vec((0_u64..5, 1_u64..10), 1..200),
    ) {
        let limits = [ten_seconds(most, Kind::Sliding)];
        let mut stored = Stored::default();
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        let mut now = 0;
        for (later, amount) in requests {
            now += later;
            if stored.charge(&limits, amount, now).admitted {
                admitted.push((now, amount));
            }
            let within = |from: u64| -> u64 {
                admitted.iter().filter(|(at, _)| *at >= from).map(|(_, amount)| amount).sum()
            };
            prop_assert!(within(now / 10 * 10) <= most);
            prop_assert!(within(now.saturating_sub(9)) <= 2 * most);
        }
    }

    /// Nothing that can stand in a table breaks it.
    #[test]
    fn any_payload_is_read(payload in prop::collection::vec(any::<u8>(), 0..100), amount in any::<u64>(), now in any::<u64>()) {
        let limits = Window::CALENDAR.map(|window| Limit { window, most: amount / 2, kind: Kind::Sliding });
        let (_, verdict) = charge(Some(&payload), &limits, amount, now);
        let numbers: Vec<_> = verdict.standings.iter().map(|s| s.number).collect();
        let _ = settle(Some(&payload), &limits, &numbers, Settlement::Overshoot(amount), now);
    }

    /// Workers of one gateway tell Redis what they have counted, other gateways do too, and answers come in any order: once all is told, the
    /// gateway's counter is Redis' total, and it never forgets what is still to be told.
    #[test]
    fn what_is_told_in_any_order_ends_at_the_total(steps in prop::collection::vec((0..5_u8, 0..3_usize, 1..20_u64), 1..200)) {
        let limits = [ten_seconds(1_000_000, Kind::FixedWithDebt)];
        let (now, number) = (5, 0);
        let mut stored = Stored::default();
        let (mut total, mut to_tell) = (0_u64, [0_i64; 3]);
        let mut answers: Vec<(i64, u64)> = Vec::new();
        let adopt = |stored: &mut Stored, (told, used): (i64, u64)| {
            let total = Total { number, used, before: 0 };
            let change = adopt(stored.0.as_deref(), &limits, &[total], &[number], told, now);
            stored.take(change, now);
        };
        let tell = |total: &mut u64, to_tell: &mut i64| {
            let told = std::mem::take(to_tell);
            *total = total.checked_add_signed(told).unwrap();
            (told, *total)
        };
        for (step, worker, amount) in steps {
            match step {
                0 | 1 => {
                    prop_assert!(stored.charge(&limits, amount, now).admitted);
                    to_tell[worker] += i64::try_from(amount).unwrap();
                }
                2 => total += amount,
                3 => answers.push(tell(&mut total, &mut to_tell[worker])),
                _ if answers.is_empty() => {}
                _ => adopt(&mut stored, answers.swap_remove(worker % answers.len())),
            }
            let untold: i64 = to_tell.iter().sum();
            prop_assert!(stored.used(&limits, now)[0] >= u64::try_from(untold).unwrap());
        }
        answers.extend(to_tell.iter_mut().map(|to_tell| tell(&mut total, to_tell)));
        for answer in answers {
            adopt(&mut stored, answer);
        }
        // The last to be adopted may have been told before another.
        adopt(&mut stored, (0, total));
        prop_assert_eq!(stored.used(&limits, now), [total]);
    }
}

#[test]
fn a_correction_changes_the_windows_that_are_meant_and_no_other() {
    let limits = [
        Limit {
            window: Window::Minute,
            most: 100,
            kind: Kind::FixedWithDebt,
        },
        Limit {
            window: Window::Hour,
            most: 1000,
            kind: Kind::Sliding,
        },
    ];
    let mut stored: Option<Vec<u8>> = None;
    let mut corrected = |correction, only: Option<Window>, now| {
        let concerns = |limit: &Limit| only.is_none_or(|window| limit.window == window);
        let (change, standings) = correct(stored.as_deref(), &limits, correction, concerns, now);
        if let Change::Write { payload, .. } = change {
            stored = Some(payload);
        }
        standings
            .iter()
            .map(|standing| standing.used)
            .collect::<Vec<_>>()
    };
    assert_eq!(corrected(Correction::Subtract(5), None, 0), [0, 0]);
    assert_eq!(corrected(Correction::Add(70), None, 0), [70, 70]);
    assert_eq!(
        corrected(Correction::Add(50), Some(Window::Minute), 0),
        [120, 70]
    );
    assert_eq!(corrected(Correction::Subtract(80), None, 0), [40, 0]);
    assert_eq!(corrected(Correction::Add(200), None, 0), [240, 200]);
    // Debt is carried over, and what a sliding window remembers is forgotten too.
    assert_eq!(corrected(Correction::Subtract(0), None, 3600), [0, 200]);
    assert_eq!(
        corrected(Correction::Reset, Some(Window::Hour), 3600),
        [0, 0]
    );
    assert_eq!(corrected(Correction::Add(0), None, 3601), [0, 0]);
}
