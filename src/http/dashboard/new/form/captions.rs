//! Captions of fields, list items and choices, as the pages show them. Never decides what a field may hold.

use serde_json::Value;

use super::defaults::steps;
use crate::campaign::text::titled;

/// Returns the caption of a list item.
pub(super) fn item_label(list: &str, nth: usize, item: Option<&Value>) -> String {
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

/// Returns the caption of a field.
pub(in super::super) fn label(pointer: &str) -> String {
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

/// Returns the caption of a word that a select offers.
pub(super) fn word_label(word: &str) -> String {
    match word {
        "navigate" => "Show the start screen".into(),
        "data_exchange" => "Ask the flow’s endpoint".into(),
        "image" => "Image".into(),
        "location" => "Location".into(),
        _ => titled(word),
    }
}

/// Returns the error message of an empty required field.
pub(in super::super) fn missing(pointer: &str) -> String {
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
