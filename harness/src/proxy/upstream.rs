//! The clusters as one worker reaches them: whose turn it is, who is passed by, and the calls that filters make.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;

use super::body::PipedBody;
use super::config::{Cluster, ConnectionLimits, Protocol, Timeouts, Transport, Trust};
use super::lines;
use super::pool::{Answer, Pool, Purpose, Unanswered};
use super::tls;
use super::turns::Turns;
use crate::exchange::{Call, CallFailure, CallOutcome};
use crate::profile::Profile;

/// How long an endpoint to which no connection could be made is passed by, by the worker that found out.
const EJECTION: Duration = Duration::from_secs(5);

/// The largest answer to a filter's call: a document of 100,000 keys fits four times.
const CALL_ANSWER_LIMIT: usize = 64 << 20;

/// How a bare `host:port` is reached, which no cluster describes: nginx keeps no connection for a filter's calls.
const ADDRESSES: Transport = Transport {
    protocol: Protocol::Http1,
    tls: None,
    connect_timeout: Duration::from_secs(10),
    timeouts: Timeouts::DEFAULT,
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
    /// With their weights.
    endpoints: Vec<(Rc<Pool>, u32)>,
    /// The endpoints again, for gRPC.
    grpc: Vec<Rc<Pool>>,
    turns: RefCell<Turns>,
    /// Until when each endpoint is passed by.
    ejected: RefCell<Vec<Option<Instant>>>,
}

impl Upstreams {
    /// Clusters without a connection yet. Workers begin with different endpoints.
    pub(super) fn new(clusters: Vec<Cluster>, profile: Profile, worker: usize) -> Self {
        let clusters = clusters.into_iter().map(|cluster| {
            let transport = Rc::new(cluster.transport);
            let mut turns = Turns::new(cluster.endpoints.iter().map(|(_, weight)| *weight));
            for _ in 0..worker {
                let _ = turns.next(|_| true);
            }
            let over_http2 = over_http2(&transport);
            let endpoints: Vec<(Rc<Pool>, u32)> = cluster
                .endpoints
                .into_iter()
                .map(|(endpoint, weight)| (Pool::new(endpoint, Rc::clone(&transport)), weight))
                .collect();
            let grpc = endpoints.iter().map(|(pool, _)| match &over_http2 {
                Some(over_http2) => Pool::new(pool.endpoint().clone(), Rc::clone(over_http2)),
                None => Rc::clone(pool),
            });
            Upstream {
                name: cluster.name,
                turns: RefCell::new(turns),
                ejected: RefCell::new(vec![None; endpoints.len()]),
                grpc: grpc.collect(),
                endpoints,
                transport,
            }
        });
        Self {
            clusters: clusters.collect(),
            calls_name_addresses: matches!(profile, Profile::Kong),
        }
    }

    /// A cluster's name.
    pub(super) fn name(&self, cluster: usize) -> Option<&str> {
        self.clusters
            .get(cluster)
            .map(|cluster| cluster.name.as_str())
    }

    /// The endpoint whose turn it is, with its number, among those that were not tried.
    pub(super) fn endpoint(&self, cluster: usize, tried: &[usize]) -> Option<(usize, Rc<Pool>)> {
        self.clusters
            .get(cluster)
            .and_then(|cluster| cluster.endpoint(tried))
    }

    /// Whether there is an endpoint that was not tried.
    pub(super) fn has_other(&self, cluster: usize, tried: &[usize]) -> bool {
        self.clusters.get(cluster).is_some_and(|cluster| {
            let endpoints = cluster.endpoints.iter().enumerate();
            endpoints
                .filter(|(_, (_, weight))| *weight > 0)
                .any(|(index, _)| !tried.contains(&index))
        })
    }

    /// Passes an endpoint by for a while, since no connection to it can be had.
    pub(super) fn eject(&self, cluster: usize, endpoint: usize) {
        if let Some(cluster) = self.clusters.get(cluster)
            && let Some(until) = cluster.ejected.borrow_mut().get_mut(endpoint)
        {
            *until = Some(Instant::now() + EJECTION);
        }
    }

    /// How a cluster is reached, and what is expected of it.
    pub(super) fn transport(&self, cluster: usize) -> Option<&Transport> {
        let cluster = self.clusters.get(cluster)?;
        Some(&cluster.transport)
    }

    /// An endpoint of the cluster of this name, as gRPC reaches it: always by HTTP/2.
    pub(super) fn grpc(&self, name: &str) -> Option<Rc<Pool>> {
        let cluster = self.clusters.iter().find(|cluster| cluster.name == name)?;
        let (index, _) = cluster.endpoint(&[])?;
        cluster.grpc.get(index).map(Rc::clone)
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
        let mut clusters = self.clusters.iter();
        let cluster = clusters.find(|cluster| cluster.name == upstream)?;
        cluster.endpoint(&[]).map(|(_, pool)| pool)
    }
}

/// The same way with HTTP/2 alone; none if it is that already.
fn over_http2(transport: &Transport) -> Option<Rc<Transport>> {
    let tls = transport.tls.as_ref().map(|trust| Trust {
        config: tls::with_http2_alone(&trust.config),
        server_name: trust.server_name.clone(),
    });
    (transport.protocol != Protocol::Http2).then(|| {
        Rc::new(Transport {
            protocol: Protocol::Http2,
            tls,
            ..transport.clone()
        })
    })
}

impl Upstream {
    fn endpoint(&self, tried: &[usize]) -> Option<(usize, Rc<Pool>)> {
        let mut turns = self.turns.borrow_mut();
        let now = Instant::now();
        let ejected = self.ejected.borrow();
        let in_use = |index: usize| {
            let until = ejected.get(index).copied().flatten();
            !tried.contains(&index) && until.is_none_or(|until| until <= now)
        };
        // Where all are passed by, one of them is tried all the same: it may be back.
        let index = turns
            .next(in_use)
            .or_else(|| turns.next(|index| !tried.contains(&index)))?;
        let (pool, _) = self.endpoints.get(index)?;
        Some((index, Rc::clone(pool)))
    }
}

async fn exchange(endpoint: Rc<Pool>, call: Call) -> Result<CallOutcome, CallFailure> {
    let head = lines::to_request(&call.headers, endpoint.endpoint(), None)
        .map_err(|_| CallFailure::Reset)?;
    let request = Request::from_parts(head, PipedBody::whole(call.body));
    let Answer { response, lease } = endpoint
        .send(request, Purpose::Exchange)
        .await
        .map_err(|unanswered| call_failure(&unanswered))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, CALL_ANSWER_LIMIT)
        .collect()
        .await
        .map_err(|_| CallFailure::Truncated)?;
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

fn call_failure(unanswered: &Unanswered) -> CallFailure {
    if unanswered.failure.before_connection() {
        CallFailure::Refused
    } else {
        CallFailure::Reset
    }
}
