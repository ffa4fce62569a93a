//! RabbitMQ: durable quorum queues, manual acknowledgements, publisher confirms.
//!
//! `topology.rs` says what there is on the broker, `broker.rs` keeps the connections, `jobs.rs` takes
//! jobs and buries those that are refused, `forwards.rs` keeps reports that are handed on; here are the
//! batches.

mod broker;
mod consuming;
mod forwards;
mod jobs;
mod topology;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::sync::Mutex;

use super::{Queue, QueueError, QueuedBatch};
use crate::campaign::CampaignId;
pub use broker::Broker;
use broker::{Message, Unpublished, answered, failed, json_properties};
pub use forwards::{Forwarded, Forwarding, Forwards};
pub use jobs::{Buried, Event, JobDelivery, Jobs, What};

/// A wait before a consumer is set up again.
const AGAIN: Duration = Duration::from_millis(200);

/// The shortest step of the delay ladder.
const SHORTEST_DELAY: Duration = Duration::from_secs(1);
/// A delayed batch may come so much later.
const SLACK: Duration = Duration::from_secs(3);

/// A campaign's queue on the broker.
#[derive(Clone)]
pub struct RabbitMq {
    broker: Broker,
    campaign: CampaignId,
    /// How many batches the broker may hand over ahead.
    prefetch: u16,
    taking: Arc<Mutex<Option<Taking>>>,
    held: Arc<AtomicU64>,
    /// When the batches that this worker delayed come back.
    delayed: Arc<std::sync::Mutex<Vec<Instant>>>,
}

/// A consumer and the channel that it is on.
struct Taking {
    channel: Channel,
    consumer: Consumer,
}

/// A batch that was taken.
pub struct Receipt {
    acker: Option<Acker>,
    held: Arc<AtomicU64>,
}

impl Receipt {
    fn new(acker: Acker, held: Arc<AtomicU64>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self { acker: Some(acker), held }
    }

    /// Acknowledges. On a connection that is gone the batch comes again, and nothing of it is left to
    /// claim then.
    async fn acknowledge(mut self) {
        let Some(acker) = self.acker.take() else { return };
        match answered(acker.ack(BasicAckOptions::default())).await {
            Ok(Ok(_)) => {}
            Ok(Err(fault)) => tracing::debug!("a batch could not be acknowledged and comes again: {fault}"),
            Err(fault) => {
                tracing::debug!("a batch could not be acknowledged and comes again: the broker {fault}");
            }
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        if let (Some(acker), Ok(runtime)) = (self.acker.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _ = acker.nack(BasicNackOptions { requeue: true, multiple: false }).await;
            });
        }
    }
}

impl RabbitMq {
    fn delayed(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.delayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes, and makes the queue first where there is none.
    async fn put(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        loop {
            match self.broker.publish(&messages).await {
                Ok(()) => return Ok(()),
                Err(Unpublished::Nowhere) => self.broker.declare(&self.campaign).await?,
                Err(Unpublished::Failed(fault)) => return Err(fault),
            }
        }
    }

    async fn consume(&self) -> Result<Taking, QueueError> {
        self.broker.declare(&self.campaign).await?;
        let channel = self.broker.channel().await?;
        let asking = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let queue = topology::queue(&self.campaign).into();
            channel
                .basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default())
                .await
        };
        let consumer = answered(asking).await?.map_err(|fault| failed(&fault))?;
        Ok(Taking { channel, consumer })
    }

    /// The batch of a delivery. What is none is buried: nobody could send it.
    async fn read(&self, delivery: Delivery) -> Result<Option<(QueuedBatch, Receipt)>, QueueError> {
        let fault = match serde_json::from_slice::<QueuedBatch>(&delivery.data) {
            Ok(batch) if batch.batch.campaign == self.campaign && batch.batch.is_whole() => {
                return Ok(Some((batch, Receipt::new(delivery.acker, self.held.clone()))));
            }
            Ok(_) => "is a batch of another campaign, or a damaged one".into(),
            Err(fault) => format!("is no batch: {fault}"),
        };
        tracing::error!(campaign = %self.campaign, "a message in the campaign's queue {fault}");
        self.broker.bury(JobDelivery::new(delivery), &fault, "").await?;
        Ok(None)
    }
}

