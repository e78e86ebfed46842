//! The state machine between the host's callbacks and a filter's phases.
//!
//! No callback is trusted to come, to come once or to come in order. One that makes no sense in a request phase fails the
//! filter closed by its own rule; in a response phase it lets the response pass.

mod stream;

use super::edits;
use super::host::{self, RequestHost, WasmHost};
use super::imports::{self, Buffer, Map, Status};
use crate::config;
use crate::filter::Filter;
use crate::host::{HostKind, Level};
use crate::reply::Reply;
use crate::step::{CallOutcome, CallResponse};
use std::cell::RefCell;
use std::collections::BTreeMap;
use stream::Stream;

/// What a callback tells the host to do with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Send it on.
    Continue = 0,
    /// Keep it.
    Pause = 1,
}

/// One module instance: the filters configured in it, and the requests that pass through them.
pub struct Shell<F: Filter>(RefCell<State<F>>);

struct State<F: Filter> {
    host: WasmHost,
    roots: BTreeMap<u32, Root<F>>,
    streams: BTreeMap<u32, Stream<F>>,
}

/// A configured filter; without one before the first configuration that passed.
struct Root<F> {
    filter: Option<F>,
    ticking: bool,
    call: Option<u32>,
}

impl<F: Filter> Default for Shell<F> {
    fn default() -> Shell<F> {
        Shell(RefCell::new(State {
            host: WasmHost::default(),
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
        }))
    }
}

impl<F: Filter> Shell<F> {
    /// A context is born: a root without a parent, a stream below a root.
    pub fn create(&self, context: u32, parent: u32) {
        let Ok(mut state) = self.0.try_borrow_mut() else {
            return;
        };
        if parent == 0 {
            state.roots.entry(context).or_insert(Root {
                filter: None,
                ticking: false,
                call: None,
            });
        } else if let Some(filter) = state
            .roots
            .get(&parent)
            .and_then(|root| root.filter.as_ref())
        {
            let stream = Stream::new(parent, filter.exchange());
            state.streams.insert(context, stream);
        }
    }

    /// A root is given its configuration. False refuses it, with every mistake in the log; what was configured before stays.
    #[must_use]
    pub fn configure(&self, root: u32, size: usize) -> bool {
        let Ok(mut state) = self.0.try_borrow_mut() else {
            return false;
        };
        let text = match imports::buffer(Buffer::PluginConfiguration, size) {
            Ok(text) if text.len() == size => text,
            Err(Status::NOT_FOUND) if size == 0 => Vec::new(),
            _ => {
                log(
                    F::NAME,
                    Level::Error,
                    &"the host does not show the configuration",
                );
                return false;
            }
        };
        let checked = match config::check::<F::Config>(&text, &|name| std::env::var(name).ok()) {
            Ok(checked) => checked,
            Err(problems) => {
                problems
                    .iter()
                    .for_each(|problem| log(F::NAME, Level::Error, problem));
                return false;
            }
        };
        drop(text);
        checked
            .warnings
            .iter()
            .for_each(|warning| log(F::NAME, Level::Warn, warning));
        let filter = F::new(checked.config);
        let Some(root) = state.roots.get_mut(&root) else {
            return false;
        };
        // A period can't be set twice on nginx.
        if let (Some(period), false) = (filter.tick_period(), root.ticking) {
            root.ticking =
                imports::set_tick_period(u32::try_from(period.as_millis()).unwrap_or(u32::MAX))
                    .is_ok();
            if !root.ticking {
                log(
                    F::NAME,
                    Level::Error,
                    &"the host gives no tick, which this configuration needs",
                );
                return false;
            }
        }
        root.filter = Some(filter);
        true
    }

    /// A root's period has passed.
    pub fn tick(&self, root: u32) {
        let Ok(mut state) = self.0.try_borrow_mut() else {
            return;
        };
        let State { host, roots, .. } = &mut *state;
        let Some(root) = roots.get_mut(&root) else {
            return;
        };
        let Some(filter) = &mut root.filter else {
            return;
        };
        let kind = filter.host_kind().or(host.kind);
        let host = root_host(host, filter);
        if let Some(call) = filter.tick(&host) {
            root.call = edits::start(kind, &call);
            if root.call.is_none() {
                filter.call_done(CallOutcome::Failed, &host);
            }
        }
    }

    /// A call has been answered, or has failed.
    pub fn call_done(&self, context: u32, call: u32, headers: u32, size: usize) {
        let Ok(mut state) = self.0.try_borrow_mut() else {
            return;
        };
        let outcome = outcome(headers, size);
        let State {
            host,
            roots,
            streams,
        } = &mut *state;
        if let Some(root) = roots.values_mut().find(|root| root.call == Some(call)) {
            root.call = None;
            if let Some(filter) = &mut root.filter {
                let host = root_host(host, filter);
                filter.call_done(outcome, &host);
            }
            return;
        }
        // Envoy names the context that made the call; should a host name another, the call's number finds it.
        let owner = match streams.get(&context) {
            Some(stream) if stream.awaits(call) => Some(context),
            _ => streams
                .iter()
                .find(|(_, stream)| stream.awaits(call))
                .map(|(id, _)| *id),
        };
        let Some(owner) = owner else { return };
        if owner != context && imports::set_effective_context(owner).is_err() {
            return;
        }
        let Some(stream) = streams.get_mut(&owner) else {
            return;
        };
        let Some(filter) = roots
            .get_mut(&stream.root)
            .and_then(|root| root.filter.as_mut())
        else {
            return;
        };
        stream.call_done(filter, host, outcome);
    }

