//! Meta's Cloud API.

use axum::{http::HeaderMap, response::Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{
    Api, Error, Event, Message, Subject, flow_token, form, gateway_error, json_response, number,
};
use super::rules::{self, Dialect};
use crate::campaign::codes::{self, Source};
use crate::campaign::problem::json_error;

pub(super) struct Meta;

/// The codes whose status is not 400.
const STATUSES: [(&str, u16); 12] = [
    ("0", 401),
    ("1", 500),
    ("2", 503),
    ("3", 500),
    ("10", 403),
    ("190", 401),
    ("368", 403),
    ("131000", 500),
    ("131005", 403),
    ("131031", 403),
    ("132001", 404),
    ("133004", 503),
];
/// Maximum length of the reference, in characters.
const OPAQUE: usize = 512;

impl Api for Meta {
    const PATHS: &'static [&'static str] =
        &["/{phone_number_id}/messages", "/{version}/{phone_number_id}/messages"];
    const UNAUTHORIZED: &'static str = "190";
    const BROKEN: &'static [&'static str] = &["131000", "2"];
    const REFUSALS: &'static [&'static str] = &["131026", "131049", "131050"];

    fn is_authorized(headers: &HeaderMap) -> bool {
        let token = || headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ");
        token().is_some_and(|token| !token.is_empty())
    }

    fn read(_: &[String], body: &[u8]) -> Result<Vec<Message>, String> {
        let message: Value = serde_json::from_slice(body).map_err(|fault| json_error(&fault))?;
        if message["messaging_product"] != "whatsapp" {
            return Err("messaging_product must be \"whatsapp\"".into());
        }
        let to = number(message.get("to"), "to")?;
        rules::content(&message, "", BESIDE, Dialect::Meta)?;
        let reference = message["biz_opaque_callback_data"].as_str();
        if reference.is_some_and(|text| text.chars().count() > OPAQUE) {
            return Err(format!("biz_opaque_callback_data is longer than {OPAQUE} characters"));
        }
        let (reference, flow_token) = (reference.map(str::to_owned), flow_token(&message));
        Ok(vec![Message { to, from: None, flow_token, reference, status_callback: None }])
    }

    /// Ids are as long as Meta's.
    fn id(unique: &str) -> String {
        format!("wamid.{}", BASE64_STANDARD.encode(format!("{unique}0123456789")))
    }

    fn answer(messages: &[Result<String, String>]) -> Response {
        match messages.first() {
            Some(Ok(id)) => json_response(
                200,
                &json!({ "messaging_product": "whatsapp", "contacts": [],
                    "messages": [{ "id": id, "message_status": "accepted" }] }),
            ),
            Some(Err(code)) => refused(code, ""),
            None => refused("100", "no message"),
        }
    }

    fn error(code: &str) -> Option<Error> {
        let is_known = code == "429" || codes::lookup(Source::Meta, code).is_some();
        gateway_error(code).or_else(|| is_known.then(|| Error::Whole(refused(code, ""))))
    }

    fn report(event: Event, of: &Subject, at: Timestamp) -> Value {
        let (number, at) = (of.to.trim_start_matches('+'), at.as_second().to_string());
        let status = |status: &str, errors: Value| {
            json!({ "statuses": [{ "id": of.sid, "status": status, "timestamp": at, "recipient_id": number,
                "biz_opaque_callback_data": of.reference, "errors": errors }] })
        };
        let value = match event {
            Event::Sent => status("sent", json!([])),
            Event::Delivered => status("delivered", json!([])),
            Event::Read => status("read", json!([])),
            Event::Failed => status("failed", json!([{ "code": 131_026, "title": "Message undeliverable" }])),
            Event::Replied => json!({ "messages": [{ "from": number, "id": format!("r-{}", of.sid),
                "timestamp": at, "type": "interactive", "context": { "id": of.sid },
                "interactive": { "type": "nfm_reply", "nfm_reply": { "response_json": form(of) } } }] }),
        };
        json!({ "object": "whatsapp_business_account", "entry": [{ "id": "sandbox",
            "changes": [{ "field": "messages", "value": value }] }] })
    }

    fn malformed(why: &str) -> Response {
        refused("100", why)
    }

    fn limited(_: u64) -> Response {
        refused("130429", "")
    }
}

/// Fields beside the content.
const BESIDE: &[&str] = &["messaging_product", "to", "biz_opaque_callback_data"];

fn refused(code: &str, why: &str) -> Response {
    // Meta has no such number; it is used for the rate limit.
    let code = if code == "429" { "130429" } else { code };
    let status = STATUSES.iter().find(|(known, _)| *known == code).map_or(400, |(_, status)| *status);
    let known = codes::lookup(Source::Meta, code);
    let title = known.map_or("Error", |code| code.also);
    let details = if why.is_empty() { known.map_or("", |code| code.meaning) } else { why };
    let number: u32 = code.parse().unwrap_or_default();
    json_response(
        status,
        &json!({ "error": { "message": format!("(#{number}) {title}"), "type": "OAuthException", "code": number,
            "error_data": { "messaging_product": "whatsapp", "details": details }, "fbtrace_id": "sandbox" } }),
    )
}
