//! A rule: what is counted, for whom, for which requests, and how much of it there may be.

use crate::counter::{Kind, Limit};
use crate::decimal::Decimal;
use crate::own_limits::OwnLimits;
use crate::subject::{Client, Part};
use crate::window::Window;
use std::iter;
use std::num::NonZeroU32;
use std::rc::Rc;
use tollgate_kit::keyword;
use tollgate_kit::store::Key;
use tollgate_llm::{Cost, Glob, Price, Usage};

keyword! {
    /// What a rule counts.
    pub enum Unit {
        /// Prompt and completion tokens together.
        Total = "total",
        /// Tokens of prompts.
        Prompt = "prompt",
        /// Generated tokens, reasoning included.
        Completion = "completion",
        /// Money, by `pricing`.
        Cost = "cost",
        /// Requests.
        Requests = "requests",
    }
}

impl Unit {
    /// A limit as it is counted: tokens as they are, money in 10^-9 of its unit.
    pub(crate) fn counted(self, limit: Decimal) -> u64 {
        match self {
            Unit::Cost => limit.millionths().saturating_mul(1000),
            _ => limit.ceil(),
        }
    }

    /// The inverse, for a header.
    pub(crate) fn shown(self, counted: u64) -> String {
        match self {
            Unit::Cost => Decimal::of_millionths(counted / 1000).to_string(),
            _ => counted.to_string(),
        }
    }

    /// What a use of this size comes to. A count that is not known is 0: it has been estimated before.
    pub(crate) fn of(self, usage: &Usage, price: Option<&Price>) -> u64 {
        let (prompt, completion) = (
            usage.prompt.unwrap_or_default(),
            usage.completion.unwrap_or_default(),
        );
        match self {
            Unit::Requests => 1,
            Unit::Total => prompt.saturating_add(completion),
            Unit::Prompt => prompt,
            Unit::Completion => completion,
            Unit::Cost => price.map_or(0, |price| {
                let Cost(cost) = price.cost(usage);
                cost
            }),
        }
    }
}

/// A rule of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) by: Vec<Part>,
    pub(crate) matching: Matching,
    /// From the shortest window to the longest; none where the rule denies.
    pub(crate) limits: Rc<[Limit]>,
    /// Kong shows fractions as they were written; empty where the limits are whole.
    pub(crate) written: Vec<Decimal>,
    /// Whether a consumer may have limits of its own.
    pub(crate) can_be_own: bool,
    /// The entry that keys share which found no room.
    pub(crate) overflow: Key,
}

/// A rule of how many requests there may be at once.
#[derive(Clone, Debug)]
pub(crate) struct Concurrency {
    pub(crate) name: String,
    pub(crate) by: Vec<Part>,
    pub(crate) matching: Matching,
    pub(crate) limit: u64,
    /// How long a request counts of which nothing is heard, in seconds.
    pub(crate) ttl: u64,
    /// The entry that keys share which found no room.
    pub(crate) overflow: Key,
}

impl Concurrency {
    /// Whether it takes the body to know whom it counts, or whether it is for a request at all.
    pub(crate) fn reads_body(&self) -> bool {
        let told = |part: &Part| matches!(part, Part::Model | Part::Provider);
        self.by.iter().any(told) || !self.matching.model.is_empty()
    }

    /// What its leases' keys begin with: they are told from counters of a rule that was called the same.
    pub(crate) fn scope<'r>(&'r self, namespace: &'r str) -> [&'r str; 3] {
        ["leases", namespace, &self.name]
    }

    /// The limit for a consumer: its own, where it has one, in place of the rule's.
    pub(crate) fn limit_of(&self, own: &OwnLimits) -> u64 {
        own.at_once(&self.name).map_or(self.limit, Decimal::ceil)
    }
}

/// Which requests a rule is for. What is not given matches everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matching {
    pub(crate) model: Vec<Glob>,
    /// The consumer's id, name or custom id.
    pub(crate) consumer: Vec<Glob>,
    pub(crate) group: Vec<Glob>,
    pub(crate) path: Vec<Glob>,
    pub(crate) headers: Vec<(String, Glob)>,
}

