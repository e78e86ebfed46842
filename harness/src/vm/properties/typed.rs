//! Envoy's properties: attributes in binary form, and the filter state.

use crate::abi::{Status, encode_pairs};
use crate::exchange::{Exchange, Message};
use crate::http::Headers;
use crate::vm::memory::Refusal;
use crate::vm::{Callback, Guest};

pub(super) fn get(guest: &mut Guest, path: &[u8]) -> Option<Vec<u8>> {
    let mut parts = path
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty());
    let first = parts.next()?;
    let rest: Vec<_> = parts.map(String::from_utf8_lossy).collect();
    let rest: Vec<_> = rest.iter().map(AsRef::as_ref).collect();
    let first_text = std::str::from_utf8(first).ok();
    match first_text {
        Some("plugin_name" | "plugin_root_id") => return Some(guest.name().into_bytes()),
        Some("plugin_vm_id") => return Some(guest.module.clone().into_bytes()),
        _ => {}
    }
    let now = guest.now();
    let logs = guest.site.callback == Callback::Log;
    let (exchange, seat) = guest.seat()?;
    let shown = exchange.seats.get(seat);
    let shows = Shown {
        request: logs || shown.is_some_and(|seat| seat.request.headers_open),
        response: logs || shown.is_some_and(|seat| seat.response.headers_open),
    };
    match (first_text, rest.as_slice()) {
        (Some("request"), [name, more @ ..]) => request(exchange, shows, name, more),
        (Some("response"), [name, more @ ..]) => response(exchange, shows, name, more),
        (Some("source"), [name]) => address(&exchange.peer.source, name),
        (Some("destination"), [name]) => address(&exchange.peer.destination, name),
        (Some("connection"), ["mtls"]) => Some(vec![0]),
        (Some("connection"), ["id"]) => Some(0u64.to_le_bytes().to_vec()),
        (Some("request_duration"), []) => Some(
            now.saturating_sub(exchange.started_unix_nanos)
                .to_le_bytes()
                .to_vec(),
        ),
        // Empty for an unnamed route.
        (Some("xds"), ["route_name"]) => Some(exchange.destination.route.clone().into_bytes()),
        (Some("xds"), ["cluster_name"]) => named(&exchange.destination.service),
        (Some("filter_state"), [name]) => match name.strip_prefix("wasm.") {
            Some(name) => exchange.properties.get(name.as_bytes()).cloned(),
            None => exchange.filter_state.get(*name).cloned(),
        },
        // The filter state is looked up by the first part alone.
        _ => exchange.properties.get(first).cloned(),
    }
}

/// A name, where there is one.
fn named(name: &str) -> Option<Vec<u8>> {
    (!name.is_empty()).then(|| name.as_bytes().to_vec())
}

pub(super) fn set(guest: &mut Guest, path: Vec<u8>, value: Vec<u8>) -> Result<(), Refusal> {
    let declared = guest.declared.get(&guest.root_id());
    let read_only = declared.and_then(|declared| declared.get(&path).copied());
    let (exchange, _) = guest.seat().ok_or(Status::NotFound)?;
    if read_only == Some(true) && exchange.properties.contains_key(&path) {
        return Err(Status::BadArgument.into());
    }
    exchange.properties.insert(path, value);
    Ok(())
}

/// Which headers the filter may read now. What is derived from headers is there with them (running).
#[derive(Clone, Copy)]
struct Shown {
    request: bool,
    response: bool,
}

fn request(exchange: &Exchange, shows: Shown, name: &str, rest: &[&str]) -> Option<Vec<u8>> {
    let message = &exchange.request;
    let derived = !matches!(name, "protocol" | "time" | "size" | "duration");
    if derived && !shows.request {
        return None;
    }
    let header = |name: &str| message.headers.get(name).map(|value| value.to_vec());
    let raw = message.headers.get(":path");
    let split = |path: &[u8]| path.iter().position(|byte| *byte == b'?');
    match (name, rest) {
        ("headers", rest) => headers(&message.headers, rest),
        ("path", []) => header(":path"),
        ("url_path", []) => {
            raw.map(|path| path.slice(..split(path).unwrap_or(path.len())).to_vec())
        }
        ("query", []) => {
            raw.map(|path| split(path).map_or_else(Vec::new, |at| path.slice(at + 1..).to_vec()))
        }
        ("method", []) => header(":method"),
        ("host", []) => header(":authority"),
        ("scheme", []) => header(":scheme"),
        ("useragent", []) => header("user-agent"),
        ("referer", []) => header("referer"),
        ("id", []) => Some(exchange.request_id.clone().into_bytes()),
        ("protocol", []) => Some(exchange.peer.protocol.clone().into_bytes()),
        ("time", []) => Some(exchange.started_unix_nanos.to_le_bytes().to_vec()),
        ("size", []) => Some(message.received.to_le_bytes().to_vec()),
        ("total_size", []) => Some(total(message)),
        _ => None,
    }
}

fn response(exchange: &Exchange, shows: Shown, name: &str, rest: &[&str]) -> Option<Vec<u8>> {
    let message = &exchange.response;
    let derived = matches!(name, "headers" | "total_size");
    if !message.begun || (derived && !shows.response) {
        return None;
    }
    match (name, rest) {
        ("headers", rest) => headers(&message.headers, rest),
        ("code", []) => {
            let status: u64 = message.headers.get_str(":status")?.parse().ok()?;
            Some(status.to_le_bytes().to_vec())
        }
        ("size", []) => Some(message.received.to_le_bytes().to_vec()),
        ("total_size", []) => Some(total(message)),
        ("flags", []) => Some(0u64.to_le_bytes().to_vec()),
        _ => None,
    }
}

fn total(message: &Message) -> Vec<u8> {
    let headers = u64::try_from(message.headers.byte_len()).unwrap_or(u64::MAX);
    message
        .received
        .saturating_add(headers)
        .to_le_bytes()
        .to_vec()
}

/// One header, all its lines joined, or the whole map.
fn headers(map: &Headers, rest: &[&str]) -> Option<Vec<u8>> {
    match rest {
        [] => Some(encode_pairs(map.iter().map(|(n, v)| (&n[..], &v[..])))),
        [name] => {
            let values: Vec<&[u8]> = map.get_all(name).map(|value| &value[..]).collect();
            (!values.is_empty()).then(|| values.join(&b","[..]))
        }
        _ => None,
    }
}

fn address(address: &std::net::SocketAddr, name: &str) -> Option<Vec<u8>> {
    match name {
        "address" => Some(address.to_string().into_bytes()),
        "port" => Some(u64::from(address.port()).to_le_bytes().to_vec()),
        _ => None,
    }
}
