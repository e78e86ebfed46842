//! One line of JSON a request. It has no header and no query: keys travel in both.
//!
//! Lines are written by a thread of their own, so that a slow disk or a stalled reader of stdout holds no request up. When
//! more lines wait than the queue takes, the newest are dropped and counted.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// Lines that wait for the disk at most.
const QUEUE: usize = 8192;

/// What is written at once at most, in bytes.
const BATCH: usize = 64 << 10;

/// How long the last lines may take when the log is closed.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The longest text in a line that is written whole, in bytes.
const LONGEST: usize = 2048;

/// What a line tells of a request.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// When the request came.
    #[serde(serialize_with = "rfc3339")]
    pub(super) time: SystemTime,
    pub(super) method: &'a str,
    /// Without the query.
    #[serde(serialize_with = "opening")]
    pub(super) path: &'a str,
    pub(super) protocol: &'a str,
    /// What the client got; null if it got no answer.
    pub(super) status: Option<u16>,
    #[serde(serialize_with = "milliseconds")]
    pub(super) latency_ms: Duration,
    /// From the request's way upstream to the answer's headers.
    #[serde(
        serialize_with = "some_milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) upstream_ms: Option<Duration>,
    #[serde(serialize_with = "opening")]
    pub(super) request_id: &'a str,
    /// IP address and port.
    pub(super) client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<&'a str>,
    /// The endpoint that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<&'a str>,
    /// Bytes of the request's body.
    pub(super) bytes_in: u64,
    /// Bytes of the answer's body.
    pub(super) bytes_out: u64,
    pub(super) ended: Ended,
    /// What went wrong on this side of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<&'a str>,
    /// What filters set and the configuration names.
    #[serde(flatten)]
    pub(super) fields: serde_json::Map<String, serde_json::Value>,
}

/// The names that a line has of its own.
pub(super) const OWN_FIELDS: [&str; 17] = [
    "time",
    "method",
    "path",
    "protocol",
    "status",
    "latency_ms",
    "upstream_ms",
    "request_id",
    "client",
    "route",
    "cluster",
    "upstream",
    "bytes_in",
    "bytes_out",
    "ended",
    "problem",
    "fields",
];

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    /// The client has a whole answer.
    #[default]
    Complete,
    /// The client went away before.
    ClientAborted,
    /// The upstream broke off in the middle of its answer.
    UpstreamAborted,
    /// The connection was cut from here.
    Cut,
}

impl Line<'_> {
    /// The line without its end.
    pub(super) fn text(&self) -> String {
        // Strings and numbers under distinct names: nothing that JSON can't hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Stdout,
    File(PathBuf),
}

/// A log that can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("access_log.path: cannot write {}: {source}", path.display())]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// An open log. Dropping it writes what waits.
#[derive(Debug)]
pub(super) struct AccessLog {
    destination: Destination,
    told: Option<SyncSender<Told>>,
    /// Tells that the writer has ended.
    ended: std::sync::Mutex<Receiver<()>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Told {
    Line(String),
    /// The file was moved away: open one of the old name.
    Reopen,
}

impl AccessLog {
    /// Opens it; `dropped` counts the lines that found no place.
    pub(super) fn open(
        destination: Destination,
        dropped: Arc<AtomicU64>,
    ) -> Result<Self, LogError> {
        let out = destination.open()?;
        let (told, lines) = sync_channel(QUEUE);
        let (end, ended) = mpsc::channel();
        let reopened = destination.clone();
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("tollgate-log".to_owned())
            .spawn(move || {
                write_all(&lines, out, &reopened, &lost);
                let _ = end.send(());
            })
            .map_err(|source| LogError {
                path: PathBuf::from("-"),
                source,
            })?;
        Ok(Self {
            destination,
            told: Some(told),
            ended: std::sync::Mutex::new(ended),
            dropped,
        })
    }

    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    pub(super) fn write(&self, line: String) {
        let sent = self
            .told
            .as_ref()
            .is_some_and(|told| told.try_send(Told::Line(line)).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Goes on in a new file of the same name.
    pub(super) fn reopen(&self) {
        if let Some(told) = &self.told {
            // Waits where the queue is full; only the writer's end makes it fail.
            let _ = told.send(Told::Reopen);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.told = None;
        if let Ok(ended) = self.ended.lock() {
            let _ = ended.recv_timeout(LAST_LINES);
        }
    }
}

impl Destination {
    fn open(&self) -> Result<Box<dyn Write + Send>, LogError> {
        match self {
            Self::Stdout => Ok(Box::new(io::stdout())),
            Self::File(path) => match File::options().append(true).create(true).open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(source) => Err(LogError {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }
}

/// Writes until nobody can say anything any more. A stdout that is gone or a full disk is no reason to stop serving.
fn write_all(
    told: &Receiver<Told>,
    mut out: Box<dyn Write + Send>,
    destination: &Destination,
    dropped: &AtomicU64,
) {
    let mut failing = false;
    while let Ok(first) = told.recv() {
        let mut batch = Vec::new();
        let (mut lines, mut reopen) = (0, false);
        for told in std::iter::once(first).chain(told.try_iter()) {
            match told {
                Told::Line(line) => {
                    batch.extend_from_slice(line.as_bytes());
                    batch.push(b'\n');
                    lines += 1;
                }
                Told::Reopen => reopen = true,
            }
            if reopen || batch.len() >= BATCH {
                break;
            }
        }
        match out.write_all(&batch).and_then(|()| out.flush()) {
            Ok(()) => failing = false,
            Err(error) => {
                dropped.fetch_add(lines, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!("the access log can't be written: {error}");
                }
            }
        }
        if reopen {
            match destination.open() {
                Ok(new) => out = new,
                Err(error) => tracing::error!("{error}: it goes on in the old file"),
            }
        }
    }
}

fn opening<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(shortened(text))
}

/// Text cut at a length that a line can have many of.
pub(super) fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST))
        .unwrap_or(text)
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

fn some_milliseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    milliseconds(&duration.unwrap_or_default(), serializer)
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    serializer.collect_str(&format_args!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
    ))
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar: years that begin in March have their leap day
/// last, and 400 of them always have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let (month, next_year) = if from_march < 10 {
        (from_march + 3, 0)
    } else {
        (from_march - 9, 1)
    };
    (
        era * 400 + year + next_year,
        month,
        day - (153 * from_march + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_780, (2026, 11, 23)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    /// Takes nothing until it is let, as a pipe does whose reader has stopped.
    struct Stalled(Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_holds_nobody_up() {
        let (told, lines) = sync_channel(QUEUE);
        let (go, stalled) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        std::thread::spawn(move || {
            write_all(
                &lines,
                Box::new(Stalled(stalled)),
                &Destination::Stdout,
                &lost,
            );
            let _ = end.send(());
        });
        let log = AccessLog {
            destination: Destination::Stdout,
            told: Some(told),
            ended: std::sync::Mutex::new(ended),
            dropped: Arc::clone(&dropped),
        };
        let many = 3 * u64::try_from(QUEUE).unwrap();
        for _ in 0..many {
            log.write("{}".to_owned());
        }
        assert!(dropped.load(Ordering::Relaxed) >= many / 3);
        drop(go);
        drop(log);
    }
}
