//! The counters against an oracle that adds up.

use super::*;
use crate::counter::Kind;
use crate::window::Window;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tollgate_kit::testing::ScriptedHost;

const START: u64 = 1_704_110_405;
const LIMITS: [u64; 2] = [100, 250];

#[derive(Clone, Debug)]
enum Op {
    /// A request of one of three clients, charged by the first rule, the second or both.
    Charge {
        client: u8,
        rules: u8,
        amount: u64,
    },
    /// The request of this place among those under way came to so much.
    Settle {
        which: usize,
        actual: u64,
    },
    Pass {
        seconds: u64,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..3u8, 1..4u8, 1..120u64)
            .prop_map(|(client, rules, amount)| Op::Charge { client, rules, amount }),
        3 => (any::<usize>(), 0..200u64).prop_map(|(which, actual)| Op::Settle { which, actual }),
        1 => (0..90u64).prop_map(|seconds| Op::Pass { seconds }),
    ];
    proptest::collection::vec(op, 1..80)
}

/// What each client has used by each rule: the minute of the last look, and the count in it.
#[derive(Default)]
struct Oracle(BTreeMap<(u8, usize), (u64, u64)>);

impl Oracle {
    fn used(&mut self, client: u8, rule: usize, now: u64) -> &mut u64 {
        let (minute, used) = self.0.entry((client, rule)).or_insert((now / 60, 0));
        let passed = now / 60 - *minute;
        *minute = now / 60;
        *used = used.saturating_sub(passed * LIMITS[rule]);
        used
    }
}

fn limits(rule: usize) -> Rc<[Limit]> {
    Rc::new([Limit {
        window: Window::Minute,
        most: LIMITS[rule],
        kind: Kind::FixedWithDebt,
    }])
}

fn charge(client: u8, rule: usize, amount: u64) -> Charge {
    let mut key = [client; 16];
    key[15] = u8::try_from(rule).unwrap();
    Charge {
        rule,
        key,
        overflow: [255; 16],
        limits: limits(rule),
        amount,
    }
}

proptest! {
    #[test]
    fn it_counts_as_an_oracle_does(ops in ops()) {
        let host = ScriptedHost::default();
        let table = Table::for_keys(100);
        let mut oracle = Oracle::default();
        let mut now = START;
        let mut under_way: Vec<(u8, u64, Vec<Held>)> = Vec::new();
        for op in ops {
            let ledger = Ledger { table, host: &host, now };
            match op {
                Op::Charge { client, rules, amount } => {
                    let rules: Vec<usize> = (0..2).filter(|rule| rules & (1 << rule) != 0).collect();
                    let charges = rules.iter().map(|rule| charge(client, *rule, amount)).collect();
                    let fits = rules.iter().all(|rule| *oracle.used(client, *rule, now) + amount <= LIMITS[*rule]);
                    match ledger.charge(charges, &mut Oddities::default()).unwrap() {
                        Admission::Admitted(held, _) => {
                            prop_assert!(fits);
                            for rule in rules {
                                *oracle.used(client, rule, now) += amount;
                            }
                            under_way.push((client, now / 60, held));
                        }
                        Admission::Refused(_) => prop_assert!(!fits),
                    }
                }
                Op::Settle { which, actual } if !under_way.is_empty() => {
                    let (client, minute, held) = under_way.swap_remove(which % under_way.len());
                    for held in held {
                        ledger.settle(&held, actual).unwrap();
                        let used = oracle.used(client, held.rule, now);
                        match actual.checked_sub(held.amount) {
                            Some(more) => *used += more,
                            // A refund of a minute that is over is dropped.
                            None if minute == now / 60 => *used -= held.amount - actual,
                            None => {}
                        }
                    }
                }
                Op::Settle { .. } => {}
                Op::Pass { seconds } => now += seconds,
            }
            for client in 0..3 {
                for rule in 0..2 {
                    let ledger = Ledger { table, host: &host, now };
                    let stands = ledger.standings(&charge(client, rule, 0)).unwrap();
                    prop_assert_eq!(stands[0].used, *oracle.used(client, rule, now), "client {}, rule {}", client, rule);
                }
            }
        }
    }

    #[test]
    fn after_the_wait_it_fits_and_not_before(used in 0..500u64, amount in 1..=100u64, sliding: bool, at in 0..60u64) {
        let host = ScriptedHost::default();
        let table = Table::for_keys(100);
        let kind = if sliding { Kind::Sliding } else { Kind::FixedWithDebt };
        let limits: Rc<[Limit]> = Rc::new([Limit { window: Window::Minute, most: 100, kind }]);
        let at = START / 60 * 60 + at;
        let ledger = |now| Ledger { table, host: &host, now };
        let held = match ledger(at).charge(vec![Charge { limits: limits.clone(), ..charge(1, 0, 1) }], &mut Oddities::default()).unwrap() {
            Admission::Admitted(held, _) => held,
            Admission::Refused(_) => unreachable!(),
        };
        ledger(at).settle(&held[0], used).unwrap();
        let look = |now| ledger(now).standings(&Charge { limits: limits.clone(), ..charge(1, 0, amount) }).unwrap()[0];
        let wait = look(at).wait;
        prop_assert_eq!(wait > 0, look(at).exceeded);
        // Beyond twice the limit a sliding window needs more than the next.
        prop_assume!(!sliding || used <= 100);
        prop_assert!(!look(at + wait).exceeded, "after {} s", wait);
        if wait > 1 {
            prop_assert!(look(at + wait - 1).exceeded, "after {} s", wait - 1);
        }
    }
}
