//! The headers that tell a client about its limits.

use crate::decimal::Decimal;
use crate::ledger::Account;
use crate::rule::{Rule, Unit};
use crate::window::Window;

/// A header line.
pub(crate) type Line = (String, Vec<u8>);

fn line(name: impl Into<String>, value: impl ToString) -> Line {
    (name.into(), value.to_string().into_bytes())
}

/// Kong's: for each window `X-RateLimit-Limit-<Window>` and `X-RateLimit-Remaining-<Window>`, and `RateLimit-*` for the one with the
/// least remaining, of several the longest (KONG-SPEC 2.5). The limits are as they were written, with their fractions.
pub(crate) fn kong(written: &[Decimal], account: &Account, admitted: bool, now: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut tightest: Option<(Decimal, Decimal, Window)> = None;
    for ((limit, written), standing) in account.limits.iter().zip(written).zip(&account.standings) {
        // Of a refused request only the windows that refuse show what it would have taken.
        let refused = u64::from(!admitted && standing.exceeded);
        let remaining = written.less(standing.used.saturating_add(refused));
        let name = limit.window.name();
        lines.push(line(format!("X-RateLimit-Limit-{name}"), written));
        lines.push(line(format!("X-RateLimit-Remaining-{name}"), remaining));
        if tightest.is_none_or(|(least, ..)| remaining <= least) {
            tightest = Some((remaining, *written, limit.window));
        }
    }
    if let Some((remaining, limit, window)) = tightest {
        lines.push(line("RateLimit-Limit", limit));
        lines.push(line("RateLimit-Remaining", remaining));
        lines.push(line("RateLimit-Reset", window.reset(now)));
    }
    lines
}

/// OpenAI's, of the tightest window: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`. The reset is a duration as `6m0s`.
pub(crate) fn openai(what: &str, account: &Account, now: u64) -> Vec<Line> {
    let Some(index) = account.tightest() else {
        return Vec::new();
    };
    let Some(limit) = account.limits.get(index) else {
        return Vec::new();
    };
    vec![
        line(format!("x-ratelimit-limit-{what}"), limit.most),
        line(
            format!("x-ratelimit-remaining-{what}"),
            account.least_left(),
        ),
        line(
            format!("x-ratelimit-reset-{what}"),
            duration(limit.window.reset(now)),
        ),
    ]
}

/// Those of Kong's AI plugins, with the rule's name where Kong has the provider's.
pub(crate) fn kong_ai(rule: &Rule, account: &Account, now: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    for (limit, standing) in account.limits.iter().zip(&account.standings) {
        let window = limit.window.name().to_ascii_lowercase();
        let (unit, name) = (rule.unit, &rule.name);
        let left = limit.most.saturating_sub(standing.used);
        lines.push(line(
            format!("X-AI-RateLimit-Limit-{window}-{name}"),
            unit.shown(limit.most),
        ));
        lines.push(line(
            format!("X-AI-RateLimit-Remaining-{window}-{name}"),
            unit.shown(left),
        ));
    }
    if let Some(limit) = account
        .tightest()
        .and_then(|index| account.limits.get(index))
    {
        lines.push(line("X-AI-RateLimit-Reset", limit.window.reset(now)));
    }
    lines
}

/// Whether a unit is what OpenAI's `-tokens` headers speak of.
pub(crate) fn is_tokens(unit: Unit) -> bool {
    matches!(unit, Unit::Total | Unit::Prompt | Unit::Completion)
}

/// As Go writes durations, and OpenAI its resets: `1s`, `6m0s`, `24h0m0s`.
fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_gos() {
        let shown = [0, 59, 60, 360, 3600, 86_461].map(duration);
        assert_eq!(shown, ["0s", "59s", "1m0s", "6m0s", "1h0m0s", "24h1m1s"]);
    }
}
