//! The dead-letter queue: refused jobs, which an operator requeues or discards.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::broker::{Broker, answered};
use super::jobs::JobDelivery;
use super::publishing::{OutgoingMessage, json_properties};
use super::topology::{DEAD, JOBS};
use crate::campaign::text::shortened;
use crate::queue::{DeadLetter, DeadLetterAction, QueueError};

/// The headers of a dead letter.
const ERROR: &str = "flowcast-error";
const POINTER: &str = "flowcast-pointer";
/// The maximum length of each, in bytes. All headers share one frame, which may be as small as 8 KiB.
const LONGEST_ERROR: usize = 2_048;
const LONGEST_POINTER: usize = 256;
/// The maximum number of dead letters that are handled together, and of their bytes.
const TOGETHER: u16 = 256;
const REQUEUED: usize = 16 << 20;
/// The time without a delivery after which the queue counts as empty.
const QUIET: Duration = Duration::from_secs(3);
/// The maximum number of bytes that are listed together.
const LOOKED_AT: usize = 64 << 20;
/// The header in which the broker counts how often a message was returned to its queue.
const RETURNS: &str = "x-delivery-count";
/// The number of returns after which dead letters are published again. Since RabbitMQ 4.0 a queue without a limit of its own
/// drops a message after 20, and each listing returns all that it shows.
const MAX_RETURNS: i64 = 10;

impl Broker {
    /// Moves a refused job to the dead-letter queue.
    ///
    /// The job stays complete. The reason and the JSON pointer are cut to fit into a header.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it; the job is delivered again.
    pub async fn dead_letter(&self, job: JobDelivery, error: &str, pointer: &str) -> Result<(), QueueError> {
        let mut headers = FieldTable::default();
        headers.insert(ERROR.into(), AMQPValue::LongString((*shortened(error, LONGEST_ERROR)).into()));
        headers.insert(POINTER.into(), AMQPValue::LongString((*shortened(pointer, LONGEST_POINTER)).into()));
        let mut properties = job.delivery.properties.clone().with_headers(headers).with_delivery_mode(2);
        if properties.content_type().is_none() {
            properties = properties.with_content_type("application/octet-stream".into());
        }
        self.publish_job("", DEAD, job.data.clone(), properties).await?;
        job.acknowledge().await;
        Ok(())
    }

    /// Returns dead letters, roughly the oldest first, and the number of those that are not returned.
    ///
    /// At most `most` letters and about 64 MiB are returned. They stay in the queue, but the broker does not keep the order
    /// of many letters that are returned to it.
    ///
    /// # Errors
    ///
    /// When the broker is unreachable.
    pub async fn buried(&self, most: usize) -> Result<(Vec<DeadLetter>, u32), QueueError> {
        let channel = self.channel().await?;
        let mut held = Vec::new();
        let (mut more, mut bytes) = (0, 0);
        while held.len() < most && bytes < LOOKED_AT {
            let got = channel.basic_get(DEAD.into(), BasicGetOptions::default()).await?;
            let Some(message) = got else { break };
            more = message.message_count;
            bytes += message.delivery.data.len();
            held.push(message.delivery);
        }
        let all = held.iter().map(read).collect();
        if held.iter().any(|letter| returns(letter) >= MAX_RETURNS) {
            // All that are listed, so that their order stays. Others were returned less often.
            self.renew(&held).await?;
        }
        // The broker requeues the others when the channel is closed.
        let _ = channel.close(200, "done".into()).await;
        Ok((all, more))
    }

    /// Requeues or discards all current dead letters, many at a time.
    ///
    /// Returns their number.
    ///
    /// # Errors
    ///
    /// When the broker is unreachable. Jobs requeued by then may be in the queue twice; a job is registered once.
    pub async fn unbury_all(&self, what: DeadLetterAction) -> Result<u64, QueueError> {
        let all = self.waiting(DEAD).await?;
        let channel = self.channel().await?;
        let asking = async {
            channel.basic_qos(TOGETHER, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(DEAD.into(), "".into(), options, FieldTable::default()).await
        };
        let mut consumer = answered(asking).await??;
        let mut done = 0;
        while done < all {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while some.len() < usize::from(TOGETHER) && done + (some.len() as u64) < all && bytes < REQUEUED {
                // Another process may have taken the rest.
                let Ok(Some(next)) = tokio::time::timeout(QUIET, consumer.next()).await else { break };
                let delivery = next?;
                bytes += delivery.data.len();
                some.push(delivery);
            }
            let Some(last) = some.last() else { break };
            if what == DeadLetterAction::Requeue {
                let message = |delivery: &Delivery| {
                    OutgoingMessage::new("", JOBS, delivery.data.clone(), json_properties())
                };
                self.put_all(&some.iter().map(message).collect::<Vec<_>>()).await?;
            }
            last.acker.ack(BasicAckOptions { multiple: true }).await?;
            done += some.len() as u64;
        }
        let _ = channel.close(200, "done".into()).await;
        Ok(done)
    }

    /// Publishes dead letters again, in their order, and then removes those that were returned too often.
    async fn renew(&self, letters: &[Delivery]) -> Result<(), QueueError> {
        if letters.is_empty() {
            return Ok(());
        }
        let message = |letter: &Delivery| {
            OutgoingMessage::new("", DEAD, letter.data.clone(), without_returns(&letter.properties))
        };
        self.put_all(&letters.iter().map(message).collect::<Vec<_>>()).await?;
        for letter in letters {
            letter.acker.ack(BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    /// Requeues or discards the dead letters that `wanted` selects.
    ///
    /// Returns their number.
    ///
    /// # Errors
    ///
    /// When the broker is unreachable. Jobs requeued by then may be in the queue twice; a job is registered once.
    pub async fn unbury(
        &self,
        what: DeadLetterAction,
        wanted: impl Fn(usize, &DeadLetter) -> bool,
    ) -> Result<u64, QueueError> {
        let channel = self.channel().await?;
        let (mut done, mut old, mut bytes) = (0, Vec::new(), 0);
        for nth in 1.. {
            let got = channel.basic_get(DEAD.into(), BasicGetOptions::default()).await?;
            let Some(message) = got else { break };
            let buried = read(&message.delivery);
            if !wanted(nth, &buried) {
                // The next call renews the rest.
                if returns(&message.delivery) >= MAX_RETURNS && bytes < LOOKED_AT {
                    bytes += message.delivery.data.len();
                    old.push(message.delivery);
                }
                continue;
            }
            if what == DeadLetterAction::Requeue {
                self.submit(buried.data).await?;
            }
            message.delivery.acker.ack(BasicAckOptions::default()).await?;
            done += 1;
        }
        self.renew(&old).await?;
        let _ = channel.close(200, "done".into()).await;
        Ok(done)
    }
}

/// Returns how often a message was returned to its queue.
fn returns(delivery: &Delivery) -> i64 {
    let header = delivery.properties.headers().as_ref().and_then(|headers| headers.inner().get(RETURNS));
    match header {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
        _ => 0,
    }
}

fn without_returns(properties: &BasicProperties) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if name.as_str() != RETURNS {
            headers.insert(name.clone(), value.clone());
        }
    }
    properties.clone().with_headers(headers)
}

fn read(delivery: &Delivery) -> DeadLetter {
    let header = |name: &str| {
        let value = delivery.properties.headers().as_ref()?.inner().get(name)?;
        match value {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    };
    DeadLetter {
        data: delivery.data.clone(),
        error: header(ERROR).unwrap_or_default(),
        pointer: header(POINTER).unwrap_or_default(),
    }
}
