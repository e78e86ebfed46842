//! The boundary to the host: proxy-wasm ABI 0.2.1. The only place with `unsafe`, and the only one that knows how hosts differ.
//!
//! - [`imports`]: each hostcall as a safe function whose status is a value.
//! - [`host`]: the capabilities of [`crate::host`] on top of them.
//! - [`edits`]: how a decision is carried out on each host.
//! - [`shell`]: the state machine between the host's callbacks and a filter's phases.
//! - [`export!`](crate::export): makes a module of a filter, on top of these.

pub(crate) mod edits;
pub(crate) mod host;
pub(crate) mod imports;
mod shell;

pub use imports::allocate;
pub use shell::Shell;
