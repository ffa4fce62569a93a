//! The states of messages and campaigns, and their allowed transitions.
//!
//! Every ledger checks each change of state here.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Defines an enum with the word of each value, and its text forms: `as_str`, `Display`, `FromStr` and `ALL`.
macro_rules! words {
    ($(#[$attribute:meta])* pub enum $type:ident {
        $($(#[$about:meta])* $variant:ident = $word:literal,)+
    }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $type {
            $($(#[$about])* $variant,)+
        }

        impl $type {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name in the contract.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let known = || Self::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
                Self::ALL.iter().copied().find(|s| s.as_str() == text)
                    .ok_or_else(|| format!("{text:?} is unknown; expected one of {}", known()))
            }
        }
    };
}

pub(super) use words;

words! {
    /// The state of a message.
    #[derive(PartialOrd, Ord, utoipa::ToSchema)]
    pub enum MessageState {
        /// Not sent yet.
        Pending = "pending",
        /// Claimed: a request may be on its way.
        Sending = "sending",
        /// The provider accepted it.
        Accepted = "accepted",
        /// The provider rejected it.
        Rejected = "rejected",
        /// It may or may not have been accepted. Never resent automatically.
        InDoubt = "in_doubt",
        /// The row is not sent, with a [`SkipReason`].
        Skipped = "skipped",
    }
}

impl MessageState {
    /// Returns whether a message may change from this state to `next`.
    pub fn can_become(self, next: Self) -> bool {
        use MessageState::{Accepted, InDoubt, Pending, Rejected, Sending, Skipped};
        match self {
            // Accepted only by evidence of an earlier attempt: a message is not sent without a claim. In doubt if the
            // ledger lost writes.
            Pending => matches!(next, Sending | Skipped | Accepted | InDoubt),
            // Back to pending only with proof that the provider did not accept it.
            Sending => matches!(next, Accepted | Rejected | InDoubt | Pending),
            // Evidence settles a doubt; pending if the job or a person decides to resend it.
            InDoubt => matches!(next, Accepted | Rejected | Pending),
            // A person's retry, or evidence that it was accepted after all.
            Rejected => matches!(next, Pending | Accepted),
            // A person's retry of a message that WhatsApp, by its report, did not send because its flow was
            // throttled.
            Accepted => matches!(next, Pending),
            Skipped => false,
        }
    }

    /// Returns whether it is not settled yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Sending)
    }
}

words! {
    /// Why a row is not sent.
    #[derive(PartialOrd, Ord)]
    pub enum SkipReason {
        /// The phone column has no valid number.
        InvalidNumber = "invalid_number",
        /// An earlier row has the same number.
        Duplicate = "duplicate",
        /// The number is on the suppression list.
        Suppressed = "suppressed",
        /// A placeholder's column is empty and has no default.
        MissingVariable = "missing_variable",
        /// The content breaks a limit with this row's values.
        InvalidContent = "invalid_content",
        /// The campaign's `expires_at` passed before the message was sent.
        Expired = "expired",
        /// The campaign was cancelled before the message was sent.
        Cancelled = "cancelled",
    }
}

words! {
    /// The state of a campaign.
    #[derive(utoipa::ToSchema)]
    pub enum CampaignState {
        /// Waiting for its `start_at`.
        Scheduled = "scheduled",
        /// Sending, or waiting for a limit or its window.
        Running = "running",
        /// Paused by an operator.
        Paused = "paused",
        /// Stopped by flowcast, with a reason.
        Held = "held",
        /// Every row is settled.
        Completed = "completed",
        /// Cancelled by an operator.
        Cancelled = "cancelled",
    }
}

impl CampaignState {
    /// Returns whether it has ended.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    /// Returns whether a campaign may change from this state to `next`.
    pub fn can_become(self, next: Self) -> bool {
        use CampaignState::{Cancelled, Completed, Held, Paused, Running, Scheduled};
        match self {
            Scheduled => matches!(next, Running | Paused | Held | Cancelled),
            Running => matches!(next, Scheduled | Paused | Held | Completed | Cancelled),
            // Completed without running again if all remaining messages have expired.
            Paused | Held => self != next,
            // A retry or a resolved doubt resumes it; an audience that changed since holds it, because its file may
            // have new recipients.
            Completed => matches!(next, Running | Held),
            Cancelled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_message_machine_has_no_illegal_move(walk in prop::collection::vec(0..6_usize, 1..40)) {
            let mut state = MessageState::Pending;
            let mut settled_by_provider = false;
            for next in walk.into_iter().map(|i| MessageState::ALL[i]) {
                if !state.can_become(next) {
                    continue;
                }
                // A message in doubt is never sent unless a decision makes it pending first,
                prop_assert!(!(state == MessageState::InDoubt && next == MessageState::Sending));
                // an accepted one is changed again only by an operator's retry,
                prop_assert!(!settled_by_provider || next == MessageState::Pending);
                // and nothing is rejected that was never sent.
                if next == MessageState::Rejected {
                    prop_assert!(matches!(state, MessageState::Sending | MessageState::InDoubt));
                }
                state = next;
                settled_by_provider = state == MessageState::Accepted;
            }
        }

        #[test]
        fn the_campaign_machine_has_no_illegal_move(walk in prop::collection::vec(0..6_usize, 1..40)) {
            let mut state = CampaignState::Scheduled;
            for next in walk.into_iter().map(|i| CampaignState::ALL[i]) {
                if !state.can_become(next) {
                    continue;
                }
                prop_assert_ne!(state, CampaignState::Cancelled);
                prop_assert_ne!(state, next);
                // A scheduled campaign does not complete.
                if next == CampaignState::Completed {
                    prop_assert!(matches!(state, CampaignState::Running | CampaignState::Paused | CampaignState::Held));
                }
                state = next;
            }
        }
    }

    #[test]
    fn every_code_reads_back() {
        for state in MessageState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for state in CampaignState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        for reason in SkipReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert!("sent".parse::<MessageState>().unwrap_err().contains("accepted"));
    }
}
