//! What LLM traffic looks like: which API a request is for, what it asks, what its answer used, what that costs. Pure: bytes in, values
//! out; no host, no clock, no I/O.
//!
//! The filters that count, cache and fail over read requests and answers through this crate and nothing else, so that they agree on
//! what a request is.
//!
//! # A request
//!
//! ```
//! use tollgate_llm::{Api, Calibration, Change, Endpoint, Limit, Request, Sizes};
//!
//! let body = br#"{"model": "gpt-4.1", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}"#;
//! let endpoint = Endpoint::of(b"/openai/v1/chat/completions");
//! let request = Request::read(body, &endpoint)?;
//! assert_eq!((request.api, request.model.as_deref()), (Api::Chat, Some("gpt-4.1")));
//!
//! // What to reserve: no prompt of this request has more tokens than the bound.
//! let sizes = Sizes::of(&request);
//! assert_eq!(sizes.bound(), Some(5 + 16 + 16));
//! assert_eq!(sizes.estimate(&Calibration::default()), 6);
//!
//! // What goes upstream: a limit, and the usage of the stream. Every other byte stays.
//! let change = Change { limit: Limit::AtMost(500), include_usage: true };
//! let changed = change.apply(body, &request).unwrap_or_else(|| body.to_vec());
//! assert_eq!(
//!     String::from_utf8_lossy(&changed),
//!     r#"{"stream_options":{"include_usage":true},"max_tokens":500,"model": "gpt-4.1", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}"#
//! );
//! # Ok::<(), tollgate_llm::Refused>(())
//! ```
//!
//! A body is judged by what it is and not by its content type. One that the provider might read differently, as with two `model` members,
//! is [`Refused`], with one variant for each reason. An API that can't be counted is [`Unmetered`].
//!
//! # An answer
//!
//! ```
//! use tollgate_llm::{Output, Stream};
//!
//! // The client did not ask for usage: its event is taken out.
//! let mut stream = Stream::edited(64 * 1024, true);
//! let chunk = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}],\"model\":\"gpt-4.1-2025-04-14\"}\n\n";
//! assert_eq!(stream.feed(chunk), Output::Pass);
//! let chunk = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":1}}\n\n";
//! assert_eq!(stream.feed(chunk), Output::Replace(Vec::new()));
//!
//! let usage = stream.answer().usage().unwrap_or_default();
//! assert_eq!((usage.prompt, usage.completion, usage.total), (Some(8), Some(1), Some(9)));
//! assert_eq!(stream.answer().model(), Some("gpt-4.1-2025-04-14"));
//! ```
//!
//! [`Stream`] takes whatever comes, also a JSON body; [`Usage`] says how the providers' counts map to one meaning. Where none come (an abort,
//! a provider that tells none), [`Answer::text`] with [`Calibration::completion`] is an estimate. A stream is ended early with
//! [`Stream::cut`].
//!
//! # What it costs
//!
//! A request's body is read twice (its encoding, then all else in one pass), an answer's once. Memory does not grow with either: for
//! each open container one small frame, of which there are at most 1000, the first 256 bytes of the current string, and of a stream that is
//! edited one unfinished event up to the limit given. Nothing here recurses, indexes, or computes unchecked.
//!
//! | module | knows |
//! |---|---|
//! | [`api`] | paths |
//! | [`request`], [`edit`] | what a request asks, and how its bytes are changed |
//! | [`answer`], [`usage`] | what an answer tells |
//! | [`sse`], [`stream`], [`finish`] | events, what a stream tells, and how one ends at its limit |
//! | [`estimate`] | tokens that nobody has counted |
//! | [`glob`], [`price`] | models by pattern, and money in integers |
//! | [`tokens`] | JSON as it arrives |

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
pub mod estimate;
pub mod finish;
pub mod glob;
mod json;
pub mod price;
pub mod request;
pub mod sse;
pub mod stream;
pub mod tokens;
pub mod usage;

pub use answer::{Answer, Dialect, Finish};
pub use api::{Api, Endpoint, Unmetered};
pub use edit::{Change, Limit};
pub use estimate::{Calibration, Images, Sizes};
pub use glob::Glob;
pub use price::{Cost, PerMillion, Price, Pricing};
pub use request::{Refused, Request};
pub use stream::{Output, Stream};
pub use usage::Usage;
