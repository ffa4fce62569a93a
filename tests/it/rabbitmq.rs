//! What holds for RabbitMQ alone: its bad days, its topology, payloads of other versions.

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

/// Far longer than anything here takes.
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
    let (batch, receipt) = timeout(LONG, queue.next()).await.expect("no batch came").unwrap();
    queue.acknowledge(receipt).await.unwrap();
    batch.batch.number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_an_error_that_says_how_to_mend_it() {
    let url = amqp_url();
    let channel = channel(&url).await;
    let declared =
        channel.queue_declare("flowcast.dead".into(), QueueDeclareOptions::durable(), FieldTable::default());
    declared.await.unwrap();
    let error = Broker::connect(&url.as_str().into(), true).await.err().unwrap().to_string();
    assert!(error.contains("flowcast.dead exists with other arguments"), "{error}");
    assert!(error.contains("rabbitmqctl delete_queue flowcast.dead"), "{error}");
    // The worker says the same, and ends.
    let fleet = Fleet::on(World::new(1), &redis_url(), &url, "http://127.0.0.1:1", "");
    assert_eq!(fleet.worker().exit_status().await, Some(1));
    assert!(fleet.log().contains("delete_queue flowcast.dead"), "{}", fleet.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_comes_back_with_what_it_had_and_everything_goes_on() {
    let mut rabbit = RabbitProcess::start();
    let broker = broker(&rabbit.url()).await;
    let queue = RabbitMq::open(&broker, &id(), 1);
    queue.publish((0..3).map(batch).collect()).await.unwrap();
    let (_, receipt) = timeout(LONG, queue.next()).await.unwrap().unwrap();
    rabbit.save_queues();
    rabbit.kill();
    // What is done while it is away is done when it is back.
    let publishing = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.publish(vec![batch(3)]).await })
    };
    queue.acknowledge(receipt).await.unwrap();
    until("the loss to be noticed", || queue.health_error().is_some()).await;
    rabbit.restart();
    timeout(LONG, publishing).await.unwrap().unwrap().unwrap();
    // What could not be acknowledged comes again, what was not confirmed may come twice.
    let mut got = std::collections::BTreeSet::new();
    while got.len() < 4 {
        got.insert(next(&queue).await);
    }
    assert_eq!(queue.health_error(), None);
}

