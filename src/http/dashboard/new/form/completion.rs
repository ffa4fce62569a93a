//! Completes an unfinished document with fillers, so that it can be checked and previewed. Fillers never reach a draft.

use serde_json::{Map, Value};

use super::defaults::default_of;
use crate::campaign::problem::step;
use crate::campaign::rules::{Field, Form, Rule, Text};

/// Fillers for a text and for a URL that are not written yet.
pub(in super::super) const ELLIPSIS: &str = "…";
pub(in super::super) const SOME_ADDRESS: &str = "https://example.com/";

/// Returns the document with a value in every required field.
///
/// `missing` gets the pointers of the fields that got a filler: those without a default.
pub(in super::super) fn complete(
    rule: &Rule,
    value: Option<&Value>,
    pointer: &str,
    missing: &mut Vec<String>,
) -> Value {
    let is_empty = value.is_none_or(|value| value.as_str() == Some(""));
    let mut leaf = |filler: Value| match value {
        Some(value) if !is_empty => value.clone(),
        _ => default_of(pointer).map_or_else(
            || {
                missing.push(pointer.to_owned());
                filler
            },
            Value::from,
        ),
    };
    match rule {
        Rule::Text(Text { one_of: [first, ..], .. }) if is_empty => (*first).into(),
        Rule::Text(text) => leaf(match text.form {
            Form::Link => SOME_ADDRESS.into(),
            Form::Name => "name".into(),
            Form::Date => "2026-01-01".into(),
            Form::CountryCode => "IN".into(),
            Form::Any | Form::Trimmed | Form::NoEmoji | Form::Parameter => ELLIPSIS.into(),
        }),
        Rule::Bool => leaf(true.into()),
        Rule::Number { .. } | Rule::Integer { .. } | Rule::Parsed { .. } => leaf("0".into()),
        Rule::AnyObject { .. } => leaf(Value::Object(Map::new())),
        Rule::Fixed(rule) | Rule::Either(rule, _) => complete(rule, value, pointer, missing),
        Rule::Object(object) => completed(&[], object.fields, value, pointer, missing),
        Rule::Choice(choice) => {
            let word = value.and_then(|object| object.get(choice.tag)).and_then(Value::as_str);
            let known = choice.arms.iter().find(|(known, _)| Some(*known) == word);
            if let Some(value) = value
                && (!value.is_object() || (word.is_some() && known.is_none()))
            {
                return value.clone();
            }
            let arm = known.or(choice.arms.first());
            let Some((word, arm)) = arm else { return Value::Null };
            let mut object = completed(choice.common, arm.fields, value, pointer, missing);
            if let Some(object) = object.as_object_mut() {
                object.insert(choice.tag.into(), (*word).into());
            }
            object
        }
        Rule::List { of, .. } => match value {
            Some(Value::Array(items)) if !items.is_empty() => {
                let item = |(nth, item)| complete(of, Some(item), &step(pointer, &format!("{nth}")), missing);
                items.iter().enumerate().map(item).collect()
            }
            None => vec![complete(of, None, &step(pointer, "0"), missing)].into(),
            Some(other) => other.clone(),
        },
    }
}

fn completed(
    common: &[Field],
    fields: &[Field],
    value: Option<&Value>,
    pointer: &str,
    missing: &mut Vec<String>,
) -> Value {
    let mut object = match value {
        Some(Value::Object(object)) => object.clone(),
        None => Map::new(),
        Some(other) => return other.clone(),
    };
    for field in common.iter().chain(fields) {
        let place = step(pointer, field.name());
        let value = object.get(field.name());
        if value.is_some() || field.is_required() {
            let whole = complete(field.rule(), value, &place, missing);
            object.insert(field.name().to_owned(), whole);
        }
    }
    Value::Object(object)
}
