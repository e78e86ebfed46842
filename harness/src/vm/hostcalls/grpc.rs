//! gRPC calls and streams.

use std::time::Duration;

use bytes::Bytes;

use super::Answer;
use super::protobuf::{self, Value};
use crate::abi::{Status, decode_pairs};
use crate::http::Headers;
use crate::profile::Profile;
use crate::vm::Guest;
use crate::vm::memory::{Env, Refusal};
use crate::worker::grpc::{Caller, Unmet};
use crate::worker::{GrpcRequest, GrpcStatus};

impl From<Unmet> for Refusal {
    fn from(unmet: Unmet) -> Self {
        Self::Status(match unmet {
            Unmet::WrongKind => Status::BadArgument,
            Unmet::Gone => Status::NotFound,
        })
    }
}

/// Where a call goes, as its first argument says.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    cluster: String,
    authority: Option<String>,
    /// Metadata that the target brings along.
    metadata: Headers,
}

/// A target that can't be used.
#[derive(Debug, PartialEq, Eq)]
enum BadTarget {
    /// It is no serialized `GrpcService`, so at most a cluster's name.
    NotAService,
    /// It is a `GrpcService` with a target that this host does not carry (`google_grpc`), or a cluster without a name.
    NoCluster,
    /// It is a `GrpcService` with no target at all, as are no bytes, and cluster names such as `auth-grpc`.
    Unset,
}

/// Reads a serialized `envoy.config.core.v3.GrpcService`.
fn service(bytes: &[u8]) -> Result<Target, BadTarget> {
    let unreadable = BadTarget::NotAService;
    let Some(fields) = protobuf::fields(bytes) else {
        return Err(unreadable);
    };
    let mut target = Err(BadTarget::Unset);
    let mut metadata = Headers::new();
    for (field, value) in fields {
        match (field, value) {
            // envoy_grpc: cluster_name and authority.
            (1, Value::Bytes(inner)) => {
                let inner = protobuf::fields(inner).ok_or(BadTarget::NotAService)?;
                let text =
                    |field| protobuf::text(&inner, field).map_err(|_| BadTarget::NotAService);
                let (cluster, authority) = (text(1)?.to_owned(), text(2)?.to_owned());
                target = Ok((cluster, Some(authority).filter(|name| !name.is_empty())));
            }
            // google_grpc stands in the place of envoy_grpc.
            (2, Value::Bytes(inner)) => {
                protobuf::fields(inner).ok_or(BadTarget::NotAService)?;
                target = Err(BadTarget::NoCluster);
            }
            // initial_metadata: key and value.
            (5, Value::Bytes(inner)) => {
                let inner = protobuf::fields(inner).ok_or(BadTarget::NotAService)?;
                let text =
                    |field| protobuf::text(&inner, field).map_err(|_| BadTarget::NotAService);
                metadata.push(text(1)?.to_owned(), text(2)?.to_owned());
            }
            _ => {}
        }
    }
    let (cluster, authority) = target?;
    if cluster.is_empty() {
        return Err(BadTarget::NoCluster);
    }
    Ok(Target {
        cluster,
        authority,
        metadata,
    })
}

/// The target that a guest named: a `GrpcService`, or a cluster's name where the bytes do not parse as one.
fn target(guest: &Guest, bytes: Vec<u8>) -> Result<Target, Refusal> {
    match service(&bytes) {
        Ok(target) => Ok(target),
        // Running: the whole process aborts, every connection with it.
        Err(BadTarget::Unset) if guest.setup.profile == Profile::Envoy => Err(Refusal::Trap(
            "panic: unset oneof (Envoy aborts: the gRPC target parses as a GrpcService that names none)",
        )),
        Err(BadTarget::NoCluster | BadTarget::Unset) => Err(Status::BadArgument.into()),
        Err(BadTarget::NotAService) => {
            let cluster = String::from_utf8(bytes).map_err(|_| Status::ParseFailure)?;
            if !is_known(guest, &cluster) {
                return Err(Status::ParseFailure.into());
            }
            Ok(Target {
                cluster,
                authority: None,
                metadata: Headers::new(),
            })
        }
    }
}

fn is_known(guest: &Guest, cluster: &str) -> bool {
    let clusters = guest.setup.clusters.as_ref();
    clusters.is_none_or(|clusters| clusters.contains(cluster))
}

fn caller(guest: &Guest) -> Caller {
    Caller {
        vm: guest.vm,
        generation: guest.generation,
        root: guest.root_id(),
    }
}

