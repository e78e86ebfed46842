//! Any hostcall answers any status, in any phase, always or once, while header-transform works. Nothing traps, no request
//! goes on with half of its rules applied, and when the fault is over the filter works as before.

use serde_json::json;
use tollgate_harness::engine::Module;
use tollgate_harness::profile::{Knobs, Profile};
use tollgate_harness::sim::faults::{Often, STATUSES, Sweep, Tried};
use tollgate_harness::sim::{Answer, Outcome, Request, Response, Setting, Sim, UpstreamRequest};
use tollgate_harness::vm::Callback;
use tollgate_tests::load;

fn setting(module: &Module, profile: Profile) -> Setting {
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
    Sim::of(profile)
        .knobs(knobs)
        .filter(module, config)
        .upstream(|request| {
            let answer = Answer::status(200).header("x-secret", "1");
            let json = "application/json";
            match request.path.rsplit("/").next() {
                Some("stream") => answer
                    .header("content-type", "text/event-stream")
                    .streamed(&["data: {\"secret\":1}\n\nda", "ta: x\n\n"]),
                Some("pieces") => answer
                    .header("content-type", json)
                    .streamed(&["{\"sec", "ret\":1}"]),
                _ => answer.header("content-type", json).body("{\"secret\":1}"),
            }
        })
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
        post("/stream"),
        post("/pieces"),
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

/// What must hold whatever fails: a request goes on with all of its rules applied or not at all, and its answer comes
/// whole, as it was or as it was to be. Where nothing fails the rules are applied to both.
fn all_or_nothing(tried: &Tried<'_>, got: &Response) {
    let Some(failure) = tried.failure else {
        got.assert_status(200).assert_no_header("x-secret");
        assert_eq!(left(got.assert_upstream()), [] as [&str; 0]);
        assert!(!got.text().contains("secret"), "{got}");
        return;
    };
    // A host that says Ok and does nothing, or denies what it has, can't be seen through.
    if failure.status == 0 || failure.status == 1 {
        return;
    }
    // Nor be helped when it takes an empty piece and then not the whole: what was kept back is gone.
    let gone = failure.hostcall == "proxy_set_buffer_bytes"
        && failure.phase == Callback::ResponseBody
        && failure.often == Often::Second;
    got.assert_outcome(Outcome::Answered);
    if let Some(seen) = got.upstream() {
        assert_eq!(left(seen), [] as [&str; 0]);
        let text = got.assert_status(200).text().replace("\"secret\":1", "");
        assert!(
            gone || ["{}", "data: {}\n\ndata: x\n\n"].contains(&&text[..]),
            "{got}"
        );
    }
}

#[test]
fn whatever_fails_a_request_goes_on_with_all_of_its_rules_or_not_at_all() {
    let module = load("header_transform");
    for profile in [Profile::Envoy, Profile::Kong] {
        let swept = Sweep::of(|| setting(&module, profile))
            .requests(requests())
            .statuses(&[&[0], &STATUSES[..]].concat())
            .check(all_or_nothing);
        println!("{profile}: {swept:?}");
    }
}

#[test]
fn header_values_that_are_not_utf8_are_bytes_like_any_other() {
    let module = load("header_transform");
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut sim = setting(&module, profile).start().expect("it starts");
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
