//! Cases on a real Envoy: all in one process, each with a listener, a configuration and VMs of its own.
//!
//! What a client sends is written byte for byte, and what the upstream got is read byte for byte, so that nothing but
//! Envoy and the filters can have changed it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::adapter::Setup;
use super::case::{Case, Request, Upstream};
use super::delivery::Delivery;
use super::host::{Exchange, Gateway, GatewayError, Host};
use super::observed::{Observed, Response, Seen};
use crate::envoy::{Envoy, EnvoyError, Filter, Listener};
use crate::http::Headers;
use crate::wire::{self, Answer, Recorder};

/// A running Envoy with a listener for each case.
pub(crate) struct EnvoyHost {
    envoy: Envoy,
    upstream: Recorder,
    /// The cases whose connections say where the client is.
    proxied: BTreeSet<String>,
}

impl EnvoyHost {
    /// Starts Envoy for these cases, with the modules of the filters by name.
    ///
    /// # Errors
    /// Fails when Envoy does not start. A case whose configuration is refused fails later, by itself.
    pub(crate) fn start(
        executable: &Path,
        setups: &[(&Case, Setup)],
        modules: &BTreeMap<String, PathBuf>,
    ) -> Result<Self, EnvoyError> {
        let upstream = Recorder::start()?;
        let listeners: Vec<Listener> = setups
            .iter()
            .map(|(case, setup)| Listener {
                name: setup.id.clone(),
                filters: filters(setup, modules),
                upstream: upstream.address(),
                proxy_protocol: names_clients(case),
            })
            .collect();
        Ok(Self {
            envoy: Envoy::start(executable, &listeners, 1)?,
            upstream,
            proxied: listeners
                .into_iter()
                .filter(|listener| listener.proxy_protocol)
                .map(|listener| listener.name)
                .collect(),
        })
    }
}

fn filters(setup: &Setup, modules: &BTreeMap<String, PathBuf>) -> Vec<Filter> {
    let filters = setup.filters.iter();
    filters
        .map(|filter| Filter {
            name: filter.name.clone(),
            module: modules.get(&filter.name).cloned().unwrap_or_default(),
            configuration: filter.configuration.to_string(),
            vm_id: setup.id.clone(),
        })
        .collect()
}

/// Whether a case says where its clients are. All its connections then begin with a PROXY protocol line.
fn names_clients(case: &Case) -> bool {
    case.steps
        .iter()
        .any(|step| step.request.client_ip.is_some())
}

impl Host for EnvoyHost {
    fn deliveries(&self, _case: &Case) -> Vec<Delivery> {
        // A case's state lives as long as this Envoy: it can run once.
        vec![Delivery::Whole]
    }

    fn open(&mut self, setup: &Setup) -> Result<Box<dyn Gateway + '_>, GatewayError> {
        if let Some(waits_ms) = setup.waits_ms {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = unix.unwrap_or_default();
            thread::sleep(until_there_is_room(now, Duration::from_millis(waits_ms)));
        }
        let address = self.envoy.address(&setup.id);
        Ok(Box::new(EnvoyGateway {
            address: address.map_err(|error| GatewayError::Start(error.into()))?,
            upstream: &self.upstream,
            proxied: self.proxied.contains(&setup.id),
        }))
    }
}

/// The requests of a case that counts by the minute take no longer than that.
const REQUESTS: Duration = Duration::from_secs(5);

/// How long to wait so that so much time and the requests fit into the minute.
fn until_there_is_room(now: Duration, waits: Duration) -> Duration {
    const MINUTE: Duration = Duration::from_secs(60);
    let left = MINUTE.saturating_sub(Duration::from_millis((now.as_millis() % 60_000) as u64));
    if left < waits.saturating_add(REQUESTS) {
        left
    } else {
        Duration::ZERO
    }
}

struct EnvoyGateway<'a> {
    address: std::net::SocketAddr,
    upstream: &'a Recorder,
    proxied: bool,
}

impl Gateway for EnvoyGateway<'_> {
    fn run(&mut self, exchange: &Exchange<'_>) -> Result<Observed, GatewayError> {
        thread::sleep(Duration::from_millis(exchange.sleep_ms));
        self.upstream.answer(answer(exchange.upstream));
        let mut bytes = Vec::new();
        if self.proxied {
            let client = exchange.request.client_ip.as_deref().unwrap_or("127.0.0.1");
            let port = self.address.port();
            bytes = format!("PROXY TCP4 {client} 127.0.0.1 40000 {port}\r\n").into_bytes();
        }
        bytes.extend(on_the_wire(exchange.request));
        let response = wire::exchange(self.address, &exchange.request.method, &bytes);
        let mut seen = self.upstream.take_seen();
        let response = response.map_err(|error| GatewayError::NoAnswer(error.into()))?;
        let upstream = seen.pop().map(|request| Seen {
            method: request.method,
            target: request.target,
            headers: request.headers,
            body: request.body,
        });
        if !seen.is_empty() {
            return Err(GatewayError::RepeatedCall(seen.len().saturating_add(1)));
        }
        Ok(Observed {
            response: Response {
                status: response.status,
                headers: response.headers,
                body: response.body,
            },
            upstream,
        })
    }
}

fn answer(upstream: &Upstream) -> Answer {
    match upstream {
        Upstream::Echo { .. } => Answer::ok(),
        Upstream::Scripted {
            status,
            headers,
            chunked,
            ..
        } => Answer {
            status: *status,
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<Headers>(),
            body: upstream.body().into(),
            chunked: *chunked,
        },
    }
}

/// The request's bytes: what the case says, and the Host and framing that it leaves to the client.
fn on_the_wire(request: &Request) -> Vec<u8> {
    let mut head = String::new();
    let version = request.http_version.as_deref().unwrap_or("1.1");
    head.push_str(&format!(
        "{} {} HTTP/{version}\r\n",
        request.method, request.path
    ));
    if !request.headers.contains("host") {
        head.push_str("Host: gateway.test\r\n");
    }
    for (name, value) in request.headers.iter() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let framed =
        request.headers.contains("content-length") || request.headers.contains("transfer-encoding");
    match &request.body {
        Some(body) if !framed => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
        None if !framed && matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") => {
            head.push_str("Content-Length: 0\r\n");
        }
        _ => {}
    }
    head.push_str("\r\n");
    head.push_str(request.body.as_deref().unwrap_or_default());
    head.into_bytes()
}
