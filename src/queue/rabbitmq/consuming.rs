//! A consumer of one queue. It subscribes again after its connection broke, or when messages wait and none is delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::{Channel, Consumer, ErrorKind, message::Delivery, protocol::AMQPErrorKind, types::FieldTable};

use super::broker::{Broker, answered};
use super::topology;
use crate::backoff::Backoff;
use crate::campaign::CampaignId;
use crate::queue::QueueError;

/// The delays before a consumer is set up again. If a queue has lost most of its nodes, RabbitMQ closes the whole connection
/// at each attempt.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// The time without a delivery after which a consumer without unacknowledged messages checks whether messages wait.
const QUIET: Duration = Duration::from_secs(10);
/// The delay before a campaign's deleted queue is created again. Usually the campaign has ended, and this worker soon learns
/// that.
const GONE: Duration = Duration::from_secs(2);
/// The time after which a failure is reported.
const REPORT_AFTER: Duration = Duration::from_secs(3);
/// The time after which a campaign's queue that does not respond, while others do, is created again.
const STUCK_TIMEOUT: Duration = Duration::from_secs(30);

/// A consumer of a queue.
pub(super) struct QueueConsumer {
    broker: Broker,
    queue: String,
    /// The campaign of the queue, which is created if it does not exist.
    campaign: Option<CampaignId>,
    /// The maximum number of unacknowledged deliveries.
    prefetch: u16,
    taking: Option<Subscription>,
    declared: Option<Instant>,
    out: Arc<AtomicUsize>,
    health: ConsumerHealth,
}

/// A subscription and its channel.
struct Subscription {
    channel: Channel,
    consumer: Consumer,
}

/// The health of a consumer: why it cannot consume, if it cannot. Clones share it.
#[derive(Clone, Default)]
pub(super) struct ConsumerHealth(Arc<parking_lot::Mutex<Option<String>>>);

impl ConsumerHealth {
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// Counts an unacknowledged delivery until it is dropped.
pub(super) struct Outstanding(Arc<AtomicUsize>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether the broker has closed only the channel.
///
/// The broker does that e.g. when a delivery exceeds the consumer timeout.
fn is_of_channel(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(amqp) if matches!(amqp.kind(), AMQPErrorKind::Soft(_)))
}

impl QueueConsumer {
    pub(super) fn new(broker: &Broker, queue: &str, prefetch: u16) -> Self {
        Self {
            broker: broker.clone(),
            queue: queue.into(),
            campaign: None,
            prefetch,
            taking: None,
            declared: None,
            out: Arc::default(),
            health: ConsumerHealth::default(),
        }
    }

    /// Creates a consumer of jobs. The broker's client reports its health.
    pub(super) fn of_jobs(broker: &Broker, queue: &str, prefetch: u16) -> Self {
        Self { health: broker.intake(), ..Self::new(broker, queue, prefetch) }
    }

    /// Creates a consumer of a campaign's batches.
    pub(super) fn of_campaign(broker: &Broker, campaign: &CampaignId, prefetch: u16) -> Self {
        let queue = topology::queue(campaign);
        Self { campaign: Some(campaign.clone()), ..Self::new(broker, &queue, prefetch) }
    }

    pub(super) fn health(&self) -> ConsumerHealth {
        self.health.clone()
    }

    /// Declares the queue and its bindings, if they do not exist.
    async fn declare(&mut self) -> Result<(), QueueError> {
        self.broker.declare(self.campaign.as_ref()).await?;
        self.declared = Some(Instant::now());
        Ok(())
    }

    /// Declares the queue of a running consumer again.
    ///
    /// The broker may end a consumer without a notification, so a queue that cannot be declared may no longer be consumed.
    async fn declare_again(&mut self) {
        let declared = self.declare().await;
        self.declared = Some(Instant::now());
        match declared {
            Ok(()) => self.report_end(),
            Err(error) if self.campaign.is_none() => {
                self.report(format!("cannot consume {} on RabbitMQ: {error}", self.queue));
            }
            Err(error) => tracing::debug!(queue = self.queue, %error, "cannot declare a queue"),
        }
    }

    async fn consume(&mut self) -> Result<Subscription, QueueError> {
        self.declare().await?;
        let channel = self.broker.channel().await?;
        let asking = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let (queue, options) = (self.queue.as_str().into(), BasicConsumeOptions::default());
            channel.basic_consume(queue, "".into(), options, FieldTable::default()).await
        };
        let consumer = answered(asking).await??;
        Ok(Subscription { channel, consumer })
    }

