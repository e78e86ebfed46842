//! Leases against a list of them that somebody keeps by hand.

use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_704_110_405;

/// The payload of one entry, as the table keeps it: gone when it has expired.
#[derive(Default)]
struct Entry {
    stored: Option<(Vec<u8>, u64)>,
}

impl Entry {
    fn payload(&self, now: u64) -> Option<&[u8]> {
        let live = self.stored.as_ref().filter(|(_, expires)| *expires > now);
        live.map(|(payload, _)| payload.as_slice())
    }

    fn change(&mut self, change: Change) {
        if let Change::Write { payload, expires } = change {
            assert!(payload.len() <= MOST_PAYLOAD, "{} bytes", payload.len());
            self.stored = Some((payload, expires));
        }
    }

    fn acquire(&mut self, most: u64, ttl: u64, now: u64) -> Option<Lease> {
        let (change, verdict) = acquire(self.payload(now), most, ttl, now);
        self.change(change);
        match verdict {
            Verdict::Granted(lease) => Some(lease),
            Verdict::Refused => None,
        }
    }

    fn release(&mut self, lease: Lease, ttl: u64, now: u64) {
        let change = release(self.payload(now), lease, ttl, now);
        self.change(change);
    }

    fn renew(&mut self, lease: Lease, ttl: u64, now: u64) -> Lease {
        let (change, lease) = renew(self.payload(now), lease, ttl, now);
        self.change(change);
        lease
    }

    fn reset(&mut self, ttl: u64, now: u64) {
        let change = reset(self.payload(now), ttl, now);
        self.change(change);
    }

    fn held(&self, ttl: u64, now: u64) -> u64 {
        held(self.payload(now), ttl, now)
    }
}

#[test]
fn as_many_are_granted_as_the_limit_says_and_one_more_when_one_is_given_back() {
    let mut entry = Entry::default();
    let leases: Vec<_> = (0..3)
        .map(|_| entry.acquire(3, 600, NOW).unwrap())
        .collect();
    assert_eq!(entry.acquire(3, 600, NOW), None);
    entry.release(leases[1], 600, NOW + 5);
    assert!(entry.acquire(3, 600, NOW + 5).is_some());
    assert_eq!(entry.acquire(3, 600, NOW + 5), None);
}

#[test]
fn a_lease_that_nobody_gives_back_ends_by_itself() {
    for ttl in [1, 5, 16, 17, 600, MOST_TTL] {
        let mut entry = Entry::default();
        assert!(entry.acquire(1, ttl, NOW).is_some());
        assert_eq!(entry.acquire(1, ttl, NOW + ttl - 1), None, "{ttl}");
        let latest = NOW + ttl + ttl.div_ceil(16);
        assert!(entry.acquire(1, ttl, latest).is_some(), "{ttl}");
    }
}

#[test]
fn a_lease_that_is_renewed_lasts_on() {
    let mut entry = Entry::default();
    let mut lease = entry.acquire(1, 600, NOW).unwrap();
    for minutes in (5..60).step_by(5) {
        lease = entry.renew(lease, 600, NOW + minutes * 60);
        assert_eq!(entry.held(600, NOW + minutes * 60), 1);
    }
    entry.release(lease, 600, NOW + 3_600);
    assert_eq!(entry.held(600, NOW + 3_600), 0);
}

#[test]
fn what_ended_by_itself_is_not_given_back_a_second_time() {
    let mut entry = Entry::default();
    let slow = entry.acquire(2, 600, NOW).unwrap();
    let later = NOW + 650;
    assert!(entry.acquire(2, 600, later).is_some());
    entry.release(slow, 600, later);
    assert_eq!(entry.held(600, later), 1);
    // Its request is heard of again, and counts again.
    let slow = entry.renew(slow, 600, later);
    assert_eq!(entry.held(600, later), 2);
    entry.release(slow, 600, later);
    assert_eq!(entry.held(600, later), 1);
}

