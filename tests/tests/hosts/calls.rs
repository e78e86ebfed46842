use crate::experiment::{Experiment, row};
use crate::message::{get, post};

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        row("call-target-unknown").send(get("/")).envoy("BadArgument").kong("0 headers, no body, :status NotFound, :dispatch_status resolver failure"),
        row("call-target-malformed").send(get("/")).envoy("BadArgument").kong("trap: dispatch failed: invalid host or port"),
        row("call-without-path").send(get("/")).envoy("BadArgument").kong("trap: dispatch failed: no :method or :path header"),
        row("call-phase").send(get("/")).client().asked().envoy("Ok | 200 | called /").kong("trap: can only send HTTP dispatch during \"on_request_headers\", \"on_request_body\", \"on_tick\", \"on_dispatch_response\" | 200 | no call"),
        row("call-in-log").send(get("/")).client().asked().envoy("Ok | 200 | called /from-log").kong("trap: can only send HTTP dispatch during \"on_request_headers\", \"on_request_body\", \"on_tick\", \"on_dispatch_response\" | 200 | no call"),
        row("call-then-continue").send(get("/")).client().envoy("Ok | 200").kong("Ok, the worker died | cut"),
        row("call-resumes").send(get("/")).client().envoy("answered, tick | 200").kong("answered, went on by itself | 200"),
        row("call-refused").send(get("/")).envoy("3 headers, a body, :status 503, :dispatch_status NotFound").kong("0 headers, no body, :status NotFound, :dispatch_status broken connection"),
        row("call-timeout").send(get("/")).envoy("3 headers, a body, :status 504, :dispatch_status NotFound").kong("0 headers, no body, :status NotFound, :dispatch_status timeout"),
        row("call-cut-off").send(get("/")).envoy("3 headers, a body, :status 503, :dispatch_status NotFound").kong("0 headers, no body, :status NotFound, :dispatch_status ok"),
        row("call-context").send(get("/")).envoy("the root's, BadArgument").kong("the root's, Ok"),
        row("call-body").send(post("hello")).client().envoy("hello | 200").kong("trap: can only get request body during \"on_request_body\", \"on_log\" | 200"),
        row("call-headers-outside").send(get("/")).envoy("BadArgument").kong("the worker died"),
        row("request-body-before-call").send(post("hello")).upstream_body().envoy("Ok | \"a longer one\"").kong("Ok | \"a lon\""),
        row("call-answer").send(get("/")).everywhere("404, asked, answer"),
    ]
}
