//! Changes to a request's bytes that leave every other byte as it came: order, white space, spelling of numbers.

use crate::api::Api;
use crate::request::{Object, Request, Slot};
use crate::tokens::Span;

/// What the request's limit is to be, in tokens of one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As it is.
    Keep,
    /// This, where the request sets none.
    Default(u64),
    /// At most this: lowered where it is larger, set where there is none. See [`Request::least_limit`].
    AtMost(u64),
}

/// How a request is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its limit. An API whose answers have no completion tokens, or no such member (Images), is left alone.
    pub limit: Limit,
    /// Turns `stream_options.include_usage` on; only in streams of the Chat and Completions APIs, which have it.
    pub include_usage: bool,
}

impl Change {
    /// The changed body; `None` if nothing is to be changed. `request` is what was read from this very `body`.
    ///
    /// The result holds no limit above [`Limit::AtMost`] in any spelling that the API knows. A limit that has to be written is
    /// spelled `max_completion_tokens` for OpenAI's reasoning models, which refuse `max_tokens`, and otherwise `max_tokens`,
    /// which every provider of the Chat API understands.
    pub fn apply(self, body: &[u8], request: &Request) -> Option<Vec<u8>> {
        let mut edits = Edits::default();
        self.limit(&mut edits, request);
        if self.include_usage
            && request.stream
            && matches!(request.api, Api::Chat | Api::Completions)
        {
            include_usage(&mut edits, request);
        }
        edits.apply(body)
    }

    fn limit(self, edits: &mut Edits, request: &Request) {
        let places = &request.places;
        let (slots, root) = match request.api {
            Api::Chat if wants_max_completion_tokens(request.model.as_deref()) => (
                [
                    ("max_completion_tokens", places.max_completion_tokens),
                    ("max_tokens", places.max_tokens),
                ],
                Some(places.root),
            ),
            Api::Chat => (
                [
                    ("max_tokens", places.max_tokens),
                    ("max_completion_tokens", places.max_completion_tokens),
                ],
                Some(places.root),
            ),
            Api::Completions | Api::Messages => (
                [("max_tokens", places.max_tokens), ("", None)],
                Some(places.root),
            ),
            Api::Responses => (
                [("max_output_tokens", places.max_output_tokens), ("", None)],
                Some(places.root),
            ),
            Api::Generate => (
                [("maxOutputTokens", places.generation_limit), ("", None)],
                places.generation_config.filter(|config| !config.null),
            ),
            _ => return,
        };
        let set = slots
            .iter()
            .any(|(_, slot)| slot.is_some_and(|slot| slot.value.is_some()));
        let (most, lower) = match self.limit {
            Limit::Keep => return,
            Limit::Default(_) if set => return,
            Limit::Default(most) => (most, false),
            Limit::AtMost(most) => (most, true),
        };
        let number = most.to_string();
        if set {
            let larger = |slot: &Slot| lower && slot.value.is_some_and(|value| value > most);
            for slot in slots.iter().filter_map(|(_, slot)| *slot).filter(larger) {
                edits.replace(slot.span, number.clone().into_bytes());
            }
            return;
        }
        let [(name, slot), _] = slots;
        match (slot, root) {
            (Some(null), _) => edits.replace(null.span, number.into_bytes()),
            (None, Some(object)) => edits.insert(object, &member(name, &number)),
            (None, None) => {
                let config = format!("{{{}}}", member(name, &number));
                match places.generation_config {
                    Some(null) => edits.replace(null.span, config.into_bytes()),
                    None => edits.insert(places.root, &member("generationConfig", &config)),
                }
            }
        }
    }
}

fn include_usage(edits: &mut Edits, request: &Request) {
    let places = &request.places;
    match (
        request.include_usage,
        places.include_usage,
        places.stream_options,
    ) {
        (Some(true), ..) => {}
        (_, Some(value), _) => edits.replace(value, b"true".to_vec()),
        (_, None, Some(options)) if !options.null => {
            edits.insert(options, &member("include_usage", "true"));
        }
        (_, None, Some(null)) => edits.replace(null.span, b"{\"include_usage\":true}".to_vec()),
        (_, None, None) => edits.insert(
            places.root,
            &member("stream_options", "{\"include_usage\":true}"),
        ),
    }
}

/// Whether it is one of OpenAI's reasoning models (o1, o3, o4, gpt-5 and later), in front of whose name a router may have put its
/// own prefix (`openai/o3`).
fn wants_max_completion_tokens(model: Option<&str>) -> bool {
    let name = model
        .unwrap_or_default()
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let numbered = |prefix: &str, from: char| {
        name.strip_prefix(prefix)
            .and_then(|rest| rest.chars().next())
            .is_some_and(|digit| digit.is_ascii_digit() && digit >= from)
    };
    numbered("gpt-", '5') || numbered("o", '1')
}

