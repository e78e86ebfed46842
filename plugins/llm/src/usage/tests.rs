use super::*;
use crate::{Answer, Dialect, Finish};
use proptest::prelude::*;

/// Prompt, cached, written, completion, reasoning, total.
type Six = [Option<u64>; 6];

fn six(usage: Usage) -> Six {
    [
        usage.prompt,
        usage.cached_prompt,
        usage.cache_write,
        usage.completion,
        usage.reasoning,
        usage.total,
    ]
}

fn of(body: &str) -> Six {
    six(Usage::of(body.as_bytes()).unwrap_or_default())
}

fn answer(chunks: &[&[u8]]) -> Answer {
    let mut answer = Answer::default();
    chunks.iter().for_each(|chunk| answer.feed(chunk));
    answer
}

const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":"gpt-4.1-2025-04-14","choices":[{"index":0,"message":{"role":"assistant","content":"Hi \"there\"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":null}"#;
const RESPONSES: &str = r#"{"id":"resp_1","object":"response","created_at":1764000000,"status":"completed","error":null,"incomplete_details":null,"model":"gpt-5.1","output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello","annotations":[]}]}],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":30},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}}"#;
const MESSAGES: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{"type":"text","text":"Hi!"}],"stop_reason":"max_tokens","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":0},"output_tokens":40,"output_tokens_details":{"thinking_tokens":30},"server_tool_use":{"web_search_requests":1},"service_tier":"standard"}}"#;
const GENERATE: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hi"},{"functionCall":{"name":"f","args":{"a":1}}}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":11,"thoughtsTokenCount":100,"totalTokenCount":124,"toolUsePromptTokenCount":5,"cachedContentTokenCount":4,"promptTokensDetails":[{"modality":"TEXT","tokenCount":8}]},"modelVersion":"gemini-2.5-flash","responseId":"r1"}"#;

#[test]
fn every_api_comes_to_the_same_six_counts() {
    let s = Some;
    for (body, six) in [
        (CHAT, [s(19), s(8), None, s(10), s(4), s(29)]),
        (RESPONSES, [s(36), s(30), None, s(87), s(64), s(123)]),
        (MESSAGES, [s(3210), s(3000), s(200), s(40), s(30), s(3250)]),
        (GENERATE, [s(13), s(4), None, s(111), s(100), s(124)]),
        // Completions
        (
            r#"{"object":"text_completion","choices":[{"text":"x","index":0,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#,
            [s(5), None, None, s(7), None, s(12)],
        ),
        // Embeddings
        (
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2e-3]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            [s(8), None, None, None, None, s(8)],
        ),
        // Images
        (
            r#"{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#,
            [s(50), None, None, s(50), None, s(100)],
        ),
        // Images drawn as SVG by another model.
        (
            r#"{"created":1,"data":[],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50},"svg_usage":{"model":"m","input_tokens":5,"output_tokens":7,"reasoning_tokens":3,"total_tokens":12}}"#,
            [s(55), None, None, s(57), s(3), s(112)],
        ),
        // Decisions
        (
            r#"{"answers":[],"model":"m","usage":{"input_tokens":9,"input_tokens_details":{"cache_write_tokens":2,"cached_tokens":4},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":12}}"#,
            [s(9), s(4), s(2), s(3), s(1), s(12)],
        ),
        // DeepSeek
        (
            r#"{"usage":{"prompt_tokens":20,"completion_tokens":3,"total_tokens":23,"prompt_cache_hit_tokens":16,"prompt_cache_miss_tokens":4}}"#,
            [s(20), s(16), None, s(3), None, s(23)],
        ),
    ] {
        assert_eq!(of(body), six, "{body}");
    }
}

#[test]
fn model_text_and_end_are_told() {
    for (body, model, text, finish, dialect) in [
        (CHAT, "gpt-4.1-2025-04-14", 10, Finish::Stop, Dialect::Chat),
        (RESPONSES, "gpt-5.1", 5, Finish::Stop, Dialect::Responses),
        (
            MESSAGES,
            "claude-sonnet-4-5-20250929",
            3,
            Finish::Length,
            Dialect::Messages,
        ),
        (
            GENERATE,
            "gemini-2.5-flash",
            5,
            Finish::Stop,
            Dialect::Generate,
        ),
    ] {
        let answer = answer(&[body.as_bytes()]);
        assert_eq!(answer.model(), Some(model));
        assert_eq!(
            (answer.text(), answer.finish()),
            (text, Some(finish)),
            "{model}"
        );
        assert_eq!(answer.dialect(), Some(dialect));
        assert!(!answer.is_error(), "{model}");
    }
}