#[test]
fn leases_of_an_entry_that_was_lost_or_reset_take_nobody_elses_away() {
    let mut entry = Entry::default();
    let old = entry.acquire(9, 600, NOW).unwrap();
    entry.stored = None;
    assert!(entry.acquire(9, 600, NOW + 1).is_some());
    entry.release(old, 600, NOW + 2);
    assert_eq!(entry.held(600, NOW + 2), 1);
    // Within one second too.
    let old = entry.acquire(9, 600, NOW + 2).unwrap();
    entry.reset(600, NOW + 2);
    assert_eq!(entry.held(600, NOW + 2), 0);
    assert!(entry.acquire(9, 600, NOW + 2).is_some());
    entry.release(old, 600, NOW + 2);
    assert_eq!(entry.held(600, NOW + 2), 1);
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_for_longer_than_a_time_to_live() {
    let mut entry = Entry::default();
    let held = entry.acquire(2, 600, NOW).unwrap();
    assert!(entry.acquire(2, 600, NOW).is_some());
    let back = NOW - 86_400;
    entry.release(held, 600, back);
    assert_eq!(entry.held(600, back), 1);
    assert!(entry.acquire(2, 600, back).is_some());
    assert_eq!(entry.acquire(2, 600, back), None);
    assert_eq!(entry.held(600, back + 600 + 3 * 38), 0);
}

#[test]
fn bytes_that_are_no_leases_count_as_none() {
    for payload in [&b""[..], b"short", &[0xff; 9], &[0xff; 1024]] {
        let (_, verdict) = acquire(Some(payload), u64::MAX, 600, NOW);
        assert!(matches!(verdict, Verdict::Granted(_)));
        let _ = acquire(Some(payload), 1, 600, u64::MAX);
    }
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Deed {
    Acquire,
    Release(usize),
    Renew(usize),
    /// A request whose worker died.
    Forget(usize),
    Wait(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Acquire),
        2 => any::<usize>().prop_map(Deed::Release),
        1 => any::<usize>().prop_map(Deed::Renew),
        1 => any::<usize>().prop_map(Deed::Forget),
        3 => (0_u64..400).prop_map(Deed::Wait),
    ]
}

/// The oracle: each lease by itself, with the second from which on it is over.
#[derive(Default)]
struct List {
    ends: Vec<u64>,
}

impl List {
    fn held(&self, now: u64) -> u64 {
        self.ends.iter().filter(|ends| **ends > now).count() as u64
    }

    /// As the documentation says: after the time to live, rounded up to a sixteenth of it.
    fn end(ttl: u64, now: u64) -> u64 {
        let sixteenth = ttl.div_ceil(16);
        (now + ttl).div_ceil(sixteenth) * sixteenth
    }
}

proptest! {
    #[test]
    fn leases_are_what_a_list_of_them_says(
        deeds in proptest::collection::vec(deed(), 1..200),
        most in 1_u64..12,
        ttl in 1_u64..1000,
    ) {
        let (mut entry, mut list, mut now) = (Entry::default(), List::default(), NOW);
        // Each with its place in the list.
        let mut holders: Vec<(Lease, usize)> = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Acquire => {
                    let lease = entry.acquire(most, ttl, now);
                    prop_assert_eq!(lease.is_some(), list.held(now) < most);
                    if let Some(lease) = lease {
                        holders.push((lease, list.ends.len()));
                        list.ends.push(List::end(ttl, now));
                    }
                }
                Deed::Wait(seconds) => now += seconds,
                Deed::Release(which) | Deed::Renew(which) | Deed::Forget(which) if !holders.is_empty() => {
                    let (lease, at) = holders.swap_remove(which % holders.len());
                    match deed {
                        Deed::Release(_) => {
                            entry.release(lease, ttl, now);
                            list.ends[at] = 0;
                        }
                        Deed::Renew(_) => {
                            holders.push((entry.renew(lease, ttl, now), at));
                            list.ends[at] = List::end(ttl, now);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
            prop_assert_eq!(entry.held(ttl, now), list.held(now));
        }
        for (lease, _) in holders {
            entry.release(lease, ttl, now);
        }
        // What is left is what was forgotten.
        prop_assert_eq!(entry.held(ttl, now + ttl + ttl.div_ceil(16)), 0);
    }

    #[test]
    fn no_clock_and_no_time_to_live_breaks_it(
        times in proptest::collection::vec((any::<u64>(), 1..=MOST_TTL, any::<bool>()), 1..60),
    ) {
        let mut entry = Entry::default();
        let mut last = None;
        for (now, ttl, renews) in times {
            match last {
                Some(lease) if renews => last = Some(entry.renew(lease, ttl, now)),
                Some(lease) => {
                    entry.release(lease, ttl, now);
                    last = None;
                }
                None => last = entry.acquire(u64::MAX, ttl, now),
            }
        }
    }
}
