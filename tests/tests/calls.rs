//! gRPC and foreign functions: the same guest in the simulation, in the proxy and in a real Envoy sees the same.
//!
//! What it saw is compared line by line; only what carries the time of day, or is measured, is left out.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_harness::catalog::Search;
use tollgate_harness::envoy::{self, Besides, Envoy, Filter, Listener};
use tollgate_harness::profile::Profile;
use tollgate_harness::proxy::{Config, Proxy};
use tollgate_harness::sim::{GrpcAnswer, GrpcCall, Request, Sim};
use tollgate_harness::wire::{self, Recorder};
use tollgate_tests::grpc::{GrpcService, Seen};
use tollgate_tests::{load, module};

/// A guest in some host. `CLUSTER` in orders stands for the service's cluster there, `DEAD` for one that refuses.
trait Host {
    fn ask(&mut self, orders: &str) -> String;

    /// Gives orders and waits until the last of the expected lines has come, or long enough.
    fn saw(&mut self, orders: &str, expected: &[&str]) -> Vec<String> {
        let start = Instant::now();
        let mut orders = format!("forget;{orders}");
        loop {
            let lines: Vec<String> = self.ask(&orders).lines().map(settled).collect();
            let complete = expected
                .last()
                .is_none_or(|last| lines.iter().any(|line| line == last));
            if complete || start.elapsed() > PATIENCE {
                return lines;
            }
            orders.clear();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A line without what differs from one moment to the next.
fn settled(line: &str) -> String {
    let line = line.trim_end();
    let (line, rest) = match line.split_once(" date=") {
        Some((before, after)) => (
            before,
            after.split_once(" GMT").map_or("", |(_, rest)| rest),
        ),
        None => (line, ""),
    };
    let rest = rest
        .split(' ')
        .filter(|part| !part.starts_with("x-envoy-upstream-service-time"));
    format!("{line}{}", rest.collect::<Vec<_>>().join(" "))
}

struct InSim(Sim);

impl InSim {
    fn start(configuration: &str) -> Self {
        let setting = Sim::of(Profile::Envoy).filter_with_bytes(&load("calls"), configuration);
        Self(setting.on_grpc("service", scripted).start().unwrap())
    }
}

impl Host for InSim {
    fn ask(&mut self, orders: &str) -> String {
        let orders = orders.replace("CLUSTER", "service");
        // Waiting costs nothing here; a second is longer than any timeout below.
        self.0.advance(Duration::from_secs(1));
        let got = self.0.send(Request::get("/").header("x-do", orders));
        got.text()
    }
}

/// [`GrpcService`] as a script.
fn scripted(call: &GrpcCall) -> GrpcAnswer {
    let answer = || {
        let answer = [b"re:", &call.last()[..]].concat();
        GrpcAnswer::message(answer).initial("x-initial", "first")
    };
    let count = call.messages.len().to_string();
    let unary = call.request.message.is_some();
    match call.request.method.as_str() {
        "Deny" => GrpcAnswer::status(7, "not%20allowed").trailer("x-why", "policy"),
        "Silent" => GrpcAnswer::nothing(),
        "Late" if unary => answer().and_status(9, ""),
        "Late" if call.ended => GrpcAnswer::status(9, "").trailer("x-count", count),
        "Say" => answer().trailer("x-count", count),
        _ if call.ended => GrpcAnswer::status(0, "").trailer("x-count", count),
        _ if call.messages.is_empty() => GrpcAnswer::nothing(),
        _ => answer(),
    }
}

struct InProxy {
    proxy: Proxy,
    service: GrpcService,
}

impl InProxy {
    fn start() -> Self {
        let service = GrpcService::start().unwrap();
        let config = json!({
            "access_log": false,
            "workers": 1,
            "listeners": [{"address": "127.0.0.1:0"}],
            "routes": [{"cluster": "dead", "filters": ["it"]}],
            "clusters": {
                "dead": {"endpoints": [refused().to_string()]},
                "service": {"endpoints": [service.address().to_string()]},
            },
            "filters": {"it": {"wasm": module("calls")}},
        });
        let config = Config::read(
            &config.to_string(),
            Path::new("."),
            &Search::from_here(None),
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let proxy = Proxy::start(config.config).unwrap_or_else(|error| panic!("{error}"));
        Self { proxy, service }
    }
}

impl Host for InProxy {
    fn ask(&mut self, orders: &str) -> String {
        let orders = orders.replace("CLUSTER", "service").replace("DEAD", "dead");
        over_the_wire(self.proxy.addresses()[0], &orders)
    }
}

struct InEnvoy {
    envoy: Envoy,
    service: GrpcService,
    dead: SocketAddr,
    _upstream: Recorder,
}

impl InEnvoy {
    fn start(configuration: &str) -> Self {
        let (service, upstream) = (GrpcService::start().unwrap(), Recorder::start().unwrap());
        let dead = refused();
        let listener = Listener {
            name: "main".to_owned(),
            filters: vec![Filter {
                name: "calls".to_owned(),
                module: module("calls"),
                configuration: configuration.to_owned(),
                vm_id: "calls".to_owned(),
            }],
            upstream: upstream.address(),
            proxy_protocol: false,
        };
        let besides = Besides {
            grpc_services: vec![service.address(), dead],
            ..Besides::default()
        };
        let executable = envoy::find().unwrap();
        let envoy = Envoy::start_with(&executable, &[listener], 1, &besides).unwrap();
        Self {
            envoy,
            service,
            dead,
            _upstream: upstream,
        }
    }
}

impl Host for InEnvoy {
    fn ask(&mut self, orders: &str) -> String {
        let cluster = envoy::grpc_cluster_name(self.service.address());
        let dead = envoy::grpc_cluster_name(self.dead);
        let orders = orders.replace("CLUSTER", &cluster).replace("DEAD", &dead);
        over_the_wire(self.envoy.address("main").unwrap(), &orders)
    }
}

fn over_the_wire(address: SocketAddr, orders: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nx-do: {orders}\r\n\r\n");
    let response = wire::exchange(address, "GET", request.as_bytes())
        .unwrap_or_else(|error| panic!("{orders}: {error}"));
    String::from_utf8_lossy(&response.body).into_owned()
}

/// An address at which nobody listens.
fn refused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

const INITIAL: &str = "initial :status=200 content-type=application/grpc x-initial=first";
const REFUSED: &str = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
const REFUSED_DETAILS: &str = "{upstream_reset_before_response_started{remote_connection_failure|\
    delayed_connect_error:_Connection_refused}}";
const RESET: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: remote reset";

/// Orders and what the guest sees of them everywhere.
const ALIKE: &[(&str, &[&str])] = &[
    // A call shows its answer and nothing besides, or its status.
    (
        "call name:CLUSTER test.Echo Say 9000 hello",
        &["call 0", "message 8 re:hello"],
    ),
    (
        "call service:CLUSTER@auth.test test.Echo Say 0 hello",
        &["call 0", "message 8 re:hello"],
    ),
    (
        "call name:CLUSTER test.Echo Deny 9000 x",
        &["call 0", "closed 7 7 not%20allowed{via_upstream}"],
    ),
    (
        "call name:CLUSTER test.Echo Late 9000 x",
        &["call 0", "closed 9 9 via_upstream"],
    ),
    (
        "call name:CLUSTER test.Echo Silent 100 x",
        &[
            "call 0",
            "closed 14 14 upstream request timeout{response_timeout}",
        ],
    ),
    (
        "call name:CLUSTER test.Echo Silent 0 x;send x;cancel;cancel;close",
        &["call 0", "send 2", "cancel 0", "cancel 1", "close 1"],
    ),
    (
        "call name:CLUSTER test.Echo Silent 0 x;close;close",
        &["call 0", "close 0", "close 1"],
    ),
    // Targets.
    ("call name:nowhere test.Echo Say 9000 x", &["call 4"]),
    ("stream name:nowhere test.Echo Chat", &["stream 4"]),
    (
        "call service:nowhere test.Echo Say 9000 x",
        &["call 10", "closed 14 14 Cluster not available"],
    ),
    (
        "stream service:nowhere test.Echo Chat",
        &["stream 10", "closed 14 14 Cluster not available"],
    ),
    // Streams.
    (
        "stream name:CLUSTER test.Echo Chat;send one;end two",
        &[
            "stream 0",
            "send 0",
            "end 0",
            INITIAL,
            "message 6 re:one",
            "message 6 re:two",
            "trailing grpc-status=0 x-count=2",
            "closed 0 0 via_upstream",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Chat;send one;close;close;send x",
        &[
            "stream 0",
            "send 0",
            "close 0",
            "close 0",
            "send 0",
            INITIAL,
            "message 6 re:one",
            "trailing grpc-status=0 x-count=1",
            "closed 0 0 via_upstream",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Chat;send one;cancel;cancel;send x;close",
        &[
            "stream 0", "send 0", "cancel 0", "cancel 1", "send 1", "close 1",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Deny",
        &[
            "stream 0",
            "initial",
            "trailing :status=200 content-type=application/grpc grpc-status=7 grpc-message=not%20allowed x-why=policy",
            "closed 7 7 not%20allowed{via_upstream}",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Late;end one",
        &[
            "stream 0",
            "end 0",
            INITIAL,
            "message 6 re:one",
            "trailing grpc-status=9 x-count=1",
            "closed 9 9 via_upstream",
        ],
    ),
    // Tokens: 96 and 99 are of no kind, 97 would be a call's, 98 a stream's.
    (
        "token 96;send x;close;cancel",
        &["send 2", "close 2", "cancel 2"],
    ),
    (
        "token 97;send x;close;cancel",
        &["send 2", "close 1", "cancel 1"],
    ),
    (
        "token 98;send x;close;cancel",
        &["send 1", "close 1", "cancel 1"],
    ),
    // Foreign functions. The first is the zlib stream of 100 times "a"; what follows is none.
    (
        "foreign uncompress 789c4b4ca43d00007a4725e5;foreign uncompress 00;foreign uncompress;foreign uncompress 789c4b",
        &[
            concat!(
                "foreign uncompress 0 ",
                "61616161616161616161616161616161616161616161616161616161616161616161616161616161",
                "61616161616161616161616161616161616161616161616161616161616161616161616161616161",
                "6161616161616161616161616161616161616161"
            ),
            "foreign uncompress 3",
            "foreign uncompress 3",
            "foreign uncompress 3",
        ],
    ),
    (
        "foreign compress 616161616161616161;foreign compress",
        &[
            "foreign compress 0 789c4b4c8402001116036a",
            "foreign compress 0 789c030000000001",
        ],
    ),
    (
        "foreign nope 00;foreign clear_route_cache",
        &["foreign nope 1", "foreign clear_route_cache 0"],
    ),
    (
        // path "envoy.string" and value "abc"; an unknown path; no message.
        "foreign set_envoy_filter_state 0a0c656e766f792e737472696e671203616263;get filter_state/envoy.string;\
         foreign set_envoy_filter_state 0a0178120179;foreign set_envoy_filter_state 0a05",
        &[
            "foreign set_envoy_filter_state 0",
            "get filter_state/envoy.string 0 abc",
            "foreign set_envoy_filter_state 1",
            "foreign set_envoy_filter_state 2",
        ],
    ),
    (
        // name "x", read-only: in a stream's context it has no effect, and is refused the second time.
        "foreign declare_property 0a01781001;foreign declare_property 0a01781001;set x 1;set x 2;get x;\
         foreign declare_property ff",
        &[
            "foreign declare_property 0",
            "foreign declare_property 2",
            "set 0",
            "set 0",
            "get x 0 2",
            "foreign declare_property 2",
        ],
    ),
];

/// The same for what goes wrong on the wire, which a script does not have.
const ON_THE_WIRE: &[(&str, &[&str])] = &[
    (
        "call name:CLUSTER test.Echo Split 9000 x",
        &["call 0", "message 0"],
    ),
    (
        "call name:CLUSTER test.Echo Bare 9000 x",
        &["call 0", "closed 2 2 via_upstream"],
    ),
    (
        "call name:CLUSTER test.Echo Packed 9000 x",
        &["call 0", "closed 13 13 via_upstream"],
    ),
    (
        "call name:CLUSTER test.Echo Missing 9000 x",
        &["call 0", "closed 12 12 via_upstream"],
    ),
    (
        "call name:CLUSTER test.Echo Break 9000 x",
        &[
            "call 0",
            "closed 13 13 upstream_reset_after_response_started{remote_reset}",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Missing",
        &[
            "stream 0",
            "initial",
            "trailing",
            "closed 12 12 via_upstream",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Bare;end one",
        &[
            "stream 0",
            "end 0",
            INITIAL,
            "message 6 re:one",
            "trailing",
            "closed 2 2 via_upstream",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Split;end one",
        &[
            "stream 0",
            "end 0",
            INITIAL,
            "message 6 re:one",
            "message 0",
            "trailing grpc-status=0 x-count=1",
            "closed 0 0 via_upstream",
        ],
    ),
    (
        "stream name:CLUSTER test.Echo Break;end one",
        &[
            "stream 0",
            "end 0",
            INITIAL,
            "trailing",
            "closed 13 13 upstream_reset_after_response_started{remote_reset}",
        ],
    ),
];

fn check(host: &mut impl Host, cases: &[(&str, &[&str])]) {
    for (orders, expected) in cases {
        assert_eq!(host.saw(orders, expected), *expected, "{orders}");
    }
}

/// What the service saw, and what a filter sees of a service that is not there.
fn check_wire(host: &mut impl Host, seen: impl Fn() -> Vec<Seen>) {
    check(host, ALIKE);
    check(host, ON_THE_WIRE);
    let trailing = format!(
        "trailing :status=200 content-type=application/grpc grpc-status=14 grpc-message={REFUSED}"
    );
    let closed = format!("closed 14 14 {REFUSED}{REFUSED_DETAILS}");
    let refused = ["stream 0", "initial", &trailing, &closed];
    assert_eq!(
        host.saw("stream name:DEAD test.Echo Chat", &refused),
        refused
    );
    let trailing = format!(
        "trailing :status=200 content-type=application/grpc grpc-status=14 grpc-message={RESET}"
    );
    let closed =
        format!("closed 14 14 {RESET}{{upstream_reset_before_response_started{{remote_reset}}}}");
    let reset = ["stream 0", "initial", &trailing, &closed];
    assert_eq!(
        host.saw("stream name:CLUSTER test.Echo Drop", &reset),
        reset
    );

    let calls = seen();
    let [first, second, ..] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    assert_eq!(
        (first.path.as_str(), first.messages.as_slice()),
        ("/test.Echo/Say", &["hello".to_owned()][..])
    );
    for (name, value) in [
        ("te", "trailers"),
        ("grpc-timeout", "9000m"),
        ("content-type", "application/grpc"),
        ("x-from", "guest"),
        ("x-upper", "1"),
    ] {
        assert_eq!(first.header(name), Some(value), "{first:?}");
    }
    assert_eq!(
        (second.authority.as_str(), second.header("grpc-timeout")),
        ("auth.test", Some("0m"))
    );
    let chats = || calls.iter().filter(|seen| seen.path == "/test.Echo/Chat");
    assert!(
        chats().any(|seen| seen.messages == ["one", "two"] && seen.ended),
        "{calls:?}"
    );
    assert!(
        chats().all(|seen| seen.header("grpc-timeout").is_none()),
        "{calls:?}"
    );

    // A stream that is cancelled in the middle is reset, not ended.
    let open = ["stream 0", "send 0", INITIAL, "message 7 re:half"];
    assert_eq!(
        host.saw("stream name:CLUSTER test.Echo Chat;send half", &open),
        open
    );
    assert_eq!(host.saw("cancel", &["cancel 0"]), ["cancel 0"]);
    let start = Instant::now();
    let half = || seen().into_iter().find(|seen| seen.messages == ["half"]);
    while !half().is_some_and(|seen| seen.reset) {
        assert!(start.elapsed() < PATIENCE, "it was not reset: {:?}", half());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(
        host.saw("", &[]),
        Vec::<String>::new(),
        "nothing comes of it any more"
    );
}

#[test]
fn in_the_simulation_the_guest_sees_what_it_sees_in_envoy() {
    let mut host = InSim::start("");
    check(&mut host, ALIKE);
    let cancelled = |call: &&GrpcCall| call.path() == "test.Echo/Chat" && call.cancelled;
    assert_eq!(host.0.grpc_calls().iter().filter(cancelled).count(), 1);
}

#[test]
fn in_the_proxy_the_guest_sees_what_it_sees_in_envoy() {
    let mut host = InProxy::start();
    let notes = host.service.notes();
    check_wire(&mut host, move || notes.seen());
}

#[test]
fn in_a_real_envoy_the_guest_sees_this() {
    let mut host = InEnvoy::start("");
    let notes = host.service.notes();
    check_wire(&mut host, move || notes.seen());
    assert!(host.envoy.is_running().unwrap());
}

#[test]
fn a_property_that_the_root_declares_read_only_is_set_once() {
    // name "x", read-only.
    let declare = "foreign declare_property 0a01781001";
    let expected = ["set 0", "set 2", "get x 0 1", "set 0", "set 0"];
    let orders = "set x 1;set x 2;get x;set y 1;set y 2";
    assert_eq!(InSim::start(declare).saw(orders, &expected), expected);
    assert_eq!(InEnvoy::start(declare).saw(orders, &expected), expected);
}

#[test]
fn a_target_that_parses_but_names_none_aborts_envoy_and_traps_in_the_simulation() {
    // "auth-grpc" is a valid protobuf message: an unknown field of eight bytes.
    let mut host = InEnvoy::start("");
    let request = "GET / HTTP/1.1\r\nHost: h\r\nx-do: call name:auth-grpc a b 0 x\r\n\r\n";
    let answer = wire::exchange(
        host.envoy.address("main").unwrap(),
        "GET",
        request.as_bytes(),
    );
    assert!(answer.is_err(), "{answer:?}");
    let start = Instant::now();
    while host.envoy.is_running().unwrap() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(host.envoy.log().unwrap().contains("unset oneof"));

    let mut sim = InSim::start("").0;
    sim.send(Request::get("/").header("x-do", "call name:auth-grpc a b 0 x"));
    assert!(
        sim.traps()[0].to_string().contains("unset oneof"),
        "{:?}",
        sim.traps()
    );
}
