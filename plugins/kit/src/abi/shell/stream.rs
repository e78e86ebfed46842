//! One request and its response, through one filter.

use super::Action;
use crate::abi::edits;
use crate::abi::host::{RequestHost, WasmHost};
use crate::abi::imports::{self, Buffer, Map};
use crate::filter::{Exchange, Fallback, Filter};
use crate::host::{Failure, HostKind, Level};
use crate::reply::Reply;
use crate::step::{Body, CallOutcome, RequestEdits, RequestStep, ResponseStep, StreamStep};

/// A filter that asks for this much in one callback would ask for ever.
const MOST_STEPS: usize = 16;

pub(super) struct Stream<F: Filter> {
    pub(super) root: u32,
    exchange: F::Exchange,
    kind: HostKind,
    lines: usize,
    request: Request,
    incoming: Incoming,
    response: Response,
}

/// How far the request has come.
enum Request {
    /// No callback yet.
    Fresh,
    /// The filter waits for the body, up to so many bytes.
    Holding { most: usize },
    /// The filter waits for the answer to this call.
    Calling(u32),
    /// It has gone on.
    Passed,
    /// It has been answered.
    Ended,
}

/// What is known of the request's body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Incoming {
    /// It may still come.
    Expected,
    /// So much of it is there.
    Partial(usize),
    /// All of it is there.
    Complete(usize),
    /// There is none.
    None,
    /// No length was announced, which on nginx does not mean that none comes (chunks and HTTP/2 need no length). The filter would have waited
    /// for so many bytes.
    Unannounced(usize),
}

/// What happens to the response's body.
enum Response {
    /// Nothing.
    Pass,
    /// The filter sees each chunk, and may change it.
    Stream { left: Option<usize> },
    /// The filter sees each chunk.
    Watch { left: Option<usize> },
    /// It is kept back.
    Hold {
        left: Option<usize>,
        most: usize,
        held: Vec<u8>,
    },
}

/// Where a step is carried out: that decides how the host is told to wait or to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Headers,
    Body,
    CallAnswer,
}

impl<F: Filter> Stream<F> {
    pub(super) fn new(root: u32, exchange: F::Exchange) -> Stream<F> {
        let (request, incoming, response) = (Request::Fresh, Incoming::Expected, Response::Pass);
        Stream {
            root,
            exchange,
            kind: HostKind::Envoy,
            lines: 0,
            request,
            incoming,
            response,
        }
    }

