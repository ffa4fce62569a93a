//! The JSON Schema of the configuration, for editors.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};

use super::{Config, Time};
use crate::campaign::{EventName, rules::LINK_PATTERN, text::titled};
use crate::provider::PROVIDERS;

/// Returns the JSON Schema of a configuration (2020-12).
///
/// It allows everything that [`Config::load`] accepts in a file.
pub fn config_schema() -> Value {
    let mut schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>().to_value();
    settle(&mut schema);
    schema["$id"] = json!("urn:flowcast:schema:config:1");
    schema["title"] = json!("Configuration");
    schema["description"] = json!("The configuration of flowcast: `flowcast.toml`.");
    schema
}

/// Adds titles, and removes `null`, which TOML does not have.
fn settle(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            property["title"] = json!(titled(name));
        }
    }
    if schema.get("default").is_some_and(Value::is_null)
        && let Some(schema) = schema.as_object_mut()
    {
        schema.shift_remove("default");
    }
    if let Some(kinds) = schema.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(arms) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        arms.retain(|arm| arm["type"] != "null");
        if let ([Value::Object(only)], Some(_)) = (arms.as_slice(), arms.first()) {
            let only = only.clone();
            if let Some(schema) = schema.as_object_mut() {
                schema.shift_remove("anyOf");
                schema.extend(only);
            }
        }
    }
    match schema {
        Value::Object(map) => map.values_mut().for_each(settle),
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}

pub(super) fn providers(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = PROVIDERS.iter().map(|kind| kind.name).collect();
    json_schema!({ "type": "string", "enum": names })
}

/// Returns the schema of a whole number, also as a text.
fn whole_number(least: u32, most: u32) -> Schema {
    json_schema!({ "anyOf": [
        { "type": "integer", "minimum": least, "maximum": most },
        { "type": "string", "pattern": r"^\s*\+?[0-9]+\s*$" },
    ] })
}

pub(super) fn replicas(_: &mut SchemaGenerator) -> Schema {
    whole_number(0, u32::MAX)
}

pub(super) fn concurrency(_: &mut SchemaGenerator) -> Schema {
    whole_number(1, u16::MAX.into())
}

pub(super) fn answers_within(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "const": "0s" }, { "type": "string", "pattern": Time::PATTERN }] })
}

pub(super) fn event_patterns(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": EventName::patterns() } })
}

pub(super) fn web_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": LINK_PATTERN })
}
