use std::path::PathBuf;

use clap::Args;
use tollgate_harness::proxy::{Config, Proxy};

use super::{Failure, Modules, Outcome, StopSignals};

const EXAMPLE: &str = "\
Example of a file:
  listeners: [{address: 127.0.0.1:8080}]
  admin: {address: 127.0.0.1:9901}
  routes: [{prefix: /v1, cluster: llm, filters: [auth]}]
  clusters: {llm: {endpoints: [127.0.0.1:9001]}}
  filters:
    auth:
      wasm: key-auth
      config:
        key_names: [X-API-Key]
        consumers: [{username: alice, credentials: [{key: alice-key}]}]

It stops at Ctrl-C or SIGTERM, when the open requests are done. Stdout gets one line of JSON a
request, stderr everything else; neither has headers or queries, where keys are.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The proxy's YAML file
    file: PathBuf,
    /// Answer 500 where a filter does what does not work on every host, and name the row of `tollgate hosts`
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    modules: Modules,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let mut stop = StopSignals::listen().map_err(Failure::run)?;
        let checked = Config::load(&self.file, &self.modules.search())
            .map_err(|error| Failure::Input(super::in_file(&self.file, error)))?;
        for warning in checked.warnings {
            tracing::warn!("{}: {warning}", self.file.display());
        }
        // Each stream takes two sockets, and systems begin with 1024.
        if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
            tracing::warn!("cannot raise the limit of open files: {error}");
        }
        let config = if self.strict {
            checked.config.strict()
        } else {
            checked.config
        };
        let proxy = Proxy::start(config).map_err(Failure::run)?;
        for address in proxy.addresses() {
            tracing::info!("listening on http://{address}");
        }
        if let Some(admin) = proxy.admin_address() {
            tracing::info!("admin on http://{admin} (/ready, /metrics)");
        }
        stop.wait();
        tracing::info!("stopping: open requests are being finished; a second signal ends at once");
        std::thread::spawn(move || {
            stop.wait();
            std::process::exit(1);
        });
        proxy.shutdown();
        Ok(Outcome::Fine)
    }
}
