//! What a use costs, in integers.
//!
//! ```
//! use tollgate_llm::{Glob, Price, Pricing, Usage};
//!
//! let price = |input, output| Price::parse(input, None, None, output).unwrap();
//! let pricing = Pricing {
//!     models: vec![
//!         (Glob::new("gpt-4.1*"), price("8", "24")),
//!         (Glob::new("claude-sonnet-4-5*"), price("15", "75")),
//!         (Glob::new("gemini-2.5-flash*"), price("2.50", "10")),
//!         (Glob::new("deepseek-v3.2*"), price("0.42", "1.68")),
//!     ],
//!     unknown: None,
//! };
//! let usage = Usage { prompt: Some(1000), completion: Some(500), ..Usage::default() };
//! // 1000 x 0.42 / 1,000,000 + 500 x 1.68 / 1,000,000 = 0.00126
//! assert_eq!(pricing.cost("deepseek-v3.2", &usage).map(|cost| cost.0), Some(1_260_000));
//! assert_eq!(pricing.cost("gpt-4.1-2025-04-14", &usage).map(|cost| cost.0), Some(20_000_000));
//! assert_eq!(pricing.cost("unheard-of", &usage), None);
//! ```

use crate::glob::{Glob, most_specific};
use crate::usage::Usage;

/// A price for a million tokens, in millionths of the currency unit; that is, for one token in 10^-12 of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(pub u64);

/// The highest price, per million tokens: a million units.
const DEAREST: u64 = 1_000_000_000_000;

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPrice {
    /// Occurs when it is not digits with at most one decimal point between or behind them.
    Spelling,
    /// Occurs when it has more than six decimals: it would be rounded.
    Decimals,
    /// Occurs when it is above 1,000,000 per million tokens.
    TooHigh,
}

impl std::error::Error for NoPrice {}

impl std::fmt::Display for NoPrice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NoPrice::Spelling => "must be a price per million tokens in decimal digits, as 2.50",
            NoPrice::Decimals => "must have at most six decimals",
            NoPrice::TooHigh => "must be at most 1000000 per million tokens",
        })
    }
}

impl PerMillion {
    /// Reads a decimal text exactly: `2.50`, `8`, `0.000001`.
    ///
    /// # Errors
    /// See [`NoPrice`].
    pub fn parse(text: &str) -> Result<PerMillion, NoPrice> {
        let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(units) || !digits(decimals) {
            return Err(NoPrice::Spelling);
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > 6 {
            return Err(NoPrice::Decimals);
        }
        let units = units.trim_start_matches('0');
        if units.len() > 7 {
            return Err(NoPrice::TooHigh);
        }
        let number = units
            .bytes()
            .chain(decimals.bytes())
            .chain(std::iter::repeat_n(
                b'0',
                6usize.saturating_sub(decimals.len()),
            ))
            .fold(0u64, |number, digit| {
                number
                    .saturating_mul(10)
                    .saturating_add(u64::from(digit.saturating_sub(b'0')))
            });
        if number > DEAREST {
            return Err(NoPrice::TooHigh);
        }
        Ok(PerMillion(number))
    }
}

/// An amount in 10^-9 of the currency unit. In a signed 64-bit counter 9 thousand million units fit; up to 9 million of them Redis' Lua
/// is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(pub u64);

/// What a model's tokens cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Prompt tokens.
    pub input: PerMillion,
    /// Those of them that came from the provider's cache.
    pub cached_input: PerMillion,
    /// Those of them that were written to its cache.
    pub cache_write: PerMillion,
    /// Completion tokens, reasoning included.
    pub output: PerMillion,
}

impl Price {
    /// Reads a model's prices per million tokens. What came from the cache or was written to it costs the same as other input where nothing
    /// is said.
    ///
    /// # Errors
    /// The name of the field that is no price, and why.
    pub fn parse(
        input: &str,
        cached_input: Option<&str>,
        cache_write: Option<&str>,
        output: &str,
    ) -> Result<Price, (&'static str, NoPrice)> {
        let read = |name, text| PerMillion::parse(text).map_err(|reason| (name, reason));
        Ok(Price {
            input: read("input", input)?,
            cached_input: read("cached_input", cached_input.unwrap_or(input))?,
            cache_write: read("cache_write", cache_write.unwrap_or(input))?,
            output: read("output", output)?,
        })
    }

