//! What the live page is told, once a second, as server-sent events: one JSON document with totals. Whoever reads it makes
//! rates of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::Frame;
use serde_json::{Value, json};

use super::admin::Admin;
use super::body::{Filler, Piece};
use super::counters::DURATIONS;
use crate::abi::MetricKind;

/// The format's media type.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// The filters' own figures that are shown at most: labels may make many of one.
const FILTER_FIGURES: usize = 60;

/// Sends events until nobody reads them any more.
pub(super) async fn send(admin: Arc<Admin>, filler: Filler) {
    let mut seen = 0;
    loop {
        let (lines, next) = admin.counters.recent.since(seen);
        seen = next;
        let event = format!(
            "event: figures\ndata: {{\"figures\":{},\"ended\":[{}]}}\n\n",
            figures(&admin),
            lines.join(",")
        );
        let piece = Piece {
            frame: Some(Frame::data(Bytes::from(event))),
            end: false,
        };
        if filler.send(piece).await.is_err() {
            return;
        }
        tokio::select! {
            () = filler.closed() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

fn figures(admin: &Admin) -> Value {
    let counters = &admin.counters;
    let requests = counters.requests();
    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    for (status, count) in &requests.by_status {
        *classes.entry(format!("{}xx", status / 100)).or_default() += count;
    }
    let upstreams: Vec<Value> = requests
        .upstreams
        .iter()
        .map(|((cluster, endpoint), upstream)| {
            json!({
                "cluster": cluster,
                "endpoint": endpoint,
                "requests": upstream.requests,
                "failures": upstream.failures,
                "seconds": upstream.durations.sum.as_secs_f64(),
            })
        })
        .collect();
    let own: Vec<Value> = admin
        .shared
        .metrics()
        .into_iter()
        .filter(|(_, metric)| metric.kind != MetricKind::Histogram)
        .take(FILTER_FIGURES)
        .map(|(name, metric)| json!({"name": name, "value": metric.value}))
        .collect();
    let now = SystemTime::now();
    let since = now.duration_since(counters.began).unwrap_or_default();
    let at = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (generation, last_error) = {
        let state = admin.in_force.now();
        (state.generation, state.last_error.clone())
    };
    json!({
        "at": at.as_secs_f64(),
        "up_seconds": since.as_secs(),
        "state": admin.ready().1.trim(),
        "workers": admin.workers,
        "generation": generation,
        "last_error": last_error,
        "open": counters.open.load(Ordering::Relaxed),
        "requests": requests.durations.count(),
        "classes": classes,
        "bounds": DURATIONS,
        "buckets": requests.durations.buckets,
        "received": requests.received,
        "sent": requests.sent,
        "aborted": counters.aborted.load(Ordering::Relaxed),
        "unreachable": counters.unreachable.load(Ordering::Relaxed),
        "traps": counters.traps.load(Ordering::Relaxed),
        "vm_reloads": counters.reloads.load(Ordering::Relaxed),
        "callbacks": counters.callbacks.load(Ordering::Relaxed),
        "hostcalls": counters.hostcalls.load(Ordering::Relaxed),
        "vm_memory": counters.vm_memory.load(Ordering::Relaxed),
        "upstreams": upstreams,
        "filters": own,
    })
}
