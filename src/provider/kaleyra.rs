//! Kaleyra: `POST /v2/{sid}/whatsapp/{phone_number}/messages`, one message a request (document 002).

mod callbacks;
mod response;

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::answer::{ParsedBody, to_text};
use super::reports::of_meta;
use super::{Credentials, HttpResponse, Kind, Provider, Request, RequestBody, address, buttons, content};
use crate::campaign::delivery::DeliveryReport;
use crate::campaign::notice::Notice;
use crate::campaign::problem::nearest;
use crate::campaign::rules::{Authority, Limit};
use crate::campaign::{BATCH_LIMIT, Envelope, Job, Phone, Problem};
use callbacks::{CALLBACK_FIELDS, incoming};

/// Hosts: document 002. A batch is up to a hundred concurrent requests.
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
    console: "create a profile for the status of outgoing messages (POST, JSON) with the fields ref, message_id, status, recipient, timestamp, code and message, and set callback_profile_id to its id; create a profile for incoming messages (GET) whose URL ends with ?from=<from>&type=<type>&body=<body>&reply_to=<reply_to>&created_at=<created_at>&custom_response=<custom_response>; to authenticate callbacks, add an HTTP header to both profiles, and set callback_header to the same header",
    unknown_sender: Some("WA401"),
    open: |base, credentials| Ok(Box::new(Kaleyra::new(base, credentials)?)),
};

/// Limit of each of `ref`, `ref1` and `ref2` (document 002): 255 characters.
const REFERENCE: Limit =
    Limit { max: 255, may_be_empty: true, source: Authority::Kaleyra, is_text: true, whitespace: None };

struct Kaleyra {
    base: Url,
    account_sid: String,
    api_key: SecretString,
    callback_fields: BTreeMap<String, String>,
    callback_profile_id: Option<String>,
    /// The name of a header that callbacks carry, and the digest of its value.
    callback_header: Option<(HeaderName, blake3::Hash)>,
}

impl Kaleyra {
    fn new(base: &Url, credentials: &Credentials) -> Result<Self, String> {
        let account_sid = credentials.account_sid.clone();
        // Check once here, so that building a request's URL cannot fail.
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
            let wrong = |_| format!("callback_header: {name:?} is not a valid header name");
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

impl Provider for Kaleyra {
    fn envelope(&self, job: &Job, takes_reports: bool) -> Result<Envelope, Vec<Problem>> {
        if job.status_callback.is_some() && !takes_reports {
            let message = "Kaleyra accepts no callback URL with a message; set http.public_url, so that flowcast receives the reports and forwards them";
            return Err(vec![Problem::new("/status_callback", message)]);
        }
        if job.custom_data.is_some() && job.extra_info.ref1.is_some() {
            let message = "Kaleyra sends custom_data as ref1; remove one of the two";
            return Err(vec![Problem::new("/extra_info/ref1", message)]);
        }
        of_template(job)?;
        let mut content = content(
            job,
            json!({ "messaging_product": "whatsapp", "recipient_type": "individual", "to": "{{ recipient }}" }),
        );
        // Follow the document's example of a template: a language has only its code, a button's index is a number.
        if let Some(Value::Object(language)) = content.pointer_mut("/template/language") {
            language.remove("policy");
        }
        for index in buttons(&mut content) {
            *index = json!(to_text(Some(index)).and_then(|text| text.parse::<u8>().ok()));
        }
        // The order of fields in the document's sample.
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
        // The path has the business number, although the document's table says otherwise: its errors ("does not
        // belong to the account") and its sample show it.
        let from = from.to_string();
        let steps = ["v2", &self.account_sid, "whatsapp", &from, "messages"];
        address(&self.base, steps).unwrap_or_else(|_| self.base.clone())
    }

    fn request(&self, endpoint: Url, body: RequestBody) -> Request {
        Request { url: endpoint, authorization: ("api-key", self.api_key.clone()), body: body.finish() }
    }

    /// The customer names the fields of a status; replies may come in Meta's format.
    fn reports(&self, body: &Value) -> Vec<DeliveryReport> {
        if body.get("entry").is_some() {
            return of_meta(body);
        }
        let list = std::slice::from_ref(body);
        let reports = body.as_array().map_or(list, Vec::as_slice).iter();
        reports
            .filter_map(|report| if self.has_status(report) { self.report(report) } else { incoming(report) })
            .collect()
    }

    /// Notices about templates come from a profile of their own, those about a number's limit at the incoming
    /// address.
    fn notices(&self, body: &Value) -> Vec<Notice> {
        let list = std::slice::from_ref(body);
        body.as_array().map_or(list, Vec::as_slice).iter().filter_map(Notice::read).collect()
    }

    /// Checks the header that the customer added to the callback profile.
    fn proves(&self, headers: &HeaderMap, _: &[u8]) -> bool {
        let Some((name, digest)) = &self.callback_header else { return true };
        headers.get(name).is_some_and(|value| blake3::hash(value.as_bytes()) == *digest)
    }

    fn parse(&self, reply: &HttpResponse, _: usize) -> ParsedBody {
        response::parse(reply)
    }
}

/// Checks that a template has components and each has parameters, as document 002 requires.
fn of_template(job: &Job) -> Result<(), Vec<Problem>> {
    let Some(template) = job.message.get("template") else { return Ok(()) };
    let Some(components) = template.get("components").and_then(Value::as_array) else {
        let more = " (Kaleyra's documentation); use [] if the template has no variables";
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

#[cfg(test)]
mod tests;
