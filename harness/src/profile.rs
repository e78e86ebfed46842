//! How real hosts differ, as data.
//!
//! `Envoy` is stock Envoy 1.40 (Istio runs the same); `Kong` is Kong Gateway OSS 3.9 with ngx_wasm_module 9136e46 on
//! nginx. [`differences`] is the table of what filters meet there: its rows say whether they were seen **running** or
//! read in the host's *source*. [`Rules`] has the switches that model them. A run under a profile is a run of this
//! model: what it shows is "the kong profile", not Kong.
//!
//! Not modelled: Envoy's foreign functions for expressions and signatures, `google_grpc` targets; Envoy's route selection and the
//! headers that its router adds; Kong's isolation modes other than the default, the timers that it leaks when an instance
//! is replaced, torn reads of shared data, error pages and subrequests.

use std::time::Duration;

mod finding;
mod rules;
mod table;

pub use finding::{Finding, Host, Row};
pub use rules::*;
pub use table::{Difference, Proof, Seen, Source, Topic, differences};

/// Whose behaviour to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What the ABI's text promises and nothing beyond.
    Spec,
    /// Envoy 1.40.
    Envoy,
    /// Kong Gateway OSS 3.9.
    Kong,
}

impl Profile {
    /// The profile's rows.
    #[must_use]
    pub fn rules(self) -> &'static Rules {
        match self {
            Self::Spec => &SPEC,
            Self::Envoy => &ENVOY,
            Self::Kong => &KONG,
        }
    }

    /// The profile's name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Envoy => "envoy",
            Self::Kong => "kong",
        }
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Spec, Self::Envoy, Self::Kong]
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or(UnknownProfile)
    }
}

/// A profile's name that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such profile: use spec, envoy or kong")]
pub struct UnknownProfile;

/// What an operator sets on the host, as far as filters notice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// Envoy's `allow_on_headers_stop_iteration` (1.35 and later, off by default): a `Pause` from the headers holds only
    /// the headers, and the body callbacks come. Without it the pause stops everything. Istio's WasmPlugin has no field
    /// for it.
    pub headers_stop_iteration: bool,
    /// Envoy's `reload_config.backoff.base_interval`: a VM that traps within this time and up to half as much again of
    /// having been loaded is not loaded anew yet. `None`: 1 s, as Envoy has it.
    pub reload_back_off: Option<Duration>,
    /// Kong: the request headers for which nginx is told `proxy_set_header NAME $http_NAME`, so that one that was set to
    /// nothing does not go upstream as an empty line.
    pub proxy_set_header: Vec<String>,
}
