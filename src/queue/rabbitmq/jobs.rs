//! The queues of jobs: submitted, consumed and postponed.

use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, message::Delivery};

use super::broker::{Broker, answered};
use super::consuming::{Outstanding, QueueConsumer};
use super::publishing::{OutgoingMessage, json_properties};
use super::topology::{JOBS, WAITING, WAITING_KEY, delay};
use crate::queue::{Postponed, QueueError};

/// The number of deliveries after which a job is assumed to crash its workers.
const DELIVERIES: i64 = 10;
/// The headers of a job in the queue [`WAITING`]: when it was read from [`JOBS`], in microseconds since 1970, and whether it may
/// be a redelivery.
const READ_AT: &str = "flowcast-read-at";
const RETRY_HEADER: &str = "flowcast-again";
/// The headers of a postponed job: since when, in milliseconds since 1970, and the id that flowcast assigned if it had none.
const POSTPONED_AT: &str = "flowcast-put-off-at";
const ID: &str = "flowcast-id";

/// A delivered job or control document.
pub struct JobDelivery {
    /// The unchecked body.
    pub data: Vec<u8>,
    /// Whether it may be a redelivery.
    pub redelivered: bool,
    /// The time at which it was read from the queue that it was published to, in microseconds since 1970. Of two jobs, the one
    /// published first has the lower time.
    pub read_at: Option<i64>,
    /// The data of a postponed job.
    pub postponed: Option<Postponed>,
    pub(super) delivery: Delivery,
    _out: Outstanding,
}

impl JobDelivery {
    pub(super) fn new(mut delivery: Delivery, out: Outstanding) -> Self {
        let data = std::mem::take(&mut delivery.data);
        let headers = delivery.properties.headers().as_ref();
        let header = |name: &str| headers.and_then(|headers| headers.inner().get(name).cloned());
        let redelivered = delivery.redelivered || header(RETRY_HEADER) == Some(AMQPValue::Boolean(true));
        let read_at = match header(READ_AT) {
            Some(AMQPValue::LongLongInt(at)) => Some(at),
            _ => None,
        };
        let postponed = match (header(POSTPONED_AT), header(ID)) {
            (Some(AMQPValue::LongLongInt(since)), Some(AMQPValue::LongString(id))) => {
                let id = std::str::from_utf8(id.as_bytes()).ok().and_then(|id| id.parse().ok());
                id.map(|id| Postponed { since, id })
            }
            _ => None,
        };
        Self { data, redelivered, read_at, postponed, delivery, _out: out }
    }

    /// Returns whether it was delivered so often that it probably crashes its workers.
    pub fn is_malformed(&self) -> bool {
        let headers = self.delivery.properties.headers().as_ref();
        let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
        matches!(count, Some(AMQPValue::LongLongInt(count)) if *count >= DELIVERIES)
    }

    /// Returns the W3C trace context of its publisher.
    pub fn traceparent(&self) -> Option<&str> {
        match self.delivery.properties.headers().as_ref()?.inner().get("traceparent")? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            AMQPValue::ShortString(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// Acknowledges the job.
    pub async fn acknowledge(self) {
        // If the connection is gone, it is delivered again, and is known by then.
        let _ = answered(self.delivery.acker.ack(BasicAckOptions::default())).await;
    }

    /// Requeues the job.
    pub async fn give_back(self) {
        let _ = answered(self.delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false })).await;
    }
}

