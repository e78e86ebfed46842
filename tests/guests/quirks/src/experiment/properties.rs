use super::{Named, status, text};
use crate::host::{self, say};
use crate::stage::{Action, At, Turn, count, note, noted};

pub(super) const ALL: &[Named] = &[
    ("property-encoding", property_encoding),
    ("property-set", property_set),
    ("property-unknown", property_unknown),
    ("property-route-name", property_route_name),
    ("property-after-continue", property_after_continue),
    ("property-in-root", property_in_root),
    ("property-in-configure", property_in_configure),
];

fn property_encoding(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at {
        let code = host::property("response.code").unwrap_or_default();
        say(match code.as_slice() {
            [200, 0, 0, 0, 0, 0, 0, 0] => "8 bytes",
            b"200" => "text",
            _ => "neither",
        });
        let address = host::property("source.address").unwrap_or_default();
        say(if address.contains(&b':') {
            "with a port"
        } else {
            "without a port"
        });
    }
    Action::Continue
}

fn property_set(turn: &Turn) -> Action {
    match turn.at {
        At::RequestHeaders { .. } => say(status(host::set_property("quirks.own", b"mine"))),
        At::ResponseHeaders => {
            say(text(host::property_as_is("quirks.own")));
            say(text(host::property_as_is("filter_state\0wasm.quirks.own")));
        }
        _ => {}
    }
    Action::Continue
}

fn property_unknown(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(text(host::property("no.such.thing")));
    }
    Action::Continue
}

fn property_route_name(turn: &Turn) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        say(text(host::property("xds.route_name")));
    }
    Action::Continue
}

fn property_after_continue(turn: &Turn) -> Action {
    if let At::ResponseHeaders = turn.at {
        say(text(host::property("request.path")));
    }
    Action::Continue
}

fn property_in_root(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => {
            let _ = host::tick(10);
        }
        At::Tick if noted("read").is_none() => {
            note("read", 1);
            note("name", u32::from(host::property("plugin_name").is_ok()));
            note("path", u32::from(host::property("request.path").is_ok()));
        }
        At::RequestHeaders { .. } if noted("read").is_some() && count("said") == 1 => {
            say(format_args!(
                "name {:?}, path {:?}",
                noted("name"),
                noted("path")
            ));
        }
        _ => {}
    }
    Action::Continue
}

fn property_in_configure(turn: &Turn) -> Action {
    match turn.at {
        At::Configure => note("name", u32::from(host::property("plugin_name").is_ok())),
        At::RequestHeaders { .. } => say(format_args!("name {:?}", noted("name"))),
        _ => {}
    }
    Action::Continue
}
