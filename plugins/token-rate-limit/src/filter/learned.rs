//! What the answers of each model have taught about its tokens.

use crate::subject;
use std::collections::BTreeMap;
use tollgate_kit::host::Host;
use tollgate_kit::store::{Change, Key, Table};
use tollgate_llm::{Calibration, Sizes};

/// Models past this many share the guess: their names come from clients.
const MOST_MODELS: usize = 256;

/// What has been learned is kept for so many seconds after the last lesson: 30 days.
const KEPT: u64 = 30 * 86_400;

/// Calibrations by model. Each worker learns from all of its answers, and shares what it knows once a second at the most: a request
/// pays nothing for reading them.
#[derive(Debug)]
pub(crate) struct Learned {
    guess: Calibration,
    table: Table,
    namespace: String,
    overflow: Key,
    models: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    calibration: Calibration,
    /// The second in which it was last shared.
    shared: u64,
}

impl Learned {
    pub(crate) fn new(guess: Calibration, namespace: &str, table: Table) -> Learned {
        Learned {
            guess,
            table,
            namespace: namespace.to_owned(),
            overflow: subject::key(&["calibration", namespace]),
            models: BTreeMap::new(),
        }
    }

    /// What is known of a model.
    pub(crate) fn of(&self, model: Option<&str>) -> Calibration {
        let known = self.models.get(model.unwrap_or_default());
        known.map_or(self.guess, |known| known.calibration)
    }

    /// Learns how many tokens a prompt of these sizes had.
    pub(crate) fn learn(
        &mut self,
        model: Option<&str>,
        sizes: &Sizes,
        prompt: u64,
        host: &dyn Host,
    ) {
        let model = model.unwrap_or_default();
        if self.models.len() >= MOST_MODELS && !self.models.contains_key(model) {
            return;
        }
        let guess = self.guess;
        let known = self.models.entry(model.to_owned()).or_insert(Known {
            calibration: guess,
            shared: 0,
        });
        known.calibration.observe_prompt(sizes, prompt);
        let now = host.now().as_secs();
        if known.shared == now {
            return;
        }
        known.shared = now;
        let key = subject::key(&["calibration", &self.namespace, model]);
        let own = known.calibration;
        let shared = self
            .table
            .update(host, &key, &self.overflow, now, |payload| {
                let mut calibration = payload.and_then(Calibration::from_bytes).unwrap_or(own);
                calibration.observe_prompt(sizes, prompt);
                let change = Change::Write {
                    payload: calibration.to_bytes().to_vec(),
                    expires: now.saturating_add(KEPT),
                };
                (change, calibration)
            });
        // Without the others this worker goes by what it has seen itself. What many models share says nothing of this one.
        if let Ok(updated) = shared
            && !updated.place.is_overflow()
        {
            known.calibration = updated.result;
        }
    }
}
