//! The hostcalls as they are: nothing is checked, repeated or avoided.
#![allow(
    unsafe_code,
    reason = "the ABI is C functions and raw memory; nothing outside this file touches either"
)]

use std::fmt;

/// A status other than Ok.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(u32);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "NotFound",
            2 => "BadArgument",
            3 => "SerializationFailure",
            4 => "ParseFailure",
            7 => "Empty",
            8 => "CasMismatch",
            10 => "InternalFailure",
            12 => "Unimplemented",
            other => return write!(f, "status {other}"),
        };
        f.write_str(name)
    }
}

pub(crate) type Answer<T> = Result<T, Status>;

fn answer(status: u32) -> Answer<()> {
    match status {
        0 => Ok(()),
        status => Err(Status(status)),
    }
}

/// Buffers, by the ABI's numbers.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallBody = 4,
    Configuration = 7,
}

/// Header maps, by the ABI's numbers.
#[derive(Clone, Copy)]
pub(crate) enum Map {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    ResponseTrailers = 3,
    Call = 6,
}

/// Metrics, by the ABI's numbers.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_done() -> u32;
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
    fn proxy_continue_stream(half: u32) -> u32;
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
    fn proxy_register_shared_queue(name: *const u8, name_size: usize, queue: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(queue: u32, item: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(queue: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> u32;
    fn proxy_get_metric(metric: u32, value: *mut u64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
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
}

/// What the host allocates with: memory that [`taken`] gives a `Vec`.
pub fn allocate(size: usize) -> *mut u8 {
    Box::into_raw(vec![0u8; size].into_boxed_slice()).cast()
}

/// The ABI's name of it.
#[unsafe(export_name = "proxy_on_memory_allocate")]
extern "C" fn on_memory_allocate(size: usize) -> *mut u8 {
    allocate(size)
}

/// The ABI's version.
#[unsafe(export_name = "proxy_abi_version_0_2_1")]
extern "C" fn abi_version() {}

/// Takes over what a host handed out through `call`'s two places.
fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Answer<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    answer(call(&mut data, &mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host wrote the address of memory that `allocate` gave it for these many bytes, and gave it up.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// Says what was observed.
pub(crate) fn say(text: impl fmt::Display) {
    let line = format!("quirks: {text}");
    // SAFETY: pointer and length are of one live string. 3 is the level of warnings.
    unsafe { proxy_log(3, line.as_ptr(), line.len()) };
}

pub(crate) fn now() -> u64 {
    let mut now = 0;
    // SAFETY: the host writes eight bytes where the number lives.
    unsafe { proxy_get_current_time_nanoseconds(&mut now) };
    now
}

pub(crate) fn tick(milliseconds: u32) -> Answer<()> {
    // SAFETY: no pointers.
    answer(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

pub(crate) fn act_for(context: u32) -> Answer<()> {
    // SAFETY: no pointers.
    answer(unsafe { proxy_set_effective_context(context) })
}

pub(crate) fn done() -> Answer<()> {
    // SAFETY: no arguments.
    answer(unsafe { proxy_done() })
}

/// Goes on with the request of the effective context.
pub(crate) fn go_on() -> Answer<()> {
    const REQUEST: u32 = 0;
    // SAFETY: no pointers.
    answer(unsafe { proxy_continue_stream(REQUEST) })
}

pub(crate) fn read(buffer: Buffer, start: usize, length: usize) -> Answer<Vec<u8>> {
    // SAFETY: the out-pointers are `taken`'s own.
    taken(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, start, length, data, size) })
}

pub(crate) fn replace(buffer: Buffer, start: usize, length: usize, by: &[u8]) -> Answer<()> {
    // SAFETY: pointer and length are of one live slice.
    answer(unsafe { proxy_set_buffer_bytes(buffer as u32, start, length, by.as_ptr(), by.len()) })
}

/// The map in its wire form.
pub(crate) fn map(map: Map) -> Answer<Vec<u8>> {
    // SAFETY: the out-pointers are `taken`'s own.
    taken(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

pub(crate) fn header(map: Map, name: &str) -> Answer<Vec<u8>> {
    // SAFETY: the name's pointer and length are of one live string, the out-pointers are `taken`'s own.
    taken(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
}

pub(crate) fn add_header(map: Map, name: &str, value: &[u8]) -> Answer<()> {
    let (n, v) = (name.as_bytes(), value);
    // SAFETY: pointers and lengths are of live slices.
    answer(unsafe {
        proxy_add_header_map_value(map as u32, n.as_ptr(), n.len(), v.as_ptr(), v.len())
    })
}

pub(crate) fn set_header(map: Map, name: &str, value: &[u8]) -> Answer<()> {
    let (n, v) = (name.as_bytes(), value);
    // SAFETY: pointers and lengths are of live slices.
    answer(unsafe {
        proxy_replace_header_map_value(map as u32, n.as_ptr(), n.len(), v.as_ptr(), v.len())
    })
}

pub(crate) fn remove_header(map: Map, name: &str) -> Answer<()> {
    // SAFETY: pointer and length are of one live string.
    answer(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Pairs in their wire form.
fn encoded(pairs: &[(&str, &str)]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = number(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    bytes
}

pub(crate) fn reply(status: u32, headers: &[(&str, &str)], body: &[u8]) -> Answer<()> {
    let headers = encoded(headers);
    // SAFETY: pointers and lengths are of live slices; no details. -1 is no gRPC status.
    answer(unsafe {
        proxy_send_local_response(
            status,
            std::ptr::null(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

pub(crate) fn call(upstream: &str, headers: &[(&str, &str)], milliseconds: u32) -> Answer<()> {
    let headers = encoded(headers);
    let mut token = 0;
    // SAFETY: pointers and lengths are of live slices; neither body nor trailers; the token is a live number.
    answer(unsafe {
        proxy_http_call(
            upstream.as_ptr(),
            upstream.len(),
            headers.as_ptr(),
            headers.len(),
            std::ptr::null(),
            0,
            std::ptr::null(),
            0,
            milliseconds,
            &mut token,
        )
    })
}

/// A shared value and its cas.
pub(crate) fn shared(key: &str) -> Answer<(Vec<u8>, u32)> {
    let mut cas = 0;
    // SAFETY: the key's pointer and length are of one live string, the out-pointers are live.
    let value = taken(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut cas)
    })?;
    Ok((value, cas))
}

/// `None` hands over a null pointer: a removal.
pub(crate) fn set_shared(key: &str, value: Option<&[u8]>, cas: u32) -> Answer<()> {
    let (data, size) = value.map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
    // SAFETY: pointers and lengths are of live slices, or null and 0.
    answer(unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), data, size, cas) })
}

pub(crate) fn register_queue(name: &str) -> Answer<u32> {
    let mut queue = 0;
    // SAFETY: pointer and length are of one live string, the queue is a live number.
    answer(unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &mut queue) })?;
    Ok(queue)
}

pub(crate) fn enqueue(queue: u32, item: &[u8]) -> Answer<()> {
    // SAFETY: pointer and length are of one live slice.
    answer(unsafe { proxy_enqueue_shared_queue(queue, item.as_ptr(), item.len()) })
}

pub(crate) fn dequeue(queue: u32) -> Answer<Vec<u8>> {
    // SAFETY: the out-pointers are `taken`'s own.
    taken(|data, size| unsafe { proxy_dequeue_shared_queue(queue, data, size) })
}

pub(crate) fn define(kind: Kind, name: &str) -> Answer<u32> {
    let mut metric = 0;
    // SAFETY: pointer and length are of one live string, the metric is a live number.
    answer(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut metric) })?;
    Ok(metric)
}

pub(crate) fn metric(metric: u32) -> Answer<u64> {
    let mut value = 0;
    // SAFETY: the value is a live number.
    answer(unsafe { proxy_get_metric(metric, &mut value) })?;
    Ok(value)
}

pub(crate) fn record(metric: u32, value: u64) -> Answer<()> {
    // SAFETY: no pointers.
    answer(unsafe { proxy_record_metric(metric, value) })
}

pub(crate) fn increment(metric: u32, by: i64) -> Answer<()> {
    // SAFETY: no pointers.
    answer(unsafe { proxy_increment_metric(metric, by) })
}

/// `path` has dots between its parts.
pub(crate) fn property(path: &str) -> Answer<Vec<u8>> {
    let path = path.replace('.', "\0");
    // SAFETY: the path's pointer and length are of one live string, the out-pointers are `taken`'s own.
    taken(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// `path` goes out as it is, dots included.
pub(crate) fn property_as_is(path: &str) -> Answer<Vec<u8>> {
    // SAFETY: the path's pointer and length are of one live string, the out-pointers are `taken`'s own.
    taken(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

pub(crate) fn set_property(path: &str, value: &[u8]) -> Answer<()> {
    // SAFETY: pointers and lengths are of live slices.
    answer(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// Ends the instance, as a panic does.
pub(crate) fn trap() -> ! {
    core::arch::wasm32::unreachable()
}
