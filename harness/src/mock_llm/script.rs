//! What goes over the wire for an answer, as a list of steps: the answer, and what a plan does to it.
//!
//! A script says nothing of sockets, so that HTTP/1.1 and HTTP/2 play the same one.

use std::collections::VecDeque;
use std::io::Write;
use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Content, Data, Event, Events, Form, Told};
use super::api::Api;
use super::ledger::{Ended, Telling};
use super::misbehaviour::{Cut, CutHow, Gzip, LengthFault, Moment, Plan, RetryAfter, UsageFault};
use super::reply::Usage;
use super::sse::Spelling;

/// Bytes that a wrong Content-Length promises too many.
const TOO_LONG: usize = 10;

/// An answer as it is to be written.
pub(super) struct Script {
    pub(super) status: StatusCode,
    /// Without those that say how the body is framed; names in lower case.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) framing: Framing,
    /// When the head is due, counted from the request's arrival.
    pub(super) head_at: Duration,
    pub(super) head: HeadFault,
    pub(super) steps: Box<dyn Iterator<Item = Step> + Send>,
    pub(super) trailers: bool,
}

/// How a client knows where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are announced, whether they come or not.
    Length(usize),
    Chunked,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    None,
    /// Nothing of it comes.
    Never(Ended),
    /// Half of it comes.
    Half(Ended),
    /// It comes byte by byte, with this wait before each.
    Slow(Duration),
}

/// A step of writing a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Waits until so long after the request's arrival; what was written so far is sent.
    Wait(Duration),
    Write(Piece),
    /// Writes something that is no chunk.
    BadChunk,
    /// The last step.
    End(Ended),
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Completion tokens that the client has once it has this piece.
    pub(super) tokens: usize,
    /// The usage that it tells.
    pub(super) told: Option<Telling>,
    /// Whether it must not be sent together with others.
    pub(super) alone: bool,
}

/// When each token of an answer is due.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) first_token_delay: Duration,
    /// The time between two tokens.
    pub(super) token: Duration,
    pub(super) jitter: Duration,
    pub(super) random: fastrand::Rng,
}

impl Pace {
    /// The time from the request to the token with that index.
    fn due(&mut self, token: usize) -> Duration {
        let tokens = u32::try_from(token).unwrap_or(u32::MAX);
        let jitter = if self.jitter.is_zero() {
            Duration::ZERO
        } else {
            self.jitter.mul_f64(self.random.f64())
        };
        self.first_token_delay
            .saturating_add(self.token.saturating_mul(tokens))
            .saturating_add(jitter)
    }
}

impl From<CutHow> for Ended {
    fn from(how: CutHow) -> Self {
        match how {
            CutHow::Reset => Self::Reset,
            CutHow::Close => Self::Closed,
            CutHow::Stall => Self::Stalled,
        }
    }
}

impl Script {
    /// How `answer` is written under `plan`, for a client that accepts gzip or doesn't.
    pub(super) fn new(answer: Answer, plan: Plan, mut pace: Pace, accepts_gzip: bool) -> Self {
        let mut headers = answer.headers;
        let gzip = match plan.gzip {
            Gzip::Never => false,
            Gzip::Accepted => accepts_gzip,
            Gzip::Always => true,
        };
        let usual_type = match &answer.content {
            Content::Events {
                form: Form::Sse, ..
            } => "text/event-stream; charset=utf-8",
            Content::Whole { .. } | Content::Events { .. } => "application/json",
        };
        let content_type = plan.content_type.clone();
        headers.push((
            "content-type",
            content_type.unwrap_or_else(|| usual_type.to_owned()),
        ));
        if matches!(answer.content, Content::Events { .. }) {
            headers.push(("cache-control", "no-cache".to_owned()));
        }
        if gzip {
            headers.push(("content-encoding", "gzip".to_owned()));
        }
        if plan.gzip != Gzip::Never {
            headers.push(("vary", "accept-encoding".to_owned()));
        }
        if let Some(after) = plan.retry_after {
            headers.push(retry_after(after));
        }
        if plan.trailers {
            headers.push(("trailer", "x-mock-trailer".to_owned()));
        }
        let head = match (plan.cut, plan.slow_headers) {
            (
                Some(Cut {
                    moment: Moment::Before,
                    how,
                }),
                _,
            ) => HeadFault::Never(how.into()),
            (
                Some(Cut {
                    moment: Moment::Headers,
                    how,
                }),
                _,
            ) => HeadFault::Half(how.into()),
            (_, Some(wait)) => HeadFault::Slow(wait),
            (_, None) => HeadFault::None,
        };
        let trailers = plan.trailers;
        match answer.content {
            Content::Whole { document, at } => {
                let told = document
                    .get("usage")
                    .or_else(|| document.get("usageMetadata"));
                let told = told
                    .filter(|_| plan.usage != Some(UsageFault::Missing))
                    .map(|_| Telling::last(&answer.usage));
                let head_at = if answer.status.is_success() || plan.delay.is_some() {
                    pace.due(at)
                } else {
                    Duration::ZERO
                };
                let (framing, steps) = whole(document, &plan, gzip, answer.usage.completion, told);
                Self {
                    status: answer.status,
                    headers,
                    framing,
                    head_at,
                    head,
                    steps: Box::new(steps.into_iter()),
                    trailers,
                }
            }
            Content::Events { form, events } => Self {
                status: answer.status,
                headers,
                framing: Framing::Chunked,
                head_at: Duration::ZERO,
                head,
                steps: Box::new(Streamed::new(
                    answer.api,
                    form,
                    events,
                    plan,
                    pace,
                    gzip,
                    answer.usage,
                )),
                trailers,
            },
        }
    }
}

