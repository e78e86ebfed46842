//! The admin port: whether the proxy is ready, and its figures.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use super::counters::Counters;
use super::exposition;
use super::reload::InForce;
use crate::shared::Shared;

/// What the admin port shows.
pub(super) struct Admin {
    pub(super) counters: Arc<Counters>,
    pub(super) shared: Arc<Shared>,
    pub(super) in_force: Arc<InForce>,
    /// How many workers there are to be ready.
    pub(super) workers: usize,
    pub(super) stop: watch::Receiver<bool>,
}

/// Serves until the proxy is gone.
pub(super) async fn serve(
    listener: TcpListener,
    admin: Admin,
    mut gone: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let admin = Arc::new(admin);
    loop {
        let accepted = tokio::select! {
            _ = gone.wait_for(|gone| *gone) => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let admin = Arc::clone(&admin);
        let service = service_fn(move |request: Request<Incoming>| {
            let response = admin.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(async move {
            // Whoever asked has gone.
            let _ = connection.await;
        });
    }
}

impl Admin {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, kind, text) = match (method, path) {
            (&Method::GET | &Method::HEAD, "/ready") => {
                let (status, text) = self.ready();
                (status, "text/plain; charset=utf-8", text)
            }
            (&Method::GET | &Method::HEAD, "/metrics") => {
                let text = exposition::text(
                    &self.counters,
                    &self.shared,
                    self.workers,
                    &self.in_force.now(),
                );
                (StatusCode::OK, exposition::CONTENT_TYPE, text)
            }
            (_, "/ready" | "/metrics") => (
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain; charset=utf-8",
                "use GET\n".to_owned(),
            ),
            _ => (
                StatusCode::NOT_FOUND,
                "text/plain; charset=utf-8",
                "there are /ready and /metrics\n".to_owned(),
            ),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn ready(&self) -> (StatusCode, String) {
        let ready = self.counters.ready.load(Ordering::Relaxed);
        if *self.stop.borrow() {
            return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
        }
        if usize::try_from(ready).is_ok_and(|ready| ready >= self.workers) {
            return (StatusCode::OK, "ready\n".to_owned());
        }
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{ready} of {} workers ready\n", self.workers),
        )
    }
}
