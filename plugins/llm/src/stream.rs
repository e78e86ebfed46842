//! A streamed answer: what it uses, what of it the client is to see, and how it is ended early.
//!
//! Whether it is a stream of events or a JSON body is judged by its first byte. Either way it passes chunk by chunk; what is held is
//! one unfinished event, where events are edited at all.

use crate::answer::{Answer, Dialect, UsageMember};
use crate::api::Api;
use crate::finish;
use crate::json::Value;
use crate::sse::{Event, Parser, Sink};

/// What becomes of a chunk.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// It passes as it is.
    Pass,
    /// These bytes take its place; none if it is swallowed or held.
    Replace(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Nothing but white space and byte order marks so far.
    Unknown,
    Events,
    Json,
}

/// Whether the client still gets the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Client {
    Listening,
    /// It gets the rest of an event of which it has the beginning, and then these bytes.
    Ending(Vec<u8>),
    Ended,
}

/// The marker that ends OpenAI's streams.
const DONE: &[u8] = b"[DONE]";

/// A streamed answer as far as it has been read.
#[derive(Clone, Debug)]
pub struct Stream {
    form: Form,
    parser: Parser,
    reading: Reading,
}

/// All but the parser, which tells it what it reads.
#[derive(Clone, Debug)]
struct Reading {
    answer: Answer,
    hide_usage: bool,
    client: Client,
    done: bool,
    /// The first bytes of the event's data.
    head: Vec<u8>,
    hidden: u32,
}

impl Stream {
    /// A stream that is only watched: every chunk passes, nothing is held.
    pub fn watched() -> Stream {
        Stream::new(0, false)
    }

    /// A stream whose events may be changed: an unfinished event of up to `hold` bytes waits for its end. With `hide_usage` what the
    /// gateway asked for by [`include_usage`](crate::Change) and the client did not is taken out: the event that has the usage and
    /// nothing else, and `"usage": null` in the others. An event larger than `hold` passes with all it has.
    pub fn edited(hold: usize, hide_usage: bool) -> Stream {
        Stream::new(hold, hide_usage)
    }

    fn new(hold: usize, hide_usage: bool) -> Stream {
        Stream {
            form: Form::Unknown,
            parser: Parser::new(hold),
            reading: Reading {
                answer: Answer::default(),
                hide_usage,
                client: Client::Listening,
                done: false,
                head: Vec::new(),
                hidden: 0,
            },
        }
    }

    /// Reads the next chunk and says what the client gets of it. After [`Stream::cut`] it is still read, for its usage.
    pub fn feed(&mut self, chunk: &[u8]) -> Output {
        let mut held = Vec::new();
        let mut body = chunk;
        if self.form == Form::Unknown
            && let Some((start, first)) = chunk.iter().enumerate().find(|(_, byte)| {
                !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF)
            })
        {
            self.form = if matches!(first, b'{' | b'[') {
                // A mark in front of it is no part of the JSON.
                body = chunk.get(start..).unwrap_or_default();
                held = self.parser.take();
                Form::Json
            } else {
                Form::Events
            };
        }
        if self.form == Form::Json {
            self.reading.answer.feed(body);
            return if held.is_empty() {
                Output::Pass
            } else {
                held.extend_from_slice(chunk);
                Output::Replace(held)
            };
        }
        let mut weaver = Weaver {
            reading: &mut self.reading,
            chunk,
            passed: 0,
            // Held bytes go in front: then the output is no beginning of the chunk.
            out: (self.parser.held() > 0).then(Vec::new),
        };
        self.parser.feed(chunk, &mut weaver);
        weaver.output()
    }

    /// The upstream has ended. Gives what was still held back.
    pub fn end(&mut self) -> Vec<u8> {
        if self.form == Form::Json {
            self.reading.answer.end();
            return Vec::new();
        }
        let mut weaver = Weaver {
            reading: &mut self.reading,
            chunk: &[],
            passed: 0,
            out: Some(Vec::new()),
        };
        self.parser.end(&mut weaver);
        let mut out = weaver.out.unwrap_or_default();
        if let Client::Ending(finish) = &mut self.reading.client {
            out.append(finish);
            self.reading.client = Client::Ended;
        }
        out
    }

    /// Ends the stream for the client, at the end of the current event: gives the bytes to send now. They say that the answer has
    /// reached its limit, in the way of the API that `api` or the stream itself names (see [`finish`]).
    /// Where the beginning of an event has already passed, they come with that event's end from [`Stream::feed`] or
    /// [`Stream::end`]. The upstream goes on being read: what it sends is charged, but not shown.
    ///
    /// `completion` is the number of completion tokens so far, as far as known; Anthropic's clients are told.
    ///
    /// Nothing is cut, and nothing given, where the stream has ended already, has not begun, or is a JSON body or array, whose end can't be
    /// written between two chunks; see [`Stream::is_cut`].
    pub fn cut(&mut self, api: Api, completion: u64) -> Vec<u8> {
        let listening = self.reading.client == Client::Listening;
        if !listening || self.is_complete() || self.form != Form::Events {
            return Vec::new();
        }
        let dialect = self.reading.answer.dialect().or(match api {
            Api::Chat => Some(Dialect::Chat),
            Api::Completions => Some(Dialect::Completions),
            Api::Responses => Some(Dialect::Responses),
            Api::Messages => Some(Dialect::Messages),
            Api::Generate => Some(Dialect::Generate),
            _ => None,
        });
        let bytes = dialect.map_or_else(Vec::new, |dialect| {
            finish::at_limit(&self.reading.answer.told, dialect, completion)
        });
        if self.parser.is_releasing() {
            self.reading.client = Client::Ending(bytes);
            Vec::new()
        } else {
            self.reading.client = Client::Ended;
            bytes
        }
    }

    /// What has been told so far.
    pub fn answer(&self) -> &Answer {
        &self.reading.answer
    }

    /// Whether it has come to its own end: `[DONE]`, `message_stop`, a Responses API's last event, a Gemini finish reason. An answer that
    /// is to be kept must have.
    pub fn is_complete(&self) -> bool {
        self.reading.done
            || (self.reading.answer.dialect() == Some(Dialect::Generate)
                && self.reading.answer.finish().is_some())
    }

    /// Whether [`Stream::cut`] has ended it for the client, or will at the end of the current event.
    pub fn is_cut(&self) -> bool {
        self.reading.client != Client::Listening
    }

    /// Whether it is a stream of events rather than a JSON body; `None` before the first byte that tells.
    pub fn is_events(&self) -> Option<bool> {
        (self.form != Form::Unknown).then_some(self.form == Form::Events)
    }

    /// How many events were larger than what is held, and passed unchanged.
    pub fn too_large(&self) -> u32 {
        self.parser.too_large()
    }

    /// How many events were hidden from the client.
    pub fn hidden(&self) -> u32 {
        self.reading.hidden
    }
}

