//! What `policy: redis` stands on: real Redis behind real Webdis as `deploy/redis` sets them up, and what they answer on good days
//! and bad ones. The filter reads these answers, so each form that it relies on has its test here.

mod deploy;
mod model;

use std::io::{BufReader, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_harness::envoy::{self, Envoy, Listener};
use tollgate_harness::wire::{self, Response};
use tollgate_tests::redis::{Answer, Redis, RestFront, Webdis, escaped};

/// How long something may take that comes by itself, such as Webdis' next attempt to reach Redis (each 0.1 s).
const PATIENCE: Duration = Duration::from_secs(30);

fn both() -> (Redis, Webdis) {
    let redis = Redis::start().unwrap();
    let webdis = Webdis::start(&redis).unwrap();
    (redis, webdis)
}

/// Runs a script without keys.
fn eval(webdis: &Webdis, script: &str) -> Answer {
    webdis.ask(&["EVAL", script, "0"])
}

/// Asks until an answer is as it should be.
fn until(webdis: &Webdis, script: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
    let started = Instant::now();
    loop {
        let answer = eval(webdis, script);
        if fits(&answer) || started.elapsed() > PATIENCE {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn redis_evicts_nothing_unless_it_is_told_to() {
    let policy = ["CONFIG", "GET", "maxmemory-policy"];
    let redis = Redis::start().unwrap();
    assert_eq!(redis.command(&policy), "maxmemory-policy\nnoeviction");
    let redis = Redis::with(&[("maxmemory-policy", "allkeys-lru")]).unwrap();
    assert_eq!(redis.command(&policy), "maxmemory-policy\nallkeys-lru");
    let webdis = Webdis::start(&redis).unwrap();
    let told = webdis.ask(&["INFO", "memory"]);
    assert_eq!(told.json()["INFO"]["maxmemory_policy"], "allkeys-lru");
}

#[test]
fn webdis_answers_a_script_with_its_result() {
    let (_redis, webdis) = both();
    for (script, result) in [
        ("return 'a b'", json!("a b")),
        ("return '\"\\\\\\n\\195\\169'", json!("\"\\\né")),
        ("return 42", json!(42)),
        ("return -7", json!(-7)),
        ("return nil", json!(null)),
        ("return {1, 'two'}", json!([1, "two"])),
        ("return redis.status_reply('OK')", json!([true, "OK"])),
        ("return redis.error_reply('MY e')", json!([false, "MY e"])),
    ] {
        let answer = eval(&webdis, script);
        assert_eq!(answer.status, 200, "{script}");
        assert_eq!(answer.json(), json!({"EVAL": result}), "{script}");
    }
}

#[test]
fn an_error_of_redis_has_status_200_and_says_false() {
    let (_redis, webdis) = both();
    let unknown = "0000000000000000000000000000000000000000";
    let broken: [(&[&str], &str); 3] = [
        (&["EVAL", "return (", "0"], "ERR Error compiling script"),
        (
            &["EVAL", "return redis.call('HGET')", "0"],
            "ERR Wrong number of args",
        ),
        (&["EVALSHA", unknown, "0"], "NOSCRIPT "),
    ];
    for (words, error) in broken {
        let answer = webdis.ask(words);
        assert_eq!(answer.status, 200, "{words:?}");
        let told = &answer.json()[words[0]];
        assert_eq!(told[0], json!(false), "{words:?}");
        let text = told[1].as_str().unwrap_or_default();
        assert!(text.starts_with(error), "{words:?}: {text}");
    }
}

#[test]
fn every_byte_of_a_word_reaches_the_script() {
    let (_redis, webdis) = both();
    let hex = "return (string.gsub(ARGV[1], '.', function(c) return string.format('%02x', string.byte(c)) end))";
    let bytes: Vec<u8> = (0..=255).collect();
    let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let body = escaped(&["EVAL".as_bytes(), hex.as_bytes(), b"0", &bytes]);
    assert_eq!(
        webdis.post(body.as_bytes()).json(),
        json!({"EVAL": expected})
    );
    // As few escapes as can be, to save bytes: only these four mean something (and a file's extension at the end).
    let raw: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| match byte {
            b'/' | b'?' | b'%' | b'+' => format!("%{byte:02x}").into_bytes(),
            b' ' => b"+".to_vec(),
            _ => vec![*byte],
        })
        .collect();
    let body = [escaped(&["EVAL", hex, "0"]).as_bytes(), b"/", &raw].concat();
    assert_eq!(webdis.post(&body).json(), json!({"EVAL": expected}));
}

#[test]
fn long_scripts_and_many_words_pass() {
    let (_redis, webdis) = both();
    let long = format!("return #ARGV[1] --{}", "x".repeat(100_000));
    let word = "y".repeat(100_000);
    assert_eq!(
        webdis.ask(&["EVAL", &long, "0", &word]).json(),
        json!({"EVAL": 100_000})
    );
    let many: Vec<&str> = ["EVAL", "return #ARGV", "0"]
        .into_iter()
        .chain(std::iter::repeat_n("w", 5000))
        .collect();
    assert_eq!(webdis.ask(&many).json(), json!({"EVAL": 5000}));
}

#[test]
fn full_memory_refuses_a_script_before_it_has_written() {
    let (redis, webdis) = both();
    let script =
        "redis.call('HSET', KEYS[1], 'u', 1) redis.call('SET', KEYS[2], 'done') return 'ok'";
    let charge = [
        "EVAL",
        script,
        "2",
        "tollgate:counter",
        "tollgate:operation",
    ];
    assert_eq!(redis.command(&["CONFIG", "SET", "maxmemory", "1000"]), "OK");
    let refused = webdis.ask(&charge).json();
    assert_eq!(refused["EVAL"][0], json!(false));
    let text = refused["EVAL"][1].as_str().unwrap_or_default();
    assert!(text.starts_with("OOM "), "{text}");
    assert_eq!(redis.command(&["DBSIZE"]), "0");
    assert_eq!(redis.command(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!(webdis.ask(&charge).json(), json!({"EVAL": "ok"}));
}

#[test]
fn webdis_says_503_while_redis_is_down_and_finds_it_again() {
    let (mut redis, webdis) = both();
    redis.kill();
    let down = until(&webdis, "return 1", |answer| answer.status == 503);
    assert_eq!((down.status, down.text().as_str()), (503, ""));
    redis.restart().unwrap();
    let back = until(&webdis, "return 1", |answer| answer.status == 200);
    assert_eq!(back.json(), json!({"EVAL": 1}));
}

#[test]
fn what_is_asked_while_redis_hangs_is_done_later() {
    let (redis, webdis) = both();
    redis.pause();
    let gone = [
        "EVAL",
        "return redis.call('SET', KEYS[1], 'late')",
        "1",
        "tollgate:gone",
    ];
    // Asked by somebody who doesn't wait.
    let body = escaped(&gone);
    let mut stream = wire::connect(webdis.address()).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: webdis\r\nauthorization: {}\r\nContent-Length: {}\r\n\r\n",
        Webdis::authorization(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    drop(stream);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| eval(&webdis, "return 'waited'"));
        thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        redis.resume();
        assert_eq!(waiting.join().unwrap().status, 200);
    });
    assert_eq!(redis.command(&["GET", "tollgate:gone"]), "late");
}

#[test]
fn webdis_is_killed_and_comes_back_where_it_was() {
    let (redis, mut webdis) = both();
    let address = webdis.address();
    assert_eq!(
        webdis
            .ask(&[
                "EVAL",
                "return redis.call('SET', KEYS[1], 1)",
                "1",
                "tollgate:a"
            ])
            .status,
        200
    );
    webdis.kill();
    assert!(wire::connect(address).is_err());
    webdis.restart().unwrap();
    assert_eq!(webdis.address(), address);
    assert_eq!(eval(&webdis, "return 1").status, 200);
    assert_eq!(redis.command(&["GET", "tollgate:a"]), "1");
}

#[test]
fn a_stopped_webdis_takes_connections_and_answers_when_it_goes_on() {
    let (_redis, webdis) = both();
    webdis.pause();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| eval(&webdis, "return 'waited'"));
        thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        webdis.resume();
        assert_eq!(waiting.join().unwrap().json(), json!({"EVAL": "waited"}));
    });
}

