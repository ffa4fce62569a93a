//! Parses the response to a request (documents 000, 001, 003).

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::HttpResponse;
use crate::campaign::codes::{self, Code, Source};
use crate::campaign::{Doubt, DoubtCause};
use crate::provider::answer::{Entry, ParsedBody, failed_entry, short, to_text};

/// Parses the response to a request of `count` messages.
pub(super) fn parse(reply: &HttpResponse, count: usize) -> ParsedBody {
    if let Some(entries) = all_accepted(reply, count) {
        return ParsedBody::Entries(entries);
    }
    let Ok(json) = serde_json::from_slice::<Value>(&reply.body) else {
        return ParsedBody::Foreign { text: String::new() };
    };
    let is_taken = |entry: &Entry| matches!(entry, Entry::Accepted { .. });
    if let Some(entries) = entries(&json)
        && (reply.is_success() || entries.iter().any(is_taken))
    {
        compare_metadata(&json, &entries);
        return ParsedBody::Entries(of_messages(entries, count));
    }
    let text = says(&json);
    if is_exotels(&json) {
        ParsedBody::Error { code: None, known: None, text }
    } else {
        ParsedBody::Foreign { text }
    }
}

/// Parses the usual response, in which all messages are accepted, without building a JSON tree. Any other response is
/// left to [`entries`].
pub(super) fn all_accepted(reply: &HttpResponse, count: usize) -> Option<Vec<Entry>> {
    #[derive(Deserialize)]
    struct Body<'b> {
        metadata: Option<Metadata>,
        #[serde(borrow)]
        response: Response<'b>,
    }
    #[derive(Deserialize)]
    struct Response<'b> {
        #[serde(borrow)]
        whatsapp: Messages<'b>,
    }
    #[derive(Deserialize)]
    struct Messages<'b> {
        #[serde(borrow)]
        messages: Vec<Message<'b>>,
    }
    #[derive(Deserialize)]
    struct Message<'b> {
        code: Option<u32>,
        error_data: Option<IgnoredAny>,
        status: &'b str,
        #[serde(borrow)]
        data: Data<'b>,
    }
    #[derive(Deserialize)]
    struct Data<'b> {
        sid: &'b str,
    }
    let body: Body<'_> = serde_json::from_slice(&reply.body).ok().filter(|_| reply.is_success())?;
    // A response that contradicts itself is logged by the full parser.
    let is_right = |metadata: &Metadata| metadata.agrees_with([count, count, 0]);
    body.metadata.as_ref().is_none_or(is_right).then_some(())?;
    let messages = body.response.whatsapp.messages;
    let is_plain = |message: &Message<'_>| {
        message.status == "success"
            && message.error_data.is_none()
            && message.code.is_none_or(|code| (200..300).contains(&code))
            && !message.data.sid.trim().is_empty()
    };
    (messages.len() == count && messages.iter().all(is_plain)).then(|| {
        messages.iter().map(|message| Entry::Accepted { sid: message.data.sid.to_owned() }).collect()
    })
}

/// Documents 000 and 001, Metadata Object.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    total: Option<u64>,
    success: Option<u64>,
    failed: Option<u64>,
}

impl Metadata {
    /// Returns whether it agrees with the counted entries: total, successes, failures. A missing count agrees.
    fn agrees_with(&self, counted: [usize; 3]) -> bool {
        let said = [self.total, self.success, self.failed];
        said.into_iter().zip(counted).all(|(said, counted)| said.is_none_or(|said| said == counted as u64))
    }
}

/// Logs a response whose metadata disagrees with its entries. Only the entries decide about the messages.
fn compare_metadata(json: &Value, entries: &[Entry]) {
    let Some(metadata) = json.get("metadata").and_then(|value| Metadata::deserialize(value).ok()) else {
        return;
    };
    let success = entries.iter().filter(|entry| matches!(entry, Entry::Accepted { .. })).count();
    if !metadata.agrees_with([entries.len(), success, entries.len() - success]) {
        let request = to_text(json.get("request_id")).map(|id| short(&id)).unwrap_or_default();
        tracing::warn!(
            %request,
            entries = entries.len(),
            accepted = success,
            metadata_total = ?metadata.total,
            metadata_success = ?metadata.success,
            metadata_failed = ?metadata.failed,
            "the metadata of Exotel's response contradicts its entries; the entries count"
        );
    }
}

