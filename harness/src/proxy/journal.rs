//! What is kept of a request for the log.

use std::fmt::Display;
use std::time::Instant;

use http::{Method, request};

use super::access_log::{self, Finished};
use super::lane::Lane;

/// The longest request id that is taken from a client.
const LONGEST_REQUEST_ID: usize = 128;

/// What the log will tell of the request.
pub(super) struct Journal {
    start: Instant,
    pub(super) method: Method,
    target: String,
    pub(super) request_id: String,
    /// The status that the client got.
    pub(super) status: Option<u16>,
    /// The endpoint that was asked.
    pub(super) upstream: Option<String>,
    problem: Option<String>,
}

impl Journal {
    /// Begins with what the request's head tells.
    pub(super) fn open(head: &request::Parts) -> Self {
        let target = head.uri.path_and_query();
        Self {
            start: Instant::now(),
            method: head.method.clone(),
            target: target.map_or_else(String::new, ToString::to_string),
            request_id: request_id(head),
            status: None,
            upstream: None,
            problem: None,
        }
    }

    /// Notes what went wrong; the first reason is the one that counts.
    pub(super) fn problem(&mut self, problem: impl Display) {
        self.problem.get_or_insert_with(|| problem.to_string());
    }

    /// Counts the request and writes its line.
    pub(super) fn close(&self, lane: &Lane) {
        if let Some(status) = self.status {
            lane.counters.answered(status);
        }
        if lane.access_log {
            access_log::write(Finished {
                method: self.method.as_str(),
                target: &self.target,
                status: self.status,
                latency: self.start.elapsed(),
                request_id: &self.request_id,
                upstream: self.upstream.as_deref(),
                problem: self.problem.as_deref(),
            });
        }
    }
}

/// The client's request id if it looks like one, else a new one.
fn request_id(head: &request::Parts) -> String {
    let given = head
        .headers
        .get("x-request-id")
        .and_then(|id| id.to_str().ok());
    match given {
        Some(id) if !id.is_empty() && id.len() <= LONGEST_REQUEST_ID => id.to_owned(),
        _ => {
            let id = fastrand::u128(..);
            // A random UUID (RFC 9562, version 4). It names a request; it guards nothing.
            let (a, b, c) = (id >> 96, (id >> 80) & 0xffff, (id >> 64) & 0xfff);
            let (d, e) = ((id >> 48) & 0x3fff | 0x8000, id & 0xffff_ffff_ffff);
            format!("{a:08x}-{b:04x}-4{c:03x}-{d:04x}-{e:012x}")
        }
    }
}
