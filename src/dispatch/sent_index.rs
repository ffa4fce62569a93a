//! The index of sent messages, which matches replies without a reference to their message.

use super::sender::SenderContext;
use crate::campaign::Phone;
use crate::ledger::{Ledger, LedgerError};
use crate::queue::{Queue, QueuedBatch};

impl<L: Ledger, Q: Queue> SenderContext<L, Q> {
    /// Indexes messages by their recipients' numbers, if the account has `answers_within`.
    pub(super) async fn note_sent(&self, queued: &QueuedBatch, claimed: &[u8]) -> Result<(), LedgerError> {
        let Some(within) = self.account.answers_within else { return Ok(()) };
        let phone = |index: &u8| Some((queued.batch.recipient(usize::from(*index))?.phone, *index));
        let messages: Vec<(Phone, u8)> = claimed.iter().filter_map(phone).collect();
        let (account, number) = (&self.job.account, queued.batch.number);
        self.ledger.note_sent(account, within, &self.id, number, &messages).await
    }

    /// Indexes a message by the provider's number of its recipient, if it differs: replies come from that number.
    pub(super) async fn note_other_number(&self, queued: &QueuedBatch, index: u8, number: Phone) {
        let Some(within) = self.account.answers_within else { return };
        let recipient = queued.batch.recipient(usize::from(index));
        if recipient.is_none_or(|recipient| recipient.phone.person() == number.person()) {
            return;
        }
        let (account, batch) = (&self.job.account, queued.batch.number);
        if let Err(error) = self.ledger.note_sent(account, within, &self.id, batch, &[(number, index)]).await
        {
            tracing::warn!(
                campaign = %self.id, %error,
                "could not index a recipient's other number; replies from it may not be matched"
            );
        }
    }
}
