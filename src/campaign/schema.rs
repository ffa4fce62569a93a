//! Rules as JSON Schema (2020-12), for editors and for other programs.
//!
//! A schema never refuses what its rule accepts, with the exceptions in [`job_schema`]'s description: a test compares
//! the two. Patterns use the subset that all dialects of regular expressions share.
//!
//! [`job_schema`]: super::job::job_schema

use serde_json::{Map, Value, json};

use super::rules::{
    Field, Form, LONGEST_NAME, LONGEST_PARSED, LONGEST_TEXT, Object, PLACEHOLDER, Rule, Spelled, Text,
    WHITE_SPACE,
};
use super::text::titled;

/// Name of the definition of a string with a placeholder.
pub(super) const TEMPLATE: &str = "Placeholder";
/// Name of the definition of any value of a free object.
const ANYTHING: &str = "Anything";

/// Returns an object's rule as JSON Schema. Titles are made of `name`. The schema refers to [`definitions`].
pub fn schema(object: &Object, name: &str) -> Value {
    Writer { may_wait: true }.object(object, &[], None, name)
}

/// Returns the schema of a rule without placeholders.
pub fn fixed_schema(rule: &Rule, name: &str) -> Value {
    Writer { may_wait: false }.rule(rule, name)
}

/// Returns the definitions that schemas refer to, by name.
pub fn definitions() -> Value {
    let anything = reference(ANYTHING);
    json!({
        TEMPLATE: {
            "title": TEMPLATE,
            "description": "A string in Jinja syntax that gives the value for each recipient.",
            "type": "string",
            "maxLength": LONGEST_TEXT,
            "pattern": PLACEHOLDER,
        },
        ANYTHING: {
            "title": ANYTHING,
            "description": "Any value. Its strings may contain placeholders.",
            "maxLength": LONGEST_TEXT,
            "items": anything,
            "propertyNames": { "maxLength": LONGEST_NAME },
            "additionalProperties": anything,
        },
    })
}

fn reference(definition: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{definition}") })
}

#[derive(Clone, Copy)]
struct Writer {
    /// Whether placeholders are allowed here.
    may_wait: bool,
}

impl Writer {
    fn rule(self, rule: &Rule, name: &str) -> Value {
        match rule {
            Rule::Text(text) => self.text(text),
            Rule::Bool => self.or_template(json!({ "type": "boolean" })),
            Rule::Number { range: (least, most) } => {
                let number = json!({ "type": "number", "minimum": least, "maximum": most });
                let digits = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?";
                let pattern = format!("^[{WHITE_SPACE}]*{digits}[{WHITE_SPACE}]*$");
                let mut written = json!({ "type": "string", "maxLength": LONGEST_TEXT, "pattern": pattern });
                if self.may_wait {
                    written["pattern"] = json!(format!("{pattern}|{PLACEHOLDER}"));
                }
                json!({ "anyOf": [number, written] })
            }
            Rule::Integer { range: (1, 1) } => json!({ "const": 1 }),
            Rule::Integer { range: (least, most) } => {
                json!({ "type": "integer", "minimum": least, "maximum": most })
            }
            Rule::Object(object) => self.or_template(self.object(object, &[], None, name)),
            Rule::Choice(choice) => {
                let arm = |(word, object): &(&str, Object)| {
                    self.object(object, choice.common, Some((choice.tag, word)), name)
                };
                json!({ "oneOf": choice.arms.iter().map(arm).collect::<Vec<_>>() })
            }
            Rule::List { of, min, max } => {
                let item = name.strip_suffix('s').unwrap_or(name);
                let mut list = json!({ "type": "array", "items": self.rule(of, item), "minItems": min });
                if *max != usize::MAX {
                    list["maxItems"] = json!(max);
                }
                self.or_template(list)
            }
            Rule::AnyObject { may_be_empty } => self.or_template(json!({
                "type": "object",
                "minProperties": usize::from(!may_be_empty),
                "propertyNames": { "maxLength": LONGEST_NAME },
                "additionalProperties": reference(ANYTHING),
            })),
            Rule::Parsed { spelled, .. } => {
                let mut text = json!({ "type": "string", "maxLength": LONGEST_PARSED });
                match spelled {
                    Spelled::Any => {}
                    Spelled::As(pattern) => text["pattern"] = json!(pattern),
                    Spelled::InAnyCase(words) => text["pattern"] = json!(in_any_case(&words())),
                }
                if self.may_wait {
                    text["not"] = json!({ "pattern": PLACEHOLDER });
                }
                text
            }
            Rule::Fixed(rule) => Self { may_wait: false }.rule(rule, name),
            Rule::Either(first, second) => {
                json!({ "anyOf": [self.rule(first, name), self.rule(second, name)] })
            }
        }
    }

