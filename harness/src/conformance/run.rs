use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::adapter::{self, NoFilter, Setup, Terms};
use super::case::{self, Case};
use super::deviation::{self, Deviation};
use super::envoy::EnvoyHost;
use super::host::{Exchange, GatewayError, Host};
use super::observed::Observed;
use super::report::{Cause, Failure, Outcome, Report, Verdict};
use super::sim::SimHost;
use super::{ConformanceArgs, HostKind, configuration, matcher};
use crate::catalog::{self, Search};
use crate::engine::{Engine, Module};
use crate::envoy as envoy_process;
use crate::profile::Profile;

/// The time of simulated cases that set none: 2026-01-01 00:00 UTC.
const START_UNIX: u64 = 1_767_225_600;

/// Runs what the arguments ask for.
///
/// # Errors
/// Fails when the cases can't be run at all. A case that fails is in the report.
pub(super) fn run(args: &ConformanceArgs) -> anyhow::Result<Report> {
    let profile = args.profile.unwrap_or(Profile::Envoy);
    if args.host == HostKind::Envoy && profile != Profile::Envoy {
        bail!("--host envoy is a real Envoy: it can't show the {profile} profile");
    }
    let deviations = match &args.deviations {
        Some(path) => deviation::read(path)?,
        None => Vec::new(),
    };
    let mut cases = case::read(&args.paths)?;
    if let Some(unknown) = deviations.iter().find(|deviation| cases.iter().all(|case| case.id != deviation.id)) {
        bail!("the list of deviations names {}, and there is no such case", unknown.id);
    }
    if let Some(wanted) = &args.id {
        cases.retain(|case| wanted.is_match(&case.id));
        if cases.is_empty() {
            bail!("no case has an id that matches {wanted}");
        }
    }
    let terms = Terms { profile, compat: !args.no_compat };
    let plans: Vec<Plan> = cases.into_iter().map(|case| plan(case, terms, args.host)).collect::<Result<_, _>>()?;
    let mut host = start(args, profile, &plans)?;
    let verdicts = plans
        .into_iter()
        .map(|plan| {
            let outcome = match &plan.action {
                Action::Skip(reason) => Outcome::Skipped { reason: reason.clone() },
                Action::Check => outcome(check(&plan.case)),
                Action::Send(setup) => outcome(send(&plan.case, setup, host.as_mut())),
            };
            let deviation = deviations.iter().find(|deviation| applies(deviation, &plan.case, args, terms));
            Verdict {
                id: plan.case.id,
                title: plan.case.title,
                source: plan.case.source,
                outcome: judge(outcome, deviation),
            }
        })
        .collect();
    let host = match args.host {
        HostKind::Sim => "the simulated host",
        HostKind::Envoy => "a real Envoy",
    };
    Ok(Report::new(profile.name(), host, terms.compat, verdicts))
}
