//! Expressions in words.

use super::number;
use super::parser::SyntaxError;

/// A word of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name, or a word of the language.
    Name(String),
    /// A number.
    Number(f64),
    /// A string without its quotes, escapes resolved.
    Text(Vec<u8>),
    /// An operator or a bracket.
    Mark(&'static str),
}

/// Longer marks come before those that they begin with.
const MARKS: [&str; 24] = [
    "...", "..", "==", "~=", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "%", "^", "#", "(",
    ")", "[", "]", ".", ":", ",", ";",
];

/// The words in order.
///
/// # Errors
/// What begins no word.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        let (token, behind) = match first {
            'A'..='Z' | 'a'..='z' | '_' => {
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len());
                let (name, behind) = rest.split_at(end);
                (Token::Name(name.to_owned()), behind)
            }
            '0'..='9' => number_at(rest)?,
            '.' if rest
                .strip_prefix('.')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) =>
            {
                number_at(rest)?
            }
            '"' | '\'' => text_at(rest, first)?,
            _ => {
                let mark = MARKS.iter().find(|mark| rest.starts_with(**mark));
                let Some(mark) = mark else {
                    return Err(SyntaxError::Unexpected(first.to_string()));
                };
                (
                    Token::Mark(mark),
                    rest.get(mark.len()..).unwrap_or_default(),
                )
            }
        };
        tokens.push(token);
        rest = behind;
    }
}

fn number_at(text: &str) -> Result<(Token, &str), SyntaxError> {
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut before = '0';
    let end = text
        .find(|c: char| {
            let sign = !hexadecimal && matches!(c, '+' | '-') && matches!(before, 'e' | 'E');
            before = c;
            !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || sign)
        })
        .unwrap_or(text.len());
    let (digits, behind) = text.split_at(end);
    match number::parse(digits.as_bytes()) {
        Some(number) => Ok((Token::Number(number), behind)),
        None => Err(SyntaxError::Unexpected(digits.to_owned())),
    }
}

fn text_at(text: &str, quote: char) -> Result<(Token, &str), SyntaxError> {
    let mut out = Vec::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == quote {
            let behind = text.get(at.saturating_add(1)..).unwrap_or_default();
            return Ok((Token::Text(out), behind));
        }
        if character != '\\' {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let Some((_, escape)) = characters.next() else {
            break;
        };
        match escape {
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' | '"' | '\'' => out.push(escape as u8),
            other => return Err(SyntaxError::Unexpected(format!("\\{other}"))),
        }
    }
    Err(SyntaxError::OpenText)
}
