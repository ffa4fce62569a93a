//! Planning a campaign: from the audience into the queue, and into the ledger.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::planner::Planner;
use super::{DispatchError, Prepared};
use crate::audience;
use crate::campaign::CampaignId;
use crate::ledger::{Checkpoint, Ledger, LedgerError, PlannedBatch, SkippedRow};
use crate::queue::{Queue, QueuedBatch};

/// How many batches share a checkpoint.
const BATCHES: usize = 16;
/// How many skipped rows are kept until one.
const SKIPPED: usize = 1000;
/// How many batches planning keeps ahead of sending: few enough for a small broker and a cheap cancel.
pub(super) const AHEAD: u64 = 256;
/// How often it is looked whether sending has caught up.
const LOOK: Duration = Duration::from_millis(20);

/// Which batches are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    /// Those behind the checkpoint: the queue has the others.
    News,
    /// All that are not settled: the queue has lost them.
    Unsettled,
    /// None: they are counted only. What is then in no queue is published when the campaign goes on.
    Nothing,
}

/// How planning ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Planning {
    /// The whole audience is planned.
    Complete,
    /// It was stopped, or another worker plans by now.
    Stopped,
    /// It can't go on, for this reason.
    Impossible(String),
}

/// What planning works on.
pub(super) struct Plans<'p, L, Q> {
    pub(super) ledger: &'p L,
    pub(super) queue: &'p Q,
    pub(super) id: &'p CampaignId,
    pub(super) prepared: &'p Prepared,
    pub(super) batch_size: usize,
    pub(super) publish: Publish,
    pub(super) stop: &'p CancellationToken,
    pub(super) runtime: Handle,
}

