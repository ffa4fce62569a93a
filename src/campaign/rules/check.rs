//! Checks a value against its rule.

use serde_json::{Map, Value};

use super::{
    Authority, Choice, Field, Form, LONGEST_NAME, LONGEST_PARSED, LONGEST_TEXT, Limit, Object, Rule, Text,
    Whitespace, exceeds, is_template,
};
use crate::campaign::problem::{Problem, Problems, nearest, quoted, step};
use crate::campaign::text::thousands;

/// The result of a check.
#[derive(Default)]
pub struct Findings {
    /// The problems.
    pub problems: Problems,
    /// The limits of strings with placeholders, by pointer.
    pub limits: Vec<(String, Limit)>,
    /// Whether a rule other than a string's limit can only be checked on the rendered value.
    pub check_rendered: bool,
    /// Whether the value is already rendered: then braces have no meaning.
    rendered: bool,
}

impl Findings {
    /// Reports a problem.
    pub fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        self.problems.add(Problem::new(pointer, message));
    }

    /// Returns whether `text` depends on a recipient's values.
    pub fn waits(&self, text: &str) -> bool {
        !self.rendered && is_template(text)
    }
}

/// Checks a value that may have placeholders.
pub fn check(rule: &Rule, value: &Value, pointer: &str) -> Findings {
    let mut findings = Findings::default();
    walk(rule, value, pointer, &mut findings);
    findings
}

/// Checks a rendered value.
pub fn check_rendered(rule: &Rule, value: &Value, pointer: &str) -> Vec<Problem> {
    let mut findings = Findings { rendered: true, ..Findings::default() };
    walk(rule, value, pointer, &mut findings);
    findings.problems.into_list()
}

fn walk(rule: &Rule, value: &Value, pointer: &str, findings: &mut Findings) {
    if let Rule::Fixed(rule) = rule {
        let rendered = std::mem::replace(&mut findings.rendered, true);
        walk(rule, value, pointer, findings);
        findings.rendered = rendered;
        return;
    }
    if let Value::String(text) = value
        && findings.waits(text)
    {
        has_length(text, LONGEST_TEXT, pointer, findings);
        return walk_template(rule, pointer, findings);
    }
    match (rule, value) {
        (Rule::Text(rule), Value::String(text)) => {
            if let Some(problem) = rule.problem(text, pointer) {
                findings.problems.add(problem);
            }
        }
        (Rule::Bool, Value::Bool(_)) => {}
        (Rule::Number { range }, Value::Number(_) | Value::String(_)) => {
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            if !number.is_some_and(|n| n >= range.0 && n <= range.1) {
                findings.problem(pointer, format!("must be a number from {} to {}", range.0, range.1));
            }
        }
        (Rule::Integer { range }, Value::Number(number)) => {
            if !number.as_u64().is_some_and(|n| n >= range.0 && n <= range.1) {
                findings.problem(pointer, format!("must be a whole number from {} to {}", range.0, range.1));
            }
        }
        (Rule::Object(rule), Value::Object(map)) => walk_object(rule, &[], None, map, pointer, findings),
        (Rule::Choice(choice), Value::Object(map)) => walk_choice(choice, map, pointer, findings),
        (Rule::List { of, min, max }, Value::Array(items)) => {
            if items.len() < *min || items.len() > *max {
                findings.problem(pointer, format!("has {} items; {}", items.len(), allowed(*min, *max)));
            }
            for (index, item) in items.iter().enumerate() {
                walk(of, item, &step(pointer, &index.to_string()), findings);
            }
        }
        (Rule::AnyObject { may_be_empty }, Value::Object(map)) => {
            if map.is_empty() && !may_be_empty {
                findings.problem(pointer, "must be a non-empty object, or be omitted");
            }
            walk_any_object(map, pointer, findings);
        }
        (Rule::Parsed { .. }, Value::String(text)) if text.len() > LONGEST_PARSED => {
            let (length, most) = (thousands(text.len() as u64), thousands(LONGEST_PARSED as u64));
            findings.problem(pointer, format!("is {length} bytes long; flowcast allows {most}"));
        }
        (Rule::Parsed { check, .. }, Value::String(text)) => {
            if let Err(error) = check(text) {
                findings.problem(pointer, error);
            }
        }
        (Rule::Either(first, _), value) if fits(first, value) => walk(first, value, pointer, findings),
        (Rule::Either(_, second), value) if fits(second, value) => walk(second, value, pointer, findings),
        (Rule::Parsed { about, .. }, _) => {
            findings.problem(pointer, format!("must be a text, not {}: {about}", kind(value)));
        }
        _ => findings.problem(pointer, format!("must be {}, not {}", kind_of_rule(rule), kind(value))),
    }
}

/// Checks whether a string with a placeholder is allowed by `rule`.
fn walk_template(rule: &Rule, pointer: &str, findings: &mut Findings) {
    match rule {
        Rule::Text(rule) if rule.one_of.is_empty() => {
            let whitespace = (rule.form == Form::Parameter).then(Whitespace::default);
            let Text { max, may_be_empty, source, .. } = *rule;
            findings
                .limits
                .push((pointer.into(), Limit { max, may_be_empty, source, is_text: true, whitespace }));
            findings.check_rendered |= !matches!(rule.form, Form::Any | Form::Parameter);
        }
        Rule::Bool | Rule::Number { .. } | Rule::Object(_) | Rule::List { .. } | Rule::AnyObject { .. } => {
            findings.check_rendered = true;
        }
        Rule::Fixed(rule) => walk_template(rule, pointer, findings),
        Rule::Either(first, second) => {
            let of = if matches!(first, Rule::Text(_)) { first } else { second };
            walk_template(of, pointer, findings);
        }
        Rule::Text(_) | Rule::Parsed { .. } | Rule::Integer { .. } | Rule::Choice(_) => {
            findings
                .problem(pointer, "must be the same for every recipient, so it cannot contain a placeholder");
        }
    }
}

