//! Shared data, queues, metrics.

use super::Topic::{Metrics, Queues, SharedData};
use super::{Difference, row, run};

pub(super) static ROWS: &[Difference] = &[
    row(
        SharedData,
        "shared-data-cas-zero",
        "a write with cas 0 where the key is there",
        run("it is written"),
        run("CasMismatch: 0 means `only if absent`"),
    )
    .is(&["shared_data.zero_writes_always"]),
    row(
        SharedData,
        "shared-data-cas-max",
        "a write with a cas of 4294967295",
        run("it creates an absent key; CasMismatch for a present one"),
        run("CasMismatch always"),
    )
    .is(&["shared_data.absent_is_created"]),
    row(
        SharedData,
        "shared-data-cas-wrong",
        "a write with another key's cas to a present key",
        run("CasMismatch"),
        run("CasMismatch"),
    ),
    row(
        SharedData,
        "shared-data-removal",
        "removing a key (a null value)",
        run("nothing is stored under it: reading is Ok"),
        run("it is gone: reading is NotFound"),
    )
    .is(&["shared_data.removal_deletes"]),
    row(
        SharedData,
        "shared-data-absent",
        "reading a key that was never written",
        run("NotFound"),
        run("NotFound"),
    ),
    row(
        SharedData,
        "shared-data-cas-count",
        "the cas of two keys, written once each",
        run("one counter for all keys"),
        run("1 for each"),
    )
    .is(&["shared_data.cas_per_key"]),
    row(
        SharedData,
        "shared-data-crc32",
        "two keys with the same CRC-32",
        run("two values"),
        run("one value"),
    )
    .is(&["shared_data.keys_are_crc32"]),
    row(
        SharedData,
        "shared-data-too-large",
        "a value of 12 MiB",
        run("it is written"),
        run("a trap; everything else in the zone is gone"),
    )
    .is(&["shared_data.bounded"]),
    row(
        Queues,
        "queue-ready",
        "registering a queue and putting something in",
        run("on_queue_ready of a root context that registered it"),
        run("a trap: no queue is declared"),
    )
    .is(&["flow"]),
    row(
        Queues,
        "queue-order",
        "taking out of a queue",
        run("what came first; then Empty; NotFound for an unknown queue"),
        run("a trap: no queue is declared"),
    )
    .is(&["flow"]),
    row(
        Metrics,
        "counter-down",
        "incrementing a counter by 0 or less",
        run("BadArgument"),
        run("it goes down"),
    )
    .is(&["metrics"]),
    row(
        Metrics,
        "counter-record",
        "recording a counter",
        run("it adds"),
        run("a trap"),
    )
    .is(&["metrics"]),
    row(
        Metrics,
        "gauge-increment",
        "incrementing a gauge",
        run("it adds, below zero too"),
        run("a trap"),
    )
    .is(&["metrics"]),
    row(
        Metrics,
        "histogram-get",
        "reading a histogram",
        run("BadArgument"),
        run("a trap"),
    )
    .is(&["metrics"]),
    row(
        Metrics,
        "metric-unknown",
        "using a metric that was not defined",
        run("NotFound"),
        run("a trap"),
    )
    .is(&["metrics"]),
    row(
        Metrics,
        "metric-name-long",
        "a metric's name of 300 bytes",
        run("it is defined"),
        run("a trap"),
    )
    .is(&["metrics"]),
];
