use super::*;
use tollgate_kit::config::check;
use tollgate_kit::testing::ScriptedHost;

const BOB: &str = r#""consumers":[
    {"id":"1","username":"bob","custom_id":"b","groups":["gold"],"metadata":{"n":1},"credentials":[{"id":"c","key":"K"},{"id":"old","key":"O","expires_at":100}]},
    {"id":"2","username":"nobody"}]"#;

fn filter(fields: &str) -> KeyAuth {
    let text = format!(
        "{{{BOB}{}{fields}}}",
        if fields.is_empty() { "" } else { "," }
    );
    KeyAuth::new(
        check::<Config>(text.as_bytes(), &|_| None)
            .unwrap_or_else(|problems| panic!("{problems:?}"))
            .config,
    )
}

fn request(lines: &[(&str, &str)]) -> ScriptedHost {
    let mut all = vec![(":method", "GET"), (":path", "/v1?x=1")];
    all.retain(|(name, _)| !lines.iter().any(|(given, _)| given == name));
    all.extend_from_slice(lines);
    ScriptedHost::with_headers(&all)
}

fn run(fields: &str, lines: &[(&str, &str)]) -> RequestStep {
    let mut filter = filter(fields);
    filter
        .exchange()
        .request_headers(&mut filter, &request(lines))
}

/// The edits as `name=value` and `-name`, or the status and message of a refusal.
fn shown(step: RequestStep) -> String {
    match step {
        RequestStep::Continue(edits) => {
            let show = |edit: &HeaderEdit| match edit {
                HeaderEdit::Set(name, value) => {
                    format!("{name}={}", String::from_utf8_lossy(value))
                }
                HeaderEdit::Add(name, value) => {
                    format!("{name}+{}", String::from_utf8_lossy(value))
                }
                HeaderEdit::Remove(name) => format!("-{name}"),
            };
            edits.headers.iter().map(show).collect::<Vec<_>>().join(" ")
        }
        RequestStep::Reply(reply) => {
            let body = String::from_utf8(reply.body).unwrap();
            format!(
                "{} {}",
                reply.status,
                body.split('"').nth(3).unwrap_or_default()
            )
        }
        other => format!("{other:?}"),
    }
}

const BOBS: &str =
    "x-consumer-id=1 x-consumer-custom-id=b x-consumer-username=bob x-credential-identifier=c";

#[test]
fn a_good_key_names_its_consumer() {
    for lines in [
        [("apikey", "K")],
        [("ApiKey", "K")],
        [(":path", "/?apikey=%4B")],
    ] {
        assert_eq!(shown(run("", &lines)), BOBS);
    }
}