/// Reports a string that is too long.
fn has_length(text: &str, most: usize, pointer: &str, findings: &mut Findings) {
    // A string has at most as many characters as bytes.
    if text.len() > most && text.chars().count() > most {
        findings.problems.add(exceeds(pointer, text.chars().count(), most, Authority::Flowcast));
    }
}

/// Checks a free-form object: only the lengths of its names and values, and their placeholders.
fn walk_any_object(map: &Map<String, Value>, pointer: &str, findings: &mut Findings) {
    for (key, value) in map {
        let place = step(pointer, key);
        if key.len() > LONGEST_NAME && key.chars().count() > LONGEST_NAME {
            let most = LONGEST_NAME;
            findings.problem(&place, format!("its name has more than {most} characters"));
        }
        walk_any(value, &place, findings);
    }
}

fn walk_any(value: &Value, pointer: &str, findings: &mut Findings) {
    if let Value::String(text) = value {
        has_length(text, LONGEST_TEXT, pointer, findings);
    }
    match value {
        Value::String(text) if findings.waits(text) => {
            findings.limits.push((pointer.into(), Limit::FREE));
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, item)| walk_any(item, &step(pointer, &index.to_string()), findings)),
        Value::Object(map) => walk_any_object(map, pointer, findings),
        _ => {}
    }
}

fn walk_object(
    object: &Object,
    common: &'static [Field],
    tag: Option<&str>,
    map: &Map<String, Value>,
    pointer: &str,
    findings: &mut Findings,
) {
    let before = findings.problems.count();
    let fields = || common.iter().chain(object.fields);
    for (key, value) in map {
        if Some(key.as_str()) == tag {
            continue;
        }
        let place = step(pointer, key);
        if let Some(field) = fields().find(|field| field.name == key) {
            walk(&field.rule, value, &place, findings);
        } else {
            let elsewhere = object.elsewhere.iter().find(|(name, _)| name == key);
            let near = || nearest(key, fields().map(|field| field.name).chain(tag));
            let why = elsewhere.map_or_else(|| format!("unknown field{}", near()), |(_, why)| (*why).into());
            findings.problem(&place, why);
        }
    }
    for field in fields() {
        if field.required && !map.contains_key(field.name) {
            findings.problems.add(Problem::missing(pointer, field.name, ""));
        }
    }
    if findings.problems.count() == before {
        (object.also)(map, findings, pointer);
    }
}

fn walk_choice(choice: &Choice, map: &Map<String, Value>, pointer: &str, findings: &mut Findings) {
    let tag = choice.tag;
    let words = || choice.arms.iter().map(|(word, _)| *word);
    let place = step(pointer, tag);
    match map.get(tag) {
        Some(Value::String(word)) => match choice.arms.iter().find(|(name, _)| name == word) {
            Some((_, arm)) => walk_object(arm, choice.common, Some(tag), map, pointer, findings),
            None => {
                findings.problem(&place, format!("{} is unknown{}", quoted(word), nearest(word, words())));
            }
        },
        Some(other) => findings.problem(&place, format!("must be a text, not {}", kind(other))),
        None => {
            let known = words().collect::<Vec<_>>().join(", ");
            findings.problems.add(Problem::missing(pointer, tag, &format!("; use one of {known}")));
        }
    }
}

fn allowed(min: usize, max: usize) -> String {
    if max == usize::MAX {
        format!("at least {min} are needed")
    } else {
        format!("{min} to {max} are allowed")
    }
}

fn fits(rule: &Rule, value: &Value) -> bool {
    match rule {
        Rule::Text(_) | Rule::Parsed { .. } => value.is_string(),
        Rule::Bool => value.is_boolean(),
        Rule::Number { .. } | Rule::Integer { .. } => value.is_number(),
        Rule::Object(_) | Rule::Choice(_) | Rule::AnyObject { .. } => value.is_object(),
        Rule::List { .. } => value.is_array(),
        Rule::Fixed(rule) => fits(rule, value),
        Rule::Either(first, second) => fits(first, value) || fits(second, value),
    }
}

fn kind_of_rule(rule: &Rule) -> String {
    match rule {
        Rule::Text(_) | Rule::Parsed { .. } => "a text".into(),
        Rule::Bool => "true or false".into(),
        Rule::Number { .. } => "a number".into(),
        Rule::Integer { .. } => "a whole number".into(),
        Rule::Object(_) | Rule::Choice(_) | Rule::AnyObject { .. } => "an object".into(),
        Rule::List { .. } => "a list".into(),
        Rule::Fixed(rule) => kind_of_rule(rule),
        Rule::Either(first, second) => format!("{} or {}", kind_of_rule(first), kind_of_rule(second)),
    }
}

/// Returns the kind of a value, for an error.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
