//! JSON read in place.
//!
//! A [`Value`] borrows the text it stands in and is checked once, as a whole; members and elements are found by
//! scanning again, so nothing is allocated and every value knows its exact bytes ([`Value::text`]). That is what the
//! filters need: an edit leaves untouched bytes as they came, a repeated member is visible, numbers keep their
//! spelling, and a configuration of 100,000 credentials is read without building a tree of it.
//!
//! The scanner does not recurse: depth costs one bit, and past [`MAX_DEPTH`] the text is refused.

use std::borrow::Cow;

pub mod object;

/// Nesting past this is refused. It is the limit of Kong's own decoder (lua-cjson).
pub const MAX_DEPTH: usize = 1000;

/// The text is not JSON ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259)), or nests deeper than [`MAX_DEPTH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where the scanner stopped, in bytes from the start of the text.
    pub offset: usize,
    /// What was wanted there.
    pub wanted: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "not JSON: {} expected at byte {}",
            self.wanted, self.offset
        )
    }
}

/// One JSON value, by the bytes it stands in. Known to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    text: &'a [u8],
}

/// What kind of value it is, with the content of the simple ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is spelled.
    Number(&'a str),
    /// A string; [`Value::as_bytes`] and [`Value::as_str`] decode it.
    String,
    /// An array; [`Value::items`] walks it.
    Array,
    /// An object; [`Value::members`] walks it.
    Object,
}

impl<'a> Value<'a> {
    /// Reads a whole text, white space around the value allowed.
    pub fn parse(text: &'a [u8]) -> Result<Value<'a>, Malformed> {
        let mut scanner = Scanner { text, pos: 0 };
        scanner.white();
        let value = scanner.value()?;
        scanner.white();
        match scanner.peek() {
            None => Ok(value),
            Some(_) => Err(scanner.wanted("the end")),
        }
    }

    /// The value's own bytes, as they stand in the text.
    pub fn text(self) -> &'a [u8] {
        self.text
    }

    /// The kind of value.
    pub fn kind(self) -> Kind<'a> {
        match self.text.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't') => Kind::Bool(true),
            Some(b'f') => Kind::Bool(false),
            Some(b'n') | None => Kind::Null,
            // The scanner let only ASCII into a number.
            Some(_) => Kind::Number(std::str::from_utf8(self.text).unwrap_or_default()),
        }
    }

    /// A string's content with escapes resolved; `None` if it is no string. Bytes, because a text that is not UTF-8
    /// inside its strings is still read (as Kong's decoder does). A lone surrogate becomes U+FFFD.
    pub fn as_bytes(self) -> Option<Cow<'a, [u8]>> {
        let inner = self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(if inner.contains(&b'\\') {
            Cow::Owned(unescape(inner))
        } else {
            Cow::Borrowed(inner)
        })
    }

    /// A string's content; `None` if it is no string, or not UTF-8.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        match self.as_bytes()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    /// The members of an object in order, repeated names included; nothing for any other kind.
    pub fn members(self) -> Members<'a> {
        Members {
            walk: Walk::inside(self.text, b'{'),
        }
    }

    /// The elements of an array in order; nothing for any other kind.
    pub fn items(self) -> Items<'a> {
        Items {
            walk: Walk::inside(self.text, b'['),
        }
    }

    /// An object's text without the members of that name; every other byte stays, and so does the text of any other kind.
    pub fn without(self, name: &[u8]) -> Vec<u8> {
        let mut out = vec![b'{'];
        let mut left = self.members();
        if !matches!(self.kind(), Kind::Object) {
            return self.text.to_vec();
        }
        loop {
            let start = left.walk.scanner.pos;
            let Some((key, _)) = left.next() else { break };
            left.walk.scanner.white();
            let member = self
                .text
                .get(start..left.walk.scanner.pos)
                .unwrap_or_default();
            if key.as_bytes().as_deref() == Some(name) {
                continue;
            }
            // All but the first bring their comma along.
            out.extend_from_slice(if out.len() == 1 {
                member.strip_prefix(b",").unwrap_or(member)
            } else {
                member
            });
        }
        out.push(b'}');
        out
    }

    /// The last member of that name, which is the one that decoders keep.
    pub fn member(self, name: &str) -> Option<Value<'a>> {
        self.members()
            .filter(|(key, _)| key.as_bytes().as_deref() == Some(name.as_bytes()))
            .map(|(_, value)| value)
            .last()
    }
}

