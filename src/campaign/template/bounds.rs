//! Limits on what an expression may produce, so that no job exhausts a worker's memory.
//!
//! In Jinja a few characters can produce gigabytes: `replace` multiplies lengths, `*` repeats a text, `~`
//! concatenates. Fuel counts steps, not the size of their results, so each way to produce a value is limited: filters
//! by the size of their input and output, `*` to numbers (`operations.rs`), names by how often a string uses them. A
//! message then needs at most a few MiB.

use std::{borrow::Cow, cell::Cell, cmp::Ordering};

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, functions};

use super::numbers::{ShownNumber, truth};
use super::title_case::{capitalized, title};
use super::value_error::ValueError;
use super::{lists, operations};

/// Maximum size of a value, in bytes, far above the longest message.
pub(super) const VALUE: usize = 64 * 1024;
/// The error for a value that no message could contain.
pub(super) const TOO_LONG: &str = "a value is longer than any message";
/// Maximum number of input and output bytes while one string is rendered.
const TOTAL: usize = 1 << 20;
/// Overhead of a list item, in bytes.
const ITEM: usize = 16;
/// Maximum number of items of a list.
pub(super) const ITEMS: usize = VALUE / ITEM - 1;
/// Unsupported filters: their output is larger than their input, or they lay out lists for pages.
const NOT_OFFERED: [&str; 10] =
    ["attr", "batch", "chain", "format", "groupby", "indent", "pprint", "slice", "urlencode", "zip"];
/// Unsupported functions: they reveal internals, or keep what a loop collects.
const NO_FUNCTIONS: [&str; 2] = ["debug", "namespace"];

thread_local! {
    /// The remaining bytes of the string that this thread is rendering.
    static LEFT: Cell<usize> = const { Cell::new(TOTAL) };
}

