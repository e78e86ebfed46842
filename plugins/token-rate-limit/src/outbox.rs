//! What Redis is still to be told: what has been counted without it, what charged requests came to, and charges that it was asked for
//! and whose end this gateway never heard.
//!
//! It is told in batches, one at a time, and a batch that may not have arrived is told again under its id until Redis has answered. Only
//! then are the filter's own counters, which others of its workers have written to as well, brought to what Redis has.

use crate::counter::{Limit, Settlement};
use crate::ledger::{Charge, Held};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use tollgate_kit::store::Key;

/// So many counters wait at most. What would be more is lost, and counted: a refund stays charged, a charge is not made.
const MOST: usize = 10_000;

/// So many counters one batch has at most, that Redis, which does nothing else meanwhile, is soon done.
pub(crate) const BATCH: usize = 500;

/// What is to be done to one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The charge that is to be taken back if it was made, else to be prevented; `within` is meant for that case only.
    pub(crate) takes_back: Option<Key>,
    pub(crate) rule: usize,
    pub(crate) key: Key,
    pub(crate) limits: Rc<[Limit]>,
    /// The windows at the time.
    pub(crate) windows: Vec<u64>,
    /// To be added to those windows, where they are not over.
    pub(crate) within: i64,
    /// To be added whatever window it is by now.
    pub(crate) over: u64,
    /// What of it stands in the filter's own counter.
    pub(crate) own: i64,
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Nothing else has it.
    pub(crate) id: Key,
    pub(crate) items: Vec<Item>,
}

/// All that Redis is still to be told.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// By counter and windows.
    sums: BTreeMap<(Key, Vec<u64>), Item>,
    /// What to take back, one charge's items together.
    taken_back: VecDeque<Vec<Item>>,
    batch: Option<Batch>,
    /// So many items have found no room.
    lost: u64,
}

impl Outbox {
    /// A charge was made without Redis.
    pub(crate) fn charged(&mut self, held: &Held) {
        let amount = signed(held.amount);
        self.add(held, held.windows.clone(), amount, 0);
    }

    /// A charged request came to so much. A refund is meant for the windows in which it was charged, an overshoot for the present ones.
    pub(crate) fn settled(&mut self, held: &Held, actual: u64, now: u64) {
        match Settlement::between(held.amount, actual) {
            Settlement::Refund(0) => {}
            Settlement::Refund(less) => {
                self.add(held, held.windows.clone(), signed(less).saturating_neg(), 0);
            }
            Settlement::Overshoot(more) => self.add(held, numbers(&held.limits, now), 0, more),
        }
    }

    /// A charge was refused without Redis: how its counter stands there is worth knowing.
    pub(crate) fn refused(&mut self, charge: &Charge, now: u64) {
        if self.sums.len() < MOST {
            let windows = numbers(&charge.limits, now);
            let _ = self.sum(charge.rule, charge.key, &charge.limits, windows);
        }
    }

    /// What is to be told of a counter in these windows.
    fn sum(&mut self, rule: usize, key: Key, limits: &Rc<[Limit]>, windows: Vec<u64>) -> &mut Item {
        let item = |windows| Item {
            takes_back: None,
            rule,
            key,
            limits: Rc::clone(limits),
            windows,
            within: 0,
            over: 0,
            own: 0,
        };
        let place = (key, windows);
        match self.sums.entry(place) {
            Entry::Occupied(item) => item.into_mut(),
            Entry::Vacant(vacant) => {
                let windows = vacant.key().1.clone();
                vacant.insert(item(windows))
            }
        }
    }

