use super::*;
use tollgate_kit::config::check;

fn checked(text: &str) -> Result<(Config, Vec<String>), Vec<String>> {
    let shown = |problems: Vec<tollgate_kit::config::Problem>| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    match check::<Config>(text.as_bytes(), &|_| None) {
        Ok(checked) => Ok((checked.config, shown(checked.warnings))),
        Err(problems) => Err(shown(problems)),
    }
}

fn problems(text: &str) -> Vec<String> {
    checked(text).map(|_| ()).unwrap_err()
}

fn warnings(text: &str) -> Vec<String> {
    checked(text)
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .1
}

#[test]
fn every_mistake_has_its_path() {
    let text = r#"{
        "request": {
            "http_method": "get",
            "remove": {"headers": ["a b", "Content-Length"], "body": ["max_tokens"]},
            "rename": {"headers": ["just_a_key", "a:b c"], "querystring": ["a:"]},
            "replace": {"headers": ["just_a_key"], "uri": "no/slash"},
            "add": {"headers": ["x:$(bad syntax)", "y:a\nb", "z:$(ERROR())"], "querystring": ["q:$(1 +)", "just_a_key"], "body": [":x"]},
            "append": {"headers": ["transfer-encoding:chunked"]}
        },
        "response": {
            "rename": {"headers": ["a:b c"], "json": ["a"]},
            "add": {"headers": ["x y:1", "x:a\rb"], "json": ["a"]}
        },
        "request_json": {"remove": ["a..b"], "set": {"/max_tokens": 5, "": 1}, "at_most": {"t": "x"}},
        "uri_pattern": "(",
        "when": {"paths": ["v1"], "methods": [""], "headers": {"a b": "*"}, "statuses": [200]},
        "sets": [{"request": {"replace": {"uri": ""}}}]
    }"#;
    let problems = problems(text);
    let places: Vec<&str> = problems
        .iter()
        .map(|problem| problem.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "when.methods[0]",
            "when.paths[0]",
            "when.headers.a b",
            "request.http_method",
            "request.remove.headers[0]",
            "request.remove.headers[1]",
            "request.remove.body",
            "request.rename.headers[0]",
            "request.rename.headers[1]",
            "request.rename.querystring[0]",
            "request.replace.headers[0]",
            "request.replace.uri",
            "request.add.headers[0]",
            "request.add.headers[1]",
            "request.add.headers[2]",
            "request.add.querystring[0]",
            "request.add.querystring[1]",
            "request.add.body[0]",
            "request.append.headers[0]",
            "response.rename.headers[0]",
            "response.rename.json[0]",
            "response.add.headers[0]",
            "response.add.headers[1]",
            "response.add.json[0]",
            "request_json.remove[0]",
            "request_json.set./max_tokens",
            "request_json.set.",
            "request_json.at_most.t",
            "uri_pattern",
            "when.statuses",
            "sets[0].request.replace.uri",
        ],
        "{problems:#?}"
    );
}

#[test]
fn names_end_at_the_first_colon_and_all_that_follow_are_swallowed() {
    let (config, _) = checked(
        r#"{"request":{"add":{"headers":["h:::x","h2:value:2","h3:"]},"remove":{"headers":["a:zzz"]}}}"#,
    )
    .unwrap();
    let headers = &config.sets[0].request.headers;
    let values: Vec<_> = headers
        .add
        .iter()
        .map(|rule| (rule.name.as_str(), rule.value.clone()))
        .collect();
    let literal = |text: &str| Template::Literal(text.into());
    assert_eq!(
        values,
        [
            ("h", literal("x")),
            ("h2", literal("value:2")),
            ("h3", literal(""))
        ]
    );
    assert_eq!(headers.remove, ["a"]);
}

