//! Running a callback of one seat, ends of calls, ends of exchanges.

use bytes::Bytes;

use super::{SetProperties, Worker};
use crate::abi::LogLevel;
use crate::exchange::{Action, CallFailure, CallId, CallOutcome, ExchangeId};
use crate::http::Headers;
use crate::profile::{FailedCall, Flow};
use crate::shared::Reader;
use crate::vm::{CallView, Callback, Lost, Owner, Site, TrapCause, TrapReport, Vm, World};

/// How often callbacks may cause others before the next event: a reader that fills its own queue must not hold up traffic.
const ROUNDS: usize = 100;

/// How a callback went.
pub(crate) enum Ran<T> {
    /// It returned this.
    Done(T),
    /// The filter is not asked any more: traffic passes.
    Bypassed,
    /// The filter is dead, now or since before.
    Failed,
}

impl Worker {
    /// Runs a callback of a seat, making its context first where there is none yet.
    pub(crate) fn run<T>(
        &mut self,
        id: ExchangeId,
        seat: usize,
        callback: Callback,
        work: impl FnOnce(&mut Vm, &mut World, Site) -> Result<T, Box<TrapReport>>,
    ) -> Ran<T> {
        let Some(exchange) = self.world.exchanges.get(&id) else {
            return Ran::Bypassed;
        };
        let Some(seat_ref) = exchange.seats.get(seat) else {
            return Ran::Bypassed;
        };
        if seat_ref.bypassed {
            return Ran::Bypassed;
        }
        let (entry, index, generation) = (seat_ref.entry, seat_ref.vm, seat_ref.generation);
        let context = seat_ref.context;
        let slot = &mut self.slots[index];
        if slot.generation != generation || slot.vm.is_none() {
            return self.dead(id, seat);
        }
        let Some(vm) = &mut slot.vm else {
            return Ran::Bypassed;
        };
        let root = vm.roots.get(self.entries[entry].root).copied().unwrap_or(0);
        let result = match context {
            Some(context) => Ok(context),
            None => vm.open_stream(&mut self.world, root, id, seat),
        };
        let result = result.and_then(|context| {
            if let Some(exchange) = self.world.exchanges.get_mut(&id)
                && let Some(seat) = exchange.seats.get_mut(seat)
            {
                seat.context = Some(context);
            }
            work(vm, &mut self.world, Self::site(callback, context, Some(id)))
        });
        match result {
            Ok(value) => Ran::Done(value),
            Err(report) => {
                self.trapped(index, *report);
                self.dead(id, seat)
            }
        }
    }

    /// What a dead filter means for an exchange: it fails, whatever the policy (running; `open` is for later requests).
    fn dead<T>(&mut self, id: ExchangeId, seat: usize) -> Ran<T> {
        if let Some(exchange) = self.world.exchanges.get_mut(&id)
            && let Some(seat) = exchange.seats.get_mut(seat)
        {
            // A dead filter fails its stream once; the answer that tells so passes it.
            seat.bypassed = true;
        }
        Ran::Failed
    }

    /// How many calls the seat's last callback made.
    pub(crate) fn calls_made(&self, id: ExchangeId, seat: usize) -> u32 {
        self.world
            .exchanges
            .get(&id)
            .and_then(|exchange| exchange.seats.get(seat))
            .and_then(|seat| self.slots.get(seat.vm)?.vm.as_ref())
            .map_or(0, Vm::calls_made)
    }

    /// The name of a seat's entry.
    pub(crate) fn seat_name(&self, id: ExchangeId, seat: usize) -> String {
        self.world
            .exchanges
            .get(&id)
            .and_then(|exchange| exchange.seats.get(seat))
            .and_then(|seat| {
                let entry = self.entries.get(seat.entry)?;
                Some(
                    self.slots
                        .get(entry.slot)?
                        .roots
                        .get(entry.root)?
                        .name
                        .clone(),
                )
            })
            .unwrap_or_default()
    }