fn member(name: &str, value: &str) -> String {
    format!("\"{name}\":{value}")
}

/// Replacements that do not overlap.
#[derive(Debug, Default)]
struct Edits {
    edits: Vec<(Span, Vec<u8>)>,
}

impl Edits {
    fn replace(&mut self, span: Span, bytes: Vec<u8>) {
        self.edits.push((span, bytes));
    }

    /// Puts a member first into an object.
    fn insert(&mut self, object: Object, member: &str) {
        let at = object.span.start.saturating_add(1);
        // Two members at one place: the one that is there already brought the comma.
        if let Some((_, before)) = self
            .edits
            .iter_mut()
            .find(|(span, _)| (span.start, span.end) == (at, at))
        {
            let mut both = member.as_bytes().to_vec();
            both.push(b',');
            both.append(before);
            *before = both;
            return;
        }
        let mut bytes = member.as_bytes().to_vec();
        if object.members > 0 {
            bytes.push(b',');
        }
        self.edits.push((Span { start: at, end: at }, bytes));
    }

    fn apply(mut self, body: &[u8]) -> Option<Vec<u8>> {
        if self.edits.is_empty() {
            return None;
        }
        self.edits.sort_by_key(|(span, _)| span.start);
        let added = self
            .edits
            .iter()
            .fold(0usize, |sum, (_, bytes)| sum.saturating_add(bytes.len()));
        let mut out = Vec::with_capacity(body.len().saturating_add(added));
        let mut copied = 0;
        for (span, bytes) in &self.edits {
            let start = usize::try_from(span.start).ok()?;
            out.extend_from_slice(body.get(copied..start)?);
            out.extend_from_slice(bytes);
            copied = usize::try_from(span.end).ok()?;
        }
        out.extend_from_slice(body.get(copied..)?);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Endpoint;
    use crate::json::Value;
    use proptest::prelude::*;

    fn change(body: &str, limit: Limit, include_usage: bool) -> Option<String> {
        let request = Request::read(body.as_bytes(), &Endpoint::Unknown).unwrap();
        let change = Change {
            limit,
            include_usage,
        };
        let out = change.apply(body.as_bytes(), &request)?;
        Some(String::from_utf8(out).unwrap())
    }

    fn limited(body: &str, limit: Limit) -> Option<String> {
        change(body, limit, false)
    }

    #[test]
    fn a_missing_limit_is_written_as_the_api_spells_it() {
        for (body, changed) in [
            (r#"{"messages":[]}"#, r#"{"max_tokens":5,"messages":[]}"#),
            (
                r#"{"messages":[],"max_tokens" : null }"#,
                r#"{"messages":[],"max_tokens" : 5 }"#,
            ),
            (
                r#"{"messages":[],"model":"o3-mini"}"#,
                r#"{"max_completion_tokens":5,"messages":[],"model":"o3-mini"}"#,
            ),
            (
                r#"{"messages":[],"model":"openai/gpt-5.1","max_tokens":null}"#,
                r#"{"max_completion_tokens":5,"messages":[],"model":"openai/gpt-5.1","max_tokens":null}"#,
            ),
            (r#"{"input":"x"}"#, r#"{"max_output_tokens":5,"input":"x"}"#),
            (
                r#"{"system":"s","messages":[]}"#,
                r#"{"max_tokens":5,"system":"s","messages":[]}"#,
            ),
            (
                r#"{"contents":[]}"#,
                r#"{"generationConfig":{"maxOutputTokens":5},"contents":[]}"#,
            ),
            (
                r#"{"contents":[],"generation_config": { } }"#,
                r#"{"contents":[],"generation_config": {"maxOutputTokens":5 } }"#,
            ),
            (
                r#"{"contents":[],"generationConfig":null}"#,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":5}}"#,
            ),
            (
                r#"{"contents":[],"generationConfig":{"topK":1}}"#,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":5,"topK":1}}"#,
            ),
        ] {
            for limit in [Limit::Default(5), Limit::AtMost(5)] {
                assert_eq!(limited(body, limit).as_deref(), Some(changed), "{body}");
            }
        }
    }

    #[test]
    fn a_larger_limit_is_lowered_in_every_spelling() {
        for (body, changed) in [
            (
                r#"{"messages":[],"max_tokens": 100 }"#,
                Some(r#"{"messages":[],"max_tokens": 5 }"#),
            ),
            (
                r#"{"max_tokens":100,"messages":[],"max_completion_tokens":3}"#,
                Some(r#"{"max_tokens":5,"messages":[],"max_completion_tokens":3}"#),
            ),
            (
                r#"{"contents":[],"generation_config":{"max_output_tokens":9}}"#,
                Some(r#"{"contents":[],"generation_config":{"max_output_tokens":5}}"#),
            ),
            (r#"{"messages":[],"max_tokens":5}"#, None),
        ] {
            assert_eq!(
                limited(body, Limit::AtMost(5)).as_deref(),
                changed,
                "{body}"
            );
            assert_eq!(limited(body, Limit::Default(5)), None, "{body}");
            assert_eq!(limited(body, Limit::Keep), None, "{body}");
        }
    }

    #[test]
    fn what_has_no_limit_is_left_alone() {
        let body = r#"{"input":"x","model":"text-embedding-3-small"}"#;
        assert_eq!(change(body, Limit::AtMost(5), true), None);
    }

    #[test]
    fn usage_is_turned_on_whatever_the_client_said() {
        for (body, changed) in [
            (
                r#"{"stream":true,"messages":[]}"#,
                Some(r#"{"stream_options":{"include_usage":true},"stream":true,"messages":[]}"#),
            ),
            (
                r#"{"stream":true,"messages":[],"stream_options":{"include_usage":false}}"#,
                Some(r#"{"stream":true,"messages":[],"stream_options":{"include_usage":true}}"#),
            ),
            (
                r#"{"stream":true,"messages":[],"stream_options":{ "x":1}}"#,
                Some(
                    r#"{"stream":true,"messages":[],"stream_options":{"include_usage":true, "x":1}}"#,
                ),
            ),
            (
                r#"{"stream":true,"messages":[],"stream_options":null}"#,
                Some(r#"{"stream":true,"messages":[],"stream_options":{"include_usage":true}}"#),
            ),
            (
                r#"{"stream":true,"messages":[],"stream_options":{"include_usage":null}}"#,
                Some(r#"{"stream":true,"messages":[],"stream_options":{"include_usage":true}}"#),
            ),
            (
                r#"{"stream":true,"messages":[],"stream_options":{"include_usage":true}}"#,
                None,
            ),
            (r#"{"messages":[]}"#, None),
            (r#"{"stream":true,"input":"x"}"#, None),
        ] {
            assert_eq!(
                change(body, Limit::Keep, true).as_deref(),
                changed,
                "{body}"
            );
        }
    }

    #[test]
    fn both_changes_fit_into_one_object() {
        assert_eq!(
            change(r#"{"stream":true,"messages":[]}"#, Limit::AtMost(5), true).as_deref(),
            Some(
                r#"{"stream_options":{"include_usage":true},"max_tokens":5,"stream":true,"messages":[]}"#
            )
        );
    }

    /// Members of a request, with white space, in any order.
    fn bodies() -> impl Strategy<Value = String> {
        let member = prop_oneof![
            Just(r#""max_tokens" : 77"#),
            Just(r#""max_completion_tokens":99 "#),
            Just(r#""max_tokens":null"#),
            Just(r#""stream":true"#),
            Just(r#""stream_options":{"x" : 1.50}"#),
            Just(r#""stream_options": {  }"#),
            Just(r#""stream_options":{"include_usage":false , "x":1}"#),
            Just(r#""temperature":0.70"#),
            Just(r#""\u0078": [1E5, "max_tokens"]"#),
            Just(r#""model":"o1""#),
        ];
        proptest::collection::vec(member, 0..7).prop_map(|members| {
            let mut all = vec![r#""messages" :[ ]"#];
            for member in members {
                let name = |member: &str| member.split(':').next().unwrap().trim().to_owned();
                if !all.iter().any(|other| name(other) == name(member)) {
                    all.push(member);
                }
            }
            all.reverse();
            format!(" {{ {} }}\n", all.join(" ,\t"))
        })
    }

    proptest! {
        #[test]
        fn the_rest_stays_byte_for_byte(body in bodies(), most in 0u64..120) {
            let before = Request::read(body.as_bytes(), &Endpoint::Unknown).unwrap();
            let changed = change(&body, Limit::AtMost(most), true).unwrap_or_else(|| body.clone());
            let after = Request::read(changed.as_bytes(), &Endpoint::Unknown).unwrap();
            prop_assert_eq!(after.limit, Some(before.limit.map_or(most, |limit| limit.min(most))));
            if before.stream {
                prop_assert_eq!(after.include_usage, Some(true));
            }
            let mine = ["max_tokens", "max_completion_tokens", "stream_options"];
            let rest = |text: &str| {
                mine.iter().fold(text.trim().to_owned(), |text, name| {
                    let value = Value::parse(text.as_bytes()).unwrap();
                    String::from_utf8(value.without(name.as_bytes())).unwrap()
                })
            };
            prop_assert_eq!(rest(&changed), rest(&body));
            prop_assert_eq!(change(&changed, Limit::AtMost(most), true), None, "changing twice changes nothing");
        }
    }
}
