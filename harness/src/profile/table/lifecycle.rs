//! Starting, ticks, contexts, traps.

use super::Topic::{Lifecycle, Traps};
use super::{Difference, row, run};

pub(super) static ROWS: &[Difference] = &[
    row(
        Lifecycle,
        "log-level-import",
        "importing proxy_get_log_level",
        run("it answers the level"),
        run("the worker dies at start: the host declares it with another type"),
    )
    .is(&["fatal_import"]),
    row(
        Lifecycle,
        "missing-function",
        "calling proxy_done, close_stream, get_status, resolve_shared_queue, gRPC or an unknown foreign function",
        run("a status"),
        run("a trap"),
    )
    .is(&["missing"]),
    row(
        Lifecycle,
        "vm-start",
        "several entries of one module",
        run("one VM; on_vm_start and on_configure run for each entry"),
        run("one VM; on_vm_start and on_configure run for each entry"),
    ),
    row(
        Lifecycle,
        "entries-share-a-vm",
        "a static variable of a module with several entries",
        run("one for all entries of a worker"),
        run("one for all entries of a worker"),
    ),
    row(
        Lifecycle,
        "filter-order",
        "several filters on a response",
        run("they run in the reverse order of the request"),
        run("they run in the order of the request"),
    )
    .is(&["responses_reversed"]),
    row(
        Lifecycle,
        "log-and-done",
        "the end of a stream",
        run("on_log, then on_done"),
        run("on_done, then on_log"),
    )
    .is(&["log_before_done"]),
    row(
        Lifecycle,
        "done-false",
        "answering false from on_done of a stream",
        run("on_delete follows at once"),
        run("on_delete follows at once"),
    )
    .spec("on_delete waits for proxy_done")
    .is(&["done_waits"]),
    row(
        Lifecycle,
        "tick-again",
        "setting the tick period again",
        run("the new period counts"),
        run("a trap"),
    )
    .is(&["tick_again"]),
    row(
        Lifecycle,
        "tick-in-stream",
        "setting the tick period in a stream's callback",
        run("it is set"),
        run("a trap"),
    )
    .is(&["tick_again"]),
    row(
        Lifecycle,
        "tick-resumes-request",
        "a tick that takes a waiting stream's context and goes on with it",
        run("the request goes on"),
        run("nothing: a request that waits for no call hangs for ever"),
    )
    .is(&["effective_context"]),
    row(
        Lifecycle,
        "effective-context-unknown",
        "set_effective_context with a context that is not there",
        run("BadArgument"),
        run("Ok, and nothing changes"),
    )
    .is(&["effective_context"]),
    row(
        Lifecycle,
        "clock-step",
        "reading the time",
        run("nanoseconds"),
        run("whole milliseconds"),
    )
    .is(&["clock_step"]),
    row(
        Lifecycle,
        "environment",
        "reading the environment",
        run("what the configuration sets"),
        run("nothing of it"),
    )
    .is(&["environment"]),
    row(
        Lifecycle,
        "configuration-late",
        "reading the configuration after on_configure",
        run("NotFound"),
        run("it is there"),
    )
    .is(&["configuration_only_in_configure"]),
    row(
        Lifecycle,
        "configuration-refused",
        "answering false from on_configure",
        run("the filter does not start"),
        run("the filter does not start"),
    ),
    row(
        Traps,
        "trap-request",
        "a trap in a request phase",
        run("503; the VM is dead, and so is every later request until it is loaded again"),
        run("500; the next request has a new instance"),
    )
    .is(&["traps"]),
    row(
        Traps,
        "trap-response",
        "a trap in on_response_headers",
        run("503; the VM is dead"),
        run("the response passes unfiltered; the next request has a new instance"),
    )
    .is(&["traps"]),
    row(
        Traps,
        "trap-response-body",
        "a trap in on_response_body",
        run("the client's connection is cut; the VM is dead"),
        run("the response passes unfiltered; the next request has a new instance"),
    )
    .is(&["traps"]),
    row(
        Traps,
        "trap-call-response",
        "a trap in on_http_call_response",
        run("the request hangs; the VM is dead"),
        run("the request goes on unfiltered; the next one has a new instance"),
    )
    .is(&["traps"]),
    row(
        Traps,
        "trap-log",
        "a trap in on_log",
        run("the client has its answer; the VM is dead"),
        run("the client has its answer; the next request has a new instance"),
    )
    .is(&["traps"]),
    row(
        Traps,
        "trap-done",
        "a trap in on_done",
        run("the client has its answer; the VM is dead"),
        run("the client has its answer; the worker dies and is started again"),
    )
    .is(&["traps"]),
];
