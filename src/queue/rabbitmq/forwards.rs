//! Reports on their way to the addresses that jobs name. They wait on the broker, so that a worker that
//! dies loses none of them; one may be handed on twice.

use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, message::Delivery};

use super::super::QueueError;
use super::broker::{Broker, answered, json_properties};
use super::consuming::{Consuming, Out};
use super::topology::{BATCHES, FORWARDS, FORWARDS_KEY, delay};

/// The headers of a report.
const URL: &str = "flowcast-status-callback";
const TRIES: &str = "flowcast-tries";

/// A report that is handed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The same at each try.
    pub id: String,
    /// Where to.
    pub url: String,
    /// The body, as the provider sent it.
    pub body: Vec<u8>,
    /// How often it was tried.
    pub tries: u32,
}

/// A report that was taken to be handed on. Whatever is dropped comes again.
pub struct Forwarding {
    /// The report.
    pub report: Forwarded,
    acker: Acker,
    _out: Out,
}

impl Forwarding {
    /// It is done with, one way or the other.
    pub async fn done(self) {
        // On a connection that is gone it comes again.
        let _ = answered(self.acker.ack(BasicAckOptions::default())).await;
    }

    /// It comes again at once.
    pub async fn give_back(self) {
        let _ = answered(self.acker.nack(BasicNackOptions { requeue: true, multiple: false })).await;
    }
}

/// The consumer of reports that are handed on.
pub struct Forwards(Consuming);

impl Forwards {
    /// The next report. Waits as long as there is none, or no broker.
    ///
    /// # Errors
    ///
    /// When the broker refuses for good.
    pub async fn next(&mut self) -> Result<Forwarding, QueueError> {
        loop {
            let (delivery, out) = self.0.next().await?;
            if let Some(report) = read(&delivery) {
                return Ok(Forwarding { report, acker: delivery.acker, _out: out });
            }
            tracing::warn!("a message in {FORWARDS} names no address, and goes nowhere");
            let _ = answered(delivery.acker.ack(BasicAckOptions::default())).await;
        }
    }
}

fn read(delivery: &Delivery) -> Option<Forwarded> {
    let headers = delivery.properties.headers().as_ref()?.inner();
    let AMQPValue::LongString(url) = headers.get(URL)? else { return None };
    let AMQPValue::LongUInt(tries) = headers.get(TRIES)? else { return None };
    // One that an earlier version has put there has no id; what is in it is the same at each try.
    let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
    let id = id.unwrap_or_else(|| format!("rep_{}", &blake3::hash(&delivery.data).to_hex()[..32]));
    Some(Forwarded { id, url: url.to_string(), body: delivery.data.clone(), tries: *tries })
}

impl Broker {
    /// Takes reports that are handed on, so many at once.
    pub fn forwards(&self, at_once: u16) -> Forwards {
        Forwards(Consuming::new(self, FORWARDS, at_once))
    }

    /// Has a report handed on, at once or after a wait. When it returns, the broker has it.
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
        self.put(&exchange, FORWARDS_KEY, report.body.clone(), properties).await
    }
}
