//! Parses callbacks (documents 001, 003, 004).

use serde_json::Value;

use crate::campaign::codes;
use crate::campaign::delivery::{Delivery, DeliveryReport, DeliveryUpdate, Reply, ReplyContent};
use crate::provider::answer::{short, to_text};
use crate::provider::reports::{
    content as content_of, details, form, given_back, number, reference, time, token,
};

/// Parses one report: a delivery (`dlr`), a reply (`icm`, `incoming_message`), or document 003's flow response.
pub(super) fn report(report: &Value) -> Option<DeliveryReport> {
    let field = |name: &str| report.get(name);
    let word = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default();
    if word("event") == "flow_response" {
        let content = ReplyContent::Flow(form(field("response_json")?)?);
        let sid = to_text(field("message_id"))?;
        return Some(DeliveryReport {
            message: reference(field("flow_token")).or_else(|| token(&content)),
            recipient: number(field("from")),
            sender: None,
            custom_data: None,
            at: time(field("timestamp")),
            // It has no id of its own; a form is identified by its fields.
            update: DeliveryUpdate::Reply(Reply {
                id: format!("flow:{sid}"),
                content,
                details: details(report, None),
            }),
            sid: Some(sid),
        });
    }
    if matches!(word("callback_type"), "icm" | "incoming_message") {
        let content = content_of(field("content")?)?;
        return Some(DeliveryReport {
            message: token(&content),
            recipient: number(field("from")),
            sender: number(field("to")),
            custom_data: None,
            sid: to_text(report.pointer("/content/context/sid")),
            at: time(field("timestamp")),
            update: DeliveryUpdate::Reply(Reply {
                id: to_text(field("sid"))?,
                content,
                details: details(field("content")?, field("profile_name")),
            }),
        });
    }
    // Use the name, because two public tables disagree on the numbers; use document 001's number only without a name.
    let (name, number_) = (word("exo_detailed_status"), to_text(field("exo_status_code")));
    let known = if name.is_empty() { number_.as_deref().and_then(codes::in_report)?.code } else { name };
    let state = match known {
        "EX_MESSAGE_SENT" => Delivery::Sent,
        "EX_MESSAGE_DELIVERED" => Delivery::Delivered,
        "EX_MESSAGE_SEEN" | "EX_MESSAGE_READ" => Delivery::Read,
        other if other.starts_with("EX_") => Delivery::Failed,
        _ => return None,
    };
    let text = [name, word("description")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    Some(DeliveryReport {
        message: reference(field("custom_data")),
        recipient: number(field("to")),
        sender: None,
        custom_data: given_back(field("custom_data")),
        sid: to_text(field("sid")),
        at: time(field("timestamp")),
        update: DeliveryUpdate::Delivery {
            state,
            // Keep the number and the text as received.
            code: number_.or_else(|| Some(known.to_owned())).filter(|_| state == Delivery::Failed),
            text: short(&text.join(": ")),
        },
    })
}
