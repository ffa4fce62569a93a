//! Batches in memory: a compare-and-swap under one lock.

use std::collections::BTreeMap;

use super::{KeptBatch, Memory, Stored};
#[cfg(test)]
use crate::campaign::Phone;
use crate::campaign::{CampaignId, MessageState};
use crate::ledger::{
    BatchUpdate, Batches, CasOutcome, ClaimPurpose, Clock, LedgerError, ListEntry, PlannedBatch, StoredBatch,
    campaigns::ClaimAdmission, record::BatchRecord,
};

impl KeptBatch {
    fn record(&self) -> Result<BatchRecord, LedgerError> {
        BatchRecord::read(&self.record, self.recipients.len())
    }
}

impl Stored {
    pub(super) fn kept<T: Default>(&self, numbers: &[u32], of: impl Fn(&KeptBatch) -> T) -> Vec<T> {
        numbers.iter().map(|number| self.batches.get(number).map(&of).unwrap_or_default()).collect()
    }
}

impl Memory {
    /// Writes a change. With `is_forced` it skips the comparison, so that a simulation can show that its checks find that.
    #[allow(clippy::unused_async, reason = "other ledgers wait here")]
    pub(crate) async fn swap(
        &self,
        swap: BatchUpdate<'_>,
        is_forced: bool,
    ) -> Result<CasOutcome, LedgerError> {
        let (now, holds) = (self.now(), self.holds.as_millis() as i64);
        let BatchUpdate { batch, purpose, change } = swap;
        let mut state = self.state.lock();
        state.order += 1;
        let order = state.order;
        let stored = state.campaign(&batch.campaign)?;
        if stored.head.state.is_over() && !stored.batches.contains_key(&batch.number) {
            return Ok(CasOutcome::unplanned(purpose));
        }
        let kept = stored.plan(batch)?;
        let is_stale = change.record.is_some() && kept.record()?.revision != change.known
            || change.deliveries.as_ref().is_some_and(|(before, _)| *before != kept.deliveries);
        if is_stale && !is_forced {
            return Ok(CasOutcome::Stale);
        }
        let admits = stored.head.admits();
        let is_admitted = match purpose {
            None => true,
            Some(ClaimPurpose::Send) => admits == ClaimAdmission::All,
            Some(ClaimPurpose::Probe) => admits != ClaimAdmission::None,
        };
        if !is_admitted {
            return Ok(CasOutcome::NotAdmitted);
        }
        if change.reopens && stored.head.state.is_over() {
            return Ok(CasOutcome::Ended);
        }
        let kept = stored.plan(batch)?;
        if let Some(record) = &change.record {
            kept.record = record.bytes();
        }
        if let Some((_, after)) = &change.deliveries {
            kept.deliveries.clone_from(after);
        }
        if change.request.is_some() {
            kept.request.clone_from(&change.request);
        }
        for (place, outcome) in &change.outcomes {
            match outcome {
                Some((MessageState::Accepted, sid)) => kept.sids.insert(*place, sid.clone()),
                _ => kept.sids.remove(place),
            };
        }
        for (place, payload) in &change.payloads {
            match payload {
                Some(payload) => kept.payloads.insert(*place, payload.clone()),
                None => kept.payloads.remove(place),
            };
        }
        let is_new = |(key, json): &(String, String)| {
            let known = kept.responses.contains_key(key);
            kept.responses.entry(key.clone()).or_insert_with(|| json.clone());
            (key.clone(), !known)
        };
        let answers: Vec<(String, bool)> = change.responses.iter().map(is_new).collect();
        stored.unpublished.extend(answers.iter().filter(|(_, new)| *new).map(|(key, _)| key.clone()));
        let responses = answers.iter().map(|(key, _)| stored.unpublished.contains(key)).collect();
        for (counter, by) in &change.counters {
            *stored.counters.entry(counter.clone()).or_default() += by;
        }
        for (key, text) in &change.texts {
            stored.texts.entry(key.clone()).or_insert_with(|| text.clone());
        }
        stored.claims.extend(change.claimed.iter().map(|token| ((*token, batch.number), now + holds)));
        for token in &change.released {
            stored.claims.remove(&(*token, batch.number));
        }
        match change.replay {
            Some(true) => drop(stored.replays.insert(batch.number, order)),
            Some(false) => drop(stored.replays.remove(&batch.number)),
            None => {}
        }
        if change.settled > 0 {
            stored.tick(change.settled, now);
        }
        Ok(CasOutcome::Done { open: stored.open(), responses })
    }
}

