//! The operators of templates, as filters that `rewrite.rs` writes in their place.
//!
//! A text that spells a number is that number where a number is needed. A text that spells none is an error there, which
//! skips the row: it is never compared with a number.

use std::cmp::Ordering;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::numbers::{Number, ShownNumber, truth};
use super::value_error::ValueError;

/// An operand.
enum Operand<'v> {
    Number(Number),
    /// A text that spells a number.
    Spelled(Number, &'v str),
    Text(&'v str),
    Bool(bool),
    Other,
}

impl<'v> Operand<'v> {
    fn of(value: &'v Value) -> Result<Self, Error> {
        if value.is_undefined() {
            return Err(ErrorKind::UndefinedError.into());
        }
        if let Some(text) = value.as_str() {
            return Ok(Number::spelled(text).map_or(Self::Text(text), |number| Self::Spelled(number, text)));
        }
        if value.kind() == ValueKind::Bool {
            return Ok(Self::Bool(value.is_true()));
        }
        Ok(Number::of(value).map_or(Self::Other, Self::Number))
    }
}

type Comparison = fn(&Value, &Value) -> Result<bool, Error>;

/// Adds the operators and the tests that compare.
pub(super) fn add_operators(jinja: &mut Environment<'static>) {
    // Names with two underscores are filters, which no job can name; the others are tests, as in
    // `select(">", 1000)`.
    let both = |names: &[&'static str], jinja: &mut Environment<'static>, holds: Comparison| {
        for name in names {
            let compare = move |value: Value, other: Value| holds(&value, &other);
            if name.starts_with("__") {
                jinja.add_filter(*name, compare);
            } else {
                jinja.add_test(*name, compare);
            }
        }
    };
    both(&["__eq", "eq", "equalto", "=="], jinja, equal);
    both(&["__ne", "ne", "!="], jinja, |value, other| Ok(!equal(value, other)?));
    both(&["__eq_text"], jinja, equal_text);
    both(&["__ne_text"], jinja, |value, other| Ok(!equal_text(value, other)?));
    both(&["__lt", "lt", "lessthan", "<"], jinja, |value, other| Ok(compare(value, other)?.is_lt()));
    both(&["__le", "le", "<="], jinja, |value, other| Ok(compare(value, other)?.is_le()));
    both(&["__gt", "gt", "greaterthan", ">"], jinja, |value, other| Ok(compare(value, other)?.is_gt()));
    both(&["__ge", "ge", ">="], jinja, |value, other| Ok(compare(value, other)?.is_ge()));
    both(&["__in", "in"], jinja, contained);
    both(&["__not_in"], jinja, |value, other| Ok(!contained(value, other)?));
    both(&["__divisible", "divisibleby"], jinja, |value, by| {
        Ok(remainder(number(value)?, number(by)?)?.as_f64() == 0.0)
    });
    for (names, expected) in [(["__odd", "odd"], 1), (["__even", "even"], 0)] {
        let is_so = move |value: Value| {
            let rest = remainder(number(&value)?, Number::Int(2))?;
            Ok::<_, Error>(rest == Number::Int(expected))
        };
        jinja.add_filter(names[0], is_so);
        jinja.add_test(names[1], is_so);
    }
    for (name, calculate) in [
        ("__sub", subtract as fn(Number, Number) -> Result<Number, Error>),
        ("__mul", multiply),
        ("__div", divide),
        ("__floordiv", floor_divide),
        ("__mod", remainder),
        ("__pow", power),
    ] {
        jinja.add_filter(name, move |value: Value, other: Value| {
            finite(calculate(number(&value)?, number(&other)?)?).map(Value::from)
        });
    }
    jinja.add_filter("__neg", |value: Value| subtract(Number::Int(0), number(&value)?).map(Value::from));
}

/// Returns the number of an operand that must be one.
pub(super) fn number(value: &Value) -> Result<Number, Error> {
    match Operand::of(value)? {
        Operand::Number(number) | Operand::Spelled(number, _) => Ok(number),
        _ => Err(ValueError::NoNumber.into_error()),
    }
}

fn equal(value: &Value, other: &Value) -> Result<bool, Error> {
    use Operand::{Bool, Number, Other, Spelled, Text};
    match (Operand::of(value)?, Operand::of(other)?) {
        (Number(number) | Spelled(number, _), Number(other) | Spelled(other, _)) => {
            Ok(number.partial_cmp(&other) == Some(Ordering::Equal))
        }
        (Text(text) | Spelled(_, text), Text(other) | Spelled(_, other)) => Ok(text == other),
        (Number(_), Text(_)) | (Text(_), Number(_)) => Err(ValueError::NoNumber.into_error()),
        (Bool(truth), Number(number)) | (Number(number), Bool(truth)) => {
            Ok(truth == (number.as_f64() != 0.0))
        }
        (Bool(wanted), Text(_) | Spelled(..)) => same_truth(other, wanted),
        (Text(_) | Spelled(..), Bool(wanted)) => same_truth(value, wanted),
        (Bool(_) | Other, _) | (_, Other) => Ok(value == other),
    }
}

fn same_truth(value: &Value, wanted: bool) -> Result<bool, Error> {
    truth(value).map(|truth| truth == wanted).ok_or_else(|| ValueError::NoTruth.into_error())
}

/// Compares with a literal text: as a text, and a number with a text of its own also as a number.
fn equal_text(value: &Value, literal: &Value) -> Result<bool, Error> {
    let text = literal.as_str().unwrap_or_default();
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    if ShownNumber::text(value) == Some(text) {
        return Ok(true);
    }
    Ok(Number::of(value).zip(Number::spelled(text)).is_some_and(|(number, other)| number == other))
}

/// Compares two numbers, or two texts that spell none.
pub(super) fn compare(value: &Value, other: &Value) -> Result<Ordering, Error> {
    use Operand::{Number, Spelled, Text};
    let order = match (Operand::of(value)?, Operand::of(other)?) {
        (Number(number) | Spelled(number, _), Number(other) | Spelled(other, _)) => {
            number.partial_cmp(&other)
        }
        (Text(text), Text(other)) => Some(text.cmp(other)),
        (Operand::Bool(truth), Operand::Bool(other)) => Some(truth.cmp(&other)),
        _ => None,
    };
    order.ok_or_else(|| ValueError::NoNumber.into_error())
}

/// Returns whether a list, a map or a text contains a value.
fn contained(value: &Value, container: &Value) -> Result<bool, Error> {
    if let Some(text) = ShownNumber::text(container) {
        let part = ShownNumber::text(value).map_or_else(|| value.to_string(), str::to_owned);
        return Ok(text.contains(&part));
    }
    let mut error = None;
    for item in container.try_iter().map_err(|_| ValueError::NoList.into_error())? {
        match equal(value, &item) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(other) => error = Some(other),
        }
    }
    error.map_or(Ok(false), Err)
}

/// Adds numbers, or joins two texts that spell none. A code such as `0012` is no number here, and joins nothing.
pub(super) fn add(value: &Value, other: &Value) -> Result<Value, Error> {
    use Operand::{Spelled, Text};
    let (left, right) = (Operand::of(value)?, Operand::of(other)?);
    match (&left, &right) {
        (Text(text), Text(other)) => Ok(Value::from(format!("{text}{other}"))),
        (Spelled(_, text), Spelled(_, other)) if is_code(text) || is_code(other) => {
            Err(ValueError::Sum.into_error())
        }
        (Text(_), Spelled(..) | Operand::Number(_)) | (Spelled(..) | Operand::Number(_), Text(_)) => {
            Err(ValueError::Sum.into_error())
        }
        _ => {
            let sum = match (number(value)?, number(other)?) {
                (Number::Int(number), Number::Int(other)) => number.checked_add(other).map(Number::Int),
                (number, other) => Some(Number::Float(number.as_f64() + other.as_f64())),
            };
            finite(sum.ok_or_else(out_of_range)?).map(Value::from)
        }
    }
}

/// Returns whether a text is a number that is written as a code and not as an amount.
fn is_code(text: &str) -> bool {
    let digits = text.trim();
    digits.starts_with('+')
        || digits.strip_prefix('0').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()))
}

