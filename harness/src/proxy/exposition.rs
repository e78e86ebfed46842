//! The figures in Prometheus' text format.
//!
//! A filter's metric is named `name;label=value;label=value`; here the labels are labels. Dots and other characters
//! that Prometheus does not take become underscores.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use super::counters::{Counters, DURATIONS, Histogram};
use super::process::Process;
use super::reload::State;
use crate::abi::MetricKind;
use crate::shared::{Metric, Shared};

/// The format's media type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of a histogram's buckets: Envoy's, so that a dashboard shows the same here and there.
const BUCKETS: [u64; 18] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// Everything that is counted.
pub(super) fn text(counters: &Counters, shared: &Shared, workers: usize, state: &State) -> String {
    let mut out = String::new();
    let mut page = Page { out: &mut out };
    page.about("tollgate_build_info", "gauge", "The version that runs.");
    page.sample(
        "tollgate_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    requests(&mut page, counters);
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let figures = [
        (
            "tollgate_requests_aborted_total",
            "Requests whose client went away before the end.",
            counted(&counters.aborted),
        ),
        (
            "tollgate_upstream_unreachable_total",
            "Requests that found no upstream.",
            counted(&counters.unreachable),
        ),
        (
            "tollgate_filter_traps_total",
            "Traps of filters.",
            counted(&counters.traps),
        ),
        (
            "tollgate_vm_reloads_total",
            "Filter VMs made anew after a trap.",
            counted(&counters.reloads),
        ),
        (
            "tollgate_filter_callbacks_total",
            "Callbacks of filters that ran.",
            counted(&counters.callbacks),
        ),
        (
            "tollgate_filter_hostcalls_total",
            "Functions of the host that filters called.",
            counted(&counters.hostcalls),
        ),
        (
            "tollgate_access_log_dropped_total",
            "Lines that the access log could not take.",
            counted(&counters.log_dropped),
        ),
    ];
    for (name, help, value) in figures {
        page.about(name, "counter", help);
        page.sample(name, &[], value);
    }
    let gauges = [
        (
            "tollgate_requests_open",
            "Requests under way.",
            counters.open.load(Ordering::Relaxed),
        ),
        (
            "tollgate_vm_memory_bytes",
            "Linear memory of the filters' VMs.",
            counters.vm_memory.load(Ordering::Relaxed),
        ),
    ];
    for (name, help, value) in gauges {
        page.about(name, "gauge", help);
        page.sample(name, &[], value);
    }
    page.about(
        "tollgate_requests_failed_total",
        "counter",
        "Requests that the proxy itself ended, by reason.",
    );
    for (reason, count) in counters.failures.counts() {
        page.sample(
            "tollgate_requests_failed_total",
            &[("reason", reason)],
            count,
        );
    }
    page.about("tollgate_workers", "gauge", "Worker threads.");
    page.sample("tollgate_workers", &[], workers);
    page.about(
        "tollgate_workers_ready",
        "gauge",
        "Worker threads whose filters are configured.",
    );
    page.sample("tollgate_workers_ready", &[], counted(&counters.ready));
    configuration(&mut page, state);
    process(&mut page, counters, Process::now());
    filters(&mut page, shared.metrics());
    out
}

fn requests(page: &mut Page<'_>, counters: &Counters) {
    let requests = counters.requests();
    page.about(
        "tollgate_requests_total",
        "counter",
        "Requests by the status that the client got.",
    );
    for (status, count) in &requests.by_status {
        page.sample(
            "tollgate_requests_total",
            &[("status", &status.to_string())],
            count,
        );
    }
    page.about(
        "tollgate_request_duration_seconds",
        "histogram",
        "From a request's headers to the end of its answer.",
    );
    page.durations(
        "tollgate_request_duration_seconds",
        &[],
        &requests.durations,
    );
    for (name, help, value) in [
        (
            "tollgate_request_body_bytes_total",
            "Bytes of bodies that clients sent.",
            requests.received,
        ),
        (
            "tollgate_response_body_bytes_total",
            "Bytes of bodies for clients.",
            requests.sent,
        ),
    ] {
        page.about(name, "counter", help);
        page.sample(name, &[], value);
    }
    let upstreams: Vec<_> = requests
        .upstreams
        .iter()
        .map(|((cluster, endpoint), upstream)| {
            let labels = [
                ("cluster", cluster.as_str()),
                ("endpoint", endpoint.as_str()),
            ];
            (labels, upstream)
        })
        .collect();
    page.about(
        "tollgate_upstream_requests_total",
        "counter",
        "Requests by the endpoint that was asked.",
    );
    for (labels, upstream) in &upstreams {
        page.sample(
            "tollgate_upstream_requests_total",
            labels,
            upstream.requests,
        );
    }
    page.about(
        "tollgate_upstream_failures_total",
        "counter",
        "Requests that the endpoint gave no answer to.",
    );
    for (labels, upstream) in &upstreams {
        page.sample(
            "tollgate_upstream_failures_total",
            labels,
            upstream.failures,
        );
    }
    page.about(
        "tollgate_upstream_duration_seconds",
        "histogram",
        "From the request's way upstream to the answer's headers.",
    );
    for (labels, upstream) in &upstreams {
        page.durations(
            "tollgate_upstream_duration_seconds",
            labels,
            &upstream.durations,
        );
    }
}

/// Under the names that Prometheus' client libraries use.
fn process(page: &mut Page<'_>, counters: &Counters, process: Process) {
    let began = counters
        .began
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    page.about(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
    );
    page.sample("process_start_time_seconds", &[], began.as_secs_f64());
    if let Some(seconds) = process.cpu_seconds {
        page.about(
            "process_cpu_seconds_total",
            "counter",
            "Processor time used, in seconds.",
        );
        page.sample("process_cpu_seconds_total", &[], seconds);
    }
    if let Some(bytes) = process.resident_bytes {
        page.about("process_resident_memory_bytes", "gauge", "Resident memory.");
        page.sample("process_resident_memory_bytes", &[], bytes);
    }
    if let Some(files) = process.open_files {
        page.about("process_open_fds", "gauge", "Open file descriptors.");
        page.sample("process_open_fds", &[], files);
    }
    if let Some(threads) = process.threads {
        page.about("process_threads", "gauge", "Threads.");
        page.sample("process_threads", &[], threads);
    }
}

fn configuration(page: &mut Page<'_>, state: &State) {
    let rows = [
        (
            "tollgate_config_generation",
            "gauge",
            "Configurations taken so far; the first is 1.",
            state.generation,
        ),
        (
            "tollgate_config_reloads_total",
            "counter",
            "Configurations taken after the first.",
            state.generation.saturating_sub(1),
        ),
        (
            "tollgate_config_reloads_failed_total",
            "counter",
            "Configurations refused while another went on.",
            state.failed,
        ),
        (
            "tollgate_config_last_reload_successful",
            "gauge",
            "Whether the last configuration that was read was taken.",
            u64::from(state.last_error.is_none()),
        ),
        (
            "tollgate_config_taken_timestamp_seconds",
            "gauge",
            "When the configuration in force was taken, in seconds since 1970.",
            state.since_unix_seconds,
        ),
    ];
    for (name, kind, help, value) in rows {
        page.about(name, kind, help);
        page.sample(name, &[], value);
    }
}

/// The filters' own, a family at a time.
fn filters(page: &mut Page<'_>, metrics: BTreeMap<String, Metric>) {
    let mut families: BTreeMap<String, Vec<(String, Metric)>> = BTreeMap::new();
    for (full_name, metric) in metrics {
        let family = plain(full_name.split(';').next().unwrap_or_default());
        families
            .entry(family)
            .or_default()
            .push((full_name, metric));
    }
    for (family, members) in families {
        let Some((_, first)) = members.first() else {
            continue;
        };
        let kind = match first.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        page.about(&family, kind, "Defined by a filter.");
        for (full_name, metric) in &members {
            let labels = labels(full_name);
            let labels: Vec<(&str, &str)> = labels
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect();
            match metric.kind {
                MetricKind::Counter | MetricKind::Gauge => {
                    page.sample(&family, &labels, metric.value)
                }
                MetricKind::Histogram => page.histogram(&family, &labels, &metric.samples),
            }
        }
    }
}

fn labels(full_name: &str) -> Vec<(String, &str)> {
    full_name
        .split(';')
        .skip(1)
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| (plain(name).replace(':', "_"), value))
        .collect()
}

