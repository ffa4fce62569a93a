//! What a message may be, and what a form for it begins with.

use serde_json::{Value, json};

/// The kind that is written by hand.
pub(super) const JSON: &str = "json";

/// The kinds: a name, what people call it, and a message of it with everything still to be filled in.
pub(super) fn kinds() -> Vec<(&'static str, &'static str, Value)> {
    let interactive = |kind: &str, action: Value| {
        json!({ "type": "interactive",
            "interactive": { "type": kind, "body": { "text": "" }, "action": action } })
    };
    let media = |kind: &str| json!({ "type": kind, kind: { "link": "" } });
    let flow_button = json!({ "type": "button", "sub_type": "flow", "index": "0",
        "parameters": [{ "type": "action", "action": { "flow_token": "" } }] });
    let template = |components: Value| {
        json!({ "type": "template",
            "template": { "name": "", "language": { "code": "en" }, "components": components } })
    };
    let parameters = json!({ "type": "body", "parameters": [{ "type": "text", "text": "" }] });
    vec![
        (
            "flow",
            "Flow: a form inside the chat",
            interactive(
                "flow",
                json!({ "name": "flow", "parameters": { "flow_message_version": "3", "flow_token": "",
                    "flow_id": "", "flow_cta": "", "flow_action": "navigate",
                    "flow_action_payload": { "screen": "" } } }),
            ),
        ),
        ("flow_template", "Template with a flow button", template(json!([parameters, flow_button]))),
        ("template", "Template", template(json!([parameters]))),
        ("text", "Text", json!({ "type": "text", "text": { "body": "" } })),
        (
            "button",
            "Text with reply buttons",
            interactive(
                "button",
                json!({ "buttons": [{ "type": "reply", "reply": { "id": "", "title": "" } }] }),
            ),
        ),
        (
            "list",
            "Text with a list to choose from",
            interactive(
                "list",
                json!({ "button": "", "sections": [{ "title": "", "rows": [{ "id": "", "title": "" }] }] }),
            ),
        ),
        ("image", "Picture", media("image")),
        ("video", "Video", media("video")),
        ("document", "Document", media("document")),
        ("audio", "Audio", media("audio")),
        ("sticker", "Sticker", media("sticker")),
        ("location", "Place", json!({ "type": "location", "location": { "longitude": "", "latitude": "" } })),
        (
            "contacts",
            "Contact",
            json!({ "type": "contacts", "contacts": [{ "name": { "formatted_name": "", "first_name": "" } }] }),
        ),
    ]
}

/// The kind that a message is.
pub(super) fn kind_of(message: &Value) -> &'static str {
    let kind = message["type"].as_str().unwrap_or_default();
    let wanted = match kind {
        "interactive" => message["interactive"]["type"].as_str().unwrap_or_default(),
        "template" => {
            let components = message["template"]["components"].as_array();
            let has_flow = components.is_some_and(|all| all.iter().any(|one| one["sub_type"] == "flow"));
            if has_flow { "flow_template" } else { "template" }
        }
        kind => kind,
    };
    kinds().into_iter().map(|(name, ..)| name).find(|name| *name == wanted).unwrap_or(JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_message() {
        for (name, _, message) in kinds() {
            assert_eq!(kind_of(&message), name);
        }
        assert_eq!(kind_of(&json!({})), JSON);
    }
}
