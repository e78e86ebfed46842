//! Kong's rules for the members of a JSON object: remove, rename, replace, add, append (KONG-SPEC 4.5, 5.3).

use crate::cjson;
use std::borrow::Cow;
use tollgate_kit::json::object::Object;
use tollgate_kit::json::{Kind, Value, quote};

/// The rules of one body, values ready to be written.
#[derive(Clone, Debug, Default)]
pub struct MemberRules<'r> {
    /// Names.
    pub remove: Vec<&'r [u8]>,
    /// Old and new names.
    pub rename: Vec<(&'r [u8], Cow<'r, [u8]>)>,
    /// Names and JSON texts.
    pub replace: Vec<(&'r [u8], Cow<'r, [u8]>)>,
    /// Names and JSON texts.
    pub add: Vec<(&'r [u8], Cow<'r, [u8]>)>,
    /// Names and JSON texts.
    pub append: Vec<(&'r [u8], Cow<'r, [u8]>)>,
}

/// Whose rules, in what Kong does to the letter only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// What no rule touches keeps its bytes; `false` is a value like any other; nothing is lost when something is appended.
    Tollgate,
    /// Kong's request-transformer: `false` counts as absent, the text is written anew when a rule applied.
    KongRequest,
    /// Kong's response-transformer: `false` is absent for add and replace only, the text is always written anew.
    KongResponse,
}

/// The body can't be changed as Kong would: its rules fail on a lone value that is neither object nor array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar;

impl MemberRules<'_> {
    /// The text that a body becomes; `None` when it stays as it is. What is no JSON stays as it is.
    ///
    /// # Errors
    /// When Kong's request-transformer would fail.
    pub fn apply(&self, body: &[u8], manner: Manner) -> Result<Option<Vec<u8>>, Scalar> {
        let Ok(value) = Value::parse(body) else {
            return Ok(None);
        };
        let Some(mut object) = Object::read(value) else {
            return match (value.kind(), manner) {
                (_, Manner::Tollgate) => Ok(None),
                (Kind::Array, _) => {
                    let applies =
                        !(self.remove.is_empty() && self.add.is_empty() && self.append.is_empty());
                    let anew = applies || manner == Manner::KongResponse;
                    Ok(anew.then(|| cjson::rewritten(value)))
                }
                (_, Manner::KongRequest) => Err(Scalar),
                (_, Manner::KongResponse) => Ok(None),
            };
        };
        let applied = self.edit(&mut object, manner);
        if manner == Manner::Tollgate {
            if !object.is_changed() {
                return Ok(None);
            }
            // What stands around the object stays as well.
            let start = body.iter().position(|&byte| byte == b'{').unwrap_or(0);
            let end = start.saturating_add(value.text().len());
            let (before, behind) = (body.get(..start), body.get(end..));
            let text = object.to_text();
            return Ok(Some(
                [
                    before.unwrap_or_default(),
                    &text,
                    behind.unwrap_or_default(),
                ]
                .concat(),
            ));
        }
        if !applied && manner == Manner::KongRequest {
            return Ok(None);
        }
        let text = object.to_text();
        Ok(Value::parse(&text).ok().map(cjson::rewritten))
    }

    /// The text of an object that begins with nothing; `None` when no rule puts anything in.
    #[must_use]
    pub fn made_from_nothing(&self, manner: Manner) -> Option<Vec<u8>> {
        let mut object = Object::empty();
        let only_adds = MemberRules {
            add: self.add.clone(),
            append: self.append.clone(),
            ..MemberRules::default()
        };
        only_adds.edit(&mut object, manner);
        if object.is_empty() {
            return None;
        }
        let text = object.to_text();
        match manner {
            Manner::Tollgate => Some(text),
            Manner::KongRequest | Manner::KongResponse => {
                Value::parse(&text).ok().map(cjson::rewritten)
            }
        }
    }

    /// Applies the rules in Kong's order. Whether one of them applied, by Kong's reckoning.
    fn edit(&self, object: &mut Object<'_>, manner: Manner) -> bool {
        let is_false = |object: &Object<'_>, name: &[u8]| object.get(name) == Some(b"false");
        let false_is_absent = manner != Manner::Tollgate;
        let mut applied = !self.remove.is_empty() || !self.append.is_empty();
        for name in &self.remove {
            object.remove(name);
        }
        for (from, to) in &self.rename {
            if manner == Manner::KongRequest && is_false(object, from) {
                continue;
            }
            if manner == Manner::KongResponse && *from == &**to {
                object.remove(from);
                continue;
            }
            applied |= object.rename(from, to);
        }
        for (name, value) in &self.replace {
            let present = object.get(name).is_some();
            if present && !(false_is_absent && is_false(object, name)) {
                object.set(name, value.to_vec());
                applied = true;
            }
        }
        for (name, value) in &self.add {
            let present = object.get(name).is_some();
            if !present || (false_is_absent && is_false(object, name)) {
                object.set(name, value.to_vec());
                applied = true;
            }
        }
        for (name, value) in &self.append {
            if let Some(new) = appended(object.value(name), value, manner) {
                object.set(name, new);
            }
        }
        applied
    }
}

