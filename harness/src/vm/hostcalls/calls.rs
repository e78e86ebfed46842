//! HTTP calls.

use std::time::Duration;

use bytes::Bytes;

use super::Answer;
use crate::abi::{Status, decode_pairs};
use crate::exchange::{Action, Call, CallId};
use crate::http::Headers;
use crate::profile::{CallTarget, Host, Row};
use crate::vm::memory::{Env, Refusal};
use crate::vm::{Callback, Guest, Owner};

#[allow(clippy::too_many_arguments, reason = "the ABI's own arity")]
pub(super) fn http_call(
    env: &mut Env<'_>,
    target: u32,
    target_len: u32,
    headers: u32,
    headers_len: u32,
    body: u32,
    body_len: u32,
    trailers: u32,
    trailers_len: u32,
    timeout: u32,
    token: u32,
) -> Answer {
    let target = env.read(target, target_len)?;
    let target = String::from_utf8(target).map_err(|_| Status::BadArgument)?;
    let headers = env.read(headers, headers_len)?;
    let headers = decode_pairs(&headers).ok_or(Status::BadArgument)?;
    let body = Bytes::from(env.read(body, body_len)?);
    let trailers = env.read(trailers, trailers_len)?;
    let trailers = decode_pairs(&trailers).ok_or(Status::BadArgument)?;
    // Written first, so that no call is made whose token the guest can't learn.
    env.write_u32(token, 0)?;
    let guest = env.guest();
    check_phase(guest)?;
    check(guest, &target, &headers)?;
    let world = &mut guest.world;
    world.next_call = world.next_call.wrapping_add(1).max(1);
    let id = CallId(world.next_call);
    let call = Call {
        id,
        upstream: target,
        headers,
        body,
        trailers,
        timeout: Duration::from_millis(u64::from(timeout)),
    };
    register(guest, call);
    env.write_u32(token, id.0)
}

fn check_phase(guest: &mut Guest) -> Result<(), Refusal> {
    let fits = matches!(
        guest.site.callback,
        Callback::RequestHeaders | Callback::RequestBody | Callback::Tick | Callback::CallResponse
    );
    if !fits {
        guest.find(Host::Kong, Row::CallPhase);
        if !guest.rules.calls_anywhere {
            return Err(Refusal::Trap(
                "can only send HTTP dispatch during \"on_request_headers\", \"on_request_body\", \"on_tick\", \"on_dispatch_response\"",
            ));
        }
    }
    Ok(())
}

fn check(guest: &Guest, target: &str, headers: &Headers) -> Result<(), Refusal> {
    let missing = |name: &&str| headers.get(name).is_none_or(Bytes::is_empty);
    match guest.rules.call_target {
        CallTarget::Cluster => {
            let clusters = guest.setup.clusters.as_ref();
            let unknown = clusters.is_some_and(|clusters| !clusters.contains(target));
            let incomplete = [":method", ":path", ":authority"].iter().any(missing);
            if unknown || incomplete {
                return Err(Status::BadArgument.into());
            }
        }
        CallTarget::HostPort => {
            if [":method", ":path"].iter().any(missing) {
                return Err(Refusal::Trap("dispatch failed: no :method or :path header"));
            }
            if !is_host_port(target) {
                return Err(Refusal::Trap("dispatch failed: invalid host or port"));
            }
        }
    }
    Ok(())
}

/// `host`, `host:port`, `[v6]:port` or `unix:path`. A cluster's name with bars is one for the resolver, which fails later.
fn is_host_port(target: &str) -> bool {
    if target.starts_with("unix:") {
        return true;
    }
    let (host, port) = match target.rsplit_once(':') {
        Some((host, port)) if !target.ends_with(']') => (host, Some(port)),
        _ => (target, None),
    };
    let v6 = host.starts_with('[') && host.ends_with(']');
    let cluster = target.contains('|');
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    cluster || (!host.is_empty() && (v6 || !host.contains(':')) && port_fits)
}

fn register(guest: &mut Guest, call: Call) {
    let seat = guest.seat_id();
    let owner = Owner {
        vm: guest.vm,
        generation: guest.generation,
        root: guest.root_id(),
        seat,
    };
    guest.world.owners.insert(call.id, owner);
    guest.calls_made += 1;
    let exchange = seat.and_then(|(id, _)| guest.world.exchanges.get_mut(&id));
    match exchange {
        Some(exchange) => {
            exchange.calls.insert(call.id);
            exchange.actions.push(Action::Call(call));
        }
        None => guest.world.root_calls.push(call),
    }
}

/// The status of the last call that failed, of HTTP or gRPC; the words are there in its callback alone.
pub(super) fn get_status(env: &mut Env<'_>, code: u32, ptr: u32, len: u32) -> Answer {
    let (status, message) = env.guest().status.clone();
    env.write_u32(code, status)?;
    env.give(message.as_bytes(), ptr, len)
}

#[cfg(test)]
mod tests {
    use super::is_host_port;

    #[test]
    fn hosts_with_and_without_ports_are_targets_and_nonsense_is_not() {
        for target in [
            "redis",
            "redis:7379",
            "10.0.0.1:80",
            "[::1]:80",
            "[::1]",
            "unix:/s",
            "outbound|80||x",
        ] {
            assert!(is_host_port(target), "{target}");
        }
        for target in ["", ":80", "bad:host:name", "h:99999", "h:", "h:x"] {
            assert!(!is_host_port(target), "{target}");
        }
    }
}
