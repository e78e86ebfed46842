//! Connections to the clusters: each worker has its own pool, as each thread of a gateway does.

use std::cell::RefCell;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::body::PipedBody;
use super::config::Cluster;
use super::lines;
use super::turns::Turns;
use crate::exchange::{Call, CallFailure, CallOutcome};
use crate::profile::Profile;

/// Idle connections kept to each endpoint, by each worker.
const IDLE_CONNECTIONS: usize = 100;

/// How long an idle connection is kept. Below the 60 s after which many servers close theirs, so that a request seldom
/// meets a connection that is just closing.
const IDLE: Duration = Duration::from_secs(50);

/// How long an endpoint to which no connection could be made is passed by, by the worker that found out.
const EJECTION: Duration = Duration::from_secs(5);

/// The largest answer to a filter's call: a document of 100,000 keys fits four times.
const CALL_ANSWER_LIMIT: usize = 64 << 20;

/// How long opening a connection for a call to a bare `host:port` may take at most; the call's own timeout counts too.
const CALL_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The clusters as one worker reaches them.
pub(super) struct Upstreams {
    pools: Vec<Pool>,
    /// For calls to addresses, which need no cluster.
    addresses: Client<HttpConnector, Full<Bytes>>,
    /// Whether a call names `host:port` instead of a cluster.
    calls_name_addresses: bool,
}

struct Pool {
    cluster: Cluster,
    turns: RefCell<Turns>,
    /// Until when each endpoint is passed by.
    ejected: RefCell<Vec<Option<Instant>>>,
    requests: Client<HttpConnector, PipedBody>,
    calls: Client<HttpConnector, Full<Bytes>>,
}

/// Why an upstream gave no answer, in words for the log and the client: never with an address of the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// Occurs when nothing listens at the endpoint.
    #[error("upstream connection refused")]
    Refused,
    /// Occurs when the connection takes longer than the cluster allows.
    #[error("upstream connection timed out")]
    ConnectTimeout,
    /// Occurs when the host's name can't be resolved, or has no route.
    #[error("upstream address can't be reached")]
    Unreachable,
    /// Occurs when the connection ends before the answer's headers.
    #[error("upstream closed the connection before an answer")]
    Closed,
    /// Occurs when what comes is no HTTP.
    #[error("upstream answered with something that is no HTTP")]
    Malformed,
}

impl Unanswered {
    pub(super) fn new(error: &Error) -> Self {
        let mut cause = error.source();
        let mut kind = None;
        let mut malformed = false;
        while let Some(inner) = cause {
            kind = kind.or(inner.downcast_ref::<io::Error>().map(io::Error::kind));
            malformed |= inner
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_parse);
            cause = inner.source();
        }
        match kind {
            _ if malformed => Self::Malformed,
            _ if !error.is_connect() => Self::Closed,
            Some(io::ErrorKind::ConnectionRefused) => Self::Refused,
            Some(io::ErrorKind::TimedOut) => Self::ConnectTimeout,
            _ => Self::Unreachable,
        }
    }

    /// Whether there was no connection, so that nothing of the request can have arrived.
    pub(super) fn before_connection(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::ConnectTimeout | Self::Unreachable
        )
    }

    fn as_call_failure(self) -> CallFailure {
        match self {
            Self::Refused | Self::ConnectTimeout | Self::Unreachable => CallFailure::Refused,
            Self::Closed | Self::Malformed => CallFailure::Reset,
        }
    }
}

impl Upstreams {
    /// Pools without a connection yet. Workers begin with different endpoints.
    pub(super) fn new(clusters: Vec<Cluster>, profile: Profile, worker: usize) -> Self {
        let pools = clusters.into_iter().map(|cluster| {
            let mut turns = Turns::new(cluster.endpoints.iter().map(|(_, weight)| *weight));
            for _ in 0..worker {
                let _ = turns.next(|_| true);
            }
            Pool {
                turns: RefCell::new(turns),
                ejected: RefCell::new(vec![None; cluster.endpoints.len()]),
                requests: client(cluster.connect_timeout),
                calls: client(cluster.connect_timeout),
                cluster,
            }
        });
        Self {
            pools: pools.collect(),
            addresses: client(CALL_CONNECT_TIMEOUT),
            calls_name_addresses: matches!(profile, Profile::Kong),
        }
    }

