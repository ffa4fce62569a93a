//! The contract of forwarding reports, which wait on the broker or in memory.

use flowcast::forward::Forward;
use flowcast::queue::rabbitmq::Broker;

use crate::fleet::until;
use crate::servers::{RabbitProcess, amqp_url, broker};
use crate::support::{Reaction, Scripted};

const OK: Reaction = Reaction::Answer(200, "", String::new());

fn start(broker: Option<&Broker>) -> Forward {
    Forward::start(broker, None, true, []).unwrap()
}

async fn send(forward: &Forward, url: &str, nth: usize) {
    forward.send(format!("rep_{nth}"), url.into(), format!("{{\"nth\":{nth}}}").into_bytes()).await.unwrap();
}

async fn a_report_is_retried_until_it_is_accepted(broker: Option<Broker>) {
    let receiver =
        Scripted::start(|nth, _| if nth < 2 { Reaction::Answer(503, "", String::new()) } else { OK }).await;
    send(&start(broker.as_ref()), &receiver.url, 1).await;
    until("the third attempt", || receiver.raw().len() == 3).await;
    assert!(receiver.raw().iter().all(|(_, body)| body == "{\"nth\":1}"));
}

async fn a_refused_report_is_not_retried(broker: Option<Broker>) {
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
    // A later report is retried, and the refused ones are not.
    send(&forward, &receiver.url, 3).await;
    until("the second attempt", || receiver.raw().len() == 5).await;
    assert!(receiver.raw()[3..].iter().all(|(_, body)| body == "{\"nth\":3}"));
}

async fn an_unresponsive_host_delays_no_other_host(broker: Option<Broker>) {
    let silent = Scripted::start(|_, _| Reaction::Hang).await;
    let other = Scripted::start(|_, _| OK).await;
    let forward = start(broker.as_ref());
    for nth in 0..100 {
        send(&forward, &silent.url, nth).await;
    }
    send(&forward, &other.url.replace("127.0.0.1", "localhost"), 100).await;
    until("the report to the other host", || other.raw().len() == 1).await;
    // At most 64 reports are in flight to the silent host; the other report did not wait for them.
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
    a_report_is_retried_until_it_is_accepted
    a_refused_report_is_not_retried
    an_unresponsive_host_delays_no_other_host
);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_keeps_its_reports_and_accepts_none_while_it_is_down() {
    let receiver =
        Scripted::start(|nth, _| if nth == 0 { Reaction::Answer(503, "", String::new()) } else { OK }).await;
    let mut rabbit = RabbitProcess::start();
    let forward = start(Some(&broker(&rabbit.url()).await));
    rabbit.save_queues();
    send(&forward, &receiver.url, 1).await;
    until("the first attempt", || receiver.raw().len() == 1).await;
    rabbit.kill();
    // The error makes the provider retry.
    assert!(forward.send("rep_2".into(), receiver.url.clone(), b"{}".to_vec()).await.is_err());
    rabbit.restart();
    until("the second attempt", || receiver.raw().len() > 1).await;
    assert_eq!(receiver.raw()[1].1, "{\"nth\":1}");
    send(&forward, &receiver.url, 2).await;
    until("the next report", || receiver.raw().iter().any(|(_, body)| body == "{\"nth\":2}")).await;
}
