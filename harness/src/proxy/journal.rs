//! What is kept of a request for the log and the figures.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Version, request};
use serde_json::{Map, Value};

use super::access_log::{self, Ended, Line};
use super::counters::Finished;
use super::lane::Lane;
use super::lines;
use crate::worker::SetProperties;

/// The longest request id that is taken from a client.
const LONGEST_REQUEST_ID: usize = 128;

/// What the log will tell of the request.
pub(super) struct Journal {
    came: SystemTime,
    start: Instant,
    pub(super) method: Method,
    target: String,
    version: Version,
    client: SocketAddr,
    pub(super) request_id: String,
    /// The status that the client got.
    pub(super) status: Option<u16>,
    /// The route's name.
    pub(super) route: Option<String>,
    /// The cluster that was chosen.
    pub(super) cluster: Option<String>,
    /// The endpoint that was asked.
    pub(super) upstream: Option<String>,
    asked: Option<Instant>,
    upstream_time: Option<Duration>,
    upstream_failed: bool,
    /// Bytes of the bodies.
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) ended: Ended,
    problem: Option<String>,
}

impl Journal {
    /// Begins with what the request's head tells.
    pub(super) fn open(head: &request::Parts, client: SocketAddr) -> Self {
        let target = head.uri.path_and_query();
        Self {
            came: SystemTime::now(),
            start: Instant::now(),
            method: head.method.clone(),
            target: target.map_or_else(String::new, ToString::to_string),
            version: head.version,
            client,
            request_id: request_id(head),
            status: None,
            route: None,
            cluster: None,
            upstream: None,
            asked: None,
            upstream_time: None,
            upstream_failed: false,
            received: 0,
            sent: 0,
            ended: Ended::Complete,
            problem: None,
        }
    }

    /// Notes what went wrong; the first reason is the one that counts.
    pub(super) fn problem(&mut self, problem: impl Display) {
        self.problem.get_or_insert_with(|| problem.to_string());
    }

    /// Notes that the upstream gave no answer.
    pub(super) fn fails(&mut self, reason: impl Display) {
        self.upstream_failed = true;
        self.problem(reason);
    }

    /// Notes that the request goes to an endpoint.
    pub(super) fn asks(&mut self, endpoint: &impl Display) {
        self.upstream = Some(endpoint.to_string());
        self.asked.get_or_insert_with(Instant::now);
    }

    /// Notes that the upstream's headers are here.
    pub(super) fn hears(&mut self) {
        self.upstream_time = self.asked.map(|asked| asked.elapsed());
    }

    /// Counts the request and writes its line. `properties` is what filters set.
    pub(super) fn close(&self, lane: &Lane, properties: &SetProperties) {
        let latency = self.start.elapsed();
        lane.counters.finished(&Finished {
            status: self.status,
            latency,
            cluster: self.cluster.as_deref(),
            endpoint: self.upstream.as_deref(),
            upstream_time: self.upstream_time,
            upstream_failed: self.upstream_failed,
            received: self.received,
            sent: self.sent,
        });
        if lane.log.is_none() && !lane.counters.recent.is_watched() {
            return;
        }
        let path = self.target.split_once('?');
        let client = self.client.to_string();
        let line = Line {
            time: self.came,
            method: self.method.as_str(),
            path: path.map_or(self.target.as_str(), |(path, _)| path),
            protocol: lines::protocol(self.version),
            status: self.status,
            latency_ms: latency,
            upstream_ms: self.upstream_time,
            request_id: &self.request_id,
            client: &client,
            route: self.route.as_deref(),
            cluster: self.cluster.as_deref(),
            upstream: self.upstream.as_deref(),
            bytes_in: self.received,
            bytes_out: self.sent,
            ended: self.ended,
            problem: self.problem.as_deref(),
            fields: fields(&lane.log_fields, properties),
        };
        let text = line.text();
        if let Some(log) = &lane.log {
            log.write(text.clone());
        }
        lane.counters.recent.push(text);
    }
}

/// The values of the fields that the configuration names, as far as a filter set them.
fn fields(named: &[(String, String)], properties: &SetProperties) -> Map<String, Value> {
    named
        .iter()
        .filter_map(|(name, path)| Some((name.clone(), property(path, properties)?)))
        .collect()
}

/// A property's value by its name, or a member of the JSON that a property holds: `tollgate.identity.username` is the
/// member `username` of `tollgate.identity` unless a property has the whole name.
fn property(path: &str, properties: &SetProperties) -> Option<Value> {
    if let Some(value) = properties.get(path) {
        let text = String::from_utf8_lossy(value);
        return Some(Value::from(access_log::shortened(&text)));
    }
    let (holder, members) = path
        .match_indices('.')
        .rev()
        .find_map(|(at, _)| Some((properties.get(path.get(..at)?)?, path.get(at + 1..)?)))?;
    let document: Value = serde_json::from_slice(holder).ok()?;
    let pointer = format!("/{}", members.replace('.', "/"));
    match document.pointer(&pointer)? {
        Value::String(text) => Some(Value::from(access_log::shortened(text))),
        value @ (Value::Bool(_) | Value::Number(_)) => Some(value.clone()),
        // A list or an object could be of any size.
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_property_or_a_member_of_the_json_in_one() {
        let properties: SetProperties = [
            (
                &b"tollgate.identity"[..],
                &br#"{"username": "alice", "metadata": {"tier": 2}, "groups": ["a"]}"#[..],
            ),
            (b"kong\0ctx\0shared\0plan", b"gold"),
            (b"bytes", b"a\xff"),
        ]
        .into_iter()
        .collect();
        let value = |path: &str| property(path, &properties);
        assert_eq!(value("tollgate.identity.username"), Some("alice".into()));
        assert_eq!(value("tollgate.identity.metadata.tier"), Some(2.into()));
        assert_eq!(value("tollgate.identity.groups"), None);
        assert_eq!(value("tollgate.identity.missing"), None);
        assert_eq!(value("kong.ctx.shared.plan"), Some("gold".into()));
        assert_eq!(value("bytes"), Some("a\u{fffd}".into()));
        assert_eq!(value("missing"), None);
    }
}
