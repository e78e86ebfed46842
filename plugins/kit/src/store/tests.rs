use super::*;
use crate::testing::ScriptedHost;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::HashMap;

const OVERFLOW: Key = [0xEE; 16];
const MINUTE: u64 = 60;

/// Keys that all belong to the first shelf of any table.
fn neighbour(number: u8) -> Key {
    let mut key = [0; 16];
    key[15] = number;
    key
}

/// Adds to a counter that starts a new life every minute, and gives its new value.
fn add(host: &ScriptedHost, table: Table, key: &Key, now: u64) -> Updated<u64> {
    table
        .update(host, key, &OVERFLOW, now, |payload| count(payload, now))
        .unwrap()
}

fn count(payload: Option<&[u8]>, now: u64) -> (Change, u64) {
    let before = payload.map_or(0, |payload| u64::from_le_bytes(payload.try_into().unwrap()));
    let write = Change::Write {
        payload: (before + 1).to_le_bytes().to_vec(),
        expires: (now / MINUTE + 1) * MINUTE,
    };
    (write, before + 1)
}

#[test]
fn a_counter_counts_until_it_expires() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(100));
    let counts = [0, 1, 59, 60, 61].map(|now| add(&host, table, &[7; 16], now).result);
    assert_eq!(counts, [1, 2, 3, 1, 2]);
}

#[test]
fn keeping_writes_nothing() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(1));
    let kept = table.update(&host, &[7; 16], &OVERFLOW, 0, |payload| {
        (Change::Keep, payload.is_none())
    });
    assert!(kept.unwrap().result);
    assert!(host.stored(&name(0)).unwrap().version.is_none());
}

#[test]
fn spraying_keys_resets_nobody() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(1));
    let victim = neighbour(0);
    assert_eq!(add(&host, table, &victim, 0).result, 1);
    let sprayed: Vec<Updated<u64>> = (1..=200)
        .map(|n| add(&host, table, &neighbour(n), 0))
        .collect();
    assert_eq!(add(&host, table, &victim, 1).result, 2);
    let (own, shared): (Vec<&Updated<u64>>, Vec<&Updated<u64>>) = sprayed
        .iter()
        .partition(|updated| !updated.place.is_overflow());
    assert_eq!(own.len(), SHELF_ENTRIES - 1);
    // Those that share one counter see it grow.
    let counts: Vec<_> = shared.iter().map(|updated| updated.result).collect();
    assert_eq!(counts, (1..=185).collect::<Vec<u64>>());
}

#[test]
fn who_shares_the_overflow_does_not_start_anew_when_a_place_gets_free() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(1));
    // Fifteen expire at 60, one at 120.
    for n in 0..15 {
        add(&host, table, &neighbour(n), 0);
    }
    add(&host, table, &neighbour(15), 61);
    for n in 0..15 {
        add(&host, table, &neighbour(n), 61);
    }
    assert_eq!(add(&host, table, &neighbour(99), 61).result, 1);
    assert_eq!(add(&host, table, &neighbour(99), 119).result, 2);
    assert!(!add(&host, table, &neighbour(99), 120).place.is_overflow());
}

#[test]
fn an_entry_is_found_again_where_it_was_placed() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(1));
    for n in 0..16 {
        add(&host, table, &neighbour(n), 0);
    }
    let place = add(&host, table, &neighbour(99), 0).place;
    assert!(place.is_overflow());
    let again = table.update_at(&host, &place, 1, |payload| count(payload, 1));
    assert_eq!(again.unwrap().result, 2);
}

#[test]
fn another_worker_that_is_faster_loses_nothing() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(10));
    let interferences = Cell::new(3);
    let updated = table
        .update(&host, &[7; 16], &OVERFLOW, 0, |payload| {
            if interferences.get() > 0 {
                interferences.set(interferences.get() - 1);
                add(&host, table, &[7; 16], 0);
            }
            count(payload, 0)
        })
        .unwrap();
    assert_eq!((updated.result, updated.lost), (4, 3));
}

