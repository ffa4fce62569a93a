//! Tests of every queue backend. A new backend is one more call of `queue_suite!`.

use std::time::Duration;

use flowcast::campaign::Batch;
use flowcast::campaign::CampaignId;
use flowcast::queue::{Local, Queue, QueuedBatch, RabbitMq};
use tokio::time::timeout;

use crate::servers::{amqp_url, broker};

/// Timeout of every wait.
const LONG: Duration = Duration::from_secs(20);

fn batch(number: u32) -> QueuedBatch {
    let mut batch = Batch::new("c1".parse().unwrap(), number, 1, false);
    batch.push(1, "+919876543210".parse().unwrap(), ["Asha"].into_iter());
    batch.push(2, "+919876543211".parse().unwrap(), ["Bo"].into_iter());
    QueuedBatch::new(batch)
}

async fn next<Q: Queue>(queue: &Q) -> (QueuedBatch, Q::Receipt) {
    timeout(LONG, queue.next()).await.expect("a batch must arrive").unwrap()
}

async fn batches_arrive_complete_and_in_order(queue: impl Queue) {
    for number in 0..3 {
        queue.publish(vec![batch(number)]).await.unwrap();
    }
    for number in 0..3 {
        let (delivered, receipt) = next(&queue).await;
        assert_eq!(delivered, batch(number));
        queue.acknowledge(receipt).await.unwrap();
    }
}

async fn an_acknowledged_batch_is_not_redelivered(queue: impl Queue) {
    queue.publish(vec![batch(0)]).await.unwrap();
    let (_, receipt) = next(&queue).await;
    queue.acknowledge(receipt).await.unwrap();
    queue.publish(vec![batch(1)]).await.unwrap();
    assert_eq!(next(&queue).await.0.batch.number, 1);
}

async fn a_batch_whose_receipt_is_dropped_is_redelivered(queue: impl Queue) {
    queue.publish(vec![batch(7)]).await.unwrap();
    let (_, receipt) = next(&queue).await;
    drop(receipt);
    assert_eq!(next(&queue).await.0, batch(7));
}

async fn a_batch_has_one_consumer_at_a_time(queue: impl Queue) {
    queue.publish(vec![batch(0)]).await.unwrap();
    let (_, _receipt) = next(&queue).await;
    let other = queue.clone();
    let second = tokio::spawn(async move { next(&other).await.0.batch.number });
    queue.publish(vec![batch(1)]).await.unwrap();
    assert_eq!(second.await.unwrap(), 1);
}

async fn a_delayed_batch_is_redelivered_later_with_its_changes(queue: impl Queue) {
    queue.publish(vec![batch(0)]).await.unwrap();
    let (mut changed, receipt) = next(&queue).await;
    (changed.left, changed.attempt) = (vec![1], 3);
    let start = std::time::Instant::now();
    queue.delay(receipt, changed.clone(), Duration::from_millis(300)).await.unwrap();
    queue.publish(vec![batch(1)]).await.unwrap();
    let (first, receipt) = next(&queue).await;
    assert_eq!(first.batch.number, 1, "a delayed batch must not delay others");
    queue.acknowledge(receipt).await.unwrap();
    assert_eq!(next(&queue).await.0, changed);
    assert!(start.elapsed() >= Duration::from_millis(299));
}

async fn waiting_and_held_batches_are_counted(queue: impl Queue) {
    assert_eq!((queue.waiting().await.unwrap(), queue.held()), (0, 0));
    queue.publish((0..30).map(batch).collect()).await.unwrap();
    let (first, receipt) = next(&queue).await;
    assert_eq!(queue.held(), 1);
    // Prefetched batches are not counted as waiting.
    assert!((1..30).contains(&queue.waiting().await.unwrap()));
    queue.delay(receipt, first, Duration::from_secs(2)).await.unwrap();
    assert_eq!(queue.held(), 1, "a delayed batch is still held");
    let (_, receipt) = next(&queue).await;
    drop(receipt);
    queue.close().await;
    assert_eq!(queue.held(), 1);
    queue.remove().await.unwrap();
    assert_eq!(queue.waiting().await.unwrap(), 0);
    assert_eq!(queue.health_error(), None);
}

async fn many_consumers_get_every_batch_once(queue: impl Queue) {
    let consumers: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                loop {
                    let (delivered, receipt) = next(&queue).await;
                    queue.acknowledge(receipt).await.unwrap();
                    if delivered.batch.number == u32::MAX {
                        return numbers;
                    }
                    numbers.push(delivered.batch.number);
                }
            })
        })
        .collect();
    for number in (0..500).chain([u32::MAX; 8]) {
        timeout(LONG, queue.publish(vec![batch(number)])).await.expect("publishing must not block").unwrap();
    }
    let mut all = Vec::new();
    for consumer in consumers {
        all.extend(consumer.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
}

/// Generates the tests of a queue backend.
macro_rules! queue_suite {
    ($backend:ident, $open:expr) => {
        queue_suite! { $backend, $open,
            batches_arrive_complete_and_in_order
            an_acknowledged_batch_is_not_redelivered
            a_batch_whose_receipt_is_dropped_is_redelivered
            a_batch_has_one_consumer_at_a_time
            a_delayed_batch_is_redelivered_later_with_its_changes
            waiting_and_held_batches_are_counted
            many_consumers_get_every_batch_once
        }
    };
    ($backend:ident, $open:expr, $($test:ident)+) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($open).await;
                }
            )+
        }
    };
}

fn c1() -> CampaignId {
    "c1".parse().unwrap()
}

queue_suite!(local, Local::open(&(), &c1(), 4));
queue_suite!(rabbitmq, RabbitMq::open(&broker(&amqp_url()).await, &c1(), 4));
