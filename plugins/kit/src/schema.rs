//! JSON Schema, draft-04, of the configuration types: what Kong reads from `<filter>.meta.json`. Built natively only; none of it
//! is inside a module.

use crate::Filter;
use crate::config::{Configuration, Field};

/// A JSON document.
pub type Json = serde_json::Value;

/// The dialect every schema here is written in.
pub const DRAFT: &str = "http://json-schema.org/draft-04/schema#";

/// The schema of a filter's configuration.
#[must_use]
pub fn of_filter<F: Filter>() -> Json {
    let mut schema = <F::Config as Configuration>::Raw::schema();
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".to_owned(), Json::from(DRAFT));
        object.insert("title".to_owned(), Json::from(F::NAME));
    }
    schema
}

/// What stands in `<filter>.meta.json` beside the module: Kong checks configurations with it, and its Prometheus plugin takes the
/// labels out of metric names ([`crate::metric`]).
#[must_use]
pub fn meta<F: Filter>() -> Json {
    let mut labels: Vec<&str> = F::METRICS
        .iter()
        .flat_map(|metric| metric.labels)
        .copied()
        .collect();
    labels.sort_unstable();
    labels.dedup();
    let patterns: Vec<Json> = labels
        .iter()
        .map(|label| serde_json::json!({"label": label, "pattern": format!(";{label}=([^;]+)")}))
        .collect();
    serde_json::json!({"config_schema": of_filter::<F>(), "metrics": {"label_patterns": patterns}})
}

/// A value of one type, by the schema's own word for it.
#[must_use]
pub fn of_type(name: &str) -> Json {
    serde_json::json!({ "type": name })
}

/// A list of such values.
#[must_use]
pub fn list_of(items: Json) -> Json {
    serde_json::json!({"type": "array", "items": items})
}

/// The same, or null: how Kong's tools write a field that is not set.
#[must_use]
pub fn or_null(mut schema: Json) -> Json {
    let null = Json::from("null");
    if let Some(words) = schema.get_mut("enum").and_then(Json::as_array_mut) {
        words.push(Json::Null);
    }
    match schema.get_mut("type") {
        Some(Json::Array(kinds)) => kinds.push(null),
        Some(kind) => *kind = Json::Array(vec![kind.take(), null]),
        None => {
            if let Some(options) = schema.get_mut("anyOf").and_then(Json::as_array_mut) {
                options.push(of_type("null"));
            }
        }
    }
    schema
}

/// One of some words.
#[must_use]
pub fn one_of(words: &[&str]) -> Json {
    serde_json::json!({"type": "string", "enum": words})
}

/// An object schema in the making.
pub struct Object {
    about: String,
    properties: serde_json::Map<String, Json>,
    required: Vec<&'static str>,
}

impl Object {
    /// An object of no fields yet.
    #[must_use]
    pub fn new(about: &str) -> Object {
        Object {
            about: prose(about),
            properties: serde_json::Map::new(),
            required: Vec::new(),
        }
    }

    /// Adds a field. It is required when it has no default and `needed` is set.
    pub fn field(
        &mut self,
        name: &'static str,
        about: &str,
        mut schema: Json,
        default: Option<Json>,
        needed: bool,
    ) {
        if needed && default.is_none() {
            self.required.push(name);
        }
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), Json::from(prose(about)));
            if let Some(default) = default {
                object.insert("default".to_owned(), default);
            }
        }
        self.properties.insert(name.to_owned(), schema);
    }

    /// The schema. Draft-04 wants `required` left out when nothing is.
    #[must_use]
    pub fn finish(self) -> Json {
        let mut schema = serde_json::json!({
            "type": "object",
            "description": self.about,
            "properties": self.properties,
            "additionalProperties": false,
        });
        if let (false, Some(object)) = (self.required.is_empty(), schema.as_object_mut()) {
            object.insert("required".to_owned(), Json::from(self.required));
        }
        schema
    }
}

/// A documentation comment as one paragraph a line.
fn prose(comment: &str) -> String {
    let paragraphs = comment.split("\n \n").flat_map(|part| part.split("\n\n"));
    let lines = paragraphs.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}