fn out_of_range() -> Error {
    ValueError::OutOfRange.into_error()
}

fn finite(number: Number) -> Result<Number, Error> {
    if number.as_f64().is_finite() { Ok(number) } else { Err(out_of_range()) }
}

fn subtract(number: Number, other: Number) -> Result<Number, Error> {
    match (number, other) {
        (Number::Int(number), Number::Int(other)) => {
            number.checked_sub(other).map(Number::Int).ok_or_else(out_of_range)
        }
        _ => Ok(Number::Float(number.as_f64() - other.as_f64())),
    }
}

fn multiply(number: Number, other: Number) -> Result<Number, Error> {
    match (number, other) {
        (Number::Int(number), Number::Int(other)) => {
            number.checked_mul(other).map(Number::Int).ok_or_else(out_of_range)
        }
        _ => Ok(Number::Float(number.as_f64() * other.as_f64())),
    }
}

fn divisor(number: Number) -> Result<Number, Error> {
    if number.as_f64() == 0.0 { Err(ValueError::ZeroDivision.into_error()) } else { Ok(number) }
}

fn divide(number: Number, other: Number) -> Result<Number, Error> {
    Ok(Number::Float(number.as_f64() / divisor(other)?.as_f64()))
}

fn floor_divide(number: Number, other: Number) -> Result<Number, Error> {
    match (number, divisor(other)?) {
        (Number::Int(number), Number::Int(other)) => {
            let quotient = number.checked_div(other).ok_or_else(out_of_range)?;
            let is_below =
                number.checked_rem(other).is_some_and(|rest| rest != 0) && (number < 0) != (other < 0);
            Ok(Number::Int(quotient - i128::from(is_below)))
        }
        (number, other) => Ok(Number::Float((number.as_f64() / other.as_f64()).floor())),
    }
}

