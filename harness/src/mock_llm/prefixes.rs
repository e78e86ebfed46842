//! Cached prompt tokens: the leading messages that an earlier prompt of the same key to the same model had too.
//!
//! - Openings end where a message does; tools belong to the first message. Only one of [`LEAST`] tokens or more is
//!   remembered, and what is found is rounded down to a multiple of [`STEP`], as OpenAI does both.
//! - OpenAI's and Gemini's APIs remember by themselves. Anthropic's does where the request holds `cache_control`
//!   anywhere; what is remembered anew counts as `cache_creation_input_tokens`, rounded alike.
//! - The provider remembers the last [`MOST`] openings, of all keys together.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::fnv;
use super::prompt::Prompt;
use super::reply::Usage;

/// The shortest opening that is remembered, in tokens.
pub(super) const LEAST: usize = 1024;

/// What cached tokens are a multiple of.
pub(super) const STEP: usize = 128;

/// The most openings that are remembered.
const MOST: usize = 65_536;

/// The openings that were seen.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    hashes: HashSet<u64>,
    /// In the order they came.
    order: VecDeque<u64>,
}

impl Prefixes {
    /// Notes in `usage` what is cached of a prompt, and remembers its openings.
    pub(super) fn charge(&self, key: &str, model: &str, prompt: &Prompt, usage: &mut Usage) {
        // Short prompts, which most are, cost neither hashing nor a lock.
        if usage.prompt < LEAST || prompt.plain {
            return;
        }
        let mut hash = fnv::hash(key.bytes().chain([0]).chain(model.bytes()));
        let openings: Vec<(u64, usize)> = prompt
            .openings()
            .map(|(bytes, tokens)| {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                hash = fnv::extend(hash, length.to_le_bytes().into_iter().chain(bytes));
                (hash, tokens)
            })
            .filter(|(_, tokens)| *tokens >= LEAST)
            .collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (hash, tokens) in openings {
            let tokens = tokens - tokens % STEP;
            if known.hashes.contains(&hash) {
                usage.cached = tokens;
                continue;
            }
            usage.cache_written = tokens - usage.cached;
            known.hashes.insert(hash);
            known.order.push_back(hash);
            if known.order.len() > MOST
                && let Some(oldest) = known.order.pop_front()
            {
                known.hashes.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::prompt::{Role, Turn};
    use super::*;

    fn prompt(texts: &[&str]) -> Prompt {
        let turn = |text: &&str| Turn {
            text: (*text).to_owned(),
            ..Turn::new(Role::User)
        };
        Prompt {
            turns: texts.iter().map(turn).collect(),
            ..Prompt::default()
        }
    }

    fn charged(prefixes: &Prefixes, key: &str, texts: &[&str]) -> (usize, usize) {
        let prompt = prompt(texts);
        let mut usage = Usage {
            prompt: prompt.tokens(),
            ..Usage::default()
        };
        prefixes.charge(key, "m", &prompt, &mut usage);
        (usage.cached, usage.cache_written)
    }

    #[test]
    fn a_second_prompt_with_the_same_opening_finds_it_cached() {
        let prefixes = Prefixes::default();
        let long = "x".repeat(4 * 1200);
        assert_eq!(charged(&prefixes, "a", &[&long, "one"]), (0, 1152));
        assert_eq!(charged(&prefixes, "a", &[&long, "two"]), (1152, 0));
        assert_eq!(charged(&prefixes, "b", &[&long, "two"]), (0, 1152));
        assert_eq!(charged(&prefixes, "a", &["other", &long]), (0, 1152));
    }

    #[test]
    fn an_opening_under_the_least_is_never_cached() {
        let prefixes = Prefixes::default();
        let short = "x".repeat(4 * 1000);
        for _ in 0..2 {
            assert_eq!(charged(&prefixes, "a", &[&short]), (0, 0));
        }
    }
}