#[test]
fn a_worker_that_never_wins_fails_and_changes_nothing() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(10));
    let failed = table.update(&host, &[7; 16], &OVERFLOW, 0, |payload| {
        add(&host, table, &[7; 16], 0);
        count(payload, 0)
    });
    assert_eq!(failed.unwrap_err(), Failure::Broken);
    assert_eq!(add(&host, table, &[7; 16], 0).result, TRIES as u64 + 1);
}

#[test]
fn a_damaged_shelf_is_begun_anew_and_said() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(1));
    add(&host, table, &neighbour(0), 0);
    let mut seen = host.stored(&name(0)).unwrap();
    let sound = seen.value.clone();
    for at in 0..sound.len() {
        seen = host.stored(&name(0)).unwrap();
        let mut torn = sound.clone();
        torn[at] ^= 1;
        if torn[0] > FORMAT {
            continue;
        }
        assert_eq!(
            host.replace_stored(&name(0), &seen, &torn),
            Ok(Written::Done)
        );
        let updated = add(&host, table, &neighbour(0), 0);
        assert_eq!((updated.result, updated.damaged), (1, true), "byte {at}");
    }
}

#[test]
fn a_shelf_of_a_later_format_is_left_alone() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(1));
    let later = [FORMAT + 1, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    assert_eq!(
        host.replace_stored(&name(0), &Stored::default(), &later),
        Ok(Written::Done)
    );
    let failed = table.update(&host, &neighbour(0), &OVERFLOW, 0, |payload| {
        count(payload, 0)
    });
    assert_eq!(failed.unwrap_err(), Failure::Refused);
    assert_eq!(host.stored(&name(0)).unwrap().value, later);
}

#[test]
fn a_payload_that_is_too_large_is_refused() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(1));
    let write = |size| {
        table.update(&host, &neighbour(0), &OVERFLOW, 0, |_| {
            let payload = vec![1; size];
            (
                Change::Write {
                    payload,
                    expires: 9,
                },
                (),
            )
        })
    };
    assert!(write(MOST_PAYLOAD).is_ok());
    assert_eq!(write(MOST_PAYLOAD + 1).unwrap_err(), Failure::Refused);
}

#[test]
fn a_table_tells_the_most_memory_it_takes() {
    let (host, table) = (ScriptedHost::default(), Table::for_keys(8));
    for n in 0..=255 {
        add(&host, table, &neighbour(n), 0);
    }
    let size = host.stored(&name(0)).unwrap().value.len();
    assert_eq!(table.most_bytes(8, 1), size);
}

#[test]
fn names_of_shelves_differ_in_their_crc32() {
    let mut sums: Vec<_> = (0..100_000).map(|shelf| crc32(&name(shelf))).collect();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), 100_000);
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

proptest! {
    /// Whatever the order of keys and times, a key that never shared the overflow counts exactly its own.
    #[test]
    fn each_key_counts_its_own(steps in prop::collection::vec((0_u8..40, 0_u64..20), 1..200)) {
        let (host, table) = (ScriptedHost::default(), Table::for_keys(8));
        let mut now = 0;
        let mut oracle: HashMap<(u8, u64), u64> = HashMap::new();
        let mut own = true;
        for (key, later) in steps {
            now += later;
            let updated = add(&host, table, &neighbour(key), now);
            own &= !updated.place.is_overflow();
            let expected = oracle.entry((key, now / MINUTE)).or_default();
            *expected += 1;
            if own {
                prop_assert_eq!(updated.result, *expected);
            } else {
                prop_assert!(updated.result >= 1);
            }
        }
    }

    /// Nothing that can stand in a shelf breaks the reader.
    #[test]
    fn any_content_is_read(content in prop::collection::vec(any::<u8>(), 0..300), now in any::<u64>()) {
        let entries = Entries(&content);
        prop_assert!(entries.iter().count() * ENTRY_OVERHEAD <= content.len());
        let value = entries.with(b"n", &neighbour(1), b"x", u64::MAX, now).unwrap();
        let written = Entries(&value[HEAD..]);
        prop_assert_eq!(written.payload(&neighbour(1), u64::MAX - 1), Some(&b"x"[..]));
    }
}
