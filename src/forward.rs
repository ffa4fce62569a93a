//! Forwards reports to the URLs that jobs name, as the provider sent them, and events to the configured webhooks.
//!
//! Requests are signed and retried, and never go to a private address that a job names (`egress.rs`). Reports wait on the
//! broker, so a worker that dies loses none. Without a broker they wait in memory, which is bounded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use parking_lot::Mutex;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use url::Url;

use crate::backoff::spread;
use crate::campaign::text::hex;
use crate::egress::EgressPolicy;
use crate::queue::{Forwarded, QueueError, rabbitmq::Broker};

/// Maximum of concurrent requests.
const CONCURRENCY: u16 = 64;
/// Timeout for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Delays before retries, in seconds. On the broker they are those of its delay queues; in memory they get jitter.
const RETRY_DELAYS: [u64; 6] = [1, 5, 15, 60, 300, 900];
/// Time for which a host that did not answer gets no requests, so that it does not delay those to others.
const HOST_RETRY_DELAY: Duration = Duration::from_secs(10);
/// Maximum of hosts that are remembered for that.
const MAX_HOSTS: usize = 1000;
/// Timeout for the broker to confirm a report. A provider waits for 10 s.
const KEEP: Duration = Duration::from_secs(5);
/// Maximum of reports in memory, in KiB.
const CHANNEL_CAPACITY_KIB: usize = 64 * 1024;
/// Header with the signature `t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY`. It stays for existing receivers.
const SIGNATURE: &str = "flowcast-signature";
/// Headers of Standard Webhooks: id, time, and the signature `v1,BASE64`, HMAC-SHA256 of `ID.SECONDS.BODY`.
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const STANDARD_SIGNATURE: &str = "webhook-signature";
/// Prefix of a key of Standard Webhooks; the rest is BASE64.
const STANDARD_KEY: &str = "whsec_";

/// Forwarder of reports and events. Clones share its queue.
#[derive(Clone)]
pub struct Forward(Waiting);

/// Place where reports wait.
#[derive(Clone)]
enum Waiting {
    Broker(Broker),
    Memory { queue: mpsc::UnboundedSender<Held>, room: Arc<Semaphore>, waiting: Arc<AtomicUsize> },
}

/// Report in memory, and its share of the maximum.
struct Held {
    report: Forwarded,
    _room: OwnedSemaphorePermit,
    /// Number of reports in memory.
    waiting: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sender of requests.
struct Sender {
    client: reqwest::Client,
    keys: Option<Keys>,
    outside: EgressPolicy,
    /// URLs of the configuration, and a client for any address.
    webhooks: (HashSet<String>, reqwest::Client),
    /// Hosts that get no requests, and until when.
    resting: Mutex<HashMap<String, Instant>>,
    /// Hosts whose last request failed.
    failing: Mutex<HashSet<String>>,
}

impl Forward {
    /// Starts forwarding from the broker, or from memory; `key` signs the requests.
    ///
    /// `allow_private` allows jobs to name private addresses; `webhooks` may have any address.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up, or the key is invalid.
    pub fn start(
        broker: Option<&Broker>,
        key: Option<&SecretString>,
        allow_private: bool,
        webhooks: impl IntoIterator<Item = Url>,
    ) -> Result<Self, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let outside = EgressPolicy { allow_private };
        let client = |egress: EgressPolicy| {
            reqwest::Client::builder()
                .user_agent(concat!("flowcast/", env!("CARGO_PKG_VERSION")))
                .timeout(TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Arc::new(egress))
                .build()
                .map_err(|error| format!("cannot set up HTTP: {error}"))
        };
        let webhooks = webhooks.into_iter().map(|url| url.to_string()).collect();
        let webhooks = (webhooks, client(EgressPolicy { allow_private: true })?);
        let client = client(outside)?;
        let keys = key.map(|key| Keys::new(key.expose_secret())).transpose()?;
        let sender = Arc::new(Sender {
            client,
            keys,
            outside,
            webhooks,
            resting: Mutex::default(),
            failing: Mutex::default(),
        });
        if let Some(broker) = broker {
            tokio::spawn(from_broker(sender, broker.clone()));
            return Ok(Self(Waiting::Broker(broker.clone())));
        }
        let (queue, receiver) = mpsc::unbounded_channel();
        tokio::spawn(from_memory(sender, queue.clone(), receiver));
        let (room, waiting) = (Arc::new(Semaphore::new(CHANNEL_CAPACITY_KIB)), Arc::default());
        Ok(Self(Waiting::Memory { queue, room, waiting }))
    }

