//! The exchanges and queues on the broker: names, arguments and declaration.
//!
//! They are declared for each connection. Existing ones stay unchanged; if one has other arguments, the error has a hint.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use crate::campaign::CampaignId;
use crate::queue::QueueError;

/// The exchange of jobs, and their queue.
pub(super) const JOBS: &str = "flowcast.jobs";
/// The queue of the jobs and control documents that were read from [`JOBS`] and wait to be processed in order.
pub(super) const WAITING: &str = "flowcast.jobs.waiting";
/// The routing key of that queue at [`BATCHES`], for postponed jobs; never a campaign's id.
pub(super) const WAITING_KEY: &str = ":jobs";
/// The routing key of a job.
const JOB: &str = "job";
/// The dead-letter queue: jobs that are invalid or refused.
pub(super) const DEAD: &str = "flowcast.dead";
/// The exchange that routes delayed messages to their queue: a campaign's, [`FORWARDS`] or [`WAITING`].
pub(super) const BATCHES: &str = "flowcast.batches";
/// The exchange of delayed messages whose campaign has ended; they expire immediately. Without it the delay queue would retry
/// them forever.
pub(super) const ENDED_EXCHANGE: &str = "flowcast.ended";
/// The queue of that exchange. It is a quorum queue: a queue on a single node cannot be declared while that node is down, and
/// then no worker could connect to the other nodes. (Earlier versions had such a queue, `flowcast.ended`, which is no longer
/// used.)
const ENDED_QUEUE: &str = "flowcast.ended.batches";
/// The queue of the reports to forward, and its routing key at [`BATCHES`]; never a campaign's id.
pub(super) const FORWARDS: &str = "flowcast.forwards";
pub(super) const FORWARDS_KEY: &str = ":forwards";
/// The exchange of events.
pub(super) const EVENTS: &str = "flowcast.events";
/// The delays of the delay queues, in seconds.
pub(super) const DELAYS: [u32; 7] = [1, 5, 15, 60, 300, 900, 3600];
/// The delivery limit. Restarting workers must never reach it, as they would with RabbitMQ's default of 20 (since 4.0).
const DELIVERIES: i32 = 1_000_000;

/// Returns the name of a campaign's queue.
pub(super) fn queue(campaign: &CampaignId) -> String {
    format!("{BATCHES}.{campaign}")
}

/// Returns the exchange of the longest delay up to `wait`, or of the shortest.
pub(super) fn delay(wait: Duration) -> String {
    let seconds = wait.as_secs();
    let step = DELAYS.iter().rev().find(|step| u64::from(**step) <= seconds).unwrap_or(&DELAYS[0]);
    delay_of(*step)
}

fn delay_of(seconds: u32) -> String {
    format!("flowcast.delay.{seconds}")
}

/// Returns a table of arguments.
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

/// Returns the arguments of a queue that never drops a redelivered message.
fn durable_arguments() -> FieldTable {
    table([("x-queue-type", text("quorum")), ("x-delivery-limit", AMQPValue::LongInt(DELIVERIES))])
}

/// Declares everything except the queues of campaigns.
pub(super) async fn declare(channel: &Channel) -> Result<(), QueueError> {
    // No other arguments: upstream systems may declare the queue themselves.
    declare_queue(channel, JOBS, table([("x-queue-type", text("quorum"))])).await?;
    declare_queue(channel, WAITING, durable_arguments()).await?;
    declare_queue(channel, DEAD, table([("x-queue-type", text("quorum"))])).await?;
    declare_exchange(channel, JOBS, ExchangeKind::Direct, FieldTable::default()).await?;
    bind(channel, JOBS, JOBS, JOB).await?;
    declare_exchange(channel, EVENTS, ExchangeKind::Topic, FieldTable::default()).await?;
    declare_exchange(channel, ENDED_EXCHANGE, ExchangeKind::Fanout, FieldTable::default()).await?;
    let arguments = table([("x-queue-type", text("quorum")), ("x-message-ttl", AMQPValue::LongInt(0))]);
    declare_queue(channel, ENDED_QUEUE, arguments).await?;
    bind(channel, ENDED_QUEUE, ENDED_EXCHANGE, "").await?;
    let arguments = table([("alternate-exchange", text(ENDED_EXCHANGE))]);
    declare_exchange(channel, BATCHES, ExchangeKind::Direct, arguments).await?;
    bind(channel, WAITING, BATCHES, WAITING_KEY).await?;
    declare_queue(channel, FORWARDS, durable_arguments()).await?;
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
    declare_queue(channel, &name, durable_arguments()).await?;
    bind(channel, &name, BATCHES, campaign.as_str()).await
}

