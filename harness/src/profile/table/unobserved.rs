//! What operators meet and no filter can observe.

use super::Topic::Operation;
use super::{Difference, read, row, run};

pub(super) static ROWS: &[Difference] = &[
    row(
        Operation,
        "reload-back-off",
        "a VM that traps again and again, with the policy `reload`",
        run(
            "a second reload within the back-off (1 s by default) is put off, and requests get 503",
        ),
        run("a new instance at once, each time"),
    )
    .unobserved("it takes a policy and time: tests of the failure policies show it"),
    row(
        Operation,
        "configuration-refused-at-start",
        "a configuration that the filter refuses",
        run("the host does not start, or rejects the update"),
        run("`nginx -t` passes, nginx starts, the worker dies and clients hang"),
    )
    .unobserved("the filter is over: its host's process shows it"),
    row(
        Operation,
        "configuration-size",
        "a large configuration",
        read("no bound"),
        run("4,096 bytes a directive"),
    )
    .unobserved("a parser of the host's own configuration sets it"),
    row(
        Operation,
        "timers-leak",
        "a trap in a filter that ticks",
        read("the dead VM's ticks end"),
        run("one more timer goes on for each instance that was replaced"),
    )
    .unobserved("not modelled: a filter that traps there is broken already"),
    row(
        Operation,
        "isolation",
        "how requests share instances",
        read("one VM a worker, always"),
        run("by `proxy_wasm_isolation`: none, stream, filter"),
    )
    .unobserved("only the default is modelled"),
    row(
        Operation,
        "shared-data-lifetime",
        "shared data when the host is reloaded",
        read("it lives as long as the process"),
        run("it is wiped"),
    )
    .unobserved("a filter starts anew with it"),
    row(
        Operation,
        "shared-data-torn",
        "reading a shared value while another worker writes it",
        read("a whole value"),
        read("it is copied after the lock is released: check length and checksum"),
    )
    .unobserved("a race of the host's memory, which this harness does not have"),
    row(
        Operation,
        "random-source",
        "random_get",
        read("the system's"),
        read("libc's random(): not for secrets"),
    )
    .unobserved("the quality of random numbers does not show in any of them"),
    row(
        Operation,
        "call-keep-alive",
        "the connections of calls",
        read("kept"),
        run("one for each call"),
    )
    .unobserved("the upstream sees it"),
    row(
        Operation,
        "call-timeout-parts",
        "what a call's timeout spans",
        read("the whole call"),
        read("connecting, sending and reading, each"),
    )
    .unobserved("no driver of this harness tells a worker which part took how long"),
    row(
        Operation,
        "metrics-page",
        "where metrics are shown",
        run("wasmcustom.<name>, labels by stats_tags"),
        read("on the page of the gateway's prometheus plugin, labels by meta.json"),
    )
    .unobserved("a filter defines metrics and does not see where they go"),
    row(
        Operation,
        "route-selection",
        "a request header that a route matches on, changed by a filter",
        run("the route is selected anew"),
        read("the route stays: filters run after the router"),
    )
    .unobserved("routes belong to the driver; the simulation has none"),
    row(
        Operation,
        "upstream-filter",
        "a filter among an upstream cluster's own",
        run("an instance for each attempt of the host's retry policy"),
        read("there is no such place"),
    )
    .unobserved("not modelled"),
    row(
        Operation,
        "one-filter-a-scope",
        "several filters set as plugins on one scope",
        read("filters run in the order written"),
        read("they run in undefined order; in a filter chain as written"),
    )
    .unobserved("the order is made before any filter runs"),
    row(
        Operation,
        "file-names",
        "the name of a module's file",
        read("any"),
        read("no hyphen, and not that of a bundled plugin"),
    )
    .unobserved("`tollgate inspect` looks at it"),
];