/// What a member becomes when a value is appended to it; `None` leaves it as it is.
fn appended(old: Option<Value<'_>>, value: &[u8], manner: Manner) -> Option<Vec<u8>> {
    let list = |parts: &[&[u8]]| [b"[", parts.join(&b',').as_slice(), b"]"].concat();
    let Some(old) = old else {
        return Some(list(&[value]));
    };
    let kong = manner != Manner::Tollgate;
    Some(match old.kind() {
        Kind::String => list(&[old.text(), value]),
        Kind::Array => inside(old, b']', value),
        // Nothing can be appended to an object. In Kong, Lua's tables have places for it.
        Kind::Object if !kong => return None,
        Kind::Object if old.members().next().is_none() => list(&[value]),
        Kind::Object => {
            let mut number = 1usize;
            while old.member(&number.to_string()).is_some() {
                number = number.saturating_add(1);
            }
            let mut member = Vec::new();
            quote(number.to_string().as_bytes(), &mut member);
            member.push(b':');
            member.extend_from_slice(value);
            inside(old, b'}', &member)
        }
        Kind::Null => list(&[value]),
        Kind::Bool(_) | Kind::Number(_) if kong => list(&[value]),
        Kind::Bool(_) | Kind::Number(_) => list(&[old.text(), value]),
    })
}

