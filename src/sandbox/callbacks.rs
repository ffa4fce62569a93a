//! Reports of what became of messages, as the providers send them: late, out of order, repeated, lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::api::{Api, Event, Subject};

/// How many reports may wait; whoever has one more waits.
const WAITING: usize = 10_000;
/// How many are sent at once.
const AT_ONCE: usize = 128;
/// How often a report is sent when its receiver does not take it, and after how long.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(500);

/// How a sandbox reports. Shares are from 0 to 1.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// Where reports go that no message has an address for.
    pub url: Option<String>,
    /// How late they come, at the latest.
    pub delay: Duration,
    /// The share of messages whose reports come out of order.
    pub shuffle: f64,
    /// The share of reports that come twice.
    pub repeat: f64,
    /// The share of reports that never come.
    pub lose: f64,
    /// The share of messages that are not delivered.
    pub fail: f64,
    /// The share of delivered messages that are read.
    pub read: f64,
    /// The share of read messages that are answered.
    pub reply: f64,
}

impl Default for Reporting {
    fn default() -> Self {
        Self {
            url: None,
            delay: Duration::ZERO,
            shuffle: 0.0,
            repeat: 0.0,
            lose: 0.0,
            fail: 0.0,
            read: 0.0,
            reply: 0.0,
        }
    }
}

#[derive(Clone)]
pub(super) struct Callbacks {
    queue: mpsc::Sender<(String, Value)>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
}

impl Callbacks {
    pub(super) fn start() -> Result<Self, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|fault| fault.to_string())?;
        let (queue, receiver) = mpsc::channel::<(String, Value)>(WAITING);
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let counts = Arc::new(Counts::default());
        for _ in 0..AT_ONCE {
            let (client, receiver, counts) = (client.clone(), receiver.clone(), counts.clone());
            tokio::spawn(async move {
                loop {
                    let next = receiver.lock().await.recv().await;
                    let Some((url, report)) = next else { return };
                    let taken = post(&client, &url, report.to_string()).await;
                    let count = if taken { &counts.delivered } else { &counts.failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { queue, counts })
    }

    /// Reports on a message; `chance` says for each word a number from 0 to 1.
    pub(super) fn report<A: Api>(&self, how: &Reporting, of: Subject, chance: impl Fn(&str) -> f64) {
        let mut events = vec![Event::Sent];
        if chance("fail") < how.fail {
            events.push(Event::Failed);
        } else {
            events.push(Event::Delivered);
            if chance("read") < how.read {
                events.push(Event::Read);
                if chance("reply") < how.reply {
                    events.push(Event::Replied);
                }
            }
        }
        let count = events.len() as f64;
        let start = Timestamp::now();
        // What happened when is not changed by when it is chosen.
        let mut chosen: Vec<(Event, Timestamp)> = events
            .into_iter()
            .zip(1_u8..)
            .map(|(event, nth)| {
                let after = how.delay.mul_f64(f64::from(nth) / count);
                (event, start + after)
            })
            .collect();
        if chance("shuffle") < how.shuffle {
            chosen.reverse();
        }
        let (queue, counts) = (self.queue.clone(), self.counts.clone());
        let step = how.delay / u32::try_from(chosen.len()).unwrap_or(1).max(1);
        let plan: Vec<(Value, bool, bool)> = chosen
            .iter()
            .map(|(event, at)| {
                let word = |what: &str| format!("{what}{event:?}");
                let body = A::report(*event, &of, *at);
                (body, chance(&word("lose")) < how.lose, chance(&word("repeat")) < how.repeat)
            })
            .collect();
        tokio::spawn(async move {
            for (body, is_lost, is_repeated) in plan {
                tokio::time::sleep(step).await;
                if is_lost {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                for _ in 0..=u8::from(is_repeated) {
                    if queue.send((of.url.clone(), body.clone())).await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    pub(super) fn stats(&self) -> Value {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "delivered": read(&self.counts.delivered),
            "failed": read(&self.counts.failed),
            "lost": read(&self.counts.lost),
        })
    }
}

/// Posts a report until it is taken, as the providers do for a while.
async fn post(client: &reqwest::Client, url: &str, body: String) -> bool {
    for _ in 0..TRIES {
        let sent =
            client.post(url).header("content-type", "application/json").body(body.clone()).send().await;
        if sent.is_ok_and(|response| response.status().is_success()) {
            return true;
        }
        tokio::time::sleep(AGAIN).await;
    }
    false
}
