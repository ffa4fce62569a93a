//! Numbers with a text of their own: they print as that text, and compute as the number.

use std::{fmt, sync::Arc};

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr};

/// Filters that take the number, not its text.
const NUMERIC: [&str; 9] = ["abs", "bool", "float", "int", "max", "min", "number", "round", "sum"];
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
