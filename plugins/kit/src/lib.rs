//! What every Tollgate filter shares, so that a filter is plain Rust: events in, a decision out.
//!
//! A filter implements [`Filter`] (what lives as long as its configuration) and [`Exchange`] (its part in one request),
//! declares its configuration with [`record!`], and becomes a proxy-wasm module with one line:
//!
//! ```text
//! tollgate_kit::export!(KeyAuth);
//! ```
//!
//! It reads through the narrow traits of [`host`] and answers with the values of [`step`]; time, randomness and bytes
//! are arguments. What hosts do differently is known here and nowhere else:
//!
//! | the filter says | on Envoy | on Kong |
//! |---|---|---|
//! | hold for the body | the headers pause, the body is buffered | the headers go on, and are edited when the body comes; where no length announces one, it is decided at once, and again should one come |
//! | remove a header | it is removed | it is blanked, then removed; a repeated one is refused (below) |
//! | replace the body | the buffer, and `content-length` | the buffer, by a length that is not cut off |
//! | change the query | `:path` | `request.query` and, where it exists, `ngx.upstream_uri` |
//! | answer | as it is | without the final newline, which the host adds |
//! | make a call | pause, then `continue_stream` | pause; it resumes by itself; the body can't be changed after it, which is refused |
//! | write to shared data if nobody has since | a `cas` that can't be creates, its own replaces | a `cas` of 0 creates |
//! | pass the identity on | filter state `tollgate.identity` | `kong.ctx.shared.tollgate_identity` |
//! | swallow or hold a response | in the filter's own memory: no buffer limit of the host applies | likewise; the end is counted against `content-length` |
//!
//! A request can't take the VM down: nothing here trusts a status, a length, a header's encoding or the order of callbacks,
//! and where the host fails a filter, the filter's own rule decides ([`Exchange::host_failed`]).
//!
//! The `proxy-wasm` crate is not used. Its dispatcher panics on statuses it does not know, on values that are not UTF-8 and on
//! contexts it has not seen, and one panic in Envoy ends the VM for every client; what remains of it without those is the
//! few hundred lines of `abi`.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod args;
pub mod config;
pub mod digest;
pub mod headers;
pub mod host;
pub mod identity;
pub mod json;
pub mod metric;
pub mod multipart;
pub mod reply;
#[cfg(not(target_family = "wasm"))]
pub mod schema;
pub mod step;
pub mod store;

mod export;
mod filter;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(target_os = "wasi")]
pub mod abi;

pub use filter::{Exchange, Fallback, Filter};
