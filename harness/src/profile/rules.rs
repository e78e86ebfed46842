//! The switches that model the hosts' differences; each belongs to a row of [`super::differences`].
//!
//! "running" in a switch's text means that the behaviour was seen on that host (Envoy 1.40; nginx 1.27 with
//! ngx_wasm_module), "source" that it was read in its code.

use serde::Serialize;

/// What a host does where hosts differ.
#[derive(Debug, Serialize)]
pub struct Rules {
    /// How an exchange passes its filters.
    pub flow: Flow,
    /// Whether the header callbacks are told that no body follows. Envoy: real. Kong: always false (running).
    pub end_of_stream_on_headers: bool,
    /// Whether response callbacks run in the reverse order of request callbacks. Envoy: yes. Kong: the same order
    /// (running, both).
    pub responses_reversed: bool,
    /// Whether `on_log` comes before `on_done`. Envoy: yes. Kong: after (running, both).
    pub log_before_done: bool,
    /// Whether request headers can still be read and changed after the header phase. Envoy: gone (BadArgument, and an
    /// empty map) once `Continue` was said, there again in `on_log`. Kong: there (running, both).
    pub headers_stay: bool,
    /// Whether header names are made lower-case. Envoy: yes (running). Kong: they stay as they came (running).
    pub lower_case_names: bool,
    /// What removing a request header does. Kong: the upstream still gets it (running, 9 of 9 names).
    pub request_removal: Removal,
    /// Request headers whose removal kills the worker where there are none of them. Kong (running).
    pub fatal_removal: &'static [&'static str],
    /// What setting a request header does that came more than once. Kong: the first changes, the others still go
    /// (running).
    pub set_duplicated_request: SetDuplicated,
    /// What setting a response header does that came more than once. Kong: all copies vanish (running).
    pub set_duplicated_response: SetDuplicated,
    /// Request headers that can't be added: refused with a log line, answered with Ok (Kong, running).
    pub add_refused: &'static [&'static str],
    /// Request headers of which a host keeps one line: further ones are joined to it with a comma, also when a filter adds
    /// them. Envoy (running). Kong: each line stays (running).
    pub joined_request: &'static [&'static str],
    /// The same of response headers.
    pub joined_response: &'static [&'static str],
    /// Request headers of which a second line is a 400 before any filter. Kong (running).
    pub refused_duplicates: &'static [&'static str],
    /// The most lines of request headers that the host takes, the Host included; more are 431 before any filter.
    /// Envoy: 100 by default (running).
    pub request_lines: Option<usize>,
    /// The most lines that a map handed to a guest has. Kong: 100, and past 104 the map is broken (running: the SDK
    /// panics at 97 headers besides the pseudo-headers and the client's four).
    pub map_limit: Option<usize>,
    /// Whether an empty map is handed over as no bytes at all. Envoy: yes (source). Kong: as a count of 0 (source).
    pub empty_map_is_nothing: bool,
    /// What `:authority` reads. Envoy: the Host. Kong: the server's name, whatever the Host (running).
    pub authority: Authority,
    /// What `:path` reads, and what becomes of its edits. Kong: decoded and normalised (running); its template proxies
    /// to `$upstream_uri`, so that edits do nothing (source).
    pub path: PathView,
    /// Lines that the host adds to a request before filters see it. Envoy: `x-request-id`, `x-forwarded-proto`.
    pub adds_request_headers: bool,
    /// Whether `get_buffer` honours its start. Kong: always reads from 0 (running).
    pub buffer_offset: bool,
    /// What `set_buffer(0, n, v)` does. Kong: cuts v to n (running).
    pub buffer_replacement: BufferReplacement,
    /// Whether a request's Content-Length follows the body that goes upstream. Kong: yes; Envoy: no (running, both).
    pub content_length_follows: bool,
    /// Whether a request that has waited for a call in its body phase goes upstream with the Content-Length that its client announced,
    /// whatever has become of the body. Kong: yes (running).
    pub length_reverts_after_call: bool,
    /// What a local reply's body gets appended. Kong: a line feed, where it is not empty (running).
    pub reply_line_feed: bool,
    /// Whether a header that a local reply has twice goes out twice. Kong: only the last (running).
    pub reply_duplicates: bool,
    /// Where a call may be made. Kong: request headers, request body, tick, call response; elsewhere a trap (running).
    pub calls_anywhere: bool,
    /// What a call names. Envoy: a cluster, BadArgument for an unknown one. Kong: `host:port`, a trap for a malformed
    /// one (running, both).
    pub call_target: CallTarget,
    /// What a guest sees of a failed call.
    pub failed_call: FailedCall,
    /// Whether a stream whose `on_done` answered false waits for `proxy_done` before it is deleted, as the ABI's text says.
    /// Envoy: no (running). Kong: no.
    pub done_waits: bool,
    /// Whether `on_http_call_response` acts on the root context, so that a guest has to choose its stream with
    /// `set_effective_context`, as the SDKs do. Envoy: yes. Kong: it acts on the stream, though the guest is told the
    /// root's number too (running, both).
    pub calls_answer_root: bool,
    /// Whether a body that is not there in this phase reads as empty. Envoy: yes (running). Kong: a trap (running).
    pub absent_body_is_empty: bool,
    /// Whether a filter's configuration can be read in `on_configure` alone. Envoy: yes (running).
    pub configuration_only_in_configure: bool,
    /// Whether `set_effective_context` does anything. Kong: no, and answers Ok (running).
    pub effective_context: bool,
    /// Whether a tick period may be set again. Kong: a trap (running).
    pub tick_again: bool,
    /// Host functions that trap when called: "function not yet implemented" (Kong, running).
    pub missing: &'static [&'static str],
    /// An import that kills the workers at start: the host declares it with another type (Kong, running).
    pub fatal_import: Option<&'static str>,
    /// The smallest step of the clock a guest sees, in nanoseconds. Kong: 1 ms (running).
    pub clock_step: u64,
    /// Whether the VM sees the environment that is configured. Kong: nothing (running).
    pub environment: bool,
    /// Shared data.
    pub shared_data: SharedData,
    /// Whether a metric used against its kind answers a status (Envoy, running) or traps (Kong, running).
    pub metrics: MetricMisuse,
    /// What properties look like.
    pub properties: Properties,
    /// What a trap does to traffic.
    pub traps: Traps,
}

