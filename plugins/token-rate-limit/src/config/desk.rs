//! Where clients and operators ask about counters.

use super::RawConfig;
use super::requests::Path;
use crate::path;
use tollgate_kit::config::{Field, HeaderName, Reader};
use tollgate_kit::digest::Digest;
use tollgate_kit::host::HostKind;
use tollgate_kit::json::Value;
use tollgate_kit::record;
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::{Json, of_type};

record! {
    /// Where an operator reads and corrects counters.
    pub struct RawAdmin {
        /// The path, without a query: a POST there is answered by the filter.
        pub path: Path,
        /// The operator's key, 16 characters at least. Prefer `key_sha256`, or `${env:NAME}`.
        pub key: Option<Secret>,
        /// The key's SHA-256: `printf %s "$KEY" | sha256sum`.
        pub key_sha256: Option<Sha256>,
        /// The header that the key comes in. Left out, `x-admin-key`.
        pub header: Option<HeaderName>,
    }
}

/// A secret, of which the digest is kept.
#[derive(Clone, Debug)]
pub struct Secret(Digest);

/// The digest of a secret, in hexadecimal.
#[derive(Clone, Debug)]
pub struct Sha256(Digest);

/// The fewest bytes of a key that nobody is meant to guess.
const LEAST_KEY: usize = 16;

impl Field for Secret {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Secret> {
        let secret = reader.text(value)?;
        if secret.len() < LEAST_KEY {
            reader.error(format_args!("length must be at least {LEAST_KEY}"));
            return None;
        }
        if value.as_str().as_deref() == Some(secret.as_ref()) {
            reader.warn("whoever reads this configuration can use it; write key_sha256: printf %s \"$KEY\" | sha256sum");
        }
        Some(Secret(Digest::of(secret.as_bytes())))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        of_type("string")
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::Null
    }
}

impl Field for Sha256 {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Sha256> {
        let digest = Digest::from_hex(&reader.text(value)?);
        if digest.is_none() {
            reader.error("expected 64 hex digits: printf %s \"$KEY\" | sha256sum");
        }
        digest.map(Sha256)
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::Null
    }
}

/// The paths that the filter answers itself, normalised.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    budget: Option<Vec<u8>>,
    admin: Option<Admin>,
}

/// The operator's way in.
#[derive(Debug)]
pub(crate) struct Admin {
    path: Vec<u8>,
    pub(crate) header: String,
    pub(crate) key: Digest,
}

/// What somebody comes for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand<'c> {
    /// A client, for its own budget.
    Budget,
    /// Somebody who says to be an operator.
    Admin(&'c Admin),
}

impl Desk {
    /// What a request to this path is for; `None` for the upstream's.
    pub(crate) fn errand(&self, path: &[u8]) -> Option<Errand<'_>> {
        if self.budget.is_none() && self.admin.is_none() {
            return None;
        }
        let path = path::normalised(path);
        if self.budget.as_ref() == Some(&path) {
            return Some(Errand::Budget);
        }
        let admin = self.admin.as_ref().filter(|admin| admin.path == path);
        admin.map(Errand::Admin)
    }

    /// The paths of a configuration; `None` where one is wrong, which is reported.
    pub(super) fn validate(raw: &RawConfig, reader: &mut Reader<'_>) -> Option<Desk> {
        let normal = |path: &Path| path::normalised(path.0.as_bytes());
        let budget = raw.budget_path.as_ref().map(normal);
        let Some(given) = &raw.admin else {
            return Some(Desk {
                budget,
                admin: None,
            });
        };
        let path = normal(&given.path);
        reader.member("admin", |reader| {
            if budget.as_ref() == Some(&path) {
                reader.member("path", |reader| {
                    reader.error("the same as budget_path: give each its own");
                });
            }
            if raw.host == Some(HostKind::EnvoyHeadersPass) {
                reader.error(
                    "can't work with host: envoy-headers-pass, where a request's headers, the key among them, go upstream before its body can be read",
                );
            }
            let key = match (&given.key, &given.key_sha256) {
                (Some(Secret(key)), None) | (None, Some(Sha256(key))) => *key,
                (Some(_), Some(_)) => {
                    reader.error("give key or key_sha256, not both");
                    return None;
                }
                (None, None) => {
                    reader.error("needs key_sha256 (or key): without one everybody could");
                    return None;
                }
            };
            let header = given.header.as_ref();
            let admin = Admin {
                path,
                header: header.map_or("x-admin-key", HeaderName::as_str).to_owned(),
                key,
            };
            Some(Desk {
                budget,
                admin: Some(admin),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use tollgate_kit::config::check;

    const KEY: &str = "0123456789abcdef";

    fn told(config: &str) -> Vec<String> {
        let config = format!(r#"{{"minute": 1, "host": "envoy", {config}}}"#);
        let environment = |name: &str| (name == "ADMIN").then(|| KEY.to_owned());
        let problems = match check::<Config>(config.as_bytes(), &environment) {
            Ok(checked) => checked.warnings,
            Err(problems) => problems,
        };
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_comes_from_the_environment_or_as_a_digest() {
        let none: [String; 0] = [];
        assert_eq!(told(r#""budget_path": "/budget""#), none);
        assert_eq!(
            told(r#""admin": {"path": "/a", "key": "${env:ADMIN}"}"#),
            none
        );
        let digest = "0".repeat(64);
        assert_eq!(
            told(&format!(
                r#""admin": {{"path": "/a", "key_sha256": "{digest}"}}"#
            )),
            none
        );
        assert_eq!(
            told(&format!(r#""admin": {{"path": "/a", "key": "{KEY}"}}"#)),
            [
                "admin.key: whoever reads this configuration can use it; write key_sha256: printf %s \"$KEY\" | sha256sum"
            ]
        );
    }

    #[test]
    fn every_mistake_is_told_where_it_is() {
        for (config, problem) in [
            (
                r#""budget_path": "budget""#,
                "budget_path: should start with: /",
            ),
            (
                r#""admin": {"path": "/a"}"#,
                "admin: needs key_sha256 (or key): without one everybody could",
            ),
            (
                r#""admin": {"path": "/a", "key": "short"}"#,
                "admin.key: length must be at least 16",
            ),
            (
                r#""admin": {"path": "/a", "key_sha256": "abc"}"#,
                "admin.key_sha256: expected 64 hex digits: printf %s \"$KEY\" | sha256sum",
            ),
            (
                r#""budget_path": "/x/../a", "admin": {"path": "/a", "key": "${env:ADMIN}"}"#,
                "admin.path: the same as budget_path: give each its own",
            ),
        ] {
            assert_eq!(told(config), [problem]);
        }
    }
}
