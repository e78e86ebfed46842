//! What guests cost, in figures that do not depend on the machine.

use std::collections::BTreeMap;

/// The cost of callbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// Fuel: about one for each instruction of the guest. The same module and events cost the same each time.
    /// 0 on an engine for traffic.
    pub fuel: u64,
    /// How many callbacks ran.
    pub callbacks: u64,
    /// How often each host function was called.
    pub hostcalls: BTreeMap<&'static str, u64>,
    /// Bytes copied between the host and guests, both ways.
    pub bytes_copied: u64,
}

impl Cost {
    /// What was added since `earlier`, an earlier state of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            fuel: self.fuel.saturating_sub(earlier.fuel),
            callbacks: self.callbacks.saturating_sub(earlier.callbacks),
            hostcalls: self
                .hostcalls
                .iter()
                .map(|(name, count)| {
                    let before = earlier.hostcalls.get(name).copied().unwrap_or_default();
                    (*name, count.saturating_sub(before))
                })
                .filter(|(_, count)| *count > 0)
                .collect(),
            bytes_copied: self.bytes_copied.saturating_sub(earlier.bytes_copied),
        }
    }

    /// The number of host function calls of all names.
    #[must_use]
    pub fn hostcalls_total(&self) -> u64 {
        self.hostcalls.values().sum()
    }
}
