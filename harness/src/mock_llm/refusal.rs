//! The provider's errors, each with the status and in the form of the API that was asked.

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::api::Family;
use super::misbehaviour::PlanError;

/// A request that gets an error for an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Occurs when the provider has keys and the request brings none.
    #[error("{}", no_key(*.family))]
    NoKey {
        /// Whose API was asked.
        family: Family,
    },
    /// Occurs when the key is not one of the provider's. The key is not repeated, unlike OpenAI's answer.
    #[error("{}", wrong_key(*.family))]
    WrongKey {
        /// Whose API was asked.
        family: Family,
    },
    /// Occurs when no such path exists.
    #[error("Invalid URL ({method} {path})")]
    NoSuchPath {
        /// The method that was used.
        method: Method,
        /// The path without its query.
        path: String,
    },
    /// Occurs when the path exists for another method.
    #[error("Not allowed to {method} on {path}.")]
    WrongMethod {
        /// The method that was used.
        method: Method,
        /// The path without its query.
        path: String,
    },
    /// Occurs when the body is larger than the provider reads.
    #[error("Request body is larger than {limit} bytes.")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Occurs when what came is no request by RFC 9112, or its body ends before it is complete.
    #[error("The request could not be read: {problem}.")]
    Unreadable {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Occurs when the body is not JSON, or a field has the wrong type.
    #[error("We could not parse the JSON body of your request: {problem}")]
    NotUnderstood {
        /// What the parser says, with line and column.
        problem: String,
    },
    /// Occurs when a field or header that must be there is not.
    #[error("Missing required parameter: '{field}'.")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// Occurs when a field has a value that can't be served.
    #[error("Invalid value for '{field}': {rule}.")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What the value must be.
        rule: &'static str,
    },
    /// Occurs when the provider does not serve the model.
    #[error("The model `{model}` does not exist or you do not have access to it.")]
    NoSuchModel {
        /// The model that was asked for.
        model: String,
    },
    /// Occurs when no stored response has that id.
    #[error("Response with id '{id}' not found.")]
    NoSuchResponse {
        /// The id that was asked for.
        id: String,
    },
    /// Occurs when the misbehaviour that is asked for can't be understood.
    #[error("x-mock: {0}")]
    Plan(#[from] PlanError),
    /// Occurs when a misbehaviour says so.
    #[error("{}", told(*.status))]
    Told {
        /// The status it says.
        status: StatusCode,
    },
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoKey {
                family: Family::Gemini,
            } => StatusCode::FORBIDDEN,
            Self::WrongKey {
                family: Family::Gemini,
            } => StatusCode::BAD_REQUEST,
            Self::NoKey { .. } | Self::WrongKey { .. } => StatusCode::UNAUTHORIZED,
            Self::NoSuchPath { .. } | Self::NoSuchModel { .. } | Self::NoSuchResponse { .. } => {
                StatusCode::NOT_FOUND
            }
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable { .. }
            | Self::NotUnderstood { .. }
            | Self::Missing { .. }
            | Self::Invalid { .. }
            | Self::Plan(_) => StatusCode::BAD_REQUEST,
            Self::Told { status } => *status,
        }
    }

    pub(super) fn body(&self, family: Family) -> Value {
        let (param, code) = match self {
            Self::WrongKey { .. } => (None, Some("invalid_api_key")),
            Self::NoSuchModel { .. } => (Some("model"), Some("model_not_found")),
            Self::WrongMethod { .. } => (None, Some("method_not_supported")),
            Self::Missing { field } => (Some(*field), Some("missing_required_parameter")),
            Self::Invalid { field, .. } => (Some(*field), Some("invalid_value")),
            Self::Plan(_) => (Some("x-mock"), Some("invalid_value")),
            Self::NoKey { .. }
            | Self::NoSuchPath { .. }
            | Self::NoSuchResponse { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::NotUnderstood { .. }
            | Self::Told { .. } => (None, None),
        };
        family.error(self.status(), &self.to_string(), param, code)
    }
}

fn no_key(family: Family) -> &'static str {
    match family {
        Family::OpenAi => {
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        }
        Family::Anthropic => "x-api-key header is required",
        Family::Gemini => {
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API."
        }
    }
}

fn wrong_key(family: Family) -> &'static str {
    match family {
        Family::OpenAi => "Incorrect API key provided.",
        Family::Anthropic => "invalid x-api-key",
        Family::Gemini => "API key not valid. Please pass a valid API key.",
    }
}

fn told(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "Rate limit reached. Please try again later.",
        503 | 529 => "Overloaded",
        500.. => "The server had an error while processing your request. Sorry about that!",
        _ => "The request was refused.",
    }
}
