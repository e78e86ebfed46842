//! A host that keeps to nothing: any hostcall answers any status, Ok without an answer, garbage, or memory that is not the guest's;
//! callbacks come in any order, for contexts that never were. No trap may come of it.

use proptest::prelude::*;
use std::sync::OnceLock;
use wasmtime::{
    Caller, Engine, Extern, ExternType, Instance, Linker, Memory, Module, Store, Val, ValType,
};

/// What the host draws its answers from.
struct Host {
    random: fastrand::Rng,
    configuration: &'static [u8],
    /// In percent: how often a hostcall does what it should.
    honesty: u8,
    memory: Option<Memory>,
}

const STATUSES: [i32; 18] = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99, -1];

fn module(name: &'static str) -> &'static (Engine, Module) {
    static KEY_AUTH: OnceLock<(Engine, Module)> = OnceLock::new();
    static HEADER_TRANSFORM: OnceLock<(Engine, Module)> = OnceLock::new();
    static PROBE: OnceLock<(Engine, Module)> = OnceLock::new();
    let cell = match name {
        "probe" => &PROBE,
        "header_transform" => &HEADER_TRANSFORM,
        _ => &KEY_AUTH,
    };
    cell.get_or_init(|| {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(true);
        let engine = Engine::new(&config).expect("an engine");
        let module = Module::from_file(&engine, tollgate_tests::module(name)).expect("it compiles");
        (engine, module)
    })
}

impl Host {
    /// The bytes that a `get` hands over, if it is to be honest.
    fn bytes(&mut self, name: &str, arguments: &[Val]) -> Vec<u8> {
        let text = |random: &mut fastrand::Rng| {
            let words: [&[u8]; 8] = [
                b"",
                b"K",
                b"\xff\xfe",
                b"Bearer K",
                b"application/json",
                b"OPTIONS",
                b"/x?apikey=K&a",
                b"5",
            ];
            words[random.usize(..words.len())].to_vec()
        };
        match name {
            "proxy_get_buffer_bytes" if arguments.first().and_then(Val::i32) == Some(7) => {
                self.configuration.to_vec()
            }
            "proxy_get_buffer_bytes" => br#"{"apikey":"K","n":1}"#.to_vec(),
            "proxy_get_header_map_pairs" => {
                let names = [
                    "apikey",
                    "content-type",
                    ":method",
                    ":path",
                    "x-consumer-id",
                    ":status",
                    "content-length",
                    "etag",
                    "x_consumer_id",
                ];
                let lines: Vec<_> = (0..self.random.usize(..12))
                    .map(|_| {
                        (
                            names[self.random.usize(..names.len())],
                            text(&mut self.random),
                        )
                    })
                    .collect();
                tollgate_kit::headers::HeaderMap::marshal(
                    lines
                        .iter()
                        .map(|(name, value)| (name.as_bytes(), value.as_slice())),
                )
            }
            _ => text(&mut self.random),
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

/// An instance behind such a host.
fn instance(
    name: &'static str,
    seed: u64,
    configuration: &'static [u8],
    honesty: u8,
) -> (Store<Host>, Instance) {
    let (engine, module) = module(name);
    let mut store = Store::new(
        engine,
        Host {
            random: fastrand::Rng::with_seed(seed),
            configuration,
            honesty,
            memory: None,
        },
    );
    store.set_fuel(2_000_000_000).expect("fuel is on");
    let mut linker = Linker::new(engine);
    for import in module.imports() {
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
    let instance = linker.instantiate(&mut store, module).expect("it starts");
    store.data_mut().memory = instance.get_memory(&mut store, "memory");
    (store, instance)
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

const KEY_AUTH: [&[u8]; 4] = [
    br#"{"host":"envoy","key_in_body":true,"hide_credentials":true,"consumers":[{"id":"1","credentials":[{"id":"c","key":"K"}]}]}"#,
    br#"{"host":"kong","key_in_body":true,"hide_credentials":true,"anonymous":"1","consumers":[{"id":"1","credentials":[{"id":"c","key":"K"}]}]}"#,
    br#"{"consumers_from":{"upstream":"u","path":"/","refresh":0.001}}"#,
    br#"{"nonsense":"#,
];

const HEADER_TRANSFORM: [&[u8]; 4] = [
    br#"{"host":"envoy","sse":true,"uri_pattern":"/(.*)","request":{"http_method":"GET","remove":{"headers":["apikey"],"querystring":["a"],"body":["n"]},
        "replace":{"uri":"/$(uri_captures[1] or 'x')","headers":["host:$(headers.etag or 'h')"]},"append":{"headers":["etag:1"],"body":["apikey:1"],"querystring":["a:$(query_params.a)"]}},
        "response":{"append":{"headers":["etag:1"],"json":["n:1"]},"rename":{"headers":["etag:x-etag"]}}}"#,
    br#"{"host":"kong","compat":"kong","max_body_bytes":10,"request":{"add":{"body":["a:$(shared.x)"],"headers":["x-consumer-id:$(headers.apikey:upper())"]},
        "replace":{"uri":"/n?x","headers":["host:h"]},"rename":{"headers":["etag:apikey"]}},"response":{"remove":{"json":["n"]}}}"#,
    br#"{"large_body":"refuse","max_body_bytes":5,"when":{"models":["*"],"consumers":["a"]},"request_json":{"set":{"a.b":"$(consumer.id)"}},
        "response_json":{"remove":["n"]}}"#,
    br#"{"host":"envoy-headers-pass","request":{"replace":{"querystring":["a:1"]},"http_method":"HEAD"},"response":{"add":{"json":["a:1"]}}}"#,
];

const PROBE: [&[u8]; 4] = [
    br#"{"host":"envoy","hold":100,"ask":"u","response":"reverse"}"#,
    br#"{"host":"kong","hold":100,"ask":"u","ask_after_body":true,"response":"count"}"#,
    br#"{"ask":"u","response":"bracket","query":"q"}"#,
    br#"{"host":"envoy-headers-pass","hold":5,"response":"head","open":true}"#,
];

fn run(
    name: &'static str,
    seed: u64,
    configuration: &'static [u8],
    honesty: u8,
    callbacks: &[(usize, [i32; 5])],
) -> Result<(), TestCaseError> {
    let (mut store, instance) = instance(name, seed, configuration, honesty);
    let ready: [(&str, &[i32]); 3] = [
        ("proxy_on_context_create", &[1, 0]),
        ("proxy_on_configure", &[1, configuration.len() as i32]),
        ("proxy_on_context_create", &[2, 1]),
    ];
    for (callback, arguments) in ready {
        call(&mut store, &instance, callback, arguments)
            .map_err(|trap| TestCaseError::fail(format!("{callback}: {trap:?}")))?;
    }
    for (callback, arguments) in callbacks {
        let (callback, count) = CALLBACKS[*callback];
        let arguments = &arguments[..count];
        call(&mut store, &instance, callback, arguments)
            .map_err(|trap| TestCaseError::fail(format!("{callback}{arguments:?}: {trap:?}")))?;
    }
    Ok(())
}

fn callbacks() -> impl Strategy<Value = Vec<(usize, [i32; 5])>> {
    let argument = prop_oneof![6 => 0..4i32, 2 => 4..130i32, 1 => Just(20), 1 => Just(-1)];
    proptest::collection::vec(
        (0..CALLBACKS.len(), proptest::array::uniform5(argument)),
        1..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn key_auth_survives_any_host(seed: u64, configuration in 0..KEY_AUTH.len(), honesty in prop_oneof![Just(0u8), Just(50), Just(95)], callbacks in callbacks()) {
        run("key_auth", seed, KEY_AUTH[configuration], honesty, &callbacks)?;
    }

    #[test]
    fn header_transform_survives_any_host(seed: u64, configuration in 0..HEADER_TRANSFORM.len(), honesty in prop_oneof![Just(0u8), Just(50), Just(95)], callbacks in callbacks()) {
        run("header_transform", seed, HEADER_TRANSFORM[configuration], honesty, &callbacks)?;
    }

    #[test]
    fn everything_the_kit_can_do_survives_any_host(seed: u64, configuration in 0..PROBE.len(), honesty in prop_oneof![Just(0u8), Just(50), Just(95)], callbacks in callbacks()) {
        run("probe", seed, PROBE[configuration], honesty, &callbacks)?;
    }
}
