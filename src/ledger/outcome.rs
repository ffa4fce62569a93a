//! What happens to messages: their outcomes, and the decisions of operators. `batch_machine.rs` applies them.

use crate::campaign::{Doubt, MessageState, SkipReason, codes::is_unsent};

/// The outcome of a claimed message, or of a pending one that is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider accepted it.
    Accepted {
        /// The provider's id of the message.
        sid: String,
    },
    /// The provider rejected it.
    Rejected {
        /// The provider's code.
        code: String,
        /// Its text; stored once for each code.
        detail: String,
    },
    /// Accepted or rejected: unknown which.
    InDoubt(Doubt),
    /// Proven not accepted: it may be sent again.
    Released,
    /// Not sent, on purpose.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// The reason in detail.
        detail: String,
    },
}

impl Outcome {
    /// Returns the state it leads to.
    pub fn state(&self) -> MessageState {
        match self {
            Self::Accepted { .. } => MessageState::Accepted,
            Self::Rejected { .. } => MessageState::Rejected,
            Self::InDoubt(_) => MessageState::InDoubt,
            Self::Released => MessageState::Pending,
            Self::Skipped { .. } => MessageState::Skipped,
        }
    }
}

/// The outcome of a message, and the values to send it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOutcome {
    /// Its position in the batch.
    pub message: u8,
    /// Its outcome.
    pub outcome: Outcome,
    /// Its values, stored as long as it may be sent again.
    pub payload: Option<String>,
}

impl From<(u8, Outcome)> for RecordOutcome {
    fn from((message, outcome): (u8, Outcome)) -> Self {
        Self { message, outcome, payload: None }
    }
}

/// A decision about messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Sends rejected messages again; with codes only those with one of the codes, and those that a report failed with one
    /// of the codes if it means that they were not sent on ([`codes::is_unsent`](crate::campaign::codes::is_unsent)).
    Retry(Vec<String>),
    /// Sends messages in doubt again.
    Resend {
        /// Only those in doubt since this time or earlier, in milliseconds since 1970: the operator did not see later ones.
        until: i64,
    },
    /// Rejects messages in doubt, with the code [`ABANDONED`](super::ABANDONED).
    Abandon {
        /// Only those in doubt since this time or earlier, in milliseconds since 1970.
        until: i64,
    },
    /// Skips pending messages, because the campaign was cancelled.
    Cancel,
    /// Skips pending messages, because the campaign's `expires_at` passed before they were sent.
    Expire,
    /// Puts pending messages in doubt, because the ledger lost recent writes.
    Doubt,
}

impl Decision {
    /// Returns whether it includes accepted messages that a report failed.
    pub(super) fn is_of_unsent(&self) -> bool {
        matches!(self, Self::Retry(codes) if codes.iter().any(|code| is_unsent(code)))
    }
}
