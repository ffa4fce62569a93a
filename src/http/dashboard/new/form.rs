//! Forms out of the rule tables of the checks: a field for each text, a choice for each word, a group for each
//! object. What is a rule there is a form here, so that neither knows what the other does not.
//!
//! A field is called by its JSON pointer. Reading a form gives the document; fields left empty are left out.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::campaign::problem::step;
use crate::campaign::rules::{Choice, Field, Form, Object, Rule, Text};
use crate::campaign::text::titled;

/// The most items of a list that a form has.
const ITEMS: usize = 30;
/// From so many allowed characters on, a field has several lines.
const LINES: usize = 200;

/// A field, or a group of them.
#[derive(Debug, Default, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is something that its template asks")]
pub(super) struct Node {
    /// `text`, `lines`, `json`, `select`, `choice`, `hidden`, `group`, `list` or `advanced`.
    kind: &'static str,
    /// The JSON pointer.
    name: String,
    label: String,
    value: String,
    hint: String,
    error: String,
    is_required: bool,
    options: Vec<(String, String)>,
    children: Vec<Node>,
    /// Whether a group is open: it has something in it.
    is_open: bool,
    can_add: bool,
    can_remove: bool,
}

impl Node {
    /// The names of its fields.
    pub(super) fn names(&self) -> Vec<String> {
        let own = (!matches!(self.kind, "group" | "list" | "advanced")).then(|| self.name.clone());
        own.into_iter().chain(self.children.iter().flat_map(Self::names)).collect()
    }

    /// What it sends as it stands, by the names of its fields.
    pub(super) fn values(&self) -> HashMap<String, String> {
        let own = (!matches!(self.kind, "group" | "list" | "advanced"))
            .then(|| (self.name.clone(), self.value.clone()));
        own.into_iter().chain(self.children.iter().flat_map(Self::values)).collect()
    }
}

/// What a form is made with besides its rule and its value.
pub(super) struct Making<'m> {
    /// What is wrong, by pointer.
    pub(super) errors: &'m HashMap<String, String>,
    /// The list that one more item is asked for.
    pub(super) add: &'m str,
    /// The tags that are decided already.
    pub(super) fixed: &'m [&'static str],
}

