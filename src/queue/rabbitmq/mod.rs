//! RabbitMQ: durable quorum queues, manual acknowledgements, publisher confirms.
//!
//! This file has the queue of batches, whose messages `payload.rs` encodes. `topology.rs` declares queues and exchanges,
//! `broker.rs` has the connections, `publishing.rs` publishes, and `consuming.rs` consumes. `jobs.rs`, `dead_letters.rs`,
//! `forwards.rs` and `events.rs` have the other messages.

mod addresses;
mod broker;
mod connections;
mod consuming;
mod dead_letters;
mod events;
mod forwards;
mod jobs;
mod payload;
mod publishing;
mod stuck_queue;
mod tls;
mod topology;
mod version;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{collections::VecDeque, sync::Arc};

use lapin::options::{BasicAckOptions, BasicNackOptions, QueueDeleteOptions};
use lapin::{Acker, message::Delivery};

use tokio::sync::Mutex;

use super::{Queue, QueueError, QueuedBatch};
use crate::campaign::CampaignId;
pub use broker::Broker;
use broker::answered;
use consuming::{ConsumerHealth, Outstanding, QueueConsumer};
pub use forwards::{Forwarding, Forwards};
pub use jobs::{JobDelivery, Jobs};
use publishing::{OutgoingMessage, durable_properties};
pub use topology::Missing;

/// The shortest delay of a delay queue.
const SHORTEST_DELAY: Duration = Duration::from_secs(1);
/// The maximum time by which a delayed batch may be late.
const SLACK: Duration = Duration::from_secs(3);

/// The queue of a campaign on the broker.
#[derive(Clone)]
pub struct RabbitMq {
    broker: Broker,
    campaign: CampaignId,
    taking: Arc<Mutex<QueueConsumer>>,
    /// The health of the consumer.
    health: ConsumerHealth,
    /// The delivered batches that no sender has taken yet.
    ready: Arc<parking_lot::Mutex<Ready>>,
    held: Arc<AtomicU64>,
    /// The times at which the batches that this worker delayed are delivered again.
    delayed: Arc<parking_lot::Mutex<Vec<Instant>>>,
}

/// Batches, each with the message that delivered it.
type Ready = VecDeque<(QueuedBatch, Arc<Delivered>)>;

/// A delivered message.
///
/// It is acknowledged with the last of its batches. If one of them is dropped, the whole message is requeued; its other
/// batches then have no messages left to claim.
struct Delivered {
    acker: Acker,
    /// Batches that are not acknowledged yet.
    left: AtomicUsize,
    _out: Outstanding,
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && *self.left.get_mut() > 0
        {
            let acker = self.acker.clone();
            runtime.spawn(async move {
                let _ = acker.nack(BasicNackOptions { requeue: true, multiple: false }).await;
            });
        }
    }
}

/// The receipt of a delivered batch.
pub struct Receipt {
    message: Arc<Delivered>,
    held: Arc<AtomicU64>,
}

impl Receipt {
    fn new(message: Arc<Delivered>, held: Arc<AtomicU64>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self { message, held }
    }

