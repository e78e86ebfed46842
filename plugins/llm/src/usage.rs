//! What an answer says it has used.
//!
//! Providers nest their counts differently. [`Usage`] has one meaning for all, that of OpenAI's Chat API:
//!
//! | | OpenAI and compatible | Anthropic | Gemini |
//! |---|---|---|---|
//! | prompt | `prompt_tokens`, `input_tokens` (Responses, Images) | `input_tokens` + `cache_read_input_tokens` + `cache_creation_input_tokens`, which stand beside each other | `promptTokenCount` + `toolUsePromptTokenCount` |
//! | cached prompt, part of the prompt | `*_tokens_details.cached_tokens`, `prompt_cache_hit_tokens` (DeepSeek), `cached_tokens` (Moonshot) | `cache_read_input_tokens` | `cachedContentTokenCount` |
//! | cache write, part of the prompt | `*_tokens_details.cache_write_tokens` | `cache_creation_input_tokens` | |
//! | completion | `completion_tokens`, `output_tokens` | `output_tokens` | `candidatesTokenCount` + `thoughtsTokenCount`, which stand beside each other |
//! | reasoning, part of the completion | `*_tokens_details.reasoning_tokens` | `output_tokens_details.thinking_tokens` | `thoughtsTokenCount` |
//!
//! `total` is prompt + completion. Where a provider's own total is larger, the rest is completion that it left out of its count
//! (xAI and Gemini's compatible endpoint leave reasoning out), so `completion` is raised to it; where it is smaller it is ignored.
//! The Images API's `svg_usage` stands beside its `usage` and is added to it. A count that is missing, null, or no plain integer is `None` and never 0.

/// Counts above this are taken for errors: up to here every JSON decoder and Redis' Lua are exact.
pub const MOST: u64 = 1 << 53;

/// Tokens used. See the [module's documentation](self) for what each API calls them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the prompt.
    pub prompt: Option<u64>,
    /// Those of the prompt that came from the provider's cache; never more than `prompt`.
    pub cached_prompt: Option<u64>,
    /// Those of the prompt that were written to its cache; never more than `prompt`.
    pub cache_write: Option<u64>,
    /// All tokens generated, reasoning included.
    pub completion: Option<u64>,
    /// Those generated that the client does not see as text; never more than `completion`.
    pub reasoning: Option<u64>,
    /// Prompt and completion together.
    pub total: Option<u64>,
}

impl Usage {
    /// Reads a body that is whole: of any API, or a Gemini stream in form of a JSON array. `None` if it tells no usage.
    pub fn of(body: &[u8]) -> Option<Usage> {
        let mut answer = crate::Answer::default();
        answer.feed(body);
        answer.usage()
    }
}

impl Usage {
    /// Both together; what is known of one only counts.
    pub(crate) fn plus(self, other: Usage) -> Usage {
        Usage {
            prompt: sum(self.prompt, other.prompt),
            cached_prompt: sum(self.cached_prompt, other.cached_prompt),
            cache_write: sum(self.cache_write, other.cache_write),
            completion: sum(self.completion, other.completion),
            reasoning: sum(self.reasoning, other.reasoning),
            total: sum(self.total, other.total),
        }
    }
}

/// A count as a provider names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Prompt,
    Completion,
    Input,
    Output,
    Total,
    Cached,
    CacheRead,
    CacheCreation,
    CacheWrite,
    Reasoning,
    GeminiPrompt,
    GeminiToolPrompt,
    GeminiCandidates,
    GeminiThoughts,
    GeminiCached,
    GeminiTotal,
}

const COUNTS: usize = Count::GeminiTotal as usize + 1;

/// Where a count stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `usage`
    Usage,
    /// `prompt_tokens_details` and the like.
    Details,
    /// `usageMetadata`
    Metadata,
}

