//! Shows a message as plain text, as in the chat.

use serde_json::Value;

/// Returns the lines of a rendered message: header, body, footer, then buttons and rows.
///
/// The provider has a template's text, so only its name and values can be shown.
pub fn preview(content: &Value) -> Vec<String> {
    let kind = text(content, "/type");
    let object = &content[kind];
    match kind {
        "text" => text(object, "/body").lines().map(String::from).collect(),
        "interactive" => interactive(object),
        "template" => template(object),
        "location" => vec![format!(
            "[location] {} {} ({}, {})",
            text(object, "/name"),
            text(object, "/address"),
            object["latitude"],
            object["longitude"]
        )],
        "contacts" => object
            .as_array()
            .into_iter()
            .flatten()
            .map(|contact| format!("[contact] {}", text(contact, "/name/formatted_name")))
            .collect(),
        _ => {
            let mut lines = vec![format!("[{kind}] {}", text(object, "/link"))];
            lines.extend(object.pointer("/caption").and_then(Value::as_str).map(String::from));
            lines
        }
    }
}

fn interactive(object: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    match text(object, "/header/type") {
        "" => {}
        "text" => lines.push(format!("*{}*", text(object, "/header/text"))),
        kind => lines.push(format!("[{kind}] {}", text(&object["header"][kind], "/link"))),
    }
    lines.extend(text(object, "/body/text").lines().map(String::from));
    if let Some(footer) = object.pointer("/footer/text").and_then(Value::as_str) {
        lines.push(format!("_{footer}_"));
    }
    let action = &object["action"];
    match text(object, "/type") {
        "flow" => {
            let parameters = &action["parameters"];
            let screen = parameters.pointer("/flow_action_payload/screen").and_then(Value::as_str);
            let opens = screen.map_or_else(|| "data exchange".into(), |screen| format!("screen {screen}"));
            let flow = text(parameters, "/flow_id");
            lines.push(format!("[ {} ]  opens flow {flow}, {opens}", text(parameters, "/flow_cta")));
        }
        "list" => {
            lines.push(format!("[ {} ]", text(action, "/button")));
            for section in action["sections"].as_array().into_iter().flatten() {
                lines.extend(section["title"].as_str().map(|title| format!("  {title}")));
                for row in section["rows"].as_array().into_iter().flatten() {
                    lines.push(format!("  - {} {}", text(row, "/title"), text(row, "/description")));
                }
            }
        }
        _ => {
            let buttons = action["buttons"].as_array().into_iter().flatten();
            lines.extend(buttons.map(|button| format!("[ {} ]", text(button, "/reply/title"))));
        }
    }
    lines
}

fn template(object: &Value) -> Vec<String> {
    let mut lines = vec![format!("template {} ({})", text(object, "/name"), text(object, "/language/code"))];
    for component in object["components"].as_array().into_iter().flatten() {
        let kind = match component["sub_type"].as_str() {
            Some(sub_type) => format!("{sub_type} button"),
            None => text(component, "/type").into(),
        };
        for (place, parameter) in component["parameters"].as_array().into_iter().flatten().enumerate() {
            let value = &parameter[text(parameter, "/type")];
            let value = value.as_str().map_or_else(|| value.to_string(), String::from);
            lines.push(format!("  {kind} {{{{{}}}}} = {value}", place + 1));
        }
    }
    lines
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_flow_message_reads_like_the_chat() {
        let content = json!({ "type": "interactive", "interactive": {
            "type": "flow", "header": { "type": "text", "text": "Book" }, "body": { "text": "Dear Asha,\ncome in" },
            "footer": { "text": "Reply STOP" },
            "action": { "name": "flow", "parameters": { "flow_cta": "Book now", "flow_id": "77",
                "flow_action": "navigate", "flow_action_payload": { "screen": "DATE" } } } } });
        assert_eq!(
            preview(&content),
            ["*Book*", "Dear Asha,", "come in", "_Reply STOP_", "[ Book now ]  opens flow 77, screen DATE"]
        );
    }

    #[test]
    fn a_template_shows_its_values() {
        let content = json!({ "type": "template", "template": { "name": "offer", "language": { "code": "en" },
            "components": [
                { "type": "body", "parameters": [{ "type": "text", "text": "Asha" }] },
                { "type": "button", "sub_type": "flow", "index": "0",
                  "parameters": [{ "type": "action", "action": { "flow_token": "t" } }] }] } });
        assert_eq!(
            preview(&content),
            ["template offer (en)", "  body {{1}} = Asha", "  flow button {{1}} = {\"flow_token\":\"t\"}"]
        );
    }
}