/// A name that Prometheus takes.
fn plain(name: &str) -> String {
    let mut plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' || c == ':' {
                c
            } else {
                '_'
            }
        })
        .collect();
    if !plain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':') {
        plain.insert(0, '_');
    }
    plain
}

struct Page<'a> {
    out: &'a mut String,
}

impl Page<'_> {
    fn about(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.out.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(
                self.out,
                "{}{label}=\"{text}\"",
                if index == 0 { '{' } else { ',' }
            );
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
    }

    fn durations(&mut self, name: &str, labels: &[(&str, &str)], durations: &Histogram) {
        let bucket = format!("{name}_bucket");
        let bounds = DURATIONS.iter().map(ToString::to_string);
        let mut within = 0_u64;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(durations.buckets) {
            within = within.saturating_add(count);
            let labels: Vec<_> = labels
                .iter()
                .copied()
                .chain([("le", bound.as_str())])
                .collect();
            self.sample(&bucket, &labels, within);
        }
        self.sample(&format!("{name}_sum"), labels, durations.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), labels, durations.count());
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], samples: &BTreeMap<u64, u64>) {
        let count: u64 = samples.values().sum();
        let sum: u128 = samples
            .iter()
            .map(|(value, count)| u128::from(*value) * u128::from(*count))
            .sum();
        let bounds = BUCKETS.iter().map(|bound| {
            let within: u64 = samples.range(..=bound).map(|(_, count)| count).sum();
            (bound.to_string(), within)
        });
        let bucket = format!("{name}_bucket");
        for (bound, within) in bounds.chain([("+Inf".to_owned(), count)]) {
            let labels: Vec<_> = labels
                .iter()
                .copied()
                .chain([("le", bound.as_str())])
                .collect();
            self.sample(&bucket, &labels, within);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(kind: MetricKind, value: i64) -> Metric {
        Metric {
            kind,
            value,
            samples: BTreeMap::new(),
        }
    }

    fn page(metrics: impl IntoIterator<Item = (&'static str, Metric)>) -> String {
        let mut out = String::new();
        let metrics = metrics
            .into_iter()
            .map(|(name, metric)| (name.to_owned(), metric))
            .collect();
        filters(&mut Page { out: &mut out }, metrics);
        out
    }

    #[test]
    fn labels_in_a_metrics_name_become_labels_of_one_family() {
        let text = page([
            (
                "tg.req;model=gpt-4o;kind=prompt",
                metric(MetricKind::Counter, 3),
            ),
            (
                "tg.req;model=a\"b\\c;kind=prompt",
                metric(MetricKind::Counter, 4),
            ),
            ("tg.req_open", metric(MetricKind::Gauge, -1)),
        ]);
        let expected = "# HELP tg_req Defined by a filter.\n# TYPE tg_req counter\n\
                        tg_req{model=\"a\\\"b\\\\c\",kind=\"prompt\"} 4\n\
                        tg_req{model=\"gpt-4o\",kind=\"prompt\"} 3\n\
                        # HELP tg_req_open Defined by a filter.\n# TYPE tg_req_open gauge\n\
                        tg_req_open -1\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_histogram_counts_upward() {
        let samples = BTreeMap::from([(3, 2), (70, 1), (9_000_000, 1)]);
        let text = page([(
            "tg.ms;a=b",
            Metric {
                kind: MetricKind::Histogram,
                value: 0,
                samples,
            },
        )]);
        for line in [
            "tg_ms_bucket{a=\"b\",le=\"1\"} 0",
            "tg_ms_bucket{a=\"b\",le=\"5\"} 2",
            "tg_ms_bucket{a=\"b\",le=\"100\"} 3",
            "tg_ms_bucket{a=\"b\",le=\"3600000\"} 3",
            "tg_ms_bucket{a=\"b\",le=\"+Inf\"} 4",
            "tg_ms_sum{a=\"b\"} 9000076",
            "tg_ms_count{a=\"b\"} 4",
        ] {
            assert!(
                text.lines().any(|present| present == line),
                "{line} not in\n{text}"
            );
        }
    }
}
