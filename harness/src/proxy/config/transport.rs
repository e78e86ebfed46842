//! How messages travel: the options of listeners and clusters that concern connections, not requests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tollgate_kit::config::{Reader, Seconds};
use tollgate_kit::{keyword, record};

use super::raw::{Address, RawCluster};
use super::validate::Place;
use crate::proxy::tls::{self, ServerName, TlsError};

keyword! {
    /// What is spoken with an upstream.
    pub(in crate::proxy) enum Protocol {
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2; without TLS with prior knowledge.
        Http2 = "http2",
        /// Under TLS what ALPN settles on, else HTTP/1.1.
        Auto = "auto",
    }
}

record! {
    /// A listening socket.
    pub(super) struct RawListen {
        /// Address and port, as 127.0.0.1:8080; port 0 takes a free one.
        pub(super) address: Address,
        /// Certificate and key; left out: clients speak without TLS.
        pub(super) tls: Option<RawIdentity>,
        /// How long a client may take for the headers of a request, or for its TLS handshake.
        pub(super) header_timeout: Seconds = Seconds(Duration::from_secs(30)),
        /// How long a connection without a request is kept.
        pub(super) keep_alive_timeout: Seconds = Seconds(Duration::from_secs(75)),
        /// The largest request body, in bytes; left out: any.
        pub(super) max_request_bytes: Option<u64>,
        /// The largest request head, in bytes, all of its lines together.
        pub(super) max_header_bytes: u64 = 65_536,
        /// The most header lines of a request.
        pub(super) max_headers: u64 = 100,
        /// The longest request target, in bytes.
        pub(super) max_uri_bytes: u64 = 8_192,
        /// The most requests at a time on one HTTP/2 connection.
        pub(super) max_concurrent_streams: u64 = 100,
    }
}

record! {
    /// Who a listener is.
    pub(super) struct RawIdentity {
        /// A PEM file with the certificate and those that lead to the root, relative to this file.
        pub(super) certificate: String,
        /// A PEM file with the certificate's private key, relative to this file.
        pub(super) private_key: String,
    }
}

record! {
    /// Whom a cluster trusts.
    pub(super) struct RawTrust {
        /// A PEM file with the certificates to trust, relative to this file; left out: the system's.
        pub(super) ca: Option<String>,
        /// The name that the upstream's certificate must have; left out: the endpoint's host.
        pub(super) server_name: Option<String>,
    }
}

/// A listening socket and what it stands of its clients.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Listen {
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) tls: Option<Arc<ServerConfig>>,
    pub(in crate::proxy) header_timeout: Duration,
    pub(in crate::proxy) keep_alive_timeout: Duration,
    pub(in crate::proxy) max_concurrent_streams: u32,
    pub(in crate::proxy) limits: RequestLimits,
}

/// The sizes of requests that a listener takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct RequestLimits {
    /// Bytes of a body.
    pub(in crate::proxy) body: Option<u64>,
    /// Bytes of a head, all lines together.
    pub(in crate::proxy) head: usize,
    /// Header lines.
    pub(in crate::proxy) headers: usize,
    /// Bytes of a request target.
    pub(in crate::proxy) uri: usize,
}

/// How a cluster's endpoints are reached, and what is expected of them.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Transport {
    pub(in crate::proxy) protocol: Protocol,
    pub(in crate::proxy) tls: Option<Trust>,
    pub(in crate::proxy) connect_timeout: Duration,
    pub(in crate::proxy) timeouts: Timeouts,
    pub(in crate::proxy) limits: ConnectionLimits,
    /// Bytes of a response body.
    pub(in crate::proxy) max_response_bytes: Option<u64>,
}

/// A cluster's TLS.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Trust {
    pub(in crate::proxy) config: Arc<ClientConfig>,
    /// None: the endpoint's host.
    pub(in crate::proxy) server_name: Option<ServerName<'static>>,
}

/// How long a cluster's requests may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Timeouts {
    /// From the last of the request to the response's headers.
    pub(in crate::proxy) headers: Duration,
    /// Without a piece of a body in either direction.
    pub(in crate::proxy) idle: Duration,
    /// From the request's headers to the response's end.
    pub(in crate::proxy) whole: Option<Duration>,
}

impl Timeouts {
    /// What a cluster has that says nothing.
    pub(in crate::proxy) const DEFAULT: Self = Self {
        headers: Duration::from_secs(300),
        idle: Duration::from_secs(300),
        whole: None,
    };
}

