//! What a request asks for, read in one pass.
//!
//! The gateway and the provider must read the same request: a limit that was reserved for another model, or for another
//! `max_tokens`, than the provider sees is no limit. So a body that decoders are known to read differently is [`Refused`] rather
//! than interpreted.

mod members;
mod prompt;
mod shape;

use crate::api::{Api, Endpoint};
use crate::tokens::{Broken, Reader, Span};
pub use prompt::{Detail, Prompt, Unseen};
use shape::Fields;

/// The largest count that is accepted: Protocol Buffers' `int32`, which Gemini reads counts into.
pub const MOST: u64 = i32::MAX as u64;

/// Why a body is not read as a request. Each is an answer of 400 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Occurs when there is no body.
    Empty,
    /// Occurs when the body starts with the magic number of gzip or zstd.
    Compressed,
    /// Occurs when it starts with a byte order mark. RFC 8259 section 8.1 lets decoders ignore or refuse it.
    ByteOrderMark,
    /// Occurs when it is not UTF-8 throughout; decoders replace, keep or refuse such bytes.
    NotUtf8,
    /// Occurs when it is not JSON; the offset is that of the first byte that does not fit.
    Syntax(u64),
    /// Occurs when something follows the JSON value; some decoders stop reading there.
    Trailing(u64),
    /// Occurs when it nests deeper than the scanner's bound of 1000.
    Deep,
    /// Occurs when it is JSON, but no object.
    NotAnObject,
    /// Occurs when a member that matters stands there twice, also in two spellings of the same name. Decoders keep the first or
    /// the last.
    Duplicate(&'static str),
    /// Occurs when a member differs from one that matters in letter case only, or in a NUL and what follows it. Decoders that ignore
    /// case (Go's `encoding/json`) or keep C strings take it for that one.
    Case(&'static str),
    /// Occurs when a member is not of the type that the API documents.
    WrongType(&'static str),
    /// Occurs when a count is negative, not an integer, not spelled in digits alone (`10.0`, `1e3`), or above [`MOST`].
    NotACount(&'static str),
    /// Occurs when neither path nor members tell which API it is for.
    Unrecognised,
}

impl From<Broken> for Refused {
    fn from(broken: Broken) -> Refused {
        match broken {
            Broken::Syntax(offset) => Refused::Syntax(offset),
            Broken::Trailing(offset) => Refused::Trailing(offset),
            Broken::Deep => Refused::Deep,
        }
    }
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (reason, name) = match self {
            Refused::Empty => ("the body is empty", ""),
            Refused::Compressed => ("the body is compressed: send it uncompressed", ""),
            Refused::ByteOrderMark => ("the body starts with a byte order mark: leave it out", ""),
            Refused::NotUtf8 => ("the body is not UTF-8", ""),
            Refused::Syntax(offset) => return write!(f, "the body is not JSON: see byte {offset}"),
            Refused::Trailing(offset) => {
                return write!(
                    f,
                    "the body goes on behind its JSON value, at byte {offset}"
                );
            }
            Refused::Deep => ("the body nests too deeply", ""),
            Refused::NotAnObject => ("the body is not a JSON object", ""),
            Refused::Duplicate(name) => (": given more than once", *name),
            Refused::Case(name) => (
                ": spelled with other upper or lower case letters, or a NUL",
                *name,
            ),
            Refused::WrongType(name) => (": not of the type that the API documents", *name),
            Refused::NotACount(name) => (
                ": must be an integer from 0 to 2147483647 (n: from 1), in digits alone",
                *name,
            ),
            Refused::Unrecognised => ("neither path nor body tells which API this is for", ""),
        };
        f.write_str(name)?;
        f.write_str(reason)
    }
}

/// A request to an API that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which API.
    pub api: Api,
    /// The model that is asked for: by the path where that names one, else by the body. `None` on Azure's deployments, say.
    pub model: Option<String>,
    /// Whether the answer is to be a stream.
    pub stream: bool,
    /// How many completions are generated: `n` (or `best_of`, where larger; Gemini's `candidateCount`), times the number of prompts
    /// (the Completions API takes several). At least 1.
    pub completions: u64,
    /// The most tokens that one completion may have, reasoning included; `None` if the request sets no limit. Where both `max_tokens`
    /// and `max_completion_tokens` are given, the larger: providers differ in which one they take.
    pub limit: Option<u64>,
    /// `stream_options.include_usage`, where given.
    pub include_usage: Option<bool>,
    /// Responses with `background: true`: the answer is fetched by a later request, and this request's answer has no usage.
    pub background: bool,
    /// Anthropic's `thinking.budget_tokens`. It is part of the limit, which has to be larger.
    pub thinking: Option<u64>,
    /// What is known of the prompt's size.
    pub prompt: Prompt,
    pub(crate) places: Places,
}

/// A limit as it stands in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) span: Span,
    /// `None` for null.
    pub(crate) value: Option<u64>,
}

