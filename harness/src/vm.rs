//! A VM: one instance of a module with its contexts, and the functions the host gives it.

mod cost;
mod fault;
mod guest;
mod hostcalls;
mod instance;
mod log;
mod memory;
mod properties;
mod trap;
mod wasi;
mod world;

pub use cost::Cost;
pub use fault::{FaultRule, Faults};
pub use log::LogLine;
pub use trap::{Callback, Lost, TrapCause, TrapReport};

pub(crate) use guest::{CallView, Context, Guest, Site};
pub(crate) use hostcalls::link as link_hostcalls;
pub(crate) use instance::{RootSpec, Vm, VmSetup};
pub(crate) use wasi::{
    is_known as knows_wasi, link as link_wasi, link_unknown as link_unknown_wasi,
};
pub(crate) use world::{Owner, World};
