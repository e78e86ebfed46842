//! The APIs: whose each is, and what the ledger calls it.

use hyper::StatusCode;
use serde_json::{Value, json};

/// Whose form an answer has, errors among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    OpenAi,
    Anthropic,
    Gemini,
}

/// An API of a provider, as the ledger names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Images,
    Models,
    Messages,
    AnthropicTokens,
    AnthropicModels,
    GenerateContent,
    EmbedContent,
    GeminiTokens,
    GeminiModels,
    /// A path that is no API, in the form of the provider whose path it would be.
    Unknown(Family),
}

impl Api {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "openai.chat",
            Self::Completions => "openai.completions",
            Self::Responses => "openai.responses",
            Self::Embeddings => "openai.embeddings",
            Self::Images => "openai.images",
            Self::Models => "openai.models",
            Self::Messages => "anthropic.messages",
            Self::AnthropicTokens => "anthropic.count_tokens",
            Self::AnthropicModels => "anthropic.models",
            Self::GenerateContent => "gemini.generate_content",
            Self::EmbedContent => "gemini.embed_content",
            Self::GeminiTokens => "gemini.count_tokens",
            Self::GeminiModels => "gemini.models",
            Self::Unknown(_) => "unknown",
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Chat
            | Self::Completions
            | Self::Responses
            | Self::Embeddings
            | Self::Images
            | Self::Models => Family::OpenAi,
            Self::Messages | Self::AnthropicTokens | Self::AnthropicModels => Family::Anthropic,
            Self::GenerateContent
            | Self::EmbedContent
            | Self::GeminiTokens
            | Self::GeminiModels => Family::Gemini,
            Self::Unknown(family) => family,
        }
    }

    /// The event with which this API tells of an error in a stream that has begun: its name and its data. `number` is
    /// that of the events before it.
    pub(super) fn error_event(self, number: usize) -> (Option<&'static str>, Value) {
        const MESSAGE: &str =
            "The server had an error while processing your request. Sorry about that!";
        match (self, self.family()) {
            (Self::Responses, _) => (
                Some("error"),
                json!({"type": "error", "code": "server_error", "message": MESSAGE, "param": null, "sequence_number": number}),
            ),
            (_, Family::OpenAi) => (
                None,
                Family::OpenAi.error(StatusCode::INTERNAL_SERVER_ERROR, MESSAGE, None, None),
            ),
            (_, Family::Anthropic) => (
                Some("error"),
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            ),
            (_, Family::Gemini) => (
                None,
                Family::Gemini.error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The model is overloaded. Please try again later.",
                    None,
                    None,
                ),
            ),
        }
    }
}

impl Family {
    /// The header that carries the request's id.
    pub(super) fn request_id_header(self) -> &'static str {
        match self {
            Self::Anthropic => "request-id",
            Self::OpenAi | Self::Gemini => "x-request-id",
        }
    }

    /// The body of an error. `param` and `code` are OpenAI's; the others have no place for them.
    pub(super) fn error(
        self,
        status: StatusCode,
        message: &str,
        param: Option<&str>,
        code: Option<&str>,
    ) -> Value {
        match self {
            Self::OpenAi => {
                let (kind, usual) = openai_type(status);
                json!({"error": {"message": message, "type": kind, "param": param, "code": code.or(usual)}})
            }
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": anthropic_type(status), "message": message}})
            }
            Self::Gemini => {
                json!({"error": {"code": status.as_u16(), "message": message, "status": gemini_status(status)}})
            }
        }
    }
}

/// <https://platform.openai.com/docs/guides/error-codes>
fn openai_type(status: StatusCode) -> (&'static str, Option<&'static str>) {
    match status.as_u16() {
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    }
}

/// <https://docs.anthropic.com/en/api/errors>
fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// <https://cloud.google.com/apis/design/errors>
fn gemini_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 405 | 413 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        500 => "INTERNAL",
        501 => "UNIMPLEMENTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNKNOWN",
    }
}
