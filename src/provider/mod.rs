//! Providers: how a batch goes out, and what an answer proves.
//!
//! One file a provider, and one line in [`PROVIDERS`]. They build requests and say what an answer's
//! body says; [`answer`] alone says what that proves, and [`transport`] alone talks to the network.
//! Nothing here keeps state, waits for a limit or knows a ledger. `docs/providers.md` says how to add
//! one.

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

use crate::campaign::delivery::Report;
use crate::campaign::notice::Notice;
use crate::campaign::{Envelope, Job, Phone, Problem};
pub use answer::{Answer, Entry, ParsedBody, Scope, classify};
pub use transport::{Failure, Reply, Transport};

/// The providers that there are. The first is the one of a sandbox when nothing says another.
pub const PROVIDERS: &[&Kind] = &[&exotel::EXOTEL, &kaleyra::KALEYRA, &meta::META];

/// A provider, before there is an account at it.
#[derive(Debug)]
pub struct Kind {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its regions and their addresses. Where there is but one, none need be named.
    pub regions: &'static [(&'static str, &'static str)],
    /// The keys of an account that must be configured, of `account_sid`, `api_key`, `api_token`.
    pub needs: &'static [&'static str],
    /// How many messages one request takes.
    pub per_request: usize,
    /// What stands in a request's body before its messages, between two of them, and behind the last.
    pub frame: [&'static str; 3],
    /// How many requests may be under way at once when a worker begins, unless the account says how many;
    /// it finds by itself whether more are of use.
    pub concurrency: u16,
    /// How many requests an account may make, unless it says otherwise; `None` is no limit.
    pub requests: Option<&'static str>,
    /// Whether it is told with each message where its reports go; else one address is set in its console.
    pub takes_callback: bool,
    /// What is to be set there besides the address.
    pub console: &'static str,
    /// The code of an answer that takes the credentials and does not know the sender number.
    pub unknown_sender: Option<&'static str>,
    /// Opens an account.
    pub open: fn(&Url, &Credentials) -> Opened,
}

/// An account, or what of its configuration can't be part of a request.
pub type Opened = Result<Box<dyn Provider>, String>;

/// What an account is configured with. What its provider does not need is empty.
#[derive(Default)]
pub struct Credentials {
    /// The account's id there.
    pub account_sid: String,
    /// The key.
    pub api_key: SecretString,
    /// The token.
    pub api_token: SecretString,
    /// What the fields of its callbacks are called, where its customer decides that.
    pub callback_fields: BTreeMap<String, String>,
    /// How the provider knows where its reports go, where it wants that named with each message.
    pub callback_profile_id: Option<String>,
    /// A header that callbacks have, and its value.
    pub callback_header: Option<(String, SecretString)>,
    /// What the provider signs its callbacks with.
    pub app_secret: Option<SecretString>,
}

/// An account at a provider of `WhatsApp` messages.
pub trait Provider: Send + Sync {
    /// A message of the job as the provider wants it, with its placeholders. Where flowcast takes
    /// reports itself (`takes_reports`), a provider that takes an address with each message says where it goes.
    ///
    /// # Errors
    ///
    /// What of the job this provider can't do.
    fn envelope(&self, job: &Job, takes_reports: bool) -> Result<Envelope, Vec<Problem>>;

    /// Where the requests of a sender number go.
    fn endpoint(&self, from: Phone) -> Url;

    /// The request to an endpoint with a body of rendered messages; never more than one request takes.
    fn request(&self, endpoint: Url, body: RequestBody) -> Request;

    /// Whether a callback is the provider's own, where the account has what proves that. Without it the address
    /// alone does.
    fn proves(&self, _headers: &HeaderMap, _body: &[u8]) -> bool {
        true
    }

    /// What the body of a callback reports. What can't be read reports nothing.
    fn reports(&self, body: &Value) -> Vec<Report>;

    /// What the body of a callback says of templates and sender numbers.
    fn notices(&self, _body: &Value) -> Vec<Notice> {
        Vec::new()
    }

    /// What the provider calls the request that a reply is to, where it says so: its support asks for it.
    fn request_id(&self, _reply: &Reply) -> Option<String> {
        None
    }

    /// The number under which the provider knows the recipient of the one message that a reply is to, where it says so. It
    /// may be another spelling, or another number.
    fn recipient(&self, _reply: &Reply) -> Option<Phone> {
        None
    }

    /// What a reply to `count` messages says.
    fn parse(&self, reply: &Reply, count: usize) -> ParsedBody;
}

/// The body of a request, while messages are written into it. It has no debug print: it holds numbers
/// of people.
pub struct RequestBody {
    frame: [&'static str; 3],
    bytes: Vec<u8>,
    count: usize,
}

impl RequestBody {
    /// A body for a provider, of about so many bytes.
    pub fn new(kind: &Kind, bytes: usize) -> Self {
        let mut body = Self { frame: kind.frame, bytes: Vec::with_capacity(bytes), count: 0 };
        body.bytes.extend_from_slice(body.frame[0].as_bytes());
        body
    }

    /// Has a message written at the end, a JSON text. After an error the body is of no use.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn message<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if self.count > 0 {
            self.bytes.extend_from_slice(self.frame[1].as_bytes());
        }
        self.count += 1;
        write(&mut self.bytes)
    }

    /// The whole of it. Without a message it is JSON all the same.
    fn finish(mut self) -> bytes::Bytes {
        self.bytes.extend_from_slice(self.frame[2].as_bytes());
        if self.bytes.is_empty() { bytes::Bytes::from_static(b"{}") } else { self.bytes.into() }
    }
}

/// A request, ready to go. It has no debug print: it holds credentials and numbers of people.
pub struct Request {
    /// Where to.
    pub url: Url,
    /// The header that carries the credentials.
    pub authorization: (&'static str, SecretString),
    /// The JSON body.
    pub body: bytes::Bytes,
}

/// The provider of a name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    PROVIDERS.iter().copied().find(|kind| kind.name == name)
}

/// An address with further steps, each escaped: no id can change the path.
fn address<'s>(base: &Url, steps: impl IntoIterator<Item = &'s str>) -> Result<Url, String> {
    if !base.username().is_empty() || base.password().is_some() {
        return Err("base_url must not hold credentials; set them as keys of the account".into());
    }
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| "base_url must be an http:// or https:// address".to_string())?
        .pop_if_empty()
        .extend(steps);
    Ok(url)
}

/// The content of a job's message, with what every provider writes first.
fn content(job: &Job, first: Value) -> Value {
    let mut content = first;
    if let (Some(content), Some(message)) = (content.as_object_mut(), job.message.as_object()) {
        content.extend(message.clone());
    }
    content
}

/// What only Kaleyra gives back.
fn no_extra_info(job: &Job) -> Result<(), Vec<Problem>> {
    if job.document.get("extra_info").is_none() {
        return Ok(());
    }
    let message = "goes out with Kaleyra alone; with this account's provider use custom_data";
    Err(vec![Problem::new("/extra_info", message)])
}

/// The buttons of a template.
fn buttons(content: &mut Value) -> impl Iterator<Item = &mut Value> {
    let components = content.pointer_mut("/template/components").and_then(Value::as_array_mut);
    components.into_iter().flatten().filter_map(|component| component.get_mut("index"))
}

/// A body of these messages.
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
