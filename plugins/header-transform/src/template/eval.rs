//! Evaluating an expression, with a bounded cost.

use super::LONGEST_TEXT;
use super::number;
use super::parser::{Expr, Operator};
use super::pattern::{self, Matched};
use std::cell::Cell;

/// Steps that an expression may take: operators, calls, and what a pattern tries at a place of its text.
const MOST_STEPS: u32 = 100_000;

/// Where the names of expressions read from.
pub trait Sources {
    /// The values under a name: none, one, or those of a repeated header or argument.
    fn look_up(&self, source: Source, name: &[u8]) -> Vec<Value>;

    /// The value at a number; captures have them.
    fn at(&self, source: Source, index: usize) -> Option<Value>;

    /// Whether a list is shown as Lua shows a table, `table: 0x...`; else its values are joined with `, `.
    fn shows_tables(&self) -> bool;
}

/// What can be indexed by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `headers`
    Headers,
    /// `query_params`
    Query,
    /// `uri_captures`
    Captures,
    /// `shared`
    Shared,
    /// `consumer`
    Consumer,
}

/// Functions without a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Type,
    ToString,
    ToNumber,
    String(StringFunction),
}

/// Functions of `string`, which are methods of strings too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StringFunction {
    Upper,
    Lower,
    Len,
    Sub,
    Reverse,
    Rep,
    Find,
    Match,
    Gsub,
}

impl StringFunction {
    pub(super) fn named(name: &str) -> Option<StringFunction> {
        Some(match name {
            "upper" => StringFunction::Upper,
            "lower" => StringFunction::Lower,
            "len" => StringFunction::Len,
            "sub" => StringFunction::Sub,
            "reverse" => StringFunction::Reverse,
            "rep" => StringFunction::Rep,
            "find" => StringFunction::Find,
            "match" => StringFunction::Match,
            "gsub" => StringFunction::Gsub,
            _ => return None,
        })
    }
}

/// What an expression comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// True or false.
    Bool(bool),
    /// A double.
    Number(f64),
    /// Bytes.
    Text(Vec<u8>),
    /// The values of a repeated name.
    List(Vec<Value>),
    /// One of the tables.
    Table(Source),
    /// A function.
    #[doc(hidden)]
    Callable(Callable),
}

/// Something to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callable(Option<Function>);

impl Value {
    fn is_true(&self) -> bool {
        !matches!(self, Value::Nil | Value::Bool(false))
    }

    fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::Text(_) => "string",
            Value::List(_) | Value::Table(_) | Value::Callable(Callable(None)) => "table",
            Value::Callable(Callable(Some(_))) => "function",
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            Value::Text(text) => number::parse(text),
            _ => None,
        }
    }

    /// The text of a string or a number.
    fn text(self) -> Option<Vec<u8>> {
        match self {
            Value::Text(text) => Some(text),
            Value::Number(number) => Some(number::spell(number).into_bytes()),
            _ => None,
        }
    }
}

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// Occurs when the template did not parse.
    Broken,
    /// Occurs when something is indexed that has nothing in it.
    NotIndexable,
    /// Occurs when something is called that is no function.
    NotCallable,
    /// Occurs when an operator or a function can't do its work with what it is given.
    WrongOperand,
    /// Occurs when a pattern is malformed.
    BadPattern,
    /// Occurs when it takes too many steps.
    TooCostly,
    /// Occurs when a text grows too long.
    TooLong,
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EvalError::Broken => "it is no expression",
            EvalError::NotIndexable => "something is indexed that has nothing in it",
            EvalError::NotCallable => "something is called that is no function",
            EvalError::WrongOperand => "an operator or a function can't work with what it is given",
            EvalError::BadPattern => "a pattern is malformed",
            EvalError::TooCostly => "it takes too many steps",
            EvalError::TooLong => "a text grows too long",
        })
    }
}

/// The text of an expression's value: nothing for nil and false.
pub(super) fn render(expression: &Expr, sources: &dyn Sources) -> Result<Vec<u8>, EvalError> {
    let evaluation = Evaluation {
        sources,
        left: Cell::new(MOST_STEPS),
    };
    let value = evaluation.value(expression)?;
    if !value.is_true() {
        return Ok(Vec::new());
    }
    evaluation.show(value)
}

