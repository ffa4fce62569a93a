//! Plans a campaign: streams its audience into the queue and the ledger.
//!
//! It has three stages with bounded channels: a thread reads and cuts batches, batches are published, checkpoints are
//! written. Several publications are in flight. A checkpoint never passes a batch before the queue has confirmed it and all
//! batches before it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{sync::Arc, time::Duration};

use futures_util::stream::FuturesOrdered;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{DispatchError, LoadedJob, in_flight::InFlight, planner::Planner};
use crate::campaign::{CampaignId, Reason};
use crate::ledger::{Checkpoint, Ledger, LedgerError, Plan, PlannedBatch, SkippedRow};
use crate::queue::{Queue, QueueError, QueuedBatch};
use crate::runtime;

/// Number of batches per publication.
const BATCHES_PER_PUBLICATION: usize = 16;
/// Number of skipped rows after which they are written.
const SKIPPED_PER_PART: usize = 1000;
/// Maximum number of publications in flight, and of parts between two stages.
const MAX_IN_FLIGHT: usize = 4;
/// Maximum number of batches that planning is ahead of sending: small enough for a small broker and a cheap cancel.
pub(super) const AHEAD: u64 = 256;
/// Interval between checks whether sending has caught up.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The batches that planning publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishScope {
    /// Batches after the checkpoint: the queue has the others.
    News,
    /// All batches that are not settled: the queue has lost them.
    Unsettled,
    /// No batches: they are only counted, and published when the campaign continues.
    Nothing,
}

/// The result of planning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Planning {
    /// The whole audience is planned.
    Complete,
    /// Planning was stopped, or another worker has taken over.
    Stopped,
    /// Planning cannot continue, for this reason.
    Impossible(Reason),
    /// Planning must be tried again later, for this reason.
    Later(String),
}

/// The input of planning.
pub(super) struct PlanContext<L, Q> {
    pub(super) ledger: L,
    pub(super) queue: Q,
    pub(super) id: CampaignId,
    pub(super) prepared: Arc<LoadedJob>,
    pub(super) batch_size: usize,
    pub(super) publish: PublishScope,
    pub(super) stop: CancellationToken,
}

/// Some batches, and the checkpoint after them.
#[derive(Default)]
struct PlanChunk {
    checkpoint: Option<Checkpoint>,
    batches: Vec<PlannedBatch>,
    skipped: Vec<SkippedRow>,
    queued: Vec<QueuedBatch>,
}

impl PlanChunk {
    fn is_due(&self) -> bool {
        let is_end = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.complete);
        is_end
            || self.batches.len().max(self.queued.len()) >= BATCHES_PER_PUBLICATION
            || self.skipped.len() >= SKIPPED_PER_PART
    }

    fn messages(&self) -> u64 {
        self.queued.iter().map(|queued| queued.batch.len() as u64).sum()
    }
}

impl<L: Ledger, Q: Queue> PlanContext<L, Q> {
    /// Streams the audience into the queue, at most [`AHEAD`] batches ahead of sending.
    pub(super) async fn plan(self) -> Result<Planning, DispatchError> {
        let known = Arc::new(self.ledger.plan(&self.id).await?);
        let ahead = Lookahead::new(&self).await?;
        let (parts, to_publish) = mpsc::channel(MAX_IN_FLIGHT);
        let (published, to_write) = mpsc::channel(MAX_IN_FLIGHT);
        // Stops the reader when a later stage fails.
        let stop = self.stop.child_token();
        let reader = Reader {
            prepared: self.prepared.clone(),
            id: self.id.clone(),
            batch_size: self.batch_size,
            publish: self.publish,
            known: known.clone(),
            stop: stop.clone(),
        };
        let reading = reader.start(parts);
        let after = known.checkpoint.rows;
        let both = async {
            let (sent, written) =
                tokio::join!(self.send(to_publish, published, &ahead), self.write(to_write, after, &ahead));
            stop.cancel();
            let sent = sent?;
            written.map(|()| sent)
        };
        let done = both.await;
        let read = reading.await.map_err(|error| DispatchError::Task(error.to_string()))?;
        match (done, read) {
            (Err(DispatchError::Ledger(LedgerError::StalePlan(_))), _)
            | (Ok(false), Ok(Planning::Complete)) => Ok(Planning::Stopped),
            (Err(error), _) => Err(error),
            (Ok(_), read) => read,
        }
    }