    fn text(self, text: &Text) -> Value {
        if !text.one_of.is_empty() {
            return json!({ "type": "string", "enum": text.one_of });
        }
        let least = usize::from(!text.may_be_empty);
        let mut schema = json!({ "type": "string", "minLength": least, "maxLength": LONGEST_TEXT });
        let mut finished = Map::new();
        if text.max > 0 {
            finished.insert("maxLength".into(), text.max.into());
        }
        if let Some(pattern) = pattern(text.form) {
            finished.insert("pattern".into(), pattern.into());
        }
        if finished.is_empty() {
        } else if self.may_wait {
            // A template may be longer than its rendered text.
            schema["if"] = json!({ "not": { "pattern": PLACEHOLDER } });
            schema["then"] = finished.into();
        } else if let Some(schema) = schema.as_object_mut() {
            schema.extend(finished);
        }
        schema
    }

    /// Returns the schema, or a placeholder whose value fits it.
    fn or_template(self, schema: Value) -> Value {
        if self.may_wait { json!({ "anyOf": [schema, reference(TEMPLATE)] }) } else { schema }
    }

    fn object(self, object: &Object, common: &[Field], tag: Option<(&str, &str)>, name: &str) -> Value {
        let mut properties = Map::new();
        let mut needed = Vec::new();
        let title = match tag {
            Some((tag, word)) => {
                properties.insert(
                    tag.into(),
                    json!({
                        "title": titled(tag), "description": format!("Type of the {}.", spaced(name)),
                        "const": word, "default": word, "examples": [word],
                    }),
                );
                needed.push(tag);
                titled(&format!("{word} {name}"))
            }
            None => titled(name),
        };
        for field in common.iter().chain(object.fields) {
            let mut property = self.rule(&field.rule, field.name);
            property["title"] = json!(titled(field.name));
            property["description"] = json!(field.about);
            property["examples"] = json!([parsed(field.example)]);
            if !field.default.is_empty() {
                property["default"] = parsed(field.default);
            }
            properties.insert(field.name.into(), property);
            if field.required {
                needed.push(field.name);
            }
        }
        let mut schema = json!({
            "title": title, "type": "object", "properties": properties, "required": needed,
            "additionalProperties": false,
        });
        let beyond = if object.also_as_schema.is_empty() { json!({}) } else { parsed(object.also_as_schema) };
        if let (Some(schema), Value::Object(beyond)) = (schema.as_object_mut(), beyond) {
            schema.extend(beyond);
        }
        schema
    }
}

/// Parses a value that a table has as JSON; a test parses them all.
pub(super) fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| json.into())
}

/// Returns a pattern of words in any case.
fn in_any_case(words: &[String]) -> String {
    let letter = |c: char| format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase());
    let words: Vec<String> = words.iter().map(|word| word.chars().map(letter).collect()).collect();
    format!("^({})$", words.join("|"))
}

/// Returns the pattern of a rendered text, if all dialects can express it.
fn pattern(form: Form) -> Option<String> {
    match form {
        // No class of emoji is common to all dialects. The rule of a parameter depends on the job's `whitespace`.
        Form::Any | Form::NoEmoji | Form::Parameter => None,
        Form::Link => Some(super::rules::LINK_PATTERN.into()),
        Form::Trimmed => Some(format!("^([^{WHITE_SPACE}]([\\s\\S]*[^{WHITE_SPACE}])?)?$")),
        Form::Name => Some("^[a-z0-9_]+$".into()),
        Form::Date => Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}$".into()),
        Form::CountryCode => Some("^[A-Za-z]{2}$".into()),
    }
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}
