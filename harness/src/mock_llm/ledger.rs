//! What the provider served, to whom, and how much of it was written. What each field means stands in [`super`].
//!
//! An entry is made once, when its response ended, and never changes. A response that is open when the ledger is
//! emptied is never entered, and `fail=` counts from the start then.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::Api;
use super::reply::Usage;

/// The most entries that are kept.
const MOST: usize = 100_000;

/// Bytes of a key's SHA-256 that stand for it.
const KEY_BYTES: usize = 6;

/// Who asked: the start of the SHA-256 of the key, so that no key stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyId([u8; KEY_BYTES]);

impl KeyId {
    pub(super) fn of(key: &str) -> Self {
        let digest = Sha256::digest(key.as_bytes());
        Self(std::array::from_fn(|index| digest[index]))
    }

    pub(super) fn text(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it was written.
    Complete,
    /// With an error event in a stream.
    Errored,
    /// The provider reset the connection.
    Reset,
    /// The provider ended the connection too early.
    Closed,
    /// The provider stopped writing, and then the client left.
    Stalled,
    /// The client left.
    Client,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Errored => "error_event",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Stalled => "stalled",
            Self::Client => "client",
        }
    }
}

/// What is known of a request when its answer is made.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) request: Arc<str>,
    pub(super) key: Option<KeyId>,
    pub(super) model: Option<Arc<str>>,
    pub(super) api: Api,
    pub(super) status: u16,
    pub(super) streamed: bool,
    pub(super) usage: Usage,
    pub(super) plan: String,
}

/// What a piece of an answer tells of its usage. That of the prompt is told whenever any is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Telling {
    completion: usize,
    /// Whether it is that of the whole answer.
    last: bool,
}

impl Telling {
    /// So many completion tokens, and there are more to come.
    pub(super) fn so_far(completion: usize) -> Self {
        Self {
            completion,
            last: false,
        }
    }

    pub(super) fn last(usage: &Usage) -> Self {
        Self {
            completion: usage.completion,
            last: true,
        }
    }
}

/// How far a response was written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    tokens: usize,
    bytes: u64,
    /// The last that it told of its usage.
    told: Option<Telling>,
}

impl Written {
    fn usage_sent(&self) -> bool {
        self.told.is_some_and(|told| told.last)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    asked: Asked,
    written: Written,
    ended: Ended,
}

/// What one key got of one model.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    requests: u64,
    errors: u64,
    aborted: u64,
    usage: Usage,
    written_tokens: usize,
    /// Responses that told the usage of the whole answer.
    usage_sent: u64,
    told_prompt: usize,
    told_completion: usize,
}

/// The book itself, shared by all threads of a provider.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// Counts the times it was emptied.
    volume: u64,
    open: u64,
    last: u64,
    entries: VecDeque<Entry>,
    totals: HashMap<(Option<KeyId>, Option<Arc<str>>), Totals>,
}

/// A response under way. It is entered when it ends, or is dropped because its client left.
#[derive(Debug)]
pub(super) struct Open {
    ledger: Arc<Ledger>,
    volume: u64,
    asked: Option<Asked>,
    written: Written,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a response.
    pub(super) fn open(self: &Arc<Self>, asked: Asked) -> Open {
        let mut book = self.book();
        book.open += 1;
        Open {
            ledger: Arc::clone(self),
            volume: book.volume,
            asked: Some(asked),
            written: Written::default(),
        }
    }

    /// The responses that are open.
    pub(super) fn open_responses(&self) -> u64 {
        self.book().open
    }

    /// Begins anew.
    pub(super) fn reset(&self) {
        let mut book = self.book();
        *book = Book {
            volume: book.volume + 1,
            ..Book::default()
        };
    }

