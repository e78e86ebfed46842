use super::{Named, status, value};
use crate::host::{self, Kind, say};
use crate::stage::{Action, At, Turn};

pub(super) const ALL: &[Named] = &[
    ("counter-down", |turn| once(turn, counter_down)),
    ("counter-record", |turn| once(turn, counter_record)),
    ("gauge-increment", |turn| once(turn, gauge_increment)),
    ("histogram-get", |turn| once(turn, histogram_get)),
    ("metric-unknown", |turn| once(turn, metric_unknown)),
    ("metric-name-long", |turn| once(turn, metric_name_long)),
];

fn once(turn: &Turn, experiment: fn()) -> Action {
    if let At::RequestHeaders { .. } = turn.at {
        experiment();
    }
    Action::Continue
}

fn define(kind: Kind, name: &str) -> u32 {
    host::define(kind, name).unwrap_or(u32::MAX)
}

fn counter_down() {
    let counter = define(Kind::Counter, "quirks_counter_down");
    say(status(host::increment(counter, 5)));
    say(status(host::increment(counter, 0)));
    say(status(host::increment(counter, -2)));
    say(value(host::metric(counter)));
}

fn counter_record() {
    let counter = define(Kind::Counter, "quirks_counter_record");
    let _ = host::increment(counter, 2);
    say(status(host::record(counter, 3)));
    say(value(host::metric(counter)));
}

fn gauge_increment() {
    let gauge = define(Kind::Gauge, "quirks_gauge_increment");
    say(status(host::increment(gauge, 1)));
    say(status(host::increment(gauge, -3)));
    say(value(host::metric(gauge).map(u64::cast_signed)));
}

fn histogram_get() {
    let histogram = define(Kind::Histogram, "quirks_histogram_get");
    say(status(host::record(histogram, 5)));
    say(value(host::metric(histogram)));
}

/// A multiple of four claims to be a counter on hosts whose numbers tell the kind.
fn metric_unknown() {
    say(status(host::increment(4 * 98_765, 1)));
}

fn metric_name_long() {
    say(status(host::define(Kind::Counter, &"n".repeat(300))));
}
