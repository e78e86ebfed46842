//! A worker with scripted clients, upstreams and callees around it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::agenda::{Agenda, Happening, Source};
use super::answer::{Reply, Told};
use super::grpc::Services;
use super::request::Said;
use super::response::Exchange;
use super::{Abort, Answer, CallScript, GrpcScript, Outcome, Request, Response, Upstream};
use crate::exchange::{Action, Call, CallFailure, CallOutcome, ExchangeId, Peer};
use crate::http::Headers;
use crate::profile::Profile;
use crate::vm::LogLine;
use crate::worker::{Clock, GrpcEvent, VirtualClock, Worker};

/// How long nginx waits for the answer to a call that names no timeout: `wasm_socket_read_timeout`, 60 s unless set.
/// Envoy waits for ever.
const KONG_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What answers filters and requests.
pub(super) struct Scripts {
    pub(super) upstream: Upstream,
    /// For calls, by the upstream that they name.
    pub(super) calls: BTreeMap<String, CallScript>,
    /// For gRPC calls and streams, by their cluster.
    pub(super) grpc: BTreeMap<String, GrpcScript>,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            upstream: Box::new(Answer::echo),
            calls: BTreeMap::new(),
            grpc: BTreeMap::new(),
        }
    }
}

/// A worker and what is around it. Nothing happens by itself: a driver says which source goes next.
pub(super) struct Surroundings {
    pub(super) worker: Worker,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) scripts: Scripts,
    pub(super) services: Services,
    pub(super) agenda: Agenda,
    pub(super) exchanges: HashMap<ExchangeId, Exchange>,
    pub(super) calls: Vec<Call>,
    pub(super) logs: Vec<LogLine>,
}

impl Surroundings {
    pub(super) fn new(worker: Worker, clock: Arc<VirtualClock>, scripts: Scripts) -> Self {
        let mut new = Self {
            worker,
            clock,
            scripts,
            services: Services::default(),
            agenda: Agenda::default(),
            exchanges: HashMap::new(),
            calls: Vec::new(),
            logs: Vec::new(),
        };
        new.react();
        new
    }

    /// The time by which things are planned.
    pub(super) fn now(&self) -> u64 {
        self.clock.elapsed_nanos()
    }

