//! Counters in Redis, shared by several gateways, through an HTTP front: stock hosts give filters HTTP calls and nothing else.
//!
//! One script decides about all limits of a request at once (`charge.lua`), another takes in whatever is told later (`merge.lua`), a third
//! answers questions (`consult.lua`).
//! Each charge and each batch has an id that the scripts remember, so that a repeat after a timeout counts once. Windows are numbered by
//! the gateways' clocks, and a counter that a clock ahead of this one has moved on is charged where it is.
//!
//! | name in Redis | type | what |
//! |---|---|---|
//! | `tollgate:{<namespace>}:counter:<key>` | hash | the windows of one rule for one identity |
//! | `tollgate:{<namespace>}:operation:<id>` | string | what was said to a charge or a batch |
//!
//! All names of one namespace have one hash tag: a script's keys must be on one node of a Redis Cluster.

use crate::config::{Dialect, Front};
use crate::counter::{self, Correction, Kind, Limit, Total};
use crate::ledger::{Account, Charge};
use crate::outbox::Item;
use crate::window::Window;
use std::fmt::Write as _;
use tollgate_kit::json::{self, Value};
use tollgate_kit::step::{Call, CallOutcome};
use tollgate_kit::store::Key;

/// A script.
struct Script {
    text: &'static str,
    /// What it is called by once Redis has seen it: the SHA-1 of what [`stripped`] leaves of it (a test computes it).
    digest: &'static str,
}

/// Decides about a request.
const CHARGE: Script = Script {
    text: concat!(
        include_str!("redis/window.lua"),
        include_str!("redis/charge.lua")
    ),
    digest: "4d8c54ed457595bb58128953990e1b0a7c758f84",
};

/// Takes in what is told later.
const MERGE: Script = Script {
    text: concat!(
        include_str!("redis/window.lua"),
        include_str!("redis/merge.lua")
    ),
    digest: "fb52e3296f05d70a9e5e6b9bcf4dd41fb491a929",
};

/// Answers questions, and corrects.
const CONSULT: Script = Script {
    text: concat!(
        include_str!("redis/window.lua"),
        include_str!("redis/consult.lua")
    ),
    digest: "0d9ee6e8e820a883fd1b3ba937268fedbf70bb3a",
};

/// So long, in milliseconds, the repeat of a charge is known, and may still be taken back.
const CHARGE_KNOWN: u64 = 120_000;

/// So long, in milliseconds, the repeat of a batch is known.
const BATCH_KNOWN: u64 = 3_600_000;

/// What Redis said to a charge.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) admitted: bool,
    /// One for each charge, in order.
    pub(crate) accounts: Vec<Account>,
    /// The same, as Redis keeps them.
    pub(crate) totals: Vec<Vec<Total>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Redis has not seen the script: it is to be asked again with the whole of it. Nothing has been done.
    NoScript,
    /// Something else. Whether something has been done is not known.
    Because(String),
}

/// How a script is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelt {
    /// By its digest, which is short: one packet.
    Briefly,
    /// By its text, for a Redis that has not seen it.
    Out,
}

/// Redis behind its front, with the names under which this filter's counters stand there.
#[derive(Debug)]
pub(crate) struct Redis {
    front: Front,
    prefix: String,
}

impl Redis {
    pub(crate) fn new(front: Front, namespace: &str) -> Redis {
        Redis {
            front,
            prefix: format!("tollgate:{{{namespace}}}:"),
        }
    }

    /// Asks whether all of these charges fit, and makes them if they do.
    pub(crate) fn charge(&self, spelt: Spelt, id: &Key, charges: &[Charge], now: u64) -> Call {
        let mut words = self.about(&CHARGE, spelt, id, charges.iter());
        for charge in charges {
            words.push(charge.amount.to_string());
            words.push(charge.limits.len().to_string());
            for limit in charge.limits.iter() {
                let number = limit.window.number(now);
                words.extend(window(limit, number));
                words.push(limit.window.end(number).saturating_sub(now).to_string());
                words.push(length(limit, number).to_string());
            }
        }
        self.call(&words)
    }

    /// Tells what has been counted without Redis, and what has become of what it was asked.
    pub(crate) fn merge(&self, spelt: Spelt, id: &Key, items: &[Item], now: u64) -> Call {
        let keys = items.len().saturating_mul(2).saturating_add(1);
        let mut words = MERGE.words(spelt, keys);
        words.push(self.name("operation", id));
        for item in items {
            words.push(self.name("operation", item.takes_back.as_ref().unwrap_or(id)));
            words.push(self.name("counter", &item.key));
        }
        words.push(BATCH_KNOWN.to_string());
        for item in items {
            words.push(item.within.to_string());
            words.push(item.over.to_string());
            words.push(item.limits.len().to_string());
            for (limit, charged) in item.limits.iter().zip(&item.windows) {
                let number = limit.window.number(now);
                words.extend(window(limit, number));
                words.push(length(limit, number).to_string());
                words.push(charged.to_string());
            }
        }
        self.call(&words)
    }

