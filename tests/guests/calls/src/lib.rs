//! A guest without an SDK that does what a request's `x-do` says and answers with everything that it has seen.
//!
//! The same module runs in every host, so that a difference between what it saw here and there is the hosts'. Orders
//! stand one behind the other, parted by `;`, their words by spaces; those of the configuration are done in the root
//! context. What each came to, and what came back later, is one line each in the answer.
//!
//! | order | what is done |
//! |---|---|
//! | `call TARGET SERVICE METHOD TIMEOUT MESSAGE` | a unary gRPC call |
//! | `stream TARGET SERVICE METHOD` | opens a gRPC stream |
//! | `send MESSAGE`, `end MESSAGE`, `close`, `cancel` | on what was opened last |
//! | `token NUMBER` | takes this for what was opened last |
//! | `foreign NAME HEX` | calls a foreign function |
//! | `set NAME VALUE`, `get NAME` | a property; its path's parts are parted by `/` |
//! | `forget` | forgets what was seen |
//!
//! A target is `name:CLUSTER`, `service:CLUSTER` or `service:CLUSTER@AUTHORITY` (a serialized `GrpcService`), or
//! `hex:BYTES`.

#[cfg(target_family = "wasm")]
mod guest;
