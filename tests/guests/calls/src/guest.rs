//! The guest itself; it builds for wasm alone.
#![allow(
    unsafe_code,
    reason = "a guest of its own: the ABI is C functions and raw memory"
)]

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::ptr::null_mut;

mod env {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(crate) fn proxy_get_buffer_bytes(
            kind: u32,
            start: usize,
            max: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(crate) fn proxy_get_header_map_pairs(
            kind: u32,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(crate) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub(crate) fn proxy_grpc_call(
            target: *const u8,
            target_size: usize,
            service: *const u8,
            service_size: usize,
            method: *const u8,
            method_size: usize,
            metadata: *const u8,
            metadata_size: usize,
            message: *const u8,
            message_size: usize,
            timeout: u32,
            token: *mut u32,
        ) -> u32;
        pub(crate) fn proxy_grpc_stream(
            target: *const u8,
            target_size: usize,
            service: *const u8,
            service_size: usize,
            method: *const u8,
            method_size: usize,
            metadata: *const u8,
            metadata_size: usize,
            token: *mut u32,
        ) -> u32;
        pub(crate) fn proxy_grpc_send(
            token: u32,
            message: *const u8,
            message_size: usize,
            end: u32,
        ) -> u32;
        pub(crate) fn proxy_grpc_cancel(token: u32) -> u32;
        pub(crate) fn proxy_grpc_close(token: u32) -> u32;
        pub(crate) fn proxy_get_status(code: *mut u32, data: *mut *mut u8, size: *mut usize)
        -> u32;
        pub(crate) fn proxy_call_foreign_function(
            name: *const u8,
            name_size: usize,
            argument: *const u8,
            argument_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(crate) fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(crate) fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            data: *const u8,
            size: usize,
        ) -> u32;
    }
}

/// The kinds of maps and buffers, by the ABI's numbers.
const REQUEST_HEADERS: u32 = 0;
const INITIAL_METADATA: u32 = 4;
const TRAILING_METADATA: u32 = 5;
const GRPC_MESSAGE: u32 = 5;
const CONFIGURATION: u32 = 7;

thread_local! {
    static SEEN: RefCell<String> = const { RefCell::new(String::new()) };
    static TOKEN: Cell<u32> = const { Cell::new(0) };
}

fn saw(line: &str) {
    SEEN.with_borrow_mut(|seen| {
        let _ = writeln!(seen, "{line}");
    });
}

/// What a host hands over through two out-pointers, or the status it answered instead.
fn taken(ask: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, u32> {
    let (mut data, mut size) = (null_mut(), 0);
    match ask(&mut data, &mut size) {
        0 if data.is_null() => Ok(Vec::new()),
        // SAFETY: the host allocated it with `proxy_on_memory_allocate`, which made it as a vector of that capacity.
        0 => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(status),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn buffer(kind: u32) -> String {
    // SAFETY: both pointers are of locals that outlive the call, here and in the calls below.
    let bytes = taken(|data, size| unsafe {
        env::proxy_get_buffer_bytes(kind, 0, usize::MAX >> 1, data, size)
    });
    bytes.map_or_else(|status| format!("<{status}>"), |bytes| text(&bytes))
}

fn map(kind: u32) -> Vec<(String, String)> {
    // SAFETY: as above.
    let bytes = taken(|data, size| unsafe { env::proxy_get_header_map_pairs(kind, data, size) });
    pairs(&bytes.unwrap_or_default()).unwrap_or_default()
}

/// A map in its wire form: the number of pairs, the lengths of each, each name and value with a NUL behind it.
fn pairs(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let word = |at: usize| {
        let word = bytes.get(at * 4..at * 4 + 4)?;
        usize::try_from(u32::from_le_bytes(word.try_into().ok()?)).ok()
    };
    let count = word(0)?;
    let mut at = 4 + count * 8;
    let mut found = Vec::new();
    for index in 0..count {
        let (name, value) = (word(1 + index * 2)?, word(2 + index * 2)?);
        let end = at + name + 1 + value;
        found.push((
            text(bytes.get(at..at + name)?),
            text(bytes.get(at + name + 1..end)?),
        ));
        at = end + 1;
    }
    Some(found)
}

fn wire(pairs: &[(&str, &str)]) -> Vec<u8> {
    let size = |len: usize| u32::try_from(len).unwrap_or_default().to_le_bytes();
    let mut bytes = size(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend([size(name.len()), size(value.len())].concat());
    }
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(part.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let digits = pairs.filter_map(|pair| std::str::from_utf8(pair).ok());
    digits
        .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A protobuf field that holds bytes; they are short.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap_or_default();
    [&[number << 3 | 2, length], bytes].concat()
}

fn target(words: &str) -> Vec<u8> {
    match words.split_once(':') {
        Some(("hex", digits)) => from_hex(digits),
        Some(("service", cluster)) => {
            let (cluster, authority) = cluster.split_once('@').unwrap_or((cluster, ""));
            let mut envoy_grpc = field(1, cluster.as_bytes());
            if !authority.is_empty() {
                envoy_grpc.extend(field(2, authority.as_bytes()));
            }
            field(1, &envoy_grpc)
        }
        Some((_, name)) => name.as_bytes().to_vec(),
        None => Vec::new(),
    }
}

/// Does one order; what it came to.
fn obey(order: &str) -> Option<String> {
    let words: Vec<&str> = order.split_whitespace().collect();
    let metadata = wire(&[("x-from", "guest"), ("X-Upper", "1")]);
    let mut token = TOKEN.get();
    // SAFETY: every pointer is of a value that lives until the host function returns, with its own length.
    let status = match words.as_slice() {
        ["call", to, service, method, timeout, message] => unsafe {
            let to = target(to);
            env::proxy_grpc_call(
                to.as_ptr(),
                to.len(),
                service.as_ptr(),
                service.len(),
                method.as_ptr(),
                method.len(),
                metadata.as_ptr(),
                metadata.len(),
                message.as_ptr(),
                message.len(),
                timeout.parse().unwrap_or_default(),
                &mut token,
            )
        },
        ["stream", to, service, method] => unsafe {
            let to = target(to);
            env::proxy_grpc_stream(
                to.as_ptr(),
                to.len(),
                service.as_ptr(),
                service.len(),
                method.as_ptr(),
                method.len(),
                metadata.as_ptr(),
                metadata.len(),
                &mut token,
            )
        },
        [sends @ ("send" | "end"), message] => unsafe {
            let end = u32::from(*sends == "end");
            env::proxy_grpc_send(token, message.as_ptr(), message.len(), end)
        },
        ["close"] => unsafe { env::proxy_grpc_close(token) },
        ["cancel"] => unsafe { env::proxy_grpc_cancel(token) },
        ["token", number] => {
            TOKEN.set(number.parse().unwrap_or_default());
            return None;
        }
        ["foreign", name, rest @ ..] => {
            let argument = from_hex(rest.first().copied().unwrap_or_default());
            let result = taken(|data, size| unsafe {
                env::proxy_call_foreign_function(
                    name.as_ptr(),
                    name.len(),
                    argument.as_ptr(),
                    argument.len(),
                    data,
                    size,
                )
            });
            return Some(match result {
                Ok(bytes) => format!("foreign {name} 0 {}", to_hex(&bytes)),
                Err(status) => format!("foreign {name} {status}"),
            });
        }
        ["set", name, value] => {
            let path = name.replace('/', "\0");
            unsafe {
                env::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len())
            }
        }
        ["get", name] => {
            let path = name.replace('/', "\0");
            let result = taken(|data, size| unsafe {
                env::proxy_get_property(path.as_ptr(), path.len(), data, size)
            });
            return Some(match result {
                Ok(bytes) => format!("get {name} 0 {}", text(&bytes)),
                Err(status) => format!("get {name} {status}"),
            });
        }
        ["forget"] => {
            SEEN.take();
            return None;
        }
        _ => return Some(format!("no such order: {order}")),
    };
    TOKEN.set(token);
    let order = words.first().copied().unwrap_or_default();
    Some(format!("{order} {status}"))
}

fn obey_all(orders: &str) {
    for order in orders.split(';').filter(|order| !order.trim().is_empty()) {
        if let Some(line) = obey(order) {
            saw(&line);
        }
    }
}

/// The lines of a map, which are as many as the host said.
fn lines(map: &[(String, String)], count: u32) -> String {
    if u32::try_from(map.len()) != Ok(count) {
        return format!("<{count} lines told, {} there>", map.len());
    }
    let lines: Vec<String> = map.iter().map(|(n, v)| format!("{n}={v}")).collect();
    lines.join(" ")
}

/// The marker of the ABI's version.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Gives the host a place for what it hands over.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut place = std::mem::ManuallyDrop::new(Vec::<u8>::with_capacity(size));
    place.as_mut_ptr()
}

/// Contexts need nothing.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_context: u32, _root: u32) {}

/// The VM needs nothing.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_vm_start(_root: u32, _size: u32) -> u32 {
    1
}

/// Does the configuration's orders.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(_root: u32, size: u32) -> u32 {
    if size > 0 {
        obey_all(&buffer(CONFIGURATION));
    }
    1
}

/// Does the request's orders and answers with what was seen.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_context: u32, _lines: u32, _end: u32) -> u32 {
    let headers = map(REQUEST_HEADERS);
    for (_, orders) in headers.iter().filter(|(name, _)| name == "x-do") {
        obey_all(orders);
    }
    let seen = SEEN.with_borrow(String::clone);
    let none = std::ptr::null();
    // SAFETY: the body lives until the host function returns; the others are of no length.
    unsafe {
        env::proxy_send_local_response(200, none, 0, seen.as_ptr(), seen.len(), none, 0, -1);
    }
    1
}

/// Notes the initial metadata of a stream.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_receive_initial_metadata(_root: u32, _token: u32, count: u32) {
    saw(&format!("initial {}", lines(&map(INITIAL_METADATA), count)));
}

/// Notes a message.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_receive(_root: u32, _token: u32, size: u32) {
    saw(&format!("message {size} {}", buffer(GRPC_MESSAGE)));
}

/// Notes the trailing metadata of a stream.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_receive_trailing_metadata(_root: u32, _token: u32, count: u32) {
    saw(&format!(
        "trailing {}",
        lines(&map(TRAILING_METADATA), count)
    ));
}

/// Notes the end of a call that failed, or of a stream.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_close(_root: u32, _token: u32, status: u32) {
    let mut code = 0;
    // SAFETY: all three pointers are of locals that outlive the call.
    let reason = taken(|data, size| unsafe { env::proxy_get_status(&mut code, data, size) });
    let reason = text(&reason.unwrap_or_default());
    saw(format!("closed {status} {code} {reason}").trim_end());
}