/// Returns a job as it is published again, with the headers of flowcast.
fn again(job: &JobDelivery, exchange: &str, key: &str, postponed: Option<&Postponed>) -> OutgoingMessage {
    let kept = job.delivery.properties.headers().clone().unwrap_or_default();
    // The counters of the broker start over.
    let broker = ["x-delivery-count", "x-death", "x-first-death-", "x-last-death-"];
    let is_own = |name: &str| {
        [READ_AT, RETRY_HEADER, POSTPONED_AT, ID].contains(&name)
            || broker.iter().any(|own| name.starts_with(own))
    };
    let mut headers = FieldTable::default();
    for (name, value) in kept.inner().iter().filter(|(name, _)| !is_own(name.as_str())) {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(at) = job.read_at {
        headers.insert(READ_AT.into(), AMQPValue::LongLongInt(at));
    }
    if let Some(postponed) = postponed {
        headers.insert(POSTPONED_AT.into(), AMQPValue::LongLongInt(postponed.since));
        headers.insert(ID.into(), AMQPValue::LongString(postponed.id.as_str().into()));
    }
    headers.insert(RETRY_HEADER.into(), AMQPValue::Boolean(job.redelivered));
    let properties = job.delivery.properties.clone().with_headers(headers).with_delivery_mode(2);
    OutgoingMessage::new(exchange, key, job.data.clone(), properties)
}

/// A consumer of jobs.
pub struct Jobs(QueueConsumer);

impl Jobs {
    /// Waits for the next job.
    ///
    /// # Errors
    ///
    /// When the broker refuses permanently.
    pub async fn next(&mut self) -> Result<JobDelivery, QueueError> {
        self.0.next().await.map(|(delivery, out)| JobDelivery::new(delivery, out))
    }
}

impl Broker {
    /// Opens a consumer of published jobs, with at most `at_once` unacknowledged.
    ///
    /// The others are for other workers.
    pub fn arrivals(&self, at_once: u16) -> Jobs {
        Jobs(QueueConsumer::of_jobs(self, JOBS, at_once))
    }

    /// Opens a consumer of the waiting jobs.
    pub fn jobs(&self, at_once: u16) -> Jobs {
        Jobs(QueueConsumer::new(self, WAITING, at_once))
    }

    /// Moves published jobs behind those that wait, in their order.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it; the jobs are delivered again.
    pub async fn let_wait(&self, mut arrivals: Vec<JobDelivery>) -> Result<(), QueueError> {
        if arrivals.is_empty() {
            return Ok(());
        }
        self.link().await?;
        // Jobs of a connection that is gone are delivered again.
        arrivals.retain(|job| job.delivery.acker.usable());
        if arrivals.is_empty() {
            return Ok(());
        }
        let messages: Vec<OutgoingMessage> =
            arrivals.iter().map(|job| again(job, "", WAITING, job.postponed.as_ref())).collect();
        self.put_all(&messages).await?;
        for job in arrivals {
            job.acknowledge().await;
        }
        Ok(())
    }

    /// Postpones a job by about `wait`; it goes behind those that wait.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it; the job is delivered again.
    pub async fn postpone(
        &self,
        job: JobDelivery,
        wait: Duration,
        postponed: &Postponed,
    ) -> Result<(), QueueError> {
        self.put_all(&[again(&job, &delay(wait), WAITING_KEY, Some(postponed))]).await?;
        job.acknowledge().await;
        Ok(())
    }

    /// Publishes a job or a control document.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn submit(&self, document: Vec<u8>) -> Result<(), QueueError> {
        self.publish_job("", JOBS, document, json_properties()).await
    }

    /// Publishes a message that a queue must accept.
    pub(super) async fn publish_job(
        &self,
        exchange: &str,
        key: &str,
        payload: Vec<u8>,
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        self.put_all(&[OutgoingMessage::new(exchange, key, payload, properties)]).await
    }

    /// Publishes messages. A queue that was deleted is declared again.
    pub(super) async fn put_all(&self, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        if self.publish(messages).await? {
            return Ok(());
        }
        let key = messages.first().map_or("", |message| &message.key);
        tracing::warn!(key, "a queue on RabbitMQ was deleted; declaring it again");
        self.declare(None).await?;
        if self.publish(messages).await? {
            return Ok(());
        }
        Err(QueueError::Failed(format!("lost the queue of {key}")))
    }
}
