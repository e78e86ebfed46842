//! What LLM traffic looks like.

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

pub mod answer;
pub mod api;
pub mod edit;
pub mod finish;
mod json;
pub mod request;
pub mod sse;
pub mod stream;
pub mod tokens;
pub mod usage;

pub use answer::{Answer, Dialect, Finish};
pub use api::{Api, Endpoint, Unmetered};
pub use edit::{Change, Limit};
pub use request::{Refused, Request};
pub use stream::{Output, Stream};
pub use usage::Usage;
