use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{Redis, Reply, connect};

/// An HTTP front of Redis that speaks as Upstash's documentation says theirs does, on a free port of the loopback interface until it
/// is dropped. Upstash is a service and can't be installed, so this is not it: the commands are done by real Redis, and what is
/// ours is the HTTP around them.
///
/// `POST /` with a command as a JSON array of strings and numbers answers 200 `{"result": ...}`, or 400 `{"error": "..."}` for what
/// is no command and for what Redis refuses; 401 without the right `authorization: Bearer`. Where Redis can't be reached it
/// answers 500. Redis sees the user that Webdis logs in as.
#[derive(Debug)]
pub struct RestFront {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What a front needs for an answer.
struct Desk {
    redis: SocketAddr,
    authorization: String,
}

impl RestFront {
    /// Starts it before a Redis; it asks for this token.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn start(redis: &Redis, token: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let desk = Arc::new(Desk {
            redis: redis.address(),
            authorization: format!("Bearer {token}"),
        });
        let thread = thread::Builder::new()
            .name("rest-front".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, desk) => {}
                        _ = stopped => {}
                    }
                });
                // A question that Redis doesn't answer is not waited for.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RestFront {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It has ended by itself where nobody listens any more.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    while let Ok((stream, _)) = listener.accept().await {
        let desk = Arc::clone(&desk);
        let service = service_fn(move |request| answer(Arc::clone(&desk), request));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(
    desk: Arc<Desk>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, http::Error> {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get("authorization");
    if authorization.is_none_or(|value| value.as_bytes() != desk.authorization.as_bytes()) {
        return refusal(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    if head.method != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "ERR method not allowed");
    }
    let Ok(body) = body.collect().await else {
        return refusal(StatusCode::BAD_REQUEST, "ERR the request broke off");
    };
    let Some(words) = words(&body.to_bytes()) else {
        return refusal(StatusCode::BAD_REQUEST, "ERR failed to parse command");
    };
    let asked = tokio::task::spawn_blocking(move || ask(desk.redis, &words)).await;
    match asked.map_err(io::Error::other).flatten() {
        Ok(Reply::Error(error)) => refusal(StatusCode::BAD_REQUEST, &error),
        Ok(reply) => told(StatusCode::OK, &json!({"result": reply.to_json()})),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A command's words.
fn words(body: &[u8]) -> Option<Vec<String>> {
    let Value::Array(values) = serde_json::from_slice(body).ok()? else {
        return None;
    };
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let words = values.iter().map(word).collect::<Option<Vec<_>>>()?;
    (!words.is_empty()).then_some(words)
}

fn ask(redis: SocketAddr, words: &[String]) -> io::Result<Reply> {
    connect(redis, "default")?.ask(words)
}

fn refusal(status: StatusCode, error: &str) -> Result<Response<Full<Bytes>>, http::Error> {
    told(status, &json!({"error": error}))
}

fn told(status: StatusCode, body: &Value) -> Result<Response<Full<Bytes>>, http::Error> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
}
