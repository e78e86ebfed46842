//! Message bodies that somebody else fills while they are being sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

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

/// A body whose pieces come through a channel.
#[derive(Debug)]
pub(super) struct PipedBody {
    /// None once the end was told.
    pieces: Option<mpsc::Receiver<Piece>>,
    /// Where it goes back to if it is dropped before anything of it was read.
    owner: Option<oneshot::Sender<PipedBody>>,
}

impl PipedBody {
    /// A body without content.
    pub(super) fn empty() -> Self {
        Self {
            pieces: None,
            owner: None,
        }
    }

    /// A body and the side that fills it.
    pub(super) fn piped() -> (Filler, Self) {
        let (filler, pieces) = mpsc::channel(WAITING);
        (
            filler,
            Self {
                pieces: Some(pieces),
                owner: None,
            },
        )
    }

    /// The body, and where it comes back whole if its receiver gives it up before reading: a request that found no
    /// connection can so be sent elsewhere.
    pub(super) fn returning(mut self) -> (Self, oneshot::Receiver<Self>) {
        let (owner, back) = oneshot::channel();
        self.owner = Some(owner);
        (self, back)
    }
}

impl Drop for PipedBody {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            // Whoever made it may have gone.
            let _ = owner.send(Self {
                pieces: self.pieces.take(),
                owner: None,
            });
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
        self.owner = None;
        let Some(pieces) = &mut self.pieces else {
            return Poll::Ready(None);
        };
        match std::task::ready!(pieces.poll_recv(context)) {
            None => {
                self.pieces = None;
                Poll::Ready(Some(Err(CutOff)))
            }
            Some(piece) => {
                if piece.end {
                    self.pieces = None;
                }
                Poll::Ready(piece.frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.pieces.is_none() {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}
