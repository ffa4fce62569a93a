//! A consumer of one queue that is set up again whenever its connection is gone.

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::super::QueueError;
use super::AGAIN;
use super::broker::{Broker, answered, failed};

/// Takes what comes to a queue.
pub(super) struct Consuming {
    broker: Broker,
    queue: &'static str,
    /// How many deliveries may be out before one is acknowledged.
    prefetch: u16,
    taking: Option<(Channel, Consumer)>,
}

impl Consuming {
    pub(super) fn new(broker: &Broker, queue: &'static str, prefetch: u16) -> Self {
        Self { broker: broker.clone(), queue, prefetch, taking: None }
    }

    async fn consume(&self) -> Result<(Channel, Consumer), QueueError> {
        let channel = self.broker.channel().await?;
        let asking = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(self.queue.into(), "".into(), options, FieldTable::default()).await
        };
        let consumer = answered(asking).await?.map_err(|fault| failed(&fault))?;
        Ok((channel, consumer))
    }

    /// The next delivery. Waits as long as there is none, or no broker.
    ///
    /// # Errors
    ///
    /// When the broker refuses for good.
    pub(super) async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            if self.taking.is_none() {
                // What the broker refuses for good ends it; what passes is tried again.
                self.broker.link().await?;
                match self.consume().await {
                    Ok(taking) => self.taking = Some(taking),
                    Err(fault) => {
                        tracing::debug!("can't take from {}: {fault}", self.queue);
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                }
            }
            let Some((_, consumer)) = self.taking.as_mut() else { continue };
            if let Some(Ok(delivery)) = consumer.next().await {
                return Ok(delivery);
            }
            // The connection or the queue is gone: set up again.
            self.taking = None;
            tokio::time::sleep(AGAIN).await;
        }
    }
}
