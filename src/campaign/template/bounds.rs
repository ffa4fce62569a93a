//! Bounds on what an expression may make, so that no job takes the memory of its worker.
//!
//! Jinja lets a few characters stand for gigabytes: `replace` multiplies lengths, `*` repeats a text,
//! `~` joins one to itself. Fuel counts steps and not what a step makes, so each way to make a value is
//! bounded here: filters by what goes in and what comes out, `*` to numbers (`operators.rs`), names by
//! how often a string uses them. What remains makes at most a few MiB for a message.

use std::borrow::Cow;
use std::cell::Cell;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, functions};

use super::expression;
use super::numbers::{ShownNumber, truth};

/// The most bytes of one value, far above the longest message.
pub(super) const VALUE: usize = 64 * 1024;
/// The most bytes that one string may take in and make while it is filled.
const TOTAL: usize = 1 << 20;
/// What an item of a list takes besides what is in it.
const ITEM: usize = 16;
/// Filters that make more than they take in, or lay out lists for pages.
const NOT_OFFERED: [&str; 10] =
    ["attr", "batch", "chain", "format", "groupby", "indent", "pprint", "slice", "urlencode", "zip"];
/// Functions that tell of the inside, or keep what a loop gathers.
const NO_FUNCTIONS: [&str; 2] = ["debug", "namespace"];

thread_local! {
    /// What the string that is being filled on this thread may still take in and make.
    static LEFT: Cell<usize> = const { Cell::new(TOTAL) };
}

/// Bounds what an environment offers.
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
        "default" = default, "dictsort" = dictsort, "e" = escape, "escape" = escape, "first" = first,
        "float" = float, "int" = int, "items" = items, "join" = join, "last" = last, "length" = length,
        "lines" = lines, "list" = list, "lower" = lower, "map" = map, "max" = max, "min" = min,
        "reject" = reject, "rejectattr" = rejectattr, "replace" = replace, "reverse" = reverse,
        "round" = round, "safe" = safe, "select" = select, "selectattr" = selectattr, "sort" = sort,
        "split" = split, "string" = string, "sum" = sum, "tojson" = tojson,
        "trim" = trim, "unique" = unique, "upper" = upper,
    }
    bound_filter(
        jinja,
        "bool",
        Value::from_function(|value: Value| {
            let no_truth = || Error::new(ErrorKind::InvalidOperation, "the value is neither yes nor no");
            truth(&value).ok_or_else(no_truth)
        }),
    );
    // By Unicode's rules, as where no filter of Jinja's is needed.
    let title = Value::from_function(|text: Cow<'_, str>| expression::title(&text));
    bound_filter(jinja, "title", title);
    let capitalize = Value::from_function(|text: Cow<'_, str>| expression::capitalized(&text));
    bound_filter(jinja, "capitalize", capitalize);
    // The number of a value that has one, for operators; other values stay as they are.
    bound_filter(jinja, "number", Value::from_function(|value: Value| value));
    let range = Value::from_function(functions::range);
    jinja.add_function("range", move |state: &mut State, args: Rest<Value>| {
        let range = range.call(state, &args)?;
        spend(weight(&range)?)?;
        Ok::<_, Error>(range)
    });
}

/// Begins to fill a string that uses names so often, the longest of whose values has so many bytes.
/// Returns whether it may be filled at all.
pub(super) fn begin(names: usize, longest: usize) -> bool {
    LEFT.set(TOTAL);
    longest <= VALUE && names.saturating_mul(longest) <= TOTAL
}

fn bound_filter(jinja: &mut Environment<'static>, name: &'static str, filter: Value) {
    jinja.add_filter(name, move |state: &mut State, args: Rest<Value>| {
        let args =
            Rest(args.0.into_iter().map(|value| ShownNumber::for_filter(name, value)).collect::<Vec<_>>());
        for value in args.iter() {
            spend(weight(value)?)?;
        }
        match (name, &args[..]) {
            ("replace", [text, from, to]) => spend(replaced(text, from, to))?,
            ("join", [items, with, ..]) => {
                spend(length(with).saturating_mul(items.len().unwrap_or_default()))?;
            }
            // An indent is as long as its argument says.
            ("tojson", [_, _, ..]) => return Err(too_much()),
            _ => {}
        }
        let made = filter.call(state, &args)?;
        spend(weight(&made)?)?;
        Ok::<_, Error>(made)
    });
}

fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, "makes more than any message holds")
}

/// Takes bytes from what is left for the string.
fn spend(bytes: usize) -> Result<(), Error> {
    let left = LEFT.get().checked_sub(bytes).filter(|_| bytes <= VALUE).ok_or_else(too_much)?;
    LEFT.set(left);
    Ok(())
}

fn length(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// How long a text is with each `from` in it replaced.
fn replaced(text: &Value, from: &Value, to: &Value) -> usize {
    let (Some(text), Some(from)) = (text.as_str(), from.as_str()) else { return 0 };
    text.len().saturating_add(text.matches(from).count().saturating_mul(length(to)))
}

/// About how many bytes a value takes. What is larger than a value may be is an error, found without
/// walking through all of it.
fn weight(value: &Value) -> Result<usize, Error> {
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
    // The place of the value itself is not counted, so that a text of the full length may be one.
    Ok(sum - ITEM)
}
