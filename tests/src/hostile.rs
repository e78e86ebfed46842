//! A host that keeps to nothing: any hostcall answers any status, Ok without an answer, garbage, or memory that is not the
//! guest's; callbacks come in any order, for contexts that never were. No trap may come of it.
//!
//! ```no_run
//! use proptest::prelude::*;
//! use tollgate_tests::hostile::{Hostile, Words, ordeals};
//!
//! let words = Words { configurations: &[b"{}"], ..Words::default() };
//! let host = Hostile::of("key_auth", words);
//! proptest!(|(ordeal in ordeals())| host.survived(&ordeal)?);
//! ```

use proptest::prelude::*;
use wasmtime::{
    Caller, Engine, Extern, ExternType, Instance, Linker, Memory, Module, Store, Val, ValType,
};

/// What a host says when it says something that makes sense.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words {
    /// Configurations, one of which the filter gets.
    pub configurations: &'static [&'static [u8]],
    /// Names of header lines.
    pub headers: &'static [&'static str],
    /// Values of header lines and properties.
    pub values: &'static [&'static [u8]],
    /// The body.
    pub body: &'static [u8],
}

/// What a filter goes through.
#[derive(Clone, Debug)]
pub struct Ordeal {
    seed: u64,
    /// In percent: how often a hostcall does what it should.
    honesty: u8,
    /// Which configuration, modulo their number.
    configuration: usize,
    /// Which callbacks come, with their arguments.
    callbacks: Vec<(usize, [i32; 5])>,
}

/// A filter with such a host around it.
pub struct Hostile {
    engine: Engine,
    module: Module,
    words: Words,
}

/// What the host draws its answers from.
struct Host {
    random: fastrand::Rng,
    words: Words,
    configuration: &'static [u8],
    honesty: u8,
    memory: Option<Memory>,
}

const STATUSES: [i32; 18] = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99, -1];

/// Callbacks by their names, with the number of their arguments.
const CALLBACKS: [(&str, usize); 14] = [
    ("proxy_on_context_create", 2),
    ("proxy_on_vm_start", 2),
    ("proxy_on_configure", 2),
    ("proxy_on_tick", 1),
    ("proxy_on_http_call_response", 5),
    ("proxy_on_request_headers", 3),
    ("proxy_on_request_body", 3),
    ("proxy_on_request_trailers", 2),
    ("proxy_on_response_headers", 3),
    ("proxy_on_response_body", 3),
    ("proxy_on_done", 1),
    ("proxy_on_log", 1),
    ("proxy_on_delete", 1),
    ("proxy_on_memory_allocate", 1),
];

/// Everything that a filter may have to go through.
pub fn ordeals() -> impl Strategy<Value = Ordeal> {
    let argument = prop_oneof![6 => 0..4i32, 2 => 4..130i32, 1 => Just(20), 1 => Just(-1)];
    let callbacks = proptest::collection::vec(
        (0..CALLBACKS.len(), proptest::array::uniform5(argument)),
        1..40,
    );
    let honesty = prop_oneof![Just(0u8), Just(50), Just(95)];
    (any::<u64>(), honesty, 0..64usize, callbacks).prop_map(
        |(seed, honesty, configuration, callbacks)| Ordeal {
            seed,
            honesty,
            configuration,
            callbacks,
        },
    )
}

impl Hostile {
    /// A hostile host for the built module of a filter, such as `key_auth`.
    ///
    /// # Panics
    /// When the module isn't built, or does not compile.
    #[must_use]
    pub fn of(filter: &str, words: Words) -> Self {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(true);
        let engine = Engine::new(&config).expect("an engine");
        let module = Module::from_file(&engine, crate::module(filter)).expect("it compiles");
        Self {
            engine,
            module,
            words,
        }
    }

    /// Puts the filter through it.
    ///
    /// # Errors
    /// With the first callback that trapped.
    pub fn survived(&self, ordeal: &Ordeal) -> Result<(), TestCaseError> {
        let (mut store, instance) = self.instance(ordeal);
        let size = i32::try_from(store.data().configuration.len()).unwrap_or(i32::MAX);
        let ready: [(&str, &[i32]); 3] = [
            ("proxy_on_context_create", &[1, 0]),
            ("proxy_on_configure", &[1, size]),
            ("proxy_on_context_create", &[2, 1]),
        ];
        let random = ordeal.callbacks.iter().map(|(index, arguments)| {
            let (name, count) = CALLBACKS[*index];
            (name, &arguments[..count])
        });
        for (callback, arguments) in ready.into_iter().chain(random) {
            call(&mut store, &instance, callback, arguments).map_err(|trap| {
                TestCaseError::fail(format!("{callback}{arguments:?}: {trap:?}"))
            })?;
        }
        Ok(())
    }

