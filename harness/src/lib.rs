//! Tollgate on the native host.

pub mod envoy;
pub mod http;
pub mod wire;
