//! Reports in Redis.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::Redis;
use super::layout::{Keys, REMOVED, read_skipped};
use crate::campaign::{CampaignId, MessageState, Phone};
use crate::ledger::{LedgerError, ReportLine, Reporting, StoredBatch, report::OutcomeTexts};

/// Number of skipped rows read with one command.
const PAGE: u64 = 1000;

impl Reporting for Redis {
    async fn written(&self, id: &CampaignId) -> Result<u32, LedgerError> {
        let fields = (Keys(id).campaign(), "state", "batches", REMOVED);
        let (state, batches, removed): (Option<String>, Option<u32>, Option<u8>) =
            self.client.command(redis::cmd("HMGET").arg(fields)).await?;
        if state.is_none() || removed.is_some() {
            return Err(LedgerError::NoCampaign(id.clone()));
        }
        Ok(batches.unwrap_or_default())
    }

    async fn sids(&self, batches: &[Option<StoredBatch>]) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        let accepted = |stored: &StoredBatch| -> Vec<(u8, Phone)> {
            let each = stored.record.each().zip(&stored.batch.recipients);
            let accepted = each.filter(|((_, message), _)| message.state == MessageState::Accepted);
            accepted.map(|((place, _), (_, phone))| (place, *phone)).collect()
        };
        let wanted: Vec<Vec<(u8, Phone)>> =
            batches.iter().map(|stored| stored.as_ref().map(accepted).unwrap_or_default()).collect();
        let mut pipe = redis::pipe();
        let mut asked = 0;
        for (stored, wanted) in batches.iter().zip(&wanted) {
            let Some(batch) = stored.as_ref().map(|stored| &stored.batch).filter(|_| !wanted.is_empty())
            else {
                continue;
            };
            let phones: Vec<String> = wanted.iter().map(|(_, phone)| phone.to_string()).collect();
            pipe.cmd("HMGET").arg(Keys(&batch.campaign).batch(batch.number)).arg(phones);
            asked += 1;
        }
        let values: Vec<Vec<Option<String>>> =
            if asked == 0 { Vec::new() } else { self.client.pipeline(&pipe).await? };
        let mut values = values.into_iter();
        let sid = |value: Option<String>| Some(value?.split_once(' ')?.1.to_owned());
        let sids = |wanted: &Vec<(u8, Phone)>| {
            let values = if wanted.is_empty() { None } else { values.next() };
            let places = wanted.iter().zip(values.unwrap_or_default());
            places.filter_map(|((place, _), value)| Some((*place, sid(value)?))).collect()
        };
        Ok(wanted.iter().map(sids).collect())
    }

    async fn requests(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<String>>, LedgerError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.client.command(redis::cmd("HMGET").arg(Keys(id).requests()).arg(numbers)).await?)
    }

    async fn texts(&self, id: &CampaignId) -> Result<OutcomeTexts, LedgerError> {
        let texts: HashMap<String, String> =
            self.client.command(redis::cmd("HGETALL").arg(Keys(id).texts())).await?;
        let text = |(field, text): (String, String)| {
            let (kind, word) = field.split_once(':')?;
            Some(((kind.to_owned(), word.to_owned()), text))
        };
        Ok(texts.into_iter().filter_map(text).collect())
    }

    async fn skipped(&self, id: &CampaignId, mut from: u64, to: u64) -> Result<Vec<ReportLine>, LedgerError> {
        let mut all = Vec::new();
        loop {
            let range = (Keys(id).skipped(), from, from + PAGE - 1);
            let page: Vec<String> = self.client.command(redis::cmd("LRANGE").arg(range)).await?;
            if page.is_empty() {
                return Ok(all);
            }
            from += page.len() as u64;
            for line in &page {
                let Some((row, recipient, reason, detail, at)) = read_skipped(line) else { continue };
                if row > to {
                    return Ok(all);
                }
                all.push(ReportLine::skipped(row, recipient, reason, detail, at));
            }
        }
    }

    async fn answers(&self, id: &CampaignId, numbers: Range<u32>) -> Result<Vec<String>, LedgerError> {
        let numbers: Vec<u32> = numbers.collect();
        let values = |number| redis::cmd("HVALS").arg(Keys(id).responses(number)).clone();
        let kept: Vec<Vec<String>> = self.of_each(&numbers, values).await?;
        Ok(kept.concat())
    }

    async fn answer_published(&self, id: &CampaignId, _: u32, answer: String) -> Result<(), LedgerError> {
        Ok(self.client.command(redis::cmd("SREM").arg((Keys(id).unpublished(), answer))).await?)
    }
}
