//! Where things stand in a request, for all APIs at once: their names do not collide.
//!
//! What is not known to be something else is text. An image is an image only where a provider looks for one: inside a tool's
//! arguments the same members are text, and counted so.

use super::members::{self, Found, Member};
use super::prompt::{Detail, Prompt, Unseen};
use super::{MOST, Object, Places, Refused, Slot};
use crate::api::Api;
use crate::tokens::{Scalar, Shape, Span, Text};

/// A place in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    Member(Member, &'static str),
    /// One of `messages`, `contents` or `input`.
    Message,
    Role,
    MessageType,
    /// A string, a part, or an array of parts.
    Content,
    Part,
    PartType,
    ImageUrl,
    Detail,
    Audio,
    AudioData,
    File,
    FileData,
    Source,
    SourceType,
    SourceData,
    SourceUrl,
    MediaType,
    /// An element of `input` or `prompt` that is not an object: text, a token id, or an array of those.
    Input,
    Id,
    Tool,
    ToolType,
    Budget,
    /// Text, or a structure that counts as text.
    Text,
    /// Inside something that is counted as a whole, or does not matter.
    Within,
}

/// One part of a content, until it is known what it is.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    kind: Kind,
    detail: Detail,
    /// `image_url` was there.
    image: bool,
    /// `source`, `inlineData` or `fileData` was there.
    source: bool,
    source_kind: Option<bool>,
    media: Kind,
    /// Bytes of `source.data`.
    data: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Unsaid,
    Text,
    Image,
    Audio,
    File,
}

/// What has been read of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) refused: Option<Refused>,
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) include_usage: Option<bool>,
    pub(super) background: bool,
    pub(super) thinking: Option<u64>,
    pub(super) prompt: Prompt,
    pub(super) places: Places,
    n: Option<u64>,
    best_of: Option<u64>,
    candidates: Option<u64>,
    /// The prompts of the Completions API.
    prompts: u64,
    /// Which members there are, one bit each.
    seen: u64,
    parts: Vec<Part>,
}

impl Fields {
    fn has(&self, member: Member) -> bool {
        self.seen & bit(member) != 0
    }

    /// The API, by the members alone.
    pub(super) fn api(&self) -> Option<Api> {
        use Member as M;
        let any = |members: &[Member]| members.iter().any(|&member| self.has(member));
        let model = self.model.as_deref().unwrap_or_default();
        if any(&[M::Contents]) {
            Some(Api::Generate)
        } else if any(&[M::Messages]) {
            let anthropic = any(&[
                M::AnthropicVersion,
                M::System,
                M::StopSequences,
                M::Thinking,
            ]);
            Some(if anthropic { Api::Messages } else { Api::Chat })
        } else if any(&[M::Prompt]) && !any(&[M::Input]) {
            let images = any(&[M::Size, M::Quality])
                || ["dall-e", "gpt-image", "imagen"]
                    .iter()
                    .any(|name| model.contains(name));
            Some(if images {
                Api::Images
            } else {
                Api::Completions
            })
        } else if any(&[M::Input]) {
            if any(&[M::EncodingFormat, M::Dimensions]) || model.contains("embed") {
                Some(Api::Embeddings)
            } else if model.contains("moderation") {
                Some(Api::Moderations)
            } else {
                Some(Api::Responses)
            }
        } else {
            None
        }
    }

    pub(super) fn limit(&self, api: Api) -> Option<u64> {
        let value = |slot: Option<Slot>| slot.and_then(|slot| slot.value);
        let places = &self.places;
        match api {
            Api::Chat => value(places.max_tokens).max(value(places.max_completion_tokens)),
            Api::Completions | Api::Messages => value(places.max_tokens),
            Api::Responses => value(places.max_output_tokens),
            Api::Generate => value(places.generation_limit),
            Api::Embeddings
            | Api::Images
            | Api::Decisions
            | Api::Moderations
            | Api::MessagesCount
            | Api::Embed
            | Api::GenerateCount => None,
        }
    }

    pub(super) fn completions(&self, api: Api) -> u64 {
        let n = self.n.unwrap_or(1);
        match api {
            Api::Chat | Api::Images => n,
            Api::Completions => n
                .max(self.best_of.unwrap_or(1))
                .saturating_mul(self.prompts.max(1)),
            Api::Generate => self.candidates.unwrap_or(1),
            _ => 1,
        }
    }

    /// Keeps the first reason.
    fn refuse(&mut self, refused: Refused) {
        self.refused.get_or_insert(refused);
    }

