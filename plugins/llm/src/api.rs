//! Which API a request is for.
//!
//! The path tells, by its end: whatever stands in front (`/openai/v1`, `/openai/deployments/gpt-4o`, a gateway's own prefix) does
//! not matter. Where it does not tell, [`crate::Request::read`] goes by the body's members. A content type is never asked: leaving
//! it out is how others were bypassed.

use std::borrow::Cow;

/// An API whose use is counted in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI `POST /v1/chat/completions`, spoken by most providers.
    Chat,
    /// OpenAI `POST /v1/completions` (legacy).
    Completions,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// OpenAI `POST /v1/embeddings`.
    Embeddings,
    /// OpenAI `POST /v1/images/generations`.
    Images,
    /// OpenAI `POST /v1/decisions`. It has no limit on its output.
    Decisions,
    /// OpenAI `POST /v1/moderations`. Free of charge, and answers no usage.
    Moderations,
    /// Anthropic `POST /v1/messages`, also as Vertex AI's `rawPredict`.
    Messages,
    /// Anthropic `POST /v1/messages/count_tokens`. Free of charge.
    MessagesCount,
    /// Gemini and Vertex AI `:generateContent` and `:streamGenerateContent`.
    Generate,
    /// Gemini `:embedContent` and `:batchEmbedContents`.
    Embed,
    /// Gemini `:countTokens`. Free of charge.
    GenerateCount,
}

impl Api {
    /// Whether an answer has completion tokens.
    pub fn completes(self) -> bool {
        matches!(
            self,
            Api::Chat
                | Api::Completions
                | Api::Responses
                | Api::Images
                | Api::Decisions
                | Api::Messages
                | Api::Generate
        )
    }

    /// Whether the provider counts and charges tokens for it.
    pub fn is_charged(self) -> bool {
        !matches!(
            self,
            Api::Moderations | Api::MessagesCount | Api::GenerateCount
        )
    }
}

/// A kind of request whose tokens can't be counted from this request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmetered {
    /// `/files`, `/uploads`, `/vector_stores`, `/containers`.
    Files,
    /// `/audio/...`: counted in seconds or characters.
    Audio,
    /// `/batches`, `/messages/batches`, `:batchGenerateContent`: done later.
    Batches,
    /// `/realtime`, `/live`, `:bidiGenerateContent`: a WebSocket or WebRTC session.
    Realtime,
    /// Responses with `background: true`: answered to a later request.
    Background,
    /// `/images/edits`, `/images/variations`: multipart forms, which are not read here. Their answers do tell usage.
    ImageUploads,
    /// `/videos`.
    Videos,
    /// `/assistants`, `/threads`, `/conversations`, `/fine_tuning`, `/evals`, `/skills`: state that later requests use.
    Stateful,
    /// `/responses/{id}`, `/chat/completions/{id}`: something that exists is read, cancelled or deleted.
    Stored,
    /// `/models`: costs nothing.
    Models,
}

/// What a request's path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An API that is counted.
    Metered {
        /// Which.
        api: Api,
        /// The model, where the path names it (Gemini, Vertex AI). An Azure deployment is not a model, and is not here.
        model: Option<String>,
        /// Whether the answer is a stream, where the path tells (Gemini). Else the body does.
        stream: Option<bool>,
    },
    /// A kind of request that is not.
    Unmetered(Unmetered),
    /// The path says nothing; the body may.
    Unknown,
}

