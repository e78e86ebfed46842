use std::net::SocketAddr;

use clap::Args;
use tollgate_harness::demo::{Demo, DemoError};

use super::signals::Signals;
use super::{Failure, Modules, Outcome, print};

const EXAMPLES: &str = "\
Examples:
  tollgate demo
  tollgate demo --listen 127.0.0.1:9000
  tollgate demo --check";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Address to listen on; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Send each of the printed requests once, print what came of it and end
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    modules: Modules,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let demo =
            Demo::start(self.listen, !self.check, &self.modules.search()).map_err(|error| {
                match error {
                    DemoError::Config(error) => Failure::input(error),
                    error => Failure::run(error),
                }
            })?;
        if self.check {
            return check(&demo);
        }
        let mut stop = Signals::listen().map_err(Failure::run)?;
        print::line(demo.page())?;
        print::line("Ctrl-C ends it. Each request writes a line:")?;
        stop.wait_for_stop();
        Ok(Outcome::Fine)
    }
}

fn check(demo: &Demo) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Fine;
    for (example, result) in demo.check().map_err(Failure::run)? {
        match result {
            Ok(()) => print::line(format_args!("ok    {example}"))?,
            Err(mismatch) => {
                print::line(format_args!("FAIL  {example}: {mismatch}"))?;
                outcome = Outcome::Failed;
            }
        }
    }
    Ok(outcome)
}