fn retry_after(after: RetryAfter) -> (&'static str, String) {
    match after {
        RetryAfter::Seconds(seconds) => ("retry-after", seconds.to_string()),
        RetryAfter::Millis(millis) => ("retry-after-ms", millis.to_string()),
        RetryAfter::Date(seconds) => {
            let date = SystemTime::now() + Duration::from_secs(seconds);
            ("retry-after", httpdate::fmt_http_date(date))
        }
    }
}

/// Leaves off what tells the usage, at the first level and one deeper.
fn without_usage(document: &mut Value) {
    fn clean(fields: &mut Map<String, Value>) {
        fields.shift_remove("usage");
        fields.shift_remove("usageMetadata");
    }
    if let Value::Object(fields) = document {
        clean(fields);
        for inner in fields.values_mut().filter_map(Value::as_object_mut) {
            clean(inner);
        }
    }
}

fn change(document: &mut Value, plan: &Plan) {
    if plan.usage == Some(UsageFault::Missing) {
        without_usage(document);
    }
    if plan.extra {
        document["x_mock_extra"] =
            json!({"note": "a client ignores what it does not know", "list": [1, null]});
    }
}

fn whole(
    mut document: Value,
    plan: &Plan,
    gzip: bool,
    tokens: usize,
    told: Option<Telling>,
) -> (Framing, Vec<Step>) {
    change(&mut document, plan);
    let mut body = document.to_string();
    let cut_in_half = plan.malformed == Some(0);
    if cut_in_half {
        body.truncate(body.floor_char_boundary(body.len() / 2));
    }
    let mut body = body.into_bytes();
    if gzip {
        let mut packer = Packer::new();
        body = packer.pack(&body);
        body.extend(packer.finish());
    }
    let framing = match plan.length {
        _ if plan.trailers || plan.bad_chunk => Framing::Chunked,
        None => Framing::Length(body.len()),
        Some(LengthFault::Long) => Framing::Length(body.len() + TOO_LONG),
        Some(LengthFault::Short) => Framing::Length(body.len() / 2),
    };
    let half = body.len() / 2;
    let mut end = match plan.cut {
        Some(cut) if !matches!(cut.moment, Moment::Before | Moment::Headers) => {
            body.truncate(half);
            Ended::from(cut.how)
        }
        _ => Ended::Complete,
    };
    if plan.bad_chunk {
        body.truncate(half);
        end = Ended::Closed;
    }
    // What comes behind the announced length is no part of the answer.
    let too_short = matches!(framing, Framing::Length(length) if length < body.len());
    let (tokens, told) = if end == Ended::Complete && !cut_in_half && !too_short {
        (tokens, told)
    } else {
        (0, None)
    };
    let mut steps = Vec::new();
    split(body, plan.write, tokens, told, &mut |step| steps.push(step));
    if plan.bad_chunk {
        steps.push(Step::BadChunk);
    }
    steps.push(Step::End(end));
    (framing, steps)
}

/// Hands out a piece in pieces of so many bytes; the last carries what all do.
fn split(
    bytes: Vec<u8>,
    size: Option<NonZeroUsize>,
    tokens: usize,
    told: Option<Telling>,
    take: &mut impl FnMut(Step),
) {
    let mut rest = Bytes::from(bytes);
    let alone = size.is_some();
    let size = size.map_or(usize::MAX, NonZeroUsize::get);
    loop {
        let piece = rest.split_to(rest.len().min(size));
        let last = rest.is_empty();
        take(Step::Write(Piece {
            bytes: piece,
            tokens: if last { tokens } else { 0 },
            told: told.filter(|_| last),
            alone,
        }));
        if last {
            return;
        }
    }
}

/// A gzip stream that can be read up to wherever it was flushed.
struct Packer(GzEncoder<Vec<u8>>);

impl Packer {
    fn new() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::fast()))
    }

    fn pack(&mut self, bytes: &[u8]) -> Vec<u8> {
        // A vector takes all that is written to it.
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
        std::mem::take(self.0.get_mut())
    }

    fn finish(self) -> Vec<u8> {
        self.0.finish().unwrap_or_default()
    }
}

/// A stream of events, made as far as it is read.
struct Streamed {
    api: Api,
    form: Form,
    events: Events,
    plan: Plan,
    spelling: Spelling,
    pace: Pace,
    packer: Option<Packer>,
    /// Events written.
    number: usize,
    usage: Usage,
    /// Tokens of thinking, until an event carries them.
    thought: usize,
    waited: Duration,
    ready: VecDeque<Step>,
    over: bool,
}