/// An object as it stands in the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) span: Span,
    /// Whether it is `null` instead.
    pub(crate) null: bool,
    pub(crate) members: u64,
}

/// Where the members stand that an edit needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) root: Object,
    pub(crate) max_tokens: Option<Slot>,
    pub(crate) max_completion_tokens: Option<Slot>,
    /// That of the Responses API.
    pub(crate) max_output_tokens: Option<Slot>,
    pub(crate) stream_options: Option<Object>,
    pub(crate) include_usage: Option<Span>,
    pub(crate) generation_config: Option<Object>,
    /// That of Gemini's `generationConfig`.
    pub(crate) generation_limit: Option<Slot>,
}

impl Request {
    /// The smallest limit that the provider takes, in tokens: to lower the limit further would make the request an error.
    pub fn least_limit(&self) -> u64 {
        match self.api {
            // OpenAI's documented minimum of `max_output_tokens`.
            Api::Responses => 16,
            _ => self.thinking.map_or(1, |budget| budget.saturating_add(1)),
        }
    }

    /// Reads a body. What the path says (`endpoint`) comes first; where it says nothing the body's members tell the API.
    ///
    /// # Errors
    /// When it can't be known what the provider will read in it; see [`Refused`].
    pub fn read(body: &[u8], endpoint: &Endpoint) -> Result<Request, Refused> {
        if body.trim_ascii().is_empty() {
            return Err(Refused::Empty);
        }
        if body.starts_with(&[0x1F, 0x8B]) || body.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            return Err(Refused::Compressed);
        }
        if body.starts_with(&[0xEF, 0xBB, 0xBF])
            || body.starts_with(&[0xFE, 0xFF])
            || body.starts_with(&[0xFF, 0xFE])
        {
            return Err(Refused::ByteOrderMark);
        }
        if std::str::from_utf8(body).is_err() {
            return Err(Refused::NotUtf8);
        }
        let mut fields = Fields::default();
        let mut reader = Reader::default();
        reader.feed(body, &mut fields)?;
        reader.end(&mut fields)?;
        if let Some(refused) = fields.refused {
            return Err(refused);
        }
        let (api, path_model, path_stream) = match endpoint {
            Endpoint::Metered { api, model, stream } => (*api, model.clone(), *stream),
            Endpoint::Unmetered(_) | Endpoint::Unknown => {
                (fields.api().ok_or(Refused::Unrecognised)?, None, None)
            }
        };
        Ok(Request {
            api,
            stream: path_stream.unwrap_or(false) || (fields.stream && api != Api::Generate),
            completions: fields.completions(api),
            limit: fields.limit(api),
            include_usage: fields.include_usage,
            background: api == Api::Responses && fields.background,
            model: path_model.or(fields.model),
            thinking: fields.thinking.filter(|_| api == Api::Messages),
            prompt: fields.prompt,
            places: fields.places,
        })
    }
}

#[cfg(test)]
mod tests;
