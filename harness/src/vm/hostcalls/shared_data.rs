//! Shared data.

use super::Answer;
use crate::abi::Status;
use crate::profile::{Host, Row};
use crate::shared::DataError;
use crate::vm::memory::{Env, Refusal};

pub(super) fn get(
    env: &mut Env<'_>,
    key: u32,
    key_len: u32,
    ptr: u32,
    len: u32,
    cas: u32,
) -> Answer {
    let key = env.read(key, key_len)?;
    let found = env.guest().setup.shared.data_get(&key);
    let (value, current) = found.ok_or(Status::NotFound)?;
    env.give(&value, ptr, len)?;
    env.write_u32(cas, current)
}

pub(super) fn set(
    env: &mut Env<'_>,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
    cas: u32,
) -> Answer {
    let key = env.read(key, key_len)?;
    // The SDK hands a null pointer over for a removal, and a dangling one for an empty value.
    let value = env.read_optional(value, value_len)?;
    let guest = env.guest();
    let capacity = guest.setup.limits.shared_data_bytes;
    let present = guest.setup.shared.data_present(&key);
    if cas == 0 && present {
        guest.find(Host::Kong, Row::UnconditionalWrite);
    }
    let written = guest
        .setup
        .shared
        .data_set(&key, value.as_deref(), cas, capacity);
    written.map_err(|error| match error {
        DataError::CasMismatch => Refusal::Status(Status::CasMismatch),
        DataError::NoMemory => Refusal::Trap("\"*\" shm store: no memory"),
    })
}
