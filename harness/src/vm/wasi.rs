//! The functions of WASI's first preview, with nothing behind them that a filter must not reach.
//!
//! There are no files, sockets or arguments. Time is the worker's clock, random numbers are the worker's, the
//! environment is the entry's, and what goes to the standard streams is logged, line by line. The other functions
//! answer the error numbers that Envoy's host does; a function that it has not can't be imported.

use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use super::Guest;
use super::memory::{Env, Refusal};
use crate::abi::{LogLevel, Status};

const MODULE: &str = "wasi_snapshot_preview1";

/// The clocks of WASI that there are.
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

/// Error numbers of WASI.
const SUCCESS: u32 = 0;
const NO_ENTRY: u32 = 44;
const NOT_A_DIRECTORY: u32 = 20;
const UNSUPPORTED: u32 = 58;
const BAD_DESCRIPTOR: u32 = 8;
const FAULT: u32 = 21;
const INVALID: u32 = 28;
const NO_FUNCTION: u32 = 52;

/// The longest unfinished line of a standard stream that is kept.
const LINE: usize = 64 * 1024;

/// The most bytes that one write takes: its vectors may all point at the same memory.
const WRITE: usize = 16 << 20;

/// The most random bytes that one call gives.
const RANDOM: u32 = 64 * 1024;

/// The functions that do something.
const REAL: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_fdstat_get",
    "fd_write",
    "poll_oneoff",
    "proc_exit",
    "random_get",
];

/// The others that Envoy has, with what they answer (source).
const OTHERS: &[(&str, u32)] = &[
    ("fd_advise", SUCCESS),
    ("fd_allocate", BAD_DESCRIPTOR),
    ("fd_close", SUCCESS),
    ("fd_datasync", BAD_DESCRIPTOR),
    ("fd_fdstat_set_flags", NO_FUNCTION),
    ("fd_fdstat_set_rights", BAD_DESCRIPTOR),
    ("fd_filestat_get", BAD_DESCRIPTOR),
    ("fd_filestat_set_size", BAD_DESCRIPTOR),
    ("fd_filestat_set_times", BAD_DESCRIPTOR),
    ("fd_pread", NO_FUNCTION),
    ("fd_prestat_dir_name", NO_FUNCTION),
    ("fd_prestat_get", BAD_DESCRIPTOR),
    ("fd_pwrite", BAD_DESCRIPTOR),
    ("fd_read", NO_FUNCTION),
    ("fd_readdir", NOT_A_DIRECTORY),
    ("fd_renumber", BAD_DESCRIPTOR),
    ("fd_seek", SUCCESS),
    ("fd_sync", BAD_DESCRIPTOR),
    ("fd_tell", BAD_DESCRIPTOR),
    ("path_create_directory", UNSUPPORTED),
    ("path_filestat_get", UNSUPPORTED),
    ("path_filestat_set_times", UNSUPPORTED),
    ("path_link", UNSUPPORTED),
    ("path_open", NO_ENTRY),
    ("path_readlink", UNSUPPORTED),
    ("path_remove_directory", UNSUPPORTED),
    ("path_rename", UNSUPPORTED),
    ("path_symlink", UNSUPPORTED),
    ("path_unlink_file", UNSUPPORTED),
    ("sched_yield", SUCCESS),
    ("sock_accept", UNSUPPORTED),
    ("sock_recv", UNSUPPORTED),
    ("sock_send", UNSUPPORTED),
    ("sock_shutdown", UNSUPPORTED),
];

/// Whether Envoy's host has a function of this name.
pub(crate) fn is_known(name: &str) -> bool {
    REAL.contains(&name) || OTHERS.iter().any(|(other, _)| *other == name)
}

fn errno(result: Result<(), Refusal>) -> wasmtime::Result<u32> {
    match result {
        Ok(()) => Ok(SUCCESS),
        Err(Refusal::Status(Status::InvalidMemoryAccess)) => Ok(FAULT),
        Err(Refusal::Status(Status::NotFound)) => Ok(BAD_DESCRIPTOR),
        Err(Refusal::Status(_)) => Ok(INVALID),
        Err(refusal) => refusal.into_error().map(|_| INVALID),
    }
}

