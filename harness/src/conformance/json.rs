//! JSON as the golden cases compare it: the order of members and the spelling of numbers don't matter.

use serde_json::Value;

/// Whether two documents say the same.
pub(crate) fn equal(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Number(expected), Value::Number(got)) => {
            expected == got || expected.as_f64() == got.as_f64()
        }
        (Value::Array(expected), Value::Array(got)) => {
            expected.len() == got.len() && expected.iter().zip(got).all(|(a, b)| equal(a, b))
        }
        (Value::Object(expected), Value::Object(got)) => {
            expected.len() == got.len()
                && expected
                    .iter()
                    .all(|(name, value)| got.get(name).is_some_and(|got| equal(value, got)))
        }
        _ => expected == got,
    }
}

/// Whether `got` holds all that `expected` says: objects may have further members, at any depth.
pub(crate) fn contains(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Array(expected), Value::Array(got)) => {
            expected.len() == got.len() && expected.iter().zip(got).all(|(a, b)| contains(a, b))
        }
        (Value::Object(expected), Value::Object(got)) => expected
            .iter()
            .all(|(name, value)| got.get(name).is_some_and(|got| contains(value, got))),
        _ => equal(expected, got),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_equal_by_value_and_containers_by_kind() {
        assert!(equal(
            &json!({"a": 1.0, "b": [2]}),
            &json!({"b": [2.0], "a": 1})
        ));
        assert!(!equal(&json!([]), &json!({})));
        assert!(!equal(&json!({"a": 1}), &json!({"a": 1, "b": 2})));
        assert!(!equal(&json!("1"), &json!(1)));
    }

    #[test]
    fn a_subset_reaches_into_objects_but_not_into_lists() {
        assert!(contains(
            &json!({"a": {"b": 1}}),
            &json!({"a": {"b": 1, "c": 2}, "d": 3})
        ));
        assert!(!contains(&json!({"a": null}), &json!({})));
        assert!(!contains(&json!([1]), &json!([1, 2])));
        assert!(contains(&json!([{"a": 1}]), &json!([{"a": 1, "b": 2}])));
    }
}
