//! A point in time as it is written in a configuration.

use std::time::Duration;
use tollgate_kit::config::{Field, Reader};
use tollgate_kit::json::{Kind, Value};
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;

/// Time since 1970-01-01 UTC, written as seconds or as RFC 3339 (`2026-12-31T23:59:59Z`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(pub Duration);

impl Field for Timestamp {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Timestamp> {
        let seconds = match value.kind() {
            Kind::Number(text) => text
                .parse()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            Kind::String => rfc3339(&reader.text(value)?).map(Duration::from_secs),
            _ => None,
        };
        if seconds.is_none() {
            reader.error("expected seconds since 1970, or a time as \"2026-12-31T23:59:59Z\"");
        }
        seconds.map(Timestamp)
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        Json::Object(
            [("type".to_owned(), Json::from(vec!["number", "string"]))]
                .into_iter()
                .collect(),
        )
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.0.as_secs())
    }
}

/// Seconds since 1970 of a time by RFC 3339; a fraction is cut off. `None` before 1970 and for what is no time.
fn rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let mark = |at: usize, marks: &str| {
        let byte = text.as_bytes().get(at)?;
        marks.as_bytes().contains(byte).then_some(())
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, marks) in [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")] {
        mark(at, marks)?;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_length = match month {
        2 => 28i64.saturating_add(i64::from(leap)),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_length).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text.get(19..)?;
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => zone,
    };
    let offset = match (zone, zone.as_bytes()) {
        ("Z" | "z", _) => 0,
        (_, [sign @ (b'+' | b'-'), h @ .., b':', m1, m2]) if h.len() == 2 => {
            let digits = |bytes: &[u8]| {
                std::str::from_utf8(bytes)
                    .ok()
                    .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?
                    .parse::<i64>()
                    .ok()
            };
            let minutes = digits(h)?
                .checked_mul(60)?
                .checked_add(digits(&[*m1, *m2])?)?;
            if *sign == b'+' {
                minutes
            } else {
                minutes.checked_neg()?
            }
        }
        _ => return None,
    };
    // Days since 1970 in the proleptic Gregorian calendar, counted in years that begin in March.
    let (years, months) = if month > 2 {
        (year, month.checked_sub(3)?)
    } else {
        (year.checked_sub(1)?, month.checked_add(9)?)
    };
    let leap_days = years
        .checked_div(4)?
        .checked_sub(years.checked_div(100)?)?
        .checked_add(years.checked_div(400)?)?;
    let day_of_year = months
        .checked_mul(153)?
        .checked_add(2)?
        .checked_div(5)?
        .checked_add(day)?
        .checked_sub(1)?;
    let days = years
        .checked_mul(365)?
        .checked_add(leap_days)?
        .checked_add(day_of_year)?
        .checked_sub(719_468)?;
    let minutes = days
        .checked_mul(1440)?
        .checked_add(hour.checked_mul(60)?)?
        .checked_add(minute)?
        .checked_sub(offset)?;
    u64::try_from(minutes.checked_mul(60)?.checked_add(second)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-12-31T23:59:59Z", 1_798_761_599),
            ("2026-12-31 23:59:59.999z", 1_798_761_599),
            ("2027-01-01T01:29:59+01:30", 1_798_761_599),
            ("2026-12-31T18:59:59-05:00", 1_798_761_599),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(rfc3339(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "1969-12-31T23:59:59Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00Zjunk",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:0éZ",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
