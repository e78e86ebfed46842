//! Rules for values anywhere in a JSON body, by a path: `/messages/0/role` (RFC 6901) or `metadata.user`.

use std::borrow::Cow;
use tollgate_kit::json::object::Object;
use tollgate_kit::json::{Kind, Value, quote};

/// The steps of the longest path: each is a level of recursion.
pub const MOST_STEPS: usize = 16;

/// The way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

/// One step: a member's name, which in a list is a position; or all of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    name: String,
    position: Option<usize>,
}

impl JsonPath {
    /// Reads a path: one that begins with `/` as a JSON Pointer, any other with dots. `*` stands for every element of a list.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<JsonPath, &'static str> {
        let names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer
                .split('/')
                .map(|name| name.replace("~1", "/").replace("~0", "~"))
                .collect(),
            None => text.split('.').map(str::to_owned).collect(),
        };
        if names.len() > MOST_STEPS {
            return Err("a path of more than 16 steps");
        }
        if names.iter().any(String::is_empty) {
            return Err("expected a path, as /messages/0/role or metadata.user");
        }
        let step = |name: String| Step {
            position: name
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| name.parse().ok())
                .flatten(),
            name,
        };
        Ok(JsonPath(names.into_iter().map(step).collect()))
    }

    /// The member's name, for a path of one step.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        match self.0.as_slice() {
            [only] => Some(&only.name),
            _ => None,
        }
    }
}

/// What is to become of the value at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<'r> {
    /// It goes.
    Remove,
    /// It becomes this JSON text; objects on the way to it are made.
    Set(Cow<'r, [u8]>),
    /// The same, where there is none, or null.
    SetIfAbsent(Cow<'r, [u8]>),
    /// A number above this one becomes this one.
    AtMost(&'r Number),
    /// A number below this one becomes this one.
    AtLeast(&'r Number),
}

/// A bound, as it is spelled.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Its JSON text.
    pub text: Vec<u8>,
    /// Its value.
    pub value: f64,
}

/// A value's text after a change; `None` when it stays as it was.
#[must_use]
pub fn changed(value: Value<'_>, path: &JsonPath, change: &Change<'_>) -> Option<Vec<u8>> {
    below(value, &path.0, change)
}

/// What a value becomes when it is itself at the end of the path: another text, or nothing.
enum Verdict {
    Stays,
    Goes,
    Becomes(Vec<u8>),
}

impl Change<'_> {
    fn judge(&self, old: Option<Value<'_>>) -> Verdict {
        let number = |value: Value<'_>| match value.kind() {
            Kind::Number(text) => text.parse::<f64>().ok(),
            _ => None,
        };
        match (self, old) {
            (Change::Remove, Some(_)) => Verdict::Goes,
            (Change::Set(text), Some(old)) if old.text() == &**text => Verdict::Stays,
            (Change::Set(text), _) => Verdict::Becomes(text.to_vec()),
            (Change::SetIfAbsent(text), None) => Verdict::Becomes(text.to_vec()),
            (Change::SetIfAbsent(text), Some(old)) if matches!(old.kind(), Kind::Null) => {
                Verdict::Becomes(text.to_vec())
            }
            (Change::AtMost(most), Some(old)) if number(old).is_some_and(|n| n > most.value) => {
                Verdict::Becomes(most.text.clone())
            }
            (Change::AtLeast(least), Some(old)) if number(old).is_some_and(|n| n < least.value) => {
                Verdict::Becomes(least.text.clone())
            }
            _ => Verdict::Stays,
        }
    }

    fn makes(&self) -> Option<&[u8]> {
        match self {
            Change::Set(text) | Change::SetIfAbsent(text) => Some(text),
            Change::Remove | Change::AtMost(_) | Change::AtLeast(_) => None,
        }
    }
}

fn below(value: Value<'_>, path: &[Step], change: &Change<'_>) -> Option<Vec<u8>> {
    let (step, rest) = path.split_first()?;
    match value.kind() {
        Kind::Object => in_object(value, step, rest, change),
        Kind::Array => in_list(value, step, rest, change),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String => None,
    }
}

fn in_object(value: Value<'_>, step: &Step, rest: &[Step], change: &Change<'_>) -> Option<Vec<u8>> {
    let mut object = Object::read(value)?;
    let name = step.name.as_bytes();
    if rest.is_empty() {
        match change.judge(object.value(name)) {
            Verdict::Stays => return None,
            Verdict::Goes => {
                object.remove(name);
            }
            Verdict::Becomes(text) => object.set(name, text),
        }
        return Some(object.to_text());
    }
    let new = match object.value(name) {
        Some(child) => below(child, rest, change)?,
        None => made(rest, change.makes()?)?,
    };
    object.set(name, new);
    Some(object.to_text())
}

/// The objects on the way to a value that is not there. A list is not made.
fn made(path: &[Step], text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for step in path {
        if step.position.is_some() || step.name == "*" {
            return None;
        }
        out.push(b'{');
        quote(step.name.as_bytes(), &mut out);
        out.push(b':');
    }
    out.extend_from_slice(text);
    out.extend(path.iter().map(|_| b'}'));
    Some(out)
}

