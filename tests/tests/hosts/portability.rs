//! What filters do that does not work everywhere is found, under whatever profile they run, and fails in strict mode.

use serde_json::json;
use tollgate_harness::profile::{Host, Profile, Row};
use tollgate_harness::sim::Sim;
use tollgate_harness::worker::StartFailure;
use tollgate_tests::{consumers, load};

use crate::experiment::Experiment;
use crate::message::{Ask, get, post};
use crate::on_sim::{self, QUIRKS};

const PROFILES: [Profile; 3] = [Profile::Spec, Profile::Envoy, Profile::Kong];

fn of(row: Row) -> Experiment {
    let mut all = crate::experiments().into_iter();
    let found = all.find(|experiment| experiment.id == row.id());
    found.unwrap_or_else(|| panic!("no experiment {}", row.id()))
}

#[test]
fn each_finding_is_found_in_the_experiment_of_its_row() {
    for row in Row::ALL {
        let found = on_sim::found(&of(*row), Profile::Envoy);
        assert!(found.contains(row), "{} is not among {found:?}", row.id());
    }
}

#[test]
fn what_works_everywhere_is_not_found_to_be_unportable() {
    for id in [
        "not-utf8",
        "first-of-duplicates",
        "host-header",
        "shared-data-absent",
        "property-unknown",
        "call-answer",
        "request-body-empty",
        "response-stream",
    ] {
        let experiments = crate::experiments();
        let experiment = experiments.iter().find(|experiment| experiment.id == id);
        for profile in PROFILES {
            let found = on_sim::found(experiment.expect("it is there"), profile);
            assert!(found.is_empty(), "{id}, {profile}: {found:?}");
        }
    }
}

/// A strict simulation of an experiment.
fn strict(id: &str, profile: Profile) -> Sim {
    let setting = Sim::of(profile).cluster("asked").strict();
    let orders = json!({"do": id, "asked": "asked"});
    setting.filter(&QUIRKS, orders).start().expect("it starts")
}

fn refused(id: &str, ask: &Ask) -> (u16, String, bool) {
    let mut sim = strict(id, Profile::Envoy);
    let got = sim.send(ask.to_sim());
    (got.status(), got.text(), got.upstream().is_some())
}

#[test]
fn strict_answers_500_with_the_row_and_the_upstream_sees_nothing() {
    let (status, text, asked) = refused("shared-data-cas-zero", &get("/"));
    assert_eq!((status, asked), (500, false));
    assert_eq!(
        text,
        "strict: kong profile, shared-data-cas-zero, in on_request_headers: a write with cas 0 where the key is there: \
         CasMismatch: 0 means `only if absent`\n"
    );
    let (status, text, _) = refused("buffer-offset", &post("hello"));
    assert_eq!(status, 500);
    assert!(text.contains("buffer-offset, in on_request_body"), "{text}");
}

#[test]
fn strict_answers_500_where_the_upstream_has_answered_already() {
    let (status, text, asked) = refused("call-phase", &get("/"));
    assert_eq!((status, asked), (500, true));
    assert!(
        text.contains("call-phase, in on_response_headers"),
        "{text}"
    );
}

#[test]
fn strict_fails_every_request_that_does_it_and_no_other() {
    let mut sim = strict("set-duplicated-request", Profile::Envoy);
    let twice = || {
        get("/")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .to_sim()
    };
    let statuses = [twice(), get("/").to_sim(), twice()].map(|ask| sim.send(ask).status());
    assert_eq!(statuses, [500, 200, 500]);
    let told = sim
        .logs()
        .iter()
        .filter(|line| line.message.starts_with("strict: "));
    assert_eq!(told.count(), 2);
}

#[test]
fn strict_does_not_start_what_registers_a_queue() {
    let setting = Sim::of(Profile::Envoy).strict();
    let error = setting
        .filter(&QUIRKS, json!({"do": "queue-ready"}))
        .start()
        .err();
    let error = error.expect("it does not start");
    assert!(
        matches!(error.cause, StartFailure::NotPortable(_)),
        "{error}"
    );
    assert!(
        error.to_string().contains("queue-ready, in on_configure"),
        "{error}"
    );
}

#[test]
#[should_panic(expected = "kong profile, shared-data-cas-zero, in on_request_headers")]
fn asserting_portability_tells_what_is_not() {
    let mut sim = Sim::of(Profile::Envoy)
        .filter(&QUIRKS, json!({"do": "shared-data-cas-zero"}))
        .start()
        .expect("it starts");
    sim.send(get("/").to_sim());
    sim.assert_portable();
}

/// It is told its host, and does elsewhere what it does not do there.
#[test]
fn key_auth_does_on_each_host_what_that_host_stands() {
    for (profile, host, name) in [
        (Profile::Envoy, Host::Envoy, "envoy"),
        (Profile::Kong, Host::Kong, "kong"),
    ] {
        let orders = json!({"host": name, "consumers": consumers(0..1), "hide_credentials": true});
        let setting = Sim::of(profile).filter(&load("key_auth"), orders);
        let mut sim = setting.start().expect("it starts");
        let key = "sk-0000000000-abcdefghijklmnopqrstuvwxyz";
        let got = sim.send(get("/").header("apikey", key).to_sim());
        assert_eq!(got.status(), 200, "{name}");
        assert_eq!(sim.send(get("/").to_sim()).status(), 401, "{name}");
        let broken = sim
            .portability()
            .iter()
            .filter(|finding| finding.host == host);
        assert_eq!(broken.count(), 0, "{name}: {:?}", sim.portability());
    }
}
