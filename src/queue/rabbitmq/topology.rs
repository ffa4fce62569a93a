//! What there is on the broker: its exchanges and queues, their names and arguments.
//!
//! Declared at each connection; what is there already stays as it is, and what is there with other
//! arguments is an error that says how to mend it.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::super::QueueError;
use crate::campaign::CampaignId;

/// Jobs come to this exchange, or straight to the queue of the same name.
pub(super) const JOBS: &str = "flowcast.jobs";
/// Jobs and controls that wait for their turn behind those that are read ahead of others.
pub(super) const WAITING: &str = "flowcast.jobs.waiting";
/// Their key among the batches, which is no campaign's id: what is put off comes back to them.
pub(super) const WAITING_KEY: &str = ":jobs";
/// The routing key of a job.
const JOB: &str = "job";
/// Jobs that can't be read or are refused.
pub(super) const DEAD: &str = "flowcast.dead";
/// What comes back from a delay goes through this exchange to its queue: a campaign's, that of
/// reports that are handed on, or that of jobs which wait.
pub(super) const BATCHES: &str = "flowcast.batches";
/// What was delayed for a campaign that has ended meanwhile comes here, and goes at once. Without it
/// the delay queue would try again for ever.
pub(super) const ENDED: &str = "flowcast.ended";
/// The queue of it. A quorum queue as all of them: one that lives on one node can't be declared while that
/// node is away, and no worker could connect to the others. (The queue `flowcast.ended` of earlier
/// versions is such a one, and no longer used.)
const ENDED_QUEUE: &str = "flowcast.ended.batches";
/// Reports that are handed on to jobs' own addresses, and their key among the batches, which is no
/// campaign's id.
pub(super) const FORWARDS: &str = "flowcast.forwards";
pub(super) const FORWARDS_KEY: &str = ":forwards";
/// Results.
pub(super) const EVENTS: &str = "flowcast.events";
/// The steps of the delay ladder, in seconds.
pub(super) const DELAYS: [u32; 7] = [1, 5, 15, 60, 300, 900, 3600];
/// Of a batch that was delivered so often, something else is wrong. Workers that restart must never
/// use it up, and without a limit the broker's own would (20, since RabbitMQ 4.0).
const DELIVERIES: i32 = 1_000_000;

/// A campaign's queue.
pub(super) fn queue(campaign: &CampaignId) -> String {
    format!("{BATCHES}.{campaign}")
}

/// The exchange, and queue, of a delay: the longest step that is not longer than the wait.
pub(super) fn delay(wait: Duration) -> String {
    let seconds = wait.as_secs();
    let step = DELAYS.iter().rev().find(|step| u64::from(**step) <= seconds).unwrap_or(&DELAYS[0]);
    delay_of(*step)
}

fn delay_of(seconds: u32) -> String {
    format!("flowcast.delay.{seconds}")
}

