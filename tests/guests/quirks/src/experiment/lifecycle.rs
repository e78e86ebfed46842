use super::{Named, status, text};
use crate::host::{self, Buffer, say};
use crate::stage::{Action, At, Turn, count, note, noted};

pub(super) const ALL: &[Named] = &[
    ("missing-function", missing_function),
    ("vm-start", vm_start),
    ("entries-share-a-vm", entries_share_a_vm),
    ("filter-order", filter_order),
    ("log-and-done", log_and_done),
    ("done-false", done_false),
    ("tick-again", tick_again),
    ("tick-in-stream", tick_in_stream),
    ("tick-resumes-request", tick_resumes_request),
    ("effective-context-unknown", effective_context_unknown),
    ("clock-step", clock_step),
    ("environment", environment),
    ("configuration-late", configuration_late),
    ("configuration-refused", configuration_refused),
];

fn missing_function(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::done()));
    }
    Action::Continue
}

fn vm_start(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        let times = |name| noted(name).unwrap_or(0);
        say(format_args!(
            "{} starts, {} configurations",
            times("vm starts"),
            times("configurations")
        ));
    }
    Action::Continue
}

fn entries_share_a_vm(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(format_args!("{} {}", turn.orders.name, count("requests")));
    }
    Action::Continue
}

fn filter_order(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at {
        say(&turn.orders.name);
    }
    Action::Continue
}

fn log_and_done(turn: &Turn) -> Action {
    match turn.at {
        At::Log => say("log"),
        At::Done if turn.context != turn.root => say("done"),
        _ => {}
    }
    Action::Continue
}

fn done_false(turn: &Turn) -> Action {
    match turn.at {
        At::Done if turn.context != turn.root => {
            say("not done");
            return Action::Pause;
        }
        At::Delete => say("deleted"),
        _ => {}
    }
    Action::Continue
}

/// Two ticks are noted once the period was set again.
fn tick_again(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => {
            let _ = host::tick(10);
        }
        At::Tick if count("ticks") == 1 => note("again", u32::from(host::tick(20).is_ok())),
        At::RequestHeaders { .. } if noted("ticks") > Some(2) && count("said") == 1 => {
            say(format_args!("again {}", noted("again") == Some(1)));
        }
        _ => {}
    }
    Action::Continue
}

fn tick_in_stream(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::tick(1000)));
    }
    Action::Continue
}

fn tick_resumes_request(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => {
            let _ = host::tick(10);
        }
        At::RequestHeaders { .. } => {
            note("waits", turn.context);
            return Action::Pause;
        }
        At::Tick => {
            if let Some(stream) = noted("waits").filter(|stream| *stream != 0) {
                note("waits", 0);
                say(format_args!("take {}", status(host::act_for(stream))));
                say(format_args!("go on {}", status(host::go_on())));
            }
        }
        At::ResponseHeaders => say("answered"),
        _ => {}
    }
    Action::Continue
}

fn effective_context_unknown(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(status(host::act_for(987_654)));
    }
    Action::Continue
}

/// Readings that are all within a microsecond of a whole millisecond, for longer than that, are no accident.
fn clock_step(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        let whole = (0..2000).all(|_| !(1000..999_000).contains(&(host::now() % 1_000_000)));
        say(if whole { "milliseconds" } else { "nanoseconds" });
    }
    Action::Continue
}

fn environment(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(std::env::var("QUIRK").unwrap_or_else(|_| "nothing".to_owned()));
    }
    Action::Continue
}

fn configuration_late(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(match host::read(Buffer::Configuration, 0, 10_000) {
            Ok(bytes) if !bytes.is_empty() => "there".to_owned(),
            other => text(other),
        });
    }
    Action::Continue
}

fn configuration_refused(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => Action::Pause,
        _ => Action::Continue,
    }
}
