//! What a scripted upstream answers, to a request or to a filter's call.

use std::time::Duration;

use bytes::Bytes;

use super::UpstreamRequest;
use crate::exchange::{CallFailure, CallOutcome, Event};
use crate::http::Headers;

/// An answer, or the failure to give one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(super) outcome: Result<Reply, CallFailure>,
    /// How long until it begins; `None`: for ever.
    pub(super) after: Option<Duration>,
}

/// An answer that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) pieces: Vec<usize>,
    pub(super) streamed: bool,
    pub(super) trailers: Headers,
    pub(super) pace: Duration,
    pub(super) end: End,
}

/// How an answer that began ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As it should.
    Proper,
    /// After so many bytes of the body nothing more comes.
    Stalls(usize),
    /// After so many bytes of the body the connection is gone.
    Breaks(usize),
}

/// What an upstream does at a moment of its script.
pub(super) enum Told {
    Event(Event),
    /// Its connection ends.
    Nothing,
}

impl Answer {
    /// An answer with a status, at once, without headers and body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            outcome: Ok(Reply::new(
                [(":status", status.to_string())].into_iter().collect(),
                Bytes::new(),
            )),
            after: Some(Duration::ZERO),
        }
    }

    /// No answer.
    #[must_use]
    pub fn failed(failure: CallFailure) -> Self {
        Self {
            outcome: Err(failure),
            after: Some(Duration::ZERO),
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(self, name: &str, value: impl Into<Bytes>) -> Self {
        self.edit(|reply| reply.headers.push(name.to_owned(), value))
    }

    /// Sets the body. A Content-Length is added when the answer is sent, unless one is given or it is streamed.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.edit(|reply| reply.body = body.into())
    }

    /// The body comes in pieces of these lengths, what is left as the last one. It keeps its Content-Length.
    #[must_use]
    pub fn delivered_in(self, pieces: &[usize]) -> Self {
        self.edit(|reply| reply.pieces = pieces.to_vec())
    }

    /// The body is sent without a Content-Length, each of `chunks` by itself, as server-sent events are.
    #[must_use]
    pub fn streamed<B: AsRef<[u8]>>(self, chunks: &[B]) -> Self {
        self.edit(|reply| {
            reply.streamed = true;
            reply.pieces = chunks.iter().map(|chunk| chunk.as_ref().len()).collect();
            reply.body = chunks
                .iter()
                .flat_map(|chunk| chunk.as_ref().iter().copied())
                .collect::<Vec<u8>>()
                .into();
        })
    }

    /// Adds a trailer line.
    #[must_use]
    pub fn trailer(self, name: &str, value: impl Into<Bytes>) -> Self {
        self.edit(|reply| reply.trailers.push(name.to_owned(), value))
    }

    /// The answer comes this much later, in virtual time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = Some(delay);
        self
    }

    /// No answer, and no failure either: the connection stays, and nothing comes.
    #[must_use]
    pub fn never() -> Self {
        Self {
            outcome: Err(CallFailure::Timeout),
            after: None,
        }
    }

    /// Each piece of the body, and the end, comes so much later than what was before, in virtual time.
    #[must_use]
    pub fn paced(self, gap: Duration) -> Self {
        self.edit(|reply| reply.pace = gap)
    }

    /// After `bytes` of the body nothing more comes, not even the end. A Content-Length is still that of the whole body.
    #[must_use]
    pub fn stalls_at(self, bytes: usize) -> Self {
        self.edit(|reply| reply.end = End::Stalls(bytes))
    }

    /// After `bytes` of the body (0: right after the headers) the connection ends: a truncated answer, a reset. A
    /// Content-Length is still that of the whole body. For a reset before the headers are complete see
    /// [`Answer::failed`].
    #[must_use]
    pub fn breaks_at(self, bytes: usize) -> Self {
        self.edit(|reply| reply.end = End::Breaks(bytes))
    }

    /// How long it takes until all is there, or until it fails; `None`: for ever.
    pub(super) fn duration(&self) -> Option<Duration> {
        let after = self.after?;
        let Ok(reply) = &self.outcome else {
            return Some(after);
        };
        match reply.end {
            End::Stalls(_) => None,
            End::Proper | End::Breaks(_) => {
                let steps = u32::try_from(reply.clone().script(false).len()).unwrap_or(u32::MAX);
                let gaps = reply.pace.saturating_mul(steps.saturating_sub(1));
                Some(after.saturating_add(gaps))
            }
        }
    }

    /// 200 with the request as JSON: method, path, headers (lower-case names, lines of one name in a list) and body.
    #[must_use]
    pub fn echo(request: &UpstreamRequest) -> Self {
        let mut headers = serde_json::Map::new();
        for (name, value) in request.headers.iter() {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let lines = headers
                .entry(name)
                .or_insert_with(|| Vec::<String>::new().into());
            if let Some(lines) = lines.as_array_mut() {
                lines.push(String::from_utf8_lossy(value).into());
            }
        }
        let body = serde_json::json!({
            "method": request.method,
            "path": request.path,
            "host": request.authority,
            "headers": headers,
            "body": String::from_utf8_lossy(&request.body),
        });
        Self::status(200)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// The answer as the end of a call.
    pub(super) fn into_outcome(self) -> CallOutcome {
        match self.outcome {
            // A call's answer is handed over whole or not at all.
            Ok(reply) if reply.end != End::Proper => CallOutcome::Failed(CallFailure::Truncated),
            Ok(reply) => {
                let trailers = reply.trailers.clone();
                let headers = reply.framed();
                CallOutcome::Response {
                    headers,
                    body: reply.body,
                    trailers,
                }
            }
            Err(failure) => CallOutcome::Failed(failure),
        }
    }

    fn edit(mut self, edit: impl FnOnce(&mut Reply)) -> Self {
        if let Ok(reply) = &mut self.outcome {
            edit(reply);
        }
        self
    }
}

