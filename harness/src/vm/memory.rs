//! The only way between a guest's memory and the host: every pointer is checked.

use wasmtime::{AsContext, AsContextMut, Caller, Memory};

use super::Guest;
use super::trap::{Crashed, ProcExit, Refused};
use crate::abi::Status;

/// Why a host function does not answer Ok.
pub(super) enum Refusal {
    /// The guest gets a status.
    Status(Status),
    /// The host of this profile traps.
    Trap(&'static str),
    /// The worker of the host of this profile dies.
    Crash(&'static str),
    /// The guest trapped in its own allocator, or ended itself.
    Guest(wasmtime::Error),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Refusal {
    /// What the engine is told.
    pub(super) fn into_error(self) -> Result<Status, wasmtime::Error> {
        match self {
            Self::Status(status) => Ok(status),
            Self::Trap(rule) => Err(wasmtime::Error::from(Refused(rule))),
            Self::Crash(rule) => Err(wasmtime::Error::from(Crashed(rule))),
            Self::Guest(error) => Err(error),
        }
    }

    /// The guest ends itself.
    pub(super) fn exit(code: u32) -> Self {
        Self::Guest(wasmtime::Error::from(ProcExit(code)))
    }
}

/// A host function's view of its caller.
pub(super) struct Env<'a>(pub(super) Caller<'a, Guest>);

/// A 32-bit address or length as the host counts.
pub(super) fn size(value: u32) -> usize {
    // Lossless: the crate builds for hosts of 32 bits and more.
    value as usize
}

impl Env<'_> {
    pub(super) fn guest(&mut self) -> &mut Guest {
        self.0.data_mut()
    }

    fn memory(&self) -> Result<Memory, Refusal> {
        self.0
            .data()
            .memory
            .ok_or(Refusal::Status(Status::InvalidMemoryAccess))
    }

    pub(super) fn read(&mut self, ptr: u32, len: u32) -> Result<Vec<u8>, Refusal> {
        let memory = self.memory()?;
        let start = size(ptr);
        let bytes = start
            .checked_add(size(len))
            .and_then(|end| memory.data(self.0.as_context()).get(start..end))
            .ok_or(Status::InvalidMemoryAccess)?
            .to_vec();
        self.guest().world.bytes_copied += bytes.len() as u64;
        Ok(bytes)
    }

    /// Reads bytes where a null pointer means that there are none.
    pub(super) fn read_optional(&mut self, ptr: u32, len: u32) -> Result<Option<Vec<u8>>, Refusal> {
        if ptr == 0 {
            return Ok(None);
        }
        self.read(ptr, len).map(Some)
    }

    pub(super) fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let memory = self.memory()?;
        let start = size(ptr);
        start
            .checked_add(bytes.len())
            .and_then(|end| memory.data_mut(self.0.as_context_mut()).get_mut(start..end))
            .ok_or(Status::InvalidMemoryAccess)?
            .copy_from_slice(bytes);
        self.guest().world.bytes_copied += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn write_u32(&mut self, ptr: u32, value: u32) -> Result<(), Refusal> {
        self.write(ptr, &value.to_le_bytes())
    }

    pub(super) fn write_u64(&mut self, ptr: u32, value: u64) -> Result<(), Refusal> {
        self.write(ptr, &value.to_le_bytes())
    }

    /// Hands bytes over to a guest that knows how many they are: only the pointer is written.
    pub(super) fn give_pointer(&mut self, bytes: &[u8], ptr_out: u32) -> Result<(), Refusal> {
        self.write_u32(ptr_out, 0)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let ptr = self.place(bytes)?;
        self.write_u32(ptr_out, ptr)
    }

    /// Hands bytes over: the guest allocates, the host writes them, then pointer and length where the guest wants them.
    /// Nothing is allocated for no bytes; both out-pointers are checked before anything is.
    pub(super) fn give(&mut self, bytes: &[u8], ptr_out: u32, len_out: u32) -> Result<(), Refusal> {
        self.write_u32(ptr_out, 0)?;
        self.write_u32(len_out, 0)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let ptr = self.place(bytes)?;
        self.write_u32(ptr_out, ptr)?;
        self.write_u32(len_out, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    /// Puts bytes where the guest allocates them.
    fn place(&mut self, bytes: &[u8]) -> Result<u32, Refusal> {
        let len = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
        let allocate = self
            .0
            .data()
            .allocate
            .clone()
            .ok_or(Status::InvalidMemoryAccess)?;
        let ptr = allocate
            .call(self.0.as_context_mut(), len)
            .map_err(Refusal::Guest)?;
        if ptr == 0 {
            return Err(Status::InternalFailure.into());
        }
        self.write(ptr, bytes)?;
        Ok(ptr)
    }
}
