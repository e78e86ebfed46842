//! Scripted traffic on a virtual clock: tests of a filter in a few lines.
//!
//! ```no_run
//! use serde_json::json;
//! use tollgate_harness::engine::{Engine, Module};
//! use tollgate_harness::profile::Profile;
//! use tollgate_harness::sim::{Request, Sim};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let filter = Module::load(&Engine::for_simulation()?, "tollgate_key_auth.wasm".as_ref())?;
//! let mut sim = Sim::of(Profile::Envoy).filter(&filter, json!({ "consumers": [] })).start()?;
//! let got = sim.send(Request::post("/v1/chat").header("apikey", "k").body("{}").delivered_in(&[1, 1]));
//! assert_eq!(got.status(), 401);
//! assert!(got.upstream().is_none());
//! # Ok(())
//! # }
//! ```

mod answer;
mod grpc;
mod request;
mod response;
mod setting;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use answer::Answer;
pub use grpc::{GrpcAnswer, GrpcCall};
pub use request::Request;
pub use response::{Outcome, Response, UpstreamRequest};
pub use setting::Setting;

use crate::exchange::{Action, Call, CallFailure, CallId, CallOutcome, Event, ExchangeId, Peer};
use crate::http::Headers;
use crate::profile::{Finding, Profile};
use crate::shared::{Metric, Shared};
use crate::vm::{Cost, Faults, LogLine, TrapReport};
use crate::worker::{Clock, GrpcEvent, GrpcId, VirtualClock, Worker};

use answer::Reply;
use grpc::Services;
use response::Exchange;

/// How long an exchange may wait for a tick, in virtual time, before it counts as [`Outcome::Waiting`].
const PATIENCE: Duration = Duration::from_secs(60);

type Upstream = Box<dyn FnMut(&UpstreamRequest) -> Answer>;
type CallScript = Box<dyn FnMut(&Call) -> Answer>;

/// A worker with scripted surroundings.
///
/// An upstream's or a call's answer comes at once unless it says [`Answer::after`]; then it comes when the clock gets
/// there, which [`Sim::send`] and [`Sim::finish`] see to.
pub struct Sim {
    worker: Worker,
    clock: Arc<VirtualClock>,
    upstream: Upstream,
    scripts: BTreeMap<String, CallScript>,
    services: Services,
    entries: usize,
    exchanges: HashMap<ExchangeId, Exchange>,
    agenda: Vec<Due>,
    calls: Vec<Call>,
    logs: Vec<LogLine>,
}

/// Something that will happen.
struct Due {
    at: u64,
    what: Happening,
}

enum Happening {
    Call(Option<ExchangeId>, CallId, CallOutcome),
    Upstream(ExchangeId, Vec<Event>),
    Grpc(GrpcId, GrpcEvent),
}

impl Sim {
    /// Sets up a simulation under `profile`: no filter yet, an upstream that echoes, time 2026-01-01 00:00 UTC.
    pub fn of(profile: Profile) -> Setting {
        Setting::new(profile)
    }

    /// From now on the upstream answers what `answer` says. Until then it echoes ([`Answer::echo`]).
    pub fn upstream<A: Into<Answer>>(
        &mut self,
        mut answer: impl FnMut(&UpstreamRequest) -> A + 'static,
    ) {
        self.upstream = Box::new(move |request| answer(request).into());
    }

    /// From now on calls to `upstream` get what `answer` says. Without a script a call fails as unknown. Under Envoy's
    /// profile only upstreams known from the start ([`Setting::on_call`], [`Setting::cluster`]) can be called at all.
    pub fn on_call<A: Into<Answer>>(
        &mut self,
        upstream: &str,
        mut answer: impl FnMut(&Call) -> A + 'static,
    ) {
        self.scripts.insert(
            upstream.to_owned(),
            Box::new(move |call| answer(call).into()),
        );
    }

    /// Sends a request through all entries and waits, in virtual time, until it is answered or nothing more happens.
    pub fn send(&mut self, request: Request) -> Response {
        let id = self.begin(request);
        self.finish(id)
    }

    /// Sends a request through the entries of these indices alone, as a route with its own chain does.
    pub fn send_through(&mut self, entries: &[usize], request: Request) -> Response {
        let id = self.begin_through(entries, request);
        self.finish(id)
    }

