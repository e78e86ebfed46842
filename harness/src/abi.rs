//! The proxy-wasm ABI 0.2.1 as values: statuses, kinds of buffers and maps, the list of functions, the map encoding.
//!
//! Names and numbers are those of the [specification](https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1).

mod pairs;

pub use pairs::{decode_pairs, encode_pairs};

/// What a host function answers a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The thing asked for does not exist.
    NotFound = 1,
    /// An argument has no meaning here, or the thing asked for does not exist in this phase.
    BadArgument = 2,
    /// A value could not be written in its wire form.
    SerializationFailure = 3,
    /// A value could not be read from its wire form.
    ParseFailure = 4,
    /// A pointer of the guest lies outside its memory. The Rust SDK does not know this number.
    InvalidMemoryAccess = 6,
    /// A queue holds nothing.
    Empty = 7,
    /// A shared value changed since it was read.
    CasMismatch = 8,
    /// The host failed.
    InternalFailure = 10,
    /// The host has no such function. The Rust SDK does not know this number.
    Unimplemented = 12,
}

/// What a filter wants to happen after a header, body or trailer callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterAction {
    /// Go on with the next filter.
    Continue,
    /// Wait; what that means is the profile's matter.
    Pause,
}

impl FilterAction {
    /// Reads the number a callback returned. Envoy takes what it does not know for `Continue`.
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        if raw == 1 {
            Self::Pause
        } else {
            Self::Continue
        }
    }
}

/// A buffer that a guest can read with `proxy_get_buffer_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BufferKind {
    /// The request's body, in its body phase.
    RequestBody,
    /// The response's body, in its body phase.
    ResponseBody,
    /// The bytes of a TCP connection, either way: there are none in an HTTP stream.
    Connection,
    /// The body of a call's answer, in its callback.
    CallBody,
    /// The gRPC message that came, in its callback.
    GrpcMessage,
    /// The VM's configuration.
    VmConfiguration,
    /// The configuration of a filter entry.
    PluginConfiguration,
    /// The argument of a foreign function that the host calls in the guest: no host here does.
    CallData,
}

impl BufferKind {
    /// Reads the ABI's number.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::RequestBody,
            1 => Self::ResponseBody,
            2 | 3 => Self::Connection,
            4 => Self::CallBody,
            5 => Self::GrpcMessage,
            6 => Self::VmConfiguration,
            7 => Self::PluginConfiguration,
            8 => Self::CallData,
            _ => return None,
        })
    }
}

/// A header map that a guest can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapKind {
    /// The request's headers.
    RequestHeaders,
    /// The request's trailers.
    RequestTrailers,
    /// The response's headers.
    ResponseHeaders,
    /// The response's trailers.
    ResponseTrailers,
    /// The initial metadata of a gRPC stream, in its callback.
    GrpcInitialMetadata,
    /// The trailing metadata of a gRPC stream, in its callback.
    GrpcTrailingMetadata,
    /// The headers of a call's answer, in its callback.
    CallHeaders,
    /// The trailers of a call's answer, in its callback.
    CallTrailers,
}

impl MapKind {
    /// Reads the ABI's number.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::RequestHeaders,
            1 => Self::RequestTrailers,
            2 => Self::ResponseHeaders,
            3 => Self::ResponseTrailers,
            4 => Self::GrpcInitialMetadata,
            5 => Self::GrpcTrailingMetadata,
            6 => Self::CallHeaders,
            7 => Self::CallTrailers,
            _ => return None,
        })
    }
}

/// The three kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of recorded values.
    Histogram,
}

impl MetricKind {
    /// Reads the ABI's number.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::Counter,
            1 => Self::Gauge,
            2 => Self::Histogram,
            _ => return None,
        })
    }
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// For following single steps.
    Trace,
    /// For finding faults.
    Debug,
    /// Worth knowing.
    Info,
    /// Somebody should look.
    Warn,
    /// Something does not work.
    Error,
    /// Nothing works.
    Critical,
}

impl LogLevel {
    /// Reads the ABI's number.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            _ => return None,
        })
    }
}

/// The marker export of the one ABI version that this host speaks.
pub const ABI_MARKER: &str = "proxy_abi_version_0_2_1";

/// What the marker exports of all versions begin with.
pub const ABI_MARKER_PREFIX: &str = "proxy_abi_version_";

/// The 39 functions of module `env` that ABI 0.2.1 gives a guest.
pub const HOSTCALLS: &[&str] = &[
    "proxy_log",
    "proxy_get_log_level",
    "proxy_get_current_time_nanoseconds",
    "proxy_set_tick_period_milliseconds",
    "proxy_get_buffer_bytes",
    "proxy_get_buffer_status",
    "proxy_set_buffer_bytes",
    "proxy_get_header_map_size",
    "proxy_get_header_map_pairs",
    "proxy_set_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_add_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_remove_header_map_value",
    "proxy_continue_stream",
    "proxy_close_stream",
    "proxy_send_local_response",
    "proxy_http_call",
    "proxy_grpc_call",
    "proxy_grpc_stream",
    "proxy_grpc_send",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_get_status",
    "proxy_set_effective_context",
    "proxy_done",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "proxy_enqueue_shared_queue",
    "proxy_dequeue_shared_queue",
    "proxy_define_metric",
    "proxy_get_metric",
    "proxy_record_metric",
    "proxy_increment_metric",
    "proxy_get_property",
    "proxy_set_property",
    "proxy_call_foreign_function",
];

#[cfg(test)]
mod tests {
    use super::HOSTCALLS;

    #[test]
    fn the_abi_has_39_functions() {
        let mut names = HOSTCALLS.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 39);
    }
}
