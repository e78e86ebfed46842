//! `tollgate hosts`, and `tollgate serve --strict`, as users run them.

mod wire;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::profile::differences;
use wire::get;

fn hosts(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("hosts").args(arguments);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_row_is_printed_with_its_sources() {
    let all = hosts(&[]);
    assert!(all.status.success());
    let text = text(&all);
    for row in differences() {
        assert!(
            text.contains(&format!("{}: {}", row.id, row.act)),
            "{}",
            row.id
        );
    }
}

#[test]
fn one_row_is_printed_by_its_id() {
    let row = text(&hosts(&["shared-data-cas-zero"]));
    assert_eq!(
        row,
        "SHARED-DATA\n\n\
         shared-data-cas-zero: a write with cas 0 where the key is there\n  \
         envoy  it is written [running]\n  \
         kong   CasMismatch: 0 means `only if absent` [running]\n\n"
    );
}

#[test]
fn the_table_as_json_has_what_programs_need() {
    let rows: Value =
        serde_json::from_slice(&hosts(&["--topic", "calls", "--json"]).stdout).unwrap();
    let rows = rows.as_array().unwrap();
    assert!(rows.len() > 5);
    for row in rows {
        assert_eq!(row["topic"], "calls");
        assert!(
            row["envoy"]["does"].is_string() && row["kong"]["source"].is_string(),
            "{row}"
        );
    }
}

#[test]
fn a_row_that_is_not_there_ends_with_2_and_names_near_ones() {
    let output = hosts(&["cas-zero"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("did you mean shared-data-cas-zero?"),
        "{told}"
    );
    let output = hosts(&["--topic", "weather"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("use one of bodies, calls"));
}

/// Sets its tick period in a stream's callback.
const TICKS_IN_STREAMS: &str = r#"(module
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $tick (i32.const 1000)))
        (i32.const 0)))"#;

/// A proxy as a child process, and what it writes to stderr.
struct Serving {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let mut child = command
            .arg("serve")
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// What follows `mark` in the next line that has it.
    fn told(&mut self, mark: &str) -> String {
        let mut line = String::new();
        while self.stderr.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.trim_end().split_once(mark) {
                return rest.to_owned();
            }
            line.clear();
        }
        panic!("it ended and never said {mark}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Either fails only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_with_strict_answers_500_and_names_the_row() {
    let provider = MockLlm::start(Settings::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("guest.wasm"), TICKS_IN_STREAMS).unwrap();
    let file = directory.path().join("tollgate.yaml");
    let text = format!(
        "{{workers: 1, listeners: [{{address: '127.0.0.1:0'}}], routes: [{{cluster: llm, filters: [guest]}}],
          clusters: {{llm: {{endpoints: ['{}']}}}}, filters: {{guest: {{wasm: ./guest.wasm}}}}}}",
        provider.address()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, status) in [(&[file][..], 200), (&["--strict", file][..], 500)] {
        let mut serving = Serving::start(arguments);
        let address: SocketAddr = serving.told("listening on http://").parse().unwrap();
        let answer = get(address, "/v1/models");
        assert_eq!(answer.status(), status, "{arguments:?}");
        if status == 500 {
            let row = "kong profile, tick-in-stream, in on_request_headers";
            assert!(answer.text().contains(row), "{}", answer.text());
            assert!(serving.told("strict: ").starts_with(row));
        }
    }
}
