//! Reads requests off a connection (RFC 9112). Strict: what two readers could understand in two ways is refused.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Uri};
use tokio::net::TcpStream;

use super::super::refusal::Refusal;
use super::super::request::{BODY_LIMIT, Request};

/// The largest head.
const HEAD_LIMIT: usize = 64 * 1024;

/// The most header lines.
const MOST_LINES: usize = 256;

/// Bytes read ahead of the request that is answered.
const READ_AHEAD: usize = 64 * 1024;

/// The reading side of a connection.
pub(super) struct Incoming {
    buffer: BytesMut,
}

/// Why no request came.
pub(super) enum NoRequest {
    /// The client is done, or gone.
    Gone,
    Refused(Refusal),
}

/// A request, and what it says of the connection.
pub(super) struct Arrived {
    pub(super) request: Request,
    /// Whether another one may follow.
    pub(super) keeps: bool,
    /// Whether the client understands chunks: HTTP/1.0 does not.
    pub(super) chunks: bool,
}

/// How a body ends.
enum Length {
    Known(usize),
    Chunked,
}

impl From<io::Error> for NoRequest {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

fn unreadable(problem: &'static str) -> NoRequest {
    NoRequest::Refused(Refusal::Unreadable { problem })
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
        }
    }

    /// Reads what is there, at least one byte.
    async fn fill(&mut self, stream: &TcpStream) -> Result<(), NoRequest> {
        loop {
            self.buffer.reserve(8 * 1024);
            match stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(NoRequest::Gone),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.readable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the client has closed the connection or its side of it. What it sends meanwhile is kept, up to a
    /// limit; behind that its end can't be seen.
    pub(super) async fn gone(&mut self, stream: &TcpStream) {
        while self.buffer.len() < READ_AHEAD {
            if self.fill(stream).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Whether nothing of a request has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Throws away what still comes, so that the client can read its answer before the connection ends.
    pub(super) async fn drain(&mut self, stream: &TcpStream) {
        loop {
            self.buffer.clear();
            if self.fill(stream).await.is_err() {
                return;
            }
        }
    }

    /// Reads the next request with its body.
    pub(super) async fn request(&mut self, stream: &TcpStream) -> Result<Arrived, NoRequest> {
        let (mut arrived, length) = loop {
            if let Some(head) = self.head()? {
                break head;
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(unreadable("its head is larger than 64 KiB"));
            }
            self.fill(stream).await?;
        };
        let expects = arrived
            .request
            .headers
            .get("expect")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if matches!(length, Length::Known(length) if length > BODY_LIMIT) {
            return Err(NoRequest::Refused(Refusal::TooLarge { limit: BODY_LIMIT }));
        }
        if expects && self.buffer.is_empty() {
            write_all(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        arrived.request.body = match length {
            Length::Known(length) => {
                while self.buffer.len() < length {
                    self.fill(stream).await?;
                }
                self.buffer.split_to(length).freeze()
            }
            Length::Chunked => self.chunks(stream).await?,
        };
        Ok(arrived)
    }

    /// Takes a head off the buffer, if one is there whole.
    fn head(&mut self) -> Result<Option<(Arrived, Length)>, NoRequest> {
        let mut lines = [httparse::EMPTY_HEADER; MOST_LINES];
        let mut head = httparse::Request::new(&mut lines);
        let size = match head.parse(&self.buffer) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(size)) => size,
            Err(_) => return Err(unreadable("its head is not HTTP")),
        };
        let method = head
            .method
            .and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let uri = head.path.and_then(|target| target.parse::<Uri>().ok());
        let (Some(method), Some(uri)) = (method, uri) else {
            return Err(unreadable("its method or its target can't be understood"));
        };
        let mut headers = HeaderMap::with_capacity(head.headers.len());
        for line in &*head.headers {
            let name = HeaderName::from_bytes(line.name.as_bytes());
            let value = HeaderValue::from_bytes(line.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(unreadable("one of its headers can't be understood"));
            };
            headers.append(name, value);
        }
        let newer = head.version == Some(1);
        let length = body_length(&headers)?;
        let says = |word: &str| {
            let lines = headers.get_all("connection").iter();
            lines
                .filter_map(|line| line.to_str().ok())
                .flat_map(|line| line.split(','))
                .any(|option| option.trim().eq_ignore_ascii_case(word))
        };
        let keeps = if newer {
            !says("close")
        } else {
            says("keep-alive")
        };
        self.buffer.advance(size);
        let request = Request {
            method,
            uri,
            headers,
            body: Bytes::new(),
        };
        let arrived = Arrived {
            request,
            keeps,
            chunks: newer,
        };
        Ok(Some((arrived, length)))
    }

    async fn chunks(&mut self, stream: &TcpStream) -> Result<Bytes, NoRequest> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line(stream).await?;
            let digits = line[..]
                .split(|byte| *byte == b';')
                .next()
                .unwrap_or_default();
            let size = std::str::from_utf8(digits)
                .ok()
                .map(str::trim_end)
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| usize::from_str_radix(digits, 16).ok())
                .ok_or_else(|| unreadable("a chunk's size is no number"))?;
            if size > BODY_LIMIT || body.len() + size > BODY_LIMIT {
                return Err(NoRequest::Refused(Refusal::TooLarge { limit: BODY_LIMIT }));
            }
            if size == 0 {
                // Trailers say nothing here.
                while !self.line(stream).await?.is_empty() {}
                return Ok(body.freeze());
            }
            while self.buffer.len() < size + 2 {
                self.fill(stream).await?;
            }
            body.extend_from_slice(&self.buffer.split_to(size));
            if !self.buffer.starts_with(b"\r\n") {
                return Err(unreadable("a chunk is longer than its size"));
            }
            self.buffer.advance(2);
        }
    }

    /// A line without its end, which is CRLF.
    async fn line(&mut self, stream: &TcpStream) -> Result<BytesMut, NoRequest> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end);
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(unreadable("a line is too long"));
            }
            self.fill(stream).await?;
        }
    }
}

/// RFC 9112 section 6.3, without its leave to guess.
fn body_length(headers: &HeaderMap) -> Result<Length, NoRequest> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (encodings.next(), lengths.next()) {
        (None, None) => Ok(Length::Known(0)),
        (Some(encoding), None) => {
            if encodings.next().is_none() && encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                Ok(Length::Chunked)
            } else {
                Err(unreadable("its transfer coding is not chunked"))
            }
        }
        (None, Some(length)) => {
            let digits = length.to_str().unwrap_or_default();
            let digits =
                Some(digits).filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
            match (
                digits.and_then(|digits| digits.parse().ok()),
                lengths.next(),
            ) {
                (Some(length), None) => Ok(Length::Known(length)),
                _ => Err(unreadable("its Content-Length is not one number")),
            }
        }
        (Some(_), Some(_)) => Err(unreadable(
            "it has both Transfer-Encoding and Content-Length",
        )),
    }
}

pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
