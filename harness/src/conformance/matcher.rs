//! Compares what a step brought with what its case expects.

use serde_json::{Map, Value};

use super::case::{Expect, Matcher, Rule, Saw};
use super::observed::{Observed, Response, Seen};
use super::{form, json, pattern};
use crate::http::Headers;

#[cfg(test)]
mod tests;

/// The length at which a value in a report is cut.
const SHOWN: usize = 400;

/// One thing that isn't as expected.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Mismatch {
    /// What was looked at.
    pub(crate) what: String,
    /// What it had to be.
    pub(crate) expected: String,
    /// What it was.
    pub(crate) got: String,
}

/// Everything about `got` that isn't as expected. `earlier` holds what the earlier steps of the case brought.
pub(crate) fn compare(expect: &Expect, got: &Observed, earlier: &[Observed]) -> Vec<Mismatch> {
    let mut mismatches = Mismatches::default();
    compare_response(expect, &got.response, earlier, &mut mismatches);
    if let Some(called) = expect.upstream_called {
        mismatches.check(
            called == got.upstream.is_some(),
            "upstream called",
            called,
            got.upstream.is_some(),
        );
    }
    if let Some(saw) = &expect.upstream_saw {
        match &got.upstream {
            Some(seen) => compare_seen(saw, seen, earlier, &mut mismatches),
            None => mismatches.add("upstream called", "true", "false"),
        }
    }
    mismatches.0
}

fn compare_response(expect: &Expect, got: &Response, earlier: &[Observed], into: &mut Mismatches) {
    into.check(
        expect.status == got.status,
        "status",
        expect.status,
        got.status,
    );
    let earlier_headers =
        |step: usize| earlier.get(step).map(|observed| &observed.response.headers);
    for (name, matcher) in &expect.headers {
        compare_header(
            "response header",
            name,
            matcher,
            &got.headers,
            earlier_headers,
            into,
        );
    }
    let body = String::from_utf8_lossy(&got.body);
    if let Some(expected) = &expect.body_equals {
        into.check(
            expected.as_bytes() == got.body,
            "response body",
            quoted(expected),
            quoted(&body),
        );
    }
    if let Some(expected) = &expect.body_regex {
        match pattern::compile(expected) {
            Ok(regex) => into.check(
                regex.is_match(&body),
                "response body",
                format!("/{expected}/"),
                quoted(&body),
            ),
            Err(error) => into.add(
                "response body",
                format!("/{expected}/"),
                format!("no pattern: {error}"),
            ),
        }
    }
    compare_json(
        "response body",
        expect.body_json.as_ref(),
        json::equal,
        &got.body,
        into,
    );
    compare_json(
        "response body, in part",
        expect.body_json_subset.as_ref(),
        json::contains,
        &got.body,
        into,
    );
    if !expect.body_json_absent.is_empty() {
        let parsed: Option<Map<String, Value>> = serde_json::from_slice(&got.body).ok();
        for name in &expect.body_json_absent {
            let absent = parsed
                .as_ref()
                .is_some_and(|members| !members.contains_key(name));
            into.check(
                absent,
                "response body",
                format!("an object without {name:?}"),
                quoted(&body),
            );
        }
    }
    if let Some(step) = expect.body_same_as_step {
        let other = earlier.get(step).map(|observed| &observed.response.body);
        let shown = other
            .map(|body| quoted(&String::from_utf8_lossy(body)))
            .unwrap_or_default();
        into.check(
            other == Some(&got.body),
            "response body",
            format!("as in step {step}: {shown}"),
            quoted(&body),
        );
    }
}

