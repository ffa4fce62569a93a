//! Jobs: submitted, taken, and buried where they are refused; and what is told of results.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use super::super::QueueError;
use super::broker::{Broker, Message, Unpublished, answered, failed, json_properties};
use super::consuming::{Consuming, Out};
use super::topology::{DEAD, EVENTS, JOBS, WAITING, WAITING_KEY, delay};
use crate::campaign::text::shortened;
use crate::campaign::{CampaignId, Event};

/// A job that was delivered so often has ended its worker each time.
const DELIVERIES: i64 = 10;
/// The headers of a buried job.
const ERROR: &str = "flowcast-error";
const POINTER: &str = "flowcast-pointer";
/// The headers of what waits for its turn: when it was read from [`JOBS`], in microseconds, and whether it may have been
/// there before.
const READ_AT: &str = "flowcast-read-at";
const AGAIN: &str = "flowcast-again";
/// The headers of a job that was put off: since when, in milliseconds since 1970, and the id that one without an id was given.
const PUT_OFF_AT: &str = "flowcast-put-off-at";
const ID: &str = "flowcast-id";
/// The longest that they are, in bytes: all headers share one frame, which may be as small as 8 KiB.
const LONGEST_ERROR: usize = 2_048;
const LONGEST_POINTER: usize = 256;
/// Dead letters that are dealt with together: their number and their bytes.
const TOGETHER: u16 = 256;
const REQUEUED: usize = 16 << 20;
/// No buried job comes for so long, though some were there: there are no more.
const QUIET: Duration = Duration::from_secs(3);
/// The most bytes of jobs that are looked at together.
const LOOKED_AT: usize = 64 << 20;

/// A job, or a control document, as it was delivered.
pub struct JobDelivery {
    /// Its bytes, whatever they are.
    pub data: Vec<u8>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// When it was read from the queue that it was published to, in microseconds since 1970: of two, the one that was
    /// published first has the lower number.
    pub read_at: Option<i64>,
    /// Where it was put off: when for the first time, and under which id it is registered if it has none.
    pub put_off: Option<PutOff>,
    delivery: Delivery,
    _out: Out,
}

impl JobDelivery {
    pub(super) fn new(mut delivery: Delivery, out: Out) -> Self {
        let data = std::mem::take(&mut delivery.data);
        let headers = delivery.properties.headers().as_ref();
        let header = |name: &str| headers.and_then(|headers| headers.inner().get(name).cloned());
        let redelivered = delivery.redelivered || header(AGAIN) == Some(AMQPValue::Boolean(true));
        let read_at = match header(READ_AT) {
            Some(AMQPValue::LongLongInt(at)) => Some(at),
            _ => None,
        };
        let put_off = match (header(PUT_OFF_AT), header(ID)) {
            (Some(AMQPValue::LongLongInt(since)), Some(AMQPValue::LongString(id))) => {
                let id = std::str::from_utf8(id.as_bytes()).ok().and_then(|id| id.parse().ok());
                id.map(|id| PutOff { since, id })
            }
            _ => None,
        };
        Self { data, redelivered, read_at, put_off, delivery, _out: out }
    }

    /// Whether it was delivered so often that it must be the reason why workers end.
    pub fn is_poison(&self) -> bool {
        let headers = self.delivery.properties.headers().as_ref();
        let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
        matches!(count, Some(AMQPValue::LongLongInt(count)) if *count >= DELIVERIES)
    }

    /// The W3C trace context that whoever published it gave along.
    pub fn traceparent(&self) -> Option<&str> {
        match self.delivery.properties.headers().as_ref()?.inner().get("traceparent")? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            AMQPValue::ShortString(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// It is registered, or done.
    pub async fn acknowledge(self) {
        // On a connection that is gone it comes again, and is known then.
        let _ = answered(self.delivery.acker.ack(BasicAckOptions::default())).await;
    }

    /// It could not be looked at now, and comes again.
    pub async fn give_back(self) {
        let _ = answered(self.delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false })).await;
    }
}

/// What is remembered of a job that was put off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// When it was put off first, in milliseconds since 1970.
    pub since: i64,
    /// Under which id it is registered if it has none: it may be there twice, and is one campaign.
    pub id: CampaignId,
}

/// A job that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Why.
    pub error: String,
    /// Where in it.
    pub pointer: String,
}

impl Buried {
    /// Names it by what is in it: its place in the queue changes.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.error.as_bytes()).update(b"\n").update(&self.data);
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// What to do with buried jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadAction {
    /// Put them back to the jobs.
    Requeue,
    /// Let them go.
    Discard,
}

