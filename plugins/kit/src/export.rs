//! The exported functions of a module.

/// Makes a proxy-wasm module of a filter. Nothing is exported on any target but wasm32-wasip1, so that the crate's tests link.
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        #[cfg(target_os = "wasi")]
        #[allow(unsafe_code, reason = "the host finds its callbacks by unmangled name")]
        mod exports {
            use super::*;

            thread_local! {
                static SHELL: $crate::abi::Shell<$filter> = $crate::abi::Shell::default();
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_abi_version_0_2_1() {}

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
                $crate::abi::allocate(size)
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
                SHELL.with(|shell| shell.create(context, parent));
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_vm_start(_root: u32, _size: u32) -> u32 {
                1
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
                u32::from(SHELL.with(|shell| shell.configure(root, size)))
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_tick(root: u32) {
                SHELL.with(|shell| shell.tick(root));
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_http_call_response(
                context: u32,
                call: u32,
                headers: u32,
                size: usize,
                _trailers: u32,
            ) {
                SHELL.with(|shell| shell.call_done(context, call, headers, size));
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_request_headers(stream: u32, lines: usize, end: u32) -> u32 {
                SHELL.with(|shell| shell.request_headers(stream, lines, end != 0)) as u32
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_request_body(stream: u32, size: usize, end: u32) -> u32 {
                SHELL.with(|shell| shell.request_body(stream, size, end != 0)) as u32
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_request_trailers(stream: u32, _trailers: u32) -> u32 {
                SHELL.with(|shell| shell.request_trailers(stream)) as u32
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_response_headers(stream: u32, _headers: u32, end: u32) -> u32 {
                SHELL.with(|shell| shell.response_headers(stream, end != 0)) as u32
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_response_body(stream: u32, size: usize, end: u32) -> u32 {
                SHELL.with(|shell| shell.response_body(stream, size, end != 0)) as u32
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_done(_context: u32) -> u32 {
                1
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_log(stream: u32) {
                SHELL.with(|shell| shell.log(stream));
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_delete(context: u32) {
                SHELL.with(|shell| shell.delete(context));
            }
        }
    };
}
