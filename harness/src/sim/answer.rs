//! What a scripted upstream answers, to a request or to a filter's call.

use std::time::Duration;

use bytes::Bytes;

use crate::exchange::CallFailure;
use crate::http::Headers;

/// An answer, or the failure to give one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(super) outcome: Result<Reply, CallFailure>,
    pub(super) after: Duration,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) pieces: Vec<usize>,
    pub(super) streamed: bool,
    pub(super) trailers: Headers,
}

impl Answer {
    /// An answer with a status, at once, without headers and body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            outcome: Ok(Reply {
                headers: [(":status", status.to_string())].into_iter().collect(),
                body: Bytes::new(),
                pieces: Vec::new(),
                streamed: false,
                trailers: Headers::new(),
            }),
            after: Duration::ZERO,
        }
    }

    /// No answer.
    #[must_use]
    pub fn failed(failure: CallFailure) -> Self {
        Self {
            outcome: Err(failure),
            after: Duration::ZERO,
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(self, name: &str, value: impl Into<Bytes>) -> Self {
        self.edit(|reply| reply.headers.push(name.to_owned(), value))
    }

    /// Sets the body. A Content-Length is added when the answer is sent, unless one is given or it is streamed.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.edit(|reply| reply.body = body.into())
    }

    /// The body comes in pieces of these lengths, what is left as the last one. It keeps its Content-Length.
    #[must_use]
    pub fn delivered_in(self, pieces: &[usize]) -> Self {
        self.edit(|reply| reply.pieces = pieces.to_vec())
    }

    /// The body is sent without a Content-Length, each of `chunks` by itself, as server-sent events are.
    #[must_use]
    pub fn streamed<B: AsRef<[u8]>>(self, chunks: &[B]) -> Self {
        self.edit(|reply| {
            reply.streamed = true;
            reply.pieces = chunks.iter().map(|chunk| chunk.as_ref().len()).collect();
            reply.body = chunks
                .iter()
                .flat_map(|chunk| chunk.as_ref().iter().copied())
                .collect::<Vec<u8>>()
                .into();
        })
    }

    /// Adds a trailer line.
    #[must_use]
    pub fn trailer(self, name: &str, value: impl Into<Bytes>) -> Self {
        self.edit(|reply| reply.trailers.push(name.to_owned(), value))
    }

    /// The answer comes this much later, in virtual time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    fn edit(mut self, edit: impl FnOnce(&mut Reply)) -> Self {
        if let Ok(reply) = &mut self.outcome {
            edit(reply);
        }
        self
    }
}

impl From<CallFailure> for Answer {
    fn from(failure: CallFailure) -> Self {
        Self::failed(failure)
    }
}
