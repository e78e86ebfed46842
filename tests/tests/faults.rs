//! Any hostcall answers any status, in any phase, always or once, while key-auth judges requests. Nothing traps, nobody gets in without a
//! key, and when the fault is over the filter works as before.

use serde_json::json;
use tollgate_harness::engine::Module;
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::faults::{STATUSES, Sweep, Tried};
use tollgate_harness::sim::{Answer, Request, Response, Setting, Sim, UpstreamRequest};
use tollgate_harness::vm::Faults;
use tollgate_tests::load;

fn setting(module: &Module, profile: Profile) -> Setting {
    let host = if profile == Profile::Kong {
        "kong"
    } else {
        "envoy"
    };
    let config = json!({
        "host": host, "key_in_body": true, "hide_credentials": true,
        "consumers": [{"id": "1", "username": "bob", "credentials": [{"id": "c", "key": "K"}]}, {"id": "2"}],
    });
    let knobs = Knobs {
        headers_stop_iteration: true,
        ..Knobs::default()
    };
    Sim::of(profile).knobs(knobs).filter(module, config)
}

fn start(module: &Module, profile: Profile) -> Sim {
    setting(module, profile).start().expect("it starts")
}

/// Every way a request can come: key in each place, none, spoofed.
fn good() -> Vec<Request> {
    let json = |body: &'static str| {
        Request::post("/")
            .header("content-type", "application/json")
            .body(body)
    };
    vec![
        Request::get("/").header("apikey", "K"),
        Request::get("/?apikey=K&x=1"),
        json(r#"{"apikey":"K","n":1}"#).delivered_in(&[3, 4]),
        Request::get("/")
            .header("apikey", "K")
            .header("x-consumer-id", "evil"),
    ]
}

fn bad() -> Vec<Request> {
    let json = |body: &'static str| {
        Request::post("/")
            .header("content-type", "application/json")
            .body(body)
    };
    vec![
        Request::get("/"),
        Request::get("/?apikey=X"),
        json(r#"{"apikey":"X"}"#).delivered_in(&[3, 4]),
        Request::get("/")
            .header("x-consumer-id", "1")
            .header("x-credential-identifier", "c"),
    ]
}

/// Whether the upstream got the key that `hide_credentials` is to take out, wherever it stood.
fn shows_the_key(seen: &UpstreamRequest) -> bool {
    seen.path.contains("apikey")
        || seen
            .headers
            .get("apikey")
            .is_some_and(|key| !key.is_empty())
        || seen.body.windows(6).any(|piece| piece == b"apikey")
}

/// What must hold of a request of [`bad`].
fn nobody_gets_in(_: &Tried<'_>, got: &Response) {
    got.assert_no_upstream();
}

/// What must hold of a request of [`good`].
fn only_bob_gets_in(tried: &Tried<'_>, got: &Response) {
    let Some(failure) = tried.failure else {
        got.assert_status(200);
        return;
    };
    let Some(seen) = got.upstream() else {
        return;
    };
    got.assert_upstream_header("x-consumer-id", "1");
    // "There is none": to a host that denies what it has there is nothing to say.
    let deniable = ["proxy_remove_header_map_value", "proxy_get_property"];
    let denied = failure.status == 1 && deniable.contains(&failure.hostcall);
    assert!(
        denied || !shows_the_key(seen),
        "the key was to be hidden: {seen:?}"
    );
}

#[test]
fn whatever_fails_nobody_gets_in_without_a_key() {
    let module = load("key_auth");
    for profile in [Profile::Envoy, Profile::Kong] {
        let sweep = || Sweep::of(|| setting(&module, profile));
        // Ok without an answer is a way to fail too, for who must not be believed.
        let bad = sweep()
            .requests(bad())
            .statuses(&[&[0], &STATUSES[..]].concat());
        bad.check(nobody_gets_in);
        let swept = sweep().requests(good()).check(only_bob_gets_in);
        println!("{profile}: {swept:?}");
    }
}

