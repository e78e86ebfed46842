//! Limits of requests under way at once.

use super::tokens::{self, Origin, RawMatch};
use super::{RawConfig, overflow};
use crate::lease;
use crate::rule::Concurrency;
use crate::subject::Part;
use tollgate_kit::config::Reader;
use tollgate_kit::record;

record! {
    /// A limit of requests under way at once.
    pub struct RawConcurrency {
        /// What it is called, in metrics and consumers' metadata. Leases belong to the name.
        pub name: String,
        /// Whom it counts: each combination counts for itself.
        pub by: Vec<Origin> = vec![Origin(Part::Consumer)],
        /// Which requests it is for; all that is given has to match. Left out, all requests. A rule that asks for the model or the
        /// provider here or in `by` is for the requests whose body `tokens` could count.
        pub matching as "match": Option<RawMatch>,
        /// How many may be under way at once; 0 denies what matches (403).
        pub limit: u64,
        /// How long a request counts of which nothing is heard, in seconds: longer than any pause in an answer. It matters where a
        /// worker dies; all others end when the request does.
        pub ttl_seconds: u64 = 600,
    }
}

/// The rules; what is wrong is reported.
pub(super) fn rules(raw: &RawConfig, reader: &mut Reader<'_>) -> Vec<Concurrency> {
    reader.member("concurrency", |reader| {
        let mut rules: Vec<Concurrency> = Vec::new();
        for (index, rule) in raw.concurrency.iter().enumerate() {
            let others = rules.iter().map(|rule| rule.name.as_str());
            let others = others.chain(raw.tokens.iter().map(|rule| rule.name.as_str()));
            let taken = others.into_iter().any(|other| other == rule.name);
            reader.element(index, |reader| {
                tokens::check_name(&rule.name, taken, reader);
                tokens::check_by(&rule.by, reader);
                if !(1..=lease::MOST_TTL).contains(&rule.ttl_seconds) {
                    reader.member("ttl_seconds", |reader| {
                        reader.error(format_args!(
                            "value should be between 1 and {}",
                            lease::MOST_TTL
                        ));
                    });
                }
            });
            rules.push(rule.rule(&raw.namespace));
        }
        rules
    })
}

impl RawConcurrency {
    fn rule(&self, namespace: &str) -> Concurrency {
        let matching = self.matching.as_ref().map(RawMatch::matching);
        Concurrency {
            name: self.name.clone(),
            by: self.by.iter().map(|origin| origin.0.clone()).collect(),
            matching: matching.unwrap_or_default(),
            limit: self.limit,
            ttl: self.ttl_seconds,
            // Leases are told from counters of a rule that was called the same.
            overflow: overflow(namespace, &format!("leases of {}", self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use tollgate_kit::config::check;

    #[test]
    fn every_mistake_is_told_where_it_is() {
        let text = r#"{"tokens": [{"name": "a", "minute": 1}], "host": "envoy", "concurrency": [
            {"name": "a", "limit": 1},
            {"name": "b c", "by": [], "limit": 1, "ttl_seconds": 0},
            {"name": "d", "by": ["model", "planet"]}
        ]}"#;
        let problems = |text: &str| {
            let problems = check::<Config>(text.as_bytes(), &|_| None).unwrap_err();
            let told = problems.iter().map(ToString::to_string);
            told.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            problems(text),
            "concurrency[2].by[1]: expected one of: consumer, credential, group, ip, header:NAME, route, service, path, model, provider\n\
             concurrency[2].limit: required field missing"
        );
        let text = text.replace(r#""by": ["model", "planet"]"#, r#""limit": 1"#);
        assert_eq!(
            problems(&text),
            "concurrency[0].name: the name of another limit: its counters would be the same\n\
             concurrency[1].name: 1 to 64 characters of A-Z, a-z, 0-9, '-', '_' and '.': it stands in headers and metrics\n\
             concurrency[1].by: length must be at least 1; [\"service\"] counts all clients together\n\
             concurrency[1].ttl_seconds: value should be between 1 and 86400"
        );
    }
}
