use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tollgate_harness::inspect::Severity;

use super::{Failure, Outcome, print};

const EXAMPLES: &str = "\
Examples:
  tollgate inspect target/wasm32-wasip1/wasm/tollgate_key_auth.wasm
  tollgate inspect --json filter.wasm | jq .imports

It ends with 1 where a host would not load the module at all.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The module
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let bytes = std::fs::read(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))
            .map_err(Failure::Input)?;
        let name = self.file.file_stem().unwrap_or_default().to_string_lossy();
        let inspection = tollgate_harness::inspect::inspect(&name, &bytes)
            .with_context(|| self.file.display().to_string())
            .map_err(Failure::Input)?;
        if self.json {
            print::line(serde_json::to_string_pretty(&inspection).map_err(Failure::run)?)?;
        } else {
            print::line(&inspection)?;
        }
        let refused = inspection
            .refusals
            .iter()
            .any(|refusal| refusal.severity == Severity::Fatal);
        Ok(if refused {
            Outcome::Failed
        } else {
            Outcome::Fine
        })
    }
}