#[test]
fn whatever_fails_while_consumers_are_loaded_the_gate_stays_shut_or_opens_as_it_should() {
    let module = load("key_auth");
    let config = json!({"host": "envoy", "consumers_from": {"upstream": "directory", "path": "/", "refresh": 0.1}});
    let consumers =
        json!({"consumers": [{"id": "1", "credentials": [{"id": "c", "key": "K"}]}]}).to_string();
    let setting = || {
        let consumers = consumers.clone();
        Sim::of(Profile::Envoy)
            .filter(&module, &config)
            .on_call("directory", move |_| {
                Answer::status(200).body(consumers.clone())
            })
    };
    let swept = Sweep::of(setting)
        .request(Request::get("/").header("apikey", "X"))
        .request(Request::get("/").header("apikey", "K"))
        .between(std::time::Duration::from_secs(2))
        .check(|tried, got| match (tried.index, tried.failure) {
            (0, _) => _ = got.assert_no_upstream(),
            (_, None) => _ = got.assert_status(200),
            (_, Some(_)) if got.upstream().is_some() => {
                got.assert_upstream_header("x-consumer-id", "1");
            }
            // Shut; and where a reply fails too, there is nothing to be said.
            (_, Some(_)) => {}
        });
    println!("{swept:?}");
}

#[test]
fn a_fault_while_it_is_configured_refuses_the_configuration_or_does_not_matter() {
    let module = load("key_auth");
    let config = json!({"consumers_from": {"upstream": "u", "path": "/"}});
    for name in [
        "proxy_get_buffer_bytes",
        "proxy_set_tick_period_milliseconds",
        "proxy_log",
    ] {
        for status in STATUSES {
            let faults = Faults::new().answer(name, status).always();
            let started = Sim::of(Profile::Envoy)
                .faults(faults)
                .filter(&module, config.clone())
                .start();
            match started {
                // The consumers are never loaded then, so nobody gets in.
                Ok(mut sim) => assert_ne!(
                    sim.send(Request::get("/").header("apikey", "K")).status(),
                    200
                ),
                Err(refused) => assert!(
                    !format!("{refused:?}").contains("Trapped"),
                    "{name} = {status}: {refused:?}"
                ),
            }
        }
    }
}

#[test]
fn ten_thousand_headers_are_judged_or_refused() {
    let module = load("key_auth");
    let many = || {
        (0..10_000).fold(Request::get("/").header("apikey", "K"), |request, n| {
            request.header(&format!("x-{n}"), "y")
        })
    };
    assert_eq!(start(&module, Profile::Spec).send(many()).status(), 200);
    assert_eq!(
        start(&module, Profile::Envoy).send(many()).status(),
        431,
        "Envoy does not show them"
    );
    assert_eq!(
        start(&module, Profile::Kong).send(many()).status(),
        431,
        "nginx does not show them"
    );
}

#[test]
fn header_values_that_are_not_utf8_are_bytes_like_any_other() {
    let module = load("key_auth");
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = start(&module, profile);
        let odd = |request: Request| {
            request
                .header("user-agent", b"a\xff".to_vec())
                .header("cookie", b"\xc3\x28".to_vec())
        };
        assert_eq!(
            sim.send(odd(Request::get("/").header("apikey", "K")))
                .status(),
            200
        );
        assert_eq!(
            sim.send(odd(Request::get("/").header("apikey", b"\xff\xfe".to_vec())))
                .status(),
            401
        );
        assert!(sim.traps().is_empty());
    }
}

#[test]
fn a_call_that_fails_leaves_the_gate_closed() {
    let module = load("key_auth");
    // No script: the call fails as to an unknown upstream.
    let config = json!({"host": "envoy", "consumers_from": {"upstream": "gone", "path": "/"}});
    let mut sim = Sim::of(Profile::Envoy)
        .filter(&module, config)
        .start()
        .expect("it starts");
    sim.advance(std::time::Duration::from_secs(10));
    let got = sim.send(Request::get("/").header("apikey", "K"));
    assert_eq!(
        (got.status(), got.header("retry-after").is_some()),
        (503, true)
    );
    assert!(sim.traps().is_empty());
}

#[test]
fn an_announced_body_that_never_comes_is_no_way_past_the_gate() {
    let module = load("key_auth");
    for profile in [Profile::Envoy, Profile::Kong] {
        for (name, value) in [
            ("transfer-encoding", "chunked"),
            ("content-length", "0"),
            ("content-length", "00"),
        ] {
            let mut sim = start(&module, profile);
            let request = Request::post("/")
                .header("content-type", "application/json")
                .header(name, value);
            let got = sim.send(request);
            assert!(got.upstream().is_none(), "{profile}: {name}: {value}");
            assert_eq!(got.status(), 401, "{profile}: {name}: {value}");
        }
    }
}
