//! What the black-box tests share: where the shipped modules and the tools are.

pub mod grpc;
pub mod hostile;
pub mod redis;
pub mod traffic;

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tollgate_harness::engine::{Engine, Module};

/// The root of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The built module of a filter, such as `key_auth`.
///
/// # Panics
/// When it isn't built: nothing of it could be tested.
#[must_use]
pub fn module(filter: &str) -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let path = target.join(format!("wasm32-wasip1/wasm/tollgate_{filter}.wasm"));
    assert!(
        path.is_file(),
        "no {}: build the modules with `just wasm`",
        path.display()
    );
    path
}

/// The same, loaded for simulation. A process compiles each module once.
///
/// # Panics
/// When it isn't built, or can't be loaded.
#[must_use]
pub fn load(filter: &str) -> Module {
    static MODULES: Mutex<BTreeMap<String, Module>> = Mutex::new(BTreeMap::new());
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = modules.get(filter) {
        return module.clone();
    }
    let loaded = Engine::for_simulation()
        .map_err(|error| error.to_string())
        .and_then(|engine| {
            Module::load(&engine, &module(filter)).map_err(|error| error.to_string())
        })
        .unwrap_or_else(|error| panic!("{filter}: {error}"));
    modules.insert(filter.to_owned(), loaded.clone());
    loaded
}

/// Consumers with one key each, `sk-NNNNNNNNNN-abcdefghijklmnopqrstuvwxyz` by their number.
#[must_use]
pub fn consumers(numbers: Range<u32>) -> Value {
    let consumer = |number: u32| {
        json!({
            "id": format!("consumer-{number}"),
            "username": format!("user-{number}"),
            "credentials": [{
                "id": format!("credential-{number}"),
                "key": format!("sk-{number:010}-abcdefghijklmnopqrstuvwxyz"),
            }],
        })
    };
    numbers.map(consumer).collect()
}

/// The Python of the project's virtual environment, where the client SDKs are installed.
///
/// # Panics
/// When it isn't set up: no client could be tested.
#[must_use]
pub fn python() -> PathBuf {
    let path = root().join(".cache/venv/bin/python");
    assert!(
        path.is_file(),
        "no {}: set it up with `just setup`",
        path.display()
    );
    path
}
