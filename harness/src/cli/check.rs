use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tollgate_harness::catalog;
use tollgate_harness::proxy::{Config, ConfigError, Proxy, json_from_yaml};

use super::{Failure, Modules, Outcome, print};

const EXAMPLES: &str = "\
Examples:
  tollgate check tollgate.yaml
  tollgate check --filter key-auth key-auth.yaml
  tollgate check --filter key-auth --env ALICE_KEY=secret - < key-auth.json

A proxy's file is read as `serve` reads it, and its filters are started once; no port is opened.
A filter's configuration, YAML or JSON, is read by the filter's own code.
Every mistake is printed, each with its path. Ends with 0 if there is none, 1 if there are some,
2 if the file can't be read.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The proxy's YAML file, or with --filter the filter's configuration; - reads stdin
    file: PathBuf,
    /// Check a configuration of this filter
    #[arg(long, value_name = "NAME", value_parser = filter_name)]
    filter: Option<&'static catalog::Filter>,
    /// A variable that the filter will see, for ${env:NAME} in its configuration (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, requires = "filter")]
    env: Vec<(String, String)>,
    #[command(flatten)]
    modules: Modules,
}

fn filter_name(name: &str) -> Result<&'static catalog::Filter, String> {
    catalog::FILTERS
        .iter()
        .find(|filter| filter.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = catalog::FILTERS.iter().map(|filter| filter.name).collect();
            format!("there are: {}", names.join(", "))
        })
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        match self.filter {
            Some(filter) => self.filter_configuration(filter),
            None => self.proxy_configuration(),
        }
    }

    fn filter_configuration(&self, filter: &catalog::Filter) -> Result<Outcome, Failure> {
        let text = read(&self.file).map_err(Failure::Input)?;
        let json = json_from_yaml(&text)
            .with_context(|| format!("{} is neither YAML nor JSON", self.file.display()))
            .map_err(Failure::Input)?;
        let environment = |name: &str| {
            self.env
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        let (errors, warnings) = match (filter.check)(json.as_bytes(), &environment) {
            Ok(warnings) => (Vec::new(), warnings),
            Err(errors) => (errors, Vec::new()),
        };
        for error in &errors {
            print::complaint(format_args!("error: {error}"));
        }
        for warning in &warnings {
            print::complaint(format_args!("warning: {warning}"));
        }
        self.conclude(errors.len(), warnings.len())
    }

    fn proxy_configuration(&self) -> Result<Outcome, Failure> {
        let text = read(&self.file).map_err(Failure::Input)?;
        let base = self.file.parent().unwrap_or(Path::new("."));
        let checked = match Config::read(&text, base, &self.modules.search()) {
            Ok(checked) => checked,
            Err(ConfigError::Wrong(errors)) => {
                for error in &errors {
                    print::complaint(format_args!("error: {error}"));
                }
                return self.conclude(errors.len(), 0);
            }
            Err(error) => return Err(Failure::Input(super::in_file(&self.file, error))),
        };
        for warning in &checked.warnings {
            print::complaint(format_args!("warning: {warning}"));
        }
        let started = Proxy::try_filters(&checked.config);
        if let Err(error) = &started {
            print::complaint(format_args!("error: {error}"));
        }
        self.conclude(usize::from(started.is_err()), checked.warnings.len())
    }

    fn conclude(&self, errors: usize, warnings: usize) -> Result<Outcome, Failure> {
        let file = self.file.display();
        if errors > 0 {
            print::complaint(format_args!("{file}: {errors} to mend"));
            return Ok(Outcome::Failed);
        }
        match warnings {
            0 => print::line(format_args!("{file}: valid"))?,
            _ => print::line(format_args!("{file}: valid, with {warnings} to consider"))?,
        }
        Ok(Outcome::Fine)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()));
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read stdin")?;
    Ok(text)
}