    /// Returns the number of reports in memory, which are lost with this process.
    pub fn waiting(&self) -> usize {
        match &self.0 {
            Waiting::Broker(_) => 0,
            Waiting::Memory { waiting, .. } => waiting.load(Ordering::Relaxed),
        }
    }

    /// Queues a body to forward; once it returns, the broker has it.
    ///
    /// A body that is queued again has the same `id`.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn send(&self, id: String, url: String, body: Vec<u8>) -> Result<(), QueueError> {
        let report = Forwarded { id, url, body, tries: 0 };
        match &self.0 {
            Waiting::Broker(broker) => {
                let kept = tokio::time::timeout(KEEP, broker.forward(&report, None)).await;
                kept.unwrap_or_else(|_| {
                    Err(QueueError::Failed("does not confirm a report to forward".into()))
                })
            }
            Waiting::Memory { queue, room, waiting } => {
                let size = u32::try_from(report.body.len() / 1024 + 1).unwrap_or(u32::MAX);
                match room.clone().try_acquire_many_owned(size) {
                    Ok(room) => {
                        waiting.fetch_add(1, Ordering::Relaxed);
                        drop(queue.send(Held { report, _room: room, waiting: waiting.clone() }));
                    }
                    Err(_) => count("dropped"),
                }
                Ok(())
            }
        }
    }
}

async fn from_broker(sender: Arc<Sender>, broker: Broker) {
    let mut forwards = broker.forwards(CONCURRENCY);
    loop {
        let mut forwarding = match forwards.next().await {
            Ok(forwarding) => forwarding,
            Err(error) => {
                tracing::error!(%error, "cannot forward reports");
                tokio::time::sleep(spread(HOST_RETRY_DELAY)).await;
                continue;
            }
        };
        let (sender, broker) = (sender.clone(), broker.clone());
        tokio::spawn(async move {
            if let Some(wait) = sender.forward(&mut forwarding.report).await
                && broker.forward(&forwarding.report, Some(wait)).await.is_err()
            {
                return forwarding.give_back().await;
            }
            // Acknowledged only after the broker has confirmed its next attempt.
            forwarding.done().await;
        });
    }
}

async fn from_memory(
    sender: Arc<Sender>,
    queue: mpsc::UnboundedSender<Held>,
    mut receiver: mpsc::UnboundedReceiver<Held>,
) {
    let places = Arc::new(Semaphore::new(CONCURRENCY.into()));
    while let Some(mut held) = receiver.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (sender, queue) = (sender.clone(), queue.clone());
        tokio::spawn(async move {
            let wait = sender.forward(&mut held.report).await;
            // Others are sent while this one waits.
            drop(place);
            if let Some(wait) = wait {
                tokio::time::sleep(spread(wait)).await;
                let _ = queue.send(held);
            }
        });
    }
}

fn count(result: &'static str) {
    metrics::counter!("flowcast_forwards_total", "result" => result).increment(1);
}

