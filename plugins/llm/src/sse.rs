//! Server-sent events ([HTML Living Standard, section
//! 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html)), read as they arrive.
//!
//! A [`Parser`] takes a stream in chunks of any size. It tells the data of events as it comes, and each event as a whole with its exact
//! bytes when it has ended, so that a filter can pass, change or swallow it. What it holds is one unfinished event, and no more of it
//! than its limit: the bytes of a larger event are let go at once, and its data is still told.
//!
//! An event ends at its blank line, and with the line feed of that line where the two bytes of a CR LF are in two chunks: so an event
//! whose lines end in CR alone is told when the next byte comes.

use std::borrow::Cow;

/// What a parser tells. All bytes of a stream come in order, either as the raw bytes of an [`Event`] or through
/// [`Sink::released`], none twice.
pub trait Sink {
    /// More data of the event that is being read, with a line feed between its lines.
    fn data(&mut self, fragment: &[u8]);
    /// Bytes of an event that is larger than the parser's limit.
    fn released(&mut self, raw: &[u8]);
    /// An event has ended.
    fn event(&mut self, event: Event<'_>);
}

/// An event, or a comment, or whatever else ends with a blank line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its bytes with the blank line; empty if they were released.
    pub raw: &'a [u8],
    /// Its `event` field, cut off at 64 bytes; empty if there is none.
    pub name: &'a [u8],
    /// Whether it has a data field. One without is no event to a client (a comment that keeps the connection open, say).
    pub has_data: bool,
    /// Whether it was too large to be held.
    pub released: bool,
    /// Whether the stream ended before its blank line. Clients that follow the standard drop such an event.
    pub cut_off: bool,
    /// Whether a byte order mark stands in front of it.
    marked: bool,
}

const MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];
const NAME: usize = 64;

impl<'a> Event<'a> {
    /// Its data, lines joined with a line feed. Empty if it was released.
    pub fn data(&self) -> Cow<'a, [u8]> {
        let mut lines = self.lines().filter_map(|line| line.data());
        let first = lines.next().unwrap_or_default();
        let Some(second) = lines.next() else {
            return Cow::Borrowed(first);
        };
        let mut data = first.to_vec();
        for line in std::iter::once(second).chain(lines) {
            data.push(b'\n');
            data.extend_from_slice(line);
        }
        Cow::Owned(data)
    }

    /// The event with other data, where the first line of its data stood; all other fields stay byte for byte.
    pub fn with_data(&self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw.len());
        if self.marked {
            out.extend_from_slice(&MARK);
        }
        let mut written = false;
        for line in self.lines() {
            if line.data().is_none() {
                out.extend_from_slice(line.content);
                out.extend_from_slice(line.end);
            } else if !written {
                written = true;
                let end = if line.end.is_empty() { b"\n" } else { line.end };
                for data in data.split(|&byte| byte == b'\n') {
                    out.extend_from_slice(b"data: ");
                    out.extend_from_slice(data);
                    out.extend_from_slice(end);
                }
            }
        }
        out
    }

    fn lines(&self) -> Lines<'a> {
        let raw = if self.marked {
            self.raw.strip_prefix(&MARK).unwrap_or(self.raw)
        } else {
            self.raw
        };
        Lines { rest: raw }
    }
}

struct Line<'a> {
    content: &'a [u8],
    end: &'a [u8],
}

impl<'a> Line<'a> {
    /// Its value, if its field is `data`.
    fn data(&self) -> Option<&'a [u8]> {
        let rest = self.content.strip_prefix(b"data")?;
        match rest.split_first() {
            None => Some(rest),
            Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
            Some(_) => None,
        }
    }
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let length = self
            .rest
            .iter()
            .position(|byte| matches!(byte, b'\r' | b'\n'))
            .unwrap_or(self.rest.len());
        let (content, rest) = self.rest.split_at_checked(length)?;
        let end = match rest {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let (end, rest) = rest.split_at_checked(end)?;
        self.rest = rest;
        Some(Line { content, end })
    }
}

/// How far the current line has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// In front of its first byte.
    Start,
    /// In a name that so far is the start of this field's.
    Name(Field, usize),
    /// Behind the colon.
    Colon(Field),
    Value(Field),
    /// In a comment or a field that does not matter.
    Aside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Data,
    Event,
}

impl Field {
    fn name(self) -> &'static [u8] {
        match self {
            Field::Data => b"data",
            Field::Event => b"event",
        }
    }
}

