use std::io::{self, BufRead, Read};

use bytes::Bytes;

use crate::http::Headers;

/// The longest head, and the longest body, that is read: far above what any test sends.
const LIMIT: u64 = 64 << 20;

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Occurs when the connection fails or is silent for too long.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// Occurs when the peer closes before a message has begun.
    #[error("the connection was closed without a message")]
    Closed,
    /// Occurs when the peer closes in the middle of a message.
    #[error("the connection was closed in the middle of {part}")]
    Truncated {
        /// What was incomplete.
        part: &'static str,
    },
    /// Occurs when the bytes are no HTTP/1 message.
    #[error("not HTTP: {line:?} is no {wanted}")]
    Malformed {
        /// What was to be read.
        wanted: &'static str,
        /// The line that was read instead.
        line: String,
    },
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The raw target, with the query.
    pub target: String,
    /// The header lines, in order, without pseudo-headers.
    pub headers: Headers,
    /// The body, without its chunking.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Headers,
}

impl Request {
    /// Reads one request.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of the connection, another one when a request is broken or broken off.
    pub fn read(from: &mut impl BufRead) -> Result<Self, WireError> {
        let line = line(from, "a request line")?.ok_or(WireError::Closed)?;
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(malformed("request line", &line));
        };
        if !version.starts_with("HTTP/1.") {
            return Err(malformed("request line", &line));
        }
        let (method, target) = (method.to_owned(), target.to_owned());
        let headers = fields(from)?;
        let (body, trailers) = body(from, &headers, Unframed::Empty)?;
        Ok(Self {
            method,
            target,
            headers,
            body,
            trailers,
        })
    }
}

/// A response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines, in order, without pseudo-headers.
    pub headers: Headers,
    /// The body, without its chunking.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Headers,
}

impl Response {
    /// Reads one response to a request with this method, past informational ones.
    ///
    /// # Errors
    /// [`WireError::Closed`] when there is none, another one when it is broken or broken off.
    pub fn read(from: &mut impl BufRead, method: &str) -> Result<Self, WireError> {
        loop {
            let line = line(from, "a status line")?.ok_or(WireError::Closed)?;
            let status = line
                .strip_prefix("HTTP/1.")
                .and_then(|rest| rest.get(2..5))
                .and_then(|code| code.parse().ok())
                .ok_or_else(|| malformed("status line", &line))?;
            let headers = fields(from)?;
            if (100..200).contains(&status) {
                continue;
            }
            let (body, trailers) = if method == "HEAD" || matches!(status, 204 | 304) {
                (Bytes::new(), Headers::new())
            } else {
                body(from, &headers, Unframed::UntilClosed)?
            };
            return Ok(Self {
                status,
                headers,
                body,
                trailers,
            });
        }
    }
}

fn malformed(wanted: &'static str, line: &str) -> WireError {
    WireError::Malformed {
        wanted,
        line: line.to_owned(),
    }
}

/// One line without its end, as Latin-1 where it isn't UTF-8. None at the end of the connection.
fn line(from: &mut impl BufRead, part: &'static str) -> Result<Option<String>, WireError> {
    Ok(
        raw_line(from, part)?.map(|line| match String::from_utf8(line) {
            Ok(text) => text,
            Err(other) => other.as_bytes().iter().copied().map(char::from).collect(),
        }),
    )
}

fn raw_line(from: &mut impl BufRead, part: &'static str) -> Result<Option<Vec<u8>>, WireError> {
    let mut line = Vec::new();
    if from.take(LIMIT).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(WireError::Truncated { part });
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(line))
}

/// Header or trailer lines up to the empty one.
fn fields(from: &mut impl BufRead) -> Result<Headers, WireError> {
    let mut headers = Headers::new();
    loop {
        let line = raw_line(from, "the headers")?.ok_or(WireError::Truncated {
            part: "the headers",
        })?;
        if line.is_empty() {
            return Ok(headers);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(malformed("header line", &String::from_utf8_lossy(&line)));
        };
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        headers.push(name.to_vec(), value.to_vec());
    }
}

/// What a body without Content-Length and chunking is.
enum Unframed {
    /// Nothing: a request.
    Empty,
    /// All that comes: a response.
    UntilClosed,
}

fn body(
    from: &mut impl BufRead,
    headers: &Headers,
    unframed: Unframed,
) -> Result<(Bytes, Headers), WireError> {
    let chunked = headers
        .get_str("transfer-encoding")
        .is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"));
    if chunked {
        return chunks(from);
    }
    let mut body = Vec::new();
    match headers.get_str("content-length") {
        Some(length) => {
            let wanted = length
                .parse()
                .map_err(|_| malformed("content-length", length))?;
            if from.take(wanted).read_to_end(&mut body)? as u64 != wanted {
                return Err(WireError::Truncated { part: "the body" });
            }
        }
        None => match unframed {
            Unframed::Empty => {}
            Unframed::UntilClosed => {
                from.take(LIMIT).read_to_end(&mut body)?;
            }
        },
    }
    Ok((body.into(), Headers::new()))
}

fn chunks(from: &mut impl BufRead) -> Result<(Bytes, Headers), WireError> {
    let mut body = Vec::new();
    loop {
        let size = line(from, "a chunk")?.ok_or(WireError::Truncated { part: "the body" })?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let wanted = u64::from_str_radix(digits, 16).map_err(|_| malformed("chunk size", &size))?;
        if wanted == 0 {
            return Ok((body.into(), fields(from)?));
        }
        if from.take(wanted).read_to_end(&mut body)? as u64 != wanted {
            return Err(WireError::Truncated { part: "a chunk" });
        }
        let end = line(from, "a chunk")?;
        if end.as_deref() != Some("") {
            return Err(malformed("end of a chunk", &end.unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(bytes: &str, method: &str) -> Result<Response, WireError> {
        Response::read(&mut bytes.as_bytes(), method)
    }

    #[test]
    fn a_request_is_read_as_it_stands() {
        let bytes =
            b"POST /a?b=%20 HTTP/1.1\r\nX-A: 1\r\nx-a:\xff\r\nContent-Length: 2\r\n\r\nhirest";
        let mut from = &bytes[..];
        let request = Request::read(&mut from).unwrap();
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/a?b=%20")
        );
        let lines: Vec<_> = request
            .headers
            .iter()
            .map(|(n, v)| (&n[..], &v[..]))
            .collect();
        assert_eq!(
            lines,
            [
                (&b"X-A"[..], &b"1"[..]),
                (b"x-a", b"\xff"),
                (b"Content-Length", b"2")
            ]
        );
        assert_eq!(&request.body[..], b"hi");
        assert_eq!(from, b"rest");
    }

    #[test]
    fn chunks_are_joined_and_trailers_kept() {
        let got = response(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n",
            "GET",
        )
        .unwrap();
        assert_eq!(&got.body[..], b"abc");
        assert_eq!(got.trailers.get_str("t"), Some("1"));
    }

    #[test]
    fn a_response_to_head_has_no_body_and_100_is_no_answer() {
        let got = response(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            "HEAD",
        )
        .unwrap();
        assert_eq!((got.status, got.body.len()), (200, 0));
    }

    #[test]
    fn a_broken_off_body_is_an_error() {
        let got = response("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "GET");
        assert!(
            matches!(got, Err(WireError::Truncated { part: "the body" })),
            "{got:?}"
        );
        assert!(matches!(response("", "GET"), Err(WireError::Closed)));
        assert!(matches!(
            response("SSH-2.0\r\n", "GET"),
            Err(WireError::Malformed { .. })
        ));
    }
}
