//! What `deploy/redis` starts, as a user starts it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::json;
use tollgate_harness::wire::{self, Response};
use tollgate_tests::redis::{Redis, Webdis, escaped};
use tollgate_tests::root;

use super::PATIENCE;

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A program that is told to end, not killed: it has others to stop.
struct Program(Child);

impl Program {
    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.0.id());
        let _ = Command::new("sh").args(["-c", &kill]).status();
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal("TERM");
            let _ = self.0.wait();
        }
    }
}

/// Waits until something is so; whether it became so.
fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(std::time::Duration::from_millis(20));
    }
    true
}

fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// Asks at an address for a script's result.
fn eval(address: SocketAddr, lines: &str, script: &str) -> Option<Response> {
    let body = escaped(&["EVAL", script, "0"]);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: webdis\r\nauthorization: {}\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        Webdis::authorization(),
        body.len()
    );
    wire::exchange(address, "POST", request.as_bytes()).ok()
}

#[test]
fn one_command_starts_both_and_ctrl_c_stops_both() {
    let (redis, webdis) = (free_address(), free_address());
    let mut started = Program(
        Command::new(root().join("deploy/redis/start"))
            .args([redis.port().to_string(), webdis.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    assert!(eventually(|| {
        let answer = eval(
            webdis,
            "",
            "return redis.call('GET', 'tollgate:none') == false",
        );
        answer.is_some_and(|answer| *answer.body == *br#"{"EVAL":1}"#)
    }));
    started.signal("INT");
    assert!(eventually(|| started.has_ended()));
    assert!(eventually(|| !is_open(redis) && !is_open(webdis)));
}

#[test]
#[ignore = "needs nginx, which nothing else here does: name its executable in TOLLGATE_NGINX"]
fn kongs_calls_reach_an_old_webdis_through_nginx() {
    let nginx = std::env::var_os("TOLLGATE_NGINX").expect("TOLLGATE_NGINX");
    let redis = Redis::start().unwrap();
    let webdis = Webdis::start(&redis).unwrap();
    let door = free_address();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipped = fs::read_to_string(root().join("deploy/redis/nginx.conf")).unwrap();
    let shipped = shipped
        .replace("127.0.0.1:7380", &webdis.address().to_string())
        .replace("127.0.0.1:7381", &door.to_string());
    fs::write(at("webdis.conf"), shipped).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", at(name).display()))
        .concat();
    let main = format!(
        "daemon off; master_process off; pid {}; error_log stderr; events {{}}\nhttp {{ {temporary} include {}; }}\n",
        at("pid").display(),
        at("webdis.conf").display()
    );
    fs::write(at("nginx.conf"), main).unwrap();
    let _nginx = Program(
        Command::new(nginx)
            .arg("-c")
            .arg(at("nginx.conf"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    assert!(eventually(|| is_open(door)));
    for number in 0..5 {
        // As Kong's filters ask, and longer than what Webdis reads at once.
        let script = format!("return {number} --{}", "x".repeat(20_000));
        let answer = eval(door, "Connection: close\r\n", &script).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told, json!({"EVAL": number}));
    }
}
