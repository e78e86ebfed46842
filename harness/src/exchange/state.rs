//! What a worker knows about one exchange.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};

use super::{Action, CallId, Destination, Peer};
use crate::http::Headers;
use crate::profile::Finding;

/// Which of an exchange's two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) peer: Peer,
    pub(crate) destination: Destination,
    /// The filters, in the order of the chain.
    pub(crate) seats: Vec<Seat>,
    pub(crate) request: Message,
    pub(crate) response: Message,
    pub(crate) actions: Vec<Action>,
    /// A reply that a filter made in the callback that runs or just ran.
    pub(crate) reply: Option<Reply>,
    /// Whether the response is a filter's or the host's own.
    pub(crate) replied: bool,
    /// Whether nothing happens any more, but for the log.
    pub(crate) over: bool,
    /// Whether not even the log callbacks run (Kong, after a trap in a request phase).
    pub(crate) unlogged: bool,
    /// What filters set as properties.
    pub(crate) properties: HashMap<Vec<u8>, Vec<u8>>,
    /// What filters set as filter state of Envoy's own, by its key.
    pub(crate) filter_state: HashMap<String, Vec<u8>>,
    pub(crate) request_id: String,
    pub(crate) started_unix_nanos: u64,
    /// The first act for it that does not work everywhere.
    pub(crate) breach: Option<Finding>,
    /// Calls under way.
    pub(crate) calls: HashSet<CallId>,
    /// Phased flow: whether all header callbacks of the request ran.
    pub(crate) headers_done: bool,
    /// Phased flow: what the client's Content-Length said.
    pub(crate) announced_length: Option<usize>,
    /// Phased flow: what goes on after the last answer.
    pub(crate) waiting: Option<Waiting>,
    /// Phased flow: the body of a reply made in `on_response_headers`; it stands in for the upstream's first chunk.
    pub(crate) first_chunk: Option<Bytes>,
    /// Phased flow: what the upstream's Content-Length said when it came.
    pub(crate) declared_length: Option<u64>,
}

/// A place in the phased flow: the seat that comes next, in the headers or the body phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    RequestHeaders(usize),
    RequestBody(usize),
}

/// One filter's part in an exchange.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The filter entry.
    pub(crate) entry: usize,
    /// The VM, and which of its incarnations the context belongs to.
    pub(crate) vm: usize,
    pub(crate) generation: u64,
    /// The context in that VM; `None` before the first callback.
    pub(crate) context: Option<u32>,
    /// The filter is passed by: its VM died and traffic may pass.
    pub(crate) bypassed: bool,
    /// Whether it saw the request's headers.
    pub(crate) began: bool,
    pub(crate) request: Stage,
    pub(crate) response: Stage,
}

/// One filter's place in the flow of one message.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub(crate) gate: Gate,
    /// Whether the headers went on to the next filter.
    pub(crate) headers_passed: bool,
    /// What arrived and was not passed on.
    pub(crate) held: BytesMut,
    /// Whether the end of the message stands behind `held`.
    pub(crate) end: bool,
    /// Whether trailers arrived and were not passed on.
    pub(crate) trailers: bool,
    /// Whether the filter may read and change headers, trailers, the body now.
    pub(crate) headers_open: bool,
    pub(crate) trailers_open: bool,
    pub(crate) body_open: bool,
    /// Phased flow: a pause was used up; the next is ignored.
    pub(crate) pause_spent: bool,
    /// Phased flow: the end is never told.
    pub(crate) end_untold: bool,
}

/// Whether a message flows past a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It flows.
    #[default]
    Open,
    /// Headers and everything behind them wait, unseen by the filter.
    Shut,
    /// What was shown to the filter waits; what follows is shown when it comes.
    Held,
}

