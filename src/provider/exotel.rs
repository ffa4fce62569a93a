//! Exotel: `POST /v2/accounts/{account_sid}/messages`, up to 100 messages a request (documents 000,
//! 001, 003, 004).

mod callbacks;
mod response;

use base64::prelude::{BASE64_STANDARD, Engine};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::answer::{ParsedBody, to_text};
use super::{
    Credentials, HttpResponse, Kind, Provider, Request, RequestBody, address, buttons, content, no_extra_info,
};
use crate::campaign::delivery::DeliveryReport;
use crate::campaign::{BATCH_LIMIT, Envelope, Job, Phone, Problem};

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

/// Maximum length of a request id that is kept, in bytes.
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
        // Follow Exotel's example of a template: `policy` is present, a button's index is a string.
        if let Some(Value::Object(language)) = content.pointer_mut("/template/language") {
            let code = language.remove("code").unwrap_or_default();
            *language = Map::from_iter([("policy".into(), json!("deterministic")), ("code".into(), code)]);
        }
        for index in buttons(&mut content) {
            *index = json!(to_text(Some(index)));
        }
        // Document 001: longitude and latitude are strings.
        for place in ["/location/longitude", "/location/latitude"] {
            if let Some(degrees) = content.pointer_mut(place).filter(|degrees| degrees.is_number()) {
                *degrees = json!(degrees.to_string());
            }
        }
        // Set on each message, since the innermost value wins. Without the job's own `custom_data` it is the message
        // reference, so that a report can be matched to its message.
        let custom_data = job.custom_data.as_deref().unwrap_or("{{ message_ref }}");
        let mut message = json!({ "custom_data": custom_data });
        // If flowcast receives reports itself, it forwards them to the job's own address.
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

    fn reports(&self, body: &Value) -> Vec<DeliveryReport> {
        let one = std::slice::from_ref(body);
        let list =
            ["/whatsapp/messages", "/messages"].iter().find_map(|place| body.pointer(place)?.as_array());
        list.map_or(one, Vec::as_slice).iter().filter_map(callbacks::report).collect()
    }

    /// Documents 000 and 001, `request_id`: "useful for debugging and tracing purposes".
    fn request_id(&self, reply: &HttpResponse) -> Option<String> {
        #[derive(Deserialize)]
        struct Body<'b> {
            request_id: &'b str,
        }
        let body: Body<'_> = serde_json::from_slice(&reply.body).ok()?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let id = body.request_id;
        ((1..=REQUEST_ID).contains(&id.len()) && id.bytes().all(is_plain)).then(|| id.to_owned())
    }

    fn parse(&self, reply: &HttpResponse, count: usize) -> ParsedBody {
        response::parse(reply, count)
    }
}

#[cfg(test)]
mod tests;
