//! A bounded table in the host's shared data: counters, leases and whatever else all workers must agree on.
//!
//! Nothing in shared data expires by itself, Envoy never evicts, and nginx evicts anything. So the table has a fixed number
//! of **shelves**, each one value of shared data that holds up to [`SHELF_ENTRIES`] entries with their expiries. A key
//! belongs to one shelf; finding, claiming and changing its entry is one read and one write that fails if anybody else
//! has written to the shelf, so no two workers can claim two entries for one key, and no update is lost.
//!
//! - **Only expired entries are reused.** A key that finds its shelf full shares the shelf's *overflow* entry with the others that do,
//!   and stays with it until that entry expires: somebody who sprays keys makes newcomers share a counter, and resets
//!   nobody's.
//! - **Names can't collide.** nginx tells names apart by their CRC-32 alone; all names here are one prefix and a 4-byte
//!   number, for which a CRC-32 is a bijection. Filters with other namespaces use the same shelves: the namespace is part of the
//!   key.
//! - **Values are checked.** Each has a format byte and a checksum over its name and content: nginx copies values out after it has
//!   released its lock. A damaged one is read again, then counts as empty, and the caller is told ([`Updated::damaged`]). One
//!   of a later format is left alone, and the update fails.
//!
//! ```text
//! shelf   = format (1 byte, 1), checksum (8), entry *
//! entry   = key (16), expiry (8, Unix seconds), size (2), payload (size)      numbers little-endian
//! ```

use crate::host::{Failure, SharedData, Stored, Written};

#[cfg(test)]
mod tests;

/// How many entries a shelf has, besides the overflow entries.
pub const SHELF_ENTRIES: usize = 16;

/// The largest payload, in bytes.
pub const MOST_PAYLOAD: usize = 1024;

/// The bytes of an entry besides its payload.
pub const ENTRY_OVERHEAD: usize = 26;

/// A table is filled to half on purpose, so that a shelf seldom overflows: with 8 keys to a shelf on average, 4 in 1,000 shelves have more
/// than 16.
const KEYS_A_SHELF: u32 = 8;

/// So many times an update is tried again because another worker was faster. Each of them means that one of the others has got on.
const TRIES: usize = 256;

/// So many times a damaged value is read again before it counts as empty.
const READS: usize = 3;

const FORMAT: u8 = 1;
const HEAD: usize = 9;
const PREFIX: &[u8] = b"tollgate.table.";

/// Whose entry: as many bytes of a digest that nobody can forge.
pub type Key = [u8; 16];

/// The table. It has no state of its own: two with as many shelves are the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    shelves: u32,
}

/// Where an entry is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    shelf: u32,
    key: Key,
    overflow: bool,
}

impl Place {
    /// Whether it is an overflow entry, shared by all keys that found their shelf full.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.overflow
    }
}

/// What is to become of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// Nothing.
    Keep,
    /// It becomes this.
    Write {
        /// At most [`MOST_PAYLOAD`] bytes.
        payload: Vec<u8>,
        /// From this second on (Unix time) it may be reused.
        expires: u64,
    },
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated<T> {
    /// What the change gave back with the value that was written.
    pub result: T,
    /// Where the entry is.
    pub place: Place,
    /// The shelf could not be read and has been begun anew.
    pub damaged: bool,
    /// How many times another worker was faster.
    pub lost: usize,
}

impl Table {
    /// A table for about so many live keys.
    #[must_use]
    pub fn for_keys(keys: u32) -> Table {
        Table {
            shelves: keys.div_ceil(KEYS_A_SHELF).max(1),
        }
    }

    /// The most memory its values can take, in bytes, with payloads of this size and so many kinds of overflow entries.
    #[must_use]
    pub fn most_bytes(&self, payload: usize, kinds: usize) -> usize {
        let entries = SHELF_ENTRIES.saturating_add(kinds);
        let entry = ENTRY_OVERHEAD.saturating_add(payload.min(MOST_PAYLOAD));
        let shelf = entries.saturating_mul(entry).saturating_add(HEAD);
        usize::try_from(self.shelves)
            .unwrap_or(usize::MAX)
            .saturating_mul(shelf)
    }