impl Making<'_> {
    /// The form of a rule with a value.
    pub(super) fn form(&self, rule: &Rule, value: Option<&Value>, pointer: &str) -> Node {
        self.node(rule, value, pointer, true)
    }

    fn node(&self, rule: &Rule, value: Option<&Value>, pointer: &str, is_required: bool) -> Node {
        let given = shown(value);
        // Also of what a kind begins with and leaves empty.
        let is_asked = is_required || value.is_some();
        let default = Some(pointer).filter(|_| is_asked && given.is_empty()).and_then(default_of);
        let base = Node {
            name: pointer.to_owned(),
            label: label(pointer),
            error: self.errors.get(pointer).cloned().unwrap_or_default(),
            value: default.unwrap_or(given),
            is_required,
            ..Node::default()
        };
        match rule {
            Rule::Text(text) => text_node(base, text),
            Rule::Bool => {
                let options = [("true", "On"), ("false", "Off")];
                Node { kind: "select", options: options.map(|(a, b)| (a.into(), b.into())).to_vec(), ..base }
            }
            Rule::Number { range } => {
                Node { kind: "text", hint: format!("A number from {} to {}.", range.0, range.1), ..base }
            }
            Rule::Integer { .. } => Node { kind: "text", hint: "A whole number.".into(), ..base },
            Rule::Parsed { about, .. } => {
                let mut about = about.chars();
                let first = about.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
                Node { kind: "text", hint: format!("{first}{}.", about.as_str()), ..base }
            }
            Rule::AnyObject { .. } => {
                let value = match value {
                    Some(value @ (Value::Object(_) | Value::Array(_))) => {
                        serde_json::to_string_pretty(value).unwrap_or_default()
                    }
                    other => shown(other),
                };
                Node {
                    kind: "json",
                    value,
                    hint: "JSON, for example {\"name\": \"{{ name }}\"}.".into(),
                    ..base
                }
            }
            Rule::Fixed(rule) | Rule::Either(rule, _) => self.node(rule, value, pointer, is_required),
            // An object of one text is that text to whoever fills it in.
            Rule::Object(Object { fields: [only], .. }) if matches!(only.rule(), Rule::Text(_)) => {
                let value = value.and_then(|object| object.get(only.name()));
                let field = self.node(only.rule(), value, &step(pointer, only.name()), is_required);
                Node { label: base.label, ..field }
            }
            Rule::Object(object) => {
                let children = self.fields(object.fields, value, pointer);
                Node { kind: "group", is_open: is_required || value.is_some(), children, ..base }
            }
            Rule::Choice(choice) => self.choice(choice, value, pointer, base),
            Rule::List { of, min, max } => {
                let items = value.and_then(Value::as_array).map_or(0, Vec::len);
                let least = (*min).min(1) * usize::from(is_required);
                let count = (items + usize::from(self.add == pointer)).max(least).min(ITEMS);
                let item = |nth: usize| {
                    let place = step(pointer, &nth.to_string());
                    let mut item = self.node(of, value.and_then(|list| list.get(nth)), &place, true);
                    item.label = item_label(pointer, nth, value.and_then(|list| list.get(nth)));
                    item.can_remove = items > *min || nth >= items;
                    item
                };
                let children = (0..count).map(item).collect();
                Node {
                    kind: "list",
                    children,
                    is_open: count > 0,
                    can_add: count < (*max).min(ITEMS),
                    ..base
                }
            }
        }
    }

    fn fields(&self, fields: &[Field], value: Option<&Value>, pointer: &str) -> Vec<Node> {
        let (needed, more): (Vec<&Field>, Vec<&Field>) = fields.iter().partition(|field| field.is_required());
        let node = |field: &Field| {
            let place = step(pointer, field.name());
            let value = value.and_then(|object| object.get(field.name()));
            self.node(field.rule(), value, &place, field.is_required())
        };
        // What is needed comes first.
        with_advanced(needed.into_iter().chain(more).map(node).collect(), pointer)
    }

    fn choice(&self, choice: &Choice, value: Option<&Value>, pointer: &str, base: Node) -> Node {
        let place = step(pointer, choice.tag);
        let is_fixed = self.fixed.contains(&place.as_str());
        let word = value.and_then(|object| object.get(choice.tag)).and_then(Value::as_str);
        let only = choice.arms.first().map(|(word, _)| *word).filter(|_| choice.arms.len() == 1);
        let word = word.or(only.filter(|_| base.is_required)).unwrap_or_default();
        let words = choice.arms.iter().map(|(word, _)| ((*word).to_owned(), word_label(word)));
        let tag = Node {
            kind: if is_fixed || (only.is_some() && base.is_required) { "hidden" } else { "choice" },
            name: place.clone(),
            label: label(&place),
            value: word.to_owned(),
            options: words.collect(),
            error: self.errors.get(&place).cloned().unwrap_or_default(),
            is_required: base.is_required,
            ..Node::default()
        };
        let mut children = vec![tag];
        if let Some((_, arm)) = choice.arms.iter().find(|(known, _)| *known == word) {
            children.extend(self.fields(choice.common, value, pointer));
            children.extend(self.fields(arm.fields, value, pointer));
        }
        let children = with_advanced(children, pointer);
        Node { kind: "group", is_open: base.is_required || value.is_some(), children, ..base }
    }
}

