//! Where a configuration comes from, read again whenever it changed: the files it is made of, and the modules that were
//! compiled from them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::{Checked, Config, ConfigError};
use crate::catalog::Search;
use crate::engine::{Engine, LoadError, Module};

/// A configuration file that is read more than once.
///
/// A module is compiled when its bytes are new, and kept for as long as the last good configuration or the last attempt
/// names it.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    search: Search,
    workshop: Option<Workshop>,
    files: Files,
    /// What the files looked like when they were last seen to differ from what was read.
    unsettled: Option<Vec<Option<Stamp>>>,
}

impl Source {
    /// A source that was not read yet.
    #[must_use]
    pub fn new(path: PathBuf, search: Search) -> Self {
        Self {
            path,
            search,
            workshop: None,
            files: Files::default(),
            unsettled: None,
        }
    }

    /// The file that names all others.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file and everything it names; paths in it are relative to its directory.
    ///
    /// # Errors
    /// When it can't be read, or anything in it is wrong.
    pub fn load(&mut self) -> Result<Checked, ConfigError> {
        let workshop = match self.workshop.take() {
            Some(workshop) => workshop,
            None => Workshop::open().map_err(ConfigError::Engine)?,
        };
        let workshop = self.workshop.insert(workshop);
        self.unsettled = None;
        self.files = Files::default();
        let path = self.path.as_path();
        let base = path.parent().unwrap_or(Path::new("."));
        let checked = self
            .files
            .text(path)
            .map_err(|source| ConfigError::Unreadable {
                path: path.to_path_buf(),
                source,
            })
            .and_then(|text| Config::read_in(&text, base, &self.search, workshop, &self.files));
        workshop.tidy(checked.is_ok());
        checked
    }

    /// Whether a file that the last [`Source::load`] read, or missed, has other content now. To be asked again and
    /// again: files that changed since the last question are still being written, so that the answer waits for the next.
    pub fn changed(&mut self) -> bool {
        let stamps = self.files.stamps();
        if self.files.are(&stamps) {
            self.unsettled = None;
            return false;
        }
        if self.unsettled.as_ref() != Some(&stamps) {
            self.unsettled = Some(stamps);
            return false;
        }
        self.unsettled = None;
        self.files.differ()
    }
}

/// An engine, and the modules it compiled, by name and by the SHA-256 of their bytes.
#[derive(Debug)]
pub(super) struct Workshop {
    engine: Engine,
    modules: RefCell<HashMap<(String, [u8; 32]), Compiled>>,
}

#[derive(Debug)]
struct Compiled {
    module: Module,
    /// Whether the reading that goes on has asked for it.
    wanted: bool,
}

impl Workshop {
    pub(super) fn open() -> Result<Self, wasmtime::Error> {
        Ok(Self {
            engine: Engine::for_traffic()?,
            modules: RefCell::default(),
        })
    }

    /// The compiled module of a file; its name is the file's base name.
    pub(super) fn module(&self, path: &Path, files: &Files) -> Result<Module, LoadError> {
        let bytes = files.bytes(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let key = (name, digest(&bytes));
        if let Some(known) = self.modules.borrow_mut().get_mut(&key) {
            known.wanted = true;
            return Ok(known.module.clone());
        }
        let module = Module::from_bytes(&self.engine, &key.0, &bytes)?;
        let compiled = Compiled {
            module: module.clone(),
            wanted: true,
        };
        self.modules.borrow_mut().insert(key, compiled);
        Ok(module)
    }

    /// After a reading: one that succeeded shows which modules are not needed any more.
    fn tidy(&mut self, succeeded: bool) {
        let modules = self.modules.get_mut();
        if succeeded {
            modules.retain(|_, compiled| compiled.wanted);
        }
        for compiled in modules.values_mut() {
            compiled.wanted = false;
        }
    }
}

/// The files that a reading asked for, as they were then.
#[derive(Debug, Default)]
pub(super) struct Files(RefCell<BTreeMap<PathBuf, Seen>>);

#[derive(Debug)]
struct Seen {
    stamp: Option<Stamp>,
    /// None: it could not be read.
    digest: Option<[u8; 32]>,
}

/// What changes with a file's content, mostly. Links are followed: Kubernetes puts a new version of a ConfigMap in place
/// by turning a link to another directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path)
            .ok()
            .map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: metadata.modified().ok(),
        }
    }
}

