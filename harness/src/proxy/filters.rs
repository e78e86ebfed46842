//! A worker's filters, shared by the requests of one thread: who waits for what they do, and the calls, ticks and log
//! lines that belong to no request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::counters::Counters;
use super::grpc::{GrpcCalls, Tell};
use super::upstream::Upstreams;
use crate::abi::LogLevel;
use crate::exchange::{Action, Destination, Event, ExchangeId, Peer};
use crate::vm::LogLine;
use crate::worker::{GrpcEvent, SetProperties, Worker};

/// How long filters that are about to be dropped may wait for the answers to their last calls.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// A [`Worker`] and everyone who waits for it.
pub(super) struct Filters {
    worker: RefCell<Worker>,
    waiting: RefCell<HashMap<ExchangeId, Rc<Notify>>>,
    grpc: GrpcCalls,
    upstreams: Rc<Upstreams>,
    counters: Arc<Counters>,
    traps_seen: Cell<usize>,
    reloads_seen: Cell<u64>,
    crossings_seen: Cell<(u64, u64)>,
    memory_seen: Cell<i64>,
    /// When the tick that is slept for is due.
    planned: Cell<Option<Instant>>,
    replan: Notify,
    /// Something came into a queue that is read here.
    queued: Arc<Notify>,
    /// HTTP calls under way that belong to no exchange.
    calls: Cell<usize>,
    /// A call of that kind ended.
    called: Notify,
}

impl Filters {
    pub(super) fn new(
        worker: Worker,
        upstreams: Rc<Upstreams>,
        counters: Arc<Counters>,
    ) -> Rc<Self> {
        let queued = Arc::new(Notify::new());
        let wake = Arc::clone(&queued);
        worker.wake_with(move || wake.notify_one());
        let filters = Rc::new(Self {
            queued,
            worker: RefCell::new(worker),
            waiting: RefCell::default(),
            grpc: GrpcCalls::new(Rc::clone(&upstreams)),
            upstreams,
            counters,
            traps_seen: Cell::new(0),
            reloads_seen: Cell::new(0),
            crossings_seen: Cell::new((0, 0)),
            memory_seen: Cell::new(0),
            planned: Cell::new(None),
            replan: Notify::new(),
            calls: Cell::new(0),
            called: Notify::new(),
        });
        filters.settle(None);
        filters
    }

    /// Opens an exchange through a chain; it is closed when the [`Passage`] is dropped.
    pub(super) fn open(
        self: &Rc<Self>,
        chain: &[usize],
        peer: Peer,
        destination: Destination,
    ) -> Passage {
        let id = {
            let mut worker = self.worker.borrow_mut();
            let id = worker.open(chain, peer);
            worker.set_destination(id, destination);
            id
        };
        let woken = Rc::new(Notify::new());
        self.waiting.borrow_mut().insert(id, Rc::clone(&woken));
        Passage {
            filters: Rc::clone(self),
            id,
            woken,
        }
    }

