//! Logging, time, ticks, contexts.

use super::Answer;
use crate::abi::{LogLevel, Status};
use crate::profile::{Host, Row};
use crate::vm::Callback;
use crate::vm::guest::{Context, Tick};
use crate::vm::memory::{Env, Refusal};

pub(super) fn log(env: &mut Env<'_>, level: u32, ptr: u32, len: u32) -> Answer {
    let level = LogLevel::from_raw(level).ok_or(Status::BadArgument)?;
    let message = env.read(ptr, len)?;
    env.guest().log(level, String::from_utf8_lossy(&message));
    Ok(())
}

/// Everything is kept, and the driver chooses what to show: guests are told to log all.
pub(super) fn get_log_level(env: &mut Env<'_>, out: u32) -> Answer {
    env.write_u32(out, 0)
}

pub(super) fn get_time(env: &mut Env<'_>, out: u32) -> Answer {
    let now = env.guest().now();
    env.write_u64(out, now)
}

pub(super) fn set_tick_period(env: &mut Env<'_>, milliseconds: u32) -> Answer {
    let guest = env.guest();
    let now = guest.setup.clock.elapsed_nanos();
    let (again, id) = (guest.rules.tick_again, guest.root_id());
    let in_stream = guest.seat_id().is_some();
    let root = guest.roots.get_mut(&id).ok_or(Status::BadArgument)?;
    let set = root.tick.is_some() && milliseconds != 0;
    if set {
        guest.find(Host::Kong, Row::TickSetAgain);
    }
    if in_stream {
        guest.find(Host::Kong, Row::TickInStream);
    }
    if !again && set {
        return Err(Refusal::Trap("tick_period already set"));
    }
    if !again && in_stream {
        return Err(Refusal::Trap("can only set tick_period in root context"));
    }
    let period = u64::from(milliseconds) * 1_000_000;
    if let Some(root) = guest.roots.get_mut(&id) {
        root.tick = (period > 0).then(|| Tick {
            period,
            due: now.saturating_add(period),
        });
    }
    Ok(())
}

pub(super) fn set_effective_context(env: &mut Env<'_>, context: u32) -> Answer {
    let guest = env.guest();
    if !guest.rules.effective_context {
        return Ok(());
    }
    if !guest.contexts.contains_key(&context) {
        return Err(Status::BadArgument.into());
    }
    guest.effective = context;
    Ok(())
}

/// Ends a context whose `on_done` said that it was not done.
pub(super) fn done(env: &mut Env<'_>) -> Answer {
    let guest = env.guest();
    let waits = guest.undone.remove(&guest.effective);
    if !waits || guest.site.callback == Callback::Done {
        return Err(Status::NotFound.into());
    }
    if let Some(Context::Stream { .. }) = guest.contexts.get(&guest.effective) {
        let context = guest.effective;
        guest.finished.push(context);
    }
    Ok(())
}
