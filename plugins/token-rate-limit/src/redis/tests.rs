//! What is written to a front, and what its answers are read as.

use super::*;
use crate::config::Front;
use sha1::{Digest as _, Sha1};
use std::time::Duration;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::step::CallResponse;

const ID: Key = [0xab; 16];

fn redis(dialect: Dialect) -> Redis {
    let front = Front {
        upstream: "front".to_owned(),
        dialect,
        authority: "front".to_owned(),
        path: "/".to_owned(),
        headers: vec![],
        timeout: Duration::from_secs(2),
        sync: None,
    };
    Redis::new(front, "default")
}

fn response(status: u16, body: &str) -> CallOutcome {
    CallOutcome::Response(CallResponse {
        status,
        headers: HeaderMap::default(),
        body: body.as_bytes().to_vec(),
    })
}

#[test]
fn digests_are_those_of_the_scripts() {
    for script in [CHARGE, MERGE, CONSULT] {
        let digest = Sha1::digest(stripped(script.text));
        let digest = digest
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(digest, script.digest, "{}", script.text);
    }
}

#[test]
fn an_answer_to_another_question_is_none() {
    let answer = |body: &str| redis(Dialect::Webdis).answer(&response(200, body), &ID);
    let id = "ab".repeat(16);
    assert_eq!(
        answer(&format!(r#"{{"EVALSHA":"{id} 1 2"}}"#)).unwrap(),
        format!("{id} 1 2")
    );
    let other = format!(r#"{{"EVAL":"{} 1 2"}}"#, "cd".repeat(16));
    assert_eq!(
        answer(&other),
        Err(Unanswered::Because(
            "front answered something else".to_owned()
        ))
    );
}

#[test]
fn what_redis_complains_of_is_said() {
    let because = |text: &str| Err(Unanswered::Because(text.to_owned()));
    for (dialect, status, body, expected) in [
        (
            Dialect::Webdis,
            200,
            r#"{"EVALSHA":[false,"NOSCRIPT No matching script."]}"#,
            Err(Unanswered::NoScript),
        ),
        (
            Dialect::Upstash,
            400,
            r#"{"error":"NOSCRIPT No matching script."}"#,
            Err(Unanswered::NoScript),
        ),
        (
            Dialect::Webdis,
            200,
            r#"{"EVAL":[false,"OOM command not allowed"]}"#,
            because("front answered: OOM command not allowed"),
        ),
        (
            Dialect::Webdis,
            503,
            "Service Unavailable",
            because("front answered 503"),
        ),
        (
            Dialect::Upstash,
            401,
            r#"{"error":"Unauthorized"}"#,
            because("front answered 401"),
        ),
        (
            Dialect::Webdis,
            200,
            "{}",
            because("front answered something else"),
        ),
        (
            Dialect::Webdis,
            200,
            "<html>",
            because("front answered something else"),
        ),
    ] {
        assert_eq!(
            redis(dialect).answer(&response(status, body), &ID),
            expected,
            "{body}"
        );
    }
    let failed = redis(Dialect::Webdis).answer(&CallOutcome::Failed, &ID);
    assert_eq!(failed, because("front did not answer"));
}

#[test]
fn a_redis_that_evicts_is_found_out() {
    let policy = |body: &str| {
        redis(Dialect::Webdis)
            .eviction(&response(200, body))
            .unwrap()
    };
    let lru = Some("allkeys-lru".to_owned());
    assert_eq!(
        policy(r#"{"INFO":{"maxmemory":"0","maxmemory_policy":"allkeys-lru"}}"#),
        lru
    );
    assert_eq!(
        policy(r##"{"result":"# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"}"##),
        lru
    );
    assert_eq!(
        policy(r#"{"INFO":{"maxmemory_policy":"noeviction"}}"#),
        None
    );
    assert_eq!(
        redis(Dialect::Webdis).eviction(&response(403, "")),
        Ok(None)
    );
}

#[test]
fn words_survive_webdis_grammar() {
    let words = ["EVAL", "a / b % c + d ? e.f", "1.5"].map(str::to_owned);
    assert_eq!(webdis(&words), b"EVAL/a %2F b %25 c %2B d %3F e%2Ef/1%2E5");
}