/// What each worker may open and keep, for each endpoint.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ConnectionLimits {
    /// Open connections.
    pub(in crate::proxy) open: usize,
    /// Requests that wait for a connection.
    pub(in crate::proxy) pending: usize,
    /// Connections kept without a request.
    pub(in crate::proxy) idle: usize,
    /// How long they are kept.
    pub(in crate::proxy) idle_time: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub(in crate::proxy) streams: usize,
}

/// A listener's options. What is wrong is reported, and left out.
pub(super) fn listen(raw: &RawListen, place: &Place<'_>, reader: &mut Reader<'_>) -> Listen {
    let tls = raw.tls.as_ref().and_then(|identity| {
        let [certificate, key] =
            [&identity.certificate, &identity.private_key].map(|file| place.base.join(file));
        let read = |path: &Path| place.bytes(path);
        unless_wrong(tls::server(&certificate, &key, &read), reader)
    });
    Listen {
        address: raw.address.0,
        tls,
        header_timeout: raw.header_timeout.0,
        keep_alive_timeout: raw.keep_alive_timeout.0,
        max_concurrent_streams: at_least_one(
            "max_concurrent_streams",
            raw.max_concurrent_streams,
            reader,
        ),
        limits: RequestLimits {
            body: raw.max_request_bytes,
            head: at_least_one("max_header_bytes", raw.max_header_bytes, reader),
            headers: at_least_one("max_headers", raw.max_headers, reader),
            uri: at_least_one("max_uri_bytes", raw.max_uri_bytes, reader),
        },
    }
}

/// A cluster's options. What is wrong is reported, and left out.
pub(super) fn transport(raw: &RawCluster, place: &Place<'_>, reader: &mut Reader<'_>) -> Transport {
    Transport {
        protocol: raw.protocol,
        tls: raw
            .tls
            .as_ref()
            .and_then(|trust| trusted(trust, raw.protocol, place, reader)),
        connect_timeout: raw.connect_timeout.0,
        timeouts: Timeouts {
            headers: raw.headers_timeout.0,
            idle: raw.idle_timeout.0,
            whole: raw.timeout.map(|timeout| timeout.0),
        },
        limits: ConnectionLimits {
            open: at_least_one("max_connections", raw.max_connections, reader),
            pending: usize::try_from(raw.max_pending).unwrap_or(usize::MAX),
            idle: usize::try_from(raw.max_idle).unwrap_or(usize::MAX),
            idle_time: raw.keep_alive_timeout.0,
            streams: at_least_one("max_streams", raw.max_streams, reader),
        },
        max_response_bytes: raw.max_response_bytes,
    }
}

fn trusted(
    raw: &RawTrust,
    protocol: Protocol,
    place: &Place<'_>,
    reader: &mut Reader<'_>,
) -> Option<Trust> {
    let server_name = raw.server_name.clone().and_then(|name| {
        let parsed = ServerName::try_from(name.clone());
        if parsed.is_err() {
            let message = format!("'{name}' is neither a host's name nor an IP address");
            reader.member("tls", |reader| {
                reader.member("server_name", |reader| reader.error(message))
            });
        }
        parsed.ok()
    });
    let ca = raw.ca.as_ref().map(|ca| place.base.join(ca));
    let read = |path: &Path| place.bytes(path);
    Some(Trust {
        config: unless_wrong(tls::client(ca.as_deref(), protocol, &read), reader)?,
        server_name,
    })
}

/// Reports what is wrong below `tls`, at the field that names the file.
fn unless_wrong<T>(made: Result<T, TlsError>, reader: &mut Reader<'_>) -> Option<T> {
    made.map_err(|error| {
        reader.member("tls", |reader| {
            reader.member(error.field(), |reader| reader.error(&error))
        })
    })
    .ok()
}

fn at_least_one<N: TryFrom<u64> + Default>(field: &str, number: u64, reader: &mut Reader<'_>) -> N {
    // Half of what 32 bits hold: sums of two such limits still fit.
    let fits = (1..=u64::from(u32::MAX >> 1)).contains(&number);
    if !fits {
        reader.member(field, |reader| {
            reader.error("must be from 1 to 2147483647");
        });
    }
    N::try_from(number).unwrap_or_default()
}
