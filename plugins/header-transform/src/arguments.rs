//! Query strings and url-encoded forms while rules work on them (KONG-SPEC 0.4, 4.4, 4.5).

use std::borrow::Cow;
use tollgate_kit::args::{self, MOST_ARGUMENTS, Unescaped};

/// Arguments in order.
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    pieces: Vec<Piece<'a>>,
    changed: bool,
}

/// One argument; or nothing between two `&`, which stays where it is.
#[derive(Clone, Debug)]
struct Piece<'a> {
    name: Cow<'a, [u8]>,
    /// `None` for a flag.
    value: Option<Cow<'a, [u8]>>,
    /// As it was written, unless it is new.
    raw: Option<&'a [u8]>,
}

/// How changed arguments are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What no rule touched as it came, in its place.
    AsTheyCame,
    /// As Kong writes a query: encoded anew, what belongs to a name together, sorted by the encoded text.
    Sorted,
    /// As Kong writes a form: encoded anew, what belongs to a name together. The order of names is not defined there.
    Grouped,
}

impl<'a> Arguments<'a> {
    /// Reads a text; `limited` to the first 100 arguments, which are all that Kong reads.
    #[must_use]
    pub fn read(text: &'a [u8], limited: bool) -> Arguments<'a> {
        let mut pieces = Vec::new();
        let most = if limited { MOST_ARGUMENTS } else { usize::MAX };
        if !text.is_empty() {
            let pieces_of = text.split(|&byte| byte == b'&');
            for raw in pieces_of
                .filter(|raw| !limited || !raw.is_empty())
                .take(most)
            {
                let mut halves = raw.splitn(2, |&byte| byte == b'=');
                let name = args::decode(halves.next().unwrap_or_default());
                let value = halves.next().map(args::decode);
                pieces.push(Piece {
                    name,
                    value,
                    raw: Some(raw),
                });
            }
        }
        Arguments {
            pieces,
            changed: false,
        }
    }

    /// Whether there is an argument of that name, with a value or without.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        self.pieces.iter().any(|piece| piece.is_named(name))
    }

    /// How many arguments have that name.
    #[must_use]
    pub fn count(&self, name: &[u8]) -> usize {
        self.pieces
            .iter()
            .filter(|piece| piece.is_named(name))
            .count()
    }

    /// Names and values, in order; `None` for a flag.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.pieces
            .iter()
            .filter(|piece| !piece.is_gap())
            .map(|piece| (&*piece.name, piece.value.as_deref()))
    }

    /// Whether anything was changed.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Takes all of a name out. Whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.pieces.len();
        self.pieces.retain(|piece| !piece.is_named(name));
        let removed = self.pieces.len() != before;
        self.changed |= removed;
        removed
    }

    /// Gives all of a name another one, in their places, over what has that name. Whether there was one.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> bool {
        if !self.has(from) {
            return false;
        }
        if from == to {
            return true;
        }
        self.pieces.retain(|piece| !piece.is_named(to));
        for piece in self.pieces.iter_mut().filter(|piece| piece.is_named(from)) {
            piece.name = Cow::Owned(to.to_vec());
            piece.raw = None;
        }
        self.changed = true;
        true
    }

    /// Gives a name this one value, in the place of its first. Whether it was there.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) -> bool {
        let mut first = true;
        self.pieces.retain_mut(|piece| {
            if !piece.is_named(name) {
                return true;
            }
            let keep = first;
            first = false;
            if keep {
                piece.value = Some(Cow::Owned(value.to_vec()));
                piece.raw = None;
            }
            keep
        });
        self.changed |= !first;
        !first
    }

    /// Adds an argument at the end, behind those of its name.
    pub fn append(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.changed = true;
        self.pieces.push(Piece {
            name: Cow::Owned(name.to_vec()),
            value: value.map(|value| Cow::Owned(value.to_vec())),
            raw: None,
        });
    }

    /// Takes a lone flag of that name out: Kong forgets it when it appends to it.
    pub fn drop_flag(&mut self, name: &[u8]) {
        let lone = self.count(name) == 1;
        self.pieces
            .retain(|piece| !(lone && piece.is_named(name) && piece.value.is_none()));
    }

    /// The text.
    #[must_use]
    pub fn to_text(&self, form: Form) -> Vec<u8> {
        if form == Form::AsTheyCame {
            let pieces = self.pieces.iter().map(|piece| match piece.raw {
                Some(raw) => Cow::Borrowed(raw),
                None => Cow::Owned(piece.encoded()),
            });
            return pieces.collect::<Vec<_>>().join(&b'&');
        }
        // nginx's decoder drops arguments without a name.
        let mut groups: Vec<(&[u8], Vec<u8>)> = Vec::new();
        for piece in self.pieces.iter().filter(|piece| !piece.name.is_empty()) {
            let known = groups.iter_mut().find(|(name, _)| *name == &*piece.name);
            match known {
                Some((_, text)) => {
                    text.push(b'&');
                    text.extend_from_slice(&piece.encoded());
                }
                None => groups.push((&piece.name, piece.encoded())),
            }
        }
        let mut texts: Vec<Vec<u8>> = groups.into_iter().map(|(_, text)| text).collect();
        if form == Form::Sorted {
            texts.sort_unstable();
        }
        texts.join(&b'&')
    }
}