/// How an exchange passes its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// Envoy: each piece goes through the chain as it comes; a filter that pauses holds what follows.
    Streamed,
    /// Kong: all request headers callbacks, then the whole body once (if there is one), then the upstream; pauses work
    /// in request phases with a call under way, and the request resumes by itself after the last answer.
    Phased,
}

/// What removing a request header does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// It is gone.
    Gone,
    /// Filters see it no more, the upstream still gets it, with the value it had last.
    StaysUpstream,
}

/// What setting a duplicated header does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetDuplicated {
    /// One line is left.
    LeavesOne,
    /// The first line changes, the others stay.
    FirstOnly,
    /// No line is left.
    LeavesNone,
}

/// What `:authority` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authority {
    /// The client's Host.
    Host,
    /// This name of the server; it can't be set.
    ServerName(&'static str),
}

/// What `:path` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathView {
    /// What the client sent; edits go upstream.
    Raw,
    /// Decoded and normalised, then `?` and the raw query; edits do not go upstream.
    Normalised,
}

/// What replacing a buffer from 0 on does with the length given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BufferReplacement {
    /// That many bytes of the old content go, the new stands in front of the rest.
    Splice,
    /// The old content goes, the new is cut to that many bytes.
    CutToLength,
}

/// What a call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallTarget {
    /// A cluster of the host's configuration.
    Cluster,
    /// A host and a port.
    HostPort,
}

/// What a guest sees of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailedCall {
    /// An answer made by the host: 503 for a connection that is refused or ends early, 504 for a timeout (Envoy,
    /// running). None where an answer broke off (Envoy, source).
    MadeByHost,
    /// No headers, but `:dispatch_status` says why (Kong, running).
    DispatchStatus,
}

/// How shared data behaves.
#[derive(Debug, Serialize)]
pub struct SharedData {
    /// Whether a write with `cas` 0 always succeeds (Envoy, running); else only where the key is absent (Kong, running).
    pub zero_writes_always: bool,
    /// Whether a write with another `cas` creates an absent key (Envoy, running); else CasMismatch (Kong, source).
    pub absent_is_created: bool,
    /// Whether removing deletes (Kong, running), or stores nothing under the key (Envoy, running).
    pub removal_deletes: bool,
    /// Whether keys are told apart by their CRC-32 alone (Kong, running: "plumless" reads back as "buckeroo").
    pub keys_are_crc32: bool,
    /// Whether the store has a size: the least recently used go, a value larger than all of it evicts everything and
    /// then traps (Kong, running).
    pub bounded: bool,
    /// Whether `cas` counts for each key from 1 and starts again after a removal (Kong, running); else one counter for all (Envoy, source).
    pub cas_per_key: bool,
}

/// What using a metric against its kind does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricMisuse {
    /// Counters: increments of 0 or less are BadArgument, record adds. Gauges take both. Histograms: increment and get
    /// are BadArgument. An unknown id is NotFound.
    Answers,
    /// Increment only on counters, record only on gauges and histograms, get not on histograms, names up to 256 bytes
    /// with their prefix, no unknown ids: else a trap.
    Traps,
}

/// What properties look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Properties {
    /// Little-endian numbers, one-byte booleans, maps as pairs; unknown ones NotFound; what a filter sets is readable
    /// under its path and as `filter_state` / `wasm.<path>` (Envoy, running).
    Typed,
    /// Text; with nginx's variables (`ngx.*`) and Kong's own (`kong.*`); only some can be set (running and source).
    Text,
}

/// What a trap does to traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traps {
    /// The VM is dead; what happens to requests says the entry's [`crate::worker::FailurePolicy`] (Envoy, running).
    KillVm,
    /// Request phases: 500 and a new instance. Call responses and response phases: the exchange goes on unfiltered.
    /// `on_done`: the worker dies (Kong, running).
    NewInstance,
}

