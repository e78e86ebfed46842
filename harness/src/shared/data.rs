//! Shared data: values with a compare-and-set number.

use std::collections::HashMap;

use crate::profile::SharedData;

/// Why a value was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The value changed since it was read, or was there (or not) against expectation.
    #[error("the value changed since it was read")]
    CasMismatch,
    /// The value is larger than the whole zone; everything else is gone now.
    #[error("\"*\" shm store: no memory")]
    NoMemory,
}

#[derive(Debug, Default)]
pub(super) struct Data {
    entries: HashMap<Slot, Entry>,
    bytes: usize,
    counter: u32,
    uses: u64,
}

/// What tells keys apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Slot {
    Key(Vec<u8>),
    Crc32(u32),
}

#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
    cas: u32,
    used: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl Data {
    pub(super) fn get(&mut self, rules: &SharedData, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.uses += 1;
        let entry = self.entries.get_mut(&slot(rules, key))?;
        entry.used = self.uses;
        Some((entry.value.clone(), entry.cas))
    }

    /// Whether there is such a value. Does not count as a use of it.
    pub(super) fn contains(&self, rules: &SharedData, key: &[u8]) -> bool {
        self.entries.contains_key(&slot(rules, key))
    }

    pub(super) fn set(
        &mut self,
        rules: &SharedData,
        key: &[u8],
        value: Option<&[u8]>,
        cas: u32,
        capacity: usize,
    ) -> Result<(), DataError> {
        let slot = slot(rules, key);
        let current = self.entries.get(&slot).map(|entry| entry.cas);
        let allowed = match (current, cas) {
            (_, 0) if rules.zero_writes_always => true,
            (None, 0) => true,
            (None, _) => rules.absent_is_created,
            (Some(current), cas) => current == cas,
        };
        if !allowed {
            return Err(DataError::CasMismatch);
        }
        match value {
            None if rules.removal_deletes => match self.entries.remove(&slot) {
                Some(entry) => {
                    self.bytes -= entry.bytes();
                    Ok(())
                }
                None => Err(DataError::CasMismatch),
            },
            value => {
                let value = value.unwrap_or_default();
                if rules.bounded {
                    self.make_room(key.len() + value.len(), &slot, capacity)?;
                }
                self.write(rules, slot, key, value);
                Ok(())
            }
        }
    }

    pub(super) fn put(&mut self, rules: &SharedData, key: &[u8], value: &[u8]) {
        self.write(rules, slot(rules, key), key, value);
    }

    pub(super) fn sizes(&self) -> Vec<(Vec<u8>, usize)> {
        let mut sizes: Vec<_> = self
            .entries
            .values()
            .map(|entry| (entry.key.clone(), entry.value.len()))
            .collect();
        sizes.sort();
        sizes
    }

    /// Evicts the least recently used until `bytes` fit; a value that never fits costs everything.
    fn make_room(&mut self, bytes: usize, keep: &Slot, capacity: usize) -> Result<(), DataError> {
        if bytes > capacity {
            self.entries.clear();
            self.bytes = 0;
            return Err(DataError::NoMemory);
        }
        while self.bytes + bytes > capacity {
            let oldest = self
                .entries
                .iter()
                .filter(|(slot, _)| *slot != keep)
                .min_by_key(|(_, entry)| entry.used)
                .map(|(slot, _)| slot.clone());
            let Some(entry) = oldest.and_then(|slot| self.entries.remove(&slot)) else {
                break;
            };
            self.bytes -= entry.bytes();
        }
        Ok(())
    }

    fn write(&mut self, rules: &SharedData, slot: Slot, key: &[u8], value: &[u8]) {
        self.counter = self.counter.wrapping_add(1).max(1);
        self.uses += 1;
        let before = self.entries.remove(&slot);
        self.bytes -= before.as_ref().map_or(0, Entry::bytes);
        let cas = if rules.cas_per_key {
            before
                .as_ref()
                .map_or(1, |entry| entry.cas.wrapping_add(1).max(1))
        } else {
            self.counter
        };
        let entry = Entry {
            // A colliding key writes into the entry it found, which keeps the name it was made under.
            key: before.map_or_else(|| key.to_vec(), |entry| entry.key),
            value: value.to_vec(),
            cas,
            used: self.uses,
        };
        self.bytes += entry.bytes();
        self.entries.insert(slot, entry);
    }
}

fn slot(rules: &SharedData, key: &[u8]) -> Slot {
    if rules.keys_are_crc32 {
        Slot::Crc32(crc32(key))
    } else {
        Slot::Key(key.to_vec())
    }
}