/// Returns the queues that [`declare`] declares.
fn queues() -> impl Iterator<Item = String> {
    let named = [JOBS, WAITING, DEAD, ENDED_QUEUE, FORWARDS].map(String::from);
    named.into_iter().chain(DELAYS.into_iter().map(delay_of))
}

/// Returns the exchanges that [`declare`] declares.
fn exchanges() -> impl Iterator<Item = String> {
    let named = [JOBS, EVENTS, ENDED_EXCHANGE, BATCHES].map(String::from);
    named.into_iter().chain(DELAYS.into_iter().map(delay_of))
}

/// Returns the queues and exchanges that [`declare`] would create.
pub(super) async fn missing(connection: &Connection) -> Result<Missing, QueueError> {
    let mut missing = Missing { names: Vec::new(), is_all: true };
    for (is_queue, name) in queues().map(|name| (true, name)).chain(exchanges().map(|name| (false, name))) {
        // RabbitMQ closes the channel if it does not exist.
        let channel = connection.create_channel().await?;
        let (short, none) = (name.as_str().into(), FieldTable::default());
        let declared = if is_queue {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            channel.queue_declare(short, options, none).await.map(drop)
        } else {
            let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(short, ExchangeKind::Direct, options, none).await
        };
        match declared {
            Err(error) if is_not_found(&error) => {
                missing.names.push(format!("{} {name}", if is_queue { "queue" } else { "exchange" }));
            }
            // It exists, whatever else is wrong with it.
            _ => {
                missing.is_all = false;
                let _ = channel.close(200, "done".into()).await;
            }
        }
    }
    Ok(missing)
}

/// The queues and exchanges that do not exist on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The kind and the name of each.
    pub names: Vec<String>,
    /// Whether all are missing, as before the first connection.
    pub is_all: bool,
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(amqp) if amqp.get_id() == 404)
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), QueueError> {
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await;
    declared.map(drop).map_err(|error| refused("queue", name, &error))
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), QueueError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, arguments).await;
    declared.map_err(|error| refused("exchange", name, &error))
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), QueueError> {
    let options = QueueBindOptions::default();
    let bound =
        channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await;
    bound.map_err(|error| refused("queue", queue, &error))
}

/// Returns the error of a declaration, with a hint.
fn refused(what: &str, name: &str, error: &lapin::Error) -> QueueError {
    let ErrorKind::ProtocolError(amqp) = error.kind() else { return QueueError::Failed(format!("{error}")) };
    let text = amqp.get_message();
    match amqp.get_id() {
        406 => {
            let how = match what {
                "queue" => format!(
                    "when it is empty, delete it (rabbitmqctl delete_queue {name}, or the management page)"
                ),
                _ => "delete it in the management page".to_owned(),
            };
            QueueError::Refused(format!(
                "{what} {name} exists with other arguments ({text}); {how} and restart"
            ))
        }
        403 => QueueError::Refused(format!(
            "cannot declare {what} {name}: {text}; give the user the permissions configure, write and read on flowcast.*"
        )),
        _ => QueueError::Failed(format!("cannot declare {what} {name}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_never_exceeds_the_wait_except_the_shortest() {
        let step = |seconds| delay(Duration::from_secs(seconds));
        assert_eq!(
            [step(0), step(4), step(5), step(59), step(400), step(1_000_000)],
            ["1", "1", "5", "15", "300", "3600"].map(|step| format!("flowcast.delay.{step}"))
        );
    }
}
