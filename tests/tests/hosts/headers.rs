use crate::experiment::{Experiment, row};
use crate::message::{Ask, Told, get, post};

fn many(count: usize) -> Ask {
    (0..count).fold(get("/"), |ask, index| {
        ask.header(&format!("x-{index}"), "v")
    })
}

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        row("end-on-headers")
            .send(get("/"))
            .envoy("true")
            .kong("false"),
        row("headers-pause")
            .without_the_flag()
            .send(post("hello"))
            .client()
            .envoy("tick, body | 200")
            .kong("tick | hangs"),
        row("headers-pause-for-body")
            .send(post("hello"))
            .client()
            .upstream_header("x-late")
            .envoy("body 5, Ok | 200 | 1")
            .kong("hangs | -"),
        row("response-headers-pause")
            .send(get("/"))
            .client_header("x-late")
            .envoy("Ok | 1")
            .kong("trap: cannot set response headers: headers already sent | none"),
        row("headers-after-continue")
            .send(get("/").header("x-a", "1"))
            .envoy("BadArgument, map empty, log 1")
            .kong("1, map there, log 1"),
        row("whole-map").send(many(99)).envoy("all").kong("not all"),
        row("too-many-headers")
            .send(many(100))
            .client()
            .spec("a map | 200")
            .envoy("431")
            .kong("a broken map | 200"),
        row("empty-map")
            .send(get("/"))
            .envoy("0 bytes")
            .kong("BadArgument"),
        row("not-utf8")
            .send(get("/").header("x-odd", *b"a\xff"))
            .upstream_header("x-copy")
            .everywhere("[97, 255], Ok | a\u{fffd}"),
        row("header-case")
            .send(get("/").header("X-Mixed", "1"))
            .envoy("x-mixed")
            .kong("X-Mixed"),
        row("first-of-duplicates")
            .send(get("/").header("x-twice", "1").header("x-twice", "2"))
            .everywhere("1"),
        row("path-view")
            .send(get("/a%20b/../c?x=%2F"))
            .envoy("/a%20b/../c?x=%2F")
            .kong("/c?x=%2F"),
        row("path-edit")
            .send(get("/old"))
            .upstream_path()
            .envoy("Ok | /new")
            .kong("Ok | /old"),
        row("authority")
            .send(get("/"))
            .envoy("gateway.test")
            .kong("kong:8000"),
        row("host-header").send(get("/")).everywhere("gateway.test"),
        row("added-request-headers")
            .send(get("/"))
            .spec("NotFound")
            .envoy("http")
            .kong("NotFound"),
        row("absent-header-removal")
            .send(get("/"))
            .client()
            .envoy("Ok, Ok | 200")
            .kong("Ok, the worker died | cut"),
        row("request-header-removal")
            .send(get("/").header("x-a", "1"))
            .upstream_header("x-a")
            .envoy("Ok | none")
            .kong("Ok | 1"),
        row("set-duplicated-request")
            .send(get("/").header("x-twice", "1").header("x-twice", "2"))
            .upstream_header("x-twice")
            .envoy("Ok | new")
            .kong("Ok | new+2"),
        row("set-duplicated-response")
            .told(Told::ok().header("x-twice", "1").header("x-twice", "2"))
            .send(get("/"))
            .client_header("x-twice")
            .envoy("Ok | new")
            .kong("Ok | none"),
        row("add-builtin")
            .send(get("/").header("authorization", "own"))
            .upstream_header("authorization")
            .spec("Ok | own+added")
            .envoy("Ok | own,added")
            .kong("Ok | own"),
        row("joined-request")
            .send(get("/").header("accept", "1").header("accept", "2"))
            .upstream_header("accept")
            .spec("2 lines, 1 | 1+2")
            .envoy("1 lines, 1,2 | 1,2")
            .kong("2 lines, 1 | 1+2"),
        row("refused-duplicates")
            .send(
                get("/")
                    .header("authorization", "1")
                    .header("authorization", "2"),
            )
            .client()
            .spec("1 | 200")
            .envoy("1,2 | 200")
            .kong("400"),
        row("joined-response")
            .told(
                Told::ok()
                    .header("cache-control", "1")
                    .header("cache-control", "2"),
            )
            .send(get("/"))
            .client_header("cache-control")
            .spec("2 lines, 1 | 1+2")
            .envoy("1 lines, 1,2 | 1,2")
            .kong("2 lines, 1 | 1+2"),
        row("request-trailers")
            .send(post("hello").in_chunks(&[]).trailer("x-end", "1"))
            .client()
            .envoy("1 | 200")
            .kong("200"),
    ]
}