/// Reads one stream.
#[derive(Clone, Debug)]
pub struct Parser {
    limit: usize,
    held: Vec<u8>,
    /// The bytes of the event so far, held or not.
    size: usize,
    released: bool,
    too_large: u32,
    position: Position,
    /// The last byte was a CR, and ended a line.
    after_cr: bool,
    /// That line was blank: the event ends here, or behind the LF that follows.
    ending: bool,
    name: Vec<u8>,
    has_data: bool,
    /// How many bytes of a byte order mark have come; `None` when it is too late for one.
    mark: Option<usize>,
    /// The event begins with one.
    marked: bool,
}

impl Parser {
    /// A parser that holds unfinished events of up to `limit` bytes. With 0 it holds nothing, and every event is released.
    pub fn new(limit: usize) -> Parser {
        Parser {
            limit,
            held: Vec::new(),
            size: 0,
            released: limit == 0,
            too_large: 0,
            position: Position::Start,
            after_cr: false,
            ending: false,
            name: Vec::new(),
            has_data: false,
            mark: Some(0),
            marked: false,
        }
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many events were larger than its limit.
    pub fn too_large(&self) -> u32 {
        self.too_large
    }

    /// Whether an event has begun, and its first bytes have been released.
    pub fn is_releasing(&self) -> bool {
        self.released && self.size > 0
    }

    /// Gives up what it holds, and starts over.
    pub fn take(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        *self = Parser::new(self.limit);
        held
    }

    /// Reads the next chunk.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl Sink) {
        // What is not yet told of this chunk, and what is not yet read of it.
        let mut told = chunk;
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            if self.after_cr {
                self.after_cr = false;
                let behind = if byte == b'\n' { tail } else { rest };
                if std::mem::take(&mut self.ending) {
                    told = self.event_ended(told, behind, sink);
                }
                if byte == b'\n' {
                    rest = tail;
                    continue;
                }
            }
            match byte {
                b'\n' | b'\r' => {
                    rest = tail;
                    let blank = self.line_ended(sink);
                    if byte == b'\r' {
                        self.after_cr = true;
                        self.ending = blank;
                    } else if blank {
                        told = self.event_ended(told, tail, sink);
                    }
                }
                _ => rest = self.content(rest, sink),
            }
        }
        self.keep(told, sink);
    }

    /// The stream has ended; what it held is told as a last event.
    pub fn end(&mut self, sink: &mut impl Sink) {
        if self.size == 0 {
            return;
        }
        let cut_off = !self.ending;
        if cut_off {
            self.line_ended(sink);
        }
        self.tell(cut_off, sink);
    }

    /// Reads what is not the end of a line; the bytes behind it are left.
    fn content<'a>(&mut self, rest: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        let (&byte, tail) = match rest.split_first() {
            Some(split) => split,
            None => return rest,
        };
        if let Some(come) = self.mark {
            if MARK.get(come) == Some(&byte) {
                let come = come.saturating_add(1);
                self.marked = come == MARK.len();
                self.mark = (!self.marked).then_some(come);
                return tail;
            }
            self.mark = None;
            // The beginning of a mark and no more is the name of a field that does not matter.
            if come > 0 {
                self.position = Position::Aside;
            }
        }
        self.position = match self.position {
            Position::Start => match byte {
                b'd' => Position::Name(Field::Data, 1),
                b'e' => Position::Name(Field::Event, 1),
                _ => Position::Aside,
            },
            Position::Name(field, read) if read == field.name().len() => {
                if byte == b':' {
                    self.value_begins(field, sink);
                    Position::Colon(field)
                } else {
                    Position::Aside
                }
            }
            Position::Name(field, read) => {
                if field.name().get(read) == Some(&byte) {
                    Position::Name(field, read.saturating_add(1))
                } else {
                    Position::Aside
                }
            }
            Position::Colon(field) if byte == b' ' => Position::Value(field),
            Position::Colon(_) | Position::Value(_) | Position::Aside => {
                let length = rest
                    .iter()
                    .position(|byte| matches!(byte, b'\r' | b'\n'))
                    .unwrap_or(rest.len());
                let (value, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                if let Position::Colon(field) | Position::Value(field) = self.position {
                    self.value(field, value, sink);
                    self.position = Position::Value(field);
                }
                return behind;
            }
        };
        tail
    }

    fn value_begins(&mut self, field: Field, sink: &mut impl Sink) {
        match field {
            Field::Data if self.has_data => sink.data(b"\n"),
            Field::Data => self.has_data = true,
            Field::Event => self.name.clear(),
        }
    }

    fn value(&mut self, field: Field, value: &[u8], sink: &mut impl Sink) {
        match field {
            Field::Data => sink.data(value),
            Field::Event => {
                let room = NAME.saturating_sub(self.name.len());
                self.name
                    .extend_from_slice(value.get(..room).unwrap_or(value));
            }
        }
    }

    /// A line has ended; whether it was blank.
    fn line_ended(&mut self, sink: &mut impl Sink) -> bool {
        // A name without a colon is a field with an empty value.
        if let Position::Name(field, read) = self.position
            && read == field.name().len()
        {
            self.value_begins(field, sink);
        }
        let partial_mark = self.mark.take().is_some_and(|come| come > 0);
        std::mem::replace(&mut self.position, Position::Start) == Position::Start && !partial_mark
    }

    /// Keeps bytes of the event that is being read, or releases them.
    fn keep(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        if bytes.is_empty() {
            return;
        }
        self.size = self.size.saturating_add(bytes.len());
        if !self.released && self.size > self.limit {
            self.release(sink);
        }
        if self.released {
            sink.released(bytes);
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn release(&mut self, sink: &mut impl Sink) {
        self.released = true;
        self.too_large = self.too_large.saturating_add(1);
        if !self.held.is_empty() {
            sink.released(&self.held);
        }
        // A buffer that an event has blown up is not kept.
        self.held = Vec::new();
    }

    /// The event has ended where `behind` begins, which is the end of `told`; gives `behind` back.
    fn event_ended<'a>(
        &mut self,
        told: &'a [u8],
        behind: &'a [u8],
        sink: &mut impl Sink,
    ) -> &'a [u8] {
        let length = told.len().saturating_sub(behind.len());
        let bytes = told.get(..length).unwrap_or(told);
        let size = self.size.saturating_add(bytes.len());
        if self.held.is_empty() && !self.released && size <= self.limit {
            // All of it is in this chunk: nothing is copied.
            let event = Event {
                raw: bytes,
                name: &self.name,
                has_data: self.has_data,
                released: false,
                cut_off: false,
                marked: self.marked,
            };
            sink.event(event);
            self.next();
        } else {
            self.keep(bytes, sink);
            self.tell(false, sink);
        }
        behind
    }

    fn tell(&mut self, cut_off: bool, sink: &mut impl Sink) {
        sink.event(Event {
            raw: &self.held,
            name: &self.name,
            has_data: self.has_data,
            released: self.released,
            cut_off,
            marked: self.marked,
        });
        self.next();
    }

    fn next(&mut self) {
        self.held.clear();
        self.size = 0;
        self.released = self.limit == 0;
        self.ending = false;
        self.name.clear();
        self.has_data = false;
        self.marked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Log {
        /// Name, data as told piece by piece, raw bytes.
        events: Vec<(String, Option<String>, String)>,
        data: Vec<u8>,
        all: Vec<u8>,
        released: usize,
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    impl Sink for Log {
        fn data(&mut self, fragment: &[u8]) {
            self.data.extend_from_slice(fragment);
        }
        fn released(&mut self, raw: &[u8]) {
            self.all.extend_from_slice(raw);
            self.released += raw.len();
        }
        fn event(&mut self, event: Event<'_>) {
            self.all.extend_from_slice(event.raw);
            let data = std::mem::take(&mut self.data);
            if !event.released {
                assert_eq!(text(&event.data()), text(&data), "{event:?}");
            }
            self.events.push((
                text(event.name),
                event.has_data.then(|| text(&data)),
                text(event.raw),
            ));
        }
    }

    fn parse(chunks: &[&[u8]], limit: usize) -> (Log, Parser) {
        let (mut log, mut parser) = (Log::default(), Parser::new(limit));
        for chunk in chunks {
            parser.feed(chunk, &mut log);
        }
        parser.end(&mut log);
        (log, parser)
    }

    fn data(stream: &str) -> Vec<Option<String>> {
        parse(&[stream.as_bytes()], 1000)
            .0
            .events
            .into_iter()
            .map(|(_, data, _)| data)
            .collect()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_form_of_the_standard_is_read() {
        for (stream, events) in [
            ("data: a\n\ndata: b\n\n", vec![some("a"), some("b")]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec![some("a"), some("b")]),
            ("data: a\r\rdata: b\r\r", vec![some("a"), some("b")]),
            ("data: a\r\n\ndata: b\n\r\n", vec![some("a"), some("b")]),
            ("\u{FEFF}data: a\n\n", vec![some("a")]),
            ("data:a\n\n", vec![some("a")]),
            ("data:  a \n\n", vec![some(" a ")]),
            ("data: a\ndata: b\n\n", vec![some("a\nb")]),
            ("data\ndata\n\n", vec![some("\n")]),
            ("data\n\n", vec![some("")]),
            (": comment\n\n", vec![None]),
            (": comment\ndata: a\n\n", vec![some("a")]),
            ("id: 1\nevent: e\ndata: a\nretry: 5\n\n", vec![some("a")]),
            ("dat: a\ndatax: b\n data: c\n\n", vec![None]),
            ("data: a", vec![some("a")]),
            ("data: a\n", vec![some("a")]),
            ("", vec![]),
        ] {
            assert_eq!(data(stream), events, "{stream:?}");
        }
    }

    #[test]
    fn names_are_told_with_their_event() {
        let (log, _) = parse(&[b"event: x\nevent:ping\ndata: 1\n\ndata: 2\n\n"], 1000);
        let names: Vec<_> = log.events.iter().map(|event| event.0.as_str()).collect();
        assert_eq!(names, ["ping", ""]);
    }

    #[test]
    fn an_event_too_large_passes_and_is_counted() {
        let large = format!("data: {}\r\n\r\n", "x".repeat(5000));
        let stream = format!("data: a\n\n{large}data: b\n\n");
        for size in [1, 7, 100, 100_000] {
            let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let (log, parser) = parse(&chunks, 64);
            assert_eq!(text(&log.all), stream);
            assert_eq!((parser.too_large(), log.released), (1, large.len()));
            assert_eq!(log.events.len(), 3);
            assert_eq!(
                log.events[1].1.as_ref().map(String::len),
                Some(5000),
                "its data is told all the same"
            );
            assert_eq!(log.events[2].1.as_deref(), Some("b"));
        }
    }

    #[test]
    fn no_more_is_held_than_the_limit() {
        let (mut log, mut parser) = (Log::default(), Parser::new(100));
        for _ in 0..10_000 {
            parser.feed(b"data: endless", &mut log);
            assert!(parser.held() <= 100);
        }
        assert!(parser.held.capacity() <= 256);
    }

    #[test]
    fn data_can_be_replaced() {
        let replaced = |raw: &str, data: &str| {
            struct Replace<'a>(&'a str, String);
            impl Sink for Replace<'_> {
                fn data(&mut self, _: &[u8]) {}
                fn released(&mut self, _: &[u8]) {}
                fn event(&mut self, event: Event<'_>) {
                    self.1 += &text(&event.with_data(self.0.as_bytes()));
                }
            }
            let mut sink = Replace(data, String::new());
            Parser::new(1000).feed(raw.as_bytes(), &mut sink);
            sink.1
        };
        assert_eq!(replaced("data: a\n\n", "b"), "data: b\n\n");
        assert_eq!(
            replaced("\u{FEFF}id: 1\r\ndata:a\r\ndata:c\r\n: x\r\n\r\n", "b\nd"),
            "\u{FEFF}id: 1\r\ndata: b\r\ndata: d\r\n: x\r\n\r\n"
        );
    }

    /// Streams of all the pieces that matter, well-formed and not.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("data: {\"a\":\"é\"}"),
            Just("data"),
            Just("data:"),
            Just("event: ping"),
            Just("id:7"),
            Just(": note"),
            Just("\n"),
            Just("\r\n"),
            Just("\r"),
            Just("\n\n"),
            Just("\r\n\r\n"),
            Just("\u{FEFF}"),
            Just("dat"),
            Just("[DONE]"),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn every_chunking_gives_the_same_events(stream in streams(), cuts in proptest::collection::vec(0usize..200, 0..6), limit in 0usize..80) {
            let (whole, parser) = parse(&[&stream], limit);
            prop_assert_eq!(&whole.all, &stream, "what is passed is what came");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([stream.len()]) {
                chunks.push(&stream[from..cut]);
                from = cut;
            }
            let (cut, other) = parse(&chunks, limit);
            prop_assert_eq!(&cut, &whole);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&parse(&bytes, limit).0, &whole);
            prop_assert_eq!(other.too_large(), parser.too_large());
        }

        #[test]
        fn any_bytes_pass(stream in proptest::collection::vec(any::<u8>(), 0..100), limit in 0usize..50) {
            let bytes: Vec<&[u8]> = stream.chunks(3).collect();
            prop_assert_eq!(parse(&bytes, limit).0.all, stream);
        }
    }
}
