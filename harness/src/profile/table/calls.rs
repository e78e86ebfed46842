//! HTTP calls.

use super::Topic::Calls;
use super::{Difference, read, row, run};

pub(super) static ROWS: &[Difference] = &[
    row(
        Calls,
        "call-target-unknown",
        "a call to a name that leads nowhere",
        run("BadArgument at once"),
        run("Ok; the callback tells of a failure"),
    )
    .is(&["call_target"]),
    row(
        Calls,
        "call-target-malformed",
        "a call to `bad:host:name`",
        run("BadArgument"),
        run("a trap"),
    )
    .is(&["call_target"]),
    row(
        Calls,
        "call-without-path",
        "a call without :path",
        run("BadArgument"),
        run("a trap"),
    )
    .is(&["call_target"]),
    row(
        Calls,
        "call-phase",
        "a call in a response phase",
        run("it is made; its answer finds its stream gone or going"),
        run("a trap"),
    )
    .is(&["calls_anywhere"]),
    row(
        Calls,
        "call-in-log",
        "a call in on_log",
        run("it reaches the upstream"),
        run("a trap"),
    )
    .is(&["calls_anywhere"]),
    row(
        Calls,
        "call-then-continue",
        "a call and Continue",
        run("both happen"),
        run("the worker dies when the request ends before the answer"),
    )
    .is(&["flow"]),
    row(
        Calls,
        "call-resumes",
        "a call's answer, and no continue_stream",
        run("the request waits on"),
        run("the request goes on by itself"),
    )
    .is(&["flow"]),
    row(
        Calls,
        "call-refused",
        "a call whose connection is refused",
        run("an answer made by the host, status 503, with a body"),
        run("no headers; :dispatch_status tells of a broken connection"),
    )
    .is(&["failed_call"]),
    row(
        Calls,
        "call-timeout",
        "a call that times out",
        run("an answer made by the host, status 504, with a body"),
        run("no headers; :dispatch_status is timeout"),
    )
    .is(&["failed_call"]),
    row(
        Calls,
        "call-cut-off",
        "a call whose connection is closed without an answer",
        run("an answer made by the host, status 503, with a body"),
        run("no headers; :dispatch_status is ok"),
    )
    .is(&["failed_call"]),
    row(
        Calls,
        "call-context",
        "acting on the stream in a call's callback, before set_effective_context",
        run("BadArgument: the root context is told and in effect"),
        run("Ok: the root context is told, the stream's is in effect"),
    )
    .is(&["calls_answer_root"]),
    row(
        Calls,
        "call-body",
        "reading the request body in a call's callback",
        run("Ok: what is held"),
        run("a trap"),
    )
    .is(&["absent_body_is_empty"]),
    row(
        Calls,
        "call-headers-outside",
        "reading a call's headers outside its callback",
        run("BadArgument"),
        run("the worker dies: a segmentation fault"),
    )
    .is(&["flow"]),
    row(
        Calls,
        "call-answer",
        "a call's answer of status 404",
        run("it is an answer: status, headers, body"),
        run("it is an answer: status, headers, body"),
    ),
    row(
        Calls,
        "call-trap-elsewhere",
        "a call under way while another request's trap replaces the VM",
        run("its stream gets no callback any more and hangs"),
        run("the worker dies when the answer comes"),
    )
    .is(&["traps"]),
    row(
        Calls,
        "call-answer-without-length",
        "a call's answer without Content-Length or chunking",
        read("its body, to the end of the connection"),
        run("an empty body"),
    )
    .unobserved("no driver of this harness tells a worker how an answer was framed"),
];
