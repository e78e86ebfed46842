use super::*;
use crate::{Finish, Usage};
use proptest::prelude::*;

/// What the client gets of a stream, fed in these chunks.
fn seen(stream: &mut Stream, chunks: &[&[u8]]) -> String {
    let mut out = Vec::new();
    for chunk in chunks {
        match stream.feed(chunk) {
            Output::Pass => out.extend_from_slice(chunk),
            Output::Replace(bytes) => out.extend_from_slice(&bytes),
        }
    }
    out.extend_from_slice(&stream.end());
    String::from_utf8_lossy(&out).into_owned()
}

fn watched(text: &str) -> Stream {
    let mut stream = Stream::watched();
    assert_eq!(seen(&mut stream, &[text.as_bytes()]), text);
    stream
}

fn counts(stream: &Stream) -> (Option<u64>, Option<u64>) {
    let usage = stream.answer().usage().unwrap_or_default();
    (usage.prompt, usage.completion)
}

fn chunk(delta: &str, finish: &str, more: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"gpt-4.1\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]{more}}}\n\n"
    )
}

const USAGE: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4.1\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn chat(more: &str, usage: &str) -> String {
    [
        &chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null", more),
        &chunk("{\"content\":\"Héllo\"}", "null", more),
        &chunk("{}", "\"stop\"", more),
        usage,
        DONE,
    ]
    .concat()
}

const MESSAGES: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n\
event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
event: ping\ndata: {\"type\":\"ping\"}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"AAAA\"}}\n\n";
const MESSAGES_END: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n\
event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"input_tokens\":0,\"output_tokens\":15}}\n\n\
event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

const RESPONSES: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1764000000,\"status\":\"in_progress\",\"error\":null,\"model\":\"gpt-5.1\",\"output\":[],\"usage\":null}}\n\n\
event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"item_id\":\"m\",\"delta\":\"Hi\"}\n\n\
event: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"sequence_number\":2,\"item_id\":\"m\",\"text\":\"Hi\"}\n\n";

#[test]
fn usage_is_found_in_its_own_event_before_done() {
    let stream = watched(&chat(",\"usage\":null", USAGE));
    assert_eq!(counts(&stream), (Some(9), Some(12)));
    assert_eq!(stream.answer().text(), 6);
    assert_eq!(stream.answer().finish(), Some(Finish::Stop));
    assert_eq!(stream.answer().model(), Some("gpt-4.1"));
    assert!(stream.is_complete());
    assert_eq!(stream.answer().unreadable(), 0);
}

#[test]
fn usage_in_every_chunk_is_cumulative() {
    let usage = |n: u64| {
        format!(
            ",\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{n},\"total_tokens\":{}}}",
            9 + n
        )
    };
    let text = [
        chunk("{\"content\":\"a\"}", "null", &usage(1)),
        chunk("{\"content\":\"b\"}", "null", &usage(2)),
        chunk("{}", "\"stop\"", &usage(3)),
        DONE.to_owned(),
    ]
    .concat();
    assert_eq!(counts(&watched(&text)), (Some(9), Some(3)));
}

#[test]
fn usage_after_a_tool_call_is_found() {
    let text = [
        &chunk(
            "{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}",
            "null",
            "",
        ),
        &chunk(
            "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}",
            "\"tool_calls\"",
            "",
        ),
        USAGE,
        DONE,
    ]
    .concat();
    let stream = watched(&text);
    assert_eq!(counts(&stream), (Some(9), Some(12)));
    assert_eq!(stream.answer().text(), 3);
    assert_eq!(stream.answer().finish(), Some(Finish::ToolCalls));
}

#[test]
fn usage_that_providers_put_elsewhere_is_found() {
    let groq = chunk(
        "{}",
        "\"stop\"",
        ",\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}",
    );
    let moonshot = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12}}]}\n\n".to_owned();
    for text in [groq, moonshot] {
        assert_eq!(counts(&watched(&text)), (Some(9), Some(12)), "{text}");
    }
}

#[test]
fn anthropic_input_and_output_are_both_counted() {
    let stream = watched(&[MESSAGES, MESSAGES_END].concat());
    assert_eq!(
        stream.answer().usage(),
        Some(Usage {
            prompt: Some(125),
            cached_prompt: Some(100),
            cache_write: Some(0),
            completion: Some(15),
            reasoning: None,
            total: Some(140),
        })
    );
    assert_eq!((stream.answer().text(), stream.is_complete()), (5, true));
}

#[test]
fn what_the_last_event_tells_as_cached_is_not_counted_twice() {
    let events = [MESSAGES, MESSAGES_END]
        .concat()
        .replace(
            "\"input_tokens\":25,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":100",
            "\"input_tokens\":125",
        )
        .replace(
            "{\"input_tokens\":0,",
            "{\"input_tokens\":25,\"cache_read_input_tokens\":100,",
        );
    assert_eq!(counts(&watched(&events)), (Some(125), Some(15)));
}