    fn known(&mut self, names: &'static [(&'static str, Member)], name: Text<'_>) -> Option<Place> {
        match members::find(names, name.whole()?) {
            Found::Known(member, name) => {
                if self.has(member) && member != Member::Aside {
                    self.refuse(Refused::Duplicate(name));
                }
                self.seen |= bit(member);
                Some(Place::Member(member, name))
            }
            Found::Case(known) => {
                self.refuse(Refused::Case(known));
                None
            }
            Found::Unknown => None,
        }
    }

    /// Text under a name that no API documents; a template on the provider's side might show the name too.
    fn unknown(&mut self, name: Text<'_>) -> Place {
        self.prompt.add_text(name.len);
        Place::Text
    }

    fn part(&mut self) -> Option<&mut Part> {
        self.parts.last_mut()
    }

    /// A scalar that is one of the members that matter.
    fn member_scalar(
        &mut self,
        member: Member,
        name: &'static str,
        scalar: Scalar<'_>,
        span: Span,
    ) {
        let null = scalar == Scalar::Null;
        let wrong = Refused::WrongType(name);
        let object = || Object {
            span,
            null: true,
            members: 0,
        };
        match member {
            Member::Model => match scalar {
                Scalar::String(text) => {
                    let model = text
                        .whole()
                        .and_then(|model| String::from_utf8(model.to_vec()).ok());
                    if model.is_none() {
                        self.refuse(wrong);
                    }
                    self.model = model;
                }
                _ => self.refuse(wrong),
            },
            Member::Stream | Member::Background | Member::IncludeUsage => match (scalar, member) {
                (Scalar::Bool(stream), Member::Stream) => self.stream = stream,
                (Scalar::Bool(background), Member::Background) => self.background = background,
                (Scalar::Bool(include), _) => {
                    self.include_usage = Some(include);
                    self.places.include_usage = Some(span);
                }
                (Scalar::Null, Member::IncludeUsage) => self.places.include_usage = Some(span),
                (Scalar::Null, _) => {}
                _ => self.refuse(wrong),
            },
            Member::N | Member::BestOf | Member::CandidateCount => {
                let count = scalar.count(MOST).filter(|&count| count > 0);
                if count.is_none() && !null {
                    self.refuse(Refused::NotACount(name));
                }
                match member {
                    Member::N => self.n = count,
                    Member::BestOf => self.best_of = count,
                    _ => self.candidates = count,
                }
            }
            Member::MaxTokens
            | Member::MaxCompletionTokens
            | Member::MaxOutputTokens
            | Member::GenerationLimit => {
                let value = scalar.count(MOST);
                if value.is_none() && !null {
                    self.refuse(Refused::NotACount(name));
                }
                let slot = Some(Slot { span, value });
                match member {
                    Member::MaxTokens => self.places.max_tokens = slot,
                    Member::MaxCompletionTokens => self.places.max_completion_tokens = slot,
                    Member::MaxOutputTokens => self.places.max_output_tokens = slot,
                    _ => self.places.generation_limit = slot,
                }
            }
            Member::StreamOptions | Member::GenerationConfig if null => {
                if member == Member::StreamOptions {
                    self.places.stream_options = Some(object());
                } else {
                    self.places.generation_config = Some(object());
                }
            }
            Member::StreamOptions
            | Member::GenerationConfig
            | Member::Messages
            | Member::Contents => self.refuse(wrong),
            Member::Input | Member::Prompt => match scalar {
                Scalar::String(text) => {
                    self.prompt.messages = self.prompt.messages.saturating_add(1);
                    self.prompt.add_text(text.len);
                    self.prompts = 1;
                }
                Scalar::Null => {}
                _ => self.refuse(wrong),
            },
            Member::Instructions | Member::System | Member::SystemInstruction | Member::Text => {
                self.text(scalar);
            }
            Member::PreviousResponse | Member::Conversation if !null => {
                self.prompt.add_unseen(Unseen::History);
            }
            Member::CachedContent if !null => self.prompt.add_unseen(Unseen::CachedContent),
            _ => {}
        }
    }

    fn text(&mut self, scalar: Scalar<'_>) {
        match scalar {
            Scalar::String(text) | Scalar::Number(text) => self.prompt.add_text(text.len),
            Scalar::Bool(_) => self.prompt.add_text(5),
            Scalar::Null => {}
        }
    }

    /// What a part is, now that all of it has been read. Where it contradicts itself it counts as text.
    fn part_ended(&mut self, part: Part) {
        if part.image {
            self.prompt.add_image(part.detail);
        }
        if !part.source {
            return;
        }
        let kind = if part.source_kind == Some(false) {
            Kind::Text
        } else if part.media == Kind::Unsaid {
            part.kind
        } else {
            part.media
        };
        match kind {
            Kind::Image => self.prompt.add_image(part.detail),
            Kind::Audio => self.prompt.add_audio(part.data),
            Kind::File | Kind::Unsaid => self.prompt.add_file(part.data),
            Kind::Text => self.prompt.add_text(part.data),
        }
    }
}