    /// What a use costs, rounded up once to the next 10^-9: never less than the exact amount, and the same wherever it is computed.
    /// A count that is not known costs nothing; estimate it first ([`crate::estimate`]).
    pub fn cost(&self, usage: &Usage) -> Cost {
        let prompt = usage.prompt.unwrap_or_default();
        let cached = usage.cached_prompt.unwrap_or_default().min(prompt);
        let uncached = prompt.saturating_sub(cached);
        let written = usage.cache_write.unwrap_or_default().min(uncached);
        let fresh = uncached.saturating_sub(written);
        let completion = usage.completion.unwrap_or_default();
        let exact = [
            (fresh, self.input),
            (cached, self.cached_input),
            (written, self.cache_write),
            (completion, self.output),
        ]
        .iter()
        .fold(0u128, |sum, (tokens, price)| {
            sum.saturating_add(u128::from(*tokens).saturating_mul(u128::from(price.0)))
        });
        Cost(u64::try_from(exact.div_ceil(1000)).unwrap_or(u64::MAX))
    }
}

/// The prices of all models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pricing {
    /// By name; the most specific pattern that matches counts.
    pub models: Vec<(Glob, Price)>,
    /// The price of a model that no pattern matches; `None` where such a model is to be refused.
    pub unknown: Option<Price>,
}

impl Pricing {
    /// The price of a model.
    pub fn price(&self, model: &str) -> Option<&Price> {
        most_specific(self.models.iter().map(|(glob, price)| (glob, price)), model)
            .or(self.unknown.as_ref())
    }

    /// What a use of a model costs; `None` if it has no price.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Cost> {
        Some(self.price(model)?.cost(usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_read_exactly() {
        for (text, price) in [
            ("0", 0),
            ("8", 8_000_000),
            ("2.50", 2_500_000),
            ("0.1", 100_000),
            ("0.000001", 1),
            ("007.5000000000", 7_500_000),
            ("1000000", DEAREST),
        ] {
            assert_eq!(PerMillion::parse(text), Ok(PerMillion(price)), "{text}");
        }
        for text in [
            "", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "1.2.3", "NaN", "١",
        ] {
            assert_eq!(PerMillion::parse(text), Err(NoPrice::Spelling), "{text}");
        }
        assert_eq!(PerMillion::parse("0.0000001"), Err(NoPrice::Decimals));
        for text in ["1000000.000001", "99999999", "99999999999999999999999999"] {
            assert_eq!(PerMillion::parse(text), Err(NoPrice::TooHigh), "{text}");
        }
    }

    #[test]
    fn cached_tokens_have_their_own_price() {
        let price = Price::parse("3", Some("0.3"), Some("3.75"), "15").unwrap();
        let usage = Usage {
            prompt: Some(3210),
            cached_prompt: Some(3000),
            cache_write: Some(200),
            completion: Some(40),
            reasoning: Some(30),
            total: Some(3250),
        };
        // 10 x 3 + 3000 x 0.3 + 200 x 3.75 + 40 x 15 = 2280 millionths
        assert_eq!(price.cost(&usage), Cost(2_280_000));
    }

    #[test]
    fn a_part_is_rounded_up_once() {
        let price = Price::parse("0.000001", None, None, "0.000001").unwrap();
        let usage = |prompt, completion| Usage {
            prompt: Some(prompt),
            completion: Some(completion),
            ..Usage::default()
        };
        assert_eq!(price.cost(&usage(1, 1)), Cost(1));
        assert_eq!(price.cost(&usage(500, 500)), Cost(1));
        assert_eq!(price.cost(&usage(500, 501)), Cost(2));
        assert_eq!(price.cost(&usage(0, 0)), Cost(0));
    }

    #[test]
    fn an_unknown_model_has_the_price_that_is_configured() {
        let price = |text| Price::parse(text, None, None, text).unwrap();
        let mut pricing = Pricing {
            models: vec![
                (Glob::new("gpt-*"), price("1")),
                (Glob::new("gpt-5"), price("2")),
            ],
            unknown: None,
        };
        assert_eq!(pricing.price("gpt-5"), Some(&price("2")));
        assert_eq!(pricing.price("o3"), None);
        pricing.unknown = Some(price("9"));
        assert_eq!(pricing.price("o3"), Some(&price("9")));
    }

    proptest! {
        #[test]
        fn prices_read_back(micros in 0..=DEAREST) {
            let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            prop_assert_eq!(PerMillion::parse(&text), Ok(PerMillion(micros)));
        }

        #[test]
        fn no_use_is_cheaper_than_a_smaller_one(prompt: u64, completion: u64, more: u64, cached: u64, price in 0..=DEAREST) {
            let price = Price { input: PerMillion(price), cached_input: PerMillion(price / 2), cache_write: PerMillion(price), output: PerMillion(price) };
            let usage = Usage { prompt: Some(prompt), cached_prompt: Some(cached), completion: Some(completion), ..Usage::default() };
            let larger = Usage { completion: Some(completion.saturating_add(more)), ..usage };
            prop_assert!(price.cost(&larger) >= price.cost(&usage));
        }
    }
}
