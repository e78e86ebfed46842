//! What an answer tells, of any API, read as it arrives.
//!
//! A body is fed in chunks of any size and never held. The same reader takes a whole JSON answer, a Gemini stream in form of a
//! JSON array, and the data of one event of a stream after the other ([`crate::Stream`] does that).

mod shape;

use crate::tokens::{Broken, Reader};
use crate::usage::{Counts, Usage};
use shape::Place;

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// By itself, or at a stop sequence.
    Stop,
    /// At its limit, or that of the model.
    Length,
    /// To call tools.
    ToolCalls,
    /// Cut or refused for its content.
    Filtered,
    /// For a reason that is not on this list.
    Other,
}

impl Finish {
    fn of(reason: &[u8]) -> Finish {
        match reason {
            b"stop" | b"STOP" | b"end_turn" | b"stop_sequence" | b"eos" | b"completed" => {
                Finish::Stop
            }
            b"length"
            | b"MAX_TOKENS"
            | b"max_tokens"
            | b"max_output_tokens"
            | b"model_context_window_exceeded"
            | b"model_length" => Finish::Length,
            b"tool_calls" | b"tool_use" | b"function_call" => Finish::ToolCalls,
            b"content_filter"
            | b"refusal"
            | b"SAFETY"
            | b"RECITATION"
            | b"BLOCKLIST"
            | b"PROHIBITED_CONTENT"
            | b"SPII"
            | b"IMAGE_SAFETY"
            | b"IMAGE_PROHIBITED_CONTENT"
            | b"IMAGE_RECITATION"
            | b"MODEL_ARMOR" => Finish::Filtered,
            _ => Finish::Other,
        }
    }
}

/// How a chunk's outermost `usage` member stands there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageMember {
    /// Not at all.
    #[default]
    Absent,
    /// As null.
    Null,
    /// With counts.
    Counts,
}

/// The kind of answer, by what it calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's Chat API.
    Chat,
    /// OpenAI's Completions API.
    Completions,
    /// OpenAI's Responses API.
    Responses,
    /// Anthropic's Messages API.
    Messages,
    /// Gemini's API.
    Generate,
}

/// What one document (a body, or one event's data) has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    /// `type`, as the Responses and Messages APIs write it.
    pub(crate) kind: Vec<u8>,
    /// The number of `choices`, where there are any or an empty array.
    pub(crate) choices: Option<u64>,
    pub(crate) usage: UsageMember,
    pub(crate) error: bool,
    /// Whether it has members that are not usual in a chunk.
    pub(crate) other: bool,
    /// `index`, which numbers Anthropic's content blocks.
    pub(crate) index: Option<u64>,
}

/// What all documents have told together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) document: Document,
    pub(crate) counts: Counts,
    /// Those of `svg_usage`.
    pub(crate) beside: Counts,
    pub(crate) model: Vec<u8>,
    pub(crate) id: Vec<u8>,
    pub(crate) created: Option<u64>,
    pub(crate) sequence: Option<u64>,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) text: u64,
    pub(crate) finish: Option<Finish>,
    pub(crate) error: bool,
    pub(crate) error_kind: Vec<u8>,
    pub(crate) odd_counts: u32,
    /// Choices (candidates) that have begun and that have ended, one bit each.
    pub(crate) begun: u128,
    pub(crate) ended: u128,
    /// Anthropic's content block that has begun and not ended.
    pub(crate) open_block: Option<u64>,
    /// The `usage` object being read.
    pending: Counts,
    choice: u64,
    choice_ended: bool,
}

/// An answer, as far as it has been read.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    reader: Reader<Place>,
    pub(crate) told: Told,
    unreadable: u32,
}

impl Answer {
    /// Reads the next chunk. What can't be read is passed over and counted ([`Answer::unreadable`]).
    pub fn feed(&mut self, chunk: &[u8]) {
        self.told_broken(|reader, told| reader.feed(chunk, told));
    }

    /// The body, or the event's data, has ended. What comes next is another document of the same answer.
    pub fn end(&mut self) {
        if !self.reader.is_fresh() {
            self.finish_document();
        }
        self.next();
    }

    /// The document has ended, and can still be looked at; whether it could be read.
    pub(crate) fn finish_document(&mut self) -> bool {
        self.told_broken(|reader, told| reader.end(told));
        !self.reader.is_broken() && self.reader.is_complete()
    }

    /// Forgets the document that is being read: it turned out to be none.
    pub(crate) fn next(&mut self) {
        self.reader.restart();
        self.told.document = Document::default();
    }

    fn told_broken(
        &mut self,
        read: impl FnOnce(&mut Reader<Place>, &mut Told) -> Result<(), Broken>,
    ) {
        let was_broken = self.reader.is_broken();
        if read(&mut self.reader, &mut self.told).is_err() && !was_broken {
            self.unreadable = self.unreadable.saturating_add(1);
        }
    }

    /// The usage that was told last; `None` if none was. In a stream it grows until the end.
    pub fn usage(&self) -> Option<Usage> {
        match (self.told.counts.usage(), self.told.beside.usage()) {
            (Some(usage), Some(beside)) => Some(usage.plus(beside)),
            (usage, beside) => usage.or(beside),
        }
    }

    /// The model that answered. It is the one that is charged, whichever was asked for.
    pub fn model(&self) -> Option<&str> {
        text(&self.told.model)
    }

    /// The kind of answer; `None` as long as nothing tells it, and for embeddings, images and errors.
    pub fn dialect(&self) -> Option<Dialect> {
        self.told.dialect
    }

    /// Bytes of generated text seen so far: content, reasoning that is shown, arguments of tool calls. For an estimate where no usage
    /// comes. Ids, signatures, and inline media are not in it.
    pub fn text(&self) -> u64 {
        self.told.text
    }

    /// Why it ended, as told last.
    pub fn finish(&self) -> Option<Finish> {
        self.told.finish
    }

    /// Whether it holds an error, as also streams with status 200 do.
    pub fn is_error(&self) -> bool {
        self.told.error
    }

    /// The error's type, code or status, where it is a word.
    pub fn error_kind(&self) -> Option<&str> {
        text(&self.told.error_kind)
    }

    /// How many documents could not be read as JSON.
    pub fn unreadable(&self) -> u32 {
        self.unreadable
    }

    /// How many counts were no plain integers, and so were passed over.
    pub fn odd_counts(&self) -> u32 {
        self.told.odd_counts
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty()).then_some(text)
}
