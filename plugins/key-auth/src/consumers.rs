//! The `consumers` list as it is written, read straight into a [`Directory`].

use crate::config::non_empty;
use crate::directory::{Clash, Directory, NewConsumer, NewCredential};
use crate::timestamp::Timestamp;
use std::borrow::Cow;
use tollgate_kit::config::{Field, Reader, elements_of};
use tollgate_kit::digest::Digest;
use tollgate_kit::json::{Kind, Value};
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::{Json, Object, list_of, of_type};

/// Consumers and their credentials, as configured.
#[derive(Clone, Debug, Default)]
pub struct Consumers {
    /// What was read.
    pub directory: Directory,
    /// How many credentials show their key in the configuration.
    pub plain_keys: usize,
}

impl Consumers {
    /// Reads one element of the list. Everything wrong with it is reported.
    pub fn add(&mut self, value: Value<'_>, reader: &mut Reader<'_>) {
        const FIELDS: [&str; 6] = [
            "id",
            "username",
            "custom_id",
            "groups",
            "metadata",
            "credentials",
        ];
        let Some([id, username, custom_id, groups, metadata, credentials]) =
            reader.members(value, &FIELDS)
        else {
            return;
        };
        let id = text("id", id, reader);
        let username = text("username", username, reader);
        let custom_id = text("custom_id", custom_id, reader);
        let groups =
            groups.filter(|groups| reader.member("groups", |reader| are_texts(*groups, reader)));
        let metadata = metadata.filter(|metadata| {
            let object = matches!(metadata.kind(), Kind::Object);
            if !object {
                reader.member("metadata", |reader| {
                    reader.error("expected an object, as {\"plan\": \"gold\"}")
                });
            }
            object
        });
        let Some(consumer_id) = id.as_deref().or(username.as_deref()) else {
            reader.error("a consumer needs an id, or at least a username");
            return;
        };
        let new = NewConsumer {
            id: consumer_id,
            username: username.as_deref(),
            custom_id: custom_id.as_deref(),
            groups: groups.map(Value::text),
            metadata: metadata.map(Value::text),
        };
        let number = match self.directory.add_consumer(&new) {
            Ok(number) => number,
            Err(clash) => {
                let field = if clash == Clash::Username {
                    "username"
                } else {
                    "id"
                };
                reader.member(field, |reader| reader.error(clash));
                return;
            }
        };
        if let Some(credentials) = credentials {
            reader.member("credentials", |reader| {
                let mut position = 0usize;
                elements_of(credentials, reader, |reader, credential| {
                    self.add_credential(number, consumer_id, position, credential, reader);
                    position = position.saturating_add(1);
                })
            });
        }
    }

    fn add_credential(
        &mut self,
        consumer: u32,
        consumer_id: &str,
        position: usize,
        value: Value<'_>,
        reader: &mut Reader<'_>,
    ) {
        let Some([id, key, key_sha256, expires_at]) =
            reader.members(value, &["id", "key", "key_sha256", "expires_at"])
        else {
            return;
        };
        let id = text("id", id, reader)
            .unwrap_or_else(|| Cow::Owned(format!("{consumer_id}/{position}")));
        let plain = text("key", key, reader);
        let hex = text("key_sha256", key_sha256, reader);
        let expires_at = match expires_at {
            Some(value) => reader
                .member("expires_at", |reader| Timestamp::read(value, reader))
                .map(|at| at.0),
            None => None,
        };
        let digest = match (&plain, &hex) {
            (Some(_), Some(_)) => {
                reader.error("give key or key_sha256, not both");
                return;
            }
            (Some(key), None) => {
                self.plain_keys = self.plain_keys.saturating_add(1);
                Digest::of(key.as_bytes())
            }
            (None, Some(hex)) => match Digest::from_hex(hex) {
                Some(digest) => digest,
                None => {
                    reader.member("key_sha256", |reader| {
                        reader.error("expected 64 hex digits: printf %s \"$KEY\" | sha256sum")
                    });
                    return;
                }
            },
            // A field that is there but no text has been reported.
            (None, None) if key.is_some() || key_sha256.is_some() => return,
            (None, None) => {
                reader.error("a credential needs key_sha256 (or key)");
                return;
            }
        };
        if let Err(clash) = self.directory.add_credential(
            consumer,
            &NewCredential {
                id: &id,
                digest,
                expires_at,
            },
        ) {
            let field = match clash {
                Clash::CredentialId => "id",
                _ if plain.is_some() => "key",
                _ => "key_sha256",
            };
            reader.member(field, |reader| reader.error(clash));
        }
    }
}

