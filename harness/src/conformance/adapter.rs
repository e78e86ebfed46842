//! From a case to our filters: which filter stands for a plugin, and the configuration it gets.

use serde_json::{Map, Value, json};

use super::case::{Case, Credential};
use crate::profile::Profile;

/// A case made ready for a host.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The case's id.
    pub(crate) id: String,
    /// The time at its first step, in seconds since 1970.
    pub(crate) start_unix: u64,
    /// The filters, in the order of the request path.
    pub(crate) filters: Vec<Filter>,
}

/// A filter with its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// The filter's name.
    pub(crate) name: String,
    /// Its configuration.
    pub(crate) configuration: Value,
}

/// What the configurations of a run have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Whose behaviour the host shows.
    pub(crate) profile: Profile,
    /// Whether Kong's behaviour is asked for to the letter.
    pub(crate) compat: bool,
}

/// Kong's order of execution: the plugins of the cases, first to last on the request path.
const ORDER: [&str; 5] = [
    "key-auth",
    "rate-limiting",
    "request-transformer",
    "response-transformer",
    "proxy-cache",
];

/// Sets a case up.
///
/// # Errors
/// Names the first plugin that no filter stands for.
pub(crate) fn setup(case: &Case, terms: Terms, start_unix: u64) -> Result<Setup, NoFilter> {
    let mut plugins: Vec<(&str, &Map<String, Value>)> = vec![(&case.plugin, &case.config)];
    plugins.extend(
        case.plugins
            .iter()
            .map(|plugin| (plugin.name.as_str(), &plugin.config)),
    );
    plugins.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name));
    let filters = plugins
        .into_iter()
        .map(|(plugin, config)| {
            Ok(Filter {
                name: filter_for(plugin)?.to_owned(),
                configuration: configuration(case, config, terms, start_unix),
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Setup {
        id: case.id.clone(),
        start_unix,
        filters,
    })
}

/// The filter that stands for a plugin.
///
/// # Errors
/// Fails when there is none.
pub(crate) fn filter_for(plugin: &str) -> Result<&'static str, NoFilter> {
    match plugin {
        "key-auth" => Ok("key-auth"),
        _ => Err(NoFilter {
            plugin: plugin.to_owned(),
        }),
    }
}

/// Occurs when a case needs a plugin that no filter stands for yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no filter for plugin {plugin} yet")]
pub(crate) struct NoFilter {
    plugin: String,
}

/// Kong's fields, and what a filter needs besides: who there is, since it has no database, and what host it runs on.
fn configuration(case: &Case, config: &Map<String, Value>, terms: Terms, start_unix: u64) -> Value {
    let mut configuration = config.clone();
    configuration.insert("host".to_owned(), json!(host_name(terms.profile)));
    if terms.compat {
        configuration.insert("compat".to_owned(), json!("kong"));
    }
    if !case.consumers.is_empty() {
        configuration.insert("consumers".to_owned(), consumers(case, start_unix));
    }
    Value::Object(configuration)
}

/// The value of `host` for a profile. What the ABI's text promises is nearest to Envoy, where it comes from.
fn host_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Spec | Profile::Envoy => "envoy",
        Profile::Kong => "kong",
    }
}

fn consumers(case: &Case, start_unix: u64) -> Value {
    let consumer = |consumer: &super::case::Consumer| {
        let credentials: Vec<Value> = case
            .credentials
            .iter()
            .filter(|credential| credential.consumer_id == consumer.id)
            .map(|credential| self::credential(credential, start_unix))
            .collect();
        let mut entry = Map::new();
        entry.insert("id".to_owned(), json!(consumer.id));
        let optional = [
            ("username", &consumer.username),
            ("custom_id", &consumer.custom_id),
        ];
        for (field, value) in optional {
            if let Some(value) = value {
                entry.insert(field.to_owned(), json!(value));
            }
        }
        if !credentials.is_empty() {
            entry.insert("credentials".to_owned(), Value::Array(credentials));
        }
        Value::Object(entry)
    };
    case.consumers.iter().map(consumer).collect()
}

fn credential(credential: &Credential, start_unix: u64) -> Value {
    let mut entry = json!({"id": credential.id, "key": credential.key});
    if let Some(ttl) = credential.ttl {
        let expires_at = match ttl {
            0 => start_unix.saturating_sub(1),
            seconds => start_unix.saturating_add(u64::from(seconds)),
        };
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("expires_at".to_owned(), json!(expires_at));
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(value: Value) -> Case {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn credentials_are_given_to_their_consumers_with_their_time() {
        let case = case(json!({
            "id": "key-auth/x", "plugin": "key-auth", "title": "", "source": "", "basis": "spec", "tags": [],
            "config": {"realm": "r"},
            "consumers": [{"id": "c1", "username": "a"}, {"id": "c2", "custom_id": "b"}],
            "credentials": [
                {"id": "k1", "key": "s1", "consumer_id": "c1", "ttl": 0},
                {"id": "k2", "key": "s2", "consumer_id": "c1", "ttl": 30},
            ],
        }));
        let terms = Terms {
            profile: Profile::Kong,
            compat: true,
        };
        let setup = setup(&case, terms, 1000).unwrap();
        assert_eq!(setup.filters.len(), 1);
        assert_eq!(
            setup.filters[0].configuration,
            json!({"realm": "r", "host": "kong", "compat": "kong", "consumers": [
                {"id": "c1", "username": "a", "credentials": [
                    {"id": "k1", "key": "s1", "expires_at": 999}, {"id": "k2", "key": "s2", "expires_at": 1030},
                ]},
                {"id": "c2", "custom_id": "b"},
            ]})
        );
    }

    #[test]
    fn a_plugin_without_a_filter_is_named() {
        let case = case(json!({
            "id": "key-auth/x", "plugin": "key-auth", "title": "", "source": "", "basis": "spec", "tags": [],
            "config": {}, "plugins": [{"name": "acl", "config": {}}],
        }));
        let terms = Terms {
            profile: Profile::Envoy,
            compat: false,
        };
        let missing = setup(&case, terms, 0).unwrap_err();
        assert_eq!(missing.to_string(), "no filter for plugin acl yet");
    }
}
