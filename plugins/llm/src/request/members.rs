//! The members of a request that matter, and the names that mean them.

/// A member of the outermost object, or of one of the two objects in it whose members matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Model,
    Stream,
    StreamOptions,
    IncludeUsage,
    N,
    BestOf,
    CandidateCount,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    GenerationLimit,
    GenerationConfig,
    Background,
    Messages,
    Contents,
    Input,
    Prompt,
    Instructions,
    System,
    SystemInstruction,
    Tools,
    Functions,
    ResponseFormat,
    Text,
    PreviousResponse,
    Conversation,
    CachedContent,
    McpServers,
    WebSearch,
    /// Named by no other API than Anthropic's.
    AnthropicVersion,
    StopSequences,
    Thinking,
    /// Named by the Responses API only.
    MaxToolCalls,
    Include,
    Store,
    Reasoning,
    Truncation,
    /// Named by the Images API only.
    Size,
    Quality,
    /// Named by the Embeddings API only.
    EncodingFormat,
    Dimensions,
    /// Never part of a prompt.
    Aside,
}

/// Names in the outermost object.
pub(super) const ROOT: &[(&str, Member)] = &[
    ("model", Member::Model),
    ("messages", Member::Messages),
    ("stream", Member::Stream),
    ("stream_options", Member::StreamOptions),
    ("max_tokens", Member::MaxTokens),
    ("max_completion_tokens", Member::MaxCompletionTokens),
    ("max_output_tokens", Member::MaxOutputTokens),
    ("n", Member::N),
    ("best_of", Member::BestOf),
    ("input", Member::Input),
    ("prompt", Member::Prompt),
    ("contents", Member::Contents),
    ("system", Member::System),
    ("instructions", Member::Instructions),
    ("systemInstruction", Member::SystemInstruction),
    ("system_instruction", Member::SystemInstruction),
    ("tools", Member::Tools),
    ("functions", Member::Functions),
    ("response_format", Member::ResponseFormat),
    ("text", Member::Text),
    ("generationConfig", Member::GenerationConfig),
    ("generation_config", Member::GenerationConfig),
    ("background", Member::Background),
    ("previous_response_id", Member::PreviousResponse),
    ("conversation", Member::Conversation),
    ("cachedContent", Member::CachedContent),
    ("cached_content", Member::CachedContent),
    ("mcp_servers", Member::McpServers),
    ("web_search_options", Member::WebSearch),
    ("anthropic_version", Member::AnthropicVersion),
    ("stop_sequences", Member::StopSequences),
    ("thinking", Member::Thinking),
    ("max_tool_calls", Member::MaxToolCalls),
    ("include", Member::Include),
    ("store", Member::Store),
    ("reasoning", Member::Reasoning),
    ("truncation", Member::Truncation),
    ("size", Member::Size),
    ("quality", Member::Quality),
    ("encoding_format", Member::EncodingFormat),
    ("dimensions", Member::Dimensions),
    ("user", Member::Aside),
    ("metadata", Member::Aside),
    ("logit_bias", Member::Aside),
    ("safety_identifier", Member::Aside),
    ("prompt_cache_key", Member::Aside),
    ("safetySettings", Member::Aside),
];

/// Names in `stream_options`.
pub(super) const STREAM_OPTIONS: &[(&str, Member)] = &[("include_usage", Member::IncludeUsage)];

/// Names in Gemini's `generationConfig`. Protocol Buffers' JSON takes both spellings of a field.
pub(super) const GENERATION_CONFIG: &[(&str, Member)] = &[
    ("maxOutputTokens", Member::GenerationLimit),
    ("max_output_tokens", Member::GenerationLimit),
    ("candidateCount", Member::CandidateCount),
    ("candidate_count", Member::CandidateCount),
];

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Exactly this member.
    Known(Member, &'static str),
    /// Nearly: it differs in letter case, or in what follows a NUL.
    Case(&'static str),
    Unknown,
}

/// Looks a name up.
pub(super) fn find(names: &'static [(&'static str, Member)], name: &[u8]) -> Found {
    if let Some((known, member)) = names.iter().find(|(known, _)| known.as_bytes() == name) {
        return Found::Known(*member, known);
    }
    // Decoders that keep names as C strings stop at a NUL.
    let read = name.split(|&byte| byte == 0).next().unwrap_or_default();
    match names.iter().find(|(known, _)| folds_to(read, known)) {
        Some((known, member)) if *member != Member::Aside => Found::Case(known),
        _ => Found::Unknown,
    }
}

/// Whether a name is this one when case is ignored, in the way of Go's `encoding/json`: the long s and the Kelvin sign count as
/// letters too.
fn folds_to(name: &[u8], known: &str) -> bool {
    // The two signs are the only ones with more than one byte.
    if name.len() < known.len() || name.len() > known.len().saturating_mul(3) {
        return false;
    }
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let folded = name.chars().map(|character| match character {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(known
        .chars()
        .map(|character| character.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letter_case_is_seen_through() {
        for name in [
            "Model",
            "MODEL",
            "model\0",
            "Model\0x",
            "max_to\u{212A}ens",
            "me\u{17F}\u{17F}ages",
        ] {
            assert!(
                matches!(find(ROOT, name.as_bytes()), Found::Case(_)),
                "{name}"
            );
        }
        assert_eq!(find(ROOT, b"models"), Found::Unknown);
        assert_eq!(find(ROOT, b"User"), Found::Unknown);
        assert_eq!(find(ROOT, b"n"), Found::Known(Member::N, "n"));
    }

    #[test]
    fn every_member_has_its_own_bit() {
        for (_, member) in ROOT.iter().chain(STREAM_OPTIONS).chain(GENERATION_CONFIG) {
            assert!((*member as u32) < u64::BITS);
        }
    }
}
