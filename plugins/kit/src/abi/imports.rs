//! The hostcalls. A status is a value, never a panic; what a host hands over is checked before it is believed.
#![allow(
    unsafe_code,
    reason = "the ABI is C functions and raw memory; nothing outside this file touches either"
)]

use std::cell::Cell;

/// A status other than Ok (0), as the host spelled it. The ABI names 1 to 12; hosts are not held to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u32);

impl Status {
    pub(crate) const NOT_FOUND: Status = Status(1);
    pub(crate) const BAD_ARGUMENT: Status = Status(2);
    pub(crate) const CAS_MISMATCH: Status = Status(8);
    /// Not the host's: it said Ok and handed over what can't be read.
    pub(crate) const UNREADABLE: Status = Status(u32::MAX);
}

/// Buffers, by the ABI's numbers.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// Header maps, by the ABI's numbers.
#[derive(Clone, Copy)]
pub(crate) enum Map {
    Request = 0,
    Response = 2,
    CallResponse = 6,
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn random_get(bytes: *mut u8, size: usize) -> u32;
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        length: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        length: usize,
        data: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_http_call(
        upstream: *const u8,
        upstream_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        call: *mut u32,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
}

/// nginx may write a header map that is longer than it said, by up to three pseudo-headers, of which the method is as long as the client
/// made it: at most nginx' buffer for a request line, 8 KiB by default.
const MAP_SLACK: usize = 16 * 1024;

thread_local! {
    /// What the host allocated last. It owns the memory until it hands it over.
    static ALLOCATED: Cell<Option<Allocation>> = const { Cell::new(None) };
    /// So much more than the host asks for is allocated.
    static SLACK: Cell<usize> = const { Cell::new(0) };
}

/// Memory for the host to write into; null when there is none left. It is not cleared: for a body of many megabytes that would be
/// felt.
#[must_use]
pub fn allocate(size: usize) -> *mut u8 {
    let mut memory: Vec<u8> = Vec::new();
    let size = size.saturating_add(SLACK.get());
    if memory.try_reserve_exact(size).is_err() {
        return std::ptr::null_mut();
    }
    let mut memory = std::mem::ManuallyDrop::new(memory);
    let allocated = Allocation {
        address: memory.as_mut_ptr(),
        size,
        capacity: memory.capacity(),
    };
    // What was allocated before and never handed over is given back: a host that allocates twice for one call leaks nothing.
    if let Some(forgotten) = ALLOCATED.replace(Some(allocated)) {
        drop(forgotten.own());
    }
    allocated.address
}

/// Memory that the host has been given.
#[derive(Clone, Copy)]
struct Allocation {
    address: *mut u8,
    size: usize,
    capacity: usize,
}

impl Allocation {
    /// Takes the memory back.
    fn own(self) -> Vec<u8> {
        // SAFETY: address and capacity are those of a Vec that was forgotten in `allocate`. This value has been taken out of
        // ALLOCATED, so nothing else owns the memory. The address has been outside, where all of it can have been written.
        unsafe { Vec::from_raw_parts(self.address, self.size, self.capacity) }
    }
}

/// Runs a hostcall that hands bytes over.
fn bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Status> {
    let mut address: *mut u8 = std::ptr::null_mut();
    let mut size = 0;
    let status = call(&raw mut address, &raw mut size);
    let allocated = ALLOCATED
        .take()
        .map(|allocated| (allocated.address, allocated.own()));
    if status != 0 {
        return Err(Status(status));
    }
    match allocated {
        // Hosts say "nothing" with a null address, a size of 0, or both.
        _ if address.is_null() || size == 0 => Ok(Vec::new()),
        Some((base, mut memory)) if base == address && size <= memory.len() => {
            memory.truncate(size);
            Ok(memory)
        }
        _ => Err(Status::UNREADABLE),
    }
}

/// Stands where the host is to write a number, so that an Ok without a number shows.
const NOT_WRITTEN: u32 = u32::MAX;

fn written(number: u32) -> Result<u32, Status> {
    if number == NOT_WRITTEN {
        Err(Status::UNREADABLE)
    } else {
        Ok(number)
    }
}

fn done(status: u32) -> Result<(), Status> {
    if status == 0 {
        Ok(())
    } else {
        Err(Status(status))
    }
}

pub(crate) fn log(level: u32, message: &str) {
    // SAFETY: address and size are those of a live slice. There is nobody to tell about a failure.
    let _ = unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

pub(crate) fn now_nanoseconds() -> Result<u64, Status> {
    let mut time = 0;
    // SAFETY: `time` is live and writable.
    done(unsafe { proxy_get_current_time_nanoseconds(&raw mut time) })?;
    if time == 0 {
        Err(Status::UNREADABLE)
    } else {
        Ok(time)
    }
}

/// 16 random bytes from WASI; zeros where the host has none.
pub(crate) fn random() -> u128 {
    let mut bytes = [0; 16];
    // SAFETY: the bytes are live and writable.
    let _ = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    u128::from_le_bytes(bytes)
}

pub(crate) fn set_tick_period(milliseconds: u32) -> Result<(), Status> {
    // SAFETY: no memory involved.
    done(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// The first `length` bytes of a buffer. (nginx ignores where reading is to start, so it is always the start.)
pub(crate) fn buffer(buffer: Buffer, length: usize) -> Result<Vec<u8>, Status> {
    // SAFETY: `bytes` passes live, writable places.
    bytes(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, length, data, size) })
}

/// Replaces a whole buffer. The length to replace is "all there could be": nginx would cut the new content off there.
pub(crate) fn replace_buffer(buffer: Buffer, content: &[u8]) -> Result<(), Status> {
    set_buffer(buffer, usize::MAX, content)
}

/// Puts something in front of a buffer.
pub(crate) fn prepend_buffer(buffer: Buffer, content: &[u8]) -> Result<(), Status> {
    set_buffer(buffer, 0, content)
}

fn set_buffer(buffer: Buffer, length: usize, content: &[u8]) -> Result<(), Status> {
    // SAFETY: address and size are those of a live slice.
    done(unsafe {
        proxy_set_buffer_bytes(buffer as u32, 0, length, content.as_ptr(), content.len())
    })
}

pub(crate) fn header_map(map: Map) -> Result<Vec<u8>, Status> {
    SLACK.set(MAP_SLACK);
    // SAFETY: `bytes` passes live, writable places.
    let lines = bytes(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) });
    SLACK.set(0);
    lines
}

