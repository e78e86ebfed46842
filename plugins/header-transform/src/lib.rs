//! Kong's `request-transformer` and `response-transformer` as a proxy-wasm filter: headers, query, body, method and path of
//! requests, headers and JSON bodies of responses.
//!
//! ```json
//! {
//!   "host": "envoy",
//!   "request": {
//!     "remove": {"headers": ["X-Internal-Debug"]},
//!     "add": {"headers": ["X-Gateway-Version:2.0.0", "X-Cluster-ID:prod-01", "X-Team:$(consumer.username or 'nobody')"]}
//!   },
//!   "response": {
//!     "remove": {"headers": ["openai-organization"], "json": ["system_fingerprint"]}
//!   }
//! }
//! ```
//!
//! A Kong user pastes the configurations of both plugins into `request` and `response`. The fields, their types and their
//! defaults are in [`RawConfig`]; the README beside this crate has them as a table, and the language of templates.
//!
//! # What differs from Kong
//!
//! Better by default, and Kong's own way with `compat: kong`:
//!
//! - What no rule touches keeps its bytes: the order and spelling of arguments, the order of JSON members, numbers of any size.
//! - Templates are checked when the filter is configured, also those of headers; they know `consumer`, `string` and `tostring`.
//! - `false` is a value like any other, and nothing is lost when something is appended to a number.
//! - What a client sent can't lead `replace.uri` out of its place (`..`), nor add a query to it.
//!
//! # When something fails
//!
//! A template that fails ends the request with 500, as in Kong. A value that would break a header (CR, LF, NUL), a form or a path
//! ends it with 400. A body past `max_body_bytes` passes as it is, which a response header and a counter tell, or gets 413. What a
//! host does not do ends the request with 500, and with 400 or 431 where it is the request's doing.
//!
//! # What it costs
//!
//! One look at the header map, one hostcall for each header that changes, and two for a body that does. Responses without rules for
//! them cost nothing. Bodies are held only where a rule needs them.

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

mod arguments;
mod cjson;
mod condition;
mod config;
mod filter;
mod glob;
mod header_draft;
mod json_path;
mod media;
mod member_rules;
mod multipart_form;
mod request;
mod response;
mod sources;
mod sse;
mod template;
mod uri;

pub use config::{
    Compat, Config, JsonType, LargeBody, List, Literal, RawConfig, RawJson, RawRequest,
    RawRequestNames, RawRequestReplace, RawRequestRules, RawResponse, RawResponseNames,
    RawResponseRules, RawSet, RawWhen, Statuses,
};
pub use filter::{HeaderTransform, NOTE, Transformation};

tollgate_kit::export!(crate::HeaderTransform);
