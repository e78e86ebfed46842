//! Windows of time: calendar windows in UTC, and windows of a length of one's own.
//!
//! All begin at a whole multiple since 1970 or at the calendar's own beginnings, so that all workers and gateways agree on them
//! without a word.

use std::num::NonZeroU32;

/// What a limit is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A calendar second, UTC.
    Second,
    /// A calendar minute, UTC.
    Minute,
    /// A calendar hour, UTC.
    Hour,
    /// A calendar day, UTC.
    Day,
    /// A calendar month, UTC, from its first day.
    Month,
    /// A calendar year, UTC.
    Year,
    /// So many seconds, in whole multiples since 1970.
    Seconds(NonZeroU32),
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

impl Window {
    /// Kong's, from the shortest to the longest.
    pub const CALENDAR: [Window; 6] = [
        Window::Second,
        Window::Minute,
        Window::Hour,
        Window::Day,
        Window::Month,
        Window::Year,
    ];

    /// Its length in seconds; of months and years what Kong takes for it, 30 and 365 days (KONG-SPEC 2.3).
    #[must_use]
    pub fn length(self) -> u64 {
        match self {
            Window::Second => 1,
            Window::Minute => MINUTE,
            Window::Hour => HOUR,
            Window::Day => DAY,
            Window::Month => 30 * DAY,
            Window::Year => 365 * DAY,
            Window::Seconds(seconds) => u64::from(seconds.get()),
        }
    }

    /// Its number: one more than the window before.
    #[must_use]
    pub fn number(self, now: u64) -> u64 {
        match self {
            Window::Month => {
                let (year, month) = year_and_month(now);
                year.saturating_mul(12).saturating_add(month)
            }
            Window::Year => year_and_month(now).0,
            _ => now.checked_div(self.length()).unwrap_or_default(),
        }
    }

    /// The second in which the window of this number begins.
    #[must_use]
    pub fn start(self, number: u64) -> u64 {
        match self {
            Window::Month => month_start(number / 12, number % 12),
            Window::Year => month_start(number, 0),
            _ => number.saturating_mul(self.length()),
        }
    }

    /// The second in which it is over.
    #[must_use]
    pub fn end(self, number: u64) -> u64 {
        self.start(number.saturating_add(1))
    }

    /// The seconds until it is over, by Kong's arithmetic: at least 1, and months and years of the length that [`Window::length`] says
    /// (so that on the 31st it is 1).
    #[must_use]
    pub fn reset(self, now: u64) -> u64 {
        let since = now.saturating_sub(self.start(self.number(now)));
        self.length().saturating_sub(since).max(1)
    }

    /// Tells it from any other in stored counters.
    #[must_use]
    pub(crate) fn code(self) -> u32 {
        match self {
            Window::Seconds(seconds) => seconds.get(),
            Window::Second => CALENDAR_BIT,
            Window::Minute => CALENDAR_BIT | 1,
            Window::Hour => CALENDAR_BIT | 2,
            Window::Day => CALENDAR_BIT | 3,
            Window::Month => CALENDAR_BIT | 4,
            Window::Year => CALENDAR_BIT | 5,
        }
    }

    /// The field of a configuration that says its limit, or its length where it is a window of one's own.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Window::Second => "second",
            Window::Minute => "minute",
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Month => "month",
            Window::Year => "year",
            Window::Seconds(_) => "window_seconds",
        }
    }

    /// As it stands in a header's name: `Minute`; a window of one's own is its seconds.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Window::Second => "Second".to_owned(),
            Window::Minute => "Minute".to_owned(),
            Window::Hour => "Hour".to_owned(),
            Window::Day => "Day".to_owned(),
            Window::Month => "Month".to_owned(),
            Window::Year => "Year".to_owned(),
            Window::Seconds(seconds) => seconds.to_string(),
        }
    }
}

/// A window of one's own is shorter than that many seconds (68 years).
const CALENDAR_BIT: u32 = 1 << 31;

