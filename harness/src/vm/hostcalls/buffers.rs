//! Bodies and configurations.

use bytes::BytesMut;

use super::Answer;
use crate::abi::{BufferKind, LogLevel, Status};
use crate::exchange::Direction;
use crate::profile::{BufferReplacement, Flow, Host, Row};
use crate::vm::memory::{Env, Refusal, size};
use crate::vm::{Callback, Guest};
use crate::worker::GrpcEvent;

/// Reads from a buffer what the effective context may read of it now.
fn read<T>(
    guest: &mut Guest,
    kind: BufferKind,
    look: impl FnOnce(&[u8]) -> T,
) -> Result<T, Refusal> {
    let bytes = match kind {
        BufferKind::VmConfiguration => Some(&[][..]),
        BufferKind::PluginConfiguration
            if guest.rules.configuration_only_in_configure
                && guest.site.callback != Callback::Configure =>
        {
            None
        }
        BufferKind::PluginConfiguration => {
            let root = guest.roots.get(&guest.root_id());
            root.map(|root| &root.configuration[..])
        }
        BufferKind::GrpcMessage => match &guest.grpc {
            Some(GrpcEvent::Message(message)) => Some(&message[..]),
            _ => absent(guest),
        },
        BufferKind::Connection | BufferKind::CallData => absent(guest),
        BufferKind::CallBody => guest.call.as_ref().map(|call| &call.body[..]),
        BufferKind::RequestBody => body(guest, Direction::Request)?,
        BufferKind::ResponseBody => body(guest, Direction::Response)?,
    };
    bytes.map(look).ok_or(Refusal::Status(Status::NotFound))
}

/// What a buffer reads as that is never there in an HTTP stream, or not now.
fn absent(guest: &Guest) -> Option<&'static [u8]> {
    guest.rules.absent_body_is_empty.then_some(&[])
}

fn body(guest: &mut Guest, direction: Direction) -> Result<Option<&[u8]>, Refusal> {
    let phased = guest.rules.flow == Flow::Phased;
    let empty = guest.rules.absent_body_is_empty;
    if let Err(refusal) = check_phase(guest.site.callback, direction) {
        guest.find(Host::Kong, Row::AbsentBody);
        if phased {
            return Err(refusal);
        }
    }
    let spilled = guest
        .seat()
        .is_some_and(|(exchange, _)| exchange.request.spilled);
    if phased && direction == Direction::Request && spilled {
        guest.log(LogLevel::Error, "cannot read request body buffered to file");
        return Ok(None);
    }
    let (exchange, seat) = guest.seat().ok_or(Status::BadArgument)?;
    if phased && direction == Direction::Request {
        let body = &exchange.request.body;
        return Ok((!body.is_empty()).then_some(&body[..]));
    }
    let stage = exchange.stage(seat, direction);
    Ok(match stage.filter(|stage| stage.body_open) {
        Some(stage) => Some(&stage.held[..]),
        None => empty.then_some(&[][..]),
    })
}

/// ngx_wasm_module traps on bodies outside of their phases.
fn check_phase(callback: Callback, direction: Direction) -> Result<(), Refusal> {
    let fits = match direction {
        Direction::Request => matches!(
            callback,
            Callback::RequestHeaders | Callback::RequestBody | Callback::Log
        ),
        Direction::Response => callback == Callback::ResponseBody,
    };
    if fits {
        return Ok(());
    }
    Err(Refusal::Trap(match direction {
        Direction::Request => "can only get request body during \"on_request_body\", \"on_log\"",
        Direction::Response => "can only get response body during \"on_response_body\"",
    }))
}

pub(super) fn get(
    env: &mut Env<'_>,
    kind: u32,
    start: u32,
    max: u32,
    ptr: u32,
    len: u32,
) -> Answer {
    let kind = BufferKind::from_raw(kind).ok_or(Status::BadArgument)?;
    let guest = env.guest();
    if start != 0 {
        guest.find(Host::Kong, Row::BufferOffset);
    }
    let start = if guest.rules.buffer_offset { start } else { 0 };
    if start.checked_add(max).is_none() && max != u32::MAX {
        return Err(Status::BadArgument.into());
    }
    let piece = read(guest, kind, |bytes| {
        let rest = bytes.get(size(start)..).unwrap_or_default();
        rest.get(..size(max)).unwrap_or(rest).to_vec()
    })?;
    env.give(&piece, ptr, len)
}

