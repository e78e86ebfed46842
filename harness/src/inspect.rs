//! What a `.wasm` is and which hosts would refuse it, told without running it.

mod refusals;

use std::collections::BTreeSet;
use std::fmt;

use wasmparser::{
    Data, DataKind, Export, ExternalKind, GlobalType, Operator, Parser, Payload, TypeRef,
    Validator, WasmFeatures,
};

use crate::abi::ABI_MARKER_PREFIX;
use crate::profile::Host;

/// The bytes of one page of linear memory.
const PAGE: u64 = 64 * 1024;

/// What is known about a module.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Inspection {
    /// The name it was inspected under.
    pub name: String,
    /// The markers it exports, such as `proxy_abi_version_0_2_1`.
    pub abi: Vec<String>,
    /// Its callbacks and other exported functions, without the markers.
    pub exports: Vec<String>,
    /// The functions it imports, as `module.name`.
    pub imports: Vec<String>,
    /// Its size in bytes.
    pub bytes: usize,
    /// The linear memory it starts with, in pages of 64 KiB; `None` without a memory of its own.
    pub memory_pages: Option<u64>,
    /// The most it may grow to, in pages; `None` without a bound of its own.
    pub memory_max_pages: Option<u64>,
    /// The size of its stack in bytes, where it can be told: what lies below the first stack pointer, unless data does.
    pub stack_bytes: Option<u64>,
    /// Whether it keeps its functions' names, which trap reports need.
    pub names: bool,
    /// What hosts would refuse or break on.
    pub refusals: Vec<Refusal>,
}

/// Something that a host would not stand.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// The host.
    pub host: Host,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about and what happens.
    pub what: String,
}

/// How bad a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The host does not start with it, or its workers die.
    Fatal,
    /// It works until a certain thing happens.
    Partial,
}

/// Why bytes can't be inspected.
#[derive(Debug, thiserror::Error)]
pub enum NotWasm {
    /// Occurs when the bytes do not begin as WebAssembly does.
    #[error("not a WebAssembly module: it does not begin with \\0asm")]
    Magic,
    /// Occurs when a section is broken, or the module is not valid.
    #[error("a broken WebAssembly module")]
    Broken(#[from] wasmparser::BinaryReaderError),
}

/// What the sections of a module say, before it is judged.
#[derive(Default)]
struct Sections {
    exports: Vec<String>,
    imports: Vec<(String, String)>,
    memory: Option<(u64, Option<u64>)>,
    names: bool,
    first_global: Option<u64>,
    lowest_data: Option<u64>,
}

/// Inspects a module named `name` (its file's base name, without `.wasm`).
///
/// # Errors
/// When the bytes are no valid module.
pub fn inspect(name: &str, bytes: &[u8]) -> Result<Inspection, NotWasm> {
    if !bytes.starts_with(b"\0asm") {
        return Err(NotWasm::Magic);
    }
    Validator::new_with_features(WasmFeatures::default()).validate_all(bytes)?;
    let sections = read(bytes)?;
    let (abi, exports): (Vec<_>, Vec<_>) = sections
        .exports
        .into_iter()
        .partition(|export| export.starts_with(ABI_MARKER_PREFIX));
    let refusals = refusals::of(name, &abi, &exports, &sections.imports);
    let imports: BTreeSet<_> = sections
        .imports
        .iter()
        .map(|(module, function)| format!("{module}.{function}"))
        .collect();
    // The linker puts the stack below the data, so that an overflow traps; a pointer above data tells nothing.
    let stack_bytes = sections
        .first_global
        .filter(|top| *top > 0 && sections.lowest_data.is_none_or(|data| data >= *top));
    Ok(Inspection {
        name: name.to_owned(),
        abi,
        exports,
        imports: imports.into_iter().collect(),
        bytes: bytes.len(),
        memory_pages: sections.memory.map(|(initial, _)| initial),
        memory_max_pages: sections.memory.and_then(|(_, maximum)| maximum),
        stack_bytes,
        names: sections.names,
        refusals,
    })
}

fn read(bytes: &[u8]) -> Result<Sections, NotWasm> {
    let mut sections = Sections::default();
    let mut globals_imported = false;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    match import.ty {
                        TypeRef::Func(_) => sections
                            .imports
                            .push((import.module.to_owned(), import.name.to_owned())),
                        TypeRef::Global(_) => globals_imported = true,
                        TypeRef::Memory(ty) => sections.memory = Some((ty.initial, ty.maximum)),
                        _ => {}
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory?;
                    sections.memory = Some((memory.initial, memory.maximum));
                }
            }
            Payload::GlobalSection(globals) => {
                // The linker's first global is the stack pointer; an imported one would come before it.
                if let Some(global) = globals.into_iter().next()
                    && !globals_imported
                {
                    let global = global?;
                    sections.first_global = mutable_constant(global.ty, &global.init_expr)?;
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let Export { name, kind, .. } = export?;
                    if kind == ExternalKind::Func {
                        sections.exports.push(name.to_owned());
                    }
                }
            }
            Payload::DataSection(segments) => {
                for segment in segments {
                    if let Some(at) = data_address(&segment?)? {
                        let lowest = sections.lowest_data.get_or_insert(at);
                        *lowest = at.min(*lowest);
                    }
                }
            }
            Payload::CustomSection(section) => sections.names |= section.name() == "name",
            _ => {}
        }
    }
    Ok(sections)
}

