//! gRPC calls and streams of a worker's guests.
//!
//! They belong to root contexts: on Envoy a stream's context hands them over, so that they outlive the request, and
//! every callback runs in the root (running).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::Worker;
use crate::http::Headers;

/// Names a gRPC call or stream of one worker; it is the token that the guest knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrpcId(pub(crate) u32);

/// What a driver does for the gRPC calls and streams of a worker, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcAction {
    /// Make the call, or open the stream.
    Open(GrpcRequest),
    /// Send one message on a stream.
    Send {
        /// The stream.
        id: GrpcId,
        /// The message, without its length in front.
        message: Bytes,
    },
    /// No more messages come from this side.
    End(GrpcId),
    /// Reset the stream; nothing of it is wanted any more.
    Cancel(GrpcId),
}

/// A call or a stream as its guest asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRequest {
    /// Names it in the [`GrpcAction`]s and in [`Worker::grpc_event`].
    pub id: GrpcId,
    /// The cluster.
    pub upstream: String,
    /// `:authority`; the cluster's name where the guest gave none.
    pub authority: String,
    /// The service's full name, such as `envoy.service.ratelimit.v3.RateLimitService`.
    pub service: String,
    /// The method's name.
    pub method: String,
    /// The initial metadata, without what gRPC itself sends.
    pub metadata: Headers,
    /// The one message of a unary call; `None` opens a stream.
    pub message: Option<Bytes>,
    /// After this long without an end a unary call fails; `None`: never.
    pub timeout: Option<Duration>,
}

/// What happens to a call or a stream. A driver tells all of them for both kinds; a guest sees fewer of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcEvent {
    /// The initial metadata came; empty where the other side answered with trailers alone.
    InitialMetadata(Headers),
    /// A message came, without its length in front.
    Message(Bytes),
    /// The trailing metadata came, `grpc-status` and `grpc-message` in it.
    TrailingMetadata(Headers),
    /// It is over.
    Closed(GrpcStatus),
}

/// How a call or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// The code: 0 is success ([the list](https://grpc.io/docs/guides/status-codes/)).
    pub code: u32,
    /// The reason in words; may be empty.
    pub message: String,
}

impl GrpcStatus {
    /// Success.
    pub const OK: u32 = 0;
    /// The reason is not known: the answer named no status.
    pub const UNKNOWN: u32 = 2;
    /// The caller may not do this.
    pub const PERMISSION_DENIED: u32 = 7;
    /// Something holds more than it may.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// There is no such service or method.
    pub const UNIMPLEMENTED: u32 = 12;
    /// The other side broke the protocol, or the stream.
    pub const INTERNAL: u32 = 13;
    /// There is nobody to answer.
    pub const UNAVAILABLE: u32 = 14;
    /// The caller is not known.
    pub const UNAUTHENTICATED: u32 = 16;

    /// A status with its reason, and behind it in braces what Envoy knows about the response (running).
    #[must_use]
    pub fn detailed(code: u32, message: &str, details: &str) -> Self {
        Self::new(
            code,
            match message {
                "" => details.to_owned(),
                message => format!("{message}{{{details}}}"),
            },
        )
    }

    /// The end of a call that took longer than its guest wanted to wait (running: not the code for it, 4).
    #[must_use]
    pub fn timed_out() -> Self {
        let words = "upstream request timeout";
        Self::detailed(Self::UNAVAILABLE, words, "response_timeout")
    }

    /// A status with its reason.
    #[must_use]
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The calls and streams under way, and what is to be done for them.
#[derive(Debug, Default)]
pub(crate) struct Grpc {
    open: BTreeMap<u32, Open>,
    calls: u32,
    streams: u32,
    actions: Vec<GrpcAction>,
    /// Ends that guests learn after the callback that runs.
    ends: VecDeque<(Caller, u32, GrpcStatus)>,
}

/// The root context that a call or a stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) vm: usize,
    pub(crate) generation: u64,
    pub(crate) root: u32,
}

#[derive(Debug)]
struct Open {
    caller: Caller,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The message that came, if it did.
    Call(Option<Bytes>),
    Stream {
        /// Whether `proxy_grpc_close` was called.
        closed_here: bool,
        /// Whether the other side ended it.
        closed_there: bool,
    },
}

/// Envoy keeps the kind of a token in its two lowest bits, and never uses the first of a kind.
const STEP: u32 = 4;
const KIND: u32 = 3;
const CALL: u32 = 1;
const STREAM: u32 = 2;

/// Why a guest's wish for a call or a stream is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// The token is of no kind for which this is possible.
    WrongKind,
    /// The token is of a call or a stream that is over, or of another root context.
    Gone,
}

impl Grpc {
    /// Opens a call or a stream for a guest; its token.
    pub(crate) fn open(
        &mut self,
        caller: Caller,
        message: Option<Bytes>,
        request: impl FnOnce(GrpcId, Option<Bytes>) -> GrpcRequest,
    ) -> u32 {
        let (token, kind) = self.next(message.is_some());
        self.open.insert(token, Open { caller, kind });
        self.actions
            .push(GrpcAction::Open(request(GrpcId(token), message)));
        token
    }

    /// What Envoy does where there is no such cluster: the guest gets no token and yet an end for one.
    pub(crate) fn fail(&mut self, caller: Caller, unary: bool, status: GrpcStatus) {
        let (token, _) = self.next(unary);
        self.ends.push_back((caller, token, status));
    }

