//! Tests of RabbitMQ only: failures, topology, payloads of other versions.

use std::time::Duration;

use flowcast::campaign::{Batch, CampaignId};
use flowcast::queue::rabbitmq::Broker;
use flowcast::queue::{Queue, QueuedBatch, RabbitMq};
use flowcast::sandbox::Behaviour;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;
use tokio::time::timeout;

use crate::fleet::{Fleet, until};
use crate::servers::{RabbitProcess, amqp_url, broker, redis_url};
use crate::support::{World, sandbox};

/// Timeout of every wait.
const LONG: Duration = Duration::from_mins(2);

fn id() -> CampaignId {
    "c1".parse().unwrap()
}

fn batch(number: u32) -> QueuedBatch {
    let mut batch = Batch::new(id(), number, 1, false);
    batch.push(1, "+919876543210".parse().unwrap(), ["Asha"].into_iter());
    QueuedBatch::new(batch)
}

pub async fn channel(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

async fn next(queue: &RabbitMq) -> u32 {
    let (batch, receipt) = timeout(LONG, queue.next()).await.expect("a batch must arrive").unwrap();
    queue.acknowledge(receipt).await.unwrap();
    batch.batch.number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_an_error_with_the_command_that_fixes_it() {
    let url = amqp_url();
    let channel = channel(&url).await;
    let declared =
        channel.queue_declare("flowcast.dead".into(), QueueDeclareOptions::durable(), FieldTable::default());
    declared.await.unwrap();
    let error = Broker::connect(&url.as_str().into(), true).await.err().unwrap().to_string();
    assert!(error.contains("flowcast.dead exists with other arguments"), "{error}");
    assert!(error.contains("rabbitmqctl delete_queue flowcast.dead"), "{error}");
    // A worker logs the same error and exits.
    let fleet = Fleet::on(World::new(1), &redis_url(), &url, "http://127.0.0.1:1", "");
    assert_eq!(fleet.worker().exit_status().await, Some(1));
    assert!(fleet.log().contains("delete_queue flowcast.dead"), "{}", fleet.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_keeps_its_batches_and_clients_reconnect() {
    let mut rabbit = RabbitProcess::start();
    let broker = broker(&rabbit.url()).await;
    let queue = RabbitMq::open(&broker, &id(), 1);
    queue.publish((0..3).map(batch).collect()).await.unwrap();
    let (_, receipt) = timeout(LONG, queue.next()).await.unwrap().unwrap();
    rabbit.save_queues();
    rabbit.kill();
    // Operations during the outage complete after it.
    let publishing = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.publish(vec![batch(3)]).await })
    };
    queue.acknowledge(receipt).await.unwrap();
    until("the loss to be noticed", || queue.health_error().is_some()).await;
    rabbit.restart();
    timeout(LONG, publishing).await.unwrap().unwrap().unwrap();
    // A batch whose acknowledgement was lost is redelivered, and one without a confirmation may arrive twice.
    let mut delivered = std::collections::BTreeSet::new();
    while delivered.len() < 4 {
        delivered.insert(next(&queue).await);
    }
    assert_eq!(queue.health_error(), None);
}

/// Creates queues just before their node is killed, and restarts the node.
///
/// RabbitMQ may know such a queue without its contents. The queue then never responds again.
async fn queues_created_before_a_kill() -> (RabbitProcess, Vec<RabbitMq>) {
    let mut rabbit = RabbitProcess::start();
    let broker = broker(&rabbit.url()).await;
    rabbit.save_queues();
    let queues: Vec<RabbitMq> =
        (0..6).map(|nth| RabbitMq::open(&broker, &format!("young-{nth}").parse().unwrap(), 1)).collect();
    let published = queues.iter().enumerate().map(|(nth, queue)| {
        let mut batch = Batch::new(format!("young-{nth}").parse().unwrap(), 0, 1, false);
        batch.push(1, "+919876543210".parse().unwrap(), ["Asha"].into_iter());
        async move { queue.publish(vec![QueuedBatch::new(batch)]).await.unwrap() }
    });
    futures_util::future::join_all(published).await;
    rabbit.kill();
    rabbit.restart();
    (rabbit, queues)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_created_just_before_its_node_was_killed_works_again() {
    let (_rabbit, queues) = queues_created_before_a_kill().await;
    for (nth, queue) in queues.iter().enumerate() {
        let consumer = queue.clone();
        let consuming = tokio::spawn(async move { consumer.next().await.unwrap().0.batch.number });
        let mut batch = Batch::new(format!("young-{nth}").parse().unwrap(), 1, 1, false);
        batch.push(1, "+919876543210".parse().unwrap(), ["Asha"].into_iter());
        timeout(LONG, queue.publish(vec![QueuedBatch::new(batch)]))
            .await
            .expect("the batch must be published")
            .unwrap();
        let number = timeout(LONG, consuming).await.expect("a batch must arrive").unwrap();
        eprintln!("young-{nth}: batch {number}");
    }
}

/// The queue of a campaign that ends must be removed, also in this state.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_created_just_before_its_node_was_killed_can_be_removed() {
    let (rabbit, queues) = queues_created_before_a_kill().await;
    for queue in &queues {
        let start = std::time::Instant::now();
        // With the timeout and the retries of a supervisor.
        while let Err(error) = timeout(Duration::from_secs(3), queue.remove())
            .await
            .map_err(|_| "timeout")
            .and_then(|done| done.map_err(|_| "error"))
        {
            eprintln!("{error} after {:?}", start.elapsed());
            assert!(start.elapsed() < LONG, "the queue must be removed");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let start = std::time::Instant::now();
    loop {
        let remaining: Vec<String> =
            rabbit.queues().into_keys().filter(|name| name.contains("young-")).collect();
        if remaining.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{remaining:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_short_of_memory_pauses_the_planner_and_is_shown_in_the_status() {
    let rabbit = RabbitProcess::start();
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let limits = "limits = { messages = \"500/s,burst=10\", requests = \"1000/s\" }";
    let fleet = Fleet::on(World::new(50_000), &redis_url(), &rabbit.url(), &url, limits);
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 100).await;
    rabbit.control(&["set_vm_memory_high_watermark", "0.0000001"]);
    until("the status to name the broker", || {
        fleet.status("c1")["reason"].as_str().is_some_and(|reason| reason.contains("short of memory or disk"))
    })
    .await;
    rabbit.control(&["set_vm_memory_high_watermark", "0.4"]);
    // More than the messages that were already planned.
    let counts = &fleet.status("c1")["counts"];
    let planned = counts["total"].as_u64().unwrap();
    until("planning to continue", || fleet.status("c1")["counts"]["total"].as_u64().unwrap() > planned + 100)
        .await;
    until("the reason to be cleared", || fleet.status("c1")["reason"].is_null()).await;
    fleet.ok(&["cancel", "c1"]).await;
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_timeout_of_the_broker_causes_no_second_message() {
    let rabbit = RabbitProcess::start();
    // By default the timeout is half an hour and is checked every minute.
    rabbit.control(&["eval", "application:set_env(rabbit, consumer_timeout, 1000)."]);
    rabbit.control(&["eval", "application:set_env(rabbit, channel_tick_interval, 200)."]);
    let (sandbox, url) = sandbox(Behaviour { latency: Duration::from_secs(3), ..Behaviour::default() }).await;
    let account = "concurrency = 4\nlimits = { messages = \"1000/s\", requests = \"1000/s\" }";
    let fleet = Fleet::on(World::new(1_200), &redis_url(), &rabbit.url(), &url, account);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert!(fleet.log().contains("PRECONDITION_FAILED"), "{}", fleet.log());
    assert_eq!(sandbox.stats()["sent_twice"], 0);
    assert_eq!(status["counts"]["accepted"], status["counts"]["total"], "{status}");
    assert_eq!(sandbox.count(), status["counts"]["accepted"].as_u64().unwrap(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_batch_of_an_ended_campaign_is_dropped() {
    let url = amqp_url();
    let broker = broker(&url).await;
    let queue = RabbitMq::open(&broker, &id(), 1);
    queue.publish(vec![batch(0)]).await.unwrap();
    let (delivered, receipt) = timeout(LONG, queue.next()).await.unwrap().unwrap();
    queue.delay(receipt, delivered, Duration::from_secs(5)).await.unwrap();
    queue.remove().await.unwrap();
    let channel = channel(&url).await;
    let message_count = async |name: &str| {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        channel.queue_declare(name.into(), passive, FieldTable::default()).await.unwrap().message_count()
    };
    assert_eq!(message_count("flowcast.delay.5").await, 1);
    let start = std::time::Instant::now();
    // The queue for ended campaigns drops a message at once, but a busy broker may do so later.
    for queue in ["flowcast.delay.5", "flowcast.ended.batches"] {
        while message_count(queue).await > 0 {
            assert!(start.elapsed() < LONG, "{queue}: the batch must be dropped");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_an_earlier_version_is_read_and_an_invalid_one_is_dead_lettered() {
    let url = amqp_url();
    let broker = broker(&url).await;
    let queue = RabbitMq::open(&broker, &id(), 1);
    queue.publish(vec![batch(0)]).await.unwrap();
    let channel = channel(&url).await;
    let publish = async |payload: &str| {
        let options = BasicPublishOptions::default();
        let published = channel.basic_publish(
            "".into(),
            "flowcast.batches.c1".into(),
            options,
            payload.as_bytes(),
            BasicProperties::default(),
        );
        published.await.unwrap();
    };
    publish("no batch at all").await;
    let other = json!({ "batch": { "version": 1, "campaign": "other", "number": 1, "width": 0, "json": false,
        "rows": [], "ends": [], "text": "" }, "left": [], "attempt": 0 });
    publish(&other.to_string()).await;
    // A batch that the first version wrote.
    publish(include_str!("batch_v1.json")).await;
    assert_eq!((next(&queue).await, next(&queue).await), (0, 7));
    let (dead, _) = broker.buried(10).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(dead[0].error.contains("is not a batch"), "{dead:?}");
    assert!(dead[1].error.contains("another campaign"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_keeps_killing_its_worker_counts_as_malformed() {
    let url = amqp_url();
    let broker = broker(&url).await;
    broker.submit(b"poison".to_vec()).await.unwrap();
    // Delivered and lost, as by workers that the job kills.
    for _ in 0..10 {
        let consumer = Broker::connect(&url.as_str().into(), true).await.unwrap();
        let mut jobs = consumer.arrivals(1);
        let delivery = timeout(LONG, jobs.next()).await.unwrap().unwrap();
        assert!(!delivery.is_malformed());
        consumer.close().await;
    }
    let mut jobs = broker.arrivals(1);
    assert!(timeout(LONG, jobs.next()).await.unwrap().unwrap().is_malformed());
}
