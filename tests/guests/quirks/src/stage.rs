//! The callbacks, and who they are for.
#![allow(
    unsafe_code,
    reason = "the host finds the callbacks by their exported names"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::experiment::{self, Experiment};
use crate::host::{self, Buffer};
use crate::orders::Orders;

/// How a stream goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Continue = 0,
    Pause = 1,
}

/// A callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Configure,
    Tick,
    QueueReady(u32),
    RequestHeaders { end: bool },
    RequestBody { len: usize, end: bool },
    RequestTrailers,
    ResponseHeaders,
    ResponseBody { len: usize, end: bool },
    CallResponse { headers: usize, body: usize },
    Done,
    Log,
    Delete,
}

/// A callback, and for whom.
pub(crate) struct Turn {
    pub(crate) at: At,
    /// The context that the host named, and the root context of the entry.
    pub(crate) context: u32,
    pub(crate) root: u32,
    pub(crate) orders: Rc<Orders>,
}

/// One entry.
struct Entry {
    orders: Rc<Orders>,
    experiment: Experiment,
}

#[derive(Default)]
struct Stage {
    entries: BTreeMap<u32, Entry>,
    /// The root contexts of the streams.
    streams: BTreeMap<u32, u32>,
    notes: BTreeMap<&'static str, u32>,
}

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::default();
}

/// Keeps a number for all entries of this VM.
pub(crate) fn note(name: &'static str, number: u32) {
    STAGE.with_borrow_mut(|stage| stage.notes.insert(name, number));
}

/// A number that was kept.
pub(crate) fn noted(name: &'static str) -> Option<u32> {
    STAGE.with_borrow(|stage| stage.notes.get(name).copied())
}

/// Counts up from 1, for all entries of this VM.
pub(crate) fn count(name: &'static str) -> u32 {
    let next = noted(name).unwrap_or(0).saturating_add(1);
    note(name, next);
    next
}

/// Gives a callback to the experiment of its entry. Contexts of no entry are passed over.
fn turn(context: u32, at: At) -> Action {
    let found = STAGE.with_borrow(|stage| {
        let root = stage.streams.get(&context).copied().unwrap_or(context);
        let entry = stage.entries.get(&root)?;
        Some((root, Rc::clone(&entry.orders), entry.experiment))
    });
    let Some((root, orders, experiment)) = found else {
        return Action::Continue;
    };
    experiment(&Turn {
        at,
        context,
        root,
        orders,
    })
}

#[unsafe(export_name = "proxy_on_context_create")]
extern "C" fn on_context_create(context: u32, root: u32) {
    if root != 0 {
        STAGE.with_borrow_mut(|stage| stage.streams.insert(context, root));
    }
}

#[unsafe(export_name = "proxy_on_vm_start")]
extern "C" fn on_vm_start(_root: u32, _size: usize) -> u32 {
    count("vm starts");
    1
}

#[unsafe(export_name = "proxy_on_configure")]
extern "C" fn on_configure(root: u32, size: usize) -> u32 {
    let configuration = host::read(Buffer::Configuration, 0, size).unwrap_or_default();
    let orders = Rc::new(Orders::read(&configuration));
    let Some(experiment) = experiment::named(&orders.experiment) else {
        host::say(format_args!("no experiment `{}`", orders.experiment));
        return 0;
    };
    let entry = Entry { orders, experiment };
    STAGE.with_borrow_mut(|stage| stage.entries.insert(root, entry));
    count("configurations");
    u32::from(turn(root, At::Configure) == Action::Continue)
}

#[unsafe(export_name = "proxy_on_tick")]
extern "C" fn on_tick(root: u32) {
    turn(root, At::Tick);
}

#[unsafe(export_name = "proxy_on_queue_ready")]
extern "C" fn on_queue_ready(root: u32, queue: u32) {
    turn(root, At::QueueReady(queue));
}

#[unsafe(export_name = "proxy_on_request_headers")]
extern "C" fn on_request_headers(context: u32, _lines: usize, end: u32) -> u32 {
    turn(context, At::RequestHeaders { end: end != 0 }) as u32
}

#[unsafe(export_name = "proxy_on_request_body")]
extern "C" fn on_request_body(context: u32, len: usize, end: u32) -> u32 {
    turn(context, At::RequestBody { len, end: end != 0 }) as u32
}

#[unsafe(export_name = "proxy_on_request_trailers")]
extern "C" fn on_request_trailers(context: u32, _lines: usize) -> u32 {
    turn(context, At::RequestTrailers) as u32
}

#[unsafe(export_name = "proxy_on_response_headers")]
extern "C" fn on_response_headers(context: u32, _lines: usize, _end: u32) -> u32 {
    turn(context, At::ResponseHeaders) as u32
}

#[unsafe(export_name = "proxy_on_response_body")]
extern "C" fn on_response_body(context: u32, len: usize, end: u32) -> u32 {
    turn(context, At::ResponseBody { len, end: end != 0 }) as u32
}

#[unsafe(export_name = "proxy_on_http_call_response")]
extern "C" fn on_http_call_response(
    context: u32,
    _token: u32,
    headers: usize,
    body: usize,
    _trailers: usize,
) {
    turn(context, At::CallResponse { headers, body });
}

#[unsafe(export_name = "proxy_on_done")]
extern "C" fn on_done(context: u32) -> u32 {
    u32::from(turn(context, At::Done) == Action::Continue)
}

#[unsafe(export_name = "proxy_on_log")]
extern "C" fn on_log(context: u32) {
    turn(context, At::Log);
}

#[unsafe(export_name = "proxy_on_delete")]
extern "C" fn on_delete(context: u32) {
    turn(context, At::Delete);
    STAGE.with_borrow_mut(|stage| {
        stage.streams.remove(&context);
        stage.entries.remove(&context)
    });
}
