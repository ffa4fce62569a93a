//! Builds a form from the rule tables that check a message: an input for each text, a select for each choice, a group
//! for each object. Form and check share one table, so they never disagree about a field.
//!
//! A field's name is its JSON pointer. `Filled` reads a submitted form back; empty fields are omitted. Nothing here
//! validates a value: the job's checks do.

mod captions;
mod completion;
mod defaults;
mod filled;

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use crate::campaign::problem::step;
use crate::campaign::rules::{Choice, Field, Form, Object, Rule, Text};
use captions::{item_label, word_label};
pub(super) use captions::{label, missing};
pub(super) use completion::{ELLIPSIS, SOME_ADDRESS, complete};
use defaults::{default_of, is_advanced, steps};
pub(super) use filled::FormValues;

/// Maximum number of items of a list in a form.
const ITEMS: usize = 30;
/// Allowed length, in characters, from which a field has several lines.
const LINES: usize = 200;

/// What a node of a form is rendered as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum NodeKind {
    /// An input of one line.
    #[default]
    Text,
    /// A text area for prose.
    Lines,
    /// A text area for JSON.
    Json,
    Select,
    /// A select that decides which fields follow.
    Choice,
    Hidden,
    Group,
    List,
    /// A collapsed group of fields that most people leave as they are.
    Advanced,
}

impl NodeKind {
    /// Returns whether the node only holds other nodes and sends no value.
    fn is_container(self) -> bool {
        matches!(self, Self::Group | Self::List | Self::Advanced)
    }
}

/// A field of a form, or a group of fields.
#[derive(Debug, Default, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the template reads each of them")]
pub(super) struct FormField {
    kind: NodeKind,
    /// JSON pointer of the value.
    name: String,
    label: String,
    value: String,
    hint: String,
    error: String,
    is_required: bool,
    options: Vec<(String, String)>,
    children: Vec<FormField>,
    /// Whether a group is shown open.
    is_open: bool,
    can_add: bool,
    can_remove: bool,
}

impl FormField {
    /// Returns the names of all fields in this node.
    pub(super) fn names(&self) -> Vec<String> {
        let own = (!self.kind.is_container()).then(|| self.name.clone());
        own.into_iter().chain(self.children.iter().flat_map(Self::names)).collect()
    }

    /// Returns the values that a browser submits for the unchanged form, by field name.
    pub(super) fn values(&self) -> HashMap<String, String> {
        let own = (!self.kind.is_container()).then(|| (self.name.clone(), self.value.clone()));
        own.into_iter().chain(self.children.iter().flat_map(Self::values)).collect()
    }
}

/// Builds the form of a rule with a value.
pub(super) struct FormContext<'m> {
    /// Error messages, by JSON pointer.
    pub(super) errors: &'m HashMap<String, String>,
    /// JSON pointer of the list that gets one more item; empty for none.
    pub(super) add: &'m str,
    /// JSON pointers of choices that are already made.
    pub(super) fixed: &'m [&'static str],
}

