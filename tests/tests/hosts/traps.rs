use crate::experiment::{Experiment, row};
use crate::message::{Ask, get};

fn trap() -> Ask {
    get("/").header("x-trap", "1")
}

/// A request that traps, and one after it.
fn trapped(id: &'static str) -> Experiment {
    row(id).send(trap()).send(get("/")).client()
}

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        trapped("trap-request").envoy("503 503").kong("500 200"),
        trapped("trap-response").envoy("503 503").kong("200 200"),
        trapped("trap-response-body")
            .envoy("cut 503")
            .kong("200 200"),
        trapped("trap-call-response")
            .may_hang()
            .envoy("hangs 503")
            .kong("200 200"),
        trapped("trap-log").envoy("200 503").kong("200 200"),
        trapped("trap-done")
            .envoy("200 503")
            .kong("the worker died | 200 200"),
        row("call-trap-elsewhere")
            .start(get("/").header("x-wait", "1"))
            .send(trap())
            .may_hang()
            .client()
            .envoy("503 hangs")
            .kong("the worker died | 500 cut"),
    ]
}
