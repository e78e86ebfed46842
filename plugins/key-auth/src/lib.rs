//! Kong's `key-auth` as a proxy-wasm filter: a key in a header, the query or the body leads to a consumer, or the request ends with
//! 401.
//!
//! ```json
//! {
//!   "key_names": ["x-api-key", "authorization"],
//!   "hide_credentials": true,
//!   "host": "envoy",
//!   "consumers": [
//!     {
//!       "id": "7f4c", "username": "checkout", "groups": ["gold"], "metadata": {"team": "shop"},
//!       "credentials": [{"id": "2026-11", "key_sha256": "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"}]
//!     }
//!   ]
//! }
//! ```
//!
//! A Kong user pastes the plugin's configuration and adds `consumers`. The fields, their types and their defaults are in
//! [`RawConfig`]; the README beside this crate has them as a table.
//!
//! # What differs from Kong
//!
//! Better by default, and Kong's own way with `compat: kong`:
//!
//! - `Authorization: Bearer K` and `Basic` with the key in either half give `K` (`schemes`).
//! - Identity headers of a client (`X-Consumer-*`, `X-Credential-Identifier`, `X-Anonymous-Consumer`) are removed on a skipped
//!   preflight too, and so are their spellings with `_`, which many upstreams take for the same.
//! - `hide_credentials` takes out every spelling of a header that was accepted, and leaves everything that is not the key byte for
//!   byte as it came.
//! - A JSON body that has the key twice is a duplicate.
//!
//! # When something fails
//!
//! Always closed. A request that the host can't show whole is refused (on nginx: 431 past 96 header lines), so is one whose body
//! is too large or can't be read where a key may be in it (413, 500), and one whose headers the host does not change (400 for
//! repeated identity headers on nginx, else 500). Before the first document of `consumers_from` is loaded, every request gets
//! 503 with `Retry-After`; afterwards the last good one serves, however long its source is away.
//!
//! # What it costs
//!
//! One look at the header map, one SHA-256, and one hostcall for each header that is set. Keys are kept and compared as digests only,
//! whole, in a time that does not depend on the key.

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

mod config;
mod consumers;
mod directory;
mod filter;
mod payload;
mod poll;
mod scheme;
mod search;
mod timestamp;

pub use config::{Compat, Config, NonEmpty, RawConfig, RawSource, Schemes};
pub use consumers::Consumers;
pub use filter::{Authentication, KeyAuth};

tollgate_kit::export!(crate::KeyAuth);
