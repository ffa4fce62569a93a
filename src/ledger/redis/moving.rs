//! Writes the campaigns of an embedded store to Redis, for `migration.rs`.
//!
//! All keys of a campaign are written first and its hash last, so that a campaign exists completely or not at all.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use super::layout::{Keys, field_of};
use super::sent::{key as sent_key, lasts, slice};
use super::transaction::{Command, Transaction};
use super::{CALLBACK_KEY, FURTHER_KEYS, Redis, campaign_hash::head, pages::line};
use crate::campaign::{CampaignId, MessageState};
use crate::ledger::migration::{WholeBatch, WholeCampaign};
use crate::ledger::{Audit, LedgerError, PlannedBatch, record::BatchRecord};

/// Field with the origin of a campaign that was moved from a store.
const ORIGIN: &str = "moved_from";
/// Number of entries written with one command.
const TOGETHER: usize = 500;

impl Redis {
    /// Returns the origin of a campaign: empty if it was registered here, `None` if it does not exist.
    pub(in crate::ledger) async fn origin(&self, id: &CampaignId) -> Result<Option<String>, LedgerError> {
        let fields = (Keys(id).campaign(), "fingerprint", ORIGIN);
        let [fingerprint, origin]: [Option<String>; 2] =
            self.client.command(redis::cmd("HMGET").arg(fields)).await?;
        Ok(fingerprint.map(|_| origin.unwrap_or_default()))
    }

    /// Writes everything of a campaign except its batches and its hash. It is idempotent.
    pub(in crate::ledger) async fn keep_whole(
        &self,
        whole: &WholeCampaign,
        within: Duration,
    ) -> Result<(), LedgerError> {
        let id = &whole.campaign.id;
        let keys = Keys(id);
        let mut pipe = redis::pipe();
        pipe.cmd("UNLINK").arg(&keys.whole()[..]).arg(keys.forgotten()).ignore();
        pipe.cmd("SET").arg(keys.job()).arg(&whole.job).ignore();
        for some in whole.texts.chunks(TOGETHER) {
            let texts = some.iter().flat_map(|(kind, word, text)| [field_of(kind, word), text.clone()]);
            pipe.cmd("HSET").arg(keys.texts()).arg(texts.collect::<Vec<_>>()).ignore();
        }
        for some in whole.skipped.chunks(TOGETHER) {
            let line = |(row, recipient, reason, detail, at): &(u64, String, String, String, i64)| {
                json!([row, recipient, reason, detail, at]).to_string()
            };
            pipe.cmd("RPUSH").arg(keys.skipped()).arg(some.iter().map(line).collect::<Vec<_>>()).ignore();
        }
        for some in whole.points.chunks(TOGETHER) {
            pipe.cmd("RPUSH").arg(keys.series()).arg(some.iter().map(line).collect::<Vec<_>>()).ignore();
        }
        self.client.pipeline::<()>(&pipe).await?;
        // Replies are matched in the fleet, too.
        let length = slice(within);
        let mut notes: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for (phone, batch, place, at) in &whole.sent {
            let note = (format!("{}:{id}", phone.digits()), format!("{batch}.{place}"));
            notes.entry(sent_key(&whole.campaign.account, at / length, *phone)).or_default().push(note);
        }
        for some in notes.into_iter().collect::<Vec<_>>().chunks(TOGETHER) {
            let mut pipe = redis::pipe();
            for (key, notes) in some {
                pipe.cmd("HSET").arg(key).arg(notes).ignore();
                pipe.cmd("PEXPIRE").arg(key).arg(lasts(within)).ignore();
            }
            self.client.pipeline::<()>(&pipe).await?;
        }
        Ok(())
    }

    /// Writes batches of a campaign whose hash does not exist yet. It is idempotent.
    pub(in crate::ledger) async fn keep_batches(
        &self,
        id: &CampaignId,
        batches: Vec<WholeBatch>,
    ) -> Result<(), LedgerError> {
        let keys = Keys(id);
        let mut pipe = redis::pipe();
        for batch in &batches {
            let number = batch.number;
            pipe.cmd("UNLINK").arg(&keys.of_batch(number)).ignore();
            pipe.cmd("SET").arg(keys.plan(number)).arg(&batch.plan[..]).ignore();
            if let Some(record) = &batch.record {
                pipe.cmd("SET").arg(keys.record(number)).arg(&record[..]).ignore();
                let outcomes = outcomes(id, batch, record)?;
                if !outcomes.is_empty() {
                    pipe.cmd("HSET").arg(keys.batch(number)).arg(outcomes).ignore();
                }
            }
            if let Some(request) = &batch.request {
                pipe.cmd("HSET").arg(keys.requests()).arg(number).arg(request).ignore();
            }
            if batch.is_open {
                pipe.cmd("SADD").arg(keys.open()).arg(number).ignore();
            }
            if batch.is_failed {
                pipe.cmd("SADD").arg(keys.failed()).arg(number).ignore();
            }
            if let Some(replay) = batch.replay {
                pipe.cmd("HSET").arg(keys.replays()).arg(number).arg(replay).ignore();
            }
            if !batch.payloads.is_empty() {
                pipe.cmd("HSET").arg(keys.payload(number)).arg(&batch.payloads).ignore();
            }
            if let Some(deliveries) = &batch.deliveries {
                pipe.cmd("SET").arg(keys.deliveries(number)).arg(&deliveries[..]).ignore();
            }
            for (key, response, is_told) in &batch.responses {
                pipe.cmd("HSET").arg(keys.responses(number)).arg(key).arg(response).ignore();
                if !is_told {
                    pipe.cmd("SADD").arg(keys.unpublished()).arg(key).ignore();
                }
            }
        }
        Ok(self.client.pipeline(&pipe).await?)
    }

