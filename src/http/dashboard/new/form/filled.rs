//! Reads a submitted form back into a document. Never validates it: the job's checks do.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::ITEMS;
use super::defaults::is_untouched;
use crate::campaign::problem::step;
use crate::campaign::rules::{Field, Object, Rule, Text};

/// A submitted form.
pub(in super::super) struct FormValues<'f> {
    /// Submitted values, by JSON pointer.
    pub(in super::super) values: &'f HashMap<String, String>,
    /// JSON pointer of the list item to remove; empty for none.
    pub(in super::super) remove: &'f str,
}

impl FormValues<'_> {
    /// Returns the value at a pointer, if the form has one.
    pub(in super::super) fn value(&self, rule: &Rule, pointer: &str) -> Option<Value> {
        if !self.remove.is_empty() && self.remove == pointer {
            return None;
        }
        let text = || self.values.get(pointer).filter(|text| !text.trim().is_empty());
        match rule {
            Rule::Text(_) | Rule::Parsed { .. } => text().map(|text| Value::from(text.as_str())),
            Rule::Bool => match text()?.as_str() {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                other => Some(other.into()),
            },
            Rule::Number { .. } | Rule::Integer { .. } => {
                let text = text()?.trim();
                let number = serde_json::from_str::<serde_json::Number>(text).ok();
                Some(number.map_or_else(|| text.into(), Value::Number))
            }
            // Invalid JSON stays a text, and the check reports it.
            Rule::AnyObject { .. } => {
                let text = text()?;
                Some(serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()))
            }
            Rule::Fixed(rule) | Rule::Either(rule, _) => self.value(rule, pointer),
            Rule::Object(object) => self.object(object, &[], pointer, Map::new()),
            Rule::Choice(choice) => {
                let place = step(pointer, choice.tag);
                let word = self.values.get(&place).filter(|word| !word.is_empty())?;
                let (_, arm) = choice.arms.iter().find(|(known, _)| known == word)?;
                let tag = Map::from_iter([(choice.tag.to_owned(), Value::from(word.as_str()))]);
                self.object(arm, choice.common, pointer, tag)
            }
            Rule::List { of, .. } => {
                let item = |nth: usize| {
                    let place = step(pointer, &nth.to_string());
                    // An added item that was never filled in is omitted.
                    self.value(of, &place).filter(|item| nth == 0 || !is_untouched(item, &place))
                };
                let items: Vec<Value> = (0..ITEMS).filter_map(item).collect();
                (!items.is_empty()).then(|| Value::from(items))
            }
        }
    }

    fn object(
        &self,
        object: &Object,
        common: &'static [Field],
        pointer: &str,
        mut map: Map<String, Value>,
    ) -> Option<Value> {
        for field in common.iter().chain(object.fields) {
            if let Some(value) = self.value(field.rule(), &step(pointer, field.name())) {
                map.insert(field.name().to_owned(), value);
            }
        }
        // An object that only holds fixed words is omitted.
        let says_something = |(name, value): (&String, &Value)| {
            let field = common.iter().chain(object.fields).find(|field| field.name() == name);
            let is_only = matches!(field.map(Field::rule), Some(Rule::Text(Text { one_of: [_], .. })));
            !is_only || value.is_object()
        };
        map.iter().any(says_something).then_some(Value::Object(map))
    }
}
