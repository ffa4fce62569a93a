//! Kaleyra: `POST /v2/{sid}/whatsapp/{phone_number}/messages`, one message a request (document 002).

use std::collections::BTreeMap;

use jsonc_parser::ast::Object;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use reqwest::header::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::answer::{Entry, ParsedBody, plain, short};
use super::reports::{
    WORDS, content as content_of, details, form, given_back, is_no_answer, number, of_meta, reference, state,
    time, token,
};
use super::{
    Credentials, Kind, Provider, Reply as HttpReply, Request, RequestBody, address, buttons, content,
};
use crate::campaign::codes::{self, Source};
use crate::campaign::delivery::{News, Reply, ReplyContent, Report};
use crate::campaign::notice::Notice;
use crate::campaign::problem::nearest;
use crate::campaign::rules::{Authority, Limit};
use crate::campaign::{BATCH_LIMIT, DoubtCause, Envelope, Job, Phone, Problem};

/// Hosts: document 002. A batch is up to a hundred requests at once.
pub(super) const KALEYRA: Kind = Kind {
    name: "kaleyra",
    regions: &[
        ("in", "https://api.in.kaleyra.io"),
        ("ap", "https://api.ap.kaleyra.io"),
        ("eu", "https://api.eu.kaleyra.io"),
    ],
    needs: &["account_sid", "api_key"],
    per_request: 1,
    frame: ["", "", ""],
    concurrency: BATCH_LIMIT as u16,
    requests: None,
    takes_callback: false,
    console: "a profile for the status of outgoing messages (POST, JSON) with the fields ref, message_id, status, recipient, timestamp, code and message, its id as callback_profile_id; one for incoming messages (GET) with the address and ?from=<from>&type=<type>&body=<body>&reply_to=<reply_to>&created_at=<created_at>&custom_response=<custom_response>; with an HTTP header of yours in both and the same as callback_header each of them proves itself",
    unknown_sender: Some("WA401"),
    open: |base, credentials| Ok(Box::new(Kaleyra::new(base, credentials)?)),
};

/// Document 002: each of `ref`, `ref1` and `ref2` has at most 255 characters.
const REFERENCE: Limit =
    Limit { max: 255, may_be_empty: true, source: Authority::Kaleyra, is_text: true, whitespace: None };
/// The code of a message that was taken.
const TAKEN: &str = "WA202";

struct Kaleyra {
    base: Url,
    account_sid: String,
    api_key: SecretString,
    callback_fields: BTreeMap<String, String>,
    callback_profile_id: Option<String>,
    /// A header that callbacks have, and the digest of its value.
    callback_header: Option<(HeaderName, blake3::Hash)>,
}

impl Kaleyra {
    fn new(base: &Url, credentials: &Credentials) -> Result<Self, String> {
        let account_sid = credentials.account_sid.clone();
        // Once here, so that a request's address can't fail.
        address(base, [account_sid.as_str()])?;
        if let Some(unknown) = credentials
            .callback_fields
            .keys()
            .find(|name| CALLBACK_FIELDS.iter().all(|(known, _)| known != &name.as_str()))
        {
            let near = nearest(unknown, CALLBACK_FIELDS.iter().map(|(known, _)| *known));
            return Err(format!("callback_fields.{unknown} is unknown{near}"));
        }
        let header = |(name, value): &(String, SecretString)| {
            let wrong = |_| format!("callback_header: {name:?} is no name of a header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(wrong)?;
            Ok::<_, String>((name, blake3::hash(value.expose_secret().as_bytes())))
        };
        Ok(Self {
            callback_profile_id: credentials.callback_profile_id.clone(),
            callback_header: credentials.callback_header.as_ref().map(header).transpose()?,
            base: base.clone(),
            account_sid,
            api_key: credentials.api_key.clone(),
            callback_fields: credentials.callback_fields.clone(),
        })
    }
}

/// What flowcast reads of a callback, and what the fields are called unless the account says otherwise.
pub(crate) const CALLBACK_FIELDS: [(&str, &str); 8] = [
    ("ref", "ref"),
    ("custom_data", "ref1"),
    ("id", "message_id"),
    ("status", "status"),
    ("recipient", "recipient"),
    ("at", "timestamp"),
    ("code", "code"),
    ("text", "message"),
];

impl Kaleyra {
    /// A field of a callback, by what flowcast reads of it.
    fn field<'r>(&self, report: &'r Value, what: &str) -> Option<&'r Value> {
        let usual = CALLBACK_FIELDS.iter().find(|(known, _)| *known == what).map(|(_, name)| *name);
        let name = self.callback_fields.get(what).map(String::as_str).or(usual)?;
        // A field may stand deeper, by a JSON pointer.
        if name.starts_with('/') { report.pointer(name) } else { report.get(name) }
    }

    /// Whether a callback tells of a message that was sent, also where its word is none that is known: what
    /// stands in it then was not said by a person.
    fn has_status(&self, report: &Value) -> bool {
        self.field(report, "status").is_some_and(|status| *status != json!(""))
    }

    fn report(&self, report: &Value) -> Option<Report> {
        let field = |what: &str| self.field(report, what);
        Some(Report {
            message: reference(field("ref")),
            recipient: number(field("recipient")),
            sender: None,
            custom_data: given_back(field("custom_data")),
            sid: plain(field("id")),
            at: time(field("at")),
            news: News::Delivery {
                state: state(field("status")?.as_str()?)?,
                code: plain(field("code")),
                text: field("text").and_then(Value::as_str).map(short).unwrap_or_default(),
            },
        })
    }
}

