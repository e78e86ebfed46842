//! Lua's numbers: doubles, read in decimal and hexadecimal, written with 14 significant digits.

/// Reads a number as Lua does: decimal, with an exponent, or `0x...`; white space around it does not count.
#[must_use]
pub(crate) fn parse(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1.0, text.get(1..)?),
        b'+' => (1.0, text.get(1..)?),
        _ => (1.0, text),
    };
    if let Some(hexadecimal) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        let all_digits = !hexadecimal.is_empty()
            && hexadecimal.len() <= 16
            && hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(hexadecimal, 16)
            .ok()
            .filter(|_| all_digits)?;
        return Some(sign * number as f64);
    }
    // Rust also reads "inf", "nan" and a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let number: f64 = digits.parse().ok()?;
    number.is_finite().then_some(sign * number)
}

/// Writes a number as C's `%.14g` does.
#[must_use]
pub(crate) fn spell(number: f64) -> String {
    if !number.is_finite() {
        return match (number.is_nan(), number > 0.0) {
            (true, _) => "nan",
            (_, true) => "inf",
            (_, false) => "-inf",
        }
        .to_owned();
    }
    if number.fract() == 0.0 && number.abs() < 1e14 {
        return format!("{}", number as i64);
    }
    let scientific = format!("{number:.13e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..14).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!(
            "{}e{sign}{:02}",
            without_zeros(mantissa),
            exponent.unsigned_abs()
        );
    }
    let decimals = usize::try_from(13i32.saturating_sub(exponent)).unwrap_or_default();
    without_zeros(&format!("{number:.decimals$}")).to_owned()
}

fn without_zeros(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_lua_reads_them() {
        for (text, number) in [
            ("5", Some(5.0)),
            (" -1.5 ", Some(-1.5)),
            ("1e3", Some(1000.0)),
            ("0x10", Some(16.0)),
            ("-0xfF", Some(-255.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("", None),
            ("abc", None),
            ("0x", None),
            ("1e999", None),
            ("inf", None),
            ("nan", None),
            ("--1", None),
            ("1 2", None),
        ] {
            assert_eq!(parse(text.as_bytes()), number, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_with_14_digits() {
        for (number, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.33333333333333"),
            (1e13, "10000000000000"),
            (1e14, "1e+14"),
            (9_223_372_036_854_775_807.0, "9.2233720368548e+18"),
            (1.5e-7, "1.5e-07"),
            (123_456.789, "123456.789"),
            (0.0001, "0.0001"),
        ] {
            assert_eq!(spell(number), text);
        }
    }
}