    /// Acknowledges the batch.
    ///
    /// If the connection broke, the batch is delivered again and has no messages left to claim.
    async fn acknowledge(self) {
        if self.message.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let answer = answered(self.message.acker.ack(BasicAckOptions::default())).await;
        if let Err(error) = answer.and_then(|answer| Ok(answer?)) {
            tracing::debug!(%error, "cannot acknowledge a batch; it is delivered again");
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RabbitMq {
    /// Publishes messages; declares the queue if it does not exist.
    async fn publish_batches(&self, messages: Vec<OutgoingMessage>) -> Result<(), QueueError> {
        while !self.broker.publish(&messages).await? {
            self.broker.declare(Some(&self.campaign)).await?;
        }
        Ok(())
    }

    /// Reads the batches of a delivery. An invalid message is dead-lettered.
    async fn read(&self, delivery: Delivery, out: Outstanding) -> Result<(), QueueError> {
        let is_ours =
            |queued: &QueuedBatch| queued.batch.campaign == self.campaign && queued.batch.is_whole();
        let error = match payload::read(&delivery.data) {
            Ok(batches) if !batches.is_empty() && batches.iter().all(is_ours) => {
                let left = AtomicUsize::new(batches.len());
                let message = Arc::new(Delivered { acker: delivery.acker, left, _out: out });
                self.ready.lock().extend(batches.into_iter().map(|batch| (batch, message.clone())));
                return Ok(());
            }
            Ok(_) => "has a batch of another campaign, or a damaged one".into(),
            Err(error) => error,
        };
        tracing::error!(campaign = %self.campaign, error, "invalid message in the campaign's queue dead-lettered");
        self.broker.dead_letter(JobDelivery::new(delivery, out), &error, "").await
    }
}

impl Queue for RabbitMq {
    type Receipt = Receipt;
    type Home = Broker;
    const DURABLE: bool = true;

    fn open(home: &Broker, campaign: &CampaignId, ahead: usize) -> Self {
        // Most messages have several batches: a quarter of them is enough to keep all senders busy.
        let prefetch = u16::try_from(ahead.div_ceil(4).max(2)).unwrap_or(u16::MAX);
        let consuming = QueueConsumer::of_campaign(home, campaign, prefetch);
        Self {
            broker: home.clone(),
            campaign: campaign.clone(),
            health: consuming.health(),
            taking: Arc::new(Mutex::new(consuming)),
            ready: Arc::default(),
            held: Arc::default(),
            delayed: Arc::default(),
        }
    }

    async fn publish(&self, batches: Vec<QueuedBatch>) -> Result<(), QueueError> {
        let queue = topology::queue(&self.campaign);
        let message =
            |batches| Ok(OutgoingMessage::new("", &queue, payload::write(batches)?, durable_properties()));
        self.publish_batches(payload::parts(&batches).map(message).collect::<Result<_, QueueError>>()?).await
    }

    async fn next(&self) -> Result<(QueuedBatch, Receipt), QueueError> {
        loop {
            let mut taking = self.taking.lock().await;
            // The message that another sender received may have had several batches.
            if let Some((batch, message)) = self.ready.lock().pop_front() {
                return Ok((batch, Receipt::new(message, self.held.clone())));
            }
            let (delivery, out) = taking.next().await?;
            self.read(delivery, out).await?;
        }
    }

    async fn acknowledge(&self, receipt: Receipt) -> Result<(), QueueError> {
        receipt.acknowledge().await;
        Ok(())
    }

    async fn delay(&self, receipt: Receipt, batch: QueuedBatch, wait: Duration) -> Result<(), QueueError> {
        let payload = payload::write(std::slice::from_ref(&batch))?;
        let (exchange, key) = (topology::delay(wait), self.campaign.as_str());
        let message = OutgoingMessage::new(&exchange, key, payload, durable_properties());
        // Acknowledged only after the broker has confirmed the delayed copy.
        self.publish_batches(vec![message]).await?;
        self.delayed.lock().push(Instant::now() + wait.max(SHORTEST_DELAY) + SLACK);
        receipt.acknowledge().await;
        Ok(())
    }

    async fn waiting(&self) -> Result<u64, QueueError> {
        self.broker.waiting(&topology::queue(&self.campaign)).await
    }

    fn held(&self) -> u64 {
        let mut delayed = self.delayed.lock();
        delayed.retain(|until| *until > Instant::now());
        self.held.load(Ordering::Relaxed) + delayed.len() as u64
    }

    async fn close(&self) {
        let mut taking = self.taking.lock().await;
        self.ready.lock().clear();
        taking.close().await;
    }

    async fn remove(&self) -> Result<(), QueueError> {
        self.close().await;
        let channel = self.broker.channel().await?;
        let queue = topology::queue(&self.campaign);
        answered(channel.queue_delete(queue.into(), QueueDeleteOptions::default())).await??;
        Ok(())
    }

    fn health_error(&self) -> Option<String> {
        self.broker.health_error().or_else(|| self.health.get())
    }
}