impl Endpoint {
    /// Reads a `:path`, query included. Percent-encoding, doubled and trailing slashes, dot segments and letter case are seen
    /// through, since upstreams do so too.
    pub fn of(path: &[u8]) -> Endpoint {
        let path = path
            .split(|&byte| matches!(byte, b'?' | b'#'))
            .next()
            .unwrap_or_default();
        let decoded = percent_decoded(path);
        let Ok(path) = std::str::from_utf8(&decoded) else {
            return Endpoint::Unknown;
        };
        let segments = segments(path);
        let last = |back: usize| {
            let index = segments.len().checked_sub(back.saturating_add(1));
            index
                .and_then(|index| segments.get(index).copied())
                .unwrap_or_default()
        };
        if let Some((model, method)) = last(0).rsplit_once(':') {
            return of_method(model, method, last(1), last(2));
        }
        let is = |segment: &str, name: &str| segment.eq_ignore_ascii_case(name);
        let pair = |first: &str, second: &str| is(last(1), first) && is(last(0), second);
        let metered = |api| Endpoint::Metered {
            api,
            model: None,
            stream: None,
        };
        if pair("chat", "completions") {
            return metered(Api::Chat);
        }
        if pair("images", "generations") {
            return metered(Api::Images);
        }
        if pair("messages", "count_tokens") {
            return metered(Api::MessagesCount);
        }
        if pair("responses", "input_tokens") {
            return Endpoint::Unmetered(Unmetered::Stored);
        }
        if pair("responses", "compact") {
            return metered(Api::Responses);
        }
        if is(last(0), "messages") && is(last(2), "threads") {
            return Endpoint::Unmetered(Unmetered::Stateful);
        }
        let by_last = [
            ("completions", Api::Completions),
            ("responses", Api::Responses),
            ("embeddings", Api::Embeddings),
            ("moderations", Api::Moderations),
            ("decisions", Api::Decisions),
            ("messages", Api::Messages),
        ];
        if let Some((_, api)) = by_last.iter().find(|(name, _)| is(last(0), name)) {
            return metered(*api);
        }
        unmetered(&segments)
    }
}

/// A method of the Google style: `models/{model}:{method}`.
fn of_method(model: &str, method: &str, parent: &str, publisher: &str) -> Endpoint {
    let named = |name: &str| method.eq_ignore_ascii_case(name);
    let metered = |api, stream| Endpoint::Metered {
        api,
        model: (!model.is_empty()).then(|| model.to_owned()),
        stream: Some(stream),
    };
    if !["models", "tunedModels", "endpoints"]
        .iter()
        .any(|name| parent.eq_ignore_ascii_case(name))
    {
        return Endpoint::Unknown;
    }
    if named("generateContent") {
        metered(Api::Generate, false)
    } else if named("streamGenerateContent") {
        metered(Api::Generate, true)
    } else if named("embedContent") || named("batchEmbedContents") {
        metered(Api::Embed, false)
    } else if named("countTokens") {
        metered(Api::GenerateCount, false)
    } else if publisher.eq_ignore_ascii_case("anthropic") && named("rawPredict") {
        metered(Api::Messages, false)
    } else if publisher.eq_ignore_ascii_case("anthropic") && named("streamRawPredict") {
        metered(Api::Messages, true)
    } else if named("batchGenerateContent") || named("asyncBatchEmbedContent") {
        Endpoint::Unmetered(Unmetered::Batches)
    } else if named("bidiGenerateContent") {
        Endpoint::Unmetered(Unmetered::Realtime)
    } else {
        Endpoint::Unknown
    }
}

/// By the last segment that names a collection, so that what lies under it counts as well (`/files/{id}/content`).
fn unmetered(segments: &[&str]) -> Endpoint {
    use Unmetered::{
        Audio, Batches, Files, ImageUploads, Models, Realtime, Stateful, Stored, Videos,
    };
    const COLLECTIONS: [(&str, Unmetered); 22] = [
        ("files", Files),
        ("uploads", Files),
        ("vector_stores", Files),
        ("containers", Files),
        ("audio", Audio),
        ("batches", Batches),
        ("realtime", Realtime),
        ("live", Realtime),
        ("edits", ImageUploads),
        ("variations", ImageUploads),
        ("videos", Videos),
        ("assistants", Stateful),
        ("threads", Stateful),
        ("conversations", Stateful),
        ("fine_tuning", Stateful),
        ("fine-tunes", Stateful),
        ("evals", Stateful),
        ("skills", Stateful),
        ("cachedcontents", Stateful),
        ("responses", Stored),
        ("completions", Stored),
        ("models", Models),
    ];
    segments
        .iter()
        .rev()
        .find_map(|segment| {
            COLLECTIONS
                .iter()
                .find(|(name, _)| segment.eq_ignore_ascii_case(name))
        })
        .map_or(Endpoint::Unknown, |&(_, kind)| Endpoint::Unmetered(kind))
}

/// The path's segments, with empty ones left out and dot segments resolved ([RFC 3986 section
/// 5.2.4](https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4)).
fn segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    segments
}

