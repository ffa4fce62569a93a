//! Parses callbacks. The customer names the fields of a status.

use serde_json::{Value, json};

use super::Kaleyra;
use crate::campaign::delivery::{DeliveryReport, DeliveryUpdate, Reply, ReplyContent};
use crate::provider::answer::{short, to_text};
use crate::provider::reports::{
    WORDS, content as content_of, details, form, given_back, is_no_answer, number, reference, state, time,
    token,
};

/// The fields that flowcast reads, with their default names.
pub(super) const CALLBACK_FIELDS: [(&str, &str); 8] = [
    ("ref", "ref"),
    ("custom_data", "ref1"),
    ("id", "message_id"),
    ("status", "status"),
    ("recipient", "recipient"),
    ("at", "timestamp"),
    ("code", "code"),
    ("text", "message"),
];

impl Kaleyra {
    /// Returns a field of a callback, by flowcast's name for it.
    fn field<'r>(&self, report: &'r Value, what: &str) -> Option<&'r Value> {
        let usual = CALLBACK_FIELDS.iter().find(|(known, _)| *known == what).map(|(_, name)| *name);
        let name = self.callback_fields.get(what).map(String::as_str).or(usual)?;
        // A nested field is named by a JSON pointer.
        if name.starts_with('/') { report.pointer(name) } else { report.get(name) }
    }

    /// Returns whether a callback is about a sent message, even with an unknown status: it is not a reply then.
    pub(super) fn has_status(&self, report: &Value) -> bool {
        self.field(report, "status").is_some_and(|status| *status != json!(""))
    }

    pub(super) fn report(&self, report: &Value) -> Option<DeliveryReport> {
        let field = |what: &str| self.field(report, what);
        Some(DeliveryReport {
            message: reference(field("ref")),
            recipient: number(field("recipient")),
            sender: None,
            custom_data: given_back(field("custom_data")),
            sid: to_text(field("id")),
            at: time(field("at")),
            update: DeliveryUpdate::Delivery {
                state: state(field("status")?.as_str()?)?,
                code: to_text(field("code")),
                text: field("text").and_then(Value::as_str).map(short).unwrap_or_default(),
            },
        })
    }
}

/// Parses a reply from the profile of incoming messages, with its placeholders under their own names.
pub(super) fn incoming(report: &Value) -> Option<DeliveryReport> {
    let field = |name: &str| report.get(name).filter(|value| **value != json!(""));
    let text = |name: &str| field(name).and_then(Value::as_str);
    let recipient = number(field("from")).or_else(|| number(field("mobile")))?;
    if is_no_answer(field("type")) {
        return None;
    }
    let message = text("message").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let message = message.as_ref().or(field("message")).filter(|message| message.is_object());
    let content = if let Some(fields) = field("custom_response").and_then(form) {
        ReplyContent::Flow(fields)
    } else if let Some(words) = text("body") {
        ReplyContent::Text(words.chars().take(WORDS).collect())
    } else if let Some(message) = message {
        content_of(message)?
    } else {
        ReplyContent::Other(text("type")?.into())
    };
    Some(DeliveryReport {
        message: token(&content),
        recipient: Some(recipient),
        sender: number(field("wanumber")),
        custom_data: None,
        sid: to_text(field("reply_to")),
        at: time(field("created_at")),
        // It has no id of its own: a repeated callback is identical.
        update: DeliveryUpdate::Reply(Reply {
            id: blake3::hash(report.to_string().as_bytes()).to_hex()[..32].into(),
            content,
            details: details(message.unwrap_or(report), field("name")),
        }),
    })
}
