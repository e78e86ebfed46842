//! Why the proxy itself ends a request, with what the client gets for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;

/// A request that could not be served as it should. The words are for the log and the client: never with an address of
/// the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(super) enum Failure {
    /// Occurs when nothing listens at the endpoint.
    #[error("upstream connection refused")]
    ConnectRefused,
    /// Occurs when the connection takes longer than the cluster allows.
    #[error("upstream connection timed out")]
    ConnectTimeout,
    /// Occurs when the host's name can't be resolved, or has no route.
    #[error("upstream address can't be reached")]
    Unreachable,
    /// Occurs when the upstream's certificate is not trusted, or the two sides have no version or protocol in common.
    #[error("upstream TLS handshake failed")]
    Tls,
    /// Occurs when as many requests wait for a connection as the cluster allows.
    #[error("too many requests wait for the upstream")]
    Overloaded,
    /// Occurs when no connection became free within the cluster's connect timeout.
    #[error("no upstream connection became free in time")]
    Queued,
    /// Occurs when the connection ends before the answer's headers.
    #[error("upstream closed the connection before an answer")]
    Closed,
    /// Occurs when the upstream resets the HTTP/2 stream before the answer's headers.
    #[error("upstream reset the request")]
    Reset,
    /// Occurs when what comes is no HTTP.
    #[error("upstream answered with something that is no HTTP")]
    Malformed,
    /// Occurs when the answer's headers take longer than the cluster allows.
    #[error("upstream did not answer in time")]
    HeadersTimeout,
    /// Occurs when the upstream stops in the middle of an answer, or stops taking the request.
    #[error("upstream stopped for longer than the idle timeout")]
    UpstreamIdle,
    /// Occurs when the client stops sending its request.
    #[error("the client stopped sending its request")]
    UploadIdle,
    /// Occurs when the client stops reading the answer.
    #[error("the client stopped reading the answer")]
    DownloadIdle,
    /// Occurs when filters hold the request for longer than the idle timeout, without a call under way.
    #[error("the filters held the request for too long")]
    FiltersIdle,
    /// Occurs when no byte passes in either direction of an upgraded connection.
    #[error("no byte passed the upgraded connection within the idle timeout")]
    TunnelIdle,
    /// Occurs when the request takes longer than the cluster allows.
    #[error("the request took longer than the cluster's timeout")]
    Timeout,
    /// Occurs when the request's body is larger than the listener allows.
    #[error("the request body is too large")]
    RequestTooLarge,
    /// Occurs when the answer's body is larger than the cluster allows.
    #[error("the upstream's answer is too large")]
    ResponseTooLarge,
    /// Occurs when the connection or the stream ends in the middle of the answer.
    #[error("upstream broke off in the middle of its answer")]
    AnswerCutOff,
    /// Occurs when a client wants to change the protocol and the route does not allow it.
    #[error("this route takes no upgrade to that protocol")]
    UpgradeRefused,
    /// Occurs when a client asks for a tunnel.
    #[error("CONNECT is not served here")]
    Connect,
    /// Occurs when the target is longer than the listener allows.
    #[error("the request target is too long")]
    UriTooLong,
    /// Occurs when the head has more lines or bytes than the listener allows.
    #[error("the request headers are too large")]
    HeadersTooLarge,
    /// Occurs when the client takes too long for its headers.
    #[error("the request headers did not come in time")]
    HeaderTimeout,
    /// Occurs when the request is framed in a way that two readers could understand in two ways.
    #[error("the request is malformed")]
    BadRequest,
    /// Occurs when the body is in a transfer coding other than chunked.
    #[error("the transfer coding is not supported")]
    UnknownCoding,
    /// Occurs when the request is of another version than HTTP/1.0, 1.1 or 2.
    #[error("the HTTP version is not supported")]
    UnknownVersion,
}

impl Failure {
    /// What a client gets that has no headers yet.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::ConnectRefused
            | Self::Unreachable
            | Self::Tls
            | Self::Closed
            | Self::Reset
            | Self::Malformed
            | Self::ResponseTooLarge
            | Self::AnswerCutOff => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout
            | Self::HeadersTimeout
            | Self::UpstreamIdle
            | Self::FiltersIdle
            | Self::TunnelIdle
            | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Overloaded | Self::Queued => StatusCode::SERVICE_UNAVAILABLE,
            Self::UploadIdle | Self::DownloadIdle | Self::HeaderTimeout => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UpgradeRefused | Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::UnknownVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// The `reason` of its counter.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::ConnectRefused => "upstream_connect_refused",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::Unreachable => "upstream_unreachable",
            Self::Tls => "upstream_tls",
            Self::Overloaded => "upstream_overloaded",
            Self::Queued => "upstream_queue_timeout",
            Self::Closed => "upstream_closed",
            Self::Reset => "upstream_reset",
            Self::Malformed => "upstream_malformed",
            Self::HeadersTimeout => "upstream_headers_timeout",
            Self::UpstreamIdle => "upstream_idle_timeout",
            Self::UploadIdle => "client_upload_idle_timeout",
            Self::DownloadIdle => "client_download_idle_timeout",
            Self::FiltersIdle => "filters_idle_timeout",
            Self::TunnelIdle => "tunnel_idle_timeout",
            Self::Timeout => "timeout",
            Self::RequestTooLarge => "request_too_large",
            Self::ResponseTooLarge => "response_too_large",
            Self::AnswerCutOff => "upstream_cut_off",
            Self::UpgradeRefused => "upgrade_refused",
            Self::Connect => "connect_refused",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::HeaderTimeout => "client_header_timeout",
            Self::BadRequest => "malformed_request",
            Self::UnknownCoding => "unknown_transfer_coding",
            Self::UnknownVersion => "unknown_version",
        }
    }

    /// Whether no connection to the upstream came about, so that it has seen nothing of the request.
    pub(super) fn before_connection(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused
                | Self::ConnectTimeout
                | Self::Unreachable
                | Self::Tls
                | Self::Overloaded
                | Self::Queued
        )
    }
}

impl Failure {
    /// Whether no connection can be made to the endpoint at present.
    pub(super) fn is_of_connecting(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused | Self::ConnectTimeout | Self::Unreachable | Self::Tls
        )
    }

    /// Whether it was for the upstream to prevent it.
    pub(super) fn is_the_upstreams(self) -> bool {
        let after_connecting = matches!(
            self,
            Self::Closed
                | Self::Reset
                | Self::Malformed
                | Self::HeadersTimeout
                | Self::UpstreamIdle
                | Self::ResponseTooLarge
                | Self::AnswerCutOff
        );
        self.is_of_connecting() || after_connecting
    }
}

/// How often each failure happened.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<BTreeMap<&'static str, u64>>);

impl Failures {
    /// Counts one.
    pub(super) fn count(&self, failure: Failure) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(failure.reason()).or_default();
        *count = count.saturating_add(1);
    }

    /// The counts by reason.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
