use super::{Named, status, text};
use crate::host::{self, Map, say};
use crate::stage::{Action, At, Turn, note, noted};

pub(super) const ALL: &[Named] = &[
    ("end-on-headers", end_on_headers),
    ("headers-pause", headers_pause),
    ("headers-pause-for-body", headers_pause_for_body),
    ("response-headers-pause", response_headers_pause),
    ("headers-after-continue", headers_after_continue),
    ("whole-map", whole_map),
    ("too-many-headers", too_many_headers),
    ("empty-map", empty_map),
    ("not-utf8", not_utf8),
    ("header-case", header_case),
    ("first-of-duplicates", |turn| reads(turn, "x-twice")),
    ("path-view", |turn| reads(turn, ":path")),
    ("authority", |turn| reads(turn, ":authority")),
    ("host-header", |turn| reads(turn, "host")),
    ("path-edit", path_edit),
    ("added-request-headers", added_request_headers),
    ("absent-header-removal", absent_header_removal),
    ("request-header-removal", request_header_removal),
    ("set-duplicated-request", set_duplicated_request),
    ("set-duplicated-response", set_duplicated_response),
    ("add-builtin", add_builtin),
    ("joined-request", joined_request),
    ("refused-duplicates", refused_duplicates),
    ("joined-response", joined_response),
    ("request-trailers", request_trailers),
];

fn end_on_headers(turn: &Turn) -> Action {
    if let At::RequestHeaders { end } = turn.at {
        say(end);
    }
    Action::Continue
}

/// A tick goes on with what the headers hold.
fn headers_pause(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => {
            let _ = host::tick(50);
        }
        At::RequestHeaders { .. } => {
            note("waits", turn.context);
            return Action::Pause;
        }
        At::Tick => {
            if let Some(stream) = noted("waits").filter(|stream| *stream != 0) {
                note("waits", 0);
                say("tick");
                let _ = host::act_for(stream);
                let _ = host::go_on();
            }
        }
        At::RequestBody { end: true, .. } => say("body"),
        _ => {}
    }
    Action::Continue
}

fn headers_pause_for_body(turn: &Turn) -> Action {
    match turn.at {
        At::RequestHeaders { .. } => return Action::Pause,
        At::RequestBody { end: false, .. } => return Action::Pause,
        At::RequestBody { end: true, len } => {
            say(format_args!("body {len}"));
            say(status(host::set_header(Map::Request, "x-late", b"1")));
        }
        _ => {}
    }
    Action::Continue
}

fn response_headers_pause(turn: &Turn) -> Action {
    match turn.at {
        At::ResponseHeaders => return Action::Pause,
        At::ResponseBody { .. } if noted("late").is_none() => {
            note("late", 1);
            say(status(host::set_header(Map::Response, "x-late", b"1")));
        }
        _ => {}
    }
    Action::Continue
}

fn headers_after_continue(turn: &Turn) -> Action {
    let read = || text(host::header(Map::Request, "x-a"));
    match turn.at {
        At::ResponseHeaders => {
            say(read());
            say(match host::map(Map::Request) {
                Ok(map) if map.is_empty() => "map empty",
                Ok(_) => "map there",
                Err(_) => "no map",
            });
        }
        At::Log => say(format_args!("log {}", read())),
        _ => {}
    }
    Action::Continue
}

/// The pairs of a map in its wire form; `None` where it is broken.
fn pairs(map: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let number = |at: usize| {
        let bytes = map.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let mut rest = map;
    let mut take = |len: usize| {
        let (taken, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(taken.to_vec())
    };
    let count = number(0)?;
    take(count.checked_mul(8)?.checked_add(4)?)?;
    let mut pairs = Vec::new();
    for index in 0..count {
        let name = take(number(4 + index * 8)?)?;
        take(1)?;
        let value = take(number(8 + index * 8)?)?;
        take(1)?;
        pairs.push((name, value));
    }
    Some(pairs)
}

fn request_pairs() -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    pairs(&host::map(Map::Request).ok()?)
}

/// The client sends x-0, x-1, ...
fn whole_map(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        let map = request_pairs().unwrap_or_default();
        let there = |name: &[u8]| map.iter().any(|(known, _)| known == name);
        say(if there(b"x-96") { "all" } else { "not all" });
    }
    Action::Continue
}

fn too_many_headers(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(match request_pairs() {
            Some(_) => "a map",
            None => "a broken map",
        });
    }
    Action::Continue
}

fn empty_map(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at {
        say(match host::map(Map::ResponseTrailers) {
            Ok(map) => format!("{} bytes", map.len()),
            Err(status) => status.to_string(),
        });
    }
    Action::Continue
}

fn not_utf8(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        let value = host::header(Map::Request, "x-odd").unwrap_or_default();
        say(format_args!("{value:?}"));
        say(status(host::set_header(Map::Request, "x-copy", &value)));
    }
    Action::Continue
}

fn header_case(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        let map = request_pairs().unwrap_or_default();
        let name = map
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(b"x-mixed"));
        say(text(Ok(name
            .map(|(name, _)| name.clone())
            .unwrap_or_default())));
    }
    Action::Continue
}

fn reads(turn: &Turn, name: &str) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(text(host::header(Map::Request, name)));
    }
    Action::Continue
}

fn path_edit(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::set_header(Map::Request, ":path", b"/new")));
    }
    Action::Continue
}

fn added_request_headers(turn: &Turn) -> Action {
    reads(turn, "x-forwarded-proto")
}

fn request_header_removal(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::remove_header(Map::Request, "x-a")));
    }
    Action::Continue
}

fn absent_header_removal(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::remove_header(Map::Request, "x-none")));
        say(status(host::remove_header(Map::Request, "cookie")));
    }
    Action::Continue
}

fn set_duplicated_request(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::set_header(Map::Request, "x-twice", b"new")));
    }
    Action::Continue
}

fn set_duplicated_response(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at {
        say(status(host::set_header(Map::Response, "x-twice", b"new")));
    }
    Action::Continue
}

fn add_builtin(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::add_header(
            Map::Request,
            "authorization",
            b"added",
        )));
    }
    Action::Continue
}

/// How many lines a map has of a name.
fn lines(map: Map, name: &[u8]) -> usize {
    let map = host::map(map).ok().and_then(|map| pairs(&map));
    let lines = map.unwrap_or_default();
    lines
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .count()
}

fn joined_request(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(format_args!("{} lines", lines(Map::Request, b"accept")));
        say(text(host::header(Map::Request, "accept")));
    }
    Action::Continue
}

fn refused_duplicates(turn: &Turn) -> Action {
    reads(turn, "authorization")
}

fn joined_response(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at {
        say(format_args!(
            "{} lines",
            lines(Map::Response, b"cache-control")
        ));
        say(text(host::header(Map::Response, "cache-control")));
    }
    Action::Continue
}

fn request_trailers(turn: &Turn) -> Action {
    if let At::RequestTrailers = turn.at {
        say(text(host::header(Map::RequestTrailers, "x-end")));
    }
    Action::Continue
}
