//! Plans in Redis: a checkpoint is written with its batches and skipped rows, if the plan is still at the row before them.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use super::layout::{Keys, skipped_line};
use super::transaction::{Command, Key, Transaction, TransactionOutcome};
use super::{Redis, campaign_hash::Fields};
use crate::campaign::{CampaignId, MessageState, SkipReason};
use crate::ledger::{Checkpoint, Clock, LedgerError, Plan, PlannedBatch, PlannedSoFar, Plans, SkippedRow};

impl Redis {
    /// Returns the number of stored batches, including those claimed before their checkpoint.
    pub(super) async fn batches_of(&self, id: &CampaignId) -> Result<u32, LedgerError> {
        let count: Option<u32> =
            self.client.command(redis::cmd("HGET").arg(Keys(id).campaign()).arg("batches")).await?;
        Ok(count.unwrap_or_default())
    }

    /// Stores a batch before its checkpoint. Returns `false` if the campaign has ended: then it is not stored.
    pub(super) async fn plan_batch(&self, batch: &PlannedBatch) -> Result<bool, LedgerError> {
        let keys = Keys(&batch.campaign);
        let mut transaction = Transaction::default();
        let (campaign, open) = (transaction.key(keys.campaign()), transaction.key(keys.open()));
        transaction.check_has_not_ended(campaign);
        plan(&mut transaction, campaign, open, batch);
        match transaction.run(&self.client, 0).await?.0 {
            TransactionOutcome::Written(_) => Ok(true),
            TransactionOutcome::Failed { found, .. } if found.is_empty() => {
                Err(LedgerError::NoCampaign(batch.campaign.clone()))
            }
            TransactionOutcome::Failed { .. } => Ok(false),
        }
    }
}

/// Stores a batch, if it is not stored yet.
fn plan(transaction: &mut Transaction, campaign: Key, open: Key, batch: &PlannedBatch) {
    let (number, size) = (batch.number.to_string(), batch.recipients.len().to_string());
    let extent = (u64::from(batch.number) + 1).to_string();
    let key = transaction.key(Keys(&batch.campaign).plan(batch.number));
    transaction.command_if(3, Command::SetNx, key, &[batch.bytes()]);
    transaction.command(Command::SAdd, open, &[&number]);
    transaction.command(Command::HIncrBy, campaign, &[MessageState::Pending.as_str(), &size]);
    transaction.command(Command::Max, campaign, &["batches", &extent]);
}

impl Plans for Redis {
    async fn plan(&self, id: &CampaignId) -> Result<Plan, LedgerError> {
        let mut pipe = redis::pipe();
        pipe.hgetall(Keys(id).campaign()).smembers(Keys(id).open());
        let (fields, open): (HashMap<String, String>, Vec<u32>) = self.client.pipeline(&pipe).await?;
        let fields = Fields(fields);
        if fields.state("state").is_none() {
            return Err(LedgerError::NoCampaign(id.clone()));
        }
        let checkpoint = Checkpoint {
            batches: u32::try_from(fields.number("plan_batches")).unwrap_or_default(),
            rows: fields.number("plan_rows"),
            digest: fields.text("plan_digest").unwrap_or_default(),
            complete: fields.number("planned") == 1,
        };
        // A batch that was claimed and settled before its checkpoint is not in the set either; it is queued
        // again, and nothing of it can be claimed.
        let mut settled = RoaringBitmap::new();
        settled.insert_range(0..checkpoint.batches);
        for number in open {
            settled.remove(number);
        }
        Ok(Plan { checkpoint, settled })
    }

    async fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> Result<(), LedgerError> {
        let keys = Keys(id);
        let mut transaction = Transaction::default();
        let (campaign, open) = (transaction.key(keys.campaign()), transaction.key(keys.open()));
        transaction.check_field(campaign, "plan_rows", &[&after.to_string()]);
        transaction.check_has_not_ended(campaign);
        for batch in &batches {
            plan(&mut transaction, campaign, open, batch);
        }
        let mut reasons = BTreeMap::<&str, i64>::new();
        for row in &skipped {
            *reasons.entry(row.reason.as_str()).or_default() += 1;
        }
        for (reason, count) in reasons {
            transaction.add(campaign, &format!("skipped:{reason}"), count);
            transaction.add(campaign, MessageState::Skipped.as_str(), count);
        }
        let now = self.now();
        let lines: Vec<String> = skipped.iter().map(|row| skipped_line(row, now)).collect();
        let list = transaction.key(keys.skipped());
        // Lua's stack holds some thousands of arguments.
        for lines in lines.chunks(1000) {
            transaction.command(Command::RPush, list, lines);
        }
        let (rows, batches) = (checkpoint.rows.to_string(), checkpoint.batches.to_string());
        let (digest, complete) = (&checkpoint.digest, if checkpoint.complete { "1" } else { "0" });
        let fields =
            ["plan_rows", &rows, "plan_batches", &batches, "plan_digest", digest, "planned", complete];
        transaction.command(Command::HSet, campaign, &fields);
        let found = match transaction.run(&self.client, 0).await?.0 {
            TransactionOutcome::Written(_) => return Ok(()),
            TransactionOutcome::Failed { check: 1, found } => String::from_utf8_lossy(&found).into_owned(),
            TransactionOutcome::Failed { .. } => return Err(LedgerError::StalePlan(id.clone())),
        };
        match found.parse::<u64>() {
            Err(_) => Err(LedgerError::NoCampaign(id.clone())),
            Ok(known) if known >= checkpoint.rows => Ok(()),
            Ok(_) => Err(LedgerError::StalePlan(id.clone())),
        }
    }

    async fn count_unplanned(
        &self,
        id: &CampaignId,
        known: PlannedSoFar,
        rows: u64,
        reason: SkipReason,
    ) -> Result<bool, LedgerError> {
        let mut transaction = Transaction::default();
        let campaign = transaction.key(Keys(id).campaign());
        let (far, batches) = (known.rows.to_string(), known.batches.to_string());
        transaction.check_field(campaign, "planned", &["0"]);
        transaction.check_field(campaign, "plan_rows", &[&far]);
        // A campaign without stored batches may not have the field.
        let batches: &[&str] = if known.batches == 0 { &["", "0"] } else { &[&batches] };
        transaction.check_field(campaign, "batches", batches);
        let count = i64::try_from(rows).unwrap_or(i64::MAX);
        transaction.add(campaign, &format!("skipped:{reason}"), count);
        transaction.add(campaign, MessageState::Skipped.as_str(), count);
        transaction.command(Command::HSet, campaign, &["planned", "1"]);
        Ok(transaction.is_written(&self.client).await?)
    }
}
