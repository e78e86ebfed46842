//! A request as it came, whole, and the path it is for.

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, Uri};
use serde::de::DeserializeOwned;

use super::api::{Api, Family};
use super::ledger::KeyId;
use super::refusal::Refusal;

/// The largest body the provider reads: well above what a gateway lets through, so that a limit met in a test is the
/// gateway's.
pub(super) const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// A request with its whole body.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The paths that exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Completions,
    Responses,
    Response(String),
    Embeddings,
    Images,
    Models,
    Model(String),
    Messages,
    CountTokens,
    GeminiModels,
    GeminiModel(String),
    Gemini(GeminiAction, String),
    WhoAmI,
    Health,
    Ledger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GeminiAction {
    Generate,
    Stream,
    Count,
    Embed,
    BatchEmbed,
}

impl GeminiAction {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "generateContent" => Self::Generate,
            "streamGenerateContent" => Self::Stream,
            "countTokens" => Self::Count,
            "embedContent" => Self::Embed,
            "batchEmbedContents" => Self::BatchEmbed,
            _ => return None,
        })
    }
}

impl Route {
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/responses" => Self::Responses,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/images/generations" => Self::Images,
            "/v1/models" => Self::Models,
            "/v1/messages" => Self::Messages,
            "/v1/messages/count_tokens" => Self::CountTokens,
            "/v1/whoami" => Self::WhoAmI,
            "/v1beta/models" => Self::GeminiModels,
            "/health" => Self::Health,
            "/ledger" => Self::Ledger,
            _ => return Self::with_name(path),
        })
    }

    fn with_name(path: &str) -> Option<Self> {
        if let Some(id) = path.strip_prefix("/v1/responses/") {
            return Some(Self::Response(decoded(id)));
        }
        let (name, beta) = match path.strip_prefix("/v1/models/") {
            Some(name) => (name, false),
            None => (path.strip_prefix("/v1beta/models/")?, true),
        };
        let action = name.rsplit_once(':').and_then(|(model, action)| {
            Some(Self::Gemini(GeminiAction::of(action)?, decoded(model)))
        });
        match action {
            None if !beta => Some(Self::Model(decoded(name))),
            None if !name.contains(':') => Some(Self::GeminiModel(decoded(name))),
            action => action,
        }
    }

    /// The methods it answers to, as `Allow` lists them; none: every one.
    pub(super) fn methods(&self) -> Option<&'static [Method]> {
        match self {
            Self::Chat
            | Self::Completions
            | Self::Responses
            | Self::Embeddings
            | Self::Images
            | Self::Messages
            | Self::CountTokens
            | Self::Gemini(..) => Some(&[Method::POST]),
            Self::Models
            | Self::Model(_)
            | Self::GeminiModels
            | Self::GeminiModel(_)
            | Self::Health => Some(&[Method::GET]),
            Self::Response(_) | Self::Ledger => Some(&[Method::GET, Method::DELETE]),
            Self::WhoAmI => None,
        }
    }

    /// The API that a path belongs to. All three providers have `/v1/models`: Anthropic's clients send
    /// `anthropic-version`, Google's `x-goog-api-client`, or a key where only Google's stand.
    pub(super) fn api(route: Option<&Self>, request: &Request) -> Api {
        let anthropic = request.headers.contains_key("anthropic-version");
        let google = request.headers.contains_key("x-goog-api-client")
            || request.key(Family::Gemini).is_some();
        match route {
            Some(Self::Chat) => Api::Chat,
            Some(Self::Completions) => Api::Completions,
            Some(Self::Responses | Self::Response(_)) => Api::Responses,
            Some(Self::Embeddings) => Api::Embeddings,
            Some(Self::Images) => Api::Images,
            Some(Self::Models | Self::Model(_)) if anthropic => Api::AnthropicModels,
            Some(Self::Models | Self::Model(_)) if google => Api::GeminiModels,
            Some(Self::Models | Self::Model(_)) => Api::Models,
            Some(Self::Messages) => Api::Messages,
            Some(Self::CountTokens) => Api::AnthropicTokens,
            Some(Self::Gemini(GeminiAction::Generate | GeminiAction::Stream, _)) => {
                Api::GenerateContent
            }
            Some(Self::Gemini(GeminiAction::Count, _)) => Api::GeminiTokens,
            Some(Self::Gemini(GeminiAction::Embed | GeminiAction::BatchEmbed, _)) => {
                Api::EmbedContent
            }
            Some(Self::GeminiModels | Self::GeminiModel(_)) => Api::GeminiModels,
            Some(Self::WhoAmI | Self::Health | Self::Ledger) => Api::Unknown(Family::OpenAi),
            None if request.uri.path().starts_with("/v1beta/") => Api::Unknown(Family::Gemini),
            None if anthropic => Api::Unknown(Family::Anthropic),
            None => Api::Unknown(Family::OpenAi),
        }
    }
}

