//! Requests as a host shows them to its filters, and as it sends them on.

use bytes::Bytes;

use super::state::Exchange;
use crate::http::Headers;
use crate::profile::{Authority, Knobs, PathView, Profile};

/// Properties that stand for nginx's variables.
const REQUEST_URI: &[u8] = b"ngx.request_uri";
const UPSTREAM_URI: &[u8] = b"ngx.upstream_uri";
const UPSTREAM_HOST: &[u8] = b"ngx.upstream_host";

/// The request headers as filters see them.
pub(super) fn arrange(exchange: &mut Exchange, profile: Profile, mut headers: Headers) -> Headers {
    let rules = profile.rules();
    match rules.authority {
        Authority::Host => {
            if let Some(host) = headers.get("host").cloned() {
                headers.remove("host");
                if !headers.contains(":authority") {
                    headers.push(":authority", host);
                }
            }
        }
        Authority::ServerName(name) => {
            let host = headers.get(":authority").cloned();
            headers.set(":authority", name);
            if let Some(host) = host.filter(|_| !headers.contains("host")) {
                headers.push("host", host);
            }
        }
    }
    if rules.adds_request_headers {
        if !headers.contains("x-forwarded-proto") {
            headers.push("x-forwarded-proto", exchange.peer.scheme.clone());
        }
        match headers.get_str("x-request-id") {
            Some(id) => id.clone_into(&mut exchange.request_id),
            None => headers.push("x-request-id", exchange.request_id.clone()),
        }
    }
    if rules.path == PathView::Normalised
        && let Some(raw) = headers.get(":path").cloned()
    {
        let variables = &mut exchange.properties;
        variables.insert(REQUEST_URI.to_vec(), raw.to_vec());
        variables.insert(UPSTREAM_URI.to_vec(), raw.to_vec());
        if let Some(host) = headers.get("host") {
            variables.insert(UPSTREAM_HOST.to_vec(), host.to_vec());
        }
        headers.set(":path", normalised(&raw));
    }
    headers
}

/// The request headers as nginx sends them, after all filters: removed lines are among them, the target and the Host
/// come from variables, Content-Length from the body.
pub(super) fn depart(exchange: &Exchange, knobs: &Knobs) -> Headers {
    let message = &exchange.request;
    let mut lines: Vec<(Bytes, Bytes)> = message
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(message.ghosts.iter().cloned())
        .filter(|(name, _)| !name.eq_ignore_ascii_case(b"host"))
        .collect();
    for known in &knobs.proxy_set_header {
        let same = |name: &Bytes| name.eq_ignore_ascii_case(known.as_bytes());
        let value = lines
            .iter()
            .find(|(name, value)| same(name) && !value.is_empty())
            .map(|(_, value)| value.clone());
        lines.retain(|(name, _)| !same(name));
        lines.extend(value.map(|value| (Bytes::from(known.clone()), value)));
    }
    let mut headers: Headers = lines.into_iter().collect();
    if let Some(target) = exchange.properties.get(UPSTREAM_URI) {
        headers.set(":path", target.clone());
    }
    match exchange.properties.get(UPSTREAM_HOST) {
        Some(host) => headers.set(":authority", host.clone()),
        None => {
            headers.remove(":authority");
        }
    }
    let had_length = headers.contains("content-length");
    let chunked = headers.remove("transfer-encoding");
    if had_length || chunked || !message.body.is_empty() {
        headers.set("content-length", message.body.len().to_string());
    }
    headers
}

/// A target as nginx decodes and merges it for `$uri`, with the raw query behind.
fn normalised(raw: &[u8]) -> Vec<u8> {
    let (path, query) = match raw.iter().position(|byte| *byte == b'?') {
        Some(at) => raw.split_at(at),
        None => (raw, &b""[..]),
    };
    let decoded = decoded(path);
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in decoded.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = vec![b'/'];
    out.extend(parts.join(&b'/'));
    if out.len() > 1 && decoded.ends_with(b"/") {
        out.push(b'/');
    }
    out.extend(query);
    out
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        let pair = (digit(path.get(at + 1)), digit(path.get(at + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                out.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn nginx_decodes_and_merges_the_path_and_leaves_the_query() {
        let seen = normalised(b"/a%20b%2Fc/../d//e?x=%2F");
        assert_eq!(String::from_utf8_lossy(&seen), "/a b/d/e?x=%2F");
        assert_eq!(normalised(b"/"), b"/");
        assert_eq!(normalised(b"/a/"), b"/a/");
        assert_eq!(normalised(b"/../%zz"), b"/%zz");
    }
}
