//! Kong's `rate-limiting` as a proxy-wasm filter, and limits in tokens and money.
//!
//! ```json
//! {
//!   "host": "envoy",
//!   "minute": 1000,
//!   "tokens": [{ "name": "consumer", "by": ["consumer"], "minute": 100000 }]
//! }
//! ```
//!
//! A request is charged before the upstream is asked, by what it may use at most, and settled when its answer has told what it used.
//! The fields are in [`RawConfig`]; what each promises is in the README beside this crate.
//!
//! | module | knows |
//! |---|---|
//! | [`config`](RawConfig) | what an operator writes |
//! | `subject`, `path` | whom a rule counts |
//! | `rule` | what a rule counts, for which requests |
//! | `own_limits` | limits of a consumer's own |
//! | [`window`], [`counter`] | calendar and counts, as functions of bytes and time |
//! | `ledger` | counters in shared data, several at once |
//! | `redis`, `outbox`, `breaker` | counters in Redis: what is asked and told, what is still to be told, when not to ask |
//! | [`lease`] | requests under way at once |
//! | `metering` | what a request may use, and what it has used |
//! | `headers` | what clients are told |
//! | `enquiry` | what clients and operators ask about counters |
//! | `filter` | the phases |
//!
//! # What is exact
//!
//! - A charge is one compare-and-set of the entry that holds all windows of a rule: no two requests are admitted into the same room.
//! - Several rules are charged in one order by all workers, and given back where one refuses: a request is charged to all or none.
//! - In Redis one script charges all rules of a request; each operation has an id and counts once, however often it is told.
//! - With `exact: true` no request uses more than it reserved; without, what it uses beyond is debt, and counted.
//! - What the provider told is charged to the token; what nobody told is an estimate, and counted as such.
//!
//! # When something fails
//!
//! Counters out of reach: `fault_tolerant` decides (Kong's default lets requests pass); without Redis a gateway counts by itself and merges
//! when it is back. Requests that the host does not show or change
//! as asked, closed: 431 or 500, and nothing is charged. A settlement that can't be written leaves the reservation charged until its
//! window ends.

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

mod breaker;
mod config;
pub mod counter;
pub mod decimal;
mod enquiry;
mod filter;
mod headers;
pub mod lease;
mod ledger;
mod metering;
mod outbox;
mod own_limits;
mod path;
mod redis;
mod rule;
mod subject;
pub mod window;

pub use config::{
    Amount, Compat, Config, Dialect, ErrorCode, Globs, LimitBy, LimitHeaders, Matched, OnLimit,
    Origin, Path, Policy, Positive, RawAdmin, RawConcurrency, RawConfig, RawFront, RawMatch,
    RawPrice, RawRedis, RawTokenRule, Secret, Sha256, SyncRate, Unmetered, Unreadable,
};
pub use filter::{Limiting, TokenRateLimit};
pub use rule::{Ending, Unit};

tollgate_kit::export!(crate::TokenRateLimit);
