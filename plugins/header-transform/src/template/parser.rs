//! From words to an expression.

use super::eval::{Function, Source, StringFunction};
use super::lexer::{Token, tokens};

/// Parentheses, indices and operators nested deeper than this are refused: evaluating each is a level of recursion, and a module
/// has 64 KiB of stack.
const DEEPEST: usize = 24;

/// An expression of more words than this is refused: its cost is bounded before any request comes.
const MOST_WORDS: usize = 256;

/// Which names an expression may use, and what happens to those it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// All of them; what can't ever work is refused.
    Tollgate,
    /// Those of Kong's sandbox; every other is nil, and fails when it is used.
    Kong,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// Occurs when something stands where it makes no sense.
    Unexpected(String),
    /// Occurs when the expression ends too early.
    Incomplete,
    /// Occurs when a string is not closed.
    OpenText,
    /// Occurs when it is longer or nests deeper than is evaluated.
    TooComplex,
    /// Occurs when a name that nothing stands for is called or indexed.
    UnknownName(String),
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SyntaxError::Unexpected(word) => write!(f, "unexpected '{word}'"),
            SyntaxError::Incomplete => f.write_str("the expression ends too early"),
            SyntaxError::OpenText => f.write_str("a string without its closing quote"),
            SyntaxError::TooComplex => write!(
                f,
                "more than {MOST_WORDS} words, or nested deeper than {DEEPEST}"
            ),
            SyntaxError::UnknownName(name) => write!(
                f,
                "nothing is called '{name}': there are headers, query_params, uri_captures, shared, consumer, string, type, \
                 tostring and tonumber"
            ),
        }
    }
}

/// What works, but hardly as it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A name that nothing stands for: it is nil.
    UnknownName(String),
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Doubt::UnknownName(name) => write!(
                f,
                "nothing is called '{name}': it is nil (a name with a '-' is written headers['x-{name}'])"
            ),
        }
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Vec<u8>),
    Source(Source),
    Function(Function),
    /// `string`
    Strings,
    /// A name that nothing stands for.
    Unknown,
    Index(Box<Expr>, Box<Expr>),
    Call(Box<Expr>, Vec<Expr>),
    /// `text:name(arguments)`
    Method(Box<Expr>, String, Vec<Expr>),
    Not(Box<Expr>),
    Length(Box<Expr>),
    Minus(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
}

/// Operators between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Less,
    Greater,
    AtMost,
    AtLeast,
    Equal,
    Unequal,
    Concat,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

impl Operator {
    /// The operator with how strongly it binds to what is before and behind it.
    fn of(token: &Token) -> Option<(Operator, u8, u8)> {
        Some(match token {
            Token::Name(name) if name == "or" => (Operator::Or, 1, 2),
            Token::Name(name) if name == "and" => (Operator::And, 3, 4),
            Token::Mark("<") => (Operator::Less, 5, 6),
            Token::Mark(">") => (Operator::Greater, 5, 6),
            Token::Mark("<=") => (Operator::AtMost, 5, 6),
            Token::Mark(">=") => (Operator::AtLeast, 5, 6),
            Token::Mark("==") => (Operator::Equal, 5, 6),
            Token::Mark("~=") => (Operator::Unequal, 5, 6),
            // To the right.
            Token::Mark("..") => (Operator::Concat, 8, 7),
            Token::Mark("+") => (Operator::Add, 9, 10),
            Token::Mark("-") => (Operator::Subtract, 9, 10),
            Token::Mark("*") => (Operator::Multiply, 11, 12),
            Token::Mark("/") => (Operator::Divide, 11, 12),
            Token::Mark("%") => (Operator::Modulo, 11, 12),
            // To the right, and stronger than a sign before it.
            Token::Mark("^") => (Operator::Power, 16, 15),
            _ => return None,
        })
    }
}

/// How strongly `not`, `#` and `-` bind.
const UNARY: u8 = 13;