/// The first value of a header; `None` when there is none.
pub(crate) fn header(map: Map, name: &str) -> Result<Option<Vec<u8>>, Status> {
    // SAFETY: the name is a live slice, and `bytes` passes live, writable places.
    let value = bytes(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    });
    absent_is_none(value)
}

pub(crate) fn set_header(map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: all are live slices.
    done(unsafe {
        proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

pub(crate) fn add_header(map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: all are live slices.
    done(unsafe {
        proxy_add_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

pub(crate) fn remove_header(map: Map, name: &str) -> Result<(), Status> {
    // SAFETY: the name is a live slice.
    match done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) }) {
        Err(Status::NOT_FOUND) => Ok(()),
        done => done,
    }
}

/// A property; `None` when the host knows none of that path.
pub(crate) fn property(path: &[&str]) -> Result<Option<Vec<u8>>, Status> {
    let path = path.join("\0");
    // SAFETY: the path is a live slice, and `bytes` passes live, writable places.
    absent_is_none(bytes(|data, size| unsafe {
        proxy_get_property(path.as_ptr(), path.len(), data, size)
    }))
}

pub(crate) fn set_property(path: &[&str], value: &[u8]) -> Result<(), Status> {
    let path = path.join("\0");
    // SAFETY: both are live slices.
    done(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

fn absent_is_none(value: Result<Vec<u8>, Status>) -> Result<Option<Vec<u8>>, Status> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Status::NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// Lets a paused request go on.
pub(crate) fn continue_request() -> Result<(), Status> {
    // SAFETY: no memory involved.
    done(unsafe { proxy_continue_stream(0) })
}

/// Makes another context the one that hostcalls act on.
pub(crate) fn set_effective_context(context: u32) -> Result<(), Status> {
    // SAFETY: no memory involved.
    done(unsafe { proxy_set_effective_context(context) })
}

/// Answers the client. `headers` is a marshalled map. Envoy shows `details` in its access log; nginx takes it for the reason
/// phrase.
pub(crate) fn send_local_response(
    status: u16,
    details: &str,
    body: &[u8],
    headers: &[u8],
    grpc_status: i32,
) -> Result<(), Status> {
    // SAFETY: all are live slices.
    done(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    })
}

/// Starts a call and gives its number. `headers` is a marshalled map.
pub(crate) fn http_call(
    upstream: &str,
    headers: &[u8],
    body: &[u8],
    timeout_milliseconds: u32,
) -> Result<u32, Status> {
    let mut call = NOT_WRITTEN;
    let trailers = [0; 4];
    // SAFETY: all are live slices, and `call` is live and writable.
    done(unsafe {
        proxy_http_call(
            upstream.as_ptr(),
            upstream.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout_milliseconds,
            &raw mut call,
        )
    })
    .and_then(|()| written(call))
}

/// A value of shared data with the number of its state; `None` where the host knows none of that name.
pub(crate) fn shared_data(name: &[u8]) -> Result<Option<(Vec<u8>, u32)>, Status> {
    let mut cas = 0;
    // SAFETY: the name is a live slice, `cas` is live and writable, and `bytes` passes live, writable places.
    let value = bytes(|data, size| unsafe {
        proxy_get_shared_data(name.as_ptr(), name.len(), data, size, &raw mut cas)
    });
    Ok(absent_is_none(value)?.map(|value| (value, cas)))
}

/// Writes to shared data. What `cas` asks for depends on the host: see `SharedData` in `super::host`.
pub(crate) fn set_shared_data(name: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
    // SAFETY: both are live slices.
    done(unsafe {
        proxy_set_shared_data(name.as_ptr(), name.len(), value.as_ptr(), value.len(), cas)
    })
}

pub(crate) fn define_counter(name: &str) -> Result<u32, Status> {
    let mut metric = NOT_WRITTEN;
    // SAFETY: the name is a live slice, and `metric` is live and writable. 0 is a counter.
    done(unsafe { proxy_define_metric(0, name.as_ptr(), name.len(), &raw mut metric) })
        .and_then(|()| written(metric))
}

pub(crate) fn increment(metric: u32, by: i64) -> Result<(), Status> {
    // SAFETY: no memory involved.
    done(unsafe { proxy_increment_metric(metric, by) })
}
