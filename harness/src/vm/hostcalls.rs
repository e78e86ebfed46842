//! The functions of module `env`.

mod buffers;
mod calls;
mod foreign;
mod grpc;
mod headers;
mod metrics;
mod protobuf;
mod queues;
mod shared_data;
mod stream;
mod system;

use wasmtime::{Caller, Linker};

use super::Guest;
use super::memory::{Env, Refusal};
use super::properties;
use crate::abi::{HOSTCALLS, Status};
use crate::profile::{Host, Row};

/// What a host function came to; `Ok` is [`Status::Ok`].
type Answer = Result<(), Refusal>;

/// The place of a function in [`HOSTCALLS`], at compile time: a name that is not there does not build.
const fn index_of(name: &str) -> usize {
    let mut index = 0;
    while index < HOSTCALLS.len() {
        if same(HOSTCALLS[index].as_bytes(), name.as_bytes()) {
            return index;
        }
        index += 1;
    }
    panic!("no such function in the ABI")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Counts the call, answers a fault where one is due, refuses what the profile's host does not have, or does the work.
fn dispatch(
    caller: Caller<'_, Guest>,
    index: usize,
    work: impl FnOnce(&mut Env<'_>) -> Answer,
) -> wasmtime::Result<u32> {
    let mut env = Env(caller);
    let name = HOSTCALLS[index];
    let guest = env.guest();
    guest.world.hostcalls.0[index] += 1;
    let site = guest.site;
    if let Some(status) = guest.world.faults.take(name, site) {
        return Ok(status);
    }
    if crate::profile::Profile::Kong
        .rules()
        .missing
        .contains(&name)
    {
        guest.find(Host::Kong, Row::MissingFunction);
    }
    let answer = if guest.rules.missing.contains(&name) {
        Err(Refusal::Trap("host trap (function not yet implemented)"))
    } else {
        work(&mut env)
    };
    match answer {
        Ok(()) => Ok(Status::Ok as u32),
        Err(refusal) => refusal.into_error().map(|status| status as u32),
    }
}

/// Links functions by their names; each gets its arguments as the ABI passes them.
macro_rules! link {
    ($linker:ident; $($name:literal => $function:path, ($($arg:ident: $ty:ty),*);)*) => {
        $($linker.func_wrap("env", $name, |caller: Caller<'_, Guest>, $($arg: $ty),*| {
            const INDEX: usize = index_of($name);
            dispatch(caller, INDEX, |env| $function(env, $($arg),*))
        })?;)*
    };
}

/// Links all 39 functions.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    link! { linker;
        "proxy_log" => system::log, (level: u32, ptr: u32, len: u32);
        "proxy_get_log_level" => system::get_log_level, (out: u32);
        "proxy_get_current_time_nanoseconds" => system::get_time, (out: u32);
        "proxy_set_tick_period_milliseconds" => system::set_tick_period, (period: u32);
        "proxy_set_effective_context" => system::set_effective_context, (context: u32);
        "proxy_done" => system::done, ();
        "proxy_call_foreign_function" => foreign::call,
            (name: u32, name_len: u32, argument: u32, argument_len: u32, ptr: u32, len: u32);
        "proxy_get_buffer_bytes" => buffers::get, (kind: u32, start: u32, max: u32, ptr: u32, len: u32);
        "proxy_get_buffer_status" => buffers::status, (kind: u32, len: u32, flags: u32);
        "proxy_set_buffer_bytes" => buffers::set, (kind: u32, start: u32, max: u32, ptr: u32, len: u32);
        "proxy_get_header_map_size" => headers::size_of, (map: u32, out: u32);
        "proxy_get_header_map_pairs" => headers::get_pairs, (map: u32, ptr: u32, len: u32);
        "proxy_set_header_map_pairs" => headers::set_pairs, (map: u32, ptr: u32, len: u32);
        "proxy_get_header_map_value" => headers::get, (map: u32, name: u32, name_len: u32, ptr: u32, len: u32);
        "proxy_add_header_map_value" => headers::add, (map: u32, name: u32, name_len: u32, value: u32, value_len: u32);
        "proxy_replace_header_map_value" => headers::replace, (map: u32, name: u32, name_len: u32, value: u32, value_len: u32);
        "proxy_remove_header_map_value" => headers::remove, (map: u32, name: u32, name_len: u32);
        "proxy_continue_stream" => stream::continue_stream, (kind: u32);
        "proxy_close_stream" => stream::close_stream, (kind: u32);
        "proxy_send_local_response" => stream::send_local_response,
            (status: u32, details: u32, details_len: u32, body: u32, body_len: u32, headers: u32, headers_len: u32, grpc: i32);
        "proxy_http_call" => calls::http_call,
            (target: u32, target_len: u32, headers: u32, headers_len: u32, body: u32, body_len: u32, trailers: u32, trailers_len: u32, timeout: u32, token: u32);
        "proxy_get_status" => calls::get_status, (code: u32, ptr: u32, len: u32);
        "proxy_grpc_call" => grpc::call,
            (target: u32, target_len: u32, service: u32, service_len: u32, method: u32, method_len: u32,
             metadata: u32, metadata_len: u32, message: u32, message_len: u32, timeout: u32, token: u32);
        "proxy_grpc_stream" => grpc::stream,
            (target: u32, target_len: u32, service: u32, service_len: u32, method: u32, method_len: u32,
             metadata: u32, metadata_len: u32, token: u32);
        "proxy_grpc_send" => grpc::send, (token: u32, ptr: u32, len: u32, end: u32);
        "proxy_grpc_cancel" => grpc::cancel, (token: u32);
        "proxy_grpc_close" => grpc::close, (token: u32);
        "proxy_get_shared_data" => shared_data::get, (key: u32, key_len: u32, ptr: u32, len: u32, cas: u32);
        "proxy_set_shared_data" => shared_data::set, (key: u32, key_len: u32, value: u32, value_len: u32, cas: u32);
        "proxy_register_shared_queue" => queues::register, (name: u32, name_len: u32, out: u32);
        "proxy_resolve_shared_queue" => queues::resolve, (vm: u32, vm_len: u32, name: u32, name_len: u32, out: u32);
        "proxy_enqueue_shared_queue" => queues::enqueue, (queue: u32, ptr: u32, len: u32);
        "proxy_dequeue_shared_queue" => queues::dequeue, (queue: u32, ptr: u32, len: u32);
        "proxy_define_metric" => metrics::define, (kind: u32, name: u32, name_len: u32, out: u32);
        "proxy_get_metric" => metrics::get, (id: u32, out: u32);
        "proxy_record_metric" => metrics::record, (id: u32, value: u64);
        "proxy_increment_metric" => metrics::increment, (id: u32, by: i64);
        "proxy_get_property" => properties::get, (path: u32, path_len: u32, ptr: u32, len: u32);
        "proxy_set_property" => properties::set, (path: u32, path_len: u32, ptr: u32, len: u32);
    }
    Ok(())
}
