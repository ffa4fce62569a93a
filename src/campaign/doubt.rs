//! Why a message is in doubt: a cause with a code, and what exactly happened.
//!
//! The code is stored with the message and never changes. The sentence is derived from the code; it is for people and may be
//! reworded. Earlier versions stored a digest of the sentence in place of the code.

use std::{borrow::Cow, fmt};

/// The cause of a doubt. A number is the HTTP status of the provider's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoubtCause {
    /// The request went out, and the provider did not respond before the time-out.
    NoResponse,
    /// The connection broke after the request began to go out.
    ConnectionLost,
    /// The status does not say whether the messages were accepted.
    HttpStatus(u16),
    /// The status reports success, but the body cannot be read.
    UnreadableBody(u16),
    /// The status reports success, but the body reports a failure.
    ErrorInSuccess(u16),
    /// The status reports a failure, but the body reports an accepted message.
    SuccessInError(u16),
    /// The response has more or fewer entries than the request has messages.
    EntryCountMismatch,
    /// The provider reports that it accepted the message, but returns no id.
    NoMessageId,
    /// The message's entry reports neither success nor failure.
    UnclearEntry,
    /// The worker that was sending the message did not respond before its claim expired.
    ClaimExpired,
    /// The only process of a store exited while it was sending the message.
    ProcessEnded,
    /// The ledger lost its most recent writes, and a claim of the message may be among them.
    DataLoss,
}

impl DoubtCause {
    /// Returns every cause, with this status where a cause has one.
    fn all(status: u16) -> [Self; 12] {
        [
            Self::NoResponse,
            Self::ConnectionLost,
            Self::HttpStatus(status),
            Self::UnreadableBody(status),
            Self::ErrorInSuccess(status),
            Self::SuccessInError(status),
            Self::EntryCountMismatch,
            Self::NoMessageId,
            Self::UnclearEntry,
            Self::ClaimExpired,
            Self::ProcessEnded,
            Self::DataLoss,
        ]
    }

    /// Returns the code under which the cause is stored. Codes never change and are never reused.
    pub fn code(self) -> Cow<'static, str> {
        match self {
            Self::NoResponse => "no_response".into(),
            Self::ConnectionLost => "connection_lost".into(),
            Self::HttpStatus(status) => format!("http_{status}").into(),
            Self::UnreadableBody(status) => format!("unreadable_http_{status}").into(),
            Self::ErrorInSuccess(status) => format!("error_in_http_{status}").into(),
            Self::SuccessInError(status) => format!("success_in_http_{status}").into(),
            Self::EntryCountMismatch => "entry_count_mismatch".into(),
            Self::NoMessageId => "no_message_id".into(),
            Self::UnclearEntry => "unclear_entry".into(),
            Self::ClaimExpired => "claim_expired".into(),
            Self::ProcessEnded => "process_ended".into(),
            Self::DataLoss => "data_loss".into(),
        }
    }

    /// Returns the cause with a code; `None` for a code of another version, e.g. a digest.
    pub fn from_code(code: &str) -> Option<Self> {
        let status = code.rsplit('_').next().and_then(|last| last.parse().ok()).unwrap_or_default();
        Self::all(status).into_iter().find(|cause| cause.code() == code)
    }
}

/// A sentence that is true of every message with the code.
impl fmt::Display for DoubtCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoResponse => f.write_str("the provider did not respond in time"),
            Self::ConnectionLost => f.write_str("the connection broke before the provider responded"),
            Self::HttpStatus(status) => write!(f, "HTTP {status}"),
            Self::UnreadableBody(status) => write!(f, "HTTP {status}, with an unreadable body"),
            Self::ErrorInSuccess(status) => write!(f, "HTTP {status}, with an error in its body"),
            Self::SuccessInError(status) => write!(f, "HTTP {status}, with an entry that reports success"),
            Self::EntryCountMismatch => {
                f.write_str("the response has more or fewer entries than the request has messages")
            }
            Self::NoMessageId => f.write_str("the response reports success, but has no message id"),
            Self::UnclearEntry => f.write_str("the response does not say whether the message was accepted"),
            Self::ClaimExpired => f.write_str(
                "the worker that was sending the message stopped responding, and its claim expired",
            ),
            Self::ProcessEnded => f.write_str("flowcast ended while the request was in flight"),
            Self::DataLoss => {
                f.write_str("the ledger lost recent writes; a worker that is gone may have sent the message")
            }
        }
    }
}

/// A doubt about the messages of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Its cause; the only part that is stored.
    pub cause: DoubtCause,
    /// What exactly happened, e.g. with the provider's text: for events, logs and the reason of a held campaign.
    pub detail: String,
}

impl From<DoubtCause> for Doubt {
    fn from(cause: DoubtCause) -> Self {
        Self { cause, detail: cause.to_string() }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored in ledgers: a line here is never changed.
    fn stored(cause: DoubtCause) -> &'static str {
        match cause {
            DoubtCause::NoResponse => "no_response",
            DoubtCause::ConnectionLost => "connection_lost",
            DoubtCause::HttpStatus(_) => "http_503",
            DoubtCause::UnreadableBody(_) => "unreadable_http_503",
            DoubtCause::ErrorInSuccess(_) => "error_in_http_503",
            DoubtCause::SuccessInError(_) => "success_in_http_503",
            DoubtCause::EntryCountMismatch => "entry_count_mismatch",
            DoubtCause::NoMessageId => "no_message_id",
            DoubtCause::UnclearEntry => "unclear_entry",
            DoubtCause::ClaimExpired => "claim_expired",
            DoubtCause::ProcessEnded => "process_ended",
            DoubtCause::DataLoss => "data_loss",
        }
    }

    #[test]
    fn every_cause_is_stored_under_its_code_and_no_other_is() {
        let all = DoubtCause::all(503);
        for (nth, cause) in all.into_iter().enumerate() {
            assert_eq!(cause.code(), stored(cause));
            assert!(all[..nth].iter().all(|other| other.code() != cause.code()), "{cause:?}");
            assert!(all[..nth].iter().all(|other| other.to_string() != cause.to_string()), "{cause:?}");
        }
    }

    #[test]
    fn every_code_reads_back_as_its_cause() {
        for status in [0, 100, 202, 503, u16::MAX] {
            for cause in DoubtCause::all(status) {
                assert_eq!(DoubtCause::from_code(&cause.code()), Some(cause));
            }
        }
    }

    #[test]
    fn a_text_that_no_cause_has_is_not_a_code() {
        // The last is a digest, as earlier versions wrote them.
        for other in ["", "http_", "http_+503", "http_0503", "http_65536", "503", "No_response", "5f1d7a84"] {
            assert_eq!(DoubtCause::from_code(other), None, "{other}");
        }
    }

    #[test]
    fn a_doubt_says_its_cause_where_nothing_more_is_known() {
        let doubt = Doubt::from(DoubtCause::HttpStatus(502));
        assert_eq!((doubt.to_string(), doubt.cause.code().as_ref()), ("HTTP 502".to_owned(), "http_502"));
    }
}
