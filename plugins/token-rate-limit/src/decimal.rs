//! Decimal numbers, exactly: limits and prices never pass through a binary fraction.

use std::fmt::{Display, Formatter};

/// A number with up to six decimals, from 0 to [`Decimal::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    millionths: u64,
}

const ONE: u64 = 1_000_000;
const DECIMALS: i32 = 6;

/// A text that is no [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDecimal {
    /// Occurs when it is below 0.
    Negative,
    /// Occurs when it has a seventh decimal that is not 0.
    TooFine,
    /// Occurs when it is above [`Decimal::MOST`].
    TooLarge,
    /// Occurs when it is no number as JSON writes them.
    Malformed,
}

impl Decimal {
    /// The largest: 10^12.
    pub const MOST: Decimal = Decimal {
        millionths: 1_000_000_000_000 * ONE,
    };

    /// Reads a number as JSON writes it: `1000`, `1.5`, `2.5e3`.
    ///
    /// # Errors
    /// When it is none, or out of range.
    pub fn parse(text: &str) -> Result<Decimal, NotDecimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (
                mantissa,
                exponent.parse().map_err(|_| NotDecimal::Malformed)?,
            ),
            None => (text, 0_i32),
        };
        let (mantissa, negative) = match mantissa.strip_prefix('-') {
            Some(mantissa) => (mantissa, true),
            None => (mantissa, false),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty()
            || !whole
                .bytes()
                .chain(fraction.bytes())
                .all(|b| b.is_ascii_digit())
        {
            return Err(NotDecimal::Malformed);
        }
        // The place of a digit, counted in millionths: 0 for the last that can be kept.
        let first = i32::try_from(whole.len())
            .ok()
            .and_then(|digits| {
                digits
                    .checked_add(exponent)?
                    .checked_add(DECIMALS)?
                    .checked_sub(1)
            })
            .ok_or(NotDecimal::TooLarge)?;
        let mut millionths = 0_u64;
        let mut place = first;
        for digit in whole.bytes().chain(fraction.bytes()) {
            let value = u64::from(digit.saturating_sub(b'0'));
            if value != 0 {
                let place = u32::try_from(place).map_err(|_| NotDecimal::TooFine)?;
                millionths = 10_u64
                    .checked_pow(place)
                    .and_then(|unit| unit.checked_mul(value))
                    .and_then(|part| part.checked_add(millionths))
                    .ok_or(NotDecimal::TooLarge)?;
            }
            place = place.saturating_sub(1);
        }
        if negative && millionths > 0 {
            return Err(NotDecimal::Negative);
        }
        if millionths > Decimal::MOST.millionths {
            return Err(NotDecimal::TooLarge);
        }
        Ok(Decimal { millionths })
    }

    /// A whole number; too large ones become [`Decimal::MOST`].
    #[must_use]
    pub fn whole(number: u64) -> Decimal {
        let millionths = number.saturating_mul(ONE);
        Decimal { millionths }.min(Decimal::MOST)
    }

    /// Rounded up to a whole number. So many requests fit a limit of which every begun one counts (Kong: 1.5 a minute are 2).
    #[must_use]
    pub fn ceil(self) -> u64 {
        self.millionths.div_ceil(ONE)
    }

    /// Less a whole number, but not below 0.
    #[must_use]
    pub fn less(self, number: u64) -> Decimal {
        let millionths = self.millionths.saturating_sub(number.saturating_mul(ONE));
        Decimal { millionths }
    }

    /// So many millionths.
    #[must_use]
    pub fn of_millionths(millionths: u64) -> Decimal {
        Decimal { millionths }.min(Decimal::MOST)
    }

    /// In millionths.
    #[must_use]
    pub fn millionths(self) -> u64 {
        self.millionths
    }
}

/// Plainly: `1000`, `1.5`.
impl Display for Decimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let whole = self.millionths / ONE;
        let fraction = self.millionths % ONE;
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_json_writes_them() {
        for (text, shown, up) in [
            ("1000", "1000", 1000),
            ("1.5", "1.5", 2),
            ("1.50", "1.5", 2),
            ("0.000001", "0.000001", 1),
            ("2.5e3", "2500", 2500),
            ("25E-1", "2.5", 3),
            ("1e12", "1000000000000", 1_000_000_000_000),
            ("0", "0", 0),
            ("-0.0", "0", 0),
            ("0e999999999", "0", 0),
            ("1.0000000000", "1", 1),
        ] {
            let decimal = Decimal::parse(text).unwrap();
            assert_eq!(
                (decimal.to_string().as_str(), decimal.ceil()),
                (shown, up),
                "{text}"
            );
        }
    }

    #[test]
    fn what_can_not_be_kept_is_refused() {
        for (text, wrong) in [
            ("-1", NotDecimal::Negative),
            ("0.0000001", NotDecimal::TooFine),
            ("1e-9", NotDecimal::TooFine),
            ("1000000000001", NotDecimal::TooLarge),
            ("1e300", NotDecimal::TooLarge),
            ("1e2147483647", NotDecimal::TooLarge),
            ("1e99999999999", NotDecimal::Malformed),
            ("", NotDecimal::Malformed),
            ("x", NotDecimal::Malformed),
            ("1,5", NotDecimal::Malformed),
        ] {
            assert_eq!(Decimal::parse(text), Err(wrong), "{text}");
        }
    }

    #[test]
    fn what_is_left_is_not_below_nothing() {
        let limit = Decimal::parse("1.5").unwrap();
        let left: Vec<_> = [0, 1, 2].map(|used| limit.less(used).to_string()).into();
        assert_eq!(left, ["1.5", "0.5", "0"]);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millionths in 0..=Decimal::MOST.millionths) {
            let decimal = Decimal { millionths };
            prop_assert_eq!(Decimal::parse(&decimal.to_string()), Ok(decimal));
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,40}") {
            let _ = Decimal::parse(&text);
        }
    }
}