    /// Asks how the counters of these charges stand, and corrects them first where that is wanted: one window of each, or all.
    pub(crate) fn consult(
        &self,
        spelt: Spelt,
        id: &Key,
        charges: &[&Charge],
        correction: Option<(Correction, Option<Window>)>,
        now: u64,
    ) -> Call {
        let mut words = self.about(&CONSULT, spelt, id, charges.iter().copied());
        for charge in charges {
            words.push(charge.limits.len().to_string());
            for limit in charge.limits.iter() {
                let number = limit.window.number(now);
                words.extend(window(limit, number));
                words.push(length(limit, number).to_string());
                let concerns = |only: Option<Window>| only.is_none_or(|it| it == limit.window);
                words.push(match correction {
                    Some((correction, only)) if concerns(only) => match correction {
                        Correction::Reset => "reset".to_owned(),
                        Correction::Add(more) => more.to_string(),
                        Correction::Subtract(less) => format!("-{less}"),
                    },
                    _ => "0".to_owned(),
                });
            }
        }
        self.call(&words)
    }

    /// Asks what Redis does when its memory is full.
    pub(crate) fn memory(&self) -> Call {
        self.call(&["INFO".to_owned(), "memory".to_owned()])
    }

    /// The first words of a script about the counters of these charges, up to how long its answer is kept.
    fn about<'c>(
        &self,
        script: &Script,
        spelt: Spelt,
        id: &Key,
        charges: impl ExactSizeIterator<Item = &'c Charge>,
    ) -> Vec<String> {
        let mut words = script.words(spelt, charges.len().saturating_add(1));
        words.push(self.name("operation", id));
        words.extend(charges.map(|charge| self.name("counter", &charge.key)));
        words.push(CHARGE_KNOWN.to_string());
        words
    }

    fn name(&self, what: &str, key: &Key) -> String {
        format!("{}{what}:{}", self.prefix, hex(key))
    }

    fn call(&self, words: &[String]) -> Call {
        let front = &self.front;
        let (body, kind) = match front.dialect {
            Dialect::Webdis => (webdis(words), "application/x-www-form-urlencoded"),
            Dialect::Upstash => (upstash(words), "application/json"),
        };
        let mut headers = front.headers.clone();
        headers.push(("content-type".to_owned(), kind.as_bytes().to_vec()));
        Call {
            upstream: front.upstream.clone(),
            method: "POST",
            path: front.path.clone(),
            authority: front.authority.clone(),
            headers,
            body,
            timeout: front.timeout,
        }
    }

    /// What Redis has decided.
    ///
    /// # Errors
    /// Says why that is not known.
    pub(crate) fn decision(
        &self,
        outcome: &CallOutcome,
        id: &Key,
        charges: &[Charge],
        now: u64,
    ) -> Result<Decision, Unanswered> {
        let text = self.answer(outcome, id)?;
        let mut numbers = Numbers(text.split(' '));
        let admitted = match numbers.skip_id().next() {
            Some(admitted @ (0 | 1)) => admitted == 1,
            _ => return Err(self.strange()),
        };
        let mut decision = Decision {
            admitted,
            accounts: Vec::with_capacity(charges.len()),
            totals: Vec::with_capacity(charges.len()),
        };
        for charge in charges {
            let totals = numbers
                .totals(charge.limits.len())
                .ok_or_else(|| self.strange())?;
            let amount = if admitted { 0 } else { charge.amount };
            decision.accounts.push(Account {
                rule: charge.rule,
                limits: charge.limits.clone(),
                standings: counter::standings_of(&totals, &charge.limits, amount, now),
            });
            decision.totals.push(totals);
        }
        Ok(decision)
    }

    /// What Redis has of counters with so many windows each: the answer to [`Redis::merge`] and [`Redis::consult`].
    ///
    /// # Errors
    /// Says why that is not known.
    pub(crate) fn totals(
        &self,
        outcome: &CallOutcome,
        id: &Key,
        windows: impl Iterator<Item = usize>,
    ) -> Result<Vec<Vec<Total>>, Unanswered> {
        let text = self.answer(outcome, id)?;
        let mut numbers = Numbers(text.split(' '));
        numbers.skip_id();
        let totals = windows.map(|windows| numbers.totals(windows));
        totals.collect::<Option<_>>().ok_or_else(|| self.strange())
    }

    /// What Redis does when its memory is full, where that is not to refuse writes; `None` where all is well or nobody tells.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub(crate) fn eviction(&self, outcome: &CallOutcome) -> Result<Option<String>, Unanswered> {
        let body = match outcome {
            // A front that does not pass the question on answers all the same.
            CallOutcome::Response(response) if (400..500).contains(&response.status) => {
                return Ok(None);
            }
            _ => self.body(outcome)?,
        };
        let value = Value::parse(body).map_err(|_| self.strange())?;
        // Webdis makes an object of it.
        let webdis = value
            .member("INFO")
            .and_then(|info| info.member(MEMORY_POLICY)?.as_str());
        let upstash = || {
            let text = value.member("result")?.as_str()?;
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(MEMORY_POLICY)?.strip_prefix(':'));
            line.map(str::to_owned)
        };
        let policy = webdis.map(|policy| policy.into_owned()).or_else(upstash);
        Ok(policy.filter(|policy| policy != "noeviction"))
    }

    /// The text that a script has answered to the operation of this id. Webdis 0.1.9 gives the answer to a call that nobody waits for any
    /// more to whoever has its socket then: an answer to another's question is none.
    fn answer(&self, outcome: &CallOutcome, id: &Key) -> Result<String, Unanswered> {
        let body = match outcome {
            // Upstash answers so for an error of Redis.
            CallOutcome::Response(response) if response.status == 400 => &response.body,
            _ => self.body(outcome)?,
        };
        let value = Value::parse(body).map_err(|_| self.strange())?;
        let said = ["EVALSHA", "EVAL", "result", "error"]
            .iter()
            .find_map(|member| value.member(member))
            .ok_or_else(|| self.strange())?;
        let text = match said.as_str() {
            Some(text) => text,
            // Webdis' errors: [false, "..."].
            None => {
                let error = said.items().find_map(|item| item.as_str());
                error.ok_or_else(|| self.strange())?
            }
        };
        if text.starts_with("NOSCRIPT") {
            return Err(Unanswered::NoScript);
        }
        if text.starts_with(&hex(id)) {
            return Ok(text.into_owned());
        }
        // What Redis complains of says nothing of anybody's request.
        let error = text.split_once(' ').map(|(word, _)| word);
        let complains =
            error.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
        Err(if complains {
            Unanswered::Because(format!("{} answered: {text}", self.front.upstream))
        } else {
            self.strange()
        })
    }

    fn body<'o>(&self, outcome: &'o CallOutcome) -> Result<&'o Vec<u8>, Unanswered> {
        let upstream = &self.front.upstream;
        Err(Unanswered::Because(match outcome {
            CallOutcome::Response(response) if response.status == 200 => return Ok(&response.body),
            CallOutcome::Response(response) => format!("{upstream} answered {}", response.status),
            CallOutcome::Failed => format!("{upstream} did not answer"),
        }))
    }

    fn strange(&self) -> Unanswered {
        Unanswered::Because(format!("{} answered something else", self.front.upstream))
    }
}

