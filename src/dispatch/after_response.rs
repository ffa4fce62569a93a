//! Decides what follows from a provider's response: outcomes for the ledger, and the next step for the batch.
//!
//! It is a pure function: it never sends, waits or writes.

use std::time::Duration;

use crate::campaign::Doubt;
use crate::ledger::Outcome;
use crate::provider::{Entry, Failure, ProviderResponse, Scope};

/// The decision about a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseDecision {
    /// The outcome of each message.
    pub(super) outcomes: Vec<(u8, Outcome)>,
    /// The next step.
    pub(super) next: AfterResponse,
    /// The messages that are retried later.
    pub(super) again: Vec<u8>,
}

/// The next step after a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum AfterResponse {
    /// No further step.
    #[default]
    Done,
    /// The messages are sent again in two halves, to find the invalid one.
    Halves,
    /// A temporary failure; after several in a row the campaign is held.
    Later { detail: String },
    /// The provider reported a rate limit.
    Limited { scope: Scope, retry_after: Option<Duration>, detail: String },
    /// No message of this scope can be sent.
    Hold { scope: Scope, reason: String },
    /// The outcome is unknown; after several in a row the campaign is held.
    InDoubt(Doubt),
}

/// What a decision depends on besides the response.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DecisionInputs {
    /// Whether the job prefers a duplicate to a message that is never sent.
    pub(super) resend: bool,
    /// Whether this is the last attempt while other messages of the campaign are accepted.
    ///
    /// Then the failure belongs to the message, which is rejected instead of delaying all others.
    pub(super) gives_up: bool,
}

/// Implements the table in `docs/architecture.md`, "What each provider response proves".
pub(super) fn decide(
    response: Result<ProviderResponse, Failure>,
    messages: &[u8],
    inputs: DecisionInputs,
) -> ResponseDecision {
    let all = |outcome: Outcome| messages.iter().map(|index| (*index, outcome.clone())).collect();
    let released =
        |next| ResponseDecision { outcomes: all(Outcome::Released), next, again: messages.to_vec() };
    let rejected = |code, detail| ResponseDecision {
        outcomes: all(Outcome::Rejected { code, detail }),
        ..ResponseDecision::default()
    };
    let unknown = |doubt: Doubt| {
        let outcome = if inputs.resend { Outcome::Released } else { Outcome::InDoubt(doubt.clone()) };
        let again = if inputs.resend { messages.to_vec() } else { Vec::new() };
        ResponseDecision { outcomes: all(outcome), next: AfterResponse::InDoubt(doubt), again }
    };
    let is_one = messages.len() == 1;
    match response {
        Ok(ProviderResponse::Entries(entries)) => decide_entries(entries, messages, inputs),
        Ok(ProviderResponse::Malformed { code, detail }) if is_one => rejected(code, detail),
        Ok(ProviderResponse::Malformed { .. }) => released(AfterResponse::Halves),
        Ok(ProviderResponse::Refused { scope, reason }) => released(AfterResponse::Hold { scope, reason }),
        Ok(ProviderResponse::Limited { scope, retry_after, detail }) => {
            released(AfterResponse::Limited { scope, retry_after, detail })
        }
        Ok(ProviderResponse::TryAgain { code, detail }) if is_one && inputs.gives_up => {
            rejected(code, detail)
        }
        Ok(ProviderResponse::TryAgain { detail, .. }) | Err(Failure::NotSent(detail)) => {
            released(AfterResponse::Later { detail })
        }
        Ok(ProviderResponse::Unknown(doubt)) | Err(Failure::MayBeSent(doubt)) => unknown(doubt),
    }
}

fn decide_entries(entries: Vec<Entry>, messages: &[u8], inputs: DecisionInputs) -> ResponseDecision {
    let outcomes = Vec::with_capacity(entries.len());
    let mut decision = ResponseDecision { outcomes, ..ResponseDecision::default() };
    for (index, entry) in messages.iter().zip(entries) {
        let (outcome, next) = match entry {
            Entry::Accepted { sid } => (Outcome::Accepted { sid }, AfterResponse::Done),
            Entry::Rejected { code, detail } => (Outcome::Rejected { code, detail }, AfterResponse::Done),
            Entry::TryAgain { code, detail } if inputs.gives_up => {
                (Outcome::Rejected { code, detail }, AfterResponse::Done)
            }
            Entry::TryAgain { detail, .. } => (Outcome::Released, AfterResponse::Later { detail }),
            Entry::Refused { scope, reason } => (Outcome::Released, AfterResponse::Hold { scope, reason }),
            Entry::Limited { scope, detail } => {
                (Outcome::Released, AfterResponse::Limited { scope, retry_after: None, detail })
            }
            Entry::Unknown(doubt) if inputs.resend => {
                (Outcome::Released, AfterResponse::Later { detail: doubt.detail })
            }
            Entry::Unknown(doubt) => (Outcome::InDoubt(doubt), AfterResponse::Done),
        };
        if outcome == Outcome::Released {
            decision.again.push(*index);
        }
        if next.rank() > decision.next.rank() {
            decision.next = next;
        }
        decision.outcomes.push((*index, outcome));
    }
    decision
}

