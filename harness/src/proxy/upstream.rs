//! The clusters as one worker reaches them: whose turn it is, and the calls that filters make.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http::uri::Authority;
use http_body_util::{BodyExt, Limited};

use super::body::PipedBody;
use super::config::{Cluster, ConnectionLimits, Protocol, Timeouts, Transport};
use super::failure::Failure;
use super::lines;
use super::pool::{Answer, Pool, Purpose};
use crate::exchange::{Call, CallFailure, CallOutcome};
use crate::profile::Profile;

/// The largest answer to a filter's call: a document of 100,000 keys fits four times.
const CALL_ANSWER_LIMIT: usize = 64 << 20;

/// How a bare `host:port` is reached, which no cluster describes: nginx keeps no connection for a filter's calls.
const ADDRESSES: Transport = Transport {
    protocol: Protocol::Http1,
    tls: None,
    connect_timeout: Duration::from_secs(10),
    timeouts: Timeouts {
        headers: Duration::from_secs(300),
        idle: Duration::from_secs(300),
        whole: None,
    },
    limits: ConnectionLimits {
        open: 1,
        pending: 0,
        idle: 0,
        idle_time: Duration::from_secs(1),
        streams: 1,
    },
    max_response_bytes: None,
};

/// The clusters as one worker reaches them.
#[derive(Debug)]
pub(super) struct Upstreams {
    clusters: Vec<Upstream>,
    /// Whether a call names `host:port` instead of a cluster.
    calls_name_addresses: bool,
}

#[derive(Debug)]
struct Upstream {
    name: String,
    transport: Rc<Transport>,
    endpoints: Vec<Rc<Pool>>,
    turn: Cell<usize>,
}

impl Upstreams {
    /// Clusters without a connection yet. Workers begin with different endpoints.
    pub(super) fn new(clusters: Vec<Cluster>, profile: Profile, worker: usize) -> Self {
        let clusters = clusters.into_iter().map(|cluster| {
            let transport = Rc::new(cluster.transport);
            Upstream {
                name: cluster.name,
                endpoints: cluster
                    .endpoints
                    .into_iter()
                    .map(|endpoint| Pool::new(endpoint, Rc::clone(&transport)))
                    .collect(),
                transport,
                turn: Cell::new(worker),
            }
        });
        Self {
            clusters: clusters.collect(),
            calls_name_addresses: matches!(profile, Profile::Kong),
        }
    }

    /// The endpoint whose turn it is.
    pub(super) fn endpoint(&self, cluster: usize) -> Option<Rc<Pool>> {
        self.clusters.get(cluster).and_then(Upstream::endpoint)
    }

    /// How a cluster is reached, and what is expected of it.
    pub(super) fn transport(&self, cluster: usize) -> Option<&Transport> {
        let cluster = self.clusters.get(cluster)?;
        Some(&cluster.transport)
    }

    /// An endpoint of the cluster of this name, and how long connecting to it may take.
    pub(super) fn endpoint_of(&self, name: &str) -> Option<(Authority, Duration)> {
        let cluster = self.clusters.iter().find(|cluster| cluster.name == name)?;
        let endpoint = cluster.endpoint()?.endpoint().clone();
        Some((endpoint, cluster.transport.connect_timeout))
    }

    /// Makes a filter's call, within its timeout.
    pub(super) fn call(&self, call: Call) -> impl Future<Output = CallOutcome> + use<> {
        let timeout = call.timeout;
        let answer = self
            .call_target(&call.upstream)
            .map(|endpoint| exchange(endpoint, call));
        async move {
            match answer {
                None => CallOutcome::Failed(CallFailure::UnknownUpstream),
                Some(answer) => match tokio::time::timeout(timeout, answer).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(failure)) => CallOutcome::Failed(failure),
                    Err(_) => CallOutcome::Failed(CallFailure::Timeout),
                },
            }
        }
    }

    fn call_target(&self, upstream: &str) -> Option<Rc<Pool>> {
        if self.calls_name_addresses {
            return Some(Pool::new(upstream.parse().ok()?, Rc::new(ADDRESSES)));
        }
        self.clusters
            .iter()
            .find(|cluster| cluster.name == upstream)?
            .endpoint()
    }
}

impl Upstream {
    fn endpoint(&self) -> Option<Rc<Pool>> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        self.endpoints
            .get(turn.checked_rem(self.endpoints.len())?)
            .cloned()
    }
}

async fn exchange(endpoint: Rc<Pool>, call: Call) -> Result<CallOutcome, CallFailure> {
    let head = lines::to_request(&call.headers, endpoint.endpoint(), None)
        .map_err(|_| CallFailure::Reset)?;
    let request = Request::from_parts(head, PipedBody::whole(call.body));
    let Answer { response, lease } = endpoint
        .send(request, Purpose::Exchange)
        .await
        .map_err(call_failure)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, CALL_ANSWER_LIMIT)
        .collect()
        .await
        .map_err(|_| CallFailure::Reset)?;
    drop(lease);
    let trailers = body
        .trailers()
        .map(lines::from_trailers)
        .unwrap_or_default();
    Ok(CallOutcome::Response {
        headers: lines::from_response(&head),
        body: body.to_bytes(),
        trailers,
    })
}

fn call_failure(failure: Failure) -> CallFailure {
    if failure.before_connection() {
        CallFailure::Refused
    } else {
        CallFailure::Reset
    }
}