impl Queue for RabbitMq {
    type Receipt = Receipt;
    type Home = Broker;
    const LASTS: bool = true;

    fn open(home: &Broker, campaign: &CampaignId, concurrency: usize) -> Self {
        // One more for each under way, so that nobody waits for the broker between two batches.
        let prefetch = u16::try_from(concurrency * 2).unwrap_or(u16::MAX);
        Self {
            broker: home.clone(),
            campaign: campaign.clone(),
            prefetch,
            taking: Arc::default(),
            held: Arc::default(),
            delayed: Arc::default(),
        }
    }

    async fn publish(&self, batches: Vec<QueuedBatch>) -> Result<(), QueueError> {
        let message = |batch: &QueuedBatch| {
            let payload =
                serde_json::to_vec(batch).map_err(|fault| QueueError(format!("failed: {fault}")))?;
            Ok(Message {
                exchange: String::new(),
                key: topology::queue(&self.campaign),
                payload,
                properties: json_properties(),
                mandatory: true,
            })
        };
        self.put(batches.iter().map(message).collect::<Result<_, QueueError>>()?).await
    }

    async fn next(&self) -> Result<(QueuedBatch, Receipt), QueueError> {
        loop {
            let delivery = {
                let mut slot = self.taking.lock().await;
                if slot.is_none() {
                    match self.consume().await {
                        Ok(taking) => *slot = Some(taking),
                        Err(fault) => {
                            tracing::debug!(campaign = %self.campaign, "can't take batches: {fault}");
                            tokio::time::sleep(AGAIN).await;
                            continue;
                        }
                    }
                }
                let Some(taking) = slot.as_mut() else { continue };
                let Some(Ok(delivery)) = taking.consumer.next().await else {
                    // The connection or the queue is gone: set up again.
                    *slot = None;
                    tokio::time::sleep(AGAIN).await;
                    continue;
                };
                delivery
            };
            if let Some(taken) = self.read(delivery).await? {
                return Ok(taken);
            }
        }
    }

    async fn acknowledge(&self, receipt: Receipt) -> Result<(), QueueError> {
        receipt.acknowledge().await;
        Ok(())
    }

    async fn delay(&self, receipt: Receipt, batch: QueuedBatch, wait: Duration) -> Result<(), QueueError> {
        let payload = serde_json::to_vec(&batch).map_err(|fault| QueueError(format!("failed: {fault}")))?;
        let message = Message {
            exchange: topology::delay(wait),
            key: self.campaign.as_str().into(),
            payload,
            properties: json_properties(),
            mandatory: true,
        };
        // Acknowledged only when the delayed copy is safe.
        self.put(vec![message]).await?;
        self.delayed().push(Instant::now() + wait.max(SHORTEST_DELAY) + SLACK);
        receipt.acknowledge().await;
        Ok(())
    }

    async fn waiting(&self) -> Result<u64, QueueError> {
        let channel = self.broker.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = topology::queue(&self.campaign);
        // A queue that is not there holds nothing; the channel is closed by the answer.
        let declared = answered(channel.queue_declare(queue.into(), options, FieldTable::default())).await?;
        match declared {
            Ok(queue) => Ok(u64::from(queue.message_count())),
            Err(fault) if fault.is_amqp_soft_error() => Ok(0),
            Err(fault) => Err(failed(&fault)),
        }
    }

    fn held(&self) -> u64 {
        let mut delayed = self.delayed();
        delayed.retain(|until| *until > Instant::now());
        self.held.load(Ordering::Relaxed) + delayed.len() as u64
    }

    async fn close(&self) {
        if let Some(taking) = self.taking.lock().await.take() {
            let _ = answered(taking.channel.close(200, "done".into())).await;
        }
    }

    async fn remove(&self) -> Result<(), QueueError> {
        self.close().await;
        let channel = self.broker.channel().await?;
        let queue = topology::queue(&self.campaign);
        let deleted = answered(channel.queue_delete(queue.into(), QueueDeleteOptions::default())).await?;
        deleted.map(drop).map_err(|fault| failed(&fault))
    }

    fn trouble(&self) -> Option<String> {
        self.broker.trouble()
    }
}