/// The bit of a member in the set of those seen.
fn bit(member: Member) -> u64 {
    1u64.checked_shl(member as u32).unwrap_or_default()
}

/// The kind that a media type names.
fn media(name: &[u8]) -> Kind {
    let is = |prefix: &[u8]| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if is(b"image/") {
        Kind::Image
    } else if is(b"audio/") {
        Kind::Audio
    } else if is(b"text/") {
        Kind::Text
    } else {
        Kind::File
    }
}

impl Shape for Fields {
    type Place = Place;

    fn root(&mut self) -> Place {
        Place::Root
    }

    fn member(&mut self, of: Place, name: Text<'_>) -> Place {
        let key = name.whole().unwrap_or_default();
        match of {
            Place::Root => match self.known(members::ROOT, name) {
                Some(place) => place,
                None => self.unknown(name),
            },
            Place::Member(Member::StreamOptions, _) => self
                .known(members::STREAM_OPTIONS, name)
                .unwrap_or(Place::Within),
            Place::Member(Member::GenerationConfig, _) => {
                match self.known(members::GENERATION_CONFIG, name) {
                    Some(place) => place,
                    None if key
                        .windows(6)
                        .any(|part| part.eq_ignore_ascii_case(b"schema")) =>
                    {
                        Place::Text
                    }
                    None => Place::Within,
                }
            }
            // A single message in place of an array, and Gemini's `systemInstruction`, which is one.
            Place::Message
            | Place::Input
            | Place::Member(Member::Contents | Member::SystemInstruction, _) => match key {
                b"content" | b"parts" | b"output" => Place::Content,
                b"role" => Place::Role,
                b"type" => Place::MessageType,
                b"audio" => Place::Audio,
                b"id" | b"status" => Place::Within,
                _ => self.unknown(name),
            },
            Place::Part | Place::Content => match key {
                b"type" => Place::PartType,
                b"text" => Place::Text,
                b"image_url" => Place::ImageUrl,
                b"detail" => Place::Detail,
                b"input_audio" => Place::Audio,
                b"file" => Place::File,
                b"file_data" | b"file_id" | b"file_url" => Place::FileData,
                b"source" | b"inlineData" | b"inline_data" | b"fileData" => {
                    if let Some(part) = self.part() {
                        part.source = true;
                    }
                    Place::Source
                }
                b"content" | b"output" => Place::Content,
                b"cache_control" => Place::Within,
                _ => self.unknown(name),
            },
            Place::ImageUrl => match key {
                b"url" => Place::ImageUrl,
                b"detail" => Place::Detail,
                _ => self.unknown(name),
            },
            Place::Audio => match key {
                b"data" | b"id" => Place::AudioData,
                _ => self.unknown(name),
            },
            Place::File => match key {
                b"file_data" | b"file_id" | b"file_url" => Place::FileData,
                _ => self.unknown(name),
            },
            Place::Source => match key {
                b"type" => Place::SourceType,
                b"data" => Place::SourceData,
                b"url" | b"file_id" | b"fileUri" => Place::SourceUrl,
                b"media_type" | b"mimeType" | b"mime_type" => Place::MediaType,
                b"content" => Place::Content,
                _ => self.unknown(name),
            },
            Place::Member(Member::Thinking, _) if key == b"budget_tokens" => Place::Budget,
            Place::Tool => match key {
                b"type" => Place::ToolType,
                b"googleSearch"
                | b"google_search"
                | b"googleSearchRetrieval"
                | b"google_search_retrieval"
                | b"googleMaps"
                | b"google_maps"
                | b"urlContext"
                | b"url_context"
                | b"codeExecution"
                | b"code_execution"
                | b"fileSearch"
                | b"file_search"
                | b"enterpriseWebSearch"
                | b"enterprise_web_search"
                | b"retrieval"
                | b"mcpServers"
                | b"mcp_servers" => {
                    self.prompt.add_unseen(Unseen::ServerTool);
                    Place::Within
                }
                _ => Place::Within,
            },
            _ => Place::Within,
        }
    }

