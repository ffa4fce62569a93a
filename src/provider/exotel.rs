//! Exotel: `POST /v2/accounts/{account_sid}/messages`, up to 100 messages a request (documents 000,
//! 001, 003, 004).

use base64::prelude::{BASE64_STANDARD, Engine};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use url::Url;

use super::answer::{Entry, ParsedBody, failed_entry, plain, short};
use super::reports::{content as content_of, details, form, given_back, number, reference, time, token};
use super::{
    Credentials, Kind, Provider, Reply, Request, RequestBody, address, buttons, content, no_extra_info,
};
use crate::campaign::codes::{self, Code, Source};
use crate::campaign::delivery::{self, Delivery, News, ReplyContent, Report};
use crate::campaign::{BATCH_LIMIT, Doubt, DoubtCause, Envelope, Job, Phone, Problem};

/// Hosts: document 000. 200 requests a minute: `docs/providers.md`.
pub(super) const EXOTEL: Kind = Kind {
    name: "exotel",
    regions: &[("singapore", "https://api.exotel.com"), ("mumbai", "https://api.in.exotel.com")],
    needs: &["account_sid", "api_key", "api_token"],
    per_request: BATCH_LIMIT,
    frame: [r#"{"whatsapp":{"messages":["#, ",", "]}}"],
    concurrency: 8,
    requests: Some("200/min"),
    takes_callback: true,
    console: "",
    unknown_sender: None,
    open: |base, credentials| Ok(Box::new(Exotel::new(base, credentials)?)),
};

/// The longest id of a request that is kept.
const REQUEST_ID: usize = 64;

struct Exotel {
    url: Url,
    authorization: SecretString,
}

impl Exotel {
    fn new(base: &Url, credentials: &Credentials) -> Result<Self, String> {
        let url = address(base, ["v2", "accounts", &credentials.account_sid, "messages"])?;
        let (key, token) = (credentials.api_key.expose_secret(), credentials.api_token.expose_secret());
        let pair = BASE64_STANDARD.encode(format!("{key}:{token}"));
        Ok(Self { url, authorization: format!("Basic {pair}").into() })
    }
}

impl Provider for Exotel {
    fn envelope(&self, job: &Job, takes_reports: bool) -> Result<Envelope, Vec<Problem>> {
        no_extra_info(job)?;
        let mut content = content(job, json!({ "recipient_type": "individual" }));
        // As Exotel's own example writes a template: `policy` is given, a button's index is a string.
        if let Some(Value::Object(language)) = content.pointer_mut("/template/language") {
            let code = language.remove("code").unwrap_or_default();
            *language = Map::from_iter([("policy".into(), json!("deterministic")), ("code".into(), code)]);
        }
        for index in buttons(&mut content) {
            *index = json!(plain(Some(index)));
        }
        // Document 001: longitude and latitude are strings.
        for place in ["/location/longitude", "/location/latitude"] {
            if let Some(degrees) = content.pointer_mut(place).filter(|degrees| degrees.is_number()) {
                *degrees = json!(degrees.to_string());
            }
        }
        // On each message: the innermost wins (providers' facts). Without a text of the job's own the
        // message reference goes in its place, so that a report finds its message.
        let custom_data = job.custom_data.as_deref().unwrap_or("{{ message_ref }}");
        let mut message = json!({ "custom_data": custom_data });
        // Where flowcast takes reports itself, it hands them on to the job's own address.
        if takes_reports {
            message["status_callback"] = json!("");
        } else if let Some(callback) = &job.status_callback {
            message["status_callback"] = json!(callback);
        }
        message["from"] = json!(job.from);
        message["to"] = json!("{{ recipient }}");
        message["content"] = content;
        let mut envelope = Envelope::new(message, "/content", &[]);
        envelope.callback_at = takes_reports.then_some("/status_callback");
        Ok(envelope)
    }

    fn endpoint(&self, _: Phone) -> Url {
        self.url.clone()
    }

    fn request(&self, endpoint: Url, body: RequestBody) -> Request {
        Request {
            url: endpoint,
            authorization: ("authorization", self.authorization.clone()),
            body: body.finish(),
        }
    }

    fn reports(&self, body: &Value) -> Vec<Report> {
        let one = std::slice::from_ref(body);
        let list =
            ["/whatsapp/messages", "/messages"].iter().find_map(|place| body.pointer(place)?.as_array());
        list.map_or(one, Vec::as_slice).iter().filter_map(report).collect()
    }

    /// Documents 000 and 001, `request_id`: "useful for debugging and tracing purposes".
    fn request_id(&self, reply: &Reply) -> Option<String> {
        #[derive(Deserialize)]
        struct Body<'b> {
            request_id: &'b str,
        }
        let body: Body<'_> = serde_json::from_slice(&reply.body).ok()?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let id = body.request_id;
        ((1..=REQUEST_ID).contains(&id.len()) && id.bytes().all(is_plain)).then(|| id.to_owned())
    }

    fn parse(&self, reply: &Reply, count: usize) -> ParsedBody {
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
}

/// The usual answer, all accepted, read without building a tree of it. Whatever is not exactly that is
/// for the reader of trees.
fn all_accepted(reply: &Reply, count: usize) -> Option<Vec<Entry>> {
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
    // An answer that contradicts itself is told where all is read.
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
    /// Whether it says the same as so many entries in all, successes and failures; what it does not say is no
    /// contradiction.
    fn agrees_with(&self, counted: [usize; 3]) -> bool {
        let said = [self.total, self.success, self.failed];
        said.into_iter().zip(counted).all(|(said, counted)| said.is_none_or(|said| said == counted as u64))
    }
}

/// Tells of an answer whose metadata counts otherwise than its entries. What becomes of each message is said by its
/// entry alone.
fn compare_metadata(json: &Value, entries: &[Entry]) {
    let Some(metadata) = json.get("metadata").and_then(|value| Metadata::deserialize(value).ok()) else {
        return;
    };
    let success = entries.iter().filter(|entry| matches!(entry, Entry::Accepted { .. })).count();
    if !metadata.agrees_with([entries.len(), success, entries.len() - success]) {
        let request = plain(json.get("request_id")).map(|id| short(&id)).unwrap_or_default();
        tracing::warn!(
            "Exotel's answer to request {request} contradicts itself: its metadata counts {:?} messages, {:?} taken and \
             {:?} failed, and it has {} entries, of which {success} are successes; the entries count",
            metadata.total,
            metadata.success,
            metadata.failed,
            entries.len(),
        );
    }
}

/// The entries of as many messages. An entry does not say which message it is of (documents 000, 001): only where there is
/// one for each is it known whose it is.
fn of_messages(entries: Vec<Entry>, count: usize) -> Vec<Entry> {
    if entries.len() == count {
        return entries;
    }
    let found = entries.len();
    let detail = format!("the answer has {found} entries for {count} messages");
    vec![Entry::Unknown(Doubt { cause: DoubtCause::EntryCountMismatch, detail }); count]
}

/// The entries of an answer, if it has any.
fn entries(json: &Value) -> Option<Vec<Entry>> {
    let list = match json.pointer("/response/whatsapp/messages") {
        Some(Value::Array(list)) => list.iter().collect::<Vec<_>>(),
        // Document 003's other shape: one message's entry stands in `response` itself.
        _ => match json.get("response")? {
            Value::Array(list) => list.iter().collect(),
            one @ Value::Object(map) if map.contains_key("status") => vec![one],
            _ => return None,
        },
    };
    // Where it has judged others, the account has access.
    let is_judged =
        |one: &&Value| matches!(entry(one, false), Entry::Accepted { .. } | Entry::Rejected { .. });
    let judges_others = list.iter().any(is_judged);
    Some(list.into_iter().map(|one| entry(one, judges_others)).collect())
}

/// An entry; `judges_others` says whether others of the same answer are successes, or failures of their own.
fn entry(entry: &Value, judges_others: bool) -> Entry {
    let status = entry.get("status").and_then(Value::as_str).unwrap_or_default();
    let error = entry.get("error_data").filter(|error| !error.is_null());
    let number = |value: Option<&Value>| plain(value).and_then(|code| code.parse::<u32>().ok());
    let own = number(entry.get("code"));
    let fine = own.is_none_or(|code| (200..300).contains(&code));
    if status == "success" && fine && error.is_none() {
        let sid = ["/data/sid", "/data/message_id"].iter().find_map(|path| plain(entry.pointer(path)));
        // A success has an id (documents 000, 001).
        return match sid.filter(|sid| !sid.trim().is_empty()) {
            Some(sid) => Entry::Accepted { sid },
            None => Entry::Unknown(DoubtCause::NoMessageId.into()),
        };
    }
    let code = plain(error.and_then(|error| error.get("code"))).or_else(|| plain(entry.get("code")));
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
    failed_entry(code.clone(), known(own, &code, judges_others), detail)
}

/// What is known of an entry's code. It is the HTTP code of a single message (documents 000, 001): 401, 402 and
/// 403 speak of the account, 429 and 5xx of the moment, and none of them is a judgement of the message; a code
/// of Meta's is handed on. Any other is a rejection, and so is a 403 beside entries that were judged: the account
/// has access then.
fn known(own: Option<u32>, code: &str, judges_others: bool) -> Option<&'static Code> {
    let inner = code.parse().ok();
    // The entry's own code, where it has one: what stands inside it may be anybody's.
    let of_account = own.or(inner).filter(|code| match code {
        403 => !judges_others,
        code => matches!(code, 401 | 402),
    });
    let of_the_moment = own.into_iter().chain(inner).find(|code| *code == 429 || (500..600).contains(code));
    match of_account.or(of_the_moment) {
        Some(code @ (401..=403 | 429)) => codes::of(Source::Http, &code.to_string()),
        Some(_) => codes::of(Source::Http, "500"),
        None => codes::of_meta_handed_on(code),
    }
}