/// The year and the month, from 0, of a second since 1970. Howard Hinnant's `civil_from_days`, whose year begins in March so that
/// the leap day comes last.
fn year_and_month(now: u64) -> (u64, u64) {
    let days = (now / DAY).saturating_add(719_468);
    let era = days / 146_097;
    let day = days % 146_097;
    let year = day
        .saturating_sub(day / 1460)
        .saturating_add(day / 36_524)
        .saturating_sub(day / 146_096)
        / 365;
    let before = year
        .saturating_mul(365)
        .saturating_add(year / 4)
        .saturating_sub(year / 100);
    let month = day
        .saturating_sub(before)
        .saturating_mul(5)
        .saturating_add(2)
        / 153;
    let year = era.saturating_mul(400).saturating_add(year);
    // 0 is March here.
    if month < 10 {
        (year, month.saturating_add(2))
    } else {
        (year.saturating_add(1), month.saturating_sub(10))
    }
}

/// The second in which a month, counted from 0, begins: the other way round.
fn month_start(year: u64, month: u64) -> u64 {
    let (year, month) = if month < 2 {
        (year.saturating_sub(1), month.saturating_add(10))
    } else {
        (year, month.saturating_sub(2))
    };
    let (era, year) = (year / 400, year % 400);
    let day = month.saturating_mul(153).saturating_add(2) / 5;
    let day = day
        .saturating_add(year.saturating_mul(365))
        .saturating_add(year / 4)
        .saturating_sub(year / 100);
    era.saturating_mul(146_097)
        .saturating_add(day)
        .saturating_sub(719_468)
        .saturating_mul(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2024-01-31 12:34:56 UTC, from `date -u -d '2024-01-31 12:34:56' +%s`.
    const JANUARY_31: u64 = 1_706_704_496;
    /// 2024-02-29 23:59:59 UTC.
    const LEAP_DAY: u64 = 1_709_251_199;
    /// 2100-03-01 00:00:00 UTC, after a February without a leap day.
    const NO_LEAP_DAY: u64 = 4_107_542_400;

    fn bounds(window: Window, now: u64) -> (u64, u64) {
        let number = window.number(now);
        (window.start(number), window.end(number))
    }

    #[test]
    fn calendar_windows_begin_where_the_calendar_does() {
        assert_eq!(
            bounds(Window::Second, JANUARY_31),
            (JANUARY_31, JANUARY_31 + 1)
        );
        assert_eq!(
            bounds(Window::Minute, JANUARY_31),
            (1_706_704_440, 1_706_704_500)
        );
        assert_eq!(
            bounds(Window::Hour, JANUARY_31),
            (1_706_702_400, 1_706_706_000)
        );
        assert_eq!(
            bounds(Window::Day, JANUARY_31),
            (1_706_659_200, 1_706_745_600)
        );
        assert_eq!(
            bounds(Window::Month, JANUARY_31),
            (1_704_067_200, 1_706_745_600)
        );
        assert_eq!(
            bounds(Window::Year, JANUARY_31),
            (1_704_067_200, 1_735_689_600)
        );
        assert_eq!(
            bounds(Window::Month, LEAP_DAY),
            (1_706_745_600, LEAP_DAY + 1)
        );
        assert_eq!(bounds(Window::Month, NO_LEAP_DAY).0, NO_LEAP_DAY);
        assert_eq!(
            bounds(Window::Month, NO_LEAP_DAY - 1),
            (NO_LEAP_DAY - 28 * DAY, NO_LEAP_DAY)
        );
    }

    #[test]
    fn reset_is_kongs() {
        assert_eq!(Window::Minute.reset(JANUARY_31), 4);
        assert_eq!(Window::Second.reset(JANUARY_31), 1);
        // Past the thirtieth day of a month, and on day 366 of a year.
        assert_eq!(Window::Month.reset(JANUARY_31), 1);
        assert_eq!(Window::Year.reset(1_735_689_599), 1);
        assert_eq!(Window::Year.reset(1_704_067_200), 365 * DAY);
    }

    proptest! {
        #[test]
        fn every_second_is_in_its_window(now in 0_u64..253_402_300_800, custom in 1_u32..1_000_000) {
            let custom = Window::Seconds(NonZeroU32::new(custom).unwrap());
            for window in Window::CALENDAR.into_iter().chain([custom]) {
                let (start, end) = bounds(window, now);
                prop_assert!(start <= now && now < end, "{window:?}");
                prop_assert_eq!(window.number(start), window.number(now));
                prop_assert_eq!(window.number(end), window.number(now) + 1);
                prop_assert!((1..=window.length()).contains(&window.reset(now)));
            }
        }

        #[test]
        fn no_time_breaks_it(now in any::<u64>()) {
            for window in Window::CALENDAR {
                let number = window.number(now);
                let _ = (window.start(number), window.end(number), window.reset(now));
            }
        }
    }
}