struct Evaluation<'s> {
    sources: &'s dyn Sources,
    left: Cell<u32>,
}

impl Evaluation<'_> {
    fn step(&self) -> Result<(), EvalError> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(EvalError::TooCostly),
        }
    }

    /// Lua's `tostring`.
    fn show(&self, value: Value) -> Result<Vec<u8>, EvalError> {
        Ok(match value {
            Value::Nil => b"nil".to_vec(),
            Value::Bool(true) => b"true".to_vec(),
            Value::Bool(false) => b"false".to_vec(),
            Value::List(values) if !self.sources.shows_tables() => {
                let shown = values
                    .into_iter()
                    .map(|value| self.show(value))
                    .collect::<Result<Vec<_>, _>>()?;
                bounded(shown.join(&b", "[..]))?
            }
            Value::List(_) | Value::Table(_) | Value::Callable(Callable(None)) => {
                b"table: 0x00000000".to_vec()
            }
            Value::Callable(Callable(Some(_))) => b"function: builtin".to_vec(),
            text => text.text().unwrap_or_default(),
        })
    }

    fn value(&self, expression: &Expr) -> Result<Value, EvalError> {
        self.step()?;
        Ok(match expression {
            Expr::Nil | Expr::Unknown => Value::Nil,
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Number(number) => Value::Number(*number),
            Expr::Text(text) => Value::Text(text.clone()),
            Expr::Source(source) => Value::Table(*source),
            Expr::Function(function) => Value::Callable(Callable(Some(*function))),
            Expr::Strings => Value::Callable(Callable(None)),
            Expr::Index(of, index) => {
                let of = self.value(of)?;
                self.index(of, self.value(index)?)?
            }
            Expr::Call(function, arguments) => {
                let function = self.value(function)?;
                let arguments = self.values(arguments)?;
                self.call(function, arguments)?
            }
            Expr::Method(of, name, arguments) => {
                let of = self.value(of)?;
                let function = self.index(of.clone(), Value::Text(name.clone().into_bytes()))?;
                let mut all = vec![of];
                all.extend(self.values(arguments)?);
                self.call(function, all)?
            }
            Expr::Not(operand) => Value::Bool(!self.value(operand)?.is_true()),
            Expr::Length(operand) => match self.value(operand)? {
                Value::Text(text) => Value::Number(text.len() as f64),
                Value::List(values) => Value::Number(values.len() as f64),
                Value::Table(_) => Value::Number(0.0),
                _ => return Err(EvalError::WrongOperand),
            },
            Expr::Minus(operand) => Value::Number(
                -self
                    .value(operand)?
                    .number()
                    .ok_or(EvalError::WrongOperand)?,
            ),
            Expr::Binary(operator, left, right) => self.binary(*operator, left, right)?,
        })
    }

    fn values(&self, expressions: &[Expr]) -> Result<Vec<Value>, EvalError> {
        expressions
            .iter()
            .map(|expression| self.value(expression))
            .collect()
    }

    fn index(&self, of: Value, index: Value) -> Result<Value, EvalError> {
        let position = index.number().filter(|_| matches!(index, Value::Number(_)));
        let function = |name: &[u8]| {
            let known = std::str::from_utf8(name)
                .ok()
                .and_then(StringFunction::named);
            known.map_or(Value::Nil, |known| {
                Value::Callable(Callable(Some(Function::String(known))))
            })
        };
        Ok(match (of, index) {
            (Value::Table(source), Value::Text(name)) => {
                let mut values = self.sources.look_up(source, &name);
                match values.len() {
                    0 | 1 => values.pop().unwrap_or(Value::Nil),
                    _ => Value::List(values),
                }
            }
            (Value::Table(source), Value::Number(_)) => whole(position)
                .and_then(|at| self.sources.at(source, at))
                .unwrap_or(Value::Nil),
            (Value::List(values), Value::Number(_)) => whole(position)
                .and_then(|at| values.into_iter().nth(at.checked_sub(1)?))
                .unwrap_or(Value::Nil),
            (Value::Text(_) | Value::Callable(Callable(None)), Value::Text(name)) => {
                function(&name)
            }
            (
                Value::Table(_) | Value::List(_) | Value::Text(_) | Value::Callable(Callable(None)),
                _,
            ) => Value::Nil,
            (
                Value::Nil | Value::Bool(_) | Value::Number(_) | Value::Callable(Callable(Some(_))),
                _,
            ) => return Err(EvalError::NotIndexable),
        })
    }

    fn binary(&self, operator: Operator, left: &Expr, right: &Expr) -> Result<Value, EvalError> {
        let left = self.value(left)?;
        match operator {
            Operator::Or if left.is_true() => return Ok(left),
            Operator::And if !left.is_true() => return Ok(left),
            Operator::Or | Operator::And => return self.value(right),
            _ => {}
        }
        let right = self.value(right)?;
        let compared = |allowed: fn(std::cmp::Ordering) -> bool| match (&left, &right) {
            (Value::Number(a), Value::Number(b)) => {
                Ok(Value::Bool(a.partial_cmp(b).is_some_and(allowed)))
            }
            (Value::Text(a), Value::Text(b)) => Ok(Value::Bool(allowed(a.cmp(b)))),
            _ => Err(EvalError::WrongOperand),
        };
        let computed = |compute: fn(f64, f64) -> f64| match (left.number(), right.number()) {
            (Some(a), Some(b)) => Ok(Value::Number(compute(a, b))),
            _ => Err(EvalError::WrongOperand),
        };
        match operator {
            Operator::Or | Operator::And => Ok(left),
            Operator::Less => compared(std::cmp::Ordering::is_lt),
            Operator::Greater => compared(std::cmp::Ordering::is_gt),
            Operator::AtMost => compared(std::cmp::Ordering::is_le),
            Operator::AtLeast => compared(std::cmp::Ordering::is_ge),
            Operator::Equal => Ok(Value::Bool(left == right)),
            Operator::Unequal => Ok(Value::Bool(left != right)),
            Operator::Add => computed(|a, b| a + b),
            Operator::Subtract => computed(|a, b| a - b),
            Operator::Multiply => computed(|a, b| a * b),
            Operator::Divide => computed(|a, b| a / b),
            Operator::Modulo => computed(|a, b| a - (a / b).floor() * b),
            Operator::Power => computed(f64::powf),
            Operator::Concat => match (left.text(), right.text()) {
                (Some(mut a), Some(b)) => {
                    a.extend_from_slice(&b);
                    bounded(a).map(Value::Text)
                }
                _ => Err(EvalError::WrongOperand),
            },
        }
    }

    fn call(&self, function: Value, arguments: Vec<Value>) -> Result<Value, EvalError> {
        let Value::Callable(Callable(Some(function))) = function else {
            return Err(EvalError::NotCallable);
        };
        let mut arguments = arguments.into_iter();
        Ok(match function {
            Function::Type => {
                let kind = arguments.next().ok_or(EvalError::WrongOperand)?.kind();
                Value::Text(kind.as_bytes().to_vec())
            }
            Function::ToString => {
                Value::Text(self.show(arguments.next().ok_or(EvalError::WrongOperand)?)?)
            }
            Function::ToNumber => {
                let number = arguments.next().ok_or(EvalError::WrongOperand)?.number();
                number.map_or(Value::Nil, Value::Number)
            }
            Function::String(function) => self.string(function, arguments)?,
        })
    }

    fn string(
        &self,
        function: StringFunction,
        mut arguments: impl Iterator<Item = Value>,
    ) -> Result<Value, EvalError> {
        let next_text = |arguments: &mut dyn Iterator<Item = Value>| {
            arguments
                .next()
                .and_then(Value::text)
                .ok_or(EvalError::WrongOperand)
        };
        let mut text = next_text(&mut arguments)?;
        // Copying is paid for as well.
        self.left
            .set(self.left.get().saturating_sub(cost_of(text.len())));
        Ok(match function {
            StringFunction::Upper => {
                text.make_ascii_uppercase();
                Value::Text(text)
            }
            StringFunction::Lower => {
                text.make_ascii_lowercase();
                Value::Text(text)
            }
            StringFunction::Len => Value::Number(text.len() as f64),
            StringFunction::Reverse => {
                text.reverse();
                Value::Text(text)
            }
            StringFunction::Rep => {
                let times = number_of(arguments.next())?.ok_or(EvalError::WrongOperand)?;
                let times = whole(Some(times.max(0.0))).unwrap_or(usize::MAX);
                if text.len().saturating_mul(times) > LONGEST_TEXT {
                    return Err(EvalError::TooLong);
                }
                Value::Text(text.repeat(times.min(LONGEST_TEXT)))
            }
            StringFunction::Sub => {
                let from = number_of(arguments.next())?.ok_or(EvalError::WrongOperand)?;
                let to = number_of(arguments.next())?.unwrap_or(-1.0);
                let start = place(from, text.len()).max(1).saturating_sub(1);
                let end = place(to, text.len()).min(text.len());
                Value::Text(text.get(start..end).unwrap_or_default().to_vec())
            }
            StringFunction::Find => {
                let pattern = next_text(&mut arguments)?;
                let init = number_of(arguments.next())?.unwrap_or(1.0);
                let plain = arguments.next().is_some_and(|plain| plain.is_true());
                let start = place(init, text.len()).max(1).saturating_sub(1);
                let found = if plain {
                    pattern::plain(&text, &pattern, start)
                } else {
                    self.search(&text, &pattern, start)?
                        .map(|matched| matched.whole.start)
                };
                found.map_or(Value::Nil, |at| Value::Number(at.saturating_add(1) as f64))
            }
            StringFunction::Match => {
                let pattern = next_text(&mut arguments)?;
                let init = number_of(arguments.next())?.unwrap_or(1.0);
                let start = place(init, text.len()).max(1).saturating_sub(1);
                match self.search(&text, &pattern, start)? {
                    Some(matched) => Value::Text(matched.first(&text).to_vec()),
                    None => Value::Nil,
                }
            }
            StringFunction::Gsub => {
                let pattern = next_text(&mut arguments)?;
                let by = next_text(&mut arguments)?;
                let most = match number_of(arguments.next())? {
                    Some(most) => whole(Some(most.max(0.0))).unwrap_or(usize::MAX),
                    None => usize::MAX,
                };
                Value::Text(self.replace(&text, &pattern, &by, most)?)
            }
        })
    }

    fn search(
        &self,
        text: &[u8],
        pattern: &[u8],
        start: usize,
    ) -> Result<Option<Matched>, EvalError> {
        let mut left = self.left.get();
        let found = pattern::search(text, pattern, start, &mut left);
        self.left.set(left);
        found
    }

    fn replace(
        &self,
        text: &[u8],
        pattern: &[u8],
        by: &[u8],
        most: usize,
    ) -> Result<Vec<u8>, EvalError> {
        let mut out = Vec::new();
        let mut at = 0usize;
        let mut done = 0usize;
        while done < most && at <= text.len() {
            let Some(matched) = self.search(text, pattern, at)? else {
                break;
            };
            out.extend_from_slice(text.get(at..matched.whole.start).unwrap_or_default());
            matched.expand(text, by, &mut out)?;
            at = matched.whole.end;
            if matched.whole.is_empty() {
                out.extend(text.get(at));
                at = at.saturating_add(1);
            }
            done = done.saturating_add(1);
            if out.len() > LONGEST_TEXT {
                return Err(EvalError::TooLong);
            }
            if pattern.first() == Some(&b'^') {
                break;
            }
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        bounded(out)
    }
}

fn bounded(text: Vec<u8>) -> Result<Vec<u8>, EvalError> {
    if text.len() > LONGEST_TEXT {
        Err(EvalError::TooLong)
    } else {
        Ok(text)
    }
}

fn cost_of(length: usize) -> u32 {
    u32::try_from(length / 64).unwrap_or(u32::MAX)
}

fn number_of(value: Option<Value>) -> Result<Option<f64>, EvalError> {
    match value {
        None | Some(Value::Nil) => Ok(None),
        Some(value) => value.number().map(Some).ok_or(EvalError::WrongOperand),
    }
}

/// A number that is a place in a list.
fn whole(number: Option<f64>) -> Option<usize> {
    let number = number?;
    (number.fract() == 0.0 && (0.0..4_294_967_296.0).contains(&number)).then_some(number as usize)
}

/// Lua's places in strings: from 1, negative ones from the end.
fn place(number: f64, length: usize) -> usize {
    let from_start = if number < 0.0 {
        length as f64 + number + 1.0
    } else {
        number
    };
    // A conversion stops at the ends of what a place can be.
    from_start as usize
}
