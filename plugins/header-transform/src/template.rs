//! `$(expression)` in values: parsed when the filter is configured, evaluated with a bounded cost in a request (KONG-SPEC 4.8).
//!
//! The language is the part of Lua that Kong's users write:
//!
//! ```text
//! value      = *( text / "$(" expression ")" )          ; parentheses balance; an unbalanced "$(" is text
//! expression = or ; by rising precedence: or, and, < > <= >= == ~=, .., + -, * / %, not # -, ^
//! operand    = "nil" / "true" / "false" / number / string / name / "(" expression ")"
//! suffix     = "." name / "[" expression "]" / "(" arguments ")" / ":" name "(" arguments ")"
//! name       = "headers" / "query_params" / "uri_captures" / "shared" / "type"
//!            / "consumer" / "string" / "tostring" / "tonumber"      ; not with compat: kong
//! ```
//!
//! `nil` and `false` render as nothing. What fails in Lua fails here: indexing nil, calling what is no function, arithmetic on
//! what is no number. The request then ends with 500, as in Kong.

mod eval;
mod lexer;
mod number;
mod parser;
mod pattern;

pub use eval::{EvalError, Source, Sources, Value};
pub(crate) use number::{parse as parse_number, spell as spell_number};
pub use parser::{Dialect, Doubt, SyntaxError};

use parser::Expr;

/// The longest text that an expression may make, in bytes.
pub const LONGEST_TEXT: usize = 64 * 1024;

/// A value of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// Nothing to evaluate.
    Literal(Vec<u8>),
    /// Texts and expressions, in order.
    Parts(Vec<Part>),
    /// It does not parse, and every request that meets it fails. Only with `compat: kong`, which finds out no earlier.
    Broken,
}

/// A piece of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// As it stands.
    Text(Vec<u8>),
    /// What is to be evaluated.
    Expression(Expression),
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Expr);

impl Template {
    /// Reads a value. What is doubtful but works is told to `doubts`.
    ///
    /// # Errors
    /// The first expression that does not parse, or can't ever work.
    pub fn parse(
        text: &str,
        dialect: Dialect,
        doubts: &mut dyn FnMut(Doubt),
    ) -> Result<Template, SyntaxError> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("$(") {
            literal.extend_from_slice(before.as_bytes());
            let Some((inside, behind)) = balanced(after) else {
                literal.extend_from_slice(b"$(");
                rest = after;
                continue;
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Expression(Expression(parser::parse(
                inside, dialect, doubts,
            )?)));
            rest = behind;
        }
        literal.extend_from_slice(rest.as_bytes());
        if parts.is_empty() {
            return Ok(Template::Literal(literal));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template::Parts(parts))
    }

    /// The value's text.
    ///
    /// # Errors
    /// When an expression fails, or costs too much.
    pub fn render(&self, sources: &dyn Sources) -> Result<Vec<u8>, EvalError> {
        match self {
            Template::Literal(text) => Ok(text.clone()),
            Template::Broken => Err(EvalError::Broken),
            Template::Parts(parts) => {
                let mut out = Vec::new();
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text),
                        Part::Expression(expression) => {
                            out.extend_from_slice(&expression.render(sources)?);
                        }
                    }
                    if out.len() > LONGEST_TEXT {
                        return Err(EvalError::TooLong);
                    }
                }
                Ok(out)
            }
        }
    }

    /// Whether it is configured as nothing at all; an expression that renders as nothing is not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Template::Literal(text) if text.is_empty())
    }

    /// Whether an expression in it reads from this source.
    #[must_use]
    pub fn reads(&self, source: Source) -> bool {
        match self {
            Template::Literal(_) | Template::Broken => false,
            Template::Parts(parts) => parts.iter().any(|part| match part {
                Part::Text(_) => false,
                Part::Expression(expression) => expression.0.reads(source),
            }),
        }
    }

    /// What the value begins with, when that is known before any request.
    #[must_use]
    pub fn first_byte(&self) -> Option<u8> {
        match self {
            Template::Literal(text) => text.first().copied(),
            Template::Broken => None,
            Template::Parts(parts) => match parts.first() {
                Some(Part::Text(text)) => text.first().copied(),
                _ => None,
            },
        }
    }
}

impl Expression {
    /// What the expression renders as.
    ///
    /// # Errors
    /// When it fails, or costs too much.
    pub fn render(&self, sources: &dyn Sources) -> Result<Vec<u8>, EvalError> {
        eval::render(&self.0, sources)
    }
}

/// Splits behind the parenthesis that closes the one before the text. Quotes don't count, as in Lua's `%b()`.
fn balanced(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth = depth.saturating_add(1),
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some((text.get(..at)?, text.get(at.saturating_add(1)..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests;