    /// Changes the entry of `key` as `change` says, which is given its payload (`None`: there is none, or it has expired) and is
    /// asked again whenever another worker was faster. Where the shelf is full it is the entry of `overflow`, one such key for
    /// each kind of payload.
    ///
    /// # Errors
    /// When the host does not read or write, a shelf is of a later format, or other workers are faster all the time. Nothing has
    /// been changed then, unless the host wrote and said it did not.
    pub fn update<T>(
        &self,
        host: &(impl SharedData + ?Sized),
        key: &Key,
        overflow: &Key,
        now: u64,
        mut change: impl FnMut(Option<&[u8]>) -> (Change, T),
    ) -> Result<Updated<T>, Failure> {
        let shelf = self.shelf_of(key);
        self.change(host, shelf, now, |entries| {
            let key = entries.place(key, overflow, now);
            let (change, result) = change(entries.payload(&key, now));
            (key, change, result)
        })
        .map(|((key, result), damaged, lost)| Updated {
            result,
            place: Place {
                shelf,
                key,
                overflow: key == *overflow,
            },
            damaged,
            lost,
        })
    }

    /// Changes the entry that an earlier update has found, as [`Table::update`] does.
    ///
    /// # Errors
    /// As [`Table::update`].
    pub fn update_at<T>(
        &self,
        host: &(impl SharedData + ?Sized),
        place: &Place,
        now: u64,
        mut change: impl FnMut(Option<&[u8]>) -> (Change, T),
    ) -> Result<Updated<T>, Failure> {
        self.change(host, place.shelf, now, |entries| {
            let (change, result) = change(entries.payload(&place.key, now));
            (place.key, change, result)
        })
        .map(|((_, result), damaged, lost)| Updated {
            result,
            place: *place,
            damaged,
            lost,
        })
    }

    /// Changes the entry of `key` as [`Table::update`] does, but leaves everything as it is where that would be the overflow entry.
    ///
    /// # Errors
    /// As [`Table::update`].
    pub fn update_own(
        &self,
        host: &(impl SharedData + ?Sized),
        key: &Key,
        overflow: &Key,
        now: u64,
        mut change: impl FnMut(Option<&[u8]>) -> Change,
    ) -> Result<(), Failure> {
        self.change(host, self.shelf_of(key), now, |entries| {
            let change = if entries.place(key, overflow, now) == *key {
                change(entries.payload(key, now))
            } else {
                Change::Keep
            };
            (*key, change, ())
        })
        .map(|_| ())
    }

    fn shelf_of(&self, key: &Key) -> u32 {
        let [a, b, c, d, ..] = *key;
        // Never 0, so there always is a remainder.
        u32::from_le_bytes([a, b, c, d])
            .checked_rem(self.shelves)
            .unwrap_or_default()
    }

    fn change<T>(
        &self,
        host: &(impl SharedData + ?Sized),
        shelf: u32,
        now: u64,
        mut change: impl FnMut(&Entries<'_>) -> (Key, Change, T),
    ) -> Result<((Key, T), bool, usize), Failure> {
        let name = name(shelf);
        for lost in 0..TRIES {
            let (seen, damaged) = read(host, &name)?;
            let content = if damaged {
                None
            } else {
                seen.value.get(HEAD..)
            };
            let entries = Entries(content.unwrap_or_default());
            let (key, change, result) = change(&entries);
            let Change::Write { payload, expires } = change else {
                return Ok(((key, result), damaged, lost));
            };
            let value = entries
                .with(&name, &key, &payload, expires, now)
                .ok_or(Failure::Refused)?;
            if host.replace_stored(&name, &seen, &value)? == Written::Done {
                return Ok(((key, result), damaged, lost));
            }
        }
        Err(Failure::Broken)
    }
}

fn name(shelf: u32) -> Vec<u8> {
    [PREFIX, shelf.to_le_bytes().as_slice()].concat()
}

/// A shelf's value, and whether it is damaged.
fn read(host: &(impl SharedData + ?Sized), name: &[u8]) -> Result<(Stored, bool), Failure> {
    let mut reads = 0;
    loop {
        let seen = host.stored(name)?;
        match seen.value.split_first_chunk::<HEAD>() {
            _ if seen.value.is_empty() => return Ok((seen, false)),
            Some(([format, ..], _)) if *format > FORMAT => return Err(Failure::Refused),
            Some(([FORMAT, sum @ ..], content)) if *sum == checksum(name, content) => {
                return Ok((seen, false));
            }
            _ if reads >= READS => return Ok((seen, true)),
            _ => reads = reads.saturating_add(1),
        }
    }
}

/// The entries of a shelf, as they stand in its value. Content that passed its checksum is still not believed to be well-formed: what can't be
/// read ends the list.
struct Entries<'v>(&'v [u8]);

