//! What a field can hold.

use super::Reader;
use crate::json::{Kind, Value};
#[cfg(not(target_family = "wasm"))]
use crate::schema::{self, Json};
use std::time::Duration;

/// Something that can be read from a configuration, and (natively) describe itself.
pub trait Field: Sized {
    /// Reads the value; reports to `reader` and gives `None` when it is wrong.
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// What stands for a field that is not given; `None` where it must be given.
    fn absent() -> Option<Self> {
        None
    }

    /// Whether `null` means "not given", as it does nearly everywhere; else [`Field::read`] gets to see it.
    const NULL_IS_ABSENT: bool = true;

    /// The JSON Schema (draft-04) of what is accepted.
    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json;

    /// The value as it would be written, for the defaults in the schema.
    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json;
}

impl Field for bool {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<bool> {
        match value.kind() {
            Kind::Bool(value) => Some(value),
            _ => {
                reader.error("expected a boolean: write true or false, without quotes");
                None
            }
        }
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        schema::of_type("boolean")
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(*self)
    }
}

impl Field for String {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<String> {
        reader.text(value).map(|text| text.into_owned())
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        schema::of_type("string")
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

impl Field for u64 {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<u64> {
        match number(value, reader)? {
            // A double holds every integer up to here; Kong's configuration passes through doubles.
            whole if whole.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&whole) => {
                Some(whole as u64)
            }
            _ => {
                reader.error("expected an integer that is not negative");
                None
            }
        }
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "integer", "minimum": 0})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(*self)
    }
}

/// A length of time, written in seconds; fractions are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Field for Seconds {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Seconds> {
        match number(value, reader).map(Duration::try_from_secs_f64)? {
            Ok(duration) if !duration.is_zero() => Some(Seconds(duration)),
            _ => {
                reader.error("value must be greater than 0: a number of seconds");
                None
            }
        }
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "number", "minimum": 0, "exclusiveMinimum": true})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.0.as_secs_f64())
    }
}

fn number(value: Value<'_>, reader: &mut Reader<'_>) -> Option<f64> {
    let number = match value.kind() {
        Kind::Number(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    };
    if number.is_none() {
        reader.error("expected a number, without quotes");
    }
    number
}

/// A header's name: letters, digits, `-` and `_`, as Kong allows them. Kept as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(String);

impl HeaderName {
    /// The name, if it is one.
    pub fn new(name: &str) -> Option<HeaderName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (!name.is_empty() && name.bytes().all(allowed)).then(|| HeaderName(name.to_owned()))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for HeaderName {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<HeaderName> {
        let text = reader.text(value)?;
        let name = HeaderName::new(&text);
        if name.is_none() {
            reader.error(format_args!(
                "bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
            ));
        }
        name
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$"})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

impl<T: Field> Field for Option<T> {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Option<T>> {
        T::read(value, reader).map(Some)
    }

    fn absent() -> Option<Option<T>> {
        Some(None)
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        schema::or_null(T::schema())
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::to_json)
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Vec<T>> {
        let mut elements = Vec::new();
        let mut whole = true;
        elements_of(value, reader, |reader, element| {
            match T::read(element, reader) {
                Some(element) => elements.push(element),
                None => whole = false,
            }
        })?;
        whole.then_some(elements)
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "array", "items": T::schema()})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        self.iter().map(T::to_json).collect()
    }
}

/// Walks a list with the path kept; `None`, reported, for anything else. An empty object passes for an empty list.
pub fn elements_of<'v>(
    value: Value<'v>,
    reader: &mut Reader<'_>,
    mut each: impl FnMut(&mut Reader<'_>, Value<'v>),
) -> Option<()> {
    let empty_object = matches!(value.kind(), Kind::Object) && value.members().next().is_none();
    if !matches!(value.kind(), Kind::Array) && !empty_object {
        reader.error("expected an array, as [value, value]");
        return None;
    }
    for (index, element) in value.items().enumerate() {
        reader.element(index, |reader| each(reader, element));
    }
    Some(())
}

/// Names with values, in the order they are written. Repeated names are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table<T>(pub Vec<(String, T)>);

impl<T: Field> Field for Table<T> {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Table<T>> {
        let empty_list = matches!(value.kind(), Kind::Array) && value.items().next().is_none();
        if !matches!(value.kind(), Kind::Object) && !empty_list {
            reader.error("expected an object, as {\"name\": value}");
            return None;
        }
        let mut members: Vec<(String, T)> = Vec::new();
        let mut whole = true;
        for (name, member) in value.members() {
            let name = name.as_str().unwrap_or_default().into_owned();
            let repeated = members.iter().any(|(known, _)| *known == name);
            let read = reader.member(&name, |reader| {
                if repeated {
                    reader.error("given twice: keep one");
                    return None;
                }
                T::read(member, reader)
            });
            match read {
                Some(read) => members.push((name, read)),
                None => whole = false,
            }
        }
        whole.then_some(Table(members))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "object", "additionalProperties": T::schema()})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        Json::Object(
            self.0
                .iter()
                .map(|(name, value)| (name.clone(), value.to_json()))
                .collect(),
        )
    }
}
