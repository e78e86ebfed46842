//! Who may come in: consumers and the SHA-256 digests of their keys, made for 100,000 of them.
//!
//! All text stands in one arena and is named by its place there, so that loading costs few allocations and dropping an old
//! directory costs none that could be felt. Look-ups take the same time for any number of credentials; a digest is compared
//! whole, whatever differs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tollgate_kit::digest::Digest;
use tollgate_kit::identity::Identity;
use tollgate_kit::json::Value;

/// Everything that is looked up in requests.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    text: Vec<u8>,
    consumers: Vec<Consumer>,
    credentials: Vec<Credential>,
    by_digest: Index,
    by_id: Index,
    by_username: Index,
    by_credential_id: Index,
}

/// A place in the arena.
#[derive(Clone, Copy, Debug, Default)]
struct Text {
    start: u32,
    length: u32,
}

/// Its texts stand one behind the other: id, username, custom id, groups (a JSON array of strings), metadata (a JSON object).
#[derive(Clone, Debug)]
struct Consumer {
    start: u32,
    lengths: [u32; 5],
}

impl Consumer {
    /// The length of a text that is not there.
    const ABSENT: u32 = u32::MAX;

    const USERNAME: usize = 1;
    const CUSTOM_ID: usize = 2;
    const GROUPS: usize = 3;
    const METADATA: usize = 4;

    fn id(&self) -> Text {
        Text {
            start: self.start,
            length: self.lengths.first().copied().unwrap_or_default(),
        }
    }

    fn text(&self, which: usize) -> Option<Text> {
        let length = self
            .lengths
            .get(which)
            .copied()
            .filter(|length| *length != Self::ABSENT)?;
        let before = self
            .lengths
            .iter()
            .take(which)
            .filter(|length| **length != Self::ABSENT);
        let start = before.fold(self.start, |start, length| start.saturating_add(*length));
        Some(Text { start, length })
    }
}

#[derive(Clone, Debug)]
struct Credential {
    digest: Digest,
    consumer: u32,
    id: Text,
    /// Seconds since 1970, until the year 2106; `u32::MAX` for never.
    expires_at: u32,
}

/// A consumer to be added.
#[derive(Debug, Default)]
pub struct NewConsumer<'a> {
    /// What identifies it; unique.
    pub id: &'a str,
    /// Its name; unique.
    pub username: Option<&'a str>,
    /// Its name in the operator's own system.
    pub custom_id: Option<&'a str>,
    /// The groups it is in: the text of a JSON array of strings.
    pub groups: Option<&'a [u8]>,
    /// What else is known of it: the text of a JSON object.
    pub metadata: Option<&'a [u8]>,
}

/// A credential to be added.
#[derive(Debug)]
pub struct NewCredential<'a> {
    /// What identifies it, without telling the key; unique.
    pub id: &'a str,
    /// The key's digest; unique.
    pub digest: Digest,
    /// When it stops being valid, since 1970.
    pub expires_at: Option<Duration>,
}

/// Why something can't be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Another consumer has this id.
    ConsumerId,
    /// Another consumer has this username.
    Username,
    /// Another credential has this id.
    CredentialId,
    /// Another credential has this key.
    Key,
    /// There is no room: four billion of something, or of bytes.
    Full,
}

/// A key's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    consumer: u32,
    credential: Option<u32>,
}

impl Directory {
    /// Makes room for about so many credentials of as many consumers, with so many bytes of text. Growing costs copies and, for
    /// the tables, hashing everything again.
    pub fn reserve(&mut self, credentials: usize, text: usize) {
        self.text.reserve_exact(text);
        self.consumers.reserve_exact(credentials);
        self.credentials.reserve_exact(credentials);
        for index in [
            &mut self.by_digest,
            &mut self.by_id,
            &mut self.by_username,
            &mut self.by_credential_id,
        ] {
            index.reserve(credentials);
        }
    }

    /// How many credentials there are.
    pub fn len(&self) -> usize {
        self.credentials.len()
    }

    /// Whether there is no credential.
    pub fn is_empty(&self) -> bool {
        self.credentials.is_empty()
    }

