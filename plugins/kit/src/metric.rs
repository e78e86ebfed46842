//! Metrics with labels in their names, in one grammar.
//!
//! ```text
//! metric = name *( ";" label "=" value )
//! name   = "tollgate_" 1*( a-z | 0-9 | "_" )
//! label  = 1*( a-z | "_" )
//! value  = 1*( any byte but ";" "=" ":" "|" "," "#", white space, and what is not printable ASCII )
//! ```
//!
//! proxy-wasm has names only, so the labels stand inside: `tollgate_key_auth_requests;result=granted`. Both gateways can
//! take them apart again:
//!
//! - Envoy shows `wasmcustom.tollgate_key_auth_requests;result=granted`. A `stats_tags` entry with
//!   `tag_name: result` and `regex: "(;result=([^;]+))"` moves the label out.
//! - Kong's Prometheus plugin reads `metrics.label_patterns` of the filter's `.meta.json`, which is generated from
//!   [`Metric`]: `;result=([^;]+)`.
//!
//! A name is at most 200 bytes: nginx allows 256 with its own prefix, and traps past that.

use std::fmt::Write;

/// The longest name that is passed to a host, in bytes.
pub const LONGEST_NAME: usize = 200;

/// A counter that a filter keeps, for its documentation and `.meta.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name without labels.
    pub name: &'static str,
    /// The labels it always has, in order.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

impl Metric {
    /// The full name with these label values, given in the order of [`Metric::labels`]. Bytes that the grammar forbids
    /// in a value become `_`.
    #[must_use]
    pub fn with(&self, values: &[&str]) -> String {
        let mut name = self.name.to_owned();
        for (label, value) in self.labels.iter().zip(values) {
            let _ = write!(name, ";{label}=");
            let allowed =
                |c: char| c.is_ascii_graphic() && !matches!(c, ';' | '=' | ':' | '|' | ',' | '#');
            name.extend(value.chars().map(|c| if allowed(c) { c } else { '_' }));
            if value.is_empty() {
                name.push('_');
            }
        }
        let mut end = LONGEST_NAME;
        while !name.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        name.truncate(end);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: Metric = Metric {
        name: "tollgate_tokens",
        labels: &["model", "kind"],
        help: "",
    };

    #[test]
    fn labels_stand_in_the_name() {
        assert_eq!(
            TOKENS.with(&["gpt-4o", "prompt"]),
            "tollgate_tokens;model=gpt-4o;kind=prompt"
        );
    }

    #[test]
    fn no_value_can_forge_a_label_or_break_the_name() {
        assert_eq!(
            TOKENS.with(&["a;kind=b c\n", ""]),
            "tollgate_tokens;model=a_kind_b_c_;kind=_"
        );
        assert_eq!(TOKENS.with(&["é".repeat(300).as_str()]).len(), LONGEST_NAME);
    }
}
