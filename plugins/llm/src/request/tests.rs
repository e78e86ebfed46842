use super::*;
use proptest::prelude::*;

fn read(body: &str) -> Result<Request, Refused> {
    Request::read(body.as_bytes(), &Endpoint::Unknown)
}

fn ok(body: &str) -> Request {
    read(body).unwrap_or_else(|refused| panic!("{refused}: {body}"))
}

fn prompt(body: &str) -> Prompt {
    ok(body).prompt
}

#[test]
fn a_chat_request_is_read() {
    let request = ok(
        r#"{"model":"gpt-4.1","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"caf\u00e9"}]}],
            "max_completion_tokens":100,"n":3,"stream":true,"stream_options":{"include_usage":false},"user":"u1","metadata":{"a":"b"}}"#,
    );
    assert_eq!(request.api, Api::Chat);
    assert_eq!(request.model.as_deref(), Some("gpt-4.1"));
    assert_eq!((request.stream, request.include_usage), (true, Some(false)));
    assert_eq!((request.completions, request.limit), (3, Some(100)));
    assert_eq!(
        request.prompt,
        Prompt {
            text: 9 + 5,
            messages: 2,
            ..Prompt::default()
        }
    );
}

#[test]
fn every_api_spells_its_limit_in_its_own_way() {
    for (body, api, limit) in [
        (r#"{"messages":[],"max_tokens":7}"#, Api::Chat, Some(7)),
        (
            r#"{"messages":[],"max_tokens":null,"max_completion_tokens":8}"#,
            Api::Chat,
            Some(8),
        ),
        (
            r#"{"prompt":"x","max_tokens":0}"#,
            Api::Completions,
            Some(0),
        ),
        (
            r#"{"input":"x","max_output_tokens":9,"max_tokens":1}"#,
            Api::Responses,
            Some(9),
        ),
        (
            r#"{"system":"s","messages":[],"max_tokens":10}"#,
            Api::Messages,
            Some(10),
        ),
        (
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":11}}"#,
            Api::Generate,
            Some(11),
        ),
        (
            r#"{"contents":[],"generation_config":{"max_output_tokens":12}}"#,
            Api::Generate,
            Some(12),
        ),
        (
            r#"{"input":"x","model":"text-embedding-3-small"}"#,
            Api::Embeddings,
            None,
        ),
        (
            r#"{"input":"x","model":"omni-moderation-latest"}"#,
            Api::Moderations,
            None,
        ),
        (r#"{"prompt":"x","model":"gpt-image-1"}"#, Api::Images, None),
    ] {
        let request = ok(body);
        assert_eq!((request.api, request.limit), (api, limit), "{body}");
    }
}

#[test]
fn of_two_limits_the_larger_counts() {
    assert_eq!(
        ok(r#"{"messages":[],"max_tokens":5,"max_completion_tokens":900}"#).limit,
        Some(900)
    );
    assert_eq!(
        ok(r#"{"messages":[],"max_tokens":900,"max_completion_tokens":5}"#).limit,
        Some(900)
    );
}

#[test]
fn all_completions_are_counted() {
    for (body, completions) in [
        (r#"{"prompt":"x"}"#, 1),
        (r#"{"prompt":["x","y"],"n":2,"best_of":5}"#, 10),
        (r#"{"prompt":[1,2,3]}"#, 1),
        (r#"{"prompt":[[1,2],[3]],"n":2}"#, 4),
        (r#"{"messages":[],"n":null}"#, 1),
        (
            r#"{"contents":[],"generationConfig":{"candidateCount":4}}"#,
            4,
        ),
    ] {
        assert_eq!(ok(body).completions, completions, "{body}");
    }
}

#[test]
fn the_path_is_believed_before_the_body() {
    let endpoint = Endpoint::of(b"/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse");
    let request = Request::read(br#"{"contents":[{"parts":[{"text":"hi"}]}]}"#, &endpoint).unwrap();
    assert_eq!(request.model.as_deref(), Some("gemini-2.5-flash"));
    assert!(request.stream);
    let endpoint = Endpoint::of(b"/v1/messages");
    let request = Request::read(br#"{"model":"m","messages":[]}"#, &endpoint).unwrap();
    assert_eq!(request.api, Api::Messages);
}

#[test]
fn a_body_that_decoders_read_differently_is_refused() {
    for (body, refused) in [
        ("", Refused::Empty),
        (" \n", Refused::Empty),
        ("\u{FEFF}{}", Refused::ByteOrderMark),
        ("{} {}", Refused::Trailing(3)),
        ("{\"a\":}", Refused::Syntax(5)),
        ("[]", Refused::NotAnObject),
        ("3", Refused::NotAnObject),
        ("{}", Refused::Unrecognised),
        (
            r#"{"messages":[],"model":"cheap","model":"dear"}"#,
            Refused::Duplicate("model"),
        ),
        (
            r#"{"messages":[],"model":"cheap","mod\u0065l":"dear"}"#,
            Refused::Duplicate("model"),
        ),
        (
            r#"{"messages":[],"max_tokens":1,"max_tokens":9}"#,
            Refused::Duplicate("max_tokens"),
        ),
        (
            r#"{"messages":[],"stream":false,"stream":true}"#,
            Refused::Duplicate("stream"),
        ),
        (r#"{"messages":[],"n":1,"n":9}"#, Refused::Duplicate("n")),
        (
            r#"{"messages":[],"messages":[]}"#,
            Refused::Duplicate("messages"),
        ),
        (
            r#"{"messages":[],"stream_options":{"include_usage":true,"include_usage":false}}"#,
            Refused::Duplicate("include_usage"),
        ),
        (
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#,
            Refused::Duplicate("max_output_tokens"),
        ),
        (
            r#"{"contents":[],"generationConfig":{},"generation_config":{}}"#,
            Refused::Duplicate("generation_config"),
        ),
        (
            r#"{"messages":[],"model":"cheap","Model":"dear"}"#,
            Refused::Case("model"),
        ),
        (
            r#"{"messages":[],"max_tokens":1e3}"#,
            Refused::NotACount("max_tokens"),
        ),
        (
            r#"{"messages":[],"max_tokens":10.0}"#,
            Refused::NotACount("max_tokens"),
        ),
        (
            r#"{"messages":[],"max_tokens":-1}"#,
            Refused::NotACount("max_tokens"),
        ),
        (
            r#"{"messages":[],"max_tokens":"10"}"#,
            Refused::NotACount("max_tokens"),
        ),
        (
            r#"{"messages":[],"max_tokens":2147483648}"#,
            Refused::NotACount("max_tokens"),
        ),
        (
            r#"{"messages":[],"max_tokens":[1]}"#,
            Refused::WrongType("max_tokens"),
        ),
        (r#"{"messages":[],"n":0}"#, Refused::NotACount("n")),
        (r#"{"messages":[],"model":7}"#, Refused::WrongType("model")),
        (
            r#"{"messages":[],"stream":"true"}"#,
            Refused::WrongType("stream"),
        ),
        (r#"{"messages":{}}"#, Refused::WrongType("messages")),
        (
            r#"{"messages":[],"stream_options":[]}"#,
            Refused::WrongType("stream_options"),
        ),
    ] {
        assert_eq!(
            read(body).map(|request| request.model),
            Err(refused),
            "{body}"
        );
    }
    let bytes = |body: &[u8]| Request::read(body, &Endpoint::Unknown).err();
    assert_eq!(bytes(&[0x1F, 0x8B, 8, 0]), Some(Refused::Compressed));
    assert_eq!(bytes(b"{\"model\":\"\xFF\"}"), Some(Refused::NotUtf8));
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(2000), "]".repeat(2000));
    assert_eq!(bytes(deep.as_bytes()), Some(Refused::Deep));
    let long = format!("{{\"messages\":[],\"model\":\"{}\"}}", "m".repeat(300));
    assert_eq!(bytes(long.as_bytes()), Some(Refused::WrongType("model")));
}

#[test]
fn members_of_inner_objects_are_not_the_requests_own() {
    let request = ok(
        r#"{"model":"m","messages":[{"role":"user","content":"x","model":"y","stream":true}],"metadata":{"max_tokens":9,"model":"z"}}"#,
    );
    assert_eq!(request.model.as_deref(), Some("m"));
    assert_eq!((request.stream, request.limit), (false, None));
}

#[test]
fn images_are_counted_and_their_bytes_are_not() {
    let data = "A".repeat(100_000);
    for (part, low, images) in [
        (
            format!(
                r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}","detail":"low"}}}}"#
            ),
            1,
            0,
        ),
        (
            r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}"#.to_owned(),
            0,
            1,
        ),
        (
            format!(
                r#"{{"type":"input_image","image_url":"data:image/png;base64,{data}","detail":"high"}}"#
            ),
            0,
            1,
        ),
        (
            format!(
                r#"{{"type":"image","source":{{"type":"base64","media_type":"image/jpeg","data":"{data}"}}}}"#
            ),
            0,
            1,
        ),
        (
            r#"{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}"#
                .to_owned(),
            0,
            1,
        ),
        (
            format!(
                r#"{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"image","source":{{"data":"{data}","media_type":"image/jpeg","type":"base64"}}}}]}}"#
            ),
            0,
            1,
        ),
    ] {
        let prompt = prompt(&format!(
            r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#
        ));
        assert_eq!(
            (prompt.low_images, prompt.images),
            (low, images),
            "{part:.90}"
        );
        assert!(prompt.text < 64, "{part:.90}: {prompt:?}");
        assert_eq!(prompt.unseen, None, "{part:.90}");
    }
    let prompt = prompt(&format!(
        r#"{{"contents":[{{"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}},{{"text":"hi"}}]}}]}}"#
    ));
    assert_eq!((prompt.images, prompt.text), (1, 2));
}

#[test]
fn text_that_looks_like_an_image_is_still_text() {
    let long = "word ".repeat(1000);
    for content in [
        // A tool's arguments.
        format!(
            r#"[{{"type":"tool_use","id":"t","name":"n","input":{{"source":{{"type":"base64","media_type":"image/png","data":"{long}"}}}}}}]"#
        ),
        // A document that is plain text.
        format!(
            r#"[{{"type":"document","source":{{"type":"text","media_type":"text/plain","data":"{long}"}}}}]"#
        ),
        // One that says it is both.
        format!(
            r#"[{{"type":"document","source":{{"type":"base64","type":"text","media_type":"image/png","data":"{long}"}}}}]"#
        ),
        format!(r#"[{{"type":"image_url","image_url":{{"url":"{long}"}}}}]"#),
        format!(r#"[{{"type":"text","unheard_of":"{long}"}}]"#),
        // Arrays and objects where others belong.
        format!(r#"[["{long}"]]"#),
        format!(r#"[{{"type":"image_url","image_url":["{long}"]}}]"#),
        format!(r#"[{{"type":"image","source":{{"type":["{long}"],"media_type":"image/png"}}}}]"#),
        format!(
            r#"[{{"type":"image","source":{{"url":{{"x":"{long}"}},"media_type":"image/png"}}}}]"#
        ),
    ] {
        let prompt = prompt(&format!(
            r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#
        ));
        assert!(prompt.text >= 5000, "{content:.90}: {prompt:?}");
    }
}

#[test]
fn what_the_provider_adds_is_said() {
    for (body, unseen) in [
        (
            r#"{"input":"x","previous_response_id":"resp_1"}"#,
            Unseen::History,
        ),
        (
            r#"{"input":"x","conversation":{"id":"c"}}"#,
            Unseen::History,
        ),
        (
            r#"{"input":[{"type":"item_reference","id":"i"}]}"#,
            Unseen::History,
        ),
        (r#"{"input":"x","prompt":{"id":"p"}}"#, Unseen::Template),
        (
            r#"{"contents":[],"cachedContent":"cachedContents/1"}"#,
            Unseen::CachedContent,
        ),
        (
            r#"{"input":"x","tools":[{"type":"web_search"}]}"#,
            Unseen::ServerTool,
        ),
        (
            r#"{"contents":[],"tools":[{"googleSearch":{}}]}"#,
            Unseen::ServerTool,
        ),
        (
            r#"{"messages":[],"web_search_options":{}}"#,
            Unseen::ServerTool,
        ),
        (
            r#"{"messages":[{"content":[{"type":"file","file":{"file_id":"f"}}]}]}"#,
            Unseen::File,
        ),
        (
            r#"{"messages":[{"content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}]}]}"#,
            Unseen::File,
        ),
        (
            r#"{"contents":[{"parts":[{"fileData":{"mimeType":"video/mp4","fileUri":"gs://b/v"}}]}]}"#,
            Unseen::File,
        ),
    ] {
        let prompt = prompt(body);
        assert_eq!(prompt.unseen, Some(unseen), "{body}");
        assert!(!prompt.is_text());
    }
    assert!(prompt(r#"{"messages":[{"content":"x"}],"tools":[{"type":"function"}]}"#).is_text());
}

#[test]
fn tools_and_structures_count_as_their_json() {
    let prompt = prompt(
        r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[1, 2]}],"tools":[{"type":"function"}],"response_format":{"a":1}}"#,
    );
    assert_eq!(
        prompt.tools,
        (r#"[{"type":"function"}]"#.len() + r#"{"a":1}"#.len()) as u64
    );
    assert_eq!(prompt.text, ("tool_calls".len() + "[1, 2]".len()) as u64);
}

#[test]
fn token_ids_count_one_each() {
    assert_eq!(prompt(r#"{"input":[1,2,3],"dimensions":8}"#).ids, 3);
    assert_eq!(prompt(r#"{"prompt":[[1,2],[3]]}"#).ids, 3);
}

#[test]
fn a_role_is_no_hiding_place() {
    let body = format!(
        r#"{{"messages":[{{"role":"{}","content":"x"}}]}}"#,
        "r".repeat(500)
    );
    assert_eq!(prompt(&body).text, 501);
}

#[test]
fn a_limit_is_not_lowered_to_what_the_provider_refuses() {
    for (body, least) in [
        (r#"{"messages":[]}"#, 1),
        (r#"{"input":"x"}"#, 16),
        (
            r#"{"messages":[],"thinking":{"type":"enabled","budget_tokens":2048},"max_tokens":4096}"#,
            2049,
        ),
    ] {
        assert_eq!(ok(body).least_limit(), least, "{body}");
    }
}

#[test]
fn background_responses_are_told() {
    assert!(ok(r#"{"input":"x","background":true}"#).background);
}

proptest! {
    /// No text that reaches a prompt is missed: each string is as long as it is counted, at the least.
    #[test]
    fn no_text_is_missed(texts in proptest::collection::vec("[ -~é\n]{0,40}", 1..6)) {
        let messages: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| match index % 3 {
                0 => serde_json::json!({"role": "user", "content": text}),
                1 => serde_json::json!({"role": "user", "content": [{"type": "text", "text": text}]}),
                _ => serde_json::json!({"role": "assistant", "tool_calls": [{"function": {"arguments": text}}]}),
            })
            .collect();
        let body = serde_json::json!({"messages": messages}).to_string();
        let bytes: usize = texts.iter().map(String::len).sum();
        prop_assert!(prompt(&body).text >= bytes as u64);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = Request::read(&bytes, &Endpoint::Unknown);
    }

    #[test]
    fn any_members_are_read_or_refused(
        names in proptest::collection::vec(0..members::ROOT.len(), 0..6),
        values in proptest::collection::vec(r#"1|-1|null|true|"x"|\[\]|\{\}|\[\{"content":\[\{"source":\{"data":"x"\}\}\]\}\]"#, 6)
    ) {
        let members: Vec<_> = names
            .iter()
            .zip(&values)
            .map(|(&index, value)| format!("\"{}\":{value}", members::ROOT[index].0))
            .collect();
        let _ = read(&format!("{{{}}}", members.join(",")));
    }
}