/// One message on its way.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) headers: Headers,
    pub(crate) trailers: Headers,
    /// Whether the headers came.
    pub(crate) begun: bool,
    /// Whether the headers came with the message's end.
    pub(crate) bodyless: bool,
    /// Whether the headers went out.
    pub(crate) sent: bool,
    /// Whether the end went out.
    pub(crate) finished: bool,
    /// Phased flow: header lines that filters removed and the upstream still gets.
    pub(crate) ghosts: Vec<(Bytes, Bytes)>,
    /// Whether the end came.
    pub(crate) complete: bool,
    /// Phased flow: the whole request body.
    pub(crate) body: BytesMut,
    /// Phased flow: whether the body is in a file, where filters can't read it.
    pub(crate) spilled: bool,
    /// Body bytes received.
    pub(crate) received: u64,
}

/// A reply that a filter makes.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u32,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Exchange {
    pub(crate) fn new(peer: Peer, seats: Vec<Seat>, request_id: String, now: u64) -> Self {
        Self {
            peer,
            destination: Destination::default(),
            seats,
            request: Message::default(),
            response: Message::default(),
            actions: Vec::new(),
            reply: None,
            replied: false,
            over: false,
            unlogged: false,
            properties: HashMap::new(),
            filter_state: HashMap::new(),
            request_id,
            started_unix_nanos: now,
            breach: None,
            calls: HashSet::new(),
            headers_done: false,
            announced_length: None,
            waiting: None,
            first_chunk: None,
            declared_length: None,
        }
    }

    pub(crate) fn message(&mut self, direction: Direction) -> &mut Message {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    pub(crate) fn stage(&mut self, seat: usize, direction: Direction) -> Option<&mut Stage> {
        let seat = self.seats.get_mut(seat)?;
        Some(match direction {
            Direction::Request => &mut seat.request,
            Direction::Response => &mut seat.response,
        })
    }

    /// Sends what is for the client or the upstream.
    pub(crate) fn send_headers(&mut self, direction: Direction, headers: Headers, end: bool) {
        let message = self.message(direction);
        message.sent = true;
        message.finished |= end;
        self.actions.push(match direction {
            Direction::Request => Action::SendRequestHeaders { headers, end },
            Direction::Response => Action::SendResponseHeaders { headers, end },
        });
    }

    pub(crate) fn send_body(&mut self, direction: Direction, chunk: Bytes, end: bool) {
        if chunk.is_empty() && !end {
            return;
        }
        let message = self.message(direction);
        if message.finished {
            return;
        }
        message.finished |= end;
        self.actions.push(match direction {
            Direction::Request => Action::SendRequestBody { chunk, end },
            Direction::Response => Action::SendResponseBody { chunk, end },
        });
    }

    pub(crate) fn send_trailers(&mut self, direction: Direction) {
        let message = self.message(direction);
        message.finished = true;
        let trailers = message.trailers.clone();
        self.actions.push(match direction {
            Direction::Request => Action::SendRequestTrailers(trailers),
            Direction::Response => Action::SendResponseTrailers(trailers),
        });
    }

    /// The host's own answer to a request that it does not take: no filter is asked, none logs.
    pub(crate) fn refuse(&mut self, status: u16, body: &'static [u8]) {
        let headers: Headers = [
            (":status", status.to_string()),
            ("content-length", body.len().to_string()),
        ]
        .into_iter()
        .collect();
        self.unlogged = true;
        self.replied = true;
        self.response.begun = true;
        self.send_headers(Direction::Response, headers, body.is_empty());
        self.send_body(Direction::Response, Bytes::from_static(body), true);
    }

    /// Whether the client asked for headers alone.
    pub(crate) fn is_head(&self) -> bool {
        self.request
            .headers
            .get(":method")
            .is_some_and(|method| method == "HEAD")
    }
}

impl Seat {
    pub(crate) fn new(entry: usize, vm: usize, generation: u64) -> Self {
        Self {
            entry,
            vm,
            generation,
            context: None,
            bypassed: false,
            began: false,
            request: Stage::default(),
            response: Stage::default(),
        }
    }
}
