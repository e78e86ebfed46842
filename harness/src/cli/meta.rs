use anyhow::anyhow;
use clap::Args;
use tollgate_harness::catalog::{self, FILTERS};

use super::{Failure, Outcome, print};

const EXAMPLES: &str = "\
Example:
  tollgate meta key-auth > /opt/kong/wasm/tollgate_key_auth.meta.json

Kong reads it beside the module: without it a filter's configuration has to be a string, and is not checked.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The filter's name
    filter: String,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let filter = catalog::find(&self.filter).ok_or_else(|| {
            let known: Vec<_> = FILTERS.iter().map(|filter| filter.name).collect();
            Failure::Input(anyhow!(
                "no filter {}; there are: {}",
                self.filter,
                known.join(", ")
            ))
        })?;
        let meta = serde_json::to_string_pretty(&(filter.meta)()).map_err(Failure::run)?;
        print::line(meta)?;
        Ok(Outcome::Fine)
    }
}
