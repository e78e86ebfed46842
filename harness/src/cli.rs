//! The command line: what each subcommand takes, and how its outcome becomes an exit code.

mod check;
mod demo;
mod hosts;
mod inspect;
mod meta;
mod mock_llm;
mod print;
mod serve;
mod signals;

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tollgate_harness::catalog::Search;
use tollgate_harness::conformance::{self, ConformanceArgs};
use tracing_subscriber::EnvFilter;

/// Runs, checks and tests Tollgate's proxy-wasm filters on a machine without a gateway.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    after_help = "Exit codes: 0 all is well, 1 a check, a test or a run failed, 2 the command or its input is wrong.\n\
                  RUST_LOG sets what is logged to stderr (error, warn, info, debug, trace)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the reverse proxy that a YAML file describes
    Serve(serve::Arguments),
    /// Try it: two mock providers behind the proxy with key-auth, and the curl lines to paste
    Demo(demo::Arguments),
    /// Serve an OpenAI-compatible mock provider
    MockLlm(mock_llm::Arguments),
    /// Check a proxy's YAML file, or one filter's configuration, without starting anything
    Check(check::Arguments),
    /// Show what a proxy-wasm module needs from its host, and which hosts would refuse it
    Inspect(inspect::Arguments),
    /// Show where hosts differ, and how that is known
    Hosts(hosts::Arguments),
    /// Print a filter's .meta.json: the schema of its configuration and the labels of its metrics
    Meta(meta::Arguments),
    /// Run golden cases of Kong's plugins against the filters
    Conformance(ConformanceArgs),
}

/// Where filter modules are looked for.
#[derive(Args, Clone, Debug)]
struct Modules {
    /// Directory with the filters' .wasm files [default: beside this program, then the workspace's build directory]
    #[arg(long, value_name = "DIR", env = "TOLLGATE_FILTERS")]
    filters: Option<PathBuf>,
}

impl Modules {
    fn search(&self) -> Search {
        Search::from_here(self.filters.clone())
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Fine,
    /// What was checked has faults; they are printed already.
    Failed,
}

/// A command that could not do its work.
#[derive(Debug)]
enum Failure {
    /// The input is at fault: a file that is not there, a configuration with errors.
    Input(anyhow::Error),
    /// The run is at fault: a port in use, a provider that doesn't answer.
    Run(anyhow::Error),
}

impl Failure {
    fn input(error: impl Into<anyhow::Error>) -> Self {
        Self::Input(error.into())
    }

    fn run(error: impl Into<anyhow::Error>) -> Self {
        Self::Run(error.into())
    }
}

pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let default_level = match cli.command {
        Command::Serve(_) | Command::Demo(_) | Command::MockLlm(_) => "info",
        Command::Check(_)
        | Command::Inspect(_)
        | Command::Hosts(_)
        | Command::Meta(_)
        | Command::Conformance(_) => "error",
    };
    start_log(default_level);
    let outcome = match cli.command {
        Command::Serve(arguments) => arguments.run(),
        Command::Demo(arguments) => arguments.run(),
        Command::MockLlm(arguments) => arguments.run(),
        Command::Check(arguments) => arguments.run(),
        Command::Inspect(arguments) => arguments.run(),
        Command::Hosts(arguments) => arguments.run(),
        Command::Meta(arguments) => arguments.run(),
        Command::Conformance(arguments) => return conformance::run(&arguments),
    };
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Err(Failure::Run(error)) => {
            print::complaint(format_args!("error: {error:#}"));
            ExitCode::from(1)
        }
        Err(Failure::Input(error)) => {
            print::complaint(format_args!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn start_log(default_level: &str) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A stderr that is gone would make it panic.
        .log_internal_errors(false)
        .init();
}

/// An error with the file that it is in; each of several lines is one mistake.
fn in_file(file: &Path, error: impl Display) -> anyhow::Error {
    anyhow::anyhow!(
        "{}:\n  {}",
        file.display(),
        error.to_string().replace('\n', "\n  ")
    )
}
