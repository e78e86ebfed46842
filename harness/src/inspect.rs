//! What a `.wasm` is and which hosts would refuse it.

use std::fmt;

/// What is known about a module without running it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Inspection {
    /// The markers it exports, such as `proxy_abi_version_0_2_1`.
    pub abi: Vec<String>,
    /// Its callbacks and other exported functions.
    pub exports: Vec<String>,
    /// Its imports, as `module.name`.
    pub imports: Vec<String>,
    /// Its size in bytes.
    pub bytes: usize,
    /// The linear memory it starts with, in pages of 64 KiB.
    pub memory_pages: u64,
    /// The most it may grow to, in pages; `None`: no bound of its own.
    pub memory_max_pages: Option<u64>,
    /// The size of its stack in bytes, where it can be told.
    pub stack_bytes: Option<u64>,
    /// Whether it keeps its functions' names, which trap reports need.
    pub names: bool,
    /// What hosts would refuse or break on.
    pub refusals: Vec<Refusal>,
}

/// Something a host would not stand.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// The host, or both.
    pub hosts: Vec<crate::profile::Host>,
    /// What, and what happens.
    pub what: String,
    /// Whether the module can't be used there at all, or only in part.
    pub fatal: bool,
}

/// Why bytes can't be inspected.
#[derive(Debug, thiserror::Error)]
#[error("not a WebAssembly module: {0}")]
pub struct NotWasm(#[from] wasmparser::BinaryReaderError);

/// Inspects a module named `name` (its file's base name, without `.wasm`).
///
/// # Errors
/// When the bytes are no valid module.
pub fn inspect(_name: &str, _bytes: &[u8]) -> Result<Inspection, NotWasm> {
    Ok(Inspection {
        abi: vec![],
        exports: vec![],
        imports: vec![],
        bytes: 0,
        memory_pages: 0,
        memory_max_pages: None,
        stack_bytes: None,
        names: false,
        refusals: vec![],
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
