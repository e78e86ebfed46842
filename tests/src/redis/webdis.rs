use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tollgate_harness::wire::{self, WireError};

use super::process::{Process, Program, ServerError};
use super::{Redis, configuration};

const WEBDIS: Program = Program {
    name: "webdis",
    variable: "TOLLGATE_WEBDIS",
};

/// A running Webdis before a Redis, as `deploy/redis/webdis.json` sets it up.
#[derive(Debug)]
pub struct Webdis(Process);

/// What Webdis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Webdis {
    /// Starts it and waits until it has reached Redis, which has to be running.
    ///
    /// # Errors
    /// Fails when it isn't installed, or doesn't start.
    pub fn start(redis: &Redis) -> Result<Self, ServerError> {
        Self::with(redis, json!({}))
    }

    /// The same with other settings, such as `{"threads": 8}`.
    ///
    /// # Errors
    /// As [`Webdis::start`].
    pub fn with(redis: &Redis, settings: Value) -> Result<Self, ServerError> {
        let executable = WEBDIS.find()?;
        let redis_port = redis.address().port();
        let command = move |port: u16, directory: &Path| {
            let file = directory.join("webdis.json");
            let mut all = configuration("webdis.json")?;
            // Its log goes to the file that stderr is, but by a name: it can't open what stderr may be.
            all["logfile"] = json!(directory.join("log"));
            all["redis_port"] = json!(redis_port);
            all["http_port"] = json!(port);
            for (name, value) in settings.as_object().into_iter().flatten() {
                all[name] = value.clone();
            }
            fs::write(&file, all.to_string())?;
            let mut command = Command::new(&executable);
            command.arg(file);
            Ok(command)
        };
        Process::start(WEBDIS.name, command, ready).map(Self)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// The `authorization` header that its configuration asks for.
    ///
    /// # Panics
    /// When the configuration asks for none.
    #[must_use]
    pub fn authorization() -> String {
        let configuration = configuration("webdis.json").unwrap_or_default();
        let credentials = configuration.pointer("/acl/1/http_basic_auth");
        let credentials = credentials
            .and_then(Value::as_str)
            .expect("http_basic_auth");
        format!("Basic {}", STANDARD.encode(credentials))
    }

    /// Gives a command, on a connection of its own.
    ///
    /// # Panics
    /// When Webdis doesn't answer within 20 seconds.
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> Answer {
        self.post(escaped(words).as_bytes())
    }

    /// Sends a body as it is.
    ///
    /// # Panics
    /// As [`Webdis::ask`].
    #[must_use]
    pub fn post(&self, body: &[u8]) -> Answer {
        let line = format!("authorization: {}\r\n", Self::authorization());
        post(self.address(), &line, body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// The same with these header lines, each with its end, in the place of the `authorization`.
    ///
    /// # Panics
    /// As [`Webdis::ask`].
    #[must_use]
    pub fn post_with(&self, lines: &str, body: &[u8]) -> Answer {
        post(self.address(), lines, body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// Stops it where it is: connections are accepted, nothing is answered. What it is asked meanwhile it passes on later.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pause(&self) {
        self.0.pause();
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it has ended.
    pub fn resume(&self) {
        self.0.resume();
    }

    /// Kills it: its connections are reset, and new ones refused.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again on the same port, and waits until it has reached Redis. It is killed first where it still runs.
    ///
    /// # Errors
    /// As [`Webdis::start`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.0.restart()
    }
}

/// A command as Webdis reads it: words with slashes between them. `/`, `?`, `%` and `+` mean something to it, and so does what
/// looks like a file's extension at the end.
#[must_use]
pub fn escaped(words: &[impl AsRef<[u8]>]) -> String {
    let word = |word: &[u8]| {
        let escape = |byte: &u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b':' => {
                char::from(*byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        };
        word.iter().map(escape).collect::<String>()
    };
    let words: Vec<String> = words.iter().map(|one| word(one.as_ref())).collect();
    words.join("/")
}

/// It says so in its own log, so that nobody else is meant who may have taken the port; then it has to reach Redis.
fn ready(process: &Process) -> bool {
    let line = format!("authorization: {}\r\n", Webdis::authorization());
    process.log().contains("up and running")
        && post(process.address(), &line, b"EVAL/return%201/0")
            .is_ok_and(|answer| answer.status == 200)
}

/// No `Connection: close`: Webdis before 0.1.16 drops such a request unless it arrives all at once.
fn post(address: SocketAddr, lines: &str, body: &[u8]) -> Result<Answer, WireError> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: webdis\r\n{lines}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let response = wire::exchange(address, "POST", &[head.as_bytes(), body].concat())?;
    Ok(Answer {
        status: response.status,
        body: response.body.to_vec(),
    })
}
