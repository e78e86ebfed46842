//! Where the requests of an HTTP/1.1 connection begin and end, read as strictly as the standard allows.
//!
//! What two readers could understand in two ways is how requests are smuggled past a proxy: both a Content-Length and a
//! Transfer-Encoding, two lengths, lines that end in a bare line feed, folded lines. hyper, like most servers, lets some
//! of them pass for the sake of old clients; here each is refused before hyper sees the end of the message's head.

use super::config::RequestLimits;
use super::failure::Failure;

/// What was refused, and how much in front of it is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Bytes of the piece that may be passed on. With them alone the refused message is never complete.
    pub(super) passed: usize,
    pub(super) failure: Failure,
    /// Whether the head was fine and the body is not.
    pub(super) in_body: bool,
}

/// The requests of one connection, as far as they came.
#[derive(Debug)]
pub(super) struct Framing {
    limits: RequestLimits,
    state: State,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    head: Head,
    heads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    RequestLine,
    HeaderLine,
    /// So many bytes of a body with a length.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailers,
}

/// What the head that is being read said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: usize,
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    /// HTTP/1.0, which knows no transfer codings.
    old: bool,
}

impl Framing {
    pub(super) fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            state: State::RequestLine,
            line: Vec::new(),
            head: Head::default(),
            heads: 0,
        }
    }

    /// Heads that came whole.
    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    /// Whether a part of a head came and its end did not.
    pub(super) fn is_mid_head(&self) -> bool {
        match self.state {
            State::RequestLine => !self.line.is_empty(),
            State::HeaderLine => true,
            _ => false,
        }
    }

    /// Takes note of a piece that was read.
    ///
    /// # Errors
    /// When something in it is refused. The connection can't be read on then.
    pub(super) fn read(&mut self, piece: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while let Some(rest) = piece.get(at..).filter(|rest| !rest.is_empty()) {
            let in_body = !matches!(self.state, State::RequestLine | State::HeaderLine);
            let refused = |failure| Refused {
                passed: at,
                failure,
                in_body,
            };
            at += match self.state {
                State::Body(left) => {
                    let (taken, left) = taken(rest, left);
                    self.state = if left == 0 {
                        State::RequestLine
                    } else {
                        State::Body(left)
                    };
                    taken
                }
                State::Chunk(left) => {
                    let (taken, left) = taken(rest, left);
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    taken
                }
                _ => self.part_of_line(rest).map_err(refused)?,
            };
        }
        Ok(())
    }

    /// Reads up to the line's end or the piece's.
    fn part_of_line(&mut self, rest: &[u8]) -> Result<usize, Failure> {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.line.extend_from_slice(part);
        let longest = match self.state {
            State::RequestLine => self.limits.head.saturating_add(self.limits.uri),
            State::ChunkSize | State::ChunkEnd => LONGEST_CHUNK_LINE,
            _ => self.limits.head,
        };
        if self.line.len() > longest {
            return Err(match self.state {
                State::RequestLine => Failure::UriTooLong,
                State::ChunkSize | State::ChunkEnd => Failure::BadRequest,
                _ => Failure::HeadersTooLarge,
            });
        }
        if self.state == State::RequestLine && self.request_target_so_far() > self.limits.uri {
            return Err(Failure::UriTooLong);
        }
        if end.is_none() {
            return Ok(part.len());
        }
        let mut line = std::mem::take(&mut self.line);
        if line.pop() != Some(b'\r') || line.iter().any(|byte| is_control(*byte)) {
            return Err(Failure::BadRequest);
        }
        self.whole_line(&line)?;
        line.clear();
        self.line = line;
        Ok(part.len() + 1)
    }

    fn request_target_so_far(&self) -> usize {
        let mut words = self.line.split(|byte| *byte == b' ').skip(1);
        words.next().map_or(0, <[u8]>::len)
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        match self.state {
            // An empty line in front of a request is left over from the one before (RFC 9112 section 2.2).
            State::RequestLine if line.is_empty() => {}
            State::RequestLine => {
                self.head = Head::default();
                self.request_line(line)?;
                self.state = State::HeaderLine;
            }
            State::HeaderLine if line.is_empty() => {
                self.state = self.body_of_head()?;
                self.heads += 1;
            }
            State::HeaderLine => {
                self.head.bytes = self.head.bytes.saturating_add(line.len());
                self.head.lines += 1;
                self.header_line(line)?;
            }
            State::ChunkSize => {
                self.state = match chunk_size(line)? {
                    0 => {
                        self.head = Head::default();
                        State::Trailers
                    }
                    size => State::Chunk(size),
                };
            }
            State::ChunkEnd if line.is_empty() => self.state = State::ChunkSize,
            State::Trailers if line.is_empty() => self.state = State::RequestLine,
            State::Trailers => {
                self.head.bytes = self.head.bytes.saturating_add(line.len());
                self.head.lines += 1;
                if self.head.lines > self.limits.headers || self.head.bytes > self.limits.head {
                    return Err(Failure::HeadersTooLarge);
                }
                name_and_value(line)?;
            }
            State::ChunkEnd | State::Body(_) | State::Chunk(_) => return Err(Failure::BadRequest),
        }
        Ok(())
    }

    /// `method SP request-target SP HTTP-version` (RFC 9112 section 3).
    fn request_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [method, target, version] = words[..] else {
            return Err(Failure::BadRequest);
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) || target.is_empty() {
            return Err(Failure::BadRequest);
        }
        self.head.old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ if version.starts_with(b"HTTP/") => return Err(Failure::UnknownVersion),
            _ => return Err(Failure::BadRequest),
        };
        self.head.bytes = line.len();
        Ok(())
    }

    fn header_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        if self.head.lines > self.limits.headers || self.head.bytes > self.limits.head {
            return Err(Failure::HeadersTooLarge);
        }
        let (name, value) = name_and_value(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            // One number, not a list of equal ones: RFC 9112 section 6.3 lets a recipient refuse those.
            if self.head.length.is_some() {
                return Err(Failure::BadRequest);
            }
            self.head.length = Some(digits(value, 10)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.head.chunked || self.head.old {
                return Err(Failure::BadRequest);
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Failure::UnknownCoding);
            }
            self.head.chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            self.head.hosts += 1;
            if self.head.hosts > 1 {
                return Err(Failure::BadRequest);
            }
        }
        Ok(())
    }

    /// What follows the head.
    fn body_of_head(&self) -> Result<State, Failure> {
        match (self.head.chunked, self.head.length) {
            (true, Some(_)) => Err(Failure::BadRequest),
            (true, None) => Ok(State::ChunkSize),
            (false, None | Some(0)) => Ok(State::RequestLine),
            (false, Some(length)) => Ok(State::Body(length)),
        }
    }
}

