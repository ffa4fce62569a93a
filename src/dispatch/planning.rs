//! Planning a campaign on one machine: from the audience into the queue, and into the ledger.

use tokio::runtime::Handle;

use super::planner::Planner;
use super::sender::{Sending, Why};
use super::{DispatchError, Prepared};
use crate::audience;
use crate::campaign::{Batch, CampaignId};
use crate::ledger::{Checkpoint, Ledger, PlannedBatch, SkippedRow};
use crate::queue::{Local, Queue, QueuedBatch};

/// How many batches share a checkpoint.
const BATCHES: usize = 16;
/// How many skipped rows are kept until one.
const SKIPPED: usize = 1000;

/// Streams the audience into the queue, behind what is settled already. Blocks.
///
/// A campaign that is held meanwhile is planned to its end all the same, so that its counts tell
/// how many people it has not reached. What is then in no queue is published when it goes on.
pub(super) fn plan<L: Ledger>(
    sending: &Sending<L, Local>,
    batch_size: usize,
    runtime: &Handle,
) -> Result<(), DispatchError> {
    let (id, control) = (&sending.id, &sending.control);
    let known = runtime.block_on(sending.ledger.plan(id))?;
    let end = &known.checkpoint;
    // The plan is made again up to the checkpoint before anything of it is sent: another result
    // from the same bytes would be another version's, and its batches would not be the same.
    if end.rows > 0 && digest_at(&sending.prepared, id, batch_size, end.rows)? != end.digest {
        let reason =
            "planning again gives other batches than before; finish it with the flowcast that began it";
        control.stop_for(Why::Held(reason.into()));
        return Ok(());
    }
    let mut planner = Planner::new(&sending.prepared, id.clone(), batch_size)?;
    let mut news = News::default();
    while let Some(step) = planner.next_batch()? {
        news.skipped.extend(step.skipped.into_iter().filter(|line| line.row > end.rows));
        if let Some(batch) = step.batch {
            if batch.number >= end.batches {
                news.batches.push(PlannedBatch::from(&batch));
            }
            if !known.settled.contains(batch.number) {
                publish(sending, batch, runtime)?;
            }
        }
        // The end of the audience may be news although all its rows are known.
        if step.checkpoint.rows > end.rows || (step.checkpoint.complete && !end.complete) {
            news.checkpoint = Some(step.checkpoint);
        }
        let stopped = control.stop.is_cancelled() && !control.is_held();
        // The checkpoint follows what the queue has, never the other way round.
        if stopped || news.is_due() {
            news.write(sending, runtime)?;
        }
        if stopped {
            return Ok(());
        }
    }
    // What was planned must be what was surveyed: the file may have been written to meanwhile.
    let prepared = &sending.prepared;
    if audience::survey(&prepared.source, prepared.settings.delimiter)?.digest != prepared.survey.digest {
        control.stop_for(Why::Held("the audience changed while it was being read".into()));
    }
    Ok(())
}

/// What is planned since the last checkpoint.
#[derive(Default)]
struct News {
    checkpoint: Option<Checkpoint>,
    batches: Vec<PlannedBatch>,
    skipped: Vec<SkippedRow>,
}

impl News {
    fn is_due(&self) -> bool {
        let is_end = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.complete);
        is_end || self.batches.len() >= BATCHES || self.skipped.len() >= SKIPPED
    }

    fn write<L: Ledger>(
        &mut self,
        sending: &Sending<L, Local>,
        runtime: &Handle,
    ) -> Result<(), DispatchError> {
        let Some(checkpoint) = self.checkpoint.take() else { return Ok(()) };
        let (batches, skipped) = (std::mem::take(&mut self.batches), std::mem::take(&mut self.skipped));
        Ok(runtime.block_on(sending.ledger.checkpoint(&sending.id, checkpoint, batches, skipped))?)
    }
}

/// Puts a batch into the queue, as long as anybody takes from it.
fn publish<L: Ledger>(
    sending: &Sending<L, Local>,
    batch: Batch,
    runtime: &Handle,
) -> Result<(), DispatchError> {
    // Counted first: a sender may be done with it before publishing returns here.
    sending.control.outstanding.send_modify(|count| *count += 1);
    let published = runtime.block_on(async {
        tokio::select! {
            biased;
            () = sending.control.stop.cancelled() => None,
            published = sending.queue.publish(QueuedBatch::new(batch)) => Some(published),
        }
    });
    match published {
        Some(published) => Ok(published?),
        None => Ok(()),
    }
}

/// The plan's digest where so many rows are read.
fn digest_at(
    prepared: &Prepared,
    id: &CampaignId,
    batch_size: usize,
    rows: u64,
) -> Result<String, DispatchError> {
    let mut planner = Planner::new(prepared, id.clone(), batch_size)?;
    while let Some(step) = planner.next_batch()? {
        if step.checkpoint.rows >= rows {
            return Ok(step.checkpoint.digest);
        }
    }
    Ok(String::new())
}
