use crate::experiment::{Experiment, row};
use crate::message::get;

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        row("property-encoding")
            .send(get("/"))
            .envoy("8 bytes, with a port")
            .kong("text, without a port"),
        row("property-set")
            .send(get("/"))
            .envoy("Ok, mine, mine")
            .kong("NotFound, NotFound, NotFound"),
        row("property-unknown")
            .send(get("/"))
            .everywhere("NotFound"),
        row("property-route-name")
            .send(get("/"))
            .envoy("nothing")
            .kong("NotFound"),
        row("property-after-continue")
            .send(get("/x"))
            .envoy("NotFound")
            .kong("/x"),
        row("property-in-root")
            .send(get("/"))
            .everywhere("name Some(1), path Some(0)"),
        row("property-in-configure")
            .send(get("/"))
            .envoy("name Some(1)")
            .kong("does not start"),
    ]
}