/// One entry.
struct Entry<'v> {
    key: Key,
    expires: u64,
    payload: &'v [u8],
    /// All of its bytes.
    bytes: &'v [u8],
}

impl<'v> Entries<'v> {
    fn iter(&self) -> impl Iterator<Item = Entry<'v>> + use<'v> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (entry, behind) = Entry::read(rest)?;
            rest = behind;
            Some(entry)
        })
    }

    fn live(&self, now: u64) -> impl Iterator<Item = Entry<'v>> + use<'v> {
        self.iter().filter(move |entry| entry.expires > now)
    }

    fn payload(&self, key: &Key, now: u64) -> Option<&'v [u8]> {
        self.live(now)
            .find(|entry| entry.key == *key)
            .map(|entry| entry.payload)
    }

    /// The key under which `key`'s entry is kept: its own, unless the shelf is full, or was and its overflow is still in use.
    fn place(&self, key: &Key, overflow: &Key, now: u64) -> Key {
        let mut entries = 0_usize;
        let mut overflowing = false;
        for entry in self.live(now) {
            if entry.key == *key {
                return *key;
            }
            overflowing |= entry.key == *overflow;
            entries = entries.saturating_add(1);
        }
        if overflowing || entries >= SHELF_ENTRIES {
            *overflow
        } else {
            *key
        }
    }

    /// The value with one entry changed or added and the expired ones gone.
    fn with(
        &self,
        name: &[u8],
        key: &Key,
        payload: &[u8],
        expires: u64,
        now: u64,
    ) -> Option<Vec<u8>> {
        let size = u16::try_from(payload.len())
            .ok()
            .filter(|size| usize::from(*size) <= MOST_PAYLOAD)?;
        let most = self.0.len().saturating_add(payload.len());
        let mut value = Vec::with_capacity(most.saturating_add(ENTRY_OVERHEAD + HEAD));
        value.extend_from_slice(&[0; HEAD]);
        value.extend_from_slice(key);
        value.extend_from_slice(&expires.to_le_bytes());
        value.extend_from_slice(&size.to_le_bytes());
        value.extend_from_slice(payload);
        for entry in self.live(now).filter(|entry| entry.key != *key) {
            value.extend_from_slice(entry.bytes);
        }
        let (head, content) = value.split_first_chunk_mut::<HEAD>()?;
        let (format, sum) = head.split_first_mut()?;
        *format = FORMAT;
        sum.copy_from_slice(&checksum(name, content));
        Some(value)
    }
}

impl<'v> Entry<'v> {
    fn read(bytes: &'v [u8]) -> Option<(Entry<'v>, &'v [u8])> {
        let (key, rest) = bytes.split_first_chunk::<16>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (size, rest) = rest.split_first_chunk::<2>()?;
        let (payload, behind) = rest.split_at_checked(usize::from(u16::from_le_bytes(*size)))?;
        let entry = Entry {
            key: *key,
            expires: u64::from_le_bytes(*expires),
            payload,
            bytes: bytes.get(..bytes.len().saturating_sub(behind.len()))?,
        };
        Some((entry, behind))
    }
}

/// Tells a whole value from a torn or foreign one. It protects against accidents, eight bytes at a step, not against forgers: nobody but
/// the gateway's own filters can write there.
fn checksum(name: &[u8], content: &[u8]) -> [u8; 8] {
    let mut sum = 0x9E37_79B9_7F4A_7C15_u64 ^ content.len() as u64;
    for part in [name, content] {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            sum = step(sum, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum = step(sum, u64::from_le_bytes(last));
    }
    (sum ^ sum >> 32).to_le_bytes()
}

fn step(sum: u64, word: u64) -> u64 {
    (sum ^ word)
        .rotate_left(29)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
}
