//! Answers a filter gives itself, in the two shapes that clients expect.
//!
//! `kong` is the form of Kong's `kong.response.error` (KONG-SPEC 0.2): the type follows `Accept`, the body has the message and a
//! request id. `openai` is the form that OpenAI's SDKs turn into their exceptions.

use crate::headers::HeaderMap;
use crate::host::{Entropy, Headers};
use crate::json;
use std::borrow::Cow;

/// An answer to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Headers besides `content-length`, which the host adds.
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// The body. Kong appends a newline to it.
    pub body: Vec<u8>,
    /// Set for a client that speaks gRPC: the status of the call.
    pub grpc_status: Option<u8>,
}

crate::keyword! {
    /// The shape of error answers.
    pub enum ErrorFormat {
        /// Kong's: `{"message": ..., "request_id": ...}`, or what `Accept` asks for.
        Kong = "kong",
        /// OpenAI's: `{"error": {"message", "type", "param", "code"}}`.
        OpenAi = "openai",
    }
}

/// An error to be told to the client.
#[derive(Clone, Debug)]
pub struct ErrorReply<'a> {
    /// The status code, 400 to 599.
    pub status: u16,
    /// The sentence for a person.
    pub message: &'a str,
    /// OpenAI's word for programs, such as `invalid_api_key`.
    pub code: Option<&'a str>,
    /// Further headers.
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
}

impl ErrorReply<'_> {
    /// The answer in this shape, for the request with these headers.
    pub fn render<H: Headers + Entropy + ?Sized>(
        self,
        format: ErrorFormat,
        request: &HeaderMap,
        host: &H,
    ) -> Reply {
        let grpc = request
            .first("content-type")
            .is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let mut body = Vec::new();
        let mut grpc_status = None;
        let kind = match format {
            _ if grpc => {
                grpc_status = Some(grpc_code(self.status));
                "application/grpc"
            }
            ErrorFormat::OpenAi => {
                self.openai(&mut body);
                "application/json"
            }
            ErrorFormat::Kong => {
                let id = request_id(request, host);
                let media = Media::accepted(request.first("accept").unwrap_or_default());
                media.write(self.message, &id, &mut body);
                media.content_type()
            }
        };
        let mut headers = vec![(Cow::Borrowed("content-type"), kind.as_bytes().to_vec())];
        if grpc {
            headers.push((
                Cow::Borrowed("grpc-message"),
                self.message.as_bytes().to_vec(),
            ));
        }
        headers.extend(self.headers);
        Reply {
            status: self.status,
            headers,
            body,
            grpc_status,
        }
    }

    fn openai(&self, out: &mut Vec<u8>) {
        let kind = match self.status {
            429 => "rate_limit_error",
            403 => "permission_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        out.extend_from_slice(b"{\"error\":{\"message\":");
        json::quote(self.message.as_bytes(), out);
        out.extend_from_slice(b",\"type\":");
        json::quote(kind.as_bytes(), out);
        out.extend_from_slice(b",\"param\":null,\"code\":");
        match self.code {
            Some(code) => json::quote(code.as_bytes(), out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}}");
    }
}

/// Kong's mapping of HTTP to gRPC statuses.
fn grpc_code(status: u16) -> u8 {
    match status {
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 10,
        412 => 9,
        429 => 8,
        501 => 12,
        503 => 14,
        504 => 4,
        500.. => 13,
        _ => 2,
    }
}

/// The request's id as 32 hex digits, as nginx writes it: the host's own, else a random one.
fn request_id<H: Headers + Entropy + ?Sized>(request: &HeaderMap, host: &H) -> String {
    let known = host.request_id(request).map(|id| {
        id.into_iter()
            .filter(|byte| *byte != b'-')
            .collect::<Vec<u8>>()
    });
    match known.and_then(|id| String::from_utf8(id).ok()) {
        Some(id) if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            id.to_ascii_lowercase()
        }
        _ => format!("{:032x}", u128::from_le_bytes(host.random())),
    }
}

/// The shapes of Kong's error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Json,
    Plain,
    Html,
    Xml,
}

impl Media {
    /// What `Accept` asks for: the first of the highest quality; JSON for what Kong does not know. `q=0` never wins.
    fn accepted(accept: &[u8]) -> Media {
        let mut chosen = (0.0, Media::Json);
        for range in accept.split(|&byte| byte == b',') {
            let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let media = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_slice()
            {
                b"text/plain" | b"text/*" => Media::Plain,
                b"text/html" => Media::Html,
                b"application/xml" => Media::Xml,
                b"" => continue,
                _ => Media::Json,
            };
            let quality =
                parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
            let quality: f64 = match quality {
                Some(text) => std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(1.0),
                None => 1.0,
            };
            if quality > chosen.0 {
                chosen = (quality, media);
            }
        }
        chosen.1
    }

    fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json; charset=utf-8",
            Media::Plain => "text/plain; charset=utf-8",
            Media::Html => "text/html; charset=utf-8",
            Media::Xml => "application/xml; charset=utf-8",
        }
    }

    fn write(self, message: &str, id: &str, out: &mut Vec<u8>) {
        let text = match self {
            Media::Json => {
                // Kong does not escape the message; a message that needs it would be no JSON there.
                out.extend_from_slice(b"{\n  \"message\":");
                json::quote(message.as_bytes(), out);
                format!(",\n  \"request_id\":\"{id}\"\n}}")
            }
            Media::Plain => format!("{message}\nrequest_id: {id}\n"),
            Media::Html => {
                let message = escape_markup(message);
                format!(
                    "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n  <body>\n    \
                     <h1>Error</h1>\n    <p>{message}.</p>\n    <p>request_id: {id}</p>\n  </body>\n</html>\n"
                )
            }
            Media::Xml => {
                let message = escape_markup(message);
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{message}</message>\n  \
                     <requestid>{id}</requestid>\n</error>\n"
                )
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
}

fn escape_markup(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ScriptedHost;

    fn render(format: ErrorFormat, request: &[(&str, &str)]) -> (Reply, String) {
        let host = ScriptedHost::with_headers(request);
        let error = ErrorReply {
            status: 401,
            message: "No \"key\" <here>",
            code: Some("invalid_api_key"),
            headers: vec![],
        };
        let reply = error.render(format, &host.request_headers().unwrap(), &host);
        let body = String::from_utf8(reply.body.clone()).unwrap();
        (reply, body)
    }

    fn content_type(accept: &str) -> String {
        let (reply, _) = render(ErrorFormat::Kong, &[("accept", accept)]);
        String::from_utf8(reply.headers[0].1.clone()).unwrap()
    }

    #[test]
    fn kongs_form_follows_accept() {
        for (accept, wanted) in [
            ("", "application/json"),
            ("*/*", "application/json"),
            ("application/*", "application/json"),
            ("image/png", "application/json"),
            ("text/plain", "text/plain"),
            ("text/*", "text/plain"),
            ("Text/HTML", "text/html"),
            ("application/xml", "application/xml"),
            (
                "text/html;q=0.3, application/json;q=0.8",
                "application/json",
            ),
            ("text/html;q=0.5,text/plain; q=0.5", "text/html"),
            ("text/html;q=0", "application/json"),
            ("text/plain;level=1;q=0.9, text/html;q=0.8", "text/plain"),
        ] {
            assert_eq!(
                content_type(accept),
                format!("{wanted}; charset=utf-8"),
                "{accept}"
            );
        }
    }

    #[test]
    fn kongs_json_has_the_message_and_the_hosts_request_id() {
        let (_, body) = render(
            ErrorFormat::Kong,
            &[("x-request-id", "0123ABCD-4567-89ab-cdef-0123456789ab")],
        );
        assert_eq!(
            body,
            "{\n  \"message\":\"No \\\"key\\\" <here>\",\n  \"request_id\":\"0123abcd456789abcdef0123456789ab\"\n}"
        );
    }

    #[test]
    fn a_request_id_that_is_none_is_replaced() {
        for id in ["", "abc", "zz23abcd456789abcdef0123456789ab", "\"}<script>"] {
            let (_, body) = render(
                ErrorFormat::Kong,
                &[("x-request-id", id), ("accept", "text/plain")],
            );
            let shown = body
                .lines()
                .nth(1)
                .unwrap()
                .strip_prefix("request_id: ")
                .unwrap();
            assert!(
                shown.len() == 32 && shown.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{shown}"
            );
        }
    }

    #[test]
    fn markup_is_escaped() {
        let (_, body) = render(ErrorFormat::Kong, &[("accept", "text/html")]);
        assert!(body.contains("<p>No \"key\" &lt;here&gt;.</p>"), "{body}");
    }

    #[test]
    fn openais_form_has_type_and_code() {
        let (reply, body) = render(ErrorFormat::OpenAi, &[("accept", "text/html")]);
        assert_eq!(
            body,
            r#"{"error":{"message":"No \"key\" <here>","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#
        );
        assert_eq!(reply.headers[0].1, b"application/json");
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status_and_no_body() {
        let (reply, body) = render(
            ErrorFormat::Kong,
            &[("content-type", "application/grpc+proto")],
        );
        assert_eq!((reply.grpc_status, body.as_str()), (Some(16), ""));
    }
}