fn mutable_constant(
    ty: GlobalType,
    init: &wasmparser::ConstExpr<'_>,
) -> Result<Option<u64>, NotWasm> {
    if !ty.mutable {
        return Ok(None);
    }
    constant(init)
}

fn data_address(segment: &Data<'_>) -> Result<Option<u64>, NotWasm> {
    match &segment.kind {
        DataKind::Active { offset_expr, .. } => constant(offset_expr),
        DataKind::Passive => Ok(None),
    }
}

fn constant(expression: &wasmparser::ConstExpr<'_>) -> Result<Option<u64>, NotWasm> {
    Ok(match expression.get_operators_reader().read()? {
        Operator::I32Const { value } => Some(value.cast_unsigned().into()),
        _ => None,
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => names.join(" "),
        };
        writeln!(f, "{}", self.name)?;
        writeln!(f, "  abi      {}", list(&self.abi))?;
        writeln!(
            f,
            "  size     {} KiB ({} bytes)",
            self.bytes.div_ceil(1024),
            self.bytes
        )?;
        match self.memory_pages {
            Some(pages) => {
                write!(f, "  memory   {} KiB to start with", pages * PAGE / 1024)?;
                match self.memory_max_pages {
                    Some(most) => writeln!(f, ", at most {} KiB", most * PAGE / 1024)?,
                    None => writeln!(f, ", no bound of its own")?,
                }
            }
            None => writeln!(f, "  memory   none of its own")?,
        }
        match self.stack_bytes {
            Some(bytes) => writeln!(f, "  stack    {} KiB", bytes / 1024)?,
            None => writeln!(f, "  stack    not known")?,
        }
        let names = if self.names {
            "kept: trap reports name functions"
        } else {
            "stripped: trap reports show numbers"
        };
        writeln!(f, "  names    {names}")?;
        writeln!(f, "  exports  {}", list(&self.exports))?;
        writeln!(f, "  imports  {}", list(&self.imports))?;
        for host in [Host::Envoy, Host::Kong] {
            let mut refusals = self.refusals.iter().filter(|r| r.host == host).peekable();
            let label = match host {
                Host::Envoy => "Envoy",
                Host::Kong => "Kong",
            };
            if refusals.peek().is_none() {
                writeln!(f, "  {label:<8} nothing to refuse")?;
            }
            for refusal in refusals {
                let severity = match refusal.severity {
                    Severity::Fatal => "refuses it:",
                    Severity::Partial => "takes it, but:",
                };
                writeln!(f, "  {label:<8} {severity} {}", refusal.what)?;
            }
        }
        Ok(())
    }
}