    /// The document of `GET /ledger`, with the entries after that sequence number.
    pub(super) fn document(&self, provider: &str, since: u64) -> Value {
        // Only copied under the lock: what is written here is large, and requests wait for it.
        let (open, last, entries, mut totals) = {
            let book = self.book();
            let entries: Vec<Entry> = book
                .entries
                .iter()
                .rev()
                .take_while(|entry| entry.sequence > since)
                .cloned()
                .collect();
            let totals: Vec<_> = book.totals.clone().into_iter().collect();
            (book.open, book.last, entries, totals)
        };
        totals.sort_by_cached_key(|((key, model), _)| (key.map(KeyId::text), model.clone()));
        let totals = totals.into_iter().map(|((key, model), totals)| {
            json!({
                "key": key.map(KeyId::text),
                "model": model.as_deref(),
                "requests": totals.requests,
                "errors": totals.errors,
                "aborted": totals.aborted,
                "prompt_tokens": totals.usage.prompt,
                "cached_tokens": totals.usage.cached,
                "completion_tokens": totals.usage.completion,
                "reasoning_tokens": totals.usage.reasoning,
                "written_tokens": totals.written_tokens,
                "usage_sent": totals.usage_sent,
                "told_prompt_tokens": totals.told_prompt,
                "told_completion_tokens": totals.told_completion,
            })
        });
        json!({
            "provider": provider,
            "open": open,
            "last": last,
            "entries": entries.iter().rev().map(Entry::document).collect::<Value>(),
            "totals": totals.collect::<Value>(),
        })
    }
}

impl Entry {
    fn document(&self) -> Value {
        let usage = &self.asked.usage;
        let told = self.written.told;
        json!({
            "sequence": self.sequence,
            "request_id": &*self.asked.request,
            "key": self.asked.key.map(KeyId::text),
            "model": self.asked.model.as_deref(),
            "api": self.asked.api.name(),
            "status": self.asked.status,
            "streamed": self.asked.streamed,
            "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached,
            "completion_tokens": usage.completion,
            "reasoning_tokens": usage.reasoning,
            "written_tokens": self.written.tokens,
            "written_bytes": self.written.bytes,
            "usage_sent": self.written.usage_sent(),
            "told_prompt_tokens": told.map(|_| usage.prompt),
            "told_completion_tokens": told.map(|told| told.completion),
            "ended": self.ended.name(),
            "aborted": self.ended != Ended::Complete,
            "plan": self.asked.plan,
        })
    }
}

impl Open {
    /// Notes that bytes of the body went out.
    pub(super) fn wrote(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.written.bytes = self.written.bytes.saturating_add(bytes);
    }

    /// Notes what the client has, now that a piece of the body is out to its last byte.
    pub(super) fn carried(&mut self, tokens: usize, told: Option<Telling>) {
        self.written.tokens += tokens;
        self.written.told = told.or(self.written.told);
    }

    /// Enters the response.
    pub(super) fn end(mut self, ended: Ended) {
        self.enter(ended);
    }

    fn enter(&mut self, ended: Ended) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let mut book = self.ledger.book();
        if book.volume != self.volume {
            return;
        }
        book.open -= 1;
        book.last += 1;
        let totals = book
            .totals
            .entry((asked.key, asked.model.clone()))
            .or_default();
        totals.requests += 1;
        totals.errors += u64::from(asked.status >= 400);
        totals.aborted += u64::from(ended != Ended::Complete);
        totals.usage.prompt += asked.usage.prompt;
        totals.usage.cached += asked.usage.cached;
        totals.usage.completion += asked.usage.completion;
        totals.usage.reasoning += asked.usage.reasoning;
        totals.written_tokens += self.written.tokens;
        totals.usage_sent += u64::from(self.written.usage_sent());
        if let Some(told) = self.written.told {
            totals.told_prompt += asked.usage.prompt;
            totals.told_completion += told.completion;
        }
        let entry = Entry {
            sequence: book.last,
            asked,
            written: self.written,
            ended,
        };
        book.entries.push_back(entry);
        if book.entries.len() > MOST {
            book.entries.pop_front();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.enter(Ended::Client);
    }
}
