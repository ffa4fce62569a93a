//! A consumer of one queue that is set up again whenever its connection is gone, or nothing comes though
//! something waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::protocol::AMQPErrorKind;
use lapin::types::FieldTable;
use lapin::{Channel, Consumer, ErrorKind};
use parking_lot::MutexGuard;

use super::super::QueueError;
use super::broker::{Broker, answered, failed};
use super::topology;
use crate::campaign::CampaignId;

/// The first wait before a consumer is set up again, and the longest: where a queue has lost most of its
/// nodes, RabbitMQ ends the whole connection over each try.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A consumer that gets nothing for so long, with nothing out, looks whether something waits.
const QUIET: Duration = Duration::from_secs(10);
/// A campaign's queue that was deleted is made again after this: mostly the campaign is over, and this worker hears of it
/// a moment later.
const GONE: Duration = Duration::from_secs(2);
/// What goes wrong for longer is said.
const TROUBLE: Duration = Duration::from_secs(3);
/// A campaign's queue that has not answered for so long, while others do, is made anew.
const STUCK: Duration = Duration::from_secs(30);

/// Takes what comes to a queue.
pub(super) struct Consuming {
    broker: Broker,
    queue: String,
    /// Whose queue it is; it is made where there is none.
    campaign: Option<CampaignId>,
    /// How many deliveries may be out before one is acknowledged.
    prefetch: u16,
    taking: Option<Taking>,
    declared: Option<Instant>,
    out: Arc<AtomicUsize>,
    trouble: Trouble,
}

/// A consumer and the channel that it is on.
struct Taking {
    channel: Channel,
    consumer: Consumer,
}

/// What keeps a consumer from taking, if anything; shared with whoever tells.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<parking_lot::Mutex<Option<String>>>);

impl Trouble {
    fn slot(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock()
    }

    pub(super) fn get(&self) -> Option<String> {
        self.slot().clone()
    }
}

/// Counts a delivery that is not done with.
pub(super) struct Out(Arc<AtomicUsize>);

impl Drop for Out {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the broker has closed one channel, as over a delivery that was held for longer than its consumer time-out, and
/// not the whole connection.
fn is_of_channel(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(amqp) if matches!(amqp.kind(), AMQPErrorKind::Soft(_)))
}

impl Consuming {
    pub(super) fn new(broker: &Broker, queue: &str, prefetch: u16) -> Self {
        Self {
            broker: broker.clone(),
            queue: queue.into(),
            campaign: None,
            prefetch,
            taking: None,
            declared: None,
            out: Arc::default(),
            trouble: Trouble::default(),
        }
    }

    /// Of jobs: what keeps them from being taken, the broker knows.
    pub(super) fn of_jobs(broker: &Broker, queue: &str, prefetch: u16) -> Self {
        Self { trouble: broker.intake(), ..Self::new(broker, queue, prefetch) }
    }

    /// Of a campaign's batches.
    pub(super) fn of_campaign(broker: &Broker, campaign: &CampaignId, prefetch: u16) -> Self {
        let queue = topology::queue(campaign);
        Self { campaign: Some(campaign.clone()), ..Self::new(broker, &queue, prefetch) }
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Declares the queue, and what leads to it, where they are gone.
    async fn declare(&mut self) -> Result<(), QueueError> {
        match &self.campaign {
            Some(campaign) => self.broker.declare(campaign).await?,
            None => self.broker.declare_all().await?,
        }
        self.declared = Some(Instant::now());
        Ok(())
    }

    /// Declares once more what a consumer is there for. The broker may forget to say that it has ended one, so a queue that
    /// can't be declared may be no longer ours.
    async fn declare_again(&mut self) {
        let declared = self.declare().await;
        self.declared = Some(Instant::now());
        match declared {
            Ok(()) => self.tell_end(),
            Err(fault) if self.campaign.is_none() => {
                self.tell(format!("{} on RabbitMQ can't be read from: {fault}", self.queue));
            }
            Err(fault) => tracing::debug!("{} can't be declared: {fault}", self.queue),
        }
    }

    async fn consume(&mut self) -> Result<Taking, QueueError> {
        self.declare().await?;
        let channel = self.broker.channel().await?;
        let asking = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let (queue, options) = (self.queue.as_str().into(), BasicConsumeOptions::default());
            channel.basic_consume(queue, "".into(), options, FieldTable::default()).await
        };
        let consumer = answered(asking).await?.map_err(|fault| failed(&fault))?;
        Ok(Taking { channel, consumer })
    }

