//! Filters over lists and maps: slices, sorting, sums and extremes. Items are compared as `operations.rs` does.

use std::cmp::Ordering;

use minijinja::value::Rest;
use minijinja::{Error, ErrorKind, Value};

use super::numbers::{Number, ShownNumber};
use super::operations::{add, compare, number};
use super::value_error::ValueError;

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

/// Compares two items of a list: texts by their letters first, as Jinja does.
fn compare_items(item: &Value, other: &Value) -> Result<Ordering, Error> {
    let text =
        |value: &Value| value.as_str().filter(|text| Number::spelled(text).is_none()).map(str::to_lowercase);
    match text(item).zip(text(other)) {
        Some((text, other)) => Ok(text.cmp(&other)),
        None => compare(item, other),
    }
}

/// Returns the part of an item by which a list is sorted: `attribute` is an index, or names with points between them.
fn part(item: &Value, attribute: Option<&Value>) -> Result<Value, Error> {
    match attribute {
        None => Ok(item.clone()),
        Some(path) => match path.as_str() {
            Some(path) => path.split('.').try_fold(item.clone(), |value, name| value.get_attr(name)),
            None => item.get_item(path),
        },
    }
}

/// Returns the greatest or least item of a list; none of an empty one.
pub(super) fn extreme(items: &Value, wanted: Ordering, attribute: Option<&Value>) -> Result<Value, Error> {
    let mut found: Option<(Value, Value)> = None;
    for item in items.try_iter()? {
        let key = part(&item, attribute)?;
        if match &found {
            Some((_, found)) => compare_items(&key, found)? == wanted,
            None => true,
        } {
            found = Some((item, key));
        }
    }
    Ok(found.map_or(Value::UNDEFINED, |(item, _)| item))
}

/// Returns the sum of a list's numbers.
pub(super) fn sum(items: &Value, attribute: Option<&Value>) -> Result<Value, Error> {
    items.try_iter()?.try_fold(Value::from(0), |sum, item| add(&sum, &part(&item, attribute)?))
}

/// Sorts a list of numbers, or of texts that spell none.
pub(super) fn sorted(items: &Value, attribute: Option<&Value>, is_reversed: bool) -> Result<Value, Error> {
    let mut items: Vec<(Value, Value)> =
        items.try_iter()?.map(|item| Ok((part(&item, attribute)?, item))).collect::<Result<_, Error>>()?;
    // Items that cannot be compared have no order, which sorting needs: so the first item says the kind of all.
    if let Some(((first, _), others)) = items.split_first() {
        for (key, _) in others {
            compare_items(first, key)?;
        }
    }
    // Equal items keep their order.
    items.sort_by(|(key, _), (other, _)| {
        let order = compare_items(key, other).unwrap_or(Ordering::Equal);
        if is_reversed { order.reverse() } else { order }
    });
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

/// Returns the pairs of a map, sorted by their keys or their values.
pub(super) fn sorted_pairs(map: &Value, by_value: bool, is_reversed: bool) -> Result<Value, Error> {
    let pairs = map.try_iter()?.map(|key| Ok(Value::from(vec![key.clone(), map.get_item(&key)?])));
    let pairs: Value = pairs.collect::<Result<Vec<_>, Error>>()?.into();
    sorted(&pairs, Some(&Value::from(i64::from(by_value))), is_reversed)
}
