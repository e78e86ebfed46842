//! What a client's bytes pass before hyper gets them: the strict reading of HTTP/1.1, and the time its heads may take.
//!
//! A refused message's bytes are kept from hyper, which sees the connection end instead; the requests before it are
//! answered first. Who runs the connection then gets the socket back, with what to answer.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};
use tokio::time::Sleep;

use super::failure::Failure;
use super::framing::Framing;
use super::socket::Socket;

/// The most bytes of one read.
const READ: usize = 64 << 10;

thread_local! {
    /// Where all connections of a thread read into, so that an idle one holds no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Visits {
    begun: AtomicUsize,
    answered: AtomicUsize,
    finished: AtomicUsize,
    tunnelled: AtomicBool,
    reader: AtomicWaker,
    changed: Notify,
}

impl Visits {
    /// A request came.
    pub(super) fn begin(self: &Arc<Self>) -> Visit {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.tell();
        Visit(Arc::clone(self))
    }

    /// From now on the bytes are no HTTP.
    pub(super) fn tunnel(&self) {
        self.tunnelled.store(true, Ordering::Relaxed);
    }

    /// Requests under way.
    pub(super) fn open(&self) -> usize {
        let finished = self.finished.load(Ordering::Relaxed);
        self.begun.load(Ordering::Relaxed).saturating_sub(finished)
    }

    /// Waits until the connection has been without a request for so long.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.open() > 0 {
                changed.await;
                continue;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(time) => return,
            }
        }
    }

    fn tell(&self) {
        self.reader.wake();
        self.changed.notify_waiters();
    }
}

/// One request; over when it is dropped, with the body of its answer.
#[derive(Debug)]
pub(super) struct Visit(Arc<Visits>);

impl Visit {
    /// An answer's head is on its way.
    pub(super) fn answered(&self) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection stops to be HTTP with this answer.
    pub(super) fn tunnel(&self) {
        self.0.tunnel();
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::Relaxed);
        self.0.tell();
    }
}

/// A connection whose last message was refused.
#[derive(Debug)]
pub(super) struct TurnedAway {
    pub(super) socket: Socket,
    /// What to answer; none where an answer has begun already, or nobody waits for one.
    pub(super) answer: Option<Failure>,
}

/// A client's connection as hyper sees it.
#[derive(Debug)]
pub(super) struct Reception {
    socket: Option<Socket>,
    visits: Arc<Visits>,
    /// What was read to find out which protocol the client speaks.
    first: BytesMut,
    /// None on HTTP/2, which hyper reads as strictly.
    framing: Option<Framing>,
    head_time: Duration,
    /// While a head is coming: when it must be there.
    head_due: Option<Pin<Box<Sleep>>>,
    refused: Option<(Failure, bool)>,
    /// Whether what was written last did not fit in.
    stuffed: bool,
    turned_away: Option<oneshot::Sender<TurnedAway>>,
}

impl Reception {
    /// A connection of which `first` was read; with a `framing` for HTTP/1.1. The receiver gets the socket back if
    /// something is refused.
    pub(super) fn new(
        socket: Socket,
        first: BytesMut,
        framing: Option<Framing>,
        head_time: Duration,
        visits: Arc<Visits>,
    ) -> (Self, oneshot::Receiver<TurnedAway>) {
        let (turned_away, back) = oneshot::channel();
        let reception = Self {
            socket: Some(socket),
            visits,
            first,
            framing,
            head_time,
            head_due: None,
            refused: None,
            stuffed: false,
            turned_away: Some(turned_away),
        };
        (reception, back)
    }

    /// Passes on what may be passed on of a piece.
    fn examine(&mut self, piece: &[u8], into: &mut ReadBufCursor<'_>) {
        let framing = self
            .framing
            .as_mut()
            .filter(|_| !self.visits.tunnelled.load(Ordering::Relaxed));
        let Some(framing) = framing else {
            into.put_slice(piece);
            return;
        };
        match framing.read(piece) {
            Ok(()) => {
                into.put_slice(piece);
                if !framing.is_mid_head() {
                    self.head_due = None;
                } else if self.head_due.is_none() {
                    self.head_due = Some(Box::pin(tokio::time::sleep(self.head_time)));
                }
            }
            Err(refused) => {
                into.put_slice(piece.get(..refused.passed).unwrap_or_default());
                self.refused = Some((refused.failure, refused.in_body));
            }
        }
    }

    /// The end of a connection with a refused message, once what came before it is answered.
    fn end(&self, in_body: bool, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.visits.reader.register(context.waker());
        let heads = self.framing.as_ref().map_or(0, Framing::heads);
        let reached = if in_body {
            self.visits.begun.load(Ordering::Relaxed) >= heads
        } else {
            self.visits.finished.load(Ordering::Relaxed) >= heads && !self.stuffed
        };
        if reached {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn note_written(&mut self, written: &Poll<io::Result<usize>>) {
        self.stuffed = written.is_pending();
    }
}

impl Read for Reception {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let count = this.first.len().min(into.remaining());
            let piece = this.first.split_to(count);
            let room = into.remaining();
            this.examine(&piece, &mut into);
            if into.remaining() < room {
                return Poll::Ready(Ok(()));
            }
        }
        if let Some((_, in_body)) = this.refused {
            return this.end(in_body, context);
        }
        let room = into.remaining();
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let room = scratch.len().min(into.remaining());
            let mut buffer = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
            if let Some(socket) = &mut this.socket {
                std::task::ready!(Pin::new(socket).poll_read(context, &mut buffer))?;
            }
            this.examine(buffer.filled(), &mut into);
            Poll::Ready(io::Result::Ok(()))
        });
        match read {
            Poll::Ready(Ok(())) => match this.refused {
                Some((_, in_body)) if into.remaining() == room => this.end(in_body, context),
                _ => Poll::Ready(Ok(())),
            },
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if let Some(due) = &mut this.head_due
                    && due.as_mut().poll(context).is_ready()
                {
                    this.head_due = None;
                    this.refused = Some((Failure::HeaderTimeout, false));
                    return this.end(false, context);
                }
                Poll::Pending
            }
        }
    }
}

impl Write for Reception {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(socket) = &mut this.socket else {
            return Poll::Ready(Ok(0));
        };
        let written = Pin::new(socket).poll_write(context, bytes);
        this.note_written(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(socket) = &mut this.socket else {
            return Poll::Ready(Ok(0));
        };
        let written = Pin::new(socket).poll_write_vectored(context, pieces);
        this.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(Socket::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Some(socket) => Pin::new(socket).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.socket {
            // The refusal is still to be written.
            Some(socket) if this.refused.is_none() => Pin::new(socket).poll_shutdown(context),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let (Some((failure, in_body)), Some(socket), Some(turned_away)) =
            (self.refused, self.socket.take(), self.turned_away.take())
        else {
            return;
        };
        let heads = self.framing.as_ref().map_or(0, Framing::heads);
        let begun = in_body && self.visits.answered.load(Ordering::Relaxed) >= heads;
        // Nobody waits for it where the proxy is being torn down.
        let _ = turned_away.send(TurnedAway {
            socket,
            answer: (!begun).then_some(failure),
        });
    }
}

/// Whether bytes are the beginning of HTTP/2's preface ([RFC 9113 section 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4));
/// none while that is open.
pub(super) fn speaks_http2(first: &[u8]) -> Option<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let count = first.len().min(PREFACE.len());
    if first.chunk().get(..count) != PREFACE.get(..count) {
        return Some(false);
    }
    (count == PREFACE.len()).then_some(true)
}