    fn instance(&self, ordeal: &Ordeal) -> (Store<Host>, Instance) {
        let configurations = self.words.configurations;
        let configuration = configurations.get(ordeal.configuration % configurations.len().max(1));
        let mut store = Store::new(
            &self.engine,
            Host {
                random: fastrand::Rng::with_seed(ordeal.seed),
                words: self.words,
                configuration: configuration.copied().unwrap_or_default(),
                honesty: ordeal.honesty,
                memory: None,
            },
        );
        store.set_fuel(2_000_000_000).expect("fuel is on");
        let mut linker = Linker::new(&self.engine);
        for import in self.module.imports() {
            let (space, function) = (import.module().to_owned(), import.name().to_owned());
            let ExternType::Func(kind) = import.ty() else {
                panic!("{space}.{function} is no function")
            };
            linker
                .func_new(
                    &space.clone(),
                    &function.clone(),
                    kind.clone(),
                    move |mut caller, arguments, results| {
                        assert!(function != "proc_exit", "the guest gave up");
                        let status = if space == "env" {
                            answer(&mut caller, &function, arguments)
                        } else {
                            0
                        };
                        if let Some(result) = results.first_mut() {
                            *result = Val::I32(status);
                        }
                        Ok(())
                    },
                )
                .expect("imports are distinct");
        }
        let instance = linker
            .instantiate(&mut store, &self.module)
            .expect("it starts");
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        (store, instance)
    }
}

impl Host {
    fn value(&mut self) -> &'static [u8] {
        self.random
            .choice(self.words.values)
            .copied()
            .unwrap_or_default()
    }

    /// The bytes that a `get` hands over, if it is to be honest.
    fn bytes(&mut self, name: &str, arguments: &[Val]) -> Vec<u8> {
        match name {
            "proxy_get_buffer_bytes" if arguments.first().and_then(Val::i32) == Some(7) => {
                self.configuration.to_vec()
            }
            "proxy_get_buffer_bytes" => self.words.body.to_vec(),
            "proxy_get_header_map_pairs" => {
                let lines: Vec<_> = (0..self.random.usize(..12))
                    .map(|_| {
                        let name = self.random.choice(self.words.headers);
                        (name.copied().unwrap_or_default(), self.value())
                    })
                    .collect();
                tollgate_kit::headers::HeaderMap::marshal(
                    lines.iter().map(|(name, value)| (name.as_bytes(), *value)),
                )
            }
            _ => self.value().to_vec(),
        }
    }
}

/// Answers one hostcall.
fn answer(caller: &mut Caller<'_, Host>, name: &str, arguments: &[Val]) -> i32 {
    let host = caller.data_mut();
    let status = STATUSES[host.random.usize(..STATUSES.len())];
    let honest = host.random.u8(..100) < host.honesty;
    let number = |at: usize| {
        arguments
            .get(at)
            .and_then(Val::i32)
            .map(|value| value as u32 as usize)
    };
    let Some(memory) = host.memory else {
        return status;
    };
    let out = match name {
        "proxy_get_buffer_bytes" | "proxy_get_header_map_value" => 3,
        "proxy_get_header_map_pairs" => 1,
        "proxy_get_property" => 2,
        _ => {
            // Numbers that are handed over: a time, a metric, a call.
            let place = match name {
                "proxy_get_current_time_nanoseconds" => number(0),
                "proxy_define_metric" => number(3),
                "proxy_http_call" => number(9),
                _ => None,
            };
            if let Some(place) = place {
                let value = caller.data_mut().random.u32(..5).to_le_bytes();
                let _ = memory.write(&mut *caller, place, &value);
            }
            return if honest { 0 } else { status };
        }
    };
    // get_header_map_value has its out-parameters behind a name and its size, the others where `out` says.
    let (Some(data_at), Some(size_at)) = (number(out), number(out + 1)) else {
        return status;
    };
    let (address, size) = if honest || host.random.bool() {
        let bytes = host.bytes(name, arguments);
        let Some(Extern::Func(allocate)) = caller.get_export("proxy_on_memory_allocate") else {
            return status;
        };
        let mut result = [Val::I32(0)];
        allocate
            .call(&mut *caller, &[Val::I32(bytes.len() as i32)], &mut result)
            .expect("allocation does not trap");
        let address = result[0].i32().expect("an address") as u32;
        memory
            .write(&mut *caller, address as usize, &bytes)
            .expect("the guest gave the memory");
        let lie = if honest {
            0
        } else {
            caller.data_mut().random.u32(..3)
        };
        (address, (bytes.len() as u32).saturating_add(lie))
    } else {
        // Nothing, an address that was never given out, a size beyond the memory.
        let random = &mut host.random;
        [(0, 0), (0, 7), (64, 0), (1024, 16), (u32::MAX, u32::MAX)][random.usize(..5)]
    };
    memory
        .write(&mut *caller, data_at, &address.to_le_bytes())
        .expect("the guest's place for an address");
    memory
        .write(&mut *caller, size_at, &size.to_le_bytes())
        .expect("the guest's place for a size");
    if honest { 0 } else { status }
}

fn call(
    store: &mut Store<Host>,
    instance: &Instance,
    name: &str,
    arguments: &[i32],
) -> wasmtime::Result<i32> {
    let function = instance
        .get_func(&mut *store, name)
        .unwrap_or_else(|| panic!("no export {name}"));
    let arguments: Vec<Val> = arguments.iter().map(|value| Val::I32(*value)).collect();
    let mut results = vec![
        Val::I32(0);
        function
            .ty(&*store)
            .results()
            .filter(|kind| matches!(kind, ValType::I32))
            .count()
    ];
    function.call(&mut *store, &arguments, &mut results)?;
    Ok(results.first().and_then(Val::i32).unwrap_or_default())
}
