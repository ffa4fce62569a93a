//! A broker in memory that loses, duplicates and reorders batches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::node::Node;
use super::{Broken, World};
use crate::campaign::CampaignId;
use crate::queue::{Queue, QueueError, QueuedBatch};
use crate::runtime::one_of;

/// The simulated broker.
#[derive(Clone)]
pub(super) struct Broker {
    world: Arc<World>,
    state: Arc<Mutex<SimulatedQueues>>,
}

#[derive(Default)]
struct SimulatedQueues {
    queues: BTreeMap<CampaignId, OneQueue>,
    next: u64,
}

#[derive(Default)]
struct OneQueue {
    ready: VecDeque<QueuedBatch>,
    /// Batches in flight with their node, by delivery tag.
    taken: BTreeMap<u64, (u32, QueuedBatch)>,
    arrived: Arc<Notify>,
}

impl Broker {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, SimulatedQueues> {
        self.state.lock()
    }

    /// Requeues the batches that a node holds, as after a lost connection.
    pub(super) fn lose_connection(&self, node: u32) {
        for queue in self.state().queues.values_mut() {
            let theirs: Vec<u64> =
                queue.taken.iter().filter(|(_, (holder, _))| *holder == node).map(|(tag, _)| *tag).collect();
            for tag in theirs {
                let (_, batch) = queue.taken.remove(&tag).unwrap();
                queue.ready.push_front(batch);
                queue.arrived.notify_waiters();
            }
        }
    }

    /// Loses, duplicates or reorders queued batches.
    pub(super) fn misbehave(&self) {
        let mut state = self.state();
        let nth = one_of(state.queues.len());
        let Some(queue) = state.queues.values_mut().nth(nth).filter(|queue| !queue.ready.is_empty()) else {
            return;
        };
        let at = one_of(queue.ready.len());
        match one_of(4) {
            0 => drop(queue.ready.remove(at)),
            1 => queue.ready.clear(),
            2 => {
                let twice = queue.ready[at].clone();
                queue.ready.push_back(twice);
                queue.arrived.notify_waiters();
            }
            _ => queue.ready.rotate_left(at),
        }
    }
}

/// A campaign's queue, as a worker's client.
#[derive(Clone)]
pub(super) struct Batches {
    broker: Broker,
    node: Arc<Node>,
    campaign: CampaignId,
    held: Arc<AtomicU64>,
}

/// The receipt of a batch in flight.
pub(super) struct Receipt {
    queue: Batches,
    tag: Option<u64>,
}

impl Batches {
    fn with<T>(&self, does: impl FnOnce(&mut OneQueue) -> T) -> T {
        does(self.broker.state().queues.entry(self.campaign.clone()).or_default())
    }

    fn publish(&self, batch: QueuedBatch) {
        self.with(|queue| {
            queue.ready.push_back(batch);
            queue.arrived.notify_waiters();
        });
    }

    fn deliver(&self) -> Option<(QueuedBatch, u64)> {
        let tag = {
            let mut state = self.broker.state();
            state.next += 1;
            state.next
        };
        self.with(|queue| {
            let batch = queue.ready.pop_front()?;
            queue.taken.insert(tag, (self.node.number, batch.clone()));
            Some((batch, tag))
        })
    }

    fn fails(&self) -> bool {
        self.broker.world.goes_wrong(self.broker.world.faults.broker, 0.01)
    }
}

impl Queue for Batches {
    type Receipt = Receipt;
    type Home = (Broker, Arc<Node>);
    const DURABLE: bool = true;

    fn open((broker, node): &Self::Home, campaign: &CampaignId, _: usize) -> Self {
        Self { broker: broker.clone(), node: node.clone(), campaign: campaign.clone(), held: Arc::default() }
    }

    async fn publish(&self, batches: Vec<QueuedBatch>) -> Result<(), QueueError> {
        self.node.hop().await;
        if self.fails() {
            return Err(QueueError::Failed("is unreachable".into()));
        }
        for batch in batches {
            self.publish(batch);
        }
        self.node.hop().await;
        // The broker has the batches, but the confirmation is lost.
        if self.fails() { Err(QueueError::Failed("is unreachable".into())) } else { Ok(()) }
    }

    async fn next(&self) -> Result<(QueuedBatch, Receipt), QueueError> {
        loop {
            self.node.proceed().await;
            let arrived = self.with(|queue| queue.arrived.clone());
            let wakes = arrived.notified();
            if let Some((batch, tag)) = self.deliver() {
                self.held.fetch_add(1, Ordering::Relaxed);
                return Ok((batch, Receipt { queue: self.clone(), tag: Some(tag) }));
            }
            wakes.await;
        }
    }

    async fn acknowledge(&self, mut receipt: Receipt) -> Result<(), QueueError> {
        self.node.hop().await;
        if self.fails() {
            return Err(QueueError::Failed("is unreachable".into()));
        }
        if let Some(tag) = receipt.tag.take() {
            self.with(|queue| drop(queue.taken.remove(&tag)));
        }
        Ok(())
    }

    async fn delay(&self, receipt: Receipt, batch: QueuedBatch, wait: Duration) -> Result<(), QueueError> {
        self.node.hop().await;
        if self.fails() {
            return Err(QueueError::Failed("is unreachable".into()));
        }
        let queue = self.clone();
        queue.held.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            sleep(wait).await;
            queue.publish(batch);
            queue.held.fetch_sub(1, Ordering::Relaxed);
        });
        self.acknowledge(receipt).await
    }

    async fn waiting(&self) -> Result<u64, QueueError> {
        self.node.hop().await;
        let is_missed = self.broker.world.faults.broken != Some(Broken::LostBatches);
        Ok(self.with(|queue| queue.ready.len() as u64).max(u64::from(!is_missed)))
    }

    fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    async fn close(&self) {
        self.node.proceed().await;
    }

    async fn remove(&self) -> Result<(), QueueError> {
        self.node.hop().await;
        self.with(|queue| {
            queue.ready.clear();
            queue.taken.clear();
        });
        Ok(())
    }

    fn health_error(&self) -> Option<String> {
        None
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.queue.held.fetch_sub(1, Ordering::Relaxed);
        let Some(tag) = self.tag.take().filter(|_| !self.queue.node.is_dead()) else { return };
        self.queue.with(|queue| {
            if let Some((_, batch)) = queue.taken.remove(&tag) {
                queue.ready.push_front(batch);
                queue.arrived.notify_waiters();
            }
        });
    }
}
