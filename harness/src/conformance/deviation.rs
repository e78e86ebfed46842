//! Where our filters differ from a golden case on purpose, and why.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::case::{Case, Expect};
use crate::profile::Profile;

/// One case that comes out differently, on purpose.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deviation {
    /// The case.
    pub(crate) id: String,
    /// Only under this profile. Absent: under all.
    #[serde(default)]
    pub(crate) profile: Option<Profile>,
    /// Only on this host. Absent: on both.
    #[serde(default)]
    pub(crate) host: Option<super::HostKind>,
    /// Only with (true) or without (false) `compat: kong`. Absent: in both runs.
    #[serde(default)]
    pub(crate) compat: Option<bool>,
    /// Why it is better so.
    pub(crate) reason: String,
    /// What comes instead: the expectations of the steps that differ, by their numbers, counted from 0.
    #[serde(default)]
    pub(crate) instead: BTreeMap<usize, Expect>,
    /// The filter refuses the configuration, so that no request comes to it.
    #[serde(default)]
    pub(crate) refused: bool,
}

impl Deviation {
    /// The case with what comes instead.
    pub(crate) fn applied_to(&self, case: &Case) -> Case {
        let mut case = case.clone();
        for (index, step) in case.steps.iter_mut().enumerate() {
            if let Some(expect) = self.instead.get(&index) {
                step.expect = expect.clone();
            }
        }
        case
    }
}

/// Why the list of deviations could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviationError {
    /// Occurs when the file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Occurs when the file is no list of deviations.
    #[error("{}: not a list of deviations: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        source: serde_json::Error,
    },
    /// Occurs when a deviation has no reason.
    #[error("{}: {id}: a deviation needs a reason", path.display())]
    Unreasoned {
        /// The file.
        path: PathBuf,
        /// The case.
        id: String,
    },
}

/// Reads a list of deviations.
///
/// # Errors
/// Fails on the first thing that's wrong with the file.
pub(crate) fn read(path: &Path) -> Result<Vec<Deviation>, DeviationError> {
    let owned = || path.to_owned();
    let text = fs::read_to_string(path).map_err(|source| DeviationError::Read {
        path: owned(),
        source,
    })?;
    let list: Vec<Deviation> =
        serde_json::from_str(&text).map_err(|source| DeviationError::Malformed {
            path: owned(),
            source,
        })?;
    match list
        .iter()
        .find(|deviation| deviation.reason.trim().is_empty())
    {
        Some(empty) => Err(DeviationError::Unreasoned {
            path: owned(),
            id: empty.id.clone(),
        }),
        None => Ok(list),
    }
}