impl std::fmt::Display for Clash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Clash::ConsumerId => "duplicate consumer: another one has this id",
            Clash::Username => "duplicate consumer: another one has this username",
            Clash::CredentialId => "duplicate credential: another one has this id",
            Clash::Key => "duplicate credential: another one has this key",
            Clash::Full => "too many: at most four billion consumers, credentials or bytes",
        })
    }
}

/// A text that may be left out, but not empty: ids and names become header values.
fn text<'v>(name: &str, value: Option<Value<'v>>, reader: &mut Reader<'_>) -> Option<Cow<'v, str>> {
    reader.member(name, |reader| non_empty(value?, reader))
}

fn are_texts(list: Value<'_>, reader: &mut Reader<'_>) -> bool {
    let mut all = true;
    let list = elements_of(list, reader, |reader, element| {
        if element.as_str().is_none() {
            reader.error("expected a string, in quotes");
            all = false;
        }
    });
    list.is_some() && all
}

impl Field for Consumers {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Consumers> {
        let mut consumers = Consumers::default();
        // Most consumers have one credential, and two fifths of their text is kept.
        let text = value.text().len().saturating_mul(2) / 5;
        consumers.directory.reserve(value.items().count(), text);
        elements_of(value, reader, |reader, consumer| {
            consumers.add(consumer, reader)
        })?;
        if consumers.plain_keys > 0 {
            let count = consumers.plain_keys;
            reader.warn(format_args!(
                "{count} plain key(s): whoever reads this configuration can use them; write key_sha256: printf %s \"$KEY\" | sha256sum"
            ));
        }
        Some(consumers)
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        let string = || of_type("string");
        let texts = list_of(string());
        let mut credential = Object::new("A key of the consumer.");
        credential.field("id", "What identifies it without telling the key; goes to upstreams as X-Credential-Identifier. Default: the consumer's id and the position.", string(), None, false);
        credential.field(
            "key",
            "The key itself. Prefer key_sha256.",
            string(),
            None,
            false,
        );
        credential.field(
            "key_sha256",
            "The key's SHA-256, 64 hex digits.",
            string(),
            None,
            false,
        );
        credential.field(
            "expires_at",
            "When it stops being valid: seconds since 1970, or RFC 3339.",
            Timestamp::schema(),
            None,
            false,
        );
        let mut consumer = Object::new("Someone who may use the gateway.");
        consumer.field(
            "id",
            "What identifies it. Default: the username.",
            string(),
            None,
            false,
        );
        consumer.field("username", "Its name.", string(), None, false);
        consumer.field(
            "custom_id",
            "Its name in your own system.",
            string(),
            None,
            false,
        );
        consumer.field(
            "groups",
            "The groups it is in, for later filters.",
            texts,
            None,
            false,
        );
        consumer.field(
            "metadata",
            "Whatever else later filters should know of it.",
            of_type("object"),
            None,
            false,
        );
        consumer.field(
            "credentials",
            "Its keys.",
            list_of(credential.finish()),
            None,
            false,
        );
        list_of(consumer.finish())
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        // The default is the empty list; credentials are never written back.
        Json::Array(Vec::new())
    }
}
