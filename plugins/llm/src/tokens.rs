//! JSON read as it arrives.
//!
//! A [`Reader`] takes a text in chunks of any size and tells a [`Shape`] what stands where. It keeps one small frame for
//! each open container and the first [`HEAD`] bytes of the current string or number, so a body of any size is read in one pass
//! and in bounded memory. Requests, whole answers and the data of each event of a stream are all read by it.
//!
//! It accepts exactly what [`tollgate_kit::json`] accepts; a property test holds the two together.

use crate::json::MAX_DEPTH;

/// How much of a string or number is kept, in bytes of its decoded content. Longer ones are still measured.
pub const HEAD: usize = 256;

/// Why a text can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Occurs when the text is not JSON ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259)); the offset is that of the first
    /// byte that does not fit, counted from the start of the text.
    Syntax(u64),
    /// Occurs when containers nest deeper than [`tollgate_kit::json::MAX_DEPTH`].
    Deep,
    /// Occurs when something follows the outermost value; the offset is where.
    Trailing(u64),
}

/// A string's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Its first [`HEAD`] bytes, escapes resolved. A lone surrogate is U+FFFD.
    pub head: &'a [u8],
    /// Its whole length in bytes, escapes resolved.
    pub len: u64,
}

impl<'a> Text<'a> {
    /// The whole content, where it is not longer than what is kept.
    pub fn whole(self) -> Option<&'a [u8]> {
        (self.len == self.head.len() as u64).then_some(self.head)
    }
}

/// A value that holds no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is spelled.
    Number(Text<'a>),
    /// A string.
    String(Text<'a>),
}

impl Scalar<'_> {
    /// A count: an integer from 0 to `most`, spelled in digits only. `10.0` and `1e3` are none, because decoders disagree about
    /// whether they are integers.
    pub fn count(self, most: u64) -> Option<u64> {
        let Scalar::Number(text) = self else {
            return None;
        };
        let digits = text.whole()?;
        let number = digits.iter().try_fold(0u64, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| digit.wrapping_sub(b'0'))?;
            number.checked_mul(10)?.checked_add(u64::from(digit))
        })?;
        (number <= most).then_some(number)
    }
}

/// Where a value stands, in bytes from the start of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
}

/// What is looked for in a text. A `Place` says where in it a value stands, as far as that matters.
pub trait Shape {
    /// A place in the text.
    type Place: Copy;

