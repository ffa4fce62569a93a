//! The operators of templates, as filters that `rewrite.rs` writes in their place.
//!
//! A text that spells a number is that number where a number is needed. A text that spells none is an error there, which
//! skips the row: it is never compared with a number.

use std::cmp::Ordering;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::bounds::{spend, weight};
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
            let compare = move |value: Value, other: Value| {
                spend(weight(&value)? + weight(&other)?)?;
                holds(&value, &other)
            };
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
    both(&["in"], jinja, |value, container| contained(value, container, &[]));
    for (name, expected) in [("__in", true), ("__not_in", false)] {
        // Literal texts of the list are arguments of their own.
        jinja.add_filter(name, move |value: Value, container: Value, texts: Rest<Value>| {
            spend(weight(&value)? + weight(&container)?)?;
            Ok::<_, Error>(contained(&value, &container, &texts)? == expected)
        });
    }
    jinja.add_filter("__has_text", |container: Value, text: Value| {
        spend(weight(&text)? + weight(&container)?)?;
        has_text(&container, &text)
    });
    for (name, holds) in [
        ("__is_true", (|value| equal(value, &Value::from(true))) as fn(&Value) -> Result<bool, Error>),
        ("__is_false", |value| equal(value, &Value::from(false))),
        ("__is_number", |value| Ok(number(value).is_ok())),
        ("__is_integer", |value| Ok(is_integer(value))),
        ("__is_int", |value| Ok(is_integer(value))),
        ("__is_float", |value| Ok(matches!(number(value), Ok(Number::Float(_))))),
    ] {
        jinja.add_filter(name, move |value: Value| holds(&value));
        // As in `select("number")`.
        jinja.add_test(name.trim_start_matches("__is_"), move |value: Value| holds(&value));
    }
    jinja.add_filter("__item", |value: Value, key: Value| item(&value, &key));
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

fn is_integer(value: &Value) -> bool {
    matches!(number(value), Ok(Number::Int(_)))
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
        (Number(number) | Spelled(number, _), Number(other) | Spelled(other, _)) => Ok(number == other),
        (Text(text) | Spelled(_, text), Text(other) | Spelled(_, other)) => Ok(text == other),
        (Number(_), Text(_)) | (Text(_), Number(_)) => Err(ValueError::NoNumber.into_error()),
        (Bool(truth), Number(number)) | (Number(number), Bool(truth)) => {
            Ok(truth == (number.as_f64() != 0.0))
        }
        (Bool(wanted), Text(_) | Spelled(..)) => same_truth(other, wanted),
        (Text(_) | Spelled(..), Bool(wanted)) => same_truth(value, wanted),
        (Other, Other) if is_list(value) && is_list(other) => {
            let (left, right): (Vec<Value>, Vec<Value>) =
                (value.try_iter()?.collect(), other.try_iter()?.collect());
            let mut pairs = left.iter().zip(&right);
            let all =
                pairs.try_fold(true, |all, (left, right)| Ok::<_, Error>(all && equal(left, right)?))?;
            Ok(all && left.len() == right.len())
        }
        (Other, Other) if value.kind() == ValueKind::Map && other.kind() == ValueKind::Map => {
            let mut keys = value.try_iter()?;
            let all = keys.try_fold(true, |all, key| {
                let (left, right) = (value.get_item(&key)?, other.get_item(&key)?);
                Ok::<_, Error>(all && !right.is_undefined() && equal(&left, &right)?)
            });
            Ok(all? && value.len() == other.len())
        }
        (Bool(_) | Other, _) | (_, Other) => Ok(value == other),
    }
}

