//! Foreign functions: Envoy's own extensions of the ABI.
//!
//! Carried: `compress`, `uncompress`, `clear_route_cache`, `set_envoy_filter_state`, `declare_property`. Not carried:
//! `expr_create`, `expr_evaluate`, `expr_delete` (CEL), `sign`, `verify_signature`; they answer `NotFound` as a name
//! that no host knows does, and a line in the log tells that Envoy has them.

use std::io::Read;

use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};

use super::Answer;
use super::protobuf;
use crate::abi::{LogLevel, Status};
use crate::vm::Guest;
use crate::vm::memory::{Env, Refusal};

/// What Envoy 1.40 has besides those that are carried here.
const ELSEWHERE: &[&str] = &[
    "expr_create",
    "expr_delete",
    "expr_evaluate",
    "sign",
    "verify_signature",
];

/// Keys under which Envoy makes an object of any text (running: cluster, server name, string; source: the others). It
/// has more, for numbers and addresses.
const FILTER_STATE: &[&str] = &[
    "envoy.network.application_protocols",
    "envoy.network.upstream_server_name",
    "envoy.network.upstream_subject_alt_names",
    "envoy.string",
    "envoy.tcp_proxy.cluster",
];

/// More than a VM could ever take, in bytes.
fn bound(guest: &Guest) -> u64 {
    u64::try_from(guest.setup.limits.memory_bytes).unwrap_or(u64::MAX)
}

pub(super) fn call(
    env: &mut Env<'_>,
    name: u32,
    name_len: u32,
    argument: u32,
    argument_len: u32,
    ptr: u32,
    len: u32,
) -> Answer {
    let name = env.read(name, name_len)?;
    let argument = env.read(argument, argument_len)?;
    let guest = env.guest();
    let result = match name.as_slice() {
        b"compress" => compress(&argument),
        b"uncompress" => uncompress(&argument, bound(guest)),
        // Routes are chosen once, by the path that the client sent: there is no choice to forget.
        b"clear_route_cache" => Ok(Vec::new()),
        b"set_envoy_filter_state" => set_filter_state(guest, &argument),
        b"declare_property" => declare_property(guest, &argument),
        unknown => {
            let unknown = String::from_utf8_lossy(unknown);
            if ELSEWHERE.contains(&&*unknown) {
                let line = format!("Envoy has the foreign function {unknown}, this host has not");
                guest.log(LogLevel::Warn, line);
            }
            Err(Status::NotFound)
        }
    };
    give(env, &result.map_err(Refusal::Status)?, ptr, len)
}

/// Hands a result over where the guest wants it: either place may be left out.
fn give(env: &mut Env<'_>, result: &[u8], ptr: u32, len: u32) -> Answer {
    match (ptr, len) {
        (0, 0) => Ok(()),
        (0, len) => env.write_u32(len, u32::try_from(result.len()).unwrap_or(u32::MAX)),
        (ptr, 0) => env.give_pointer(result, ptr),
        (ptr, len) => env.give(result, ptr, len),
    }
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let mut out = Vec::new();
    ZlibEncoder::new(bytes, Compression::default())
        .read_to_end(&mut out)
        .map_err(|_| Status::SerializationFailure)?;
    Ok(out)
}

/// Envoy has no bound; what is larger than a VM's memory can't be handed over anyway.
fn uncompress(bytes: &[u8], bound: u64) -> Result<Vec<u8>, Status> {
    let mut out = Vec::new();
    ZlibDecoder::new(bytes)
        .take(bound.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|_| Status::SerializationFailure)?;
    let fits = u64::try_from(out.len()).is_ok_and(|size| size <= bound);
    fits.then_some(out).ok_or(Status::InternalFailure)
}

/// `SetEnvoyFilterStateArguments`: path 1, value 2, life span 3, which makes no difference within one exchange.
fn set_filter_state(guest: &mut Guest, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let fields = protobuf::fields(argument).ok_or(Status::BadArgument)?;
    let path = protobuf::text(&fields, 1).map_err(|_| Status::BadArgument)?;
    let value = protobuf::text(&fields, 2).map_err(|_| Status::BadArgument)?;
    if !FILTER_STATE.contains(&path) {
        return Err(Status::NotFound);
    }
    let (exchange, _) = guest.seat().ok_or(Status::NotFound)?;
    exchange
        .filter_state
        .insert(path.to_owned(), value.as_bytes().to_vec());
    Ok(Vec::new())
}

/// `DeclarePropertyArguments`: name 1, read-only 2, and type 3, schema 4 and life span 5, which matter to readers other
/// than wasm filters. What a stream's context declares has no effect, and is refused the second time all the same (running).
fn declare_property(guest: &mut Guest, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let fields = protobuf::fields(argument).ok_or(Status::BadArgument)?;
    let name = protobuf::text(&fields, 1).map_err(|_| Status::BadArgument)?;
    let read_only = protobuf::integer(&fields, 2) != 0;
    let declared = guest.declared.entry(guest.site.context).or_default();
    if declared.contains_key(name.as_bytes()) {
        return Err(Status::BadArgument);
    }
    declared.insert(name.as_bytes().to_vec(), read_only);
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::{compress, uncompress};
    use crate::abi::Status;

    #[test]
    fn what_was_compressed_comes_back_and_other_bytes_are_refused() {
        let text = b"to be or not to be ".repeat(100);
        let small = compress(&text).unwrap();
        assert!(small.len() < text.len() / 10);
        assert_eq!(uncompress(&small, 10_000), Ok(text));
        assert_eq!(uncompress(&small, 1_899), Err(Status::InternalFailure));
        assert_eq!(
            uncompress(b"no zlib", 100),
            Err(Status::SerializationFailure)
        );
        assert_eq!(
            uncompress(&small[..9], 100),
            Err(Status::SerializationFailure)
        );
    }
}
