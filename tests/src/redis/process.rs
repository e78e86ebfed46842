use std::env;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take until it answers, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// So often another port is tried, where somebody was faster to take it.
const PORTS: usize = 5;

/// Why a server doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Occurs when its program can't be found.
    #[error("no {name} found: install it with `just setup`, or name its executable in {variable}")]
    NotFound {
        /// The program.
        name: &'static str,
        /// The variable that can name it.
        variable: &'static str,
    },
    /// Occurs when a file can't be written or read, or the process can't be started.
    #[error("starting {name}: {source}")]
    Spawn {
        /// The program.
        name: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// Occurs when it ends before it is ready.
    #[error("{name} ended before it was ready:\n{log}")]
    Ended {
        /// The program.
        name: &'static str,
        /// Its log.
        log: String,
    },
    /// Occurs when it isn't ready in time.
    #[error("{name} was not ready after {} s:\n{log}", PATIENCE.as_secs())]
    Late {
        /// The program.
        name: &'static str,
        /// Its log.
        log: String,
    },
}

/// A program that the tests need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The environment variable that names its executable.
    pub(super) variable: &'static str,
}

impl Program {
    /// Its executable: what the variable names, else the one in PATH.
    pub(super) fn find(self) -> Result<PathBuf, ServerError> {
        let found = match env::var_os(self.variable) {
            Some(named) => Some(PathBuf::from(named)).filter(|path| path.is_file()),
            None => env::split_paths(&env::var_os("PATH").unwrap_or_default())
                .map(|directory| directory.join(self.name))
                .find(|path| path.is_file()),
        };
        found.ok_or(ServerError::NotFound {
            name: self.name,
            variable: self.variable,
        })
    }
}

/// Makes the command that starts a server on a port, with a directory of its own.
type Make = Box<dyn Fn(u16, &Path) -> io::Result<Command> + Send + Sync>;

/// A server as a child process.
pub(super) struct Process {
    name: &'static str,
    make: Make,
    ready: fn(&Process) -> bool,
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Process {
    /// Starts it on a free port and waits until it is ready.
    pub(super) fn start(
        name: &'static str,
        make: impl Fn(u16, &Path) -> io::Result<Command> + Send + Sync + 'static,
        ready: fn(&Process) -> bool,
    ) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Spawn { name, source };
        let directory = tempfile::tempdir().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let child = spawn(&make, port, directory.path()).map_err(failed)?;
        let mut process = Self {
            name,
            make: Box::new(make),
            ready,
            child,
            port,
            directory,
        };
        for _ in 1..PORTS {
            match process.wait_until_ready() {
                Err(ServerError::Ended { log, .. }) if log.contains("already in use") => {
                    process.port = free_port().map_err(failed)?;
                    process.spawn()?;
                }
                outcome => return outcome.map(|()| process),
            }
        }
        process.wait_until_ready().map(|()| process)
    }

    fn spawn(&mut self) -> Result<(), ServerError> {
        let started = spawn(&self.make, self.port, self.directory.path());
        self.child = started.map_err(|source| ServerError::Spawn {
            name: self.name,
            source,
        })?;
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<(), ServerError> {
        let (name, started) = (self.name, Instant::now());
        while started.elapsed() < PATIENCE {
            let ended = self.child.try_wait();
            if ended
                .map_err(|source| ServerError::Spawn { name, source })?
                .is_some()
            {
                let log = self.log();
                return Err(ServerError::Ended { name, log });
            }
            if (self.ready)(self) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let log = self.log();
        Err(ServerError::Late { name, log })
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said since it was last started.
    pub(super) fn log(&self) -> String {
        let log = fs::read(self.directory.path().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(super) fn pause(&self) {
        self.signal("STOP");
    }

    pub(super) fn resume(&self) {
        self.signal("CONT");
    }

    /// The shell's own `kill`: the standard library can send no signal but the last one.
    fn signal(&self, name: &str) {
        let done = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.id())])
            .status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "{} has ended: no SIG{name} for it",
            self.name
        );
    }

    pub(super) fn kill(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn restart(&mut self) -> Result<(), ServerError> {
        self.kill();
        self.spawn()?;
        self.wait_until_ready()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} on {}", self.name, self.id(), self.address())
    }
}

/// In the server's directory.
const LOG: &str = "log";

fn spawn(
    make: impl Fn(u16, &Path) -> io::Result<Command>,
    port: u16,
    directory: &Path,
) -> io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(directory.join(LOG))?;
    make(port, directory)?
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
