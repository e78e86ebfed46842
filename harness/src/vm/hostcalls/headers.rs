//! Header maps.

use bytes::Bytes;

use super::Answer;
use crate::abi::{LogLevel, MapKind, Status, decode_pairs, encode_pairs};
use crate::exchange::{CallFailure, Direction, join_lines};
use crate::http::Headers;
use crate::profile::{
    Authority, FailedCall, Flow, Host, Profile, Removal, Row, Rules, SetDuplicated,
};
use crate::vm::memory::{Env, Refusal};
use crate::vm::{Callback, Guest};
use crate::worker::GrpcEvent;

/// What a single get says about a map that is not there in this phase.
const GONE: Status = Status::BadArgument;

/// Whether maps that went by are there to be read alone: Envoy shows them once more in `on_log`.
fn only_read(guest: &Guest) -> bool {
    guest.site.callback == Callback::Log && !guest.rules.headers_stay
}

/// A map of the effective context's exchange, where it is there for it now.
fn open_map(guest: &mut Guest, kind: MapKind) -> Option<&mut Headers> {
    let (rules, callback) = (guest.rules, guest.site.callback);
    let (exchange, seat) = guest.seat()?;
    let direction = match kind {
        MapKind::RequestHeaders | MapKind::RequestTrailers => Direction::Request,
        MapKind::ResponseHeaders | MapKind::ResponseTrailers => Direction::Response,
        MapKind::CallHeaders
        | MapKind::CallTrailers
        | MapKind::GrpcInitialMetadata
        | MapKind::GrpcTrailingMetadata => return None,
    };
    let headers = matches!(kind, MapKind::RequestHeaders | MapKind::ResponseHeaders);
    let begun = exchange.message(direction).begun;
    let stage = exchange.stage(seat, direction)?;
    let open = if headers {
        stage.headers_open
    } else {
        stage.trailers_open
    };
    let stays = rules.headers_stay && headers && begun;
    if !(open || stays || callback == Callback::Log) {
        return None;
    }
    let message = exchange.message(direction);
    Some(if headers {
        &mut message.headers
    } else {
        &mut message.trailers
    })
}

/// The map as a guest reads it.
fn view(guest: &mut Guest, kind: MapKind) -> Result<Option<Headers>, Refusal> {
    if matches!(kind, MapKind::CallHeaders | MapKind::CallTrailers) {
        let map = guest.call.as_ref().map(|call| match kind {
            MapKind::CallHeaders => call.headers.clone(),
            _ => call.trailers.clone(),
        });
        let crashes = guest.rules.flow == Flow::Phased;
        if map.is_none() {
            guest.find(Host::Kong, Row::CallHeadersOutside);
        }
        if map.is_none() && crashes {
            return Err(Refusal::Crash(
                "segmentation fault: call headers read outside of on_http_call_response",
            ));
        }
        return Ok(map);
    }
    Ok(match (kind, &guest.grpc) {
        (MapKind::GrpcInitialMetadata, Some(GrpcEvent::InitialMetadata(lines)))
        | (MapKind::GrpcTrailingMetadata, Some(GrpcEvent::TrailingMetadata(lines))) => {
            Some(lines.clone())
        }
        _ => open_map(guest, kind).map(|map| map.clone()),
    })
}

/// The names of which the host keeps one line in a map of this kind.
fn joined(kind: MapKind, rules: &Rules) -> &'static [&'static str] {
    match kind {
        MapKind::RequestHeaders => rules.joined_request,
        MapKind::ResponseHeaders => rules.joined_response,
        _ => &[],
    }
}

fn kind_of(raw: u32) -> Result<MapKind, Refusal> {
    MapKind::from_raw(raw).ok_or(Refusal::Status(Status::BadArgument))
}

pub(super) fn size_of(env: &mut Env<'_>, map: u32, out: u32) -> Answer {
    let map = view(env.guest(), kind_of(map)?)?.ok_or(GONE)?;
    env.write_u32(out, u32::try_from(map.byte_len()).unwrap_or(u32::MAX))
}

pub(super) fn get_pairs(env: &mut Env<'_>, map: u32, ptr: u32, len: u32) -> Answer {
    let kind = kind_of(map)?;
    let guest = env.guest();
    let rules = guest.rules;
    let trailers = matches!(kind, MapKind::RequestTrailers | MapKind::ResponseTrailers);
    if trailers && rules.flow == Flow::Phased {
        return Err(Status::BadArgument.into());
    }
    let map = view(guest, kind)?.unwrap_or_default();
    if map.len() > MAP_LIMIT {
        guest.find(Host::Kong, Row::WholeMap);
    }
    if map.is_empty() && rules.empty_map_is_nothing {
        return env.give(&[], ptr, len);
    }
    let bytes = marshal(&map, rules, |message| guest.log(LogLevel::Warn, message));
    env.give(&bytes, ptr, len)
}