    /// Publishes batches in order. Returns `false` if it was stopped.
    async fn send(
        &self,
        mut parts: mpsc::Receiver<PlanChunk>,
        published: mpsc::Sender<PlanChunk>,
        ahead: &Lookahead,
    ) -> Result<bool, DispatchError> {
        let mut in_flight = InFlight::new(FuturesOrdered::new());
        let mut is_open = true;
        while is_open || in_flight.len() > 0 {
            let may_begin = is_open && in_flight.len() < MAX_IN_FLIGHT;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(false),
                Some(part) = in_flight.next() => {
                    let part: Result<PlanChunk, QueueError> = part;
                    // A writer that fails returns its own error.
                    if in_flight.poll_while(published.send(part?)).await.is_err() {
                        return Ok(false);
                    }
                }
                part = parts.recv(), if may_begin => match part {
                    None => is_open = false,
                    Some(mut part) => {
                        let messages = part.messages();
                        let queued = std::mem::take(&mut part.queued);
                        if self.publish != PublishScope::Nothing
                            && !in_flight.poll_while(ahead.wait(self, messages)).await?
                        {
                            return Ok(false);
                        }
                        in_flight.futures.push_back(async move {
                            if !queued.is_empty() {
                                self.queue.publish(queued).await?;
                            }
                            Ok(part)
                        });
                    }
                },
            }
        }
        Ok(true)
    }

    /// Writes a checkpoint for the parts that the queue has confirmed.
    async fn write(
        &self,
        mut published: mpsc::Receiver<PlanChunk>,
        mut after: u64,
        ahead: &Lookahead,
    ) -> Result<(), DispatchError> {
        let mut parts = Vec::new();
        while published.recv_many(&mut parts, MAX_IN_FLIGHT).await > 0 {
            let mut whole = PlanChunk::default();
            for part in parts.drain(..) {
                whole.checkpoint = part.checkpoint.or(whole.checkpoint);
                whole.batches.extend(part.batches);
                whole.skipped.extend(part.skipped);
            }
            if let Some(checkpoint) = whole.checkpoint.take() {
                let rows = checkpoint.rows;
                let planned: usize = whole.batches.iter().map(|batch| batch.recipients.len()).sum();
                self.ledger.checkpoint(&self.id, after, checkpoint, whole.batches, whole.skipped).await?;
                ahead.planned.fetch_add(planned as u64, Ordering::Relaxed);
                after = rows;
            }
        }
        Ok(())
    }
}

/// The stage that reads rows and cuts batches, on a thread of its own.
struct Reader {
    prepared: Arc<LoadedJob>,
    id: CampaignId,
    batch_size: usize,
    publish: PublishScope,
    known: Arc<Plan>,
    stop: CancellationToken,
}

impl Reader {
    fn start(self, parts: mpsc::Sender<PlanChunk>) -> JoinHandle<Result<Planning, DispatchError>> {
        #[cfg(test)]
        if runtime::simulated::is_on() {
            // A simulation has no threads, so all parts are read first and then sent.
            return tokio::spawn(async move {
                let mut read = Vec::new();
                let planning = self.read(|part| {
                    read.push(part);
                    true
                });
                for part in read {
                    if parts.send(part).await.is_err() {
                        return Ok(Planning::Stopped);
                    }
                }
                planning
            });
        }
        runtime::blocking(move || self.read(|part| parts.blocking_send(part).is_ok()))
    }

    /// Reads the audience to its end. `take` gets each part, and returns whether to continue.
    fn read(&self, mut take: impl FnMut(PlanChunk) -> bool) -> Result<Planning, DispatchError> {
        let end = &self.known.checkpoint;
        // Verifies the plan up to the checkpoint before anything is published: another version of flowcast may cut other
        // batches from the same bytes.
        if end.rows > 0 && self.digest_at(end.rows)? != end.digest {
            if self.stop.is_cancelled() {
                return Ok(Planning::Stopped);
            }
            let reason = "planning again gives different batches; finish it with the version of flowcast that began it";
            return Ok(Planning::Impossible(Reason::Unplannable { detail: reason.into() }));
        }
        let mut planner = Planner::new(&self.prepared, self.id.clone(), self.batch_size, &self.stop)?;
        let mut part = PlanChunk::default();
        while let Some(step) = planner.next_batch()? {
            part.skipped.extend(step.skipped.into_iter().filter(|line| line.row > end.rows));
            if let Some(batch) = step.batch {
                let is_new = batch.number >= end.batches;
                if is_new {
                    part.batches.push(PlannedBatch::from(&batch));
                }
                let is_published = match self.publish {
                    PublishScope::News => is_new,
                    PublishScope::Unsettled => !self.known.settled.contains(batch.number),
                    PublishScope::Nothing => false,
                };
                if is_published {
                    part.queued.push(QueuedBatch::new(batch));
                }
            }
            // The end of the audience may be new although all its rows are known.
            if step.checkpoint.rows > end.rows || (step.checkpoint.complete && !end.complete) {
                part.checkpoint = Some(step.checkpoint);
            }
            if self.stop.is_cancelled() {
                return Ok(Planning::Stopped);
            }
            // Later stages that have ended return their own errors.
            if part.is_due() && !take(std::mem::take(&mut part)) {
                return Ok(Planning::Stopped);
            }
        }
        if self.stop.is_cancelled() {
            return Ok(Planning::Stopped);
        }
        if part.messages() > 0 || part.checkpoint.is_some() {
            take(part);
        }
        // The planned bytes must be the scanned ones: the file may have been changed in between.
        if planner.audience_digest().is_some_and(|digest| digest != self.prepared.scan.digest) {
            return Ok(Planning::Impossible(Reason::Unplannable {
                detail: "the audience changed while it was being read".into(),
            }));
        }
        Ok(Planning::Complete)
    }