/// What a person sent, as the profile of incoming messages tells it: its placeholders under their own names.
fn incoming(report: &Value) -> Option<Report> {
    let field = |name: &str| report.get(name).filter(|value| **value != json!(""));
    let text = |name: &str| field(name).and_then(Value::as_str);
    let recipient = number(field("from")).or_else(|| number(field("mobile")))?;
    if is_no_answer(field("type")) {
        return None;
    }
    let message = text("message").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let message = message.as_ref().or(field("message")).filter(|message| message.is_object());
    let content = if let Some(fields) = field("custom_response").and_then(form) {
        ReplyContent::Flow(fields)
    } else if let Some(words) = text("body") {
        ReplyContent::Text(words.chars().take(WORDS).collect())
    } else if let Some(message) = message {
        content_of(message)?
    } else {
        ReplyContent::Other(text("type")?.into())
    };
    Some(Report {
        message: token(&content),
        recipient: Some(recipient),
        sender: number(field("wanumber")),
        custom_data: None,
        sid: plain(field("reply_to")),
        at: time(field("created_at")),
        // It has no id of its own: what comes again is the same to the letter.
        news: News::Reply(Reply {
            id: blake3::hash(report.to_string().as_bytes()).to_hex()[..32].into(),
            content,
            details: details(message.unwrap_or(report), field("name")),
        }),
    })
}

impl Provider for Kaleyra {
    fn envelope(&self, job: &Job, takes_reports: bool) -> Result<Envelope, Vec<Problem>> {
        if job.status_callback.is_some() && !takes_reports {
            let message = "Kaleyra takes no callback address with a message; with http.public_url flowcast takes its reports, and hands them on there";
            return Err(vec![Problem::new("/status_callback", message)]);
        }
        if job.custom_data.is_some() && job.extra_info.ref1.is_some() {
            let message = "with Kaleyra custom_data goes out as ref1; leave one of the two out";
            return Err(vec![Problem::new("/extra_info/ref1", message)]);
        }
        of_template(job)?;
        let mut content = content(
            job,
            json!({ "messaging_product": "whatsapp", "recipient_type": "individual", "to": "{{ recipient }}" }),
        );
        // As the document's example writes a template: a language is its code, a button's index a number.
        if let Some(Value::Object(language)) = content.pointer_mut("/template/language") {
            language.remove("policy");
        }
        for index in buttons(&mut content) {
            *index = json!(plain(Some(index)).and_then(|text| text.parse::<u8>().ok()));
        }
        // The order of the document's own sample.
        let mut info = json!({ "ref": "{{ message_ref }}" });
        if let Some(ref1) = job.custom_data.as_ref().or(job.extra_info.ref1.as_ref()) {
            info["ref1"] = json!(ref1);
        }
        if let Some(ref2) = &job.extra_info.ref2 {
            info["ref2"] = json!(ref2);
        }
        info["wa_source"] = json!(job.extra_info.wa_source.as_deref().unwrap_or("api"));
        let mut message = json!({ "messaging_object": content, "extra_info": info });
        if let Some(profile) = &self.callback_profile_id {
            message["callback_profile_id"] = json!(profile);
        }
        let mut envelope = Envelope::new(message, "/messaging_object", &["messaging_product", "to"]);
        if job.custom_data.is_some() {
            envelope.moved.push(("/extra_info/ref1", "/custom_data"));
        }
        envelope.limits.extend(["/extra_info/ref1", "/extra_info/ref2"].map(|place| (place, REFERENCE)));
        Ok(envelope)
    }

