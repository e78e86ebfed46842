//! What the proxy answers where neither a filter nor an upstream does: in OpenAI's form, which its clients show to their
//! users.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::PipedBody;

/// The media type of the bodies.
pub(super) const KIND: &str = "application/json";

/// A whole answer.
pub(super) fn whole(status: StatusCode, message: &str) -> Response<PipedBody> {
    let text = body(status, message);
    let length = text.len();
    let mut response = Response::new(PipedBody::whole(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(KIND));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Its body alone.
pub(super) fn body(status: StatusCode, message: &str) -> Bytes {
    let kind = if status.is_server_error() {
        "server_error"
    } else {
        "invalid_request_error"
    };
    Bytes::from(
        json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
            .to_string(),
    )
}
