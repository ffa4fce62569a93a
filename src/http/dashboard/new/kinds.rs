//! The kinds of messages that have a form, and the starter message of each. The rules of a message are in `campaign::content`.

use serde_json::{Value, json};

/// The kind that is edited as JSON.
pub(super) const JSON: &str = "json";

/// A kind of message.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Caption.
    pub(super) title: &'static str,
    /// When to use it, as a sentence.
    pub(super) about: &'static str,
    /// Starter message, with all required fields empty.
    pub(super) message: Value,
}

/// Returns the kinds, the simplest first.
pub(super) fn kinds() -> Vec<Kind> {
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
    let kind = |name, title, about, message| Kind { name, title, about, message };
    vec![
        kind("text", "Text", "A plain message.", json!({ "type": "text", "text": { "body": "" } })),
        kind(
            "template",
            "Template",
            "A message that WhatsApp has approved. It can start a conversation with anybody who agreed to hear from you.",
            template(json!([parameters])),
        ),
        kind(
            "flow_template",
            "Template with a flow button",
            "A message that WhatsApp has approved, with a button that opens a form inside the chat. It can start a conversation.",
            template(json!([parameters, flow_button])),
        ),
        kind(
            "flow",
            "Flow",
            "A message with a button that opens a form inside the chat: people book, register or answer there.",
            interactive(
                "flow",
                json!({ "name": "flow", "parameters": { "flow_message_version": "3", "flow_token": "",
                    "flow_id": "", "flow_cta": "", "flow_action": "navigate",
                    "flow_action_payload": { "screen": "" } } }),
            ),
        ),
        kind(
            "button",
            "Text with reply buttons",
            "A message with up to three buttons to answer with.",
            interactive(
                "button",
                json!({ "buttons": [{ "type": "reply", "reply": { "id": "", "title": "" } }] }),
            ),
        ),
        kind(
            "list",
            "Text with a list of options",
            "A message with a button that opens a list of up to ten options.",
            interactive(
                "list",
                json!({ "button": "", "sections": [{ "title": "", "rows": [{ "id": "", "title": "" }] }] }),
            ),
        ),
        kind("image", "Image", "An image from a public URL.", media("image")),
        kind("video", "Video", "A video from a public URL.", media("video")),
        kind("document", "Document", "A file from a public URL.", media("document")),
        kind("audio", "Audio", "A recording from a public URL.", media("audio")),
        kind("sticker", "Sticker", "A sticker from a public URL.", media("sticker")),
        kind(
            "location",
            "Location",
            "A place on the map.",
            json!({ "type": "location", "location": { "longitude": "", "latitude": "" } }),
        ),
        kind(
            "contacts",
            "Contact",
            "A contact that people can save.",
            json!({ "type": "contacts", "contacts": [{ "name": { "formatted_name": "", "first_name": "" } }] }),
        ),
    ]
}

/// Returns when to use a kind.
pub(super) fn about(name: &str) -> &'static str {
    let kind = kinds().into_iter().find(|kind| kind.name == name);
    kind.map_or("For engineers: WhatsApp’s own document of the message.", |kind| kind.about)
}

/// Returns whether a kind reaches only people who wrote in the last 24 hours.
pub(super) fn needs_conversation(name: &str) -> bool {
    !name.ends_with("template") && name != JSON
}

/// Returns the kind of a message.
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
    kinds().into_iter().map(|kind| kind.name).find(|name| *name == wanted).unwrap_or(JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_every_starter_message_is_recognised() {
        for kind in kinds() {
            assert_eq!(kind_of(&kind.message), kind.name);
        }
        assert_eq!(kind_of(&json!({})), JSON);
    }
}
