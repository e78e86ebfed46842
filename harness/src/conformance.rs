//! Runs golden cases: what a gateway plugin of Kong's does, against what our filter does.
//!
//! The same case runs in simulation, under each host's profile and with its bodies cut in many ways, and on a real
//! Envoy. A difference between the simulated and the real Envoy is a mistake in the profile.

mod adapter;
mod case;
mod configuration;
mod delivery;
mod deviation;
mod envoy;
mod form;
mod host;
mod json;
mod matcher;
mod observed;
mod obstacle;
mod pattern;
mod report;
mod run;
mod sim;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use regex::Regex;
use serde::Deserialize;

use crate::profile::Profile;

/// Run golden cases against the filters.
///
/// Prints each failure with what was expected and what came, the skips by reason, and a last line `N passed, N failed,
/// N skipped`. Exit code: 0 without a failure, 1 with one, 2 when the cases could not be run.
#[derive(Args, Clone, Debug)]
pub struct ConformanceArgs {
    /// Whose behaviour the simulated host shows [default: envoy].
    #[arg(long, value_parser = profile)]
    profile: Option<Profile>,
    /// What the cases run on.
    #[arg(long, value_enum, default_value = "sim")]
    host: HostKind,
    /// Only cases whose id matches this regular expression.
    #[arg(long, value_name = "RE")]
    id: Option<Regex>,
    /// Write the results to this file as JSON.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Do not ask the filters for `compat: kong`.
    #[arg(long)]
    no_compat: bool,
    /// A JSON list of the cases that come out differently on purpose, with the reasons.
    #[arg(long, value_name = "FILE")]
    deviations: Option<PathBuf>,
    /// Directory with the filters' .wasm files [default: beside this program, then the workspace's build directory]
    #[arg(long, value_name = "DIR", env = "TOLLGATE_FILTERS")]
    filters: Option<PathBuf>,
    /// Files of golden cases, or directories of them.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// What cases run on.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum HostKind {
    /// The simulated host, under a profile.
    Sim,
    /// A real Envoy.
    Envoy,
}

fn profile(name: &str) -> Result<Profile, crate::profile::UnknownProfile> {
    name.parse()
}

/// Runs the cases and prints the report.
#[must_use]
pub fn run(args: &ConformanceArgs) -> ExitCode {
    let report = match run::run(args) {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            return ExitCode::from(2);
        }
    };
    // A reader that has gone has seen enough.
    let _ = writeln!(std::io::stdout(), "{report}");
    if let Some(path) = &args.json {
        let written = serde_json::to_vec_pretty(&report).map_err(anyhow::Error::from);
        if let Err(error) = written.and_then(|json| Ok(fs::write(path, json)?)) {
            let _ = writeln!(std::io::stderr(), "error: {}: {error}", path.display());
            return ExitCode::from(2);
        }
    }
    if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
