//! One direction of an exchange: from the body that is read, through the filters, to the body that is written.
//!
//! Nothing more is read while something waits to be written, so that a slow receiver holds the sender back and the
//! memory of a stream does not grow with its length.

use std::collections::VecDeque;
use std::future;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming};

use super::body::{Filler, Piece};

/// Where pieces go.
#[derive(Debug, Default)]
enum Sink {
    /// Its headers have not been sent.
    #[default]
    Unopened,
    Open(Filler),
    /// Nobody wants them: an upstream that answered early, an answer to HEAD.
    Nowhere,
}

/// A direction's state.
#[derive(Debug, Default)]
pub(super) struct Flow {
    source: Option<Incoming>,
    waiting: VecDeque<Piece>,
    sink: Sink,
    finished: bool,
}

/// What happened next in a direction.
#[derive(Debug)]
pub(super) enum Turn {
    /// A piece was read. It may be empty where only the end is told.
    Read { chunk: Bytes, end: bool },
    /// Trailers were read, which end the body.
    ReadTrailers(HeaderMap),
    /// The sender broke off.
    SourceFailed,
    /// A piece was written.
    Written,
    /// The receiver has gone.
    SinkGone,
}

impl Flow {
    /// A direction that has a body to read, or none.
    pub(super) fn from(source: Option<Incoming>) -> Self {
        Self {
            source,
            ..Self::default()
        }
    }

    pub(super) fn read_from(&mut self, source: Incoming) {
        self.source = Some(source);
    }

    pub(super) fn write_to(&mut self, filler: Filler) {
        self.sink = Sink::Open(filler);
    }

    /// Forgets what waits and what comes.
    pub(super) fn write_nowhere(&mut self) {
        self.sink = Sink::Nowhere;
    }

    /// Nothing follows the headers.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        self.sink = Sink::Nowhere;
    }

    /// Whether the end was handed on.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether more is to be read.
    pub(super) fn is_reading(&self) -> bool {
        self.source.is_some()
    }

    /// Whether the receiver is to take what waits.
    pub(super) fn is_stuffed(&self) -> bool {
        !self.waiting.is_empty() && matches!(self.sink, Sink::Open(_))
    }

    /// Gives up reading; hands back a body that is not at its end.
    pub(super) fn stop_reading(&mut self) -> Option<Incoming> {
        self.source.take()
    }

    /// A piece of the body to write.
    pub(super) fn push(&mut self, chunk: Bytes, end: bool) {
        let frame = (!chunk.is_empty()).then(|| Frame::data(chunk));
        if frame.is_some() || end {
            self.waiting.push_back(Piece { frame, end });
        }
    }

    /// The trailers to end the body with.
    pub(super) fn push_trailers(&mut self, trailers: HeaderMap) {
        self.waiting.push_back(Piece {
            frame: Some(Frame::trailers(trailers)),
            end: true,
        });
    }

    /// Writes what waits, else reads if `read` allows it, else waits for ever. Nothing is lost when it is dropped.
    pub(super) async fn turn(&mut self, read: bool) -> Turn {
        if !self.waiting.is_empty() {
            return self.write().await;
        }
        match &mut self.source {
            Some(source) if read => {
                let frame = source.frame().await;
                let end = frame.is_none() || source.is_end_stream();
                let turn = match frame.transpose() {
                    Err(_) => Turn::SourceFailed,
                    Ok(None) => Turn::Read {
                        chunk: Bytes::new(),
                        end,
                    },
                    Ok(Some(frame)) => match frame.into_data() {
                        Ok(chunk) => Turn::Read { chunk, end },
                        Err(frame) => frame
                            .into_trailers()
                            .map_or(Turn::SourceFailed, Turn::ReadTrailers),
                    },
                };
                if !matches!(turn, Turn::Read { end: false, .. }) {
                    self.source = None;
                }
                turn
            }
            _ => future::pending().await,
        }
    }

    async fn write(&mut self) -> Turn {
        match &self.sink {
            Sink::Unopened => future::pending().await,
            Sink::Nowhere => {
                self.finished |= self.waiting.iter().any(|piece| piece.end);
                self.waiting.clear();
                Turn::Written
            }
            Sink::Open(filler) => {
                let Ok(room) = filler.reserve().await else {
                    return Turn::SinkGone;
                };
                if let Some(piece) = self.waiting.pop_front() {
                    self.finished |= piece.end;
                    room.send(piece);
                }
                Turn::Written
            }
        }
    }
}
