//! Between hyper's header maps and the header lines that filters see.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode, Version, request, response};

use crate::http::Headers;

/// Headers that concern one connection ([RFC 9110 section 7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)),
/// besides those that `Connection` names. `Transfer-Encoding` is one too, but filters see it: on Kong it is what tells
/// them that a body will come; and `TE: trailers` passes, since the proxy hands trailers on.
const OF_THE_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    UPGRADE,
];

/// A message that filters left in a state in which it can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsendable {
    /// Occurs when `:method` is missing or no token.
    #[error(":method is missing or malformed")]
    Method,
    /// Occurs when `:path` is missing or no request target.
    #[error(":path is missing or malformed")]
    Path,
    /// Occurs when `:status` is missing or not from 100 to 999.
    #[error(":status is missing or malformed")]
    Status,
    /// Occurs when a header's name or value has bytes that a header can't have.
    #[error("a header's name or value is malformed")]
    Header,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// The client.
    pub(super) client: SocketAddr,
    /// `http` or `https`.
    pub(super) scheme: &'a str,
    /// Names the request in the log and upstream.
    pub(super) request_id: &'a str,
}

/// The request's lines as filters see them, the same for HTTP/1.1 and HTTP/2; none where it names no host or no path.
/// With `upgrade` the lines stay in with which the client asks for another protocol.
pub(super) fn from_request(
    head: &request::Parts,
    origin: Origin<'_>,
    upgrade: Option<&Upgrade>,
) -> Option<Headers> {
    let target = head.uri.path_and_query()?;
    let authority = match head.uri.authority() {
        Some(authority) => Bytes::copy_from_slice(authority.as_str().as_bytes()),
        None => value(head.headers.get(HOST)?),
    };
    let mut headers = Headers::new();
    headers.push(
        ":method",
        Bytes::copy_from_slice(head.method.as_str().as_bytes()),
    );
    headers.push(":path", Bytes::copy_from_slice(target.as_str().as_bytes()));
    headers.push(":authority", authority);
    headers.push(":scheme", origin.scheme.to_owned());
    if head.version == Version::HTTP_2 {
        push_all(&mut headers, &head.headers, &[HOST, EXPECT, COOKIE]);
        push_cookies(&mut headers, &head.headers);
    } else {
        push_all(&mut headers, &head.headers, &[HOST, EXPECT]);
    }
    if head.headers.get_all(TE).iter().any(names_trailers) {
        headers.push("te", "trailers");
    }
    if let Some(upgrade) = upgrade {
        headers.push("connection", "upgrade");
        headers.push("upgrade", upgrade.0.clone());
    }
    let client = origin.client.ip();
    let forwarded = match joined(&headers, "x-forwarded-for") {
        Some(before) => [before.as_slice(), b", ", client.to_string().as_bytes()].concat(),
        None => client.to_string().into_bytes(),
    };
    headers.set("x-forwarded-for", forwarded);
    headers.set("x-forwarded-proto", origin.scheme.to_owned());
    headers.set("x-request-id", origin.request_id.to_owned());
    Some(headers)
}

/// The answer's lines as filters see them.
pub(super) fn from_response(head: &response::Parts) -> Headers {
    let mut headers = Headers::new();
    headers.push(":status", head.status.as_str().to_owned());
    push_all(&mut headers, &head.headers, &[]);
    headers
}

/// Trailers as filters see them.
pub(super) fn from_trailers(trailers: &HeaderMap) -> Headers {
    trailers
        .iter()
        .map(|(name, line)| (Bytes::copy_from_slice(name.as_ref()), value(line)))
        .collect()
}

/// The head of a request to `endpoint`: the target as it stands in an HTTP/1.1 request, and a Host. With `upgrade` it
/// asks for another protocol.
pub(super) fn to_request(
    headers: &Headers,
    endpoint: &Authority,
    upgrade: Option<&Upgrade>,
) -> Result<request::Parts, Unsendable> {
    let method = headers
        .get(":method")
        .and_then(|method| Method::from_bytes(method).ok())
        .ok_or(Unsendable::Method)?;
    let target = headers
        .get(":path")
        .filter(|path| path.starts_with(b"/") || path.as_ref() == b"*")
        .and_then(|path| PathAndQuery::from_maybe_shared(path.clone()).ok())
        .ok_or(Unsendable::Path)?;
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = method;
    head.uri = Uri::from(target);
    let authority = headers.get(":authority").or_else(|| headers.get("host"));
    let host = match authority {
        Some(authority) => HeaderValue::from_maybe_shared(authority.clone()),
        None => HeaderValue::from_str(endpoint.as_str()),
    };
    head.headers = to_map(headers)?;
    head.headers
        .insert(HOST, host.map_err(|_| Unsendable::Header)?);
    if headers.contains("te") {
        head.headers.insert(TE, TRAILERS);
    }
    if let Some(upgrade) = upgrade {
        upgrade.ask(&mut head.headers);
    }
    Ok(head)
}

