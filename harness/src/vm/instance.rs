//! One instance of a module: starting it and calling into it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Instance, Store, StoreLimitsBuilder, TypedFunc, WasmParams, WasmResults};

use super::guest::Root;
use super::trap::{Crashed, backtrace};
use super::{CallView, Callback, Context, Guest, Lost, Site, TrapCause, TrapReport, World};
use crate::abi::FilterAction;
use crate::engine::{EPOCH, Module};
use crate::exchange::ExchangeId;
use crate::profile::Traps;
use crate::worker::{GrpcEvent, Setup, StartFailure};

/// A module's instance with its root contexts.
pub(crate) struct Vm {
    store: Store<Guest>,
    exports: Exports,
    counts_fuel: bool,
    /// Of one callback, and of those that start and configure, in steps of the epoch.
    deadline: u64,
    start_deadline: u64,
    next_context: u32,
    /// The root contexts, in the order of the entries they were made for.
    pub(crate) roots: Vec<u32>,
}

/// What a VM is made of.
pub(crate) struct VmSetup<'a> {
    pub(crate) module: &'a Module,
    pub(crate) setup: &'a Setup,
    /// The worker, by its number in the shared state.
    pub(crate) worker: u64,
    /// The VM's place in its worker, and how many stood there before.
    pub(crate) vm: usize,
    pub(crate) generation: u64,
    /// Whether the process is new, so that `on_vm_start` runs also where a new instance alone does not get it.
    pub(crate) fresh: bool,
    pub(crate) environment: &'a [(String, String)],
    pub(crate) roots: &'a [RootSpec],
}

/// A filter entry as its root context needs it.
pub(crate) struct RootSpec {
    pub(crate) name: String,
    pub(crate) configuration: Bytes,
}

/// `on_http_call_response`: context, token, numbers of header lines, body bytes and trailer lines.
type CallResponse = TypedFunc<(u32, u32, u32, u32, u32), ()>;

struct Exports {
    context_create: Option<TypedFunc<(u32, u32), ()>>,
    vm_start: Option<TypedFunc<(u32, u32), u32>>,
    configure: Option<TypedFunc<(u32, u32), u32>>,
    tick: Option<TypedFunc<u32, ()>>,
    queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    request_headers: Option<TypedFunc<(u32, u32, u32), u32>>,
    request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    request_trailers: Option<TypedFunc<(u32, u32), u32>>,
    response_headers: Option<TypedFunc<(u32, u32, u32), u32>>,
    response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    response_trailers: Option<TypedFunc<(u32, u32), u32>>,
    call_response: Option<CallResponse>,
    grpc_initial_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    grpc_message: Option<TypedFunc<(u32, u32, u32), ()>>,
    grpc_trailing_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    grpc_close: Option<TypedFunc<(u32, u32, u32), ()>>,
    done: Option<TypedFunc<u32, u32>>,
    log: Option<TypedFunc<u32, ()>>,
    delete: Option<TypedFunc<u32, ()>>,
}

/// An export, or `None` where the module has none. One of another type is an error.
fn typed<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<Guest>,
    name: &str,
) -> Result<Option<TypedFunc<P, R>>, wasmtime::Error> {
    match instance.get_func(&mut *store, name) {
        Some(function) => function.typed(&*store).map(Some),
        None => Ok(None),
    }
}

