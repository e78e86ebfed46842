use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::adapter::{self, NoFilter, Setup, Terms};
use super::case::{self, Case};
use super::deviation::{self, Deviation};
use super::envoy::EnvoyHost;
use super::host::{Exchange, GatewayError, Host};
use super::observed::Observed;
use super::obstacle::obstacle;
use super::report::{Cause, Failure, Outcome, Report, Verdict};
use super::sim::SimHost;
use super::{ConformanceArgs, HostKind, configuration, matcher};
use crate::catalog::{self, Search};
use crate::engine::{Engine, Module};
use crate::envoy as envoy_process;
use crate::profile::Profile;

/// The time of simulated cases that set none: 2026-01-01 00:00 UTC.
const START_UNIX: u64 = 1_767_225_600;

/// Where a case fails whose configuration is refused.
const AT_THE_START: &str = "at the start";

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
    if let Some(unknown) = deviations
        .iter()
        .find(|deviation| is_unknown(deviation, &cases))
    {
        bail!(
            "the list of deviations names {}, and there is no such case",
            unknown.id
        );
    }
    if let Some(wanted) = &args.id {
        cases.retain(|case| wanted.is_match(&case.id));
        if cases.is_empty() {
            bail!("no case has an id that matches {wanted}");
        }
    }
    let terms = Terms {
        profile,
        compat: !args.no_compat,
    };
    let plans: Vec<Plan> = cases
        .into_iter()
        .map(|case| plan(case, terms, args.host))
        .collect::<Result<_, _>>()?;
    let mut host = start(args, profile, &plans)?;
    let verdicts = plans
        .into_iter()
        .map(|plan| {
            let deviation = deviations
                .iter()
                .find(|deviation| applies(deviation, &plan.case, args, terms));
            let outcome = match &plan.action {
                Action::Skip(reason) => Outcome::Skipped {
                    reason: reason.clone(),
                },
                Action::Check => outcome(check(&plan.case)),
                Action::Send(setup) => {
                    let found = send(&plan.case, setup, host.as_mut());
                    judge(found, deviation, |deviation| {
                        send(&deviation.applied_to(&plan.case), setup, host.as_mut())
                    })
                }
            };
            Verdict {
                id: plan.case.id,
                title: plan.case.title,
                source: plan.case.source,
                basis: plan.case.basis,
                notes: plan.case.notes,
                outcome,
            }
        })
        .collect();
    let host = match args.host {
        HostKind::Sim => "the simulated host",
        HostKind::Envoy => "a real Envoy",
    };
    Ok(Report::new(profile.name(), host, terms.compat, verdicts))
}

/// Whether a deviation is about a plugin whose cases are there, but not about one of them.
fn is_unknown(deviation: &Deviation, cases: &[Case]) -> bool {
    let plugin = |id: &str| id.split('/').next().unwrap_or_default().to_owned();
    cases
        .iter()
        .any(|case| case.plugin == plugin(&deviation.id))
        && cases.iter().all(|case| case.id != deviation.id)
}

/// A case and what is to be done with it.
struct Plan {
    case: Case,
    action: Action,
}

enum Action {
    Skip(String),
    Check,
    Send(Setup),
}

fn plan(mut case: Case, terms: Terms, host: HostKind) -> anyhow::Result<Plan> {
    let start_unix = match host {
        HostKind::Sim => case.clock.map_or(START_UNIX, |clock| clock.start_unix),
        HostKind::Envoy => {
            case.take_any_time();
            SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()
        }
    };
    let action = match adapter::setup(&case, terms, start_unix) {
        Err(missing @ NoFilter { .. }) => Action::Skip(missing.to_string()),
        Ok(_) if case.expect_config.is_some() => Action::Check,
        Ok(setup) => match obstacle(&case, host) {
            Some(obstacle) => Action::Skip(obstacle.to_owned()),
            None => Action::Send(setup),
        },
    };
    Ok(Plan { case, action })
}