/// The most lines that arrive whole everywhere.
const MAP_LIMIT: usize = 100;

/// How far over its limit ngx_wasm_module's count still fits its bytes.
const MISCOUNT_FROM: usize = 5;

fn marshal(map: &Headers, rules: &Rules, warn: impl FnOnce(&str)) -> Vec<u8> {
    let lines = || map.iter().map(|(n, v)| (&n[..], &v[..]));
    let Some(limit) = rules.map_limit.filter(|limit| map.len() > *limit) else {
        return encode_pairs(lines());
    };
    warn("marshalled map truncated to 100 elements");
    if map.len() < limit + MISCOUNT_FROM {
        return encode_pairs(lines().take(limit));
    }
    // The count and the table of lengths speak of one pair more than the bytes hold, and the last NUL is missing: who
    // walks the table runs past the end.
    let mut bytes = encode_pairs(lines().take(limit).chain([(&b""[..], &b""[..])]));
    bytes.truncate(bytes.len() - 3);
    bytes
}

pub(super) fn set_pairs(env: &mut Env<'_>, map: u32, ptr: u32, len: u32) -> Answer {
    let kind = kind_of(map)?;
    let bytes = env.read(ptr, len)?;
    // Envoy takes what it can't read for an empty map.
    let mut new = decode_pairs(&bytes).unwrap_or_default();
    let guest = env.guest();
    join_lines(&mut new, joined(kind, guest.rules));
    let ghosts =
        kind == MapKind::RequestHeaders && guest.rules.request_removal == Removal::StaysUpstream;
    if only_read(guest) {
        return Err(GONE.into());
    }
    let map = open_map(guest, kind).ok_or(GONE)?;
    let old = std::mem::replace(map, new);
    if ghosts && let Some((exchange, _)) = guest.seat() {
        let lines = old.into_iter().filter(|(name, _)| !name.starts_with(b":"));
        exchange.request.ghosts.extend(lines);
    }
    Ok(())
}

/// Reads the name of a header.
fn name_at(env: &mut Env<'_>, ptr: u32, len: u32) -> Result<String, Refusal> {
    let name = env.read(ptr, len)?;
    String::from_utf8(name).map_err(|_| Status::BadArgument.into())
}

pub(super) fn get(
    env: &mut Env<'_>,
    map: u32,
    name: u32,
    name_len: u32,
    ptr: u32,
    len: u32,
) -> Answer {
    let kind = kind_of(map)?;
    let name = name_at(env, name, name_len)?;
    let guest = env.guest();
    let value = lookup(guest, kind, &name)?;
    env.give(&value, ptr, len)
}

fn lookup(guest: &mut Guest, kind: MapKind, name: &str) -> Result<Bytes, Refusal> {
    if name == ":dispatch_status"
        && kind == MapKind::CallHeaders
        && guest.rules.failed_call == FailedCall::DispatchStatus
        && let Some(call) = &guest.call
    {
        return Ok(Bytes::from_static(dispatch_status(call.failure)));
    }
    if let MapKind::CallHeaders | MapKind::CallTrailers = kind {
        let absent = absent_call_header(guest);
        let map = view(guest, kind)?.ok_or(GONE)?;
        return map.get(name).cloned().ok_or(Refusal::Status(absent));
    }
    let name = aliased(name, guest.rules);
    let map = open_map(guest, kind).ok_or(GONE)?;
    map.get(name)
        .cloned()
        .ok_or(Refusal::Status(Status::NotFound))
}

/// Envoy has no map at all for an answer that did not come (source); ngx_wasm_module has an empty one.
fn absent_call_header(guest: &Guest) -> Status {
    let call = guest.call.as_ref();
    let failed = call.is_some_and(|call| call.failure.is_some());
    match guest.rules.failed_call {
        FailedCall::MadeByHost if failed => GONE,
        FailedCall::MadeByHost | FailedCall::DispatchStatus => Status::NotFound,
    }
}

fn dispatch_status(failure: Option<CallFailure>) -> &'static [u8] {
    match failure {
        None | Some(CallFailure::Reset | CallFailure::Truncated) => b"ok",
        Some(CallFailure::UnknownUpstream) => b"resolver failure",
        Some(CallFailure::Refused) => b"broken connection",
        Some(CallFailure::Timeout) => b"timeout",
    }
}

/// Envoy keeps the Host as `:authority` and finds it under either name.
fn aliased<'a>(name: &'a str, rules: &Rules) -> &'a str {
    if rules.authority == Authority::Host && name.eq_ignore_ascii_case("host") {
        ":authority"
    } else {
        name
    }
}