    /// Writes the hash of a campaign whose other keys exist, and lists it. `batches` is the number of its last batch plus one.
    ///
    /// Returns `false` if there is another campaign with its id.
    pub(in crate::ledger) async fn begin(
        &self,
        whole: &WholeCampaign,
        batches: u32,
    ) -> Result<bool, LedgerError> {
        let campaign = &whole.campaign;
        let (id, origin) = (&campaign.id, whole.origin());
        let is_new = self.write_hash(whole, batches, &origin).await?;
        if !is_new && self.origin(id).await?.as_deref() != Some(&origin) {
            return Ok(false);
        }
        if is_new {
            for act in &whole.acts {
                self.log(act.clone()).await?;
            }
        }
        let is_told = campaign.state.is_over() && campaign.published == Some(campaign.state);
        self.list_since(id, campaign.submitted_at.as_millisecond(), !is_told).await?;
        Ok(true)
    }

    async fn write_hash(
        &self,
        whole: &WholeCampaign,
        batches: u32,
        origin: &str,
    ) -> Result<bool, LedgerError> {
        let campaign = &whole.campaign;
        let counts = &campaign.counts;
        let (plan_batches, plan_rows, plan_digest) = &whole.plan;
        let mut fields: Vec<(String, String)> = [
            ("fingerprint", whole.fingerprint.clone()),
            (ORIGIN, origin.to_owned()),
            ("rehearsal", "0".into()),
            ("columns", whole.columns.clone()),
            ("name", campaign.name.clone().unwrap_or_default()),
            ("account", campaign.account.clone()),
            ("audience", campaign.audience.clone()),
            ("rows", campaign.rows.to_string()),
            ("batch_size", campaign.batch_size.to_string()),
            ("planned", u8::from(campaign.planned).to_string()),
            ("batches", batches.max(*plan_batches).to_string()),
            ("plan_batches", plan_batches.to_string()),
            ("plan_rows", plan_rows.to_string()),
            ("plan_digest", plan_digest.clone()),
            ("pending", counts.pending.to_string()),
            ("sending", counts.sending.to_string()),
            ("accepted", counts.accepted.to_string()),
            ("rejected", counts.rejected.to_string()),
            ("in_doubt", counts.in_doubt.to_string()),
            ("skipped", counts.skipped.to_string()),
            ("submitted_at", campaign.submitted_at.as_millisecond().to_string()),
            ("announced", campaign.announced.to_string()),
        ]
        .map(|(field, value)| (field.to_owned(), value))
        .into();
        fields.extend(campaign.created_by.clone().map(|who| ("created_by".to_owned(), who)));
        fields.extend(campaign.published.map(|state| ("published".to_owned(), state.as_str().to_owned())));
        fields.extend(head(campaign).into_iter().map(|(field, value)| (field.to_owned(), value)));
        let tally = |(kind, word, count): &(String, String, u64)| (field_of(kind, word), count.to_string());
        fields.extend(whole.tallies.iter().map(tally));
        let mut transaction = Transaction::default();
        let key = transaction.key(Keys(&campaign.id).campaign());
        transaction.check_field(key, "fingerprint", &[""]);
        for some in fields.chunks(TOGETHER) {
            let some: Vec<&str> = some.iter().flat_map(|(field, value)| [field.as_str(), value]).collect();
            transaction.command(Command::HSet, key, &some);
        }
        transaction.command(Command::History, key, &["history"]);
        Ok(transaction.is_written(&self.client).await?)
    }

    /// Stores the callback key of a store: as the fleet's own if it has none, otherwise as a further key.
    pub(in crate::ledger) async fn keep_callback_key(&self, key: &str) -> Result<(), LedgerError> {
        let known: Option<String> =
            self.client.command(redis::cmd("SET").arg((CALLBACK_KEY, key, "NX", "GET"))).await?;
        if known.is_some_and(|known| known != key) {
            self.client.command::<()>(redis::cmd("SADD").arg((FURTHER_KEYS, key))).await?;
        }
        Ok(())
    }
}

/// Returns the outcomes of a batch's messages for other systems: number, then state and code.
fn outcomes(
    id: &CampaignId,
    batch: &WholeBatch,
    record: &[u8],
) -> Result<Vec<(String, String)>, LedgerError> {
    let planned = PlannedBatch::read(id, batch.number, &batch.plan)?;
    let record = BatchRecord::read(record, planned.recipients.len())?;
    let each = record.each().zip(&planned.recipients);
    let settled = each.filter(|((_, message), _)| !message.state.is_open());
    Ok(settled
        .map(|((place, message), (_, phone))| {
            let sid = batch.sids.get(&place).filter(|_| message.state == MessageState::Accepted);
            let word = sid.map_or_else(|| record.code(message), String::as_str);
            let space = if word.is_empty() { "" } else { " " };
            (phone.to_string(), format!("{}{space}{word}", message.state.as_str()))
        })
        .collect())
}
