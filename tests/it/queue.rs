//! What every queue keeps to. A new backend is one more call of `queue_suite!`.

use std::time::Duration;

use flowcast::campaign::Batch;
use flowcast::queue::{Local, Queue, QueuedBatch};
use tokio::time::timeout;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
/// How many batches a queue of this suite holds.
const CAPACITY: usize = 4;

fn batch(number: u32) -> QueuedBatch {
    let mut batch = Batch::new("c1".parse().unwrap(), number, 1, false);
    batch.push(1, "+919876543210".parse().unwrap(), ["Asha"].into_iter());
    batch.push(2, "+919876543211".parse().unwrap(), ["Bo"].into_iter());
    QueuedBatch::new(batch)
}

async fn next<Q: Queue>(queue: &Q) -> (QueuedBatch, Q::Receipt) {
    timeout(LONG, queue.next()).await.expect("no batch came").unwrap()
}

async fn batches_come_whole_and_in_order(queue: impl Queue) {
    for number in 0..3 {
        queue.publish(batch(number)).await.unwrap();
    }
    for number in 0..3 {
        let (got, receipt) = next(&queue).await;
        assert_eq!(got, batch(number));
        queue.acknowledge(receipt).await.unwrap();
    }
}

async fn an_acknowledged_batch_is_gone(queue: impl Queue) {
    queue.publish(batch(0)).await.unwrap();
    let (_, receipt) = next(&queue).await;
    queue.acknowledge(receipt).await.unwrap();
    queue.publish(batch(1)).await.unwrap();
    assert_eq!(next(&queue).await.0.batch.number, 1);
}

async fn a_batch_whose_taker_is_gone_comes_back(queue: impl Queue) {
    queue.publish(batch(7)).await.unwrap();
    let (_, receipt) = next(&queue).await;
    drop(receipt);
    assert_eq!(next(&queue).await.0, batch(7));
}

async fn a_batch_has_one_taker_at_a_time(queue: impl Queue) {
    queue.publish(batch(0)).await.unwrap();
    let (_, _receipt) = next(&queue).await;
    let other = queue.clone();
    let second = tokio::spawn(async move { next(&other).await.0.batch.number });
    queue.publish(batch(1)).await.unwrap();
    assert_eq!(second.await.unwrap(), 1);
}

async fn a_delayed_batch_comes_back_later_as_it_was_changed(queue: impl Queue) {
    queue.publish(batch(0)).await.unwrap();
    let (mut taken, receipt) = next(&queue).await;
    (taken.left, taken.attempt) = (vec![1], 3);
    let start = std::time::Instant::now();
    queue.delay(receipt, taken.clone(), Duration::from_millis(300)).await.unwrap();
    queue.publish(batch(1)).await.unwrap();
    let (first, receipt) = next(&queue).await;
    assert_eq!(first.batch.number, 1, "a delayed batch must hold nobody up");
    queue.acknowledge(receipt).await.unwrap();
    assert_eq!(next(&queue).await.0, taken);
    assert!(start.elapsed() >= Duration::from_millis(299));
}

async fn a_full_queue_makes_the_planner_wait(queue: impl Queue) {
    for number in 0..u32::try_from(CAPACITY).unwrap() {
        queue.publish(batch(number)).await.unwrap();
    }
    let mut waiting = std::pin::pin!(queue.publish(batch(99)));
    assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    let (_, receipt) = next(&queue).await;
    queue.acknowledge(receipt).await.unwrap();
    timeout(LONG, waiting).await.expect("there is a place again").unwrap();
}

async fn many_takers_get_every_batch_once(queue: impl Queue) {
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                loop {
                    let (got, receipt) = next(&queue).await;
                    queue.acknowledge(receipt).await.unwrap();
                    if got.batch.number == u32::MAX {
                        return numbers;
                    }
                    numbers.push(got.batch.number);
                }
            })
        })
        .collect();
    for number in (0..500).chain([u32::MAX; 8]) {
        timeout(LONG, queue.publish(batch(number))).await.expect("the queue stands still").unwrap();
    }
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
}

macro_rules! queue_suite {
    ($backend:ident, $open:expr, [$($test:ident),+ $(,)?]) => {
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

queue_suite!(
    local,
    Local::new(CAPACITY),
    [
        batches_come_whole_and_in_order,
        an_acknowledged_batch_is_gone,
        a_batch_whose_taker_is_gone_comes_back,
        a_batch_has_one_taker_at_a_time,
        a_delayed_batch_comes_back_later_as_it_was_changed,
        a_full_queue_makes_the_planner_wait,
        many_takers_get_every_batch_once,
    ]
);