fn text_node(base: Node, text: &Text) -> Node {
    if base.is_required
        && !base.value.is_empty()
        && matches!(steps(&base.name).as_slice(), ["name", "action", ..])
    {
        return Node { kind: "hidden", ..base };
    }
    if let [only] = text.one_of {
        // A word that can only be one; where it may be missing, it stays as it is.
        let value = if base.is_required { (*only).to_owned() } else { base.value.clone() };
        return Node { kind: "hidden", value, ..base };
    }
    if !text.one_of.is_empty() {
        let options = text.one_of.iter().map(|word| ((*word).to_owned(), word_label(word))).collect();
        return Node { kind: "select", options, ..base };
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
    // What people write has several lines; addresses and ids, however long they may be, have one.
    let is_prose = matches!(base.name.rsplit('/').next(), Some("body" | "text" | "caption"));
    let kind = if is_prose && text.max >= LINES { "lines" } else { "text" };
    Node { kind, hint: hint.trim().to_owned(), ..base }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Moves the fields that have a default, or that few people need, behind the others.
fn with_advanced(children: Vec<Node>, pointer: &str) -> Vec<Node> {
    let (advanced, mut children): (Vec<Node>, Vec<Node>) =
        children.into_iter().partition(|child| child.kind == "advanced" || is_advanced(&child.name));
    let advanced: Vec<Node> = advanced
        .into_iter()
        .flat_map(|child| if child.kind == "advanced" { child.children } else { vec![child] })
        .collect();
    if advanced.iter().all(|child| child.kind == "hidden") {
        children.extend(advanced);
        return children;
    }
    let is_open = advanced.iter().any(|child| !child.error.is_empty());
    let label = "Advanced".into();
    children.push(Node {
        kind: "advanced",
        name: format!("{pointer}-advanced"),
        label,
        is_open,
        children: advanced,
        ..Node::default()
    });
    children
}

/// The last steps of a pointer, the last first.
fn steps(pointer: &str) -> Vec<&str> {
    pointer.rsplit('/').collect()
}

/// Whether a field can stay as it is for almost everybody.
fn is_advanced(pointer: &str) -> bool {
    matches!(
        steps(pointer).as_slice(),
        [
            "flow_token"
                | "flow_message_version"
                | "flow_action"
                | "flow_action_data"
                | "mode"
                | "policy"
                | "index"
                | "sub_type"
                | "recipient_type"
                | "parameter_name",
            ..,
        ] | ["data", "flow_action_payload", ..]
            | ["id", "reply", ..]
            | ["id", _, "rows", ..]
            | ["type", _, "parameters", ..]
    )
}

/// Returns what a required field begins with, where a person need not know better.
fn default_of(pointer: &str) -> Option<String> {
    let nth = |step: &str| step.parse::<usize>().map_or(1, |index| index + 1);
    match steps(pointer).as_slice() {
        ["flow_token", ..] => Some("{{ message_ref }}".into()),
        ["flow_message_version", ..] => Some("3".into()),
        ["flow_action", ..] => Some("navigate".into()),
        ["name", "action", ..] => Some("flow".into()),
        ["index", _, "components", ..] => Some("0".into()),
        ["id", "reply", button, "buttons", ..] => Some(format!("button_{}", nth(button))),
        ["id", row, "rows", section, "sections", ..] => Some(format!("row_{}_{}", nth(section), nth(row))),
        _ => None,
    }
}

/// What stands for a text that is not written yet, and for an address.
pub(super) const ELLIPSIS: &str = "…";
pub(super) const SOME_ADDRESS: &str = "https://example.com/";

/// A document with something in every field that is required and empty; `missing` gets the pointers of those that a person
/// has to fill in.
pub(super) fn complete(
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

/// Whether a value holds nothing but words that its kind begins with.
fn is_untouched(value: &Value, pointer: &str) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().all(|(name, value)| name == "type" || is_untouched(value, &step(pointer, name)))
        }
        Value::Array(_) => false,
        value => value.as_str() == default_of(pointer).as_deref(),
    }
}

