//! Configuration: JSON text in, a validated value or every mistake at once out.
//!
//! A filter declares its fields once, with [`record!`](crate::record): the documentation of each field becomes the schema's, the
//! default stands beside it. Reading never stops at the first mistake; each is a [`Problem`] with the path of the
//! field and what to write instead. What spans several fields is checked in [`Configuration::validate`].
//!
//! - `null` means "not given", as in Kong.
//! - `${env:NAME}` inside a string is replaced from the VM's environment; `$${env:NAME}` stands for the text itself.
//! - An empty object passes for an empty list: Kong re-encodes configuration with a JSON library that can't tell them
//!   apart.
//! - An empty text is an empty object: what Envoy sends when `configuration` is left out.

use crate::json::{Kind, Value};
use std::borrow::Cow;
use std::fmt::{Display, Write};

mod field;
mod record;

pub use field::{Field, HeaderName, Seconds, Table, elements_of};

/// Problems past this many are counted, not listed.
const MOST_PROBLEMS: usize = 100;

/// A validated configuration, made from its raw fields.
pub trait Configuration: Sized {
    /// The fields as they are written, each valid by itself.
    type Raw: Field;

    /// Checks what spans several fields and builds the value that requests use. Reports to `reader` and gives `None`
    /// when something is wrong.
    fn validate(raw: Self::Raw, reader: &mut Reader<'_>) -> Option<Self>;
}

/// One thing that is wrong with a configuration, or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `limits[2].window`; empty for the whole.
    pub path: String,
    /// What, and what to write instead.
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// A configuration that passed, and what its author should know all the same.
#[derive(Debug)]
pub struct Checked<C> {
    /// The validated configuration.
    pub config: C,
    /// What works but is doubtful.
    pub warnings: Vec<Problem>,
}

/// Reads and validates a whole configuration text. `environment` answers `${env:NAME}`.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn check<C: Configuration>(
    text: &[u8],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Checked<C>, Vec<Problem>> {
    let mut reader = Reader::new(environment);
    let config = reader
        .document(text)
        .and_then(|value| C::Raw::read(value, &mut reader))
        .and_then(|raw| C::validate(raw, &mut reader));
    let (errors, warnings) = reader.finish();
    match config {
        Some(config) if errors.is_empty() => Ok(Checked { config, warnings }),
        _ => Err(errors),
    }
}

/// Collects the problems of a configuration while its parts are read, and knows which part that is.
pub struct Reader<'e> {
    environment: &'e dyn Fn(&str) -> Option<String>,
    path: String,
    errors: Vec<Problem>,
    unlisted: usize,
    warnings: Vec<Problem>,
}

