//! What a filter decides. Each kind of phase has its own type, so that what a host can't do there can't be written.
//!
//! There is no bare "pause": a filter that waits says what for, and the shell picks what the host understands by it.

use crate::headers::HeaderMap;
use crate::identity::Identity;
use crate::reply::Reply;
use std::borrow::Cow;
use std::time::Duration;

/// What is to happen to a request.
#[derive(Debug)]
#[must_use]
pub enum RequestStep {
    /// It goes on, changed like this.
    Continue(RequestEdits),
    /// The decision needs the body: hold the request until it is there, then ask
    /// [`Exchange::request_body`](crate::Exchange::request_body). Past `most` bytes the filter is asked at once, with
    /// [`Body::TooLarge`].
    ///
    /// nginx does not say when a request has no body after all. So there, only a body with a `Content-Length` is waited for; for
    /// a chunked one the filter is asked at once, with [`Body::None`], and asked again when it has come.
    HoldForBody {
        /// The largest body worth waiting for, in bytes.
        most: usize,
    },
    /// The decision needs an answer from somewhere else: make this call, then ask
    /// [`Exchange::call_done`](crate::Exchange::call_done).
    Call(Call),
    /// It ends here, with this answer.
    Reply(Reply),
}

impl RequestStep {
    /// On, unchanged.
    pub fn unchanged() -> RequestStep {
        RequestStep::Continue(RequestEdits::default())
    }
}

/// Changes to a request on its way to the upstream. Applied whole or not at all as far as the client can tell: when
/// the host refuses one, the filter is asked what now ([`Exchange::host_failed`](crate::Exchange::host_failed)).
#[derive(Debug, Default)]
pub struct RequestEdits {
    /// The method, such as `POST`.
    pub method: Option<Vec<u8>>,
    /// The path without the query, percent-encoded as it is to go upstream; begins with `/`.
    pub path: Option<Vec<u8>>,
    /// The `Host` that the upstream is asked for.
    pub authority: Option<Vec<u8>>,
    /// Applied in order.
    pub headers: Vec<HeaderEdit>,
    /// The whole query string, without the `?`; empty takes the `?` away.
    pub query: Option<Vec<u8>>,
    /// The whole body. Only where the body has been held for, and on Envoy only where there is one: a request that came without
    /// ([`Body::None`]) can't be given one there.
    pub body: Option<Vec<u8>>,
    /// Who the client is known to be, for the filters behind this one.
    pub identity: Option<Identity>,
}

/// One change to a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// This one line, in place of all of that name.
    Set(Cow<'static, str>, Vec<u8>),
    /// One more line, behind those of that name. nginx keeps some request headers (`authorization`, `content-type`, ...) in places
    /// that hold one line: there the value joins the line that is there, after a comma (RFC 9110 section 5.3).
    Add(Cow<'static, str>, Vec<u8>),
    /// No line of that name.
    Remove(Cow<'static, str>),
}

/// The body that a filter waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// There is none.
    None,
    /// All of it.
    Whole(&'a [u8]),
    /// It is larger than the filter wanted to wait for.
    TooLarge,
    /// There is one, but the host can't give it (nginx has spilled it to a file).
    Unreadable,
}

impl<'a> Body<'a> {
    /// The bytes: empty where there is no body, `None` where it can't be known.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Body::None => Some(&[]),
            Body::Whole(bytes) => Some(bytes),
            Body::TooLarge | Body::Unreadable => None,
        }
    }
}

/// What is to happen to a response, decided on its headers.
#[derive(Debug)]
#[must_use]
pub enum ResponseStep {
    /// It goes on; the body is not looked at.
    Continue(ResponseEdits),
    /// It goes on; each chunk of the body goes through
    /// [`Exchange::response_chunk`](crate::Exchange::response_chunk) as it comes, and may change its length.
    Stream(ResponseEdits),
    /// It goes on, and each chunk of the body is shown to
    /// [`Exchange::response_passed`](crate::Exchange::response_passed). Nothing can be changed, so its `content-length` stays.
    Watch(ResponseEdits),
    /// It goes on, but the body is kept back until it is whole, and goes through
    /// [`Exchange::response_body`](crate::Exchange::response_body). Past `most` bytes it passes unchanged.
    Hold {
        /// Applied now.
        edits: ResponseEdits,
        /// The largest body worth keeping back, in bytes.
        most: usize,
    },
}

impl ResponseStep {
    /// On, unchanged.
    pub fn unchanged() -> ResponseStep {
        ResponseStep::Continue(ResponseEdits::default())
    }
}

/// Changes to the head of a response.
#[derive(Debug, Default)]
pub struct ResponseEdits {
    /// Applied in order.
    pub headers: Vec<HeaderEdit>,
}

/// What is to happen to a chunk of a response.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum StreamStep {
    /// It goes to the client as it is.
    Pass,
    /// This goes instead.
    Replace(Vec<u8>),
    /// Nothing goes.
    Swallow,
}

/// A request of the filter's own. One answer comes back, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whom to ask: a cluster's name on Envoy, `host:port` on Kong.
    pub upstream: String,
    /// `GET`, `POST`, ...
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The `Host` to ask for.
    pub authority: String,
    /// Further headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, if any.
    pub body: Vec<u8>,
    /// How long the whole call may take (on Kong each of connecting, sending and reading may take as long).
    pub timeout: Duration,
}

/// Whether nginx can read where a call is to go: `host`, `host:port` or `[IPv6]:port`. For anything else it ends the filter's instance.
#[must_use]
pub fn is_address(upstream: &str) -> bool {
    let (host, port) = match upstream.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, port)) if is_ipv6(host) => (host, port),
            _ => return false,
        },
        None => match upstream.find(':') {
            Some(colon) => upstream.split_at(colon),
            None => (upstream, ""),
        },
    };
    let named = !host.is_empty()
        && !host
            .bytes()
            .any(|byte| matches!(byte, b'/' | b'?' | b'#' | 0..=b' ' | 0x7F));
    let port = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|digit| digit.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|port| port > 0)
        }
        None => port.is_empty(),
    };
    named && port
}

/// Groups of up to four hexadecimal digits: eight, or fewer around one `::`. (The library's parser takes a module 5 KB.)
fn is_ipv6(text: &str) -> bool {
    let groups = |part: &str| -> Option<usize> {
        if part.is_empty() {
            return Some(0);
        }
        let mut groups = part.split(':');
        let hexadecimal = |group: &str| {
            matches!(group.len(), 1..=4) && group.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        groups.all(hexadecimal).then(|| part.split(':').count())
    };
    match text.split_once("::") {
        Some((front, back)) => {
            let count = groups(front).zip(groups(back));
            count.is_some_and(|(front, back)| front.saturating_add(back) < 8)
        }
        None => groups(text) == Some(8),
    }
}

/// What became of a [`Call`].
#[derive(Debug)]
pub enum CallOutcome {
    /// An answer came, whatever its status. Envoy answers for an upstream it can't connect to: with a 503.
    Response(CallResponse),
    /// None came, or not all of it: refused, timed out, cut short, not a known upstream.
    Failed,
}

/// The answer to a [`Call`].
#[derive(Debug)]
pub struct CallResponse {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses_are_what_nginx_can_read() {
        for address in [
            "webdis",
            "10.0.0.1:7380",
            "redis.internal:1",
            "a|b:65535",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(is_address(address), "{address}");
        }
        for other in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:b",
            "a:1:2",
            "a/b",
            "a b:1",
            "[::1",
            "[x]:1",
            "[::1]80",
            "http://a:1",
            "unix:/a",
        ] {
            assert!(!is_address(other), "{other}");
        }
    }
}
