//! The planner: cuts an audience into batches.
//!
//! It is a pure function of job, audience bytes and batch size: the same rows give the same batches
//! with the same numbers, whoever plans and how often. It publishes nothing itself.

use tokio_util::sync::CancellationToken;

use super::Prepared;
use crate::audience::{Audience, AudienceError, Line};
use crate::campaign::{Batch, CampaignId, Template};
use crate::ledger::{Checkpoint, SkippedRow};

/// How many skipped rows a step has at the most.
const SKIPPED: usize = 10_000;

/// Streams an audience into batches.
pub struct Planner<'p> {
    audience: Audience,
    template: &'p Template,
    campaign: CampaignId,
    batch_size: usize,
    next: u32,
    rows: u64,
    /// Of what the messages say, and of each row what a batch carries of it. Nothing that an operator may change while
    /// a campaign is planned is part of it: no address, no key, no limit.
    digest: blake3::Hasher,
    /// What is to be digested of the batch that is being cut.
    digested: Vec<u8>,
    scratch: Vec<u8>,
    done: bool,
    stop: CancellationToken,
}

/// A step of the plan: a batch, and the rows around it that are not sent.
pub struct Planned {
    /// The batch; none behind the last recipient.
    pub batch: Option<Batch>,
    /// Rows that are not sent, since the batch before.
    pub skipped: Vec<SkippedRow>,
    /// How far the plan is with this.
    pub checkpoint: Checkpoint,
}

impl<'p> Planner<'p> {
    /// Starts at the first row.
    ///
    /// # Errors
    ///
    /// When the audience can't be read.
    pub fn new(
        prepared: &'p Prepared,
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

    /// A digest of the audience's bytes, as far as they were read ([`Audience::digest`]).
    pub fn audience_digest(&self) -> Option<String> {
        self.audience.digest()
    }

    /// The next step, `None` behind the last, and as soon as it is stopped.
    ///
    /// # Errors
    ///
    /// When the audience can't be read further.
    pub fn next_batch(&mut self) -> Result<Option<Planned>, AudienceError> {
        if self.done {
            return Ok(None);
        }
        let columns = self.template.columns();
        let json = self.audience.has_json_values();
        let mut batch = Batch::new(self.campaign.clone(), self.next, columns.len(), json);
        let mut skipped = Vec::new();
        // A batch may end early, so that no more than some thousand rows between two recipients are held in memory.
        while batch.len() < self.batch_size && skipped.len() < SKIPPED {
            // A row's template may take long.
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
                    // The sender renders it: values are a tenth of the messages that they make.
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
        if skipped.len() >= SKIPPED && !batch.is_empty() {
            // Planned without this rule, the numbers of batches would differ from here on.
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

    /// Recipients of whom all but every so many lack what the message needs.
    fn mostly_skipped(rows: usize, every: usize) -> Arc<Prepared> {
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
    fn planning_ends_within_a_step_when_it_is_stopped() {
        let (prepared, stop) = (mostly_skipped(1_000, 1_001), CancellationToken::new());
        let id = || "c1".parse().unwrap();
        stop.cancel();
        let mut planner = Planner::new(&prepared, id(), 100, &stop).unwrap();
        assert!(planner.next_batch().unwrap().is_none());
        assert_eq!(planner.rows, 0, "no row was looked at");
    }

    #[test]
    fn a_step_has_a_bounded_number_of_skipped_rows_and_the_plan_is_the_same_each_time() {
        let prepared = mostly_skipped(50_000, 12_000);
        let plan = || {
            let stop = CancellationToken::new();
            let mut planner = Planner::new(&prepared, "c1".parse().unwrap(), 100, &stop).unwrap();
            let mut steps = Vec::new();
            while let Some(step) = planner.next_batch().unwrap() {
                assert!(step.skipped.len() <= SKIPPED);
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
