//! The baton: of a race's threads exactly one runs, and hands on to the one whose turn is next.
//!
//! Each worker has a thread of its own, since a filter's callback can only stop in the middle where its stack stays.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::schedule::Lane;
use super::strategy::Scheduler;
use super::trace::{Step, What};
use crate::exchange::Call;
use crate::shared::{Effect, Operation, Shared, Watch};
use crate::sim::agenda::Source;
use crate::sim::surroundings::Surroundings;
use crate::sim::{GrpcCall, Request, Response};
use crate::vm::{LogLine, TrapReport};
use crate::worker::{Clock, VirtualClock};

/// What a race's threads share.
#[derive(Debug)]
pub(super) struct Baton {
    board: Mutex<Board>,
    main: Condvar,
    /// One for each worker.
    turns: Vec<Condvar>,
    /// Empty until the workers start.
    pub(super) shared: OnceLock<Weak<Shared>>,
}

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Main,
    Worker(usize),
}

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Until all requests are answered, but no longer than to this time.
    Answered(u64),
    /// Until this time.
    Until(u64),
}

/// What the scheduler decides by, and what came of it.
pub(super) struct Board {
    holder: Holder,
    goal: Goal,
    /// The lane that runs or ran last.
    current: Option<Lane>,
    pub(super) scheduler: Scheduler,
    clock: Arc<VirtualClock>,
    /// Whether time may pass while there is something to do.
    stalls: bool,
    /// The most steps of the race.
    limit: usize,
    workers: Vec<Place>,
    /// Whether the step that comes next cuts in on a callback.
    preempts: bool,
    pub(super) steps: Vec<Step>,
    /// Requests that are not over.
    pub(super) open: usize,
    pub(super) responses: BTreeMap<u64, Response>,
    pub(super) logs: Vec<(usize, LogLine)>,
    pub(super) traps: Vec<(usize, TrapReport)>,
    pub(super) calls: Vec<(usize, Call)>,
    /// Why the race can't go on: from then on its threads only come to their ends.
    pub(super) abandoned: Option<String>,
}

/// A worker as the others know it.
#[derive(Default)]
struct Place {
    /// Where something will come from, and when.
    sources: Vec<(u64, Source)>,
    /// Its number in the shared state, which knows whom a queue is to be told.
    id: u64,
    /// What it is in the middle of.
    inside: Option<Source>,
    /// Requests that it does not know of yet.
    arrivals: Vec<Arrival>,
    traps: usize,
    grpc_calls: Vec<GrpcCall>,
}

/// A client that connects.
pub(super) struct Arrival {
    pub(super) number: u64,
    pub(super) at: u64,
    pub(super) request: Request,
}