impl Streamed {
    fn new(
        api: Api,
        form: Form,
        events: Events,
        plan: Plan,
        pace: Pace,
        gzip: bool,
        usage: Usage,
    ) -> Self {
        Self {
            api,
            form,
            events,
            spelling: Spelling {
                eol: plan.eol,
                comments: plan.comments,
                multiline: plan.multiline,
            },
            plan,
            pace,
            packer: gzip.then(Packer::new),
            number: 0,
            usage,
            thought: usage.reasoning,
            waited: Duration::ZERO,
            ready: VecDeque::new(),
            over: false,
        }
    }

    /// Makes the steps of the next event, or of the end.
    fn advance(&mut self) {
        let cut = self.plan.cut;
        if let Some(cut) = cut
            && cut.moment == Moment::Events(self.number)
        {
            return self.end(cut.how.into(), false);
        }
        if self.plan.error == Some(self.number) {
            let (name, data) = self.api.error_event(self.number);
            let event = Event::new(name, 0, data);
            let bytes = self.render(&event);
            self.write(bytes, 0, None);
            return self.end(Ended::Errored, true);
        }
        let Some(mut event) = self.events.next() else {
            return self.end(Ended::Complete, true);
        };
        match (&event.data, event.tally.usage, self.plan.usage) {
            (Data::Done, ..) if self.plan.no_done => return,
            (_, Told::Only, Some(UsageFault::Missing)) => return,
            _ => {}
        }
        let due = self.pace.due(event.at);
        if due > self.waited {
            self.waited = due;
            self.ready.push_back(Step::Wait(due));
        }
        if let Data::Json(data) = &mut event.data {
            change(data, &self.plan);
        }
        let told = self.told(event.tally.usage);
        let mut bytes = self.render(&event);
        if let Some(cut) = cut
            && cut.moment == Moment::Body
        {
            bytes.truncate(bytes.len() / 2);
            self.write(bytes, 0, None);
            return self.end(cut.how.into(), false);
        }
        if self.plan.malformed == Some(self.number) {
            // Nobody can read what it says.
            self.write(bytes, 0, None);
        } else {
            let tokens = event.tally.tokens + std::mem::take(&mut self.thought);
            self.write(bytes, tokens, told);
        }
        self.number += 1;
        if self.plan.bad_chunk {
            self.ready.push_back(Step::BadChunk);
            return self.end(Ended::Closed, false);
        }
        if matches!(event.tally.usage, Told::Also | Told::Only)
            && self.plan.usage == Some(UsageFault::Twice)
        {
            if let Data::Json(data) = &mut event.data
                && let Some(candidates) = data.get_mut("candidates")
            {
                // Only the usage comes twice, not the text.
                *candidates = json!([]);
            }
            let bytes = self.render(&event);
            self.write(bytes, 0, told);
            self.number += 1;
        }
    }

    /// What a client learns of the usage from an event.
    fn told(&self, told: Told) -> Option<Telling> {
        if self.plan.usage == Some(UsageFault::Missing) {
            return None;
        }
        match told {
            Told::No => None,
            Told::SoFar { completion } => Some(Telling::so_far(completion)),
            Told::Also | Told::Only => Some(Telling::last(&self.usage)),
        }
    }

    fn render(&mut self, event: &Event) -> Vec<u8> {
        let halved = self.plan.malformed == Some(self.number);
        let mut bytes = Vec::new();
        match (self.form, &event.data) {
            (Form::Sse, _) => self.spelling.write(event, halved, &mut bytes),
            (Form::Array, Data::Done) => {}
            (Form::Array, Data::Json(data)) => {
                bytes.extend_from_slice(if self.number == 0 { b"[" } else { b",\r\n" });
                let mut data = data.to_string();
                if halved {
                    data.truncate(data.floor_char_boundary(data.len() / 2));
                }
                bytes.extend_from_slice(data.as_bytes());
            }
        }
        bytes
    }

    fn write(&mut self, bytes: Vec<u8>, tokens: usize, told: Option<Telling>) {
        let bytes = match &mut self.packer {
            Some(packer) => packer.pack(&bytes),
            None => bytes,
        };
        let ready = &mut self.ready;
        split(bytes, self.plan.write, tokens, told, &mut |step| {
            ready.push_back(step)
        });
    }

    fn end(&mut self, how: Ended, well_formed: bool) {
        if well_formed {
            if self.form == Form::Array {
                let bytes = if self.number == 0 { "[]" } else { "]" };
                self.write(bytes.as_bytes().to_vec(), 0, None);
            }
            if let Some(packer) = self.packer.take() {
                let bytes = packer.finish();
                let ready = &mut self.ready;
                split(bytes, self.plan.write, 0, None, &mut |step| {
                    ready.push_back(step)
                });
            }
        }
        self.ready.push_back(Step::End(how));
        self.over = true;
    }
}

impl Iterator for Streamed {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Some(step);
            }
            if self.over {
                return None;
            }
            self.advance();
        }
    }
}

#[cfg(test)]
mod tests;
