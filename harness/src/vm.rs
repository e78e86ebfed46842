//! A VM: one instance of a module with its contexts, and the functions the host gives it.

mod cost;
mod fault;
mod log;
mod trap;

pub use cost::Cost;
pub use fault::{FaultRule, Faults};
pub use log::LogLine;
pub use trap::{Callback, TrapCause, TrapReport};