/// What both kinds of calls name.
struct Names {
    target: (u32, u32),
    service: (u32, u32),
    method: (u32, u32),
    metadata: (u32, u32),
}

fn open(
    env: &mut Env<'_>,
    names: &Names,
    message: Option<Bytes>,
    timeout: Option<Duration>,
    token: u32,
) -> Answer {
    let mut read = |(ptr, len)| env.read(ptr, len);
    let name = read(names.target)?;
    let service = String::from_utf8(read(names.service)?).map_err(|_| Status::BadArgument)?;
    let method = String::from_utf8(read(names.method)?).map_err(|_| Status::BadArgument)?;
    let given = decode_pairs(&read(names.metadata)?).unwrap_or_default();
    // Before anything is opened whose token the guest could not learn.
    env.read(token, 4)?;
    let guest = env.guest();
    let mut target = target(guest, name)?;
    let caller = caller(guest);
    if !is_known(guest, &target.cluster) {
        let status = GrpcStatus::new(GrpcStatus::UNAVAILABLE, "Cluster not available");
        guest.world.grpc.fail(caller, message.is_some(), status);
        return Err(Status::InternalFailure.into());
    }
    target.metadata.extend(given);
    target.metadata.lower_case_names();
    let id = guest
        .world
        .grpc
        .open(caller, message, |id, message| GrpcRequest {
            id,
            authority: target.authority.unwrap_or_else(|| target.cluster.clone()),
            upstream: target.cluster,
            service,
            method,
            metadata: target.metadata,
            message,
            timeout,
        });
    env.write_u32(token, id)
}

#[allow(clippy::too_many_arguments, reason = "the ABI's own arity")]
pub(super) fn call(
    env: &mut Env<'_>,
    target: u32,
    target_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    message: u32,
    message_len: u32,
    timeout: u32,
    token: u32,
) -> Answer {
    let message = Bytes::from(env.read(message, message_len)?);
    let names = Names {
        target: (target, target_len),
        service: (service, service_len),
        method: (method, method_len),
        metadata: (metadata, metadata_len),
    };
    let timeout = (timeout > 0).then(|| Duration::from_millis(u64::from(timeout)));
    open(env, &names, Some(message), timeout, token)
}

#[allow(clippy::too_many_arguments, reason = "the ABI's own arity")]
pub(super) fn stream(
    env: &mut Env<'_>,
    target: u32,
    target_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    token: u32,
) -> Answer {
    let names = Names {
        target: (target, target_len),
        service: (service, service_len),
        method: (method, method_len),
        metadata: (metadata, metadata_len),
    };
    open(env, &names, None, None, token)
}

pub(super) fn send(env: &mut Env<'_>, token: u32, ptr: u32, len: u32, end: u32) -> Answer {
    let message = Bytes::from(env.read(ptr, len)?);
    let guest = env.guest();
    let caller = caller(guest);
    Ok(guest.world.grpc.send(caller, token, message, end != 0)?)
}

pub(super) fn cancel(env: &mut Env<'_>, token: u32) -> Answer {
    let guest = env.guest();
    let caller = caller(guest);
    Ok(guest.world.grpc.cancel(caller, token)?)
}

pub(super) fn close(env: &mut Env<'_>, token: u32) -> Answer {
    let guest = env.guest();
    let caller = caller(guest);
    Ok(guest.world.grpc.close(caller, token)?)
}

#[cfg(test)]
mod tests {
    use super::{BadTarget, service};

    #[test]
    fn a_service_names_its_cluster_authority_and_metadata() {
        let bytes = b"\x0a\x09\x0a\x02rl\x12\x03rl.\x2a\x08\x0a\x01k\x12\x03one";
        let target = service(bytes).unwrap();
        assert_eq!(target.cluster, "rl");
        assert_eq!(target.authority.as_deref(), Some("rl."));
        assert_eq!(target.metadata.get_str("k"), Some("one"));
    }

    #[test]
    fn what_is_no_service_may_be_a_clusters_name_and_a_service_without_a_cluster_is_none() {
        assert_eq!(service(b"ratelimit"), Err(BadTarget::NotAService));
        assert_eq!(service(b""), Err(BadTarget::Unset));
        assert_eq!(service(b"auth-grpc"), Err(BadTarget::Unset));
        assert_eq!(service(b"\x12\x00"), Err(BadTarget::NoCluster));
        assert_eq!(service(b"\x0a\x02\x0a\x05"), Err(BadTarget::NotAService));
    }
}