/// Returns what people call an item of a list.
fn item_label(list: &str, nth: usize, item: Option<&Value>) -> String {
    let name = list.rsplit('/').next().unwrap_or_default();
    let kind = item.and_then(|item| item["type"].as_str()).unwrap_or_default();
    match (name, kind) {
        ("components", "header") => "Header variables".into(),
        ("components", "body") => "Body variables".into(),
        ("components", "button") => format!(
            "Button: {}",
            word_label(item.and_then(|item| item["sub_type"].as_str()).unwrap_or("flow")).to_lowercase()
        ),
        ("components", _) => format!("Part {}", nth + 1),
        ("parameters", _) => format!("Variable {}", nth + 1),
        _ => format!("{} {}", titled(name).trim_end_matches('s'), nth + 1),
    }
}

/// Returns what people call a field of the providers' documents.
pub(super) fn label(pointer: &str) -> String {
    let steps = steps(pointer);
    if let ["text", nth, "parameters", ..] = steps.as_slice() {
        return format!("Variable {}", nth.parse::<usize>().map_or(1, |index| index + 1));
    }
    let known = match steps.as_slice() {
        ["message", ..] => "Message",
        ["from", ..] => "Sender number",
        ["account", ..] => "Account",
        ["text", "body", ..] | ["body", ..] => "Message text",
        ["text", "header", ..] => "Header text",
        ["text", "footer", ..] | ["footer", ..] => "Footer",
        ["type", "header", ..] => "Header type",
        ["flow_cta", ..] | ["button", "action", ..] | ["title", "reply", ..] => "Button text",
        ["flow_id", ..] => "Flow ID",
        ["flow_token", ..] => "Flow token",
        ["flow_action", ..] => "When the flow opens",
        ["flow_action_data", ..] => "Values for the flow",
        ["flow_message_version", ..] => "Flow message version",
        ["flow_action_payload", ..] => "Start screen",
        ["screen", ..] => "Start screen ID",
        ["data", "flow_action_payload", ..] => "Values for the start screen",
        ["mode", ..] => "Flow mode",
        ["name", "template", ..] => "Template name",
        ["code", "language", ..] | ["language", ..] => "Language",
        ["components", ..] => "Variables of the template",
        ["type", _, "components", ..] => "Part of the template",
        ["parameters", _, "components", ..] => "Variables",
        ["type", _, "parameters", ..] => "Type of value",
        ["sub_type", ..] => "Button type",
        ["index", ..] => "Position of the button, from 0",
        ["parameter_name", ..] => "Variable name",
        ["link", "image", ..] => "Image URL",
        ["link", "video", ..] => "Video URL",
        ["link", "document", ..] => "Document URL",
        ["link", "audio", ..] => "Audio URL",
        ["link", "sticker", ..] => "Sticker URL",
        ["filename", ..] => "File name",
        ["title", _, "rows", ..] => "Option",
        ["title", _, "sections", ..] => "Section title",
        ["id", "reply", ..] | ["id", _, "rows", ..] => "Reply ID",
        ["preview_url", ..] => "Link preview",
        ["link", ..] => "URL",
        ["url" | "cta_url", ..] => "Link",
        ["urls", ..] => "Websites",
        ["org", ..] => "Company",
        ["wa_id", ..] => "WhatsApp ID",
        ["id", ..] => "ID",
        _ => "",
    };
    if known.is_empty() { titled(steps.first().copied().unwrap_or_default()) } else { known.into() }
}

/// Returns what people call a word of the providers' documents.
fn word_label(word: &str) -> String {
    match word {
        "navigate" => "Show the start screen".into(),
        "data_exchange" => "Ask the flow’s endpoint".into(),
        "image" => "Image".into(),
        "location" => "Location".into(),
        _ => titled(word),
    }
}

/// Returns what to do about a required field that is empty.
pub(super) fn missing(pointer: &str) -> String {
    let label = label(pointer);
    let mut letters = label.chars();
    let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    match steps(pointer).as_slice() {
        ["message", ..] => "Choose the message type again: its fields weren’t shown yet.".into(),
        ["account" | "type" | "flow_action" | "sub_type", ..] => {
            format!("Choose the {first}{}.", letters.as_str())
        }
        ["text", _, "parameters", ..] => format!("Enter {first}{}.", letters.as_str()),
        _ => format!("Enter the {first}{}.", letters.as_str()),
    }
}