fn compare_seen(saw: &Saw, got: &Seen, earlier: &[Observed], into: &mut Mismatches) {
    let texts = [
        ("upstream method", &saw.method, got.method.as_str()),
        ("upstream path", &saw.path, got.path()),
        ("upstream query", &saw.raw_query, got.query()),
    ];
    for (what, expected, got) in texts {
        if let Some(expected) = expected {
            into.check(expected == got, what, quoted(expected), quoted(got));
        }
    }
    let arguments = form::arguments(got.query());
    for (name, expected) in &saw.query {
        let value = arguments.get(name);
        into.check(
            value == Some(expected),
            format!("upstream query argument {name}"),
            expected,
            shown(value),
        );
    }
    for name in &saw.query_absent {
        let value = arguments.get(name);
        into.check(
            value.is_none(),
            format!("upstream query argument {name}"),
            "absent",
            shown(value),
        );
    }
    let earlier_headers = |step: usize| {
        let seen = earlier
            .get(step)
            .and_then(|observed| observed.upstream.as_ref());
        seen.map(|seen| &seen.headers)
    };
    for (name, matcher) in &saw.headers {
        compare_header(
            "upstream header",
            name,
            matcher,
            &got.headers,
            earlier_headers,
            into,
        );
    }
    for name in &saw.absent {
        compare_header(
            "upstream header",
            name,
            &Matcher::Rule(Rule::Absent(true)),
            &got.headers,
            earlier_headers,
            into,
        );
    }
    let body = String::from_utf8_lossy(&got.body);
    if let Some(expected) = &saw.body_equals {
        into.check(
            expected.as_bytes() == got.body,
            "upstream body",
            quoted(expected),
            quoted(&body),
        );
    }
    compare_json(
        "upstream body",
        saw.body_json.as_ref(),
        json::equal,
        &got.body,
        into,
    );
    compare_json(
        "upstream body, in part",
        saw.body_json_subset.as_ref(),
        json::contains,
        &got.body,
        into,
    );
    if let Some(expected) = &saw.body_form {
        let form = form::arguments(&body);
        into.check(
            &form == expected,
            "upstream form",
            show_map(expected),
            quoted(&body),
        );
    }
    if let Some(expected) = &saw.body_multipart {
        let form = form::multipart(
            got.headers.get_str("content-type").unwrap_or_default(),
            &got.body,
        );
        into.check(
            form.as_ref() == Some(expected),
            "upstream multipart form",
            show_map(expected),
            quoted(&body),
        );
    }
}

fn compare_header<'a>(
    side: &str,
    name: &str,
    matcher: &Matcher,
    headers: &Headers,
    earlier: impl Fn(usize) -> Option<&'a Headers>,
    into: &mut Mismatches,
) {
    let lines = lines(headers, name);
    let joined = (!lines.is_empty()).then(|| lines.join(", "));
    let before = |step: usize| earlier(step).map(|headers| self::lines(headers, name));
    let (matches, expected) = match matcher {
        Matcher::Value(value) => (joined.as_ref() == Some(value), quoted(value)),
        Matcher::Lines(values) => (&lines == values, format!("{values:?}")),
        Matcher::Rule(Rule::Absent(_)) => (joined.is_none(), "absent".to_owned()),
        Matcher::Rule(Rule::Regex(text)) => {
            let found = pattern::compile(text)
                .is_ok_and(|regex| joined.as_ref().is_some_and(|value| regex.is_match(value)));
            (found, format!("/{text}/"))
        }
        Matcher::Rule(Rule::OneOf(values)) => (
            joined.as_ref().is_some_and(|value| values.contains(value)),
            format!("one of {values:?}"),
        ),
        Matcher::Rule(Rule::IntRange(low, high)) => {
            let number = joined.as_ref().and_then(|value| value.parse::<i64>().ok());
            (
                number.is_some_and(|number| (*low..=*high).contains(&number)),
                format!("{low} to {high}"),
            )
        }
        Matcher::Rule(Rule::NotEquals(value)) => (
            joined.as_ref() != Some(value),
            format!("not {}", quoted(value)),
        ),
        Matcher::Rule(Rule::SameAsStep(step)) => (
            before(*step).as_ref() == Some(&lines),
            format!("as in step {step}: {:?}", before(*step)),
        ),
        Matcher::Rule(Rule::DiffersFromStep(step)) => (
            before(*step).is_some_and(|before| before != lines),
            format!("not as in step {step}"),
        ),
    };
    let got = if lines.is_empty() {
        "absent".to_owned()
    } else {
        format!("{lines:?}")
    };
    into.check(matches, format!("{side} {name}"), expected, got);
}

fn lines(headers: &Headers, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}

fn compare_json(
    what: &str,
    expected: Option<&Value>,
    agree: fn(&Value, &Value) -> bool,
    body: &[u8],
    into: &mut Mismatches,
) {
    let Some(expected) = expected else { return };
    let parsed = serde_json::from_slice(body);
    let agrees = parsed.is_ok_and(|got| agree(expected, &got));
    into.check(
        agrees,
        what,
        expected,
        quoted(&String::from_utf8_lossy(body)),
    );
}

#[derive(Default)]
struct Mismatches(Vec<Mismatch>);

impl Mismatches {
    fn check(
        &mut self,
        holds: bool,
        what: impl Into<String>,
        expected: impl ToString,
        got: impl ToString,
    ) {
        if !holds {
            self.add(what, expected, got);
        }
    }

    fn add(&mut self, what: impl Into<String>, expected: impl ToString, got: impl ToString) {
        self.0.push(Mismatch {
            what: what.into(),
            expected: cut(expected.to_string()),
            got: cut(got.to_string()),
        });
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

fn show_map(members: &Map<String, Value>) -> String {
    Value::Object(members.clone()).to_string()
}

fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!(
            "{}... ({} bytes)",
            text.get(..end).unwrap_or_default(),
            text.len()
        ),
    }
}
