//! How many tokens a prompt has, before a provider has counted them, and how many a completion has, where it never will.
//!
//! Two answers, for two needs:
//!
//! - [`Sizes::bound`], which no prompt exceeds. It needs no tokenizer: the tokenizers in use (byte-level BPE, and SentencePiece with
//!   byte fallback) make at most one token of a byte, so the bytes of the text bound its tokens; what templates add for each
//!   message, image and tool comes on top. It has no answer where the provider adds content that the request only names
//!   ([`Unseen`](crate::request::Unseen)).
//! - [`Sizes::estimate`], which is close: bytes times a ratio that is learned from answers ([`Calibration`]), never above the bound.
//!
//! What the bound rests on: templates write tool definitions in no more bytes than their JSON has, plus [`PER_TOOLS`]; they add no more
//! than [`PER_MESSAGE`] tokens a message and [`PER_REQUEST`] a request; and images cost what [`Images`] says. A provider that hides a
//! longer prompt of its own in every request breaks it.

use crate::request::{Prompt, Request};

/// Tokens that a template adds to a request at most.
pub const PER_REQUEST: u64 = 16;
/// Tokens that it adds to a message at most; OpenAI documents 3 or 4, others write role names and line breaks.
pub const PER_MESSAGE: u64 = 16;
/// Tokens that a provider's instructions for tools take at most. Anthropic documents 264 to 804 by model.
pub const PER_TOOLS: u64 = 1024;
/// Inline audio: one token for so many bytes of base64. Gemini's 32 tokens a second, at 6 kbit/s, the lowest rate of speech
/// codecs in use.
pub const AUDIO_BYTES: u64 = 24;

/// What an image costs, in tokens. An image's size is not known from the request (and an URL's content may change), so the worst case
/// of its detail counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// Of detail `low`.
    pub low: u64,
    /// Of any other.
    pub high: u64,
}

impl Images {
    /// OpenAI's tile rule: a base for each image and a price for each tile of 512 pixels. The image is first scaled to fit 2048 x 2048, then to
    /// 768 at its shorter side: at most 768 x 2048, 8 tiles. Detail `low` costs the base alone.
    pub const fn tiles(base: u64, tile: u64) -> Images {
        Images {
            low: base,
            high: base.saturating_add(tile.saturating_mul(8)),
        }
    }

    /// OpenAI's patch rule: patches of 32 pixels, `most` of them, times a factor in hundredths. A small image of detail `low` (512 x
    /// 512) has 256.
    pub const fn patches(most: u64, hundredths: u64) -> Images {
        Images {
            low: 256u64.saturating_mul(hundredths).div_ceil(100),
            high: most.saturating_mul(hundredths).div_ceil(100),
        }
    }

    /// The rule of a model, by its name; a router's prefix (`openai/`) is passed over. A model that is not known counts as the dearest
    /// that is usual.
    pub fn of_model(model: Option<&str>) -> Images {
        const RULES: [(&str, Images); 17] = [
            ("gpt-4o-mini", Images::tiles(2833, 5667)),
            ("gpt-4.1-mini", Images::patches(1536, 162)),
            ("gpt-4.1-nano", Images::patches(1536, 246)),
            ("gpt-5-mini", Images::patches(1536, 162)),
            ("gpt-5-nano", Images::patches(1536, 246)),
            ("o4-mini", Images::patches(1536, 172)),
            ("gpt-4o", Images::tiles(85, 170)),
            ("gpt-4.1", Images::tiles(85, 170)),
            ("gpt-4.5", Images::tiles(85, 170)),
            ("gpt-5-", Images::tiles(70, 140)),
            ("gpt-5.1", Images::tiles(70, 140)),
            ("o1", Images::tiles(75, 150)),
            ("o3", Images::tiles(75, 150)),
            ("computer-use", Images::tiles(65, 129)),
            // Documented as width x height / 750 after scaling: about 1600 at most; three times that for the latest Opus.
            (
                "claude-opus",
                Images {
                    low: 4784,
                    high: 4784,
                },
            ),
            (
                "claude-",
                Images {
                    low: 1600,
                    high: 1600,
                },
            ),
            // Documented as 258 for each tile, without a bound on tiles (16 are assumed), and 2240 at Gemini 3's highest
            // resolution.
            (
                "gemini-",
                Images {
                    low: 4128,
                    high: 4128,
                },
            ),
        ];
        let name = model
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default();
        RULES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix) || name == prefix.trim_end_matches('-'))
            .map_or(Images::UNKNOWN, |(_, images)| *images)
    }

    /// Ten thousand patches, the most that OpenAI's detail `original` allows.
    pub const UNKNOWN: Images = Images {
        low: 10_000,
        high: 10_000,
    };
}

