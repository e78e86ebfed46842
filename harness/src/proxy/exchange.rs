//! One request and its answer: client, filters and upstream joined, each waiting for the slowest.

use std::collections::HashMap;
use std::future::{self, Future};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, Aborted};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::access_log::Ended;
use super::body::{Filler, PipedBody};
use super::config::{RequestLimits, Timeouts};
use super::counters::Counters;
use super::deadlines::{Deadlines, Wait};
use super::failure::Failure;
use super::filters::Passage;
use super::flow::{Flow, Turn};
use super::journal::Journal;
use super::lane::Lane;
use super::lines::{self, Origin, Unsendable, Upgrade};
use super::own_answer;
use super::pool::{Answer, Lease, Purpose, Unanswered};
use super::reception::Visit;
use super::routes::Target;
use super::tunnel;
use crate::exchange::{Action, Call, CallId, CallOutcome, Event, HungReason, Peer, ResetReason};
use crate::http::Headers;
use crate::worker::SetProperties;

/// What is still read of a request whose answer is complete, so that a client that sends first and reads then gets the
/// answer and not a reset.
const DRAIN_BYTES: usize = 16 << 20;

/// How long it is read.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The connection is to be cut without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the exchange was cut off")]
pub(super) struct Cut;

/// Answers a request that came to `lane` through a listener with these `limits`. The `visit` is over with the answer.
///
/// # Errors
/// When the connection, or the stream on HTTP/2, is to be cut.
pub(super) async fn answer(
    lane: Rc<Lane>,
    limits: RequestLimits,
    visit: Visit,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Result<Response<PipedBody>, Cut> {
    let upgrading = request.extensions_mut().remove::<OnUpgrade>();
    let (head, body) = request.into_parts();
    let mut journal = Journal::open(&head, peer.source);
    let waits_for_continue = head.headers.contains_key(EXPECT);
    let refuse = |journal, body: Incoming, refusal: Refusal, visit: Visit| {
        // A client that waits for 100 Continue has sent nothing, and is not to be asked to now.
        let rest = (!waits_for_continue).then_some(body);
        visit.answered();
        Ok(refuse(&lane, journal, rest, refusal).map(|body| body.ending(visit)))
    };
    if let Err(failure) = acceptable(&head, limits) {
        return refuse(journal, body, Refusal::Failure(failure), visit);
    }
    let upgrade = Upgrade::wanted(&head);
    let origin = Origin {
        client: peer.source,
        scheme: &peer.scheme,
        request_id: &journal.request_id,
    };
    let Some(headers) = lines::from_request(&head, origin, upgrade.as_ref()) else {
        return refuse(journal, body, Refusal::NoTarget, visit);
    };
    let Some((index, route)) = lane.route(&headers) else {
        return refuse(journal, body, Refusal::NoRoute, visit);
    };
    journal.route = Some(route.name.clone());
    let changing = match (upgrade, upgrading) {
        (Some(upgrade), Some(client)) if upgrade.is_one_of(&route.upgrades) => Some(Changing {
            upgrade,
            client,
            upstream: None,
        }),
        (Some(_), _) => {
            let refusal = Refusal::Failure(Failure::UpgradeRefused);
            return refuse(journal, body, refusal, visit);
        }
        (None, _) => None,
    };
    let end = body.is_end_stream();
    let (client, response) = oneshot::channel();
    let passage = lane
        .filters
        .open(&route.filters, peer, lane.destination(route));
    let deadlines = Deadlines::new(lane.timeouts(route), Instant::now());
    let exchange = Exchange {
        route: index,
        cluster: None,
        passage,
        upload: Flow::from((!end).then_some(body)),
        download: Flow::default(),
        asked: None,
        attempt: None,
        lease: None,
        stage: Stage::Unsent,
        sizes: Sizes {
            request: limits.body,
            response: None,
        },
        deadlines,
        alarm: None,
        waits_for_continue,
        changing,
        tunnel: None,
        client: Client::Waiting(client),
        calls: FuturesUnordered::new(),
        cancel: HashMap::new(),
        journal,
        lane,
    };
    exchange
        .passage
        .deliver(Event::RequestHeaders { headers, end });
    tokio::task::spawn_local(exchange.run());
    let response = response.await.map_err(|_| Cut)?;
    visit.answered();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        visit.tunnel();
    }
    Ok(response.map(|body| body.ending(visit)))
}