#[test]
fn responses_are_counted_whatever_ends_them() {
    for (kind, finish) in [
        ("completed", "\"incomplete_details\":null"),
        (
            "incomplete",
            "\"incomplete_details\":{\"reason\":\"max_output_tokens\"}",
        ),
        (
            "failed",
            "\"error\":{\"code\":\"server_error\",\"message\":\"m\"}",
        ),
    ] {
        let text = format!(
            "{RESPONSES}event: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"sequence_number\":3,\"response\":{{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"{kind}\",{finish},\"model\":\"gpt-5.1\",\"output\":[{{\"content\":[{{\"type\":\"output_text\",\"text\":\"Hi\"}}]}}],\"usage\":{{\"input_tokens\":36,\"input_tokens_details\":{{\"cached_tokens\":30}},\"output_tokens\":7,\"output_tokens_details\":{{\"reasoning_tokens\":5}},\"total_tokens\":43}}}}}}\n\n"
        );
        let stream = watched(&text);
        assert_eq!(counts(&stream), (Some(36), Some(7)), "{kind}");
        assert_eq!(
            stream.answer().text(),
            2,
            "the whole text at the end is no new text"
        );
        assert!(stream.is_complete());
        assert_eq!(stream.answer().is_error(), kind == "failed");
        if kind == "incomplete" {
            assert_eq!(stream.answer().finish(), Some(Finish::Length));
        }
    }
}

#[test]
fn gemini_counts_with_each_chunk() {
    let text = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":4,\"totalTokenCount\":4},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n\
data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"b\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":30,\"totalTokenCount\":36},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n";
    let stream = watched(text);
    assert_eq!(counts(&stream), (Some(4), Some(32)));
    assert!(stream.is_complete());
}

#[test]
fn a_client_that_goes_away_leaves_the_text_it_got() {
    let text = chat("", USAGE);
    let inside_the_text = text.find("llo").unwrap();
    let mut stream = Stream::watched();
    let _ = stream.feed(&text.as_bytes()[..inside_the_text]);
    assert_eq!(stream.answer().usage(), None);
    assert_eq!(
        stream.answer().text(),
        0,
        "a string counts when it has ended"
    );
    let _ = stream.feed(&text.as_bytes()[inside_the_text..inside_the_text + 10]);
    assert_eq!(stream.answer().text(), 6);
    assert!(!stream.is_complete());
}

#[test]
fn an_error_inside_a_stream_of_status_200_is_seen() {
    let stream = watched(
        "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\ndata: [DONE]\n\n",
    );
    assert!(stream.answer().is_error());
    assert_eq!(stream.answer().error_kind(), Some("server_error"));
}

#[test]
fn a_body_that_is_no_stream_is_read_as_json() {
    let text = "\u{FEFF}\n {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}";
    for stream in [Stream::watched(), Stream::edited(1000, true)] {
        for cut in 0..text.len() {
            let mut stream = stream.clone();
            let (a, b) = text.as_bytes().split_at(cut);
            assert_eq!(seen(&mut stream, &[a, b]), text);
            assert_eq!(counts(&stream), (Some(3), Some(4)), "cut at {cut}");
            assert_eq!(stream.is_events(), Some(false));
        }
    }
}

#[test]
fn usage_the_client_did_not_ask_for_is_taken_out() {
    let with = chat(",\"usage\":null", USAGE);
    let without = chat("", "");
    let mut stream = Stream::edited(4096, true);
    assert_eq!(seen(&mut stream, &[with.as_bytes()]), without);
    assert_eq!(counts(&stream), (Some(9), Some(12)));
    assert_eq!(stream.hidden(), 1);
    let mut stream = Stream::edited(4096, false);
    assert_eq!(seen(&mut stream, &[with.as_bytes()]), with);
}

#[test]
fn what_comes_with_the_usage_stays() {
    let event = USAGE.replace(
        "\"choices\":[]",
        "\"choices\":[],\"moderation\":{\"flagged\":false}",
    );
    let (kept, _) = event.split_once(",\"usage\"").unwrap();
    let mut stream = Stream::edited(4096, true);
    assert_eq!(
        seen(&mut stream, &[event.as_bytes()]),
        format!("{kept}}}\n\n")
    );
    assert_eq!(counts(&stream), (Some(9), Some(12)));
}

#[test]
fn what_is_not_only_usage_is_not_taken_out() {
    for text in [
        // Azure's first event.
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n".to_owned(),
        // The last chunk of a provider that always tells.
        chunk(
            "{}",
            "\"stop\"",
            ",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}",
        ),
        "data: {\"error\":{\"message\":\"m\"},\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n"
            .to_owned(),
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}\n\n".to_owned(),
        ": comment\n\n".to_owned(),
        [MESSAGES, MESSAGES_END].concat(),
    ] {
        let mut stream = Stream::edited(4096, true);
        assert_eq!(seen(&mut stream, &[text.as_bytes()]), text);
        assert_eq!(stream.hidden(), 0);
    }
}

