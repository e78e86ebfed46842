//! Requests and answers that go to a simulated host and to a real one.

use tollgate_harness::sim;
use tollgate_harness::wire;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: &'static str,
    target: &'static str,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    /// The body goes in chunks of these lengths, what is left as the last one.
    chunks: Option<Vec<usize>>,
    trailers: Vec<(&'static str, &'static str)>,
}

pub(crate) fn get(target: &'static str) -> Ask {
    Ask {
        method: "GET",
        target,
        headers: Vec::new(),
        body: None,
        chunks: None,
        trailers: Vec::new(),
    }
}

pub(crate) fn post(body: impl Into<Vec<u8>>) -> Ask {
    Ask {
        method: "POST",
        body: Some(body.into()),
        ..get("/")
    }
}

impl Ask {
    pub(crate) fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn in_chunks(mut self, lengths: &[usize]) -> Self {
        self.chunks = Some(lengths.to_vec());
        self
    }

    pub(crate) fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }

    pub(crate) fn method(&self) -> &str {
        self.method
    }

    pub(crate) fn to_sim(&self) -> sim::Request {
        let mut request = sim::Request::new(self.method, self.target);
        for (name, value) in &self.headers {
            request = request.header(name, value.clone());
        }
        if let Some(lengths) = &self.chunks {
            request = request
                .header("transfer-encoding", "chunked")
                .delivered_in(lengths);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        for (name, value) in &self.trailers {
            request = request.trailer(name, *value);
        }
        request
    }

    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut wire = format!(
            "{} {} HTTP/1.1\r\nhost: gateway.test\r\n",
            self.method, self.target
        )
        .into_bytes();
        for (name, value) in &self.headers {
            wire.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        let body = self.body.clone().unwrap_or_default();
        let Some(lengths) = &self.chunks else {
            if self.body.is_some() {
                wire.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
            }
            wire.extend(b"\r\n");
            wire.extend(body);
            return wire;
        };
        wire.extend(b"transfer-encoding: chunked\r\n\r\n");
        let mut rest = body.as_slice();
        for length in lengths.iter().copied().chain([usize::MAX]) {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            if !piece.is_empty() {
                wire.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                wire.extend([piece, b"\r\n"].concat());
            }
        }
        wire.extend(b"0\r\n");
        for (name, value) in &self.trailers {
            wire.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        wire.extend(b"\r\n");
        wire
    }
}

/// What the upstream answers.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    /// In three chunks and without a Content-Length.
    streamed: bool,
}

impl Told {
    pub(crate) fn ok() -> Self {
        Self {
            headers: Vec::new(),
            body: b"ok\n".to_vec(),
            streamed: false,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn streamed(mut self) -> Self {
        self.streamed = true;
        self
    }

    /// A third of the body, for three pieces.
    fn third(&self) -> usize {
        (self.body.len() / 3).max(1)
    }

    pub(crate) fn to_sim(&self) -> sim::Answer {
        let mut answer = sim::Answer::status(200);
        for (name, value) in &self.headers {
            answer = answer.header(name, *value);
        }
        if self.streamed {
            let chunks: Vec<_> = self.body.chunks(self.third()).collect();
            return answer.streamed(&chunks);
        }
        answer
            .body(self.body.clone())
            .delivered_in(&[self.third(), self.third()])
    }

    pub(crate) fn to_wire(&self) -> wire::Answer {
        wire::Answer {
            status: 200,
            headers: self.headers.iter().copied().collect(),
            body: self.body.clone().into(),
            chunked: self.streamed,
        }
    }
}
