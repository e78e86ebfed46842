use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;

use super::message::Request;
use crate::http::Headers;

/// What a [`Recorder`] answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, without framing.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// Send the body in chunks of a third, without a Content-Length.
    pub chunked: bool,
}

impl Answer {
    /// A plain 200 with a short text.
    #[must_use]
    pub fn ok() -> Self {
        Self {
            status: 200,
            headers: [("Content-Type", "text/plain")].into_iter().collect(),
            body: Bytes::from_static(b"ok\n"),
            chunked: false,
        }
    }

    fn to_wire(&self, method: &str) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} Scripted\r\n", self.status).into_bytes();
        for (name, value) in self.headers.iter() {
            write_line(&mut bytes, name, value);
        }
        let bodiless = matches!(self.status, 204 | 304);
        if self.chunked {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        } else if bodiless {
            bytes.extend_from_slice(b"\r\n");
        } else {
            bytes.extend_from_slice(
                format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes(),
            );
        }
        if method == "HEAD" || bodiless {
            return bytes;
        }
        if !self.chunked {
            bytes.extend_from_slice(&self.body);
            return bytes;
        }
        for piece in self.body.chunks((self.body.len() / 3).max(1)) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}

fn write_line(bytes: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

/// An upstream on the loopback interface that notes what comes and answers as told. It ends when dropped.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    over: AtomicBool,
}

#[derive(Debug)]
struct Script {
    answer: Answer,
    seen: Vec<Request>,
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: &TcpStream) -> io::Result<()> {
        let mut from = BufReader::new(connection);
        let mut to = connection;
        while let Ok(request) = Request::read(&mut from) {
            let answer = {
                let mut script = self.script();
                let answer = script.answer.to_wire(&request.method);
                script.seen.push(request);
                answer
            };
            to.write_all(&answer)?;
        }
        Ok(())
    }
}

impl Recorder {
    /// Starts on a free port, with [`Answer::ok`].
    ///
    /// # Errors
    /// Fails when no port can be had.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script: Mutex::new(Script {
                answer: Answer::ok(),
                seen: Vec::new(),
            }),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if serving.over.load(Ordering::Acquire) {
                    break;
                }
                let serving = Arc::clone(&serving);
                // A connection that breaks concerns its own exchange alone, and shows there.
                thread::spawn(move || serving.serve(&connection));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer to all further requests.
    pub fn answer(&self, answer: Answer) {
        self.shared.script().answer = answer;
    }

    /// Takes the requests that came since the last call.
    #[must_use]
    pub fn take_seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.script().seen)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees that it is over. If that fails, it has ended already.
        drop(TcpStream::connect(self.address));
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange;
    use super::*;

    #[test]
    fn what_was_sent_is_seen_and_what_was_told_is_answered() {
        let upstream = Recorder::start().unwrap();
        upstream.answer(Answer {
            status: 418,
            headers: [("X-A", "1")].into_iter().collect(),
            body: Bytes::from_static(b"teapot"),
            chunked: true,
        });
        let got = exchange(
            upstream.address(),
            "GET",
            b"GET /x HTTP/1.1\r\nA: b\r\nA: c\r\n\r\n",
        )
        .unwrap();
        assert_eq!((got.status, &got.body[..]), (418, &b"teapot"[..]));
        assert_eq!(got.headers.get_str("x-a"), Some("1"));
        let seen = upstream.take_seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].headers.get_all("a").count(), 2);
        assert!(upstream.take_seen().is_empty());
    }
}
