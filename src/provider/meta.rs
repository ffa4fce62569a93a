//! Meta's own Cloud API: `POST /{phone_number_id}/messages`, one message a request. The account's
//! `account_sid` is the id of the phone number, its `api_token` the access token.

use reqwest::header::HeaderMap;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::answer::{Entry, ParsedBody, short, to_text};
use super::reports::{number, of_meta};
use super::{
    Credentials, HttpResponse, Kind, Provider, Request, RequestBody, address, buttons, content, no_extra_info,
};
use crate::campaign::codes::{self, Source};
use crate::campaign::delivery::DeliveryReport;
use crate::campaign::notice::Notice;
use crate::campaign::rules::{Authority, Limit};
use crate::campaign::{BATCH_LIMIT, Envelope, Job, Phone, Problem};

/// The host, with the API version that this is written for.
pub(super) const META: Kind = Kind {
    name: "meta",
    regions: &[("global", "https://graph.facebook.com/v24.0")],
    needs: &["account_sid", "api_token"],
    per_request: 1,
    frame: ["", "", ""],
    concurrency: BATCH_LIMIT as u16,
    requests: None,
    takes_callback: false,
    console: "subscribe it to the field messages; to authenticate webhooks, set app_secret to the app's secret",
    unknown_sender: None,
    open: |base, credentials| Ok(Box::new(Meta::new(base, credentials)?)),
};

/// `biz_opaque_callback_data` has at most 512 characters.
const OPAQUE: Limit =
    Limit { max: 512, may_be_empty: true, source: Authority::Meta, is_text: true, whitespace: None };

struct Meta {
    url: Url,
    authorization: SecretString,
    /// Of the app's secret.
    signing_key: Option<hmac::Key>,
}

impl Meta {
    fn new(base: &Url, credentials: &Credentials) -> Result<Self, String> {
        let url = address(base, [credentials.account_sid.as_str(), "messages"])?;
        let token = credentials.api_token.expose_secret();
        let key =
            |secret: &SecretString| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let signing_key = credentials.app_secret.as_ref().map(key);
        Ok(Self { url, authorization: format!("Bearer {token}").into(), signing_key })
    }
}

impl Provider for Meta {
    fn envelope(&self, job: &Job, takes_reports: bool) -> Result<Envelope, Vec<Problem>> {
        no_extra_info(job)?;
        if job.status_callback.is_some() && !takes_reports {
            let message = "Meta accepts no callback URL with a message; set http.public_url, so that flowcast receives the reports and forwards them";
            return Err(vec![Problem::new("/status_callback", message)]);
        }
        let first = json!({ "messaging_product": "whatsapp", "recipient_type": "individual", "to": "{{ recipient }}" });
        let mut message = content(job, first);
        // Meta's examples write a button's index as a string.
        for index in buttons(&mut message) {
            *index = json!(to_text(Some(index)));
        }
        // Each report returns the reference, followed by the job's `custom_data`.
        let custom_data = job.custom_data.as_ref().map(|text| format!(" {text}")).unwrap_or_default();
        message["biz_opaque_callback_data"] = json!(format!("{{{{ message_ref }}}}{custom_data}"));
        let beside = &["messaging_product", "to", "biz_opaque_callback_data"];
        let mut envelope = Envelope::new(message, "", beside);
        envelope.moved.push(("/biz_opaque_callback_data", "/custom_data"));
        envelope.limits.push(("/biz_opaque_callback_data", OPAQUE));
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

    /// Meta signs each webhook with the app's secret: `X-Hub-Signature-256: sha256=HEX`.
    fn proves(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let Some(key) = &self.signing_key else { return true };
        let signature = headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok());
        let hex = signature.and_then(|signature| signature.strip_prefix("sha256="));
        let bytes = hex.and_then(from_hex);
        bytes.is_some_and(|signature| hmac::verify(key, body, &signature).is_ok())
    }

    fn reports(&self, body: &Value) -> Vec<DeliveryReport> {
        of_meta(body)
    }

    /// Its changes `message_template_status_update` and `phone_number_quality_update`.
    fn notices(&self, body: &Value) -> Vec<Notice> {
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let changes = list(body, "entry").into_iter().flat_map(|entry| list(&entry, "changes"));
        changes.filter_map(|change| Notice::read(&change["value"])).collect()
    }

    /// `contacts[0].wa_id`.
    fn recipient(&self, reply: &HttpResponse) -> Option<Phone> {
        let json: Value = serde_json::from_slice(&reply.body).ok()?;
        number(json.pointer("/contacts/0/wa_id"))
    }