    fn endpoint(&self, from: Phone) -> Url {
        // The business number, though the document's table says otherwise: its errors ("does not belong
        // to the account") and its sample show it.
        let from = from.to_string();
        let steps = ["v2", &self.account_sid, "whatsapp", &from, "messages"];
        address(&self.base, steps).unwrap_or_else(|_| self.base.clone())
    }

    fn request(&self, endpoint: Url, body: RequestBody) -> Request {
        Request { url: endpoint, authorization: ("api-key", self.api_key.clone()), body: body.finish() }
    }

    /// Its customer decides what the fields are called; people's answers come in Meta's shape.
    fn reports(&self, body: &Value) -> Vec<Report> {
        if body.get("entry").is_some() {
            return of_meta(body);
        }
        let list = std::slice::from_ref(body);
        let reports = body.as_array().map_or(list, Vec::as_slice).iter();
        reports
            .filter_map(|report| if self.has_status(report) { self.report(report) } else { incoming(report) })
            .collect()
    }

    /// Of templates by a profile of their own, of a number's limit at the incoming address.
    fn notices(&self, body: &Value) -> Vec<Notice> {
        let list = std::slice::from_ref(body);
        body.as_array().map_or(list, Vec::as_slice).iter().filter_map(Notice::read).collect()
    }

    /// A header that its customer has added to the callback profile.
    fn proves(&self, headers: &HeaderMap, _: &[u8]) -> bool {
        let Some((name, digest)) = &self.callback_header else { return true };
        headers.get(name).is_some_and(|value| blake3::hash(value.as_bytes()) == *digest)
    }

    fn parse(&self, reply: &HttpReply, _: usize) -> ParsedBody {
        if let Some(sid) = taken(&reply.body) {
            return ParsedBody::Entries(vec![Entry::Accepted { sid: sid.to_owned() }]);
        }
        let Some(Words { code: Some(code), message, message_id, error }) = words(&reply.body) else {
            return ParsedBody::Foreign { text: String::new() };
        };
        if code != TAKEN {
            let known = codes::of(Source::Kaleyra, &code).or_else(|| codes::of_meta_handed_on(&code));
            let text = match error {
                Some((field, why)) => format!("{code}: {message} ({field}: {why})"),
                None => format!("{code}: {message}"),
            };
            return ParsedBody::Error { text: short(&text), code: Some(code), known };
        }
        ParsedBody::Entries(vec![match message_id {
            Some(sid) if !sid.is_empty() => Entry::Accepted { sid },
            _ => Entry::Unknown(DoubtCause::NoMessageId.into()),
        }])
    }
}

/// Document 002: a template's components are required, and so are a button's parameters.
fn of_template(job: &Job) -> Result<(), Vec<Problem>> {
    let Some(template) = job.message.get("template") else { return Ok(()) };
    let Some(components) = template.get("components").and_then(Value::as_array) else {
        let more = " (Kaleyra's documentation); [] where the template has no variables";
        return Err(vec![Problem::missing("/message/template", "components", more)]);
    };
    let lacks = |component: &Value| component.get("parameters").is_none();
    let problem = |(nth, _): (usize, &Value)| {
        let component = format!("/message/template/components/{nth}");
        Problem::missing(component, "parameters", " (Kaleyra's documentation)")
    };
    let problems: Vec<_> =
        components.iter().enumerate().filter(|(_, component)| lacks(component)).map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The documented fields of an answer.
struct Words {
    code: Option<String>,
    message: String,
    message_id: Option<String>,
    /// The field that is wrong, and how: `"error": {"phone_number": …}`.
    error: Option<(String, String)>,
}

/// The usual answer, read without building a tree of it. Whatever is not exactly that is for the reader
/// of trees.
fn taken(body: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Body<'b> {
        code: &'b str,
        #[serde(borrow)]
        data: Data<'b>,
    }
    #[derive(Deserialize)]
    struct Data<'b> {
        message_id: &'b str,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    Some(body.data.message_id).filter(|sid| body.code == TAKEN && !sid.is_empty())
}

