//! How counters stand, as JSON.
//!
//! ```json
//! {"rule":"consumer","count":"total","windows":[{"window":"minute","limit":1000,"used":30,"remaining":970,"reset":55}]}
//! {"rule":"parallel","count":"concurrent","limit":10,"used":3,"remaining":7}
//! ```

use crate::ledger::Account;
use crate::rule::{Concurrency, Rule};
use crate::window::Window;
use std::fmt::Write;
use tollgate_kit::json;

/// The JSON of a counter, begun with the rule's name and what it counts. Writing to a string can't fail.
struct Line(String);

impl Line {
    fn of(rule: &str, count: &str, shared: bool) -> Line {
        // A rule's name has no character that JSON escapes.
        let mut line = format!("{{\"rule\":\"{rule}\",\"count\":\"{count}\"");
        if shared {
            line.push_str(",\"shared\":true");
        }
        Line(line)
    }

    fn amounts(&mut self, limit: u64, used: u64, shown: impl Fn(u64) -> String) {
        let left = limit.saturating_sub(used);
        let (limit, used, left) = (shown(limit), shown(used), shown(left));
        let _ = write!(
            self.0,
            "\"limit\":{limit},\"used\":{used},\"remaining\":{left}"
        );
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A rule with windows; one that denies has none. The reset is in how many seconds the present window is over.
pub(crate) fn of_windows(rule: &Rule, account: &Account, shared: bool, now: u64) -> String {
    let mut line = Line::of(&rule.name, rule.unit.word(), shared);
    line.0.push_str(",\"windows\":[");
    let windows = account.limits.iter().zip(&account.standings);
    for (index, (limit, standing)) in windows.enumerate() {
        let window = limit.window;
        let separator = if index > 0 { "," } else { "" };
        let _ = write!(line.0, "{separator}{{\"window\":\"{}\",", window.field());
        if let Window::Seconds(seconds) = window {
            let _ = write!(line.0, "\"seconds\":{seconds},");
        }
        line.amounts(limit.most, standing.used, |amount| rule.unit.shown(amount));
        let reset = window.end(standing.number).saturating_sub(now);
        let _ = write!(line.0, ",\"reset\":{reset}}}");
    }
    line.0.push(']');
    line.end()
}

/// A rule of requests at once.
pub(crate) fn of_leases(rule: &Concurrency, most: u64, held: u64, shared: bool) -> String {
    let mut line = Line::of(&rule.name, CONCURRENT, shared);
    line.0.push(',');
    line.amounts(most, held, |amount| amount.to_string());
    line.end()
}

/// A rule of which nothing can be told before the client has said more.
pub(crate) fn of_nothing(rule: &str, count: &str, needs: &[&str]) -> String {
    let mut line = Line::of(rule, count, false);
    let needs: Vec<_> = needs.iter().map(|word| format!("\"{word}\"")).collect();
    let _ = write!(line.0, ",\"needs\":[{}]", needs.join(","));
    line.end()
}

/// What a rule of requests at once counts.
pub(crate) const CONCURRENT: &str = "concurrent";

/// A client's budget: all of its counters.
pub(crate) fn budget(lines: &[String]) -> Vec<u8> {
    format!("{{\"limits\":[{}]}}", lines.join(",")).into_bytes()
}

/// Mistakes for an operator.
pub(crate) fn mistakes(problems: &[String]) -> Vec<u8> {
    let mut out = b"{\"message\":\"The order can't be carried out\",\"problems\":[".to_vec();
    for (index, problem) in problems.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::quote(problem.as_bytes(), &mut out);
    }
    out.extend_from_slice(b"]}");
    out
}
