//! Any hostcall answers any status, always or once, while header-transform works. Nothing traps, no request goes on with half of its
//! rules applied, and when the fault is over the filter works as before.

use std::collections::BTreeSet;

use serde_json::json;
use tollgate_harness::engine::Module;
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::{Answer, Request, Sim, UpstreamRequest};
use tollgate_harness::vm::Faults;
use tollgate_tests::load;

/// All that the ABI names, three that it does not, and Ok without doing anything.
const STATUSES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99, u32::MAX];

fn start(module: &Module, profile: Profile) -> Sim {
    let host = match profile {
        Profile::Kong => "kong",
        Profile::Spec | Profile::Envoy => "envoy",
    };
    let config = json!({
        "host": host, "uri_pattern": "/(?<rest>.*)", "sse": true, "large_body": "refuse",
        "request": {
            "http_method": "PUT",
            "remove": {"headers": ["x-secret"], "querystring": ["secret"], "body": ["secret"]},
            "replace": {"uri": "/new/$(uri_captures.rest)", "headers": ["host:new.test"]},
            "add": {"headers": ["x-a:$(shared.x or 'none')"]},
            "append": {"headers": ["x-b:1"]},
        },
        "response": {"remove": {"headers": ["x-secret"], "json": ["secret"]}, "append": {"headers": ["x-b:1"]}},
    });
    let knobs = Knobs {
        headers_stop_iteration: true,
        proxy_set_header: vec!["x-secret".to_owned()],
        ..Knobs::default()
    };
    let mut sim = Sim::of(profile)
        .knobs(knobs)
        .filter(module, config)
        .start()
        .expect("it starts");
    sim.upstream(|request| {
        let answer = Answer::status(200).header("x-secret", "1");
        match request.path.contains("stream") {
            true => answer
                .header("content-type", "text/event-stream")
                .streamed(&["data: {\"secret\":1}\n\n", "data: x\n\n"]),
            false => answer
                .header("content-type", "application/json")
                .body("{\"secret\":1}"),
        }
    });
    sim
}

fn requests() -> Vec<Request> {
    let post = |target: &str| {
        Request::post(target)
            .header("content-type", "application/json")
            .header("content-length", "18")
            .header("x-secret", "1")
            .body("{\"secret\":1,\"a\":2}")
            .delivered_in(&[3, 4])
    };
    vec![
        Request::get("/x?secret=1&a").header("x-secret", "1"),
        post("/x"),
        post("/stream?secret"),
    ]
}

/// What the rules were to change and did not.
fn left(seen: &UpstreamRequest) -> Vec<&'static str> {
    let header = |name: &str| seen.headers.get(name).filter(|value| !value.is_empty());
    let body = |text: &[u8]| seen.body.windows(text.len()).any(|piece| piece == text);
    let checks = [
        ("method", seen.method != "PUT"),
        ("path", !seen.path.starts_with("/new/")),
        ("query", seen.path.contains("secret")),
        ("host", seen.authority != "new.test"),
        ("removed header", header("x-secret").is_some()),
        ("added header", header("x-a").is_none()),
        ("appended header", header("x-b").is_none()),
        ("body", body(b"secret")),
    ];
    let left = checks.iter().filter(|(_, left)| *left);
    left.map(|(name, _)| *name).collect()
}

#[test]
fn whatever_fails_a_request_goes_on_with_all_of_its_rules_or_not_at_all() {
    let module = load("header_transform");
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = start(&module, profile);
        let names: BTreeSet<&'static str> = requests()
            .into_iter()
            .flat_map(|request| {
                let got = sim.send(request);
                assert_eq!(left(got.upstream().unwrap()), [] as [&str; 0], "{profile}");
                assert_eq!(got.header("x-secret"), None, "{profile}");
                got.cost().hostcalls.keys().copied().collect::<Vec<_>>()
            })
            .collect();
        assert!(names.len() > 6, "{names:?}");
        for name in names {
            for status in STATUSES {
                let mut sim = start(&module, profile);
                for nth in [Some(1), Some(2), Some(3), Some(5), None] {
                    for request in requests() {
                        let rule = Faults::new().answer(name, status);
                        sim.set_faults(match nth {
                            Some(nth) => rule.nth(nth),
                            None => rule.always(),
                        });
                        let got = sim.send(request);
                        let Some(seen) = got.upstream() else { continue };
                        // A host that says Ok and does nothing, or denies what it has, can't be seen through.
                        let lies = status == 0 || status == 1;
                        assert!(
                            lies || left(seen).is_empty(),
                            "{profile}: {name} = {status}, call {nth:?}: {:?} left",
                            left(seen)
                        );
                    }
                }
                sim.set_faults(Faults::new());
                for request in requests() {
                    let got = sim.send(request);
                    let seen = got.upstream().expect("it passes again");
                    assert_eq!(
                        left(seen),
                        [] as [&str; 0],
                        "{profile}: after {name} = {status}"
                    );
                    assert!(!got.text().contains("secret"), "{profile}: {}", got.text());
                }
                assert!(
                    sim.traps().is_empty(),
                    "{profile}: {name} = {status}: {:?}",
                    sim.traps()
                );
            }
        }
    }
}

#[test]
fn header_values_that_are_not_utf8_are_bytes_like_any_other() {
    let module = load("header_transform");
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = start(&module, profile);
        let got = sim.send(
            Request::get("/%ff?%ff=%fe&secret=%ff")
                .header("user-agent", b"a\xff".to_vec())
                .header("x-secret", b"\xc3\x28".to_vec()),
        );
        let seen = got.upstream().expect("it passes");
        assert_eq!(left(seen), [] as [&str; 0], "{profile}");
        assert_eq!(
            seen.headers.get("user-agent").map(|value| &value[..]),
            Some(&b"a\xff"[..])
        );
        assert_eq!(seen.path, "/new/%ff?%ff=%fe");
        assert!(sim.traps().is_empty());
    }
}