/// Reads an answer as JSON, or else leniently: the document's own sample lacks commas.
fn words(body: &[u8]) -> Option<Words> {
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        return Some(Words {
            code: plain(json.get("code")),
            message: plain(json.get("message")).unwrap_or_default(),
            message_id: plain(json.pointer("/data/message_id")),
            error: json
                .get("error")
                .and_then(Value::as_object)
                .and_then(|error| {
                    error.iter().find_map(|(field, why)| Some((field.clone(), plain(Some(why))?)))
                })
                .filter(|(field, _)| field != "error"),
        });
    }
    let lenient = ParseOptions {
        allow_missing_commas: true,
        allow_trailing_commas: true,
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let text = std::str::from_utf8(body).ok()?;
    // Through the tree, because that alone bounds how deep a hostile answer may nest.
    let tree = parse_to_ast(text, &CollectOptions::default(), &lenient).ok()?;
    let root = tree.value?;
    let object = root.as_object()?;
    let text = |object: &Object<'_>, name| object.get_string(name).map(|text| text.value.to_string());
    Some(Words {
        code: text(object, "code"),
        message: text(object, "message").unwrap_or_default(),
        message_id: object.get_object("data").and_then(|data| text(data, "message_id")),
        error: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::answer::Scope;
    use super::super::body_of;
    use super::super::{Answer, classify};
    use super::*;

    fn kaleyra() -> Kaleyra {
        let base = "https://api.in.kaleyra.io".parse().unwrap();
        let credentials = Credentials {
            account_sid: "HXAP1600000097IN".into(),
            api_key: "key".into(),
            api_token: String::new().into(),
            ..Credentials::default()
        };
        Kaleyra::new(&base, &credentials).unwrap()
    }

    fn read(status: u16, body: &str) -> Answer {
        let reply = HttpReply { status, retry_after: None, body: body.to_string().into() };
        classify(&reply, kaleyra().parse(&reply, 1))
    }

    fn taken(sid: &str) -> Answer {
        Answer::Entries(vec![Entry::Accepted { sid: sid.into() }])
    }

    #[test]
    fn a_request_goes_to_the_business_numbers_address() {
        let endpoint = kaleyra().endpoint("+912248931479".parse().unwrap());
        let request = kaleyra().request(endpoint, body_of(&KALEYRA, &["{\"a\":1}"]));
        assert_eq!(
            request.url.as_str(),
            "https://api.in.kaleyra.io/v2/HXAP1600000097IN/whatsapp/+912248931479/messages"
        );
        assert_eq!((request.authorization.0, &*request.body), ("api-key", &b"{\"a\":1}"[..]));
    }

    #[test]
    fn wa202_is_accepted_with_its_message_id() {
        let body = r#"{"code":"WA202","message":"Request Accepted","data":{"message_id":"A1"},"error":{}}"#;
        assert_eq!(read(202, body), taken("A1"));
    }

    #[test]
    fn the_documents_own_sample_which_lacks_commas_is_read() {
        let sample = "{\n\"code\":\"WA202\"\n\"message\":\"Request Accepted\",\n\"data\":{\n  \"message_id\":\"AXX\"\n}\n\"error\":{}\n}";
        assert!(serde_json::from_str::<Value>(sample).is_err());
        assert_eq!(read(202, sample), taken("AXX"));
    }

    #[test]
    fn what_can_not_be_read_is_in_doubt() {
        let cut = r#"{"code":"WA202","message":"Request Accepted","data":{"message_id":"A"#;
        let deep = "[".repeat(1 << 20);
        let deep_data = format!(r#"{{"code":"WA202","data":{}"#, "{\"data\":".repeat(100_000));
        for body in ["", "<html>", "{}", "[]", "null", r#"{"code":"WA299"}"#, cut, &deep, &deep_data] {
            assert!(matches!(read(202, body), Answer::Unknown { .. }), "{}", &body[..body.len().min(80)]);
        }
        let nameless = r#"{"code":"WA202","data":{}}"#;
        assert!(
            matches!(read(202, nameless), Answer::Entries(entries) if matches!(entries[..], [Entry::Unknown { .. }]))
        );
    }

    #[test]
    fn each_documented_error_does_what_the_table_says() {
        let error =
            |code: &str| format!(r#"{{"code":"{code}","message":"Why","data":{{}},"error":{{"x":"Why"}}}}"#);
        for (status, code, expected) in [
            (401, "RBC001", Scope::Account),
            (401, "WA401", Scope::Sender),
            (401, "WA-401", Scope::Sender),
            (400, "E110", Scope::Account),
        ] {
            let Answer::Refused { scope, reason } = read(status, &error(code)) else { panic!("{code}") };
            assert_eq!(scope, expected, "{code}");
            // The field that is wrong is named.
            assert!(reason.starts_with(&format!("HTTP {status}: {code}: Why (x: Why); ")), "{reason}");
        }
        // Document 002: RBC001 has a list for its data.
        let listed =
            r#"{"code":"RBC001","message":"Incorrect SID or API key.","data":[],"error":{"error":"Why"}}"#;
        assert!(matches!(read(401, listed), Answer::Refused { scope: Scope::Account, .. }));
        let wrong =
            Answer::Malformed { code: "WA400".into(), detail: "HTTP 400: WA400: Why (x: Why)".into() };
        assert_eq!(read(400, &error("WA400")), wrong);
        assert!(matches!(read(500, &error("WA500")), Answer::TryAgain { .. }));
        assert!(matches!(read(500, "<html>"), Answer::Unknown { .. }));
    }

    #[test]
    fn a_callbacks_fields_are_called_as_its_customer_likes() {
        let usual = json!({ "ref": "c1.0.3", "message_id": "A1", "status": "Delivered",
            "recipient": "919876543210", "timestamp": "1670412600" });
        let report = kaleyra().reports(&usual).remove(0);
        assert_eq!((report.sid.as_deref(), report.at), (Some("A1"), Some(1_670_412_600_000)));
        assert_eq!(report.message.unwrap().to_string(), "c1.0.3");
        let base = "https://api.in.kaleyra.io".parse().unwrap();
        let fields = [("ref", "/extra/ref"), ("status", "state"), ("code", "error")];
        let mut credentials = Credentials {
            account_sid: "HX".into(),
            api_key: "key".into(),
            api_token: String::new().into(),
            callback_fields: fields.map(|(what, name)| (what.into(), name.into())).into(),
            ..Credentials::default()
        };
        let own = Kaleyra::new(&base, &credentials).unwrap();
        let body = json!([{ "extra": { "ref": "c1.0.3" }, "state": "failed", "error": 131_026 }]);
        let report = own.reports(&body).remove(0);
        assert!(matches!(report.news, News::Delivery { code: Some(code), .. } if code == "131026"));
        credentials.callback_fields.insert("reff".into(), "x".into());
        let fault = Kaleyra::new(&base, &credentials).err().unwrap();
        assert_eq!(fault, "callback_fields.reff is unknown; did you mean \"ref\"?");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic_or_accept_without_proof(
            status in 100..600_u16,
            body in "\\PC{0,40}|(\\{|\\}|\\[|\\]|:|,|\"code\"|\"data\"|\"message_id\"|\"WA202\"|\"WA400\"|400|null){0,20}",
        ) {
            let accepts = matches!(read(status, &body), Answer::Entries(entries) if matches!(entries[..], [Entry::Accepted { .. }]));
            let is_said = body.contains("WA202") && body.contains("message_id") && (200..300).contains(&status);
            proptest::prop_assert!(!accepts || is_said, "{body}");
        }
    }

    #[test]
    fn what_people_send_is_read_by_the_placeholders_of_its_profile() {
        let read = |body: Value| kaleyra().reports(&body).remove(0);
        let words = read(json!({ "from": "919876543210", "wanumber": "912248931479", "type": "text",
            "body": "Monday, please", "reply_to": "A1", "created_at": "1670412600", "name": "Asha" }));
        assert_eq!((words.sid.as_deref(), words.at), (Some("A1"), Some(1_670_412_600_000)));
        assert_eq!(words.recipient.unwrap().to_string(), "+919876543210");
        assert!(
            matches!(&words.news, News::Reply(reply) if reply.content == ReplyContent::Text("Monday, please".into()))
        );
        let form = read(json!({ "from": "919876543210", "type": "interactive", "body": "",
            "custom_response": "{\"flow_token\":\"c1.0.3\",\"day\":\"monday\"}" }));
        assert_eq!(form.message.unwrap().to_string(), "c1.0.3");
        let image =
            read(json!({ "from": "919876543210", "type": "image", "body": "", "media_url": "https://x" }));
        assert!(
            matches!(&image.news, News::Reply(reply) if reply.content == ReplyContent::Other("image".into()))
        );
        let sent = json!({ "status": "queued", "from": "912248931479", "body": "STOP" });
        for nothing in
            [json!({}), json!({ "from": "x", "body": "y" }), json!({ "from": "919876543210" }), sent]
        {
            assert!(kaleyra().reports(&nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn a_header_that_the_account_names_proves_a_callback() {
        let base = "https://api.in.kaleyra.io".parse().unwrap();
        let mut credentials = Credentials {
            account_sid: "HX".into(),
            callback_header: Some(("X-Callback-Key".into(), "secret".into())),
            ..Credentials::default()
        };
        let account = Kaleyra::new(&base, &credentials).unwrap();
        let with = |value: &str| {
            HeaderMap::from_iter([(HeaderName::from_static("x-callback-key"), value.parse().unwrap())])
        };
        assert!(account.proves(&with("secret"), b"") && !account.proves(&with("secre"), b""));
        assert!(!account.proves(&HeaderMap::new(), b""));
        credentials.callback_header = Some(("a b".into(), "secret".into()));
        assert!(Kaleyra::new(&base, &credentials).err().unwrap().contains("is no name of a header"));
    }
}
