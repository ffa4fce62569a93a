//! Initial values of fields, and the fields that most people never change. Never validates a value.

use serde_json::Value;

use crate::campaign::problem::step;

/// Returns the steps of a pointer, the last first.
pub(super) fn steps(pointer: &str) -> Vec<&str> {
    pointer.rsplit('/').collect()
}

/// Returns whether most people leave a field as it is.
pub(super) fn is_advanced(pointer: &str) -> bool {
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

/// Returns the default of a required field, if it has one.
pub(super) fn default_of(pointer: &str) -> Option<String> {
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

/// Returns whether a value still consists of defaults only.
pub(super) fn is_untouched(value: &Value, pointer: &str) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().all(|(name, value)| name == "type" || is_untouched(value, &step(pointer, name)))
        }
        Value::Array(_) => false,
        value => value.as_str() == default_of(pointer).as_deref(),
    }
}
