//! Reports in memory.

use std::{collections::BTreeMap, ops::Range};

use super::Memory;
use crate::campaign::CampaignId;
use crate::ledger::{LedgerError, ReportLine, Reporting, SkippedRow, StoredBatch, report::OutcomeTexts};

impl Reporting for Memory {
    async fn written(&self, id: &CampaignId) -> Result<u32, LedgerError> {
        Ok(self.state.lock().campaign(id)?.batches.keys().next_back().map_or(0, |last| last + 1))
    }

    async fn sids(&self, batches: &[Option<StoredBatch>]) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        let mut state = self.state.lock();
        let mut sids = |stored: &Option<StoredBatch>| {
            let batch = &stored.as_ref()?.batch;
            Some(state.campaign(&batch.campaign).ok()?.batches.get(&batch.number)?.sids.clone())
        };
        Ok(batches.iter().map(|stored| sids(stored).unwrap_or_default()).collect())
    }

    async fn requests(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<String>>, LedgerError> {
        Ok(self.state.lock().campaign(id)?.kept(numbers, |kept| kept.request.clone()))
    }

    async fn texts(&self, id: &CampaignId) -> Result<OutcomeTexts, LedgerError> {
        let mut state = self.state.lock();
        let texts = state.campaign(id)?.texts.iter();
        Ok(texts.map(|((kind, word), text)| (((*kind).to_owned(), word.clone()), text.clone())).collect())
    }

    async fn skipped(&self, id: &CampaignId, from: u64, to: u64) -> Result<Vec<ReportLine>, LedgerError> {
        let mut state = self.state.lock();
        let skipped = &state.campaign(id)?.skipped;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let lines = skipped.iter().skip(from).take_while(|(row, _)| row.row <= to);
        let line = |(row, at): &(SkippedRow, i64)| {
            let SkippedRow { row, recipient, reason, detail } = row.clone();
            ReportLine::skipped(row, recipient, reason.as_str().into(), detail, *at)
        };
        Ok(lines.map(line).collect())
    }

    async fn answers(&self, id: &CampaignId, numbers: Range<u32>) -> Result<Vec<String>, LedgerError> {
        let mut state = self.state.lock();
        let batches = state.campaign(id)?.batches.range(numbers);
        Ok(batches.flat_map(|(_, kept)| kept.responses.values().cloned()).collect())
    }

    async fn answer_published(&self, id: &CampaignId, _: u32, answer: String) -> Result<(), LedgerError> {
        self.state.lock().campaign(id)?.unpublished.remove(&answer);
        Ok(())
    }
}
