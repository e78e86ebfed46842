//! A rule: what is counted, for whom, for which requests, and how much of it there may be.

use crate::counter::{Kind, Limit};
use crate::decimal::Decimal;
use crate::subject::{Client, Part};
use crate::window::Window;
use std::borrow::Cow;
use std::num::NonZeroU32;
use tollgate_kit::json::{Kind as JsonKind, Value};
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
    pub(crate) limits: Vec<Limit>,
    /// Kong shows fractions as they were written; empty where the limits are whole.
    pub(crate) written: Vec<Decimal>,
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

    /// The limit for a consumer with this metadata: `limits.<rule>.limit` there, in place of the rule's own.
    pub(crate) fn limit_of(&self, metadata: Option<&str>) -> u64 {
        let own = own_limits(metadata, &self.name).and_then(|own| own_limit(own, "limit"));
        own.map_or(self.limit, Decimal::ceil)
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
        let model = client.model.unwrap_or_default();
        self.model.is_empty() || self.model.iter().any(|glob| glob.matches(model))
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
        let any = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        let consumer = || {
            let identity = client.identity;
            let names = identity.iter().flat_map(|identity| {
                let consumer = Some(identity.consumer.as_str());
                [
                    consumer,
                    identity.username.as_deref(),
                    identity.custom_id.as_deref(),
                ]
            });
            names
                .flatten()
                .filter(|name| !name.is_empty())
                .any(|name| any(&self.consumer, name))
        };
        let group = || client.groups().iter().any(|group| any(&self.group, group));
        (self.consumer.is_empty() || consumer()) && (self.group.is_empty() || group())
    }

    pub(crate) fn matches_path(&self, client: &Client<'_>) -> bool {
        let path = || {
            let path = crate::path::normalised(client.path);
            let path = String::from_utf8_lossy(&path);
            self.path.iter().any(|glob| glob.matches(&path))
        };
        self.path.is_empty() || path()
    }
}

impl Rule {
    /// What its counters' keys begin with.
    pub(crate) fn scope<'r>(&'r self, namespace: &'r str) -> [&'r str; 2] {
        [namespace, &self.name]
    }

    /// The limits for a consumer with this metadata: those under `limits.<rule>` there, by the names of the windows, in place of the
    /// rule's own. `window_seconds` of the rule is `limit` there. A value that is no limit leaves the rule's own in force.
    pub(crate) fn limits_of(&self, metadata: Option<&str>) -> Cow<'_, [Limit]> {
        let Some(own) = own_limits(metadata, &self.name) else {
            return Cow::Borrowed(&self.limits);
        };
        let limits = self.limits.iter().map(|limit| {
            let most = own_limit(own, member_of(limit.window));
            Limit {
                most: most.map_or(limit.most, |most| self.unit.counted(most)),
                ..*limit
            }
        });
        Cow::Owned(limits.collect())
    }
}

/// What a consumer's metadata has under `limits.<rule>`.
fn own_limits<'m>(metadata: Option<&'m str>, rule: &str) -> Option<Value<'m>> {
    let metadata = Value::parse(metadata?.as_bytes()).ok()?;
    metadata.member("limits")?.member(rule)
}

/// The limit in a member of it; `None` for what is no limit.
fn own_limit(own: Value<'_>, member: &str) -> Option<Decimal> {
    let JsonKind::Number(text) = own.member(member)?.kind() else {
        return None;
    };
    Decimal::parse(text).ok()
}

/// The member of a consumer's metadata that limits this window.
fn member_of(window: Window) -> &'static str {
    match window {
        Window::Seconds(_) => "limit",
        calendar => calendar.field(),
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
pub(crate) fn limits(given: impl IntoIterator<Item = (Window, u64)>, kind: Kind) -> Vec<Limit> {
    let limit = |(window, most)| Limit { window, most, kind };
    let mut limits: Vec<_> = given.into_iter().map(limit).collect();
    limits.sort_by_key(|limit| limit.window.length());
    limits
}

/// A window of one's own, in seconds.
pub(crate) fn custom(seconds: u64) -> Option<Window> {
    let seconds = u32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds < 1 << 31)?;
    NonZeroU32::new(seconds).map(Window::Seconds)
}
