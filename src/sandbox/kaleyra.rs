//! Kaleyra's interface (document 002).

use axum::{http::HeaderMap, response::Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{
    Api, Error, Event, Message, Subject, check_fields, flow_token, gateway_error, json_response, number,
};
use super::rules::{self, Dialect};

use super::meta::Meta;
use crate::campaign::problem::json_error;

pub(super) struct Kaleyra;

/// The documented errors: code, HTTP status, text, and the name of the invalid field.
const ERRORS: [(&str, u16, &str, &str); 7] = [
    ("RBC001", 401, "Incorrect SID or API key.", "error"),
    ("WA401", 401, "Phone number is not present or does not belong to the account.", "phone_number"),
    ("WA-401", 401, "API is not available for given customer.", "account"),
    (
        "WA-401:version",
        401,
        "The phone number you're using is associated with different Version of our WA API. Please use the appropriate \
         endpoint.",
        "phone_number",
    ),
    ("WA400", 400, "Refer to correct payload format", "payload"),
    ("WA500", 500, "Please try again later", "error"),
    ("E110", 400, "Please check your balance, You have a low balance!", "balance"),
];
/// Maximum length of each of the three texts, in characters.
const REFERENCE: usize = 255;

impl Api for Kaleyra {
    const PATHS: &'static [&'static str] = &["/v2/{sid}/whatsapp/{phone_number}/messages"];
    const UNAUTHORIZED: &'static str = "RBC001";
    const BROKEN: &'static [&'static str] = &["WA500"];
    const REFUSALS: &'static [&'static str] = &["WA400"];

    fn is_authorized(headers: &HeaderMap) -> bool {
        headers.get("api-key").is_some_and(|key| !key.is_empty())
    }

    fn read(path: &[String], body: &[u8]) -> Result<Vec<Message>, String> {
        let request: Value = serde_json::from_slice(body).map_err(|fault| json_error(&fault))?;
        check_fields(&request, "", &["messaging_object", "extra_info", "callback_profile_id"])?;
        let message = &request["messaging_object"];
        if message["messaging_product"] != "whatsapp" {
            return Err("/messaging_object/messaging_product must be \"whatsapp\"".into());
        }
        let to = number(message.get("to"), "/messaging_object/to")?;
        let from = path.get(1).map(|from| json!(from));
        let from = number(from.as_ref(), "the path's phone_number")?;
        if from == to {
            return Err("the path must contain the business number, not the recipient's".into());
        }
        rules::content(message, "/messaging_object", &["messaging_product", "to"], Dialect::Kaleyra)?;
        let info = request.get("extra_info").cloned().unwrap_or_else(|| json!({}));
        check_fields(&info, "/extra_info", &["ref", "ref1", "ref2", "wa_source"])?;
        for name in ["ref", "ref1", "ref2"] {
            if info[name].as_str().is_some_and(|text| text.chars().count() > REFERENCE) {
                return Err(format!("/extra_info/{name} is longer than {REFERENCE} characters"));
            }
        }
        let reference = info["ref"].as_str().map(str::to_owned);
        let flow_token = flow_token(message);
        Ok(vec![Message { to, from: Some(from), flow_token, reference, status_callback: None }])
    }

    fn answer(messages: &[Result<String, String>]) -> Response {
        match messages.first() {
            Some(Ok(sid)) => {
                let data = json!({ "message_id": sid });
                json_response(
                    202,
                    &json!({ "code": "WA202", "message": "Request Accepted", "data": data, "error": {} }),
                )
            }
            Some(Err(code)) => refused(code),
            None => refused("WA400"),
        }
    }

    fn error(code: &str) -> Option<Error> {
        if code == "429" {
            return Some(Error::Whole(Self::limited(0)));
        }
        let is_known = ERRORS.iter().any(|(known, ..)| *known == code);
        gateway_error(code).or_else(|| is_known.then(|| Error::Whole(refused(code))))
    }

    /// With flowcast's default field names; replies in Meta's format.
    fn report(event: Event, of: &Subject, at: Timestamp) -> Value {
        let status = match event {
            Event::Sent => "sent",
            Event::Delivered => "delivered",
            Event::Read => "read",
            Event::Failed => "failed",
            Event::Replied => return Meta::report(event, of, at),
        };
        let code = (event == Event::Failed).then_some("131026");
        json!({ "ref": of.reference, "message_id": of.sid, "status": status, "recipient": of.to,
            "timestamp": at.to_string(), "code": code })
    }

    fn malformed(why: &str) -> Response {
        json_response(
            400,
            &json!({ "code": "WA400", "message": why, "data": {}, "error": { "payload": "Incorrect payload format" } }),
        )
    }

    fn limited(_: u64) -> Response {
        let text = "Too many requests";
        json_response(
            429,
            &json!({ "code": "WA429", "message": text, "data": {}, "error": { "error": text } }),
        )
    }
}

fn refused(code: &str) -> Response {
    let unknown = ("WA400", 400, "Refer to correct payload format", "payload");
    let (code, status, text, field) =
        ERRORS.into_iter().find(|(known, ..)| *known == code).unwrap_or(unknown);
    // The suffix after the colon distinguishes two errors with the same code.
    let code = code.split(':').next().unwrap_or(code);
    // Only the document's sample of RBC001 has a list.
    let data = if code == "RBC001" { json!([]) } else { json!({}) };
    json_response(status, &json!({ "code": code, "message": text, "data": data, "error": { field: text } }))
}