/// A chunk's size line, extensions included. hyper takes 16 KiB of extensions in a whole body.
const LONGEST_CHUNK_LINE: usize = 4096;

fn taken(rest: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
    (taken, left.saturating_sub(taken as u64))
}

/// `chunk-size [ chunk-ext ]` (RFC 9112 section 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, Failure> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    digits(size.trim_ascii_end(), 16)
}

fn digits(text: &[u8], base: u32) -> Result<u64, Failure> {
    if text.is_empty() {
        return Err(Failure::BadRequest);
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte)
            .to_digit(base)
            .ok_or(Failure::BadRequest)?;
        number
            .checked_mul(u64::from(base))
            .and_then(|number| number.checked_add(u64::from(digit)))
            .ok_or(Failure::BadRequest)
    })
}

/// A folded line, which begins with white space, has no name.
fn name_and_value(line: &[u8]) -> Result<(&[u8], &[u8]), Failure> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon
        .and_then(|colon| line.split_at_checked(colon))
        .ok_or(Failure::BadRequest)?;
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Failure::BadRequest);
    }
    Ok((name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits = RequestLimits {
        body: None,
        head: 200,
        headers: 4,
        uri: 20,
    };

    /// Reads a connection's bytes in pieces of one size.
    fn read(bytes: &str, size: usize) -> Result<Framing, Refused> {
        let mut framing = Framing::new(LIMITS);
        for piece in bytes.as_bytes().chunks(size) {
            framing.read(piece)?;
        }
        Ok(framing)
    }

    fn refusal(bytes: &str) -> Failure {
        let by_one = read(bytes, 1).map(|_| ()).unwrap_err().failure;
        let whole = read(bytes, bytes.len()).map(|_| ()).unwrap_err().failure;
        assert_eq!(by_one, whole, "{bytes:?}");
        whole
    }

    #[test]
    fn requests_are_told_apart_however_they_are_cut() {
        let connection = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n\
            POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nG / H\r\n\
            POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nab\ncd\r\n0\r\nX: 1\r\n\r\n\
            HEAD /d HTTP/1.0\r\n\r\n";
        for size in [1, 2, 3, 7, 1000] {
            let framing = read(connection, size).unwrap();
            assert_eq!((framing.heads(), framing.is_mid_head()), (4, false));
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let head = "POST / HTTP/1.1\r\nHost: h\r\n";
        for lines in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1, 1\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
            "Content-Length:\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Content-Length : 1\r\n\r\n",
            " folded: 1\r\n\r\n",
            "X: a\r\n b\r\n\r\n",
            "X: a\nY: b\r\n\r\n",
            "X: a\rb\r\n\r\n",
            "X: a\0b\r\n\r\n",
            "Host: h\r\n\r\n",
            "no colon\r\n\r\n",
            "\n",
        ] {
            assert_eq!(
                refusal(&format!("{head}{lines}")),
                Failure::BadRequest,
                "{lines:?}"
            );
        }
        for body in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "1\nab",
            "1\r\nabc\r\n",
            "1 1\r\n",
            "fffffffffffffffff\r\n",
        ] {
            let bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}");
            assert_eq!(refusal(&bytes), Failure::BadRequest, "{body:?}");
        }
    }

    #[test]
    fn what_is_not_supported_is_told_apart() {
        let cases = [
            ("GET / HTTP/1.2\r\n", Failure::UnknownVersion),
            ("GET / HTTP/3\r\n", Failure::UnknownVersion),
            ("GET /\r\n", Failure::BadRequest),
            ("GET  / HTTP/1.1\r\n", Failure::BadRequest),
            ("G(T / HTTP/1.1\r\n", Failure::BadRequest),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
                Failure::BadRequest,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
                Failure::UnknownCoding,
            ),
            (
                "GET /12345678901234567890 HTTP/1.1\r\n",
                Failure::UriTooLong,
            ),
            (
                "GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\ne:\r\n",
                Failure::HeadersTooLarge,
            ),
        ];
        for (bytes, failure) in cases {
            assert_eq!(refusal(bytes), failure, "{bytes:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(200));
        assert_eq!(refusal(&long), Failure::HeadersTooLarge);
        let endless = "x".repeat(1000);
        assert_eq!(refusal(&endless), Failure::UriTooLong);
    }

    #[test]
    fn what_passes_of_a_refused_request_never_completes_it() {
        let good = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let bad = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx";
        let refused = read(&format!("{good}{bad}"), 1000).map(|_| ()).unwrap_err();
        assert_eq!(
            refused.passed,
            good.len() + bad.len() - "\r\n\r\nx".len() + "\r\n".len()
        );
        assert!(!refused.in_body);
    }
}
