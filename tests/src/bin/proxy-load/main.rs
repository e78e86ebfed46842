//! Loads a proxy and measures it. Clients, upstream and proxies share one machine: only what was measured in the same run
//! compares.
//!
//! `proxy-load compare [--rounds N] [--seconds N] [--connections N]` starts `tollgate serve` and a real Envoy, each with one
//! worker and before the same upstream, and sends to both by turns, without filters and through key-auth; prints medians.
//!
//! `proxy-load hold [--count N]` starts `tollgate serve` with one worker before the mock provider, and holds that many of its
//! streams open through key-auth.
//!
//! `proxy-load webdis [--rounds N] [--seconds N] [--connections N]` starts Redis and Webdis, with 1, 4 and 8 threads by turns, and
//! charges a counter; prints medians, and what counters take of Redis' memory.
//!
//! `proxy-load limits [--rounds N] [--seconds N] [--connections N]` starts a real Envoy with one worker, Redis and Webdis, and sends
//! through token-rate-limit with its counters here and there by turns; prints medians.
//!
//! `proxy-load rps --target HOST:PORT [--seconds N] [--connections N] [--header 'NAME: VALUE'] [--path PATH]` sends
//! requests over kept HTTP/1.1 connections, one at a time on each, and prints requests a second and latencies.
//!
//! `proxy-load streams --target HOST:PORT [--count N] [--pid PID] [--header ...] [--path PATH]` opens that many streams of
//! server-sent events, sees an event on each, waits for a second event on each while all are open, and prints the
//! resident memory of the proxy's process for each.
//!
//! `proxy-load upstream [--listen HOST:PORT]` is something to put behind the proxy: `/stream` sends an event each 10 s for
//! ever, everything else gets 2 bytes.

mod contest;
mod counters;
mod limits;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// How long a stream may take to send an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the upstream sends an event on each stream.
const PACE: Duration = Duration::from_secs(10);

/// How many streams are being opened at a time: fewer than a listener's backlog holds.
const OPENING: usize = 100;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let options = Options::read(words)?;
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    match mode.as_str() {
        "compare" => return contest::compare(&options),
        "hold" => return contest::hold(&options),
        "webdis" => return counters::measure(&options),
        "limits" => return limits::compare(&options),
        _ => {}
    }
    on_this_thread(async {
        match mode.as_str() {
            "rps" => rps(options).await,
            "streams" => streams(options).await,
            "upstream" => upstream(&options).await,
            _ => bail!("the modes are compare, hold, webdis, limits, rps, streams and upstream"),
        }
    })
}

fn on_this_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// `--name value` pairs.
struct Options(BTreeMap<String, String>);

impl Options {
    fn read(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let words: Vec<String> = words.collect();
        let mut options = BTreeMap::new();
        for pair in words.chunks(2) {
            match pair {
                [name, value] if name.starts_with("--") => {
                    options.insert(name[2..].to_owned(), value.clone());
                }
                _ => bail!("expected --name value, not {pair:?}"),
            }
        }
        Ok(Self(options))
    }

    fn text(&self, name: &str) -> anyhow::Result<String> {
        let value = self.0.get(name);
        value
            .cloned()
            .with_context(|| format!("--{name} is missing"))
    }

    fn number(&self, name: &str, default: usize) -> anyhow::Result<usize> {
        match self.0.get(name) {
            None => Ok(default),
            Some(number) => number
                .parse()
                .with_context(|| format!("--{name} is no number")),
        }
    }

    fn request(&self, path: &str) -> String {
        let path = self.0.get("path").map_or(path, String::as_str);
        let header = self
            .0
            .get("header")
            .map_or(String::new(), |header| format!("{header}\r\n"));
        format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n{header}\r\n")
    }
}

async fn rps(options: Options) -> anyhow::Result<()> {
    let (target, request) = (options.text("target")?, options.request("/v1/x"));
    let connections = options.number("connections", 32)?;
    let length = Duration::from_secs(options.number("seconds", 5)? as u64);
    let pace = measure(target, move |_| request.clone(), connections, length).await?;
    println!(
        "{:.0} requests/s, P50 {} us, P99 {} us over {connections} connections",
        pace.rate, pace.p50, pace.p99
    );
    Ok(())
}

/// How fast a proxy is.
struct Pace {
    /// How many requests were answered.
    count: usize,
    /// Requests a second.
    rate: f64,
    /// Latencies in microseconds.
    p50: u128,
    p99: u128,
}

