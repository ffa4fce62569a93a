//! Batches to requeue, with the stored values of their messages.
//!
//! It only lists them: the worker that leads a campaign queues them.

use std::collections::BTreeMap;

use super::{Batches, LedgerError, PlannedBatch, StoredBatch, batches::WINDOW};
use crate::campaign::{CampaignId, MessageState};

/// A batch with messages to requeue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its recipients.
    pub batch: PlannedBatch,
    /// Number that grows with each decision.
    pub since: u64,
    /// Stored values of its pending messages, by position.
    pub payloads: BTreeMap<u8, String>,
}

/// Returns some of the batches to requeue, without those that are `known` with the same number.
///
/// A batch is returned until none of its messages is open.
pub async fn due<L: Batches>(
    ledger: &L,
    id: &CampaignId,
    known: BTreeMap<u32, u64>,
) -> Result<Vec<Replay>, LedgerError> {
    let all = ledger.replays(id).await?;
    let updates = all.into_iter().filter(|(number, since)| known.get(number) != Some(since));
    let wanted: Vec<(u32, u64)> = updates.take(WINDOW).collect();
    let numbers: Vec<u32> = wanted.iter().map(|(number, _)| *number).collect();
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let (stored, kept) = (ledger.load(id, &numbers).await?, ledger.payloads(id, &numbers).await?);
    let mut all = Vec::with_capacity(wanted.len());
    for (((_, since), stored), mut payloads) in wanted.into_iter().zip(stored).zip(kept) {
        let Some(StoredBatch { batch, record }) = stored else { continue };
        payloads.retain(|place, _| {
            record.message(*place).is_some_and(|message| message.state == MessageState::Pending)
        });
        all.push(Replay { batch, since, payloads });
    }
    Ok(all)
}
