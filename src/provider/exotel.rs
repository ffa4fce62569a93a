//! Exotel: `POST /v2/accounts/{account_sid}/messages`, up to 100 messages a request (documents 000,
//! 001, 003, 004).

use base64::prelude::{BASE64_STANDARD, Engine};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::{Answer, Entry, Provider, Reply, Request, all_unknown, plain, short};
use crate::campaign::{Envelope, Job};

/// An Exotel account.
pub struct Exotel {
    url: Url,
    authorization: SecretString,
}

/// The hosts of Exotel's regions (document 000).
pub const REGIONS: [(&str, &str); 2] =
    [("singapore", "https://api.exotel.com"), ("mumbai", "https://api.in.exotel.com")];

impl Exotel {
    /// An account at `base_url`, which must hold no credentials.
    ///
    /// # Errors
    ///
    /// When the address or the account SID can't be part of a request.
    pub fn new(
        base_url: &Url,
        account_sid: &str,
        api_key: &SecretString,
        api_token: &SecretString,
    ) -> Result<Self, String> {
        if !base_url.username().is_empty() || base_url.password().is_some() {
            return Err("base_url must not hold credentials; set api_key and api_token".into());
        }
        let mut url = base_url.clone();
        url.path_segments_mut()
            .map_err(|()| "base_url must be an http:// or https:// address".to_string())?
            .pop_if_empty()
            .extend(["v2", "accounts", account_sid, "messages"]);
        let pair = format!("{}:{}", api_key.expose_secret(), api_token.expose_secret());
        Ok(Self { url, authorization: format!("Basic {}", BASE64_STANDARD.encode(pair)).into() })
    }
}

impl Provider for Exotel {
    fn envelope(&self, job: &Job) -> Envelope {
        let mut content = json!({ "recipient_type": "individual" });
        if let (Some(content), Some(message)) = (content.as_object_mut(), job.message.as_object()) {
            content.extend(message.clone());
        }
        if let Some(template) = content.get_mut("template") {
            as_exotel_writes(template);
        }
        // On each message: the innermost wins (providers' facts). Without a text of the job's own the
        // message reference goes in its place, so that a report finds its message.
        let custom_data = job.custom_data.as_deref().unwrap_or("{{ message_ref }}");
        let mut message = json!({ "custom_data": custom_data });
        if let Some(callback) = &job.status_callback {
            message["status_callback"] = json!(callback);
        }
        message["from"] = json!(job.from);
        message["to"] = json!("{{ recipient }}");
        message["content"] = content;
        Envelope { value: message, content: "/content" }
    }

    fn request(&self, messages: &[&[u8]]) -> Request {
        let start = br#"{"whatsapp":{"messages":["#;
        let length = messages.iter().map(|message| message.len() + 1).sum::<usize>();
        let mut body = Vec::with_capacity(start.len() + length + 3);
        body.extend_from_slice(start);
        for (index, message) in messages.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(message);
        }
        body.extend_from_slice(b"]}}");
        Request {
            url: self.url.clone(),
            authorization: ("authorization", self.authorization.clone()),
            body: body.into(),
        }
    }

    fn read(&self, reply: &Reply, count: usize) -> Answer {
        let json: Option<Value> = serde_json::from_slice(&reply.body).ok();
        let said = json.as_ref().map(says).unwrap_or_default();
        let status = reply.status;
        let detail =
            if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") };
        match status {
            200..=299 => match json {
                Some(json) => entries(&json, count),
                None => all_unknown(&format!("{detail}, with a body that can't be read")),
            },
            // RFC 9110: what is asked for is elsewhere, so nothing was done here.
            301 | 302 | 307 | 308 => Answer::CampaignRefused {
                reason: format!("{detail}; the provider's address redirects: check region and base_url"),
            },
            400 => Answer::Malformed { code: "400".into(), detail },
            401 => Answer::AccountRefused {
                reason: format!("{detail}; check api_key and api_token of the account"),
            },
            402 => {
                Answer::AccountRefused { reason: format!("{detail}; check the account's plan and balance") }
            }
            403 => Answer::AccountRefused {
                reason: format!("{detail}; the account may not use this; ask the provider to enable it"),
            },
            404 => Answer::CampaignRefused {
                reason: format!("{detail}; check account_sid, base_url and the ids in the message"),
            },
            429 => Answer::Limited { retry_after: reply.retry_after, detail },
            // The documents say to try again, and say it for their own answers alone: the same
            // status from something between us and them proves nothing.
            500 | 503 if json.as_ref().is_some_and(is_exotels) => Answer::TryAgain { detail },
            // Refused before it was looked at; every message would fare the same.
            405..=407 | 409..=428 | 430..=499 => Answer::CampaignRefused { reason: detail },
            _ => all_unknown(&detail),
        }
    }
}

