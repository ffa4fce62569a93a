//! The numbers of a row: those with a text of their own, which print as that text and compute as the number, and texts
//! that spell a number.

use std::{cmp::Ordering, fmt, sync::Arc};

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr};

/// Filters that take the number, not its text.
const NUMERIC: [&str; 5] = ["abs", "bool", "float", "int", "round"];
/// Filters that take the number with its text.
const UNCHANGED: [&str; 4] = ["__add", "__emit", "d", "default"];
/// The limit below which every whole number is exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A number in an expression.
#[derive(Debug)]
pub(super) struct ShownNumber {
    shown: String,
    number: f64,
    /// Whether it is a number where a value keeps its type, as a number of JSON is, and not its text.
    is_number: bool,
}

impl ShownNumber {
    /// Returns the text of a value: one that is shown, or a text.
    pub(super) fn text(value: &Value) -> Option<&str> {
        value.downcast_object_ref::<Self>().map(|shown| shown.shown.as_str()).or_else(|| value.as_str())
    }

    pub(super) fn value(shown: &str, number: f64, is_number: bool) -> Value {
        Value::from_object(Self { shown: shown.into(), number, is_number })
    }

    /// Returns the number of a value that is to be a number of JSON.
    pub(super) fn typed(value: &Value) -> Option<f64> {
        value.downcast_object_ref::<Self>().filter(|shown| shown.is_number).map(|shown| shown.number)
    }

    /// Returns the argument of a filter: the number, or its text. Other values are unchanged.
    pub(super) fn for_filter(filter: &str, value: Value) -> Value {
        let Some(shown) = value.downcast_object_ref::<Self>() else { return value };
        if UNCHANGED.contains(&filter) {
            return value;
        }
        if filter == "tojson" && shown.is_number {
            return shown.number.into();
        }
        if !NUMERIC.contains(&filter) {
            return Value::from(shown.shown.as_str());
        }
        Number::from_f64(shown.number).into()
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

/// Maximum length of a text that spells a number, in bytes: an `f64` has at most 309 digits before its point.
const LONGEST: usize = 400;

/// A number in a calculation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    /// Returns the number of a value that is one.
    pub(super) fn of(value: &Value) -> Option<Self> {
        if let Some(shown) = value.downcast_object_ref::<ShownNumber>() {
            return Some(Self::from_f64(shown.number));
        }
        if !value.is_number() {
            return None;
        }
        let whole = i128::try_from(value.clone()).ok().filter(|_| value.is_integer());
        whole.map(Self::Int).or_else(|| f64::try_from(value.clone()).ok().map(Self::Float))
    }

    /// Returns the number that a text spells with digits, a sign and a decimal point.
    ///
    /// Not with separators of thousands: `1,500` is one and a half in some countries.
    pub(super) fn spelled(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_number = digits.len() <= LONGEST
            && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.ends_with(|last: char| last.is_ascii_digit());
        if !is_number {
            return None;
        }
        let whole = text.parse().ok().map(Self::Int);
        whole.or_else(|| text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Float))
    }

    fn from_f64(number: f64) -> Self {
        if number.fract() == 0.0 && number.abs() < EXACT {
            Self::Int(number as i128)
        } else {
            Self::Float(number)
        }
    }

    /// Returns it as a whole number, if it is one.
    pub(super) fn whole(self) -> Self {
        match self {
            Self::Float(number) => Self::from_f64(number),
            whole @ Self::Int(_) => whole,
        }
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(number), Self::Int(other)) => Some(number.cmp(other)),
            (Self::Float(number), Self::Float(other)) => number.partial_cmp(other),
            (Self::Int(number), Self::Float(other)) => compare_exactly(*number, *other),
            (Self::Float(number), Self::Int(other)) => {
                compare_exactly(*other, *number).map(Ordering::reverse)
            }
        }
    }
}

/// Compares without rounding: rounded comparisons have no order, and sorting by them panics.
fn compare_exactly(whole: i128, number: f64) -> Option<Ordering> {
    // Beyond the whole numbers; the first float above them is 2^127.
    let limit = i128::MAX as f64;
    if number.is_nan() {
        None
    } else if number >= limit {
        Some(Ordering::Less)
    } else if number < -limit {
        Some(Ordering::Greater)
    } else {
        // A fraction decides between equal whole numbers.
        Some(whole.cmp(&(number.trunc() as i128)).then(0.0_f64.total_cmp(&number.fract())))
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(number) => i64::try_from(number).map_or_else(|_| Self::from(number), Self::from),
            Number::Float(number) => Self::from(number),
        }
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
        assert_eq!(
            truth(&ShownNumber::for_filter("bool", ShownNumber::value("FALSE", 0.0, false))),
            Some(false)
        );
    }

    #[test]
    fn whole_numbers_and_floats_have_one_order() {
        let big = 9_007_199_254_740_992_i128;
        let ordered = [
            Number::Float(-1e300),
            Number::Int(i128::MIN),
            Number::Float(-0.5),
            Number::Int(0),
            Number::Float(0.5),
            Number::Int(1),
            Number::Int(big),
            Number::Int(big + 1),
            Number::Float(9_007_199_254_740_994.0),
            Number::Int(i128::MAX),
            Number::Float(1e300),
        ];
        for (nth, number) in ordered.iter().enumerate() {
            for (other_nth, other) in ordered.iter().enumerate() {
                assert_eq!(number.partial_cmp(other), Some(nth.cmp(&other_nth)), "{number:?} {other:?}");
            }
        }
        assert_eq!(Number::Int(3), Number::Float(3.0));
        assert_eq!(Number::Int(0), Number::Float(-0.0));
        assert_eq!(Number::Int(3).partial_cmp(&Number::Float(f64::NAN)), None);
    }

    #[test]
    fn a_shown_number_prints_as_shown_and_computes_as_the_number() {
        let share = ShownNumber::value("15%", 0.15, false);
        assert_eq!(share.to_string(), "15%");
        assert_eq!(ShownNumber::for_filter("upper", share.clone()).as_str(), Some("15%"));
        assert_eq!(f64::try_from(ShownNumber::for_filter("float", share)).ok(), Some(0.15));
        let sum = ShownNumber::for_filter("round", ShownNumber::value("1,500.00", 1500.0, false));
        assert_eq!(i64::try_from(sum).ok(), Some(1500));
    }
}
