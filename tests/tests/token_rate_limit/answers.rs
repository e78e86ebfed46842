//! Answers in every form and in every piece: what they used is charged, and the client gets what it would have got.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_harness::profile::Profile;
use tollgate_harness::sim::{Abort, Answer, Outcome, Request, Sim, in_every_chunking};

use super::{chat, gateway, left, reserved, tokens, usage, used};

const LIMIT: u64 = 100_000;
const BOTH: [Profile; 2] = [Profile::Envoy, Profile::Kong];

fn config() -> Value {
    tokens(&json!({"minute": LIMIT}))
}

/// What is charged for one request with this answer.
fn charged(profile: Profile, request: Request, answer: &Answer) -> u64 {
    let config = config();
    let mut sim = gateway(profile, &config);
    let scripted = answer.clone();
    sim.upstream(move |_| scripted.clone());
    sim.send(request);
    spent(&mut sim, profile)
}

fn spent(sim: &mut Sim, profile: Profile) -> u64 {
    let probe = || chat(&json!({}));
    let each = reserved(profile, &config(), probe());
    used(sim, LIMIT, probe(), each)
}

fn streamed(events: &str) -> Answer {
    Answer::status(200)
        .header("content-type", "text/event-stream")
        .streamed(&[events])
}

const EVENTS: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"gr\u{fc}\u{df}e\"}}],\"usage\":null}\n\n";
const USAGE: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":31}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn every_chunking_of_a_stream_is_charged_and_shown_alike() {
    for profile in BOTH {
        for end in ["\n", "\r\n"] {
            let events = format!("{EVENTS}: a comment\n\n{USAGE}{DONE}").replace('\n', end);
            let (spent, shown) = in_every_chunking(events.len(), |pieces| {
                let mut sim = gateway(profile, &config());
                let mut rest = events.as_bytes();
                let mut chunks: Vec<Vec<u8>> = Vec::new();
                for length in pieces {
                    let (chunk, after) = rest.split_at((*length).min(rest.len()));
                    chunks.push(chunk.to_vec());
                    rest = after;
                }
                let answer = Answer::status(200)
                    .header("content-type", "text/event-stream")
                    .streamed(&chunks);
                sim.upstream(move |_| answer.clone());
                let got = sim.send(chat(&json!({"stream": true})));
                let shown = String::from_utf8_lossy(got.body()).into_owned();
                (spent(&mut sim, profile), shown)
            });
            assert_eq!(spent, 42, "{profile}");
            assert!(!shown.contains("usage"), "{shown}");
            assert!(
                shown.contains("gr\u{fc}\u{df}e") && shown.contains("[DONE]"),
                "{shown}"
            );
        }
    }
}

#[test]
fn every_chunking_of_a_body_is_charged_and_passes_unchanged() {
    let body = json!({"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 31}}).to_string();
    for profile in BOTH {
        let spent = in_every_chunking(body.len(), |pieces| {
            let mut sim = gateway(profile, &config());
            let answer = Answer::status(200)
                .header("content-type", "text/plain")
                .body(body.clone())
                .delivered_in(pieces);
            sim.upstream(move |_| answer.clone());
            let got = sim.send(chat(&json!({})));
            got.assert_status(200)
                .assert_body(&body)
                .assert_header("content-length", &body.len().to_string());
            spent(&mut sim, profile)
        });
        assert_eq!(spent, 42, "{profile}");
    }
}

#[test]
fn every_providers_usage_is_understood() {
    let anthropic = json!({"type": "message", "role": "assistant", "model": "claude", "content": [],
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 31}});
    let gemini = json!({"candidates": [], "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 21, "thoughtsTokenCount": 10}});
    let responses = json!({"object": "response", "output": [], "usage": {"input_tokens": 11, "output_tokens": 31, "total_tokens": 42}});
    let embeddings =
        json!({"object": "list", "data": [], "usage": {"prompt_tokens": 42, "total_tokens": 42}});
    let post = |path: &str, body: Value| Request::post(path).body(body.to_string());
    let messages = json!([{"role": "user", "content": "Hello"}]);
    for (request, answer) in [
        (
            post(
                "/v1/messages",
                json!({"model": "claude", "max_tokens": 50, "messages": messages}),
            ),
            anthropic,
        ),
        (
            post(
                "/v1beta/models/gemini:generateContent",
                json!({"contents": [{"parts": [{"text": "Hello"}]}]}),
            ),
            gemini,
        ),
        (
            post("/v1/responses", json!({"model": "m", "input": "Hello"})),
            responses,
        ),
        (
            post("/v1/embeddings", json!({"model": "m", "input": "Hello"})),
            embeddings,
        ),
    ] {
        let answer = Answer::status(200).body(answer.to_string());
        for profile in BOTH {
            assert_eq!(
                charged(profile, request.clone(), &answer),
                42,
                "{profile}: {request:?}"
            );
        }
    }
    let events = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":31}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let request = post(
        "/v1/messages",
        json!({"model": "claude", "max_tokens": 50, "stream": true, "messages": messages}),
    );
    assert_eq!(charged(Profile::Envoy, request, &streamed(events)), 42);
}

#[test]
fn a_client_that_goes_is_charged_what_was_sent() {
    let words = |count: usize| EVENTS.replace("gr\u{fc}\u{df}e", "word ").repeat(count);
    for profile in BOTH {
        let mut sim = gateway(profile, &config());
        let chunks: Vec<String> = (0..100).map(|_| words(1)).collect();
        let answer = Answer::status(200)
            .header("content-type", "text/event-stream")
            .streamed(&chunks)
            .paced(Duration::from_millis(1));
        sim.upstream(move |_| answer.clone());
        let request = chat(&json!({"stream": true, "max_tokens": 1000}));
        let got = sim.send(request.aborted(Abort::AfterChunks(50)));
        got.assert_outcome(Outcome::Aborted);
        let spent = spent(&mut sim, profile);
        // 250 bytes of text at a third of a token each, with the margin, and the prompt.
        assert!((80..120).contains(&spent), "{profile}: {spent}");
    }
}

#[test]
fn failures_cost_nothing_and_silence_is_estimated() {
    for profile in BOTH {
        for status in [400, 401, 429, 500, 529] {
            let error = Answer::status(status).body(r#"{"error":{"message":"no"}}"#);
            assert_eq!(
                charged(profile, chat(&json!({})), &error),
                0,
                "{profile}: {status}"
            );
        }
        let cached = usage(11, 31).header("x-cache-status", "Hit");
        assert_eq!(charged(profile, chat(&json!({})), &cached), 0, "{profile}");
        let silent = Answer::status(200).body(r#"{"object":"chat.completion","choices":[{"message":{"content":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}]}"#);
        let spent = charged(profile, chat(&json!({})), &silent);
        assert!((10..40).contains(&spent), "{profile}: {spent}");
    }
}

#[test]
fn answers_from_a_cache_are_charged_where_that_is_wanted() {
    for (charge, left_over) in [(false, 1000), (true, 958)] {
        let mut config = tokens(&json!({"minute": 1000}));
        config["charge_cache_hits"] = json!(charge);
        let reserves = reserved(Profile::Envoy, &config, chat(&json!({})));
        let mut sim = gateway(Profile::Envoy, &config);
        sim.upstream(|_| usage(11, 31).header("x-cache-status", "Hit"));
        sim.send(chat(&json!({}))).assert_status(200);
        assert_eq!(left(&sim.send(chat(&json!({})))), left_over - reserves);
    }
}
