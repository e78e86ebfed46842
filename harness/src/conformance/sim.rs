//! Cases in simulation: every case on its own worker, with a clock that the case moves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::adapter::Setup;
use super::case::{Case, Upstream};
use super::delivery::{Delivery, deliveries};
use super::host::{Exchange, Gateway, GatewayError, Host};
use super::observed::{Observed, Response, Seen};
use crate::engine::Module;
use crate::profile::{Knobs, Profile};
use crate::sim::{Answer, Outcome, Request, Sim};
use crate::worker::StartError;

/// The simulated host.
pub(crate) struct SimHost {
    profile: Profile,
    modules: BTreeMap<String, Module>,
}

impl SimHost {
    /// A host that shows the behaviour of `profile` and knows filters by these names.
    pub(crate) fn new(profile: Profile, modules: BTreeMap<String, Module>) -> Self {
        Self { profile, modules }
    }
}

impl Host for SimHost {
    fn deliveries(&self, case: &Case) -> Vec<Delivery> {
        deliveries(case)
    }

    fn open(&mut self, setup: &Setup) -> Result<Box<dyn Gateway + '_>, GatewayError> {
        let mut setting = Sim::of(self.profile)
            .clock_at(setup.start_unix)
            .knobs(knobs(setup));
        for filter in &setup.filters {
            let module = self.modules.get(&filter.name);
            let module = module.ok_or_else(|| {
                GatewayError::Start(anyhow::anyhow!("no module for {}", filter.name))
            })?;
            setting = setting.filter(module, &filter.configuration);
        }
        let sim = setting.start().map_err(refused)?;
        Ok(Box::new(SimGateway(sim)))
    }
}

/// The headers that key-auth may take out of a request, besides those in which keys come.
const IDENTITY_HEADERS: [&str; 5] = [
    "x-consumer-id",
    "x-consumer-username",
    "x-consumer-custom-id",
    "x-credential-identifier",
    "x-anonymous-consumer",
];

/// What an operator sets who follows the filters' documentation: on Envoy, that headers may wait for the body; on Kong,
/// that headers which were set to nothing don't go upstream as empty lines.
fn knobs(setup: &Setup) -> Knobs {
    let names = setup
        .filters
        .iter()
        .filter_map(|filter| filter.configuration.get("key_names"))
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(Value::as_str);
    // A name with `_` is also found as a header that is spelt with `-`.
    let spellings = names.flat_map(|name| [name.to_owned(), name.replace('_', "-")]);
    let fixed = IDENTITY_HEADERS.into_iter().chain(["apikey"]);
    let taken_out = setup
        .filters
        .iter()
        .filter_map(|filter| filter.configuration.get("request"))
        .flat_map(headers_taken_out);
    Knobs {
        headers_stop_iteration: true,
        proxy_set_header: fixed
            .map(str::to_owned)
            .chain(spellings)
            .chain(taken_out)
            .collect(),
        ..Knobs::default()
    }
}

/// The headers that rules of a request-transformer remove, or rename to something else.
fn headers_taken_out(request: &Value) -> Vec<String> {
    ["remove", "rename"]
        .into_iter()
        .filter_map(|rules| request.get(rules)?.get("headers")?.as_array())
        .flatten()
        .filter_map(|rule| rule.as_str()?.split(':').next())
        .map(str::to_owned)
        .collect()
}

/// With the filter's own words, which tell what it didn't like.
fn refused(error: StartError) -> GatewayError {
    let mut reason = anyhow::anyhow!(error.cause).context(error.filter);
    for line in error.logs {
        reason = reason.context(line);
    }
    GatewayError::Start(reason)
}

struct SimGateway(Sim);

impl Gateway for SimGateway {
    fn run(&mut self, exchange: &Exchange<'_>) -> Result<Observed, GatewayError> {
        self.0.advance(Duration::from_millis(exchange.sleep_ms));
        let answer = answer(exchange.upstream, exchange.delivery);
        self.0.upstream(move |_| answer.clone());
        let got = self.0.send(request(exchange)?);
        if got.outcome() != Outcome::Answered {
            return Err(GatewayError::NoAnswer(anyhow::anyhow!(
                "{:?}",
                got.outcome()
            )));
        }
        let mut headers = got.headers().clone();
        headers.remove(":status");
        Ok(Observed {
            response: Response {
                status: got.status(),
                headers,
                body: got.body().to_vec().into(),
            },
            upstream: got.upstream().map(|request| {
                let mut headers = request.headers.clone();
                headers.push("host", request.authority.clone());
                Seen {
                    method: request.method.clone(),
                    target: request.path.clone(),
                    headers,
                    body: request.body.clone(),
                }
            }),
        })
    }
}

fn request(exchange: &Exchange<'_>) -> Result<Request, GatewayError> {
    let sent = exchange.request;
    let mut request = Request::new(&sent.method, &sent.path)
        .route(exchange.route)
        .service(exchange.service);
    for (name, value) in sent.headers.iter() {
        request = request.header(name, value.to_owned());
    }
    match &sent.body {
        Some(body) => {
            let pieces = exchange.delivery.pieces(body.len());
            request = request.body(body.clone()).delivered_in(&pieces);
        }
        None if matches!(sent.method.as_str(), "POST" | "PUT" | "PATCH")
            && !sent.headers.contains("content-length") =>
        {
            request = request.header("content-length", "0");
        }
        None => {}
    }
    if let Some(address) = &sent.client_ip {
        let address = address.parse();
        request = request.client(
            address
                .map_err(|error: std::net::AddrParseError| GatewayError::NoAnswer(error.into()))?,
        );
    }
    if let Some(version) = &sent.http_version {
        request = request.protocol(&format!("HTTP/{version}"));
    }
    Ok(request)
}

fn answer(upstream: &Upstream, delivery: Delivery) -> Answer {
    let Upstream::Scripted {
        status,
        headers,
        chunked,
        ..
    } = upstream
    else {
        return Answer::status(200)
            .header("content-type", "text/plain")
            .body("ok\n");
    };
    let mut answer = Answer::status(*status);
    for (name, value) in headers.iter() {
        answer = answer.header(name, value.to_owned());
    }
    let body = upstream.body().into_bytes();
    let pieces = delivery.pieces(body.len());
    if !chunked {
        return answer.body(body).delivered_in(&pieces);
    }
    if pieces.is_empty() {
        return answer.streamed(&body.chunks((body.len() / 3).max(1)).collect::<Vec<_>>());
    }
    let mut rest = body.as_slice();
    let mut chunks = Vec::new();
    for piece in pieces {
        let (chunk, after) = rest.split_at_checked(piece).unwrap_or((rest, &[]));
        chunks.push(chunk);
        rest = after;
    }
    answer.streamed(&chunks)
}
