//! Exotel's interface (documents 000 and 001).

use axum::{http::HeaderMap, response::Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{
    Api, Error, Event, Message, Subject, check_fields, flow_token, form, gateway_error, json_response, number,
};
use super::rules::{self, Dialect};
use crate::campaign::{codes, problem::json_error};

pub(super) struct Exotel;

/// Texts of the HTTP statuses of document 001.
const STATUSES: [(&str, u16, &str); 7] = [
    ("400", 400, "Something in your header or request body was malformed or missing"),
    ("401", 401, "Necessary credentials were either missing or invalid"),
    ("402", 402, "The action is not available on your plan, or you have exceeded its limits"),
    ("403", 403, "You have no access to the requested resource"),
    ("404", 404, "The object that you are requesting does not exist"),
    ("500", 500, "Something went wrong at our end. Please try again"),
    ("503", 503, "Something went wrong at our end. Please try again"),
];
/// Message and description of rejected entries.
const TEXTS: [(&str, &str, &str); 3] = [
    ("400", "Bad Request", "The recipient is not a valid WhatsApp user"),
    ("403", "Forbidden", "You have no access to the requested resource"),
    ("131047", "Re-engagement", "More than 24 hours have passed since the recipient last replied"),
];
/// Document 000: "More than 100 messages specified in a request" is a 400.
const MAX_MESSAGES: usize = 100;
/// Prefix for a code that applies to a single entry instead of the whole request.
const ENTRY: &str = "entry:";

impl Api for Exotel {
    const PATHS: &'static [&'static str] = &["/v2/accounts/{account_sid}/messages"];
    const UNAUTHORIZED: &'static str = "401";
    const BROKEN: &'static [&'static str] = &["500", "503"];
    const REFUSALS: &'static [&'static str] = &["entry:400", "entry:131047"];

    /// Basic authentication with a key and a token.
    fn is_authorized(headers: &HeaderMap) -> bool {
        let pair = || {
            let value = headers.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?;
            let pair = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
            let (key, token) = pair.split_once(':')?;
            (!key.is_empty() && !token.is_empty()).then_some(())
        };
        pair().is_some()
    }

    fn read(_: &[String], body: &[u8]) -> Result<Vec<Message>, String> {
        let request: Value = serde_json::from_slice(body).map_err(|fault| json_error(&fault))?;
        check_fields(&request, "", &["custom_data", "status_callback", "whatsapp"])?;
        let channel = &request["whatsapp"];
        check_fields(channel, "/whatsapp", &["custom_data", "status_callback", "messages"])?;
        let messages = channel["messages"].as_array().ok_or("/whatsapp/messages is missing")?;
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            return Err("More than 100 messages specified in a request, or none".into());
        }
        let read = |(index, message): (usize, &Value)| {
            let place = format!("/whatsapp/messages/{index}");
            check_fields(message, &place, &["custom_data", "status_callback", "from", "to", "content"])?;
            let from = number(message.get("from"), &format!("{place}/from"))?;
            let to = number(message.get("to"), &format!("{place}/to"))?;
            let content = &message["content"];
            rules::content(content, &format!("{place}/content"), &[], Dialect::Exotel)?;
            // The innermost wins: message, channel, request.
            let nearest = |name: &str| {
                let text =
                    [message, channel, &request].into_iter().find_map(|place| place.get(name)?.as_str());
                text.map(str::to_owned)
            };
            Ok(Message {
                to,
                from: Some(from),
                flow_token: flow_token(content),
                reference: nearest("custom_data"),
                status_callback: nearest("status_callback"),
            })
        };
        messages.iter().enumerate().map(read).collect()
    }

    /// Document 000: status 202, and one entry per message.
    fn answer(messages: &[Result<String, String>]) -> Response {
        let entry = |message: &Result<String, String>| match message {
            Ok(sid) => {
                json!({ "code": 202, "error_data": null, "status": "success", "data": { "sid": sid } })
            }
            Err(code) => refused_entry(code.strip_prefix(ENTRY).unwrap_or(code)),
        };
        let success = messages.iter().filter(|message| message.is_ok()).count();
        let entries: Vec<Value> = messages.iter().map(entry).collect();
        json_response(
            202,
            &json!({
                "request_id": request_id(), "method": "POST", "http_code": 202,
                "metadata": { "failed": messages.len() - success, "total": messages.len(), "success": success },
                "response": { "whatsapp": { "messages": entries } },
            }),
        )
    }

    /// A status in the table refuses the whole request; any other number, or one after `entry:`, rejects a single
    /// message.
    fn error(code: &str) -> Option<Error> {
        if code == "429" {
            return Some(Error::Whole(Self::limited(0)));
        }
        if let Some((_, status, text)) = STATUSES.iter().find(|(known, ..)| *known == code) {
            return Some(Error::Whole(refused(*status, text)));
        }
        let number = code.strip_prefix(ENTRY).unwrap_or(code).parse::<u32>();
        gateway_error(code).or_else(|| number.ok().map(|_| Error::Message))
    }

    /// Document 001's reports, and document 004's reply.
    fn report(event: Event, of: &Subject, at: Timestamp) -> Value {
        let (code, status, description) = match event {
            Event::Sent => (30001, "EX_MESSAGE_SENT", "The message has been sent to the user"),
            Event::Delivered => (30002, "EX_MESSAGE_DELIVERED", "The message has been delivered to the user"),
            Event::Read => (30003, "EX_MESSAGE_SEEN", "The message has been seen by the user"),
            Event::Failed => {
                (30013, "EX_INCAPABLE_RECIPIENT", "The recipient is unable to receive the message")
            }
            Event::Replied => {
                return json!({ "whatsapp": { "messages": [{
                    "callback_type": "incoming_message", "sid": format!("r-{}", of.sid), "from": of.to,
                    "to": of.from, "timestamp": at.to_string(), "profile_name": "Sandbox",
                    "content": { "type": "interactive", "context": { "sid": of.sid },
                        "interactive": { "type": "nfm_reply", "nfm_reply": {
                            "body": "Sent", "name": "galaxy_message", "response_json": form(of) } } },
                }] } });
            }
        };
        json!({ "whatsapp": { "messages": [{
            "callback_type": "dlr", "sid": of.sid, "to": of.to, "exo_status_code": code,
            "exo_detailed_status": status, "description": description,
            "timestamp": at.to_string(), "custom_data": of.reference,
        }] } })
    }

    fn malformed(why: &str) -> Response {
        refused(400, why)
    }

    /// Uses both formats of the body that occur.
    fn limited(nth: u64) -> Response {
        let message = "Too many requests, slow down";
        let body = if nth.is_multiple_of(2) {
            json!({ "RestException": { "Status": 429, "Message": message } })
        } else {
            json!({ "response": { "error": { "code": 429, "message": message } } })
        };
        json_response(429, &body)
    }
}

fn refused(status: u16, message: &str) -> Response {
    json_response(
        status,
        &json!({
            "request_id": request_id(), "method": "POST", "http_code": status,
            "response": { "error_data": { "code": status, "message": message, "description": message } },
        }),
    )
}

fn refused_entry(code: &str) -> Value {
    let own = TEXTS.iter().find(|(known, ..)| *known == code).map(|(_, message, text)| (*message, *text));
    let known = || codes::explain(code).first().map(|code| (code.also, code.meaning));
    let (message, description) = own.or_else(known).unwrap_or(("Refused", "The message was refused"));
    let number: u32 = code.parse().unwrap_or_default();
    // The error has WhatsApp's own code; the entry's code is an HTTP status.
    let status = if number < 600 { number } else { 400 };
    json!({
        "code": status, "status": "failure", "data": null,
        "error_data": { "code": number, "message": message, "description": description },
    })
}

fn request_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}
