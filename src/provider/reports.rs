//! Shared parsers for callbacks: Meta's format, replies, times, phone numbers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::{short, to_text};
use crate::campaign::delivery::{DETAILS, Delivery, DeliveryReport, DeliveryUpdate, Reply, ReplyContent};
use crate::campaign::{MessageRef, Phone, PhoneParser};

/// Maximum number of characters of a reply that are stored.
pub(super) const WORDS: usize = 4096;

/// Parses a time with an offset, or seconds since 1970, as milliseconds.
pub(super) fn time(value: Option<&Value>) -> Option<i64> {
    let text = to_text(value)?;
    if let Ok(seconds) = text.parse::<i64>() {
        // A number with more digits is in milliseconds.
        return if seconds.abs() < 100_000_000_000 { seconds.checked_mul(1000) } else { Some(seconds) };
    }
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Reads a number in international form, with or without its plus.
pub(super) fn number(value: Option<&Value>) -> Option<Phone> {
    let text = to_text(value)?;
    let is_digits = text.starts_with(|first: char| first.is_ascii_digit() && first != '0');
    PhoneParser::listed(&if is_digits { format!("+{text}") } else { text }).ok()
}

/// Parses the message reference at the start of a text.
pub(super) fn given_back(value: Option<&Value>) -> Option<String> {
    /// Maximum length of a text, in bytes: more than a job's `custom_data` can have.
    const MAX_BYTES: usize = 32 * 1024;
    value?.as_str().filter(|text| text.len() <= MAX_BYTES).map(str::to_owned)
}

/// Parses a message reference.
pub(super) fn reference(value: Option<&Value>) -> Option<MessageRef> {
    value?.as_str()?.split(' ').next()?.parse().ok()
}

/// Parses a delivery state, in Meta's words and in those of others.
pub(super) fn state(word: &str) -> Option<Delivery> {
    match word.to_lowercase().as_str() {
        "sent" | "submitted" | "accepted" | "enroute" => Some(Delivery::Sent),
        "delivered" => Some(Delivery::Delivered),
        "read" | "seen" | "played" => Some(Delivery::Read),
        "failed" | "undelivered" | "rejected" | "expired" | "error" | "not-sent" | "not_sent" => {
            Some(Delivery::Failed)
        }
        _ => None,
    }
}

/// Returns a reply's text as it is stored.
fn words(text: &str) -> String {
    text.chars().take(WORDS).collect()
}

/// Types of incoming messages that are not replies: a reaction, content that `WhatsApp` cannot show, and system
/// messages, e.g. about a changed number.
const NO_ANSWERS: [&str; 6] =
    ["reaction", "unsupported", "unknown", "system", "ephemeral", "request_welcome"];

/// Parses an incoming message in Meta's format, which the providers forward; `None` if it is not a reply.
pub(super) fn content(message: &Value) -> Option<ReplyContent> {
    if is_no_answer(message.get("type")) {
        return None;
    }
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).map(words);
    let answer = message.pointer("/interactive/nfm_reply/response_json").and_then(form);
    if let Some(form) = answer {
        return Some(ReplyContent::Flow(form));
    }
    let said =
        ["/text/body", "/button/text", "/interactive/button_reply/title", "/interactive/list_reply/title"]
            .iter()
            .find_map(|pointer| text(pointer));
    let kind = || words(message["type"].as_str().unwrap_or("unknown"));
    Some(said.map_or_else(|| ReplyContent::Other(kind()), ReplyContent::Text))
}

/// Returns whether a message of this type is not a reply.
pub(super) fn is_no_answer(kind: Option<&Value>) -> bool {
    kind.and_then(Value::as_str).is_some_and(|kind| NO_ANSWERS.contains(&kind))
}

/// Parses the details of a reply in Meta's format, which the providers forward; `profile` is the person's name.
pub(super) fn details(message: &Value, profile: Option<&Value>) -> BTreeMap<String, String> {
    let reply = |name: &str| message.pointer(&format!("/interactive/nfm_reply/{name}"));
    let places = [profile, message.get("flow_id"), reply("body"), reply("name")];
    let named = DETAILS.iter().zip(places).filter_map(|(name, value)| Some((*name, value?.as_str()?)));
    named.filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), words(text))).collect()
}

/// Returns the name of the person who sent a message in Meta's webhook.
fn profile<'v>(value: &'v Value, message: &Value) -> Option<&'v Value> {
    let mut contacts = value["contacts"].as_array()?.iter();
    contacts.find(|contact| contact["wa_id"] == message["from"])?.pointer("/profile/name")
}

