//! One request and its answer: client, filters and upstream joined, each waiting for the slowest.

use std::collections::HashMap;
use std::future::{self, Future};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, Aborted};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::{Error, ResponseFuture};
use tokio::sync::oneshot;

use super::access_log::Ended;
use super::body::{Filler, PipedBody};
use super::counters::Counters;
use super::filters::Passage;
use super::flow::{Flow, Turn};
use super::journal::Journal;
use super::lane::Lane;
use super::lines::{self, Origin, Unsendable};
use super::own_answer;
use super::routes::Target;
use super::upstream::Unanswered;
use crate::exchange::{Action, Call, CallId, CallOutcome, Event, HungReason, Peer, ResetReason};
use crate::http::Headers;
use crate::worker::SetProperties;

/// What is still read of a request whose answer is complete, so that a client that sends first and reads then gets the
/// answer and not a reset.
const DRAIN_BYTES: usize = 16 << 20;

/// How long it is read.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The answer where no route takes a request.
const NO_ROUTE: &str = "no route for this request";

/// The connection is to be cut without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the exchange was cut off")]
pub(super) struct Cut;

/// Answers a request that came to `lane`.
///
/// # Errors
/// When a filter wants the connection cut.
pub(super) async fn answer(
    lane: Rc<Lane>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<PipedBody>, Cut> {
    let (head, body) = request.into_parts();
    let mut journal = Journal::open(&head, peer.source);
    let origin = Origin {
        client: peer.source,
        request_id: &journal.request_id,
    };
    let Some(headers) = lines::from_request(&head, origin) else {
        return Ok(refuse(
            &lane,
            journal,
            body,
            StatusCode::BAD_REQUEST,
            "the request names no host or no path",
        ));
    };
    let Some(route) = lane.route(&headers) else {
        return Ok(refuse(
            &lane,
            journal,
            body,
            StatusCode::NOT_FOUND,
            NO_ROUTE,
        ));
    };
    let chain = lane.routes.get(route).map(|entry| {
        journal.route = Some(entry.name.clone());
        entry.filters.as_slice()
    });
    let end = body.is_end_stream();
    let (client, response) = oneshot::channel();
    let passage = lane.filters.open(chain.unwrap_or_default(), peer);
    let exchange = Exchange {
        route,
        passage,
        upload: Flow::from((!end).then_some(body)),
        download: Flow::default(),
        asked: None,
        attempt: None,
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
    response.await.map_err(|_| Cut)
}

/// Answers a request that goes nowhere.
fn refuse(
    lane: &Lane,
    mut journal: Journal,
    body: Incoming,
    status: StatusCode,
    message: &'static str,
) -> Response<PipedBody> {
    journal.status = Some(status.as_u16());
    journal.problem(message);
    journal.close(lane, &SetProperties::default());
    tokio::task::spawn_local(drain(body));
    own_answer::whole(status, message)
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
    #[error("upstream broke off in the middle of its answer")]
    AnswerCutOff,
}

impl Broken {
    /// What a client that has no headers yet gets; none: a cut connection.
    fn status(self) -> Option<StatusCode> {
        match self {
            Self::Reset(_) => None,
            Self::Hung(_) => Some(StatusCode::GATEWAY_TIMEOUT),
            Self::Unsendable(_) => Some(StatusCode::INTERNAL_SERVER_ERROR),
            Self::AnswerCutOff => Some(StatusCode::BAD_GATEWAY),
        }
    }
}

/// A request on its way to an endpoint.
struct Attempt {
    cluster: usize,
    /// As the upstream is to see them.
    headers: Headers,
    /// The endpoints that were asked, the last one included.
    tried: Vec<usize>,
    /// Where its body comes back if there is no connection.
    back: oneshot::Receiver<PipedBody>,
}

type CallFuture = Pin<Box<dyn Future<Output = (CallId, Result<CallOutcome, Aborted>)>>>;

struct Exchange {
    lane: Rc<Lane>,
    /// The route that it entered by.
    route: usize,
    passage: Passage,
    /// From the client to the upstream.
    upload: Flow,
    /// From the upstream to the client.
    download: Flow,
    /// The upstream's answer, while it is awaited.
    asked: Option<ResponseFuture>,
    /// What it takes to ask another endpoint, as long as there is no connection.
    attempt: Option<Attempt>,
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
    Answer(Result<Response<Incoming>, Error>),
    Call(CallId, CallOutcome),
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
        let Self {
            passage,
            journal,
            client,
            asked,
            upload,
            download,
            calls,
            ..
        } = self;
        drop((client, asked, upload, download, calls));
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
                    self.answered(answer)
                }
                Next::Upload(Turn::SourceFailed) | Next::Download(Turn::SinkGone) => {
                    return Ending::ClientGone;
                }
                Next::Upload(turn) => {
                    self.uploaded(turn);
                    Ok(())
                }
                Next::Download(turn) => self.downloaded(turn),
            };
            if let Err(broken) = outcome {
                return self.give_up(broken);
            }
        }
    }

    async fn next(&mut self) -> Next {
        let (held_request, held_response) = self.passage.held();
        let limit = self.lane.body_buffer;
        tokio::select! {
            () = self.client.gone() => Next::ClientGone,
            () = self.passage.woken() => Next::Woken,
            Some((id, outcome)) = self.calls.next() => match outcome {
                Ok(outcome) => Next::Call(id, outcome),
                Err(Aborted) => Next::Woken,
            },
            answer = arrival(&mut self.asked) => Next::Answer(answer),
            turn = self.download.turn(held_response <= limit) => Next::Download(turn),
            turn = self.upload.turn(held_request <= limit) => Next::Upload(turn),
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Broken> {
        match action {
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
        let chosen = lane.route_after_filters(self.route, &headers);
        let Some((index, route)) = chosen.and_then(|route| Some((route, lane.routes.get(route)?)))
        else {
            self.journal.problem(NO_ROUTE);
            let body = own_answer::body(StatusCode::NOT_FOUND, NO_ROUTE);
            self.answer_here(StatusCode::NOT_FOUND, "application/json", body);
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
        let Some(cluster) = lane.cluster(index, shares) else {
            self.unanswered(Unanswered::Unreachable);
            return Ok(());
        };
        self.journal.cluster = lane.upstreams.name(cluster).map(str::to_owned);
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
        self.attempt(cluster, headers, body, Vec::new())
    }

    /// Asks an endpoint of the cluster that was not tried.
    fn attempt(
        &mut self,
        cluster: usize,
        headers: Headers,
        body: PipedBody,
        mut tried: Vec<usize>,
    ) -> Result<(), Broken> {
        let Some((index, endpoint)) = self.lane.upstreams.endpoint(cluster, &tried) else {
            self.unanswered(Unanswered::Unreachable);
            return Ok(());
        };
        tried.push(index);
        let head = lines::to_request(&headers, &endpoint)?;
        self.journal.asks(&endpoint);
        let (body, back) = body.returning();
        let request = Request::from_parts(head, body);
        self.asked = self.lane.upstreams.send(cluster, request);
        self.attempt = Some(Attempt {
            cluster,
            headers,
            tried,
            back,
        });
        Ok(())
    }

    /// No connection could be made: another endpoint is asked, or none is left.
    fn unconnected(&mut self, reason: Unanswered) -> Result<(), Broken> {
        let Some(mut attempt) = self.attempt.take() else {
            self.unanswered(reason);
            return Ok(());
        };
        if let Some(index) = attempt.tried.last() {
            self.lane.upstreams.eject(attempt.cluster, *index);
        }
        let left = self
            .lane
            .upstreams
            .has_other(attempt.cluster, &attempt.tried);
        match attempt.back.try_recv() {
            Ok(body) if left => {
                let endpoint = self.journal.upstream.as_deref().unwrap_or_default();
                let cluster = self.journal.cluster.as_deref().unwrap_or_default();
                self.lane.counters.unconnected(cluster, endpoint);
                tracing::warn!(
                    request_id = self.journal.request_id,
                    endpoint,
                    "{reason}, asking another endpoint"
                );
                self.attempt(attempt.cluster, attempt.headers, body, attempt.tried)
            }
            _ => {
                self.unanswered(reason);
                Ok(())
            }
        }
    }

    fn answered(&mut self, answer: Result<Response<Incoming>, Error>) -> Result<(), Broken> {
        match answer {
            Ok(answer) => {
                self.journal.hears();
                self.attempt = None;
                let (head, body) = answer.into_parts();
                let end = body.is_end_stream();
                if !end {
                    self.download.read_from(body);
                }
                self.passage.deliver(Event::ResponseHeaders {
                    headers: lines::from_response(&head),
                    end,
                });
            }
            Err(error) => {
                let reason = Unanswered::new(&error);
                if reason.before_connection() {
                    return self.unconnected(reason);
                }
                self.unanswered(reason);
            }
        }
        Ok(())
    }

    /// Gives the filters an answer of the proxy's own in place of the upstream's.
    fn unanswered(&mut self, reason: Unanswered) {
        Counters::count(&self.lane.counters.unreachable);
        let endpoint = self.journal.upstream.as_deref().unwrap_or_default();
        tracing::warn!(
            request_id = self.journal.request_id,
            endpoint,
            "{reason}, answered 502"
        );
        self.journal.fails(reason);
        let body = own_answer::body(StatusCode::BAD_GATEWAY, &reason.to_string());
        self.answer_here(StatusCode::BAD_GATEWAY, "application/json", body);
    }

    /// Gives the filters an answer of the proxy's own, which they see like any other.
    fn answer_here(&mut self, status: StatusCode, kind: &'static str, body: Bytes) {
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
        let head = lines::to_response(headers)?;
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

    fn call(&mut self, call: Call) {
        let id = call.id;
        let (cancel, registration) = AbortHandle::new_pair();
        let outcome = Abortable::new(self.lane.upstreams.call(call), registration);
        self.cancel.insert(id, cancel);
        self.calls
            .push(Box::pin(async move { (id, outcome.await) }));
    }

    fn uploaded(&mut self, turn: Turn) {
        match turn {
            Turn::Read { chunk, end } => {
                self.journal.received += length(&chunk);
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
    }

    fn downloaded(&mut self, turn: Turn) -> Result<(), Broken> {
        match turn {
            Turn::Read { chunk, end } => self.passage.deliver(Event::ResponseBody { chunk, end }),
            Turn::ReadTrailers(trailers) => {
                self.passage
                    .deliver(Event::ResponseTrailers(lines::from_trailers(&trailers)));
            }
            Turn::SourceFailed => return Err(Broken::AnswerCutOff),
            Turn::Written | Turn::SinkGone => {}
        }
        Ok(())
    }

    /// Answers from here where the client has nothing yet, else cuts the connection.
    fn give_up(&mut self, broken: Broken) -> Ending {
        tracing::warn!(request_id = self.journal.request_id, "{broken}");
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
                    Broken::AnswerCutOff => Ended::UpstreamAborted,
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

/// The upstream's answer; never, if none is awaited.
async fn arrival(asked: &mut Option<ResponseFuture>) -> Result<Response<Incoming>, Error> {
    match asked {
        Some(asked) => asked.await,
        None => future::pending().await,
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