impl Exports {
    fn of(instance: &Instance, store: &mut Store<Guest>) -> Result<Self, wasmtime::Error> {
        Ok(Self {
            context_create: typed(instance, store, "proxy_on_context_create")?,
            vm_start: typed(instance, store, "proxy_on_vm_start")?,
            configure: typed(instance, store, "proxy_on_configure")?,
            tick: typed(instance, store, "proxy_on_tick")?,
            queue_ready: typed(instance, store, "proxy_on_queue_ready")?,
            request_headers: typed(instance, store, "proxy_on_request_headers")?,
            request_body: typed(instance, store, "proxy_on_request_body")?,
            request_trailers: typed(instance, store, "proxy_on_request_trailers")?,
            response_headers: typed(instance, store, "proxy_on_response_headers")?,
            response_body: typed(instance, store, "proxy_on_response_body")?,
            response_trailers: typed(instance, store, "proxy_on_response_trailers")?,
            call_response: typed(instance, store, "proxy_on_http_call_response")?,
            grpc_initial_metadata: typed(
                instance,
                store,
                "proxy_on_grpc_receive_initial_metadata",
            )?,
            grpc_message: typed(instance, store, "proxy_on_grpc_receive")?,
            grpc_trailing_metadata: typed(
                instance,
                store,
                "proxy_on_grpc_receive_trailing_metadata",
            )?,
            grpc_close: typed(instance, store, "proxy_on_grpc_close")?,
            done: typed(instance, store, "proxy_on_done")?,
            log: typed(instance, store, "proxy_on_log")?,
            delete: typed(instance, store, "proxy_on_delete")?,
        })
    }
}

/// What `proxy_get_status` says of an HTTP call without an answer, whatever the reason (Envoy, source).
const BROKEN_CONNECTION: u32 = 11;