/// A delivery as it is published again, with what is known of it.
fn again(job: &JobDelivery, exchange: String, key: &str, put_off: Option<&PutOff>) -> Message {
    let kept = job.delivery.properties.headers().clone().unwrap_or_default();
    // What the broker itself writes counts from the beginning again.
    let broker = ["x-delivery-count", "x-death", "x-first-death-", "x-last-death-"];
    let is_own = |name: &str| {
        [READ_AT, AGAIN, PUT_OFF_AT, ID].contains(&name) || broker.iter().any(|own| name.starts_with(own))
    };
    let mut headers = FieldTable::default();
    for (name, value) in kept.inner().iter().filter(|(name, _)| !is_own(name.as_str())) {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(at) = job.read_at {
        headers.insert(READ_AT.into(), AMQPValue::LongLongInt(at));
    }
    if let Some(put_off) = put_off {
        headers.insert(PUT_OFF_AT.into(), AMQPValue::LongLongInt(put_off.since));
        headers.insert(ID.into(), AMQPValue::LongString(put_off.id.as_str().into()));
    }
    headers.insert(AGAIN.into(), AMQPValue::Boolean(job.redelivered));
    Message {
        exchange,
        key: key.into(),
        payload: job.data.clone(),
        properties: job.delivery.properties.clone().with_headers(headers).with_delivery_mode(2),
        mandatory: true,
    }
}

fn message_of(event: &Event, mandatory: bool) -> Message {
    let name = event.name.as_str();
    Message {
        exchange: EVENTS.into(),
        key: name.into(),
        payload: event.body.clone(),
        properties: json_properties().with_type(name.into()).with_message_id(event.id.as_str().into()),
        mandatory,
    }
}

/// The consumer of jobs.
pub struct Jobs(Consuming);

impl Jobs {
    /// The next job. Waits as long as there is none, or no broker.
    ///
    /// # Errors
    ///
    /// When the broker refuses for good.
    pub async fn next(&mut self) -> Result<JobDelivery, QueueError> {
        self.0.next().await.map(|(delivery, out)| JobDelivery::new(delivery, out))
    }
}

impl Broker {
    /// Takes what is published, so many at once at the most: the others are for other workers.
    pub fn arrivals(&self, at_once: u16) -> Jobs {
        Jobs(Consuming::of_jobs(self, JOBS, at_once))
    }

    /// Takes what waits for its turn.
    pub fn jobs(&self, at_once: u16) -> Jobs {
        Jobs(Consuming::new(self, WAITING, at_once))
    }

    /// Puts arrivals behind what waits for its turn, in their order.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it; they come again then.
    pub async fn let_wait(&self, mut arrivals: Vec<JobDelivery>) -> Result<(), QueueError> {
        if arrivals.is_empty() {
            return Ok(());
        }
        self.link().await?;
        // What was delivered on a connection that is gone comes again.
        arrivals.retain(|job| job.delivery.acker.usable());
        if arrivals.is_empty() {
            return Ok(());
        }
        let messages: Vec<Message> =
            arrivals.iter().map(|job| again(job, String::new(), WAITING, job.put_off.as_ref())).collect();
        self.put_all(&messages).await?;
        for job in arrivals {
            job.acknowledge().await;
        }
        Ok(())
    }

    /// Puts a job that can't be taken now behind what waits, about so much later.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it; the job comes again then.
    pub async fn put_off(
        &self,
        job: JobDelivery,
        wait: Duration,
        put_off: &PutOff,
    ) -> Result<(), QueueError> {
        self.put_all(&[again(&job, delay(wait), WAITING_KEY, Some(put_off))]).await?;
        job.acknowledge().await;
        Ok(())
    }

    /// Puts a job or a control document on the queue.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn submit(&self, document: Vec<u8>) -> Result<(), QueueError> {
        self.put("", JOBS, document, json_properties()).await
    }

    pub(super) async fn put(
        &self,
        exchange: &str,
        key: &str,
        payload: Vec<u8>,
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        let message = Message {
            exchange: exchange.into(),
            key: key.into(),
            payload,
            properties,
            // Nobody need listen to events; a job that goes nowhere is lost.
            mandatory: exchange != EVENTS,
        };
        self.put_all(&[message]).await
    }

    /// Puts messages where they go to. A queue that somebody has deleted is declared again.
    async fn put_all(&self, messages: &[Message]) -> Result<(), QueueError> {
        match self.publish(messages).await {
            Err(Unpublished::Nowhere) => {
                let key = messages.first().map_or("", |message| &message.key);
                tracing::warn!(
                    "nothing on RabbitMQ takes {key}: its queue was deleted; it is declared again"
                );
                self.declare_all().await?;
            }
            Ok(()) => return Ok(()),
            Err(Unpublished::Failed(fault)) => return Err(fault),
        }
        match self.publish(messages).await {
            Ok(()) => Ok(()),
            Err(Unpublished::Nowhere) => {
                let key = messages.first().map_or("", |message| &message.key);
                Err(QueueError::Failed(format!("{key} is gone")))
            }
            Err(Unpublished::Failed(fault)) => Err(fault),
        }
    }

    /// Tells others of something that the ledger has.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn publish_events(&self, events: &[Event]) -> Result<(), QueueError> {
        let messages: Vec<Message> = events.iter().map(|event| message_of(event, false)).collect();
        match self.publish(&messages).await {
            Ok(()) | Err(Unpublished::Nowhere) => Ok(()),
            Err(Unpublished::Failed(fault)) => Err(fault),
        }
    }

    /// The same of one event. Returns whether a queue is bound to such.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn publish_if_heard(&self, event: &Event) -> Result<bool, QueueError> {
        match self.publish(&[message_of(event, true)]).await {
            Ok(()) => Ok(true),
            Err(Unpublished::Nowhere) => Ok(false),
            Err(Unpublished::Failed(fault)) => Err(fault),
        }
    }

    /// Buries a job that is refused: whole, with the reason and where in it, each cut to what fits into a header.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it; the job comes again then.
    pub async fn bury(&self, job: JobDelivery, error: &str, pointer: &str) -> Result<(), QueueError> {
        let mut headers = FieldTable::default();
        headers.insert(ERROR.into(), AMQPValue::LongString((*shortened(error, LONGEST_ERROR)).into()));
        headers.insert(POINTER.into(), AMQPValue::LongString((*shortened(pointer, LONGEST_POINTER)).into()));
        let mut properties = job.delivery.properties.clone().with_headers(headers).with_delivery_mode(2);
        if properties.content_type().is_none() {
            properties = properties.with_content_type("application/octet-stream".into());
        }
        self.put("", DEAD, job.data.clone(), properties).await?;
        job.acknowledge().await;
        Ok(())
    }

    /// The buried jobs, the oldest first, and how many more there are: at most `most`, and some 64 MiB. They stay
    /// where they are.
    ///
    /// # Errors
    ///
    /// When the broker is away.
    pub async fn buried(&self, most: usize) -> Result<(Vec<Buried>, u32), QueueError> {
        let channel = self.channel().await?;
        let mut all = Vec::new();
        let (mut more, mut bytes) = (0, 0);
        while all.len() < most && bytes < LOOKED_AT {
            let got = channel.basic_get(DEAD.into(), BasicGetOptions::default()).await;
            let Some(message) = got.map_err(|fault| failed(&fault))? else { break };
            more = message.message_count;
            bytes += message.delivery.data.len();
            all.push(read(&message.delivery));
        }
        // Closed, the channel gives all of them back.
        let _ = channel.close(200, "done".into()).await;
        Ok((all, more))
    }

    /// Requeues or discards all buried jobs that there are now, many at a time; returns how many.
    ///
    /// # Errors
    ///
    /// When the broker is away. What was requeued by then may be there twice; a job is registered once.
    pub async fn unbury_all(&self, what: DeadAction) -> Result<u64, QueueError> {
        let all = self.waiting(DEAD).await?;
        let channel = self.channel().await?;
        let asking = async {
            channel.basic_qos(TOGETHER, BasicQosOptions::default()).await?;
            channel
                .basic_consume(DEAD.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
                .await
        };
        let mut consumer = answered(asking).await?.map_err(|fault| failed(&fault))?;
        let mut done = 0;
        while done < all {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while some.len() < usize::from(TOGETHER) && done + (some.len() as u64) < all && bytes < REQUEUED {
                // Somebody else may hold the rest, or have taken it.
                let Ok(Some(next)) = tokio::time::timeout(QUIET, consumer.next()).await else { break };
                let delivery = next.map_err(|fault| failed(&fault))?;
                bytes += delivery.data.len();
                some.push(delivery);
            }
            let Some(last) = some.last() else { break };
            if what == DeadAction::Requeue {
                let message = |delivery: &Delivery| Message {
                    exchange: String::new(),
                    key: JOBS.into(),
                    payload: delivery.data.clone(),
                    properties: json_properties(),
                    mandatory: true,
                };
                self.put_all(&some.iter().map(message).collect::<Vec<_>>()).await?;
            }
            let all_of_them = BasicAckOptions { multiple: true };
            last.acker.ack(all_of_them).await.map_err(|fault| failed(&fault))?;
            done += some.len() as u64;
        }
        let _ = channel.close(200, "done".into()).await;
        Ok(done)
    }

    /// Requeues or discards those buried jobs that `wanted` names; returns how many.
    ///
    /// # Errors
    ///
    /// When the broker is away. What was requeued by then may be there twice; a job is registered once.
    pub async fn unbury(
        &self,
        what: DeadAction,
        wanted: impl Fn(usize, &Buried) -> bool,
    ) -> Result<u64, QueueError> {
        let channel = self.channel().await?;
        let mut done = 0;
        for nth in 1.. {
            let got = channel.basic_get(DEAD.into(), BasicGetOptions::default()).await;
            let Some(message) = got.map_err(|fault| failed(&fault))? else { break };
            let buried = read(&message.delivery);
            if !wanted(nth, &buried) {
                continue;
            }
            if what == DeadAction::Requeue {
                self.submit(buried.data).await?;
            }
            message.delivery.acker.ack(BasicAckOptions::default()).await.map_err(|fault| failed(&fault))?;
            done += 1;
        }
        let _ = channel.close(200, "done".into()).await;
        Ok(done)
    }
}

fn read(delivery: &Delivery) -> Buried {
    let header = |name: &str| {
        let value = delivery.properties.headers().as_ref()?.inner().get(name)?;
        match value {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    };
    Buried {
        data: delivery.data.clone(),
        error: header(ERROR).unwrap_or_default(),
        pointer: header(POINTER).unwrap_or_default(),
    }
}