#[test]
fn the_identity_is_passed_on_whole() {
    let RequestStep::Continue(edits) = run("", &[("apikey", "K")]) else {
        panic!()
    };
    let identity = edits.identity.unwrap();
    assert_eq!(
        (identity.groups, identity.metadata.as_deref()),
        (vec!["gold".to_owned()], Some(r#"{"n":1}"#))
    );
}

#[test]
fn openai_clients_get_in_with_every_spelling_of_authorization() {
    for value in ["K", "Bearer K", "bearer  K", "Basic Szo=", "Basic Oks="] {
        assert_eq!(
            shown(run(
                r#""key_names":["X-API-Key","Authorization"]"#,
                &[("authorization", value)]
            )),
            BOBS,
            "{value}"
        );
    }
    let kong = r#""key_names":["authorization"],"compat":"kong""#;
    assert_eq!(
        shown(run(kong, &[("authorization", "Bearer K")])),
        "401 Unauthorized"
    );
}

#[test]
fn every_refusal_has_its_message_and_challenge() {
    for (lines, message) in [
        (vec![], "No API key found in request"),
        (vec![("apikey", "")], "No API key found in request"),
        (vec![("apikey", "X")], "Unauthorized"),
        (vec![("apikey", "O")], "Unauthorized"),
        (
            vec![("apikey", "K"), ("apikey", "K")],
            "Duplicate API key found",
        ),
    ] {
        let mut filter = filter(r#""realm":"r""#);
        let host = request(&lines);
        host.set_now(Duration::from_secs(100));
        let step = filter.exchange().request_headers(&mut filter, &host);
        let RequestStep::Reply(reply) = &step else {
            panic!()
        };
        assert!(reply.headers.contains(&(
            Cow::Borrowed("www-authenticate"),
            b"Key realm=\"r\"".to_vec()
        )));
        assert_eq!(shown(step), format!("401 {message}"));
    }
}

#[test]
fn claims_of_a_client_are_removed() {
    let claims = [
        ("X-Anonymous-Consumer", "true"),
        ("x_consumer_id", "evil"),
        ("X-Consumer-Groups", "kept"),
    ];
    let mut lines = vec![("apikey", "K")];
    lines.extend_from_slice(&claims);
    assert_eq!(
        shown(run("", &lines)),
        format!("{BOBS} -x-anonymous-consumer -x_consumer_id")
    );
    let preflight = [(":method", "OPTIONS"), ("X-Consumer-Username", "evil")];
    assert_eq!(
        shown(run(r#""run_on_preflight":false"#, &preflight)),
        "-x-consumer-username"
    );
    assert_eq!(
        shown(run(
            r#""run_on_preflight":false,"compat":"kong""#,
            &preflight
        )),
        ""
    );
}

#[test]
fn anonymous_takes_whoever_fails() {
    let anonymous = "x-consumer-id=2 x-consumer-username=nobody x-anonymous-consumer=true";
    for lines in [
        vec![],
        vec![("apikey", "X")],
        vec![("apikey", "a"), ("apikey", "b")],
    ] {
        assert_eq!(shown(run(r#""anonymous":"nobody""#, &lines)), anonymous);
    }
    assert_eq!(
        shown(run(
            r#""anonymous":"2""#,
            &[("X-Credential-Identifier", "evil")]
        )),
        "x-consumer-id=2 x-consumer-username=nobody -x-credential-identifier x-anonymous-consumer=true"
    );
    assert_eq!(
        shown(run(r#""anonymous":"gone""#, &[])),
        "500 anonymous consumer gone is configured but doesn't exist"
    );
    assert_eq!(
        shown(run(r#""anonymous":"gone""#, &[("apikey", "K")])),
        BOBS
    );
}

#[test]
fn with_anonymous_an_earlier_authentication_stands() {
    let earlier = Identity {
        consumer: "9".into(),
        credential: Some("z".into()),
        ..Identity::default()
    };
    let mut any = filter(r#""anonymous":"nobody""#);
    let host = request(&[]).authenticated(earlier.clone());
    assert_eq!(shown(any.exchange().request_headers(&mut any, &host)), "");
    let mut all = filter("");
    assert_eq!(
        shown(all.exchange().request_headers(&mut all, &host)),
        "401 No API key found in request",
        "without it every method must succeed"
    );
}

#[test]
fn a_hidden_key_leaves_nothing_of_itself() {
    let RequestStep::Continue(edits) = run(
        r#""hide_credentials":true,"key_names":["api_key"]"#,
        &[("api-key", "K"), (":path", "/?a=%7e&api_key=1&b")],
    ) else {
        panic!()
    };
    assert!(
        edits
            .headers
            .contains(&HeaderEdit::Remove("api-key".into()))
    );
    assert_eq!(edits.query.as_deref(), Some(&b"a=%7e&b"[..]));
}

#[test]
fn the_body_is_held_only_where_a_key_may_be_in_it() {
    let json = ("content-type", "application/json");
    let body = r#""key_in_body":true"#;
    assert!(matches!(
        run(body, &[json]),
        RequestStep::HoldForBody { most: 1_048_576 }
    ));
    assert!(
        matches!(
            run(body, &[json, ("apikey", "K")]),
            RequestStep::Continue(_)
        ),
        "a header comes first"
    );
    assert_eq!(
        shown(run(body, &[("content-type", "text/plain")])),
        "401 No API key found in request"
    );
    let hide = r#""key_in_body":true,"hide_credentials":true"#;
    assert!(
        matches!(
            run(hide, &[json, ("apikey", "K")]),
            RequestStep::HoldForBody { .. }
        ),
        "it may be in the body too"
    );
}

#[test]
fn a_key_in_the_body_is_taken_and_hidden() {
    let mut filter = filter(r#""key_in_body":true,"hide_credentials":true"#);
    let host = request(&[("content-type", "application/json")]);
    let mut exchange = filter.exchange();
    assert!(matches!(
        exchange.request_headers(&mut filter, &host),
        RequestStep::HoldForBody { .. }
    ));
    let step = exchange.request_body(
        &mut filter,
        Body::Whole(br#"{"apikey":"K","n":1.0}"#),
        &host,
    );
    let RequestStep::Continue(edits) = step else {
        panic!("{step:?}")
    };
    assert_eq!(edits.body.as_deref(), Some(&br#"{"n":1.0}"#[..]));
}

#[test]
fn a_body_that_can_not_be_read_is_refused() {
    for (body, wanted) in [
        (Body::TooLarge, "413 Request body too large"),
        (Body::Unreadable, "500 An unexpected error occurred"),
        (Body::None, "401 No API key found in request"),
    ] {
        let mut filter = filter(r#""key_in_body":true,"anonymous":"nobody""#);
        let host = request(&[("content-type", "application/json")]);
        let mut exchange = filter.exchange();
        let _ = exchange.request_headers(&mut filter, &host);
        let step = shown(exchange.request_body(&mut filter, body, &host));
        if body == Body::None {
            assert!(step.contains("x-anonymous-consumer=true"))
        } else {
            assert_eq!(step, wanted)
        }
    }
}

#[test]
fn a_host_that_fails_closes_the_gate() {
    for (failure, answer) in [
        (Failure::Refused, "431 Too many request headers"),
        (Failure::NotNow, "500 An unexpected error occurred"),
        (Failure::Broken, "500 An unexpected error occurred"),
    ] {
        let mut filter = filter(r#""anonymous":"nobody""#);
        assert_eq!(
            shown(
                filter
                    .exchange()
                    .request_headers(&mut filter, &ScriptedHost::failing(failure))
            ),
            answer
        );
    }
    let mut filter = filter("");
    let Fallback::Reply(reply) =
        filter
            .exchange()
            .host_failed(&mut filter, Failure::Refused, &request(&[]))
    else {
        panic!()
    };
    assert_eq!(reply.status, 400);
}

#[test]
fn openais_form_names_the_code() {
    let RequestStep::Reply(reply) = run(r#""error_format":"openai""#, &[("apikey", "X")]) else {
        panic!()
    };
    let body = String::from_utf8(reply.body).unwrap();
    assert_eq!(
        body,
        r#"{"error":{"message":"Unauthorized","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#
    );
}

#[test]
fn no_key_gets_into_a_log_line_or_a_debug_print() {
    let secret = "sk-very-secret";
    let text =
        format!(r#"{{"consumers":[{{"id":"1","credentials":[{{"id":"c","key":"{secret}"}}]}}]}}"#);
    let mut filter = KeyAuth::new(check::<Config>(text.as_bytes(), &|_| None).unwrap().config);
    let host = request(&[("apikey", secret)]);
    let _ = filter.exchange().request_headers(&mut filter, &host);
    assert!(host.lines().iter().all(|(_, line)| !line.contains(secret)));
    assert!(
        !format!("{filter:?}").contains("117, 101, 114, 121"),
        "the arena holds ids, not keys"
    );
}

mod source {
    use super::*;
    use tollgate_kit::step::CallResponse;

    fn polling() -> KeyAuth {
        let text = br#"{"consumers_from":{"upstream":"directory","path":"/c","refresh":10},"anonymous":"nobody"}"#;
        KeyAuth::new(check::<Config>(text, &|_| None).unwrap().config)
    }

    fn answer(filter: &mut KeyAuth, host: &ScriptedHost, body: &str) {
        assert!(filter.tick(host).is_some());
        let response = CallResponse {
            status: 200,
            headers: HeaderMap::default(),
            body: body.as_bytes().to_vec(),
        };
        filter.call_done(CallOutcome::Response(response), host);
        assert!(filter.tick(host).is_none());
    }

    fn ask(filter: &mut KeyAuth, host: &ScriptedHost) -> String {
        shown(filter.exchange().request_headers(filter, host))
    }

    #[test]
    fn until_the_first_load_nobody_is_refused_for_good() {
        let mut filter = polling();
        let host = request(&[("apikey", "K")]);
        let step = filter.exchange().request_headers(&mut filter, &host);
        let RequestStep::Reply(reply) = &step else {
            panic!()
        };
        assert!(
            reply
                .headers
                .iter()
                .any(|(name, value)| name == "retry-after" && value == b"1")
        );
        assert_eq!(shown(step), "503 Consumers are not loaded yet");
    }

    #[test]
    fn the_last_good_consumers_stay() {
        let mut filter = polling();
        let host = request(&[("apikey", "K")]);
        answer(&mut filter, &host, &format!("{{{BOB}}}"));
        assert_eq!(ask(&mut filter, &host), BOBS);
        for second in [10, 20, 30] {
            host.set_now(Duration::from_secs(second));
            answer(&mut filter, &host, "{\"consumers\":[{}]}");
            assert_eq!(ask(&mut filter, &host), BOBS);
        }
        let troubles: Vec<_> = host
            .lines()
            .into_iter()
            .filter(|(level, _)| *level == Level::Error)
            .collect();
        assert_eq!(
            troubles.len(),
            1,
            "a trouble that lasts is said once: {troubles:?}"
        );
        assert_eq!(host.counted("tollgate_key_auth_loads;result=refused"), 3);
        host.set_now(Duration::from_secs(40));
        answer(
            &mut filter,
            &host,
            r#"{"consumers":[{"id":"2","username":"nobody"}]}"#,
        );
        assert!(
            ask(&mut filter, &host).contains("x-anonymous-consumer=true"),
            "a rotated key is gone"
        );
    }
}
