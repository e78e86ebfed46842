//! The reference in a filter's README is what its schema says, and the examples in the documentation are valid.

use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tollgate_header_transform::HeaderTransform;
use tollgate_key_auth::KeyAuth;
use tollgate_kit::config::{self, Problem};
use tollgate_kit::{Filter, schema};

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

/// Compares the reference in a README with the schema, or writes it.
fn check_reference<F: Filter>(path: &str) {
    let mut table = "| field | type | default | what it does |\n|---|---|---|---|\n".to_owned();
    rows(&schema::of_filter::<F>(), "", &mut table);
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
fn the_reference_is_what_the_schema_says() {
    check_reference::<KeyAuth>("plugins/key-auth/README.md");
    check_reference::<HeaderTransform>("plugins/header-transform/README.md");
}

/// Every JSON example of a text is a configuration of the filter, and nothing about it is doubtful.
fn check_examples<F: Filter>(path: &str) {
    let text = read(path).replace("//! ", "");
    let examples = text.split("```json\n").skip(1);
    let mut any = false;
    for example in examples.filter_map(|rest| rest.split("```").next()) {
        any = true;
        let warnings: Vec<Problem> = config::check::<F::Config>(example.as_bytes(), &|_| None)
            .map(|checked| checked.warnings)
            .unwrap_or_else(|problems| panic!("{path}: {problems:?}"));
        assert!(warnings.is_empty(), "{path}: {warnings:?}");
    }
    assert!(any, "{path} has an example");
}

#[test]
fn the_examples_in_the_documentation_are_valid() {
    check_examples::<KeyAuth>("plugins/key-auth/README.md");
    check_examples::<KeyAuth>("plugins/key-auth/src/lib.rs");
    check_examples::<HeaderTransform>("plugins/header-transform/README.md");
    check_examples::<HeaderTransform>("plugins/header-transform/src/lib.rs");
}
