//! The sources of placeholders' values.

use std::{borrow::Cow, collections::BTreeMap};

use minijinja::{Value as Jinja, value::Serde};
use serde_json::Value;

use super::numbers::ShownNumber;
use crate::campaign::batch::{Field, Recipient, shown_and_number};

/// The source of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A column, by its index among the used ones.
    Column(usize),
    Recipient,
    CampaignId,
    MessageRef,
    Row,
}

impl Source {
    /// Returns the number of bytes that the audience contributes to the value.
    pub(super) fn length(self, recipient: &Recipient<'_>) -> usize {
        match self {
            Self::Column(place) => match recipient.field(place) {
                Field::Empty => 0,
                Field::Text(text) | Field::Number(text, _) | Field::Json(text) => text.len(),
            },
            _ => 0,
        }
    }

    /// Returns the value as text; `None` if it is empty.
    pub(super) fn text<'r>(self, recipient: &Recipient<'r>) -> Option<Cow<'r, str>> {
        Some(match self {
            Self::Column(place) => match recipient.field(place) {
                Field::Empty => return None,
                Field::Text(text) | Field::Number(text, _) => Cow::Borrowed(text),
                Field::Json(_) => match self.value(recipient)? {
                    Value::String(text) => match shown_and_number(&text) {
                        (shown, Some(_)) => shown.to_owned().into(),
                        _ => text.into(),
                    },
                    value => Jinja::from(Serde(&value)).to_string().into(),
                },
            },
            Self::Recipient => recipient.phone.to_string().into(),
            Self::CampaignId => recipient.campaign().as_str().into(),
            Self::MessageRef => recipient.message_ref().into(),
            Self::Row => recipient.row.to_string().into(),
        })
    }

    /// Returns the value with its type; `None` if it is empty.
    pub(super) fn value(self, recipient: &Recipient<'_>) -> Option<Value> {
        if self == Self::Row {
            return Some(recipient.row.into());
        }
        if let Self::Column(place) = self
            && let Field::Json(json) = recipient.field(place)
        {
            let mut value = read(json)?;
            match &mut value {
                Value::Array(items) => items.iter_mut().for_each(unmark),
                Value::Object(fields) => fields.values_mut().for_each(unmark),
                _ => {}
            }
            return Some(value);
        }
        self.text(recipient).map(|text| text.into_owned().into())
    }

    /// Returns the value with the marks of its numbers; `None` if it is empty.
    fn marked(self, recipient: &Recipient<'_>) -> Option<Value> {
        match self {
            Self::Column(place) if let Field::Json(json) = recipient.field(place) => read(json),
            other => other.value(recipient),
        }
    }

    /// Returns the value for Jinja expressions; `None` if it is empty.
    pub(super) fn in_expressions(self, recipient: &Recipient<'_>) -> Option<Jinja> {
        if let Self::Column(place) = self
            && let Field::Number(shown, number) = recipient.field(place)
        {
            return Some(ShownNumber::value(shown, number, false));
        }
        Some(in_expressions(&self.marked(recipient)?))
    }
}

/// Reads a field of a job's recipient; `None` if it is empty.
fn read(json: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(json).ok()?;
    let is_empty = value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
    Some(value).filter(|_| !is_empty)
}

/// Replaces texts with a marked number by the number.
fn unmark(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let (_, Some(number)) = shown_and_number(text) {
                *value = serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unmark),
        Value::Object(fields) => fields.values_mut().for_each(unmark),
        _ => {}
    }
}

/// Returns a field of a job's recipient for expressions.
fn in_expressions(value: &Value) -> Jinja {
    match value {
        Value::String(text) => match shown_and_number(text) {
            (shown, Some(number)) => ShownNumber::value(shown, number, true),
            _ => text.as_str().into(),
        },
        Value::Array(items) => items.iter().map(in_expressions).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), in_expressions(field)));
            Jinja::from(fields.collect::<BTreeMap<String, Jinja>>())
        }
        other => Jinja::from(Serde(other)),
    }
}
