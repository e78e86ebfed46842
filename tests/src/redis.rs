//! Real Redis, real Webdis before it, and a front that speaks as Upstash's does, for tests.
//!
//! Both servers run with the files of `deploy/redis`, in a directory of their own, on a free port of the loopback interface and
//! without persistence. They can be killed, restarted where they were, and stopped (`SIGSTOP`) so that they accept connections and
//! answer nothing. They end when they are dropped.
//!
//! ```no_run
//! use tollgate_tests::redis::{Redis, Webdis};
//!
//! let redis = Redis::start().unwrap();
//! let webdis = Webdis::start(&redis).unwrap();
//! let answer = webdis.ask(&["EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", "tollgate:a", "b"]);
//! assert_eq!(answer.text(), r#"{"EVAL":[true,"OK"]}"#);
//! assert_eq!(redis.command(&["GET", "tollgate:a"]), "b");
//! ```

mod front;
mod process;
mod reply;
mod webdis;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

pub use front::RestFront;
pub use process::ServerError;
pub use reply::{Connection, Reply};
pub use webdis::{Answer, Webdis, escaped};

use crate::root;
use process::{Process, Program};

/// A running Redis, as `deploy/redis/redis.conf` sets it up: it evicts nothing.
#[derive(Debug)]
pub struct Redis(Process);

/// Where it is.
const SERVER: Program = Program {
    name: "redis-server",
    variable: "TOLLGATE_REDIS_SERVER",
};

impl Redis {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// Fails when it isn't installed, or doesn't start.
    pub fn start() -> Result<Self, ServerError> {
        Self::with(&[])
    }

    /// The same with further directives, such as `("maxmemory-policy", "allkeys-lru")`.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn with(directives: &[(&str, &str)]) -> Result<Self, ServerError> {
        let executable = SERVER.find()?;
        let directives: Vec<(String, String)> = directives
            .iter()
            .map(|(name, value)| (format!("--{name}"), (*value).to_owned()))
            .collect();
        let command = move |port: u16, directory: &std::path::Path| {
            let mut command = Command::new(&executable);
            command
                .arg(root().join("deploy/redis/redis.conf"))
                .args(["--port", &port.to_string(), "--appendonly", "no"])
                .arg("--dir")
                .arg(directory);
            for (name, value) in &directives {
                command.args([name, value]);
            }
            Ok(command)
        };
        Process::start(SERVER.name, command, answers).map(Self)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// A connection as the operator, who may do everything.
    ///
    /// # Errors
    /// Fails when Redis doesn't take it.
    pub fn connect(&self) -> io::Result<Connection> {
        connect(self.address(), "operator")
    }

    /// A connection as the user that Webdis logs in as, who may do what the filter's scripts need.
    ///
    /// # Errors
    /// As [`Redis::connect`].
    pub fn connect_confined(&self) -> io::Result<Connection> {
        connect(self.address(), "default")
    }

    /// Gives a command as the operator; its answer as `redis-cli` prints it into a pipe: lists and nothing as lines, errors as text.
    ///
    /// # Panics
    /// When Redis doesn't answer.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> String {
        let reply = self
            .connect()
            .and_then(|mut connection| connection.ask(words));
        reply
            .unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", self.0.log()))
            .to_string()
    }

    /// Stops it where it is: connections are accepted, nothing is answered. What it is asked meanwhile it does later.
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

    /// Kills it, with all it holds.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again, empty, on the same port. It is killed first where it still runs.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.0.restart()
    }
}

/// Whether it is this process that answers there.
fn answers(process: &Process) -> bool {
    let mut connection = match connect(process.address(), "operator") {
        Ok(connection) => connection,
        Err(_) => return false,
    };
    let told = connection.ask(&["INFO", "server"]);
    let mine = format!("process_id:{}\r\n", process.id());
    told.is_ok_and(|reply| reply.to_string().contains(&mine))
}

fn connect(address: SocketAddr, user: &str) -> io::Result<Connection> {
    let mut connection = Connection::open(address)?;
    let password = password(user).ok_or_else(|| io::Error::other("no such user"))?;
    match connection.ask(&["AUTH", user, &password])? {
        Reply::Status(_) => Ok(connection),
        other => Err(io::Error::other(other.to_string())),
    }
}

/// The password of a user, as the configuration has it.
fn password(user: &str) -> Option<String> {
    let configuration = fs::read_to_string(root().join("deploy/redis/redis.conf")).ok()?;
    let line = configuration
        .lines()
        .find(|line| line.starts_with(&format!("user {user} ")))?;
    let word = line.split(' ').find_map(|word| word.strip_prefix('>'))?;
    Some(word.to_owned())
}

/// A file of `deploy/redis` that is JSON.
fn configuration(name: &str) -> io::Result<Value> {
    let text = fs::read_to_string(root().join("deploy/redis").join(name))?;
    serde_json::from_str(&text).map_err(io::Error::other)
}