    /// Subscribes; waits for the broker and for the queue.
    async fn set_up(&mut self) -> Result<&mut Subscription, QueueError> {
        let (mut since, mut retry) = (Instant::now(), RETRY);
        loop {
            // A permanent refusal is an error; a transient one is retried.
            if let Err(error) = self.broker.link().await {
                self.report(format!("cannot consume {} on RabbitMQ: {error}", self.queue));
                return Err(error);
            }
            match self.consume().await {
                Ok(taking) => {
                    self.report_end();
                    return Ok(self.taking.insert(taking));
                }
                Err(error) => {
                    tracing::debug!(queue = self.queue, %error, "cannot consume a queue");
                    if since.elapsed() > REPORT_AFTER {
                        self.report(format!(
                            "cannot consume {} on RabbitMQ, e.g. because most of its nodes are down; this ends when they \
                             are back: {error}",
                            self.queue
                        ));
                    }
                    // A queue that refuses is not stuck.
                    let is_silent = matches!(error, QueueError::Silent);
                    if self.campaign.is_some() && is_silent && since.elapsed() > STUCK_TIMEOUT {
                        since = Instant::now();
                        match self.broker.delete_stuck(&self.queue).await {
                            Ok(true) => tracing::warn!(
                                queue = self.queue,
                                seconds = STUCK_TIMEOUT.as_secs(),
                                "a queue does not answer, and others do; recreating it, and planning its batches again"
                            ),
                            Ok(false) => {}
                            Err(error) => {
                                tracing::debug!(queue = self.queue, %error, "cannot delete a queue");
                            }
                        }
                    }
                    tokio::time::sleep(retry.next_delay()).await;
                }
            }
        }
    }

    /// Sets the reason why it cannot consume, and logs it once.
    fn report(&self, error: String) {
        let mut health = self.health.0.lock();
        if health.is_none() {
            tracing::warn!(queue = self.queue, error, "cannot consume a queue");
        }
        *health = Some(error);
    }

    /// Reports that it consumes again.
    fn report_end(&self) {
        if self.health.0.lock().take().is_some() {
            tracing::info!(queue = self.queue, "consuming again");
        }
    }

    /// Waits for the next delivery.
    ///
    /// # Errors
    ///
    /// When the broker refuses permanently.
    pub(super) async fn next(&mut self) -> Result<(Delivery, Outstanding), QueueError> {
        loop {
            // Queues and exchanges may have been deleted.
            if self.taking.is_some() && self.declared.is_none_or(|at| at.elapsed() > QUIET) {
                self.declare_again().await;
            }
            let is_permanent = self.campaign.is_none();
            let taking = match self.taking.take() {
                Some(taking) => self.taking.insert(taking),
                None => self.set_up().await?,
            };
            match tokio::time::timeout(QUIET, taking.consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    self.out.fetch_add(1, Ordering::Relaxed);
                    return Ok((delivery, Outstanding(self.out.clone())));
                }
                // The connection, the channel or the queue is gone.
                Ok(ended) => {
                    let is_connected = taking.channel.status().connected();
                    if let Some(Err(error)) = ended
                        && is_of_channel(&error)
                    {
                        tracing::warn!(
                            queue = self.queue, %error,
                            "RabbitMQ closed a consumer's channel; subscribing again, and unacknowledged messages are \
                             delivered again"
                        );
                    }
                    if is_permanent && is_connected {
                        tracing::warn!(
                            queue = self.queue,
                            "RabbitMQ ended a consumer: the queue was deleted or has moved; declaring it again and subscribing"
                        );
                    }
                    self.taking = None;
                    let is_lost = is_permanent || !is_connected;
                    tokio::time::sleep(if is_lost { RETRY.delay_after(0) } else { GONE }).await;
                }
                // A queue whose leader has moved may have lost its consumers, and one without a leader notifies none.
                Err(_) if self.is_forgotten().await => {
                    tracing::debug!(
                        queue = self.queue,
                        "messages are ready but none was delivered; resubscribing"
                    );
                    self.close().await;
                }
                Err(_) => {}
            }
        }
    }

    /// Returns whether messages wait that this consumer should have received.
    async fn is_forgotten(&self) -> bool {
        self.out.load(Ordering::Relaxed) == 0
            && self.broker.waiting(&self.queue).await.is_ok_and(|waiting| waiting > 0)
    }

    /// Stops consuming; the broker requeues unacknowledged messages.
    pub(super) async fn close(&mut self) {
        if let Some(taking) = self.taking.take() {
            let _ = answered(taking.channel.close(200, "done".into())).await;
        }
    }
}
