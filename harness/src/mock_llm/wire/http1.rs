//! Plays scripts over HTTP/1.1, faults included, and notes in the ledger what the system took of them, to the byte.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::Method;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::ledger::{Ended, Open, Telling};
use super::super::provider::Provider;
use super::super::script::{Framing, HeadFault, Piece, Script, Step};
use super::incoming::{Incoming, NoRequest, write_all};
use super::ready;

/// Bytes that are sent together at most, where nothing says that they must go out.
const TOGETHER: usize = 64 * 1024;

/// How long a client that was refused may still send what it was sending.
const LINGER: Duration = Duration::from_secs(2);

struct Connection {
    stream: TcpStream,
    incoming: Incoming,
    stop: watch::Receiver<bool>,
}

/// What one answer's writing needs to know of its request.
#[derive(Clone, Copy)]
struct Manner {
    arrival: Instant,
    /// Whether the client waits for a body: HEAD does not.
    body: bool,
    /// Whether the client understands chunks.
    chunks: bool,
    keeps: bool,
}

pub(super) async fn serve(
    stream: TcpStream,
    provider: Arc<Provider>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut connection = Connection {
        stream,
        incoming: Incoming::new(),
        stop,
    };
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = connection.incoming.request(&connection.stream) => arrived,
            _ = connection.stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let (mut exchange, mut manner) = match arrived {
            Ok(arrived) => {
                let manner = Manner {
                    arrival: Instant::now(),
                    body: arrived.request.method != Method::HEAD,
                    chunks: arrived.chunks,
                    keeps: arrived.keeps,
                };
                (provider.respond(&arrived.request), manner)
            }
            Err(NoRequest::Gone) => return Ok(()),
            Err(NoRequest::Refused(refusal)) => {
                let manner = Manner {
                    arrival: Instant::now(),
                    body: true,
                    chunks: true,
                    keeps: false,
                };
                let exchange = provider.respond_to_unreadable(&refusal);
                connection
                    .play(exchange.script, exchange.open, manner)
                    .await?;
                SockRef::from(&connection.stream).shutdown(Shutdown::Write)?;
                let drained = connection.incoming.drain(&connection.stream);
                let _ = tokio::time::timeout(LINGER, drained).await;
                return Ok(());
            }
        };
        if let Some(script) = ready(&provider, &mut exchange).await {
            exchange.script = script;
        }
        if *connection.stop.borrow() && connection.incoming.is_empty() {
            manner.keeps = false;
        }
        if !connection
            .play(exchange.script, exchange.open, manner)
            .await?
        {
            return Ok(());
        }
    }
}

impl Connection {
    /// Writes an answer; tells whether the connection may carry another one. An error means that the client is gone,
    /// and then the ledger has noted it: `open` was dropped.
    async fn play(
        &mut self,
        script: Script,
        open: Option<Open>,
        manner: Manner,
    ) -> io::Result<bool> {
        let mut out = Out::new(open);
        if !self.wait(manner.arrival + script.head_at).await? {
            return Ok(false);
        }
        let chunked = script.framing == Framing::Chunked && manner.chunks;
        // Without chunks, the end of the connection is the end of the body.
        let keeps = manner.keeps && (chunked || script.framing != Framing::Chunked);
        let head = head(&script, chunked, keeps);
        match script.head {
            HeadFault::None => out.bytes.extend_from_slice(head.as_bytes()),
            HeadFault::Slow(pause) => {
                for byte in head.as_bytes() {
                    if !self.wait(Instant::now() + pause).await? {
                        return Ok(false);
                    }
                    write_all(&self.stream, &[*byte]).await?;
                }
            }
            HeadFault::Half(ended) => {
                let half = head.as_bytes().get(..head.len() / 2).unwrap_or_default();
                out.bytes.extend_from_slice(half);
                self.flush(&mut out).await?;
                return self.break_off(out, ended).await;
            }
            HeadFault::Never(ended) => return self.break_off(out, ended).await,
        }
        if !manner.body {
            self.flush(&mut out).await?;
            out.end(Ended::Complete);
            return Ok(keeps);
        }
        let mut written = 0;
        for step in script.steps {
            match step {
                Step::Wait(after) => {
                    let due = manner.arrival + after;
                    if due > Instant::now() {
                        self.flush(&mut out).await?;
                        if !self.wait(due).await? {
                            return Ok(false);
                        }
                    }
                }
                Step::Write(piece) => {
                    out.push(&piece, chunked);
                    written += piece.bytes.len();
                    if piece.alone || out.bytes.len() >= TOGETHER {
                        self.flush(&mut out).await?;
                    }
                }
                Step::BadChunk => out.bytes.extend_from_slice(b"these are no hex digits\r\n"),
                Step::End(Ended::Complete | Ended::Errored) if chunked && script.trailers => {
                    out.bytes
                        .extend_from_slice(b"0\r\nx-mock-trailer: end\r\n\r\n");
                    return self.finish(out, step, keeps).await;
                }
                Step::End(Ended::Complete | Ended::Errored) => {
                    if chunked {
                        out.bytes.extend_from_slice(b"0\r\n\r\n");
                    }
                    // A length that did not come true ends the connection: nobody could tell where the next answer
                    // begins.
                    let honest = chunked || script.framing == Framing::Length(written);
                    return self.finish(out, step, keeps && honest).await;
                }
                Step::End(ended) => {
                    self.flush(&mut out).await?;
                    return self.break_off(out, ended).await;
                }
            }
        }
        Ok(false)
    }

    async fn finish(&mut self, mut out: Out, step: Step, keeps: bool) -> io::Result<bool> {
        self.flush(&mut out).await?;
        if let Step::End(ended) = step {
            out.end(ended);
        }
        Ok(keeps)
    }

