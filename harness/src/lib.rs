//! A native proxy-wasm host.
//!
//! It runs the shipped `.wasm` filters in two ways: in [`sim`], with scripted traffic and a virtual clock, and behind a
//! streaming reverse proxy, [`proxy`]. Both drive the same machine, a [`worker::Worker`], which does no I/O of its own:
//! events go in, actions come out. How the machine behaves where real hosts differ is a [`profile::Profile`].

pub mod abi;
pub mod catalog;
pub mod conformance;
pub mod demo;
pub mod engine;
pub mod envoy;
pub mod exchange;
pub mod http;
pub mod inspect;
pub mod listener;
pub mod mock_llm;
pub mod profile;
pub mod proxy;
pub mod shared;
pub mod sim;
pub mod vm;
pub mod wire;
pub mod worker;