    /// Runs ticks as they fall due and tells readers of queues, for as long as it is polled.
    pub(super) async fn tick(self: Rc<Self>) {
        loop {
            let due = self.planned.get();
            let falls_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = falls_due => {
                    self.worker.borrow_mut().tick_due();
                    self.planned.set(None);
                    self.settle(None);
                }
                () = self.queued.notified() => {
                    self.worker.borrow_mut().tell_readers();
                    self.settle(None);
                }
                () = self.replan.notified() => {}
            }
        }
    }

    /// Before the filters are dropped: one more tick, which is where they send what they queued (the usage of the last
    /// requests), and the end of the calls that it made.
    pub(super) async fn settle_accounts(self: Rc<Self>) {
        self.worker.borrow_mut().tick_all();
        self.settle(None);
        let ended = async {
            while self.calls_open() > 0 {
                self.called.notified().await;
            }
        };
        if tokio::time::timeout(LAST_CALLS, ended).await.is_err() {
            tracing::warn!(
                "filters are dropped with {} of their calls unanswered",
                self.calls_open()
            );
        }
        // A stream may be meant to last as long as its filter.
        self.grpc.cancel_all();
    }

    /// Calls under way that belong to no exchange, and will have an answer.
    fn calls_open(&self) -> usize {
        self.calls.get().saturating_add(self.grpc.calls_open())
    }

    /// After each turn of the worker: hands out what came of it, besides the actions of the exchange whose turn it was.
    fn settle(self: &Rc<Self>, turn_of: Option<ExchangeId>) {
        let (logs, calls, grpc, woken, tick) = {
            let mut worker = self.worker.borrow_mut();
            self.report_traps(&worker);
            self.report_cost(&worker);
            (
                worker.take_logs(),
                worker.take_root_calls(),
                worker.take_grpc_actions(),
                worker.with_actions(),
                worker.next_tick(),
            )
        };
        for line in logs {
            write(&line);
        }
        for id in woken.into_iter().filter(|id| Some(*id) != turn_of) {
            if let Some(woken) = self.waiting.borrow().get(&id) {
                woken.notify_one();
            }
        }
        for call in calls {
            let id = call.id;
            let outcome = self.upstreams.call(call);
            let filters = Rc::clone(self);
            filters.calls.update(|calls| calls + 1);
            tokio::task::spawn_local(async move {
                let outcome = outcome.await;
                filters.calls.update(|calls| calls.saturating_sub(1));
                filters.called.notify_one();
                filters.worker.borrow_mut().root_call_done(id, outcome);
                filters.settle(None);
            });
        }
        if !grpc.is_empty() {
            let filters = Rc::clone(self);
            let tell: Tell = Rc::new(move |id, event| {
                if matches!(event, GrpcEvent::Closed(_)) {
                    filters.called.notify_one();
                }
                filters.worker.borrow_mut().grpc_event(id, event);
                filters.settle(None);
            });
            for action in grpc {
                self.grpc.act(action, &tell);
            }
        }
        self.plan(tick);
    }

    fn plan(&self, tick: Option<Duration>) {
        let due = tick.map(|after| Instant::now() + after);
        let sooner = match (due, self.planned.get()) {
            (Some(due), Some(planned)) => due + Duration::from_millis(1) < planned,
            (due, planned) => due.is_some() != planned.is_some(),
        };
        if sooner {
            self.planned.set(due);
            self.replan.notify_one();
        }
    }

    fn report_traps(&self, worker: &Worker) {
        let traps = worker.traps();
        for trap in traps.iter().skip(self.traps_seen.get()) {
            Counters::count(&self.counters.traps);
            tracing::error!("{trap}");
        }
        self.traps_seen.set(traps.len());
        let reloads = worker.reloads();
        let new = reloads.saturating_sub(self.reloads_seen.replace(reloads));
        self.counters.reloads.fetch_add(new, Ordering::Relaxed);
    }

    fn report_cost(&self, worker: &Worker) {
        let (callbacks, hostcalls) = worker.crossings();
        let seen = self.crossings_seen.replace((callbacks, hostcalls));
        let add = |counter: &AtomicU64, now: u64, seen: u64| {
            counter.fetch_add(now.saturating_sub(seen), Ordering::Relaxed);
        };
        add(&self.counters.callbacks, callbacks, seen.0);
        add(&self.counters.hostcalls, hostcalls, seen.1);
        let memory = i64::try_from(worker.memory_bytes()).unwrap_or(i64::MAX);
        let grown = memory.saturating_sub(self.memory_seen.replace(memory));
        self.counters.vm_memory.fetch_add(grown, Ordering::Relaxed);
    }
}

impl Drop for Filters {
    fn drop(&mut self) {
        let memory = self.memory_seen.get();
        self.counters.vm_memory.fetch_sub(memory, Ordering::Relaxed);
    }
}

/// One exchange's way through the filters.
pub(super) struct Passage {
    filters: Rc<Filters>,
    id: ExchangeId,
    woken: Rc<Notify>,
}

impl Passage {
    /// Feeds one event.
    pub(super) fn deliver(&self, event: Event) {
        self.filters.worker.borrow_mut().deliver(self.id, event);
        self.filters.settle(Some(self.id));
    }

    /// What is to be done now.
    pub(super) fn take_actions(&self) -> Vec<Action> {
        self.filters.worker.borrow_mut().take_actions(self.id)
    }

    /// Bytes of the request and of the response that the filters hold.
    pub(super) fn held(&self) -> (usize, usize) {
        self.filters.worker.borrow().held(self.id)
    }

    /// Ends the exchange: the filters' `on_log` runs. What they set as properties is left.
    pub(super) fn close(self) -> SetProperties {
        // Dropping it closes it once more, which does nothing.
        self.filters.worker.borrow_mut().close(self.id)
    }

    /// Waits until something else than this exchange's own events has led to actions.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.filters.waiting.borrow_mut().remove(&self.id);
        self.filters.worker.borrow_mut().close(self.id);
        self.filters.settle(None);
    }
}

/// A filter's line in the proxy's log.
fn write(line: &LogLine) {
    let (filter, message) = (line.filter.as_str(), line.message.as_str());
    match line.level {
        LogLevel::Trace => tracing::trace!(filter, "{message}"),
        LogLevel::Debug => tracing::debug!(filter, "{message}"),
        LogLevel::Info => tracing::info!(filter, "{message}"),
        LogLevel::Warn => tracing::warn!(filter, "{message}"),
        LogLevel::Error | LogLevel::Critical => tracing::error!(filter, "{message}"),
    }
}