impl<L: Ledger, Q: Queue> Plans<'_, L, Q> {
    /// Streams the audience into the queue, a bounded number of batches ahead of sending. Blocks.
    pub(super) fn plan(&self) -> Result<Planning, DispatchError> {
        match self.stream() {
            Err(DispatchError::Ledger(LedgerError::StalePlan(_))) => Ok(Planning::Stopped),
            done => done,
        }
    }

    fn stream(&self) -> Result<Planning, DispatchError> {
        let known = self.runtime.block_on(self.ledger.plan(self.id))?;
        let end = &known.checkpoint;
        // The plan is made again up to the checkpoint before anything of it is sent: another result
        // from the same bytes would be another version's, and its batches would not be the same.
        if end.rows > 0 && self.digest_at(end.rows)? != end.digest {
            let reason =
                "planning again gives other batches than before; finish it with the flowcast that began it";
            return Ok(Planning::Impossible(reason.into()));
        }
        let mut ahead = Ahead::new(self)?;
        let mut planner = Planner::new(self.prepared, self.id.clone(), self.batch_size)?;
        let mut news = News { after: end.rows, ..News::default() };
        while let Some(step) = planner.next_batch()? {
            news.skipped.extend(step.skipped.into_iter().filter(|line| line.row > end.rows));
            if let Some(batch) = step.batch {
                let is_new = batch.number >= end.batches;
                if is_new {
                    news.planned += batch.len() as u64;
                    news.batches.push(PlannedBatch::from(&batch));
                }
                let publish = match self.publish {
                    Publish::News => is_new,
                    Publish::Unsettled => !known.settled.contains(batch.number),
                    Publish::Nothing => false,
                };
                if publish {
                    news.published += batch.len() as u64;
                    news.queued.push(QueuedBatch::new(batch));
                }
            }
            // The end of the audience may be news although all its rows are known.
            if step.checkpoint.rows > end.rows || (step.checkpoint.complete && !end.complete) {
                news.checkpoint = Some(step.checkpoint);
            }
            if self.stop.is_cancelled() {
                return Ok(Planning::Stopped);
            }
            if news.is_due() && !self.write(&mut news, &mut ahead)? {
                return Ok(Planning::Stopped);
            }
        }
        if !self.write(&mut news, &mut ahead)? {
            return Ok(Planning::Stopped);
        }
        // What was planned must be what was surveyed: the file may have been written to meanwhile.
        let prepared = self.prepared;
        if audience::survey(&prepared.source, prepared.settings.delimiter)?.digest != prepared.survey.digest {
            return Ok(Planning::Impossible("the audience changed while it was being read".into()));
        }
        Ok(Planning::Complete)
    }

    /// Publishes, then writes the checkpoint, then waits until sending has caught up. Returns whether it
    /// did; what was stopped before the queue had it must not be passed by any later checkpoint.
    fn write(&self, news: &mut News, ahead: &mut Ahead) -> Result<bool, DispatchError> {
        let queued = std::mem::take(&mut news.queued);
        if !queued.is_empty() {
            let published = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => None,
                    published = self.queue.publish(queued) => Some(published),
                }
            });
            match published {
                Some(published) => published?,
                None => return Ok(false),
            }
        }
        // The checkpoint follows what the queue has, never the other way round.
        if let Some(checkpoint) = news.checkpoint.take() {
            let (batches, skipped) = (std::mem::take(&mut news.batches), std::mem::take(&mut news.skipped));
            let rows = checkpoint.rows;
            let written = self.ledger.checkpoint(self.id, news.after, checkpoint, batches, skipped);
            self.runtime.block_on(written)?;
            news.after = rows;
        }
        ahead.planned += std::mem::take(&mut news.planned);
        ahead.published += std::mem::take(&mut news.published);
        if self.publish != Publish::Nothing {
            ahead.wait(self)?;
        }
        Ok(true)
    }

    /// The plan's digest where so many rows are read.
    fn digest_at(&self, rows: u64) -> Result<String, DispatchError> {
        let mut planner = Planner::new(self.prepared, self.id.clone(), self.batch_size)?;
        while let Some(step) = planner.next_batch()? {
            if step.checkpoint.rows >= rows {
                return Ok(step.checkpoint.digest);
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        Ok(String::new())
    }

    fn open(&self) -> Result<u64, DispatchError> {
        Ok(self.runtime.block_on(self.ledger.open(self.id))?)
    }
}

/// How far planning is ahead of sending.
struct Ahead {
    /// How many messages were open when it began.
    open: u64,
    /// How many of them the queue had.
    had: u64,
    /// How many were planned since.
    planned: u64,
    /// How many were published since.
    published: u64,
    most: u64,
    /// How many can be published before it must be looked again.
    sure: u64,
}

impl Ahead {
    fn new<L: Ledger, Q: Queue>(plans: &Plans<'_, L, Q>) -> Result<Self, DispatchError> {
        let open = plans.open()?;
        let had = if plans.publish == Publish::News { open } else { 0 };
        let most = AHEAD * plans.batch_size.max(1) as u64;
        Ok(Self { open, had, planned: 0, published: 0, most, sure: most.saturating_sub(had) })
    }

    fn wait<L: Ledger, Q: Queue>(&mut self, plans: &Plans<'_, L, Q>) -> Result<(), DispatchError> {
        // Sending only lowers what is open, so nothing need be asked before this is used up.
        while self.published >= self.sure && !plans.stop.is_cancelled() {
            let sent = (self.open + self.planned).saturating_sub(plans.open()?);
            let waiting = (self.had + self.published).saturating_sub(sent);
            if waiting < self.most {
                self.sure = self.published + (self.most - waiting);
            } else {
                plans.runtime.block_on(async {
                    tokio::select! {
                        () = plans.stop.cancelled() => {}
                        () = tokio::time::sleep(LOOK) => {}
                    }
                });
            }
        }
        Ok(())
    }
}

/// What is planned since the last checkpoint.
#[derive(Default)]
struct News {
    after: u64,
    checkpoint: Option<Checkpoint>,
    batches: Vec<PlannedBatch>,
    skipped: Vec<SkippedRow>,
    queued: Vec<QueuedBatch>,
    /// How many messages these are.
    planned: u64,
    published: u64,
}

impl News {
    fn is_due(&self) -> bool {
        let is_end = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.complete);
        is_end || self.batches.len().max(self.queued.len()) >= BATCHES || self.skipped.len() >= SKIPPED
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;
    use crate::campaign::Job;
    use crate::dispatch::{Account, prepare, register};
    use crate::ledger::{Access, Sqlite};
    use crate::limiter::{AccountLimits, Rates};
    use crate::provider::{Credentials, PROVIDERS, Transport};
    use crate::queue::QueueError;

    /// A queue that never says that it has what was published.
    #[derive(Clone, Default)]
    struct Silent(Arc<Notify>);

    impl Queue for Silent {
        type Receipt = ();
        type Home = ();
        const LASTS: bool = true;

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

        fn trouble(&self) -> Option<String> {
            None
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_checkpoint_never_passes_what_the_queue_has_not_confirmed() {
        let job = json!({
            "version": 1, "id": "c1", "account": "main", "from": "+912248931479",
            "audience": { "recipients": [{ "phone": "+919876543210" }, { "phone": "+919876543211" }] },
            "message": { "type": "text", "text": { "body": "x" } },
        });
        let job = Job::read(job.to_string().as_bytes()).unwrap();
        let url = "http://127.0.0.1:1".parse().unwrap();
        let credentials = Credentials {
            account_sid: "a".into(),
            api_key: "k".into(),
            api_token: "t".into(),
            callback_fields: std::collections::BTreeMap::default(),
        };
        let provider = (PROVIDERS[0].open)(&url, &credentials).unwrap();
        let transport = Transport::new(Duration::from_secs(1), false).unwrap();
        let limits = AccountLimits::new(Rates::default(), 1);
        let account = Account::new(PROVIDERS[0], provider, transport, limits, 1, None);
        let prepared = Arc::new(prepare(job, None, &account).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let ledger = Sqlite::open(&folder.path().join("flowcast.db"), Access::Send).unwrap();
        let id = register(&ledger, &prepared, false, false).await.unwrap().id;

        let (queue, stop) = (Silent::default(), CancellationToken::new());
        let planning = {
            let (ledger, queue, id, stop) = (ledger.clone(), queue.clone(), id.clone(), stop.clone());
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                let (ledger, queue, prepared, stop) = (&ledger, &queue, &prepared, &stop);
                let (batch_size, publish) = (100, Publish::News);
                Plans { ledger, queue, id: &id, prepared, batch_size, publish, stop, runtime }.plan()
            })
        };
        queue.0.notified().await;
        stop.cancel();
        assert_eq!(planning.await.unwrap().unwrap(), Planning::Stopped);
        assert_eq!(ledger.plan(&id).await.unwrap().checkpoint, Checkpoint::default());
    }
}
