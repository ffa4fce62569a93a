//! Records outcomes: first in the ledger; then they are judged, counted and published.

use std::sync::atomic::Ordering;

use super::events::{Events, OfJob};
use super::{DispatchError, replay, sender::SenderContext};
use crate::campaign::{MessageState, Recipient, SkipReason};
use crate::ledger::{BatchWriter, Claim, Ledger, Outcome, RecordOutcome, transitions};
use crate::queue::{Queue, QueuedBatch};

/// The states that `flowcast_messages_total` counts.
const COUNTED_STATES: [MessageState; 4] =
    [MessageState::Accepted, MessageState::Rejected, MessageState::InDoubt, MessageState::Pending];

impl<L: Ledger, Q: Queue> SenderContext<L, Q> {
    /// Returns the job's `custom_data` as it was sent.
    fn custom_data(&self, recipient: &Recipient<'_>) -> Option<String> {
        let text = self.job.custom_data.as_ref()?;
        let Some(sent) = self.template.text_at("/custom_data", recipient) else { return Some(text.clone()) };
        // Meta has one field for the reference and the data.
        let reference = format!("{} ", recipient.message_ref());
        Some(sent.strip_prefix(&reference).map(str::to_owned).unwrap_or(sent))
    }

    /// Records outcomes, with the values that a retry of failed messages needs, then publishes events.
    pub(super) async fn record(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        claim: &Claim,
        outcomes: Vec<(u8, Outcome)>,
        request: Option<String>,
    ) -> Result<(), DispatchError> {
        let (batch, now) = (&queued.batch, self.ledger.time());
        let mut counts = [0_u64; COUNTED_STATES.len()];
        let mut events = Vec::new();
        let mut recorded = Vec::with_capacity(outcomes.len());
        for (message, outcome) in outcomes {
            if let Some(nth) = COUNTED_STATES.iter().position(|state| *state == outcome.state()) {
                counts[nth] += 1;
            }
            let failed = matches!(outcome, Outcome::Rejected { .. } | Outcome::InDoubt(_));
            let recipient = batch.recipient(usize::from(message)).filter(|_| failed);
            if let Some(recipient) = recipient.filter(|_| self.events.are_published()) {
                let custom_data = self.custom_data(&recipient);
                let job = OfJob { account: &self.job.account, custom_data: custom_data.as_deref() };
                events.extend(Events::failed(now, job, &recipient, &outcome));
            }
            let payload =
                recipient.map(|recipient| replay::payload(&recipient, self.template.columns().len()));
            recorded.push(RecordOutcome { message, outcome, payload });
        }
        let open = writer.record_answer(claim.token, recorded, request).await?;
        // Judged before anything can complete the campaign.
        self.judge_counts().await?;
        for (state, count) in COUNTED_STATES.iter().zip(counts).filter(|(_, count)| *count > 0) {
            let account = self.job.account.clone();
            metrics::counter!("flowcast_messages_total", "account" => account, "state" => state.as_str())
                .increment(count);
            if *state == MessageState::InDoubt {
                metrics::counter!("flowcast_messages_in_doubt_total", "reason" => "no_clear_response")
                    .increment(count);
            }
        }
        self.events.publish(&events).await;
        self.wake_if_finished(open);
        Ok(())
    }

    /// Notifies the supervisor if no message of a planned campaign is open.
    pub(super) fn wake_if_finished(&self, open: u64) {
        if open == 0 && self.state.planned.load(Ordering::Relaxed) {
            self.wake_up.notify_one();
        }
    }

    /// Holds the campaign if its counts reach `stop_when`. Called after every recorded response.
    ///
    /// One judgement covers all responses that were recorded before it began.
    async fn judge_counts(&self) -> Result<(), DispatchError> {
        let Some(stop_when) = self.job.stop_when else { return Ok(()) };
        let nth = self.state.answers.fetch_add(1, Ordering::SeqCst) + 1;
        let mut judged = self.state.judged.lock().await;
        if *judged >= nth {
            return Ok(());
        }
        let answers = self.state.answers.load(Ordering::SeqCst);
        if transitions::judge(&self.ledger, &self.id, stop_when).await? {
            tracing::warn!(campaign = %self.id, "campaign held: stop_when reached");
            self.halt();
        }
        *judged = answers;
        Ok(())
    }

    /// Skips messages to suppressed numbers. Returns the others.
    ///
    /// Called just before the claim: a recipient who opts out while the campaign is sent gets no further message.
    pub(super) async fn without_suppressed(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
    ) -> Result<Vec<u8>, DispatchError> {
        let (suppressed, set): (Vec<u8>, Vec<u8>) = {
            let list = self.suppressed.read();
            set.into_iter().partition(|index| {
                let recipient = queued.batch.recipient(usize::from(*index));
                recipient.is_some_and(|recipient| list.contains(recipient.phone))
            })
        };
        if !suppressed.is_empty() {
            self.skip(writer, suppressed, SkipReason::Suppressed, "asked for no more messages").await?;
        }
        Ok(set)
    }

    /// Skips messages for a reason that arose after they were planned.
    pub(super) async fn skip(
        &self,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
        reason: SkipReason,
        detail: &str,
    ) -> Result<(), DispatchError> {
        let outcome = Outcome::Skipped { reason, detail: detail.into() };
        let outcomes = set.into_iter().map(|index| (index, outcome.clone()).into()).collect();
        let open = writer.record(0, outcomes).await?;
        self.wake_if_finished(open);
        Ok(())
    }
}