    /// Adds a consumer and gives its number.
    ///
    /// # Errors
    /// When its id or username is taken.
    pub fn add_consumer(&mut self, new: &NewConsumer<'_>) -> Result<u32, Clash> {
        if self.consumer_by_id(new.id).is_some() {
            return Err(Clash::ConsumerId);
        }
        if new
            .username
            .is_some_and(|username| self.consumer_by_username(username).is_some())
        {
            return Err(Clash::Username);
        }
        let number = u32::try_from(self.consumers.len()).map_err(|_| Clash::Full)?;
        let texts = [
            Some(new.id.as_bytes()),
            new.username.map(str::as_bytes),
            new.custom_id.map(str::as_bytes),
            new.groups,
            new.metadata,
        ];
        let mut consumer = Consumer {
            start: u32::try_from(self.text.len()).map_err(|_| Clash::Full)?,
            lengths: [Consumer::ABSENT; 5],
        };
        for (text, length) in texts.into_iter().zip(&mut consumer.lengths) {
            if let Some(text) = text {
                *length = self.keep(text)?.length;
            }
        }
        self.consumers.push(consumer);
        let Directory {
            text,
            consumers,
            by_id,
            by_username,
            ..
        } = self;
        let known = |number: u32| consumers.get(number as usize);
        by_id.insert(number, |number| {
            hash(known(number).map_or(&[], |known| read(text, known.id())))
        });
        if new.username.is_some() {
            by_username.insert(number, |number| {
                let name = known(number).and_then(|known| known.text(Consumer::USERNAME));
                hash(name.map_or(&[], |name| read(text, name)))
            });
        }
        Ok(number)
    }

    /// Adds a credential of a consumer that [`Directory::add_consumer`] has numbered.
    ///
    /// # Errors
    /// When its key or id is taken.
    pub fn add_credential(&mut self, consumer: u32, new: &NewCredential<'_>) -> Result<(), Clash> {
        if self.find(&new.digest).is_some() {
            return Err(Clash::Key);
        }
        let same_id = |number: u32| {
            self.credentials
                .get(number as usize)
                .is_some_and(|known| self.read(known.id) == new.id.as_bytes())
        };
        if self
            .by_credential_id
            .find(hash(new.id.as_bytes()), same_id)
            .is_some()
        {
            return Err(Clash::CredentialId);
        }
        let number = u32::try_from(self.credentials.len()).map_err(|_| Clash::Full)?;
        let id = self.keep(new.id.as_bytes())?;
        // Later than the year 2106 is as good as never.
        let expires_at = new.expires_at.map_or(u32::MAX, |at| {
            u32::try_from(at.as_secs()).unwrap_or(u32::MAX)
        });
        self.credentials.push(Credential {
            digest: new.digest,
            consumer,
            id,
            expires_at,
        });
        let Directory {
            text,
            credentials,
            by_digest,
            by_credential_id,
            ..
        } = self;
        by_digest.insert(number, |number| {
            credentials
                .get(number as usize)
                .map_or(0, |known| known.digest.prefix())
        });
        let id_hash = |number: u32| {
            hash(
                credentials
                    .get(number as usize)
                    .map_or(&[], |known| read(text, known.id)),
            )
        };
        by_credential_id.insert(number, id_hash);
        Ok(())
    }

    /// Whose key this is, if it is known and has not expired by `now` (since 1970).
    pub fn owner(&self, digest: &Digest, now: impl FnOnce() -> Duration) -> Option<Owner> {
        let number = self.find(digest)?;
        let credential = self.credentials.get(number as usize)?;
        if credential.expires_at != u32::MAX && now().as_secs() >= u64::from(credential.expires_at)
        {
            return None;
        }
        Some(Owner {
            consumer: credential.consumer,
            credential: Some(number),
        })
    }

    /// The consumer with this id, else with this username, without a credential.
    pub fn consumer(&self, id_or_username: &str) -> Option<Owner> {
        let consumer = self
            .consumer_by_id(id_or_username)
            .or_else(|| self.consumer_by_username(id_or_username))?;
        Some(Owner {
            consumer,
            credential: None,
        })
    }

    /// Everything that is known of an owner.
    pub fn identity(&self, owner: Owner) -> Option<Identity> {
        let consumer = self.consumers.get(owner.consumer as usize)?;
        let string = |text: Text| String::from_utf8_lossy(self.read(text)).into_owned();
        let credential = owner
            .credential
            .and_then(|number| self.credentials.get(number as usize));
        let text = |which: usize| consumer.text(which).map(|text| self.read(text));
        let groups = text(Consumer::GROUPS).and_then(|groups| Value::parse(groups).ok());
        Some(Identity {
            consumer: string(consumer.id()),
            username: consumer.text(Consumer::USERNAME).map(string),
            custom_id: consumer.text(Consumer::CUSTOM_ID).map(string),
            credential: credential.map(|credential| string(credential.id)),
            groups: groups
                .iter()
                .flat_map(|groups| groups.items())
                .filter_map(|group| group.as_str().map(|group| group.into_owned()))
                .collect(),
            metadata: consumer.text(Consumer::METADATA).map(string),
        })
    }

