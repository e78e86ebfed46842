//! Limits in requests, tokens and money.

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
pub mod counter;
pub mod decimal;
mod filter;
mod headers;
mod ledger;
mod metering;
mod path;
mod rule;
mod subject;
pub mod window;

pub use config::{Compat, Config, RawConfig};
pub use filter::{Limiting, TokenRateLimit};

tollgate_kit::export!(crate::TokenRateLimit);
