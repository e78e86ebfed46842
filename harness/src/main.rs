//! The `tollgate` command: runs, checks and tests Tollgate's filters on a machine without a gateway.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
