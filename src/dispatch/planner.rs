//! Cuts an audience into batches.
//!
//! The planner is a pure function of job, audience bytes and batch size: the same rows always give the same batches with the
//! same numbers. It never publishes.

use tokio_util::sync::CancellationToken;

use super::LoadedJob;
use crate::audience::{Audience, AudienceError, Line};
use crate::campaign::{Batch, CampaignId, Template};
use crate::ledger::{Checkpoint, SkippedRow};

/// Maximum number of skipped rows in a step.
const MAX_SKIPPED: usize = 10_000;

/// Streams an audience into batches.
pub struct Planner<'p> {
    audience: Audience,
    template: &'p Template,
    campaign: CampaignId,
    batch_size: usize,
    next: u32,
    rows: u64,
    /// Digest of the message and of each row's values.
    ///
    /// It excludes what an operator may change while a campaign is planned: URLs, keys and limits.
    digest: blake3::Hasher,
    /// The bytes of the current batch that are digested next.
    digested: Vec<u8>,
    scratch: Vec<u8>,
    done: bool,
    stop: CancellationToken,
}

/// A step of the plan: a batch, and the skipped rows before it.
pub struct Planned {
    /// The batch, or `None` after the last recipient.
    pub batch: Option<Batch>,
    /// The skipped rows since the previous batch.
    pub skipped: Vec<SkippedRow>,
    /// The checkpoint after this step.
    pub checkpoint: Checkpoint,
}

impl<'p> Planner<'p> {
    /// Returns a planner at the first row.
    ///
    /// # Errors
    ///
    /// Returns an error if the audience cannot be read.
    pub fn new(
        prepared: &'p LoadedJob,
        campaign: CampaignId,
        batch_size: usize,
        stop: &CancellationToken,
    ) -> Result<Self, AudienceError> {
        let mut digest = blake3::Hasher::new();
        digest.update(prepared.job.content_fingerprint().as_bytes());
        Ok(Self {
            audience: Audience::open(&prepared.source, &prepared.settings)?,
            template: &prepared.template,
            campaign,
            batch_size: batch_size.max(1),
            next: 0,
            rows: 0,
            digest,
            digested: Vec::new(),
            scratch: Vec::new(),
            done: false,
            stop: stop.clone(),
        })
    }

    /// Returns the digest of the bytes read so far ([`Audience::digest`]).
    pub fn audience_digest(&self) -> Option<String> {
        self.audience.digest()
    }

    /// Returns the next step, or `None` after the last one or when it is stopped.
    ///
    /// # Errors
    ///
    /// Returns an error if the audience can no longer be read.
    pub fn next_batch(&mut self) -> Result<Option<Planned>, AudienceError> {
        if self.done {
            return Ok(None);
        }
        let columns = self.template.columns();
        let json = self.audience.has_json_values();
        let mut batch = Batch::new(self.campaign.clone(), self.next, columns.len(), json);
        let mut skipped = Vec::new();
        // A batch may end early, which bounds the number of skipped rows in memory.
        while batch.len() < self.batch_size && skipped.len() < MAX_SKIPPED {
            // Checked for each row, because rendering one may take long.
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let Some(line) = self.audience.next_line()? else {
                self.done = true;
                break;
            };
            self.rows += 1;
            match line {
                Line::Skipped { row, reason, detail, recipient } => {
                    self.digested.extend(row.to_le_bytes());
                    self.digested.extend_from_slice(reason.as_str().as_bytes());
                    skipped.push(SkippedRow { row, recipient, reason, detail });
                }
                Line::Recipient(row) => {
                    let (number, phone) = (row.row, row.phone);
                    batch.push(number, phone, columns.iter().map(|column| row.value(*column)));
                    self.digested.extend(number.to_le_bytes());
                    self.digested.extend(phone.digits().to_le_bytes());
                    // Only checked: the batch carries the values, a tenth of the size of the rendered messages.
                    let checked = batch.recipient(batch.len() - 1).map_or(Ok(()), |recipient| {
                        self.digested.extend_from_slice(recipient.values().as_bytes());
                        self.template.check(&recipient, &mut self.scratch)
                    });
                    if let Err(skip) = checked {
                        self.digested.extend_from_slice(skip.reason.as_str().as_bytes());
                        batch.pop();
                        let recipient = phone.to_string();
                        skipped.push(SkippedRow {
                            row: number,
                            recipient,
                            reason: skip.reason,
                            detail: skip.detail,
                        });
                    }
                }
            }
        }
        if skipped.len() >= MAX_SKIPPED && !batch.is_empty() {
            // A version without this rule would number the next batches differently.
            self.digested.extend_from_slice(b"ends early");
        }
        self.digest.update(&self.digested);
        self.digested.clear();
        let batch = (!batch.is_empty()).then_some(batch);
        self.next += u32::from(batch.is_some());
        let checkpoint = Checkpoint {
            batches: self.next,
            rows: self.rows,
            digest: self.digest.finalize().to_hex().to_string(),
            complete: self.done,
        };
        Ok(Some(Planned { batch, skipped, checkpoint }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::fixtures::prepared;
    use super::*;

    /// Returns an audience in which only every `every`th recipient has the column that the message needs.
    fn mostly_skipped(rows: usize, every: usize) -> Arc<LoadedJob> {
        let recipient = |nth: usize| {
            let phone = format!("+9198{nth:08}");
            if nth.is_multiple_of(every) {
                json!({ "phone": phone, "name": "Asha" })
            } else {
                json!({ "phone": phone, "name": "" })
            }
        };
        prepared(&json!({ "recipients": (0..rows).map(recipient).collect::<Vec<_>>() }))
    }

    #[test]
    fn a_stopped_planner_ends_within_a_step() {
        let (prepared, stop) = (mostly_skipped(1_000, 1_001), CancellationToken::new());
        let id = || "c1".parse().unwrap();
        stop.cancel();
        let mut planner = Planner::new(&prepared, id(), 100, &stop).unwrap();
        assert!(planner.next_batch().unwrap().is_none());
        assert_eq!(planner.rows, 0, "no row was read");
    }

    #[test]
    fn a_step_has_a_bounded_number_of_skipped_rows_and_the_plan_is_deterministic() {
        let prepared = mostly_skipped(50_000, 12_000);
        let plan = || {
            let stop = CancellationToken::new();
            let mut planner = Planner::new(&prepared, "c1".parse().unwrap(), 100, &stop).unwrap();
            let mut steps = Vec::new();
            while let Some(step) = planner.next_batch().unwrap() {
                assert!(step.skipped.len() <= MAX_SKIPPED);
                steps.push((
                    step.batch.map(|batch| (batch.number, batch.len())),
                    step.skipped.len(),
                    step.checkpoint,
                ));
            }
            steps
        };
        let steps = plan();
        assert_eq!(steps, plan());
        let sent: usize = steps.iter().filter_map(|(batch, ..)| Some((*batch)?.1)).sum();
        let skipped: usize = steps.iter().map(|(_, skipped, _)| skipped).sum();
        assert_eq!((sent, skipped), (5, 49_995));
        assert!(steps.len() >= 5 && steps.last().unwrap().2.complete);
    }
}