fn is_list(value: &Value) -> bool {
    value.kind() == ValueKind::Seq
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

/// Returns whether a list, a map or a text contains a value; `texts` are literal texts of the list.
fn contained(value: &Value, container: &Value, texts: &[Value]) -> Result<bool, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    if let Some(text) = ShownNumber::text(container) {
        let part = ShownNumber::text(value).map_or_else(|| value.to_string(), str::to_owned);
        return Ok(text.contains(&part));
    }
    for text in texts {
        if equal_text(value, text)? {
            return Ok(true);
        }
    }
    let mut error = None;
    for item in container.try_iter().map_err(|_| ValueError::NoList.into_error())? {
        match equal(value, &item) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(other) => error = Some(other),
        }
    }
    // Beside a text, a list of numbers may contain other texts.
    error.filter(|_| texts.is_empty()).map_or(Ok(false), Err)
}

/// Returns whether a text contains a literal text, or a list has an item that is written so.
fn has_text(container: &Value, text: &Value) -> Result<bool, Error> {
    if container.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    if let Some(whole) = ShownNumber::text(container) {
        return Ok(text.as_str().is_some_and(|text| whole.contains(text)));
    }
    for item in container.try_iter().map_err(|_| ValueError::NoList.into_error())? {
        if equal_text(&item, text)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the item of a list at an index, or of a map with a key. A text may spell the index or the key.
fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    if value.is_undefined() || key.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    spend(weight(value)?)?;
    let whole = |key: &Value| match number(key) {
        Ok(Number::Float(number)) if number.fract() == 0.0 => Some(Value::from(number as i64)),
        Ok(number) => Some(number.into()),
        Err(_) => None,
    };
    let shown = ShownNumber::text(key).map(Value::from);
    for key in [Some(key.clone()), shown, whole(key)].into_iter().flatten() {
        let found = if key.downcast_object_ref::<ShownNumber>().is_some() {
            Value::UNDEFINED
        } else {
            value.get_item(&key)?
        };
        if !found.is_undefined() {
            return Ok(found);
        }
    }
    Ok(Value::UNDEFINED)
}

/// Adds numbers, or joins two texts that spell none. A code such as `0012` is no number here, and joins nothing.
pub(super) fn add(value: &Value, other: &Value) -> Result<Value, Error> {
    use Operand::{Spelled, Text};
    let (left, right) = (Operand::of(value)?, Operand::of(other)?);
    match (&left, &right) {
        (Text(text), Text(other)) => Ok(Value::from(format!("{text}{other}"))),
        (Spelled(_, text), _) | (_, Spelled(_, text)) if is_code(text) => Err(ValueError::Sum.into_error()),
        (Text(_), Spelled(..) | Operand::Number(_)) | (Spelled(..) | Operand::Number(_), Text(_)) => {
            Err(ValueError::Sum.into_error())
        }
        (Operand::Other, Operand::Other) if is_list(value) && is_list(other) => {
            Ok(value.try_iter()?.chain(other.try_iter()?).collect())
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
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    digits.starts_with('+')
        || digits.strip_prefix('0').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// Returns whether a converted value did not overflow.
pub(super) fn is_exact(value: &Value) -> bool {
    Number::of(value).is_none_or(|number| number.as_f64().abs() < i128::MAX as f64)
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
        (number, other) => {
            let rest = remainder(number, other)?.as_f64();
            Ok(Number::Float(((number.as_f64() - rest) / other.as_f64()).round()))
        }
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
            // Never the negative zero, which would be printed.
            Ok(Number::Float(if rest == 0.0 {
                0.0
            } else if (rest < 0.0) != (other < 0.0) {
                rest + other
            } else {
                rest
            }))
        }
    }
}

fn power(number: Number, exponent: Number) -> Result<Number, Error> {
    match (number, exponent) {
        (Number::Int(number), Number::Int(exponent @ 0..)) => {
            let exponent = u32::try_from(exponent).map_err(|_| out_of_range())?;
            number.checked_pow(exponent).map(Number::Int).ok_or_else(out_of_range)
        }
        (number, exponent) if number.as_f64() == 0.0 && exponent.as_f64() < 0.0 => {
            divide(Number::Int(1), number)
        }
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