/// Loads the modules that the plans need, and starts the host with them.
fn start(
    args: &ConformanceArgs,
    profile: Profile,
    plans: &[Plan],
) -> anyhow::Result<Box<dyn Host>> {
    let setups = plans.iter().filter_map(|plan| match &plan.action {
        Action::Send(setup) => Some((&plan.case, setup.clone())),
        Action::Skip(_) | Action::Check => None,
    });
    let setups: Vec<(&Case, Setup)> = setups.collect();
    let names: BTreeSet<&str> = setups
        .iter()
        .flat_map(|(_, setup)| &setup.filters)
        .map(|filter| filter.name.as_str())
        .collect();
    let search = Search::from_here(args.filters.clone());
    let mut files = BTreeMap::new();
    for name in names {
        let filter = catalog::find(name).with_context(|| format!("no filter is called {name}"))?;
        files.insert(name.to_owned(), search.find(filter)?);
    }
    match args.host {
        HostKind::Sim => {
            let engine = Engine::for_simulation().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let modules = files
                .into_iter()
                .map(|(name, path)| Ok((name, Module::load(&engine, &path)?)));
            Ok(Box::new(SimHost::new(
                profile,
                modules.collect::<anyhow::Result<_>>()?,
            )))
        }
        HostKind::Envoy => Ok(Box::new(EnvoyHost::start(
            &envoy_process::find()?,
            &setups,
            &files,
        )?)),
    }
}

/// Sends the steps of a case, in each delivery. Stops at the first delivery that fails: the others tell the same.
fn send(case: &Case, setup: &Setup, host: &mut dyn Host) -> Vec<Failure> {
    for delivery in host.deliveries(case) {
        let mut gateway = match host.open(setup) {
            Ok(gateway) => gateway,
            Err(error) => return vec![failed(AT_THE_START.to_owned(), &error)],
        };
        let mut failures = Vec::new();
        let mut earlier: Vec<Observed> = Vec::new();
        for (index, step) in case.steps.iter().enumerate() {
            let at = format!("step {index}, {delivery}");
            match gateway.run(&Exchange::of(case, index, step, delivery)) {
                Ok(observed) => {
                    let mismatches = matcher::compare(&step.expect, &observed, &earlier);
                    if !mismatches.is_empty() {
                        failures.push(Failure {
                            at,
                            cause: Cause::Mismatches(mismatches),
                        });
                    }
                    earlier.push(observed);
                }
                Err(error) => {
                    // Later steps may be compared with this one: without it they say nothing.
                    failures.push(failed(at, &error));
                    break;
                }
            }
        }
        if !failures.is_empty() {
            return failures;
        }
    }
    Vec::new()
}

fn failed(at: String, error: &GatewayError) -> Failure {
    Failure {
        at,
        cause: Cause::Error(error.to_string()),
    }
}

/// Asks a filter's own code what it says about a configuration. No host is needed.
fn check(case: &Case) -> Vec<Failure> {
    let Some(expect) = &case.expect_config else {
        return Vec::new();
    };
    let Ok(place) = adapter::place_of(&case.plugin) else {
        return Vec::new();
    };
    let Some(filter) = catalog::find(place.filter) else {
        return Vec::new();
    };
    let configuration = serde_json::Value::Object(place.holding(&case.config)).to_string();
    let problems = (filter.check)(configuration.as_bytes(), &|_| None)
        .err()
        .unwrap_or_default();
    let schema = &(filter.meta)()["config_schema"];
    let mismatches = configuration::compare(expect, &case.config, place.field, &problems, schema);
    if mismatches.is_empty() {
        return Vec::new();
    }
    vec![Failure {
        at: "the configuration".to_owned(),
        cause: Cause::Mismatches(mismatches),
    }]
}

fn outcome(failures: Vec<Failure>) -> Outcome {
    if failures.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Failed { failures }
    }
}

fn applies(deviation: &Deviation, case: &Case, args: &ConformanceArgs, terms: Terms) -> bool {
    deviation.id == case.id
        && deviation
            .profile
            .is_none_or(|profile| profile == terms.profile)
        && deviation.host.is_none_or(|host| host == args.host)
        && deviation.compat.is_none_or(|compat| compat == terms.compat)
}

/// A case that deviates on purpose has to deviate in the way that is written down: an entry that is no longer true
/// misleads its reader.
fn judge(
    found: Vec<Failure>,
    deviation: Option<&Deviation>,
    again: impl FnOnce(&Deviation) -> Vec<Failure>,
) -> Outcome {
    let Some(deviation) = deviation else {
        return outcome(found);
    };
    if found.is_empty() {
        return outcome(vec![Failure {
            at: "the list of deviations".to_owned(),
            cause: Cause::Error("the case passes: remove it from the list".to_owned()),
        }]);
    }
    if deviation.refused {
        return match found.as_slice() {
            [failure] if failure.at == AT_THE_START => Outcome::Deviates {
                reason: deviation.reason.clone(),
            },
            _ => outcome(found),
        };
    }
    match again(deviation) {
        failures if failures.is_empty() => Outcome::Deviates {
            reason: deviation.reason.clone(),
        },
        failures => outcome(failures),
    }
}