#[test]
fn an_untouched_chunk_is_not_copied() {
    let mut stream = Stream::edited(4096, true);
    assert_eq!(
        stream.feed(chunk("{}", "null", "").as_bytes()),
        Output::Pass
    );
    assert_eq!(stream.feed(b"data: {\"ch"), Output::Replace(Vec::new()));
}

#[test]
fn a_large_event_is_counted_and_passes() {
    let large = "x".repeat(10_000);
    let text = [
        &chunk(
            &format!("{{\"content\":\"{large}\"}}"),
            "null",
            ",\"usage\":null",
        ),
        USAGE,
        DONE,
    ]
    .concat();
    let mut stream = Stream::edited(300, true);
    let chunks: Vec<&[u8]> = text.as_bytes().chunks(100).collect();
    assert_eq!(seen(&mut stream, &chunks), text.replace(USAGE, ""));
    assert_eq!((stream.too_large(), stream.answer().text()), (1, 10_000));
    assert_eq!(counts(&stream), (Some(9), Some(12)));
}

/// The events of a stream: name, and data as JSON or text.
fn events(text: &str) -> Vec<(String, serde_json::Value)> {
    text.split_terminator("\n\n")
        .map(|event| {
            let (name, data) = match event.split_once('\n') {
                Some((name, data)) => (name.strip_prefix("event: ").unwrap(), data),
                None => ("", event),
            };
            let data = data.strip_prefix("data: ").unwrap();
            let data = serde_json::from_str(data).unwrap_or_else(|_| data.into());
            (name.to_owned(), data)
        })
        .collect()
}

/// What a cut adds behind this beginning of a stream.
fn cut(begun: &str, api: Api) -> Vec<(String, serde_json::Value)> {
    let mut stream = Stream::edited(4096, false);
    assert_eq!(stream.feed(begun.as_bytes()), Output::Pass);
    let end = stream.cut(api, 42);
    assert!(stream.is_cut());
    assert!(stream.cut(api, 42).is_empty(), "it is cut once");
    events(&String::from_utf8(end).unwrap())
}

#[test]
fn a_chat_stream_ends_at_its_limit_with_length_and_done() {
    let begun = [
        chunk("{\"content\":\"a\"}", "null", ""),
        chunk("{\"content\":\"a\"}", "null", "").replace("\"index\":0", "\"index\":2"),
        chunk("{}", "\"stop\"", "").replace("\"index\":0", "\"index\":1"),
    ]
    .concat();
    let end = cut(&begun, Api::Chat);
    let choice = |index: u32| {
        serde_json::json!({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1764000000,"model":"gpt-4.1",
            "choices":[{"index":index,"delta":{},"logprobs":null,"finish_reason":"length"}]})
    };
    assert_eq!(
        end,
        [
            (String::new(), choice(0)),
            (String::new(), choice(2)),
            (String::new(), "[DONE]".into())
        ]
    );
}

#[test]
fn an_anthropic_stream_ends_with_max_tokens() {
    let end = cut(MESSAGES, Api::Messages);
    let names: Vec<_> = end.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["content_block_stop", "message_delta", "message_stop"]
    );
    assert!(end.iter().all(|(name, data)| data["type"] == name.as_str()));
    assert_eq!(end[0].1["index"], 1);
    assert_eq!(end[1].1["delta"]["stop_reason"], "max_tokens");
    assert_eq!(end[1].1["usage"]["output_tokens"], 42);
}

#[test]
fn a_response_ends_incomplete() {
    let end = cut(RESPONSES, Api::Responses);
    assert_eq!(end.len(), 1);
    let (name, data) = &end[0];
    assert_eq!(
        (name.as_str(), &data["sequence_number"]),
        ("response.incomplete", &3.into())
    );
    assert_eq!(data["response"]["id"], "resp_1");
    assert_eq!(data["response"]["created_at"], 1764000000);
    assert_eq!(
        data["response"]["incomplete_details"]["reason"],
        "max_output_tokens"
    );
}

