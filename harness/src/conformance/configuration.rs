//! Compares what a filter says about a configuration with what Kong says.

use serde_json::{Map, Value};
use tollgate_kit::config::Problem;

use super::case::ExpectConfig;
use super::matcher::Mismatch;

/// Everything about the filter's verdict that isn't as expected.
///
/// Kong's messages are a floor: the filter has to report the same places, with messages that begin as Kong's do and may
/// then say what to write instead. `schema` is the filter's JSON Schema, where its defaults stand; `field` is the one that holds
/// the plugin's configuration, where it is not the filter's own.
pub(crate) fn compare(
    expect: &ExpectConfig,
    field: Option<&str>,
    problems: &[Problem],
    schema: &Value,
) -> Vec<Mismatch> {
    let schema = match field {
        Some(field) => &schema["properties"][field],
        None => schema,
    };
    let mut mismatches = Vec::new();
    let reported = || match problems {
        [] => "valid".to_owned(),
        _ => problems
            .iter()
            .map(Problem::to_string)
            .collect::<Vec<_>>()
            .join("; "),
    };
    if expect.valid != problems.is_empty() {
        let expected = if expect.valid { "valid" } else { "refused" };
        mismatches.push(mismatch("configuration", expected, reported()));
    }
    let tree = expect
        .errors
        .as_ref()
        .and_then(|errors| errors.get("config"));
    for (path, message) in tree.map(messages).unwrap_or_default() {
        let path = match field {
            Some(field) => format!("{field}.{path}"),
            None => path,
        };
        let known =
            |problem: &Problem| problem.path == path && problem.message.starts_with(&message);
        if !problems.iter().any(known) {
            mismatches.push(mismatch(
                "configuration error",
                format!("{path}: {message}..."),
                reported(),
            ));
        }
    }
    if let Some(defaults) = &expect.defaults {
        compare_defaults("", defaults, schema, &mut mismatches);
    }
    mismatches
}

/// The leaves of Kong's tree of errors, with the paths that we give them. Null stands for an element without an error.
fn messages(tree: &Value) -> Vec<(String, String)> {
    fn walk(path: &str, node: &Value, into: &mut Vec<(String, String)>) {
        match node {
            Value::String(message) => into.push((path.to_owned(), message.clone())),
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    walk(&format!("{path}[{index}]"), element, into);
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    let inner = match (name.as_str(), path) {
                        ("@entity", _) => path.to_owned(),
                        (name, "") => name.to_owned(),
                        (name, path) => format!("{path}.{name}"),
                    };
                    walk(&inner, field, into);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk("", tree, &mut found);
    found
}

/// Kong's null is the lack of a default.
fn compare_defaults(
    path: &str,
    expected: &Map<String, Value>,
    schema: &Value,
    into: &mut Vec<Mismatch>,
) {
    for (name, expected) in expected {
        let property = schema
            .get("properties")
            .and_then(|properties| properties.get(name));
        let Some(property) = property else {
            into.push(mismatch(
                "configuration field",
                format!("{path}{name}"),
                "no such field".to_owned(),
            ));
            continue;
        };
        if let (Value::Object(fields), None) = (expected, property.get("default")) {
            compare_defaults(&format!("{path}{name}."), fields, property, into);
            continue;
        }
        let default = property.get("default").unwrap_or(&Value::Null);
        if !super::json::equal(expected, default) {
            into.push(mismatch(
                &format!("default of {path}{name}"),
                expected.to_string(),
                default.to_string(),
            ));
        }
    }
}

fn mismatch(what: &str, expected: impl Into<String>, got: String) -> Mismatch {
    Mismatch {
        what: what.to_owned(),
        expected: expected.into(),
        got,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(path: &str, message: &str) -> Problem {
        Problem {
            path: path.into(),
            message: message.into(),
        }
    }

    fn wrong(expect: Value, problems: &[Problem]) -> usize {
        let schema = json!({"properties": {"a": {"default": 1}, "b": {"properties": {"c": {"default": []}}}, "d": {}}});
        compare(
            &serde_json::from_value(expect).unwrap(),
            None,
            problems,
            &schema,
        )
        .len()
    }

    #[test]
    fn errors_are_found_by_path_and_beginning() {
        let expect = json!({"valid": false, "errors": {"config": {"a": [null, "bad"], "b": {"c": "worse"}}}});
        let found = [
            problem("a[1]", "bad: write good"),
            problem("b.c", "worse"),
            problem("x", "more"),
        ];
        assert_eq!(wrong(expect.clone(), &found), 0);
        assert_eq!(wrong(expect.clone(), &[problem("a[0]", "bad")]), 2);
        assert_eq!(wrong(expect, &[]), 3);
    }

    #[test]
    fn a_plugin_may_be_a_section_of_its_filter() {
        let expect =
            json!({"valid": false, "errors": {"config": {"a": "bad"}}, "defaults": {"b": 1}});
        let expect = serde_json::from_value(expect).unwrap();
        let schema = json!({"properties": {"request": {"properties": {"b": {"default": 1}}}}});
        let found =
            |path: &str| compare(&expect, Some("request"), &[problem(path, "bad")], &schema).len();
        assert_eq!((found("request.a"), found("a")), (0, 1));
    }

    #[test]
    fn defaults_stand_in_the_schema() {
        assert_eq!(
            wrong(
                json!({"valid": true, "defaults": {"a": 1, "b": {"c": []}, "d": null}}),
                &[]
            ),
            0
        );
        assert_eq!(
            wrong(
                json!({"valid": true, "defaults": {"a": 2, "b": {"c": {}}, "d": 0, "e": null}}),
                &[]
            ),
            4
        );
        assert_eq!(wrong(json!({"valid": true}), &[problem("", "no")]), 1);
    }
}
