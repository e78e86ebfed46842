use crate::experiment::{Experiment, row};
use crate::message::get;

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        row("shared-data-cas-zero")
            .send(get("/"))
            .envoy("Ok, Ok, 2")
            .kong("Ok, CasMismatch, 1"),
        row("shared-data-cas-max")
            .send(get("/"))
            .envoy("Ok, CasMismatch, 1")
            .kong("CasMismatch, CasMismatch, NotFound"),
        row("shared-data-cas-wrong")
            .send(get("/"))
            .everywhere("Ok, CasMismatch, Ok, 3"),
        row("shared-data-removal")
            .send(get("/"))
            .envoy("Ok, Ok, nothing")
            .kong("Ok, Ok, NotFound"),
        row("shared-data-absent")
            .send(get("/"))
            .everywhere("NotFound"),
        row("shared-data-cas-count")
            .send(get("/"))
            .envoy("another")
            .kong("the same"),
        row("shared-data-crc32")
            .send(get("/"))
            .envoy("Ok, NotFound")
            .kong("Ok, 1"),
        row("shared-data-too-large")
            .send(get("/"))
            .send(get("/"))
            .envoy("Ok, Ok, 1, Ok, Ok, 1")
            .kong("Ok, Ok, trap: \"*\" shm store: no memory"),
        row("queue-ready")
            .send(get("/"))
            .envoy("Ok, ready: item")
            .kong("does not start"),
        row("queue-order")
            .send(get("/"))
            .envoy("1, 2, Empty, NotFound")
            .kong("does not start"),
        row("counter-down")
            .send(get("/"))
            .envoy("Ok, BadArgument, BadArgument, 5")
            .kong("Ok, Ok, Ok, 3"),
        row("counter-record")
            .send(get("/"))
            .envoy("Ok, 5")
            .kong("trap: can only record gauges and histograms"),
        row("gauge-increment")
            .send(get("/"))
            .envoy("Ok, Ok, -2")
            .kong("trap: can only increment counters"),
        row("histogram-get")
            .send(get("/"))
            .envoy("Ok, BadArgument")
            .kong("Ok, trap: can't get a histogram"),
        row("metric-unknown")
            .send(get("/"))
            .envoy("NotFound")
            .kong("trap: could not find the metric of this id"),
        row("metric-name-long")
            .send(get("/"))
            .envoy("Ok")
            .kong("trap: the metric's name is too long"),
    ]
}