#[test]
fn a_gemini_stream_ends_with_max_tokens() {
    let begun = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}],\"modelVersion\":\"g\"}\n\n";
    let end = cut(begun, Api::Generate);
    assert_eq!(end[0].1["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(end[0].1["modelVersion"], "g");
}

#[test]
fn a_cut_reads_back_as_an_answer_at_its_limit() {
    for (begun, api) in [
        (chunk("{\"content\":\"a\"}", "null", ""), Api::Chat),
        (
            "data: {\"id\":\"c\",\"object\":\"text_completion\",\"choices\":[{\"text\":\"a\",\"index\":0}]}\n\n"
                .to_owned(),
            Api::Completions,
        ),
        (MESSAGES.to_owned(), Api::Messages),
        (RESPONSES.to_owned(), Api::Responses),
    ] {
        let mut stream = Stream::edited(4096, false);
        let _ = stream.feed(begun.as_bytes());
        let end = String::from_utf8(stream.cut(api, 7)).unwrap();
        let back = watched(&(begun + &end));
        assert!(back.is_complete(), "{end}");
        assert_eq!(back.answer().finish(), Some(Finish::Length), "{end}");
        assert_eq!(back.answer().unreadable(), 0);
    }
}

#[test]
fn after_a_cut_the_rest_is_charged_and_not_shown() {
    let text = chat("", USAGE);
    let first = chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null", "");
    let mut stream = Stream::edited(4096, false);
    let _ = stream.feed(first.as_bytes());
    assert!(!stream.cut(Api::Chat, 1).is_empty());
    assert_eq!(seen(&mut stream, &[&text.as_bytes()[first.len()..]]), "");
    assert_eq!(counts(&stream), (Some(9), Some(12)));
}

#[test]
fn a_cut_inside_an_event_waits_for_its_end() {
    let text = chat("", USAGE);
    let first = chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null", "");
    let (begun, rest) = text.as_bytes().split_at(first.len() - 10);
    let mut stream = Stream::watched();
    assert_eq!(stream.feed(begun), Output::Pass);
    assert!(stream.cut(Api::Chat, 1).is_empty());
    let out = seen(&mut stream, &[rest]);
    let all = String::from_utf8_lossy(begun).into_owned() + &out;
    let end = all.strip_prefix(&first).expect("the event is whole");
    assert!(end.contains("\"length\"") && end.ends_with(DONE), "{end}");
    assert_eq!(events(end).len(), 2);
    assert_eq!(counts(&stream), (Some(9), Some(12)));
}

#[test]
fn what_can_not_be_ended_well_is_not_cut() {
    for text in [
        chat("", USAGE),
        "[{\"candidates\":[]},".to_owned(),
        String::new(),
    ] {
        let mut stream = Stream::edited(4096, false);
        let _ = stream.feed(text.as_bytes());
        assert!(stream.cut(Api::Generate, 1).is_empty());
        assert!(!stream.is_cut());
        assert_eq!(stream.feed(b"\n"), Output::Pass, "{text}");
    }
}

#[test]
fn a_block_that_has_ended_is_not_ended_again() {
    let (stop, _) = MESSAGES_END.split_once("event: message_delta").unwrap();
    let end = cut(&[MESSAGES, stop].concat(), Api::Messages);
    assert_eq!(end[0].0, "message_delta");
}

fn any_stream() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(chat(",\"usage\":null", USAGE)),
        Just(chat(",\"usage\":null", USAGE).replace('\n', "\r\n")),
        Just(format!(": hi\n\n{}", chat("", USAGE)).replace("data: ", "data:")),
        Just([MESSAGES, MESSAGES_END].concat()),
        Just(RESPONSES.to_owned()),
        Just(
            "\u{FEFF}[{\"usageMetadata\":{\"promptTokenCount\":4,\"totalTokenCount\":9}}]"
                .to_owned()
        ),
    ]
}

proptest! {
    #[test]
    fn chunks_make_no_difference(text in any_stream(), cuts in proptest::collection::vec(0usize..1200, 0..8), hold in prop_oneof![Just(0usize), Just(150), Just(4096)], hide: bool) {
        let text = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            chunks.push(&text[from..cut]);
            from = cut;
        }
        let (mut whole, mut parts) = (Stream::edited(hold, hide), Stream::edited(hold, hide));
        prop_assert_eq!(seen(&mut parts, &chunks), seen(&mut whole, &[text]));
        prop_assert_eq!(parts.answer().usage(), whole.answer().usage());
        prop_assert_eq!(parts.answer().text(), whole.answer().text());
        prop_assert_eq!(parts.is_complete(), whole.is_complete());
        prop_assert_eq!(parts.hidden(), whole.hidden());
        if !hide {
            let out = seen(&mut Stream::edited(hold, false), &chunks);
            prop_assert_eq!(out.as_bytes(), text);
        }
    }

    #[test]
    fn any_bytes_pass_a_stream_that_hides_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let chunks: Vec<&[u8]> = bytes.chunks(7).collect();
        let mut out = Vec::new();
        let mut stream = Stream::edited(50, false);
        for chunk in &chunks {
            match stream.feed(chunk) {
                Output::Pass => out.extend_from_slice(chunk),
                Output::Replace(bytes) => out.extend_from_slice(&bytes),
            }
        }
        out.extend_from_slice(&stream.end());
        prop_assert_eq!(out, bytes);
    }
}