impl Reply {
    pub(super) fn new(headers: Headers, body: Bytes) -> Self {
        Self {
            headers,
            body,
            pieces: Vec::new(),
            streamed: false,
            trailers: Headers::new(),
            pace: Duration::ZERO,
            end: End::Proper,
        }
    }

    /// The headers, with a Content-Length where one belongs and none is given.
    fn framed(&self) -> Headers {
        let mut headers = self.headers.clone();
        let bare = matches!(headers.get_str(":status"), Some("204" | "304"));
        let unframed = self.streamed || bare || !self.trailers.is_empty();
        if !unframed
            && !headers.contains("content-length")
            && !headers.contains("transfer-encoding")
        {
            headers.push("content-length", self.body.len().to_string());
        }
        headers
    }

    /// What the upstream does, and how long after its headers. The end comes by itself, as it does from HTTP/1 on Envoy.
    pub(super) fn script(self, head: bool) -> Vec<(Duration, Told)> {
        let headers = self.framed();
        let proper = self.end == End::Proper;
        let empty = self.body.is_empty() && !self.streamed && self.trailers.is_empty();
        let bodyless = head || (empty && proper);
        let mut told = vec![Told::Event(Event::ResponseHeaders {
            headers,
            end: bodyless,
        })];
        if !bodyless {
            let body = match self.end {
                End::Proper => self.body,
                End::Stalls(bytes) | End::Breaks(bytes) => {
                    self.body.slice(..bytes.min(self.body.len()))
                }
            };
            let chunks = pieces(body, &self.pieces).into_iter();
            told.extend(chunks.map(|chunk| Told::Event(Event::ResponseBody { chunk, end: false })));
            told.extend(match self.end {
                End::Stalls(_) => None,
                End::Breaks(_) => Some(Told::Nothing),
                End::Proper if self.trailers.is_empty() => Some(Told::Event(Event::ResponseBody {
                    chunk: Bytes::new(),
                    end: true,
                })),
                End::Proper => Some(Told::Event(Event::ResponseTrailers(self.trailers))),
            });
        }
        let times = (0u32..).map(|n| self.pace.saturating_mul(n));
        times.zip(told).collect()
    }
}

/// Cuts a body into pieces of these lengths, what is left as the last one.
pub(super) fn pieces(mut body: Bytes, lengths: &[usize]) -> Vec<Bytes> {
    let mut pieces: Vec<_> = lengths
        .iter()
        .map(|length| body.split_to((*length).min(body.len())))
        .collect();
    pieces.push(body);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

impl From<CallFailure> for Answer {
    fn from(failure: CallFailure) -> Self {
        Self::failed(failure)
    }
}