fn in_list(value: Value<'_>, step: &Step, rest: &[Step], change: &Change<'_>) -> Option<Vec<u8>> {
    let all = step.name == "*";
    if !all && step.position.is_none() {
        return None;
    }
    let mut out = vec![b'['];
    let mut touched = false;
    let mut written = 0usize;
    let items = value.items();
    for (position, item) in items.enumerate() {
        let text = if all || step.position == Some(position) {
            let new = match rest {
                [] => match change.judge(Some(item)) {
                    Verdict::Goes => {
                        touched = true;
                        continue;
                    }
                    Verdict::Becomes(text) => Some(text),
                    Verdict::Stays => None,
                },
                rest => below(item, rest, change),
            };
            touched |= new.is_some();
            new.map_or(Cow::Borrowed(item.text()), Cow::Owned)
        } else {
            Cow::Borrowed(item.text())
        };
        if written > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&text);
        written = written.saturating_add(1);
    }
    out.push(b']');
    touched.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(body: &str, path: &str, change: &Change<'_>) -> String {
        let value = Value::parse(body.as_bytes()).unwrap();
        match changed(value, &JsonPath::parse(path).unwrap(), change) {
            Some(text) => String::from_utf8(text).unwrap(),
            None => "as it was".into(),
        }
    }

    fn set(text: &'static str) -> Change<'static> {
        Change::Set(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn values_are_reached_by_pointer_and_by_dots() {
        let body = r#"{"messages": [{"role":"user", "n": 1.0},{"role":"x"}], "metadata":{ "user" :"u"}, "a/b":1}"#;
        for (path, change, wanted) in [
            (
                "/messages/0/role",
                set("\"system\""),
                r#"{"messages": [{"role":"system", "n": 1.0},{"role":"x"}], "metadata":{ "user" :"u"}, "a/b":1}"#,
            ),
            (
                "messages.*.role",
                Change::Remove,
                r#"{"messages": [{ "n": 1.0},{}], "metadata":{ "user" :"u"}, "a/b":1}"#,
            ),
            (
                "metadata.user",
                set("2"),
                r#"{"messages": [{"role":"user", "n": 1.0},{"role":"x"}], "metadata":{ "user" :2}, "a/b":1}"#,
            ),
            (
                "/a~1b",
                Change::Remove,
                r#"{"messages": [{"role":"user", "n": 1.0},{"role":"x"}], "metadata":{ "user" :"u"}}"#,
            ),
            (
                "/messages/1",
                Change::Remove,
                r#"{"messages": [{"role":"user", "n": 1.0}], "metadata":{ "user" :"u"}, "a/b":1}"#,
            ),
            ("/messages/7/role", set("1"), "as it was"),
            ("/messages/role", set("1"), "as it was"),
            ("metadata.user.more", set("1"), "as it was"),
            ("/metadata/user", set("\"u\""), "as it was"),
            ("x.y", Change::Remove, "as it was"),
        ] {
            assert_eq!(after(body, path, &change), wanted, "{path}");
        }
    }

    #[test]
    fn objects_on_the_way_are_made_and_lists_are_not() {
        assert_eq!(after("{}", "a.b.c", &set("1")), r#"{"a":{"b":{"c":1}}}"#);
        assert_eq!(after("{}", "/a/0/c", &set("1")), "as it was");
        assert_eq!(after("{}", "/a/*", &set("1")), "as it was");
        assert_eq!(after("[]", "/0", &set("1")), "as it was");
    }

    #[test]
    fn defaults_and_caps() {
        let most = Number {
            text: b"4096".to_vec(),
            value: 4096.0,
        };
        let least = Number {
            text: b"0.1".to_vec(),
            value: 0.1,
        };
        let default = || Change::SetIfAbsent(Cow::Borrowed(b"0.7"));
        for (body, change, wanted) in [
            ("{}", default(), r#"{"t":0.7}"#),
            (r#"{"t":null}"#, default(), r#"{"t":0.7}"#),
            (r#"{"t":0}"#, default(), "as it was"),
            (r#"{"t":5000}"#, Change::AtMost(&most), r#"{"t":4096}"#),
            (r#"{"t":1e99}"#, Change::AtMost(&most), r#"{"t":4096}"#),
            (r#"{"t":4096.0}"#, Change::AtMost(&most), "as it was"),
            (r#"{"t":"5000"}"#, Change::AtMost(&most), "as it was"),
            ("{}", Change::AtMost(&most), "as it was"),
            (r#"{"t":-1}"#, Change::AtLeast(&least), r#"{"t":0.1}"#),
            (r#"{"t":1}"#, Change::AtLeast(&least), "as it was"),
        ] {
            assert_eq!(after(body, "t", &change), wanted, "{body}");
        }
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        for path in ["", "/", "a..b", "/a//b", "a."] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
        assert!(JsonPath::parse(&"a.".repeat(20)).is_err());
        assert_eq!(
            JsonPath::parse("/max_tokens").unwrap().single(),
            Some("max_tokens")
        );
    }

    proptest! {
        #[test]
        fn any_value_stays_or_becomes_json_and_a_second_time_changes_nothing(body in r#"[\[\]{}",:ab0-9\-tfn ale]{0,32}"#, path in "[ab0*]([.][ab0*]){0,3}") {
            let path = JsonPath::parse(&path).unwrap();
            if let Ok(value) = Value::parse(body.as_bytes()) {
                for change in [set("7"), Change::SetIfAbsent(Cow::Borrowed(b"7")), Change::Remove] {
                    let Some(text) = changed(value, &path, &change) else { continue };
                    let again = Value::parse(&text).unwrap();
                    // Removing a list's element moves the others up.
                    if change != Change::Remove {
                        prop_assert_eq!(changed(again, &path, &change), None);
                    }
                }
            }
        }
    }
}