impl Expr {
    /// How many levels of recursion it takes.
    fn depth(&self) -> usize {
        let most = |more: &[Expr]| more.iter().map(Expr::depth).max().unwrap_or_default();
        let below = match self {
            Expr::Index(a, b) | Expr::Binary(_, a, b) => a.depth().max(b.depth()),
            Expr::Call(a, more) | Expr::Method(a, _, more) => a.depth().max(most(more)),
            Expr::Not(a) | Expr::Length(a) | Expr::Minus(a) => a.depth(),
            Expr::Nil
            | Expr::Bool(_)
            | Expr::Number(_)
            | Expr::Text(_)
            | Expr::Source(_)
            | Expr::Function(_)
            | Expr::Strings
            | Expr::Unknown => 0,
        };
        below.saturating_add(1)
    }

    /// Whether it reads from this source.
    pub(super) fn reads(&self, source: Source) -> bool {
        match self {
            Expr::Source(read) => *read == source,
            Expr::Index(a, b) | Expr::Binary(_, a, b) => a.reads(source) || b.reads(source),
            Expr::Call(a, more) | Expr::Method(a, _, more) => {
                a.reads(source) || more.iter().any(|argument| argument.reads(source))
            }
            Expr::Not(a) | Expr::Length(a) | Expr::Minus(a) => a.reads(source),
            Expr::Nil
            | Expr::Bool(_)
            | Expr::Number(_)
            | Expr::Text(_)
            | Expr::Function(_)
            | Expr::Strings
            | Expr::Unknown => false,
        }
    }
}

/// Parses a whole expression.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn parse(
    text: &str,
    dialect: Dialect,
    doubts: &mut dyn FnMut(Doubt),
) -> Result<Expr, SyntaxError> {
    let tokens = tokens(text)?;
    if tokens.len() > MOST_WORDS {
        return Err(SyntaxError::TooComplex);
    }
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        dialect,
        doubts,
    };
    let expression = parser.expression(0, 0)?;
    match parser.tokens.next() {
        None if expression.depth() > DEEPEST => Err(SyntaxError::TooComplex),
        None => Ok(expression),
        Some(token) => Err(unexpected(&token)),
    }
}

fn unexpected(token: &Token) -> SyntaxError {
    SyntaxError::Unexpected(match token {
        Token::Name(name) => name.clone(),
        Token::Number(number) => super::number::spell(*number),
        Token::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Token::Mark(mark) => (*mark).to_owned(),
    })
}

struct Parser<'d> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    dialect: Dialect,
    doubts: &'d mut dyn FnMut(Doubt),
}

/// Words that are no names.
const RESERVED: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