/// Parses a form's fields: an object, or a JSON text with one.
pub(super) fn form(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(fields) => Some(fields.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// Parses the message reference in a form's token, if the job put it there.
pub(super) fn token(content: &ReplyContent) -> Option<MessageRef> {
    match content {
        ReplyContent::Flow(fields) => reference(fields.get("flow_token")),
        _ => None,
    }
}

/// Parses Meta's webhook: the statuses and messages of all entries and changes.
pub(super) fn of_meta(body: &Value) -> Vec<DeliveryReport> {
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let changes = list(body, "entry").into_iter().flat_map(|entry| list(&entry, "changes"));
    let mut reports = Vec::new();
    for value in changes.map(|change| change["value"].clone()) {
        reports.extend(list(&value, "statuses").iter().filter_map(status));
        for message in list(&value, "messages") {
            let Some((id, content)) = to_text(message.get("id")).zip(content(&message)) else { continue };
            reports.push(DeliveryReport {
                message: token(&content),
                recipient: number(message.get("from")),
                sender: number(value.pointer("/metadata/display_phone_number")),
                custom_data: None,
                sid: to_text(message.pointer("/context/id")),
                at: time(message.get("timestamp")),
                update: DeliveryUpdate::Reply(Reply {
                    id,
                    details: details(&message, profile(&value, &message)),
                    content,
                }),
            });
        }
    }
    reports
}

fn status(status: &Value) -> Option<DeliveryReport> {
    let error = |pointer: &str| status.pointer(pointer);
    let text = |pointer: &str| error(pointer).and_then(Value::as_str).unwrap_or_default();
    let text = match (text("/errors/0/title"), text("/errors/0/error_data/details")) {
        (one, "") | ("", one) => short(one),
        (title, details) => short(&format!("{title}: {details}")),
    };
    Some(DeliveryReport {
        message: reference(status.get("biz_opaque_callback_data")),
        recipient: number(status.get("recipient_id")),
        sender: None,
        // It follows the message reference.
        custom_data: given_back(status.get("biz_opaque_callback_data"))
            .and_then(|both| both.split_once(' ').map(|(_, own)| own.to_owned())),
        sid: to_text(status.get("id")),
        at: time(status.get("timestamp")),
        update: DeliveryUpdate::Delivery {
            state: state(status["status"].as_str()?)?,
            code: to_text(error("/errors/0/code")),
            text,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_read_with_or_without_its_plus_and_an_id_is_not_a_number() {
        let read = |text: &str| number(Some(&text.into())).map(|phone| phone.to_string());
        for text in
            ["919876543210", "+919876543210", "+91 98765 43210", "00919876543210", "whatsapp:+919876543210"]
        {
            assert_eq!(read(text).as_deref(), Some("+919876543210"), "{text}");
        }
        for id in ["IN.919876543210", "", "x", "12", "9198765432101234567"] {
            assert_eq!(read(id), None, "{id}");
        }
    }

    #[test]
    fn times_are_read_with_offsets_and_as_seconds() {
        assert_eq!(time(Some(&json!("2022-12-07T17:00:00.000+05:30"))), Some(1_670_412_600_000));
        assert_eq!(time(Some(&json!("2023-10-21T12:35:00+05:30"))), Some(1_697_871_900_000));
        assert_eq!(time(Some(&json!("1670412600"))), Some(1_670_412_600_000));
        assert_eq!(time(Some(&json!(1_670_412_600_123_i64))), Some(1_670_412_600_123));
        assert_eq!((time(Some(&json!("yesterday"))), time(None)), (None, None));
    }

    #[test]
    fn metas_webhook_is_read() {
        let body = json!({ "object": "whatsapp_business_account", "entry": [{ "changes": [{ "value": {
            "statuses": [
                { "id": "wamid.1", "status": "delivered", "timestamp": "1670412600", "recipient_id": "919876543210",
                  "biz_opaque_callback_data": "c1.7.3 order-9" },
                { "id": "wamid.2", "status": "failed", "timestamp": "1670412600", "recipient_id": "919876543211",
                  "errors": [{ "code": 131_026, "title": "Message undeliverable", "error_data": { "details": "why" } }] },
                { "id": "wamid.3", "status": "warmed up" },
            ],
            "messages": [{ "from": "919876543210", "id": "wamid.9", "timestamp": "1670412700", "type": "interactive",
                "context": { "id": "wamid.1" },
                "interactive": { "type": "nfm_reply", "nfm_reply": { "response_json": "{\"flow_token\":\"c1.7.3\",\"name\":\"Asha\"}" } } }],
        } }] }] });
        let reports = of_meta(&body);
        assert_eq!(reports.len(), 3);
        assert_eq!(reports[0].message.as_ref().unwrap().to_string(), "c1.7.3");
        assert!(
            matches!(&reports[1].update, DeliveryUpdate::Delivery { state: Delivery::Failed, code, text }
            if code.as_deref() == Some("131026") && text == "Message undeliverable: why")
        );
        assert_eq!(reports[2].message.as_ref().unwrap().to_string(), "c1.7.3");
        assert!(
            matches!(&reports[2].update, DeliveryUpdate::Reply(reply) if matches!(&reply.content, ReplyContent::Flow(_)))
        );
    }
}