/// A name as the host writes it into a map.
fn written(name: &str, rules: &Rules) -> String {
    let name = aliased(name, rules);
    if rules.lower_case_names {
        name.to_ascii_lowercase()
    } else {
        name.to_owned()
    }
}

/// The parts of an edit.
fn edit(
    env: &mut Env<'_>,
    map: u32,
    name: (u32, u32),
    value: (u32, u32),
) -> Result<(MapKind, String, Vec<u8>), Refusal> {
    let kind = kind_of(map)?;
    let name = name_at(env, name.0, name.1)?;
    let value = env.read(value.0, value.1)?;
    let guest = env.guest();
    if guest.rules.flow == Flow::Phased
        && kind == MapKind::ResponseHeaders
        && guest.site.callback == Callback::ResponseBody
    {
        return Err(Refusal::Trap(
            "cannot set response headers: headers already sent",
        ));
    }
    if open_map(guest, kind).is_none() || only_read(guest) {
        return Err(GONE.into());
    }
    Ok((kind, name, value))
}

pub(super) fn add(
    env: &mut Env<'_>,
    map: u32,
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
) -> Answer {
    let (kind, name, value) = edit(env, map, (name, name_len), (value, value_len))?;
    let guest = env.guest();
    let known = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(&name));
    if kind == MapKind::RequestHeaders && known(Profile::Kong.rules().add_refused) {
        guest.find(Host::Kong, Row::AddBuiltin);
    }
    if kind == MapKind::RequestHeaders && known(guest.rules.add_refused) {
        guest.log(
            LogLevel::Error,
            format!("cannot add new \"{name}\" builtin request header"),
        );
        return Ok(());
    }
    let name = written(&name, guest.rules);
    let joined = joined(kind, guest.rules);
    if let Some(map) = open_map(guest, kind) {
        map.push(name, value);
        join_lines(map, joined);
    }
    Ok(())
}

pub(super) fn replace(
    env: &mut Env<'_>,
    map: u32,
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
) -> Answer {
    let (kind, name, value) = edit(env, map, (name, name_len), (value, value_len))?;
    let guest = env.guest();
    let rules = guest.rules;
    if kind == MapKind::RequestHeaders
        && matches!(rules.authority, Authority::ServerName(_))
        && [":authority", ":scheme"].contains(&name.as_str())
    {
        guest.log(
            LogLevel::Error,
            format!("cannot set read-only \"{name}\" header"),
        );
        return Ok(());
    }
    let name = written(&name, rules);
    let duplicated = match kind {
        MapKind::RequestHeaders => rules.set_duplicated_request,
        MapKind::ResponseHeaders => rules.set_duplicated_response,
        _ => SetDuplicated::LeavesOne,
    };
    let Some(map) = open_map(guest, kind) else {
        return Ok(());
    };
    let copies = map.get_all(&name).count();
    if copies > 1 {
        match kind {
            MapKind::RequestHeaders => guest.find(Host::Kong, Row::SetDuplicatedRequest),
            MapKind::ResponseHeaders => guest.find(Host::Kong, Row::SetDuplicatedResponse),
            _ => {}
        }
    }
    let Some(map) = open_map(guest, kind) else {
        return Ok(());
    };
    match duplicated {
        SetDuplicated::FirstOnly if copies > 1 => {
            map.replace_first(&name, value);
        }
        SetDuplicated::LeavesNone if copies > 1 => {
            map.remove(&name);
        }
        _ => map.set(name, value),
    }
    Ok(())
}

pub(super) fn remove(env: &mut Env<'_>, map: u32, name: u32, name_len: u32) -> Answer {
    let (kind, name, _) = edit(env, map, (name, name_len), (0, 0))?;
    let guest = env.guest();
    let stays = guest.rules.request_removal == Removal::StaysUpstream;
    let name = aliased(&name, guest.rules).to_owned();
    let Some(map) = open_map(guest, kind) else {
        return Ok(());
    };
    let values: Vec<_> = map.get_all(&name).cloned().collect();
    map.remove(&name);
    let fatal = |rules: &Rules| {
        let mut names = rules.fatal_removal.iter();
        names.any(|known| known.eq_ignore_ascii_case(&name))
    };
    if values.is_empty() && kind == MapKind::RequestHeaders && fatal(Profile::Kong.rules()) {
        guest.find(Host::Kong, Row::FatalRemoval);
        if fatal(guest.rules) {
            return Err(Refusal::Crash(
                "segmentation fault: a cookie or x-forwarded-for removed that is not there",
            ));
        }
    }
    if stays
        && kind == MapKind::RequestHeaders
        && let Some((exchange, _)) = guest.seat()
    {
        let name = Bytes::from(name);
        let lines = values.into_iter().map(|value| (name.clone(), value));
        exchange.request.ghosts.extend(lines);
    }
    Ok(())
}
