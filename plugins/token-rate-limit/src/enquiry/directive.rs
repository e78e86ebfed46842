//! What an operator wants, as JSON.
//!
//! ```json
//! {"rule": "consumer", "by": {"consumer": "c-1", "model": "gpt-4.1"}, "action": "subtract", "amount": 500, "window": "day"}
//! ```

use super::{Asked, Enquiry, Order};
use crate::config::{Amount, Config};
use crate::counter::Correction;
use crate::decimal::Decimal;
use crate::lease::Claim;
use crate::ledger::Charge;
use crate::own_limits::OwnLimits;
use crate::rule::{Concurrency, Rule, Unit};
use crate::subject::{self, Part};
use crate::window::Window;
use tollgate_kit::config::{Field, Reader, Table};
use tollgate_kit::json::{Kind, Value};
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::{Json, of_type};
use tollgate_kit::store::Key;
use tollgate_kit::{keyword, record};

/// The largest order that is read, in bytes.
pub(crate) const MOST_BYTES: usize = 64 * 1024;

keyword! {
    /// What is to be done with a counter.
    pub enum Action {
        /// It is told.
        Read = "read",
        /// It is set to nothing.
        Reset = "reset",
        /// So much more is used.
        Add = "add",
        /// So much less is used.
        Subtract = "subtract",
    }
}

keyword! {
    /// One window of a rule, by the field that says its limit or length.
    pub enum Only {
        /// The calendar second.
        Second = "second",
        /// The calendar minute.
        Minute = "minute",
        /// The calendar hour.
        Hour = "hour",
        /// The calendar day.
        Day = "day",
        /// The calendar month.
        Month = "month",
        /// The calendar year.
        Year = "year",
        /// The window of one's own.
        Seconds = "window_seconds",
    }
}

/// An object that is kept as it was written.
#[derive(Clone, Debug)]
pub struct Metadata(String);

impl Field for Metadata {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Metadata> {
        let text = std::str::from_utf8(value.text()).ok();
        match text.filter(|_| matches!(value.kind(), Kind::Object)) {
            Some(text) => Some(Metadata(text.to_owned())),
            None => {
                reader.error("expected an object, as {\"limits\": {}}");
                None
            }
        }
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        of_type("object")
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::Null
    }
}

record! {
    /// An operator's order.
    pub struct RawDirective {
        /// The rule's name; `requests` for Kong's request limits.
        pub rule: String,
        /// Whose counter: a value for each part that the rule counts by.
        pub by: Table<String> = Table(Vec::new()),
        /// What is to be done.
        pub action: Action = Action::Read,
        /// How much, for `add` and `subtract`, as limits are written.
        pub amount: Option<Amount>,
        /// The window that is concerned. Left out, all of the rule's.
        pub window: Option<Only>,
        /// The consumer's metadata, where it has limits of its own.
        pub metadata: Option<Metadata>,
    }
}

