//! What handing a report on keeps to, wherever it waits: on the broker, or in memory.

use flowcast::forward::Forward;
use flowcast::queue::rabbitmq::Broker;

use crate::fleet::until;
use crate::servers::{RabbitProcess, amqp_url, broker};
use crate::support::{Reaction, Scripted};

const TAKEN: Reaction = Reaction::Answer(200, "", String::new());

fn start(broker: Option<&Broker>) -> Forward {
    Forward::start(broker, None, true, []).unwrap()
}

async fn send(forward: &Forward, url: &str, nth: usize) {
    forward.send(format!("rep_{nth}"), url.into(), format!("{{\"nth\":{nth}}}").into_bytes()).await.unwrap();
}

async fn a_report_is_tried_again_until_it_is_taken(broker: Option<Broker>) {
    let receiver =
        Scripted::start(|nth, _| if nth < 2 { Reaction::Answer(503, "", String::new()) } else { TAKEN })
            .await;
    send(&start(broker.as_ref()), &receiver.url, 1).await;
    until("the third try", || receiver.raw().len() == 3).await;
    assert!(receiver.raw().iter().all(|(_, body)| body == "{\"nth\":1}"));
}

async fn a_report_that_is_refused_is_not_tried_again(broker: Option<Broker>) {
    let receiver = Scripted::start(|nth, _| {
        let status = [400, 404, 410].get(nth).copied().unwrap_or(503);
        Reaction::Answer(status, "", String::new())
    })
    .await;
    let forward = start(broker.as_ref());
    for nth in 0..3 {
        send(&forward, &receiver.url, nth).await;
        until("the refusal", || receiver.raw().len() == nth + 1).await;
    }
    // What comes later is tried twice while nothing more comes of these.
    send(&forward, &receiver.url, 3).await;
    until("the second try", || receiver.raw().len() == 5).await;
    assert!(receiver.raw()[3..].iter().all(|(_, body)| body == "{\"nth\":3}"));
}

async fn a_host_that_does_not_answer_holds_up_nobody_else(broker: Option<Broker>) {
    let silent = Scripted::start(|_, _| Reaction::Hang).await;
    let other = Scripted::start(|_, _| TAKEN).await;
    let forward = start(broker.as_ref());
    for nth in 0..100 {
        send(&forward, &silent.url, nth).await;
    }
    send(&forward, &other.url.replace("127.0.0.1", "localhost"), 100).await;
    until("the other's report", || other.raw().len() == 1).await;
    // As many as are on their way at once; the rest did not wait for its silence, too.
    assert!(silent.raw().len() <= 64, "{}", silent.raw().len());
}

macro_rules! forward_suite {
    ($($test:ident)+) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(None).await;
                }
            )+
        }
        mod rabbitmq {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(Some(super::broker(&super::amqp_url()).await)).await;
                }
            )+
        }
    };
}

forward_suite!(
    a_report_is_tried_again_until_it_is_taken
    a_report_that_is_refused_is_not_tried_again
    a_host_that_does_not_answer_holds_up_nobody_else
);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_keeps_what_it_has_and_takes_nothing_meanwhile() {
    let receiver =
        Scripted::start(|nth, _| if nth == 0 { Reaction::Answer(503, "", String::new()) } else { TAKEN })
            .await;
    let mut rabbit = RabbitProcess::start();
    let forward = start(Some(&broker(&rabbit.url()).await));
    rabbit.save_queues();
    send(&forward, &receiver.url, 1).await;
    until("the first try", || receiver.raw().len() == 1).await;
    rabbit.kill();
    // The provider is to come again.
    assert!(forward.send("rep_2".into(), receiver.url.clone(), b"{}".to_vec()).await.is_err());
    rabbit.restart();
    until("the second try", || receiver.raw().len() > 1).await;
    assert_eq!(receiver.raw()[1].1, "{\"nth\":1}");
    send(&forward, &receiver.url, 2).await;
    until("the next", || receiver.raw().iter().any(|(_, body)| body == "{\"nth\":2}")).await;
}
