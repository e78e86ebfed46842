//! A configuration as the admin port shows it: without what would let somebody in.
//!
//! Better too much is hidden than too little: a text or number is shown only where neither a name on the way to it nor
//! its own form looks like a credential's.

use serde_json::{Map, Value};

use crate::worker::FilterSpec;

/// What stands in the place of what is hidden.
const HIDDEN: &str = "[redacted]";

/// Parts of names under which nothing is shown. `auth` alone would hide half of a gateway's configuration.
const SECRET_NAMES: [&str; 11] = [
    "key",
    "secret",
    "token",
    "password",
    "passwd",
    "passphrase",
    "authorization",
    "credential",
    "cookie",
    "bearer",
    "private",
];

/// Names that hold such a part and no secret.
const HARMLESS_NAMES: [&str; 8] = [
    "key_names",
    "key_in_header",
    "key_in_query",
    "key_in_body",
    "hide_credentials",
    "tokens",
    "max_tokens",
    "tokens_name",
];

/// Schemes of the Authorization header.
const SCHEMES: [&str; 3] = ["bearer ", "basic ", "digest "];

/// The document with the filters' configuration in it, read from a file or not, and all secrets out of it.
pub(super) fn shown(document: &Value, filters: &[FilterSpec]) -> Value {
    let mut document = document.clone();
    let Some(sections) = document.as_object_mut() else {
        return Value::Null;
    };
    for (name, section) in sections.iter_mut() {
        match (name.as_str(), section) {
            ("filters", Value::Object(entries)) => {
                for (name, entry) in entries.iter_mut() {
                    let spec = filters.iter().find(|spec| spec.name == *name);
                    if let Value::Object(entry) = entry {
                        show_filter(entry, spec);
                    }
                }
            }
            // The first names below are the user's own, and may be anything.
            ("clusters", Value::Object(entries)) => entries.values_mut().for_each(hide),
            // Names of fields and of properties; addresses, figures and names of files.
            ("access_log" | "listeners", _) => {}
            (_, section) => hide(section),
        }
    }
    document
}

fn show_filter(entry: &mut Map<String, Value>, spec: Option<&FilterSpec>) {
    if let Some(Value::Object(variables)) = entry.get_mut("environment") {
        for value in variables.values_mut() {
            *value = Value::from(HIDDEN);
        }
    }
    if let Some(spec) = spec.filter(|spec| !spec.configuration.is_empty()) {
        // Text that is no JSON can't be looked through.
        let config = serde_json::from_slice::<Value>(&spec.configuration).ok();
        let config = config.filter(|config| config.is_object() || config.is_array());
        let config = config.map_or(Value::from(HIDDEN), |mut config| {
            hide(&mut config);
            config
        });
        entry.insert("config".to_owned(), config);
    }
}

/// Hides what is secret by its name or its form.
fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            // As {name: authorization, exact: ...}.
            let named = members.get("name").and_then(Value::as_str);
            let named_secret = named.is_some_and(is_secret);
            for (name, member) in members.iter_mut() {
                if is_secret(name) || named_secret && name != "name" {
                    hide_all(member);
                } else {
                    hide(member);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(hide),
        Value::String(text) => {
            if let Some(shown) = without_credential(text) {
                *text = shown;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hides every text and number below.
fn hide_all(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(hide_all),
        Value::Array(elements) => elements.iter_mut().for_each(hide_all),
        Value::String(_) | Value::Number(_) => *value = Value::from(HIDDEN),
        Value::Null | Value::Bool(_) => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    !HARMLESS_NAMES.contains(&name.as_str()) && SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// A text with the credential in it hidden; none if there is none.
fn without_credential(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    if SCHEMES.iter().any(|scheme| lower.contains(scheme)) || text.contains("-----BEGIN") {
        return Some(HIDDEN.to_owned());
    }
    // A URL with a user in it.
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        if let Some((user, _)) = authority.rsplit_once('@') {
            let host = rest.get(user.len()..).unwrap_or_default();
            return Some(format!("{scheme}://{HIDDEN}{host}"));
        }
        return None;
    }
    // A header as `name:value`, as Kong's transformers have it.
    let (name, value) = text.split_once(':')?;
    (is_secret(name) && !value.is_empty()).then(|| format!("{name}:{HIDDEN}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_lets_somebody_in_is_shown_and_the_rest_is() {
        let document = json!({
            "routes": [{"prefix": "/", "cluster": "keys", "headers": [{"name": "X-Api-Key", "exact": "s1"}]}],
            "clusters": {"keys": {"endpoints": ["127.0.0.1:1"]}},
            "config": {
                "key_names": ["apikey"], "key_in_header": true,
                "consumers": [{"username": "alice", "credentials": [{"key": "s2", "id": "s3"}], "keys": ["s4", 5]}],
                "redis": {"url": "redis://user:s6@cache:6379/0", "password": "s7"},
                "add": {"headers": ["Authorization:Bearer s8", "X-Plan:gold", "x-api-key:s9"]},
                "upstream_auth": "Basic czEw",
                "pem": "-----BEGIN PRIVATE KEY-----s11",
                "host": "envoy"
            }
        });
        let mut config = document["config"].clone();
        hide(&mut config);
        let mut shown = shown(&document, &[]);
        shown["config"] = config;
        let text = shown.to_string();
        for secret in [
            "s1\"", "s2", "s3", "s4", "s6", "s7", "s8", "s9", "czEw", "s11",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert_eq!(shown["routes"][0]["cluster"], "keys");
        assert_eq!(shown["clusters"]["keys"]["endpoints"][0], "127.0.0.1:1");
        assert_eq!(shown["config"]["key_names"][0], "apikey");
        assert_eq!(shown["config"]["key_in_header"], true);
        assert_eq!(shown["config"]["consumers"][0]["username"], "alice");
        assert_eq!(
            shown["config"]["redis"]["url"],
            "redis://[redacted]@cache:6379/0"
        );
        assert_eq!(shown["config"]["add"]["headers"][1], "X-Plan:gold");
        assert_eq!(shown["config"]["host"], "envoy");
    }
}