/// What Redis calls its rule for a full memory.
const MEMORY_POLICY: &str = "maxmemory_policy";

fn hex(key: &Key) -> String {
    key.iter()
        .fold(String::with_capacity(32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

impl Script {
    /// The first words of a command that runs it with so many keys.
    fn words(&self, spelt: Spelt, keys: usize) -> Vec<String> {
        let (command, script) = match spelt {
            Spelt::Briefly => ("EVALSHA", self.digest.to_owned()),
            Spelt::Out => ("EVAL", stripped(self.text)),
        };
        vec![command.to_owned(), script, keys.to_string()]
    }
}

/// The numbers of an answer, one after the other.
struct Numbers<'t>(std::str::Split<'t, char>);

impl Numbers<'_> {
    fn skip_id(&mut self) -> &mut Self {
        let _ = self.0.next();
        self
    }

    fn next(&mut self) -> Option<u64> {
        self.0.next()?.parse().ok()
    }

    fn totals(&mut self, windows: usize) -> Option<Vec<Total>> {
        let mut total = || {
            Some(Total {
                number: self.next()?,
                used: self.next()?,
                before: self.next()?,
            })
        };
        (0..windows).map(|_| total()).collect()
    }
}

/// The words that every script begins a window with.
fn window(limit: &Limit, number: u64) -> [String; 4] {
    [
        limit.window.code().to_string(),
        number.to_string(),
        limit.most.to_string(),
        kind(limit.kind).to_owned(),
    ]
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Fixed => "0",
        Kind::FixedWithDebt => "1",
        Kind::Sliding => "2",
    }
}

fn length(limit: &Limit, number: u64) -> u64 {
    limit
        .window
        .end(number)
        .saturating_sub(limit.window.start(number))
}

/// A script without its comments and indentation, which every call would carry.
fn stripped(script: &str) -> String {
    let lines = script.lines().map(str::trim);
    let code = lines.filter(|line| !line.is_empty() && !line.starts_with("--"));
    code.collect::<Vec<_>>().join("\n")
}

/// As Webdis reads a command: its words with slashes between them. Only these characters mean something to it (the point chooses a format
/// where the last word ends in one).
fn webdis(words: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            out.push(b'/');
        }
        for byte in word.bytes() {
            if matches!(byte, b'/' | b'?' | b'%' | b'+' | b'.') {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                out.push(byte);
            }
        }
    }
    out
}

/// As Upstash reads a command: a JSON array.
fn upstash(words: &[String]) -> Vec<u8> {
    let mut out = vec![b'['];
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::quote(word.as_bytes(), &mut out);
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests;