/// What a prompt holds, with the rule for its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// What was read of the request.
    pub prompt: Prompt,
    /// What its images cost.
    pub images: Images,
}

impl Sizes {
    /// The sizes of a request, with the image rule of the model it asks for.
    pub fn of(request: &Request) -> Sizes {
        Sizes {
            prompt: request.prompt,
            images: Images::of_model(request.model.as_deref()),
        }
    }

    /// A number of tokens that the prompt does not exceed; `None` where content that the request only names can't be bounded.
    pub fn bound(&self) -> Option<u64> {
        self.prompt.unseen.is_none().then(|| self.largest())
    }

    /// The number of tokens that the prompt probably has, or a little more. Files count as text of the length of their base64, and what
    /// else the request only names counts nothing.
    pub fn estimate(&self, calibration: &Calibration) -> u64 {
        let bytes = self.bytes().saturating_add(self.prompt.file_bytes);
        let fixed = self.fixed(4, 256);
        let largest = self.largest().saturating_add(self.prompt.file_bytes);
        calibration.tokens(bytes).saturating_add(fixed).min(largest)
    }

    fn largest(&self) -> u64 {
        self.bytes()
            .saturating_add(self.fixed(PER_MESSAGE, PER_TOOLS))
            .saturating_add(PER_REQUEST)
    }

    /// Bytes that a tokenizer sees.
    fn bytes(&self) -> u64 {
        self.prompt.text.saturating_add(self.prompt.tools)
    }

    /// Tokens that do not come from text.
    fn fixed(&self, per_message: u64, per_tools: u64) -> u64 {
        let prompt = &self.prompt;
        let tools = if prompt.tools > 0 { per_tools } else { 0 };
        [
            prompt.messages.saturating_mul(per_message),
            tools,
            prompt.ids,
            prompt.low_images.saturating_mul(self.images.low),
            prompt.images.saturating_mul(self.images.high),
            prompt.audio.div_ceil(AUDIO_BYTES),
        ]
        .iter()
        .fold(0, |sum, part| sum.saturating_add(*part))
    }
}

/// Tokens per byte in units of 2^-16: 65536 is one token for each byte.
type Ratio = u32;

/// How many tokens a byte of text makes, learned for one model from the usage of its answers.
///
/// It follows the upper side of what it sees, since falling short costs more than a reservation that is a little too large: up by an
/// eighth of the difference, down by a 128th. So that nobody teaches it a lie, one answer moves it by a 32nd of itself at the most,
/// prompts of less than 64 bytes teach nothing, it stays between one token for 16 bytes and one for each, and what it says has a
/// margin of an eighth. A tenant who sends nothing but repeated spaces still halves it in some 120 answers, so in exact mode
/// [`Sizes::bound`] counts, which nobody teaches.
///
/// A value of 8 bytes ([`Calibration::to_bytes`]), made for a shared store: the workers' values are merged by weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    ratio: Ratio,
    /// How many answers it has learned from, up to [`Calibration::HEAVIEST`].
    samples: u16,
}