    fn parse(&self, reply: &HttpResponse, _: usize) -> ParsedBody {
        let Ok(json) = serde_json::from_slice::<Value>(&reply.body) else {
            return ParsedBody::Foreign { text: String::new() };
        };
        if let Some(sid) = to_text(json.pointer("/messages/0/id")).filter(|sid| !sid.is_empty()) {
            return ParsedBody::Entries(vec![Entry::Accepted { sid }]);
        }
        let Some(error) = json.get("error").filter(|error| error.is_object()) else {
            return ParsedBody::Foreign { text: String::new() };
        };
        let code = to_text(error.get("code"));
        let text = |pointer| error.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let text = match (text("/message"), text("/error_data/details")) {
            (one, "") | ("", one) => short(one),
            (message, details) => short(&format!("{message}: {details}")),
        };
        let known = code.as_deref().and_then(|code| codes::lookup(Source::Meta, code));
        ParsedBody::Error { code, known, text }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::answer::Scope;
    use super::super::body_of;
    use super::super::{ProviderResponse, classify};
    use super::*;

    fn meta() -> Meta {
        let base = "https://graph.facebook.com/v24.0".parse().unwrap();
        let credentials = Credentials {
            account_sid: "1065".into(),
            api_key: "".into(),
            api_token: "token".into(),
            ..Credentials::default()
        };
        Meta::new(&base, &credentials).unwrap()
    }

    fn read(status: u16, body: &str) -> ProviderResponse {
        let reply = HttpResponse { status, retry_after: None, body: body.to_string().into() };
        classify(&reply, meta().parse(&reply, 1))
    }

    fn error(status: u16, code: u32) -> ProviderResponse {
        let error = json!({ "message": "(#1) Why", "type": "OAuthException", "code": code,
            "error_data": { "messaging_product": "whatsapp", "details": "in full" }, "fbtrace_id": "A" });
        read(status, &json!({ "error": error }).to_string())
    }

    #[test]
    fn a_request_goes_to_the_phone_numbers_id_with_a_bearer_token() {
        let endpoint = meta().endpoint("+912248931479".parse().unwrap());
        let request = meta().request(endpoint, body_of(&META, &["{\"a\":1}"]));
        assert_eq!(request.url.as_str(), "https://graph.facebook.com/v24.0/1065/messages");
        assert_eq!(request.authorization.1.expose_secret(), "Bearer token");
        assert_eq!(&*request.body, b"{\"a\":1}");
    }

    #[test]
    fn a_message_with_an_id_is_accepted() {
        let body = r#"{"messaging_product":"whatsapp","contacts":[{"input":"+91","wa_id":"91"}],"messages":[{"id":"wamid.X","message_status":"accepted"}]}"#;
        assert_eq!(
            read(200, body),
            ProviderResponse::Entries(vec![Entry::Accepted { sid: "wamid.X".into() }])
        );
        for odd in ["", "{}", "[]", r#"{"messages":[]}"#, r#"{"messages":[{"id":""}]}"#, r#"{"error":7}"#] {
            assert!(matches!(read(200, odd), ProviderResponse::Unknown { .. }), "{odd}");
        }
    }

    #[test]
    fn a_code_does_what_the_catalogue_says_whatever_the_status() {
        for code in [0, 10, 190, 200, 251, 368, 131_031, 131_042, 133_010] {
            assert!(
                matches!(error(400, code), ProviderResponse::Refused { scope: Scope::Account, .. }),
                "{code}"
            );
        }
        for code in [4, 80_007, 130_429] {
            assert!(
                matches!(error(400, code), ProviderResponse::Limited { scope: Scope::Account, .. }),
                "{code}"
            );
        }
        for code in [1, 2, 131_000, 131_056] {
            assert!(matches!(error(400, code), ProviderResponse::TryAgain { .. }), "{code}");
        }
        let detail = "HTTP 400: (#1) Why: in full".to_string();
        assert_eq!(error(400, 131_026), ProviderResponse::Malformed { code: "131026".into(), detail });
        // An unknown code is judged by its status.
        assert!(matches!(error(400, 999_999), ProviderResponse::Malformed { code, .. } if code == "999999"));
        assert!(matches!(error(500, 999_999), ProviderResponse::TryAgain { .. }));
    }

    #[test]
    fn a_signature_of_the_apps_secret_proves_a_webhook() {
        let base = "https://graph.facebook.com/v24.0".parse().unwrap();
        let credentials = Credentials { app_secret: Some("secret".into()), ..Credentials::default() };
        let account = Meta::new(&base, &credentials).unwrap();
        let with = |value: &str| {
            HeaderMap::from_iter([("x-hub-signature-256".parse().unwrap(), value.parse().unwrap())])
        };
        // printf '{}' | openssl dgst -sha256 -hmac secret
        let right = "sha256=77325902caca812dc259733aacd046b73817372c777b8d95b402647474516e13";
        assert!(account.proves(&with(right), b"{}"));
        assert!(!account.proves(&with(right), b"{ }"));
        for wrong in
            ["", "sha256=", "sha256=00", "sha256=zz", "sha1=00", &right[7..], &right[..right.len() - 1]]
        {
            assert!(!account.proves(&with(wrong), b"{}"), "{wrong}");
        }
        assert!(!account.proves(&HeaderMap::new(), b"{}"));
        assert!(meta().proves(&HeaderMap::new(), b"{}"), "without a secret the address alone proves it");
    }
}
