//! Where things stand in an answer, for all APIs at once: their names do not collide.

use super::{Dialect, Document, Finish, Told, UsageMember};
use crate::tokens::{Scalar, Shape, Span, Text};
use crate::usage::{Count, MOST, Scope};

/// A place in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A document. The elements of an outermost array are documents as well (Gemini without `alt=sse`).
    Root,
    /// `response` of the Responses API's events, or `message` of Anthropic's `message_start`: what a whole answer holds.
    Inner,
    Usage {
        outermost: bool,
    },
    /// `svg_usage` of the Images API.
    Beside,
    Details,
    Metadata,
    /// A member that is not usual in a chunk.
    Other,
    Count(Count),
    Model,
    Id,
    Created,
    Kind,
    Object,
    Sequence,
    Index,
    Choices,
    Choice,
    ChoiceIndex,
    Groq,
    Finish,
    Status,
    IncompleteDetails,
    Error,
    ErrorKind,
    Delta,
    Output,
    /// Arguments as a structure, whose names are generated too.
    Arguments,
    Within,
}

impl Told {
    fn inner(&mut self, of: Place, key: &[u8]) -> Place {
        let outermost = of == Place::Root;
        match key {
            b"usage" => Place::Usage { outermost },
            b"model" | b"modelVersion" => Place::Model,
            b"id" | b"responseId" => Place::Id,
            b"created" | b"created_at" => Place::Created,
            b"object" => Place::Object,
            b"error" => Place::Error,
            b"status" => Place::Status,
            b"stop_reason" => Place::Finish,
            b"incomplete_details" => Place::IncompleteDetails,
            // In a stream they have come before, piece by piece.
            b"content" | b"output" if outermost => Place::Output,
            _ => Place::Within,
        }
    }

    fn add_text(&mut self, bytes: u64) {
        self.text = self.text.saturating_add(bytes);
    }

    fn speaks(&mut self, dialect: Dialect) {
        self.dialect.get_or_insert(dialect);
    }

    fn text_of(&mut self, scalar: Scalar<'_>) {
        if let Scalar::String(text) | Scalar::Number(text) = scalar {
            self.add_text(text.len);
        }
    }

    /// The document's `type` is known.
    fn kind(&mut self, kind: &[u8]) {
        kind.clone_into(&mut self.document.kind);
        match kind {
            b"error" => {
                self.error = true;
                self.document.error = true;
            }
            b"message"
            | b"message_start"
            | b"content_block_start"
            | b"content_block_delta"
            | b"message_delta" => self.speaks(Dialect::Messages),
            kind if kind.starts_with(b"response.") => self.speaks(Dialect::Responses),
            _ => {}
        }
    }

    fn document_ended(&mut self) {
        match self.document.kind.as_slice() {
            b"content_block_start" => self.open_block = self.document.index.or(Some(0)),
            b"content_block_stop" => self.open_block = None,
            _ => {}
        }
    }

    fn choice_ended(&mut self) {
        let bit = u32::try_from(self.choice)
            .ok()
            .and_then(|index| 1u128.checked_shl(index))
            .unwrap_or_default();
        self.begun |= bit;
        if self.choice_ended {
            self.ended |= bit;
        }
    }
}

/// Keeps a text that is not longer than what is kept of it, and not empty: Azure's first chunk has an empty model.
fn keep(slot: &mut Vec<u8>, scalar: Scalar<'_>) {
    if let Scalar::String(text) = scalar
        && let Some(whole) = text.whole().filter(|whole| !whole.is_empty())
    {
        whole.clone_into(slot);
    }
}

impl Shape for Told {
    type Place = Place;

    fn root(&mut self) -> Place {
        Place::Root
    }

    fn member(&mut self, of: Place, name: Text<'_>) -> Place {
        let key = name.whole().unwrap_or_default();
        match of {
            Place::Root => match key {
                b"type" => Place::Kind,
                b"choices" => Place::Choices,
                b"candidates" => {
                    self.speaks(Dialect::Generate);
                    Place::Choices
                }
                b"usageMetadata" => {
                    self.speaks(Dialect::Generate);
                    Place::Metadata
                }
                b"x_groq" => Place::Groq,
                b"response" | b"message" => Place::Inner,
                b"delta" => Place::Delta,
                b"content_block" => Place::Output,
                b"index" => Place::Index,
                b"sequence_number" => Place::Sequence,
                b"svg_usage" => Place::Beside,
                b"service_tier" | b"system_fingerprint" | b"obfuscation" => Place::Within,
                _ => match self.inner(of, key) {
                    Place::Within => Place::Other,
                    place => place,
                },
            },
            Place::Inner => self.inner(of, key),
            Place::Groq if key == b"usage" => Place::Usage { outermost: false },
            Place::Groq if key == b"error" => Place::Error,
            Place::Usage { .. } => match key {
                b"prompt_tokens_details"
                | b"completion_tokens_details"
                | b"output_tokens_details" => Place::Details,
                b"input_tokens_details" => {
                    self.pending.input_details = true;
                    Place::Details
                }
                _ => Count::named(Scope::Usage, key).map_or(Place::Within, Place::Count),
            },
            Place::Beside => match key {
                b"reasoning_tokens" => Place::Count(Count::Reasoning),
                _ => Count::named(Scope::Usage, key).map_or(Place::Within, Place::Count),
            },
            Place::Details => Count::named(Scope::Details, key).map_or(Place::Within, Place::Count),
            Place::Metadata => {
                Count::named(Scope::Metadata, key).map_or(Place::Within, Place::Count)
            }
            Place::Choice => match key {
                b"index" => Place::ChoiceIndex,
                b"delta" | b"message" | b"text" | b"content" => Place::Output,
                b"finish_reason" | b"finishReason" => Place::Finish,
                b"usage" => Place::Usage { outermost: false },
                _ => Place::Within,
            },
            Place::IncompleteDetails if key == b"reason" => Place::Finish,
            Place::Error => match key {
                b"type" | b"code" | b"status" => Place::ErrorKind,
                _ => Place::Within,
            },
            Place::Delta if key == b"stop_reason" => Place::Finish,
            Place::Delta | Place::Output => match key {
                b"id" | b"type" | b"role" | b"object" | b"status" | b"index" | b"created"
                | b"signature" | b"thoughtSignature" | b"call_id" | b"tool_call_id"
                | b"encrypted_content" | b"data" | b"b64_json" | b"result" | b"mimeType"
                | b"annotations" | b"citations" | b"logprobs" | b"reasoning_details"
                | b"expires_at" => Place::Within,
                b"args" | b"input" => Place::Arguments,
                _ => Place::Output,
            },
            Place::Arguments => {
                self.add_text(name.len);
                Place::Arguments
            }
            _ => Place::Within,
        }
    }