/// What is done with one event.
enum Verdict {
    Pass,
    Swallow,
    WithoutUsage,
}

impl Reading {
    /// An event's data is complete.
    fn judge(&mut self, event: &Event<'_>) -> Verdict {
        let head = std::mem::take(&mut self.head);
        if !event.has_data {
            return Verdict::Pass;
        }
        if head.trim_ascii() == DONE {
            self.done = true;
            self.answer.next();
            return Verdict::Pass;
        }
        let readable = self.answer.finish_document();
        let document = &self.answer.told.document;
        let last = matches!(
            document.kind.as_slice(),
            b"message_stop" | b"response.completed" | b"response.incomplete" | b"response.failed"
        );
        self.done |= last;
        let verdict = if !self.hide_usage || !readable || document.error {
            Verdict::Pass
        } else {
            match (document.usage, document.choices) {
                (UsageMember::Counts, Some(0)) if !document.other => Verdict::Swallow,
                (UsageMember::Counts, Some(0)) | (UsageMember::Null, Some(_)) => {
                    Verdict::WithoutUsage
                }
                _ => Verdict::Pass,
            }
        };
        self.answer.next();
        verdict
    }
}

/// Puts together what the client gets of a chunk.
struct Weaver<'a> {
    reading: &'a mut Reading,
    chunk: &'a [u8],
    /// How much of the chunk has passed as it is, as long as there is no output of its own.
    passed: usize,
    out: Option<Vec<u8>>,
}

impl Weaver<'_> {
    fn output(self) -> Output {
        match self.out {
            Some(out) => Output::Replace(out),
            None if self.passed == self.chunk.len() => Output::Pass,
            None => Output::Replace(self.chunk.get(..self.passed).unwrap_or_default().to_vec()),
        }
    }

    fn pass(&mut self, raw: &[u8]) {
        match &mut self.out {
            Some(out) => out.extend_from_slice(raw),
            None => self.passed = self.passed.saturating_add(raw.len()),
        }
    }

    /// The output from here on is not the chunk's own.
    fn write(&mut self, bytes: &[u8]) {
        let (chunk, passed) = (self.chunk, self.passed);
        self.out
            .get_or_insert_with(|| chunk.get(..passed).unwrap_or_default().to_vec())
            .extend_from_slice(bytes);
    }
}

impl Sink for Weaver<'_> {
    fn data(&mut self, fragment: &[u8]) {
        let room = DONE
            .len()
            .saturating_add(2)
            .saturating_sub(self.reading.head.len());
        self.reading
            .head
            .extend_from_slice(fragment.get(..room).unwrap_or(fragment));
        if !self.reading.head.starts_with(b"[D") {
            self.reading.answer.feed(fragment);
        }
    }

    fn released(&mut self, raw: &[u8]) {
        if self.reading.client == Client::Ended {
            self.write(&[]);
        } else {
            self.pass(raw);
        }
    }

    fn event(&mut self, event: Event<'_>) {
        let verdict = self.reading.judge(&event);
        match std::mem::replace(&mut self.reading.client, Client::Ended) {
            Client::Ended => return self.write(&[]),
            Client::Ending(finish) => {
                self.pass(event.raw);
                return self.write(&finish);
            }
            Client::Listening => self.reading.client = Client::Listening,
        }
        match verdict {
            Verdict::Pass => self.pass(event.raw),
            // Its bytes have gone already.
            _ if event.released => {}
            Verdict::Swallow => {
                self.reading.hidden = self.reading.hidden.saturating_add(1);
                self.write(&[]);
            }
            Verdict::WithoutUsage => {
                let data = event.data();
                match Value::parse(data.trim_ascii()) {
                    Ok(value) => {
                        let bytes = event.with_data(&value.without(b"usage"));
                        self.write(&bytes);
                    }
                    Err(_) => self.pass(event.raw),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
