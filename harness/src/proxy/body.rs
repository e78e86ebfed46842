//! Message bodies that somebody else fills while they are being sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::grpc::Outgoing;
use super::reception::Visit;

/// Pieces that wait for a slow receiver. Each is what one read or one filter gave, so that the memory of a stalled
/// stream is small and bounded, and a filled channel holds the sender back.
const WAITING: usize = 2;

/// One piece of a body.
#[derive(Debug)]
pub(super) struct Piece {
    /// Data or trailers; none where only the end is told.
    pub(super) frame: Option<Frame<Bytes>>,
    /// Whether nothing follows.
    pub(super) end: bool,
}

/// The filling side. Dropped before the end it makes the message end in an error, not look complete.
pub(super) type Filler = mpsc::Sender<Piece>;

/// The body was given up before its end.
#[derive(Debug, thiserror::Error)]
#[error("the body was cut off before its end")]
pub(super) struct CutOff;

/// A body that was there from the beginning, or whose pieces come through a channel.
#[derive(Debug)]
pub(super) struct PipedBody {
    content: Content,
    /// What is over together with the body.
    _visit: Option<Visit>,
}

#[derive(Debug)]
enum Content {
    /// Nothing, or nothing any more.
    Over,
    Whole(Bytes),
    Pieces(mpsc::Receiver<Piece>),
    Messages(Outgoing),
}

impl PipedBody {
    /// A body without content.
    pub(super) fn empty() -> Self {
        Self::of(Content::Over)
    }

    /// A body that is there already.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::of(if bytes.is_empty() {
            Content::Over
        } else {
            Content::Whole(bytes)
        })
    }

    /// A body and the side that fills it.
    pub(super) fn piped() -> (Filler, Self) {
        let (filler, pieces) = mpsc::channel(WAITING);
        (filler, Self::of(Content::Pieces(pieces)))
    }

    /// The messages of a gRPC call, of which only so many wait as its filter may send.
    pub(super) fn messages(messages: Outgoing) -> Self {
        Self::of(Content::Messages(messages))
    }

    /// The body, with which a client's visit is over.
    pub(super) fn ending(self, visit: Visit) -> Self {
        Self {
            _visit: Some(visit),
            ..self
        }
    }

    fn of(content: Content) -> Self {
        Self {
            content,
            _visit: None,
        }
    }
}

impl Body for PipedBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let piece = match &mut self.content {
            Content::Over => return Poll::Ready(None),
            Content::Whole(bytes) => {
                let frame = Frame::data(std::mem::take(bytes));
                self.content = Content::Over;
                return Poll::Ready(Some(Ok(frame)));
            }
            Content::Messages(messages) => return Pin::new(messages).poll_frame(context),
            Content::Pieces(pieces) => std::task::ready!(pieces.poll_recv(context)),
        };
        match piece {
            None => {
                self.content = Content::Over;
                Poll::Ready(Some(Err(CutOff)))
            }
            Some(piece) => {
                if piece.end {
                    self.content = Content::Over;
                }
                Poll::Ready(piece.frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Over)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Over => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Pieces(_) | Content::Messages(_) => SizeHint::default(),
        }
    }
}