/// The headers that nginx keeps in places of their own; filters can't add another line to them.
const NGINX_BUILTIN: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-range",
    "content-type",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "range",
    "referer",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];

/// The headers that Envoy keeps in places of their own, as seen by sending each twice.
const ENVOY_INLINE_REQUEST: &[&str] = &[
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// The same of responses.
const ENVOY_INLINE_RESPONSE: &[&str] = &[
    "access-control-allow-origin",
    "age",
    "cache-control",
    "content-encoding",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "location",
    "vary",
    "via",
    "x-request-id",
];

/// The headers that nginx takes once alone, as seen by sending each twice.
const NGINX_UNIQUE: &[&str] = &[
    "authorization",
    "content-length",
    "content-range",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "transfer-encoding",
];

/// The ABI's text, with Envoy's choices where the text leaves one.
pub(super) static SPEC: Rules = Rules {
    adds_request_headers: false,
    done_waits: true,
    joined_request: &[],
    joined_response: &[],
    request_lines: None,
    ..ENVOY_RULES
};

pub(super) static ENVOY: Rules = ENVOY_RULES;

const ENVOY_RULES: Rules = Rules {
    flow: Flow::Streamed,
    end_of_stream_on_headers: true,
    responses_reversed: true,
    log_before_done: true,
    headers_stay: false,
    lower_case_names: true,
    request_removal: Removal::Gone,
    fatal_removal: &[],
    set_duplicated_request: SetDuplicated::LeavesOne,
    set_duplicated_response: SetDuplicated::LeavesOne,
    add_refused: &[],
    joined_request: ENVOY_INLINE_REQUEST,
    joined_response: ENVOY_INLINE_RESPONSE,
    refused_duplicates: &[],
    request_lines: Some(100),
    map_limit: None,
    empty_map_is_nothing: true,
    authority: Authority::Host,
    path: PathView::Raw,
    adds_request_headers: true,
    buffer_offset: true,
    buffer_replacement: BufferReplacement::Splice,
    content_length_follows: false,
    length_reverts_after_call: false,
    reply_line_feed: false,
    reply_duplicates: true,
    calls_anywhere: true,
    call_target: CallTarget::Cluster,
    failed_call: FailedCall::MadeByHost,
    done_waits: false,
    calls_answer_root: true,
    absent_body_is_empty: true,
    configuration_only_in_configure: true,
    effective_context: true,
    tick_again: true,
    missing: &[],
    fatal_import: None,
    clock_step: 1,
    environment: true,
    shared_data: SharedData {
        zero_writes_always: true,
        absent_is_created: true,
        removal_deletes: false,
        keys_are_crc32: false,
        bounded: false,
        cas_per_key: false,
    },
    metrics: MetricMisuse::Answers,
    properties: Properties::Typed,
    traps: Traps::KillVm,
};

pub(super) static KONG: Rules = Rules {
    flow: Flow::Phased,
    end_of_stream_on_headers: false,
    responses_reversed: false,
    log_before_done: false,
    headers_stay: true,
    lower_case_names: false,
    request_removal: Removal::StaysUpstream,
    fatal_removal: &["cookie", "x-forwarded-for"],
    set_duplicated_request: SetDuplicated::FirstOnly,
    set_duplicated_response: SetDuplicated::LeavesNone,
    add_refused: NGINX_BUILTIN,
    joined_request: &[],
    joined_response: &[],
    refused_duplicates: NGINX_UNIQUE,
    request_lines: None,
    map_limit: Some(100),
    empty_map_is_nothing: false,
    authority: Authority::ServerName("kong:8000"),
    path: PathView::Normalised,
    adds_request_headers: false,
    buffer_offset: false,
    buffer_replacement: BufferReplacement::CutToLength,
    content_length_follows: true,
    length_reverts_after_call: true,
    reply_line_feed: true,
    reply_duplicates: false,
    calls_anywhere: false,
    call_target: CallTarget::HostPort,
    failed_call: FailedCall::DispatchStatus,
    done_waits: false,
    calls_answer_root: false,
    absent_body_is_empty: false,
    configuration_only_in_configure: false,
    effective_context: false,
    tick_again: false,
    missing: &[
        "proxy_get_log_level",
        "proxy_done",
        "proxy_close_stream",
        "proxy_get_status",
        "proxy_resolve_shared_queue",
        "proxy_grpc_call",
        "proxy_grpc_stream",
        "proxy_grpc_send",
        "proxy_grpc_cancel",
        "proxy_grpc_close",
        "proxy_call_foreign_function",
    ],
    fatal_import: Some("proxy_get_log_level"),
    clock_step: 1_000_000,
    environment: false,
    shared_data: SharedData {
        zero_writes_always: false,
        absent_is_created: false,
        removal_deletes: true,
        keys_are_crc32: true,
        bounded: true,
        cas_per_key: true,
    },
    metrics: MetricMisuse::Traps,
    properties: Properties::Text,
    traps: Traps::NewInstance,
};