impl Count {
    pub(crate) fn named(scope: Scope, name: &[u8]) -> Option<Count> {
        Some(match (scope, name) {
            (Scope::Usage, b"prompt_tokens") => Count::Prompt,
            (Scope::Usage, b"completion_tokens") => Count::Completion,
            (Scope::Usage, b"input_tokens") => Count::Input,
            (Scope::Usage, b"output_tokens") => Count::Output,
            (Scope::Usage, b"total_tokens") => Count::Total,
            (Scope::Usage, b"prompt_cache_hit_tokens")
            | (Scope::Usage | Scope::Details, b"cached_tokens") => Count::Cached,
            (Scope::Usage, b"cache_read_input_tokens") => Count::CacheRead,
            (Scope::Usage, b"cache_creation_input_tokens") => Count::CacheCreation,
            (Scope::Details, b"cache_write_tokens") => Count::CacheWrite,
            (Scope::Details, b"reasoning_tokens" | b"thinking_tokens") => Count::Reasoning,
            (Scope::Metadata, b"promptTokenCount") => Count::GeminiPrompt,
            (Scope::Metadata, b"toolUsePromptTokenCount") => Count::GeminiToolPrompt,
            (Scope::Metadata, b"candidatesTokenCount") => Count::GeminiCandidates,
            (Scope::Metadata, b"thoughtsTokenCount") => Count::GeminiThoughts,
            (Scope::Metadata, b"cachedContentTokenCount") => Count::GeminiCached,
            (Scope::Metadata, b"totalTokenCount") => Count::GeminiTotal,
            _ => return None,
        })
    }
}

/// Anthropic tells a stream's counts in two events, each cumulative. Some of those who speak its API write 0 into the one or the other
/// for what they do not know there, so a 0 replaces no count. (The larger of both would be wrong as well: the first may be a guess that
/// includes what the last tells as cached.)
const ZERO_IS_SILENT: [Count; 4] = [
    Count::Input,
    Count::Output,
    Count::CacheRead,
    Count::CacheCreation,
];

/// The counts of one or more `usage` objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    counts: [Option<u64>; COUNTS],
    /// `input_tokens_details` was there: then `input_tokens` includes what came from the cache.
    pub(crate) input_details: bool,
}

impl Counts {
    pub(crate) fn set(&mut self, count: Count, value: u64) {
        if let Some(slot) = self.counts.get_mut(count as usize) {
            *slot = Some(value);
        }
    }

    fn get(&self, count: Count) -> Option<u64> {
        self.counts.get(count as usize).copied().flatten()
    }

    /// Takes in a later object of the same answer. Its counts are cumulative and replace those before.
    pub(crate) fn merge(&mut self, later: &Counts) {
        for (index, (old, new)) in self.counts.iter_mut().zip(later.counts).enumerate() {
            let silent = ZERO_IS_SILENT.iter().any(|count| *count as usize == index);
            *old = match (*old, new) {
                (Some(old), Some(0)) if silent => Some(old),
                (old, new) => new.or(old),
            };
        }
        self.input_details |= later.input_details;
    }

    /// What it comes to; `None` if there was no count.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let get = |count| self.get(count);
        let cached = get(Count::Cached);
        let read = get(Count::CacheRead);
        let written = get(Count::CacheCreation).or(get(Count::CacheWrite));
        let gemini = sum(get(Count::GeminiPrompt), get(Count::GeminiToolPrompt));
        let prompt = if gemini.is_some() {
            gemini
        } else if let Some(prompt) = get(Count::Prompt) {
            Some(prompt)
        } else if self.input_details || get(Count::Input).is_none() {
            get(Count::Input)
        } else {
            sum(get(Count::Input), sum(read, get(Count::CacheCreation)))
        };
        let completion = get(Count::Completion).or(get(Count::Output)).or(sum(
            get(Count::GeminiCandidates),
            get(Count::GeminiThoughts),
        ));
        let told = get(Count::Total).or(get(Count::GeminiTotal));
        let rest = prompt
            .zip(told)
            .and_then(|(prompt, told)| told.checked_sub(prompt));
        let completion = match (completion, rest) {
            (Some(completion), Some(rest)) => Some(completion.max(rest)),
            // Gemini leaves counts of 0 out.
            (None, Some(rest)) if rest > 0 => Some(rest),
            (completion, _) => completion,
        };
        let total = match (prompt, completion) {
            (Some(_), Some(_)) => sum(prompt, completion),
            _ => told.max(prompt).max(completion),
        };
        let part = |of: Option<u64>, part: Option<u64>| match (of, part) {
            (Some(of), Some(part)) => Some(part.min(of)),
            (_, part) => part,
        };
        let usage = Usage {
            prompt,
            cached_prompt: part(prompt, cached.or(read).or(get(Count::GeminiCached))),
            cache_write: part(prompt, written),
            completion,
            reasoning: part(
                completion,
                get(Count::Reasoning).or(get(Count::GeminiThoughts)),
            ),
            total,
        };
        (usage != Usage::default()).then_some(usage)
    }
}

/// The sum of what is known; `None` if nothing is.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
