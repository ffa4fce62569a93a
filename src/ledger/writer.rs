//! Combines concurrent writes of one batch.
//!
//! If a request contains one message, a hundred messages of a batch are claimed and recorded at about the same time. Each
//! write waits for the one before, and the waiting ones are written together: a few compare-and-swaps, and no conflicts
//! between them. The record is known after each write, so the next needs no read. The writer decides nothing.

use super::{
    BatchRecord, BatchWrite, Batches, Claim, ClaimPurpose, LedgerError, PlannedBatch, RecordOutcome,
    WriteOutcome, claims,
};
use crate::campaign::MessageState;
use crate::micro_batch::MicroBatch;

/// The writer of a batch that this worker holds.
pub struct BatchWriter<L> {
    ledger: L,
    batch: PlannedBatch,
    /// The writes that wait, and the record, where it is known; locked while it is written.
    writes: MicroBatch<Option<BatchRecord>, BatchWrite, Result<WriteOutcome, LedgerError>>,
}

impl<L: Batches> BatchWriter<L> {
    /// Returns the writer of a batch whose record is not known.
    pub fn new(ledger: &L, batch: PlannedBatch) -> Self {
        Self { ledger: ledger.clone(), batch, writes: MicroBatch::default() }
    }

    /// Claims messages before their request, as [`claims::claim`].
    ///
    /// # Errors
    ///
    /// As [`claims::claim`].
    pub async fn claim(&self, messages: Vec<u8>, purpose: ClaimPurpose) -> Result<Claim, LedgerError> {
        let token = self.ledger.token();
        match self.write(BatchWrite::Claim { token, messages, purpose }).await? {
            WriteOutcome::Claimed(claim) => Ok(claim),
            WriteOutcome::Recorded(_) => Ok(Claim::default()),
        }
    }

    /// Records the outcomes of messages after the response, as [`claims::record`].
    ///
    /// # Errors
    ///
    /// As [`claims::record`].
    pub async fn record(&self, token: u64, outcomes: Vec<RecordOutcome>) -> Result<u64, LedgerError> {
        self.record_answer(token, outcomes, None).await
    }

    /// Records outcomes as [`BatchWriter::record`], with the provider's id of the request.
    ///
    /// # Errors
    ///
    /// As [`claims::record`].
    pub async fn record_answer(
        &self,
        token: u64,
        outcomes: Vec<RecordOutcome>,
        request: Option<String>,
    ) -> Result<u64, LedgerError> {
        match self.write(BatchWrite::Record { token, outcomes, request }).await? {
            WriteOutcome::Recorded(open) => Ok(open),
            WriteOutcome::Claimed(_) => Ok(0),
        }
    }

    /// Puts unclaimed messages in doubt, as [`BatchWrite::Doubt`].
    ///
    /// Returns those that are still pending, and the number of open messages of the campaign.
    ///
    /// # Errors
    ///
    /// As [`claims::record`].
    pub async fn doubt(&self, messages: Vec<u8>) -> Result<(Vec<u8>, u64), LedgerError> {
        let write = BatchWrite::Doubt { messages: messages.clone() };
        let open = match self.write(write).await? {
            WriteOutcome::Recorded(open) => open,
            WriteOutcome::Claimed(_) => 0,
        };
        Ok((self.pending(messages).await?, open))
    }

    /// Returns which messages are pending, as far as this worker knows.
    ///
    /// # Errors
    ///
    /// As [`claims::record`].
    pub async fn pending(&self, messages: Vec<u8>) -> Result<Vec<u8>, LedgerError> {
        let mut known = self.writes.lock().await;
        let record = match known.take() {
            Some(record) => record,
            None => claims::record_of(&self.ledger, &self.batch).await?,
        };
        let record = known.insert(record);
        let is_pending =
            |place: &u8| record.message(*place).is_some_and(|message| message.state == MessageState::Pending);
        Ok(messages.into_iter().filter(is_pending).collect())
    }

    async fn write(&self, write: BatchWrite) -> Result<WriteOutcome, LedgerError> {
        let all = |waiting: &mut dyn Iterator<Item = &BatchWrite>| waiting.count();
        let write_all = |mut known: Option<BatchRecord>, mut writes: Vec<BatchWrite>| async move {
            share_token(&mut writes);
            let written = match claims::write(&self.ledger, &self.batch, &mut known, &writes).await {
                Ok(written) => written.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); writes.len()],
            };
            (known, written)
        };
        self.writes.submit(write, false, all, write_all).await.ok_or_else(gone)?
    }
}

/// Gives claims that are written together one token: they start and expire at the same time.
///
/// Each sender still settles only its own messages.
fn share_token(writes: &mut [BatchWrite]) {
    let mut shared = None;
    for write in writes {
        if let BatchWrite::Claim { token, .. } = write {
            *token = *shared.get_or_insert(*token);
        }
    }
}

/// Returns the error of a write whose task was dropped.
fn gone() -> LedgerError {
    LedgerError::Storage("did not finish a write of a batch: its task was dropped".into())
}
