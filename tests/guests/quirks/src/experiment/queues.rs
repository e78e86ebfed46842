use super::{Named, status, text};
use crate::host::{self, say};
use crate::stage::{Action, At, Turn, note, noted};

pub(super) const ALL: &[Named] = &[("queue-ready", queue_ready), ("queue-order", queue_order)];

fn queue_ready(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => {
            if let Ok(queue) = host::register_queue("ready") {
                note("queue", queue);
            }
        }
        At::RequestHeaders { .. } => {
            say(status(host::enqueue(noted("queue").unwrap_or(0), b"item")));
        }
        At::QueueReady(queue) => say(format_args!("ready: {}", text(host::dequeue(queue)))),
        _ => {}
    }
    Action::Continue
}

/// Registered in the stream's callback, so that no root context is told and takes the items away.
fn queue_order(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => {
            note("queue", host::register_queue("order").unwrap_or(0));
        }
        At::RequestHeaders { .. } => {
            let queue = noted("queue").unwrap_or(0);
            let _ = host::enqueue(queue, b"1");
            let _ = host::enqueue(queue, b"2");
            for _ in 0..3 {
                say(text(host::dequeue(queue)));
            }
            say(text(host::dequeue(987_654)));
        }
        _ => {}
    }
    Action::Continue
}