impl Matching {
    pub(crate) fn matches(&self, client: &Client<'_>) -> bool {
        self.matches_model(client) && self.matches_but_for_model(client)
    }

    pub(crate) fn matches_model(&self, client: &Client<'_>) -> bool {
        fit(&self.model, [client.model.unwrap_or_default()])
    }

    /// What can be said before the body has told the model.
    pub(crate) fn matches_but_for_model(&self, client: &Client<'_>) -> bool {
        let header = |(name, glob): &(String, Glob)| {
            let mut values = client.headers.all(name);
            values.any(|value| glob.matches(&String::from_utf8_lossy(value)))
        };
        self.matches_identity(client)
            && self.matches_path(client)
            && self.headers.iter().all(header)
    }

    /// Whether it is for this consumer.
    pub(crate) fn matches_identity(&self, client: &Client<'_>) -> bool {
        let names = client.identity.into_iter().flat_map(|identity| {
            [
                Some(identity.consumer.as_str()),
                identity.username.as_deref(),
                identity.custom_id.as_deref(),
            ]
        });
        let names = names.flatten().filter(|name| !name.is_empty());
        fit(&self.consumer, names) && fit(&self.group, client.groups())
    }

    pub(crate) fn matches_path(&self, client: &Client<'_>) -> bool {
        let path = || String::from_utf8_lossy(&crate::path::normalised(client.path)).into_owned();
        fit(&self.path, iter::once_with(path))
    }
}

/// Whether one of the names matches one of the patterns; where no pattern is given, all do.
fn fit(globs: &[Glob], names: impl IntoIterator<Item: AsRef<str>>) -> bool {
    let any = |name: &str| globs.iter().any(|glob| glob.matches(name));
    globs.is_empty() || names.into_iter().any(|name| any(name.as_ref()))
}

impl Rule {
    /// What its counters' keys begin with.
    pub(crate) fn scope<'r>(&'r self, namespace: &'r str) -> [&'r str; 2] {
        [namespace, &self.name]
    }

    /// The limits for a consumer: its own, where it has such, in place of the rule's.
    pub(crate) fn limits_of(&self, own: &OwnLimits) -> Rc<[Limit]> {
        let mut limits = self.limits.iter();
        if !limits.any(|limit| self.own(own, limit).is_some()) {
            return Rc::clone(&self.limits);
        }
        let limits = self.limits.iter().map(|limit| {
            let most = self.own(own, limit).map(|most| self.unit.counted(most));
            Limit {
                most: most.unwrap_or(limit.most),
                ..*limit
            }
        });
        limits.collect()
    }

    /// These limits as Kong shows them.
    pub(crate) fn written_of(&self, own: &OwnLimits) -> Vec<Decimal> {
        let pairs = self.limits.iter().zip(&self.written);
        pairs
            .map(|(limit, written)| self.own(own, limit).unwrap_or(*written))
            .collect()
    }

    fn own(&self, own: &OwnLimits, limit: &Limit) -> Option<Decimal> {
        let most = self.can_be_own.then(|| own.most(&self.name, limit.window));
        most.flatten()
    }
}

keyword! {
    /// How a window's end is felt.
    pub enum Ending {
        /// Everything starts from 0 at the end of a window, but what was used beyond the limit is carried over.
        Fixed = "fixed",
        /// What was used in the window before counts by the share of it that the last window's length still covers.
        Sliding = "sliding",
    }
}

/// The limits of a rule, from the shortest window to the longest.
pub(crate) fn limits(given: impl IntoIterator<Item = (Window, u64)>, kind: Kind) -> Rc<[Limit]> {
    let limit = |(window, most)| Limit { window, most, kind };
    let mut limits: Vec<_> = given.into_iter().map(limit).collect();
    limits.sort_by_key(|limit| limit.window.length());
    limits.into()
}

/// A window of one's own, in seconds.
pub(crate) fn custom(seconds: u64) -> Option<Window> {
    let seconds = u32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds < 1 << 31)?;
    NonZeroU32::new(seconds).map(Window::Seconds)
}