/// Links the functions that do something.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "fd_write",
        |caller: Caller<'_, Guest>, fd: u32, vectors: u32, count: u32, out: u32| {
            errno(write(&mut Env(caller), fd, vectors, count, out))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |caller: Caller<'_, Guest>, clock: u32, _precision: u64, out: u32| {
            let mut env = Env(caller);
            let guest = env.guest();
            let now = match clock {
                REALTIME => guest.now(),
                MONOTONIC => guest.setup.clock.elapsed_nanos(),
                _ => return Ok(UNSUPPORTED),
            };
            errno(env.write_u64(out, now))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "clock_res_get",
        |caller: Caller<'_, Guest>, clock: u32, out: u32| {
            if clock > MONOTONIC {
                return Ok(UNSUPPORTED);
            }
            errno(Env(caller).write_u64(out, 1))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_fdstat_get",
        |caller: Caller<'_, Guest>, fd: u32, out: u32| {
            if !matches!(fd, 1 | 2) {
                return Ok(BAD_DESCRIPTOR);
            }
            // Of all rights the one to write.
            let mut stat = [0; 24];
            stat[8] = 64;
            errno(Env(caller).write(out, &stat))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "poll_oneoff",
        |caller: Caller<'_, Guest>, _: u32, _: u32, _: u32, events: u32| {
            errno(Env(caller).write_u32(events, 0))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "random_get",
        |caller: Caller<'_, Guest>, ptr: u32, len: u32| errno(random(&mut Env(caller), ptr, len)),
    )?;
    linker.func_wrap(
        MODULE,
        "environ_sizes_get",
        |caller: Caller<'_, Guest>, count: u32, bytes: u32| {
            errno(environment_sizes(&mut Env(caller), count, bytes))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "environ_get",
        |caller: Caller<'_, Guest>, pointers: u32, buffer: u32| {
            errno(environment(&mut Env(caller), pointers, buffer))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "args_sizes_get",
        |caller: Caller<'_, Guest>, count: u32, bytes: u32| {
            let mut env = Env(caller);
            errno(
                env.write_u32(count, 0)
                    .and_then(|()| env.write_u32(bytes, 0)),
            )
        },
    )?;
    linker.func_wrap(MODULE, "args_get", |_: u32, _: u32| SUCCESS)?;
    linker.func_wrap(MODULE, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Refusal::exit(code).into_error().map(|_| ())
    })?;
    Ok(())
}

/// Links an import of WASI that does nothing, unless it is one of the others; tells whether there is such a function.
pub(crate) fn link_unknown(linker: &mut Linker<Guest>, name: &str, ty: &FuncType) -> bool {
    if REAL.contains(&name) {
        return true;
    }
    let Some((_, answer)) = OTHERS.iter().find(|(other, _)| *other == name) else {
        return false;
    };
    let answers_errno =
        ty.results().len() == 1 && ty.results().all(|ty| matches!(ty, ValType::I32));
    let linked = linker.func_new(MODULE, name, ty.clone(), |_, _, results| {
        for result in results {
            *result = Val::I32(answer.cast_signed());
        }
        Ok(())
    });
    answers_errno && linked.is_ok()
}

fn write(env: &mut Env<'_>, fd: u32, vectors: u32, count: u32, out: u32) -> Result<(), Refusal> {
    let (stream, level) = match fd {
        1 => (0, LogLevel::Info),
        2 => (1, LogLevel::Error),
        _ => return Err(Status::NotFound.into()),
    };
    let mut text = Vec::new();
    for index in 0..count {
        let at = index
            .checked_mul(8)
            .and_then(|offset| vectors.checked_add(offset))
            .ok_or(Status::InvalidMemoryAccess)?;
        let vector = env.read(at, 8)?;
        let word = |from: usize| {
            let bytes = vector
                .get(from..from + 4)
                .and_then(|word| word.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        text.extend(env.read(word(0), word(4))?);
        if text.len() > WRITE {
            return Err(Status::BadArgument.into());
        }
    }
    env.write_u32(out, u32::try_from(text.len()).unwrap_or(u32::MAX))?;
    let guest = env.guest();
    let mut pending = std::mem::take(&mut guest.stdio[stream]);
    pending.extend(text);
    while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = pending.drain(..=end).collect();
        guest.log(level, String::from_utf8_lossy(line.trim_ascii_end()));
    }
    if pending.len() > LINE {
        guest.log(level, String::from_utf8_lossy(&pending));
        pending.clear();
    }
    guest.stdio[stream] = pending;
    Ok(())
}

fn random(env: &mut Env<'_>, ptr: u32, len: u32) -> Result<(), Refusal> {
    if len > RANDOM {
        return Err(Status::BadArgument.into());
    }
    // In pieces: what lies behind a bad address must not cost the host memory.
    let mut piece = [0; 256];
    let (mut at, mut left) = (ptr, len);
    while left > 0 {
        let take = left.min(256);
        let Some(bytes) = piece.get_mut(..super::memory::size(take)) else {
            break;
        };
        env.guest().random.fill(bytes);
        env.write(at, bytes)?;
        at = at.checked_add(take).ok_or(Status::InvalidMemoryAccess)?;
        left -= take;
    }
    Ok(())
}

/// The variables in the form `NAME=value\0`.
fn variables(env: &mut Env<'_>) -> Vec<Vec<u8>> {
    let variables = env.guest().environment.clone();
    variables
        .iter()
        .map(|(name, value)| format!("{name}={value}\0").into_bytes())
        .collect()
}

fn environment_sizes(env: &mut Env<'_>, count: u32, bytes: u32) -> Result<(), Refusal> {
    let variables = variables(env);
    let total: usize = variables.iter().map(Vec::len).sum();
    let count_of = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    env.write_u32(count, count_of(variables.len()))?;
    env.write_u32(bytes, count_of(total))
}

fn environment(env: &mut Env<'_>, pointers: u32, buffer: u32) -> Result<(), Refusal> {
    let (mut pointer, mut at) = (pointers, buffer);
    for variable in variables(env) {
        env.write_u32(pointer, at)?;
        env.write(at, &variable)?;
        let len = u32::try_from(variable.len()).map_err(|_| Status::InvalidMemoryAccess)?;
        pointer = pointer.checked_add(4).ok_or(Status::InvalidMemoryAccess)?;
        at = at.checked_add(len).ok_or(Status::InvalidMemoryAccess)?;
    }
    Ok(())
}
