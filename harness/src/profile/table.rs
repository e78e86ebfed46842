//! Where the hosts differ: one row for each difference, the only place where rows are named.
//!
//! Findings, reports and `tollgate hosts` speak of rows by their ids. A row that a filter can observe has an experiment
//! of the same id in the guest `quirks`, and a test that runs it under every profile and, where the row says that Envoy
//! was seen **running**, in a real Envoy. The other rows say why no filter can observe them.

mod bodies;
mod calls;
mod headers;
mod lifecycle;
mod replies;
mod state;
mod unobserved;

use std::fmt;

use serde::Serialize;

use super::Host;

/// One thing that a filter does, and what becomes of it on each host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Names the row for good, in kebab-case.
    pub id: &'static str,
    /// What it is about.
    pub topic: Topic,
    /// What the filter does, or what happens to it.
    pub act: &'static str,
    /// What the ABI's text promises; none: it leaves a choice, and the spec profile does as Envoy does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<&'static str>,
    /// What Envoy does.
    pub envoy: Seen,
    /// What Kong does.
    pub kong: Seen,
    /// The fields of [`super::Rules`] that model it; none where the flow of exchanges does.
    pub switches: &'static [&'static str],
    /// How the row is shown.
    pub proof: Proof,
}

/// What one host does, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// What it does.
    pub does: &'static str,
    /// How that is known.
    pub source: Source,
}

/// How something is known about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It was seen on that host running: Envoy 1.40, or nginx 1.27 with ngx_wasm_module.
    Running,
    /// It was read in that host's source.
    Source,
}

/// How a row is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// The guest `quirks` has an experiment of the row's id.
    Guest,
    /// No filter can observe it, for this reason.
    Unobserved(&'static str),
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each variant says what it is")]
pub enum Topic {
    Lifecycle,
    Traps,
    Headers,
    Bodies,
    Calls,
    Replies,
    SharedData,
    Queues,
    Metrics,
    Properties,
    Operation,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lifecycle => "lifecycle",
            Self::Traps => "traps",
            Self::Headers => "headers",
            Self::Bodies => "bodies",
            Self::Calls => "calls",
            Self::Replies => "local replies",
            Self::SharedData => "shared data",
            Self::Queues => "queues",
            Self::Metrics => "metrics",
            Self::Properties => "properties",
            Self::Operation => "operation",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Source => "source",
        })
    }
}

/// The rows, topic by topic.
static TOPICS: &[&[Difference]] = &[
    lifecycle::ROWS,
    headers::ROWS,
    bodies::ROWS,
    calls::ROWS,
    replies::ROWS,
    state::ROWS,
    unobserved::ROWS,
];

/// Every row, topic by topic.
pub fn differences() -> impl Iterator<Item = &'static Difference> {
    TOPICS.iter().flat_map(|rows| rows.iter())
}

impl Difference {
    /// The row of an id.
    #[must_use]
    pub fn named(id: &str) -> Option<&'static Self> {
        differences().find(|row| row.id == id)
    }

    /// What a host does.
    #[must_use]
    pub fn on(&self, host: Host) -> Seen {
        match host {
            Host::Envoy => self.envoy,
            Host::Kong => self.kong,
        }
    }

    /// Whether the hosts differ here as far as a filter sees; where not, the row says that they are known to agree.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.envoy.does != self.kong.does
    }

    const fn is(mut self, switches: &'static [&'static str]) -> Self {
        self.switches = switches;
        self
    }

    const fn unobserved(mut self, why: &'static str) -> Self {
        self.proof = Proof::Unobserved(why);
        self
    }

    const fn spec(mut self, does: &'static str) -> Self {
        self.spec = Some(does);
        self
    }
}

const fn row(
    topic: Topic,
    id: &'static str,
    act: &'static str,
    envoy: Seen,
    kong: Seen,
) -> Difference {
    Difference {
        id,
        topic,
        act,
        spec: None,
        envoy,
        kong,
        switches: &[],
        proof: Proof::Guest,
    }
}

const fn run(does: &'static str) -> Seen {
    Seen {
        does,
        source: Source::Running,
    }
}

const fn read(does: &'static str) -> Seen {
    Seen {
        does,
        source: Source::Source,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::{Difference, differences};
    use crate::profile::{Profile, Row};

    /// The switches of a profile, `shared_data.bounded` and the like, with their values.
    fn switches(profile: Profile) -> BTreeMap<String, Value> {
        let mut switches = BTreeMap::new();
        let rules = serde_json::to_value(profile.rules()).unwrap();
        for (name, value) in rules.as_object().unwrap() {
            match value {
                Value::Object(parts) if name == "shared_data" => {
                    let parts = parts.iter();
                    switches.extend(parts.map(|(part, v)| (format!("{name}.{part}"), v.clone())));
                }
                value => {
                    switches.insert(name.clone(), value.clone());
                }
            }
        }
        switches
    }

    #[test]
    fn ids_are_unique_and_in_kebab_case() {
        let mut seen = BTreeSet::new();
        for row in differences() {
            assert!(seen.insert(row.id), "{} twice", row.id);
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(row.id.chars().all(fits), "{}", row.id);
        }
    }

    #[test]
    fn every_switch_belongs_to_a_row_and_every_row_names_switches_that_are_there() {
        let known: BTreeSet<String> = switches(Profile::Envoy).into_keys().collect();
        let named: BTreeSet<String> = differences()
            .flat_map(|row| row.switches)
            .map(|name| (*name).to_owned())
            .collect();
        assert_eq!(known, named, "left: in Rules, right: in the table");
    }

    #[test]
    fn a_row_whose_switches_are_the_same_on_both_hosts_says_the_same_of_both() {
        let (envoy, kong) = (switches(Profile::Envoy), switches(Profile::Kong));
        for row in differences().filter(|row| !row.switches.is_empty()) {
            let differ = row.switches.iter().any(|name| envoy[*name] != kong[*name]);
            assert_eq!(differ, row.differs(), "{}", row.id);
        }
    }

    #[test]
    fn every_finding_names_a_row() {
        for finding in Row::ALL {
            let row = Difference::named(finding.id());
            let row = row.unwrap_or_else(|| panic!("no row {}", finding.id()));
            assert!(row.differs(), "{}: nothing to find", row.id);
        }
    }
}