impl Request {
    /// A parameter of the query, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.uri.query()?.split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| decoded(value))
    }

    /// The key that it brings, where that provider's clients put it. A bearer token counts for Anthropic too, whose
    /// clients send one instead of a key when they have it.
    pub(super) fn key(&self, family: Family) -> Option<String> {
        let header = |name: &str| self.headers.get(name)?.to_str().ok().map(str::to_owned);
        let bearer = || {
            let value = self.headers.get(AUTHORIZATION)?.to_str().ok()?;
            value.strip_prefix("Bearer ").map(str::to_owned)
        };
        match family {
            Family::OpenAi => bearer(),
            Family::Anthropic => header("x-api-key").or_else(bearer),
            Family::Gemini => header("x-goog-api-key").or_else(|| self.parameter("key")),
        }
    }

    pub(super) fn key_id(&self, family: Family) -> Option<KeyId> {
        self.key(family).map(|key| KeyId::of(&key))
    }

    /// Whether the client takes gzip (RFC 9110 section 12.5.3).
    pub(super) fn accepts_gzip(&self) -> bool {
        let lines = self.headers.get_all("accept-encoding").iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .any(|coding| {
                let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
                let refused = weight
                    .trim()
                    .strip_prefix("q=")
                    .and_then(|weight| weight.parse::<f32>().ok())
                    .is_some_and(|weight| weight <= 0.0);
                matches!(name.trim(), "gzip" | "x-gzip" | "*") && !refused
            })
    }

    /// The body as JSON, whatever content type it claims.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| Refusal::NotUnderstood {
            problem: error.to_string(),
        })
    }
}

/// A part of a URI without percent-encoding; what can't be decoded stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = text
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_model_and_what_is_asked_of_it() {
        let asked = Route::of("/v1beta/models/a%40b:streamGenerateContent");
        assert_eq!(
            asked,
            Some(Route::Gemini(GeminiAction::Stream, "a@b".to_owned()))
        );
        assert_eq!(Route::of("/v1beta/models/a:fly"), None);
        assert_eq!(
            Route::of("/v1/models/a:countTokens"),
            Some(Route::Gemini(GeminiAction::Count, "a".to_owned()))
        );
        assert_eq!(
            Route::of("/v1/models/ft:a:b"),
            Some(Route::Model("ft:a:b".to_owned()))
        );
        assert_eq!(
            Route::of("/v1/models/a/b"),
            Some(Route::Model("a/b".to_owned()))
        );
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%41"), "%zzA");
    }

    #[test]
    fn gzip_is_accepted_unless_its_weight_is_nothing() {
        let accepts = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept-encoding", value.parse().unwrap());
            Request {
                method: Method::GET,
                uri: Uri::from_static("/"),
                headers,
                body: Bytes::new(),
            }
            .accepts_gzip()
        };
        assert!(accepts("br, gzip;q=0.5"));
        assert!(!accepts("gzip;q=0, br"));
    }
}