/// Limits the filters and functions of an environment.
pub(super) fn bound(jinja: &mut Environment<'static>) {
    for name in NOT_OFFERED {
        jinja.remove_filter(name);
    }
    for name in NO_FUNCTIONS {
        jinja.remove_global(name);
    }
    macro_rules! filters {
        ($($name:literal = $filter:ident),+ $(,)?) => {
            $( bound_filter(jinja, $name, Value::from_function(filters::$filter)); )+
        };
    }
    filters! {
        "abs" = abs, "count" = length, "d" = default,
        "default" = default, "e" = escape, "escape" = escape, "first" = first,
        "float" = float, "int" = int, "items" = items, "join" = join, "last" = last, "length" = length,
        "lines" = lines, "list" = list, "lower" = lower, "map" = map,
        "reject" = reject, "rejectattr" = rejectattr, "replace" = replace, "reverse" = reverse,
        "round" = round, "safe" = safe, "select" = select, "selectattr" = selectattr,
        "split" = split, "string" = string, "tojson" = tojson,
        "trim" = trim, "unique" = unique, "upper" = upper,
    }
    bound_filter(
        jinja,
        "bool",
        Value::from_function(|value: Value| truth(&value).ok_or_else(|| ValueError::NoTruth.into_error())),
    );
    // By Unicode's rules, as in `placeholder.rs`.
    let title = Value::from_function(|text: Cow<'_, str>| title(&text));
    bound_filter(jinja, "title", title);
    let capitalize = Value::from_function(|text: Cow<'_, str>| capitalized(&text));
    bound_filter(jinja, "capitalize", capitalize);
    for (name, wanted) in [("max", Ordering::Greater), ("min", Ordering::Less)] {
        let extreme = move |items: Value, named: Kwargs| {
            let attribute: Option<Value> = named.get("attribute")?;
            named.assert_all_used()?;
            lists::extreme(&items, wanted, attribute.as_ref())
        };
        bound_filter(jinja, name, Value::from_function(extreme));
    }
    let sum = |items: Value, named: Kwargs| {
        let attribute: Option<Value> = named.get("attribute")?;
        named.assert_all_used()?;
        lists::sum(&items, attribute.as_ref())
    };
    bound_filter(jinja, "sum", Value::from_function(sum));
    let sort = |items: Value, named: Kwargs| {
        let attribute: Option<Value> = named.get("attribute")?;
        let is_reversed: Option<bool> = named.get("reverse")?;
        named.assert_all_used()?;
        lists::sorted(&items, attribute.as_ref(), is_reversed.unwrap_or_default())
    };
    bound_filter(jinja, "sort", Value::from_function(sort));
    let sort_pairs = |map: Value, named: Kwargs| {
        let by: Option<String> = named.get("by")?;
        let is_reversed: Option<bool> = named.get("reverse")?;
        named.assert_all_used()?;
        lists::sorted_pairs(&map, by.as_deref() == Some("value"), is_reversed.unwrap_or_default())
    };
    bound_filter(jinja, "dictsort", Value::from_function(sort_pairs));
    // Each value is checked before it is printed.
    bound_filter(jinja, "__emit", Value::from_function(|value: Value| value));
    // The operators that make texts.
    let two = |operator: fn(&Value, &Value) -> Result<Value, Error>| {
        Value::from_function(move |value: Value, other: Value| operator(&value, &other))
    };
    bound_filter(jinja, "__add", two(operations::add));
    bound_filter(jinja, "__concat", two(operations::concat));
    let slice = |value: Value, bounds: Rest<Value>| lists::slice(&value, &bounds);
    bound_filter(jinja, "__slice", Value::from_function(slice));
    let range = Value::from_function(functions::range);
    jinja.add_function("range", move |state: &mut State, args: Rest<Value>| {
        let args = args.iter().map(|bound| Ok(operations::number(bound)?.whole().into()));
        let args: Vec<Value> = args.collect::<Result<_, Error>>()?;
        let range = range.call(state, &args).map_err(|error| match error.kind() {
            ErrorKind::InvalidOperation => ValueError::Range.into_error(),
            _ => error,
        })?;
        let size = weight(&range).map_err(|_| ValueError::Range.into_error())?;
        spend(size)?;
        Ok::<_, Error>(range)
    });
}

/// Starts the budget of a string, from the number of its names and the size of their longest value. Returns whether
/// it may be rendered.
pub(super) fn begin(names: usize, longest: usize) -> bool {
    LEFT.set(TOTAL);
    longest <= VALUE && names.saturating_mul(longest) <= TOTAL
}

fn bound_filter(jinja: &mut Environment<'static>, name: &'static str, filter: Value) {
    jinja.add_filter(name, move |state: &mut State, args: Rest<Value>, named: Kwargs| {
        let mut args: Vec<Value> =
            args.0.into_iter().map(|value| ShownNumber::for_filter(name, value)).collect();
        if matches!(name, "abs" | "round") {
            // The value, and the precision of `round`; its method is a text.
            for number in args.iter_mut().take(2) {
                *number = operations::number(number)?.into();
            }
        }
        if name == "round" && args.len() > 3 {
            return Err(ValueError::Arguments(name).into_error());
        }
        if let ("float" | "int", Some(first)) = (name, args.first())
            && first
                .as_str()
                .and_then(|text| text.trim().parse().ok())
                .is_some_and(|number: f64| !number.is_finite())
        {
            return args.get(1).cloned().ok_or_else(|| ValueError::NumberFilter(name).into_error());
        }
        if named.args().next().is_some() {
            args.push(named.into());
        }
        for value in &args {
            spend(weight(value)?)?;
        }
        match (name, &args[..]) {
            ("replace", [text, from, to]) => spend(replaced(text, from, to))?,
            ("join", [items, with, ..]) => {
                spend(with.to_string().len().saturating_mul(items.len().unwrap_or_default()))?;
            }
            // An indent has the length that its argument says.
            ("tojson", [_, _, ..]) => return Err(too_much()),
            _ => {}
        }
        let made = filter.call(state, &args).map_err(|error| ValueError::of_filter(name, error))?;
        if matches!(name, "float" | "int") && !operations::is_exact(&made) {
            return Err(ValueError::NumberFilter(name).into_error());
        }
        spend(weight(&made)?)?;
        Ok::<_, Error>(made)
    });
}

fn too_much() -> Error {
    ValueError::TooMuch.into_error()
}

/// Subtracts bytes from the budget of the string.
pub(super) fn spend(bytes: usize) -> Result<(), Error> {
    let left = LEFT.get().checked_sub(bytes).filter(|_| bytes <= VALUE).ok_or_else(too_much)?;
    LEFT.set(left);
    Ok(())
}

fn length(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// Returns the length of a text after replacing each `from`.
fn replaced(text: &Value, from: &Value, to: &Value) -> usize {
    // minijinja makes texts of other values.
    let (text, from, to) = (text.to_string(), from.to_string(), to.to_string());
    text.len().saturating_add(text.matches(&from).count().saturating_mul(to.len()))
}

/// Returns the approximate size of a value, in bytes. A value above the limit is an error, which is detected without
/// a full traversal.
pub(super) fn weight(value: &Value) -> Result<usize, Error> {
    fn add(value: &Value, sum: &mut usize, depth: usize) -> Result<(), Error> {
        *sum += ITEM + length(value);
        if *sum > VALUE || depth > 16 {
            return Err(too_much());
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()? {
                    add(&item, sum, depth + 1)?;
                }
            }
            ValueKind::Map => {
                for key in value.try_iter()? {
                    add(&value.get_item(&key)?, sum, depth + 1)?;
                    add(&key, sum, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
    let mut sum = 0;
    add(value, &mut sum, 0)?;
    // The overhead of the value itself is not counted, so that a text may have the full length.
    Ok(sum - ITEM)
}
