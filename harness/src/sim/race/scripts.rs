//! Scripts that all workers of a race ask, one at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sim::surroundings::Scripts;
use crate::sim::{CallScript, GrpcScript, Script, Upstream};

/// A script that several workers ask.
type Common<T> = Arc<Mutex<T>>;

/// The scripts of all workers.
pub(super) struct CommonScripts {
    upstream: Common<Upstream>,
    calls: BTreeMap<String, Common<CallScript>>,
    grpc: BTreeMap<String, Common<GrpcScript>>,
}

impl CommonScripts {
    pub(super) fn new(scripts: Scripts) -> Self {
        Self {
            upstream: Arc::new(Mutex::new(scripts.upstream)),
            calls: map(scripts.calls, |script| Arc::new(Mutex::new(script))),
            grpc: map(scripts.grpc, |script| Arc::new(Mutex::new(script))),
        }
    }

    /// From now on the upstream is this one.
    pub(super) fn set_upstream(&self, upstream: Upstream) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// The scripts as one worker asks them.
    pub(super) fn of_worker(&self) -> Scripts {
        Scripts {
            upstream: asked(self.upstream.clone()),
            calls: map(self.calls.clone(), asked),
            grpc: map(self.grpc.clone(), asked),
        }
    }
}

fn map<T, U>(scripts: BTreeMap<String, T>, change: impl Fn(T) -> U) -> BTreeMap<String, U> {
    let scripts = scripts.into_iter();
    scripts.map(|(name, it)| (name, change(it))).collect()
}

fn asked<Q: 'static, A: 'static>(script: Common<Script<Q, A>>) -> Script<Q, A> {
    Box::new(move |question| (script.lock().unwrap_or_else(PoisonError::into_inner))(question))
}
