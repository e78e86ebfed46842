use serde_json::json;

use super::*;

fn observed(headers: &[(&'static str, &'static str)], body: &'static str) -> Observed {
    let headers: Headers = headers.iter().copied().collect();
    Observed {
        response: Response {
            status: 200,
            headers: headers.clone(),
            body: body.into(),
        },
        upstream: Some(Seen {
            method: "GET".into(),
            target: "/a%20b?x=1&y&x=2".into(),
            headers,
            body: body.into(),
        }),
    }
}

/// The parts that don't match.
fn wrong(expect: Value, got: &Observed, earlier: &[Observed]) -> Vec<String> {
    let expect: Expect = serde_json::from_value(expect).unwrap();
    compare(&expect, got, earlier)
        .into_iter()
        .map(|mismatch| mismatch.what)
        .collect()
}

#[test]
fn a_header_is_matched_by_its_lines() {
    let got = observed(&[("X-A", "1"), ("x-a", "2")], "");
    for right in [
        json!("1, 2"),
        json!(["1", "2"]),
        json!({"regex": "^1"}),
        json!({"not_equals": "1"}),
    ] {
        assert!(
            wrong(json!({"status": 200, "headers": {"x-A": right}}), &got, &[]).is_empty(),
            "{right}"
        );
    }
    for bad in [
        json!("1"),
        json!(["2", "1"]),
        json!({"absent": true}),
        json!({"int_range": [0, 9]}),
        json!({"one_of": ["1"]}),
    ] {
        assert_eq!(
            wrong(json!({"status": 200, "headers": {"x-A": bad}}), &got, &[]),
            ["response header x-A"]
        );
    }
}

#[test]
fn an_absent_header_matches_only_what_allows_it() {
    let got = observed(&[], "");
    for right in [json!({"absent": true}), json!({"not_equals": "1"})] {
        assert!(
            wrong(json!({"status": 200, "headers": {"A": right}}), &got, &[]).is_empty(),
            "{right}"
        );
    }
    for bad in [
        json!(""),
        json!({"regex": ""}),
        json!({"one_of": [""]}),
        json!({"int_range": [0, 1]}),
    ] {
        assert_eq!(
            wrong(json!({"status": 200, "headers": {"A": bad}}), &got, &[]).len(),
            1,
            "{bad}"
        );
    }
}

#[test]
fn steps_are_compared_with_earlier_ones() {
    let earlier = [observed(&[("A", "1")], "x")];
    let same =
        json!({"status": 200, "headers": {"A": {"same_as_step": 0}}, "body_same_as_step": 0});
    let differs = json!({"status": 200, "headers": {"A": {"differs_from_step": 0}}});
    assert!(wrong(same.clone(), &observed(&[("a", "1")], "x"), &earlier).is_empty());
    assert_eq!(
        wrong(same, &observed(&[("a", "2")], "y"), &earlier).len(),
        2
    );
    assert!(wrong(differs.clone(), &observed(&[("a", "2")], ""), &earlier).is_empty());
    assert_eq!(
        wrong(differs, &observed(&[("a", "1")], ""), &earlier).len(),
        1
    );
}

#[test]
fn bodies_are_matched_as_text_pattern_and_json() {
    let got = observed(&[], "{\"a\":1.0,\"b\":[]}");
    let right = json!({
        "status": 200,
        "body_regex": "\\}$",
        "body_json": {"b": [], "a": 1},
        "body_json_subset": {"a": 1},
        "body_json_absent": ["c"],
    });
    assert!(wrong(right, &got, &[]).is_empty());
    let bad = json!({
        "status": 201,
        "body_equals": "{}",
        "body_regex": "^x",
        "body_json": {"b": {}, "a": 1},
        "body_json_subset": {"d": 1},
        "body_json_absent": ["a"],
    });
    assert_eq!(wrong(bad, &got, &[]).len(), 6);
}

#[test]
fn the_request_is_matched_raw_and_decoded() {
    let got = observed(
        &[("Content-Type", "multipart/form-data; boundary=x")],
        "--x--\r\n",
    );
    let right = json!({"status": 200, "upstream_saw": {
        "method": "GET", "path": "/a%20b", "raw_query": "x=1&y&x=2", "query": {"x": ["1", "2"], "y": true},
        "query_absent": ["z"], "absent": ["A"], "body_multipart": {}, "body_equals": "--x--\r\n",
    }});
    assert!(wrong(right, &got, &[]).is_empty());
    let bad = json!({"status": 200, "upstream_saw": {
        "method": "POST", "path": "/a b", "raw_query": "", "query": {"y": ""}, "query_absent": ["x"],
        "absent": ["content-type"], "headers": {"A": "1"}, "body_multipart": {"a": "b"}, "body_form": {}, "body_json": null,
    }});
    assert_eq!(wrong(bad, &got, &[]).len(), 10);
}

#[test]
fn an_upstream_that_was_or_was_not_called_is_noticed() {
    let mut got = observed(&[], "");
    assert_eq!(
        wrong(json!({"status": 200, "upstream_called": false}), &got, &[]),
        ["upstream called"]
    );
    got.upstream = None;
    assert!(wrong(json!({"status": 200, "upstream_called": false}), &got, &[]).is_empty());
    assert_eq!(
        wrong(json!({"status": 200, "upstream_saw": {}}), &got, &[]),
        ["upstream called"]
    );
}