    /// Returns the plan's digest after `rows` rows.
    fn digest_at(&self, rows: u64) -> Result<String, DispatchError> {
        let mut planner = Planner::new(&self.prepared, self.id.clone(), self.batch_size, &self.stop)?;
        while let Some(step) = planner.next_batch()? {
            if step.checkpoint.rows >= rows {
                return Ok(step.checkpoint.digest);
            }
        }
        Ok(String::new())
    }
}

/// How far planning is ahead of sending, as numbers of messages.
struct Lookahead {
    /// Open messages when planning began.
    open: u64,
    /// Open messages that the queue had when planning began.
    had: u64,
    /// Messages in checkpoints since then.
    planned: AtomicU64,
    /// Messages published since then.
    published: AtomicU64,
    /// Maximum number of messages ahead of sending.
    most: u64,
    /// Messages that can be published before the ledger must be read again.
    sure: AtomicU64,
}

impl Lookahead {
    async fn new<L: Ledger, Q: Queue>(plans: &PlanContext<L, Q>) -> Result<Self, DispatchError> {
        let open = plans.ledger.open(&plans.id).await?;
        let had = if plans.publish == PublishScope::News { open } else { 0 };
        let most = AHEAD * plans.batch_size.max(1) as u64;
        let sure = AtomicU64::new(most.saturating_sub(had));
        Ok(Self { open, had, planned: AtomicU64::new(0), published: AtomicU64::new(0), most, sure })
    }

    /// Waits until `messages` more messages may be published. Returns `false` if planning was stopped.
    async fn wait<L: Ledger, Q: Queue>(
        &self,
        plans: &PlanContext<L, Q>,
        messages: u64,
    ) -> Result<bool, DispatchError> {
        let published = self.published.load(Ordering::Relaxed);
        // Sending only lowers the number of open messages, so the ledger need not be read before this is used up.
        while published >= self.sure.load(Ordering::Relaxed) {
            // Read first: messages that are planned in between make the number sent seem lower, never higher.
            let planned = self.planned.load(Ordering::Relaxed);
            let sent = (self.open + planned).saturating_sub(plans.ledger.open(&plans.id).await?);
            let waiting = (self.had + published).saturating_sub(sent);
            if waiting < self.most {
                self.sure.store(published + (self.most - waiting), Ordering::Relaxed);
                break;
            }
            if plans.stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
                return Ok(false);
            }
        }
        self.published.store(published + messages, Ordering::Relaxed);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::super::fixtures::{Registered, registered};
    use super::*;
    use crate::ledger::Plans as _;
    use crate::queue::QueueError;

    /// A queue that never confirms a publication.
    #[derive(Clone, Default)]
    struct Silent(Arc<Notify>);

    impl Queue for Silent {
        type Receipt = ();
        type Home = ();
        const DURABLE: bool = true;

        fn open((): &(), _: &CampaignId, _: usize) -> Self {
            Self::default()
        }

        async fn publish(&self, _: Vec<QueuedBatch>) -> Result<(), QueueError> {
            self.0.notify_one();
            std::future::pending().await
        }

        async fn next(&self) -> Result<(QueuedBatch, ()), QueueError> {
            std::future::pending().await
        }

        async fn acknowledge(&self, (): ()) -> Result<(), QueueError> {
            Ok(())
        }

        async fn delay(&self, (): (), _: QueuedBatch, _: Duration) -> Result<(), QueueError> {
            Ok(())
        }

        async fn waiting(&self) -> Result<u64, QueueError> {
            Ok(0)
        }

        fn held(&self) -> u64 {
            0
        }

        async fn close(&self) {}

        async fn remove(&self) -> Result<(), QueueError> {
            Ok(())
        }

        fn health_error(&self) -> Option<String> {
            None
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_checkpoint_never_passes_what_the_queue_has_not_confirmed() {
        let Registered { ledger, id, prepared, .. } = &registered().await;
        let (queue, stop) = (Silent::default(), CancellationToken::new());
        let planning = {
            let (ledger, queue, id, stop) = (ledger.clone(), queue.clone(), id.clone(), stop.clone());
            let (prepared, batch_size, publish) = (prepared.clone(), 100, PublishScope::News);
            let plans = PlanContext { ledger, queue, id, prepared, batch_size, publish, stop };
            tokio::spawn(plans.plan())
        };
        queue.0.notified().await;
        stop.cancel();
        assert_eq!(planning.await.unwrap().unwrap(), Planning::Stopped);
        assert_eq!(ledger.plan(id).await.unwrap().checkpoint, Checkpoint::default());
    }
}