impl FormContext<'_> {
    /// Builds the form of a rule with a value.
    pub(super) fn form(&self, rule: &Rule, value: Option<&Value>, pointer: &str) -> FormField {
        self.node(rule, value, pointer, true)
    }

    fn node(&self, rule: &Rule, value: Option<&Value>, pointer: &str, is_required: bool) -> FormField {
        let given = shown(value);
        // A starter message contains optional fields with an empty value: they get their default too.
        let is_asked = is_required || value.is_some();
        let default = Some(pointer).filter(|_| is_asked && given.is_empty()).and_then(default_of);
        let base = FormField {
            name: pointer.to_owned(),
            label: label(pointer),
            error: self.errors.get(pointer).cloned().unwrap_or_default(),
            value: default.unwrap_or(given),
            is_required,
            ..FormField::default()
        };
        match rule {
            Rule::Text(text) => text_node(base, text),
            Rule::Bool => {
                let options = [("true", "On"), ("false", "Off")];
                let options = options.map(|(value, title)| (value.into(), title.into())).to_vec();
                FormField { kind: NodeKind::Select, options, ..base }
            }
            Rule::Number { range } => {
                FormField { hint: format!("A number from {} to {}.", range.0, range.1), ..base }
            }
            Rule::Integer { .. } => FormField { hint: "A whole number.".into(), ..base },
            Rule::Parsed { about, .. } => {
                let mut about = about.chars();
                let first = about.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
                FormField { hint: format!("{first}{}.", about.as_str()), ..base }
            }
            Rule::AnyObject { .. } => json_node(base, value),
            Rule::Fixed(rule) | Rule::Either(rule, _) => self.node(rule, value, pointer, is_required),
            // An object whose only field is a text is shown as that text.
            Rule::Object(Object { fields: [only], .. }) if matches!(only.rule(), Rule::Text(_)) => {
                let value = value.and_then(|object| object.get(only.name()));
                let field = self.node(only.rule(), value, &step(pointer, only.name()), is_required);
                FormField { label: base.label, ..field }
            }
            Rule::Object(object) => {
                let children = self.fields(object.fields, value, pointer);
                FormField { kind: NodeKind::Group, is_open: is_required || value.is_some(), children, ..base }
            }
            Rule::Choice(choice) => self.choice(choice, value, pointer, base),
            Rule::List { of, min, max } => self.list(of, (*min, *max), value, base),
        }
    }

    fn list(
        &self,
        of: &Rule,
        (min, max): (usize, usize),
        value: Option<&Value>,
        base: FormField,
    ) -> FormField {
        let pointer = base.name.as_str();
        let items = value.and_then(Value::as_array).map_or(0, Vec::len);
        let least = min.min(1) * usize::from(base.is_required);
        let count = (items + usize::from(self.add == pointer)).max(least).min(ITEMS);
        let item = |nth: usize| {
            let place = step(pointer, &nth.to_string());
            let value = value.and_then(|list| list.get(nth));
            let mut item = self.node(of, value, &place, true);
            item.label = item_label(pointer, nth, value);
            item.can_remove = items > min || nth >= items;
            item
        };
        let children = (0..count).map(item).collect();
        let (is_open, can_add) = (count > 0, count < max.min(ITEMS));
        FormField { kind: NodeKind::List, children, is_open, can_add, ..base }
    }

    fn fields(&self, fields: &[Field], value: Option<&Value>, pointer: &str) -> Vec<FormField> {
        let (required, optional): (Vec<&Field>, Vec<&Field>) =
            fields.iter().partition(|field| field.is_required());
        let node = |field: &Field| {
            let place = step(pointer, field.name());
            let value = value.and_then(|object| object.get(field.name()));
            self.node(field.rule(), value, &place, field.is_required())
        };
        with_advanced(required.into_iter().chain(optional).map(node).collect(), pointer)
    }

    fn choice(&self, choice: &Choice, value: Option<&Value>, pointer: &str, base: FormField) -> FormField {
        let place = step(pointer, choice.tag);
        let is_fixed = self.fixed.contains(&place.as_str());
        let word = value.and_then(|object| object.get(choice.tag)).and_then(Value::as_str);
        let only = choice.arms.first().map(|(word, _)| *word).filter(|_| choice.arms.len() == 1);
        let word = word.or(only.filter(|_| base.is_required)).unwrap_or_default();
        let words = choice.arms.iter().map(|(word, _)| ((*word).to_owned(), word_label(word)));
        let is_hidden = is_fixed || (only.is_some() && base.is_required);
        let tag = FormField {
            kind: if is_hidden { NodeKind::Hidden } else { NodeKind::Choice },
            name: place.clone(),
            label: label(&place),
            value: word.to_owned(),
            options: words.collect(),
            error: self.errors.get(&place).cloned().unwrap_or_default(),
            is_required: base.is_required,
            ..FormField::default()
        };
        let mut children = vec![tag];
        if let Some((_, arm)) = choice.arms.iter().find(|(known, _)| *known == word) {
            children.extend(self.fields(choice.common, value, pointer));
            children.extend(self.fields(arm.fields, value, pointer));
        }
        let children = with_advanced(children, pointer);
        FormField { kind: NodeKind::Group, is_open: base.is_required || value.is_some(), children, ..base }
    }
}

fn json_node(base: FormField, value: Option<&Value>) -> FormField {
    let value = match value {
        Some(value @ (Value::Object(_) | Value::Array(_))) => {
            serde_json::to_string_pretty(value).unwrap_or_default()
        }
        other => shown(other),
    };
    let hint = "JSON, for example {\"name\": \"{{ name }}\"}.".into();
    FormField { kind: NodeKind::Json, value, hint, ..base }
}

