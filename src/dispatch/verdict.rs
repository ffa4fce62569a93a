//! What is done about an answer: outcomes for the ledger, and what becomes of the batch.

use std::time::Duration;

use crate::ledger::Outcome;
use crate::provider::{Answer, Entry, Failure};

/// What follows from an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What became of each message.
    pub(super) outcomes: Vec<(u8, Outcome)>,
    /// What is tried again, and how.
    pub(super) next: Next,
    /// Messages that are to be tried again later.
    pub(super) again: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    #[default]
    Done,
    /// The messages went back; they are sent again in two halves, to find the one that is wrong.
    Halves,
    /// The provider said that it is too much.
    Limited { retry_after: Option<Duration>, detail: String },
    /// A passing failure; after a few in a row the campaign is held for it.
    Later { detail: String },
    /// Nothing more can be sent.
    Hold { reason: String },
    /// Nobody knows; after a few in a row the campaign is held for it.
    InDoubt { detail: String },
}

/// Reads `docs/architecture.md`, "Which answers prove what", for messages that were claimed.
pub(super) fn judge(answer: Result<Answer, Failure>, messages: &[u8], resend: bool) -> Verdict {
    let all = |outcome: Outcome| messages.iter().map(|index| (*index, outcome.clone())).collect();
    let released = |next| Verdict { outcomes: all(Outcome::Released), next, again: messages.to_vec() };
    let unknown = |detail: String| {
        let outcome = if resend { Outcome::Released } else { Outcome::InDoubt { detail: detail.clone() } };
        let again = if resend { messages.to_vec() } else { Vec::new() };
        Verdict { outcomes: all(outcome), next: Next::InDoubt { detail }, again }
    };
    match answer {
        Ok(Answer::Entries(entries)) => judge_entries(entries, messages, resend),
        Ok(Answer::Malformed { .. }) if messages.len() > 1 => released(Next::Halves),
        Ok(Answer::Malformed { code, detail }) => {
            Verdict { outcomes: all(Outcome::Rejected { code, detail }), ..Verdict::default() }
        }
        Ok(Answer::AccountRefused { reason } | Answer::CampaignRefused { reason }) => {
            released(Next::Hold { reason })
        }
        Ok(Answer::Limited { retry_after, detail }) => released(Next::Limited { retry_after, detail }),
        Ok(Answer::TryAgain { detail }) | Err(Failure::NotSent(detail)) => released(Next::Later { detail }),
        Ok(Answer::Unknown { detail }) | Err(Failure::MayBeSent(detail)) => unknown(detail),
    }
}

fn judge_entries(entries: Vec<Entry>, messages: &[u8], resend: bool) -> Verdict {
    let mut verdict = Verdict::default();
    for (index, entry) in messages.iter().zip(entries) {
        let outcome = match entry {
            Entry::Accepted { sid } => Outcome::Accepted { sid },
            Entry::Rejected { code, detail } => Outcome::Rejected { code, detail },
            Entry::TryAgain { limited, detail } => {
                verdict.again.push(*index);
                verdict.next = match verdict.next {
                    // Of two reasons to wait the limit is the one that holds nothing.
                    Next::Limited { .. } => verdict.next,
                    _ if limited => Next::Limited { retry_after: None, detail },
                    _ => Next::Later { detail },
                };
                Outcome::Released
            }
            Entry::Unknown { .. } if resend => {
                verdict.again.push(*index);
                Outcome::Released
            }
            Entry::Unknown { detail } => Outcome::InDoubt { detail },
        };
        verdict.outcomes.push((*index, outcome));
    }
    if !verdict.again.is_empty() && verdict.next == Next::Done {
        verdict.next = Next::Later { detail: "the answer left messages open".into() };
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: [u8; 3] = [4, 5, 9];

    fn states(verdict: &Verdict) -> Vec<String> {
        verdict.outcomes.iter().map(|(index, outcome)| format!("{index} {}", outcome.state())).collect()
    }

    #[test]
    fn half_a_batch_refused_leaves_the_other_half_accepted() {
        let verdict = judge(
            Ok(Answer::Entries(vec![
                Entry::Accepted { sid: "s".into() },
                Entry::Rejected { code: "400".into(), detail: String::new() },
                Entry::TryAgain { limited: true, detail: "slow".into() },
            ])),
            &THREE,
            false,
        );
        assert_eq!(states(&verdict), ["4 accepted", "5 rejected", "9 pending"]);
        assert_eq!(verdict.again, [9]);
        assert_eq!(verdict.next, Next::Limited { retry_after: None, detail: "slow".into() });
    }

    #[test]
    fn a_400_is_split_until_one_message_stands_alone() {
        let malformed = || Ok(Answer::Malformed { code: "400".into(), detail: "bad".into() });
        let verdict = judge(malformed(), &THREE, false);
        assert_eq!(
            (states(&verdict), verdict.next),
            (vec!["4 pending".into(), "5 pending".into(), "9 pending".into()], Next::Halves)
        );
        let alone = judge(malformed(), &[5], false);
        assert_eq!((states(&alone), alone.next), (vec!["5 rejected".into()], Next::Done));
    }

    #[test]
    fn a_request_that_may_have_gone_out_is_in_doubt_and_not_tried_again() {
        for answer in [Ok(Answer::Unknown { detail: "x".into() }), Err(Failure::MayBeSent("x".into()))] {
            let verdict = judge(answer, &[1, 2], false);
            assert_eq!(states(&verdict), ["1 in_doubt", "2 in_doubt"]);
            assert!(verdict.again.is_empty());
        }
        // Unless the job's author takes a duplicate over a gap.
        let verdict = judge(Err(Failure::MayBeSent("x".into())), &[1], true);
        assert_eq!((states(&verdict), verdict.again), (vec!["1 pending".into()], vec![1]));
    }

    #[test]
    fn what_was_not_taken_stays_pending() {
        for answer in [
            Ok(Answer::AccountRefused { reason: "r".into() }),
            Ok(Answer::CampaignRefused { reason: "r".into() }),
            Ok(Answer::Limited { retry_after: None, detail: "d".into() }),
            Ok(Answer::TryAgain { detail: "d".into() }),
            Err(Failure::NotSent("d".into())),
        ] {
            let verdict = judge(answer, &[1, 2], false);
            assert_eq!(states(&verdict), ["1 pending", "2 pending"]);
            assert_eq!(verdict.again, [1, 2]);
        }
    }
}
