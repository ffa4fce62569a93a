//! Messages and their publication. A message counts as published once the broker has confirmed it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, options::BasicPublishOptions};
use tokio::time::Instant;

use super::broker::Broker;
use super::connections::{ConnectionPair, MAX_RETRY_DELAY, SHORT};
use crate::backoff::Backoff;
use crate::queue::QueueError;

/// The interval between checks of the connection.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The time after which a confirm counts as lost, unless the broker blocks.
const CONFIRM: Duration = Duration::from_secs(10);
/// The delays before messages that the broker refused are published again. Usually, their queue was just being created.
const REFUSED: Backoff = Backoff::new(Duration::from_millis(10), MAX_RETRY_DELAY);

/// A message to publish.
pub(super) struct OutgoingMessage {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) payload: Vec<u8>,
    pub(super) properties: BasicProperties,
    /// Whether it is an error that no queue accepts it.
    pub(super) mandatory: bool,
}

impl OutgoingMessage {
    /// Creates a message that a queue must accept.
    pub(super) fn new(exchange: &str, key: &str, payload: Vec<u8>, properties: BasicProperties) -> Self {
        Self { exchange: exchange.into(), key: key.into(), payload, properties, mandatory: true }
    }
}

/// Returns the properties of a durable message.
pub(super) fn durable_properties() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// Returns the properties of a durable message with JSON.
pub(super) fn json_properties() -> BasicProperties {
    durable_properties().with_content_type("application/json".into())
}

/// Clears a flag when it is dropped.
struct ClearOnDrop<'a>(&'a AtomicBool);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Broker {
    /// Publishes messages together; once it returns, the broker has all of them.
    ///
    /// Messages without a confirm are published again. Returns `false` if no queue accepts one that a queue must accept.
    pub(super) async fn publish(&self, messages: &[OutgoingMessage]) -> Result<bool, QueueError> {
        let longest = messages.iter().map(|message| header_size(&message.properties)).max();
        // Dropped with this future, e.g. when the worker stops while it waits.
        let _over = ClearOnDrop(&self.shared.unconfirmed);
        let mut left: Vec<&OutgoingMessage> = messages.iter().collect();
        let mut retry = REFUSED;
        let since = Instant::now();
        loop {
            let link = self.link().await?;
            // The broker would close the connection each time.
            let most = link.publishing.configuration().frame_max() as usize;
            if let Some(longest) = longest.filter(|longest| *longest > most) {
                let text = format!("accepts headers of at most {most} bytes, but a message has {longest}");
                return Err(QueueError::Failed(text));
            }
            let mut confirms = Vec::with_capacity(left.len());
            let publishing = async {
                for message in &left {
                    confirms.push((*message, publish_one(&link.publisher, message).await?));
                }
                Ok::<(), lapin::Error>(())
            };
            // A patient caller waits while the broker blocks. Messages that are not published by then are published again.
            if self.shared.patient {
                let _ = while_connected(&link.publishing, publishing).await;
            } else {
                let _ = tokio::time::timeout(SHORT, publishing).await;
            }
            let mut failures = left.split_off(confirms.len());
            for (message, confirm) in confirms {
                match self.confirmed(&link, confirm).await {
                    Some(Confirmation::Ack(None) | Confirmation::NotRequested) => {}
                    Some(Confirmation::Ack(Some(_))) => return Ok(false),
                    // Refused or unconfirmed. Published again, it may be in the queue twice.
                    Some(Confirmation::Nack(_)) | None => failures.push(message),
                }
            }
            if failures.is_empty() {
                return Ok(true);
            }
            // A queue that was just created refuses for a moment.
            if since.elapsed() > CONFIRM / 2 {
                self.shared.unconfirmed.store(true, Ordering::Relaxed);
            }
            if !self.shared.patient && since.elapsed() > SHORT {
                let error = self.health_error().unwrap_or_else(|| "the broker does not confirm".into());
                return Err(QueueError::Failed(format!("failed: {error}")));
            }
            left = failures;
            tokio::time::sleep(retry.next_delay()).await;
        }
    }

    /// Waits for a confirm, and notices when the broker blocks or disconnects.
    async fn confirmed(
        &self,
        link: &ConnectionPair,
        confirm: lapin::PublisherConfirm,
    ) -> Option<Confirmation> {
        let mut confirm = std::pin::pin!(confirm);
        // Most of the messages that were published together are confirmed already.
        if let Some(done) = (&mut confirm).now_or_never() {
            self.shared.unconfirmed.store(false, Ordering::Relaxed);
            return done.ok();
        }
        let mut unblocked = Instant::now();
        loop {
            if let Ok(done) = tokio::time::timeout(POLL_INTERVAL, &mut confirm).await {
                self.shared.unconfirmed.store(false, Ordering::Relaxed);
                return done.ok();
            }
            if link.publishing.status().blocked() {
                if !self.shared.patient {
                    return None;
                }
                unblocked = Instant::now();
            }
            if !link.publishing.status().connected() {
                return None;
            }
            if unblocked.elapsed() > CONFIRM {
                tracing::warn!("RabbitMQ did not confirm messages in time; publishing them again");
                self.shared.unconfirmed.store(true, Ordering::Relaxed);
                // A quorum queue that is recovering may never confirm on this connection. Another task may have replaced the
                // connection already.
                let is_ours = |kept: &mut ConnectionPair| Arc::ptr_eq(&kept.publishing, &link.publishing);
                if let Some(link) = self.link.invalidate(is_ours) {
                    tokio::spawn(link.close());
                }
                return None;
            }
        }
    }
}

/// Returns an upper bound of the size of a message's properties, in bytes.
///
/// They share one frame.
fn header_size(properties: &BasicProperties) -> usize {
    /// The maximum size of the other properties: short strings of at most 255 bytes.
    const OTHERS: usize = 4_096;
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    let size =
        |value: &AMQPValue| if let AMQPValue::LongString(text) = value { text.as_bytes().len() } else { 16 };
    OTHERS + headers.map(|(name, value)| name.as_str().len() + 8 + size(value)).sum::<usize>()
}

pub(super) async fn publish_one(
    channel: &Channel,
    message: &OutgoingMessage,
) -> lapin::Result<lapin::PublisherConfirm> {
    let OutgoingMessage { exchange, key, payload, properties, mandatory } = message;
    let options = BasicPublishOptions { mandatory: *mandatory, ..BasicPublishOptions::default() };
    let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
    channel.basic_publish(exchange, key, options, payload, properties.clone()).await
}

/// Waits for a future as long as the connection is open.
///
/// After a connection broke, the response may never arrive.
async fn while_connected<T>(connection: &Connection, asked: impl Future<Output = T>) -> Option<T> {
    let mut asked = std::pin::pin!(asked);
    loop {
        if let Ok(done) = tokio::time::timeout(POLL_INTERVAL, &mut asked).await {
            return Some(done);
        }
        if !connection.status().connected() {
            return None;
        }
    }
}
