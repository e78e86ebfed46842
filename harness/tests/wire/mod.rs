//! HTTP/1.1 by hand over a blocking socket, so that a test decides what goes over the wire and when, and sees each
//! piece as it comes.

#![allow(dead_code, reason = "each test crate uses its own part of it")]

pub(crate) mod authority;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod http2;
pub(crate) mod secure;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes; a test that waits in vain fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection.
pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
}

/// The first line of a message and its headers, names in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Head {
    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(line, _)| line == name)
            .map(|(_, value)| value.as_str())
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|value| value.contains("chunked"))
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn accept(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        until(|| {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        listener.set_nonblocking(false).unwrap();
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends one piece of a chunked body.
    pub(crate) fn send_chunk(&mut self, data: impl AsRef<[u8]>) {
        let data = data.as_ref();
        let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
        chunk.extend_from_slice(data);
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk);
    }

    /// Sends one piece of a chunked body unless the other side takes nothing for `patience`.
    pub(crate) fn try_send_chunk(&mut self, data: &[u8], patience: Duration) -> bool {
        let stream = self.stream.get_mut();
        stream.set_write_timeout(Some(patience)).unwrap();
        let chunk = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
        stream.write_all(&chunk).is_ok()
    }

    /// Reads a message up to the empty line.
    pub(crate) fn head(&mut self) -> Head {
        let first = self.line();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Head { first, headers };
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads a message up to the empty line, unless the connection ends first.
    pub(crate) fn try_head(&mut self) -> Option<Head> {
        let more = self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        more.then(|| self.head())
    }

    /// Reads one piece of a chunked body; none at its end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line();
        let size =
            usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
        let mut data = vec![0; size];
        self.stream.read_exact(&mut data).unwrap();
        assert_eq!(self.line(), "");
        (size > 0).then_some(data)
    }

    /// Reads the last piece of a chunked body and the trailers after it.
    pub(crate) fn trailers(&mut self) -> Vec<(String, String)> {
        let head = self.head();
        assert_eq!(head.first, "0");
        head.headers
    }

    /// Reads the body that belongs to the head.
    pub(crate) fn body(&mut self, head: &Head) -> Vec<u8> {
        if head.is_chunked() {
            return std::iter::from_fn(|| self.chunk()).flatten().collect();
        }
        let length = head
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data).unwrap();
        data
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let body = self.body(&head);
        Answer { head, body }
    }

    /// Reads so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        self.stream.read_exact(&mut data).unwrap();
        data
    }

    /// Reads so many bytes, unless the connection ends first.
    pub(crate) fn try_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut data = vec![0; count];
        self.stream.read_exact(&mut data).ok().map(|()| data)
    }

    /// Sends unless the other side has ended the connection or takes nothing.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// Reads as a slow receiver does: so many bytes, so many times, with a pause after each.
    pub(crate) fn trickle(&mut self, bytes: usize, times: usize) {
        let mut data = vec![0; bytes];
        for _ in 0..times {
            // Past the buffer, which would read ahead.
            self.stream.get_mut().read_exact(&mut data).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads what still comes until the other side has ended the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        rest
    }

    /// Waits until the other side has ended the connection; what still came before is dropped.
    pub(crate) fn wait_for_end(&mut self) {
        self.rest();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).unwrap();
        assert_ne!(read, 0, "the connection ended where a line was due");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }
}

/// One request on a connection of its own; `lines` are the header lines besides Host and Content-Length.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    lines: &[&str],
    body: &str,
) -> Answer {
    let mut wire = Wire::connect(address);
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    wire.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n{lines}\r\n{body}",
        body.len()
    ));
    wire.answer()
}

pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], "")
}

pub(crate) fn post(address: SocketAddr, target: &str, body: &Value) -> Answer {
    request(
        address,
        "POST",
        target,
        &["Content-Type: application/json"],
        &body.to_string(),
    )
}

/// Waits for something that other threads bring about.
pub(crate) fn until(mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "it did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}