/// A table of arguments.
fn table<const N: usize>(arguments: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(name.into(), value);
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// A queue from which nothing goes because it was delivered often.
fn lasting() -> FieldTable {
    table([("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongInt(DELIVERIES))])
}

/// Declares all that is there once.
pub(super) async fn declare(channel: &Channel) -> Result<(), QueueError> {
    // No more arguments than this: upstream systems may declare the queue themselves.
    declare_queue(channel, JOBS, table([("x-queue-type", text("quorum"))])).await?;
    declare_queue(channel, WAITING, lasting()).await?;
    declare_queue(channel, DEAD, table([("x-queue-type", text("quorum"))])).await?;
    declare_exchange(channel, JOBS, ExchangeKind::Direct, FieldTable::default()).await?;
    bind(channel, JOBS, JOBS, JOB).await?;
    declare_exchange(channel, EVENTS, ExchangeKind::Topic, FieldTable::default()).await?;
    declare_exchange(channel, ENDED, ExchangeKind::Fanout, FieldTable::default()).await?;
    let arguments = table([("x-queue-type", text("quorum")), ("x-message-ttl", AMQPValue::LongInt(0))]);
    declare_queue(channel, ENDED_QUEUE, arguments).await?;
    bind(channel, ENDED_QUEUE, ENDED, "").await?;
    declare_exchange(channel, BATCHES, ExchangeKind::Direct, table([("alternate-exchange", text(ENDED))]))
        .await?;
    bind(channel, WAITING, BATCHES, WAITING_KEY).await?;
    declare_queue(channel, FORWARDS, lasting()).await?;
    bind(channel, FORWARDS, BATCHES, FORWARDS_KEY).await?;
    for step in DELAYS {
        let name = delay_of(step);
        let arguments = table([
            ("x-queue-type", text("quorum")),
            ("x-message-ttl", AMQPValue::LongLongInt(i64::from(step) * 1000)),
            ("x-dead-letter-exchange", text(BATCHES)),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ]);
        declare_queue(channel, &name, arguments).await?;
        declare_exchange(channel, &name, ExchangeKind::Fanout, FieldTable::default()).await?;
        bind(channel, &name, &name, "").await?;
    }
    Ok(())
}

/// Declares a campaign's queue.
pub(super) async fn declare_campaign(channel: &Channel, campaign: &CampaignId) -> Result<(), QueueError> {
    let name = queue(campaign);
    declare_queue(channel, &name, lasting()).await?;
    bind(channel, &name, BATCHES, campaign.as_str()).await
}

/// The queues that are declared once.
fn queues() -> impl Iterator<Item = String> {
    [JOBS, WAITING, DEAD, ENDED_QUEUE, FORWARDS]
        .map(String::from)
        .into_iter()
        .chain(DELAYS.into_iter().map(delay_of))
}

/// The exchanges that are declared once.
fn exchanges() -> impl Iterator<Item = String> {
    [JOBS, EVENTS, ENDED, BATCHES].map(String::from).into_iter().chain(DELAYS.into_iter().map(delay_of))
}

/// What [`declare`] would have to make: queues and exchanges that are not there.
pub(super) async fn missing(connection: &Connection) -> Result<Missing, QueueError> {
    let failed = |fault: lapin::Error| super::broker::failed(&fault);
    let mut missing = Missing { names: Vec::new(), is_all: true };
    for (is_queue, name) in queues().map(|name| (true, name)).chain(exchanges().map(|name| (false, name))) {
        // RabbitMQ closes the channel over one that is not there.
        let channel = connection.create_channel().await.map_err(failed)?;
        let (short, none) = (name.as_str().into(), FieldTable::default());
        let declared = if is_queue {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            channel.queue_declare(short, options, none).await.map(drop)
        } else {
            let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(short, ExchangeKind::Direct, options, none).await
        };
        match declared {
            Err(fault) if is_not_found(&fault) => {
                missing.names.push(format!("{} {name}", if is_queue { "queue" } else { "exchange" }));
            }
            // Whatever else is wrong with it, it is there.
            _ => {
                missing.is_all = false;
                let _ = channel.close(200, "done".into()).await;
            }
        }
    }
    Ok(missing)
}

/// Queues and exchanges that are not on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Their kinds and names.
    pub names: Vec<String>,
    /// Whether none at all is there, as before the first connection.
    pub is_all: bool,
}

fn is_not_found(fault: &lapin::Error) -> bool {
    matches!(fault.kind(), ErrorKind::ProtocolError(amqp) if amqp.get_id() == 404)
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), QueueError> {
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await;
    declared.map(drop).map_err(|fault| refused("queue", name, &fault))
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), QueueError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, arguments).await;
    declared.map_err(|fault| refused("exchange", name, &fault))
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), QueueError> {
    let options = QueueBindOptions::default();
    let bound =
        channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await;
    bound.map_err(|fault| refused("queue", queue, &fault))
}

/// What stands in the way of a declaration, and how to mend it.
fn refused(what: &str, name: &str, fault: &lapin::Error) -> QueueError {
    let ErrorKind::ProtocolError(amqp) = fault.kind() else { return QueueError::Failed(format!("{fault}")) };
    let text = amqp.get_message();
    match amqp.get_id() {
        406 => QueueError::Refused(format!(
            "{what} {name} exists with other arguments ({text}); when it is empty, delete it \
             (rabbitmqctl delete_queue {name}, or the management page) and start again"
        )),
        403 => QueueError::Refused(format!(
            "{what} {name} may not be declared ({text}); give the user configure, write and read on flowcast.*"
        )),
        _ => QueueError::Failed(format!("{what} {name} can't be declared: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_never_longer_than_asked_but_for_the_shortest() {
        let step = |seconds| delay(Duration::from_secs(seconds));
        assert_eq!(
            [step(0), step(4), step(5), step(59), step(400), step(1_000_000)],
            ["1", "1", "5", "15", "300", "3600"].map(|step| format!("flowcast.delay.{step}"))
        );
    }
}