#[test]
fn webdis_does_the_filters_commands_for_those_who_have_its_password() {
    let (_redis, webdis) = both();
    let script = escaped(&["EVAL", "return 1", "0"]);
    assert_eq!(webdis.post(script.as_bytes()).status, 200);
    // "tollgate:guess"
    for line in ["", "authorization: Basic dG9sbGdhdGU6Z3Vlc3M=\r\n"] {
        assert_eq!(
            webdis.post_with(line, script.as_bytes()).status,
            403,
            "{line}"
        );
    }
    for words in [
        &["FLUSHALL"][..],
        &["CONFIG", "SET", "dir", "/"],
        &["GET", "tollgate:a"],
        &["SCRIPT", "FLUSH"],
        &["0", "FLUSHALL"],
        &["", "FLUSHALL"],
        &["F"],
    ] {
        assert_eq!(webdis.ask(words).status, 403, "{words:?}");
    }
}

#[test]
fn a_script_reaches_the_filters_keys_and_commands_alone() {
    let (redis, webdis) = both();
    assert_eq!(redis.command(&["SET", "other", "1"]), "OK");
    for script in [
        "return redis.call('GET', 'other')",
        "return redis.call('SET', 'other', 2)",
        "return redis.call('DEL', 'other')",
        "return redis.call('FLUSHALL')",
        "return redis.call('PUBLISH', 'a', 'b')",
        "return redis.call('KEYS', '*')",
    ] {
        assert_eq!(
            eval(&webdis, script).json()["EVAL"][0],
            json!(false),
            "{script}"
        );
    }
    assert_eq!(redis.command(&["GET", "other"]), "1");
}

