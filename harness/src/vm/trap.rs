//! What is known about a trap.

use std::fmt;

use crate::exchange::ExchangeId;

/// A callback that did not return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrapReport {
    /// The filter entry.
    pub filter: String,
    /// The callback.
    pub callback: Callback,
    /// The exchange it served, if any.
    pub exchange: Option<ExchangeId>,
    /// Its method and path, without the query, where they were there.
    pub request: Option<String>,
    /// What happened.
    pub cause: TrapCause,
    /// The guest's functions, innermost first, by their demangled names.
    pub backtrace: Vec<String>,
    /// Whether the worker process of the modelled host would have died of it.
    pub kills_worker: bool,
    /// What else went down.
    pub lost: Lost,
}

/// What a VM takes with it when it traps, besides the exchange whose callback it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The other exchanges that have a context in it. What becomes of them is the profile's matter.
    pub exchanges: Vec<ExchangeId>,
    /// How many calls were under way, whose answers nobody will get.
    pub calls: usize,
    /// The filter entries whose ticks stop.
    pub ticks: Vec<String>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.exchanges.is_empty() {
            let ids: Vec<_> = self.exchanges.iter().map(ToString::to_string).collect();
            parts.push(format!("exchanges {}", ids.join(", ")));
        }
        if self.calls > 0 {
            parts.push(format!("{} calls under way", self.calls));
        }
        if !self.ticks.is_empty() {
            parts.push(format!("the ticks of {}", self.ticks.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

impl fmt::Display for TrapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} trapped in {}", self.filter, self.callback)?;
        if let Some(exchange) = self.exchange {
            write!(f, " of exchange {exchange}")?;
        }
        if let Some(request) = &self.request {
            write!(f, " ({request})")?;
        }
        write!(f, ": {}", self.cause)?;
        for frame in &self.backtrace {
            write!(f, "\n    at {frame}")?;
        }
        if self.lost != Lost::default() {
            write!(f, "\n    lost with its VM: {}", self.lost)?;
        }
        Ok(())
    }
}

/// Why a callback did not return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrapCause {
    /// The guest executed a trap: a panic, an overflow of its stack, a division by zero, ...
    #[error("{0}")]
    Guest(String),
    /// The callback ran longer than [`crate::worker::Limits::callback`].
    #[error("the callback ran past its deadline")]
    Deadline,
    /// The guest ended itself with `proc_exit`.
    #[error("the guest called proc_exit({0})")]
    Exit(u32),
    /// The host of this profile refuses what the guest did; the text is the rule.
    #[error("{0}")]
    Host(&'static str),
}

/// The host of this profile refuses what the guest did.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) &'static str);

/// The worker of the host of this profile dies of what the guest did.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Crashed(pub(super) &'static str);

/// The guest ended itself.
#[derive(Debug, thiserror::Error)]
#[error("proc_exit({0})")]
pub(super) struct ProcExit(pub(super) u32);

impl TrapCause {
    /// Takes an error of the engine apart.
    pub(super) fn from_error(error: &wasmtime::Error) -> Self {
        if let Some(Refused(rule)) = error.downcast_ref() {
            return Self::Host(rule);
        }
        if let Some(Crashed(rule)) = error.downcast_ref() {
            return Self::Host(rule);
        }
        if let Some(ProcExit(code)) = error.downcast_ref() {
            return Self::Exit(*code);
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::Interrupt) => Self::Deadline,
            Some(trap) => Self::Guest(trap.to_string()),
            None => Self::Guest(error.root_cause().to_string()),
        }
    }
}

/// The guest's functions that were running, innermost first.
pub(super) fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() else {
        return Vec::new();
    };
    trace
        .frames()
        .iter()
        .map(|frame| match frame.func_name() {
            Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
            None => format!("function {}", frame.func_index()),
        })
        .collect()
}

/// A callback of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(
    missing_docs,
    reason = "each variant is the ABI's callback of the same name"
)]
pub enum Callback {
    Initialize,
    ContextCreate,
    VmStart,
    Configure,
    Tick,
    QueueReady,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    CallResponse,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcTrailingMetadata,
    GrpcClose,
    Done,
    Log,
    Delete,
}

impl Callback {
    /// The callback's name in the ABI, without `proxy_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Initialize => "_initialize",
            Self::ContextCreate => "on_context_create",
            Self::VmStart => "on_vm_start",
            Self::Configure => "on_configure",
            Self::Tick => "on_tick",
            Self::QueueReady => "on_queue_ready",
            Self::RequestHeaders => "on_request_headers",
            Self::RequestBody => "on_request_body",
            Self::RequestTrailers => "on_request_trailers",
            Self::ResponseHeaders => "on_response_headers",
            Self::ResponseBody => "on_response_body",
            Self::ResponseTrailers => "on_response_trailers",
            Self::CallResponse => "on_http_call_response",
            Self::GrpcInitialMetadata => "on_grpc_receive_initial_metadata",
            Self::GrpcMessage => "on_grpc_receive",
            Self::GrpcTrailingMetadata => "on_grpc_receive_trailing_metadata",
            Self::GrpcClose => "on_grpc_close",
            Self::Done => "on_done",
            Self::Log => "on_log",
            Self::Delete => "on_delete",
        }
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