    fn find(&self, digest: &Digest) -> Option<u32> {
        self.by_digest.find(digest.prefix(), |number| {
            self.credentials
                .get(number as usize)
                .is_some_and(|known| known.digest.same(digest))
        })
    }

    fn consumer_by_id(&self, id: &str) -> Option<u32> {
        let same = |number: u32| {
            self.consumers
                .get(number as usize)
                .is_some_and(|known| self.read(known.id()) == id.as_bytes())
        };
        self.by_id.find(hash(id.as_bytes()), same)
    }

    fn consumer_by_username(&self, username: &str) -> Option<u32> {
        let name = |number: u32| {
            self.consumers
                .get(number as usize)
                .and_then(|known| known.text(Consumer::USERNAME))
        };
        self.by_username.find(hash(username.as_bytes()), |number| {
            name(number).is_some_and(|known| self.read(known) == username.as_bytes())
        })
    }

    fn keep(&mut self, text: &[u8]) -> Result<Text, Clash> {
        let start = u32::try_from(self.text.len()).map_err(|_| Clash::Full)?;
        let length = u32::try_from(text.len()).map_err(|_| Clash::Full)?;
        self.text.extend_from_slice(text);
        Ok(Text { start, length })
    }

    fn read(&self, text: Text) -> &[u8] {
        read(&self.text, text)
    }
}

fn read(arena: &[u8], text: Text) -> &[u8] {
    let start = text.start as usize;
    arena
        .get(start..start.saturating_add(text.length as usize))
        .unwrap_or_default()
}

