//! Patterns for the names of models.

/// A pattern: `*` stands for any characters, also none, and `?` for one. All others stand for themselves, upper and lower case apart.
/// There are no escapes: model names have neither sign.
///
/// A match takes at most as many steps as pattern and name have bytes, multiplied; it does not recurse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: String,
}

/// How much a pattern says. Of several that match, the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    /// Whether it stands for one name only.
    exact: bool,
    /// How many characters stand for themselves.
    literals: usize,
    /// How many `?` there are.
    singles: usize,
}

impl Glob {
    /// Takes a pattern. Every text is one; an empty one matches the empty name only.
    pub fn new(pattern: &str) -> Glob {
        Glob {
            pattern: pattern.to_owned(),
        }
    }

    /// The pattern, as it was written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether it matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut rest) = (self.pattern.as_str(), name);
        // The last star seen: the pattern behind it, and the name that it has not taken yet.
        let mut star: Option<(&str, &str)> = None;
        loop {
            let mut expected = pattern.chars();
            let mut found = rest.chars();
            match (expected.next(), found.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    pattern = expected.as_str();
                    star = Some((pattern, rest));
                    continue;
                }
                (Some(wanted), Some(character)) if wanted == '?' || wanted == character => {
                    pattern = expected.as_str();
                    rest = found.as_str();
                    continue;
                }
                _ => {}
            }
            // The star takes one character more. Earlier stars need not: they have taken the least they could.
            let Some((behind, taken)) = star else {
                return false;
            };
            let mut more = taken.chars();
            if more.next().is_none() {
                return false;
            }
            pattern = behind;
            rest = more.as_str();
            star = Some((behind, rest));
        }
    }

    /// How much it says.
    pub fn specificity(&self) -> Specificity {
        let count = |wanted: fn(char) -> bool| {
            self.pattern
                .chars()
                .filter(|&character| wanted(character))
                .count()
        };
        Specificity {
            exact: !self.pattern.contains(['*', '?']),
            literals: count(|character| !matches!(character, '*' | '?')),
            singles: count(|character| character == '?'),
        }
    }
}

/// The most specific of the patterns that match; of equals the first.
pub fn most_specific<'a, T>(
    rules: impl IntoIterator<Item = (&'a Glob, T)>,
    name: &str,
) -> Option<T> {
    let mut best: Option<(Specificity, T)> = None;
    for (glob, rule) in rules {
        if !glob.matches(name) {
            continue;
        }
        let specificity = glob.specificity();
        if best
            .as_ref()
            .is_none_or(|(before, _)| specificity > *before)
        {
            best = Some((specificity, rule));
        }
    }
    best.map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, matches) in [
            ("gpt-4.1", "gpt-4.1", true),
            ("gpt-4.1", "gpt-4.1-mini", false),
            ("gpt-4.1*", "gpt-4.1-mini", true),
            ("*sonnet*", "claude-sonnet-4-5", true),
            ("gpt-?", "gpt-5", true),
            ("gpt-?", "gpt-", false),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("?", "é", true),
            ("GPT-4", "gpt-4", false),
        ] {
            assert_eq!(
                Glob::new(pattern).matches(name),
                matches,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = Glob::new(&("*a".repeat(50) + "b"));
        assert!(!pattern.matches(&"a".repeat(1000)));
    }

    #[test]
    fn the_most_specific_wins_wherever_it_stands() {
        let globs = ["*", "gpt-*", "gpt-4?1", "gpt-4.1", "gpt-4.1*", "gpt-5*"].map(Glob::new);
        let best =
            |name| most_specific(globs.iter().map(|glob| (glob, glob.as_str())), name).unwrap();
        assert_eq!(best("gpt-4.1"), "gpt-4.1");
        assert_eq!(best("gpt-4.1-mini"), "gpt-4.1*");
        assert_eq!(best("gpt-4x1"), "gpt-4?1");
        assert_eq!(best("gpt-3"), "gpt-*");
        assert_eq!(best("o3"), "*");
    }

    /// Slow and plainly right.
    fn plain(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                plain(rest, name) || (!name.is_empty() && plain(pattern, &name[1..]))
            }
            ([wanted, pattern @ ..], [character, name @ ..]) => {
                (*wanted == '?' || wanted == character) && plain(pattern, name)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_matcher(pattern in "[ab*?]{0,8}", name in "[abé]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                Glob::new(&pattern).matches(&name),
                plain(&chars(&pattern), &chars(&name))
            );
        }
    }
}
