use super::{Named, status};
use crate::host::{self, Map, say};
use crate::stage::{Action, At, Turn, count};

pub(super) const ALL: &[Named] = &[
    ("reply-body", reply_body),
    ("reply-duplicates", reply_duplicates),
    ("reply-twice", reply_twice),
    ("reply-in-response-headers", reply_in_response_headers),
    ("reply-in-response-body", reply_in_response_body),
    ("reply-and-others", |turn| {
        and_others(turn, |at| matches!(at, At::RequestHeaders { .. }))
    }),
    ("late-reply-and-others", |turn| {
        and_others(turn, |at| at == At::ResponseHeaders)
    }),
];

fn reply_body(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::reply(401, &[], b"no")));
        return Action::Pause;
    }
    Action::Continue
}

fn reply_duplicates(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::reply(
            401,
            &[("x-twice", "1"), ("x-twice", "2")],
            b"",
        )));
        return Action::Pause;
    }
    Action::Continue
}

fn reply_twice(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::reply(401, &[], b"first")));
        say(status(host::reply(402, &[], b"second")));
        return Action::Pause;
    }
    Action::Continue
}

fn reply_in_response_headers(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at
        && count("replies") == 1
    {
        say(status(host::reply(502, &[("x-own", "1")], b"no")));
        return Action::Pause;
    }
    Action::Continue
}

fn reply_in_response_body(turn: &Turn) -> Action {
    if let At::ResponseBody { .. } = turn.at
        && count("replies") == 1
    {
        say(status(host::reply(502, &[], b"no")));
        return Action::Pause;
    }
    Action::Continue
}

/// The entry `b` replies once; each says which response callbacks it gets.
fn and_others(turn: &Turn, there: fn(At) -> bool) -> Action {
    let name = &turn.orders.name;
    if turn.at == At::ResponseHeaders {
        let of = host::header(Map::Response, ":status").unwrap_or_default();
        say(format_args!("{name} {}", String::from_utf8_lossy(&of)));
    }
    if there(turn.at) && name == "b" && count("replies") == 1 {
        let _ = host::reply(418, &[], b"no");
        return Action::Pause;
    }
    if turn.at == At::Log {
        say(format_args!("{name} log"));
    }
    Action::Continue
}