/// Walks the members of an object.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    walk: Walk<'a>,
}

impl<'a> Iterator for Members<'a> {
    /// The name (a string value) and the value.
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.walk.next()?;
        self.walk.scanner.white();
        self.walk.scanner.take(b':', "':'").ok()?;
        let value = self.walk.value()?;
        Some((key, value))
    }
}

/// Walks the elements of an array.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    walk: Walk<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.walk.next()
    }
}

/// Walks the elements of the one array in `{"name": [...]}`, in a text that has not been checked as a whole: each step reads one
/// element, so that a text of many megabytes can be read a little at a time.
#[derive(Clone, Debug)]
pub struct Elements {
    pos: usize,
    any: bool,
    done: bool,
}

impl Elements {
    /// Starts in front of the first element.
    ///
    /// # Errors
    /// When the text does not begin with an object whose first member has this name and is an array; `wanted` says so in
    /// the error.
    pub fn of_member(text: &[u8], name: &str, wanted: &'static str) -> Result<Elements, Malformed> {
        let mut scanner = Scanner { text, pos: 0 };
        scanner.white();
        scanner.take(b'{', "an object")?;
        scanner.white();
        let key = scanner.pos;
        scanner.name()?;
        let quoted = text
            .get(key.saturating_add(1)..)
            .and_then(|rest| rest.strip_prefix(name.as_bytes()));
        if !quoted.is_some_and(|rest| rest.starts_with(b"\"")) {
            return Err(Malformed {
                offset: key,
                wanted,
            });
        }
        scanner.white();
        scanner.take(b'[', "an array")?;
        Ok(Elements {
            pos: scanner.pos,
            any: false,
            done: false,
        })
    }

    /// How far the text has been read, in bytes.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// The next element; `None` when the text has ended, and ended well. The text is the one it was started with.
    ///
    /// # Errors
    /// When the text goes wrong here.
    pub fn next<'t>(&mut self, text: &'t [u8]) -> Result<Option<Value<'t>>, Malformed> {
        if self.done {
            return Ok(None);
        }
        let mut scanner = Scanner {
            text,
            pos: self.pos,
        };
        scanner.white();
        if scanner.peek() == Some(b']') {
            scanner.bump();
            scanner.white();
            scanner.take(b'}', "'}' and no other member")?;
            scanner.white();
            if scanner.peek().is_some() {
                return Err(scanner.wanted("the end"));
            }
            self.done = true;
            return Ok(None);
        }
        if self.any {
            scanner.take(b',', "',' or ']'")?;
            scanner.white();
        }
        let value = scanner.value()?;
        self.pos = scanner.pos;
        self.any = true;
        Ok(Some(value))
    }
}

/// A position between the elements of a container that is known to be well-formed.
#[derive(Clone, Debug)]
struct Walk<'a> {
    scanner: Scanner<'a>,
}

impl<'a> Walk<'a> {
    fn inside(text: &'a [u8], open: u8) -> Walk<'a> {
        let text = if text.first() == Some(&open) {
            text
        } else {
            &[]
        };
        Walk {
            scanner: Scanner { text, pos: 1 },
        }
    }

    /// The next element, or a member's name: what follows white space and a comma.
    fn next(&mut self) -> Option<Value<'a>> {
        self.scanner.white();
        if self.scanner.peek() == Some(b',') {
            self.scanner.bump();
        }
        self.value()
    }

    fn value(&mut self) -> Option<Value<'a>> {
        self.scanner.white();
        match self.scanner.peek() {
            None | Some(b'}' | b']') => None,
            Some(_) => self.scanner.value().ok(),
        }
    }
}