    fn add(&mut self, held: &Held, windows: Vec<u64>, within: i64, over: u64) {
        if self.sums.len() >= MOST && !self.sums.contains_key(&(held.key, windows.clone())) {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let item = self.sum(held.rule, held.key, &held.limits, windows);
        item.within = item.within.saturating_add(within);
        item.over = item.over.saturating_add(over);
        if held.place.is_some() {
            item.own = item.own.saturating_add(within).saturating_add(signed(over));
        }
    }

    /// Nobody knows what has become of a charge: it is not to count.
    pub(crate) fn take_back(&mut self, id: Key, charges: &[Charge], now: u64) {
        if self.taken_back.len() >= MOST {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let item = |charge: &Charge| Item {
            takes_back: Some(id),
            rule: charge.rule,
            key: charge.key,
            limits: charge.limits.clone(),
            windows: numbers(&charge.limits, now),
            within: signed(charge.amount).saturating_neg(),
            over: 0,
            own: 0,
        };
        self.taken_back
            .push_back(charges.iter().map(item).collect());
    }

    /// The batch to be told now: the one that may not have arrived, else a new one with this id. What counts more comes first, that
    /// no counter ever seems to have more room than it has.
    pub(crate) fn batch(&mut self, id: Key) -> &Batch {
        let Outbox {
            sums,
            taken_back,
            batch,
            ..
        } = self;
        batch.get_or_insert_with(|| {
            let mut items = Vec::new();
            while items.len() < BATCH
                && let Some((_, item)) = sums.pop_first()
            {
                items.push(item);
            }
            while items.len() < BATCH
                && let Some(of_one) = taken_back.pop_front()
            {
                items.extend(of_one);
            }
            Batch { id, items }
        })
    }

    /// The batch on its way.
    pub(crate) fn under_way(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// The batch has arrived: its items.
    pub(crate) fn arrived(&mut self) -> Vec<Item> {
        self.batch
            .take()
            .map(|batch| batch.items)
            .unwrap_or_default()
    }

    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_none() && self.sums.is_empty() && self.taken_back.is_empty()
    }

    /// How many items have found no room since the last look.
    pub(crate) fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// The numbers of windows at this time.
fn numbers(limits: &[Limit], now: u64) -> Vec<u64> {
    let numbers = limits.iter().map(|limit| limit.window.number(now));
    numbers.collect()
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Kind;
    use crate::window::Window;

    fn held(key: u8, amount: u64) -> Held {
        let limit = Limit {
            window: Window::Minute,
            most: 100,
            kind: Kind::FixedWithDebt,
        };
        Held {
            rule: 0,
            key: [key; 16],
            place: None,
            limits: Rc::from([limit]),
            windows: vec![1],
            amount,
        }
    }

    #[test]
    fn one_counter_is_told_once_whatever_has_happened_to_it() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.charged(&held(1, 50));
            outbox.settled(&held(1, 50), 20, 60);
        }
        outbox.settled(&held(1, 50), 70, 60);
        let items = &outbox.batch([9; 16]).items;
        assert_eq!(items.len(), 1);
        assert_eq!((items[0].within, items[0].over), (60, 20));
    }

    #[test]
    fn an_overshoot_after_its_window_is_meant_for_the_present_one() {
        let mut outbox = Outbox::default();
        outbox.settled(&held(1, 50), 70, 180);
        outbox.settled(&held(1, 50), 30, 180);
        let items = &outbox.batch([9; 16]).items;
        let told: Vec<_> = items
            .iter()
            .map(|item| (item.windows[0], item.within, item.over))
            .collect();
        assert_eq!(told, [(1, -20, 0), (3, 0, 20)]);
    }

    #[test]
    fn a_batch_stays_as_it_is_until_it_has_arrived() {
        let mut outbox = Outbox::default();
        outbox.charged(&held(1, 50));
        assert_eq!(outbox.batch([9; 16]).items.len(), 1);
        outbox.charged(&held(2, 50));
        let again = outbox.batch([8; 16]);
        assert_eq!((again.id, again.items.len()), ([9; 16], 1));
        assert_eq!(outbox.arrived().len(), 1);
        assert_eq!(outbox.batch([8; 16]).items[0].key, [2; 16]);
        outbox.arrived();
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut outbox = Outbox::default();
        for number in 0..u32::try_from(MOST).unwrap() + 5 {
            let mut held = held(0, 1);
            held.key[..4].copy_from_slice(&number.to_le_bytes());
            outbox.charged(&held);
        }
        assert_eq!((outbox.lost(), outbox.lost()), (5, 0));
        assert_eq!(outbox.batch([9; 16]).items.len(), BATCH);
    }
}