impl Files {
    /// A file's content.
    pub(super) fn bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Before the content: a change in between is then seen later.
        let stamp = Stamp::of(path);
        let content = std::fs::read(path);
        let seen = Seen {
            stamp,
            digest: content.as_deref().ok().map(digest),
        };
        self.0.borrow_mut().insert(path.to_path_buf(), seen);
        content
    }

    /// A file's text.
    pub(super) fn text(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.bytes(path)?)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"))
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.0.borrow().keys().map(|path| Stamp::of(path)).collect()
    }

    /// Whether these are the stamps of what was read.
    fn are(&self, stamps: &[Option<Stamp>]) -> bool {
        self.0
            .borrow()
            .values()
            .map(|seen| &seen.stamp)
            .eq(stamps.iter())
    }

    /// Whether any content differs from what was read. The same bytes written again are no change.
    fn differ(&self) -> bool {
        let mut differ = false;
        for (path, seen) in self.0.borrow_mut().iter_mut() {
            let stamp = Stamp::of(path);
            if stamp != seen.stamp {
                let now = std::fs::read(path).ok().as_deref().map(digest);
                differ |= now != seen.digest;
                seen.stamp = stamp;
                seen.digest = now;
            }
        }
        differ
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const YAML: &str = "{listeners: [{address: 127.0.0.1:0}], routes: [{cluster: a, filters: [it]}],
        clusters: {a: {endpoints: ['127.0.0.1:1']}}, filters: {it: {wasm: ./guest.wasm, config_file: it.yaml}}}";

    const GUEST: &str =
        "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
        (func (export \"malloc\") (param i32) (result i32) i32.const 0))";

    fn source(directory: &Path) -> Source {
        Source::new(directory.join("tollgate.yaml"), Search::from_here(None))
    }

    fn write(directory: &Path) {
        fs::write(directory.join("tollgate.yaml"), YAML).unwrap();
        fs::write(directory.join("guest.wasm"), GUEST).unwrap();
        fs::write(directory.join("it.yaml"), "a: 1").unwrap();
    }

    /// Whether a change is noticed at the second question, as the first may fall into the writing.
    fn settles(source: &mut Source) -> bool {
        assert!(!source.changed());
        source.changed()
    }

    #[test]
    fn a_change_of_any_file_is_noticed_once_it_stands_still() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path());
        let mut source = source(directory.path());
        source.load().unwrap();
        assert!(!settles(&mut source));
        for (file, text) in [
            ("it.yaml", "a: 22".to_owned()),
            ("guest.wasm", format!("{GUEST} ;; another")),
            ("tollgate.yaml", format!("{YAML} # another")),
        ] {
            fs::write(directory.path().join(file), text).unwrap();
            assert!(settles(&mut source), "{file}");
            source.load().unwrap();
            assert!(!settles(&mut source), "{file}");
        }
    }

    #[test]
    fn a_config_map_whose_link_is_turned_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        for (version, more) in [("one", ""), ("two", " ")] {
            fs::create_dir(directory.path().join(version)).unwrap();
            write(&directory.path().join(version));
            let file = directory.path().join(version).join("it.yaml");
            fs::write(file, format!("a: 1{more}")).unwrap();
        }
        let link = directory.path().join("..data");
        symlink("one", &link).unwrap();
        for file in ["tollgate.yaml", "guest.wasm", "it.yaml"] {
            symlink(Path::new("..data").join(file), directory.path().join(file)).unwrap();
        }
        let mut source = source(directory.path());
        source.load().unwrap();
        symlink("two", directory.path().join("..new")).unwrap();
        fs::rename(directory.path().join("..new"), &link).unwrap();
        assert!(settles(&mut source));
    }

    #[test]
    fn a_file_that_was_missing_is_noticed_when_it_comes_and_the_same_bytes_are_no_change() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path());
        fs::remove_file(directory.path().join("it.yaml")).unwrap();
        let mut source = source(directory.path());
        source.load().unwrap_err();
        assert!(!settles(&mut source));
        fs::write(directory.path().join("it.yaml"), "a: 1").unwrap();
        assert!(settles(&mut source));
        source.load().unwrap();
        fs::remove_file(directory.path().join("it.yaml")).unwrap();
        fs::write(directory.path().join("it.yaml"), "a: 1").unwrap();
        assert!(!settles(&mut source));
    }

    #[test]
    fn a_module_is_compiled_again_only_when_its_bytes_are_new() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path());
        let mut source = source(directory.path());
        let module = |source: &mut Source| source.load().unwrap().config.filters[0].module.clone();
        let first = module(&mut source);
        fs::write(directory.path().join("it.yaml"), "a: 2").unwrap();
        assert!(module(&mut source).is(&first));
        // A configuration that is refused in between costs no compiled module.
        fs::write(directory.path().join("it.yaml"), "a: {").unwrap();
        source.load().unwrap_err();
        fs::write(directory.path().join("it.yaml"), "a: 3").unwrap();
        assert!(module(&mut source).is(&first));
        fs::write(
            directory.path().join("guest.wasm"),
            format!("{GUEST} ;; new"),
        )
        .unwrap();
        assert!(!module(&mut source).is(&first));
    }
}
