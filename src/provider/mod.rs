//! Providers: how a batch is sent, and what a response proves.
//!
//! Each provider is one file and one line in [`PROVIDERS`]. Providers build requests and parse bodies; only
//! [`answer`] decides what a response proves, and only [`transport`] uses the network. Nothing here keeps state,
//! waits for a limit or uses the ledger. `docs/providers.md` describes how to add a provider.

pub mod answer;
mod exotel;
mod kaleyra;
mod meta;
mod reports;
pub mod transport;

use std::collections::BTreeMap;

use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use crate::campaign::delivery::DeliveryReport;
use crate::campaign::notice::Notice;
use crate::campaign::{Envelope, Job, Phone, Problem};
pub use answer::{Entry, ParsedBody, ProviderResponse, Scope, classify};
pub use transport::{Failure, HttpResponse, Transport};

/// All providers. The first is a sandbox's default.
pub const PROVIDERS: &[&Kind] = &[&exotel::EXOTEL, &kaleyra::KALEYRA, &meta::META];

/// A provider, independent of an account.
#[derive(Debug)]
pub struct Kind {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The regions and their base URLs. A single region need not be configured.
    pub regions: &'static [(&'static str, &'static str)],
    /// The required keys of an account, of `account_sid`, `api_key`, `api_token`.
    pub needs: &'static [&'static str],
    /// Maximum number of messages of a request.
    pub per_request: usize,
    /// The text of a request's body before the messages, between two of them, and after the last.
    pub frame: [&'static str; 3],
    /// Initial number of concurrent requests, unless the account configures it; a worker then tunes it.
    pub concurrency: u16,
    /// Default request limit of an account; `None` means no limit.
    pub requests: Option<&'static str>,
    /// Whether each message carries a callback address; otherwise one address is set in the provider's console.
    pub takes_callback: bool,
    /// The other settings of the console.
    pub console: &'static str,
    /// The code of a response that accepts the credentials and does not know the sender number.
    pub unknown_sender: Option<&'static str>,
    /// Opens an account.
    pub open: fn(&Url, &Credentials) -> OpenProvider,
}

/// An open account, or the error in its configuration.
pub type OpenProvider = Result<Box<dyn Provider>, String>;

/// The configuration of an account. Fields that the provider does not need are empty.
#[derive(Default)]
pub struct Credentials {
    /// The account's id at the provider.
    pub account_sid: String,
    /// The API key.
    pub api_key: SecretString,
    /// The API token.
    pub api_token: SecretString,
    /// The names of callback fields, if the customer chooses them.
    pub callback_fields: BTreeMap<String, String>,
    /// The id of the callback profile that each message must name.
    pub callback_profile_id: Option<String>,
    /// The name and value of a header that callbacks carry.
    pub callback_header: Option<(String, SecretString)>,
    /// The secret with which the provider signs its callbacks.
    pub app_secret: Option<SecretString>,
}

/// An account at a provider of `WhatsApp` messages.
pub trait Provider: Send + Sync {
    /// Returns a message of the job in the provider's format, with its placeholders. If flowcast receives reports
    /// itself (`takes_reports`), a provider that accepts a callback address per message says where it goes.
    ///
    /// # Errors
    ///
    /// What in the job this provider does not support.
    fn envelope(&self, job: &Job, takes_reports: bool) -> Result<Envelope, Vec<Problem>>;

    /// Returns the URL for requests of a sender number.
    fn endpoint(&self, from: Phone) -> Url;

    /// Builds the request for an endpoint from a body of rendered messages, at most one request's worth.
    fn request(&self, endpoint: Url, body: RequestBody) -> Request;

    /// Returns whether a callback is authentic, if the account has a secret for that. Otherwise only the secret
    /// address proves it.
    fn proves(&self, _headers: &HeaderMap, _body: &[u8]) -> bool {
        true
    }

    /// Parses the reports in the body of a callback. Unreadable ones are ignored.
    fn reports(&self, body: &Value) -> Vec<DeliveryReport>;

    /// Parses notices about templates and sender numbers in the body of a callback.
    fn notices(&self, _body: &Value) -> Vec<Notice> {
        Vec::new()
    }

    /// Returns the provider's id of the request, if the response has one: its support asks for it.
    fn request_id(&self, _reply: &HttpResponse) -> Option<String> {
        None
    }

    /// Returns the recipient's number as the provider knows it, if the response to a single message has it. It may be
    /// another spelling, or another number.
    fn recipient(&self, _reply: &HttpResponse) -> Option<Phone> {
        None
    }

