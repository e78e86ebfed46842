use super::{Named, status, text};
use crate::host::{self, Answer, Buffer, Map, say};
use crate::stage::{Action, At, Turn, note, noted};

pub(super) const ALL: &[Named] = &[
    ("call-target-unknown", call_target_unknown),
    ("call-target-malformed", call_target_malformed),
    ("call-without-path", call_without_path),
    ("call-phase", call_phase),
    ("call-in-log", call_in_log),
    ("call-then-continue", call_then_continue),
    ("call-resumes", call_resumes),
    ("call-refused", call_refused),
    ("call-timeout", call_timeout),
    ("call-cut-off", call_cut_off),
    ("call-context", call_context),
    ("call-body", call_body),
    ("call-headers-outside", call_headers_outside),
    ("call-answer", call_answer),
    ("request-body-before-call", request_body_before_call),
];

fn ask(upstream: &str, path: &str) -> Answer<()> {
    let headers = [(":method", "GET"), (":path", path), (":authority", "asked")];
    host::call(upstream, &headers, 200)
}

/// Calls from the request headers and waits, where the call was made.
fn calling(turn: &Turn, upstream: &str) -> Action {
    note("stream", turn.context);
    match ask(upstream, "/") {
        Ok(()) => Action::Pause,
        Err(status) => {
            say(status);
            Action::Continue
        }
    }
}

/// Takes the stream that waits, which the host may or may not have done itself.
fn take_stream() {
    let _ = host::act_for(noted("stream").unwrap_or(0));
}

fn go_on() {
    take_stream();
    let _ = host::go_on();
}

fn outcome(headers: usize, body: usize) -> String {
    format!(
        "{headers} headers, {}, :status {}, :dispatch_status {}",
        if body > 0 { "a body" } else { "no body" },
        text(host::header(Map::Call, ":status")),
        text(host::header(Map::Call, ":dispatch_status")),
    )
}

/// Calls, tells of the outcome and goes on.
fn call_and_tell(turn: &Turn, upstream: &str) -> Action {
    match turn.at {
        At::RequestHeaders { .. } => return calling(turn, upstream),
        At::CallResponse { headers, body } => {
            say(outcome(headers, body));
            go_on();
        }
        _ => {}
    }
    Action::Continue
}

fn call_target_unknown(turn: &Turn) -> Action {
    call_and_tell(turn, "nowhere")
}

fn call_target_malformed(turn: &Turn) -> Action {
    call_and_tell(turn, "bad:host:name")
}

fn call_without_path(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        let headers = [(":method", "GET"), (":authority", "asked")];
        say(status(host::call(&turn.orders.asked, &headers, 200)));
    }
    Action::Continue
}

fn call_phase(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at {
        say(status(ask(&turn.orders.asked, "/")));
    }
    Action::Continue
}

fn call_in_log(turn: &Turn) -> Action {
    if let At::Log = turn.at {
        say(status(ask(&turn.orders.asked, "/from-log")));
    }
    Action::Continue
}

fn call_then_continue(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(ask(&turn.orders.asked, "/")));
    }
    Action::Continue
}

/// Nobody goes on with the request but a tick, long after the answer.
fn call_resumes(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => {
            let _ = host::tick(100);
        }
        At::RequestHeaders { .. } => return calling(turn, &turn.orders.asked),
        At::CallResponse { .. } => {
            say("answered");
            note("waits", 1);
        }
        At::Tick if noted("waits") == Some(1) => {
            note("waits", 2);
            say("tick");
            go_on();
        }
        At::ResponseHeaders if noted("waits") == Some(1) => {
            note("waits", 0);
            say("went on by itself");
        }
        _ => {}
    }
    Action::Continue
}

fn call_refused(turn: &Turn) -> Action {
    call_and_tell(turn, &turn.orders.nobody)
}

fn call_timeout(turn: &Turn) -> Action {
    call_and_tell(turn, &turn.orders.silent)
}

fn call_cut_off(turn: &Turn) -> Action {
    call_and_tell(turn, &turn.orders.closing)
}

fn call_context(turn: &Turn) -> Action {
    match turn.at {
        At::RequestHeaders { .. } => return calling(turn, &turn.orders.asked),
        At::CallResponse { .. } => {
            say(if turn.context == turn.root {
                "the root's"
            } else {
                "the stream's"
            });
            say(status(host::set_header(Map::Request, "x-call", b"1")));
            go_on();
        }
        _ => {}
    }
    Action::Continue
}

fn call_body(turn: &Turn) -> Action {
    match turn.at {
        At::RequestBody { end: false, .. } => return Action::Pause,
        At::RequestBody { end: true, .. } => return calling(turn, &turn.orders.asked),
        At::CallResponse { .. } => {
            take_stream();
            say(text(host::read(Buffer::RequestBody, 0, 100)));
            go_on();
        }
        _ => {}
    }
    Action::Continue
}

fn call_headers_outside(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(text(host::header(Map::Call, ":status")));
    }
    Action::Continue
}

fn call_answer(turn: &Turn) -> Action {
    match turn.at {
        At::RequestHeaders { .. } => return calling(turn, &turn.orders.asked),
        At::CallResponse { .. } => {
            say(text(host::header(Map::Call, ":status")));
            say(text(host::header(Map::Call, "x-from")));
            say(text(host::read(Buffer::CallBody, 0, 100)));
            go_on();
        }
        _ => {}
    }
    Action::Continue
}

fn request_body_before_call(turn: &Turn) -> Action {
    match turn.at {
        At::RequestHeaders { .. } => {
            let _ = host::remove_header(Map::Request, "content-length");
        }
        At::RequestBody { end: true, len } => {
            let longer = b"a longer one";
            let all = len.max(longer.len());
            say(status(host::replace(Buffer::RequestBody, 0, all, longer)));
            return calling(turn, &turn.orders.asked);
        }
        At::RequestBody { end: false, .. } => return Action::Pause,
        At::CallResponse { .. } => go_on(),
        _ => {}
    }
    Action::Continue
}
