//! The queue in memory, of a single process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Queue, QueueError, QueuedBatch};
use crate::campaign::CampaignId;

/// A queue of batches in memory. The planner keeps it short.
#[derive(Clone, Default)]
pub struct Local {
    shared: Arc<LocalState>,
}

#[derive(Default)]
struct LocalState {
    ready: Mutex<VecDeque<QueuedBatch>>,
    arrived: Notify,
    held: AtomicU64,
}

/// The receipt of a delivered batch.
pub struct Receipt {
    shared: Arc<LocalState>,
    /// The batch that is requeued when the receipt is dropped.
    batch: Option<QueuedBatch>,
}

impl LocalState {
    /// Requeues a batch at the front: it was planned before the others.
    fn give_back(&self, batch: QueuedBatch) {
        self.ready.lock().push_front(batch);
        self.arrived.notify_one();
    }
}

impl Queue for Local {
    type Receipt = Receipt;
    type Home = ();
    const DURABLE: bool = false;

    fn open((): &(), _: &CampaignId, _: usize) -> Self {
        Self::default()
    }

    async fn publish(&self, batches: Vec<QueuedBatch>) -> Result<(), QueueError> {
        self.shared.ready.lock().extend(batches);
        self.shared.arrived.notify_one();
        Ok(())
    }

    async fn next(&self) -> Result<(QueuedBatch, Receipt), QueueError> {
        loop {
            let arrived = self.shared.arrived.notified();
            let (batch, more) = {
                let mut ready = self.shared.ready.lock();
                (ready.pop_front(), !ready.is_empty())
            };
            if let Some(batch) = batch {
                // Two arrivals may have caused one notification.
                if more {
                    self.shared.arrived.notify_one();
                }
                self.shared.held.fetch_add(1, Ordering::Relaxed);
                let receipt = Receipt { shared: self.shared.clone(), batch: Some(batch.clone()) };
                return Ok((batch, receipt));
            }
            arrived.await;
        }
    }

    async fn acknowledge(&self, mut receipt: Receipt) -> Result<(), QueueError> {
        receipt.batch = None;
        Ok(())
    }

    async fn delay(
        &self,
        mut receipt: Receipt,
        batch: QueuedBatch,
        wait: Duration,
    ) -> Result<(), QueueError> {
        receipt.batch = None;
        let shared = self.shared.clone();
        // A delayed batch is in no other list, so it counts as held.
        shared.held.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            shared.give_back(batch);
            shared.held.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }

    async fn waiting(&self) -> Result<u64, QueueError> {
        Ok(self.shared.ready.lock().len() as u64)
    }

    fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }

    async fn close(&self) {}

    async fn remove(&self) -> Result<(), QueueError> {
        self.shared.ready.lock().clear();
        Ok(())
    }

    fn health_error(&self) -> Option<String> {
        None
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.shared.give_back(batch);
        }
        self.shared.held.fetch_sub(1, Ordering::Relaxed);
    }
}
