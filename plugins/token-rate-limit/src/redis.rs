//! Counters in Redis, shared by several gateways, through an HTTP front: stock hosts give filters HTTP calls and nothing else.
//!
//! One script decides about all limits of a request at once (`charge.lua`), another settles many requests in one go (`settle.lua`).
//! Each operation has an id that the script remembers, so that a repeat after a timeout counts once. Windows are numbered by the
//! gateways' clocks, and a counter that a clock ahead of this one has moved on is charged where it is.

use crate::config::{Dialect, Front};
use crate::counter::{self, Kind, Limit, Standing};
use crate::ledger::{Account, Charge};
use std::fmt::Write as _;
use tollgate_kit::json::{self, Value};
use tollgate_kit::step::{Call, CallOutcome};
use tollgate_kit::store::Key;

const CHARGE: &str = include_str!("redis/charge.lua");
const SETTLE: &str = include_str!("redis/settle.lua");

/// So long, in milliseconds, a repeat of an operation is known.
const KNOWN: u64 = 600_000;

/// The difference that a request's end makes to one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    /// Nothing else has it.
    pub(crate) id: [u8; 16],
    pub(crate) key: Key,
    pub(crate) limits: Vec<Limit>,
    /// The windows in which it was charged.
    pub(crate) windows: Vec<u64>,
    /// Below 0: a refund.
    pub(crate) difference: i64,
}

/// What Redis said to a charge.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) admitted: bool,
    /// One for each charge, in order.
    pub(crate) accounts: Vec<Account>,
}

impl Front {
    /// Asks whether all of these charges fit, and makes them if they do.
    pub(crate) fn charge(&self, namespace: &str, id: [u8; 16], charges: &[Charge], now: u64) -> Call {
        let mut words = Words::new(CHARGE, charges.len().saturating_add(1));
        words.key(namespace, "operation", &id);
        for charge in charges {
            words.key(namespace, "counter", &charge.key);
        }
        words.number(KNOWN);
        for charge in charges {
            words.number(charge.amount);
            words.number(u64::try_from(charge.limits.len()).unwrap_or(u64::MAX));
            for limit in &charge.limits {
                let number = limit.window.number(now);
                let (start, end) = (limit.window.start(number), limit.window.end(number));
                words.number(u64::from(limit.window.code()));
                words.number(number);
                words.number(limit.most);
                words.kind(limit.kind);
                words.number(end.saturating_sub(now));
                words.number(end.saturating_sub(start));
            }
        }
        self.call(&words)
    }

    /// Settles requests.
    pub(crate) fn settle(&self, namespace: &str, settlements: &[Settlement], now: u64) -> Call {
        let mut words = Words::new(SETTLE, settlements.len().saturating_mul(2));
        for settlement in settlements {
            words.key(namespace, "operation", &settlement.id);
            words.key(namespace, "counter", &settlement.key);
        }
        words.number(KNOWN);
        for settlement in settlements {
            words.text(settlement.difference.to_string());
            words.number(u64::try_from(settlement.limits.len()).unwrap_or(u64::MAX));
            for (limit, charged) in settlement.limits.iter().zip(&settlement.windows) {
                let number = limit.window.number(now);
                let (start, end) = (limit.window.start(number), limit.window.end(number));
                words.number(u64::from(limit.window.code()));
                words.number(*charged);
                words.number(number);
                words.number(limit.most);
                words.kind(limit.kind);
                words.number(end.saturating_sub(start));
            }
        }
        self.call(&words)
    }

    fn call(&self, words: &Words) -> Call {
        let (body, kind) = match self.dialect {
            Dialect::Webdis => (words.webdis(), "text/plain"),
            Dialect::Upstash => (words.upstash(), "application/json"),
        };
        let mut headers = self.headers.clone();
        headers.push(("content-type".to_owned(), kind.as_bytes().to_vec()));
        Call {
            upstream: self.upstream.clone(),
            method: "POST",
            path: self.path.clone(),
            authority: self.authority.clone(),
            headers,
            body,
            timeout: self.timeout,
        }
    }

    /// What the answer to a call says; else why it says nothing.
    fn answer(&self, outcome: &CallOutcome) -> Result<String, String> {
        let response = match outcome {
            CallOutcome::Response(response) => response,
            CallOutcome::Failed => return Err(format!("{} did not answer", self.upstream)),
        };
        let malformed = || format!("{} answered {} and no result", self.upstream, response.status);
        if response.status != 200 {
            return Err(format!("{} answered {}", self.upstream, response.status));
        }
        let value = Value::parse(&response.body).map_err(|_| malformed())?;
        let member = match self.dialect {
            Dialect::Webdis => "EVAL",
            Dialect::Upstash => "result",
        };
        let result = value.member(member).ok_or_else(malformed)?;
        match result.as_str() {
            Some(text) => Ok(text.into_owned()),
            None => String::from_utf8(result.text().to_vec()).map_err(|_| malformed()),
        }
    }

    /// What Redis has decided.
    ///
    /// # Errors
    /// Says what is wrong with the answer. Whether the charges were made is not known then.
    pub(crate) fn decision(
        &self,
        outcome: &CallOutcome,
        charges: &[Charge],
        now: u64,
    ) -> Result<Decision, String> {
        let text = self.answer(outcome)?;
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let mut next = || {
            let number = numbers.next().and_then(Result::ok);
            number.ok_or_else(|| format!("{} answered something else", self.upstream))
        };
        let admitted = next()? == 1;
        let mut accounts = Vec::with_capacity(charges.len());
        for charge in charges {
            let mut standings: Vec<Standing> = Vec::with_capacity(charge.limits.len());
            for limit in &charge.limits {
                let (used, number) = (next()?, next()?);
                let amount = if admitted { 0 } else { charge.amount };
                standings.push(counter::standing(limit, used, number, amount, now));
            }
            accounts.push(Account {
                rule: charge.rule,
                limits: charge.limits.clone(),
                standings,
            });
        }
        Ok(Decision { admitted, accounts })
    }

    /// Whether settlements have arrived.
    ///
    /// # Errors
    /// Says why not, as far as is known: they are repeated then.
    pub(crate) fn settled(&self, outcome: &CallOutcome) -> Result<(), String> {
        let text = self.answer(outcome)?;
        match text.parse::<u64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("{} answered something else", self.upstream)),
        }
    }
}

/// A command of Redis, word by word.
struct Words(Vec<String>);

impl Words {
    fn new(script: &str, keys: usize) -> Words {
        Words(vec!["EVAL".to_owned(), script.to_owned(), keys.to_string()])
    }

    fn text(&mut self, word: String) {
        self.0.push(word);
    }

    fn number(&mut self, number: u64) {
        self.text(number.to_string());
    }

    fn kind(&mut self, kind: Kind) {
        self.number(match kind {
            Kind::Fixed => 0,
            Kind::FixedWithDebt => 1,
            Kind::Sliding => 2,
        });
    }

    fn key(&mut self, namespace: &str, what: &str, key: &Key) {
        let mut name = format!("tollgate:{namespace}:{what}:");
        for byte in key {
            let _ = write!(name, "{byte:02x}");
        }
        self.text(name);
    }

    /// As Webdis reads it: the words behind each other, each with its special characters as escapes.
    fn webdis(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b'/');
            }
            for byte in word.bytes() {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
                    out.push(byte);
                } else {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
            }
        }
        out
    }

    /// As Upstash reads it: a JSON array.
    fn upstash(&self) -> Vec<u8> {
        let mut out = vec![b'['];
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::quote(word.as_bytes(), &mut out);
        }
        out.push(b']');
        out
    }
}