/// Queues that were just made when their node was killed, and the node after its restart. RabbitMQ may know of such a queue and
/// not what is in it: then it never answers again.
async fn just_made() -> (RabbitProcess, Vec<RabbitMq>) {
    let mut rabbit = RabbitProcess::start();
    let broker = broker(&rabbit.url()).await;
    rabbit.save_queues();
    let queues: Vec<RabbitMq> =
        (0..6).map(|nth| RabbitMq::open(&broker, &format!("young-{nth}").parse().unwrap(), 1)).collect();
    let made = queues.iter().enumerate().map(|(nth, queue)| {
        let mut batch = Batch::new(format!("young-{nth}").parse().unwrap(), 0, 1, false);
        batch.push(1, "+919876543210".parse().unwrap(), ["Asha"].into_iter());
        async move { queue.publish(vec![QueuedBatch::new(batch)]).await.unwrap() }
    });
    futures_util::future::join_all(made).await;
    rabbit.kill();
    rabbit.restart();
    (rabbit, queues)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_just_made_when_its_node_was_killed_is_of_use_again() {
    let (_rabbit, queues) = just_made().await;
    for (nth, queue) in queues.iter().enumerate() {
        let taker = queue.clone();
        let taking = tokio::spawn(async move { taker.next().await.unwrap().0.batch.number });
        let mut batch = Batch::new(format!("young-{nth}").parse().unwrap(), 1, 1, false);
        batch.push(1, "+919876543210".parse().unwrap(), ["Asha"].into_iter());
        timeout(LONG, queue.publish(vec![QueuedBatch::new(batch)])).await.expect("not published").unwrap();
        let number = timeout(LONG, taking).await.expect("nothing came").unwrap();
        eprintln!("young-{nth}: batch {number}");
    }
}

/// A campaign that ends has its queue removed, also where that is one of those.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_just_made_when_its_node_was_killed_is_removed() {
    let (rabbit, queues) = just_made().await;
    for queue in &queues {
        let start = std::time::Instant::now();
        // As patiently as a supervisor.
        while let Err(error) = timeout(Duration::from_secs(3), queue.remove())
            .await
            .map_err(|_| "silent")
            .and_then(|done| done.map_err(|_| "failed"))
        {
            eprintln!("{error} after {:?}", start.elapsed());
            assert!(start.elapsed() < LONG, "not removed");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let start = std::time::Instant::now();
    loop {
        let left: Vec<String> = rabbit.queues().into_keys().filter(|name| name.contains("young-")).collect();
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{left:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_short_of_memory_pauses_the_planner_and_the_status_says_so() {
    let rabbit = RabbitProcess::start();
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let limits = "limits = { messages = \"500/s,burst=10\", requests = \"1000/s\" }";
    let fleet = Fleet::on(World::new(50_000), &redis_url(), &rabbit.url(), &url, limits);
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the campaign to be on its way", || sandbox.count() > 100).await;
    rabbit.control(&["set_vm_memory_high_watermark", "0.0000001"]);
    until("the status to say so", || {
        fleet.status("c1")["reason"].as_str().is_some_and(|reason| reason.contains("short of memory or disk"))
    })
    .await;
    rabbit.control(&["set_vm_memory_high_watermark", "0.4"]);
    // Further than what was planned by then.
    let counts = &fleet.status("c1")["counts"];
    let known = counts["total"].as_u64().unwrap();
    until("planning to go on", || fleet.status("c1")["counts"]["total"].as_u64().unwrap() > known + 100)
        .await;
    until("the status to be quiet", || fleet.status("c1")["reason"].is_null()).await;
    fleet.ok(&["cancel", "c1"]).await;
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_back_what_is_held_too_long_makes_nobody_get_it_twice() {
    let rabbit = RabbitProcess::start();
    // As the broker's consumer time-out of half an hour, which is looked at every minute.
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
async fn what_was_delayed_for_a_campaign_that_has_ended_goes_and_is_not_tried_for_ever() {
    let url = amqp_url();
    let broker = broker(&url).await;
    let queue = RabbitMq::open(&broker, &id(), 1);
    queue.publish(vec![batch(0)]).await.unwrap();
    let (taken, receipt) = timeout(LONG, queue.next()).await.unwrap().unwrap();
    queue.delay(receipt, taken, Duration::from_secs(5)).await.unwrap();
    queue.remove().await.unwrap();
    let channel = channel(&url).await;
    let left = async |name: &str| {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        channel.queue_declare(name.into(), passive, FieldTable::default()).await.unwrap().message_count()
    };
    assert_eq!(left("flowcast.delay.5").await, 1);
    let start = std::time::Instant::now();
    // The queue of what has ended drops a message at once, and a busy broker takes its time for that.
    for queue in ["flowcast.delay.5", "flowcast.ended.batches"] {
        while left(queue).await > 0 {
            assert!(start.elapsed() < LONG, "{queue}: it is tried for ever");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_an_older_version_is_understood_and_what_is_none_is_buried() {
    let url = amqp_url();
    let broker = broker(&url).await;
    let queue = RabbitMq::open(&broker, &id(), 1);
    queue.publish(vec![batch(0)]).await.unwrap();
    let channel = channel(&url).await;
    let put = async |payload: &str| {
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
    put("no batch at all").await;
    let other = json!({ "batch": { "version": 1, "campaign": "other", "number": 1, "width": 0, "json": false,
        "rows": [], "ends": [], "text": "" }, "left": [], "attempt": 0 });
    put(&other.to_string()).await;
    // As the first version wrote it.
    put(include_str!("batch_v1.json")).await;
    assert_eq!((next(&queue).await, next(&queue).await), (0, 7));
    let (dead, _) = broker.buried(10).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(dead[0].error.contains("is not a batch"), "{dead:?}");
    assert!(dead[1].error.contains("another campaign"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_its_worker_each_time_is_buried() {
    let url = amqp_url();
    let broker = broker(&url).await;
    broker.submit(b"poison".to_vec()).await.unwrap();
    // Taken and lost, as by workers that end over it.
    for _ in 0..10 {
        let taker = Broker::connect(&url.as_str().into(), true).await.unwrap();
        let mut jobs = taker.arrivals(1);
        let delivery = timeout(LONG, jobs.next()).await.unwrap().unwrap();
        assert!(!delivery.is_malformed());
        taker.close().await;
    }
    let mut jobs = broker.arrivals(1);
    assert!(timeout(LONG, jobs.next()).await.unwrap().unwrap().is_malformed());
}