    /// A client connects at a time; what it sends is planned.
    pub(super) fn open(
        &mut self,
        number: u64,
        at: u64,
        entries: &[usize],
        request: Request,
    ) -> ExchangeId {
        let peer = Peer {
            source: SocketAddr::new(request.client, 40_000),
            destination: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000),
            scheme: "http".to_owned(),
            protocol: request.protocol.clone(),
        };
        let before = self.worker.cost();
        let id = self.worker.open(entries, peer);
        let head = request.method == "HEAD";
        let exchange = Exchange::new(number, before, head, request.abort);
        self.exchanges.insert(id, exchange);
        let source = Source::Client(number);
        for (after, said) in request.script() {
            let what = match said {
                Said::Event(event) => Happening::Event(id, event),
                Said::Nothing => Happening::Leave(id),
            };
            let at = at.saturating_add(nanos(after));
            self.agenda.plan(at, source, what);
        }
        id
    }

    /// Where something will come from, and when: the agenda, timers.
    pub(super) fn sources(&self) -> Vec<(u64, Source)> {
        let mut sources = self.agenda.sources();
        let ticks = self.worker.ticks().into_iter();
        sources.extend(ticks.map(|(timer, due)| (due, Source::Tick(timer))));
        sources
    }

    /// The next thing from a source happens, and what it causes at once.
    pub(super) fn step(&mut self, source: Source) {
        match source {
            Source::Tick(timer) => self.worker.tick(timer),
            Source::Queue => self.worker.tell_next_reader(),
            source => {
                if let Some(what) = self.agenda.take(source) {
                    self.happen(what);
                }
            }
        }
        self.react();
    }

    /// What the next step of a source will be.
    pub(super) fn describe(&self, source: Source) -> String {
        match source {
            Source::Tick(_) => "tick".to_owned(),
            Source::Queue => "a queue is ready".to_owned(),
            source => self
                .agenda
                .peek(source)
                .map_or_else(String::new, ToString::to_string),
        }
    }

    /// Does everything that is due now, but for ticks.
    pub(super) fn settle(&mut self) {
        self.react();
        while let Some(what) = self.agenda.take_due(self.now()) {
            self.happen(what);
            self.react();
        }
    }

    /// Ends an exchange that has not ended by itself.
    pub(super) fn end(&mut self, id: ExchangeId, otherwise: Outcome) -> Response {
        self.over(id, otherwise);
        self.react();
        let known = self.exchanges.remove(&id);
        known.map_or_else(Response::default, |exchange| exchange.response)
    }

    /// Takes the responses of the exchanges that ended, with their numbers.
    pub(super) fn take_over(&mut self) -> Vec<(u64, Response)> {
        let over = self.exchanges.extract_if(|_, exchange| exchange.over);
        over.map(|(_, exchange)| (exchange.number, exchange.response))
            .collect()
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Event(id, event) => self.worker.deliver(id, event),
            Happening::Leave(id) => self.over(id, Outcome::Aborted),
            Happening::Lose(id) => self.over(id, Outcome::UpstreamLost),
            Happening::Call(Some(id), call, outcome) => self
                .worker
                .deliver(id, crate::exchange::Event::CallDone(call, outcome)),
            Happening::Call(None, call, outcome) => self.worker.root_call_done(call, outcome),
            Happening::Grpc(id, event) => {
                if matches!(event, GrpcEvent::Closed(_)) {
                    self.agenda.forget(&[Source::Grpc(id)]);
                }
                self.worker.grpc_event(id, event);
            }
        }
    }

    /// Does what the worker asks for.
    fn react(&mut self) {
        loop {
            let mut busy = false;
            for id in self.worker.with_actions() {
                for action in self.worker.take_actions(id) {
                    busy = true;
                    self.act(id, action);
                }
            }
            for call in self.worker.take_root_calls() {
                busy = true;
                self.call(None, call);
            }
            busy |= self.react_grpc();
            if !busy {
                break;
            }
        }
        self.logs.extend(self.worker.take_logs());
    }

    fn call(&mut self, id: Option<ExchangeId>, call: Call) {
        let answer = match self.scripts.calls.get_mut(&call.upstream) {
            Some(script) => script(&call),
            None => Answer::failed(CallFailure::UnknownUpstream),
        };
        let kong = self.worker.profile() == Profile::Kong;
        let timeout = match call.timeout {
            Duration::ZERO if kong => Some(KONG_CALL_TIMEOUT),
            Duration::ZERO => None,
            timeout => Some(timeout),
        };
        let last = answer.duration();
        let end = match (last, timeout) {
            (Some(last), Some(timeout)) if last > timeout => {
                Some((timeout, CallOutcome::Failed(CallFailure::Timeout)))
            }
            (None, Some(timeout)) => Some((timeout, CallOutcome::Failed(CallFailure::Timeout))),
            (Some(last), _) => Some((last, answer.into_outcome())),
            (None, None) => None,
        };
        if let Some((after, outcome)) = end {
            let at = self.now().saturating_add(nanos(after));
            let what = Happening::Call(id, call.id, outcome);
            self.agenda.plan(at, Source::Call(call.id), what);
        }
        self.calls.push(call);
    }

    fn act(&mut self, id: ExchangeId, action: Action) {
        if let Action::Call(call) = action {
            self.call(Some(id), call);
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        match action {
            Action::SendRequestHeaders { headers, end } => {
                exchange.request_headers(headers);
                self.ask_upstream(id, end);
            }
            Action::SendRequestBody { chunk, end } => {
                exchange.request_body.extend_from_slice(&chunk);
                self.ask_upstream(id, end);
            }
            Action::SendRequestTrailers(trailers) => {
                exchange.request.trailers = trailers;
                self.ask_upstream(id, true);
            }
            Action::SendResponseHeaders { headers, end } => {
                exchange.response.headers = headers;
                self.leave_at(id, Abort::AtResponseHeaders, end);
                self.answered(id, end);
            }
            Action::SendResponseBody { chunk, end } => {
                if !chunk.is_empty() {
                    exchange.response.chunks.push(chunk);
                    let chunks = exchange.response.chunks.len();
                    self.leave_at(id, Abort::AfterChunks(chunks), end);
                }
                self.answered(id, end);
            }
            Action::SendResponseTrailers(trailers) => {
                exchange.response.trailers = trailers;
                self.answered(id, true);
            }
            Action::DropUpstream => {
                let source = Source::Upstream(exchange.number);
                self.agenda.forget(&[source]);
            }
            Action::CancelCall(call) => self.agenda.forget(&[Source::Call(call)]),
            Action::Reset(reason) => self.over(id, Outcome::Reset(reason)),
            Action::Hung(reason) => self.over(id, Outcome::Hung(reason)),
            Action::Call(_) => {}
        }
    }

    /// The client leaves if it was to do so at this point, unless the response is complete.
    fn leave_at(&mut self, id: ExchangeId, point: Abort, end: bool) {
        let now = self.now();
        if let Some(exchange) = self.exchanges.get(&id)
            && exchange.abort == Some(point)
            && !end
        {
            let source = Source::Client(exchange.number);
            self.agenda.plan(now, source, Happening::Leave(id));
        }
    }

    /// The request is complete where `end`: the upstream answers.
    fn ask_upstream(&mut self, id: ExchangeId, end: bool) {
        let now = self.now();
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        if !end {
            return;
        }
        if let Err(outcome) = exchange.complete_request() {
            self.over(id, outcome);
            return;
        }
        let request = exchange.request.clone();
        let source = Source::Upstream(exchange.number);
        let answer = (self.scripts.upstream)(&request);
        let head = request.method == "HEAD";
        exchange.response.upstream = Some(request);
        let Some(after) = answer.after else {
            return;
        };
        let reply = match answer.outcome {
            Ok(reply) => reply,
            Err(_) => self.unreachable(),
        };
        for (later, told) in reply.script(head) {
            let what = match told {
                Told::Event(event) => Happening::Event(id, event),
                Told::Nothing => Happening::Lose(id),
            };
            let at = now.saturating_add(nanos(after.saturating_add(later)));
            self.agenda.plan(at, source, what);
        }
    }

    /// What the profile's host answers for an upstream that does not.
    fn unreachable(&self) -> Reply {
        let kong = self.worker.profile() == Profile::Kong;
        let (status, body) = if kong {
            (
                502,
                "{\n  \"message\":\"An invalid response was received from the upstream server\"\n}",
            )
        } else {
            (
                503,
                "upstream connect error or disconnect/reset before headers",
            )
        };
        let headers: Headers = [(":status", status.to_string())].into_iter().collect();
        Reply::new(headers, Bytes::from_static(body.as_bytes()))
    }

    fn answered(&mut self, id: ExchangeId, end: bool) {
        if !end {
            return;
        }
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            let outcome = exchange.complete_response();
            self.over(id, outcome);
        }
    }

    fn over(&mut self, id: ExchangeId, outcome: Outcome) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.over {
            return;
        }
        exchange.over = true;
        exchange.response.outcome = outcome;
        if exchange.response.body.is_empty() {
            exchange.response.body = exchange.response.chunks.concat().into();
        }
        let number = exchange.number;
        let before = exchange.before.clone();
        self.agenda
            .forget(&[Source::Client(number), Source::Upstream(number)]);
        self.worker.close(id);
        let cost = self.worker.cost().since(&before);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.response.cost = cost;
        }
    }
}

/// Nanoseconds as the clock counts them.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
