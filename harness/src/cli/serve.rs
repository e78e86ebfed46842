use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tollgate_harness::proxy::{Checked, ConfigError, Proxy, Source};

use super::signals::{Signals, Told};
use super::{Failure, Modules, Outcome};

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

It reads the file again when it, or a file that it names, changes, and at SIGHUP: open requests finish
with the filters they began with. What can't be used is refused, and what ran before goes on.
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

/// How often the files are looked at. A change is acted on at the second look that finds it standing still.
const LOOK: Duration = Duration::from_millis(500);

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let mut signals = Signals::listen().map_err(Failure::run)?;
        let mut source = Source::new(self.file, self.modules.search());
        let checked = read(&mut source, self.strict)
            .map_err(|error| Failure::Input(super::in_file(source.path(), error)))?;
        warn(&source, &checked);
        // Each stream takes two sockets, and systems begin with 1024.
        if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
            tracing::warn!("cannot raise the limit of open files: {error}");
        }
        let proxy = Proxy::start(checked.config).map_err(Failure::run)?;
        for address in proxy.addresses() {
            tracing::info!("listening on http://{address}");
        }
        if let Some(admin) = proxy.admin_address() {
            tracing::info!("admin on http://{admin} (/, /ready, /metrics, /config, /shared)");
        }
        loop {
            if proxy.has_died() {
                return Err(Failure::run(anyhow::anyhow!(
                    "a worker thread has died; requests that the others had under way were finished"
                )));
            }
            match signals.next(LOOK) {
                Told::Stop => break,
                Told::Reload => {
                    proxy.reopen_log();
                    reload(&proxy, &mut source, self.strict);
                }
                Told::Nothing if source.changed() => reload(&proxy, &mut source, self.strict),
                Told::Nothing => {}
            }
        }
        tracing::info!("stopping: open requests are being finished; a second signal ends at once");
        std::thread::spawn(move || {
            signals.wait_for_stop();
            std::process::exit(1);
        });
        proxy.shutdown();
        Ok(Outcome::Fine)
    }
}

fn read(source: &mut Source, strict: bool) -> Result<Checked, ConfigError> {
    let mut checked = source.load()?;
    if strict {
        checked.config = checked.config.strict();
    }
    Ok(checked)
}

fn reload(proxy: &Proxy, source: &mut Source, strict: bool) {
    let read = read(source, strict);
    if let Ok(checked) = &read {
        warn(source, checked);
    }
    let before = proxy.addresses();
    match proxy.reload(read) {
        Ok(()) => {
            tracing::info!("{}: reloaded", source.path().display());
            for address in proxy.addresses() {
                if !before.contains(&address) {
                    tracing::info!("listening on http://{address}");
                }
            }
        }
        Err(error) => {
            let error = super::in_file(source.path(), error);
            tracing::error!("not reloaded, what ran before goes on: {error}");
        }
    }
}

fn warn(source: &Source, checked: &Checked) {
    for warning in &checked.warnings {
        tracing::warn!("{}: {warning}", source.path().display());
    }
}
