//! The provider's errors, with OpenAI's statuses and in its form: `{"error":{"message","type","param","code"}}`.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

/// A request that gets an error for an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Occurs when the provider has keys and the request brings none.
    #[error(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
    )]
    NoKey,
    /// Occurs when the key is not one of the provider's. The key is not repeated, unlike OpenAI's answer.
    #[error("Incorrect API key provided.")]
    WrongKey,
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
    /// Occurs when the body ends before it is complete.
    #[error("The request body could not be read to its end.")]
    Unreadable,
    /// Occurs when the body is not JSON, or a field has the wrong type.
    #[error("We could not parse the JSON body of your request: {problem}")]
    NotUnderstood {
        /// What the parser says, with line and column.
        problem: String,
    },
    /// Occurs when a field that must be there is not.
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
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoKey | Self::WrongKey => StatusCode::UNAUTHORIZED,
            Self::NoSuchPath { .. } | Self::NoSuchModel { .. } => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable
            | Self::NotUnderstood { .. }
            | Self::Missing { .. }
            | Self::Invalid { .. } => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn body(&self) -> Value {
        let (param, code) = match self {
            Self::WrongKey => (None, Some("invalid_api_key")),
            Self::NoSuchModel { .. } => (Some("model"), Some("model_not_found")),
            Self::WrongMethod { .. } => (None, Some("method_not_supported")),
            Self::Missing { field } => (Some(*field), Some("missing_required_parameter")),
            Self::Invalid { field, .. } => (Some(*field), Some("invalid_value")),
            Self::NoKey
            | Self::NoSuchPath { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable
            | Self::NotUnderstood { .. } => (None, None),
        };
        json!({"error": {
            "message": self.to_string(),
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }})
    }
}