/// Returns one entry per message. An entry does not name its message (documents 000, 001), so entries can be matched
/// only if there are as many as messages.
fn of_messages(entries: Vec<Entry>, count: usize) -> Vec<Entry> {
    if entries.len() == count {
        return entries;
    }
    let found = entries.len();
    let detail = format!("the response has {found} entries for {count} messages");
    vec![Entry::Unknown(Doubt { cause: DoubtCause::EntryCountMismatch, detail }); count]
}

/// Parses the entries of a response, if it has any.
pub(super) fn entries(json: &Value) -> Option<Vec<Entry>> {
    let list = match json.pointer("/response/whatsapp/messages") {
        Some(Value::Array(list)) => list.iter().collect::<Vec<_>>(),
        // Document 003's other format: `response` itself is the entry of a single message.
        _ => match json.get("response")? {
            Value::Array(list) => list.iter().collect(),
            one @ Value::Object(map) if map.contains_key("status") => vec![one],
            _ => return None,
        },
    };
    // If others were accepted or rejected, the account has access.
    let is_judged =
        |one: &&Value| matches!(entry(one, false), Entry::Accepted { .. } | Entry::Rejected { .. });
    let judges_others = list.iter().any(is_judged);
    Some(list.into_iter().map(|one| entry(one, judges_others)).collect())
}

/// Parses an entry; `judges_others` says whether the same response accepts or rejects other messages.
fn entry(entry: &Value, judges_others: bool) -> Entry {
    let status = entry.get("status").and_then(Value::as_str).unwrap_or_default();
    let error = entry.get("error_data").filter(|error| !error.is_null());
    let number = |value: Option<&Value>| to_text(value).and_then(|code| code.parse::<u32>().ok());
    let own = number(entry.get("code"));
    let fine = own.is_none_or(|code| (200..300).contains(&code));
    if status == "success" && fine && error.is_none() {
        let sid = ["/data/sid", "/data/message_id"].iter().find_map(|path| to_text(entry.pointer(path)));
        // A success must have an id (documents 000, 001).
        return match sid.filter(|sid| !sid.trim().is_empty()) {
            Some(sid) => Entry::Accepted { sid },
            None => Entry::Unknown(DoubtCause::NoMessageId.into()),
        };
    }
    let code = to_text(error.and_then(|error| error.get("code"))).or_else(|| to_text(entry.get("code")));
    let failed = matches!(status, "failure" | "failed" | "error") || error.is_some() || !fine;
    if !failed || status == "success" {
        return Entry::Unknown(DoubtCause::UnclearEntry.into());
    }
    let code = code.unwrap_or_else(|| "unknown".into());
    let text = |name| error.and_then(|error| error.get(name)).and_then(Value::as_str).unwrap_or_default();
    let detail = match (text("message"), text("description")) {
        ("", "") => status.to_string(),
        ("", one) | (one, "") => short(one),
        (message, description) if message == description => short(message),
        (message, description) => short(&format!("{message}: {description}")),
    };
    failed_entry(code.clone(), lookup(own, &code, judges_others), detail)
}

/// Looks up an entry's code, the HTTP code of a single message (documents 000, 001): 401, 402 and 403 concern the
/// account, 429 and 5xx are temporary, and none of them rejects the message; Meta's codes are forwarded. Any other
/// code is a rejection, and so is a 403 if the response accepts or rejects others: the account has access then.
fn lookup(own: Option<u32>, code: &str, judges_others: bool) -> Option<&'static Code> {
    let inner = code.parse().ok();
    // Prefer the entry's own code: the code inside may come from elsewhere.
    let of_account = own.or(inner).filter(|code| match code {
        403 => !judges_others,
        code => matches!(code, 401 | 402),
    });
    let of_the_moment = own.into_iter().chain(inner).find(|code| *code == 429 || (500..600).contains(code));
    match of_account.or(of_the_moment) {
        Some(code @ (401..=403 | 429)) => codes::lookup(Source::Http, &code.to_string()),
        Some(_) => codes::lookup(Source::Http, "500"),
        None => codes::of_meta_handed_on(code),
    }
}

/// Returns whether an error body is from Exotel, not from a proxy.
fn is_exotels(json: &Value) -> bool {
    ["http_code", "request_id", "response", "RestException", "error_data"]
        .iter()
        .any(|key| json.get(key).is_some())
}

/// Returns the text of an error body, in any of its formats.
fn says(json: &Value) -> String {
    let paths = [
        "/RestException/Message",
        "/RestException/message",
        "/response/error/message",
        "/response/error_data/message",
        "/response/error_data/description",
        "/response/message",
        "/error_data/message",
        "/message",
    ];
    paths.iter().find_map(|path| json.pointer(path).and_then(Value::as_str)).map(short).unwrap_or_default()
}