fn text_node(base: FormField, text: &Text) -> FormField {
    if base.is_required
        && !base.value.is_empty()
        && matches!(steps(&base.name).as_slice(), ["name", "action", ..])
    {
        return FormField { kind: NodeKind::Hidden, ..base };
    }
    if let [only] = text.one_of {
        // The only allowed word is filled in if it is required, and kept as it is if it is optional.
        let value = if base.is_required { (*only).to_owned() } else { base.value.clone() };
        return FormField { kind: NodeKind::Hidden, value, ..base };
    }
    if !text.one_of.is_empty() {
        let options = text.one_of.iter().map(|word| ((*word).to_owned(), word_label(word))).collect();
        return FormField { kind: NodeKind::Select, options, ..base };
    }
    let mut hint = String::new();
    if text.max > 0 {
        hint = format!("At most {} characters.", crate::campaign::thousands(text.max as u64));
    }
    hint += match text.form {
        Form::Link => " Begins with https://.",
        Form::NoEmoji => " No emoji.",
        Form::Name => " Lower-case letters, digits and underscores.",
        Form::Date => " For example 2026-11-01.",
        Form::CountryCode => " Two letters.",
        Form::Parameter => " On one line.",
        Form::Any | Form::Trimmed => "",
    };
    // Prose gets several lines; URLs and IDs get one, however long they may be.
    let is_prose = matches!(base.name.rsplit('/').next(), Some("body" | "text" | "caption"));
    let kind = if is_prose && text.max >= LINES { NodeKind::Lines } else { NodeKind::Text };
    FormField { kind, hint: hint.trim().to_owned(), ..base }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Moves rarely changed fields into a collapsed group at the end.
fn with_advanced(children: Vec<FormField>, pointer: &str) -> Vec<FormField> {
    let (advanced, mut children): (Vec<FormField>, Vec<FormField>) =
        children.into_iter().partition(|child| child.kind == NodeKind::Advanced || is_advanced(&child.name));
    let advanced: Vec<FormField> = advanced
        .into_iter()
        .flat_map(|child| if child.kind == NodeKind::Advanced { child.children } else { vec![child] })
        .collect();
    if advanced.iter().all(|child| child.kind == NodeKind::Hidden) {
        children.extend(advanced);
        return children;
    }
    let is_open = advanced.iter().any(|child| !child.error.is_empty());
    children.push(FormField {
        kind: NodeKind::Advanced,
        name: format!("{pointer}-advanced"),
        label: "Advanced".into(),
        is_open,
        children: advanced,
        ..FormField::default()
    });
    children
}

#[cfg(test)]
mod tests {
    use super::super::kinds::kinds;
    use super::*;
    use crate::campaign::content::CONTENT;
    use crate::campaign::rules::check;

    fn making(errors: &HashMap<String, String>) -> FormContext<'_> {
        FormContext { errors, add: "", fixed: &["/message/type", "/message/interactive/type"] }
    }

    fn there_and_back(message: &Value) -> Option<Value> {
        let errors = HashMap::new();
        let form = making(&errors).form(&CONTENT, Some(message), "/message");
        let values = form.values();
        FormValues { values: &values, remove: "" }.value(&CONTENT, "/message")
    }

    #[test]
    fn a_message_of_every_type_survives_its_form_unchanged() {
        let mut seen = 0;
        for path in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/jobs")).unwrap() {
            let path = path.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let Ok(job) = serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()) else { continue };
            let Some(message) =
                job.get("message").filter(|message| check(&CONTENT, message, "").problems.count() == 0)
            else {
                continue;
            };
            seen += 1;
            assert_eq!(there_and_back(message).as_ref(), Some(message), "{}", path.display());
        }
        assert!(seen > 0, "no fixture has a message");
    }

    #[test]
    fn the_form_of_every_kind_has_fields_to_fill_in() {
        for kind in kinds() {
            let errors = HashMap::new();
            let form = making(&errors).form(&CONTENT, Some(&kind.message), "/message");
            let values = form.values();
            let empty = values.values().filter(|value| value.is_empty()).count();
            assert!(empty > 0, "{}", kind.name);
        }
    }

    #[test]
    fn completion_adds_the_required_fields_of_every_kind() {
        for kind in kinds() {
            let mut missing = Vec::new();
            let whole = complete(&CONTENT, Some(&kind.message), "/message", &mut missing);
            let problems = check(&CONTENT, &whole, "/message").problems.into_list();
            assert!(problems.is_empty(), "{}: {problems:?}", kind.name);
            assert!(!missing.is_empty(), "{}", kind.name);
            // Completing a complete message changes nothing.
            let again = complete(&CONTENT, Some(&whole), "/message", &mut Vec::new());
            assert_eq!(again, whole);
        }
        let unknown = serde_json::json!({ "type": "tpye" });
        assert_eq!(complete(&CONTENT, Some(&unknown), "/message", &mut Vec::new()), unknown);
    }

    #[test]
    fn a_list_item_can_be_added_and_removed() {
        let message = kinds().into_iter().find(|kind| kind.name == "button").unwrap().message;
        let errors = HashMap::new();
        let list = "/message/interactive/action/buttons";
        let making = FormContext { add: list, ..making(&errors) };
        let form = making.form(&CONTENT, Some(&message), "/message");
        let mut values = form.values();
        assert!(values.contains_key(&format!("{list}/1/reply/title")), "{values:?}");
        for (nth, title) in ["Yes", "No"].into_iter().enumerate() {
            values.insert(format!("{list}/{nth}/reply/title"), title.into());
            values.insert(format!("{list}/{nth}/reply/id"), title.into());
        }
        let remove = format!("{list}/0");
        let left = FormValues { values: &values, remove: &remove }.value(&CONTENT, "/message").unwrap();
        let buttons = left.pointer("/interactive/action/buttons").unwrap().as_array().unwrap().clone();
        assert_eq!(buttons.len(), 1);
        assert_eq!(buttons[0]["reply"]["title"], "No");
    }
}
