//! Lua's patterns (Lua 5.1 manual, section 5.4.1), matched with a bounded number of steps: classes (`%a`, `[^%s]`, `.`), the
//! repetitions `*`, `+`, `-` and `?`, the anchors `^` and `$`, and captures. `%b`, `%f` and references back are not there.

use super::eval::EvalError;
use std::ops::Range;

/// Captures of a pattern beyond this are refused.
const MOST_CAPTURES: usize = 9;

/// Repetitions and parentheses of one pattern beyond this are refused: each is a level of recursion.
const MOST_PARTS: usize = 32;

/// Where a pattern matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matched {
    pub(super) whole: Range<usize>,
    captures: Vec<Range<usize>>,
}

impl Matched {
    /// The first capture; the whole match where there is none.
    pub(super) fn first<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        self.group(usize::from(!self.captures.is_empty()), text)
            .unwrap_or_default()
    }

    fn group<'t>(&self, number: usize, text: &'t [u8]) -> Option<&'t [u8]> {
        let place = match number.checked_sub(1) {
            None => &self.whole,
            // Without captures, %1 is the whole match.
            Some(0) if self.captures.is_empty() => &self.whole,
            Some(at) => self.captures.get(at)?,
        };
        text.get(place.clone())
    }

    /// Writes a replacement: `%1` is a capture, `%0` the match, `%%` a percent sign.
    pub(super) fn expand(
        &self,
        text: &[u8],
        by: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EvalError> {
        let mut bytes = by.iter();
        while let Some(&byte) = bytes.next() {
            match (byte, byte == b'%') {
                (_, false) => out.push(byte),
                (_, true) => match bytes.next() {
                    Some(digit @ b'0'..=b'9') => {
                        let number = usize::from(digit.saturating_sub(b'0'));
                        let group = self.group(number, text).ok_or(EvalError::BadPattern)?;
                        out.extend_from_slice(group);
                    }
                    Some(&other) => out.push(other),
                    None => return Err(EvalError::BadPattern),
                },
            }
        }
        Ok(())
    }
}

/// Where a text stands in another, at or behind a place.
pub(super) fn plain(text: &[u8], wanted: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    if wanted.is_empty() {
        return Some(start);
    }
    rest.windows(wanted.len())
        .position(|window| window == wanted)
        .map(|at| at.saturating_add(start))
}

/// The first match at or behind a place. `left` is how many steps it may take, and then how many are left.
pub(super) fn search(
    text: &[u8],
    pattern: &[u8],
    start: usize,
    left: &mut u32,
) -> Result<Option<Matched>, EvalError> {
    let (anchored, pattern) = match pattern.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let items = read(pattern)?;
    let mut at = start;
    while at <= text.len() {
        let mut attempt = Attempt {
            text,
            left: *left,
            open: Vec::new(),
            captures: Vec::new(),
        };
        let end = attempt.matches(&items, at);
        *left = attempt.left;
        if let Some(end) = end? {
            return Ok(Some(Matched {
                whole: at..end,
                captures: attempt
                    .captures
                    .into_iter()
                    .map(|(_, place)| place)
                    .collect(),
            }));
        }
        if anchored {
            break;
        }
        at = at.saturating_add(1);
    }
    Ok(None)
}

/// A piece of a pattern.
#[derive(Clone, Copy, Debug)]
enum Item<'p> {
    One(Class<'p>, Times),
    Open(usize),
    Close,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Once,
    Maybe,
    Any,
    Some,
    Few,
}

/// Which bytes fit.
#[derive(Clone, Copy, Debug)]
enum Class<'p> {
    Any,
    Byte(u8),
    Named(u8),
    Set { inside: &'p [u8], not: bool },
}

impl Class<'_> {
    fn fits(self, byte: u8) -> bool {
        match self {
            Class::Any => true,
            Class::Byte(wanted) => byte == wanted,
            Class::Named(letter) => named(letter, byte),
            Class::Set { inside, not } => in_set(inside, byte) != not,
        }
    }
}

fn named(letter: u8, byte: u8) -> bool {
    let fits = match letter.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | 9..=13),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        _ => return byte == letter,
    };
    fits != letter.is_ascii_uppercase()
}

fn in_set(inside: &[u8], byte: u8) -> bool {
    let mut rest = inside;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [letter, behind @ ..]) => {
                if named(*letter, byte) {
                    return true;
                }
                rest = behind;
            }
            (low, [b'-', high, behind @ ..]) => {
                if (low..=*high).contains(&byte) {
                    return true;
                }
                rest = behind;
            }
            (single, _) if single == byte => return true,
            _ => {}
        }
    }
    false
}

