//! What a VM's host functions know.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::{Memory, StoreLimits, TypedFunc};

use super::{Callback, World};
use crate::abi::LogLevel;
use crate::exchange::{CallFailure, Exchange, ExchangeId};
use crate::http::Headers;
use crate::profile::{Finding, Host, Row, Rules};
use crate::worker::{GrpcEvent, Setup};

/// The data of a VM's store.
pub(crate) struct Guest {
    /// Lent by the worker while a callback runs, empty otherwise.
    pub(crate) world: World,
    pub(crate) setup: Setup,
    pub(crate) rules: &'static Rules,
    /// The worker, by its number in the shared state.
    pub(crate) worker: u64,
    /// Which VM of the worker, and which incarnation.
    pub(crate) vm: usize,
    pub(crate) generation: u64,
    pub(crate) contexts: HashMap<u32, Context>,
    /// Root contexts by their ids.
    pub(crate) roots: HashMap<u32, Root>,
    /// The properties that contexts declared, and whether each is read-only. A root's hold for its streams.
    pub(crate) declared: HashMap<u32, HashMap<Vec<u8>, bool>>,
    /// The context that host functions act on.
    pub(crate) effective: u32,
    /// The callback that runs.
    pub(crate) site: Site,
    /// The answer that `on_http_call_response` reads.
    pub(crate) call: Option<CallView>,
    /// What `on_grpc_*` reads.
    pub(crate) grpc: Option<GrpcEvent>,
    /// What `proxy_get_status` answers: the status of the last call that failed, its reason only in the callback.
    pub(crate) status: (u32, String),
    /// Contexts whose `on_done` said that they were not done, and those that told `proxy_done` since.
    pub(crate) undone: HashSet<u32>,
    pub(crate) finished: Vec<u32>,
    /// Calls made in the callback that runs.
    pub(crate) calls_made: u32,
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    pub(crate) limits: StoreLimits,
    pub(crate) random: fastrand::Rng,
    pub(crate) environment: Arc<[(String, String)]>,
    pub(crate) module: String,
    /// Lines that the guest wrote to its standard streams and did not end yet.
    pub(crate) stdio: [Vec<u8>; 2],
}

/// The callback that runs, for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) callback: Callback,
    pub(crate) context: u32,
    pub(crate) exchange: Option<ExchangeId>,
}

/// What a context id stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Context {
    Root,
    Stream {
        root: u32,
        exchange: ExchangeId,
        seat: usize,
    },
}

/// A root context.
#[derive(Debug)]
pub(crate) struct Root {
    /// The filter entry's name.
    pub(crate) name: String,
    pub(crate) configuration: Bytes,
    /// The timer, if it runs.
    pub(crate) tick: Option<Tick>,
}

/// A timer: its period in nanoseconds, and when it ends by [`crate::worker::Clock::elapsed_nanos`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    pub(crate) period: u64,
    pub(crate) due: u64,
}

/// A call's answer as a guest reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallView {
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) trailers: Headers,
    /// Why there is none.
    pub(crate) failure: Option<CallFailure>,
}

impl Guest {
    /// The root context of the effective context.
    pub(crate) fn root_id(&self) -> u32 {
        match self.contexts.get(&self.effective) {
            Some(Context::Stream { root, .. }) => *root,
            _ => self.effective,
        }
    }

    /// The exchange and seat of the effective context.
    pub(crate) fn seat_id(&self) -> Option<(ExchangeId, usize)> {
        match self.contexts.get(&self.effective) {
            Some(Context::Stream { exchange, seat, .. }) => Some((*exchange, *seat)),
            _ => None,
        }
    }

    /// The exchange of the effective context, with the seat.
    pub(crate) fn seat(&mut self) -> Option<(&mut Exchange, usize)> {
        let (id, seat) = self.seat_id()?;
        Some((self.world.exchanges.get_mut(&id)?, seat))
    }

    /// The name of the entry that acts.
    pub(crate) fn name(&self) -> String {
        self.roots
            .get(&self.root_id())
            .map_or_else(|| self.module.clone(), |root| root.name.clone())
    }

    pub(crate) fn log(&mut self, level: LogLevel, message: impl Into<String>) {
        let name = self.name();
        self.world.log(&name, level, message);
    }

    pub(crate) fn find(&mut self, host: Host, row: Row) {
        let finding = Finding {
            host,
            row,
            callback: self.site.callback.name(),
        };
        self.world.find(self.site.exchange, finding);
    }

    /// The time as this host's guests see it.
    pub(crate) fn now(&self) -> u64 {
        let now = self.setup.clock.now_unix_nanos();
        now - now % self.rules.clock_step
    }
}
