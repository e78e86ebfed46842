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

pub use config::{
    Amount, Compat, Config, ErrorCode, Globs, LimitBy, LimitHeaders, Matched, OnLimit, Origin,
    Path, Policy, Positive, RawConfig, RawMatch, RawPrice, RawRedis, RawTokenRule, SyncRate,
    Unmetered, Unreadable,
};
pub use filter::{Limiting, TokenRateLimit};
pub use rule::{Ending, Unit};

tollgate_kit::export!(crate::TokenRateLimit);