fn hash(text: &[u8]) -> u64 {
    // Only the operator chooses what is hashed here, so that a fixed seed is no door for an attacker.
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// An open-addressing hash table of numbers; what they stand for is the caller's.
#[derive(Clone, Debug, Default)]
struct Index {
    /// A number plus one; 0 is free. The length is a power of two, at least a third of it free.
    slots: Vec<u32>,
    used: usize,
}

impl Index {
    fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        for slot in self.probe(hash) {
            match self
                .slots
                .get(slot)
                .copied()
                .unwrap_or_default()
                .checked_sub(1)
            {
                None => return None,
                Some(number) if same(number) => return Some(number),
                Some(_) => {}
            }
        }
        None
    }

    /// Makes an empty table large enough for so many numbers.
    fn reserve(&mut self, numbers: usize) {
        if self.used == 0 {
            let slots = numbers.saturating_mul(3) / 2;
            self.slots = vec![
                0;
                slots
                    .saturating_add(1)
                    .checked_next_power_of_two()
                    .unwrap_or(16)
            ];
        }
    }

    fn insert(&mut self, number: u32, hash_of: impl Fn(u32) -> u64) {
        if self.used.saturating_mul(3) >= self.slots.len().saturating_mul(2) {
            let size = self.slots.len().saturating_mul(2).max(16);
            let old = std::mem::replace(&mut self.slots, vec![0; size]);
            for known in old.into_iter().filter_map(|slot| slot.checked_sub(1)) {
                self.place(known, hash_of(known));
            }
        }
        self.place(number, hash_of(number));
        self.used = self.used.saturating_add(1);
    }

    fn place(&mut self, number: u32, hash: u64) {
        let free = self
            .probe(hash)
            .find(|slot| self.slots.get(*slot) == Some(&0));
        if let Some(slot) = free.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = number.saturating_add(1);
        }
    }

    /// Every slot once, from where the hash points.
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len().wrapping_sub(1);
        let start = hash as usize;
        (0..self.slots.len()).map(move |step| start.wrapping_add(step) & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn credential(
        directory: &mut Directory,
        consumer: u32,
        id: &str,
        key: &str,
    ) -> Result<(), Clash> {
        directory.add_credential(
            consumer,
            &NewCredential {
                id,
                digest: Digest::of(key.as_bytes()),
                expires_at: None,
            },
        )
    }

    fn owner(directory: &Directory, key: &str) -> Option<String> {
        let owner = directory.owner(&Digest::of(key.as_bytes()), || Duration::ZERO)?;
        directory.identity(owner).map(|identity| identity.consumer)
    }

    #[test]
    fn a_key_leads_to_its_consumer() {
        let mut directory = Directory::default();
        let new = NewConsumer {
            id: "1",
            username: Some("bob"),
            groups: Some(br#"["a","b"]"#),
            metadata: Some(br#"{"x":1}"#),
            ..NewConsumer::default()
        };
        let bob = directory.add_consumer(&new).unwrap();
        credential(&mut directory, bob, "c1", "k").unwrap();
        let identity = directory
            .identity(
                directory
                    .owner(&Digest::of(b"k"), || Duration::ZERO)
                    .unwrap(),
            )
            .unwrap();
        assert_eq!(
            (identity.username.as_deref(), identity.credential.as_deref()),
            (Some("bob"), Some("c1"))
        );
        assert_eq!(
            (identity.groups, identity.metadata.as_deref()),
            (vec!["a".to_owned(), "b".to_owned()], Some(r#"{"x":1}"#))
        );
        assert_eq!(owner(&directory, "other"), None);
    }

    #[test]
    fn what_is_taken_is_refused() {
        let mut directory = Directory::default();
        let bob = directory
            .add_consumer(&NewConsumer {
                id: "1",
                username: Some("bob"),
                ..NewConsumer::default()
            })
            .unwrap();
        credential(&mut directory, bob, "c1", "k").unwrap();
        let id = directory.add_consumer(&NewConsumer {
            id: "1",
            ..NewConsumer::default()
        });
        let username = directory.add_consumer(&NewConsumer {
            id: "2",
            username: Some("bob"),
            ..NewConsumer::default()
        });
        assert_eq!(
            (id, username),
            (Err(Clash::ConsumerId), Err(Clash::Username))
        );
        assert_eq!(credential(&mut directory, bob, "c2", "k"), Err(Clash::Key));
        assert_eq!(
            credential(&mut directory, bob, "c1", "k2"),
            Err(Clash::CredentialId)
        );
    }

    #[test]
    fn a_credential_ends_with_its_second() {
        let mut directory = Directory::default();
        let bob = directory
            .add_consumer(&NewConsumer {
                id: "1",
                ..NewConsumer::default()
            })
            .unwrap();
        let digest = Digest::of(b"k");
        directory
            .add_credential(
                bob,
                &NewCredential {
                    id: "c",
                    digest,
                    expires_at: Some(Duration::from_secs(100)),
                },
            )
            .unwrap();
        assert!(
            directory
                .owner(&digest, || Duration::from_millis(99_999))
                .is_some()
        );
        assert!(
            directory
                .owner(&digest, || Duration::from_secs(100))
                .is_none()
        );
        assert!(
            directory.owner(&digest, || Duration::MAX).is_none(),
            "without a clock it counts as expired"
        );
    }

    #[test]
    fn a_consumer_is_found_by_id_before_username() {
        let mut directory = Directory::default();
        directory
            .add_consumer(&NewConsumer {
                id: "1",
                username: Some("2"),
                ..NewConsumer::default()
            })
            .unwrap();
        directory
            .add_consumer(&NewConsumer {
                id: "2",
                username: Some("bob"),
                ..NewConsumer::default()
            })
            .unwrap();
        let found = |name: &str| {
            directory
                .consumer(name)
                .and_then(|owner| directory.identity(owner))
                .map(|identity| identity.consumer)
        };
        assert_eq!(
            (found("2"), found("bob"), found("3")),
            (Some("2".into()), Some("2".into()), None)
        );
    }

    proptest! {
        #[test]
        fn finds_what_a_map_finds(keys in proptest::collection::vec("[a-d]{1,3}", 0..80), asked in "[a-d]{1,3}") {
            let mut directory = Directory::default();
            let mut model = BTreeMap::new();
            for (position, key) in keys.iter().enumerate() {
                let id = position.to_string();
                let number = directory.add_consumer(&NewConsumer { id: &id, ..NewConsumer::default() }).unwrap();
                let added = credential(&mut directory, number, &id, key);
                prop_assert_eq!(added.is_ok(), !model.contains_key(key));
                model.entry(key.clone()).or_insert(id);
            }
            prop_assert_eq!(owner(&directory, &asked), model.get(&asked).cloned());
            prop_assert_eq!(directory.len(), model.len());
        }
    }
}