    /// A cluster's name.
    pub(super) fn name(&self, cluster: usize) -> Option<&str> {
        self.pools
            .get(cluster)
            .map(|pool| pool.cluster.name.as_str())
    }

    /// The endpoint whose turn it is, with its number, among those that were not tried.
    pub(super) fn endpoint(&self, cluster: usize, tried: &[usize]) -> Option<(usize, Authority)> {
        self.pools
            .get(cluster)
            .and_then(|pool| pool.endpoint(tried))
    }

    /// Whether there is an endpoint that was not tried.
    pub(super) fn has_other(&self, cluster: usize, tried: &[usize]) -> bool {
        self.pools.get(cluster).is_some_and(|pool| {
            let endpoints = pool.cluster.endpoints.iter().enumerate();
            endpoints
                .filter(|(_, (_, weight))| *weight > 0)
                .any(|(index, _)| !tried.contains(&index))
        })
    }

    /// Passes an endpoint by for a while, since no connection to it can be had.
    pub(super) fn eject(&self, cluster: usize, endpoint: usize) {
        if let Some(pool) = self.pools.get(cluster) {
            pool.eject(endpoint);
        }
    }

    /// Sends a request to the cluster that its URI's endpoint belongs to.
    pub(super) fn send(
        &self,
        cluster: usize,
        request: Request<PipedBody>,
    ) -> Option<ResponseFuture> {
        self.pools
            .get(cluster)
            .map(|pool| pool.requests.request(request))
    }

    /// Makes a filter's call, within its timeout.
    pub(super) fn call(&self, call: Call) -> impl Future<Output = CallOutcome> + use<> {
        let timeout = call.timeout;
        let answer = self
            .call_target(&call.upstream)
            .map(|(client, endpoint)| exchange(client, endpoint, call));
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

    fn call_target(
        &self,
        upstream: &str,
    ) -> Option<(Client<HttpConnector, Full<Bytes>>, Authority)> {
        if self.calls_name_addresses {
            return Some((self.addresses.clone(), upstream.parse().ok()?));
        }
        let pool = self
            .pools
            .iter()
            .find(|pool| pool.cluster.name == upstream)?;
        let (_, endpoint) = pool.endpoint(&[])?;
        Some((pool.calls.clone(), endpoint))
    }
}

impl Pool {
    fn endpoint(&self, tried: &[usize]) -> Option<(usize, Authority)> {
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
        let (endpoint, _) = self.cluster.endpoints.get(index)?;
        Some((index, endpoint.clone()))
    }

    fn eject(&self, endpoint: usize) {
        if let Some(until) = self.ejected.borrow_mut().get_mut(endpoint) {
            *until = Some(Instant::now() + EJECTION);
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.pools.iter().map(|pool| &pool.cluster))
            .finish()
    }
}

fn client<B>(connect_timeout: Duration) -> Client<HttpConnector, B>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .set_host(false)
        .build(connector)
}

async fn exchange(
    client: Client<HttpConnector, Full<Bytes>>,
    endpoint: Authority,
    call: Call,
) -> Result<CallOutcome, CallFailure> {
    let head = lines::to_request(&call.headers, &endpoint).map_err(|_| CallFailure::Reset)?;
    let request = Request::from_parts(head, Full::new(call.body));
    let response = client
        .request(request)
        .await
        .map_err(|error| Unanswered::new(&error).as_call_failure())?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, CALL_ANSWER_LIMIT)
        .collect()
        .await
        .map_err(|_| CallFailure::Reset)?;
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
