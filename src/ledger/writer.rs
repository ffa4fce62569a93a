//! Writes what many senders of one batch want at the same time, together.
//!
//! Where a request takes one message, a hundred of a batch are claimed and recorded at about the same
//! time. Each write waits for the one before it, so what has gathered meanwhile goes with the next: a
//! few swaps, and never two that spoil each other. The record is known after each write, so the next
//! needs no read.

use super::claims;
use super::{BatchRecord, BatchWrite, Batches, Claim, LedgerError, PlannedBatch, Purpose, Recorded, Written};
use crate::campaign::MessageState;
use crate::micro_batch::MicroBatch;

/// A batch that this worker has taken from the queue.
pub struct BatchWriter<L> {
    ledger: L,
    batch: PlannedBatch,
    /// The writes that wait, and the record, where it is known; locked while it is written.
    writes: MicroBatch<Option<BatchRecord>, BatchWrite, Result<Written, LedgerError>>,
}

impl<L: Batches> BatchWriter<L> {
    /// A batch of which nothing is known.
    pub fn new(ledger: &L, batch: PlannedBatch) -> Self {
        Self { ledger: ledger.clone(), batch, writes: MicroBatch::default() }
    }

    /// Claims messages before their request goes out, as [`claims::claim`] does.
    ///
    /// # Errors
    ///
    /// As [`claims::claim`].
    pub async fn claim(&self, messages: Vec<u8>, purpose: Purpose) -> Result<Claim, LedgerError> {
        let token = self.ledger.token();
        match self.write(BatchWrite::Claim { token, messages, purpose }).await? {
            Written::Claimed(claim) => Ok(claim),
            Written::Recorded(_) => Ok(Claim::default()),
        }
    }

    /// Records what became of messages, after the answer, as [`claims::record`] does.
    ///
    /// # Errors
    ///
    /// As [`claims::record`].
    pub async fn record(&self, token: u64, outcomes: Vec<Recorded>) -> Result<u64, LedgerError> {
        self.record_answer(token, outcomes, None).await
    }

    /// The same, with what the provider calls the request.
    ///
    /// # Errors
    ///
    /// As [`claims::record`].
    pub async fn record_answer(
        &self,
        token: u64,
        outcomes: Vec<Recorded>,
        request: Option<String>,
    ) -> Result<u64, LedgerError> {
        match self.write(BatchWrite::Record { token, outcomes, request }).await? {
            Written::Recorded(open) => Ok(open),
            Written::Claimed(_) => Ok(0),
        }
    }

    /// Messages that nobody has claimed are in doubt, as [`BatchWrite::Doubt`] says. Returns those that are pending
    /// all the same, and how many of the campaign are open.
    ///
    /// # Errors
    ///
    /// As [`claims::record`].
    pub async fn doubt(&self, messages: Vec<u8>) -> Result<(Vec<u8>, u64), LedgerError> {
        let write = BatchWrite::Doubt { messages: messages.clone() };
        let open = match self.write(write).await? {
            Written::Recorded(open) => open,
            Written::Claimed(_) => 0,
        };
        Ok((self.pending(messages).await?, open))
    }

    /// Those of some messages that are pending, as far as this worker knows.
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

    async fn write(&self, write: BatchWrite) -> Result<Written, LedgerError> {
        let all = |waiting: &mut dyn Iterator<Item = &BatchWrite>| waiting.count();
        let write_all = |mut known: Option<BatchRecord>, mut writes: Vec<BatchWrite>| async move {
            share_token(&mut writes);
            let written = match claims::write(&self.ledger, &self.batch, &mut known, &writes).await {
                Ok(written) => written.into_iter().map(Ok).collect(),
                Err(fault) => vec![Err(fault); writes.len()],
            };
            (known, written)
        };
        self.writes.submit(write, false, all, write_all).await.ok_or_else(gone)?
    }
}

/// Makes claims that are written together one claim of several requests: they begin at the same moment, and
/// would run out at the same moment. Each of them still settles its own messages alone.
fn share_token(writes: &mut [BatchWrite]) {
    let mut shared = None;
    for write in writes {
        if let BatchWrite::Claim { token, .. } = write {
            *token = *shared.get_or_insert(*token);
        }
    }
}

/// Whoever was writing has been given up, and what it wrote with it.
fn gone() -> LedgerError {
    LedgerError::Storage("was given up while a batch was written".into())
}