#[test]
fn an_envoy_asks_webdis_over_one_kept_connection() {
    let (_redis, webdis) = both();
    let listener = Listener {
        name: "webdis".to_owned(),
        filters: Vec::new(),
        upstream: webdis.address(),
        proxy_protocol: false,
    };
    let envoy = Envoy::start(&envoy::find().unwrap(), &[listener], 1).unwrap();
    let address = envoy.address("webdis").unwrap();
    for number in 0..20 {
        // Longer than what Webdis reads at once.
        let script = format!("return {number} --{}", "x".repeat(5000));
        let body = escaped(&["EVAL", &script, "0"]);
        let request = format!(
            "POST / HTTP/1.1\r\nHost: webdis\r\nauthorization: {}\r\nContent-Length: {}\r\n\r\n{body}",
            Webdis::authorization(),
            body.len()
        );
        let answer = wire::exchange(address, "POST", request.as_bytes()).unwrap();
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told, json!({"EVAL": number}));
    }
    let cluster = envoy::cluster_name(webdis.address());
    let name = format!("cluster.{cluster}.upstream_cx_total");
    assert_eq!(envoy.stats(&name).unwrap().get(&name), Some(&1));
}

/// Sends a command to a REST front.
fn rest(front: &RestFront, token: &str, body: &str) -> (u16, Value) {
    let mut stream = wire::connect(front.address()).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: front\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let response = Response::read(&mut BufReader::new(&stream), "POST").unwrap();
    (
        response.status,
        serde_json::from_slice(&response.body).unwrap(),
    )
}

#[test]
fn a_rest_front_answers_as_upstash_does() {
    let redis = Redis::start().unwrap();
    let front = RestFront::start(&redis, "token").unwrap();
    for (command, status, answer) in [
        (
            r#"["EVAL", "return {KEYS[1], ARGV[1]}", 1, "tollgate:a", "b"]"#,
            200,
            json!({"result": ["tollgate:a", "b"]}),
        ),
        (r#"["EVAL", "return 7", "0"]"#, 200, json!({"result": 7})),
        (
            r#"["EVAL", "return nil", "0"]"#,
            200,
            json!({"result": null}),
        ),
        (
            r#"["EVAL", "return redis.error_reply('MY e')", "0"]"#,
            400,
            json!({"error": "MY e"}),
        ),
        (
            r#"["EVALSHA", "0000000000000000000000000000000000000000", "0"]"#,
            400,
            json!({"error": "NOSCRIPT No matching script. Please use EVAL."}),
        ),
        (
            r#"{"EVAL": 1}"#,
            400,
            json!({"error": "ERR failed to parse command"}),
        ),
    ] {
        assert_eq!(
            rest(&front, "token", command),
            (status, answer),
            "{command}"
        );
    }
    let unauthorized = rest(&front, "guess", r#"["EVAL", "return 7", "0"]"#);
    assert_eq!(unauthorized, (401, json!({"error": "Unauthorized"})));
    assert_eq!(redis.command(&["EXISTS", "tollgate:a"]), "0");
}