/// The median of a figure.
fn median(paces: &[Pace], figure: impl Fn(&Pace) -> f64) -> f64 {
    let mut figures: Vec<f64> = paces.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// Sends requests, made from their numbers, over so many connections, one at a time on each.
async fn measure(
    target: String,
    request: impl Fn(u64) -> String + 'static,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Pace> {
    let (target, request): (Rc<str>, _) = (target.into(), Rc::new(request));
    let numbers = Rc::new(Cell::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (target, request) = (Rc::clone(&target), Rc::clone(&request));
            let numbers = Rc::clone(&numbers);
            tokio::task::spawn_local(async move {
                let mut stream = connect(&target).await?;
                let mut latencies = Vec::new();
                while start.elapsed() < length {
                    let request = request(numbers.get());
                    numbers.set(numbers.get() + 1);
                    let sent = Instant::now();
                    stream.write_all(request.as_bytes()).await?;
                    let (status, body) = head(&mut stream).await?;
                    ensure!(status == 200, "status {status}");
                    let length = body.context("no Content-Length")?;
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await?;
                    latencies.push(sent.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await??);
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index).map_or(0, Duration::as_micros)
    };
    Ok(Pace {
        count: latencies.len(),
        rate: latencies.len() as f64 / start.elapsed().as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
    })
}

async fn streams(options: Options) -> anyhow::Result<()> {
    let (target, request) = (options.text("target")?, options.request("/v1/stream"));
    let count = options.number("count", 10_000)?;
    hold(target, request, count, options.number("pid", 0)?).await
}

async fn hold(target: String, request: String, count: usize, pid: usize) -> anyhow::Result<()> {
    let before = resident(pid);
    let start = Instant::now();
    let (target, request): (Rc<str>, Rc<str>) = (target.into(), request.into());
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let opening = (0..OPENING.min(count - open.len())).map(|_| {
            let (target, request) = (Rc::clone(&target), Rc::clone(&request));
            tokio::task::spawn_local(async move {
                let mut stream = connect(&target).await?;
                stream.write_all(request.as_bytes()).await?;
                let (status, _) = head(&mut stream).await?;
                ensure!(status == 200, "status {status}");
                event(&mut stream).await?;
                anyhow::Ok(stream)
            })
        });
        for opened in opening.collect::<Vec<_>>() {
            let number = open.len();
            open.push(opened.await?.with_context(|| format!("stream {number}"))?);
        }
    }
    let opened = start.elapsed();
    let waiting: Vec<_> = open
        .into_iter()
        .map(|mut stream| {
            tokio::task::spawn_local(async move {
                event(&mut stream).await?;
                anyhow::Ok(stream)
            })
        })
        .collect();
    let mut alive = Vec::with_capacity(count);
    for stream in waiting {
        alive.push(stream.await??);
    }
    println!(
        "{} streams open after {:.1} s, each alive after {:.1} s",
        alive.len(),
        opened.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    if let (Some(before), Some(after)) = (before, resident(pid)) {
        println!(
            "resident memory {} KiB before, {} KiB with them: {:.1} KiB a stream",
            before,
            after,
            after.saturating_sub(before) as f64 / count as f64
        );
    }
    Ok(())
}

async fn connect(target: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(1024, stream))
}

/// The status and the announced length of an answer.
async fn head(stream: &mut BufReader<TcpStream>) -> anyhow::Result<(u16, Option<usize>)> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).context("no answer")?.parse()?;
    let mut length = None;
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            None => return Ok((status, length)),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = Some(value.trim().parse()?);
            }
            Some(_) => {}
        }
    }
}

/// Waits for an event's line.
async fn event(stream: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let mut line = String::new();
    let reading = async {
        while !line.starts_with("data:") {
            line.clear();
            ensure!(stream.read_line(&mut line).await? > 0, "the stream ended");
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .context("no event in time")?
}

/// The memory of a process in KiB, as Linux tells it.
fn resident(pid: usize) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

async fn upstream(options: &Options) -> anyhow::Result<()> {
    let address = options
        .0
        .get("listen")
        .map_or("127.0.0.1:0", String::as_str);
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.parse()?)?;
    let listener: TcpListener = socket.listen(4096)?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            // Whoever asked has gone.
            let _ = answer(stream).await;
        });
    }
}

async fn answer(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(1024, stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let streams = line
            .split(' ')
            .nth(1)
            .context("no request")?
            .ends_with("/stream");
        while line.trim_end() != "" {
            line.clear();
            ensure!(stream.read_line(&mut line).await? > 0, "the request ended");
        }
        if !streams {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await?;
            continue;
        }
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .await?;
        loop {
            stream.write_all(b"9\r\ndata: 1\n\n\r\n").await?;
            tokio::time::sleep(PACE).await;
        }
    }
}
