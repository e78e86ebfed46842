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
    /// What its steps wait in all, in milliseconds, where it tells the time; none of it may cross the end of a minute.
    pub(crate) waits_ms: Option<u64>,
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
    let order = |name: &str| ORDER.iter().position(|known| *known == name);
    plugins.sort_by_key(|(name, _)| match terms.profile {
        // There, only filters before the one that answers see its answer, and Kong's plugin transforms those too.
        Profile::Spec | Profile::Envoy if *name == "response-transformer" => None,
        _ => order(name),
    });
    let filters = plugins
        .into_iter()
        .map(|(plugin, config)| {
            let place = place_of(plugin)?;
            Ok(Filter {
                name: place.filter.to_owned(),
                configuration: configuration(case, place, config, terms, start_unix),
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Setup {
        id: case.id.clone(),
        start_unix,
        waits_ms: case.clock.map(|_| case.waits_ms()),
        filters,
    })
}

/// Where a plugin's configuration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The filter that stands for the plugin.
    pub(crate) filter: &'static str,
    /// The field that holds the plugin's configuration; `None` where the filter's own has the plugin's fields.
    pub(crate) field: Option<&'static str>,
}

/// The filter that stands for a plugin.
///
/// # Errors
/// Fails when there is none.
pub(crate) fn place_of(plugin: &str) -> Result<Place, NoFilter> {
    let (filter, field) = match plugin {
        "key-auth" => ("key-auth", None),
        "rate-limiting" => ("token-rate-limit", None),
        "request-transformer" => ("header-transform", Some("request")),
        "response-transformer" => ("header-transform", Some("response")),
        _ => {
            return Err(NoFilter {
                plugin: plugin.to_owned(),
            });
        }
    };
    Ok(Place { filter, field })
}

impl Place {
    /// The filter's configuration with the plugin's in it.
    pub(crate) fn holding(self, config: &Map<String, Value>) -> Map<String, Value> {
        match self.field {
            None => config.clone(),
            Some(field) => [(field.to_owned(), Value::Object(config.clone()))]
                .into_iter()
                .collect(),
        }
    }
}

/// Occurs when a case needs a plugin that no filter stands for yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no filter for plugin {plugin} yet")]
pub(crate) struct NoFilter {
    plugin: String,
}

/// Kong's fields, and what a filter needs besides: who there is, since it has no database, and what host it runs on.
fn configuration(
    case: &Case,
    place: Place,
    config: &Map<String, Value>,
    terms: Terms,
    start_unix: u64,
) -> Value {
    let mut configuration = place.holding(config);
    configuration.insert("host".to_owned(), json!(host_name(terms.profile)));
    if terms.compat {
        configuration.insert("compat".to_owned(), json!("kong"));
    }
    // Outside of Kong no host knows the captures of its routes.
    if let (Some("request"), Some(regex)) = (
        place.field,
        case.route.as_ref().and_then(|route| route.regex.as_ref()),
    ) {
        configuration.insert("uri_pattern".to_owned(), json!(regex));
    }
    if place.filter == "key-auth" && !case.consumers.is_empty() {
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
    fn the_transformers_are_sections_of_one_filter() {
        let case = case(json!({
            "id": "request-transformer/x", "plugin": "request-transformer", "title": "", "source": "", "basis": "spec", "tags": [],
            "config": {"http_method": "POST"}, "route": {"regex": "/a"},
            "plugins": [{"name": "key-auth", "config": {}}, {"name": "response-transformer", "config": {"add": {}}}],
        }));
        let filters = |profile| {
            let terms = Terms {
                profile,
                compat: false,
            };
            let setup = setup(&case, terms, 0).unwrap();
            let shown = setup
                .filters
                .into_iter()
                .map(|filter| (filter.name, filter.configuration));
            shown.collect::<Vec<_>>()
        };
        let key_auth = |host: &str| ("key-auth".to_owned(), json!({"host": host}));
        let request = |host: &str| {
            let config =
                json!({"request": {"http_method": "POST"}, "uri_pattern": "/a", "host": host});
            ("header-transform".to_owned(), config)
        };
        let response = |host: &str| {
            (
                "header-transform".to_owned(),
                json!({"response": {"add": {}}, "host": host}),
            )
        };
        assert_eq!(
            filters(Profile::Kong),
            [key_auth("kong"), request("kong"), response("kong")]
        );
        assert_eq!(
            filters(Profile::Envoy),
            [response("envoy"), key_auth("envoy"), request("envoy")]
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