    /// The host as this request sees it.
    fn seen<'h>(&self, host: &'h WasmHost) -> RequestHost<'h> {
        RequestHost {
            host,
            kind: self.kind,
            lines: self.lines,
        }
    }

    pub(super) fn awaits(&self, call: u32) -> bool {
        matches!(self.request, Request::Calling(number) if number == call)
    }

    pub(super) fn request_headers(
        &mut self,
        filter: &mut F,
        host: &RequestHost<'_>,
        end: bool,
    ) -> Action {
        if !matches!(self.request, Request::Fresh) {
            return self.resting();
        }
        (self.kind, self.lines) = (host.kind, host.lines);
        if end {
            self.incoming = Incoming::None;
        }
        let step = self.exchange.request_headers(filter, host);
        self.carry_out(filter, host, step, At::Headers)
    }

    pub(super) fn request_body(
        &mut self,
        filter: &mut F,
        host: &WasmHost,
        size: usize,
        end: bool,
    ) -> Action {
        let host = &self.seen(host);
        let unannounced = match self.incoming {
            Incoming::Unannounced(most) if size > 0 => Some(most),
            _ => None,
        };
        self.incoming = if end {
            Incoming::Complete(size)
        } else {
            Incoming::Partial(size)
        };
        match self.request {
            Request::Fresh => {
                let step = self.failed(filter, Failure::Broken, host);
                self.carry_out(filter, host, step, At::Body)
            }
            Request::Holding { most } => {
                self.carry_out(filter, host, RequestStep::HoldForBody { most }, At::Body)
            }
            Request::Calling(_) | Request::Passed | Request::Ended => match unannounced {
                // It was decided without a body; with one it is decided anew.
                Some(most) if matches!(self.request, Request::Passed) => {
                    self.carry_out(filter, host, RequestStep::HoldForBody { most }, At::Body)
                }
                _ => self.resting(),
            },
        }
    }

    pub(super) fn request_trailers(&mut self, filter: &mut F, host: &WasmHost) -> Action {
        self.incoming = match self.incoming {
            Incoming::Partial(size) | Incoming::Complete(size) => Incoming::Complete(size),
            Incoming::Expected | Incoming::None | Incoming::Unannounced(_) => Incoming::None,
        };
        match self.request {
            Request::Holding { most } => {
                let host = &self.seen(host);
                self.carry_out(filter, host, RequestStep::HoldForBody { most }, At::Body)
            }
            _ => self.resting(),
        }
    }

    pub(super) fn call_done(&mut self, filter: &mut F, host: &WasmHost, outcome: CallOutcome) {
        let host = &self.seen(host);
        let step = self.exchange.call_done(filter, outcome, host);
        // nginx goes on by itself as soon as no call is left; Envoy wants to be told.
        if self.carry_out(filter, host, step, At::CallAnswer) == Action::Continue
            && self.kind != HostKind::Kong
        {
            let _ = imports::continue_request();
        }
    }

    /// What to say to a callback that changes nothing.
    fn resting(&self) -> Action {
        match self.request {
            Request::Passed => Action::Continue,
            Request::Fresh | Request::Holding { .. } | Request::Calling(_) | Request::Ended => {
                Action::Pause
            }
        }
    }

    /// Does what the filter decided, until the host has to do something.
    fn carry_out(
        &mut self,
        filter: &mut F,
        host: &RequestHost<'_>,
        first: RequestStep,
        at: At,
    ) -> Action {
        let mut step = first;
        for _ in 0..MOST_STEPS {
            step = match step {
                RequestStep::Continue(edits) => match self.edit(host, edits, at) {
                    Ok(()) => {
                        self.request = Request::Passed;
                        return Action::Continue;
                    }
                    Err(failure) => self.failed(filter, failure, host),
                },
                RequestStep::Reply(reply) => return self.reply(&reply),
                RequestStep::HoldForBody { most } => {
                    if self.kind == HostKind::Kong
                        && self.incoming == Incoming::Expected
                        && !body_will_come()
                    {
                        self.incoming = Incoming::Unannounced(most);
                    }
                    self.request = Request::Holding { most };
                    let held;
                    let body = match self.incoming {
                        Incoming::None | Incoming::Unannounced(_) | Incoming::Complete(0) => {
                            Body::None
                        }
                        Incoming::Partial(size) | Incoming::Complete(size) if size > most => {
                            Body::TooLarge
                        }
                        // Reading it there ends the worker's instance.
                        Incoming::Complete(_)
                            if self.kind == HostKind::Kong && at == At::CallAnswer =>
                        {
                            Body::Unreadable
                        }
                        Incoming::Complete(size) => {
                            held = imports::buffer(Buffer::RequestBody, size).unwrap_or_default();
                            if held.len() == size {
                                Body::Whole(&held)
                            } else {
                                Body::Unreadable
                            }
                        }
                        // Envoy keeps the headers back with the body, where it can; elsewhere they go ahead of it.
                        Incoming::Expected | Incoming::Partial(_)
                            if at == At::Body || self.kind == HostKind::Envoy =>
                        {
                            return Action::Pause;
                        }
                        Incoming::Expected | Incoming::Partial(_) => return Action::Continue,
                    };
                    self.exchange.request_body(filter, body, host)
                }
                RequestStep::Call(call) => match edits::start(Some(self.kind), &call) {
                    Some(number) => {
                        self.request = Request::Calling(number);
                        return Action::Pause;
                    }
                    None => self.exchange.call_done(filter, CallOutcome::Failed, host),
                },
            };
        }
        // It asks for ever.
        match self.failed(filter, Failure::Broken, host) {
            RequestStep::Reply(reply) => self.reply(&reply),
            _ => {
                self.request = Request::Passed;
                Action::Continue
            }
        }
    }

    /// Changes the request, where the host can.
    fn edit(&self, host: &RequestHost<'_>, edits: RequestEdits, at: At) -> Result<(), Failure> {
        // Writing the body in the answer to a call ends the worker's instance there, and lets the request pass.
        if self.kind == HostKind::Kong && at == At::CallAnswer && edits.body.is_some() {
            return Err(Failure::Refused);
        }
        edits::edit_request(host, edits)
    }

    /// What the filter's own rule says when the host has failed it.
    fn failed(&mut self, filter: &mut F, failure: Failure, host: &RequestHost<'_>) -> RequestStep {
        match self.exchange.host_failed(filter, failure, host) {
            Fallback::Continue => RequestStep::unchanged(),
            Fallback::Reply(reply) => RequestStep::Reply(reply),
        }
    }

    fn reply(&mut self, reply: &Reply) -> Action {
        self.request = Request::Ended;
        if edits::reply(self.kind, reply).is_err() {
            // Paused for ever is still not let through.
            imports::log(
                Level::Error as u32,
                "tollgate: the host does not send an answer; the request stays paused",
            );
        }
        Action::Pause
    }

    pub(super) fn response_headers(&mut self, filter: &mut F, host: &WasmHost, end: bool) {
        let host = &self.seen(host);
        let edits = match self.exchange.response_headers(filter, host) {
            ResponseStep::Continue(edits) => edits,
            ResponseStep::Stream(edits) => {
                self.response = Response::Stream {
                    left: response_length(),
                };
                edits
            }
            ResponseStep::Watch(edits) => {
                self.response = Response::Watch {
                    left: response_length(),
                };
                edits
            }
            ResponseStep::Hold { edits, most } => {
                let (left, held) = (response_length(), Vec::new());
                self.response = Response::Hold { left, most, held };
                edits
            }
        };
        if end {
            // No body follows: its length stands for what a GET would have got.
            self.response = Response::Pass;
        }
        let mut done = edits::edit_response(self.kind, &edits.headers);
        if matches!(
            self.response,
            Response::Stream { .. } | Response::Hold { .. }
        ) {
            // The length may change, and after this it is too late to say so.
            done = done.and(
                imports::remove_header(Map::Response, "content-length").map_err(Failure::from),
            );
        }
        if done.is_err() {
            self.response = Response::Pass;
            imports::log(
                Level::Error as u32,
                "tollgate: the host does not change the response; it passes as it is",
            );
        }
    }

    pub(super) fn response_body(
        &mut self,
        filter: &mut F,
        host: &WasmHost,
        size: usize,
        end: bool,
    ) {
        let host = &self.seen(host);
        if matches!(self.response, Response::Pass) {
            return;
        }
        let chunk = if size == 0 {
            Ok(Vec::new())
        } else {
            imports::buffer(Buffer::ResponseBody, size)
        };
        let Ok(chunk) = chunk else {
            return self.response_unread(filter, host);
        };
        let replaced = match &mut self.response {
            Response::Pass => Ok(()),
            Response::Stream { left } => {
                let end = ends(left, chunk.len(), end);
                if end {
                    // Counted or told, it ends once.
                    self.response = Response::Pass;
                }
                match self.exchange.response_chunk(filter, &chunk, end, host) {
                    StreamStep::Pass => Ok(()),
                    StreamStep::Replace(other) => {
                        imports::replace_buffer(Buffer::ResponseBody, &other)
                    }
                    StreamStep::Swallow if chunk.is_empty() => Ok(()),
                    StreamStep::Swallow => imports::replace_buffer(Buffer::ResponseBody, b""),
                }
            }
            Response::Watch { left } => {
                let end = ends(left, chunk.len(), end);
                if end {
                    self.response = Response::Pass;
                }
                self.exchange.response_passed(filter, &chunk, end, host);
                Ok(())
            }
            Response::Hold { left, most, held } => {
                let end = ends(left, chunk.len(), end);
                held.extend_from_slice(&chunk);
                if held.len() > *most {
                    let held = std::mem::take(held);
                    self.response = Response::Pass;
                    self.exchange.response_too_large(filter, host);
                    imports::replace_buffer(Buffer::ResponseBody, &held)
                } else if end {
                    let held = std::mem::take(held);
                    self.response = Response::Pass;
                    let body = self
                        .exchange
                        .response_body(filter, &held, host)
                        .unwrap_or(held);
                    imports::replace_buffer(Buffer::ResponseBody, &body)
                } else if chunk.is_empty() {
                    Ok(())
                } else {
                    imports::replace_buffer(Buffer::ResponseBody, b"")
                }
            }
        };
        if replaced.is_err() {
            self.response = Response::Pass;
            imports::log(
                Level::Error as u32,
                "tollgate: the host does not change the response body; the rest passes as it is",
            );
        }
    }

    /// A chunk can't be read, so that it can't be changed: it passes, behind what was kept back of those before it.
    fn response_unread(&mut self, filter: &mut F, host: &RequestHost<'_>) {
        let kept = match std::mem::replace(&mut self.response, Response::Pass) {
            Response::Hold { held, .. } => held,
            Response::Stream { .. } => {
                match self.exchange.response_chunk(filter, &[], true, host) {
                    StreamStep::Replace(kept) => kept,
                    StreamStep::Pass | StreamStep::Swallow => Vec::new(),
                }
            }
            Response::Watch { .. } => {
                self.exchange.response_passed(filter, &[], true, host);
                Vec::new()
            }
            Response::Pass => return,
        };
        imports::log(
            Level::Error as u32,
            "tollgate: the host does not show the response body; the rest passes as it is",
        );
        if !kept.is_empty() && imports::prepend_buffer(Buffer::ResponseBody, &kept).is_err() {
            imports::log(
                Level::Error as u32,
                "tollgate: the host does not change the response body; a part of it is lost",
            );
        }
    }

    pub(super) fn log(&mut self, filter: &mut F, host: &WasmHost) {
        self.exchange.log(filter, &self.seen(host));
    }
}

/// Whether a body is sure to come on nginx, which calls no body callback where there is none and never says so. A request that
/// went on in the hope of a callback would go on undecided: an empty chunked body, or a length of `00`, must not do that.
fn body_will_come() -> bool {
    let length = imports::header(Map::Request, "content-length")
        .ok()
        .flatten();
    length.is_some_and(|length| length.iter().any(|digit| matches!(digit, b'1'..=b'9')))
}

/// The announced length of a response.
fn response_length() -> Option<usize> {
    let length = imports::header(Map::Response, "content-length").ok()??;
    std::str::from_utf8(&length).ok()?.trim().parse().ok()
}

/// Whether this chunk is the last one: nginx never says so where a response has a length and several chunks.
fn ends(left: &mut Option<usize>, size: usize, end: bool) -> bool {
    match left {
        Some(left) => {
            let counting = *left > 0 || size > 0;
            *left = left.saturating_sub(size);
            end || (counting && *left == 0)
        }
        None => end,
    }
}
