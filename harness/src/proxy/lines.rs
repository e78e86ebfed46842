//! Between hyper's header maps and the header lines that filters see.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode, request, response};

use crate::http::Headers;

/// Headers that concern one connection ([RFC 9110 section 7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)),
/// besides those that `Connection` names. `Transfer-Encoding` is one too, but filters see it: on Kong it is what tells
/// them that a body will come.
const OF_THE_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
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
    /// Names the request in the log and upstream.
    pub(super) request_id: &'a str,
}

/// The request's lines as filters see them, or none where it names no host or no path.
pub(super) fn from_request(head: &request::Parts, origin: Origin<'_>) -> Option<Headers> {
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
    headers.push(":scheme", "http");
    push_all(&mut headers, &head.headers, &[HOST, EXPECT]);
    let client = origin.client.ip();
    let forwarded = match joined(&headers, "x-forwarded-for") {
        Some(before) => [before.as_slice(), b", ", client.to_string().as_bytes()].concat(),
        None => client.to_string().into_bytes(),
    };
    headers.set("x-forwarded-for", forwarded);
    headers.set("x-forwarded-proto", "http");
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

/// The head of a request to `endpoint`.
pub(super) fn to_request(
    headers: &Headers,
    endpoint: &Authority,
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
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(endpoint.clone());
    uri.path_and_query = Some(target);
    head.method = method;
    head.uri = Uri::from_parts(uri).map_err(|_| Unsendable::Path)?;
    let authority = headers.get(":authority").or_else(|| headers.get("host"));
    let host = match authority {
        Some(authority) => HeaderValue::from_maybe_shared(authority.clone()),
        None => HeaderValue::from_str(endpoint.as_str()),
    };
    head.headers = to_map(headers)?;
    head.headers
        .insert(HOST, host.map_err(|_| Unsendable::Header)?);
    Ok(head)
}

/// The head of an answer to the client.
pub(super) fn to_response(headers: &Headers) -> Result<response::Parts, Unsendable> {
    let status = headers
        .get(":status")
        .and_then(|status| StatusCode::from_bytes(status).ok());
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status
        .filter(|status| !status.is_informational())
        .ok_or(Unsendable::Status)?;
    head.headers = to_map(headers)?;
    Ok(head)
}

/// The lines without pseudo-headers and without what is hyper's to say: how the body is framed on this connection.
pub(super) fn to_map(headers: &Headers) -> Result<HeaderMap, Unsendable> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, line) in headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let name = HeaderName::from_bytes(name).map_err(|_| Unsendable::Header)?;
        if name == TRANSFER_ENCODING || OF_THE_CONNECTION.contains(&name) {
            continue;
        }
        let line = HeaderValue::from_maybe_shared(line.clone()).map_err(|_| Unsendable::Header)?;
        map.append(name, line);
    }
    Ok(map)
}

fn push_all(headers: &mut Headers, map: &HeaderMap, without: &[HeaderName]) {
    let named: Vec<&str> = map
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .collect();
    for (name, line) in map {
        let of_the_connection = OF_THE_CONNECTION.contains(name)
            || named.iter().any(|other| {
                name.as_str().eq_ignore_ascii_case(other) && *name != TRANSFER_ENCODING
            });
        if !of_the_connection && !without.contains(name) {
            headers.push(Bytes::copy_from_slice(name.as_ref()), value(line));
        }
    }
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
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("x-public", "2"),
        ];
        let seen = from_request(&request(&lines), ORIGIN).unwrap();
        let sent = to_request(&seen, &Authority::from_static("upstream:1")).unwrap();
        let names: Vec<_> = sent.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(
            names,
            [
                "x-public",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-request-id",
                "host"
            ]
        );
    }

    #[test]
    fn target_and_host_stay_as_the_client_wrote_them() {
        let seen = from_request(&request(&[("host", "gateway:81")]), ORIGIN).unwrap();
        let sent = to_request(&seen, &Authority::from_static("upstream:1")).unwrap();
        assert_eq!(sent.uri.to_string(), "http://upstream:1/a%20b?q=%2F");
        assert_eq!(sent.headers.get(HOST).unwrap(), "gateway:81");
    }

    #[test]
    fn the_client_is_added_to_those_who_forwarded_before() {
        let lines = [
            ("host", "h"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
        ];
        let seen = from_request(&request(&lines), ORIGIN).unwrap();
        let lines: Vec<_> = seen.get_all("x-forwarded-for").collect();
        assert_eq!(lines, ["192.0.2.1, 192.0.2.2, 127.0.0.1"]);
    }

    #[test]
    fn what_filters_can_break_is_told_apart() {
        let endpoint = Authority::from_static("upstream:1");
        let seen = from_request(&request(&[("host", "h")]), ORIGIN).unwrap();
        let broken = |name: &'static str, line: &'static str| {
            let mut headers = seen.clone();
            headers.set(name, line);
            to_request(&headers, &endpoint).map(drop).unwrap_err()
        };
        assert_eq!(broken(":path", "no-slash"), Unsendable::Path);
        assert_eq!(broken(":path", "/a b"), Unsendable::Path);
        assert_eq!(broken(":method", "GE T"), Unsendable::Method);
        assert_eq!(broken("x-a", "line\r\nX-Injected: 1"), Unsendable::Header);
        let answer: Headers = [(":status", "99")].into_iter().collect();
        assert_eq!(
            to_response(&answer).map(drop).unwrap_err(),
            Unsendable::Status
        );
    }
}