    /// The place of the outermost value.
    fn root(&mut self) -> Self::Place;
    /// The place of an object's member.
    fn member(&mut self, of: Self::Place, name: Text<'_>) -> Self::Place;
    /// The place of an array's element.
    fn element(&mut self, of: Self::Place) -> Self::Place;
    /// A scalar.
    fn scalar(&mut self, at: Self::Place, scalar: Scalar<'_>, span: Span);
    /// An object (else an array) begins; `offset` is that of its bracket.
    fn begin(&mut self, at: Self::Place, object: bool, offset: u64);
    /// It has ended, and held `members` members or elements.
    fn end(&mut self, at: Self::Place, object: bool, members: u64, span: Span);
}

/// An open container.
#[derive(Clone, Copy, Debug)]
struct Frame<P> {
    place: P,
    object: bool,
    members: u64,
    start: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must follow.
    Value,
    /// A value, or the end of an array that is empty so far.
    FirstElement,
    /// A member's name, or the end of an object that is empty so far.
    FirstName,
    /// A member's name.
    Name,
    Colon,
    /// Behind a value in a container.
    After,
    /// Inside a string; of a member's name if `name`.
    String {
        name: bool,
    },
    Escape {
        name: bool,
    },
    /// Inside `\uXXXX`, with the digits still to come.
    Unit {
        name: bool,
        left: u8,
        unit: u32,
    },
    Number(Digits),
    Word {
        word: &'static [u8],
        read: usize,
    },
    /// Behind the outermost value.
    Done,
}

/// How far a number has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Digits {
    /// The state behind one more byte; `None` where the byte is not part of the number.
    fn next(self, byte: u8) -> Option<Digits> {
        use Digits::{Exponent, Fraction, Integer, Minus, Point, Power, Sign, Zero};
        match (self, byte) {
            (Minus, b'0') => Some(Zero),
            (Minus, b'1'..=b'9') | (Integer, b'0'..=b'9') => Some(Integer),
            (Zero | Integer, b'.') => Some(Point),
            (Point | Fraction, b'0'..=b'9') => Some(Fraction),
            (Zero | Integer | Fraction, b'e' | b'E') => Some(Exponent),
            (Exponent, b'+' | b'-') => Some(Sign),
            (Exponent | Sign | Power, b'0'..=b'9') => Some(Power),
            _ => None,
        }
    }

    /// Whether the number may end here.
    fn complete(self) -> bool {
        matches!(
            self,
            Digits::Zero | Digits::Integer | Digits::Fraction | Digits::Power
        )
    }
}

/// Reads one text.
#[derive(Clone, Debug)]
pub struct Reader<P> {
    state: State,
    open: Vec<Frame<P>>,
    /// The place of the value that comes or is being read; `None` before the outermost one.
    place: Option<P>,
    head: Vec<u8>,
    len: u64,
    /// The first half of a surrogate pair, whose second half may follow.
    high: Option<u32>,
    /// How much of the text has been read.
    offset: u64,
    /// Where the scalar began.
    start: u64,
    broken: Option<Broken>,
}

impl<P: Copy> Default for Reader<P> {
    fn default() -> Self {
        Reader {
            state: State::Value,
            open: Vec::new(),
            place: None,
            head: Vec::new(),
            len: 0,
            high: None,
            offset: 0,
            start: 0,
            broken: None,
        }
    }
}

impl<P: Copy> Reader<P> {
    /// Makes it ready for another text, and keeps its buffers.
    pub fn restart(&mut self) {
        self.state = State::Value;
        self.open.clear();
        self.place = None;
        self.head.clear();
        self.len = 0;
        self.high = None;
        self.offset = 0;
        self.start = 0;
        self.broken = None;
    }

    /// Whether nothing but white space has come yet.
    pub fn is_fresh(&self) -> bool {
        self.state == State::Value && self.open.is_empty()
    }

    /// Whether a whole value has been read.
    pub fn is_complete(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the text has turned out to be broken.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Reads the next chunk.
    ///
    /// # Errors
    /// When the text is broken, and from then on at each call.
    pub fn feed<S: Shape<Place = P>>(&mut self, chunk: &[u8], shape: &mut S) -> Result<(), Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let result = self.read(chunk, shape);
        self.broken = result.err();
        result
    }

    /// The text has ended.
    ///
    /// # Errors
    /// When it was broken or is not complete.
    pub fn end<S: Shape<Place = P>>(&mut self, shape: &mut S) -> Result<(), Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if let State::Number(digits) = self.state
            && digits.complete()
        {
            self.number(shape);
        }
        if self.state == State::Done {
            Ok(())
        } else {
            Err(Broken::Syntax(self.offset))
        }
    }

