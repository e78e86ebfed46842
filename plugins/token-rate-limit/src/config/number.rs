//! Numbers as they are written in a configuration.

use crate::decimal::{Decimal, NotDecimal};
use tollgate_kit::config::{Field, Reader};
use tollgate_kit::json::{Kind, Value};
#[cfg(not(target_family = "wasm"))]
use tollgate_kit::schema::Json;

/// A number above 0, kept exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positive(pub(crate) Decimal);

/// A number that is not negative, kept exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub(crate) Decimal);

impl Field for Positive {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Positive> {
        let number = decimal(value, reader, "value must be greater than 0")?;
        if number == Decimal::whole(0) {
            reader.error("value must be greater than 0");
            return None;
        }
        Some(Positive(number))
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "number", "minimum": 0, "exclusiveMinimum": true})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        shown(self.0)
    }
}

impl Field for Amount {
    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Amount> {
        decimal(value, reader, "value must not be negative").map(Amount)
    }

    #[cfg(not(target_family = "wasm"))]
    fn schema() -> Json {
        serde_json::json!({"type": "number", "minimum": 0})
    }

    #[cfg(not(target_family = "wasm"))]
    fn to_json(&self) -> Json {
        shown(self.0)
    }
}

/// Reads a number that is not negative; `negative` is what one that is gets told.
pub(crate) fn decimal(
    value: Value<'_>,
    reader: &mut Reader<'_>,
    negative: &str,
) -> Option<Decimal> {
    let Kind::Number(text) = value.kind() else {
        reader.error("expected a number, without quotes");
        return None;
    };
    match Decimal::parse(text) {
        Ok(number) => return Some(number),
        Err(NotDecimal::Negative) => reader.error(negative),
        Err(NotDecimal::TooFine) => reader.error("at most six decimals are kept: round it"),
        Err(NotDecimal::TooLarge) => {
            reader.error(format_args!("value must be at most {}", Decimal::MOST));
        }
        Err(NotDecimal::Malformed) => reader.error("expected a number, as 1000 or 1.5"),
    }
    None
}

#[cfg(not(target_family = "wasm"))]
fn shown(number: Decimal) -> Json {
    serde_json::from_str(&number.to_string()).unwrap_or(Json::Null)
}