/// What a worker's thread is to do.
pub(super) enum Turn {
    /// The next step of a source, after these clients connected.
    Step(Source, Vec<Arrival>),
    End,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Baton {
    pub(super) fn new(
        workers: usize,
        scheduler: Scheduler,
        clock: Arc<VirtualClock>,
        stalls: bool,
        limit: usize,
    ) -> Self {
        Self {
            board: Mutex::new(Board {
                holder: Holder::Main,
                goal: Goal::Until(0),
                current: None,
                scheduler,
                clock,
                stalls,
                limit,
                workers: (0..workers).map(|_| Place::default()).collect(),
                preempts: false,
                steps: Vec::new(),
                open: 0,
                responses: BTreeMap::new(),
                logs: Vec::new(),
                traps: Vec::new(),
                calls: Vec::new(),
                abandoned: None,
            }),
            main: Condvar::new(),
            turns: (0..workers).map(|_| Condvar::new()).collect(),
            shared: OnceLock::new(),
        }
    }

    /// A thread that panicked with the board in its hands left whole values behind: the race is abandoned then anyway.
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the workers run until the goal, and waits for that. Called from outside.
    pub(super) fn run(&self, goal: Goal) {
        let mut board = self.board();
        board.goal = goal;
        let next = self.decide(&mut board);
        self.pass(&mut board, next);
        while board.holder != Holder::Main {
            board = wait(&self.main, board);
        }
    }

    /// A client connects. Called from outside.
    pub(super) fn arrive(&self, worker: usize, arrival: Arrival) {
        let mut board = self.board();
        board.open += 1;
        let due = (
            arrival.at.saturating_add(delay(&arrival.request)),
            Source::Client(arrival.number),
        );
        let place = &mut board.workers[worker];
        place.sources.push(due);
        place.arrivals.push(arrival);
    }

    /// A worker's thread waits for its turn.
    pub(super) fn turn(&self, worker: usize) -> Turn {
        let mut board = self.wait_for_turn(worker, self.board());
        if board.abandoned.is_some() {
            return Turn::End;
        }
        match board.current {
            Some(Lane::Worker(_, source)) => {
                Turn::Step(source, std::mem::take(&mut board.workers[worker].arrivals))
            }
            _ => Turn::End,
        }
    }

    /// A worker's thread says what its step is.
    pub(super) fn note(&self, what: What) {
        self.board().record(what);
    }

    /// A worker's thread says what it is about when its step is over, without handing on.
    pub(super) fn publish(&self, worker: usize, surroundings: &mut Surroundings) {
        let mut board = self.board();
        let board = &mut *board;
        let place = &mut board.workers[worker];
        place.inside = None;
        place.sources = surroundings.sources();
        place.id = surroundings.worker.id();
        let traps = surroundings.worker.traps();
        let new = traps.get(place.traps..).unwrap_or_default();
        board.traps.extend(new.iter().map(|t| (worker, t.clone())));
        place.traps = traps.len();
        let logs = surroundings.logs.drain(..);
        board.logs.extend(logs.map(|line| (worker, line)));
        place.grpc_calls.clone_from(&surroundings.services.calls);
        let calls = surroundings.calls.drain(..);
        board.calls.extend(calls.map(|call| (worker, call)));
        for (number, response) in surroundings.take_over() {
            board.open = board.open.saturating_sub(1);
            board.responses.insert(number, response);
        }
    }

    /// Hands on after a step.
    pub(super) fn hand_on(&self) {
        let mut board = self.board();
        let next = self.decide(&mut board);
        self.pass(&mut board, next);
    }

    /// Ends the race for all threads, at once.
    pub(super) fn abandon(&self, why: String) {
        let mut board = self.board();
        board.abandoned.get_or_insert(why);
        self.pass(&mut board, None);
    }

    fn wait_for_turn<'a>(
        &'a self,
        worker: usize,
        mut board: MutexGuard<'a, Board>,
    ) -> MutexGuard<'a, Board> {
        while board.holder != Holder::Worker(worker) && board.abandoned.is_none() {
            board = wait(&self.turns[worker], board);
        }
        board
    }

    fn pass(&self, board: &mut Board, next: Option<Lane>) {
        if board.abandoned.is_some() {
            for turn in &self.turns {
                turn.notify_all();
            }
        }
        match next.and_then(Lane::worker) {
            Some(worker) => {
                board.holder = Holder::Worker(worker);
                self.turns[worker].notify_all();
            }
            None => {
                board.holder = Holder::Main;
                self.main.notify_all();
            }
        }
    }

    fn decide(&self, board: &mut Board) -> Option<Lane> {
        let shared = self.shared.get().and_then(Weak::upgrade);
        let untold = |worker: u64| {
            let shared = shared.as_ref();
            shared.is_some_and(|shared| shared.queues_have_untold(worker))
        };
        board.decide(untold)
    }
}

impl Watch for Baton {
    fn before(&self) {
        let mut board = self.board();
        if board.holder == Holder::Main && board.abandoned.is_none() {
            return;
        }
        let Some(Lane::Worker(worker, source)) = board.current else {
            return;
        };
        board.workers[worker].inside = Some(source);
        let next = self.decide(&mut board);
        if next.and_then(Lane::worker) != Some(worker) {
            self.pass(&mut board, next);
            board = self.wait_for_turn(worker, board);
        }
        let abandoned = board.abandoned.is_some();
        drop(board);
        if abandoned {
            // The callback may go round in circles: only unwinding ends it.
            resume_unwind(Box::new("the race was abandoned"));
        }
    }

