//! Plays scripts over HTTP/2, as far as it has their faults: an early end is a reset of the stream.
//!
//! What the ledger counts as written is what the library took, as far as the client's flow control let it; it does not
//! say what it has written of that when a client resets a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::ledger::{Ended, Open};
use super::super::provider::Provider;
use super::super::refusal::Refusal;
use super::super::request::{BODY_LIMIT, Request};
use super::super::script::{HeadFault, Script, Step};
use super::ready;

/// Streams of one connection.
const MOST_STREAMS: u32 = 1000;

/// The wait before an early end. A reset throws away what is queued for the connection, and the library does not say
/// when it has written it; flow control can still hold it longer.
const SETTLE: Duration = Duration::from_millis(20);

/// The end of a stream that was wanted.
#[derive(Debug, thiserror::Error)]
#[error("the stream ends here")]
struct Cut;

pub(super) async fn serve(
    stream: TcpStream,
    provider: Arc<Provider>,
    mut stop: watch::Receiver<bool>,
) {
    let stopping = stop.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let provider = Arc::clone(&provider);
        let stop = stopping.clone();
        async move { answer(&provider, request, stop).await }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let over = tokio::select! {
        _ = connection.as_mut() => true,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    if !over {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn answer(
    provider: &Provider,
    request: hyper::Request<Incoming>,
    stop: watch::Receiver<bool>,
) -> Result<hyper::Response<impl hyper::body::Body<Data = Bytes, Error = Cut> + use<>>, Cut> {
    let arrival = Instant::now();
    let (head, body) = request.into_parts();
    let mut exchange = match http_body_util::Limited::new(body, BODY_LIMIT)
        .collect()
        .await
    {
        Ok(body) => provider.respond(&Request {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            body: body.to_bytes(),
        }),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            provider.respond_to_unreadable(&Refusal::TooLarge { limit: BODY_LIMIT })
        }
        Err(_) => return Err(Cut),
    };
    if let Some(script) = ready(provider, &mut exchange).await {
        exchange.script = script;
    }
    let (script, open) = (exchange.script, exchange.open);
    tokio::time::sleep_until(arrival + script.head_at).await;
    match script.head {
        HeadFault::None | HeadFault::Slow(_) => Ok(respond(script, open, arrival, stop)),
        HeadFault::Never(ended) | HeadFault::Half(ended) => {
            if ended == Ended::Stalled {
                wait_for_stop(stop).await;
            }
            if let Some(open) = open {
                open.end(ended);
            }
            Err(Cut)
        }
    }
}

async fn wait_for_stop(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What is left of an answer.
struct Rest {
    steps: Box<dyn Iterator<Item = Step> + Send>,
    open: Option<Open>,
    trailers: bool,
}

fn respond(
    script: Script,
    open: Option<Open>,
    arrival: Instant,
    stop: watch::Receiver<bool>,
) -> hyper::Response<impl hyper::body::Body<Data = Bytes, Error = Cut> + use<>> {
    let rest = Rest {
        steps: script.steps,
        open,
        trailers: script.trailers,
    };
    let frames = stream::unfold(Some(rest), move |rest| {
        let stop = stop.clone();
        async move {
            let mut rest = rest?;
            loop {
                match rest.steps.next()? {
                    Step::Wait(after) => tokio::time::sleep_until(arrival + after).await,
                    Step::Write(piece) if piece.bytes.is_empty() => {}
                    Step::Write(piece) => {
                        if let Some(open) = &mut rest.open {
                            open.wrote(piece.bytes.len());
                            open.carried(piece.tokens, piece.told);
                        }
                        return Some((Ok(Frame::data(piece.bytes)), Some(rest)));
                    }
                    Step::BadChunk => {}
                    Step::End(ended) => {
                        match ended {
                            Ended::Stalled => wait_for_stop(stop).await,
                            Ended::Reset | Ended::Closed => tokio::time::sleep(SETTLE).await,
                            Ended::Complete | Ended::Errored | Ended::Client => {}
                        }
                        let trailers = rest.trailers;
                        if let Some(open) = rest.open {
                            open.end(ended);
                        }
                        return match ended {
                            Ended::Complete | Ended::Errored if trailers => {
                                let mut lines = HeaderMap::new();
                                lines.insert("x-mock-trailer", HeaderValue::from_static("end"));
                                Some((Ok(Frame::trailers(lines)), None))
                            }
                            Ended::Complete | Ended::Errored => None,
                            _ => Some((Err(Cut), None)),
                        };
                    }
                }
            }
        }
    });
    let mut response = hyper::Response::new(StreamBody::new(frames));
    *response.status_mut() = script.status;
    for (name, value) in script.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}