/// Finds the end of one value after another.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) pos: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.pos).copied()
    }

    pub(crate) fn bump(&mut self) {
        self.pos = self.pos.saturating_add(1);
    }

    pub(crate) fn white(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.bump();
        }
    }

    pub(crate) fn wanted(&self, wanted: &'static str) -> Malformed {
        Malformed {
            offset: self.pos,
            wanted,
        }
    }

    pub(crate) fn take(&mut self, byte: u8, wanted: &'static str) -> Result<(), Malformed> {
        if self.peek() == Some(byte) {
            self.bump();
            Ok(())
        } else {
            Err(self.wanted(wanted))
        }
    }

    /// Scans one value that starts here.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let start = self.pos;
        let mut open = Nesting::default();
        loop {
            self.white();
            // A value, or the end of an empty container.
            match self.peek() {
                Some(b'{') => {
                    self.bump();
                    open.push(true).ok_or(self.wanted("less nesting"))?;
                    self.white();
                    if self.peek() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.bump();
                    open.push(false).ok_or(self.wanted("less nesting"))?;
                    self.white();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return Err(self.wanted("a value")),
            }
            // Behind a value: close what ends here, until a comma asks for another value.
            loop {
                let Some(in_object) = open.top() else {
                    return Ok(Value {
                        text: self.text.get(start..self.pos).unwrap_or_default(),
                    });
                };
                self.white();
                match (self.peek(), in_object) {
                    (Some(b','), true) => {
                        self.bump();
                        self.white();
                        self.name()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.bump();
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.bump();
                        open.pop();
                    }
                    (_, true) => return Err(self.wanted("',' or '}'")),
                    (_, false) => return Err(self.wanted("',' or ']'")),
                }
            }
        }
    }

    /// A member's name and the colon behind it.
    fn name(&mut self) -> Result<(), Malformed> {
        if self.peek() != Some(b'"') {
            return Err(self.wanted("a member name"));
        }
        self.string()?;
        self.white();
        self.take(b':', "':'")
    }

    fn string(&mut self) -> Result<(), Malformed> {
        self.bump();
        loop {
            // Most of a text is this: it is skipped in one go.
            let rest = self.text.get(self.pos..).unwrap_or_default();
            self.pos = self.pos.saturating_add(plain_length(rest));
            match self.peek() {
                Some(b'"') => {
                    self.bump();
                    return Ok(());
                }
                Some(b'\\') => {
                    self.bump();
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.bump(),
                        Some(b'u') => {
                            self.bump();
                            for _ in 0..4 {
                                match self.peek() {
                                    Some(digit) if digit.is_ascii_hexdigit() => self.bump(),
                                    _ => return Err(self.wanted("four hex digits")),
                                }
                            }
                        }
                        _ => return Err(self.wanted("an escape")),
                    }
                }
                Some(_) | None => return Err(self.wanted("the end of a string")),
            }
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b'-') {
            self.bump();
        }
        match self.peek() {
            Some(b'0') => self.bump(),
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.bump();
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.bump();
            if let Some(b'+' | b'-') = self.peek() {
                self.bump();
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.peek() {
            self.bump();
        }
        if self.pos == start {
            Err(self.wanted("a digit"))
        } else {
            Ok(())
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Malformed> {
        let end = self.pos.saturating_add(word.len());
        if self.text.get(self.pos..end) == Some(word) {
            self.pos = end;
            Ok(())
        } else {
            Err(self.wanted("a value"))
        }
    }
}

/// How many bytes there are before one that ends a string or begins an escape, or may not stand in one. Eight are looked at at once:
/// strings are most of what the filters read.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    // Each sets the high bit of the bytes that are meant; above the first of them it may be wrong.
    let less = |word: u64, than: u64| word.wrapping_sub(ONES.wrapping_mul(than)) & !word & HIGH;
    let equal = |word: u64, byte: u8| less(word ^ ONES.wrapping_mul(u64::from(byte)), 1);
    let (words, rest) = text.as_chunks::<8>();
    let mut length = 0usize;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let found = less(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if found != 0 {
            let before = usize::try_from(found.trailing_zeros() / 8).unwrap_or_default();
            return length.saturating_add(before);
        }
        length = length.saturating_add(8);
    }
    let plain = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    length.saturating_add(plain.unwrap_or(rest.len()))
}

/// Which containers are open, one bit each: set for an object.
#[derive(Default)]
struct Nesting {
    depth: usize,
    objects: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, object: bool) -> Option<()> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word >= self.objects.len() {
            self.objects.push(0);
        }
        let slot = self.objects.get_mut(word)?;
        *slot = (*slot & !(1 << bit)) | (u64::from(object) << bit);
        self.depth = self.depth.saturating_add(1);
        Some(())
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn top(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        Some(self.objects.get(last / 64)? >> (last % 64) & 1 == 1)
    }
}

/// Resolves the escapes of a string's inside. The scanner has checked their form.
fn unescape(inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some((&escape, tail)) = rest.split_first() else {
            break;
        };
        rest = tail;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (unit, tail) = code_unit(rest);
                rest = tail;
                let mut character = char::from_u32(unit);
                if let (0xD800..=0xDBFF, Some(low)) = (unit, rest.strip_prefix(b"\\u")) {
                    let (second, tail) = code_unit(low);
                    if (0xDC00..=0xDFFF).contains(&second) {
                        rest = tail;
                        character = char::from_u32(surrogates(unit, second));
                    }
                }
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
    }
    out
}