/// One report: of a delivery (`dlr`), of an answer (`icm`, `incoming_message`), or document 003's.
fn report(report: &Value) -> Option<Report> {
    let field = |name: &str| report.get(name);
    let word = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default();
    if word("event") == "flow_response" {
        let content = ReplyContent::Flow(form(field("response_json")?)?);
        let sid = plain(field("message_id"))?;
        return Some(Report {
            message: reference(field("flow_token")).or_else(|| token(&content)),
            recipient: number(field("from")),
            sender: None,
            custom_data: None,
            at: time(field("timestamp")),
            // It has no id of its own; a form is known by its fields.
            news: News::Reply(delivery::Reply {
                id: format!("flow:{sid}"),
                content,
                details: details(report, None),
            }),
            sid: Some(sid),
        });
    }
    if matches!(word("callback_type"), "icm" | "incoming_message") {
        let content = content_of(field("content")?)?;
        return Some(Report {
            message: token(&content),
            recipient: number(field("from")),
            sender: number(field("to")),
            custom_data: None,
            sid: plain(report.pointer("/content/context/sid")),
            at: time(field("timestamp")),
            news: News::Reply(delivery::Reply {
                id: plain(field("sid"))?,
                content,
                details: details(field("content")?, field("profile_name")),
            }),
        });
    }
    // By its name, because two public tables give other meanings to the numbers; by the number of
    // document 001 only where there is no name.
    let (name, number_) = (word("exo_detailed_status"), plain(field("exo_status_code")));
    let known = if name.is_empty() { number_.as_deref().and_then(codes::in_report)?.code } else { name };
    let state = match known {
        "EX_MESSAGE_SENT" => Delivery::Sent,
        "EX_MESSAGE_DELIVERED" => Delivery::Delivered,
        "EX_MESSAGE_SEEN" | "EX_MESSAGE_READ" => Delivery::Read,
        other if other.starts_with("EX_") => Delivery::Failed,
        _ => return None,
    };
    let text = [name, word("description")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    Some(Report {
        message: reference(field("custom_data")),
        recipient: number(field("to")),
        sender: None,
        custom_data: given_back(field("custom_data")),
        sid: plain(field("sid")),
        at: time(field("timestamp")),
        news: News::Delivery {
            state,
            // Number and text are kept as they came.
            code: number_.or_else(|| Some(known.to_owned())).filter(|_| state == Delivery::Failed),
            text: short(&text.join(": ")),
        },
    })
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
    use super::super::answer::Scope;
    use super::super::{Answer, body_of, classify};
    use super::*;

    fn exotel() -> Exotel {
        let base = "http://127.0.0.1:8025".parse().unwrap();
        let credentials = Credentials {
            account_sid: "acme1".into(),
            api_key: "key".into(),
            api_token: "token".into(),
            ..Credentials::default()
        };
        Exotel::new(&base, &credentials).unwrap()
    }

    fn read(status: u16, body: &str, count: usize) -> Answer {
        let reply = Reply { status, retry_after: None, body: body.to_string().into() };
        let said = exotel().parse(&reply, count);
        classify(&reply, said)
    }

    fn entry_of(entry: &str) -> Entry {
        match read(202, &format!(r#"{{"response":{{"whatsapp":{{"messages":[{entry}]}}}}}}"#), 1) {
            Answer::Entries(mut entries) => entries.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_entry_about_the_account_rejects_nobody() {
        let failure = |code: u32| {
            format!(
                r#"{{"code":{code},"status":"failure","error_data":{{"code":{code},"message":"Why","description":""}},"data":null}}"#
            )
        };
        for (code, expected) in [(401, Scope::Account), (402, Scope::Account), (403, Scope::Flows)] {
            let Entry::Refused { scope, reason } = entry_of(&failure(code)) else { panic!("{code}") };
            assert_eq!(scope, expected);
            assert!(reason.starts_with(&format!("{code}: Why; ")), "{reason}");
        }
        // Beside a success a 403 is about its own message; 401 and 402 never are.
        let success = r#"{"code":202,"error_data":null,"status":"success","data":{"sid":"s"}}"#;
        let both =
            |code| format!(r#"{{"response":{{"whatsapp":{{"messages":[{success},{}]}}}}}}"#, failure(code));
        let second = |code| match read(202, &both(code), 2) {
            Answer::Entries(mut entries) => entries.remove(1),
            other => panic!("{other:?}"),
        };
        assert!(matches!(second(403), Entry::Rejected { code, .. } if code == "403"));
        assert!(matches!(second(402), Entry::Refused { scope: Scope::Account, .. }));
    }

    #[test]
    fn a_success_without_an_id_is_in_doubt() {
        for data in ["null", "{}", r#"{"sid":""}"#, r#"{"sid":" "}"#] {
            let entry =
                entry_of(&format!(r#"{{"code":202,"error_data":null,"status":"success","data":{data}}}"#));
            assert!(matches!(entry, Entry::Unknown { .. }), "{data}: {entry:?}");
        }
    }

    #[test]
    fn a_request_carries_its_credentials_in_a_header_alone() {
        let endpoint = exotel().endpoint("+912248931479".parse().unwrap());
        let request = exotel().request(endpoint, body_of(&EXOTEL, &["{\"a\":1}", "{\"b\":2}"]));
        assert_eq!(request.url.as_str(), "http://127.0.0.1:8025/v2/accounts/acme1/messages");
        assert_eq!(request.authorization.1.expose_secret(), "Basic a2V5OnRva2Vu");
        assert_eq!(&*request.body, br#"{"whatsapp":{"messages":[{"a":1},{"b":2}]}}"#);
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
        for code in [429, 500, 503] {
            let entry = entry_of(&format!(
                r#"{{"code":{code},"status":"failure","error_data":{{"message":"later"}}}}"#
            ));
            let detail = "later".to_string();
            let expected = match code {
                429 => Entry::Limited { scope: Scope::Account, detail },
                _ => Entry::TryAgain { code: code.to_string(), detail },
            };
            assert_eq!(entry, expected);
        }
    }

    #[test]
    fn a_code_of_metas_in_an_entry_does_what_it_means() {
        let entry = |code| {
            entry_of(&format!(
                r#"{{"code":400,"status":"failure","error_data":{{"code":{code},"message":"why"}}}}"#
            ))
        };
        assert!(matches!(entry(130_429), Entry::Limited { scope: Scope::Account, .. }));
        assert!(matches!(entry(132_069), Entry::Limited { scope: Scope::Flow, .. }));
        assert!(matches!(entry(132_068), Entry::Refused { scope: Scope::Flow, .. }));
        assert!(matches!(entry(131_048), Entry::Refused { scope: Scope::Campaign, .. }));
        assert!(matches!(entry(131_056), Entry::TryAgain { .. }));
        for code in [131_026, 131_049, 400, 403, 1005, 4] {
            assert!(matches!(entry(code), Entry::Rejected { .. }), "{code}");
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
        let Answer::Entries(entries) = read(202, more, 1) else { panic!() };
        assert!(matches!(entries[..], [Entry::Unknown { .. }]));
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
    fn another_number_of_entries_than_of_messages_leaves_all_in_doubt() {
        let taken = r#"{"code":202,"status":"success","data":{"sid":"s"}}"#;
        let refused = r#"{"code":400,"status":"failure","error_data":{"code":1005,"message":"opted out"}}"#;
        for (list, count) in [
            (vec![], 1),
            (vec![taken], 3),
            (vec![refused], 2),
            (vec![taken, refused], 3),
            (vec![taken; 3], 2),
        ] {
            let body = format!(r#"{{"response":{{"whatsapp":{{"messages":[{}]}}}}}}"#, list.join(","));
            let Answer::Entries(entries) = read(202, &body, count) else { panic!("{body}") };
            assert_eq!(entries.len(), count);
            assert!(entries.iter().all(|entry| matches!(entry, Entry::Unknown { .. })), "{entries:?}");
            // With an error beside it either says the contrary of the other, where one was taken.
            let answer = read(400, &body, count);
            assert_eq!(matches!(answer, Answer::Unknown { .. }), list.contains(&taken), "{answer:?}");
        }
    }

    proptest::proptest! {
        /// What the quick reader takes for "all accepted", the reader of trees takes for it too.
        #[test]
        fn both_readers_agree(
            parts in proptest::collection::vec((0_usize..7, 0_usize..6, 0_usize..3, 0_usize..7), 0..4),
            count in 0_usize..4,
        ) {
            let entry = |&(code, error, status, data): &(usize, usize, usize, usize)| {
                let codes = ["", r#""code":200,"#, r#""code":202,"#, r#""code":400,"#, r#""code":"202","#,
                    r#""code":null,"#, r#""code":200,"code":500,"#];
                let errors = ["", r#""error_data":null,"#, r#""error_data":{},"#, r#""error_data":0,"#,
                    r#""error_data":null,"error_data":1,"#, r#""more":[{"x":1}],"#];
                let statuses = ["success", "failure", "queued"];
                let bodies = [r#"{"sid":"s1"}"#, r#"{"sid":""}"#, r#"{"sid":7}"#, r#"{"message_id":"s1"}"#,
                    r#"{"sid":"a\u0041"}"#, "null", r#"{"sid":"s1","sid":"s2"}"#];
                format!(r#"{{{}{}"status":"{}","data":{}}}"#, codes[code], errors[error], statuses[status],
                    bodies[data])
            };
            let list = parts.iter().map(entry).collect::<Vec<_>>().join(",");
            let body = format!(r#"{{"request_id":"r","response":{{"whatsapp":{{"messages":[{list}]}}}}}}"#);
            let reply = Reply { status: 202, retry_after: None, body: body.clone().into() };
            if let Some(quick) = all_accepted(&reply, count) {
                let json = serde_json::from_str(&body).unwrap();
                proptest::prop_assert_eq!(Some(quick), entries(&json));
            }
        }

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
    fn a_refusal_is_quoted_in_either_shape() {
        for body in [
            r#"{"RestException":{"Message":"Slow down"}}"#,
            r#"{"response":{"error":{"message":"Slow down"}}}"#,
        ] {
            let Answer::Limited { detail, .. } = read(429, body, 5) else { panic!("{body}") };
            assert_eq!(detail, "HTTP 429: Slow down");
        }
        for status in [500, 503] {
            assert!(matches!(read(status, r#"{"http_code":500}"#, 5), Answer::TryAgain { .. }), "{status}");
            assert!(matches!(read(status, "<html>Bad</html>", 5), Answer::Unknown { .. }), "{status}");
        }
    }

    #[test]
    fn the_documents_reports_are_read() {
        let one = |body: Value| exotel().reports(&body).remove(0);
        // Document 001, without its outer brace as it stands there and with it.
        let dlr = json!({ "callback_type": "dlr", "sid": "1234", "to": "919876543210", "exo_status_code": 25001,
            "exo_detailed_status": "EX_MESSAGE_DELIVERED", "description": "Message delivered",
            "timestamp": "2022-12-07T17:00:00.000+05:30", "custom_data": "custom" });
        for body in [json!({ "whatsapp": { "messages": [dlr] } }), json!({ "messages": [dlr] }), dlr.clone()]
        {
            let report = one(body);
            assert_eq!((report.sid.as_deref(), report.at), (Some("1234"), Some(1_670_412_600_000)));
            assert_eq!((report.message, report.recipient), (None, "+919876543210".parse().ok()));
            assert!(matches!(report.news, News::Delivery { state: Delivery::Delivered, code: None, .. }));
        }
        // Document 004's answer: JSON text inside JSON.
        let reply = json!({ "whatsapp": { "messages": [{ "callback_type": "incoming_message", "sid": "4743",
            "from": "+918871206831", "to": "+912248931479", "timestamp": "2023-10-21T12:35:00+05:30",
            "content": { "type": "interactive", "context": { "sid": "f317" }, "interactive": { "type": "nfm_reply",
                "nfm_reply": { "body": "Sent", "name": "galaxy_message",
                    "response_json": "{\"terms\":true,\"name\":\"Javed\"}" } } } }] } });
        let report = one(reply);
        assert_eq!(report.sid.as_deref(), Some("f317"));
        let News::Reply(reply) = report.news else { panic!() };
        let expected = json!({ "terms": true, "name": "Javed" }).as_object().unwrap().clone();
        assert_eq!((reply.id.as_str(), reply.content), ("4743", ReplyContent::Flow(expected)));
        // Document 003's.
        let flow = json!({ "event": "flow_response", "message_id": "msg_flow_001", "from": "+919876543210",
            "flow_token": "t", "response_json": { "reason": "Product" }, "timestamp": "2024-06-15T10:40:00.000Z" });
        assert!(
            matches!(one(flow).news, News::Reply(reply) if matches!(reply.content, ReplyContent::Flow(_)))
        );
    }

    #[test]
    fn a_failure_keeps_its_number_and_is_judged_by_its_name() {
        let failed = |number: u32, name: &str| {
            let body = json!({ "callback_type": "dlr", "sid": "1", "exo_status_code": number,
                "exo_detailed_status": name, "description": "why" });
            exotel().reports(&body).pop().map(|report| report.news)
        };
        let expected = |code: &str, text: &str| {
            Some(News::Delivery { state: Delivery::Failed, code: Some(code.into()), text: text.into() })
        };
        assert_eq!(
            failed(30_016, "EX_MEDIA_DOWNLOAD_ERROR"),
            expected("30016", "EX_MEDIA_DOWNLOAD_ERROR: why")
        );
        assert_eq!(failed(30_002, "EX_NUMBER_ERROR"), expected("30002", "EX_NUMBER_ERROR: why"));
        assert_eq!(failed(30_005, ""), expected("30005", "why"));
        assert_eq!(failed(99_999, ""), None);
    }
}