    /// Sets a consumer up. Waits as long as there is no broker, or the queue does not answer.
    async fn set_up(&mut self) -> Result<&mut Taking, QueueError> {
        let (mut since, mut wait) = (Instant::now(), WAITS.0);
        loop {
            // What the broker refuses for good ends it; what passes is tried again.
            if let Err(fault) = self.broker.link().await {
                self.tell(format!("{} on RabbitMQ can't be read from: RabbitMQ {fault}", self.queue));
                return Err(fault);
            }
            match self.consume().await {
                Ok(taking) => {
                    self.tell_end();
                    return Ok(self.taking.insert(taking));
                }
                Err(fault) => {
                    tracing::debug!("can't take from {}: {fault}", self.queue);
                    if since.elapsed() > TROUBLE {
                        self.tell(format!(
                            "{} on RabbitMQ can't be read from, as it is while most of the nodes that hold it \
                             are away; it goes on by itself when they are back ({fault})",
                            self.queue
                        ));
                    }
                    // One that refuses is not stuck.
                    let is_silent = matches!(fault, QueueError::Silent);
                    if self.campaign.is_some() && is_silent && since.elapsed() > STUCK {
                        since = Instant::now();
                        match self.broker.delete_stuck(&self.queue).await {
                            Ok(true) => tracing::warn!(
                                "{} has not answered for {} s, and others do: it is made anew, and what was in it is planned again",
                                self.queue,
                                STUCK.as_secs()
                            ),
                            Ok(false) => {}
                            Err(fault) => tracing::debug!("{} can't be deleted: {fault}", self.queue),
                        }
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WAITS.1);
                }
            }
        }
    }

    /// Says what keeps it from taking: once in the log, and to whoever asks as long as it lasts.
    fn tell(&self, trouble: String) {
        let mut slot = self.trouble.slot();
        if slot.is_none() {
            tracing::warn!("{trouble}");
        }
        *slot = Some(trouble);
    }

    fn tell_end(&self) {
        if self.trouble.slot().take().is_some() {
            tracing::info!("{} is read from again", self.queue);
        }
    }

    /// The next delivery. Waits as long as there is none, or no broker.
    ///
    /// # Errors
    ///
    /// When the broker refuses for good.
    pub(super) async fn next(&mut self) -> Result<(Delivery, Out), QueueError> {
        loop {
            // What was deleted by somebody would take nothing in any more, or lead nowhere.
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
                    return Ok((delivery, Out(self.out.clone())));
                }
                // The connection, the channel or the queue is gone: set up again.
                Ok(ended) => {
                    let is_connected = taking.channel.status().connected();
                    if let Some(Err(error)) = ended
                        && is_of_channel(&error)
                    {
                        tracing::warn!(
                            %error,
                            "RabbitMQ has closed the channel that reads from {}; it is read from again, and what was \
                             not acknowledged is delivered again",
                            self.queue
                        );
                    }
                    if is_permanent && is_connected {
                        tracing::warn!(
                            "RabbitMQ has ended the consumer of {}: the queue was deleted or has moved; it is \
                             declared and read from again",
                            self.queue
                        );
                    }
                    self.taking = None;
                    tokio::time::sleep(if is_permanent || !is_connected { WAITS.0 } else { GONE }).await;
                }
                // A queue whose leader has moved may have forgotten its consumer, and one without a leader
                // says nothing to those that it has.
                Err(_) if self.is_forgotten().await => {
                    tracing::debug!("{} has something and hands over nothing", self.queue);
                    self.close().await;
                }
                Err(_) => {}
            }
        }
    }

    /// Whether something waits that this consumer should have got.
    async fn is_forgotten(&self) -> bool {
        self.out.load(Ordering::Relaxed) == 0
            && self.broker.waiting(&self.queue).await.is_ok_and(|waiting| waiting > 0)
    }

    /// Takes no more; what was taken and is not done with goes back.
    pub(super) async fn close(&mut self) {
        if let Some(taking) = self.taking.take() {
            let _ = answered(taking.channel.close(200, "done".into())).await;
        }
    }
}
