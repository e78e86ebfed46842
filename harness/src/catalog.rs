//! The filters this program knows by name, and where their modules are found.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tollgate_kit::config::{self, Configuration, Problem};
use tollgate_kit::schema::{self, Json};

/// Where the workspace's build puts the modules, below its root.
const BUILD_DIRECTORY: &str = "target/wasm32-wasip1/wasm";

/// The directories in which a module is looked for, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    directories: Vec<PathBuf>,
}

/// A module that is in none of the places.
#[derive(Debug, thiserror::Error)]
#[error(
    "no {file} in {}; build the modules with `just wasm`, or name their directory with --filters DIR or TOLLGATE_FILTERS",
    list(searched)
)]
pub struct NotFound {
    /// The file's name.
    pub file: &'static str,
    /// Every directory that was looked in.
    pub searched: Vec<PathBuf>,
}

fn list(directories: &[PathBuf]) -> String {
    let names: Vec<_> = directories
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    names.join(", ")
}

impl Search {
    /// The named directory alone, if one is named; else beside this program, then the build directory of the
    /// workspace that the current directory lies in.
    #[must_use]
    pub fn from_here(named: Option<PathBuf>) -> Self {
        if let Some(directory) = named {
            return Self {
                directories: vec![directory],
            };
        }
        let program = env::current_exe().ok();
        let beside = program
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_path_buf);
        let here = env::current_dir().ok();
        let workspace = here
            .as_deref()
            .and_then(workspace_root)
            .map(|root| root.join(BUILD_DIRECTORY));
        Self {
            directories: beside.into_iter().chain(workspace).collect(),
        }
    }

    /// The path of a filter's module.
    ///
    /// # Errors
    /// When it is in none of the directories.
    pub fn find(&self, filter: &Filter) -> Result<PathBuf, NotFound> {
        let mut paths = self
            .directories
            .iter()
            .map(|directory| directory.join(filter.file));
        paths.find(|path| path.is_file()).ok_or_else(|| NotFound {
            file: filter.file,
            searched: self.directories.clone(),
        })
    }
}

/// The nearest directory from `start` upward with a Cargo.lock: that is where cargo puts `target`.
fn workspace_root(start: &Path) -> Option<&Path> {
    start
        .ancestors()
        .find(|directory| directory.join("Cargo.lock").is_file())
}

/// A filter of this workspace, linked natively for its checks.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// What users call it.
    pub name: &'static str,
    /// Its module's file name.
    pub file: &'static str,
    /// Checks a configuration text with the filter's own code: the warnings, or everything that is wrong.
    pub check: Check,
    /// What stands in its `.meta.json`: the JSON Schema (draft-04) of its configuration, and how labels are taken out of the names
    /// of its metrics.
    pub meta: fn() -> Json,
}

/// A filter's own check of a configuration text; the second argument answers `${env:NAME}`.
pub type Check = fn(&[u8], &dyn Fn(&str) -> Option<String>) -> Result<Vec<Problem>, Vec<Problem>>;

/// Every filter.
pub const FILTERS: &[Filter] = &[
    Filter {
        name: "key-auth",
        file: "tollgate_key_auth.wasm",
        check: check::<tollgate_key_auth::Config>,
        meta: schema::meta::<tollgate_key_auth::KeyAuth>,
    },
    Filter {
        name: "header-transform",
        file: "tollgate_header_transform.wasm",
        check: check::<tollgate_header_transform::Config>,
        meta: schema::meta::<tollgate_header_transform::HeaderTransform>,
    },
];

/// The filter of that name, or whose module has that file name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Filter> {
    let file = Path::new(name).file_name();
    FILTERS
        .iter()
        .find(|filter| filter.name == name || file == Some(OsStr::new(filter.file)))
}

fn check<C: Configuration>(
    text: &[u8],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Problem>, Vec<Problem>> {
    config::check::<C>(text, environment).map(|checked| checked.warnings)
}