/// CRC-32 as nginx computes it (ISO 3309, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::{Data, DataError, crc32};
    use crate::profile::{Profile, SharedData};

    const ROOM: usize = 1024;

    fn rules(profile: Profile) -> &'static SharedData {
        &profile.rules().shared_data
    }

    fn set(
        data: &mut Data,
        profile: Profile,
        value: Option<&[u8]>,
        cas: u32,
    ) -> Result<(), DataError> {
        data.set(rules(profile), b"k", value, cas, ROOM)
    }

    #[test]
    fn the_crc_is_the_common_one_and_two_english_words_collide() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"plumless"), crc32(b"buckeroo"));
    }

    #[test]
    fn envoy_writes_always_with_cas_zero_and_kong_only_where_nothing_is() {
        let (mut envoy, mut kong) = (Data::default(), Data::default());
        for data in [(&mut envoy, Profile::Envoy), (&mut kong, Profile::Kong)] {
            assert_eq!(set(data.0, data.1, Some(b"1"), 0), Ok(()));
        }
        assert_eq!(set(&mut envoy, Profile::Envoy, Some(b"2"), 0), Ok(()));
        assert_eq!(
            set(&mut kong, Profile::Kong, Some(b"2"), 0),
            Err(DataError::CasMismatch)
        );
    }

    #[test]
    fn the_largest_cas_creates_on_envoy_and_never_on_kong() {
        let mut envoy = Data::default();
        assert_eq!(
            set(&mut envoy, Profile::Envoy, Some(b"1"), u32::MAX),
            Ok(())
        );
        assert_eq!(
            set(&mut envoy, Profile::Envoy, Some(b"2"), u32::MAX),
            Err(DataError::CasMismatch)
        );
        assert_eq!(
            set(&mut Data::default(), Profile::Kong, Some(b"1"), u32::MAX),
            Err(DataError::CasMismatch)
        );
    }

    #[test]
    fn removing_leaves_nothing_on_envoy_and_deletes_on_kong_where_cas_starts_again() {
        let mut envoy = Data::default();
        set(&mut envoy, Profile::Envoy, Some(b"1"), 0).unwrap();
        set(&mut envoy, Profile::Envoy, None, 0).unwrap();
        assert_eq!(envoy.get(rules(Profile::Envoy), b"k"), Some((vec![], 2)));

        let mut kong = Data::default();
        set(&mut kong, Profile::Kong, Some(b"1"), 0).unwrap();
        assert_eq!(
            set(&mut kong, Profile::Kong, None, 0),
            Err(DataError::CasMismatch)
        );
        assert_eq!(set(&mut kong, Profile::Kong, None, 1), Ok(()));
        assert_eq!(kong.get(rules(Profile::Kong), b"k"), None);
        assert_eq!(
            set(&mut kong, Profile::Kong, None, 0),
            Err(DataError::CasMismatch)
        );
        set(&mut kong, Profile::Kong, Some(b"2"), 0).unwrap();
        assert_eq!(
            kong.get(rules(Profile::Kong), b"k"),
            Some((b"2".to_vec(), 1))
        );
    }

    #[test]
    fn kong_reads_another_keys_value_where_their_checksums_agree() {
        let mut data = Data::default();
        data.set(rules(Profile::Kong), b"plumless", Some(b"AAA"), 0, ROOM)
            .unwrap();
        assert_eq!(
            data.get(rules(Profile::Kong), b"buckeroo").map(|(v, _)| v),
            Some(b"AAA".to_vec())
        );
        assert_eq!(data.get(rules(Profile::Envoy), b"buckeroo"), None);
    }

    #[test]
    fn a_full_zone_drops_what_was_used_longest_ago_and_a_giant_drops_all() {
        let rules = rules(Profile::Kong);
        let mut data = Data::default();
        for key in [&b"a"[..], b"b"] {
            data.set(rules, key, Some(&[0; 400]), 0, ROOM).unwrap();
        }
        data.get(rules, b"a");
        data.set(rules, b"c", Some(&[0; 400]), 0, ROOM).unwrap();
        assert!(data.get(rules, b"a").is_some());
        assert!(data.get(rules, b"b").is_none());
        assert_eq!(
            data.set(rules, b"d", Some(&[0; 2000]), 0, ROOM),
            Err(DataError::NoMemory)
        );
        assert!(data.get(rules, b"a").is_none());
    }
}