    fn read<S: Shape<Place = P>>(&mut self, chunk: &[u8], shape: &mut S) -> Result<(), Broken> {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            if let State::String { .. } = self.state {
                let plain = rest
                    .iter()
                    .position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20))
                    .unwrap_or(rest.len());
                if plain > 0 {
                    let (run, tail) = rest.split_at_checked(plain).unwrap_or((rest, &[]));
                    self.lone_surrogate();
                    self.content(run);
                    self.offset = self.offset.saturating_add(run.len() as u64);
                    rest = tail;
                    continue;
                }
            }
            if let State::Number(mut digits) = self.state {
                let mut length = 0usize;
                while let Some(next) = rest.get(length).and_then(|&byte| digits.next(byte)) {
                    digits = next;
                    length = length.saturating_add(1);
                }
                let (run, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                self.state = State::Number(digits);
                self.content(run);
                self.offset = self.offset.saturating_add(run.len() as u64);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
                if !digits.complete() {
                    return Err(Broken::Syntax(self.offset));
                }
                self.number(shape);
                continue;
            }
            self.byte(byte, shape)?;
            self.offset = self.offset.saturating_add(1);
            rest = tail;
        }
        Ok(())
    }

    /// One byte outside the plain part of strings and outside numbers.
    fn byte<S: Shape<Place = P>>(&mut self, byte: u8, shape: &mut S) -> Result<(), Broken> {
        let wrong = Err(Broken::Syntax(self.offset));
        let white = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::Value
            | State::FirstElement
            | State::FirstName
            | State::Name
            | State::Colon
            | State::After
            | State::Done
                if white => {}
            State::FirstElement if byte == b']' => self.close(false, shape),
            State::Value | State::FirstElement => return self.value(byte, shape),
            State::FirstName if byte == b'}' => self.close(true, shape),
            State::FirstName | State::Name => {
                if byte != b'"' {
                    return wrong;
                }
                self.scalar_begins();
                self.state = State::String { name: true };
            }
            State::Colon => {
                if byte != b':' {
                    return wrong;
                }
                self.state = State::Value;
            }
            State::After => match (byte, self.open.last().is_some_and(|frame| frame.object)) {
                (b',', true) => self.state = State::Name,
                (b',', false) => {
                    self.place = None;
                    self.state = State::Value;
                }
                (b'}', true) => self.close(true, shape),
                (b']', false) => self.close(false, shape),
                _ => return wrong,
            },
            State::String { name } => match byte {
                b'"' => self.string_ends(name, shape),
                b'\\' => self.state = State::Escape { name },
                _ => return wrong,
            },
            State::Escape { name } => {
                if byte != b'u' {
                    self.lone_surrogate();
                }
                let meant = match byte {
                    b'"' | b'\\' | b'/' => byte,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'u' => {
                        self.state = State::Unit {
                            name,
                            left: 4,
                            unit: 0,
                        };
                        return Ok(());
                    }
                    _ => return wrong,
                };
                self.content(&[meant]);
                self.state = State::String { name };
            }
            State::Unit { name, left, unit } => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    return wrong;
                };
                let unit = unit << 4 | digit;
                self.state = match left {
                    0 | 1 => {
                        self.unit(unit);
                        State::String { name }
                    }
                    _ => State::Unit {
                        name,
                        left: left.saturating_sub(1),
                        unit,
                    },
                };
            }
            State::Word { word, read } => {
                if word.get(read) != Some(&byte) {
                    return wrong;
                }
                let read = read.saturating_add(1);
                self.state = State::Word { word, read };
                if read == word.len() {
                    let scalar = match word {
                        b"true" => Scalar::Bool(true),
                        b"false" => Scalar::Bool(false),
                        _ => Scalar::Null,
                    };
                    let at = self.place(shape);
                    shape.scalar(at, scalar, self.span(1));
                    self.value_ended();
                }
            }
            State::Done => return Err(Broken::Trailing(self.offset)),
            State::Number(_) => return wrong,
        }
        Ok(())
    }

    /// The first byte of a value.
    fn value<S: Shape<Place = P>>(&mut self, byte: u8, shape: &mut S) -> Result<(), Broken> {
        self.state = match byte {
            b'{' | b'[' => {
                if self.open.len() >= MAX_DEPTH {
                    return Err(Broken::Deep);
                }
                let object = byte == b'{';
                let place = self.place(shape);
                shape.begin(place, object, self.offset);
                self.open.push(Frame {
                    place,
                    object,
                    members: 0,
                    start: self.offset,
                });
                self.place = None;
                if object {
                    State::FirstName
                } else {
                    State::FirstElement
                }
            }
            b'"' => {
                self.scalar_begins();
                State::String { name: false }
            }
            b'-' | b'0'..=b'9' => {
                self.scalar_begins();
                self.content(&[byte]);
                State::Number(match byte {
                    b'-' => Digits::Minus,
                    b'0' => Digits::Zero,
                    _ => Digits::Integer,
                })
            }
            b't' | b'f' | b'n' => {
                self.scalar_begins();
                let word: &'static [u8] = match byte {
                    b't' => b"true",
                    b'f' => b"false",
                    _ => b"null",
                };
                State::Word { word, read: 1 }
            }
            _ => return Err(Broken::Syntax(self.offset)),
        };
        Ok(())
    }

    /// The place of the value that begins or ends here. Asked for once a value: at the name of a member, else at the value.
    fn place<S: Shape<Place = P>>(&mut self, shape: &mut S) -> P {
        if let Some(place) = self.place {
            return place;
        }
        match self.open.last() {
            Some(frame) => shape.element(frame.place),
            None => shape.root(),
        }
    }

    fn scalar_begins(&mut self) {
        self.head.clear();
        self.len = 0;
        self.high = None;
        self.start = self.offset;
    }

    /// From the scalar's start to here and `more` bytes further.
    fn span(&self, more: u64) -> Span {
        Span {
            start: self.start,
            end: self.offset.saturating_add(more),
        }
    }

    fn string_ends<S: Shape<Place = P>>(&mut self, name: bool, shape: &mut S) {
        self.lone_surrogate();
        if name {
            let text = Text {
                head: &self.head,
                len: self.len,
            };
            self.place = self
                .open
                .last()
                .map(|frame| shape.member(frame.place, text));
            self.state = State::Colon;
            return;
        }
        let at = self.place(shape);
        let text = Text {
            head: &self.head,
            len: self.len,
        };
        shape.scalar(at, Scalar::String(text), self.span(1));
        self.value_ended();
    }

    fn number<S: Shape<Place = P>>(&mut self, shape: &mut S) {
        let at = self.place(shape);
        let text = Text {
            head: &self.head,
            len: self.len,
        };
        shape.scalar(at, Scalar::Number(text), self.span(0));
        self.value_ended();
    }

    fn close<S: Shape<Place = P>>(&mut self, object: bool, shape: &mut S) {
        if let Some(frame) = self.open.pop() {
            let span = Span {
                start: frame.start,
                end: self.offset.saturating_add(1),
            };
            shape.end(frame.place, object, frame.members, span);
        }
        self.value_ended();
    }

    fn value_ended(&mut self) {
        self.place = None;
        self.state = match self.open.last_mut() {
            Some(frame) => {
                frame.members = frame.members.saturating_add(1);
                State::After
            }
            None => State::Done,
        };
    }

    /// Adds to the content of the current scalar.
    fn content(&mut self, bytes: &[u8]) {
        let room = HEAD.saturating_sub(self.head.len());
        self.head
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.len = self.len.saturating_add(bytes.len() as u64);
    }

    /// One UTF-16 code unit of an escape (RFC 8259 section 7).
    fn unit(&mut self, unit: u32) {
        match (self.high.take(), unit) {
            (Some(high), 0xDC00..=0xDFFF) => {
                let point = ((high & 0x3FF) << 10 | (unit & 0x3FF)).saturating_add(0x10000);
                self.character(point);
            }
            (before, _) => {
                if before.is_some() {
                    self.character(0xFFFD);
                }
                if let 0xD800..=0xDBFF = unit {
                    self.high = Some(unit);
                } else {
                    self.character(unit);
                }
            }
        }
    }

    /// The first half of a pair was not followed by a second.
    fn lone_surrogate(&mut self) {
        if self.high.take().is_some() {
            self.character(0xFFFD);
        }
    }

    fn character(&mut self, point: u32) {
        let character = char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.content(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

#[cfg(test)]
mod tests;