impl<'e> Reader<'e> {
    /// A reader with nothing read yet.
    pub fn new(environment: &'e dyn Fn(&str) -> Option<String>) -> Reader<'e> {
        Reader {
            environment,
            path: String::new(),
            errors: Vec::new(),
            unlisted: 0,
            warnings: Vec::new(),
        }
    }

    /// The JSON value of a text, or `None` with the mistake reported.
    pub fn document<'t>(&mut self, text: &'t [u8]) -> Option<Value<'t>> {
        let text = if text.trim_ascii().is_empty() {
            b"{}"
        } else {
            text
        };
        Value::parse(text)
            .map_err(|malformed| self.error(malformed))
            .ok()
    }

    /// The errors and the warnings so far.
    pub fn finish(mut self) -> (Vec<Problem>, Vec<Problem>) {
        if self.unlisted > 0 {
            let message = format!("and {} more problems", self.unlisted);
            self.errors.push(Problem {
                path: String::new(),
                message,
            });
        }
        (self.errors, self.warnings)
    }

    /// Whether nothing was wrong so far.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Reports a mistake at the current place.
    pub fn error(&mut self, message: impl Display) {
        if self.errors.len() >= MOST_PROBLEMS {
            self.unlisted = self.unlisted.saturating_add(1);
            return;
        }
        self.errors.push(Problem {
            path: self.path.clone(),
            message: message.to_string(),
        });
    }

    /// Reports something doubtful at the current place.
    pub fn warn(&mut self, message: impl Display) {
        if self.warnings.len() < MOST_PROBLEMS {
            self.warnings.push(Problem {
                path: self.path.clone(),
                message: message.to_string(),
            });
        }
    }

    /// Does something one member further down.
    pub fn member<T>(&mut self, name: impl Display, read: impl FnOnce(&mut Self) -> T) -> T {
        let separator = if self.path.is_empty() { "" } else { "." };
        self.inside(format_args!("{separator}{name}"), read)
    }

    /// Does something one list element further down.
    pub fn element<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.inside(format_args!("[{index}]"), read)
    }

    fn inside<T>(
        &mut self,
        segment: std::fmt::Arguments<'_>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let length = self.path.len();
        // Writing to a String can't fail.
        let _ = self.path.write_fmt(segment);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// A string with `${env:NAME}` replaced; `None`, reported, for anything else.
    pub fn text<'v>(&mut self, value: Value<'v>) -> Option<Cow<'v, str>> {
        let Some(bytes) = value.as_bytes() else {
            self.error("expected a string, in quotes");
            return None;
        };
        let text = match bytes {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
        };
        match text {
            Some(text) if text.contains("${env:") => self.substitute(&text).map(Cow::Owned),
            Some(text) => Some(text),
            None => {
                self.error("expected a string of UTF-8 text");
                None
            }
        }
    }

    fn substitute(&mut self, text: &str) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${env:") {
            if let Some(escaped) = before.strip_suffix('$') {
                out.push_str(escaped);
                out.push_str("${env:");
                rest = after;
                continue;
            }
            out.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.error("'${env:' without '}': write ${env:NAME}");
                return None;
            };
            let Some(value) = (self.environment)(name) else {
                self.error(format_args!(
                    "environment variable {name} is not set: give it to the VM (Envoy vm_config.environment_variables, Istio vmConfig.env; Kong has none: use configFrom)"
                ));
                return None;
            };
            out.push_str(&value);
            rest = after;
        }
        out.push_str(rest);
        Some(out)
    }

    /// The members of an object by the order of `names`; one that is null counts as absent. Reports unknown and repeated ones;
    /// `None`, reported, if it is no object.
    pub fn members<'v, const N: usize>(
        &mut self,
        value: Value<'v>,
        names: &[&str; N],
    ) -> Option<[Option<Value<'v>>; N]> {
        let found = self.members_as_written(value, names)?;
        Some(found.map(|member| member.filter(|value| !matches!(value.kind(), Kind::Null))))
    }

    /// The same, with the members that are null.
    pub fn members_as_written<'v, const N: usize>(
        &mut self,
        value: Value<'v>,
        names: &[&str; N],
    ) -> Option<[Option<Value<'v>>; N]> {
        if !matches!(value.kind(), Kind::Object) {
            // An empty list is how an empty object may come back from Kong.
            if !matches!(value.kind(), Kind::Array) || value.items().next().is_some() {
                self.error("expected an object, as {\"field\": value}");
                return None;
            }
        }
        let mut found = [None; N];
        for (name, member) in value.members() {
            let name = name.as_str().unwrap_or(Cow::Borrowed("\u{FFFD}"));
            match names
                .iter()
                .position(|known| *known == name)
                .and_then(|at| found.get_mut(at))
            {
                Some(slot) if slot.is_some() => {
                    self.member(&name, |reader| reader.error("given twice: keep one"))
                }
                Some(slot) => *slot = Some(member),
                None => self.member(&name, |reader| reader.error(unknown(&name, names))),
            }
        }
        Some(found)
    }

    /// One field of a record: its value, else what stands for an absent one, else a reported mistake.
    pub fn field<T: Field>(
        &mut self,
        name: &str,
        value: Option<Value<'_>>,
        absent: Option<T>,
    ) -> Option<T> {
        let value = value.filter(|value| !T::NULL_IS_ABSENT || !matches!(value.kind(), Kind::Null));
        self.member(name, |reader| match value {
            Some(value) => T::read(value, reader),
            None => {
                if absent.is_none() {
                    reader.error("required field missing");
                }
                absent
            }
        })
    }
}

/// The message for an unknown field: the one that was probably meant, or all there are.
fn unknown(name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    match near {
        Some((_, near)) => format!("unknown field: did you mean {near}?"),
        None => format!("unknown field: one of {}", known.join(", ")),
    }
}

/// Edits that turn one name into the other (Levenshtein), `-` and `_` and case taken as the same.
fn distance(a: &str, b: &str) -> usize {
    let fold = |byte: u8| {
        if byte == b'-' {
            b'_'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        let mut left = i.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let substituted = corner.saturating_add(usize::from(fold(x) != fold(y)));
            corner = *cell;
            left = substituted
                .min(corner.saturating_add(1))
                .min(left.saturating_add(1));
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
