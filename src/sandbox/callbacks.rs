//! Delivery reports to each message's `status_callback`, as document 001 shows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How many reports may wait; beyond that they are lost, as a provider loses some.
const WAITING: usize = 100_000;
/// How many are sent at once.
const AT_ONCE: usize = 8;

/// The reports of a message that goes well (document 001's table).
const REPORTS: [(u32, &str, &str); 2] = [
    (30001, "EX_MESSAGE_SENT", "The message has been sent to the user"),
    (30002, "EX_MESSAGE_DELIVERED", "The message has been successfully delivered to the user"),
];

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
                    let sent = client
                        .post(url)
                        .header("content-type", "application/json")
                        .body(report.to_string())
                        .send()
                        .await;
                    let count = match sent {
                        Ok(response) if response.status().is_success() => &counts.delivered,
                        _ => &counts.failed,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { queue, counts })
    }

    /// Reports that a message was sent and delivered.
    pub(super) fn report(&self, url: &str, sid: &str, to: &str, custom_data: Option<&str>) {
        for (code, status, description) in REPORTS {
            let report = json!({ "whatsapp": { "messages": [{
                "callback_type": "dlr", "sid": sid, "to": to, "exo_status_code": code,
                "exo_detailed_status": status, "description": description,
                "timestamp": Timestamp::now().to_string(), "custom_data": custom_data,
            }] } });
            if self.queue.try_send((url.into(), report)).is_err() {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
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