/// A container's text with one thing more at its end.
fn inside(container: Value<'_>, close: u8, more: &[u8]) -> Vec<u8> {
    let text = container.text();
    let mut out = text.strip_suffix(&[close]).unwrap_or(text).to_vec();
    if out
        .get(1..)
        .is_some_and(|inside| !inside.trim_ascii().is_empty())
    {
        out.push(b',');
    }
    out.extend_from_slice(more);
    out.push(close);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pairs = &'static [(&'static str, &'static str)];

    fn owned(pairs: Pairs) -> Vec<(&'static [u8], Cow<'static, [u8]>)> {
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), Cow::Borrowed(value.as_bytes())))
            .collect()
    }

    fn rules(
        remove: &[&'static str],
        rename: Pairs,
        replace: Pairs,
        add: Pairs,
        append: Pairs,
    ) -> MemberRules<'static> {
        MemberRules {
            remove: remove.iter().map(|name| name.as_bytes()).collect(),
            rename: owned(rename),
            replace: owned(replace),
            add: owned(add),
            append: owned(append),
        }
    }

    fn applied(rules: &MemberRules<'_>, body: &str, manner: Manner) -> String {
        match rules.apply(body.as_bytes(), manner) {
            Ok(Some(text)) => String::from_utf8(text).unwrap(),
            Ok(None) => "as it was".into(),
            Err(Scalar) => "fails".into(),
        }
    }

    #[test]
    fn rules_see_what_the_ones_before_have_done() {
        let rules = rules(
            &["a"],
            &[("b", "a")],
            &[("a", "\"2\"")],
            &[("a", "\"3\""), ("c", "\"4\"")],
            &[("c", "\"5\"")],
        );
        for manner in [Manner::Tollgate, Manner::KongRequest, Manner::KongResponse] {
            assert_eq!(
                applied(&rules, r#"{"a":"x","b":"y"}"#, manner),
                r#"{"a":"2","c":["4","5"]}"#
            );
        }
    }

    #[test]
    fn false_and_null_are_values_or_as_kong_has_it() {
        let replace = rules(&[], &[], &[("p", "\"v\"")], &[], &[]);
        let add = rules(&[], &[], &[], &[("p", "\"v\"")], &[]);
        let rename = rules(&[], &[("p", "q")], &[], &[], &[]);
        for (rules, body, tollgate, request, response) in [
            (
                &replace,
                r#"{"p":false}"#,
                r#"{"p":"v"}"#,
                "as it was",
                r#"{"p":false}"#,
            ),
            (
                &replace,
                r#"{"p":null}"#,
                r#"{"p":"v"}"#,
                r#"{"p":"v"}"#,
                r#"{"p":"v"}"#,
            ),
            (
                &add,
                r#"{"p":false}"#,
                "as it was",
                r#"{"p":"v"}"#,
                r#"{"p":"v"}"#,
            ),
            (
                &add,
                r#"{"p":null}"#,
                "as it was",
                "as it was",
                r#"{"p":null}"#,
            ),
            (
                &rename,
                r#"{"p":false}"#,
                r#"{"q":false}"#,
                "as it was",
                r#"{"q":false}"#,
            ),
            (
                &rename,
                r#"{"p":null}"#,
                r#"{"q":null}"#,
                r#"{"q":null}"#,
                r#"{"q":null}"#,
            ),
        ] {
            assert_eq!(applied(rules, body, Manner::Tollgate), tollgate, "{body}");
            assert_eq!(applied(rules, body, Manner::KongRequest), request, "{body}");
            assert_eq!(
                applied(rules, body, Manner::KongResponse),
                response,
                "{body}"
            );
        }
    }

    #[test]
    fn appending_loses_nothing_or_what_kong_loses() {
        let append = rules(&[], &[], &[], &[], &[("p", "\"x\"")]);
        for (old, tollgate, kong) in [
            (r#""a""#, r#"["a","x"]"#, r#"["a","x"]"#),
            ("[]", r#"["x"]"#, r#"["x"]"#),
            ("[1, {}]", r#"[1, {},"x"]"#, r#"[1,{},"x"]"#),
            ("5", r#"[5,"x"]"#, r#"["x"]"#),
            ("true", r#"[true,"x"]"#, r#"["x"]"#),
            ("null", r#"["x"]"#, r#"["x"]"#),
            (r#"{"k":1}"#, r#"{"k":1}"#, r#"{"k":1,"1":"x"}"#),
            (r#"{"1":1}"#, r#"{"1":1}"#, r#"{"1":1,"2":"x"}"#),
            ("{}", "{}", r#"["x"]"#),
        ] {
            let body = format!("{{\"p\":{old}}}");
            let ours = applied(&append, &body, Manner::Tollgate);
            let ours = if ours == "as it was" {
                body.clone()
            } else {
                ours
            };
            assert_eq!(ours, format!("{{\"p\":{tollgate}}}"));
            assert_eq!(
                applied(&append, &body, Manner::KongRequest),
                format!("{{\"p\":{kong}}}")
            );
        }
    }

    #[test]
    fn bytes_stay_unless_kong_writes_them_anew() {
        let nothing = rules(&["zzz"], &[], &[], &[], &[]);
        let body = "\n{ \"n\" : 12345678901234567890, \"u\":\"http://x\" } ";
        assert_eq!(applied(&nothing, body, Manner::Tollgate), "as it was");
        assert_eq!(
            applied(&nothing, body, Manner::KongRequest),
            r#"{"n":9.2233720368548e+18,"u":"http:\/\/x"}"#
        );
        let add = rules(&[], &[], &[], &[("b", "1")], &[]);
        assert_eq!(
            applied(&add, body, Manner::Tollgate),
            "\n{ \"n\" : 12345678901234567890, \"u\":\"http://x\" ,\"b\":1} "
        );
    }

    #[test]
    fn bodies_that_are_no_object_stay() {
        let add = rules(&[], &[], &[], &[("b", "1")], &[]);
        let replace = rules(&[], &[], &[("b", "1")], &[], &[]);
        for (rules, body, tollgate, request, response) in [
            (&add, "nope", "as it was", "as it was", "as it was"),
            (&add, "[1, 2]", "as it was", "[1,2]", "[1,2]"),
            (&replace, "[1, 2]", "as it was", "as it was", "[1,2]"),
            (&add, "5", "as it was", "fails", "as it was"),
            (&add, "null", "as it was", "fails", "as it was"),
        ] {
            assert_eq!(applied(rules, body, Manner::Tollgate), tollgate, "{body}");
            assert_eq!(applied(rules, body, Manner::KongRequest), request, "{body}");
            assert_eq!(
                applied(rules, body, Manner::KongResponse),
                response,
                "{body}"
            );
        }
    }

    #[test]
    fn renaming_to_the_same_name_is_nothing_or_the_end_of_it() {
        let rename = rules(&[], &[("p", "p")], &[], &[], &[]);
        assert_eq!(
            applied(&rename, r#"{"p":1}"#, Manner::Tollgate),
            "as it was"
        );
        assert_eq!(applied(&rename, r#"{"p":1}"#, Manner::KongResponse), "{}");
    }

    #[test]
    fn made_from_nothing_comes_what_is_added() {
        let all = rules(
            &["a"],
            &[("a", "b")],
            &[("a", "1")],
            &[("c", "1")],
            &[("d", "2")],
        );
        let made = all.made_from_nothing(Manner::KongRequest).unwrap();
        assert_eq!(String::from_utf8(made).unwrap(), r#"{"c":1,"d":[2]}"#);
        assert_eq!(
            rules(&["a"], &[], &[], &[], &[]).made_from_nothing(Manner::Tollgate),
            None
        );
    }

    proptest! {
        #[test]
        fn any_body_stays_or_becomes_json(body in r#"[\[\]{}",:ab0-9.\-tfn ale\\u]{0,32}"#, name in "[ab]") {
            let name = name.as_bytes();
            let value = || Cow::Borrowed(&b"\"v\""[..]);
            let rules = MemberRules {
                remove: vec![b"b"],
                rename: vec![(name, Cow::Borrowed(b"c"))],
                replace: vec![(b"a", value())],
                add: vec![(name, value())],
                append: vec![(b"a", value()), (b"d", value())],
            };
            for manner in [Manner::Tollgate, Manner::KongRequest, Manner::KongResponse] {
                if let Ok(Some(text)) = rules.apply(body.as_bytes(), manner) {
                    prop_assert!(Value::parse(&text).is_ok());
                    prop_assert!(text.len() < body.len() * 6 + 100);
                }
            }
        }
    }
}
