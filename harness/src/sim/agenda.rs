//! What will happen around a worker, and when.

use std::fmt;

use bytes::Bytes;

use crate::exchange::{CallId, CallOutcome, Event, ExchangeId};
use crate::worker::{GrpcEvent, GrpcId, Timer};

/// Where the things come from that happen to a worker. What comes from one source comes in order; sources race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    /// The client of the exchange with this number.
    Client(u64),
    /// The upstream of the exchange with this number.
    Upstream(u64),
    /// The upstream of a filter's call.
    Call(CallId),
    /// The service of a filter's gRPC call or stream.
    Grpc(GrpcId),
    /// The timer of a root context.
    Tick(Timer),
    /// The queues that filters of the worker read.
    Queue,
}

/// One thing that will happen.
pub(super) struct Due {
    /// When, by the clock's [`crate::worker::Clock::elapsed_nanos`].
    pub(super) at: u64,
    pub(super) source: Source,
    pub(super) what: Happening,
}

#[derive(Debug)]
pub(super) enum Happening {
    /// The client sends something, or an upstream does.
    Event(ExchangeId, Event),
    /// The client goes away.
    Leave(ExchangeId),
    /// The upstream's connection ends in the middle of its answer.
    Lose(ExchangeId),
    /// A call ends.
    Call(Option<ExchangeId>, CallId, CallOutcome),
    /// Something happens to a gRPC call or stream.
    Grpc(GrpcId, GrpcEvent),
}

impl Happening {
    /// The exchange that it concerns.
    pub(super) fn exchange(&self) -> Option<ExchangeId> {
        match self {
            Self::Event(id, _) | Self::Leave(id) | Self::Lose(id) => Some(*id),
            Self::Call(id, ..) => *id,
            Self::Grpc(..) => None,
        }
    }
}

/// All that will happen, in the order in which it was planned.
#[derive(Default)]
pub(super) struct Agenda(Vec<Due>);

impl Agenda {
    pub(super) fn plan(&mut self, at: u64, source: Source, what: Happening) {
        self.0.push(Due { at, source, what });
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.iter().map(|due| due.at).min()
    }

    /// Whether something is on its way to the exchange.
    pub(super) fn awaits(&self, id: ExchangeId) -> bool {
        self.0.iter().any(|due| due.what.exchange() == Some(id))
    }

    /// The sources from which something will come, each with its next time.
    pub(super) fn sources(&self) -> Vec<(u64, Source)> {
        let mut sources: Vec<(u64, Source)> = Vec::new();
        for due in &self.0 {
            match sources.iter_mut().find(|(_, known)| *known == due.source) {
                Some((at, _)) => *at = due.at.min(*at),
                None => sources.push((due.at, due.source)),
            }
        }
        sources
    }

    /// The next thing from a source.
    pub(super) fn peek(&self, source: Source) -> Option<&Happening> {
        self.next_from(source)
            .and_then(|index| self.0.get(index))
            .map(|due| &due.what)
    }

    /// Takes the next thing from a source.
    pub(super) fn take(&mut self, source: Source) -> Option<Happening> {
        self.next_from(source)
            .map(|index| self.0.remove(index).what)
    }

    fn next_from(&self, source: Source) -> Option<usize> {
        let candidates = self.0.iter().enumerate();
        let next = candidates
            .filter(|(_, due)| due.source == source)
            .min_by_key(|(index, due)| (due.at, *index));
        next.map(|(index, _)| index)
    }

    /// Takes the next thing that is due. Who leaves goes at once, and a client says more only when all that it has
    /// caused so far has happened.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Happening> {
        let rank = |due: &Due| match (&due.what, due.source) {
            (Happening::Leave(_), _) => 0,
            (_, Source::Client(_)) => 2,
            _ => 1,
        };
        let due = self.0.iter().enumerate().filter(|(_, due)| due.at <= now);
        let (index, _) = due.min_by_key(|(index, due)| (due.at, rank(due), *index))?;
        Some(self.0.remove(index).what)
    }

    /// Forgets what would come from these sources.
    pub(super) fn forget(&mut self, sources: &[Source]) {
        self.0.retain(|due| !sources.contains(&due.source));
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |f: &mut fmt::Formatter<'_>, side: &str, chunk: &Bytes, end: bool| {
            let last = if end { ", the end" } else { "" };
            write!(f, "{side} body: {} bytes{last}", chunk.len())
        };
        match self {
            Self::Event(_, Event::RequestHeaders { .. }) => f.write_str("request headers"),
            Self::Event(_, Event::RequestBody { chunk, end }) => size(f, "request", chunk, *end),
            Self::Event(_, Event::RequestTrailers(_)) => f.write_str("request trailers"),
            Self::Event(_, Event::ResponseHeaders { .. }) => f.write_str("response headers"),
            Self::Event(_, Event::ResponseBody { chunk, end }) => size(f, "response", chunk, *end),
            Self::Event(_, Event::ResponseTrailers(_)) => f.write_str("response trailers"),
            Self::Event(_, Event::CallDone(..)) | Self::Call(.., CallOutcome::Response { .. }) => {
                f.write_str("the call is answered")
            }
            Self::Call(.., CallOutcome::Failed(failure)) => write!(f, "the call fails: {failure}"),
            Self::Grpc(_, GrpcEvent::InitialMetadata(_)) => f.write_str("gRPC initial metadata"),
            Self::Grpc(_, GrpcEvent::Message(message)) => {
                write!(f, "gRPC message: {} bytes", message.len())
            }
            Self::Grpc(_, GrpcEvent::TrailingMetadata(_)) => f.write_str("gRPC trailing metadata"),
            Self::Grpc(_, GrpcEvent::Closed(status)) => {
                write!(f, "gRPC end: status {}", status.code)
            }
            Self::Leave(_) => f.write_str("the client goes away"),
            Self::Lose(_) => f.write_str("the upstream's connection ends"),
        }
    }
}
