//! A queue inside the process: bounded, so that planning stays a little ahead of sending.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::{Queue, QueueError, QueuedBatch};

/// A queue of batches in memory.
#[derive(Clone)]
pub struct Local {
    shared: Arc<Shared>,
}

struct Shared {
    ready: Mutex<VecDeque<Waiting>>,
    /// One permit for each place that is free. Batches that come back need none.
    places: Semaphore,
    arrived: Notify,
}

struct Waiting {
    batch: QueuedBatch,
    holds_place: bool,
}

/// A batch that was taken and is not done with.
pub struct Receipt {
    shared: Arc<Shared>,
    /// Given back when the receipt is dropped.
    batch: Option<QueuedBatch>,
}

impl Local {
    /// A queue that holds `capacity` batches before publishing waits.
    pub fn new(capacity: usize) -> Self {
        let shared =
            Shared { ready: Mutex::default(), places: Semaphore::new(capacity), arrived: Notify::new() };
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch that comes back stands in front: it was planned before the others.
    fn give_back(&self, batch: QueuedBatch) {
        self.ready().push_front(Waiting { batch, holds_place: false });
        self.arrived.notify_one();
    }
}

impl Queue for Local {
    type Receipt = Receipt;

    async fn publish(&self, batch: QueuedBatch) -> Result<(), QueueError> {
        let place = self.shared.places.acquire().await.map_err(|_| QueueError("is closed".into()))?;
        place.forget();
        self.shared.ready().push_back(Waiting { batch, holds_place: true });
        self.shared.arrived.notify_one();
        Ok(())
    }

    async fn next(&self) -> Result<(QueuedBatch, Receipt), QueueError> {
        loop {
            let arrived = self.shared.arrived.notified();
            let (batch, more) = {
                let mut ready = self.shared.ready();
                (ready.pop_front(), !ready.is_empty())
            };
            if let Some(Waiting { batch, holds_place }) = batch {
                self.shared.places.add_permits(usize::from(holds_place));
                // Two arrivals may have been told as one.
                if more {
                    self.shared.arrived.notify_one();
                }
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
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            shared.give_back(batch);
        });
        Ok(())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.shared.give_back(batch);
        }
    }
}