    fn next(&mut self, unary: bool) -> (u32, Kind) {
        let (count, kind, state) = if unary {
            (&mut self.calls, CALL, Kind::Call(None))
        } else {
            let state = Kind::Stream {
                closed_here: false,
                closed_there: false,
            };
            (&mut self.streams, STREAM, state)
        };
        *count = count.wrapping_add(STEP);
        (*count | kind, state)
    }

    fn find(&mut self, caller: Caller, token: u32) -> Result<&mut Open, Unmet> {
        if !matches!(token & KIND, CALL | STREAM) {
            return Err(Unmet::WrongKind);
        }
        let open = self.open.get_mut(&token);
        open.filter(|open| open.caller == caller).ok_or(Unmet::Gone)
    }

    /// Sends a message on a stream. One that the other side has ended takes it and drops it.
    pub(crate) fn send(
        &mut self,
        caller: Caller,
        token: u32,
        message: Bytes,
        end: bool,
    ) -> Result<(), Unmet> {
        if token & KIND != STREAM {
            return Err(Unmet::WrongKind);
        }
        let open = self.find(caller, token)?;
        if !matches!(open.kind, Kind::Stream { closed_there, .. } if closed_there) {
            let id = GrpcId(token);
            self.actions.push(GrpcAction::Send { id, message });
            self.actions.extend(end.then_some(GrpcAction::End(id)));
        }
        Ok(())
    }

    /// Ends this side of a stream; cancels a call.
    pub(crate) fn close(&mut self, caller: Caller, token: u32) -> Result<(), Unmet> {
        let over = match &mut self.find(caller, token)?.kind {
            Kind::Call(_) => return self.cancel(caller, token),
            Kind::Stream {
                closed_here,
                closed_there,
            } => {
                *closed_here = true;
                *closed_there
            }
        };
        if over {
            self.open.remove(&token);
        } else {
            self.actions.push(GrpcAction::End(GrpcId(token)));
        }
        Ok(())
    }

    /// Resets a call or a stream: nothing more of it reaches the guest.
    pub(crate) fn cancel(&mut self, caller: Caller, token: u32) -> Result<(), Unmet> {
        self.find(caller, token)?;
        self.open.remove(&token);
        self.actions.push(GrpcAction::Cancel(GrpcId(token)));
        Ok(())
    }

    /// Cancels what belongs to a VM that is gone.
    pub(super) fn forget(&mut self, vm: usize) {
        let actions = &mut self.actions;
        self.open.retain(|token, open| {
            let stays = open.caller.vm != vm;
            if !stays {
                actions.push(GrpcAction::Cancel(GrpcId(*token)));
            }
            stays
        });
        self.ends.retain(|(caller, ..)| caller.vm != vm);
    }

    /// What a guest is told of an event: whom, and the events that it sees.
    fn told(&mut self, token: u32, event: GrpcEvent) -> Option<(Caller, GrpcEvent)> {
        let open = self.open.get_mut(&token)?;
        let caller = open.caller;
        let event = match (&mut open.kind, event) {
            // A unary call shows neither metadata, and of success only the message (running).
            (Kind::Call(_), GrpcEvent::InitialMetadata(_) | GrpcEvent::TrailingMetadata(_)) => {
                return None;
            }
            (Kind::Call(answer), GrpcEvent::Message(message)) => {
                *answer = Some(message);
                return None;
            }
            (Kind::Call(answer), GrpcEvent::Closed(status)) => {
                let answer = answer.take();
                self.open.remove(&token);
                match answer {
                    Some(message) if status.code == GrpcStatus::OK => GrpcEvent::Message(message),
                    None if status.code == GrpcStatus::OK => {
                        GrpcEvent::Closed(GrpcStatus::new(GrpcStatus::INTERNAL, ""))
                    }
                    _ => GrpcEvent::Closed(status),
                }
            }
            (Kind::Stream { closed_there, .. }, _) if *closed_there => return None,
            (
                Kind::Stream {
                    closed_here,
                    closed_there,
                },
                GrpcEvent::Closed(status),
            ) => {
                *closed_there = true;
                if *closed_here {
                    self.open.remove(&token);
                }
                GrpcEvent::Closed(status)
            }
            (Kind::Stream { .. }, event) => event,
        };
        Some((caller, event))
    }
}

impl Worker {
    /// What is to be done for gRPC now, in order.
    pub fn take_grpc_actions(&mut self) -> Vec<GrpcAction> {
        std::mem::take(&mut self.world.grpc.actions)
    }

    /// Feeds what happened to a call or a stream. One that is over, or cancelled, is ignored.
    pub fn grpc_event(&mut self, id: GrpcId, event: GrpcEvent) {
        if let Some((caller, event)) = self.world.grpc.told(id.0, event) {
            self.tell_grpc(caller, id.0, event);
            self.after_callbacks();
        }
    }

    /// Tells guests of ends that came while they ran; whether any was told.
    pub(super) fn tell_grpc_ends(&mut self) -> bool {
        let ends = std::mem::take(&mut self.world.grpc.ends);
        let told = !ends.is_empty();
        for (caller, token, status) in ends {
            self.tell_grpc(caller, token, GrpcEvent::Closed(status));
        }
        told
    }

    fn tell_grpc(&mut self, caller: Caller, token: u32, event: GrpcEvent) {
        let Some(slot) = self.slots.get_mut(caller.vm) else {
            return;
        };
        if slot.generation != caller.generation {
            return;
        }
        let Some(vm) = &mut slot.vm else {
            return;
        };
        if let Err(report) = vm.on_grpc(&mut self.world, caller.root, token, event) {
            self.trapped(caller.vm, *report);
        }
    }
}