    /// The head of a request.
    pub fn request_headers(&self, stream: u32, lines: usize, end: bool) -> Action {
        self.request(stream, |stream, filter, host| {
            let kind = host.detect(filter.host_kind());
            stream.request_headers(filter, &RequestHost { host, kind, lines }, end)
        })
    }

    /// More of the body of a request, or all of it.
    pub fn request_body(&self, stream: u32, size: usize, end: bool) -> Action {
        self.request(stream, |stream, filter, host| {
            stream.request_body(filter, host, size, end)
        })
    }

    /// The end of a request that has trailers.
    pub fn request_trailers(&self, stream: u32) -> Action {
        self.request(stream, |stream, filter, host| {
            stream.request_trailers(filter, host)
        })
    }

    /// The head of a response.
    pub fn response_headers(&self, stream: u32, end: bool) -> Action {
        self.with_stream(stream, |stream, filter, host| {
            stream.response_headers(filter, host, end)
        });
        Action::Continue
    }

    /// A chunk of a response.
    pub fn response_body(&self, stream: u32, size: usize, end: bool) -> Action {
        self.with_stream(stream, |stream, filter, host| {
            stream.response_body(filter, host, size, end)
        });
        Action::Continue
    }

    /// A request is over.
    pub fn log(&self, stream: u32) {
        self.with_stream(stream, |stream, filter, host| stream.log(filter, host));
    }

    /// A context is gone.
    pub fn delete(&self, context: u32) {
        let Ok(mut state) = self.0.try_borrow_mut() else {
            return;
        };
        state.streams.remove(&context);
        state.roots.remove(&context);
    }

    /// Runs a request phase. Where there is no filter to ask, nothing says that the request may go on.
    fn request(
        &self,
        stream: u32,
        phase: impl FnOnce(&mut Stream<F>, &mut F, &mut WasmHost) -> Action,
    ) -> Action {
        self.with_stream(stream, phase).unwrap_or_else(|| {
            let reply = Reply {
                status: 500,
                headers: Vec::new(),
                body: Vec::new(),
                grpc_status: None,
            };
            let _ = edits::reply(HostKind::Envoy, &reply);
            Action::Pause
        })
    }

    fn with_stream<T>(
        &self,
        stream: u32,
        phase: impl FnOnce(&mut Stream<F>, &mut F, &mut WasmHost) -> T,
    ) -> Option<T> {
        let mut state = self.0.try_borrow_mut().ok()?;
        let State {
            host,
            roots,
            streams,
        } = &mut *state;
        let stream = streams.get_mut(&stream)?;
        let filter = roots.get_mut(&stream.root)?.filter.as_mut()?;
        Some(phase(stream, filter, host))
    }
}

/// The host outside of any request. What it is can't be asked there.
fn root_host<'h, F: Filter>(host: &'h WasmHost, filter: &F) -> RequestHost<'h> {
    RequestHost {
        host,
        kind: filter.host_kind().or(host.kind).unwrap_or(HostKind::Envoy),
        lines: 0,
    }
}

fn log(filter: &str, level: Level, message: &dyn std::fmt::Display) {
    imports::log(level as u32, &format!("tollgate {filter}: {message}"));
}

/// What became of a call. A failed one has no headers (Envoy), no status or a `:dispatch_status` (nginx), or a body that is
/// shorter than its size.
fn outcome(headers: u32, size: usize) -> CallOutcome {
    if headers == 0 {
        return CallOutcome::Failed;
    }
    let Ok(map) = host::header_map(Map::CallResponse) else {
        return CallOutcome::Failed;
    };
    let text = |name: &str| {
        map.first(name)
            .map(<[u8]>::to_vec)
            .or_else(|| imports::header(Map::CallResponse, name).ok().flatten())
    };
    if text(":dispatch_status").is_some_and(|status| status != b"ok") {
        return CallOutcome::Failed;
    }
    let status = text(":status").and_then(|status| {
        std::str::from_utf8(&status)
            .ok()
            .and_then(|status| status.parse().ok())
    });
    let body = if size == 0 {
        Ok(Vec::new())
    } else {
        imports::buffer(Buffer::CallResponseBody, size)
    };
    match (status, body) {
        (Some(status), Ok(body)) if body.len() == size => CallOutcome::Response(CallResponse {
            status,
            headers: map,
            body,
        }),
        _ => CallOutcome::Failed,
    }
}
