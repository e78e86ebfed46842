//! The filters behind a host that keeps to nothing: no trap may come of it.

use std::sync::LazyLock;

use proptest::prelude::*;
use tollgate_tests::hostile::{Hostile, Words, ordeals};

/// What the filters look at.
const WORDS: Words = Words {
    configurations: &[],
    headers: &[
        "apikey",
        "content-type",
        ":method",
        ":path",
        "x-consumer-id",
        ":status",
        "content-length",
        "etag",
        "x_consumer_id",
    ],
    values: &[
        b"",
        b"K",
        b"\xff\xfe",
        b"Bearer K",
        b"application/json",
        b"OPTIONS",
        b"GET",
        b"POST",
        b"/x?apikey=K&a",
        b"/v1/chat/completions",
        b"5",
    ],
    body: br#"{"apikey":"K","n":1,"messages":[],"stream":true}"#,
};

const KEY_AUTH: &[&[u8]] = &[
    br#"{"host":"envoy","key_in_body":true,"hide_credentials":true,"consumers":[{"id":"1","credentials":[{"id":"c","key":"K"}]}]}"#,
    br#"{"host":"kong","key_in_body":true,"hide_credentials":true,"anonymous":"1","consumers":[{"id":"1","credentials":[{"id":"c","key":"K"}]}]}"#,
    br#"{"consumers_from":{"upstream":"u","path":"/","refresh":0.001}}"#,
    br#"{"nonsense":"#,
];

const HEADER_TRANSFORM: &[&[u8]] = &[
    br#"{"host":"envoy","sse":true,"uri_pattern":"/(.*)","request":{"http_method":"GET","remove":{"headers":["apikey"],"querystring":["a"],"body":["n"]},
        "replace":{"uri":"/$(uri_captures[1] or 'x')","headers":["host:$(headers.etag or 'h')"]},"append":{"headers":["etag:1"],"body":["apikey:1"],"querystring":["a:$(query_params.a)"]}},
        "response":{"append":{"headers":["etag:1"],"json":["n:1"]},"rename":{"headers":["etag:x-etag"]}}}"#,
    br#"{"host":"kong","compat":"kong","max_body_bytes":10,"request":{"add":{"body":["a:$(shared.x)"],"headers":["x-consumer-id:$(headers.apikey:upper())"]},
        "replace":{"uri":"/n?x","headers":["host:h"]},"rename":{"headers":["etag:apikey"]}},"response":{"remove":{"json":["n"]}}}"#,
    br#"{"large_body":"refuse","max_body_bytes":5,"when":{"models":["*"],"consumers":["a"]},"request_json":{"set":{"a.b":"$(consumer.id)"}},
        "response_json":{"remove":["n"]}}"#,
    br#"{"host":"envoy-headers-pass","request":{"replace":{"querystring":["a:1"]},"http_method":"HEAD"},"response":{"add":{"json":["a:1"]}}}"#,
];

const TOKEN_RATE_LIMIT: &[&[u8]] = &[
    br#"{"host":"envoy","minute":3,"hour":9.5,"tokens":[{"name":"a","by":["ip","header:etag","model"],"minute":100,"window_seconds":7,"limit":50},
        {"name":"b","count":"cost","by":["group","provider","path"],"window":"sliding","day":0.5}],"unknown_model_price":{"input":1,"output":2},
        "on_limit":"clamp","stream_cutoff":true,"limit_headers":["kong","openai","kong-ai"]}"#,
    br#"{"host":"kong","compat":"kong","limit_by":"header","header_name":"etag","second":1,"fault_tolerant":false,
        "tokens":[{"name":"a","count":"completion","by":["route","service"],"second":10}],"exact":true,"unmetered":"estimate","unreadable":"estimate"}"#,
    br#"{"trust_identity_headers":true,"max_counters":1,"tokens":[{"name":"a","match":{"model":"x*","headers":{"etag":"?"}},"limit":0},{"name":"b","year":1}]}"#,
    br#"{"host":"envoy","concurrency":[{"name":"a","by":["header:etag"],"limit":2,"ttl_seconds":1},{"name":"b","by":["model"],"limit":1},
        {"name":"c","match":{"headers":{"etag":"x*"}},"limit":0}],"fault_tolerant":false,
        "budget_path":"/","admin":{"path":"/x","key":"/v1/chat/completions","header":"etag"}}"#,
    br#"{"minute":1,"shadow":true,"host":"envoy-headers-pass","concurrency":[{"name":"c","limit":1}],"tokens":[{"name":"a","count":"requests","minute":1}]}"#,
    br#"{"host":"envoy","minute":3,"policy":"redis","redis":{"http":{"upstream":"u"}},"on_limit":"clamp","tokens":[{"name":"a","by":["ip"],"minute":100}]}"#,
    br#"{"host":"kong","second":1,"policy":"redis","redis":{"http":{"upstream":"u","dialect":"upstash"}},"sync_rate":0.02,"tokens":[{"name":"a","window":"sliding","minute":9}]}"#,
];

const PROBE: &[&[u8]] = &[
    br#"{"host":"envoy","hold":100,"ask":"u","response":"reverse"}"#,
    br#"{"host":"kong","hold":100,"ask":"u","ask_after_body":true,"response":"count"}"#,
    br#"{"ask":"u","response":"bracket","query":"q"}"#,
    br#"{"host":"envoy-headers-pass","hold":5,"response":"head","open":true}"#,
];

fn host(filter: &str, configurations: &'static [&'static [u8]]) -> Hostile {
    let words = Words {
        configurations,
        ..WORDS
    };
    Hostile::of(filter, words)
}

static KEY_AUTH_HOST: LazyLock<Hostile> = LazyLock::new(|| host("key_auth", KEY_AUTH));
static HEADER_TRANSFORM_HOST: LazyLock<Hostile> =
    LazyLock::new(|| host("header_transform", HEADER_TRANSFORM));
static TOKEN_RATE_LIMIT_HOST: LazyLock<Hostile> =
    LazyLock::new(|| host("token_rate_limit", TOKEN_RATE_LIMIT));
static PROBE_HOST: LazyLock<Hostile> = LazyLock::new(|| host("probe", PROBE));

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_rate_limit_survives_any_host(ordeal in ordeals()) {
        TOKEN_RATE_LIMIT_HOST.survived(&ordeal)?;
    }

    #[test]
    fn key_auth_survives_any_host(ordeal in ordeals()) {
        KEY_AUTH_HOST.survived(&ordeal)?;
    }

    #[test]
    fn header_transform_survives_any_host(ordeal in ordeals()) {
        HEADER_TRANSFORM_HOST.survived(&ordeal)?;
    }

    #[test]
    fn everything_the_kit_can_do_survives_any_host(ordeal in ordeals()) {
        PROBE_HOST.survived(&ordeal)?;
    }
}