/// The code point of a surrogate pair (RFC 8259 section 7).
fn surrogates(high: u32, low: u32) -> u32 {
    ((high & 0x3FF) << 10 | (low & 0x3FF)).saturating_add(0x10000)
}

fn code_unit(text: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = text.split_at_checked(4).unwrap_or((text, &[]));
    let unit = digits.iter().fold(0u32, |unit, &digit| {
        unit << 4 | char::from(digit).to_digit(16).unwrap_or(0)
    });
    (unit, rest)
}

/// Writes `text` as a JSON string, quotes included. Bytes that are not UTF-8 become U+FFFD.
pub fn quote(text: &[u8], out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 => {
                    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(text: &str, name: &str) -> Option<String> {
        Value::parse(text.as_bytes())
            .unwrap()
            .member(name)
            .map(|value| String::from_utf8(value.text().to_vec()).unwrap())
    }

    #[test]
    fn members_keep_their_bytes() {
        let text = r#" {"a": 1.0 , "b" :[1, {"c":2}], "a":12345678901234567890} "#;
        assert_eq!(member(text, "b").as_deref(), Some(r#"[1, {"c":2}]"#));
        assert_eq!(
            member(text, "a").as_deref(),
            Some("12345678901234567890"),
            "the last of a repeated member counts"
        );
        assert_eq!(
            member(text, "c"),
            None,
            "members of members are not members"
        );
    }

    #[test]
    fn taking_members_out_leaves_the_rest_byte_for_byte() {
        for (text, left) in [
            (
                r#"{ "k" : 1 , "b":[1,{"k":2}],"k":3}"#,
                r#"{ "b":[1,{"k":2}]}"#,
            ),
            (r#"{"a": 1.0,"k":2 ,"b" : 2 }"#, r#"{"a": 1.0,"b" : 2 }"#),
            (r#"{"k":1}"#, "{}"),
            ("{ }", "{}"),
            ("[1]", "[1]"),
        ] {
            let out = Value::parse(text.as_bytes()).unwrap().without(b"k");
            assert_eq!(String::from_utf8(out).unwrap(), left, "{text}");
        }
    }

    #[test]
    fn escapes_are_resolved() {
        let value = Value::parse(br#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83d""#).unwrap();
        assert_eq!(
            value.as_str().unwrap(),
            "a\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1F600}\u{FFFD}"
        );
    }

    #[test]
    fn what_is_not_json_is_refused_with_a_place() {
        for (text, offset) in [
            ("", 0),
            ("{", 1),
            ("{\"a\"", 4),
            ("{\"a\":1,}", 7),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("01", 1),
            ("1.", 2),
            ("-", 1),
            ("\"a", 2),
            ("\"\\x\"", 2),
            ("\"\n\"", 1),
            ("tru", 0),
            ("{} {}", 3),
            ("{a:1}", 1),
            ("]", 0),
        ] {
            assert_eq!(
                Value::parse(text.as_bytes()).map_err(|e| e.offset),
                Err(offset),
                "{text}"
            );
        }
    }

    #[test]
    fn nesting_is_bounded_without_recursion() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Value::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(Value::parse(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(Value::parse("[{\"a\":".repeat(1_000_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}",:0-9.eE\-+tfn ale\\u]{0,24}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert_eq!(Value::parse(text.as_bytes()).is_ok(), theirs.is_ok(), "{}", text);
        }

        #[test]
        fn plain_text_ends_where_it_ends(text in proptest::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 1 => 0x1e..0x22u8], 0..40)) {
            let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(plain_length(&text), end.unwrap_or(text.len()));
        }

        #[test]
        fn strings_survive_quoting(text in ".*") {
            let mut quoted = Vec::new();
            quote(text.as_bytes(), &mut quoted);
            let back = Value::parse(&quoted).unwrap();
            prop_assert_eq!(back.as_str().unwrap(), text);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = Value::parse(&bytes) {
                value.members().for_each(|(name, value)| { let _ = (name.as_bytes(), value.as_str()); });
                value.items().for_each(|value| { let _ = value.kind(); });
            }
        }
    }
}
