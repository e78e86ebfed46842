//! Scripted gRPC services.

use std::time::Duration;

use bytes::Bytes;

use super::Sim;
use super::agenda::{Happening, Source};
use super::surroundings::{Surroundings, nanos};
use crate::http::Headers;
use crate::worker::{GrpcAction, GrpcEvent, GrpcId, GrpcRequest, GrpcStatus};

/// A call or a stream as its service sees it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCall {
    /// What the guest asked for.
    pub request: GrpcRequest,
    /// The messages that came, the one of a unary call too.
    pub messages: Vec<Bytes>,
    /// Whether no more messages come.
    pub ended: bool,
    /// Whether the guest, or its end, cancelled it.
    pub cancelled: bool,
    /// Whether the service's initial metadata went out.
    answered: bool,
    /// Whether the service ended it.
    closed: bool,
}

impl GrpcCall {
    /// The message that came last; empty where none came.
    #[must_use]
    pub fn last(&self) -> Bytes {
        self.messages.last().cloned().unwrap_or_default()
    }

    /// `package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.request.service, self.request.method)
    }
}

/// What a scripted service does at one moment: when a stream opens, when a message comes, when no more come.
///
/// A unary call has one moment, and is closed with status 0 behind a message unless the answer says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcAnswer {
    initial: Headers,
    messages: Vec<Bytes>,
    trailing: Headers,
    status: Option<GrpcStatus>,
    after: Duration,
}

impl GrpcAnswer {
    /// Nothing, for now or for ever.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// A message.
    #[must_use]
    pub fn message(message: impl Into<Bytes>) -> Self {
        Self::default().and_message(message)
    }

    /// The end, with a code and a reason. A service that has said nothing else answers with trailers alone.
    #[must_use]
    pub fn status(code: u32, message: &str) -> Self {
        Self::default().and_status(code, message)
    }

    /// One message more.
    #[must_use]
    pub fn and_message(mut self, message: impl Into<Bytes>) -> Self {
        self.messages.push(message.into());
        self
    }

    /// The end behind it.
    #[must_use]
    pub fn and_status(mut self, code: u32, message: &str) -> Self {
        self.status = Some(GrpcStatus::new(code, message));
        self
    }

    /// A line of the initial metadata; it has an effect in the service's first answer only.
    #[must_use]
    pub fn initial(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.initial.push(name.to_owned(), value);
        self
    }

    /// A line of the trailing metadata; it has an effect together with the end only.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.trailing.push(name.to_owned(), value);
        self
    }

    /// All of it happens this much later, in virtual time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// The answer as the guest's host sees it come.
    fn into_events(mut self, call: &mut GrpcCall) -> Vec<GrpcEvent> {
        if call.request.message.is_some() && self.status.is_none() && !self.messages.is_empty() {
            self.status = Some(GrpcStatus::new(GrpcStatus::OK, ""));
        }
        let mut events = Vec::new();
        let speaks = !self.messages.is_empty() || !self.initial.is_empty();
        let mut head: Headers = [(":status", "200"), ("content-type", "application/grpc")]
            .into_iter()
            .collect();
        let mut trailers_only = false;
        if speaks && !call.answered {
            call.answered = true;
            head.extend(self.initial);
            events.push(GrpcEvent::InitialMetadata(std::mem::take(&mut head)));
        } else if self.status.is_some() && !call.answered {
            trailers_only = true;
            events.push(GrpcEvent::InitialMetadata(Headers::new()));
        }
        events.extend(self.messages.into_iter().map(GrpcEvent::Message));
        if let Some(status) = self.status {
            let mut trailers = if trailers_only { head } else { Headers::new() };
            trailers.push("grpc-status", status.code.to_string());
            if !status.message.is_empty() {
                trailers.push("grpc-message", status.message.clone());
            }
            trailers.extend(self.trailing);
            events.push(GrpcEvent::TrailingMetadata(trailers));
            let status = GrpcStatus::detailed(status.code, &status.message, "via_upstream");
            events.push(GrpcEvent::Closed(status));
            call.closed = true;
        }
        events
    }
}

/// What came to the services.
#[derive(Default)]
pub(super) struct Services {
    pub(super) calls: Vec<GrpcCall>,
}

impl Services {
    fn call(&mut self, id: GrpcId) -> Option<&mut GrpcCall> {
        self.calls.iter_mut().find(|call| call.request.id == id)
    }
}

impl Sim {
    /// From now on gRPC calls and streams to the cluster `upstream` get what `answer` says, which is asked at each
    /// moment: see [`GrpcAnswer`]. Under Envoy's profile the cluster must be known from the start
    /// ([`super::Setting::on_grpc`], [`super::Setting::cluster`]).
    pub fn on_grpc(
        &mut self,
        upstream: &str,
        answer: impl FnMut(&GrpcCall) -> GrpcAnswer + Send + 'static,
    ) {
        let scripts = &mut self.surroundings.scripts.grpc;
        scripts.insert(upstream.to_owned(), Box::new(answer));
    }

    /// Every gRPC call and stream that filters made since the start, as far as it came.
    #[must_use]
    pub fn grpc_calls(&self) -> &[GrpcCall] {
        &self.surroundings.services.calls
    }
}

impl Surroundings {
    /// Does what filters want of gRPC services; whether there was anything.
    pub(super) fn react_grpc(&mut self) -> bool {
        let actions = self.worker.take_grpc_actions();
        let busy = !actions.is_empty();
        for action in actions {
            self.act_grpc(action);
        }
        busy
    }

    fn act_grpc(&mut self, action: GrpcAction) {
        let id = match action {
            GrpcAction::Open(request) => {
                let id = request.id;
                if let Some(timeout) = request.timeout {
                    self.plan_grpc(id, timeout, [GrpcEvent::Closed(GrpcStatus::timed_out())]);
                }
                self.services.calls.push(GrpcCall {
                    messages: request.message.iter().cloned().collect(),
                    ended: request.message.is_some(),
                    request,
                    cancelled: false,
                    answered: false,
                    closed: false,
                });
                id
            }
            GrpcAction::Send { id, message } => {
                if let Some(call) = self.services.call(id) {
                    call.messages.push(message);
                }
                id
            }
            GrpcAction::End(id) => {
                if let Some(call) = self.services.call(id) {
                    call.ended = true;
                }
                id
            }
            GrpcAction::Cancel(id) => {
                if let Some(call) = self.services.call(id) {
                    call.cancelled = true;
                }
                self.agenda.forget(&[Source::Grpc(id)]);
                return;
            }
        };
        let (after, events) = self.ask_service(id);
        self.plan_grpc(id, after, events);
    }

    /// A moment of a call: what its service does, and after how long.
    fn ask_service(&mut self, id: GrpcId) -> (Duration, Vec<GrpcEvent>) {
        let call = self.services.call(id);
        let Some(call) = call.filter(|call| !call.cancelled && !call.closed) else {
            return (Duration::ZERO, Vec::new());
        };
        let answer = match self.scripts.grpc.get_mut(&call.request.upstream) {
            Some(script) => script(call),
            // As Envoy answers for a cluster in which nobody listens.
            None => GrpcAnswer::status(GrpcStatus::UNAVAILABLE, "no script for this cluster"),
        };
        (answer.after, answer.into_events(call))
    }

    fn plan_grpc(
        &mut self,
        id: GrpcId,
        after: Duration,
        events: impl IntoIterator<Item = GrpcEvent>,
    ) {
        let at = self.now().saturating_add(nanos(after));
        for event in events {
            self.agenda
                .plan(at, Source::Grpc(id), Happening::Grpc(id, event));
        }
    }
}
