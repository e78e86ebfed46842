//! Where the hosts differ: every row of the table that a filter can observe is observed by the guest `quirks`, under each
//! profile and in a real Envoy.
//!
//! A row says what is seen on each host; that the table's sentences and these observations differ in the same places is
//! a test too.

mod bodies;
mod calls;
mod experiment;
mod headers;
mod lifecycle;
mod message;
mod on_envoy;
mod on_sim;
mod policies;
mod portability;
mod properties;
mod replies;
mod state;
mod traps;

use std::collections::BTreeSet;

use experiment::Experiment;
use tollgate_harness::profile::{Difference, Profile, Proof, Source, differences};

/// Every experiment.
fn experiments() -> Vec<Experiment> {
    let mut all = lifecycle::rows();
    all.extend(traps::rows());
    all.extend(headers::rows());
    all.extend(bodies::rows());
    all.extend(calls::rows());
    all.extend(replies::rows());
    all.extend(state::rows());
    all.extend(properties::rows());
    all
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_row_that_a_filter_can_observe_has_an_experiment() {
    let in_table: BTreeSet<&str> = differences()
        .filter(|row| row.proof == Proof::Guest)
        .map(|row| row.id)
        .collect();
    let tried: BTreeSet<&str> = experiments()
        .iter()
        .map(|experiment| experiment.id)
        .collect();
    let untried: Vec<_> = in_table.difference(&tried).collect();
    let unknown: Vec<_> = tried.difference(&in_table).collect();
    assert!(
        untried.is_empty(),
        "rows without an experiment: {untried:?}"
    );
    assert!(unknown.is_empty(), "experiments without a row: {unknown:?}");
}

#[test]
fn observations_differ_where_the_table_says_so_and_agree_elsewhere() {
    for experiment in experiments() {
        let row = Difference::named(experiment.id).expect("it has a row");
        assert_eq!(
            experiment.expected(Profile::Envoy) != experiment.expected(Profile::Kong),
            row.differs(),
            "{}",
            row.id
        );
        assert_eq!(
            experiment.expected(Profile::Spec) != experiment.expected(Profile::Envoy),
            row.spec.is_some_and(|spec| spec != row.envoy.does),
            "{}: spec",
            row.id
        );
    }
}

/// What was observed against what was to be.
fn judged(experiment: &Experiment, host: &str, wanted: &str, got: &str) -> Option<String> {
    let id = experiment.id;
    (wanted != got).then(|| format!("{id}, {host}:\n    wanted {wanted}\n    got    {got}"))
}

fn on_profile(profile: Profile) {
    let wrong: Vec<_> = experiments()
        .iter()
        .filter_map(|experiment| {
            let got = on_sim::observe(experiment, profile);
            judged(
                experiment,
                profile.name(),
                experiment.expected(profile),
                &got,
            )
        })
        .collect();
    assert_none(&wrong);
}

#[test]
fn the_spec_profile_shows_what_the_table_says() {
    on_profile(Profile::Spec);
}

#[test]
fn the_envoy_profile_shows_what_the_table_says() {
    on_profile(Profile::Envoy);
}

#[test]
fn the_kong_profile_shows_what_the_table_says() {
    on_profile(Profile::Kong);
}

#[test]
fn a_real_envoy_shows_what_the_envoy_profile_shows() {
    let running = |experiment: &Experiment| {
        Difference::named(experiment.id).is_some_and(|row| row.envoy.source == Source::Running)
    };
    let experiments: Vec<_> = experiments().into_iter().filter(running).collect();
    let gateway = on_envoy::Gateway::start(&experiments);
    let wrong: Vec<_> = experiments
        .iter()
        .filter_map(|experiment| {
            let wanted = experiment.expected(Profile::Envoy);
            let got = gateway.observe(experiment, wanted);
            judged(experiment, "real Envoy", wanted, &got)
        })
        .collect();
    assert_none(&wrong);
}
