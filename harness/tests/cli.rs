//! The `tollgate` command as users run it: what it prints, where, and the exit code.

mod wire;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use wire::{Wire, get, until};

fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// A command that ran to its end.
struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn stdout(&self) -> &str {
        std::str::from_utf8(&self.0.stdout).unwrap()
    }

    fn stderr(&self) -> &str {
        std::str::from_utf8(&self.0.stderr).unwrap()
    }
}

fn run(arguments: &[&str]) -> Ran {
    Ran(tollgate(arguments).output().unwrap())
}

fn run_with_stdin(arguments: &[&str], input: &str) -> Ran {
    let mut child = tollgate(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    Ran(child.wait_with_output().unwrap())
}

/// A command that serves until it is told to stop.
struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let mut child = tollgate(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn signal(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn terminate(&mut self) -> i32 {
        self.signal();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_command_line_that_is_wrong_ends_with_2() {
    for arguments in [
        &[][..],
        &["fly"],
        &["serve"],
        &["check", "--filter", "no-such", "-"],
        &["mock-llm", "--listen", "here"],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code(), 2, "{arguments:?}: {}", ran.stderr());
        assert!(
            ran.stderr().contains("Usage") || ran.stderr().contains("--help"),
            "{}",
            ran.stderr()
        );
    }
}

#[test]
fn each_commands_help_has_examples() {
    for command in ["serve", "demo", "mock-llm", "check", "inspect"] {
        let ran = run(&[command, "--help"]);
        assert_eq!(ran.code(), 0);
        assert!(
            ran.stdout().contains("Example"),
            "{command}: {}",
            ran.stdout()
        );
    }
}

#[test]
fn a_filters_configuration_is_checked_by_its_own_code_and_every_mistake_told() {
    let wrong =
        json!({"key_names": ["ok", "b d"], "key_in_heder": true, "consumers": [{"username": 7}]});
    let ran = run_with_stdin(&["check", "--filter", "key-auth", "-"], &wrong.to_string());
    assert_eq!(ran.code(), 1);
    for path in [
        "key_names[1]: ",
        "key_in_heder: unknown field: did you mean key_in_header?",
        "consumers[0].username: ",
    ] {
        assert!(
            ran.stderr()
                .lines()
                .any(|line| line.starts_with(&format!("error: {path}"))),
            "{}",
            ran.stderr()
        );
    }
    assert_eq!(ran.stdout(), "");
}

#[test]
fn a_valid_configuration_may_be_yaml_and_take_variables() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = "consumers:\n- username: alice\n  credentials:\n  - key: ${env:ALICE}\n";
    let path = file(directory.path(), "key-auth.yaml", yaml);
    let without = run(&["check", "--filter", "key-auth", &path]);
    assert_eq!(without.code(), 1);
    assert!(
        without.stderr().contains("ALICE is not set"),
        "{}",
        without.stderr()
    );
    let with = run(&[
        "check",
        "--filter",
        "key-auth",
        "--env",
        "ALICE=s3cret-value",
        &path,
    ]);
    assert_eq!(with.code(), 0, "{}", with.stderr());
    assert!(!with.stderr().contains("s3cret-value"));
}

#[test]
fn a_file_that_cannot_be_read_ends_with_2() {
    for arguments in [
        &["serve", "/no/such.yaml"][..],
        &["check", "/no/such.yaml"],
        &["check", "--filter", "key-auth", "/no/such"],
        &["inspect", "/no/such.wasm"],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code(), 2, "{arguments:?}");
        assert!(
            ran.stderr().starts_with("error: ") && ran.stderr().contains("/no/such"),
            "{}",
            ran.stderr()
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "broken.yaml", "listeners: [");
    assert_eq!(run(&["check", &path]).code(), 2);
}

#[test]
fn a_proxys_file_is_checked_whole() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "text.wasm", "this is no module");
    file(
        directory.path(),
        "old.wasm",
        "(module (func (export \"proxy_abi_version_0_1_0\")))",
    );
    let path = file(
        directory.path(),
        "tollgate.yaml",
        "
listeners: [{address: 127.0.0.1:0}]
routes: [{cluster: nowhere, filters: [missing, text, old, auth]}]
clusters: {llm: {endpoints: ['127.0.0.1:1']}}
filters:
  missing: {wasm: ./missing.wasm}
  text: {wasm: ./text.wasm}
  old: {wasm: ./old.wasm}
  auth: {wasm: key-auth, config: {consumers: [{username: a, groups: 7}]}}
",
    );
    let ran = run(&["check", &path]);
    assert_eq!(ran.code(), 1);
    for (path, says) in [
        ("routes[0].cluster", "no cluster named 'nowhere'"),
        ("filters.missing.wasm", "missing.wasm"),
        ("filters.text.wasm", "not a valid WebAssembly module"),
        ("filters.old.wasm", "proxy_abi_version_0_1_0"),
        ("filters.auth.config.consumers[0].groups", ""),
    ] {
        let line = ran
            .stderr()
            .lines()
            .find(|line| line.starts_with(&format!("error: {path}: ")));
        assert!(
            line.is_some_and(|line| line.contains(says)),
            "{path} {says}\nnot in\n{}",
            ran.stderr()
        );
    }
}