impl Default for Calibration {
    /// One token for three bytes: dense for English prose (about 4.5 bytes), right for much code, JSON and other languages.
    fn default() -> Self {
        Calibration::guess(3000)
    }
}

impl Calibration {
    /// One token for each byte: the static bound.
    const MOST: Ratio = 1 << 16;
    /// One token for 16 bytes.
    const LEAST: Ratio = 1 << 12;
    /// Weight does not grow past this, so that merging stays able to move.
    const HEAVIEST: u16 = 4096;
    /// Shorter texts teach nothing: their templates weigh more than they do.
    const SHORTEST: u64 = 64;
    /// The first byte of its serialised form.
    const VERSION: u8 = 1;

    /// A first guess, in thousandths of a byte for each token; taken to the nearest ratio allowed.
    pub fn guess(milli_bytes_per_token: u32) -> Calibration {
        let ratio = 65_536_000u32
            .checked_div(milli_bytes_per_token)
            .unwrap_or(Calibration::MOST);
        Calibration {
            ratio: ratio.clamp(Calibration::LEAST, Calibration::MOST),
            samples: 0,
        }
    }

    /// How many answers it has learned from; 4096 stands for more.
    pub fn samples(&self) -> u16 {
        self.samples
    }

    /// Tokens of so many bytes, with the margin, rounded up; never more than the bytes.
    pub fn tokens(&self, bytes: u64) -> u64 {
        let with_margin = u128::from(self.ratio).saturating_mul(9).div_ceil(8);
        let tokens = u128::from(bytes)
            .saturating_mul(with_margin)
            .div_ceil(1 << 16);
        u64::try_from(tokens).unwrap_or(u64::MAX).min(bytes)
    }

    /// Tokens of a completion of whose text so many bytes have been seen ([`Answer::text`](crate::Answer::text)): for streams that were
    /// aborted and answers without usage. Reasoning that is not shown is not in it, and can't be.
    pub fn completion(&self, text: u64) -> u64 {
        self.tokens(text)
    }

    /// Learns from an answer: its prompt's tokens, cached ones included. Only prompts that are text alone teach something.
    pub fn observe_prompt(&mut self, sizes: &Sizes, tokens: u64) {
        if !sizes.prompt.is_text() {
            return;
        }
        // What templates add is no text.
        let fixed = sizes.fixed(4, 256);
        self.observe(sizes.bytes(), tokens.saturating_sub(fixed));
    }

    /// Learns that so many bytes of text made so many tokens.
    pub fn observe(&mut self, bytes: u64, tokens: u64) {
        if bytes < Calibration::SHORTEST || tokens == 0 {
            return;
        }
        let seen = u128::from(tokens)
            .saturating_mul(1 << 16)
            .checked_div(u128::from(bytes))
            .unwrap_or_default();
        let seen = Ratio::try_from(seen)
            .unwrap_or(Calibration::MOST)
            .clamp(Calibration::LEAST, Calibration::MOST);
        let most = self.ratio.div_ceil(32);
        self.ratio = if seen > self.ratio {
            let step = seen.saturating_sub(self.ratio).div_ceil(8).min(most);
            self.ratio.saturating_add(step)
        } else {
            let step = self.ratio.saturating_sub(seen).div_ceil(128).min(most);
            self.ratio.saturating_sub(step)
        };
        self.ratio = self.ratio.clamp(Calibration::LEAST, Calibration::MOST);
        self.samples = self.samples.saturating_add(1).min(Calibration::HEAVIEST);
    }