#[test]
fn host_is_replaced_and_nothing_else() {
    let (config, warnings) = checked(
        r#"{"request":{"replace":{"headers":["Host:other.test"]},"add":{"headers":["host:x"]},"remove":{"headers":["host"]},
            "rename":{"headers":["a:host"]}}}"#,
    )
    .unwrap();
    let request = &config.sets[0].request;
    assert_eq!(
        request.authority,
        Some(Template::Literal(b"other.test".to_vec()))
    );
    assert!(request.headers.is_empty());
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[test]
fn kong_finds_out_about_templates_late() {
    let rule = |compat: &str| {
        format!(
            r#"{{"request":{{"add":{{"headers":["x:$(bad syntax)","y:$(ERROR())"]}},"replace":{{"uri":"a"}}}}{compat}}}"#
        )
    };
    assert_eq!(problems(&rule("")).len(), 3);
    let (config, warnings) = checked(&rule(r#","compat":"kong""#)).unwrap();
    assert_eq!(
        config.sets[0].request.headers.add[0].value,
        Template::Broken
    );
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    // Those of the query and the body it checks early.
    let query = r#"{"request":{"add":{"querystring":["x:$(bad syntax)"]}},"compat":"kong"}"#;
    assert_eq!(problems(query).len(), 1);
}

#[test]
fn values_of_members_are_made_by_their_types() {
    let values = |compat: &str| {
        let text = format!(
            r#"{{"response":{{"add":{{"json":["a:5","b:true","c:TRUE","d:0x10","e:abc","f:12345678901234567890","g:","h:a\\b/\"c\""],
                "json_types":["string","boolean","boolean","number","number","number"]}}}}{compat}}}"#
        );
        let (config, _) = checked(&text).unwrap();
        let rules = &config.sets[0].response.json.add;
        rules
            .iter()
            .map(|rule| format!("{}={}", rule.name, String::from_utf8_lossy(&rule.value)))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        values(""),
        [
            "a=\"5\"",
            "b=true",
            "c=false",
            "d=16",
            "f=12345678901234567890",
            "g=\"\"",
            r#"h="a\\b/\"c\"""#
        ]
    );
    assert_eq!(
        values(r#","compat":"kong""#)[5..],
        ["g=\"null\"", r#"h="a\\\\b/\"c\"""#]
    );
}

#[test]
fn what_a_host_can_not_do_is_refused() {
    let on =
        |host: &str, rules: &str| checked(&format!(r#"{{"host":"{host}",{rules}}}"#)).map(|_| ());
    for rules in [
        r#""request":{"add":{"body":["a:1"]}}"#,
        r#""request_json":{"set":{"a":1}}"#,
        r#""when":{"models":["x"]},"request":{"add":{"headers":["a:1"]}}"#,
    ] {
        assert_eq!(on("envoy", rules), Ok(()), "{rules}");
        assert_eq!(on("kong", rules), Ok(()), "{rules}");
        let problems = on("envoy-headers-pass", rules).unwrap_err();
        assert!(
            problems[0].contains("can't work with host: envoy-headers-pass"),
            "{problems:?}"
        );
    }
    assert_eq!(
        on(
            "envoy-headers-pass",
            r#""response":{"add":{"json":["a:1"]}}"#
        ),
        Ok(())
    );
}

#[test]
fn doubtful_settings_are_said() {
    assert_eq!(
        warnings(r#"{"host":"envoy","request":{"add":{"body":["a:1"]}}}"#),
        [] as [&str; 0]
    );
    let places: Vec<String> = warnings(
        r#"{"request":{"add":{"body":["a:$(nobody)"],"headers":["b:$(uri_captures.c)"]}},"sse":true,
            "response":{"add":{"headers":["x,y:1","z:"]}}}"#,
    )
    .iter()
    .map(|warning| warning.split(": ").next().unwrap().to_owned())
    .collect();
    assert_eq!(
        places,
        [
            "request.add.body[0]",
            "response.add.headers[0]",
            "response.add.headers[1]",
            "uri_pattern",
            "sse",
            "host"
        ]
    );
}

#[test]
fn null_is_no_list_but_a_section_that_is_not_given() {
    assert_eq!(
        problems(
            r#"{"request":{"add":{"body":null}},"response":{"remove":{"headers":null,"json":null},"add":{"json_types":null}}}"#
        ),
        [
            "request.add.body: required field missing: write [], or leave it out",
            "response.remove.headers: required field missing: write [], or leave it out",
            "response.remove.json: required field missing: write [], or leave it out",
            "response.add.json_types: required field missing: write [], or leave it out",
        ]
    );
    assert!(checked(r#"{"request":{"add":null},"response":null}"#).is_ok());
}

#[test]
fn a_pattern_is_bounded() {
    let pattern = |pattern: &str| {
        let text = serde_json::json!({"uri_pattern": pattern}).to_string();
        checked(&text).map(|_| ())
    };
    assert_eq!(pattern(r"/(gw/)?api/(?<subpath>htest)$"), Ok(()));
    assert_eq!(
        pattern(r"/user1/(?P<user1>\w+)/user2/(?P<user2>\S+)"),
        Ok(())
    );
    for refused in [
        "(?=x)",
        r"(a)\1",
        "[",
        &"a".repeat(2000),
        "a{1000}{1000}",
        &format!("{}a{}", "(".repeat(50), ")".repeat(50)),
    ] {
        assert!(pattern(refused).is_err(), "{refused}");
    }
}