    /// Parses the response to a request of `count` messages.
    fn parse(&self, reply: &HttpResponse, count: usize) -> ParsedBody;
}

/// The body of a request, into which messages are written. It has no `Debug`: it holds phone numbers.
pub struct RequestBody {
    frame: [&'static str; 3],
    bytes: Vec<u8>,
    count: usize,
}

impl RequestBody {
    /// Creates a body for a provider, with a capacity in bytes.
    pub fn new(kind: &Kind, bytes: usize) -> Self {
        let mut body = Self { frame: kind.frame, bytes: Vec::with_capacity(bytes), count: 0 };
        body.bytes.extend_from_slice(body.frame[0].as_bytes());
        body
    }

    /// Appends a message, a JSON text, with `write`. After an error the body must not be used.
    ///
    /// # Errors
    ///
    /// The error of `write`.
    pub fn message<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if self.count > 0 {
            self.bytes.extend_from_slice(self.frame[1].as_bytes());
        }
        self.count += 1;
        write(&mut self.bytes)
    }

    /// Returns the finished body, which is JSON even without a message.
    fn finish(mut self) -> bytes::Bytes {
        self.bytes.extend_from_slice(self.frame[2].as_bytes());
        if self.bytes.is_empty() { bytes::Bytes::from_static(b"{}") } else { self.bytes.into() }
    }
}

/// A request that is ready to be sent. It has no `Debug`: it holds credentials and phone numbers.
pub struct Request {
    /// The URL.
    pub url: Url,
    /// The header that carries the credentials.
    pub authorization: (&'static str, SecretString),
    /// The JSON body.
    pub body: bytes::Bytes,
}

/// Returns the provider of a name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    PROVIDERS.iter().copied().find(|kind| kind.name == name)
}

/// Appends path segments to a base URL, each escaped, so that no id can change the path.
fn address<'s>(base: &Url, steps: impl IntoIterator<Item = &'s str>) -> Result<Url, String> {
    if !base.username().is_empty() || base.password().is_some() {
        return Err("base_url must not contain credentials; set them as keys of the account".into());
    }
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| "base_url must be an http:// or https:// address".to_string())?
        .pop_if_empty()
        .extend(steps);
    Ok(url)
}

/// Returns the content of a job's message, after the fields that every provider writes first.
fn content(job: &Job, first: Value) -> Value {
    let mut content = first;
    if let (Some(content), Some(message)) = (content.as_object_mut(), job.message.as_object()) {
        content.extend(message.clone());
    }
    content
}

/// Rejects `extra_info`, which only Kaleyra supports.
fn no_extra_info(job: &Job) -> Result<(), Vec<Problem>> {
    if job.document.get("extra_info").is_none() {
        return Ok(());
    }
    let message = "is supported by Kaleyra only; with this account's provider use custom_data";
    Err(vec![Problem::new("/extra_info", message)])
}

/// Returns the index fields of a template's buttons.
fn buttons(content: &mut Value) -> impl Iterator<Item = &mut Value> {
    let components = content.pointer_mut("/template/components").and_then(Value::as_array_mut);
    components.into_iter().flatten().filter_map(|component| component.get_mut("index"))
}

/// Builds a body of these messages.
#[cfg(test)]
fn body_of(kind: &Kind, messages: &[&str]) -> RequestBody {
    let mut body = RequestBody::new(kind, 0);
    for message in messages {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(message.as_bytes());
            Ok::<(), ()>(())
        };
        body.message(write).unwrap();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_can_not_change_the_path() {
        let base = "https://api.exotel.com/".parse().unwrap();
        let url = address(&base, ["v2", "a/../b?x", "+919876543210"]).unwrap();
        assert_eq!(url.as_str(), "https://api.exotel.com/v2/a%2F..%2Fb%3Fx/+919876543210");
        let base = "http://key:token@127.0.0.1:8025".parse().unwrap();
        assert!(address(&base, []).is_err());
    }

    #[test]
    fn every_provider_is_there_once_and_can_be_opened() {
        for (nth, kind) in PROVIDERS.iter().enumerate() {
            assert!(PROVIDERS[..nth].iter().all(|other| other.name != kind.name));
            assert!(kind.needs.iter().all(|need| ["account_sid", "api_key", "api_token"].contains(need)));
            assert!((1..=crate::campaign::BATCH_LIMIT).contains(&kind.per_request));
            let credentials = Credentials {
                account_sid: "a".into(),
                api_key: "k".into(),
                api_token: "t".into(),
                ..Credentials::default()
            };
            for (_, address) in kind.regions {
                (kind.open)(&address.parse().unwrap(), &credentials).unwrap();
            }
        }
    }
}
