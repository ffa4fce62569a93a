//! Rules as JSON Schema, for editors and for other programs.

use serde_json::{Map, Value, json};

use super::rules::{Field, Object, Rule};

/// The rule as JSON Schema (2020-12). Where a placeholder may stand, a string is allowed as well.
pub fn schema(rule: &Rule) -> Value {
    match rule {
        Rule::Text(text) => {
            let mut schema = json!({ "type": "string" });
            if !text.one_of.is_empty() {
                schema["enum"] = json!(text.one_of);
            } else if text.max > 0 {
                // No maxLength: a template may be longer than what it renders to.
                schema["description"] =
                    json!(format!("at most {} characters{}", text.max, text.source.named()));
            }
            schema
        }
        Rule::Bool => json!({ "type": ["boolean", "string"] }),
        Rule::Number { .. } => json!({ "type": ["number", "string"] }),
        Rule::Integer { range } => json!({ "type": "integer", "minimum": range.0, "maximum": range.1 }),
        Rule::Object(object) => object_schema(object, &[], None),
        Rule::Choice(choice) => {
            let arm = |(word, object): &(&str, Object)| {
                object_schema(object, choice.common, Some((choice.tag, word)))
            };
            json!({ "oneOf": choice.arms.iter().map(arm).collect::<Vec<_>>() })
        }
        Rule::List { of, min, max } => {
            let mut list = json!({ "type": "array", "items": schema(of), "minItems": min });
            if *max != usize::MAX {
                list["maxItems"] = json!(max);
            }
            list
        }
        Rule::AnyObject { may_be_empty } => {
            json!({ "type": "object", "minProperties": usize::from(!may_be_empty) })
        }
        Rule::Parsed { about, .. } => json!({ "type": "string", "description": about }),
        Rule::Fixed(rule) => schema(rule),
        Rule::Either(first, second) => json!({ "anyOf": [schema(first), schema(second)] }),
    }
}

fn object_schema(object: &Object, common: &[Field], tag: Option<(&str, &str)>) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    if let Some((tag, word)) = tag {
        properties.insert(tag.into(), json!({ "const": word }));
        needed.push(tag);
    }
    for field in common.iter().chain(object.fields) {
        properties.insert(field.name.into(), schema(&field.rule));
        if field.required {
            needed.push(field.name);
        }
    }
    json!({ "type": "object", "properties": properties, "required": needed, "additionalProperties": false })
}
