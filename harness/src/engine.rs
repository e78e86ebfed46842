//! Compiled modules and the wasmtime engine they run on.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{
    Config, ExternType, InstanceAllocationStrategy, InstancePre, Linker, PoolingAllocationConfig,
};

use crate::abi::{ABI_MARKER, ABI_MARKER_PREFIX, HOSTCALLS};
use crate::vm::{Guest, link_hostcalls, link_unknown_wasi, link_wasi};

/// The step in which callbacks' deadlines are measured.
pub(crate) const EPOCH: Duration = Duration::from_millis(10);

/// How many VMs may live at once on one engine that pools their memory.
const POOL: u32 = 256;

/// The module of WASI's first preview.
const WASI: &str = "wasi_snapshot_preview1";

/// The compiler and its settings; clones share them. Dropping the last one ends its epoch thread.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    wasmtime: wasmtime::Engine,
    linker: Linker<Guest>,
    counts_fuel: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("counts_fuel", &self.0.counts_fuel)
            .finish_non_exhaustive()
    }
}

/// A compiled `.wasm` that speaks ABI 0.2.1. Clones share the code.
#[derive(Clone)]
pub struct Module(Arc<Compiled>);

struct Compiled {
    name: String,
    engine: Engine,
    pre: InstancePre<Guest>,
    imports: BTreeSet<String>,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

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
        "{name} is no proxy-wasm filter: it exports no {ABI_MARKER}; build it with a proxy-wasm SDK, for wasm32-wasip1"
    )]
    NoAbi {
        /// The module's name.
        name: String,
    },
    /// The module exports another version's marker.
    #[error(
        "{name} speaks {found}; this host speaks {ABI_MARKER}: build it with an SDK of that version"
    )]
    OtherAbi {
        /// The module's name.
        name: String,
        /// The marker it exports.
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
    /// The module imports a function with another type than the ABI's.
    #[error("{name} imports a function of ABI 0.2.1 with another type: {source}")]
    ImportType {
        /// The module's name.
        name: String,
        /// Which, and how it differs.
        source: wasmtime::Error,
    },
    /// The module misses something that the host needs to hand it data.
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
        Self::new(false)
    }

    /// For simulation and benchmarks: counts fuel, an exact and repeatable figure of a callback's cost.
    ///
    /// # Errors
    /// When the system gives no memory or no thread.
    pub fn for_simulation() -> Result<Self, wasmtime::Error> {
        Self::new(true)
    }

    fn new(counts_fuel: bool) -> Result<Self, wasmtime::Error> {
        // A pool makes new VMs cheap, but reserves much address space; a system that limits it still gets an engine.
        let wasmtime = wasmtime::Engine::new(&config(counts_fuel, true))
            .or_else(|_| wasmtime::Engine::new(&config(counts_fuel, false)))?;
        let epochs = wasmtime.weak();
        std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(EPOCH);
                    match epochs.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => break,
                    }
                }
            })?;
        let mut linker = Linker::new(&wasmtime);
        link_hostcalls(&mut linker)?;
        link_wasi(&mut linker)?;
        Ok(Self(Arc::new(Inner {
            wasmtime,
            linker,
            counts_fuel,
        })))
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.wasmtime
    }

    pub(crate) fn counts_fuel(&self) -> bool {
        self.0.counts_fuel
    }
}

fn config(counts_fuel: bool, pooled: bool) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).consume_fuel(counts_fuel);
    if pooled {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_core_instances(POOL)
            .total_memories(POOL)
            .total_tables(POOL);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

impl Module {
    /// Reads, checks and compiles a file. Its name is the file's base name.
    ///
    /// # Errors
    /// When the file can't be read or is no filter of ABI 0.2.1; the error says what to do.
    pub fn load(engine: &Engine, path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Self::from_bytes(engine, &name, &bytes)
    }

    /// Checks and compiles bytes (`.wasm`, or text in the `.wat` form).
    ///
    /// # Errors
    /// When they are no filter of ABI 0.2.1; the error says what to do.
    pub fn from_bytes(engine: &Engine, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let name = name.to_owned();
        let module = match wasmtime::Module::new(engine.wasmtime(), bytes) {
            Ok(module) => module,
            Err(source) => return Err(LoadError::NotWasm { name, source }),
        };
        check_exports(&name, &module)?;
        let mut linker = engine.0.linker.clone();
        let mut imports = BTreeSet::new();
        for import in module.imports() {
            let known = match (import.module(), import.ty()) {
                ("env", ExternType::Func(_)) => HOSTCALLS.contains(&import.name()),
                (WASI, ExternType::Func(ty)) => link_unknown_wasi(&mut linker, import.name(), &ty),
                _ => false,
            };
            if !known {
                return Err(LoadError::UnknownImport {
                    name,
                    module: import.module().to_owned(),
                    function: import.name().to_owned(),
                });
            }
            imports.insert(import.name().to_owned());
        }
        match linker.instantiate_pre(&module) {
            Ok(pre) => Ok(Self(Arc::new(Compiled {
                name,
                engine: engine.clone(),
                pre,
                imports,
            }))),
            Err(source) => Err(LoadError::ImportType { name, source }),
        }
    }

    /// The name it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The engine it was compiled for.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Whether both are the same compiled module.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn imports(&self, name: &str) -> bool {
        self.0.imports.contains(name)
    }

    pub(crate) fn instantiate(
        &self,
        store: &mut wasmtime::Store<Guest>,
    ) -> Result<wasmtime::Instance, wasmtime::Error> {
        self.0.pre.instantiate(store)
    }
}

fn check_exports(name: &str, module: &wasmtime::Module) -> Result<(), LoadError> {
    let name = name.to_owned();
    if module.get_export(ABI_MARKER).is_none() {
        let other = module
            .exports()
            .find(|export| export.name().starts_with(ABI_MARKER_PREFIX));
        return Err(match other {
            Some(export) => LoadError::OtherAbi {
                name,
                found: export.name().to_owned(),
            },
            None => LoadError::NoAbi { name },
        });
    }
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err(LoadError::MissingExport {
            name,
            export: "memory",
        });
    }
    let allocates = ["proxy_on_memory_allocate", "malloc"]
        .iter()
        .any(|export| module.get_export(export).is_some());
    if !allocates {
        return Err(LoadError::MissingExport {
            name,
            export: "proxy_on_memory_allocate",
        });
    }
    Ok(())
}