#[test]
fn a_configuration_that_the_filter_refuses_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(
        directory.path(),
        "tollgate.yaml",
        "
listeners: [{address: 127.0.0.1:0}]
routes: [{cluster: llm, filters: [auth]}]
clusters: {llm: {endpoints: ['127.0.0.1:1']}}
filters: {auth: {wasm: key-auth, config_file: auth.yaml}}
",
    );
    file(directory.path(), "auth.yaml", "key_nams: [apikey]\n");
    let ran = run(&["serve", &path]);
    assert_eq!(ran.code(), 2);
    let expected = "filters.auth.config_file.key_nams: unknown field: did you mean key_names?";
    assert!(ran.stderr().contains(expected), "{}", ran.stderr());
}

#[test]
fn a_port_in_use_ends_with_1_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for arguments in [&["mock-llm", "--listen"], &["demo", "--listen"]] {
        let ran = run(&[arguments[0], arguments[1], &address.to_string()]);
        assert_eq!(ran.code(), 1, "{}", ran.stderr());
        assert!(
            ran.stderr()
                .contains(&format!("port {} is in use", address.port())),
            "{}",
            ran.stderr()
        );
    }
}

#[test]
fn mock_llm_serves_until_it_is_told_to_stop() {
    let mut serving = Serving::start(&[
        "mock-llm",
        "--listen",
        "127.0.0.1:0",
        "--models",
        "a,b",
        "--name",
        "here",
    ]);
    let line = serving.line();
    let address = line
        .split("http://")
        .nth(1)
        .unwrap()
        .split("/v1")
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let models = get(address, "/v1/models").json();
    let ids: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(serving.terminate(), 0);
}

#[test]
fn serve_logs_each_request_without_its_query_and_stops_at_sigterm() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (listen, admin) = (free_address(), free_address());
    let path = file(
        directory.path(),
        "tollgate.yaml",
        &format!(
            "{{listeners: [{{address: '{listen}'}}], admin: {{address: '{admin}'}}, routes: [{{cluster: llm}}],
              clusters: {{llm: {{endpoints: ['{}']}}}}}}",
            provider.address()
        ),
    );
    let mut serving = Serving::start(&["serve", &path]);
    until(|| std::net::TcpStream::connect(admin).is_ok());
    until(|| get(admin, "/ready").status() == 200);
    assert_eq!(get(listen, "/v1/models?apikey=s3cret").status(), 200);
    let line = serving.line();
    assert!(!line.contains("s3cret"), "{line}");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&json!("GET"), &json!("/v1/models"), &json!(200))
    );
    assert_eq!(line["upstream"], provider.address().to_string());
    assert!(
        line["latency_ms"].as_f64().is_some()
            && line["request_id"].as_str().is_some_and(|id| id.len() == 36)
    );
    assert_eq!(serving.terminate(), 0);
}

#[test]
fn a_second_signal_does_not_wait_for_open_requests() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (listen, admin) = (free_address(), free_address());
    let path = file(
        directory.path(),
        "tollgate.yaml",
        &format!(
            "{{listeners: [{{address: '{listen}'}}], admin: {{address: '{admin}'}}, routes: [{{cluster: llm}}],
              clusters: {{llm: {{endpoints: ['{}']}}}}}}",
            upstream.local_addr().unwrap()
        ),
    );
    let mut serving = Serving::start(&["serve", &path]);
    until(|| std::net::TcpStream::connect(admin).is_ok());
    let mut client = Wire::connect(listen);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = Wire::accept(&upstream);
    server.head();
    serving.signal();
    until(|| std::net::TcpStream::connect(listen).is_err());
    assert_eq!(serving.terminate(), 1);
}

#[test]
fn every_request_of_the_demo_gets_what_the_demo_says() {
    let ran = run(&["demo", "--listen", "127.0.0.1:0", "--check"]);
    assert_eq!(ran.code(), 0, "{}\n{}", ran.stdout(), ran.stderr());
    assert_eq!(
        ran.stdout()
            .lines()
            .filter(|line| line.starts_with("ok "))
            .count(),
        tollgate_harness::demo::EXAMPLES.len()
    );
}