    /// What both have learned: their mean by weight, rounded up. The order does not matter; a value that has learned nothing weighs
    /// nothing.
    #[must_use]
    pub fn merged(&self, other: &Calibration) -> Calibration {
        let weight = u64::from(self.samples).saturating_add(u64::from(other.samples));
        let sum = u64::from(self.ratio)
            .saturating_mul(u64::from(self.samples))
            .saturating_add(u64::from(other.ratio).saturating_mul(u64::from(other.samples)));
        let ratio = if weight == 0 {
            self.ratio.max(other.ratio)
        } else {
            Ratio::try_from(sum.div_ceil(weight)).unwrap_or(Calibration::MOST)
        };
        Calibration {
            ratio: ratio.clamp(Calibration::LEAST, Calibration::MOST),
            samples: u16::try_from(weight)
                .unwrap_or(u16::MAX)
                .min(Calibration::HEAVIEST),
        }
    }

    /// Its serialised form: a version, a zero, samples and ratio in little-endian order.
    pub fn to_bytes(self) -> [u8; 8] {
        let [s0, s1] = self.samples.to_le_bytes();
        let [r0, r1, r2, r3] = self.ratio.to_le_bytes();
        [Calibration::VERSION, 0, s0, s1, r0, r1, r2, r3]
    }