/// The document that a form was filled in with.
pub(super) struct Filled<'f> {
    /// What was sent, by pointer.
    pub(super) values: &'f HashMap<String, String>,
    /// The item that is to go.
    pub(super) remove: &'f str,
}

impl Filled<'_> {
    /// What stands at a pointer, if anything.
    pub(super) fn value(&self, rule: &Rule, pointer: &str) -> Option<Value> {
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
            // What is no JSON stays a text, and the check says what it should be.
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
                    // One that was added and left as it began is none.
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
        // Nothing but words that can only be one is nothing.
        let says_something = |(name, value): (&String, &Value)| {
            let field = common.iter().chain(object.fields).find(|field| field.name() == name);
            let is_only = matches!(field.map(Field::rule), Some(Rule::Text(Text { one_of: [_], .. })));
            !is_only || value.is_object()
        };
        map.iter().any(says_something).then_some(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::kinds;
    use super::*;
    use crate::campaign::content::CONTENT;
    use crate::campaign::rules::check;

    fn making(errors: &HashMap<String, String>) -> Making<'_> {
        Making { errors, add: "", fixed: &["/message/type", "/message/interactive/type"] }
    }

    fn there_and_back(message: &Value) -> Option<Value> {
        let errors = HashMap::new();
        let form = making(&errors).form(&CONTENT, Some(message), "/message");
        let values = form.values();
        Filled { values: &values, remove: "" }.value(&CONTENT, "/message")
    }

    #[test]
    fn messages_of_every_type_come_back_from_their_form_as_they_were() {
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
    fn what_every_kind_begins_with_has_a_field_for_all_that_is_missing() {
        for kind in kinds() {
            let errors = HashMap::new();
            let form = making(&errors).form(&CONTENT, Some(&kind.message), "/message");
            let values = form.values();
            let empty = values.values().filter(|value| value.is_empty()).count();
            assert!(empty > 0, "{}", kind.name);
        }
    }

    #[test]
    fn a_message_is_completed_with_what_its_kind_requires() {
        for kind in kinds() {
            let mut missing = Vec::new();
            let whole = complete(&CONTENT, Some(&kind.message), "/message", &mut missing);
            let problems = check(&CONTENT, &whole, "/message").problems.into_list();
            assert!(problems.is_empty(), "{}: {problems:?}", kind.name);
            assert!(!missing.is_empty(), "{}", kind.name);
            // What is there stays, and nothing is missing any more.
            let again = complete(&CONTENT, Some(&whole), "/message", &mut Vec::new());
            assert_eq!(again, whole);
        }
        let unknown = serde_json::json!({ "type": "tpye" });
        assert_eq!(complete(&CONTENT, Some(&unknown), "/message", &mut Vec::new()), unknown);
    }

    #[test]
    fn an_item_is_added_where_it_is_asked_for_and_removed_where_it_is_not_wanted() {
        let message = kinds().into_iter().find(|kind| kind.name == "button").unwrap().message;
        let errors = HashMap::new();
        let list = "/message/interactive/action/buttons";
        let making = Making { add: list, ..making(&errors) };
        let form = making.form(&CONTENT, Some(&message), "/message");
        let mut values = form.values();
        assert!(values.contains_key(&format!("{list}/1/reply/title")), "{values:?}");
        for (nth, title) in ["Yes", "No"].into_iter().enumerate() {
            values.insert(format!("{list}/{nth}/reply/title"), title.into());
            values.insert(format!("{list}/{nth}/reply/id"), title.into());
        }
        let remove = format!("{list}/0");
        let left = Filled { values: &values, remove: &remove }.value(&CONTENT, "/message").unwrap();
        let buttons = left.pointer("/interactive/action/buttons").unwrap().as_array().unwrap().clone();
        assert_eq!(buttons.len(), 1);
        assert_eq!(buttons[0]["reply"]["title"], "No");
    }
}
