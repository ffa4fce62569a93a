//! Exotel's answers, as the documents show them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::campaign::Rate;

/// Why a sandbox refuses a message, by chance: code and texts.
const REFUSALS: [(u32, &str, &str); 3] = [
    (400, "Bad Request", "The recipient is not a valid WhatsApp user"),
    (403, "Forbidden", "The recipient has opted out of messages from this business"),
    (470, "Re-engagement", "More than 24 hours have passed since the recipient last replied"),
];

/// Document 000: 202, an entry a message.
pub(super) fn accepted(entries: &[Value]) -> Response {
    let total = entries.len();
    let success = entries.iter().filter(|entry| entry["status"] == "success").count();
    json_response(
        StatusCode::ACCEPTED,
        &json!({
            "request_id": request_id(), "method": "POST", "http_code": 202,
            "metadata": { "failed": total - success, "total": total, "success": success },
            "response": { "whatsapp": { "messages": entries } },
        }),
    )
}

pub(super) fn accepted_entry(sid: &str) -> Value {
    json!({ "code": 202, "error_data": null, "status": "success", "data": { "sid": sid } })
}

pub(super) fn refused_entry(pick: usize) -> Value {
    let (code, message, description) = REFUSALS[pick % REFUSALS.len()];
    json!({
        "code": code, "status": "failure", "data": null,
        "error_data": { "code": code, "message": message, "description": description },
    })
}

/// A request that was refused as a whole.
pub(super) fn refused(status: StatusCode, message: &str) -> Response {
    json_response(
        status,
        &json!({
            "request_id": request_id(), "method": "POST", "http_code": status.as_u16(),
            "response": { "error_data": { "code": status.as_u16(), "message": message, "description": message } },
        }),
    )
}

/// 429 in the shape of `RestException`, with the headers that say when to come back.
pub(super) fn limited(wait: Duration, rate: Option<Rate>) -> Response {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let body = json!({ "RestException": { "Status": 429, "Message": "Too many requests, slow down" } });
    let mut response = json_response(StatusCode::TOO_MANY_REQUESTS, &body);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let headers = [
        ("retry-after", seconds.to_string()),
        ("x-ratelimit-limit", rate.map(|rate| rate.to_string()).unwrap_or_default()),
        ("x-ratelimit-remaining", "0".into()),
        ("x-ratelimit-reset", (now + seconds).to_string()),
    ];
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// An answer that begins well and breaks off.
pub(super) fn cut_off() -> Response {
    (StatusCode::ACCEPTED, [("content-length", "1000")], Body::new(Broken { begun: false })).into_response()
}

/// A body that breaks off after its first bytes.
struct Broken {
    begun: bool,
}

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        let frame = if std::mem::replace(&mut self.begun, true) {
            Err(std::io::Error::other("cut off on purpose"))
        } else {
            Ok(http_body::Frame::data(Bytes::from_static(b"{\"request_id\":")))
        };
        std::task::Poll::Ready(Some(frame))
    }
}

fn request_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}
