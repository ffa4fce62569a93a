//! What one writes in Rust without any safety: lapin, reqwest, redis, serde_json. See ../README.md.

use std::borrow::Cow;
use std::env::{args, var};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

type Fault = Box<dyn std::error::Error + Send + Sync>;

const CONCURRENCY: usize = 64;
const QUEUE: &str = "peer.batches";

#[derive(Serialize, Deserialize)]
struct Batch {
    number: u64,
    rows: Vec<[String; 3]>,
}

#[derive(Serialize)]
struct Body<'a> {
    whatsapp: Messages<'a>,
}

#[derive(Serialize)]
struct Messages<'a> {
    messages: Vec<Message<'a>>,
}

#[derive(Serialize)]
struct Message<'a> {
    from: &'a str,
    to: &'a str,
    content: Content<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    r#type: &'a str,
    interactive: Interactive<'a>,
}

#[derive(Serialize)]
struct Interactive<'a> {
    r#type: &'a str,
    header: Header<'a>,
    body: Text<'a>,
    footer: Text<'a>,
    action: Action<'a>,
}

#[derive(Serialize)]
struct Header<'a> {
    r#type: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct Text<'a> {
    text: Cow<'a, str>,
}

#[derive(Serialize)]
struct Action<'a> {
    name: &'a str,
    parameters: Parameters<'a>,
}

#[derive(Serialize)]
struct Parameters<'a> {
    flow_message_version: &'a str,
    flow_id: &'a str,
    flow_token: &'a str,
    flow_cta: &'a str,
    flow_action: &'a str,
    flow_action_payload: Payload<'a>,
}

#[derive(Serialize)]
struct Payload<'a> {
    screen: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    customer_name: &'a str,
    clinic: &'a str,
    slots: [&'a str; 4],
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    response: Response<'a>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    whatsapp: Entries<'a>,
}

#[derive(Deserialize)]
struct Entries<'a> {
    #[serde(borrow)]
    messages: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    code: u64,
    #[serde(borrow)]
    data: Option<Accepted<'a>>,
}

#[derive(Deserialize)]
struct Accepted<'a> {
    sid: &'a str,
}

fn message([to, name, clinic]: &[String; 3]) -> Message<'_> {
    let text = format!(
        "Dear {name}, it is time for your check-up at {clinic}. Choose a day and an hour that suit you; it takes a minute."
    );
    Message {
        from: "+912248931479",
        to,
        content: Content {
            r#type: "interactive",
            interactive: Interactive {
                r#type: "flow",
                header: Header { r#type: "text", text: "Your autumn check-up" },
                body: Text { text: text.into() },
                footer: Text { text: "Reply STOP to hear no more from us".into() },
                action: Action {
                    name: "flow",
                    parameters: Parameters {
                        flow_message_version: "3",
                        flow_id: "1323000000000001",
                        flow_token: to,
                        flow_cta: "Book now",
                        flow_action: "navigate",
                        flow_action_payload: Payload {
                            screen: "APPOINTMENT",
                            data: Data {
                                customer_name: name,
                                clinic,
                                slots: ["09:00", "11:30", "15:00", "17:30"],
                            },
                        },
                    },
                },
            },
        },
    }
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let path = args().nth(1).ok_or("an audience's path is missing")?;
    let store = redis::Client::open(var("REDIS_URL")?)?.get_multiplexed_async_connection().await?;
    let connection = Connection::connect(&var("AMQP_URL")?, ConnectionProperties::default()).await?;
    let publishing = connection.create_channel().await?;
    publishing.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    publishing.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await?;
    let consuming = connection.create_channel().await?;
    consuming.basic_qos(2 * CONCURRENCY as u16, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        consuming.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?;

    let (settled, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let done = Arc::new(Notify::new());
    let at_once = Arc::new(Semaphore::new(CONCURRENCY));
    let (http, sink) = (reqwest::Client::new(), var("SINK_URL")?);
    {
        let (settled, total, done) = (settled.clone(), total.clone(), done.clone());
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let Ok(permit) = at_once.clone().acquire_owned().await else { return };
                let (settled, total, done) = (settled.clone(), total.clone(), done.clone());
                let (http, sink, store) = (http.clone(), sink.clone(), store.clone());
                tokio::spawn(async move {
                    let sent = async {
                        let batch: Batch = serde_json::from_slice(&delivery.data)?;
                        let count = send(&http, &sink, store, &batch).await?;
                        delivery.acker.ack(BasicAckOptions::default()).await?;
                        Ok::<u64, Fault>(count)
                    };
                    match sent.await {
                        Ok(count) => {
                            if settled.fetch_add(count, Ordering::SeqCst) + count
                                >= total.load(Ordering::SeqCst)
                            {
                                done.notify_one();
                            }
                        }
                        Err(error) => eprintln!("{error}"),
                    }
                    drop(permit);
                });
            }
        });
    }

    let mut count = 0;
    let (mut rows, mut number, mut confirms) = (Vec::new(), 0, Vec::new());
    for row in csv::Reader::from_path(path)?.into_deserialize::<[String; 3]>() {
        rows.push(row?);
        count += 1;
        if rows.len() == 100 {
            confirms.push(publish(&publishing, number, std::mem::take(&mut rows)).await?);
            number += 1;
            if confirms.len() == 64 {
                for confirm in confirms.drain(..) {
                    confirm.await?;
                }
            }
        }
    }
    if !rows.is_empty() {
        confirms.push(publish(&publishing, number, rows).await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    total.store(count, Ordering::SeqCst);
    while settled.load(Ordering::SeqCst) < count {
        done.notified().await;
    }
    publishing.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    Ok(())
}

async fn publish(
    channel: &Channel,
    number: u64,
    rows: Vec<[String; 3]>,
) -> Result<lapin::PublisherConfirm, Fault> {
    let body = serde_json::to_vec(&Batch { number, rows })?;
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    Ok(channel.basic_publish("".into(), QUEUE.into(), options, &body, properties).await?)
}

/// Sends a batch and records what became of its messages. Returns how many they are.
async fn send(
    http: &reqwest::Client,
    sink: &str,
    mut store: redis::aio::MultiplexedConnection,
    batch: &Batch,
) -> Result<u64, Fault> {
    let messages = batch.rows.iter().map(message).collect();
    let body = Body { whatsapp: Messages { messages } };
    let answer = http.post(sink).json(&body).send().await?.bytes().await?;
    let answer: Answer = serde_json::from_slice(&answer)?;
    let entries = answer.response.whatsapp.messages;
    let outcomes: Vec<(&str, String)> = batch
        .rows
        .iter()
        .zip(entries)
        .map(|([to, ..], entry)| {
            let outcome = match entry.data {
                Some(Accepted { sid }) if entry.code == 202 => format!("accepted {sid}"),
                _ => format!("rejected {}", entry.code),
            };
            (to.as_str(), outcome)
        })
        .collect();
    let count = batch.rows.len() as u64;
    let () = redis::pipe()
        .hset_multiple(format!("peer:batch:{}", batch.number), &outcomes)
        .ignore()
        .hincr("peer:campaign", "settled", count)
        .ignore()
        .query_async(&mut store)
        .await?;
    Ok(count)
}