/// Takes a pattern apart.
fn read(pattern: &[u8]) -> Result<Vec<Item<'_>>, EvalError> {
    let mut items = Vec::new();
    let mut rest = pattern;
    let (mut opened, mut closed) = (0usize, 0usize);
    while let Some((&first, tail)) = rest.split_first() {
        let class = match (first, tail) {
            (b'(', _) => {
                items.push(Item::Open(opened));
                opened = opened.saturating_add(1);
                rest = tail;
                continue;
            }
            (b')', _) => {
                closed = closed.saturating_add(1);
                if closed > opened {
                    return Err(EvalError::BadPattern);
                }
                items.push(Item::Close);
                rest = tail;
                continue;
            }
            (b'$', []) => {
                items.push(Item::End);
                break;
            }
            (b'%', [b'b' | b'f' | b'0'..=b'9', ..] | []) => return Err(EvalError::BadPattern),
            (b'%', [letter, behind @ ..]) => {
                rest = behind;
                Class::Named(*letter)
            }
            (b'[', _) => {
                let (not, inside) = match tail.strip_prefix(b"^") {
                    Some(inside) => (true, inside),
                    None => (false, tail),
                };
                let end = end_of_set(inside).ok_or(EvalError::BadPattern)?;
                rest = inside.get(end.saturating_add(1)..).unwrap_or_default();
                Class::Set {
                    inside: inside.get(..end).unwrap_or_default(),
                    not,
                }
            }
            (b'.', _) => {
                rest = tail;
                Class::Any
            }
            (byte, _) => {
                rest = tail;
                Class::Byte(byte)
            }
        };
        let times = match rest.first() {
            Some(b'*') => Times::Any,
            Some(b'+') => Times::Some,
            Some(b'-') => Times::Few,
            Some(b'?') => Times::Maybe,
            _ => Times::Once,
        };
        if times != Times::Once {
            rest = rest.get(1..).unwrap_or_default();
        }
        items.push(Item::One(class, times));
    }
    let levels = items
        .iter()
        .filter(|item| !matches!(item, Item::One(_, Times::Once)))
        .count();
    if opened != closed || opened > MOST_CAPTURES || levels > MOST_PARTS {
        return Err(EvalError::BadPattern);
    }
    Ok(items)
}

/// Where the bracket that closes a set stands. One that comes first stands for itself.
fn end_of_set(inside: &[u8]) -> Option<usize> {
    let mut at = 0usize;
    loop {
        match inside.get(at)? {
            b']' if at > 0 => return Some(at),
            b'%' => at = at.saturating_add(2),
            _ => at = at.saturating_add(1),
        }
    }
}

/// One try at one place.
struct Attempt<'t> {
    text: &'t [u8],
    left: u32,
    /// Which captures are open, and where they began.
    open: Vec<(usize, usize)>,
    /// The closed ones, by number.
    captures: Vec<(usize, Range<usize>)>,
}

impl Attempt<'_> {
    fn step(&mut self) -> Result<(), EvalError> {
        self.left = self.left.checked_sub(1).ok_or(EvalError::TooCostly)?;
        Ok(())
    }

    /// Where a match that begins here ends.
    fn matches(&mut self, items: &[Item<'_>], mut at: usize) -> Result<Option<usize>, EvalError> {
        let mut items = items;
        loop {
            self.step()?;
            let Some((item, rest)) = items.split_first() else {
                return Ok(Some(at));
            };
            match *item {
                Item::End => return Ok((at == self.text.len()).then_some(at)),
                Item::Open(number) => {
                    self.open.push((number, at));
                    let end = self.matches(rest, at)?;
                    if end.is_none() {
                        self.open.pop();
                    }
                    return Ok(end);
                }
                Item::Close => {
                    let Some((number, start)) = self.open.pop() else {
                        return Err(EvalError::BadPattern);
                    };
                    let place = self.captures.partition_point(|(known, _)| *known < number);
                    self.captures.insert(place, (number, start..at));
                    let end = self.matches(rest, at)?;
                    if end.is_none() {
                        self.captures.retain(|(known, _)| *known != number);
                        self.open.push((number, start));
                    }
                    return Ok(end);
                }
                Item::One(class, Times::Once) => match self.text.get(at) {
                    Some(byte) if class.fits(*byte) => {
                        at = at.saturating_add(1);
                        items = rest;
                    }
                    _ => return Ok(None),
                },
                Item::One(class, Times::Few) => loop {
                    if let Some(end) = self.matches(rest, at)? {
                        return Ok(Some(end));
                    }
                    match self.text.get(at) {
                        Some(byte) if class.fits(*byte) => at = at.saturating_add(1),
                        _ => return Ok(None),
                    }
                },
                Item::One(class, times) => {
                    let least = usize::from(times == Times::Some);
                    let most = if times == Times::Maybe { 1 } else { usize::MAX };
                    let fitting = self
                        .text
                        .get(at..)
                        .unwrap_or_default()
                        .iter()
                        .take(most)
                        .take_while(|byte| class.fits(**byte))
                        .count();
                    let mut taken = fitting;
                    self.left = self
                        .left
                        .saturating_sub(u32::try_from(fitting / 16).unwrap_or(u32::MAX));
                    loop {
                        if taken < least {
                            return Ok(None);
                        }
                        if let Some(end) = self.matches(rest, at.saturating_add(taken))? {
                            return Ok(Some(end));
                        }
                        match taken.checked_sub(1) {
                            Some(fewer) => taken = fewer,
                            None => return Ok(None),
                        }
                    }
                }
            }
        }
    }
}