impl Sender {
    /// Sends a report; returns the delay before a retry, if one is needed.
    async fn forward(&self, report: &mut Forwarded) -> Option<Duration> {
        let (known, anywhere) = &self.webhooks;
        let admitted = if known.contains(&report.url) {
            report.url.parse().ok().map(|url| (url, anywhere))
        } else {
            self.outside.admitted(&report.url).map(|url| (url, &self.client))
        };
        let Some((url, client)) = admitted else {
            tracing::warn!("status_callback is not a public address; report not forwarded");
            count("rejected");
            return None;
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let error = if self.resting.lock().get(&host).is_some_and(|until| *until > Instant::now()) {
            "did not answer recently".into()
        } else {
            match self.post(client, url, report).await {
                Ok(200..=299) => {
                    if self.failing.lock().remove(&host) {
                        tracing::info!(host, "forwarding works again");
                    }
                    count("accepted");
                    return None;
                }
                // The receiver refuses it permanently.
                Ok(status @ 400..=499) if status != 408 && status != 429 => {
                    tracing::debug!(host, status, "report refused");
                    count("rejected");
                    return None;
                }
                Ok(status) => format!("HTTP {status}"),
                Err(error) => {
                    if error.is_timeout() {
                        self.pause_host(host.clone());
                    }
                    error.without_url().to_string()
                }
            }
        };
        if self.fails(&host) {
            tracing::warn!(host, error = %error, "cannot forward to a receiver; retrying for 21 minutes");
        }
        let wait = RETRY_DELAYS.get(report.tries as usize).copied().map(Duration::from_secs);
        if wait.is_none() {
            tracing::warn!(host, error = %error, "report lost: the last attempt to forward it failed");
            count("dropped");
        }
        report.tries += 1;
        wait
    }

    /// Marks a host as failing; returns whether it was not failing before.
    fn fails(&self, host: &str) -> bool {
        let mut failing = self.failing.lock();
        if failing.len() >= MAX_HOSTS {
            failing.clear();
        }
        failing.insert(host.to_owned())
    }

    fn pause_host(&self, host: String) {
        let mut resting = self.resting.lock();
        if resting.len() >= MAX_HOSTS {
            resting.clear();
        }
        resting.insert(host, Instant::now() + HOST_RETRY_DELAY);
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        url: Url,
        report: &Forwarded,
    ) -> Result<u16, reqwest::Error> {
        let seconds = jiff::Timestamp::now().as_second();
        let mut request = client
            .post(url)
            .header("content-type", "application/json")
            .header(ID, &report.id)
            .header(TIMESTAMP, seconds);
        if let Some(keys) = &self.keys {
            request = request
                .header(SIGNATURE, keys.signature(seconds, &report.body))
                .header(STANDARD_SIGNATURE, keys.standard_signature(&report.id, seconds, &report.body));
        }
        Ok(request.body(report.body.clone()).send().await?.status().as_u16())
    }
}

/// Key, in the form that each signature uses.
struct Keys {
    /// Key of the first signature: the text.
    plain: hmac::Key,
    /// Key of the other: the decoded bytes of a `whsec_` key, else the text.
    standard: hmac::Key,
}

impl Keys {
    fn new(key: &str) -> Result<Self, String> {
        let hmac = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let standard = match key.strip_prefix(STANDARD_KEY) {
            Some(bytes) => {
                let bytes = BASE64_STANDARD.decode(bytes).ok().filter(|bytes| !bytes.is_empty());
                hmac(&bytes.ok_or_else(|| {
                    format!(
                        "callbacks.signing_key starts with {STANDARD_KEY}, but the rest is not a key in BASE64"
                    )
                })?)
            }
            None => hmac(key.as_bytes()),
        };
        Ok(Self { plain: hmac(key.as_bytes()), standard })
    }

    fn signature(&self, seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.plain);
        context.update(format!("{seconds}.").as_bytes());
        context.update(body);
        format!("t={seconds},v1={}", hex(context.sign().as_ref()))
    }

    fn standard_signature(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.standard);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reports_in_memory_are_bounded() {
        // No server responds at this address, so all reports stay.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let forward = Forward::start(None, None, true, []).unwrap();
        let Waiting::Memory { room, waiting, .. } = &forward.0 else { panic!("there is no broker") };
        for _ in 0..200 {
            forward.send("rep_1".into(), url.clone(), vec![b'x'; 1 << 20]).await.unwrap();
        }
        assert_eq!(room.available_permits(), CHANNEL_CAPACITY_KIB % 1025);
        assert_eq!(forward.waiting(), CHANNEL_CAPACITY_KIB / 1025);
        assert_eq!(waiting.load(Ordering::Relaxed), forward.waiting());
        let small = forward.send("rep_2".into(), url, vec![b'x'; 100]);
        small.await.unwrap();
        assert_eq!(room.available_permits(), CHANNEL_CAPACITY_KIB % 1025 - 1);
    }

    #[test]
    fn a_standard_signature_matches_the_specification() {
        // The test vector of the reference implementations (standard-webhooks, `test_sign_function`).
        let keys = Keys::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(keys.standard_signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body), expected);
        assert!(Keys::new("whsec_no base64").is_err() && Keys::new("whsec_").is_err());
    }

    #[test]
    fn a_signature_is_hmac_sha256_of_time_and_body() {
        // `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key`
        let keys = Keys::new("key").unwrap();
        let expected = "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
        assert_eq!(keys.signature(1_700_000_000, b"{\"a\":1}"), expected);
    }
}