    fn element(&mut self, of: Place) -> Place {
        match of {
            Place::Member(Member::Messages | Member::Contents, _) => Place::Message,
            Place::Member(Member::Input | Member::Prompt, _) => Place::Input,
            Place::Member(Member::Tools, _) => Place::Tool,
            Place::Member(Member::Instructions | Member::System, _) => Place::Part,
            Place::Content => Place::Part,
            Place::Input => Place::Id,
            // An array where an object belongs.
            Place::Message
            | Place::Part
            | Place::ImageUrl
            | Place::Audio
            | Place::File
            | Place::Source => Place::Text,
            _ => Place::Within,
        }
    }

    fn scalar(&mut self, at: Place, scalar: Scalar<'_>, span: Span) {
        match at {
            Place::Root => self.refuse(Refused::NotAnObject),
            Place::Member(member, name) => self.member_scalar(member, name, scalar, span),
            Place::Message | Place::Content | Place::Part | Place::Text | Place::Source => {
                self.text(scalar);
            }
            // Templates write any role; a usual one is part of what they add to a message.
            Place::Role => {
                if let Scalar::String(text) = scalar
                    && text.len > 16
                {
                    self.prompt.add_text(text.len);
                }
            }
            Place::MessageType => {
                if let Scalar::String(Text {
                    head: b"item_reference",
                    ..
                }) = scalar
                {
                    self.prompt.add_unseen(Unseen::History);
                }
            }
            Place::PartType => {
                let kind = match scalar {
                    Scalar::String(text) => match text.head {
                        b"image" | b"image_url" | b"input_image" => Kind::Image,
                        b"input_audio" => Kind::Audio,
                        b"document" | b"file" | b"input_file" => Kind::File,
                        _ => Kind::Unsaid,
                    },
                    _ => Kind::Unsaid,
                };
                if let Some(part) = self.part() {
                    part.kind = kind;
                }
            }
            Place::ImageUrl => {
                let Scalar::String(text) = scalar else { return };
                let starts = |prefix: &[u8]| {
                    text.head
                        .get(..prefix.len())
                        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
                };
                if starts(b"data:image/") || starts(b"http:") || starts(b"https:") {
                    if let Some(part) = self.part() {
                        part.image = true;
                    }
                } else if starts(b"data:") {
                    self.prompt.add_file(text.len);
                } else {
                    // An id or a URI of the provider's: an image at best, text at worst.
                    self.prompt.add_text(text.len);
                    if let Some(part) = self.part() {
                        part.image = true;
                    }
                }
            }
            Place::Detail => {
                let low = matches!(scalar, Scalar::String(Text { head: b"low", .. }));
                if let Some(part) = self.part() {
                    part.detail = if low { Detail::Low } else { Detail::High };
                }
            }
            Place::AudioData => match scalar {
                Scalar::String(text) => {
                    self.prompt.add_audio(text.len);
                    // Earlier audio by its id is short, and longer than it looks.
                    if text.len < 64 {
                        self.prompt.add_unseen(Unseen::History);
                    }
                }
                other => self.text(other),
            },
            Place::FileData => {
                if let Scalar::String(text) = scalar {
                    match self.parts.last() {
                        // Responses: `{"type": "input_image", "file_id": ...}`.
                        Some(Part {
                            kind: Kind::Image, ..
                        }) => {
                            if let Some(part) = self.part() {
                                part.image = true;
                            }
                        }
                        _ => self.prompt.add_file(text.len),
                    }
                }
            }
            Place::SourceType => {
                let inline = matches!(
                    scalar,
                    Scalar::String(Text {
                        head: b"base64" | b"url" | b"file",
                        ..
                    })
                );
                if let Some(part) = self.part() {
                    part.source_kind = Some(inline && part.source_kind != Some(false));
                }
            }
            Place::SourceData => {
                if let Scalar::String(text) = scalar
                    && let Some(part) = self.part()
                {
                    part.data = part.data.saturating_add(text.len);
                }
            }
            Place::SourceUrl => {}
            Place::Budget => self.thinking = scalar.count(MOST),
            Place::MediaType => {
                if let Scalar::String(text) = scalar
                    && let Some(part) = self.part()
                {
                    part.media = media(text.head);
                }
            }
            Place::Input => match scalar {
                Scalar::String(text) => {
                    self.prompt.messages = self.prompt.messages.saturating_add(1);
                    self.prompts = self.prompts.saturating_add(1);
                    self.prompt.add_text(text.len);
                }
                _ => self.prompt.ids = self.prompt.ids.saturating_add(1),
            },
            Place::Id => match scalar {
                Scalar::Number(_) => self.prompt.ids = self.prompt.ids.saturating_add(1),
                other => self.text(other),
            },
            Place::ToolType => {
                let Scalar::String(text) = scalar else { return };
                // Tools that the client runs. All others are run by the provider.
                let clients = [
                    "function",
                    "custom",
                    "bash_",
                    "text_editor_",
                    "computer",
                    "memory_",
                    "local_shell",
                    "apply_patch",
                ];
                if !clients
                    .iter()
                    .any(|kind| text.head.starts_with(kind.as_bytes()))
                {
                    self.prompt.add_unseen(Unseen::ServerTool);
                }
            }
            Place::Audio | Place::File | Place::Tool | Place::Within => {}
        }
    }