    fn after(&self, operation: Operation, effect: Effect) {
        let mut board = self.board();
        if !board.is_idle() {
            board.record(What::Operation(operation, effect));
        }
    }
}

impl Board {
    /// Whether nothing is to be scheduled: the workers start, or the race is abandoned.
    fn is_idle(&self) -> bool {
        self.holder == Holder::Main || self.abandoned.is_some()
    }

    /// Every gRPC call, as far as it came, with the worker.
    pub(super) fn grpc_calls(&self) -> Vec<(usize, GrpcCall)> {
        let places = self.workers.iter().enumerate();
        places
            .flat_map(|(worker, place)| place.grpc_calls.iter().map(move |c| (worker, c.clone())))
            .collect()
    }

    fn record(&mut self, what: What) {
        let Some(lane) = self.current else {
            return;
        };
        let preempts = std::mem::take(&mut self.preempts);
        self.steps.push(Step {
            lane,
            what,
            preempts,
        });
    }

    /// Who makes the next step; `None` at the end of the run.
    fn decide(&mut self, untold: impl Fn(u64) -> bool) -> Option<Lane> {
        loop {
            if self.abandoned.is_some() {
                return None;
            }
            if self.scheduler.steps() >= self.limit {
                let limit = self.limit;
                self.abandoned = Some(format!(
                    "the race has not ended after {limit} steps: something goes round in circles"
                ));
                return None;
            }
            let (lanes, next) = self.candidates(&untold);
            let Some(chosen) = self.scheduler.choose(self.current, &lanes) else {
                if let Goal::Until(end) = self.goal {
                    self.pass_to(end);
                }
                return None;
            };
            let cut = self.current.filter(|lane| *lane != chosen);
            if let Some(Lane::Worker(worker, source)) = cut {
                self.preempts |= self.workers[worker].inside == Some(source);
            }
            self.current = Some(chosen);
            if chosen != Lane::Clock {
                return Some(chosen);
            }
            let passed = self.pass_to(next.unwrap_or(0));
            self.record(What::Time(passed));
        }
    }

    /// Who could make the next step, and when more could.
    fn candidates(&self, untold: impl Fn(u64) -> bool) -> (Vec<Lane>, Option<u64>) {
        let now = self.clock.elapsed_nanos();
        let (until, ends) = match self.goal {
            Goal::Answered(until) => (until, self.open == 0),
            Goal::Until(until) => (until, false),
        };
        let mut lanes = Vec::new();
        let mut next: Option<u64> = None;
        for (worker, place) in self.workers.iter().enumerate() {
            for (at, source) in &place.sources {
                if *at > now {
                    next = Some(next.map_or(*at, |next| next.min(*at)));
                } else if place.inside.is_none() && !ends {
                    lanes.push(Lane::Worker(worker, *source));
                }
            }
            match place.inside {
                Some(source) => lanes.push(Lane::Worker(worker, source)),
                None if untold(place.id) => {
                    lanes.push(Lane::Worker(worker, Source::Queue));
                }
                None => {}
            }
        }
        let next = next.filter(|at| *at <= until && !ends);
        if next.is_some() && (lanes.is_empty() || self.stalls) {
            lanes.push(Lane::Clock);
        }
        (lanes, next)
    }

    /// Lets time pass until `at`; how much it was.
    fn pass_to(&self, at: u64) -> Duration {
        let by = Duration::from_nanos(at.saturating_sub(self.clock.elapsed_nanos()));
        self.clock.advance(by);
        by
    }
}

fn wait<'a>(turn: &Condvar, board: MutexGuard<'a, Board>) -> MutexGuard<'a, Board> {
    turn.wait(board).unwrap_or_else(PoisonError::into_inner)
}

/// How long after it connected a client says its first word, or leaves.
fn delay(request: &Request) -> u64 {
    let script = request.clone().script().into_iter();
    script
        .map(|(after, _)| crate::sim::surroundings::nanos(after))
        .min()
        .unwrap_or(0)
}
