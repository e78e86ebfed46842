//! Bodies and buffers.

use super::Topic::Bodies;
use super::{Difference, row, run};

pub(super) static ROWS: &[Difference] = &[
    row(
        Bodies,
        "request-body-callbacks",
        "a chunked request body",
        run("a callback for each piece, then one with no bytes and the end"),
        run("one callback with all of it and the end"),
    )
    .is(&["flow"]),
    row(
        Bodies,
        "request-body-held",
        "Pause from the request body until its end",
        run("the callback that tells the end has all of it"),
        run("the callback that tells the end has all of it"),
    ),
    row(
        Bodies,
        "request-body-empty",
        "a POST with an empty body",
        run("no body callback"),
        run("no body callback"),
    ),
    row(
        Bodies,
        "request-body-over-buffer",
        "holding a request body larger than the host's buffer",
        run("413"),
        run("it lies in a file and can't be read; a replacement is appended to it"),
    )
    .is(&["flow"]),
    row(
        Bodies,
        "response-end",
        "the end of a response with a Content-Length in several chunks",
        run("it is told"),
        run("it is never told: count the bytes"),
    )
    .is(&["flow"]),
    row(
        Bodies,
        "response-stream",
        "a streamed response",
        run("a callback for each chunk, then one with no bytes and the end"),
        run("a callback for each chunk, then one with no bytes and the end"),
    ),
    row(
        Bodies,
        "response-held",
        "Pause from the response body until its end",
        run("the last callback has all of it"),
        run("it is held up to wasm_response_body_buffers, then goes on and can't be held again"),
    )
    .is(&["flow"]),
    row(
        Bodies,
        "buffer-offset",
        "reading a buffer from elsewhere than its start",
        run("from there; past the end Ok and nothing"),
        run("always from its start"),
    )
    .is(&["buffer_offset"]),
    row(
        Bodies,
        "buffer-replacement",
        "replacing a body by a longer one, with the old length",
        run("all of the new one"),
        run("the new one, cut to the old length"),
    )
    .is(&["buffer_replacement"]),
    row(
        Bodies,
        "content-length-request",
        "a request body made shorter, its content-length left",
        run("the upstream waits for the rest"),
        run("the upstream gets the right length"),
    )
    .is(&["content_length_follows"]),
    row(
        Bodies,
        "request-body-before-call",
        "a request body made longer, then a call that the request waits for",
        run("all of the new one"),
        run("the new one, cut to the length that the client announced"),
    )
    .is(&["length_reverts_after_call"]),
    row(
        Bodies,
        "absent-body",
        "reading the response body in the request headers",
        run("Ok and nothing"),
        run("a trap"),
    )
    .is(&["absent_body_is_empty"]),
    row(
        Bodies,
        "response-headers-in-body",
        "setting a response header in the response body, the headers being gone",
        run("BadArgument"),
        run("a trap"),
    )
    .is(&["flow"]),
];
