//! The reference in a filter's README is what its schema says, and the examples in the documentation are valid.

use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tollgate_key_auth::{Config, KeyAuth};
use tollgate_kit::{config, schema};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of a table: one a field, fields of fields below it.
fn rows(schema: &Value, prefix: &str, out: &mut String) {
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|known| known == name))
    };
    for (name, field) in schema["properties"].as_object().expect("an object schema") {
        let kind = match (&field["enum"], &field["anyOf"], &field["type"]) {
            (Value::Array(words), ..) => words
                .iter()
                .filter(|word| !word.is_null())
                .map(|word| format!("`{}`", word.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(", "),
            (_, Value::Array(_), _) => "list or boolean".to_owned(),
            (.., Value::Array(kinds)) => kinds
                .iter()
                .filter_map(Value::as_str)
                .filter(|kind| *kind != "null")
                .collect::<Vec<_>>()
                .join(" or "),
            (.., kind) => kind.as_str().unwrap_or_default().to_owned(),
        };
        let default = match &field["default"] {
            Value::Null if required(name) => "required".to_owned(),
            Value::Null => String::new(),
            default => format!("`{default}`"),
        };
        let about = field["description"]
            .as_str()
            .unwrap_or_default()
            .replace('\n', " ");
        writeln!(out, "| `{prefix}{name}` | {kind} | {default} | {about} |").expect("a string");
        match (&field["properties"], &field["items"]["properties"]) {
            (Value::Object(_), _) => rows(field, &format!("{prefix}{name}."), out),
            (_, Value::Object(_)) => rows(&field["items"], &format!("{prefix}{name}[]."), out),
            _ => {}
        }
    }
}

#[test]
fn the_reference_is_what_the_schema_says() {
    let mut table = "| field | type | default | what it does |\n|---|---|---|---|\n".to_owned();
    rows(&schema::of_filter::<KeyAuth>(), "", &mut table);
    let path = "plugins/key-auth/README.md";
    let readme = read(path);
    let (before, rest) = readme
        .split_once("<!-- reference -->\n")
        .expect("a place for the reference");
    let (_, after) = rest
        .split_once("<!-- /reference -->")
        .expect("the end of the reference");
    let wanted = format!("{before}<!-- reference -->\n{table}<!-- /reference -->{after}");
    if std::env::var_os("TOLLGATE_ACCEPT_REFERENCE").is_some() {
        std::fs::write(root().join(path), wanted).expect("the README can be written");
    } else {
        assert!(
            readme == wanted,
            "{path} is out of date: run TOLLGATE_ACCEPT_REFERENCE=1 cargo test --package tollgate-tests --test reference"
        );
    }
}

#[test]
fn the_examples_in_the_documentation_are_valid() {
    for path in ["plugins/key-auth/README.md", "plugins/key-auth/src/lib.rs"] {
        let text = read(path).replace("//! ", "");
        let example = text
            .split("```json\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap_or_else(|| panic!("{path} has an example"));
        let checked = config::check::<Config>(example.as_bytes(), &|_| None)
            .unwrap_or_else(|problems| panic!("{path}: {problems:?}"));
        assert!(
            checked.warnings.is_empty(),
            "{path}: {:?}",
            checked.warnings
        );
    }
}