/// Returns the remainder with the sign of the divisor, as in Python.
fn remainder(number: Number, other: Number) -> Result<Number, Error> {
    match (number, divisor(other)?) {
        (Number::Int(number), Number::Int(other)) => {
            let rest = number.checked_rem(other).unwrap_or_default();
            Ok(Number::Int(if rest != 0 && (rest < 0) != (other < 0) { rest + other } else { rest }))
        }
        (number, other) => {
            let (number, other) = (number.as_f64(), other.as_f64());
            let rest = number % other;
            Ok(Number::Float(if rest != 0.0 && (rest < 0.0) != (other < 0.0) { rest + other } else { rest }))
        }
    }
}

fn power(number: Number, exponent: Number) -> Result<Number, Error> {
    match (number, exponent) {
        (Number::Int(number), Number::Int(exponent @ 0..)) => {
            let exponent = u32::try_from(exponent).map_err(|_| out_of_range())?;
            number.checked_pow(exponent).map(Number::Int).ok_or_else(out_of_range)
        }
        (number, _) if number.as_f64() == 0.0 => divide(Number::Int(1), number),
        (number, exponent) => Ok(Number::Float(number.as_f64().powf(exponent.as_f64()))),
    }
}

/// Joins the texts of two values.
pub(super) fn concat(value: &Value, other: &Value) -> Result<Value, Error> {
    if value.is_undefined() || other.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    Ok(Value::from(format!("{value}{other}")))
}

/// Returns a part of a text or a list, as Python's slices do.
pub(super) fn slice(value: &Value, bounds: &Rest<Value>) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    let bound = |nth: usize| -> Result<Option<i64>, Error> {
        match bounds.get(nth) {
            Some(bound) if !bound.is_none() => match number(bound)? {
                Number::Int(bound) => Ok(Some(bound.clamp(i64::MIN.into(), i64::MAX.into()) as i64)),
                Number::Float(_) => Err(ValueError::NoNumber.into_error()),
            },
            _ => Ok(None),
        }
    };
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    let text = ShownNumber::text(value);
    let items: Vec<Value> = match text {
        Some(text) => text.chars().map(Value::from).collect(),
        None => value.try_iter()?.collect(),
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let (first, last) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let place = |bound: Option<i64>, missing: i64| match bound {
        None => missing,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(first),
        Some(bound) => bound.min(last),
    };
    let (mut at, end) = match step {
        0 => return Err(ValueError::ZeroDivision.into_error()),
        1.. => (place(start, 0), place(stop, length)),
        _ => (place(start, length - 1), place(stop, -1)),
    };
    let mut part = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        part.extend(usize::try_from(at).ok().and_then(|at| items.get(at)).cloned());
        at = at.saturating_add(step);
    }
    Ok(match text {
        Some(_) => Value::from(part.iter().map(ToString::to_string).collect::<String>()),
        None => Value::from(part),
    })
}

/// Returns the greatest or least item of a list; none of an empty one.
pub(super) fn extreme(items: &Value, wanted: Ordering) -> Result<Value, Error> {
    let mut found: Option<Value> = None;
    for item in items.try_iter()? {
        if match &found {
            Some(found) => compare(&item, found)? == wanted,
            None => true,
        } {
            found = Some(item);
        }
    }
    Ok(found.unwrap_or(Value::UNDEFINED))
}

/// Returns the sum of a list's numbers.
pub(super) fn sum(items: &Value) -> Result<Value, Error> {
    items.try_iter()?.try_fold(Value::from(0), |sum, item| add(&sum, &item))
}

/// Sorts a list of numbers, or of texts that spell none.
pub(super) fn sorted(items: &Value) -> Result<Value, Error> {
    let mut items: Vec<Value> = items.try_iter()?.collect();
    let mut error = None;
    items.sort_by(|item, other| {
        compare(item, other).unwrap_or_else(|failure| {
            error = Some(failure);
            Ordering::Equal
        })
    });
    error.map_or_else(|| Ok(Value::from(items)), Err)
}
