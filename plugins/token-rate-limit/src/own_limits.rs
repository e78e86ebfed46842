//! Limits of a consumer's own, which its metadata tells.

use crate::decimal::Decimal;
use crate::window::Window;
use tollgate_kit::json::{Kind, Value};

/// What stands under `limits` in a consumer's metadata: by the name of a rule, and there by the name of a window. The window of
/// `window_seconds`, and that of `concurrency`, is called `limit`.
///
/// ```json
/// {"limits": {"consumer": {"minute": 500000}, "requests": {"minute": 5000}}}
/// ```
///
/// A value that is no limit is passed over.
#[derive(Debug, Default)]
pub(crate) struct OwnLimits(Vec<OwnLimit>);

#[derive(Debug)]
struct OwnLimit {
    rule: String,
    /// As it is called in a configuration.
    window: String,
    most: Decimal,
}

impl OwnLimits {
    pub(crate) fn of(metadata: &str) -> OwnLimits {
        let parsed = Value::parse(metadata.as_bytes()).ok();
        let Some(limits) = parsed.and_then(|value| value.member("limits")) else {
            return OwnLimits::default();
        };
        let rules = limits.members();
        let all = rules.flat_map(|(rule, windows)| {
            windows.members().filter_map(move |(window, value)| {
                let Kind::Number(text) = value.kind() else {
                    return None;
                };
                Some(OwnLimit {
                    rule: rule.as_str()?.into_owned(),
                    window: window.as_str()?.into_owned(),
                    most: Decimal::parse(text).ok()?,
                })
            })
        });
        OwnLimits(all.collect())
    }

    /// The limit for this window of a rule, where the consumer has one of its own. Of several the last, which decoders keep.
    pub(crate) fn most(&self, rule: &str, window: Window) -> Option<Decimal> {
        self.named(rule, name_of(window))
    }

    /// The limit of a rule of `concurrency`, where the consumer has one of its own.
    pub(crate) fn at_once(&self, rule: &str) -> Option<Decimal> {
        self.named(rule, LIMIT)
    }

    fn named(&self, rule: &str, window: &str) -> Option<Decimal> {
        let mut limits = self.0.iter().rev();
        let own = limits.find(|own| own.rule == rule && own.window == window)?;
        Some(own.most)
    }
}

/// What a limit is called that is not for a calendar window.
const LIMIT: &str = "limit";

/// The field of a configuration that limits this window.
fn name_of(window: Window) -> &'static str {
    match window {
        Window::Seconds(_) => LIMIT,
        calendar => calendar.field(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn limits_are_found_by_rule_and_window() {
        let own = OwnLimits::of(
            r#"{"plan": "gold", "limits": {"all": {"minute": 7, "limit": 1.5}, "other": {"minute": 9, "minute": 10}}}"#,
        );
        let custom = Window::Seconds(NonZeroU32::MIN);
        let shown = |rule, window| own.most(rule, window).map(|most| most.to_string());
        assert_eq!(shown("all", Window::Minute).as_deref(), Some("7"));
        assert_eq!(shown("all", custom).as_deref(), Some("1.5"));
        assert_eq!(shown("other", Window::Minute).as_deref(), Some("10"));
        assert_eq!(shown("all", Window::Hour), None);
        assert_eq!(shown("none", Window::Minute), None);
    }

    #[test]
    fn what_is_no_limit_is_passed_over() {
        for metadata in [
            "",
            "[]",
            r#"{"limits": 5}"#,
            r#"{"limits": {"all": 5}}"#,
            r#"{"limits": {"all": {"minute": "5"}}}"#,
            r#"{"limits": {"all": {"minute": -5}}}"#,
            r#"{"limits": {"all": {"minute": 5}}"#,
        ] {
            let own = OwnLimits::of(metadata);
            assert_eq!(own.most("all", Window::Minute), None, "{metadata}");
        }
    }
}
