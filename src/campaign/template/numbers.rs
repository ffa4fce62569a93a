//! The numbers of a row: those with a text of their own, which print as that text and compute as the number, and texts
//! that spell a number.

use std::{fmt, sync::Arc};

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Error, ErrorKind, Value};

use super::value_error::ValueError;

/// Filters that take the number, not its text.
const NUMERIC: [&str; 14] = [
    "abs",
    "addend",
    "bool",
    "cell",
    "float",
    "int",
    "max",
    "min",
    "no_text",
    "number",
    "number_if",
    "number_or_text",
    "round",
    "sum",
];
/// The limit below which every whole number is exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A number in an expression.
#[derive(Debug)]
pub(super) struct ShownNumber {
    shown: String,
    number: f64,
}

impl ShownNumber {
    pub(super) fn value(shown: &str, number: f64) -> Value {
        Value::from_object(Self { shown: shown.into(), number })
    }

    /// Returns the argument of a filter: the number, or its text. Other values are unchanged.
    pub(super) fn for_filter(filter: &str, value: Value) -> Value {
        let Some(shown) = value.downcast_object_ref::<Self>() else { return value };
        if !NUMERIC.contains(&filter) {
            return Value::from(shown.shown.as_str());
        }
        let number = shown.number;
        if number.fract() == 0.0 && number.abs() < EXACT {
            Value::from(number as i64)
        } else {
            Value::from(number)
        }
    }
}

impl Object for ShownNumber {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.number != 0.0
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Returns the number that a text spells with digits, a sign and a decimal point.
///
/// Not with separators of thousands: `1,500` is one and a half in some countries.
fn spelled(text: &str) -> Option<Value> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.ends_with(|last: char| last.is_ascii_digit());
    if !is_number {
        return None;
    }
    let whole = text.parse::<i64>().ok().map(Value::from);
    whole.or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
}

/// Returns a number for a text that spells one; other texts are an error, other values are unchanged.
pub(super) fn number(value: Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    match value.as_str() {
        Some(text) => spelled(text).ok_or_else(|| ValueError::NoNumber.into_error()),
        None => Ok(value),
    }
}

/// Returns a number for a text that spells one; other values are unchanged.
pub(super) fn number_or_text(value: Value) -> Value {
    value.as_str().and_then(spelled).unwrap_or(value)
}

/// Returns a number if the value or the other value is one, and two texts that spell no numbers as they are.
pub(super) fn number_if(value: Value, other: &Value) -> Result<Value, Error> {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| spelled(text).is_none());
    if is_text(&value) && is_text(other) { Ok(value) } else { number(value) }
}

/// Returns an operand of `+`: a number for a text that spells one if the other operand is a number.
pub(super) fn addend(value: Value, other: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    let number = value.as_str().and_then(spelled);
    match number {
        Some(_) if other.as_str().and_then(spelled).is_some() => Err(ValueError::Sum.into_error()),
        Some(number) if other.is_number() => Ok(number),
        _ => Ok(value),
    }
}

/// Refuses a text.
pub(super) fn no_text(value: Value) -> Result<Value, Error> {
    if value.as_str().is_some() { Err(ValueError::TextGroup.into_error()) } else { Ok(value) }
}

/// Parses yes and no as people and spreadsheets write them; `None` for anything else.
pub(super) fn truth(value: &Value) -> Option<bool> {
    let Some(text) = value.as_str() else { return Some(value.is_true()) };
    match text.trim().to_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "no" | "n" | "off" | "0" | "" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_are_read_in_the_usual_words() {
        for (text, expected) in [
            ("TRUE", Some(true)),
            ("yes", Some(true)),
            (" 1 ", Some(true)),
            ("FALSE", Some(false)),
            ("No", Some(false)),
            ("0", Some(false)),
            ("", Some(false)),
            ("maybe", None),
        ] {
            assert_eq!(truth(&Value::from(text)), expected, "{text}");
        }
        assert_eq!(truth(&ShownNumber::for_filter("bool", ShownNumber::value("FALSE", 0.0))), Some(false));
    }

    #[test]
    fn a_shown_number_prints_as_shown_and_computes_as_the_number() {
        let share = ShownNumber::value("15%", 0.15);
        assert_eq!(share.to_string(), "15%");
        assert_eq!(ShownNumber::for_filter("upper", share.clone()).as_str(), Some("15%"));
        assert_eq!(f64::try_from(ShownNumber::for_filter("float", share)).ok(), Some(0.15));
        let sum = ShownNumber::for_filter("number", ShownNumber::value("1,500.00", 1500.0));
        assert_eq!(i64::try_from(sum).ok(), Some(1500));
    }
}
