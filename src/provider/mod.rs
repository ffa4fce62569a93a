//! Providers: how a batch goes out, and what an answer proves.
//!
//! One file a provider. They build requests and read answers; they keep no state, wait for no
//! limit and know nothing of ledgers. [`transport`] alone talks to the network.

pub mod exotel;
pub mod transport;

use std::time::Duration;

use serde_json::Value;

use crate::campaign::{Envelope, Job};
pub use transport::{Failure, Reply, Transport};

/// A provider of `WhatsApp` messages.
pub trait Provider: Send + Sync {
    /// A message of the job as the provider wants it, with its placeholders.
    fn envelope(&self, job: &Job) -> Envelope;

    /// The request for some rendered messages, each a JSON text.
    fn request(&self, messages: &[&[u8]]) -> Request;

    /// What a reply to a request with `count` messages proves.
    fn read(&self, reply: &Reply, count: usize) -> Answer;
}

/// A request, ready to go. It has no debug print: it holds credentials and numbers of people.
pub struct Request {
    /// Where to.
    pub url: url::Url,
    /// The header that carries the credentials.
    pub authorization: (&'static str, secrecy::SecretString),
    /// The JSON body.
    pub body: bytes::Bytes,
}

/// What an answer says of a whole request (`Which answers prove what`, docs/architecture.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An entry for each message, in the request's order.
    Entries(Vec<Entry>),
    /// Nothing was taken; some message is wrong.
    Malformed {
        /// The provider's code.
        code: String,
        /// Its text.
        detail: String,
    },
    /// Nothing was taken; nothing of this account can be sent.
    AccountRefused {
        /// Why, and what to do.
        reason: String,
    },
    /// Nothing was taken; nothing of this campaign can be sent.
    CampaignRefused {
        /// Why, and what to do.
        reason: String,
    },
    /// Nothing was taken; too fast.
    Limited {
        /// How long to wait, where the provider says so.
        retry_after: Option<Duration>,
        /// Its text.
        detail: String,
    },
    /// Nothing was taken; the same may work later.
    TryAgain {
        /// Its text.
        detail: String,
    },
    /// Nobody knows what was taken.
    Unknown {
        /// What was seen instead of an answer.
        detail: String,
    },
}

/// What an answer says of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Taken.
    Accepted {
        /// The provider's id of the message.
        sid: String,
    },
    /// Refused for good.
    Rejected {
        /// The provider's code.
        code: String,
        /// Its text.
        detail: String,
    },
    /// Not taken, but it may be later.
    TryAgain {
        /// Whether it was too fast rather than out of order.
        limited: bool,
        /// The provider's text.
        detail: String,
    },
    /// Taken or not.
    Unknown {
        /// What was seen instead of an entry.
        detail: String,
    },
}

/// The answer of an entry-by-entry reply that can't be read.
fn all_unknown(detail: &str) -> Answer {
    Answer::Unknown { detail: detail.into() }
}

/// A string or number as text.
fn plain(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A provider's text as it may be kept and shown: one line, not long, without control characters,
/// and without numbers of people — it is kept once for all messages with its code.
fn short(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = clean.split_whitespace().map(|word| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        if digits >= 7 { "…" } else { word }
    });
    let mut line = words.collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(300) {
        line.truncate(at);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_text_is_one_line_without_numbers_of_people() {
        assert_eq!(short("bad\n number:\u{1b}[31m +919876543210, code 1005"), "bad number: [31m … code 1005");
        assert_eq!(short(&"x".repeat(500)).chars().count(), 301);
    }
}
