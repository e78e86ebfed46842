//! token-rate-limit's limits of requests at once in a real Envoy with two workers and 64 clients, against an upstream that counts how
//! many it serves.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_harness::envoy::{self, Envoy, Filter, Listener};
use tollgate_harness::wire::{self, Request};
use tollgate_tests::module;

const CLIENTS: usize = 64;
const EACH: usize = 5;
const LIMIT: usize = 5;

/// How long something may take that is sure to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many requests are under way, and how many were at most.
#[derive(Debug, Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Crowd {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An upstream that takes its time: for `/whole` to begin, for `/stream` between chunks, and for `/endless` until the client leaves.
fn upstream(crowd: &Arc<Crowd>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let crowd = crowd.clone();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let crowd = crowd.clone();
            thread::spawn(move || serve(&connection, &crowd));
        }
    });
    address
}

fn serve(connection: &TcpStream, crowd: &Crowd) {
    let mut reader = BufReader::new(connection);
    while let Ok(request) = Request::read(&mut reader) {
        crowd.enter();
        let last = answer(connection, &request.target);
        // Before the client can know that it is over.
        crowd.leave();
        let Ok(last) = last else { return };
        if (&*connection).write_all(last).is_err() {
            return;
        }
    }
}

/// Writes all of an answer but its last bytes, which are returned.
fn answer(mut connection: &TcpStream, target: &str) -> io::Result<&'static [u8]> {
    let pace = Duration::from_millis(10);
    if target == "/whole" {
        thread::sleep(5 * pace);
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwho")?;
        return Ok(b"l");
    }
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write_all(head)?;
    let chunks = if target == "/endless" { usize::MAX } else { 5 };
    for _ in 0..chunks {
        thread::sleep(pace);
        connection.write_all(b"9\r\ndata: 1\n\n\r\n")?;
    }
    Ok(b"0\r\n\r\n")
}

fn gateway(upstream: SocketAddr) -> Envoy {
    let config = json!({"host": "envoy", "concurrency": [{"name": "parallel", "by": ["ip"], "limit": LIMIT}]});
    let listener = Listener {
        name: "main".to_owned(),
        filters: vec![Filter {
            name: "token-rate-limit".to_owned(),
            module: module("token_rate_limit"),
            configuration: config.to_string(),
            vm_id: "main".to_owned(),
        }],
        upstream,
        proxy_protocol: false,
    };
    Envoy::start(&envoy::find().unwrap(), &[listener], 2).unwrap()
}

fn request(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: gateway.test\r\n\r\n").into_bytes()
}

fn status(gateway: SocketAddr, target: &str) -> u16 {
    wire::exchange(gateway, "GET", &request(target))
        .unwrap()
        .status
}

/// Waits until nothing is under way.
fn quiet(crowd: &Crowd) {
    let begun = Instant::now();
    while crowd.now.load(Ordering::SeqCst) > 0 {
        assert!(begun.elapsed() < PATIENCE, "requests that never end");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_more_than_the_limit_are_at_the_upstream_and_clients_that_leave_make_room() {
    let crowd = Arc::new(Crowd::default());
    let envoy = gateway(upstream(&crowd));
    let address = envoy.address("main").unwrap();
    let (passed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ask = |client: usize| {
        for number in 0..EACH {
            let target = ["/stream", "/whole"][(client + number) % 2];
            match status(address, target) {
                200 => passed.fetch_add(1, Ordering::Relaxed),
                429 => refused.fetch_add(1, Ordering::Relaxed),
                status => panic!("{status}"),
            };
        }
    };
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let ask = &ask;
            scope.spawn(move || ask(client));
        }
    });
    assert!(refused.into_inner() > 0);
    assert!(passed.into_inner() >= LIMIT);
    assert_eq!(crowd.most.swap(0, Ordering::SeqCst), LIMIT);
    quiet(&crowd);

    // Clients that leave in the middle of a stream, each when it has read some of it.
    for _ in 0..3 {
        let clients: Vec<_> = (0..LIMIT)
            .map(|_| {
                let mut connection = wire::connect(address).unwrap();
                connection.write_all(&request("/endless")).unwrap();
                connection.read_exact(&mut [0; 200]).unwrap();
                connection
            })
            .collect();
        assert_eq!(status(address, "/whole"), 429);
        drop(clients);
        quiet(&crowd);
    }
    thread::scope(|scope| {
        let all: Vec<_> = (0..LIMIT)
            .map(|_| scope.spawn(|| status(address, "/stream")))
            .collect();
        for one in all {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
    let log = envoy.log().unwrap();
    assert!(!log.contains("[critical]"), "{log}");
}