    /// A call ended.
    pub(super) fn call_done(&mut self, call: CallId, outcome: CallOutcome) {
        let Some(owner) = self.world.owners.remove(&call) else {
            return;
        };
        let view = self.view(outcome);
        let open = owner
            .seat
            .filter(|(id, _)| self.world.exchanges.get(id).is_some_and(|e| !e.over));
        if let Some((id, _)) = open
            && let Some(exchange) = self.world.exchanges.get_mut(&id)
        {
            exchange.calls.remove(&call);
        }
        let stale = self.slots[owner.vm].generation != owner.generation;
        let phased = self.setup.profile.rules().flow == Flow::Phased;
        match open {
            Some((id, seat)) if stale && phased => self.crash_with(TrapReport {
                filter: self.seat_name(id, seat),
                callback: Callback::CallResponse,
                exchange: Some(id),
                request: None,
                cause: TrapCause::Host(
                    "segmentation fault: the answer to a call of an instance that another request's trap replaced",
                ),
                backtrace: Vec::new(),
                kills_worker: true,
                lost: Lost::default(),
            }),
            Some((id, seat)) => {
                let in_root = self.setup.profile.rules().calls_answer_root;
                let ran = self.run(id, seat, Callback::CallResponse, |vm, world, site| {
                    let context = if in_root { owner.root } else { site.context };
                    vm.on_call_response(world, Site { context, ..site }, owner.root, call.0, view)
                });
                if phased {
                    self.call_answered_phased(id, &ran);
                } else {
                    self.call_answered_streamed(id, &ran);
                }
            }
            None if stale => {}
            None => self.answer_root(&owner, call, view),
        }
    }

    /// Answers a root context, or one in whose place the root stands: its exchange is over.
    fn answer_root(&mut self, owner: &Owner, call: CallId, view: CallView) {
        let Some(vm) = &mut self.slots[owner.vm].vm else {
            return;
        };
        let site = Self::site(Callback::CallResponse, owner.root, None);
        if let Err(report) = vm.on_call_response(&mut self.world, site, owner.root, call.0, view) {
            self.trapped(owner.vm, *report);
        }
    }

    /// What a guest sees of a call's end.
    fn view(&self, outcome: CallOutcome) -> CallView {
        match outcome {
            CallOutcome::Response {
                headers,
                body,
                trailers,
            } => CallView {
                headers,
                body,
                trailers,
                failure: None,
            },
            CallOutcome::Failed(failure) => {
                let made = match self.setup.profile.rules().failed_call {
                    FailedCall::MadeByHost => made_by_host(failure),
                    FailedCall::DispatchStatus => None,
                };
                made.unwrap_or_else(|| CallView {
                    failure: Some(failure),
                    ..CallView::default()
                })
            }
        }
    }

    /// Things that callbacks asked for, after them.
    pub(super) fn after_callbacks(&mut self) {
        for _ in 0..ROUNDS {
            let closed = std::mem::take(&mut self.world.closed);
            for id in &closed {
                self.reset(*id, crate::exchange::ResetReason::ClosedByFilter);
            }
            let resumed = std::mem::take(&mut self.world.resumed);
            for (id, seat, direction) in &resumed {
                // A phased host resumes by itself, once the last answer is there.
                if self.setup.profile.rules().flow == Flow::Streamed {
                    self.resume_streamed(*id, *seat, *direction);
                }
            }
            let told = self.tell_queues() | self.tell_grpc_ends();
            self.delete_finished();
            if closed.is_empty() && resumed.is_empty() && !told {
                break;
            }
        }
    }

    /// Tells readers of queues what came; whether any was told.
    fn tell_queues(&mut self) -> bool {
        let untold = self.setup.shared.queues_take_untold(self.membership.id);
        let any = !untold.is_empty();
        for (queue, reader) in untold {
            self.tell_reader(queue, reader);
        }
        any
    }