pub(super) fn status(env: &mut Env<'_>, kind: u32, len: u32, flags: u32) -> Answer {
    let kind = BufferKind::from_raw(kind).ok_or(Status::BadArgument)?;
    let length = read(env.guest(), kind, <[u8]>::len)?;
    env.write_u32(len, u32::try_from(length).unwrap_or(u32::MAX))?;
    env.write_u32(flags, 0)
}

pub(super) fn set(
    env: &mut Env<'_>,
    kind: u32,
    start: u32,
    max: u32,
    ptr: u32,
    len: u32,
) -> Answer {
    let direction = match BufferKind::from_raw(kind) {
        Some(BufferKind::RequestBody) => Direction::Request,
        Some(BufferKind::ResponseBody) => Direction::Response,
        _ => return Err(Status::BadArgument.into()),
    };
    let value = env.read(ptr, len)?;
    let guest = env.guest();
    if start == 0 && max != 0 && size(max) < value.len() {
        guest.find(Host::Kong, Row::BufferReplacement);
    }
    let rules = guest.rules;
    let phased = rules.flow == Flow::Phased;
    if phased {
        check_set_phase(guest.site.callback, direction)?;
    }
    let (exchange, seat) = guest.seat().ok_or(Status::BadArgument)?;
    if phased && direction == Direction::Request {
        let message = &mut exchange.request;
        // What lies in a file can't be replaced: nginx puts the new bytes behind it.
        if message.spilled {
            message.body.extend_from_slice(&value);
            return Ok(());
        }
        return splice(
            &mut message.body,
            start,
            max,
            &value,
            rules.buffer_replacement,
        );
    }
    match exchange.stage(seat, direction) {
        Some(stage) if stage.body_open => splice(
            &mut stage.held,
            start,
            max,
            &value,
            rules.buffer_replacement,
        ),
        _ => Err(Status::BadArgument.into()),
    }
}

fn check_set_phase(callback: Callback, direction: Direction) -> Result<(), Refusal> {
    let fits = match direction {
        Direction::Request => {
            matches!(callback, Callback::RequestHeaders | Callback::RequestBody)
        }
        Direction::Response => callback == Callback::ResponseBody,
    };
    if fits {
        return Ok(());
    }
    Err(Refusal::Trap(match direction {
        Direction::Request => {
            "can only set request body during \"on_request_headers\", \"on_request_body\""
        }
        Direction::Response => "can only set response body during \"on_response_body\"",
    }))
}

fn splice(
    buffer: &mut BytesMut,
    start: u32,
    max: u32,
    value: &[u8],
    replacement: BufferReplacement,
) -> Answer {
    let (start, max) = (size(start), size(max));
    if start == 0 && max == 0 {
        let old = std::mem::replace(buffer, BytesMut::from(value));
        buffer.extend_from_slice(&old);
    } else if start >= buffer.len() && start > 0 {
        buffer.extend_from_slice(value);
    } else {
        match replacement {
            BufferReplacement::CutToLength => {
                *buffer = BytesMut::from(value.get(..max).unwrap_or(value));
            }
            BufferReplacement::Splice if start == 0 => {
                let rest = buffer.split_off(max.min(buffer.len()));
                *buffer = BytesMut::from(value);
                buffer.extend_from_slice(&rest);
            }
            BufferReplacement::Splice => return Err(Status::BadArgument.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::splice;
    use crate::profile::BufferReplacement::{self, CutToLength, Splice};

    fn spliced(
        start: u32,
        max: u32,
        value: &str,
        replacement: BufferReplacement,
    ) -> Option<String> {
        let mut buffer = BytesMut::from("old!");
        splice(&mut buffer, start, max, value.as_bytes(), replacement).ok()?;
        Some(String::from_utf8_lossy(&buffer).into_owned())
    }

    #[test]
    fn envoy_puts_the_new_in_place_of_as_many_bytes() {
        assert_eq!(spliced(0, u32::MAX, "newer", Splice).unwrap(), "newer");
        assert_eq!(spliced(0, 3, "new", Splice).unwrap(), "new!");
        assert_eq!(spliced(0, 0, "new ", Splice).unwrap(), "new old!");
        assert_eq!(spliced(4, 0, "?", Splice).unwrap(), "old!?");
        assert_eq!(spliced(2, 1, "x", Splice), None);
    }

    #[test]
    fn kong_cuts_the_new_to_the_length_of_the_old() {
        assert_eq!(spliced(0, 4, "longer", CutToLength).unwrap(), "long");
        assert_eq!(
            spliced(0, u32::MAX, "longer", CutToLength).unwrap(),
            "longer"
        );
        assert_eq!(spliced(2, 1, "xyz", CutToLength).unwrap(), "x");
    }
}