impl Parser<'_> {
    /// An expression whose operators bind at least as strongly as this.
    fn expression(&mut self, least: u8, depth: usize) -> Result<Expr, SyntaxError> {
        if depth > DEEPEST {
            return Err(SyntaxError::TooComplex);
        }
        let inner = depth.saturating_add(1);
        let mut left = match self.tokens.peek() {
            Some(Token::Name(name)) if name == "not" => {
                self.tokens.next();
                Expr::Not(Box::new(self.expression(UNARY, inner)?))
            }
            Some(Token::Mark("#")) => {
                self.tokens.next();
                Expr::Length(Box::new(self.expression(UNARY, inner)?))
            }
            Some(Token::Mark("-")) => {
                self.tokens.next();
                Expr::Minus(Box::new(self.expression(UNARY, inner)?))
            }
            _ => self.operand(inner)?,
        };
        // Each turn makes the tree one deeper, and evaluating it is a recursion.
        for turn in 0usize.. {
            let Some((operator, before, behind)) = self.tokens.peek().and_then(Operator::of) else {
                break;
            };
            if before < least {
                break;
            }
            if turn > DEEPEST {
                return Err(SyntaxError::TooComplex);
            }
            self.tokens.next();
            let right = self.expression(behind, inner)?;
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn operand(&mut self, depth: usize) -> Result<Expr, SyntaxError> {
        let mut unknown = None;
        let mut operand = match self.tokens.next().ok_or(SyntaxError::Incomplete)? {
            Token::Number(number) => return Ok(Expr::Number(number)),
            Token::Text(text) => Expr::Text(text),
            Token::Mark("(") => {
                let inside = self.expression(0, depth)?;
                self.expect(")")?;
                inside
            }
            Token::Name(name) if RESERVED.contains(&name.as_str()) => match name.as_str() {
                "nil" => return Ok(Expr::Nil),
                "true" => return Ok(Expr::Bool(true)),
                "false" => return Ok(Expr::Bool(false)),
                _ => return Err(SyntaxError::Unexpected(name)),
            },
            Token::Name(name) => match self.known(&name) {
                Some(known) => known,
                None => {
                    unknown = Some(name);
                    Expr::Unknown
                }
            },
            token => return Err(unexpected(&token)),
        };
        // A string's own text takes no suffix in Lua, only in parentheses; nothing is lost by allowing it.
        for turn in 0usize.. {
            let suffix = match self.tokens.peek() {
                Some(Token::Mark(mark @ ("." | "[" | "(" | ":"))) => *mark,
                _ => break,
            };
            if turn > DEEPEST {
                return Err(SyntaxError::TooComplex);
            }
            if let (Some(name), Dialect::Tollgate) = (&unknown, self.dialect) {
                return Err(SyntaxError::UnknownName(name.clone()));
            }
            self.tokens.next();
            operand = match suffix {
                "." => {
                    let name = self.name()?;
                    Expr::Index(Box::new(operand), Box::new(Expr::Text(name.into_bytes())))
                }
                "[" => {
                    let index = self.expression(0, depth)?;
                    self.expect("]")?;
                    Expr::Index(Box::new(operand), Box::new(index))
                }
                "(" => Expr::Call(Box::new(operand), self.arguments(depth)?),
                _ => {
                    let name = self.name()?;
                    self.expect("(")?;
                    if self.dialect == Dialect::Tollgate && StringFunction::named(&name).is_none() {
                        return Err(SyntaxError::UnknownName(name));
                    }
                    Expr::Method(Box::new(operand), name, self.arguments(depth)?)
                }
            };
        }
        if let Some(name) = unknown {
            (self.doubts)(Doubt::UnknownName(name));
        }
        Ok(operand)
    }

    fn known(&self, name: &str) -> Option<Expr> {
        let ours = self.dialect == Dialect::Tollgate;
        Some(match name {
            "headers" => Expr::Source(Source::Headers),
            "query_params" => Expr::Source(Source::Query),
            "uri_captures" => Expr::Source(Source::Captures),
            "shared" => Expr::Source(Source::Shared),
            "type" => Expr::Function(Function::Type),
            "consumer" if ours => Expr::Source(Source::Consumer),
            "string" if ours => Expr::Strings,
            "tostring" if ours => Expr::Function(Function::ToString),
            "tonumber" if ours => Expr::Function(Function::ToNumber),
            _ => return None,
        })
    }

    fn name(&mut self) -> Result<String, SyntaxError> {
        match self.tokens.next() {
            Some(Token::Name(name)) if !RESERVED.contains(&name.as_str()) => Ok(name),
            Some(token) => Err(unexpected(&token)),
            None => Err(SyntaxError::Incomplete),
        }
    }

    fn expect(&mut self, mark: &'static str) -> Result<(), SyntaxError> {
        match self.tokens.next() {
            Some(Token::Mark(found)) if found == mark => Ok(()),
            Some(token) => Err(unexpected(&token)),
            None => Err(SyntaxError::Incomplete),
        }
    }

    /// What stands between the parentheses of a call, of which the first is already read.
    fn arguments(&mut self, depth: usize) -> Result<Vec<Expr>, SyntaxError> {
        let mut arguments = Vec::new();
        if self.tokens.peek() == Some(&Token::Mark(")")) {
            self.tokens.next();
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression(0, depth)?);
            match self.tokens.next() {
                Some(Token::Mark(")")) => return Ok(arguments),
                Some(Token::Mark(",")) => {}
                Some(token) => return Err(unexpected(&token)),
                None => return Err(SyntaxError::Incomplete),
            }
        }
    }
}
