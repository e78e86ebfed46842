//! Compiled modules and the wasmtime engine they run on.

use std::path::{Path, PathBuf};

/// The compiler and its settings; clones share them. Dropping the last one ends its epoch thread.
#[derive(Clone, Debug)]
pub struct Engine {}

/// A compiled `.wasm` that speaks ABI 0.2.1. Clones share the code.
#[derive(Clone, Debug)]
pub struct Module {}

/// Why a `.wasm` can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no valid module.
    #[error("{name} is not a valid WebAssembly module: {source}")]
    NotWasm {
        /// The module's name.
        name: String,
        /// What the compiler said.
        source: wasmtime::Error,
    },
    /// The module exports no `proxy_abi_version_*`.
    #[error(
        "{name} is no proxy-wasm filter: it exports no proxy_abi_version_0_2_1; build it with a proxy-wasm SDK, for wasm32-wasip1"
    )]
    NoAbi {
        /// The module's name.
        name: String,
    },
    /// The module exports another version's marker.
    #[error(
        "{name} speaks {found}; this host speaks proxy_abi_version_0_2_1: build it with an SDK of that version"
    )]
    OtherAbi {
        /// The module's name.
        name: String,
        /// The markers it exports.
        found: String,
    },
    /// The module imports a function that no proxy-wasm host has.
    #[error(
        "{name} imports {module}.{function}, which this host does not have; build it for wasm32-wasip1 against proxy-wasm ABI 0.2.1"
    )]
    UnknownImport {
        /// The module's name.
        name: String,
        /// The import's module.
        module: String,
        /// The import's name.
        function: String,
    },
    /// The module has neither `proxy_on_memory_allocate` nor `malloc`, or misses its memory.
    #[error("{name} does not export `{export}`, which the host needs to hand it data")]
    MissingExport {
        /// The module's name.
        name: String,
        /// The export.
        export: &'static str,
    },
}

impl Engine {
    /// For traffic: no fuel, so that callbacks run at full speed.
    ///
    /// # Errors
    /// When the system gives no memory or no thread.
    pub fn for_traffic() -> Result<Self, wasmtime::Error> {
        Ok(Self {})
    }

    /// For simulation and benchmarks: counts fuel, an exact and repeatable figure of a callback's cost.
    ///
    /// # Errors
    /// When the system gives no memory or no thread.
    pub fn for_simulation() -> Result<Self, wasmtime::Error> {
        Ok(Self {})
    }
}

impl Module {
    /// Reads, checks and compiles a file. Its name is the file's base name.
    ///
    /// # Errors
    /// When the file can't be read or is no filter of ABI 0.2.1; the error says what to do.
    pub fn load(_engine: &Engine, _path: &Path) -> Result<Self, LoadError> {
        Ok(Self {})
    }

    /// Checks and compiles bytes (`.wasm`, or text in the `.wat` form).
    ///
    /// # Errors
    /// When they are no filter of ABI 0.2.1; the error says what to do.
    pub fn from_bytes(_engine: &Engine, _name: &str, _bytes: &[u8]) -> Result<Self, LoadError> {
        Ok(Self {})
    }

    /// The name it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        ""
    }

    /// The engine it was compiled for.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &Engine {}
    }
}