impl Piece<'_> {
    /// Nothing between two `&`.
    fn is_gap(&self) -> bool {
        self.name.is_empty() && self.value.is_none()
    }

    fn is_named(&self, name: &[u8]) -> bool {
        *self.name == *name && !self.is_gap()
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        args::encode(&self.name, Unescaped::Unreserved, &mut out);
        if let Some(value) = &self.value {
            out.push(b'=');
            args::encode(value, Unescaped::Unreserved, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edited(text: &str, edit: impl FnOnce(&mut Arguments<'_>)) -> String {
        let mut arguments = Arguments::read(text.as_bytes(), false);
        edit(&mut arguments);
        String::from_utf8(arguments.to_text(Form::AsTheyCame)).unwrap()
    }

    #[test]
    fn what_is_not_touched_stays_as_it_came() {
        let text = "z=%7e&&a=x+y&c&b=1&b=2&";
        for (edit, wanted) in [
            (
                Box::new(|a: &mut Arguments<'_>| assert!(a.remove(b"b")))
                    as Box<dyn FnOnce(&mut Arguments<'_>)>,
                "z=%7e&&a=x+y&c&",
            ),
            (
                Box::new(|a| assert!(a.rename(b"b", b"a"))),
                "z=%7e&&c&a=1&a=2&",
            ),
            (
                Box::new(|a| assert!(a.replace(b"b", b"3 4"))),
                "z=%7e&&a=x+y&c&b=3%204&",
            ),
            (
                Box::new(|a| a.append(b"n", Some(b"5"))),
                "z=%7e&&a=x+y&c&b=1&b=2&&n=5",
            ),
            (Box::new(|a| assert!(!a.rename(b"x", b"a"))), text),
            (Box::new(|a| assert!(a.rename(b"b", b"b"))), text),
            (Box::new(|a| assert!(!a.replace(b"x", b"a"))), text),
        ] {
            assert_eq!(edited(text, edit), wanted);
        }
    }

    #[test]
    fn kong_groups_and_sorts_by_the_encoded_text() {
        let sorted = |text: &str| {
            let arguments = Arguments::read(text.as_bytes(), true);
            String::from_utf8(arguments.to_text(Form::Sorted)).unwrap()
        };
        assert_eq!(sorted("k1=1&k10=1&k2=x"), "k10=1&k1=1&k2=x");
        assert_eq!(sorted("z=1&a=x+y&c&&=x"), "a=x%20y&c&z=1");
        assert_eq!(sorted("q=b&a=1&q=a"), "a=1&q=b&q=a");
        let many: Vec<String> = (100..220).map(|n| format!("k{n}=1")).collect();
        assert_eq!(sorted(&many.join("&")).split('&').count(), MOST_ARGUMENTS);
    }

    #[test]
    fn a_lone_flag_is_told_from_an_empty_value() {
        let dropped = |text: &str| edited(text, |arguments| arguments.drop_flag(b"q"));
        assert_eq!(
            (dropped("q&a").as_str(), dropped("q=&a").as_str()),
            ("a", "q=&a")
        );
        assert_eq!(dropped("q&q=1"), "q&q=1");
    }

    proptest! {
        #[test]
        fn reading_and_writing_is_the_identity(text in proptest::collection::vec(any::<u8>(), 0..48)) {
            let arguments = Arguments::read(&text, false);
            prop_assert!(!arguments.is_changed());
            prop_assert_eq!(arguments.to_text(Form::AsTheyCame), text);
        }

        #[test]
        fn what_is_removed_is_gone_and_what_is_set_is_read_back(text in "[abq=&%+0-9]{0,24}", value in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut arguments = Arguments::read(text.as_bytes(), false);
            arguments.remove(b"q");
            arguments.append(b"q", Some(&value));
            for form in [Form::AsTheyCame, Form::Sorted, Form::Grouped] {
                let text = arguments.to_text(form);
                let found: Vec<_> = args::parse(&text).filter(|argument| argument.name == &b"q"[..]).map(|argument| argument.value.unwrap().into_owned()).collect();
                prop_assert_eq!(found, vec![value.clone()]);
            }
        }
    }
}
