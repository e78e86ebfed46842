//! Any bytes as a request to an LLM: refused, or read and edited into something that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_llm::{Change, Endpoint, Limit, Request, Sizes};

fuzz_target!(|body: &[u8]| {
    for path in [
        "/v1/chat/completions",
        "/v1/messages",
        "/v1/responses",
        "/v1beta/models/m:generateContent",
        "/x",
    ] {
        let endpoint = Endpoint::of(path.as_bytes());
        let Ok(request) = Request::read(body, &endpoint) else {
            continue;
        };
        let _ = Sizes::of(&request).bound();
        let change = Change {
            limit: Limit::AtMost(7),
            include_usage: true,
        };
        if let Some(changed) = change.apply(body, &request) {
            let again = Request::read(&changed, &endpoint).expect("still a request");
            assert_eq!(again.model, request.model);
            assert!(again.limit.is_none_or(|limit| limit <= 7), "{again:?}");
        }
    }
});
