use super::{Named, status, text, value};
use crate::host::{self, say};
use crate::stage::{Action, At, Turn};

pub(super) const ALL: &[Named] = &[
    ("shared-data-cas-zero", |turn| once(turn, cas_zero)),
    ("shared-data-cas-max", |turn| once(turn, cas_max)),
    ("shared-data-cas-wrong", |turn| once(turn, cas_wrong)),
    ("shared-data-removal", |turn| once(turn, removal)),
    ("shared-data-absent", |turn| once(turn, absent)),
    ("shared-data-cas-count", |turn| once(turn, cas_count)),
    ("shared-data-crc32", |turn| once(turn, crc32)),
    ("shared-data-too-large", |turn| once(turn, too_large)),
];

fn once(turn: &Turn, experiment: fn()) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        experiment();
    }
    Action::Continue
}

fn get(key: &str) -> String {
    text(host::shared(key).map(|(value, _)| value))
}

fn set(key: &str, to: &[u8], cas: u32) -> String {
    status(host::set_shared(key, Some(to), cas))
}

fn cas_zero() {
    say(set("k", b"1", 0));
    say(set("k", b"2", 0));
    say(get("k"));
}

fn cas_max() {
    say(set("k", b"1", u32::MAX));
    say(set("k", b"2", u32::MAX));
    say(get("k"));
}

fn cas_wrong() {
    say(set("k", b"1", 0));
    let cas = host::shared("k").map_or(0, |(_, cas)| cas);
    say(set("k", b"2", cas.wrapping_add(7)));
    say(set("k", b"3", cas));
    say(get("k"));
}

fn removal() {
    say(set("k", b"1", 0));
    let cas = host::shared("k").map_or(0, |(_, cas)| cas);
    say(status(host::set_shared("k", None, cas)));
    say(get("k"));
}

fn absent() {
    say(get("never"));
}

fn cas_count() {
    let cas = |key| {
        let _ = host::set_shared(key, Some(b"1"), 0);
        value(host::shared(key).map(|(_, cas)| cas))
    };
    let (first, second) = (cas("first"), cas("second"));
    say(if first == second {
        "the same"
    } else {
        "another"
    });
}

fn crc32() {
    say(set("plumless", b"1", 0));
    say(get("buckeroo"));
}

fn too_large() {
    say(set("small", b"1", 0));
    say(set("large", &vec![0; 12 << 20], 0));
    say(get("small"));
}
