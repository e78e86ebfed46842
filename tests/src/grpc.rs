//! A gRPC service over HTTP/2 that behaves as the method's name says, and notes what came.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::poll_fn;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Either, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// A request as the service saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `/package.Service/Method`.
    pub path: String,
    /// `:authority`.
    pub authority: String,
    /// The headers, in the order of the wire.
    pub headers: Vec<(String, String)>,
    /// The messages so far.
    pub messages: Vec<String>,
    /// Whether the caller said that no more come.
    pub ended: bool,
    /// Whether the stream broke off before that.
    pub reset: bool,
}

impl Seen {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.iter().find(|(line, _)| line == name);
        line.map(|(_, value)| value.as_str())
    }
}

/// What a service noted; it can be read while the service is in use.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Vec<Seen>>>);

impl Notes {
    /// Every request so far, as far as it came.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service, on a free port of the loopback interface until it is dropped. Its methods:
///
/// `Say` answers `re:` and the message, status 0. `Chat` does so for each message, and ends with 0 when the caller
/// does. `Split` sends its messages in odd pieces. `Deny` answers with trailers alone, status 7. `Late` answers a message
/// and status 9. `Bare` answers a message and no status, `Packed` a message that claims to be compressed. `Missing` is a
/// plain 404. `Silent` never answers, `Drop` resets the stream before an answer, `Break` behind
/// its headers.
#[derive(Debug)]
pub struct GrpcService {
    address: SocketAddr,
    notes: Notes,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl GrpcService {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let notes = Notes::default();
        let (stop, stopped) = oneshot::channel();
        let service = notes.clone();
        let thread = thread::Builder::new()
            .name("grpc-service".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, service) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            notes,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it notes.
    #[must_use]
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }
}

impl Drop for GrpcService {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, notes: Notes) {
    while let Ok((stream, _)) = listener.accept().await {
        let notes = notes.clone();
        let service = service_fn(move |request| answer(notes.clone(), request));
        tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// What is sent: a piece of the body, the trailers, or a break.
type Piece = Result<Frame<Bytes>, Broken>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Pieces = mpsc::UnboundedSender<Piece>;

/// The stream is reset.
#[derive(Debug, thiserror::Error)]
#[error("the stream is reset on purpose")]
struct Broken;

async fn answer(
    notes: Notes,
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = BoxError>>, Broken> {
    let (head, mut body) = request.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let index = {
        let mut notes = notes.lock();
        notes.push(Seen {
            path: head.uri.path().to_owned(),
            authority: head
                .uri
                .authority()
                .map(ToString::to_string)
                .unwrap_or_default(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            ..Seen::default()
        });
        notes.len() - 1
    };
    let method = head.uri.path().rsplit('/').next().unwrap_or_default();
    let method = method.to_owned();
    if method == "Drop" {
        return Err(Broken);
    }
    if method == "Silent" {
        receive(&notes, index, &mut body, |_| {}).await;
        std::future::pending::<Infallible>().await;
    }
    let (pieces, mut sent) = mpsc::unbounded_channel::<Piece>();
    let stream = StreamBody::new(poll_fn(move |context| sent.poll_recv(context)));
    let response = Response::builder().header("content-type", "application/grpc");
    let response = match method.as_str() {
        "Deny" => response
            .header("grpc-status", "7")
            .header("grpc-message", "not%20allowed")
            .header("x-why", "policy"),
        "Missing" => response.status(404).header("content-type", "text/plain"),
        _ => response.header("x-initial", "first"),
    };
    if matches!(method.as_str(), "Deny" | "Missing") {
        // The stream ends with the headers: what gRPC calls an answer of trailers alone.
        return response
            .body(Either::Left(Empty::new()))
            .map_err(|_| Broken);
    }
    tokio::spawn(async move { serve(&method, &notes, index, body, &pieces).await });
    response.body(Either::Right(stream)).map_err(|_| Broken)
}

async fn serve(method: &str, notes: &Notes, index: usize, mut body: Incoming, pieces: &Pieces) {
    let send = |bytes: Bytes| drop(pieces.send(Ok(Frame::data(bytes))));
    let mut count = 0u32;
    let complete = receive(notes, index, &mut body, |message| {
        count += 1;
        let answer = [b"re:", message].concat();
        match method {
            "Split" => {
                let two = [framed(0, &answer), framed(0, b"")].concat();
                for piece in two.chunks(3) {
                    send(Bytes::copy_from_slice(piece));
                }
            }
            "Break" => {}
            "Packed" => send(framed(1, &answer).into()),
            _ => send(framed(0, &answer).into()),
        }
    })
    .await;
    if method == "Break" {
        let _ = pieces.send(Err(Broken));
    }
    let status = match method {
        "Bare" | "Break" | "Packed" => return,
        "Late" => "9",
        _ => "0",
    };
    if complete {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static(status));
        trailers.insert("x-count", http::HeaderValue::from(count));
        let _ = pieces.send(Ok(Frame::trailers(trailers)));
    }
}

/// Reads messages until the caller ends; whether it did, and did not break off.
async fn receive(
    notes: &Notes,
    index: usize,
    body: &mut Incoming,
    mut each: impl FnMut(&[u8]),
) -> bool {
    let mut left = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            note(notes, index, |seen| seen.reset = true);
            return false;
        };
        left.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
        while let Some(message) = unframed(&mut left) {
            let text = String::from_utf8_lossy(&message).into_owned();
            note(notes, index, |seen| seen.messages.push(text));
            each(&message);
        }
    }
    note(notes, index, |seen| seen.ended = true);
    true
}

fn note(notes: &Notes, index: usize, change: impl FnOnce(&mut Seen)) {
    if let Some(seen) = notes.lock().get_mut(index) {
        change(seen);
    }
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

fn unframed(bytes: &mut BytesMut) -> Option<Bytes> {
    let length = bytes.get(1..5)?.try_into().ok().map(u32::from_be_bytes)?;
    let length = usize::try_from(length).ok()?;
    if bytes.len() < 5 + length {
        return None;
    }
    bytes.advance(5);
    Some(bytes.split_to(length).freeze())
}