/// Whether a request's head is one that is served here.
fn acceptable(head: &http::request::Parts, limits: RequestLimits) -> Result<(), Failure> {
    if head.method == Method::CONNECT {
        return Err(Failure::Connect);
    }
    if head.headers.len() > limits.headers {
        return Err(Failure::HeadersTooLarge);
    }
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    if target.len() > limits.uri {
        return Err(Failure::UriTooLong);
    }
    match (limits.body, declared_length(&head.headers)) {
        (Some(limit), Some(length)) if length > limit => Err(Failure::RequestTooLarge),
        _ => Ok(()),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why a request goes nowhere.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Refusal {
    #[error("the request names no host or no path")]
    NoTarget,
    #[error("no route for this request")]
    NoRoute,
    #[error("{0}")]
    Failure(Failure),
}

/// Answers a request that goes nowhere.
fn refuse(
    lane: &Lane,
    mut journal: Journal,
    rest: Option<Incoming>,
    refusal: Refusal,
) -> Response<PipedBody> {
    let status = match refusal {
        Refusal::NoTarget => StatusCode::BAD_REQUEST,
        Refusal::NoRoute => StatusCode::NOT_FOUND,
        Refusal::Failure(failure) => {
            lane.counters.failures.count(failure);
            failure.status()
        }
    };
    journal.status = Some(status.as_u16());
    journal.problem(refusal);
    journal.close(lane, &SetProperties::default());
    if let Some(rest) = rest {
        tokio::task::spawn_local(drain(rest));
    }
    own_answer::whole(status, &refusal.to_string())
}

/// A client that wants to speak another protocol, which the route allows.
struct Changing {
    upgrade: Upgrade,
    client: OnUpgrade,
    /// The upstream's side, once it has agreed.
    upstream: Option<OnUpgrade>,
}

/// The way back to the client.
enum Client {
    /// It waits for the headers.
    Waiting(oneshot::Sender<Response<PipedBody>>),
    /// It reads the body.
    Reading(Filler),
    /// It has its answer.
    Served,
}

impl Client {
    /// Waits until the client has hung up; for ever once it has its answer.
    async fn gone(&mut self) {
        match self {
            Self::Waiting(head) => head.closed().await,
            Self::Reading(filler) => filler.closed().await,
            Self::Served => future::pending().await,
        }
    }
}

/// How an exchange ended.
enum Ending {
    Answered,
    /// The client hung up.
    ClientGone,
    /// The connection is cut, since the answer can't be completed.
    Cut,
}

/// The reasons to cut an exchange, or to answer it from here.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Reset(#[from] ResetReason),
    #[error("{0}")]
    Hung(#[from] HungReason),
    #[error("a filter left a message that can't be sent: {0}")]
    Unsendable(#[from] Unsendable),
    #[error("{0}")]
    Failed(#[from] Failure),
}

impl Broken {
    /// What a client that has no headers yet gets; none: a cut connection.
    fn status(self) -> Option<StatusCode> {
        match self {
            Self::Reset(_) => None,
            Self::Hung(_) => Some(StatusCode::GATEWAY_TIMEOUT),
            Self::Unsendable(_) => Some(StatusCode::INTERNAL_SERVER_ERROR),
            Self::Failed(failure) => Some(failure.status()),
        }
    }
}

/// How far the upstream's part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The upstream knows nothing of the request.
    Unsent,
    /// It was asked.
    Asked,
    /// An answer has begun, the upstream's or one from here.
    Answered,
}

/// What is left of the sizes that the two bodies may have; none: any.
struct Sizes {
    request: Option<u64>,
    response: Option<u64>,
}

/// Takes a piece off what is left.
fn fits(left: &mut Option<u64>, piece: &Bytes) -> bool {
    let Some(bytes) = left else {
        return true;
    };
    let rest = bytes.checked_sub(piece.len() as u64);
    *bytes = rest.unwrap_or_default();
    rest.is_some()
}

/// What it takes to ask another endpoint.
struct Attempt {
    cluster: usize,
    /// As the upstream is to see them.
    headers: Headers,
    /// The endpoints that were asked, the last one included.
    tried: Vec<usize>,
}

type CallFuture = Pin<Box<dyn Future<Output = (CallId, Result<CallOutcome, Aborted>)>>>;
type AnswerFuture = Pin<Box<dyn Future<Output = Result<Answer, Unanswered>>>>;
type TunnelFuture = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

struct Exchange {
    lane: Rc<Lane>,
    /// The route that it entered by.
    route: usize,
    /// The cluster that was chosen.
    cluster: Option<usize>,
    passage: Passage,
    /// From the client to the upstream.
    upload: Flow,
    /// From the upstream to the client.
    download: Flow,
    /// The upstream's answer, while it is awaited.
    asked: Option<AnswerFuture>,
    /// As long as there may be no connection.
    attempt: Option<Attempt>,
    /// What its answer takes of the upstream.
    lease: Option<Lease>,
    stage: Stage,
    sizes: Sizes,
    deadlines: Deadlines,
    /// Goes off at the nearest deadline or before it.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether the client sends its body only when it is asked to, which reading does.
    waits_for_continue: bool,
    changing: Option<Changing>,
    tunnel: Option<TunnelFuture>,
    client: Client,
    calls: FuturesUnordered<CallFuture>,
    cancel: HashMap<CallId, AbortHandle>,
    journal: Journal,
}

/// What the exchange waited for.
enum Next {
    Woken,
    ClientGone,
    Upload(Turn),
    Download(Turn),
    Answer(Result<Answer, Unanswered>),
    Call(CallId, CallOutcome),
    Late(Failure),
    TunnelOver(Result<(), Failure>),
}

impl Exchange {
    async fn run(mut self) {
        let lane = Rc::clone(&self.lane);
        let _open = lane.counters.opened();
        let _kept_running = lane.running.clone();
        match self.drive().await {
            Ending::Answered => {}
            Ending::ClientGone => {
                Counters::count(&lane.counters.aborted);
                self.journal.ended = Ended::ClientAborted;
                self.journal.problem("client went away before the end");
            }
            // Dropping the client's side now is what cuts the connection.
            Ending::Cut => {}
        }
        let rest = self.upload.stop_reading();
        let rest = rest.filter(|_| !self.waits_for_continue);
        let Self {
            passage,
            journal,
            client,
            asked,
            upload,
            download,
            calls,
            lease,
            tunnel,
            ..
        } = self;
        drop((client, asked, upload, download, calls, lease, tunnel));
        // The filters' on_log comes before the line that tells that the request is over.
        let properties = passage.close();
        journal.close(&lane, &properties);
        if let Some(rest) = rest {
            drain(rest).await;
        }
    }

    async fn drive(&mut self) -> Ending {
        loop {
            // An action may lead to others: an answer from here passes the filters too.
            loop {
                let actions = self.passage.take_actions();
                if actions.is_empty() {
                    break;
                }
                for action in actions {
                    if let Err(broken) = self.act(action) {
                        return self.give_up(broken);
                    }
                }
            }
            if self.download.is_finished() {
                return Ending::Answered;
            }
            let outcome = match self.next().await {
                Next::Woken => Ok(()),
                Next::ClientGone => return Ending::ClientGone,
                Next::Call(id, outcome) => {
                    self.cancel.remove(&id);
                    self.passage.deliver(Event::CallDone(id, outcome));
                    Ok(())
                }
                Next::Answer(answer) => {
                    self.asked = None;
                    self.deadlines.moved(Instant::now());
                    self.answered(answer)
                }
                Next::Late(failure) => self.fail(failure),
                Next::TunnelOver(Ok(())) => return Ending::Answered,
                Next::TunnelOver(Err(failure)) => Err(failure.into()),
                Next::Upload(Turn::SourceFailed) | Next::Download(Turn::SinkGone) => {
                    return Ending::ClientGone;
                }
                Next::Upload(turn) => {
                    self.deadlines.moved(Instant::now());
                    self.uploaded(turn)
                }
                Next::Download(turn) => {
                    self.deadlines.moved(Instant::now());
                    self.downloaded(turn)
                }
            };
            if let Err(broken) = outcome {
                return self.give_up(broken);
            }
        }
    }

    async fn next(&mut self) -> Next {
        let (held_request, held_response) = self.passage.held();
        let limit = self.lane.body_buffer;
        // A client that waits to be asked for its body is not asked while a filter may still refuse it.
        let undecided =
            self.waits_for_continue && self.stage == Stage::Unsent && !self.calls.is_empty();
        let wait = self.wait();
        tokio::select! {
            () = self.client.gone() => Next::ClientGone,
            () = self.passage.woken() => Next::Woken,
            Some((id, outcome)) = self.calls.next() => match outcome {
                Ok(outcome) => Next::Call(id, outcome),
                Err(Aborted) => Next::Woken,
            },
            answer = arrival(&mut self.asked) => Next::Answer(answer),
            turn = self.download.turn(held_response <= limit) => Next::Download(turn),
            turn = self.upload.turn(held_request <= limit && !undecided) => {
                self.waits_for_continue = false;
                Next::Upload(turn)
            }
            over = arrival(&mut self.tunnel) => Next::TunnelOver(over),
            failure = late(&self.deadlines, wait, &mut self.alarm) => Next::Late(failure),
        }
    }

    /// What the exchange waits for, should nothing happen.
    fn wait(&self) -> Wait {
        if self.tunnel.is_some() || !self.calls.is_empty() {
            return Wait::Other;
        }
        match self.stage {
            Stage::Answered if self.download.is_stuffed() => Wait::Download,
            Stage::Answered if self.download.is_reading() => Wait::Upstream,
            Stage::Answered => Wait::Filters,
            Stage::Asked if self.upload.is_stuffed() => Wait::Upstream,
            Stage::Asked if self.upload.is_reading() => Wait::Upload,
            Stage::Asked => Wait::Headers,
            Stage::Unsent if self.upload.is_reading() => Wait::Upload,
            Stage::Unsent => Wait::Filters,
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Broken> {
        match action {
            // The answer was made here before the filters let the request go.
            Action::SendRequestHeaders { .. } if self.stage == Stage::Answered => {
                self.upload.write_nowhere();
            }
            Action::SendRequestHeaders { headers, end } => self.ask(headers, end)?,
            Action::SendRequestBody { chunk, end } => self.upload.push(chunk, end),
            Action::SendRequestTrailers(trailers) => {
                self.upload.push_trailers(lines::to_map(&trailers)?)
            }
            Action::SendResponseHeaders { headers, end } => self.begin_answer(&headers, end)?,
            Action::SendResponseBody { chunk, end } => {
                self.journal.sent += length(&chunk);
                self.download.push(chunk, end);
            }
            Action::SendResponseTrailers(trailers) => {
                self.download.push_trailers(lines::to_map(&trailers)?)
            }
            Action::DropUpstream => {
                self.asked = None;
                self.lease = None;
                self.upload.write_nowhere();
                self.download.stop_reading();
            }
            Action::Call(call) => self.call(call),
            Action::CancelCall(id) => {
                if let Some(cancel) = self.cancel.remove(&id) {
                    cancel.abort();
                }
            }
            Action::Reset(reason) => return Err(reason.into()),
            Action::Hung(reason) => return Err(reason.into()),
        }
        Ok(())
    }

    /// Chooses the upstream, and asks it; or answers from here.
    fn ask(&mut self, headers: Headers, end: bool) -> Result<(), Broken> {
        let lane = Rc::clone(&self.lane);
        let Some((index, route)) = lane.route_after_filters(self.route, &headers) else {
            let message = Refusal::NoRoute.to_string();
            self.journal.problem(&message);
            let body = own_answer::body(StatusCode::NOT_FOUND, &message);
            self.answer_here(StatusCode::NOT_FOUND, own_answer::KIND, body);
            return Ok(());
        };
        self.journal.route = Some(route.name.clone());
        let shares = match &route.target {
            Target::Clusters(shares) => shares,
            Target::Direct { status, body } => {
                self.answer_here(*status, "text/plain; charset=utf-8", body.clone());
                return Ok(());
            }
        };
        let cluster = lane.cluster(index, shares);
        let transport = cluster.and_then(|cluster| lane.upstreams.transport(cluster));
        let (Some(cluster), Some(transport)) = (cluster, transport) else {
            self.answer_from_here(Failure::Unreachable);
            return Ok(());
        };
        self.cluster = Some(cluster);
        self.journal.cluster = lane.upstreams.name(cluster).map(str::to_owned);
        self.deadlines.adopt(transport.timeouts);
        self.sizes.response = transport.max_response_bytes;
        let mut headers = headers;
        route.rewrite(&mut headers);
        let body = if end {
            self.upload.finish();
            PipedBody::empty()
        } else {
            let (filler, body) = PipedBody::piped();
            self.upload.write_to(filler);
            body
        };
        let attempt = Attempt {
            cluster,
            headers,
            tried: Vec::new(),
        };
        self.attempt(attempt, body)
    }

    /// Asks an endpoint of the cluster that was not tried.
    fn attempt(&mut self, mut attempt: Attempt, body: PipedBody) -> Result<(), Broken> {
        let next = self
            .lane
            .upstreams
            .endpoint(attempt.cluster, &attempt.tried);
        let Some((index, endpoint)) = next else {
            self.answer_from_here(Failure::Unreachable);
            return Ok(());
        };
        attempt.tried.push(index);
        let upgrade = self.changing.as_ref().map(|changing| &changing.upgrade);
        let purpose = match upgrade {
            Some(_) => Purpose::Upgrade,
            None => Purpose::Exchange,
        };
        let head = lines::to_request(&attempt.headers, endpoint.endpoint(), upgrade)?;
        self.journal.asks(endpoint.endpoint());
        self.attempt = Some(attempt);
        self.stage = Stage::Asked;
        self.deadlines.moved(Instant::now());
        self.asked = Some(Box::pin(
            endpoint.send(Request::from_parts(head, body), purpose),
        ));
        Ok(())
    }

    /// There is no answer: another endpoint is asked if this one can have heard nothing of the request, and one is left.
    fn unanswered(&mut self, Unanswered { failure, unsent }: Unanswered) -> Result<(), Broken> {
        let (Some(attempt), Some(body)) = (self.attempt.take(), unsent) else {
            self.answer_from_here(failure);
            return Ok(());
        };
        let upstreams = &self.lane.upstreams;
        if failure.is_of_connecting()
            && let Some(index) = attempt.tried.last()
        {
            upstreams.eject(attempt.cluster, *index);
        }
        // Who has waited for a connection in vain has waited long enough.
        let waited = failure == Failure::Queued;
        if waited || !upstreams.has_other(attempt.cluster, &attempt.tried) {
            self.answer_from_here(failure);
            return Ok(());
        }
        let endpoint = self.journal.upstream.as_deref().unwrap_or_default();
        let cluster = self.journal.cluster.as_deref().unwrap_or_default();
        self.lane.counters.unconnected(cluster, endpoint);
        tracing::warn!(
            request_id = self.journal.request_id,
            endpoint,
            "{failure}, asking another endpoint"
        );
        self.attempt(attempt, body)
    }

    fn answered(&mut self, answer: Result<Answer, Unanswered>) -> Result<(), Broken> {
        let Answer {
            mut response,
            lease,
        } = match answer {
            Ok(answer) => answer,
            Err(unanswered) => return self.unanswered(unanswered),
        };
        self.journal.hears();
        self.attempt = None;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && self.changing.is_none() {
            self.answer_from_here(Failure::Malformed);
            return Ok(());
        }
        let length = declared_length(response.headers());
        let no_body = self.journal.method == Method::HEAD || response.body().is_end_stream();
        if let (Some(limit), Some(length), false) = (self.sizes.response, length, no_body)
            && length > limit
        {
            self.answer_from_here(Failure::ResponseTooLarge);
            return Ok(());
        }
        self.stage = Stage::Answered;
        self.lease = Some(lease);
        if switches && let Some(changing) = self.changing.as_mut() {
            let upstream = hyper::upgrade::on(&mut response);
            changing.upstream = Some(upstream);
        }
        let (head, body) = response.into_parts();
        let end = body.is_end_stream();
        if !end {
            self.download.read_from(body);
        }
        self.passage.deliver(Event::ResponseHeaders {
            headers: lines::from_response(&head),
            end,
        });
        Ok(())
    }

    /// Ends the exchange: with an answer, as long as none has begun.
    fn fail(&mut self, failure: Failure) -> Result<(), Broken> {
        if self.stage == Stage::Answered {
            return Err(failure.into());
        }
        self.answer_from_here(failure);
        Ok(())
    }

    /// Gives the filters an answer of the proxy's own in place of the upstream's.
    fn answer_from_here(&mut self, failure: Failure) {
        self.lane.counters.failures.count(failure);
        if failure.before_connection() {
            Counters::count(&self.lane.counters.unreachable);
        }
        let endpoint = self.journal.upstream.as_deref().unwrap_or_default();
        let status = failure.status();
        tracing::warn!(
            request_id = self.journal.request_id,
            endpoint,
            "{failure}, answered {}",
            status.as_u16()
        );
        if failure.is_the_upstreams() {
            self.journal.fails(failure);
        } else {
            self.journal.problem(failure);
        }
        let body = own_answer::body(status, &failure.to_string());
        self.answer_here(status, own_answer::KIND, body);
    }

    /// Gives the filters an answer of the proxy's own, which they see like any other.
    fn answer_here(&mut self, status: StatusCode, kind: &'static str, body: Bytes) {
        self.deadlines.restart(Instant::now());
        self.stage = Stage::Answered;
        self.asked = None;
        self.attempt = None;
        self.lease = None;
        self.changing = None;
        self.upload.write_nowhere();
        let headers: Headers = [
            (":status", status.as_str().to_owned()),
            ("content-type", kind.to_owned()),
            ("content-length", body.len().to_string()),
        ]
        .into_iter()
        .collect();
        let end = body.is_empty();
        self.passage
            .deliver(Event::ResponseHeaders { headers, end });
        if !end {
            self.passage.deliver(Event::ResponseBody {
                chunk: body,
                end: true,
            });
        }
    }

    fn begin_answer(&mut self, headers: &Headers, end: bool) -> Result<(), Broken> {
        self.stage = Stage::Answered;
        let upgrade = self.changing.as_ref().map(|changing| &changing.upgrade);
        let head = lines::to_response(headers, upgrade)?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.change_protocol(head);
        }
        let bodiless = self.journal.method == Method::HEAD
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        self.journal.status = Some(head.status.as_u16());
        let (body, client) = if end || bodiless {
            if end {
                self.download.finish();
            } else {
                self.download.write_nowhere();
            }
            (PipedBody::empty(), Client::Served)
        } else {
            let (filler, body) = PipedBody::piped();
            self.download.write_to(filler.clone());
            (body, Client::Reading(filler))
        };
        if let Client::Waiting(waiting) = std::mem::replace(&mut self.client, client) {
            // A client that is gone is noticed where the body is written.
            let _ = waiting.send(Response::from_parts(head, body));
        }
        Ok(())
    }

    /// Answers 101 and joins the two connections.
    fn change_protocol(&mut self, head: http::response::Parts) -> Result<(), Broken> {
        let Some(Changing {
            client,
            upstream: Some(upstream),
            ..
        }) = self.changing.take()
        else {
            // A filter made it up.
            return Err(Unsendable::Status.into());
        };
        let cluster = self.cluster;
        let transport = cluster.and_then(|cluster| self.lane.upstreams.transport(cluster));
        let idle = transport
            .map_or(Timeouts::DEFAULT, |transport| transport.timeouts)
            .idle;
        self.journal.status = Some(head.status.as_u16());
        self.tunnel = Some(Box::pin(tunnel::join(client, upstream, idle)));
        self.download.write_nowhere();
        if let Client::Waiting(waiting) = std::mem::replace(&mut self.client, Client::Served) {
            // A client that is gone ends the tunnel.
            let _ = waiting.send(Response::from_parts(head, PipedBody::empty()));
        }
        Ok(())
    }

    fn call(&mut self, call: Call) {
        let id = call.id;
        let (cancel, registration) = AbortHandle::new_pair();
        let outcome = Abortable::new(self.lane.upstreams.call(call), registration);
        self.cancel.insert(id, cancel);
        self.calls
            .push(Box::pin(async move { (id, outcome.await) }));
    }

    fn uploaded(&mut self, turn: Turn) -> Result<(), Broken> {
        match turn {
            Turn::Read { chunk, end } => {
                self.journal.received += length(&chunk);
                if !fits(&mut self.sizes.request, &chunk) {
                    return self.fail(Failure::RequestTooLarge);
                }
                self.passage.deliver(Event::RequestBody { chunk, end });
            }
            Turn::ReadTrailers(trailers) => {
                self.passage
                    .deliver(Event::RequestTrailers(lines::from_trailers(&trailers)));
            }
            // An upstream may answer without reading on.
            Turn::SinkGone => self.upload.write_nowhere(),
            Turn::Written | Turn::SourceFailed => {}
        }
        Ok(())
    }

    fn downloaded(&mut self, turn: Turn) -> Result<(), Broken> {
        match turn {
            Turn::Read { chunk, end } => {
                if !fits(&mut self.sizes.response, &chunk) {
                    return Err(Failure::ResponseTooLarge.into());
                }
                self.passage.deliver(Event::ResponseBody { chunk, end });
            }
            Turn::ReadTrailers(trailers) => {
                self.passage
                    .deliver(Event::ResponseTrailers(lines::from_trailers(&trailers)));
            }
            Turn::SourceFailed => return Err(Failure::AnswerCutOff.into()),
            Turn::Written | Turn::SinkGone => {}
        }
        Ok(())
    }

    /// Answers from here where the client has nothing yet, else cuts the connection.
    fn give_up(&mut self, broken: Broken) -> Ending {
        tracing::warn!(request_id = self.journal.request_id, "{broken}");
        if let Broken::Failed(failure) = broken {
            self.lane.counters.failures.count(failure);
        }
        self.journal.problem(broken);
        let client = std::mem::replace(&mut self.client, Client::Served);
        match (client, broken.status()) {
            (Client::Waiting(waiting), Some(status)) => {
                self.journal.status = Some(status.as_u16());
                let _ = waiting.send(own_answer::whole(status, &broken.to_string()));
                Ending::Answered
            }
            _ => {
                self.journal.ended = match broken {
                    Broken::Failed(Failure::AnswerCutOff) => Ended::UpstreamAborted,
                    _ => Ended::Cut,
                };
                Ending::Cut
            }
        }
    }
}

fn length(chunk: &Bytes) -> u64 {
    u64::try_from(chunk.len()).unwrap_or(u64::MAX)
}

/// What something under way comes to; never, if nothing is under way.
async fn arrival<T>(under_way: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match under_way {
        Some(under_way) => under_way.await,
        None => future::pending().await,
    }
}

/// Waits until a wait has been too long. The alarm is set anew only when it has gone off, or must go off sooner: most
/// pieces come long before it.
async fn late(deadlines: &Deadlines, wait: Wait, alarm: &mut Option<Pin<Box<Sleep>>>) -> Failure {
    loop {
        let Some((due, failure)) = deadlines.next(wait) else {
            return future::pending().await;
        };
        if due <= Instant::now() {
            return failure;
        }
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() > due || alarm.is_elapsed() {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().await;
    }
}

async fn drain(mut body: Incoming) {
    let reading = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Time or bytes used up: the connection is closed under a client that goes on sending.
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}