#[cfg(test)]
impl Memory {
    /// Returns whether each of `phones` has a message that is sending, or accepted by a report of an earlier attempt.
    pub(crate) fn are_being_sent(&self, phones: &[Phone]) -> bool {
        let state = self.state.lock();
        let is_sent = |phone: &Phone| {
            state.campaigns.values().flat_map(|stored| stored.batches.values()).any(|kept| {
                let place = kept.recipients.iter().position(|(_, known)| known == phone);
                let record = kept.record().ok();
                place.zip(record).is_some_and(|(place, record)| {
                    matches!(record.messages[place].state, MessageState::Sending | MessageState::Accepted)
                })
            })
        };
        phones.iter().all(is_sent)
    }

    /// Writes a change some time later, so that a simulation can show that its checks find an early confirmation.
    pub(crate) fn swap_late(&self, swap: BatchUpdate<'_>, late: std::time::Duration) {
        let (ledger, batch, purpose, change) =
            (self.clone(), swap.batch.clone(), swap.purpose, swap.change.clone());
        tokio::spawn(async move {
            tokio::time::sleep(late).await;
            let _ = ledger.swap(BatchUpdate { batch: &batch, purpose, change: &change }, false).await;
        });
    }
}

impl Batches for Memory {
    fn token(&self) -> u64 {
        let mut state = self.state.lock();
        state.tokens += 1;
        (u64::from(self.session) << 32) | u64::from(state.tokens)
    }

    fn claims_run_out(&self) -> bool {
        true
    }

    async fn load(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<StoredBatch>>, LedgerError> {
        let mut state = self.state.lock();
        let Ok(stored) = state.campaign(id) else { return Ok(vec![None; numbers.len()]) };
        let load = |number: &u32| {
            let Some(kept) = stored.batches.get(number) else { return Ok(None) };
            let recipients = kept.recipients.clone();
            let batch = PlannedBatch { campaign: id.clone(), number: *number, recipients };
            Ok(Some(StoredBatch { batch, record: kept.record()? }))
        };
        numbers.iter().map(load).collect()
    }

    async fn update_batch(&self, swap: BatchUpdate<'_>) -> Result<CasOutcome, LedgerError> {
        self.swap(swap, false).await
    }

    async fn due_claims(&self, id: &CampaignId) -> Result<Vec<(u64, u32)>, LedgerError> {
        let now = self.now();
        let mut state = self.state.lock();
        let due = state.campaign(id)?.claims.iter().filter(|(_, until)| **until <= now);
        Ok(due.map(|(claim, _)| *claim).collect())
    }

    async fn forget_claim(&self, id: &CampaignId, token: u64, batch: u32) -> Result<(), LedgerError> {
        self.state.lock().campaign(id)?.claims.remove(&(token, batch));
        Ok(())
    }

    async fn listed(&self, id: &CampaignId, listed: ListEntry) -> Result<Vec<u32>, LedgerError> {
        let mut state = self.state.lock();
        let mut numbers = Vec::new();
        for (number, kept) in &state.campaign(id)?.batches {
            let record = kept.record()?;
            let is_listed = match listed {
                ListEntry::Open => record.is_open(),
                ListEntry::Failed => record.is_failed(),
                ListEntry::All => true,
            };
            numbers.extend(is_listed.then_some(*number));
        }
        Ok(numbers)
    }

    async fn replays(&self, id: &CampaignId) -> Result<BTreeMap<u32, u64>, LedgerError> {
        Ok(self.state.lock().campaign(id)?.replays.clone())
    }

    async fn payloads(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        Ok(self.state.lock().campaign(id)?.kept(numbers, |kept| kept.payloads.clone()))
    }

    async fn deliveries(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut state = self.state.lock();
        let Ok(stored) = state.campaign(id) else { return Ok(vec![Vec::new(); numbers.len()]) };
        Ok(stored.kept(numbers, |kept| kept.deliveries.clone()))
    }
}
