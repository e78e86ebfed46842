//! Editing an object without touching what is not edited.
//!
//! The members are taken apart once; each keeps the bytes it came with, its white space among them. What is not changed is
//! written as it was read: numbers keep their spelling, members their order, repeated ones their place.

use super::{Kind, Scanner, Value, quote};
use std::borrow::Cow;

/// An object in pieces.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
    /// White space between the braces of an object without members.
    hollow: &'a [u8],
    changed: bool,
}

/// One member, with the bytes around it.
#[derive(Clone, Debug)]
struct Member<'a> {
    /// White space before the name.
    lead: &'a [u8],
    /// The name as it is written, in its quotes.
    name: Cow<'a, [u8]>,
    /// The colon, and white space around it.
    colon: &'a [u8],
    /// The value's text.
    value: Cow<'a, [u8]>,
    /// White space before the comma or the brace.
    tail: &'a [u8],
}

impl Member<'_> {
    fn is_named(&self, name: &[u8]) -> bool {
        match self
            .name
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""))
        {
            Some(inner) if !inner.contains(&b'\\') => inner == name,
            _ => Value { text: &self.name }.as_bytes().as_deref() == Some(name),
        }
    }
}

impl<'a> Object<'a> {
    /// An object of no members.
    #[must_use]
    pub fn empty() -> Object<'a> {
        Object {
            members: Vec::new(),
            hollow: b"",
            changed: false,
        }
    }

    /// Takes an object apart; `None` for any other kind of value.
    #[must_use]
    pub fn read(value: Value<'a>) -> Option<Object<'a>> {
        if !matches!(value.kind(), Kind::Object) {
            return None;
        }
        let mut object = Object::empty();
        let mut scanner = Scanner {
            text: value.text,
            pos: 1,
        };
        let text = value.text;
        let since =
            |start: usize, scanner: &Scanner<'a>| text.get(start..scanner.pos).unwrap_or_default();
        loop {
            let start = scanner.pos;
            scanner.white();
            let lead = since(start, &scanner);
            if scanner.peek() == Some(b'}') {
                object.hollow = lead;
                return Some(object);
            }
            let start = scanner.pos;
            scanner.string().ok()?;
            let name = since(start, &scanner);
            let start = scanner.pos;
            scanner.white();
            scanner.take(b':', "':'").ok()?;
            scanner.white();
            let colon = since(start, &scanner);
            let member = scanner.value().ok()?;
            let start = scanner.pos;
            scanner.white();
            object.members.push(Member {
                lead,
                name: Cow::Borrowed(name),
                colon,
                value: Cow::Borrowed(member.text),
                tail: since(start, &scanner),
            });
            if scanner.peek() != Some(b',') {
                return Some(object);
            }
            scanner.bump();
        }
    }

    /// The text of the last member of that name, which is the one that decoders keep.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let member = self
            .members
            .iter()
            .rev()
            .find(|member| member.is_named(name));
        member.map(|member| &*member.value)
    }

    /// The same, as a value.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<Value<'_>> {
        // What is put in by `set` is JSON by its own promise.
        self.get(name).map(|text| Value { text })
    }

    /// How many members there are, repeated ones counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Gives a member this value, which has to be the text of one JSON value: in its place, or at the end where there is none. Of
    /// a repeated one the last is left, so that no two decoders can read different values.
    pub fn set(&mut self, name: &[u8], value: Vec<u8>) {
        if self.get(name) == Some(&value) && self.count(name) == 1 {
            return;
        }
        self.changed = true;
        let value = Cow::Owned(value);
        match self.keep_last(name) {
            Some(member) => member.value = value,
            None => {
                let mut quoted = Vec::new();
                quote(name, &mut quoted);
                self.members.push(Member {
                    lead: b"",
                    name: Cow::Owned(quoted),
                    colon: b":",
                    value,
                    tail: b"",
                });
            }
        }
    }

    /// Takes all members of that name out. Whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.members.len();
        self.members.retain(|member| !member.is_named(name));
        let removed = self.members.len() != before;
        self.changed |= removed;
        removed
    }

    /// Gives a member another name, in its place; members that had that name before are taken out. Whether there was one to
    /// rename. The same name changes nothing.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> bool {
        if self.get(from).is_none() {
            return false;
        }
        if from == to {
            return true;
        }
        self.members.retain(|member| !member.is_named(to));
        self.changed = true;
        if let Some(member) = self.keep_last(from) {
            let mut quoted = Vec::new();
            quote(to, &mut quoted);
            member.name = Cow::Owned(quoted);
        }
        true
    }

    /// Whether anything is other than it was read.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The object's text.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = vec![b'{'];
        for (index, member) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            for part in [
                member.lead,
                &member.name,
                member.colon,
                &member.value,
                member.tail,
            ] {
                out.extend_from_slice(part);
            }
        }
        if self.members.is_empty() {
            out.extend_from_slice(self.hollow);
        }
        out.push(b'}');
        out
    }

    fn count(&self, name: &[u8]) -> usize {
        self.members
            .iter()
            .filter(|member| member.is_named(name))
            .count()
    }

    /// Takes all but the last of that name out, and gives it.
    fn keep_last(&mut self, name: &[u8]) -> Option<&mut Member<'a>> {
        let mut surplus = self.count(name).saturating_sub(1);
        self.members.retain(|member| {
            let goes = surplus > 0 && member.is_named(name);
            surplus = surplus.saturating_sub(usize::from(goes));
            !goes
        });
        self.members.iter_mut().find(|member| member.is_named(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edited(text: &str, edit: impl FnOnce(&mut Object<'_>)) -> String {
        let mut object = Object::read(Value::parse(text.as_bytes()).unwrap()).unwrap();
        edit(&mut object);
        String::from_utf8(object.to_text()).unwrap()
    }

    #[test]
    fn edits_leave_every_other_byte() {
        let text = "{ \"a\" : 1.0 ,\n \"b\":12345678901234567890, \"\\u0063\":[ ] }";
        type Edit<'e> = &'e dyn Fn(&mut Object<'_>);
        let cases: [(Edit<'_>, &str); 5] = [
            (
                &|object| object.set(b"a", b"2".to_vec()),
                "{ \"a\" : 2 ,\n \"b\":12345678901234567890, \"\\u0063\":[ ] }",
            ),
            (
                &|object| assert!(object.remove(b"c")),
                "{ \"a\" : 1.0 ,\n \"b\":12345678901234567890}",
            ),
            (
                &|object| assert!(object.rename(b"c", b"a")),
                "{\n \"b\":12345678901234567890, \"a\":[ ] }",
            ),
            (
                &|object| object.set(b"d\"", b"null".to_vec()),
                "{ \"a\" : 1.0 ,\n \"b\":12345678901234567890, \"\\u0063\":[ ] ,\"d\\\"\":null}",
            ),
            (&|object| assert!(object.rename(b"b", b"b")), text),
        ];
        for (edit, wanted) in cases {
            assert_eq!(edited(text, |object| edit(object)), wanted);
        }
    }

    #[test]
    fn of_a_repeated_member_one_is_left() {
        let text = r#"{"a":1,"b":2,"a":3}"#;
        assert_eq!(
            edited(text, |object| object.set(b"a", b"4".to_vec())),
            r#"{"b":2,"a":4}"#
        );
        assert_eq!(
            edited(text, |object| object.set(b"a", b"3".to_vec())),
            r#"{"b":2,"a":3}"#
        );
        assert_eq!(
            edited(text, |object| assert!(object.rename(b"a", b"c"))),
            r#"{"b":2,"c":3}"#
        );
        assert_eq!(
            edited(text, |object| assert!(object.remove(b"a"))),
            r#"{"b":2}"#
        );
    }

    #[test]
    fn hollow_objects_stay_as_they_are() {
        assert_eq!(edited("{ }", |_| ()), "{ }");
        assert_eq!(
            edited("{ }", |object| object.set(b"a", b"1".to_vec())),
            r#"{"a":1}"#
        );
        assert!(Object::read(Value::parse(b"[]").unwrap()).is_none());
    }

    proptest! {
        #[test]
        fn reading_and_writing_is_the_identity(text in r#"\{[{}\[\]", :a-c0-9\\]{0,24}\}"#) {
            if let Some(object) = Value::parse(text.as_bytes()).ok().and_then(Object::read) {
                prop_assert!(!object.is_changed());
                prop_assert_eq!(object.to_text(), text.trim_ascii().as_bytes());
            }
        }

        #[test]
        fn an_edited_object_is_json_and_holds_what_was_set(names in proptest::collection::vec("[ab\"]", 0..6), name in "[ab\"]", other in "[ab\"]") {
            let mut text = b"{".to_vec();
            for (index, name) in names.iter().enumerate() {
                if index > 0 { text.push(b','); }
                quote(name.as_bytes(), &mut text);
                text.extend_from_slice(format!(":{index}").as_bytes());
            }
            text.push(b'}');
            let mut object = Object::read(Value::parse(&text).unwrap()).unwrap();
            object.rename(name.as_bytes(), other.as_bytes());
            object.set(name.as_bytes(), b"true".to_vec());
            object.remove(other.as_bytes());
            let out = object.to_text();
            let value = Value::parse(&out).unwrap();
            let wanted = if name == other { None } else { Some(&b"true"[..]) };
            prop_assert_eq!(value.member(&name).map(Value::text), wanted);
            prop_assert!(value.member(&other).is_none());
        }
    }
}