    /// Reads it back. `None` for another version, another length, or values that it never has: then start from the guess.
    pub fn from_bytes(bytes: &[u8]) -> Option<Calibration> {
        let &[Calibration::VERSION, 0, s0, s1, r0, r1, r2, r3] = bytes else {
            return None;
        };
        let calibration = Calibration {
            ratio: Ratio::from_le_bytes([r0, r1, r2, r3]),
            samples: u16::from_le_bytes([s0, s1]),
        };
        let allowed = (Calibration::LEAST..=Calibration::MOST).contains(&calibration.ratio)
            && calibration.samples <= Calibration::HEAVIEST;
        allowed.then_some(calibration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, request::Unseen};
    use proptest::prelude::*;

    fn sizes(body: &str) -> Sizes {
        Sizes::of(&Request::read(body.as_bytes(), &Endpoint::Unknown).unwrap())
    }

    fn text(bytes: u64) -> Sizes {
        Sizes {
            prompt: Prompt {
                text: bytes,
                messages: 1,
                ..Prompt::default()
            },
            images: Images::UNKNOWN,
        }
    }

    #[test]
    fn the_bound_is_a_token_a_byte_and_what_templates_add() {
        let body = r#"{"messages":[{"role":"user","content":"0123456789"}]}"#;
        assert_eq!(sizes(body).bound(), Some(10 + PER_MESSAGE + PER_REQUEST));
    }

    #[test]
    fn images_count_by_detail_and_model() {
        let body = |model, detail| {
            format!(
                r#"{{"model":"{model}","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"https://e.com/x","detail":"{detail}"}}}}]}}]}}"#
            )
        };
        for (model, detail, tokens) in [
            ("gpt-4o-2024-08-06", "low", 85),
            ("gpt-4o-2024-08-06", "high", 1445),
            ("openai/gpt-4o-mini", "auto", 48_169),
            ("gpt-5", "high", 1190),
            ("o4-mini", "high", 2642),
            ("claude-sonnet-4-5", "auto", 1600),
            ("unheard-of", "auto", 10_000),
        ] {
            assert_eq!(
                sizes(&body(model, detail)).bound(),
                Some(tokens + PER_MESSAGE + PER_REQUEST),
                "{model} {detail}"
            );
        }
    }

    #[test]
    fn what_the_request_only_names_has_no_bound() {
        let body = r#"{"input":"x","previous_response_id":"r"}"#;
        assert_eq!(sizes(body).prompt.unseen, Some(Unseen::History));
        assert_eq!(sizes(body).bound(), None);
        assert!(sizes(body).estimate(&Calibration::default()) > 0);
    }

    #[test]
    fn it_learns_from_below_and_from_above() {
        for (start, bytes_per_token) in [(1000, 4), (8000, 4), (3000, 2)] {
            let mut calibration = Calibration::guess(start);
            for _ in 0..2000 {
                calibration.observe(4000, 4000 / bytes_per_token);
            }
            let tokens = calibration.tokens(4000);
            let truth = 4000 / bytes_per_token;
            assert!(
                (truth..=truth * 5 / 4).contains(&tokens),
                "{start}: {tokens} for {truth}"
            );
        }
    }

    #[test]
    fn it_keeps_to_the_upper_side() {
        let mut calibration = Calibration::default();
        for round in 0..4000u64 {
            // Bytes per token from 3 to 5.
            let tokens = 12_000 / (30 + round * 7 % 21) * 10;
            calibration.observe(12_000, tokens);
        }
        let covered = (30..=50u64)
            .filter(|tenths| calibration.tokens(12_000) >= 12_000 / tenths * 10)
            .count();
        assert!(covered >= 19, "{covered} of 21 are covered");
    }

    #[test]
    fn one_tenant_can_not_teach_it_a_lie() {
        let honest = Calibration::default();
        let mut lied_to = honest;
        for _ in 0..20 {
            lied_to.observe(1_000_000, 1);
        }
        assert!(lied_to.tokens(10_000) * 100 >= honest.tokens(10_000) * 85);
        let mut shouted_at = honest;
        shouted_at.observe(64, u64::MAX);
        assert!(shouted_at.tokens(10_000) * 100 <= honest.tokens(10_000) * 104);
        let mut short = honest;
        short.observe(63, 63);
        short.observe(1000, 0);
        assert_eq!(short, honest);
        let mut image = honest;
        let mut prompt = text(1000);
        prompt.prompt.images = 1;
        image.observe_prompt(&prompt, 900);
        assert_eq!(image, honest);
    }

    #[test]
    fn an_answer_without_usage_is_estimated_from_its_text() {
        let mut answer = crate::Answer::default();
        answer.feed(br#"{"choices":[{"message":{"content":"Twelve bytes"}}]}"#);
        assert_eq!(answer.usage(), None);
        let tokens = Calibration::default().completion(answer.text());
        assert!((3..=12).contains(&tokens), "{tokens}");
    }

    #[test]
    fn what_is_not_its_own_form_is_refused() {
        let bytes = Calibration::default().to_bytes();
        assert_eq!(
            Calibration::from_bytes(&bytes),
            Some(Calibration::default())
        );
        for index in [0, 1, 3, 7] {
            let mut other = bytes;
            other[index] = 0xFF;
            assert_eq!(Calibration::from_bytes(&other), None, "byte {index}");
        }
        assert_eq!(Calibration::from_bytes(&bytes[..7]), None);
        assert_eq!(Calibration::from_bytes(&[]), None);
    }

    fn calibrations() -> impl Strategy<Value = Calibration> {
        (
            Calibration::LEAST..=Calibration::MOST,
            0..=Calibration::HEAVIEST,
        )
            .prop_map(|(ratio, samples)| Calibration { ratio, samples })
    }

    proptest! {
        #[test]
        fn never_above_the_bound(start in calibrations(), observed in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20), bytes: u64) {
            let mut calibration = start;
            for (bytes, tokens) in observed {
                let before = calibration.ratio;
                calibration.observe(bytes, tokens);
                prop_assert!(calibration.ratio.abs_diff(before) <= before.div_ceil(32));
            }
            prop_assert!(calibration.tokens(bytes) <= bytes);
            prop_assert!(calibration.tokens(bytes) >= bytes / 16);
            let sizes = text(bytes);
            prop_assert!(sizes.estimate(&calibration) <= sizes.bound().unwrap());
            prop_assert_eq!(Calibration::from_bytes(&calibration.to_bytes()), Some(calibration));
        }

        #[test]
        fn merging_is_between_both_and_in_any_order(a in calibrations(), b in calibrations()) {
            let merged = a.merged(&b);
            prop_assert_eq!(merged, b.merged(&a));
            prop_assert!((a.ratio.min(b.ratio)..=a.ratio.max(b.ratio)).contains(&merged.ratio));
            prop_assert_eq!(a.merged(&a).ratio, a.ratio);
        }
    }
}