/// A request's head as HTTP/1.1 has it.
pub(super) fn for_http1(mut head: request::Parts) -> request::Parts {
    // TE concerns the connection, which is said beside it.
    if head.headers.contains_key(TE) && !head.headers.contains_key(CONNECTION) {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("te"));
    }
    head
}

/// A request's head as HTTP/2 has it, where Host is a part of the target.
pub(super) fn for_http2(
    mut head: request::Parts,
    secure: bool,
    endpoint: &Authority,
) -> request::Parts {
    let host = head.headers.remove(HOST);
    let authority = host.and_then(|host| {
        Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())).ok()
    });
    let mut uri = head.uri.into_parts();
    uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = Some(authority.unwrap_or_else(|| endpoint.clone()));
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.version = Version::HTTP_2;
    head
}

/// The head of an answer to the client; with `upgrade` one that changes the protocol.
pub(super) fn to_response(
    headers: &Headers,
    upgrade: Option<&Upgrade>,
) -> Result<response::Parts, Unsendable> {
    let status = headers
        .get(":status")
        .and_then(|status| StatusCode::from_bytes(status).ok());
    let (mut head, ()) = http::Response::new(()).into_parts();
    let switches =
        |status: StatusCode| upgrade.is_some() && status == StatusCode::SWITCHING_PROTOCOLS;
    head.status = status
        .filter(|status| !status.is_informational() || switches(*status))
        .ok_or(Unsendable::Status)?;
    head.headers = to_map(headers)?;
    if let Some(upgrade) = upgrade.filter(|_| switches(head.status)) {
        upgrade.ask(&mut head.headers);
    }
    Ok(head)
}

/// Another protocol that a client wants to speak on its connection.
#[derive(Clone, Debug)]
pub(super) struct Upgrade(Bytes);

impl Upgrade {
    /// What the client asks for, if it asks.
    pub(super) fn wanted(head: &request::Parts) -> Option<Self> {
        let asks = named(&head.headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
        let protocol = head.headers.get(UPGRADE)?;
        // An offer to speak HTTP/2, which clients make unasked: a server may go on with HTTP/1.1 (RFC 9110 section 7.8).
        let offer = protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
        let asks = asks && head.version == Version::HTTP_11 && !offer;
        asks.then(|| Self(value(protocol)))
    }

    /// Whether it is one of `protocols`.
    pub(super) fn is_one_of(&self, protocols: &[String]) -> bool {
        protocols
            .iter()
            .any(|protocol| self.0.eq_ignore_ascii_case(protocol.as_bytes()))
    }

    fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        // It was a header's value before.
        if let Ok(protocol) = HeaderValue::from_maybe_shared(self.0.clone()) {
            headers.insert(UPGRADE, protocol);
        }
    }
}

/// A version as the log and the filters' property `request.protocol` have it.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// The lines without pseudo-headers and without what is hyper's to say: how the body is framed on this connection.
pub(super) fn to_map(headers: &Headers) -> Result<HeaderMap, Unsendable> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, line) in headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let name = HeaderName::from_bytes(name).map_err(|_| Unsendable::Header)?;
        if name == TRANSFER_ENCODING || name == TE || OF_THE_CONNECTION.contains(&name) {
            continue;
        }
        let line = HeaderValue::from_maybe_shared(line.clone()).map_err(|_| Unsendable::Header)?;
        map.append(name, line);
    }
    Ok(map)
}

fn push_all(headers: &mut Headers, map: &HeaderMap, without: &[HeaderName]) {
    let named: Vec<&str> = named(map).collect();
    for (name, line) in map {
        let of_the_connection = OF_THE_CONNECTION.contains(name)
            || named.iter().any(|other| {
                name.as_str().eq_ignore_ascii_case(other) && *name != TRANSFER_ENCODING
            });
        if !of_the_connection && *name != TE && !without.contains(name) {
            headers.push(Bytes::copy_from_slice(name.as_ref()), value(line));
        }
    }
}

