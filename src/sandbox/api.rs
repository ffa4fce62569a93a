//! What a provider's interface is to the sandbox: how a request is read, and how each answer looks.
//! One file an interface, by the providers' documents and not by what flowcast happens to send.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::campaign::Rate;

/// A message that is reported on.
pub(super) struct Subject {
    pub(super) url: String,
    pub(super) sid: String,
    pub(super) to: String,
    /// The number that it was sent from, where the request says it.
    pub(super) from: Option<String>,
    pub(super) reference: Option<String>,
    /// The token of the flow that it opens.
    pub(super) flow_token: Option<String>,
}

/// An interface. It has no state: the sandbox decides, and this says it.
pub(super) trait Api: 'static {
    /// Where messages are posted to.
    const PATHS: &'static [&'static str];

    /// Whether a request carries credentials, whichever.
    fn is_authorized(headers: &HeaderMap) -> bool;

    /// Reads a request as strictly as the documents allow. `path` are the parts of its path that stand
    /// for something, in their order.
    fn read(path: &[String], body: &[u8]) -> Result<Vec<Message>, String>;

    /// The id of a message, as this provider makes them, from what is unique to it.
    fn id(unique: &str) -> String {
        unique.to_owned()
    }

    /// The answer to messages of which each was taken, with its id, or refused, with a code.
    fn answer(messages: &[Result<String, String>]) -> Response;

    /// An error by its code, if this interface has it.
    fn error(code: &str) -> Option<Error>;

    /// A report of what became of a message.
    fn report(event: Event, of: &Subject, at: Timestamp) -> Value;

    /// The code for a request without credentials.
    const UNAUTHORIZED: &'static str;
    /// The codes of an inner failure.
    const BROKEN: &'static [&'static str];
    /// The codes for a message that is refused by chance.
    const REFUSALS: &'static [&'static str];

    /// A request that can't be read, and why.
    fn malformed(why: &str) -> Response;

    /// More requests than are allowed.
    fn limited(nth: u64) -> Response;
}

/// A message of a request that is in order.
pub(super) struct Message {
    pub(super) to: String,
    pub(super) from: Option<String>,
    /// The token of the flow that it opens.
    pub(super) flow_token: Option<String>,
    /// What the sender wants to know it by.
    pub(super) reference: Option<String>,
    pub(super) status_callback: Option<String>,
}

/// What becomes of a message after it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Sent,
    Failed,
    Delivered,
    Read,
    /// The person filled in the form.
    Replied,
}

/// The form that people of a sandbox fill in; it carries the token of the flow, as document 004 shows.
pub(super) fn form(of: &Subject) -> String {
    let token = of.flow_token.as_deref().unwrap_or("unused");
    json!({ "day": "monday", "time": "10:00", "flow_token": token }).to_string()
}

/// What an error on demand does.
pub(super) enum Error {
    /// The whole request is refused with it.
    Whole(Response),
    /// A message is refused with it, and others of its request are not.
    Message,
}

/// A JSON answer.
pub(super) fn json_response(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

/// What something between us and the provider says when it can't reach it.
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

/// Adds the headers that say when to come back.
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

/// An answer that begins well and breaks off.
pub(super) fn cut_off() -> Response {
    (StatusCode::ACCEPTED, [("content-length", "1000")], Body::new(CutBody { begun: false })).into_response()
}

/// A body that breaks off after its first bytes.
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

/// An object with no fields but these.
pub(super) fn known(value: &Value, place: &str, fields: &[&str]) -> Result<(), String> {
    let map = value.as_object().ok_or_else(|| format!("{place} must be an object"))?;
    match map.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(unknown) => Err(format!("{place}/{unknown} is unknown")),
        None => Ok(()),
    }
}

/// A number in E.164: a plus and 7 to 15 digits, the first of them not 0.
pub(super) fn number(value: Option<&Value>, place: &str) -> Result<String, String> {
    let number = value.and_then(Value::as_str).unwrap_or_default();
    let digits = number.strip_prefix('+').unwrap_or_default();
    let is_one = (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    if is_one { Ok(number.to_owned()) } else { Err(format!("{place} must be in e.164 format")) }
}

/// The token of the flow that content opens.
pub(super) fn flow_token(content: &Value) -> Option<String> {
    let button =
        |component: &Value| component.pointer("/parameters/0/action/flow_token")?.as_str().map(str::to_owned);
    let of_flow = content.pointer("/interactive/action/parameters/flow_token").and_then(Value::as_str);
    let components = content.pointer("/template/components").and_then(Value::as_array);
    of_flow.map(str::to_owned).or_else(|| components?.iter().find_map(button))
}
