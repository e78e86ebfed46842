use super::{Named, status, text};
use crate::host::{self, Buffer, Map, say};
use crate::stage::{Action, At, Turn, count, note, noted};

pub(super) const ALL: &[Named] = &[
    ("request-body-callbacks", request_body_callbacks),
    ("request-body-held", request_body_held),
    ("request-body-empty", request_body_empty),
    ("request-body-over-buffer", request_body_over_buffer),
    ("response-end", response_end),
    ("response-stream", response_stream),
    ("response-held", response_held),
    ("buffer-offset", buffer_offset),
    ("buffer-replacement", buffer_replacement),
    ("content-length-request", content_length_request),
    ("absent-body", absent_body),
    ("response-headers-in-body", response_headers_in_body),
];

const ALL_OF_IT: usize = u32::MAX as usize;

/// How the pieces come on a real wire is chance, so only whether the end came with bytes is told.
fn request_body_callbacks(turn: &Turn) -> Action {
    match turn.at {
        At::RequestBody { end: true, len: 0 } => say("the end by itself"),
        At::RequestBody { end: true, .. } => say("the end with all"),
        _ => {}
    }
    Action::Continue
}

fn request_body_held(turn: &Turn) -> Action {
    match turn.at {
        At::RequestBody { end: true, len } => {
            say(format_args!(
                "{len}: {}",
                text(host::read(Buffer::RequestBody, 0, len))
            ));
        }
        At::RequestBody { end: false, .. } => return Action::Pause,
        _ => {}
    }
    Action::Continue
}

fn request_body_empty(turn: &Turn) -> Action {
    match turn.at {
        At::RequestBody { .. } => say("body"),
        At::Log => say("over"),
        _ => {}
    }
    Action::Continue
}

fn request_body_over_buffer(turn: &Turn) -> Action {
    match turn.at {
        At::RequestBody { end: true, .. } => {
            say(match host::read(Buffer::RequestBody, 0, ALL_OF_IT) {
                Ok(body) if !body.is_empty() => "readable".to_owned(),
                other => text(other),
            });
            say(status(host::replace(
                Buffer::RequestBody,
                0,
                ALL_OF_IT,
                b"new",
            )));
        }
        At::RequestBody { end: false, .. } => return Action::Pause,
        _ => {}
    }
    Action::Continue
}

fn response_end(turn: &Turn) -> Action {
    match turn.at {
        At::ResponseBody { len, end } => {
            note(
                "bytes",
                noted("bytes").unwrap_or(0).saturating_add(len as u32),
            );
            note("end", u32::from(end));
        }
        At::Log => {
            let told = if noted("end") == Some(1) {
                "told"
            } else {
                "not told"
            };
            say(format_args!(
                "{} bytes, end {told}",
                noted("bytes").unwrap_or(0)
            ));
        }
        _ => {}
    }
    Action::Continue
}

fn response_stream(turn: &Turn) -> Action {
    match turn.at {
        At::ResponseBody { len: 0, end: true } => {
            say(if noted("chunks").is_some() {
                "chunks, then the end by itself"
            } else {
                "the end"
            });
        }
        At::ResponseBody { .. } => {
            count("chunks");
        }
        _ => {}
    }
    Action::Continue
}

fn response_held(turn: &Turn) -> Action {
    if let At::ResponseBody { len, end } = turn.at {
        note("most", noted("most").unwrap_or(0).max(len as u32));
        if !end {
            return Action::Pause;
        }
    }
    if turn.at == At::Log {
        say(noted("most").unwrap_or(0));
    }
    Action::Continue
}

/// The end may come by itself: the body is read with its bytes.
fn buffer_offset(turn: &Turn) -> Action {
    match turn.at {
        At::RequestBody { end: true, .. } => {
            say(text(host::read(Buffer::RequestBody, 2, 2)));
            say(text(host::read(Buffer::RequestBody, 100, 2)));
        }
        At::RequestBody { end: false, .. } => return Action::Pause,
        _ => {}
    }
    Action::Continue
}

fn buffer_replacement(turn: &Turn) -> Action {
    match turn.at {
        At::RequestHeaders { .. } => {
            let _ = host::remove_header(Map::Request, "content-length");
        }
        At::RequestBody { end: true, len } => {
            say(status(host::replace(
                Buffer::RequestBody,
                0,
                len,
                b"a longer one",
            )));
        }
        At::RequestBody { end: false, .. } => return Action::Pause,
        _ => {}
    }
    Action::Continue
}

fn content_length_request(turn: &Turn) -> Action {
    match turn.at {
        At::RequestBody { end: true, .. } => {
            say(status(host::replace(
                Buffer::RequestBody,
                0,
                ALL_OF_IT,
                b"new",
            )));
        }
        At::RequestBody { end: false, .. } => return Action::Pause,
        _ => {}
    }
    Action::Continue
}

fn absent_body(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(text(host::read(Buffer::ResponseBody, 0, 100)));
    }
    Action::Continue
}

fn response_headers_in_body(turn: &Turn) -> Action {
    if let At::ResponseBody { .. } = turn.at
        && count("bodies") == 1
    {
        say(status(host::set_header(Map::Response, "x-late", b"1")));
    }
    Action::Continue
}
