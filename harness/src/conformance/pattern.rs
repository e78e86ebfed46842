//! Patterns as PCRE and Python read them, for Rust's regex engine.

use regex::Regex;

/// Compiles a pattern in which `$` matches at the end of the text or before one final newline, as it does in PCRE and
/// Python; in Rust it matches at the end alone.
///
/// # Errors
/// Fails with the engine's reason on a pattern it doesn't understand.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let mut translated = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                translated.push(character);
                translated.extend(characters.next());
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '$' if !in_class => {
                translated.push_str(r"(?:\n?\z)");
                continue;
            }
            _ => {}
        }
        translated.push(character);
    }
    Regex::new(&translated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap().is_match(text)
    }

    #[test]
    fn the_end_may_have_one_newline_after_it() {
        assert!(found("^a$", "a"));
        assert!(found("^a$", "a\n"));
        assert!(!found("^a$", "a\n\n"));
        assert!(!found("^a$", "ab"));
        assert!(found(r"^\}\n$", "}\n"));
    }

    #[test]
    fn a_dollar_is_itself_when_escaped_or_in_a_class() {
        assert!(found(r"^\$[$]$", "$$\n"));
        assert!(!found(r"^\$$", ""));
    }
}