/// The headers that `Connection` names.
fn named(map: &HeaderMap) -> impl Iterator<Item = &str> {
    map.get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// On HTTP/2 a Cookie may come in several lines, for the sake of compression; further on it is one ([RFC 9113 section
/// 8.2.3](https://www.rfc-editor.org/rfc/rfc9113#section-8.2.3)).
fn push_cookies(headers: &mut Headers, map: &HeaderMap) {
    let crumbs: Vec<&[u8]> = map
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if !crumbs.is_empty() {
        headers.push("cookie", crumbs.join(b"; ".as_slice()));
    }
}

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

fn names_trailers(line: &HeaderValue) -> bool {
    let words = line.as_bytes().split(|byte| *byte == b',');
    words
        .map(<[u8]>::trim_ascii)
        .any(|word| word.eq_ignore_ascii_case(b"trailers"))
}

fn joined(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).map(AsRef::as_ref).collect();
    (!lines.is_empty()).then(|| lines.join(b", ".as_slice()))
}

fn value(line: &HeaderValue) -> Bytes {
    Bytes::copy_from_slice(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'_> = Origin {
        client: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
        scheme: "https",
        request_id: "id",
    };

    fn request(lines: &[(&str, &str)]) -> request::Parts {
        let builder = http::Request::builder().uri("/a%20b?q=%2F");
        let builder = lines.iter().fold(builder, |builder, (name, line)| {
            builder.header(*name, *line)
        });
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_concerns_one_connection_goes_no_further() {
        let lines = [
            ("host", "gateway"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers;q=0.5, Trailers"),
            ("proxy-authorization", "Basic eDp5"),
            ("upgrade", "websocket"),
            ("x-public", "2"),
        ];
        let seen = from_request(&request(&lines), ORIGIN, None).unwrap();
        let sent = to_request(&seen, &Authority::from_static("upstream:1"), None).unwrap();
        let names: Vec<_> = sent.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(
            names,
            [
                "x-public",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-request-id",
                "host",
                "te"
            ]
        );
        assert_eq!(sent.headers.get(TE).unwrap(), "trailers");
    }

    #[test]
    fn target_and_host_stay_as_the_client_wrote_them() {
        let seen = from_request(&request(&[("host", "gateway:81")]), ORIGIN, None).unwrap();
        let sent = to_request(&seen, &Authority::from_static("upstream:1"), None).unwrap();
        assert_eq!(sent.uri.to_string(), "/a%20b?q=%2F");
        assert_eq!(sent.headers.get(HOST).unwrap(), "gateway:81");
        let sent = for_http2(sent, true, &Authority::from_static("upstream:1"));
        assert_eq!(sent.uri.to_string(), "https://gateway:81/a%20b?q=%2F");
        assert_eq!(sent.headers.get(HOST), None);
    }

    #[test]
    fn crumbs_of_a_cookie_become_one_line() {
        let mut head = request(&[("host", "h"), ("cookie", "a=1"), ("cookie", "b=2")]);
        let lines = |head: &request::Parts| -> Vec<Bytes> {
            let seen = from_request(head, ORIGIN, None).unwrap();
            seen.get_all("cookie").cloned().collect()
        };
        assert_eq!(lines(&head), ["a=1", "b=2"]);
        head.version = Version::HTTP_2;
        assert_eq!(lines(&head), ["a=1; b=2"]);
    }

    #[test]
    fn the_client_is_added_to_those_who_forwarded_before() {
        let lines = [
            ("host", "h"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
        ];
        let seen = from_request(&request(&lines), ORIGIN, None).unwrap();
        let lines: Vec<_> = seen.get_all("x-forwarded-for").collect();
        assert_eq!(lines, ["192.0.2.1, 192.0.2.2, 127.0.0.1"]);
    }

    #[test]
    fn what_filters_can_break_is_told_apart() {
        let endpoint = Authority::from_static("upstream:1");
        let seen = from_request(&request(&[("host", "h")]), ORIGIN, None).unwrap();
        let broken = |name: &'static str, line: &'static str| {
            let mut headers = seen.clone();
            headers.set(name, line);
            to_request(&headers, &endpoint, None).map(drop).unwrap_err()
        };
        assert_eq!(broken(":path", "no-slash"), Unsendable::Path);
        assert_eq!(broken(":path", "/a b"), Unsendable::Path);
        assert_eq!(broken(":method", "GE T"), Unsendable::Method);
        assert_eq!(broken("x-a", "line\r\nX-Injected: 1"), Unsendable::Header);
        let answer: Headers = [(":status", "99")].into_iter().collect();
        assert_eq!(
            to_response(&answer, None).map(drop).unwrap_err(),
            Unsendable::Status
        );
    }
}