/// Reads an order.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub(crate) fn read(body: &[u8], config: &Config) -> Result<Enquiry, Vec<String>> {
    // An order has no business with the gateway's environment.
    let mut reader = Reader::new(&|_| None);
    let enquiry = reader
        .document(body)
        .and_then(|value| RawDirective::read(value, &mut reader))
        .and_then(|raw| raw.enquiry(config, &mut reader));
    let (problems, _) = reader.finish();
    match enquiry {
        Some(enquiry) if problems.is_empty() => Ok(enquiry),
        _ => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

impl RawDirective {
    fn enquiry(&self, config: &Config, reader: &mut Reader<'_>) -> Option<Enquiry> {
        let rules = config.rules().enumerate();
        if let Some((place, rule)) = rules.into_iter().find(|(_, rule)| rule.name == self.rule) {
            return self.of_windows(place, rule, config, reader);
        }
        let mut leases = config.concurrency.iter().enumerate();
        if let Some((place, rule)) = leases.find(|(_, rule)| rule.name == self.rule) {
            return self.of_leases(place, rule, config, reader);
        }
        let names = config.rules().map(|rule| rule.name.as_str());
        let names = names.chain(config.concurrency.iter().map(|rule| rule.name.as_str()));
        let names: Vec<_> = names.collect();
        reader.member("rule", |reader| {
            reader.error(format_args!("expected one of: {}", names.join(", ")));
        });
        None
    }

    fn of_windows(
        &self,
        place: usize,
        rule: &Rule,
        config: &Config,
        reader: &mut Reader<'_>,
    ) -> Option<Enquiry> {
        if rule.limits.is_empty() {
            reader.member("rule", |reader| {
                reader.error("it denies what it matches, and counts nothing");
            });
            return None;
        }
        let limits = rule.limits_of(&self.own_limits());
        let only = self.only(&limits, reader);
        let correction = self.correction(rule.unit, reader);
        let key = self.key(
            &rule.scope(&config.namespace),
            &rule.by,
            !config.kong,
            reader,
        );
        let charge = Charge {
            rule: place,
            key: key?,
            overflow: rule.overflow,
            limits,
            amount: 0,
        };
        Some(Enquiry {
            order: correction?.map_or(Order::Read, |it| Order::Correct(it, only)),
            asked: vec![Asked::Windows(charge)],
        })
    }

    fn of_leases(
        &self,
        place: usize,
        rule: &Concurrency,
        config: &Config,
        reader: &mut Reader<'_>,
    ) -> Option<Enquiry> {
        if self.window.is_some() {
            reader.member("window", |reader| {
                reader.error("a limit of requests at once has none");
            });
        }
        let order = match self.correction(Unit::Requests, reader)? {
            None => Order::Read,
            Some(Correction::Reset) => Order::Correct(Correction::Reset, None),
            Some(Correction::Add(_) | Correction::Subtract(_)) => {
                reader.member("action", |reader| {
                    reader.error("expected one of: read, reset; requests at once can't be made up");
                });
                return None;
            }
        };
        let key = self.key(&rule.scope(&config.namespace), &rule.by, true, reader);
        let claim = Claim {
            rule: place,
            key: key?,
            overflow: rule.overflow,
            most: rule.limit_of(&self.own_limits()),
            ttl: rule.ttl,
        };
        Some(Enquiry {
            order,
            asked: vec![Asked::Leases(claim)],
        })
    }

    /// The consumer's own limits.
    fn own_limits(&self) -> OwnLimits {
        let metadata = self.metadata.as_ref();
        metadata.map_or_else(OwnLimits::default, |it| OwnLimits::of(&it.0))
    }

    /// The window that is concerned; `None` for all.
    fn only(&self, limits: &[crate::counter::Limit], reader: &mut Reader<'_>) -> Option<Window> {
        let only = self.window?;
        let mut windows = limits.iter().map(|limit| limit.window);
        let window = windows.find(|window| window.field() == only.word());
        reader.member("window", |reader| {
            if self.action == Action::Read {
                reader.error("all windows are read: leave it out");
            } else if window.is_none() {
                let fields: Vec<_> = limits.iter().map(|limit| limit.window.field()).collect();
                reader.error(format_args!("expected one of: {}", fields.join(", ")));
            }
        });
        window
    }

    /// What is to be corrected, if anything; `None`, reported, where that can't be told.
    fn correction(&self, unit: Unit, reader: &mut Reader<'_>) -> Option<Option<Correction>> {
        reader.member("amount", |reader| {
            let amount = match (self.action, self.amount) {
                (Action::Read, None) => return Some(None),
                (Action::Reset, None) => return Some(Some(Correction::Reset)),
                (Action::Read | Action::Reset, Some(_)) => {
                    reader.error("only for add and subtract");
                    return None;
                }
                (Action::Add | Action::Subtract, None) => {
                    reader.error("required field missing");
                    return None;
                }
                (Action::Add | Action::Subtract, Some(Amount(amount))) => amount,
            };
            if unit != Unit::Cost && Decimal::whole(amount.ceil()) != amount {
                reader.error("expected an integer: only cost has fractions");
                return None;
            }
            let counted = unit.counted(amount);
            Some(Some(if self.action == Action::Add {
                Correction::Add(counted)
            } else {
                Correction::Subtract(counted)
            }))
        })
    }

    /// The key of the counter that `by` spells out.
    fn key(
        &self,
        scope: &[&str],
        parts: &[Part],
        typed: bool,
        reader: &mut Reader<'_>,
    ) -> Option<Key> {
        let Table(given) = &self.by;
        let mut used = vec![false; given.len()];
        let key = subject::key_of_named(scope, parts, typed, |word| {
            // Header names know no case.
            let named = |(name, _): &(String, String)| name.eq_ignore_ascii_case(word);
            let at = given.iter().position(named)?;
            if let Some(used) = used.get_mut(at) {
                *used = true;
            }
            given.get(at).map(|(_, value)| value.clone())
        });
        let words: Vec<_> = parts.iter().map(Part::word).collect();
        reader.member("by", |reader| {
            for ((name, _), used) in given.iter().zip(&used) {
                // What comes behind a part that is missing has not been looked at.
                if !used && key.is_ok() {
                    reader.member(name, |reader| {
                        reader.error(format_args!("the rule counts by {}", words.join(", ")));
                    });
                }
            }
            match &key {
                Ok(key) => Some(*key),
                Err(wanted) => {
                    let (first, others) = wanted.split_first()?;
                    reader.member(first, |reader| {
                        if others.is_empty() {
                            reader.error("required field missing");
                        } else {
                            reader.error(format_args!(
                                "required field missing (or {}, for requests that have none)",
                                others.join(", ")
                            ));
                        }
                    });
                    None
                }
            }
        })
    }
}