    /// Tells a reader that something came. A VM that is gone is not told; what came for it stays in the queue.
    pub(super) fn tell_reader(&mut self, queue: u32, reader: Reader) {
        let Some(slot) = self.slots.get_mut(reader.vm) else {
            return;
        };
        if slot.generation != reader.generation {
            return;
        }
        let Some(vm) = &mut slot.vm else {
            return;
        };
        if let Err(report) = vm.on_queue_ready(&mut self.world, reader.root, queue) {
            self.trapped(reader.vm, *report);
        }
    }

    /// Deletes contexts that said `proxy_done` late.
    fn delete_finished(&mut self) {
        for index in 0..self.slots.len() {
            let finished = match &mut self.slots[index].vm {
                Some(vm) => vm.take_finished(),
                None => continue,
            };
            for context in finished {
                let Some(vm) = &mut self.slots[index].vm else {
                    break;
                };
                let site = Self::site(Callback::Delete, context, None);
                if let Err(report) = vm.delete(&mut self.world, site) {
                    self.trapped(index, *report);
                }
            }
        }
    }

    /// Runs the last callbacks of an exchange and forgets it.
    pub(super) fn end_exchange(&mut self, id: ExchangeId) -> SetProperties {
        let Some(exchange) = self.world.exchanges.get_mut(&id) else {
            return SetProperties::default();
        };
        exchange.over = true;
        let (seats, logged) = (exchange.seats.len(), !exchange.unlogged);
        let log_first = self.setup.profile.rules().log_before_done;
        if logged && log_first {
            for seat in 0..seats {
                self.run(id, seat, Callback::Log, |vm, world, site| {
                    vm.on_log(world, site)
                });
            }
        }
        for seat in 0..seats {
            let known = self.world.exchanges.get(&id);
            let began = known.and_then(|exchange| exchange.seats.get(seat)?.context);
            if !logged && began.is_none() {
                continue;
            }
            let done = self.run(id, seat, Callback::Done, |vm, world, site| {
                if logged {
                    vm.on_done(world, site)
                } else {
                    Ok(true)
                }
            });
            if logged && !log_first {
                self.run(id, seat, Callback::Log, |vm, world, site| {
                    vm.on_log(world, site)
                });
            }
            if let Ran::Done(true) = done {
                self.run(id, seat, Callback::Delete, |vm, world, site| {
                    vm.delete(world, site)
                });
            }
        }
        let Some(exchange) = self.world.exchanges.remove(&id) else {
            return SetProperties::default();
        };
        for action in exchange.actions {
            if let Action::Call(call) = action {
                self.world.root_calls.push(call);
            }
        }
        if self.setup.profile.rules().flow == Flow::Phased {
            for call in &exchange.calls {
                self.world.owners.remove(call);
            }
        }
        exchange.properties.into()
    }

    pub(crate) fn warn(&mut self, id: ExchangeId, seat: usize, message: &str) {
        let name = self.seat_name(id, seat);
        self.world.log(&name, LogLevel::Warn, message);
    }
}

/// The answer that Envoy makes where none began.
fn made_by_host(failure: CallFailure) -> Option<CallView> {
    let (status, body) = match failure {
        CallFailure::Timeout => ("504", &b"upstream request timeout"[..]),
        CallFailure::Refused => (
            "503",
            &b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, \
              transport failure reason: delayed connect error: Connection refused"[..],
        ),
        // Of a cluster without endpoints; Envoy refuses a name that it does not know when the call is made.
        CallFailure::UnknownUpstream => ("503", &b"no healthy upstream"[..]),
        CallFailure::Reset => (
            "503",
            &b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"[..],
        ),
        // Its own answer would come behind the other's headers: the call fails (source).
        CallFailure::Truncated => return None,
    };
    let headers: Headers = [
        (":status", status.to_owned()),
        ("content-length", body.len().to_string()),
        ("content-type", "text/plain".to_owned()),
    ]
    .into_iter()
    .collect();
    Some(CallView {
        headers,
        body: Bytes::from_static(body),
        ..CallView::default()
    })
}