/// `%2F` is a slash as well here: an upstream that decodes once more than the gateway would see it as one.
fn percent_decoded(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |index: usize| {
            tail.get(index)
                .and_then(|&digit| char::from(digit).to_digit(16))
        };
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).unwrap_or_default());
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(path: &str) -> Endpoint {
        Endpoint::of(path.as_bytes())
    }

    fn metered(api: Api) -> Endpoint {
        Endpoint::Metered {
            api,
            model: None,
            stream: None,
        }
    }

    fn google(api: Api, model: &str, stream: bool) -> Endpoint {
        Endpoint::Metered {
            api,
            model: Some(model.to_owned()),
            stream: Some(stream),
        }
    }

    #[test]
    fn the_end_of_the_path_names_the_api() {
        for (path, api) in [
            ("/v1/chat/completions", Api::Chat),
            ("/chat/completions", Api::Chat),
            ("/openai/v1/chat/completions?x=/v1/files", Api::Chat),
            (
                "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
                Api::Chat,
            ),
            (
                "/v1beta1/projects/p/locations/l/endpoints/openapi/chat/completions",
                Api::Chat,
            ),
            ("/v1/completions", Api::Completions),
            ("/v1/responses", Api::Responses),
            ("/v1/responses/compact", Api::Responses),
            (
                "/openai/deployments/embed/embeddings?api-version=1",
                Api::Embeddings,
            ),
            ("/v1/images/generations", Api::Images),
            ("/v1/moderations", Api::Moderations),
            ("/v1/decisions", Api::Decisions),
            ("/v1/messages", Api::Messages),
            ("/anthropic/v1/messages?beta=true", Api::Messages),
            ("/v1/messages/count_tokens", Api::MessagesCount),
        ] {
            assert_eq!(of(path), metered(api), "{path}");
        }
    }

    #[test]
    fn a_path_spelled_otherwise_is_the_same_path() {
        for path in [
            "/v1/chat/completions/",
            "//v1//chat//completions",
            "/v1/chat%2Fcompletion%73",
            "/v1/files/../chat/./completions",
            "/V1/Chat/Completions",
        ] {
            assert_eq!(of(path), metered(Api::Chat), "{path}");
        }
    }

    #[test]
    fn google_paths_name_model_and_stream() {
        for (path, endpoint) in [
            (
                "/v1beta/models/gemini-2.5-flash:generateContent?key=k",
                google(Api::Generate, "gemini-2.5-flash", false),
            ),
            (
                "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
                google(Api::Generate, "gemini-2.5-flash", true),
            ),
            (
                "/v1/projects/p/locations/l/publishers/google/models/gemini-3-pro%3AgenerateContent",
                google(Api::Generate, "gemini-3-pro", false),
            ),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
                google(Api::Messages, "claude-sonnet-4-5@20250929", true),
            ),
            (
                "/v1beta/models/gemini-embedding-001:batchEmbedContents",
                google(Api::Embed, "gemini-embedding-001", false),
            ),
            (
                "/v1beta/models/gemini-2.5-pro:countTokens",
                google(Api::GenerateCount, "gemini-2.5-pro", false),
            ),
            (
                "/v1beta/models/gemini-2.5-pro:batchGenerateContent",
                Endpoint::Unmetered(Unmetered::Batches),
            ),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:predict",
                Endpoint::Unknown,
            ),
        ] {
            assert_eq!(of(path), endpoint, "{path}");
        }
    }

    #[test]
    fn what_is_not_counted_is_told_apart() {
        for (path, kind) in [
            ("/v1/files", Unmetered::Files),
            ("/v1/files/file-1/content", Unmetered::Files),
            ("/v1/audio/transcriptions", Unmetered::Audio),
            ("/v1/batches", Unmetered::Batches),
            ("/v1/messages/batches", Unmetered::Batches),
            ("/v1/realtime/client_secrets", Unmetered::Realtime),
            ("/v1/live/sessions/s/fork", Unmetered::Realtime),
            ("/v1/images/edits", Unmetered::ImageUploads),
            ("/v1/threads/t/messages", Unmetered::Stateful),
            ("/v1/threads/t/runs", Unmetered::Stateful),
            ("/v1/responses/resp_1", Unmetered::Stored),
            ("/v1/responses/resp_1/cancel", Unmetered::Stored),
            ("/v1/chat/completions/chatcmpl-1", Unmetered::Stored),
            ("/v1/models", Unmetered::Models),
        ] {
            assert_eq!(of(path), Endpoint::Unmetered(kind), "{path}");
        }
        for path in ["", "/", "/health", "/v1", "/x%ff", "?", "/a:b"] {
            assert_eq!(of(path), Endpoint::Unknown, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Endpoint::of(&path);
        }
    }
}
