//! Shows where hosts differ.
//!
//! `{"do": "shared-data-cas-zero"}` does the experiment of that name: the row of the table of differences with the same
//! id. What it observes it logs, as a warning that begins with `quirks: `, since a log line can be written in every
//! phase on every host. An experiment is one function; it gets each callback and says how the stream goes on.
//!
//! This filter calls the host as no filter should, so it goes around the kit, whose shell would not let it.
#![cfg(target_family = "wasm")]

mod experiment;
mod host;
mod orders;
mod stage;

pub use host::allocate;
