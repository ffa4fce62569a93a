//! The queue of reports to forward. They wait on the broker, so a worker that crashes loses none, but a report may be
//! forwarded twice.

use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, message::Delivery};

use super::broker::{Broker, answered};
use super::consuming::{Outstanding, QueueConsumer};
use super::publishing::json_properties;
use super::topology::{BATCHES, FORWARDS, FORWARDS_KEY, delay};
use crate::queue::{Forwarded, QueueError};

/// The headers of a report.
const URL: &str = "flowcast-status-callback";
const TRIES: &str = "flowcast-tries";

/// A delivered report. It is requeued when it is dropped.
pub struct Forwarding {
    /// The report to forward.
    pub report: Forwarded,
    acker: Acker,
    _out: Outstanding,
}

impl Forwarding {
    /// Acknowledges the report, which was forwarded or dropped for good.
    pub async fn done(self) {
        // If the connection is gone, it is delivered again.
        let _ = answered(self.acker.ack(BasicAckOptions::default())).await;
    }

    /// Requeues the report.
    pub async fn give_back(self) {
        let _ = answered(self.acker.nack(BasicNackOptions { requeue: true, multiple: false })).await;
    }
}

/// A consumer of reports to forward.
pub struct Forwards(QueueConsumer);

impl Forwards {
    /// Waits for the next report.
    ///
    /// # Errors
    ///
    /// When the broker refuses permanently.
    pub async fn next(&mut self) -> Result<Forwarding, QueueError> {
        loop {
            let (delivery, out) = self.0.next().await?;
            if let Some(report) = read(&delivery) {
                return Ok(Forwarding { report, acker: delivery.acker, _out: out });
            }
            tracing::warn!(queue = FORWARDS, "a message without an address was discarded");
            let _ = answered(delivery.acker.ack(BasicAckOptions::default())).await;
        }
    }
}

fn read(delivery: &Delivery) -> Option<Forwarded> {
    let headers = delivery.properties.headers().as_ref()?.inner();
    let AMQPValue::LongString(url) = headers.get(URL)? else { return None };
    let AMQPValue::LongUInt(tries) = headers.get(TRIES)? else { return None };
    // Earlier versions published no id. The body is the same at each attempt.
    let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
    let id = id.unwrap_or_else(|| format!("rep_{}", &blake3::hash(&delivery.data).to_hex()[..32]));
    Some(Forwarded { id, url: url.to_string(), body: delivery.data.clone(), tries: *tries })
}

impl Broker {
    /// Opens a consumer of reports to forward, with at most `at_once` unacknowledged.
    pub fn forwards(&self, at_once: u16) -> Forwards {
        Forwards(QueueConsumer::new(self, FORWARDS, at_once))
    }

    /// Queues a report to forward, immediately or after a delay.
    ///
    /// Once it returns, the broker has the report.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn forward(&self, report: &Forwarded, wait: Option<Duration>) -> Result<(), QueueError> {
        let mut headers = FieldTable::default();
        headers.insert(URL.into(), AMQPValue::LongString(report.url.as_str().into()));
        headers.insert(TRIES.into(), AMQPValue::LongUInt(report.tries));
        let exchange = wait.map_or_else(|| BATCHES.into(), delay);
        let properties = json_properties().with_headers(headers).with_message_id(report.id.as_str().into());
        self.publish_job(&exchange, FORWARDS_KEY, report.body.clone(), properties).await
    }
}
