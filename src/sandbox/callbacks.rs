//! Sends reports on messages as the providers do: late, out of order, repeated, lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::api::{Api, Event, Subject};

/// Capacity of the report queue; a sender waits when it is full.
const WAITING: usize = 10_000;
/// Maximum number of messages with outstanding reports. Beyond it the sandbox responds slowly, so that messages are
/// sent no faster than reports are received, and after a while it drops reports.
const CHANNEL_CAPACITY: usize = 50_000;
/// Maximum time that a response waits for capacity; it is shorter than a request's timeout.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of messages of a request.
const BATCH: u32 = 100;
/// Number of concurrent reports.
const CONCURRENCY: usize = 128;
/// Number of attempts for a report, and the delay between them.
const MAX_ATTEMPTS: u32 = 5;
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How the sandbox sends reports. Shares are from 0 to 1.
#[derive(Clone, Debug, Default)]
pub struct Reporting {
    /// The URL for reports on messages without a callback address.
    pub url: Option<String>,
    /// The URL for replies: the webhook of the sender number (document 004).
    pub number_url: Option<String>,
    /// Maximum delay of a report.
    pub delay: Duration,
    /// Share of messages whose reports come out of order.
    pub shuffle: f64,
    /// Share of reports that are sent twice.
    pub repeat: f64,
    /// Share of reports that are never sent.
    pub lose: f64,
    /// Share of messages that are not delivered.
    pub fail: f64,
    /// Share of delivered messages that are read.
    pub read: f64,
    /// Share of read messages that get a reply.
    pub reply: f64,
}

#[derive(Clone)]
pub(super) struct Callbacks {
    queue: mpsc::Sender<(String, Value)>,
    room: Arc<Semaphore>,
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
        for _ in 0..CONCURRENCY {
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
        Ok(Self { queue, room: Arc::new(Semaphore::new(CHANNEL_CAPACITY)), counts })
    }

    /// Waits for a limited time until there is capacity for the reports of a request.
    pub(super) async fn make_room(&self) {
        let _ = tokio::time::timeout(SEND_TIMEOUT, self.room.acquire_many(BATCH)).await;
    }

    /// Schedules the reports on a message; `chance` returns a number from 0 to 1 for each key.
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
        // Shuffling changes the order of reports, not the times in them.
        let planned = |(event, nth): (Event, u8)| {
            let at = start + how.delay.mul_f64(f64::from(nth) / count);
            let word = |what: &str| format!("{what}{event:?}");
            (event, at, chance(&word("lose")) < how.lose, chance(&word("repeat")) < how.repeat)
        };
        let mut plan: Vec<_> = events.into_iter().zip(1..).map(planned).collect();
        if chance("shuffle") < how.shuffle {
            plan.reverse();
        }
        let (queue, counts) = (self.queue.clone(), self.counts.clone());
        let number_url = how.number_url.clone();
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            counts.lost.fetch_add(plan.len() as u64, Ordering::Relaxed);
            return;
        };
        let step = how.delay / u32::try_from(plan.len()).unwrap_or(1).max(1);
        tokio::spawn(async move {
            let _room = room;
            for (event, at, is_lost, is_repeated) in plan {
                tokio::time::sleep(step).await;
                if is_lost {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let body = A::report(event, &of, at);
                let url = number_url.as_ref().filter(|_| event == Event::Replied).unwrap_or(&of.url);
                for _ in 0..=u8::from(is_repeated) {
                    if queue.send((url.clone(), body.clone())).await.is_err() {
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

/// Posts a report until it is received, with a limited number of attempts, as the providers do.
async fn post(client: &reqwest::Client, url: &str, body: String) -> bool {
    for _ in 0..MAX_ATTEMPTS {
        let sent =
            client.post(url).header("content-type", "application/json").body(body.clone()).send().await;
        if sent.is_ok_and(|response| response.status().is_success()) {
            return true;
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::exotel::Exotel;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_number_of_messages_that_wait_for_reports_is_bounded() {
        let callbacks = Callbacks::start().unwrap();
        callbacks.make_room().await;
        let how = Reporting { delay: Duration::from_hours(1), ..Reporting::default() };
        let of = |nth: usize| Subject {
            url: "http://127.0.0.1:9".into(),
            sid: nth.to_string(),
            to: "+919876543210".into(),
            from: None,
            reference: None,
            flow_token: None,
        };
        for nth in 0..CHANNEL_CAPACITY + 3 {
            callbacks.report::<Exotel>(&how, of(nth), |_| 1.0);
        }
        // Two reports, sent and delivered, for each of three messages.
        assert_eq!(callbacks.stats()["lost"], 6);
        let start = tokio::time::Instant::now();
        callbacks.make_room().await;
        assert_eq!(start.elapsed(), SEND_TIMEOUT, "an answer waits, and not for ever");
    }
}
