use crate::experiment::{Experiment, row};
use crate::message::{Told, get, post};

pub(crate) fn rows() -> Vec<Experiment> {
    vec![
        row("request-body-callbacks")
            .send(post("hello").in_chunks(&[2]))
            .envoy("the end by itself")
            .kong("the end with all"),
        row("request-body-held")
            .send(post("hello").in_chunks(&[2]))
            .upstream_body()
            .everywhere("5: hello | \"hello\""),
        row("request-body-empty").send(post("")).everywhere("over"),
        row("request-body-over-buffer")
            .send(post(vec![b'x'; 1_500_000]))
            .client()
            .upstream_body()
            .envoy("413 | -")
            .kong("NotFound, Ok | 200 | 1500003 bytes"),
        row("response-end")
            .told(Told::ok().body(vec![b'x'; 30_000]))
            .send(get("/"))
            .envoy("30000 bytes, end told")
            .kong("30000 bytes, end not told"),
        row("response-stream")
            .told(Told::ok().body(vec![b'x'; 30_000]).streamed())
            .send(get("/"))
            .everywhere("chunks, then the end by itself"),
        row("response-held")
            .told(Told::ok().body(vec![b'x'; 60_000]))
            .send(get("/"))
            .client_body()
            .envoy("60000 | 60000 bytes")
            .kong("40000 | 60000 bytes"),
        row("buffer-offset")
            .send(post("hello"))
            .envoy("ll, nothing")
            .kong("he, he"),
        row("buffer-replacement")
            .send(post("hello"))
            .upstream_body()
            .envoy("Ok | \"a longer one\"")
            .kong("Ok | \"a lon\""),
        row("content-length-request")
            .may_hang()
            .send(post("hello"))
            .client()
            .upstream_header("content-length")
            .envoy("Ok | hangs | -")
            .kong("Ok | 200 | 3"),
        row("absent-body")
            .send(get("/"))
            .envoy("nothing")
            .kong("trap: can only get response body during \"on_response_body\""),
        row("response-headers-in-body")
            .send(get("/"))
            .client()
            .envoy("BadArgument | 200")
            .kong("trap: cannot set response headers: headers already sent | 200"),
    ]
}
