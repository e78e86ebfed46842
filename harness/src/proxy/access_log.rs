//! One line of JSON a request, on stdout. It has no header and no query: keys travel in both.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The longest path and request id that are written whole, in bytes.
const LONGEST: usize = 2048;

/// What a line tells.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// Milliseconds since 1970-01-01 UTC, when the request came.
    time_ms: u64,
    method: &'a str,
    path: &'a str,
    /// What the client got; none if it got no answer.
    status: Option<u16>,
    latency_ms: f64,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished<'a> {
    pub(super) method: &'a str,
    /// The request target; its query is left out.
    pub(super) target: &'a str,
    pub(super) status: Option<u16>,
    pub(super) latency: Duration,
    pub(super) request_id: &'a str,
    /// The endpoint that was asked.
    pub(super) upstream: Option<&'a str>,
    /// What went wrong on this side of the upstream.
    pub(super) problem: Option<&'a str>,
}

/// Writes the line. A stdout that is gone is no reason to stop serving.
pub(super) fn write(request: Finished<'_>) {
    let came = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(request.latency);
    let path = request
        .target
        .split_once('?')
        .map_or(request.target, |(path, _)| path);
    let line = Line {
        time_ms: u64::try_from(came.as_millis()).unwrap_or(u64::MAX),
        method: request.method,
        path: opening(path),
        status: request.status,
        latency_ms: (request.latency.as_secs_f64() * 1e6).round() / 1e3,
        request_id: opening(request.request_id),
        upstream: request.upstream,
        problem: request.problem,
    };
    if let Ok(mut text) = serde_json::to_vec(&line) {
        text.push(b'\n');
        let _ = std::io::stdout().lock().write_all(&text);
    }
}

fn opening(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST))
        .unwrap_or(text)
}