/// A template as Exotel's own example writes it: `policy` is given, a button's index is a string.
fn as_exotel_writes(template: &mut Value) {
    if let Some(language) = template.get_mut("language").and_then(Value::as_object_mut) {
        let code = language.remove("code").unwrap_or_default();
        *language =
            serde_json::Map::from_iter([("policy".into(), json!("deterministic")), ("code".into(), code)]);
    }
    for component in template.get_mut("components").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(index) = component.get_mut("index") {
            *index = json!(plain(Some(index)));
        }
    }
}

/// The entries of a 2xx answer.
fn entries(json: &Value, count: usize) -> Answer {
    let list = match json.pointer("/response/whatsapp/messages") {
        Some(Value::Array(list)) => list.iter().collect::<Vec<_>>(),
        // Document 003's other shape: one message's entry stands in `response` itself.
        _ => match json.get("response") {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one @ Value::Object(map)) if map.contains_key("status") => vec![one],
            _ => return all_unknown("a 2xx answer without entries"),
        },
    };
    if list.len() > count {
        return all_unknown("an answer with more entries than messages");
    }
    // Fewer entries than messages leave the rest in doubt.
    let missing = || Entry::Unknown { detail: "the answer has no entry for this message".into() };
    Answer::Entries((0..count).map(|index| list.get(index).map_or_else(missing, |it| entry(it))).collect())
}

fn entry(entry: &Value) -> Entry {
    let status = entry.get("status").and_then(Value::as_str).unwrap_or_default();
    let error = entry.get("error_data").filter(|error| !error.is_null());
    let number = |value: Option<&Value>| plain(value).and_then(|code| code.parse::<u32>().ok());
    let own = number(entry.get("code"));
    let fine = own.is_none_or(|code| (200..300).contains(&code));
    if status == "success" && fine && error.is_none() {
        let sid = ["/data/sid", "/data/message_id"].iter().find_map(|path| plain(entry.pointer(path)));
        return Entry::Accepted { sid: sid.unwrap_or_default() };
    }
    let code = plain(error.and_then(|error| error.get("code"))).or_else(|| plain(entry.get("code")));
    let failed = matches!(status, "failure" | "failed" | "error") || error.is_some() || !fine;
    if !failed || status == "success" {
        return Entry::Unknown { detail: "an entry that says neither success nor failure".into() };
    }
    let code = code.unwrap_or_else(|| "unknown".into());
    let text = |name| error.and_then(|error| error.get(name)).and_then(Value::as_str).unwrap_or_default();
    let detail = match (text("message"), text("description")) {
        ("", "") => status.to_string(),
        ("", one) | (one, "") => short(one),
        (message, description) if message == description => short(message),
        (message, description) => short(&format!("{message}: {description}")),
    };
    match (own.into_iter().chain(code.parse().ok())).find(|code| *code == 429 || (500..600).contains(code)) {
        Some(code) => Entry::TryAgain { limited: code == 429, detail },
        None => Entry::Rejected { code, detail },
    }
}

/// Whether an error body is Exotel's own and not some proxy's.
fn is_exotels(json: &Value) -> bool {
    ["http_code", "request_id", "response", "RestException", "error_data"]
        .iter()
        .any(|key| json.get(key).is_some())
}