    fn element(&mut self, of: Place) -> Place {
        match of {
            Place::Root => Place::Root,
            Place::Choices => Place::Choice,
            Place::Output | Place::Delta => Place::Output,
            Place::Arguments => Place::Arguments,
            _ => Place::Within,
        }
    }

    fn scalar(&mut self, at: Place, scalar: Scalar<'_>, _span: Span) {
        match at {
            Place::Usage { outermost: true } if scalar == Scalar::Null => {
                self.document.usage = UsageMember::Null;
            }
            Place::Count(count) => match scalar.count(MOST) {
                Some(value) => self.pending.set(count, value),
                None if scalar == Scalar::Null => {}
                None => self.odd_counts = self.odd_counts.saturating_add(1),
            },
            Place::Other if scalar != Scalar::Null => self.document.other = true,
            Place::Model => keep(&mut self.model, scalar),
            Place::Id => keep(&mut self.id, scalar),
            Place::Created => self.created = scalar.count(MOST).or(self.created),
            Place::Sequence => self.sequence = scalar.count(MOST).or(self.sequence),
            Place::Index => self.document.index = scalar.count(MOST),
            Place::ChoiceIndex => self.choice = scalar.count(MOST).unwrap_or_default(),
            Place::Kind => {
                if let Scalar::String(text) = scalar {
                    self.kind(text.head);
                }
            }
            Place::Object => {
                if let Scalar::String(text) = scalar {
                    match text.head {
                        b"chat.completion" | b"chat.completion.chunk" => self.speaks(Dialect::Chat),
                        b"text_completion" | b"text_completion.chunk" => {
                            self.speaks(Dialect::Completions);
                        }
                        b"response" => self.speaks(Dialect::Responses),
                        _ => {}
                    }
                }
            }
            Place::Finish => {
                if let Scalar::String(text) = scalar {
                    // Some providers write an empty string until it ends.
                    if !text.head.is_empty() {
                        self.finish = Some(Finish::of(text.head));
                        self.choice_ended = true;
                    }
                }
            }
            Place::Status => {
                if let Scalar::String(text) = scalar {
                    match text.head {
                        b"completed" => self.finish = Some(Finish::Stop),
                        b"cancelled" => self.finish = Some(Finish::Other),
                        b"failed" => {
                            self.error = true;
                            self.document.error = true;
                        }
                        _ => {}
                    }
                }
            }
            Place::Error if scalar != Scalar::Null => {
                self.error = true;
                self.document.error = true;
            }
            Place::ErrorKind => keep(&mut self.error_kind, scalar),
            // The Responses API's audio comes as base64 in the same member.
            Place::Delta => {
                let kind = &self.document.kind;
                if !kind.ends_with(b"audio.delta") {
                    self.text_of(scalar);
                }
            }
            Place::Output | Place::Arguments => self.text_of(scalar),
            _ => {}
        }
    }

    fn begin(&mut self, at: Place, object: bool, _offset: u64) {
        match at {
            Place::Root if object => self.document = Document::default(),
            Place::Usage { outermost } if object => {
                self.pending = Default::default();
                if outermost {
                    self.document.usage = UsageMember::Counts;
                }
            }
            Place::Other => self.document.other = true,
            Place::Metadata | Place::Beside => self.pending = Default::default(),
            Place::Choice => {
                self.choice = 0;
                self.choice_ended = false;
            }
            Place::Error => {
                self.error = true;
                self.document.error = true;
            }
            _ => {}
        }
    }

    fn end(&mut self, at: Place, object: bool, members: u64, _span: Span) {
        match at {
            Place::Root if object => self.document_ended(),
            Place::Usage { .. } | Place::Metadata if object => {
                let pending = self.pending;
                self.counts.merge(&pending);
            }
            Place::Beside if object => {
                let pending = self.pending;
                self.beside.merge(&pending);
            }
            Place::Choices => self.document.choices = Some(members),
            Place::Choice => self.choice_ended(),
            _ => {}
        }
    }
}
