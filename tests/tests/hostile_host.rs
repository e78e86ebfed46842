//! The filters behind a host that keeps to nothing: no trap may come of it.

use std::sync::LazyLock;

use proptest::prelude::*;
use tollgate_tests::hostile::{Hostile, Words, ordeals};

/// What both filters look at.
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
        b"/x?apikey=K&a",
        b"5",
    ],
    body: br#"{"apikey":"K","n":1}"#,
};

const KEY_AUTH: &[&[u8]] = &[
    br#"{"host":"envoy","key_in_body":true,"hide_credentials":true,"consumers":[{"id":"1","credentials":[{"id":"c","key":"K"}]}]}"#,
    br#"{"host":"kong","key_in_body":true,"hide_credentials":true,"anonymous":"1","consumers":[{"id":"1","credentials":[{"id":"c","key":"K"}]}]}"#,
    br#"{"consumers_from":{"upstream":"u","path":"/","refresh":0.001}}"#,
    br#"{"nonsense":"#,
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
static PROBE_HOST: LazyLock<Hostile> = LazyLock::new(|| host("probe", PROBE));

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn key_auth_survives_any_host(ordeal in ordeals()) {
        KEY_AUTH_HOST.survived(&ordeal)?;
    }

    #[test]
    fn everything_the_kit_can_do_survives_any_host(ordeal in ordeals()) {
        PROBE_HOST.survived(&ordeal)?;
    }
}