impl AfterResponse {
    /// Returns the priority among several follow-ups of one response: the widest scope wins.
    fn rank(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Halves => 1,
            Self::InDoubt(_) => 2,
            Self::Later { .. } => 3,
            // A limit holds no campaign, and says how long to wait.
            Self::Limited { scope: Scope::Flow, .. } => 4,
            Self::Limited { .. } => 5,
            Self::Hold { scope: Scope::Flow, .. } => 6,
            Self::Hold { scope: Scope::Campaign, .. } => 7,
            Self::Hold { scope: Scope::Flows, .. } => 8,
            Self::Hold { scope: Scope::Sender, .. } => 9,
            Self::Hold { scope: Scope::Account, .. } => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::DoubtCause;

    const THREE: [u8; 3] = [4, 5, 9];

    fn states(decision: &ResponseDecision) -> Vec<String> {
        decision.outcomes.iter().map(|(index, outcome)| format!("{index} {}", outcome.state())).collect()
    }

    #[test]
    fn each_entry_of_a_response_decides_its_own_message() {
        let decision = decide(
            Ok(ProviderResponse::Entries(vec![
                Entry::Accepted { sid: "s".into() },
                Entry::Rejected { code: "400".into(), detail: String::new() },
                Entry::Limited { scope: Scope::Account, detail: "slow".into() },
            ])),
            &THREE,
            DecisionInputs::default(),
        );
        assert_eq!(states(&decision), ["4 accepted", "5 rejected", "9 pending"]);
        assert_eq!(decision.again, [9]);
        assert_eq!(
            decision.next,
            AfterResponse::Limited { scope: Scope::Account, retry_after: None, detail: "slow".into() }
        );
    }

    #[test]
    fn a_400_is_split_in_halves_until_one_message_is_left() {
        let malformed = || Ok(ProviderResponse::Malformed { code: "400".into(), detail: "bad".into() });
        let decision = decide(malformed(), &THREE, DecisionInputs::default());
        assert_eq!(
            (states(&decision), decision.next),
            (vec!["4 pending".into(), "5 pending".into(), "9 pending".into()], AfterResponse::Halves)
        );
        let alone = decide(malformed(), &[5], DecisionInputs::default());
        assert_eq!((states(&alone), alone.next), (vec!["5 rejected".into()], AfterResponse::Done));
    }

    #[test]
    fn a_request_that_may_have_gone_out_is_in_doubt_and_not_retried() {
        let doubt = || DoubtCause::ConnectionLost.into();
        for answer in [Ok(ProviderResponse::Unknown(doubt())), Err(Failure::MayBeSent(doubt()))] {
            let decision = decide(answer, &[1, 2], DecisionInputs::default());
            assert_eq!(states(&decision), ["1 in_doubt", "2 in_doubt"]);
            assert!(decision.again.is_empty());
        }
        // Unless the job prefers a duplicate.
        let resend = DecisionInputs { resend: true, gives_up: false };
        let decision = decide(Err(Failure::MayBeSent(doubt())), &[1], resend);
        assert_eq!((states(&decision), decision.again), (vec!["1 pending".into()], vec![1]));
    }

    #[test]
    fn messages_that_were_not_accepted_stay_pending() {
        for answer in [
            Ok(ProviderResponse::Refused { scope: Scope::Account, reason: "r".into() }),
            Ok(ProviderResponse::Refused { scope: Scope::Campaign, reason: "r".into() }),
            Ok(ProviderResponse::Limited { scope: Scope::Account, retry_after: None, detail: "d".into() }),
            Ok(ProviderResponse::TryAgain { code: "500".into(), detail: "d".into() }),
            Err(Failure::NotSent("d".into())),
        ] {
            let decision = decide(answer, &[1, 2], DecisionInputs::default());
            assert_eq!(states(&decision), ["1 pending", "2 pending"]);
            assert_eq!(decision.again, [1, 2]);
        }
    }

    #[test]
    fn the_reason_with_the_widest_scope_wins() {
        let entries = vec![
            Entry::TryAgain { code: "500".into(), detail: "later".into() },
            Entry::Refused { scope: Scope::Account, reason: "no money".into() },
            Entry::Refused { scope: Scope::Flow, reason: "blocked".into() },
        ];
        let decision = decide(Ok(ProviderResponse::Entries(entries)), &THREE, DecisionInputs::default());
        assert_eq!(decision.again, THREE);
        assert_eq!(decision.next, AfterResponse::Hold { scope: Scope::Account, reason: "no money".into() });
    }

    #[test]
    fn a_message_that_keeps_failing_while_others_are_accepted_is_rejected() {
        let gives_up = DecisionInputs { resend: false, gives_up: true };
        let try_again = || Ok(ProviderResponse::TryAgain { code: "WA500".into(), detail: "d".into() });
        assert_eq!(states(&decide(try_again(), &[7], gives_up)), ["7 rejected"]);
        // Of several messages it is unknown which one fails, and a request that never left proves nothing.
        assert_eq!(states(&decide(try_again(), &[7, 8], gives_up)), ["7 pending", "8 pending"]);
        assert_eq!(states(&decide(Err(Failure::NotSent("x".into())), &[7], gives_up)), ["7 pending"]);
        let entry = Entry::TryAgain { code: "500".into(), detail: "d".into() };
        assert_eq!(
            states(&decide(Ok(ProviderResponse::Entries(vec![entry])), &[7], gives_up)),
            ["7 rejected"]
        );
    }
}