    /// Sends a request and returns when it is answered or waits for something. [`Sim::finish`] takes it up again.
    pub fn begin(&mut self, request: Request) -> ExchangeId {
        let entries: Vec<_> = (0..self.entries).collect();
        self.begin_through(&entries, request)
    }

    fn begin_through(&mut self, entries: &[usize], request: Request) -> ExchangeId {
        let peer = Peer {
            source: SocketAddr::new(request.client, 40_000),
            destination: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000),
            scheme: "http".to_owned(),
            protocol: request.protocol.clone(),
        };
        let before = self.worker.cost();
        let id = self.worker.open(entries, peer);
        self.exchanges
            .insert(id, Exchange::new(before, request.method == "HEAD"));
        for event in request.into_events() {
            self.worker.deliver(id, event);
            self.settle();
        }
        id
    }

    /// Waits for an exchange that [`Sim::begin`] began, as [`Sim::send`] does. An exchange that is not known, or was
    /// finished before, gives an empty response that is [`Outcome::Waiting`].
    pub fn finish(&mut self, id: ExchangeId) -> Response {
        let patience = self.now_unix_nanos().saturating_add(nanos(PATIENCE));
        self.settle();
        while self.exchanges.get(&id).is_some_and(|e| !e.over) {
            match self.next_moment() {
                Some(at) if self.awaited(id) || at <= patience => self.go_to(at),
                _ => break,
            }
        }
        self.end(id, Outcome::Waiting)
    }

    /// The client of an exchange that [`Sim::begin`] began goes away.
    pub fn abort(&mut self, id: ExchangeId) -> Response {
        self.end(id, Outcome::Aborted)
    }

    fn end(&mut self, id: ExchangeId, otherwise: Outcome) -> Response {
        let Some(mut exchange) = self.exchanges.remove(&id) else {
            return Response::default();
        };
        if !exchange.over {
            exchange.response.outcome = otherwise;
            self.worker.close(id);
            exchange.response.cost = self.worker.cost().since(&exchange.before);
            self.settle();
        }
        exchange.response
    }

    /// Lets time pass; ticks and answers that fall due on the way happen at their moments.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now_unix_nanos().saturating_add(nanos(by));
        self.settle();
        while let Some(at) = self.next_moment().filter(|at| *at <= end) {
            self.go_to(at);
        }
        self.clock.set(end);
        self.settle();
    }

    /// The virtual clock, for jumps.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// The virtual time, in nanoseconds since 1970.
    #[must_use]
    pub fn now_unix_nanos(&self) -> u64 {
        self.clock.now_unix_nanos()
    }

    /// The value of a counter or gauge, 0 while it does not exist.
    #[must_use]
    pub fn metric(&self, name: &str) -> i64 {
        self.metric_full(name).map_or(0, |metric| metric.value)
    }

    /// A metric in full.
    #[must_use]
    pub fn metric_full(&self, name: &str) -> Option<Metric> {
        self.worker.shared().metrics().remove(name)
    }

    /// Shared data, queues and metrics.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        self.worker.shared()
    }

    /// Everything that was logged since the start.
    #[must_use]
    pub fn logs(&self) -> &[LogLine] {
        &self.logs
    }

    /// Every call that filters made since the start.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Every trap since the start.
    #[must_use]
    pub fn traps(&self) -> &[TrapReport] {
        self.worker.traps()
    }

    /// What the guests cost since the start.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.worker.cost()
    }

    /// The worker itself.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Host functions that fail from now on, instead of those before.
    pub fn set_faults(&mut self, faults: Faults) {
        self.worker.set_faults(faults);
    }

    /// What the filters did that another host would not stand.
    #[must_use]
    pub fn portability(&self) -> &[Finding] {
        self.worker.portability()
    }

    /// Asserts that the filters did nothing that another host would not stand.
    ///
    /// # Panics
    /// With everything that they did.
    pub fn assert_portable(&self) {
        let found: Vec<_> = self.portability().iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "not portable:\n{}", found.join("\n"));
    }

    /// Whether something is on its way to the exchange.
    fn awaited(&self, id: ExchangeId) -> bool {
        self.agenda.iter().any(|due| match &due.what {
            Happening::Call(exchange, ..) => *exchange == Some(id),
            Happening::Upstream(exchange, _) => *exchange == id,
            Happening::Grpc(..) => false,
        })
    }

    /// When something happens next: an answer comes or a tick is due.
    fn next_moment(&self) -> Option<u64> {
        let answer = self.agenda.iter().map(|due| due.at).min();
        let tick = self
            .worker
            .next_tick()
            .map(|wait| self.now_unix_nanos().saturating_add(nanos(wait)));
        answer.into_iter().chain(tick).min()
    }

    fn go_to(&mut self, at: u64) {
        if at > self.now_unix_nanos() {
            self.clock.set(at);
        }
        self.settle();
        self.worker.tick_due();
        self.settle();
    }

    /// Does everything that is to be done now.
    fn settle(&mut self) {
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
            busy |= self.settle_grpc();
            if let Some(what) = self.take_due() {
                busy = true;
                self.happen(what);
            }
            if !busy {
                break;
            }
        }
        self.logs.extend(self.worker.take_logs());
    }

    /// The first thing that is due, in the order in which it was put on the agenda.
    fn take_due(&mut self) -> Option<Happening> {
        let now = self.now_unix_nanos();
        let earliest = self.agenda.iter().map(|due| due.at).min()?;
        let index = self
            .agenda
            .iter()
            .position(|due| due.at == earliest && due.at <= now)?;
        Some(self.agenda.remove(index).what)
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Call(Some(id), call, outcome) => {
                self.worker.deliver(id, Event::CallDone(call, outcome));
            }
            Happening::Call(None, call, outcome) => self.worker.root_call_done(call, outcome),
            Happening::Grpc(id, event) => self.worker.grpc_event(id, event),
            Happening::Upstream(id, events) => {
                for event in events {
                    self.worker.deliver(id, event);
                    for action in self.worker.take_actions(id) {
                        self.act(id, action);
                    }
                }
            }
        }
    }

    fn call(&mut self, id: Option<ExchangeId>, call: Call) {
        let answer = match self.scripts.get_mut(&call.upstream) {
            Some(script) => script(&call),
            None => Answer::failed(CallFailure::UnknownUpstream),
        };
        let now = self.now_unix_nanos();
        // No timeout means that the host's own applies; none is modelled.
        let timeout = (!call.timeout.is_zero()).then_some(call.timeout);
        let (after, outcome) = match timeout {
            Some(timeout) if answer.after > timeout => {
                (timeout, CallOutcome::Failed(CallFailure::Timeout))
            }
            _ => (answer.after, answer.into_outcome()),
        };
        self.agenda.push(Due {
            at: now.saturating_add(nanos(after)),
            what: Happening::Call(id, call.id, outcome),
        });
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
                self.answered(id, end);
            }
            Action::SendResponseBody { chunk, end } => {
                if !chunk.is_empty() {
                    exchange.response.chunks.push(chunk);
                }
                self.answered(id, end);
            }
            Action::SendResponseTrailers(trailers) => {
                exchange.response.trailers = trailers;
                self.answered(id, true);
            }
            Action::DropUpstream => self.agenda.retain(
                |due| !matches!(&due.what, Happening::Upstream(exchange, _) if *exchange == id),
            ),
            Action::CancelCall(call) => self
                .agenda
                .retain(|due| !matches!(&due.what, Happening::Call(_, c, _) if *c == call)),
            Action::Reset(reason) => self.over(id, Outcome::Reset(reason)),
            Action::Hung(reason) => self.over(id, Outcome::Hung(reason)),
            Action::Call(_) => {}
        }
    }

    /// The request is complete where `end`: the upstream answers.
    fn ask_upstream(&mut self, id: ExchangeId, end: bool) {
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
        let answer = (self.upstream)(&request);
        let head = request.method == "HEAD";
        exchange.response.upstream = Some(request);
        let at = self
            .clock
            .now_unix_nanos()
            .saturating_add(nanos(answer.after));
        let reply = match answer.outcome {
            Ok(reply) => reply,
            Err(_) => self.unreachable(),
        };
        self.agenda.push(Due {
            at,
            what: Happening::Upstream(id, reply.into_events(head)),
        });
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
        let before = exchange.before.clone();
        self.worker.close(id);
        let cost = self.worker.cost().since(&before);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.response.cost = cost;
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
