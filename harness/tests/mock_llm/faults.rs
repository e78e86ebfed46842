//! What goes wrong when it is asked to.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};

use super::wire::{Answer, Wire, get, post, request, until};
use super::{CHAT, ask, begin, chunks, entry, events, ledger, provider, question, streamed};

/// Sends a request with a plan and reads bytes until the connection ends; tells whether it was reset.
fn broken(provider: &MockLlm, plan: &str, body: &Value) -> (String, bool) {
    let body = body.to_string();
    let mut stream = TcpStream::connect(provider.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nx-mock: {plan}\r\n\r\n",
        body.len()
    );
    std::io::Write::write_all(&mut stream, (head + &body).as_bytes()).unwrap();
    let mut came = Vec::new();
    let reset = match stream.read_to_end(&mut came) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{plan}: {error}");
            true
        }
    };
    (String::from_utf8(came).unwrap(), reset)
}

fn count_events(text: &str) -> usize {
    text.matches("data: {").count()
}

#[test]
fn an_error_has_the_form_of_the_provider_that_was_asked() {
    let provider = provider();
    let message = json!({"model": "claude-sonnet-4.5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let content = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    let gemini = "/v1beta/models/gemini-2.5-flash:generateContent";
    let limited = ask(
        &provider,
        CHAT,
        "status=429; retry-after=3",
        &question("hi"),
    );
    assert_eq!(
        (limited.status(), limited.header("retry-after")),
        (429, Some("3"))
    );
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");
    let overloaded = ask(
        &provider,
        "/v1/messages",
        "status=529; retry-after=date:60",
        &message,
    );
    assert_eq!(overloaded.status(), 529);
    assert_eq!(overloaded.json()["error"]["type"], "overloaded_error");
    assert!(overloaded.header("retry-after").unwrap().ends_with(" GMT"));
    let exhausted = ask(&provider, gemini, "status=429; retry-after=250ms", &content);
    assert_eq!(exhausted.json()["error"]["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(exhausted.header("retry-after-ms"), Some("250"));
}

#[test]
fn a_plan_that_cannot_be_understood_is_refused_with_what_to_write() {
    let provider = provider();
    let answer = ask(&provider, CHAT, "status=200", &question("hi"));
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("400 to 599"), "{}", answer.text());
}

#[test]
fn the_first_requests_of_an_id_fail_and_the_next_ones_work() {
    let provider = provider();
    let status = |id: &str| {
        let plan = format!("fail=2; id={id}; status=500");
        ask(&provider, CHAT, &plan, &question("hi")).status()
    };
    assert_eq!(
        [
            status("a"),
            status("b"),
            status("a"),
            status("a"),
            status("a")
        ],
        [500, 500, 500, 200, 200]
    );
}

#[test]
fn a_model_can_carry_its_plan_in_its_name() {
    let provider = provider();
    let mut asked = question("hi");
    asked["model"] = json!("gpt-4.1@fail=1;status=503");
    let [first, second] = [0, 1].map(|_| post(provider.address(), CHAT, &asked));
    assert_eq!((first.status(), second.status()), (503, 200));
    assert_eq!(second.json()["model"], "gpt-4.1");
    let content = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    let path = "/v1beta/models/gemini-2.5-flash@status=500:generateContent";
    assert_eq!(post(provider.address(), path, &content).status(), 500);
}

#[test]
fn configured_faults_strike_by_the_seed_and_a_plan_of_the_request_stands_above_them() {
    let strikes = |seed: u64| {
        let provider = MockLlm::start(Settings {
            faults: vec!["p=0.5; model=gpt-4.1; status=500".parse().unwrap()],
            seed,
            ..Settings::default()
        })
        .unwrap();
        let statuses: Vec<u16> = (0..40)
            .map(|_| post(provider.address(), CHAT, &question("hi")).status())
            .collect();
        let mut other = question("hi");
        other["model"] = json!("o4-mini");
        assert!((0..10).all(|_| post(provider.address(), CHAT, &other).status() == 200));
        assert!((0..10).all(|_| ask(&provider, CHAT, "none", &question("hi")).status() == 200));
        statuses
    };
    let statuses = strikes(7);
    assert_eq!(statuses, strikes(7));
    assert_ne!(statuses, strikes(8));
    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert!((5..35).contains(&failed), "{statuses:?}");
}

#[test]
fn a_connection_is_reset_where_it_was_told_to() {
    let provider = provider();
    assert_eq!(
        broken(&provider, "reset=before", &question("hi")),
        (String::new(), true)
    );
    let (half_a_head, reset) = broken(&provider, "reset=headers", &question("hi"));
    assert!(
        reset && half_a_head.starts_with("HTTP/1.1 200"),
        "{half_a_head}"
    );
    assert!(!half_a_head.contains("\r\n\r\n"), "{half_a_head}");
    let (half_a_body, reset) = broken(&provider, "reset=body", &question("hi"));
    let (_, body) = half_a_body.split_once("\r\n\r\n").unwrap();
    assert!(reset && body.starts_with('{'), "{body}");
    assert!(serde_json::from_str::<Value>(body).is_err(), "{body}");
    let (five, reset) = broken(&provider, "reset=5", &streamed("hi"));
    assert_eq!((count_events(&five), reset), (5, true));
    let entries = ledger(&provider)["entries"].clone();
    let ends: Vec<&Value> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["ended"])
        .collect();
    assert_eq!(ends, ["reset", "reset", "reset", "reset"]);
    // Of five events, the first names the role, the others carry a token each.
    assert_eq!(entries[3]["written_tokens"], 4);
}

#[test]
fn a_connection_is_closed_too_early_in_good_order() {
    let provider = provider();
    let (five, reset) = broken(&provider, "close=5", &streamed("hi"));
    assert_eq!((count_events(&five), reset), (5, false));
    assert!(!five.ends_with("0\r\n\r\n"));
    let entry = entry(&provider);
    assert_eq!(
        (&entry["ended"], &entry["aborted"]),
        (&json!("closed"), &json!(true))
    );
}

#[test]
fn a_stalled_stream_says_nothing_more_until_the_client_leaves() {
    let provider = provider();
    let mut wire = begin(&provider, CHAT, "x-mock: stall=3\r\n", &streamed("hi"));
    wire.head();
    for _ in 0..3 {
        wire.chunk().unwrap();
    }
    assert_eq!(get(provider.address(), "/ledger").json()["open"], 1);
    drop(wire);
    let entry = entry(&provider);
    assert_eq!(entry["ended"], "stalled");
    assert_eq!(entry["written_tokens"], 2);
}

#[test]
fn an_answer_stalls_before_in_and_behind_its_head() {
    for (plan, written) in [("before", false), ("headers", false), ("body", true)] {
        let provider = provider();
        let lines = format!("x-mock: stall={plan}\r\n");
        let wire = begin(&provider, CHAT, &lines, &question("hi"));
        until(|| get(provider.address(), "/ledger").json()["open"] == 1);
        drop(wire);
        let entry = entry(&provider);
        assert_eq!(
            (&entry["ended"], &entry["written_tokens"]),
            (&json!("stalled"), &json!(0))
        );
        assert_eq!(
            entry["written_bytes"].as_u64() > Some(0),
            written,
            "{entry}"
        );
    }
}

#[test]
fn an_error_event_ends_a_stream_in_each_providers_form() {
    let provider = provider();
    let chat = ask(&provider, CHAT, "error=2", &streamed("hi"));
    assert_eq!(chat.status(), 200);
    let said = chunks(chat.text());
    assert_eq!(
        (said.len(), &said[2]["error"]["type"]),
        (3, &json!("server_error"))
    );
    assert!(!chat.text().contains("[DONE]"));
    let message = json!({"model": "claude-sonnet-4.5", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let anthropic = ask(&provider, "/v1/messages", "error=4", &message);
    assert!(
        anthropic
            .text()
            .contains("event: error\ndata: {\"type\":\"error\"")
    );
    let responses = json!({"model": "gpt-4.1", "input": "hi", "stream": true});
    let responses = chunks(ask(&provider, "/v1/responses", "error=4", &responses).text());
    assert_eq!(
        (&responses[4]["type"], &responses[4]["sequence_number"]),
        (&json!("error"), &json!(4))
    );
    let content = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    let array = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
    let gemini = ask(&provider, array, "error=2", &content).json();
    assert_eq!(gemini[2]["error"]["status"], "UNAVAILABLE");
}

#[test]
fn events_are_spelled_and_split_as_told() {
    let provider = provider();
    let mut wire = begin(
        &provider,
        CHAT,
        "x-mock: write=3; eol=crlf\r\n",
        &streamed("日本語"),
    );
    wire.head();
    let pieces: Vec<Vec<u8>> = std::iter::from_fn(|| wire.chunk()).collect();
    assert!(pieces.iter().all(|piece| piece.len() <= 3));
    assert!(
        pieces
            .iter()
            .any(|piece| std::str::from_utf8(piece).is_err()),
        "no character was split"
    );
    let text = String::from_utf8(pieces.concat())
        .unwrap()
        .replace("\r\n", "\n");
    let plain = ask(&provider, CHAT, "none", &streamed("日本語"));
    assert_eq!(events(&text).len(), events(plain.text()).len());
}

#[test]
fn a_stream_leaves_off_what_it_was_told_to() {
    let provider = provider();
    let said = |plan: &str| {
        ask(&provider, CHAT, plan, &streamed("hi"))
            .text()
            .to_owned()
    };
    assert!(!said("done=missing").contains("[DONE]"));
    assert!(!said("usage=missing").contains("prompt_tokens"));
    assert_eq!(said("usage=twice").matches("prompt_tokens\"").count(), 2);
    let malformed = said("malformed=3");
    let readable =
        |event: &String| event == "[DONE]" || serde_json::from_str::<Value>(event).is_ok();
    let unreadable: Vec<usize> = events(&malformed)
        .iter()
        .enumerate()
        .filter(|(_, event)| !readable(event))
        .map(|(number, _)| number)
        .collect();
    assert_eq!(unreadable, [3]);
}

#[test]
fn answers_are_compressed_when_asked_or_forced() {
    let provider = provider();
    let compressed = |plan: &str, accepts: &str| {
        let lines = [
            format!("x-mock: {plan}"),
            format!("Accept-Encoding: {accepts}"),
        ];
        let lines = lines.each_ref().map(String::as_str);
        let answer = request(
            provider.address(),
            "POST",
            CHAT,
            &lines,
            &streamed("hi").to_string(),
        );
        (answer.header("content-encoding") == Some("gzip")).then_some(answer)
    };
    assert!(compressed("none", "gzip").is_none());
    assert!(compressed("gzip=accepted", "br").is_none());
    assert!(compressed("gzip=accepted", "br, gzip").is_some());
    let answer = compressed("gzip=always", "identity").unwrap();
    let mut text = String::new();
    MultiGzDecoder::new(&answer.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[test]
fn a_length_that_is_wrong_ends_the_connection() {
    let provider = provider();
    let whole = ask(&provider, CHAT, "none", &question("hi")).body.len();
    for (plan, announced) in [("length=long", whole + 10), ("length=short", whole / 2)] {
        let (text, reset) = broken(&provider, plan, &question("hi"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {announced}")),
            "{head}"
        );
        assert_eq!((body.len(), reset), (whole, false), "{plan}");
    }
}

#[test]
fn heads_trailers_and_chunks_come_as_told() {
    let provider = provider();
    let typed = ask(
        &provider,
        CHAT,
        "content-type=\"text/html; charset=x\"",
        &question("hi"),
    );
    assert_eq!(typed.header("content-type"), Some("text/html; charset=x"));
    let mut wire = begin(&provider, CHAT, "x-mock: trailers\r\n", &question("hi"));
    assert_eq!(wire.head().header("trailer"), Some("x-mock-trailer"));
    wire.chunk().unwrap();
    assert_eq!(
        wire.trailers(),
        [("x-mock-trailer".to_owned(), "end".to_owned())]
    );
    let (bad, _) = broken(&provider, "chunk=bad", &streamed("hi"));
    assert!(bad.ends_with("these are no hex digits\r\n"), "{bad}");
    let start = Instant::now();
    let slow = ask(
        &provider,
        "/v1/chat/completions",
        "slow-headers=1ms",
        &question("hi"),
    );
    assert_eq!(slow.status(), 200);
    assert!(
        start.elapsed() >= Duration::from_millis(100),
        "every byte of the head waits"
    );
}

#[test]
fn a_huge_answer_comes_whole() {
    let provider = provider();
    let whole = ask(&provider, CHAT, "bytes=5MB", &question("hi")).json();
    assert_eq!(
        whole["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .len(),
        5_000_000
    );
    let long = ask(&provider, CHAT, "tokens=20000", &streamed("hi"));
    let usage = &chunks(long.text()).pop().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], 20_000);
}

#[test]
fn unknown_fields_stand_in_every_event() {
    let provider = provider();
    let answer: Answer = ask(
        &provider,
        CHAT,
        "extra; comments; multiline",
        &streamed("hi"),
    );
    let text = answer.text();
    assert_eq!(
        text.matches("x_mock_extra").count() + 1,
        text.matches(": keep-alive").count()
    );
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_refused() {
    let provider = provider();
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
    ] {
        let mut wire = Wire::connect(provider.address());
        wire.send(format!(
            "POST {CHAT} HTTP/1.1\r\nHost: a\r\n{lines}\r\n0\r\n\r\n"
        ));
        let answer = wire.answer();
        assert_eq!(
            (answer.status(), answer.header("connection")),
            (400, Some("close")),
            "{lines}"
        );
        wire.wait_for_end();
    }
}

#[test]
fn a_chunked_request_is_understood_and_the_connection_lives_on() {
    let provider = provider();
    let mut wire = Wire::connect(provider.address());
    let body = question("hi").to_string();
    for _ in 0..2 {
        wire.send(format!(
            "POST {CHAT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        let (first, second) = body.as_bytes().split_at(7);
        wire.send_chunk(first);
        wire.send_chunk(second);
        wire.send("0\r\n\r\n");
        assert_eq!(wire.answer().status(), 200);
    }
}

#[test]
fn a_client_that_expects_it_is_told_to_go_on() {
    let provider = provider();
    let mut wire = Wire::connect(provider.address());
    let body = question("hi").to_string();
    wire.send(format!(
        "POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    ));
    assert_eq!(wire.head().status(), 100);
    wire.send(body);
    assert_eq!(wire.answer().status(), 200);
}
