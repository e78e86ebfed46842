//! Properties: facts about the exchange by path, and what filters set.

mod text;
mod typed;

use super::Callback;
use super::memory::{Env, Refusal};
use crate::abi::Status;
use crate::profile::{Host, Properties, Row};

/// Whether a callback runs before there is anything to have properties.
fn starting(callback: Callback) -> bool {
    matches!(callback, Callback::VmStart | Callback::Configure)
}

pub(super) fn get(
    env: &mut Env<'_>,
    path: u32,
    path_len: u32,
    ptr: u32,
    len: u32,
) -> Result<(), Refusal> {
    let path = env.read(path, path_len)?;
    let guest = env.guest();
    if starting(guest.site.callback) {
        guest.find(Host::Kong, Row::PropertyInConfigure);
    }
    let value = match guest.rules.properties {
        Properties::Typed => typed::get(guest, &path),
        Properties::Text => text::get(guest, &path)?,
    };
    env.give(&value.ok_or(Status::NotFound)?, ptr, len)
}

pub(super) fn set(
    env: &mut Env<'_>,
    path: u32,
    path_len: u32,
    ptr: u32,
    len: u32,
) -> Result<(), Refusal> {
    let path = env.read(path, path_len)?;
    let value = env.read(ptr, len)?;
    let guest = env.guest();
    if !text::settable(&text::dotted(&path)) {
        guest.find(Host::Kong, Row::PropertySet);
    }
    match guest.rules.properties {
        Properties::Typed => typed::set(guest, path, value),
        Properties::Text => text::set(guest, &path, value),
    }
}
