use crate::experiment::{Experiment, row};
use crate::message::{Told, get};

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        row("reply-body")
            .send(get("/"))
            .client()
            .client_body()
            .envoy("Ok | 401 | \"no\"")
            .kong("Ok | 401 | \"no\\n\""),
        row("reply-duplicates")
            .send(get("/"))
            .client_header("x-twice")
            .envoy("Ok | 1+2")
            .kong("Ok | 2"),
        row("reply-twice")
            .send(get("/"))
            .client()
            .client_body()
            .envoy("Ok, Ok | 401 | \"first\"")
            .kong("Ok, trap: local response already stashed | 401 | \"first\\n\""),
        row("reply-in-response-headers")
            .told(Told::ok().body(vec![b'x'; 300]))
            .may_hang()
            .send(get("/"))
            .client()
            .client_body()
            .client_header("x-own")
            .envoy("Ok | 502 | \"no\" | 1")
            .kong("Ok | hangs | - | -"),
        row("reply-in-response-body")
            .send(get("/"))
            .client()
            .envoy("Ok | cut")
            .kong("trap: response already sent | 200"),
        row("reply-and-others")
            .entries(&["a", "b", "c"])
            .send(get("/"))
            .client()
            .envoy("b 418, a 418, a log, b log, c log | 418")
            .kong("a 418, b 418, c 418, a log, b log, c log | 418"),
        row("late-reply-and-others")
            .may_hang()
            .entries(&["a", "b", "c"])
            .send(get("/"))
            .envoy("c 200, b 200, a log, b log, c log")
            .kong("a 200, b 200, a log, b log, c log"),
    ]
}