/// What an error body says, in either of the two shapes that occur.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn exotel() -> Exotel {
        let secret = |text: &str| SecretString::from(text);
        let base = "http://127.0.0.1:8025".parse().unwrap();
        Exotel::new(&base, "acme1", &secret("key"), &secret("token")).unwrap()
    }

    fn read(status: u16, body: &str, count: usize) -> Answer {
        let reply = Reply { status, retry_after: None, body: body.to_string().into() };
        exotel().read(&reply, count)
    }

    fn entry_of(entry: &str) -> Entry {
        match read(202, &format!(r#"{{"response":{{"whatsapp":{{"messages":[{entry}]}}}}}}"#), 1) {
            Answer::Entries(mut entries) => entries.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_carries_its_credentials_in_a_header_alone() {
        let request = exotel().request(&[b"{\"a\":1}", b"{\"b\":2}"]);
        assert_eq!(request.url.as_str(), "http://127.0.0.1:8025/v2/accounts/acme1/messages");
        assert_eq!(request.authorization.1.expose_secret(), "Basic a2V5OnRva2Vu");
        assert_eq!(&*request.body, br#"{"whatsapp":{"messages":[{"a":1},{"b":2}]}}"#);
        let base = "http://key:token@127.0.0.1:8025".parse().unwrap();
        assert!(Exotel::new(&base, "a", &"k".into(), &"t".into()).is_err());
    }

    #[test]
    fn an_account_sid_can_not_change_the_path() {
        let base = "https://api.exotel.com/".parse().unwrap();
        let odd = Exotel::new(&base, "a/../b?x", &"k".into(), &"t".into()).unwrap();
        assert_eq!(
            odd.request(&[]).url.as_str(),
            "https://api.exotel.com/v2/accounts/a%2F..%2Fb%3Fx/messages"
        );
    }

    #[test]
    fn success_is_accepted_with_its_sid() {
        let taken = Entry::Accepted { sid: "2Fdi".into() };
        assert_eq!(
            entry_of(r#"{"code":202,"error_data":null,"status":"success","data":{"sid":"2Fdi"}}"#),
            taken
        );
        // Document 003's shape.
        let other =
            r#"{"response":{"code":200,"status":"success","data":{"message_id":"2Fdi","status":"sent"}}}"#;
        assert_eq!(read(202, other, 1), Answer::Entries(vec![taken]));
    }

    #[test]
    fn a_refused_entry_keeps_its_code_and_text() {
        let entry = entry_of(
            r#"{"code":400,"status":"failure","error_data":{"code":1005,"message":"Invalid","description":"bad number"}}"#,
        );
        assert_eq!(entry, Entry::Rejected { code: "1005".into(), detail: "Invalid: bad number".into() });
    }

    #[test]
    fn an_entry_of_429_or_5xx_may_be_tried_again() {
        for (code, limited) in [(429, true), (500, false), (503, false)] {
            let entry = entry_of(&format!(
                r#"{{"code":{code},"status":"failure","error_data":{{"message":"later"}}}}"#
            ));
            assert_eq!(entry, Entry::TryAgain { limited, detail: "later".into() });
        }
    }

    #[test]
    fn what_can_not_be_read_is_in_doubt() {
        for body in
            ["", "<html>", "{}", "[]", r#"{"response":{}}"#, r#"{"response":{"whatsapp":{"messages":{}}}}"#]
        {
            assert!(matches!(read(202, body, 2), Answer::Unknown { .. }), "{body}");
        }
        let more = r#"{"response":{"whatsapp":{"messages":[{"status":"success"},{"status":"success"}]}}}"#;
        assert!(matches!(read(202, more, 1), Answer::Unknown { .. }));
        for odd in [
            "{}",
            "null",
            "7",
            r#"{"status":"success","code":400}"#,
            r#"{"status":"success","error_data":{"code":5}}"#,
        ] {
            assert!(matches!(entry_of(odd), Entry::Unknown { .. }), "{odd}");
        }
    }

    #[test]
    fn fewer_entries_than_messages_leave_the_rest_in_doubt() {
        let one =
            r#"{"response":{"whatsapp":{"messages":[{"code":202,"status":"success","data":{"sid":"s"}}]}}}"#;
        let Answer::Entries(entries) = read(202, one, 3) else { panic!() };
        assert!(matches!(
            entries[..],
            [Entry::Accepted { .. }, Entry::Unknown { .. }, Entry::Unknown { .. }]
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic_or_accept_without_proof(
            status in 100..600_u16,
            body in "\\PC{0,40}|(\\{|\\}|\\[|\\]|:|,|\"response\"|\"whatsapp\"|\"messages\"|\"status\"|\"failure\"|\"code\"|202|400|null){0,20}",
        ) {
            let answer = read(status, &body, 3);
            let accepts = matches!(&answer, Answer::Entries(entries) if entries.iter().any(|e| matches!(e, Entry::Accepted { .. })));
            proptest::prop_assert!(!accepts, "{answer:?}");
        }
    }

    #[test]
    fn a_status_proves_what_the_table_says() {
        let rest = r#"{"RestException":{"Message":"Too many requests"}}"#;
        assert!(matches!(read(400, "", 5), Answer::Malformed { .. }));
        for status in [401, 402, 403] {
            assert!(matches!(read(status, "", 5), Answer::AccountRefused { .. }), "{status}");
        }
        for status in [301, 302, 307, 308, 404, 405, 413, 415] {
            assert!(matches!(read(status, "", 5), Answer::CampaignRefused { .. }), "{status}");
        }
        assert_eq!(
            read(429, rest, 5),
            Answer::Limited { retry_after: None, detail: "HTTP 429: Too many requests".into() }
        );
        let other = r#"{"response":{"error":{"message":"Slow down"}}}"#;
        assert_eq!(
            read(429, other, 5),
            Answer::Limited { retry_after: None, detail: "HTTP 429: Slow down".into() }
        );
        for status in [500, 503] {
            assert!(matches!(read(status, r#"{"http_code":500}"#, 5), Answer::TryAgain { .. }), "{status}");
            assert!(matches!(read(status, "<html>Bad</html>", 5), Answer::Unknown { .. }), "{status}");
        }
        for status in [300, 303, 304, 408, 502, 504, 599] {
            assert!(matches!(read(status, r#"{"http_code":500}"#, 5), Answer::Unknown { .. }), "{status}");
        }
        let reply = Reply { status: 429, retry_after: Some(Duration::from_secs(9)), body: "".into() };
        assert!(
            matches!(exotel().read(&reply, 1), Answer::Limited { retry_after: Some(wait), .. } if wait.as_secs() == 9)
        );
    }
}
