//! The admin port: whether the proxy is ready, its figures, its configuration, and a page that shows it live.
//!
//! It only ever shows: there is nothing to change through it, and no secret in what it shows.

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderValue,
};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::body::PipedBody;
use super::counters::Counters;
use super::reload::InForce;
use super::{events, exposition};
use crate::shared::Shared;

/// The live page, whole: it asks for nothing but `/events`.
const PAGE: &str = include_str!("live.html");

/// Nothing from elsewhere runs in the page, and no other page can frame it.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Entries of shared data that are listed at most.
const LISTED: usize = 1000;

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
    let local = listener.local_addr()?.ip().is_loopback();
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
            let response = if local && !is_local(request.headers()) {
                whole(
                    StatusCode::FORBIDDEN,
                    TEXT,
                    "name this machine as localhost or by its address\n".to_owned(),
                )
            } else {
                admin.answer(request.method(), request.uri().path())
            };
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

/// Whether the request names the machine as somebody on it does. A web page elsewhere that has its own name point to
/// 127.0.0.1 could otherwise read this port through its visitor's browser.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

impl Admin {
    fn answer(self: &Arc<Self>, method: &Method, path: &str) -> Response<PipedBody> {
        let known = ["/", "/ready", "/metrics", "/config", "/shared", "/events"];
        if !known.contains(&path) {
            return whole(
                StatusCode::NOT_FOUND,
                TEXT,
                format!("there are {}\n", known.join(" ")),
            );
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = whole(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n".to_owned());
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut response = match path {
            "/" => self.page(),
            "/events" if *method == Method::GET => self.events(),
            "/events" => whole(StatusCode::OK, events::CONTENT_TYPE, String::new()),
            "/metrics" => whole(
                StatusCode::OK,
                exposition::CONTENT_TYPE,
                exposition::text(
                    &self.counters,
                    &self.shared,
                    self.workers,
                    &self.in_force.now(),
                ),
            ),
            "/config" => whole(StatusCode::OK, JSON, pretty(&self.config())),
            "/shared" => whole(StatusCode::OK, JSON, pretty(&self.shared())),
            _ => {
                let (status, text) = self.ready();
                whole(status, TEXT, text)
            }
        };
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Whether requests are served, and why not.
    pub(super) fn ready(&self) -> (StatusCode, String) {
        let died = self.counters.died.load(Ordering::Relaxed);
        let ready = self.counters.ready.load(Ordering::Relaxed);
        let text = if died > 0 {
            format!("{died} of {} workers died\n", self.workers)
        } else if *self.stop.borrow() {
            "stopping\n".to_owned()
        } else if usize::try_from(ready).is_ok_and(|ready| ready >= self.workers) {
            return (StatusCode::OK, "ready\n".to_owned());
        } else {
            format!("{ready} of {} workers ready\n", self.workers)
        };
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }

    fn page(&self) -> Response<PipedBody> {
        let mut response = whole(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned());
        response.headers_mut().insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(PAGE_POLICY),
        );
        response
    }

    fn events(self: &Arc<Self>) -> Response<PipedBody> {
        let (filler, body) = PipedBody::piped();
        tokio::task::spawn_local(events::send(Arc::clone(self), filler));
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(events::CONTENT_TYPE));
        response
    }

    fn config(&self) -> Value {
        let state = self.in_force.now().clone();
        let listening: Vec<String> = state
            .listening
            .iter()
            .map(|(_, bound)| bound.to_string())
            .collect();
        json!({
            "generation": state.generation,
            "since_unix_seconds": state.since_unix_seconds,
            "reloads_failed": state.failed,
            "last_error": state.last_error,
            "listening": listening,
            "config": state.config.map(|config| config.shown.clone()),
        })
    }

    fn shared(&self) -> Value {
        let sizes = self.shared.sizes();
        let bytes: usize = sizes.iter().map(|(_, bytes)| *bytes).sum();
        let listed: Vec<Value> = sizes
            .iter()
            .take(LISTED)
            .map(|(key, bytes)| json!({"key": key.escape_ascii().to_string(), "bytes": bytes}))
            .collect();
        let queues: Vec<Value> = self
            .shared
            .queue_lengths()
            .into_iter()
            .map(|(name, length)| json!({"name": name.escape_ascii().to_string(), "items": length}))
            .collect();
        json!({
            "entries": sizes.len(),
            "bytes": bytes,
            "left_out": sizes.len().saturating_sub(LISTED),
            "data": listed,
            "queues": queues,
        })
    }
}

fn pretty(value: &Value) -> String {
    // Any value can be written.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn whole(status: StatusCode, kind: &'static str, text: String) -> Response<PipedBody> {
    let mut response = Response::new(PipedBody::whole(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for (host, local) in [
            ("localhost", true),
            ("LOCALHOST:9901", true),
            ("127.0.0.1", true),
            ("127.0.0.1:9901", true),
            ("[::1]:9901", true),
            ("evil.example", false),
            ("evil.example:9901", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let headers = [(HOST, HeaderValue::from_static(host))];
            assert_eq!(is_local(&headers.into_iter().collect()), local, "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }
}