    /// Ends the answer in the way that was wanted.
    async fn break_off(&mut self, out: Out, ended: Ended) -> io::Result<bool> {
        match ended {
            Ended::Reset => SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?,
            Ended::Stalled => {
                tokio::select! {
                    () = self.incoming.gone(&self.stream) => {}
                    _ = self.stop.wait_for(|stop| *stop) => {}
                }
            }
            Ended::Closed | Ended::Complete | Ended::Errored | Ended::Client => {}
        }
        out.end(ended);
        Ok(false)
    }

    /// Waits, unless the client leaves meanwhile; tells whether it is still there.
    async fn wait(&mut self, until: Instant) -> io::Result<bool> {
        if until <= Instant::now() {
            return Ok(true);
        }
        tokio::select! {
            () = tokio::time::sleep_until(until) => Ok(true),
            () = self.incoming.gone(&self.stream) => Ok(false),
        }
    }

    async fn flush(&mut self, out: &mut Out) -> io::Result<()> {
        while let rest @ [_, ..] = out.rest() {
            match self.stream.try_write(rest) {
                Ok(taken) => out.taken(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        out.clear();
        Ok(())
    }
}

/// What is to be sent next, and what the client has when it is.
struct Out {
    bytes: Vec<u8>,
    /// How many of them the system took.
    sent: usize,
    /// The pieces of the body among them that it did not take whole.
    pieces: VecDeque<Placed>,
    open: Option<Open>,
}

/// A piece of the body between the bytes that frame it.
struct Placed {
    /// Where what is left of it begins and ends.
    start: usize,
    end: usize,
    tokens: usize,
    told: Option<Telling>,
}

impl Out {
    fn new(open: Option<Open>) -> Self {
        Self {
            bytes: Vec::with_capacity(1024),
            sent: 0,
            pieces: VecDeque::new(),
            open,
        }
    }

    fn push(&mut self, piece: &Piece, chunked: bool) {
        let size = piece.bytes.len();
        // A chunk without bytes would be the last one.
        let framed = chunked && size > 0;
        if framed {
            // A vector takes all that is written to it.
            let _ = write!(self.bytes, "{size:x}\r\n");
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&piece.bytes);
        self.pieces.push_back(Placed {
            start,
            end: self.bytes.len(),
            tokens: piece.tokens,
            told: piece.told,
        });
        if framed {
            self.bytes.extend_from_slice(b"\r\n");
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Notes that the system took that many more bytes.
    fn taken(&mut self, bytes: usize) {
        self.sent += bytes;
        let Some(open) = &mut self.open else {
            return;
        };
        while let Some(piece) = self.pieces.front_mut() {
            let reached = self.sent.clamp(piece.start, piece.end);
            open.wrote(reached - piece.start);
            piece.start = reached;
            if self.sent < piece.end {
                return;
            }
            open.carried(piece.tokens, piece.told);
            self.pieces.pop_front();
        }
    }

    /// Begins anew, once all was sent.
    fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
        self.sent = 0;
    }

    fn end(self, ended: Ended) {
        if let Some(open) = self.open {
            open.end(ended);
        }
    }
}

fn head(script: &Script, chunked: bool, keeps: bool) -> String {
    let status = script.status;
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = String::with_capacity(512);
    // A string takes all that is written to it.
    let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for (name, value) in &script.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(
        head,
        "date: {}\r\n",
        httpdate::HttpDate::from(SystemTime::now())
    );
    match script.framing {
        Framing::Length(length) => {
            let _ = write!(head, "content-length: {length}\r\n");
        }
        Framing::Chunked if chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framing::Chunked => {}
    }
    if !keeps {
        head.push_str("connection: close\r\n");
    }
    head.push_str("\r\n");
    head
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::super::api::Api;
    use super::super::super::ledger::{Asked, Ledger};
    use super::super::super::reply::Usage;
    use super::*;

    fn open(ledger: &Arc<Ledger>) -> Open {
        ledger.open(Asked {
            request: "r".into(),
            key: None,
            model: None,
            api: Api::Chat,
            status: 200,
            streamed: true,
            usage: Usage::default(),
            plan: String::new(),
        })
    }

    proptest! {
        /// Each piece is some `x` and a `;` that stands for its token: neither occurs in what frames them.
        #[test]
        fn what_is_cut_anywhere_counts_to_the_byte(
            sizes in prop::collection::vec(0_usize..20, 1..8),
            chunked: bool,
            cut in 0.0..=1.0,
            writes in prop::collection::vec(1_usize..30, 1..8),
        ) {
            let ledger = Arc::<Ledger>::default();
            let mut out = Out::new(Some(open(&ledger)));
            out.bytes.extend_from_slice(b"a head\r\n\r\n");
            for size in sizes {
                let bytes = Bytes::from("x".repeat(size) + ";");
                out.push(&Piece { bytes, tokens: 1, told: None, alone: false }, chunked);
            }
            let sent = (out.bytes.len() as f64 * cut) as usize;
            for write in writes.iter().cycle() {
                if out.sent == sent {
                    break;
                }
                out.taken((*write).min(sent - out.sent));
            }
            let came = out.bytes[..sent].to_vec();
            drop(out);
            let entry = ledger.document("p", 0)["entries"][0].clone();
            let tokens = came.iter().filter(|byte| **byte == b';').count();
            let bytes = came.iter().filter(|byte| b"x;".contains(byte)).count();
            prop_assert_eq!(&entry["written_tokens"], tokens);
            prop_assert_eq!(&entry["written_bytes"], bytes);
            prop_assert_eq!(&entry["ended"], "client");
        }
    }
}
