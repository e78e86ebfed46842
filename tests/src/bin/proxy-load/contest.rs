//! The whole of a measurement: everything it takes is started here.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_tests::module;

use super::{Options, Pace};

const KEY: &str = "sk-0000000500-abcdefghijklmnopqrstuvwxyz";

/// A process that serves, until it is dropped.
pub(super) struct Serving {
    child: Child,
    pub(super) address: String,
}

impl Serving {
    /// Starts it and waits until it tells on stderr where it listens.
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {command:?}: build it first"))?;
        let mut told = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut lines = String::new();
        let address = loop {
            let mut line = String::new();
            let read = told.read_line(&mut line)?;
            anyhow::ensure!(read > 0, "it ended: {lines}");
            if let Some((_, address)) = line.split_once("listening on http://") {
                break address.trim().to_owned();
            }
            lines.push_str(&line);
        };
        std::thread::spawn(move || told.read_to_end(&mut Vec::new()));
        Ok(Self { child, address })
    }

    /// The other side of every measurement.
    pub(super) fn upstream() -> anyhow::Result<Self> {
        Self::start(Command::new(std::env::current_exe()?).arg("upstream"))
    }

    /// `tollgate serve` with one worker: `/v1` goes through key-auth, `/plain` through nothing.
    fn tollgate(upstream: &str, protocol: &str) -> anyhow::Result<Self> {
        let yaml = json!({
            "workers": 1,
            "access_log": false,
            "listeners": [{"address": "127.0.0.1:0"}],
            "routes": [
                {"prefix": "/v1", "cluster": "upstream", "filters": ["auth"]},
                {"prefix": "/plain", "cluster": "upstream"},
            ],
            "clusters": {"upstream": {"endpoints": [upstream], "protocol": protocol, "max_connections": 1_000_000}},
            "filters": {"auth": {"wasm": module("key_auth"), "config": key_auth()}},
        });
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        fs::write(file.path(), yaml.to_string())?;
        Self::start(
            Command::new(beside("tollgate")?)
                .arg("serve")
                .arg(file.path()),
        )
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the same build.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn key_auth() -> serde_json::Value {
    json!({
        "host": "envoy",
        "key_names": ["apikey"],
        "consumers": [{"id": "1", "credentials": [{"id": "c", "key": KEY}]}],
    })
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: gateway\r\napikey: {KEY}\r\n\r\n")
}

/// Sends to both by turns and prints the medians.
pub(super) fn compare(options: &Options) -> anyhow::Result<()> {
    let rounds = options.number("rounds", 5)?;
    let connections = options.number("connections", 32)?;
    let length = Duration::from_secs(options.number("seconds", 3)? as u64);
    let upstream = Serving::upstream()?;
    let tollgate = Serving::tollgate(&upstream.address, "http1")?;
    let filter = Filter {
        name: "key-auth".to_owned(),
        module: module("key_auth"),
        configuration: key_auth().to_string(),
        vm_id: "compare".to_owned(),
    };
    let listener = |name: &str, filters| {
        anyhow::Ok(Listener {
            name: name.to_owned(),
            filters,
            upstream: upstream.address.parse()?,
            proxy_protocol: false,
        })
    };
    let listeners = [
        listener("plain", Vec::new())?,
        listener("auth", vec![filter])?,
    ];
    let envoy = Envoy::start(&envoy::find()?, &listeners, 1)?;
    let contenders = [
        ("tollgate serve", tollgate.address.clone(), "/plain/x"),
        ("Envoy", envoy.address("plain")?.to_string(), "/plain/x"),
        (
            "tollgate serve, key-auth",
            tollgate.address.clone(),
            "/v1/x",
        ),
        (
            "Envoy, key-auth",
            envoy.address("auth")?.to_string(),
            "/v1/x",
        ),
    ];
    let mut paces: [Vec<Pace>; 4] = Default::default();
    // One round more, to warm up.
    for round in 0..=rounds {
        for ((_, target, path), paces) in contenders.iter().zip(&mut paces) {
            let request = request(path);
            let work = super::measure(
                target.clone(),
                move |_| request.clone(),
                connections,
                length,
            );
            let pace = super::on_this_thread(work)?;
            if round > 0 {
                paces.push(pace);
            }
        }
    }
    println!("medians of {rounds} rounds, {connections} connections, one worker");
    for ((name, ..), paces) in contenders.iter().zip(&paces) {
        let median = |figure: fn(&Pace) -> f64| super::median(paces, figure);
        println!(
            "{name:<26} {:>7.0} requests/s   P50 {:>6.0} us   P99 {:>6.0} us",
            median(|pace| pace.rate),
            median(|pace| pace.p50 as f64),
            median(|pace| pace.p99 as f64),
        );
    }
    Ok(())
}

/// Holds streams open through a proxy of its own. The provider behind it speaks HTTP/2, so that each stream takes the proxy one open
/// file, of which a process may have 20,000 in many places.
pub(super) fn hold(options: &Options) -> anyhow::Result<()> {
    let count = options.number("count", 10_000)?;
    let provider = MockLlm::start(Settings::default())?;
    let tollgate = Serving::tollgate(&provider.address().to_string(), "http2")?;
    let pid = tollgate.child.id() as usize;
    let body = r#"{"model":"gpt-4.1","stream":true,"messages":[{"role":"user","content":"Hold"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\napikey: {KEY}\r\nx-mock: tokens=100000; rate=1\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let work = super::hold(tollgate.address.clone(), request, count, pid);
    super::on_this_thread(work)
}
