use super::Named;
use crate::host::{self, Map};
use crate::stage::{Action, At, Turn, note, noted};

pub(super) const ALL: &[Named] = &[
    ("trap-request", |turn| {
        trap_at(turn, |at| matches!(at, At::RequestHeaders { .. }))
    }),
    ("trap-response", |turn| {
        trap_at(turn, |at| at == At::ResponseHeaders)
    }),
    ("trap-response-body", |turn| {
        trap_at(turn, |at| matches!(at, At::ResponseBody { .. }))
    }),
    ("trap-call-response", trap_call_response),
    ("trap-log", |turn| trap_at(turn, |at| at == At::Log)),
    ("trap-done", |turn| trap_at(turn, |at| at == At::Done)),
    ("call-trap-elsewhere", call_trap_elsewhere),
];

/// Whether the request asks for a trap: read where its headers are there, kept for the callbacks behind.
fn armed(turn: &Turn) -> bool {
    if let At::RequestHeaders { .. } = turn.at {
        note(
            "armed",
            u32::from(host::header(Map::Request, "x-trap").is_ok()),
        );
    }
    noted("armed") == Some(1)
}

fn trap_at(turn: &Turn, there: fn(At) -> bool) -> Action {
    if armed(turn) && there(turn.at) {
        host::trap();
    }
    Action::Continue
}

const ASK: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "asked")];

fn trap_call_response(turn: &Turn) -> Action {
    match turn.at {
        At::RequestHeaders { .. } if armed(turn) => {
            let _ = host::call(&turn.orders.asked, ASK, 1000);
            Action::Pause
        }
        At::CallResponse { .. } => host::trap(),
        _ => Action::Continue,
    }
}

/// `x-wait` calls an upstream that is silent for a second; `x-trap` traps meanwhile.
fn call_trap_elsewhere(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        if host::header(Map::Request, "x-wait").is_ok() {
            let _ = host::call(&turn.orders.silent, ASK, 500);
            return Action::Pause;
        }
        if armed(turn) {
            host::trap();
        }
    }
    Action::Continue
}