    fn begin(&mut self, at: Place, object: bool, _offset: u64) {
        match at {
            Place::Root if !object => self.refuse(Refused::NotAnObject),
            Place::Member(member, name) => {
                let fits = match member {
                    Member::Messages => !object,
                    Member::Input
                    | Member::Prompt
                    | Member::Contents
                    | Member::System
                    | Member::SystemInstruction
                    | Member::Instructions => true,
                    Member::StreamOptions | Member::GenerationConfig => object,
                    Member::Model
                    | Member::Stream
                    | Member::IncludeUsage
                    | Member::Background
                    | Member::N
                    | Member::BestOf
                    | Member::CandidateCount
                    | Member::MaxTokens
                    | Member::MaxCompletionTokens
                    | Member::MaxOutputTokens
                    | Member::GenerationLimit => false,
                    _ => true,
                };
                if !fits {
                    self.refuse(Refused::WrongType(name));
                }
                match member {
                    Member::Prompt if object => self.prompt.add_unseen(Unseen::Template),
                    Member::Conversation => self.prompt.add_unseen(Unseen::History),
                    Member::McpServers | Member::WebSearch => {
                        self.prompt.add_unseen(Unseen::ServerTool);
                    }
                    Member::Contents | Member::SystemInstruction if object => {
                        self.prompt.messages = self.prompt.messages.saturating_add(1);
                    }
                    _ => {}
                }
            }
            Place::Message => self.prompt.messages = self.prompt.messages.saturating_add(1),
            Place::Input => {
                self.prompt.messages = self.prompt.messages.saturating_add(1);
                self.prompts = self.prompts.saturating_add(1);
            }
            Place::Part => self.parts.push(Part::default()),
            Place::Content if object => self.parts.push(Part::default()),
            Place::FileData if object => {
                // Gemini's `fileData: {mimeType, fileUri}` in its other spelling.
                self.prompt.add_file(0);
            }
            _ => {}
        }
    }

    fn end(&mut self, at: Place, object: bool, members: u64, span: Span) {
        let size = span.end.saturating_sub(span.start);
        let this = Object {
            span,
            null: false,
            members,
        };
        match at {
            Place::Root => self.places.root = this,
            Place::Member(Member::StreamOptions, _) => self.places.stream_options = Some(this),
            Place::Member(Member::GenerationConfig, _) => {
                self.places.generation_config = Some(this);
            }
            Place::Member(
                Member::Tools | Member::Functions | Member::ResponseFormat | Member::Text,
                _,
            ) => {
                self.prompt.tools = self.prompt.tools.saturating_add(size);
            }
            Place::Member(Member::Prompt, _) if !object && self.prompts == 0 => self.prompts = 1,
            Place::Member(Member::Prompt, _) if object => self.prompt.add_text(size),
            // Whole structures that count as text.
            Place::Text
            | Place::Id
            | Place::Detail
            | Place::PartType
            | Place::Role
            | Place::MessageType
            | Place::MediaType
            | Place::SourceType
            | Place::SourceData
            | Place::SourceUrl
            | Place::AudioData => self.prompt.add_text(size),
            Place::Part => {
                if let Some(part) = self.parts.pop() {
                    self.part_ended(part);
                }
            }
            Place::Content if object => {
                if let Some(part) = self.parts.pop() {
                    self.part_ended(part);
                }
            }
            _ => {}
        }
    }
}
