//! The interface of a provider in the sandbox: how a request is parsed, and what each response contains. Each
//! interface is one file, written from the provider's documents and not from what flowcast sends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::campaign::Rate;

/// A message for which reports are sent.
pub(super) struct Subject {
    pub(super) url: String,
    pub(super) sid: String,
    pub(super) to: String,
    /// The sender number, if the request has it.
    pub(super) from: Option<String>,
    pub(super) reference: Option<String>,
    /// The flow token, if the message opens a flow.
    pub(super) flow_token: Option<String>,
}

/// A provider's interface. It has no state: the sandbox decides the outcome, and the interface formats it.
pub(super) trait Api: 'static {
    /// The route to which messages are posted.
    const PATHS: &'static [&'static str];

    /// Returns whether a request has any credentials.
    fn is_authorized(headers: &HeaderMap) -> bool;

    /// Parses a request as strictly as the documents allow. `path` has the parameters of its path, in order.
    fn read(path: &[String], body: &[u8]) -> Result<Vec<Message>, String>;

    /// Returns a message id in this provider's format, from a unique text.
    fn id(unique: &str) -> String {
        unique.to_owned()
    }

    /// Builds the response to messages, each accepted with an id or rejected with a code.
    fn answer(messages: &[Result<String, String>]) -> Response;

    /// Returns what an error does by its code, if this interface has it.
    fn error(code: &str) -> Option<Error>;

    /// Builds a report on a message.
    fn report(event: Event, of: &Subject, at: Timestamp) -> Value;

    /// Code for a request without credentials.
    const UNAUTHORIZED: &'static str;
    /// Codes of an internal error.
    const BROKEN: &'static [&'static str];
    /// Codes for a message that is rejected at random.
    const REFUSALS: &'static [&'static str];

    /// Builds the response to an invalid request, with the reason.
    fn malformed(why: &str) -> Response;

    /// Builds the response to a request over the rate limit.
    fn limited(nth: u64) -> Response;
}

/// A valid message of a request.
pub(super) struct Message {
    pub(super) to: String,
    pub(super) from: Option<String>,
    /// The flow token, if the message opens a flow.
    pub(super) flow_token: Option<String>,
    /// The sender's own reference for it.
    pub(super) reference: Option<String>,
    pub(super) status_callback: Option<String>,
}

/// What happens to a message after it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Sent,
    Failed,
    Delivered,
    Read,
    /// The recipient filled in the form.
    Replied,
}

/// Returns the form that simulated recipients fill in, with the flow token, as in document 004.
pub(super) fn form(of: &Subject) -> String {
    let token = of.flow_token.as_deref().unwrap_or("unused");
    json!({ "day": "monday", "time": "10:00", "flow_token": token }).to_string()
}

/// The effect of an injected error.
pub(super) enum Error {
    /// The whole request is refused.
    Whole(Response),
    /// Only one message of the request is rejected.
    Message,
}

/// Builds a JSON response.
pub(super) fn json_response(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

/// Builds the response of a proxy that cannot reach the provider.
pub(super) fn gateway_error(code: &str) -> Option<Error> {
    let status = match code {
        "502" => StatusCode::BAD_GATEWAY,
        "504" => StatusCode::GATEWAY_TIMEOUT,
        _ => return None,
    };
    Some(Error::Whole(
        (status, [("content-type", "text/html")], "<html>nothing behind this</html>").into_response(),
    ))
}

/// Adds the headers that say when to retry.
pub(super) fn come_back(mut response: Response, wait: Duration, rate: Option<Rate>) -> Response {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
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

/// Builds a response that is cut off after a valid start.
pub(super) fn cut_off() -> Response {
    (StatusCode::ACCEPTED, [("content-length", "1000")], Body::new(CutBody { begun: false })).into_response()
}

/// A body that ends with an error after its first bytes.
struct CutBody {
    begun: bool,
}

impl http_body::Body for CutBody {
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

/// Checks that an object has only these fields.
pub(super) fn check_fields(value: &Value, place: &str, fields: &[&str]) -> Result<(), String> {
    let map = value.as_object().ok_or_else(|| format!("{place} must be an object"))?;
    match map.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(unknown) => Err(format!("{place}/{unknown} is unknown")),
        None => Ok(()),
    }
}

/// Parses an E.164 number: a plus and 7 to 15 digits, of which the first is not 0.
pub(super) fn number(value: Option<&Value>, place: &str) -> Result<String, String> {
    let number = value.and_then(Value::as_str).unwrap_or_default();
    let digits = number.strip_prefix('+').unwrap_or_default();
    let is_one = (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    if is_one { Ok(number.to_owned()) } else { Err(format!("{place} must be in e.164 format")) }
}

/// Returns the flow token of content that opens a flow.
pub(super) fn flow_token(content: &Value) -> Option<String> {
    let button =
        |component: &Value| component.pointer("/parameters/0/action/flow_token")?.as_str().map(str::to_owned);
    let of_flow = content.pointer("/interactive/action/parameters/flow_token").and_then(Value::as_str);
    let components = content.pointer("/template/components").and_then(Value::as_array);
    of_flow.map(str::to_owned).or_else(|| components?.iter().find_map(button))
}
