//! Decisions of an operator, and what follows from the end of a campaign.

use std::time::Duration;

use super::BatchMachine;
use crate::campaign::{DoubtCause, MessageState, SkipReason, codes::is_unsent};
use crate::ledger::deliveries::{Changes, Deliveries};
use crate::ledger::record::{BatchRecord, Message};
use crate::ledger::{ABANDONED, Decision, Outcome};

/// Text of [`ABANDONED`] messages.
const ABANDONED_TEXT: &str =
    "an operator abandoned the message, which was in doubt and may have been delivered";
/// Text of messages that were pending when their campaign was cancelled.
const CANCELLED: &str = "the campaign was cancelled before the message was sent";
/// Text of messages that were pending when their campaign expired.
pub(crate) const EXPIRED: &str = "the campaign's expires_at passed before the message was sent";
/// Code of recipients who get enough marketing messages already, and for how long a retry would be rejected again. Until
/// then a retry includes such messages only if it names the code.
const RESTING: (&str, Duration) = ("131049", Duration::from_hours(24));

impl BatchMachine<'_> {
    /// Applies a decision. Returns the number of messages that it changed.
    pub(in crate::ledger) fn decide(&mut self, decision: &Decision) -> u64 {
        let (from, outcome) = match decision {
            Decision::Retry(_) => (MessageState::Rejected, Outcome::Released),
            Decision::Resend { .. } => (MessageState::InDoubt, Outcome::Released),
            Decision::Abandon { .. } => (
                MessageState::InDoubt,
                Outcome::Rejected { code: ABANDONED.into(), detail: ABANDONED_TEXT.into() },
            ),
            Decision::Cancel => (
                MessageState::Pending,
                Outcome::Skipped { reason: SkipReason::Cancelled, detail: CANCELLED.into() },
            ),
            Decision::Expire => (
                MessageState::Pending,
                Outcome::Skipped { reason: SkipReason::Expired, detail: EXPIRED.into() },
            ),
            Decision::Doubt => (MessageState::Pending, Outcome::InDoubt(DoubtCause::DataLoss.into())),
        };
        let now = self.now;
        let is_meant = |record: &BatchRecord, message: &Message| {
            let ago = Duration::from_millis(u64::try_from(now - message.at).unwrap_or_default());
            message.state == from
                && match decision {
                    Decision::Retry(codes) => is_retried(record.code(message), ago, codes),
                    Decision::Resend { until } | Decision::Abandon { until } => message.at <= *until,
                    Decision::Cancel | Decision::Expire | Decision::Doubt => true,
                }
        };
        let decided = self.places(is_meant);
        for (place, message) in &decided {
            // It may have been sent again: evidence of that settles it, and must count as later than the last attempt.
            let attempts = message.attempts.saturating_add(u8::from(*decision == Decision::Doubt));
            self.apply(*place, Message { attempts, ..*message }, &outcome, None);
        }
        self.record.replay |= outcome == Outcome::Released && !decided.is_empty();
        decided.len() as u64
    }

    /// Makes accepted messages pending that a report failed as not sent on, if the retry names the code.
    ///
    /// Their delivery progress is reset. `before` is the stored progress of the batch. Returns the number of messages.
    pub(in crate::ledger) fn retry_unsent(&mut self, decision: &Decision, before: &[u8]) -> u64 {
        let Decision::Retry(codes) = decision else { return 0 };
        let mut deliveries = Deliveries::read(before);
        let failed = |place: u8| deliveries.for_message(place)?.failure().map(str::to_owned);
        let is_meant =
            |place: u8| failed(place).is_some_and(|code| is_unsent(&code) && codes.contains(&code));
        let accepted = self.places(|_, message| message.state == MessageState::Accepted);
        let meant: Vec<_> = accepted.into_iter().filter(|(place, _)| is_meant(*place)).collect();
        if meant.is_empty() {
            return 0;
        }
        let mut changes = Changes::default();
        for (place, message) in &meant {
            deliveries.forget(*place, message.at, &mut changes);
            self.apply(*place, *message, &Outcome::Released, None);
        }
        self.record.replay = true;
        self.change.deliveries = Some((before.to_vec(), deliveries.bytes()));
        for (counter, by) in changes.counters {
            *self.change.counters.entry(counter).or_default() += by;
        }
        meant.len() as u64
    }
}

/// Returns whether a retry of `codes` includes a message that was rejected with `code` that long ago.
fn is_retried(code: &str, ago: Duration, codes: &[String]) -> bool {
    if codes.is_empty() {
        code != ABANDONED && (code != RESTING.0 || ago >= RESTING.1)
    } else {
        codes.iter().any(|wanted| wanted == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_skips_messages_that_would_be_rejected_again() {
        let hours = |count| Duration::from_hours(count);
        assert!(is_retried("400", hours(0), &[]));
        assert!(!is_retried("131049", hours(23), &[]) && is_retried("131049", hours(24), &[]));
        assert!(!is_retried(ABANDONED, hours(99), &[]));
        let named = ["131049".to_string()];
        assert!(is_retried("131049", hours(0), &named) && !is_retried("400", hours(0), &named));
    }
}
