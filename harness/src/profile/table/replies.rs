//! Local replies.

use super::Topic::Replies;
use super::{Difference, row, run};

pub(super) static ROWS: &[Difference] = &[
    row(
        Replies,
        "reply-body",
        "a reply from a request phase",
        run("its body as it is"),
        run("its body and a line feed"),
    )
    .is(&["reply_line_feed"]),
    row(
        Replies,
        "reply-duplicates",
        "a reply with a header twice",
        run("both go out"),
        run("the last goes out"),
    )
    .is(&["reply_duplicates"]),
    row(
        Replies,
        "reply-twice",
        "two replies in one callback",
        run("the first goes out, the second is ignored"),
        run("the first goes out, the second traps"),
    )
    .is(&["flow"]),
    row(
        Replies,
        "reply-in-response-headers",
        "a reply from on_response_headers",
        run("it replaces the upstream's answer"),
        run("its status, and its body for the first chunk; the client waits for the rest of the old length"),
    )
    .is(&["flow"]),
    row(
        Replies,
        "reply-in-response-body",
        "a reply from on_response_body, the headers being gone",
        run("the client's connection is cut"),
        run("a trap; the upstream's answer goes out"),
    )
    .is(&["flow"]),
    row(
        Replies,
        "reply-and-others",
        "a reply of the second of three filters, in the request headers",
        run("response callbacks of the first and second; on_log of all"),
        run("response callbacks and on_log of all"),
    )
    .is(&["flow"]),
    row(
        Replies,
        "late-reply-and-others",
        "a reply of the second of three filters, in the response headers",
        run("response callbacks of the filters before it on the way; on_log of all"),
        run("response callbacks of the filters up to it; on_log of all"),
    )
    .is(&["flow"]),
];