#[test]
fn a_count_left_out_is_unknown_and_not_zero() {
    for body in [
        "{}",
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":{"prompt_tokens":null}}"#,
        r#"{"usage":{"prompt_tokens":"12","completion_tokens":12.0,"total_tokens":-3}}"#,
        r#"{"usage":{"prompt_tokens":1e3}}"#,
        r#"{"usage":{"prompt_tokens":9007199254740993}}"#,
        r#"{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":1}}"}}]}"#,
        r#"{"choices":[{"message":{"usage":{"prompt_tokens":1}}}]}"#,
        "not json",
        "",
    ] {
        assert_eq!(Usage::of(body.as_bytes()), None, "{body}");
    }
    assert_eq!(
        answer(&[br#"{"usage":{"prompt_tokens":"12","total_tokens":1.5}}"#]).odd_counts(),
        2
    );
}

#[test]
fn output_that_a_provider_leaves_out_of_its_count_is_found_in_the_total() {
    // xAI counts reasoning beside the completion.
    assert_eq!(
        of(
            r#"{"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"completion_tokens_details":{"reasoning_tokens":94}}}"#
        ),
        [Some(32), None, None, Some(103), Some(94), Some(135)]
    );
    // Gemini that only thought.
    assert_eq!(
        of(r#"{"usageMetadata":{"promptTokenCount":5,"totalTokenCount":25}}"#),
        [Some(5), None, None, Some(20), None, Some(25)]
    );
}

#[test]
fn a_total_of_the_output_alone_is_not_believed() {
    assert_eq!(
        of(r#"{"usage":{"input_tokens":100,"output_tokens":7,"total_tokens":7}}"#),
        [Some(100), None, None, Some(7), None, Some(107)]
    );
}

#[test]
fn usage_split_across_chunks_is_found() {
    for body in [CHAT, RESPONSES, MESSAGES, GENERATE] {
        for cut in 0..body.len() {
            let (a, b) = body.as_bytes().split_at(cut);
            assert_eq!(
                answer(&[a, b]).usage().map(six),
                Some(of(body)),
                "cut at {cut}"
            );
        }
        let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(answer(&bytes).usage().map(six), Some(of(body)));
    }
}

#[test]
fn a_body_of_many_chunks_is_read() {
    let mut answer = Answer::default();
    answer.feed(br#"{"data":[{"embedding":[0"#);
    for _ in 0..2000 {
        answer.feed(b",-0.123456789".repeat(100).as_slice());
    }
    answer.feed(br#"]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#);
    assert_eq!(answer.usage().and_then(|usage| usage.prompt), Some(8));
}

#[test]
fn a_gemini_stream_in_an_array_counts_its_last_element() {
    let body = r#"[{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}},
{"candidates":[{"content":{"parts":[{"text":"bc"}]},"finishReason":"MAX_TOKENS"}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":9,"totalTokenCount":13},"modelVersion":"m"}]"#;
    assert_eq!(of(body), [Some(4), None, None, Some(9), None, Some(13)]);
    let answer = answer(&[body.as_bytes()]);
    assert_eq!((answer.text(), answer.finish()), (3, Some(Finish::Length)));
}

#[test]
fn errors_are_seen_in_every_dialect() {
    for (body, kind) in [
        (
            r#"{"error":{"message":"m","type":"rate_limit_error","param":null,"code":null}}"#,
            "rate_limit_error",
        ),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            "overloaded_error",
        ),
        (
            r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#,
            "RESOURCE_EXHAUSTED",
        ),
        (
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}"#,
            "server_error",
        ),
    ] {
        let answer = answer(&[body.as_bytes()]);
        assert!(answer.is_error(), "{body}");
        assert_eq!(answer.error_kind(), Some(kind), "{body}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let mut answer = answer(&[&bytes]);
        answer.end();
        let _ = answer.usage();
    }

    #[test]
    fn parts_never_exceed_the_whole(numbers in proptest::collection::vec(proptest::option::of(0u64..=MOST), COUNTS), details: bool) {
        let mut counts = Counts { input_details: details, ..Counts::default() };
        for (slot, number) in counts.counts.iter_mut().zip(numbers) {
            *slot = number;
        }
        let usage = counts.usage().unwrap_or_default();
        if let Some(prompt) = usage.prompt {
            prop_assert!(usage.cached_prompt.unwrap_or(0) <= prompt);
            prop_assert!(usage.total >= usage.prompt);
        }
        if let Some(completion) = usage.completion {
            prop_assert!(usage.reasoning.unwrap_or(0) <= completion);
            prop_assert!(usage.total >= usage.completion);
        }
    }
}