/// A length or count as the ABI passes it.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Vm {
    /// Instantiates the module and makes and configures its root contexts. On error tells the entry concerned.
    pub(crate) fn start(
        spec: &VmSetup<'_>,
        world: &mut World,
    ) -> Result<Self, (String, StartFailure)> {
        let first = spec.roots.first().map_or("", |root| root.name.as_str());
        let blame = |failure| (first.to_owned(), failure);
        let rules = spec.setup.profile.rules();
        if let Some(name) = rules.fatal_import
            && spec.module.imports(name)
        {
            return Err(blame(StartFailure::FatalImport(name)));
        }
        let limits = &spec.setup.limits;
        let environment: Arc<[(String, String)]> = if rules.environment {
            spec.environment.into()
        } else {
            Arc::new([])
        };
        let guest = Guest {
            world: World::default(),
            setup: spec.setup.clone(),
            rules,
            worker: spec.worker,
            vm: spec.vm,
            generation: spec.generation,
            contexts: HashMap::new(),
            roots: HashMap::new(),
            declared: HashMap::new(),
            effective: 0,
            site: Site {
                callback: Callback::Initialize,
                context: 0,
                exchange: None,
            },
            call: None,
            grpc: None,
            status: (0, String::new()),
            undone: HashSet::new(),
            finished: Vec::new(),
            calls_made: 0,
            memory: None,
            allocate: None,
            limits: StoreLimitsBuilder::new()
                .memory_size(limits.memory_bytes)
                .build(),
            random: spec
                .setup
                .seed
                .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            environment,
            module: spec.module.name().to_owned(),
            stdio: [Vec::new(), Vec::new()],
        };
        let engine = spec.module.engine();
        let mut store = Store::new(engine.wasmtime(), guest);
        store.limiter(|guest| &mut guest.limits);
        let start_deadline = deadline(limits.start);
        let (instance, exports) =
            Self::instantiate(spec, &mut store, start_deadline, world).map_err(blame)?;
        let mut vm = Self {
            store,
            exports,
            counts_fuel: engine.counts_fuel(),
            deadline: deadline(limits.callback),
            start_deadline,
            next_context: 1,
            roots: Vec::new(),
        };
        vm.initialize(&instance, world).map_err(blame)?;
        for root in spec.roots {
            vm.start_root(spec, root, world)
                .map_err(|failure| (root.name.clone(), failure))?;
        }
        Ok(vm)
    }

    fn instantiate(
        spec: &VmSetup<'_>,
        store: &mut Store<Guest>,
        deadline: u64,
        world: &mut World,
    ) -> Result<(Instance, Exports), StartFailure> {
        store.set_epoch_deadline(deadline);
        if spec.module.engine().counts_fuel() {
            store
                .set_fuel(u64::MAX)
                .map_err(StartFailure::Instantiate)?;
        }
        std::mem::swap(&mut store.data_mut().world, world);
        let instance = spec.module.instantiate(store);
        std::mem::swap(&mut store.data_mut().world, world);
        let instance = instance.map_err(StartFailure::Instantiate)?;
        let exports = Exports::of(&instance, store).map_err(StartFailure::Instantiate)?;
        let memory = instance.get_memory(&mut *store, "memory");
        let allocate = match typed(&instance, store, "proxy_on_memory_allocate") {
            Ok(Some(allocate)) => Ok(Some(allocate)),
            Ok(None) => typed(&instance, store, "malloc"),
            Err(error) => Err(error),
        };
        let guest = store.data_mut();
        guest.memory = memory;
        guest.allocate = allocate.map_err(StartFailure::Instantiate)?;
        Ok((instance, exports))
    }

    /// A reactor has `_initialize` (and perhaps `main`), a command `_start`.
    fn initialize(&mut self, instance: &Instance, world: &mut World) -> Result<(), StartFailure> {
        let reactor = typed::<(), ()>(instance, &mut self.store, "_initialize")
            .map_err(StartFailure::Instantiate)?;
        let entry = match reactor {
            Some(entry) => Some(entry),
            None => {
                typed(instance, &mut self.store, "_start").map_err(StartFailure::Instantiate)?
            }
        };
        let site = Site {
            callback: Callback::Initialize,
            context: 0,
            exchange: None,
        };
        self.call(world, site, entry, ())
            .map(|_| ())
            .map_err(StartFailure::Trapped)
    }

    fn start_root(
        &mut self,
        spec: &VmSetup<'_>,
        root: &RootSpec,
        world: &mut World,
    ) -> Result<(), StartFailure> {
        let id = self.new_context(Context::Root);
        self.store.data_mut().roots.insert(
            id,
            Root {
                name: root.name.clone(),
                configuration: root.configuration.clone(),
                tick: None,
            },
        );
        self.roots.push(id);
        let at = |callback| Site {
            callback,
            context: id,
            exchange: None,
        };
        let create = self.exports.context_create.clone();
        self.call(world, at(Callback::ContextCreate), create, (id, 0))
            .map_err(StartFailure::Trapped)?;
        // Each entry's, on both (running). ngx_wasm_module does not run it again after a trap.
        let starts = match spec.setup.profile.rules().traps {
            Traps::KillVm => true,
            Traps::NewInstance => spec.fresh,
        };
        if starts {
            let start = self.exports.vm_start.clone();
            if let Some(0) = self
                .call(world, at(Callback::VmStart), start, (id, 0))
                .map_err(StartFailure::Trapped)?
            {
                return Err(StartFailure::VmStartRefused);
            }
        }
        let configure = self.exports.configure.clone();
        let params = (id, count(root.configuration.len()));
        match self
            .call(world, at(Callback::Configure), configure, params)
            .map_err(StartFailure::Trapped)?
        {
            Some(0) => Err(StartFailure::ConfigurationRefused),
            _ => Ok(()),
        }
    }

    fn new_context(&mut self, context: Context) -> u32 {
        let id = self.next_context;
        self.next_context += 1;
        self.store.data_mut().contexts.insert(id, context);
        id
    }

    /// Calls an export; `None` where the module has none.
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        world: &mut World,
        site: Site,
        function: Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<Option<R>, Box<TrapReport>> {
        let Some(function) = function else {
            return Ok(None);
        };
        std::mem::swap(&mut self.store.data_mut().world, world);
        let guest = self.store.data_mut();
        guest.effective = site.context;
        guest.site = site;
        guest.calls_made = 0;
        self.store.set_epoch_deadline(match site.callback {
            Callback::Initialize | Callback::VmStart | Callback::Configure => self.start_deadline,
            _ => self.deadline,
        });
        // Fuel only runs where the engine counts it; then setting and reading it can't fail.
        let counted = self.counts_fuel && self.store.set_fuel(u64::MAX).is_ok();
        let result = function.call(&mut self.store, params);
        let left = self.store.get_fuel().unwrap_or(u64::MAX);
        let guest = self.store.data_mut();
        if counted {
            guest.world.fuel += u64::MAX - left;
        }
        guest.world.callbacks += 1;
        let report = result.map(Some).map_err(|error| {
            guest.effective = site.context;
            Box::new(TrapReport {
                filter: guest.name(),
                callback: site.callback,
                exchange: site.exchange,
                request: None,
                cause: TrapCause::from_error(&error),
                backtrace: backtrace(&error),
                kills_worker: error.is::<Crashed>()
                    || (guest.rules.traps == Traps::NewInstance
                        && matches!(site.callback, Callback::Done | Callback::Configure)),
                lost: Lost::default(),
            })
        });
        std::mem::swap(&mut self.store.data_mut().world, world);
        report
    }

    /// Makes a stream's context.
    pub(crate) fn open_stream(
        &mut self,
        world: &mut World,
        root: u32,
        exchange: ExchangeId,
        seat: usize,
    ) -> Result<u32, Box<TrapReport>> {
        let id = self.new_context(Context::Stream {
            root,
            exchange,
            seat,
        });
        let create = self.exports.context_create.clone();
        let site = Site {
            callback: Callback::ContextCreate,
            context: id,
            exchange: Some(exchange),
        };
        self.call(world, site, create, (id, root))?;
        Ok(id)
    }

    /// Headers and body callbacks: `len` lines or bytes.
    pub(crate) fn on_message(
        &mut self,
        world: &mut World,
        site: Site,
        len: usize,
        end: bool,
    ) -> Result<FilterAction, Box<TrapReport>> {
        let function = match site.callback {
            Callback::RequestHeaders => self.exports.request_headers.clone(),
            Callback::RequestBody => self.exports.request_body.clone(),
            Callback::ResponseHeaders => self.exports.response_headers.clone(),
            Callback::ResponseBody => self.exports.response_body.clone(),
            _ => None,
        };
        let params = (site.context, count(len), u32::from(end));
        let action = self.call(world, site, function, params)?;
        Ok(action.map_or(FilterAction::Continue, FilterAction::from_raw))
    }

    pub(crate) fn on_trailers(
        &mut self,
        world: &mut World,
        site: Site,
        lines: usize,
    ) -> Result<FilterAction, Box<TrapReport>> {
        let function = match site.callback {
            Callback::RequestTrailers => self.exports.request_trailers.clone(),
            Callback::ResponseTrailers => self.exports.response_trailers.clone(),
            _ => None,
        };
        let action = self.call(world, site, function, (site.context, count(lines)))?;
        Ok(action.map_or(FilterAction::Continue, FilterAction::from_raw))
    }

    /// The guest is told the root context (running, both hosts); what it acts on is the site's.
    pub(crate) fn on_call_response(
        &mut self,
        world: &mut World,
        site: Site,
        root: u32,
        token: u32,
        view: CallView,
    ) -> Result<(), Box<TrapReport>> {
        let params = (
            root,
            token,
            count(view.headers.len()),
            count(view.body.len()),
            count(view.trailers.len()),
        );
        let guest = self.store.data_mut();
        if view.failure.is_some() {
            guest.status = (BROKEN_CONNECTION, "reset".to_owned());
        }
        guest.call = Some(view);
        let function = self.exports.call_response.clone();
        let result = self.call(world, site, function, params);
        let guest = self.store.data_mut();
        guest.call = None;
        guest.status.1.clear();
        result.map(|_| ())
    }

    /// Tells a root context what happened to its gRPC call or stream.
    pub(crate) fn on_grpc(
        &mut self,
        world: &mut World,
        root: u32,
        token: u32,
        event: GrpcEvent,
    ) -> Result<(), Box<TrapReport>> {
        let exports = &self.exports;
        let (callback, function, number) = match &event {
            GrpcEvent::InitialMetadata(lines) => (
                Callback::GrpcInitialMetadata,
                exports.grpc_initial_metadata.clone(),
                count(lines.len()),
            ),
            GrpcEvent::Message(message) => (
                Callback::GrpcMessage,
                exports.grpc_message.clone(),
                count(message.len()),
            ),
            GrpcEvent::TrailingMetadata(lines) => (
                Callback::GrpcTrailingMetadata,
                exports.grpc_trailing_metadata.clone(),
                count(lines.len()),
            ),
            GrpcEvent::Closed(status) => {
                (Callback::GrpcClose, exports.grpc_close.clone(), status.code)
            }
        };
        let guest = self.store.data_mut();
        if let GrpcEvent::Closed(status) = &event {
            guest.status = (status.code, status.message.clone());
        }
        guest.grpc = Some(event);
        let site = Site {
            callback,
            context: root,
            exchange: None,
        };
        let result = self.call(world, site, function, (root, token, number));
        let guest = self.store.data_mut();
        guest.grpc = None;
        guest.status.1.clear();
        result.map(|_| ())
    }

    /// Whether the context may be deleted now; if not, `proxy_done` will tell.
    pub(crate) fn on_done(
        &mut self,
        world: &mut World,
        site: Site,
    ) -> Result<bool, Box<TrapReport>> {
        let function = self.exports.done.clone();
        let done = self.call(world, site, function, site.context)? != Some(0);
        if done || !self.store.data().rules.done_waits {
            return Ok(true);
        }
        self.store.data_mut().undone.insert(site.context);
        Ok(false)
    }

    /// The stream contexts that said `proxy_done` since the last time.
    pub(crate) fn take_finished(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.store.data_mut().finished)
    }

    pub(crate) fn on_log(&mut self, world: &mut World, site: Site) -> Result<(), Box<TrapReport>> {
        let function = self.exports.log.clone();
        self.call(world, site, function, site.context).map(|_| ())
    }

    /// Tells the guest that the context is gone, and forgets it.
    pub(crate) fn delete(&mut self, world: &mut World, site: Site) -> Result<(), Box<TrapReport>> {
        let function = self.exports.delete.clone();
        let result = self.call(world, site, function, site.context);
        let guest = self.store.data_mut();
        guest.contexts.remove(&site.context);
        guest.declared.remove(&site.context);
        result.map(|_| ())
    }

    pub(crate) fn on_tick(&mut self, world: &mut World, root: u32) -> Result<(), Box<TrapReport>> {
        let site = Site {
            callback: Callback::Tick,
            context: root,
            exchange: None,
        };
        let function = self.exports.tick.clone();
        self.call(world, site, function, root).map(|_| ())
    }

    pub(crate) fn on_queue_ready(
        &mut self,
        world: &mut World,
        root: u32,
        queue: u32,
    ) -> Result<(), Box<TrapReport>> {
        let site = Site {
            callback: Callback::QueueReady,
            context: root,
            exchange: None,
        };
        let function = self.exports.queue_ready.clone();
        self.call(world, site, function, (root, queue)).map(|_| ())
    }

    /// How many calls the last callback made.
    pub(crate) fn calls_made(&self) -> u32 {
        self.store.data().calls_made
    }

    /// The root contexts whose timers run, in order, and when each is due.
    pub(crate) fn ticks(&self) -> Vec<(u32, u64)> {
        let roots = self.store.data().roots.iter();
        let mut ticks: Vec<_> = roots
            .filter_map(|(id, root)| Some((*id, root.tick?.due)))
            .collect();
        ticks.sort_unstable();
        ticks
    }

    /// The entries that have a tick, by name.
    pub(crate) fn ticking(&self) -> Vec<String> {
        let roots = &self.store.data().roots;
        let of = |id: &u32| roots.get(id).filter(|root| root.tick.is_some());
        self.roots
            .iter()
            .filter_map(of)
            .map(|root| root.name.clone())
            .collect()
    }

    /// Starts a root context's timer again; whether it runs at all.
    pub(crate) fn rearm(&mut self, root: u32, now: u64) -> bool {
        let root = self.store.data_mut().roots.get_mut(&root);
        let tick = root.and_then(|root| root.tick.as_mut());
        if let Some(tick) = tick {
            tick.due = now.saturating_add(tick.period);
            return true;
        }
        false
    }

    /// The linear memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store
            .data()
            .memory
            .map_or(0, |memory| memory.data_size(&self.store))
    }
}

/// A callback's time in steps of the epoch; one more, since the step under way may end at once.
fn deadline(callback: Duration) -> u64 {
    u64::try_from(callback.as_nanos().div_ceil(EPOCH.as_nanos())).unwrap_or(u64::MAX >> 1) + 1
}
