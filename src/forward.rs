//! Hands reports on to the address that a job names, as the provider would have sent them, and events to the
//! addresses that the configuration names (webhooks).
//!
//! Signed, with retries, and never to an address inside that a job names (`egress.rs`). What waits is on the broker, where
//! there is one: a worker that dies loses none of it. Without a broker it is in memory, and no more than
//! there is room for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use parking_lot::{Mutex, MutexGuard};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use url::Url;

use crate::egress::EgressPolicy;
use crate::queue::QueueError;
use crate::queue::rabbitmq::{Broker, Forwarded};

/// How many are on their way at once.
const AT_ONCE: u16 = 64;
/// How long an address may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The waits between tries, in seconds: the steps of the broker's delays.
const WAITS: [u64; 6] = [1, 5, 15, 60, 300, 900];
/// How long a host that does not answer is left alone, so that others need not wait behind it.
const REST: Duration = Duration::from_secs(10);
/// How many hosts are remembered for that.
const REMEMBERED: usize = 1000;
/// How long the broker may take to keep a report. A provider waits for 10 s.
const KEEP: Duration = Duration::from_secs(5);
/// The room for reports in memory, in KiB.
const ROOM: usize = 64 * 1024;
/// The header with the signature: `t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY`. Kept for receivers that know it.
const SIGNATURE: &str = "flowcast-signature";
/// The headers of Standard Webhooks: what is told, when it was sent, and `v1,BASE64`, HMAC-SHA256 of `ID.SECONDS.BODY`.
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const STANDARD_SIGNATURE: &str = "webhook-signature";
/// What a key of Standard Webhooks begins with; the rest is BASE64.
const STANDARD_KEY: &str = "whsec_";

/// Hands reports on.
#[derive(Clone)]
pub struct Forward(Waiting);

/// Where reports wait.
#[derive(Clone)]
enum Waiting {
    Broker(Broker),
    Memory { queue: mpsc::UnboundedSender<Held>, room: Arc<Semaphore>, waiting: Arc<AtomicUsize> },
}

/// A report in memory, and its room there.
struct Held {
    report: Forwarded,
    _room: OwnedSemaphorePermit,
    /// Counts it.
    waiting: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is needed to hand a report on.
struct Sender {
    client: reqwest::Client,
    keys: Option<Keys>,
    outside: EgressPolicy,
    /// The addresses that the configuration names, and connections that may lead anywhere.
    webhooks: (HashSet<String>, reqwest::Client),
    /// Until when hosts are left alone.
    resting: Mutex<HashMap<String, Instant>>,
    /// The hosts that did not take the last that they were told.
    failing: Mutex<HashSet<String>>,
}

impl Forward {
    /// Starts to hand on what comes, signed with a key; it waits on the broker, or in memory.
    /// `allow_private` is for networks in which the receivers are inside; `webhooks` may be anywhere.
    ///
    /// # Errors
    ///
    /// When TLS can't be set up.
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
                .map_err(|fault| format!("can't set up HTTP: {fault}"))
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
        let (room, waiting) = (Arc::new(Semaphore::new(ROOM)), Arc::default());
        Ok(Self(Waiting::Memory { queue, room, waiting }))
    }

    /// How many wait in memory, and end with this process.
    pub fn waiting(&self) -> usize {
        match &self.0 {
            Waiting::Broker(_) => 0,
            Waiting::Memory { waiting, .. } => waiting.load(Ordering::Relaxed),
        }
    }

    /// Has a body handed on. When it returns, the broker has it. `id` is the same when the same is handed on again.
    ///
    /// # Errors
    ///
    /// When the broker does not take it.
    pub async fn send(&self, id: String, url: String, body: Vec<u8>) -> Result<(), QueueError> {
        let report = Forwarded { id, url, body, tries: 0 };
        match &self.0 {
            Waiting::Broker(broker) => {
                let kept = tokio::time::timeout(KEEP, broker.forward(&report, None)).await;
                kept.unwrap_or_else(|_| {
                    Err(QueueError::Failed("does not take a report that is handed on".into()))
                })
            }
            Waiting::Memory { queue, room, waiting } => {
                let size = u32::try_from(report.body.len() / 1024 + 1).unwrap_or(u32::MAX);
                match room.clone().try_acquire_many_owned(size) {
                    Ok(room) => {
                        waiting.fetch_add(1, Ordering::Relaxed);
                        drop(queue.send(Held { report, _room: room, waiting: waiting.clone() }));
                    }
                    Err(_) => count("lost"),
                }
                Ok(())
            }
        }
    }
}

async fn from_broker(sender: Arc<Sender>, broker: Broker) {
    let mut forwards = broker.forwards(AT_ONCE);
    loop {
        let mut forwarding = match forwards.next().await {
            Ok(forwarding) => forwarding,
            Err(fault) => {
                tracing::error!("no reports can be handed on: {fault}");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (sender, broker) = (sender.clone(), broker.clone());
        tokio::spawn(async move {
            if let Some(wait) = sender.hand_on(&mut forwarding.report).await
                && broker.forward(&forwarding.report, Some(wait)).await.is_err()
            {
                return forwarding.give_back().await;
            }
            // Only now: until its next try is on the broker, this one is.
            forwarding.done().await;
        });
    }
}

async fn from_memory(
    sender: Arc<Sender>,
    queue: mpsc::UnboundedSender<Held>,
    mut receiver: mpsc::UnboundedReceiver<Held>,
) {
    let places = Arc::new(Semaphore::new(AT_ONCE.into()));
    while let Some(mut held) = receiver.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (sender, queue) = (sender.clone(), queue.clone());
        tokio::spawn(async move {
            let wait = sender.hand_on(&mut held.report).await;
            // Others go on while this one waits.
            drop(place);
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
                let _ = queue.send(held);
            }
        });
    }
}

fn count(result: &'static str) {
    metrics::counter!("flowcast_forwarded_total", "result" => result).increment(1);
}

impl Sender {
    /// Hands a report on. Where it is to be tried again, it says after which wait.
    async fn hand_on(&self, report: &mut Forwarded) -> Option<Duration> {
        let (known, anywhere) = &self.webhooks;
        let admitted = if known.contains(&report.url) {
            report.url.parse().ok().map(|url| (url, anywhere))
        } else {
            self.outside.admitted(&report.url).map(|url| (url, &self.client))
        };
        let Some((url, client)) = admitted else {
            tracing::warn!("a job's status_callback is no address outside; nothing is handed on to it");
            count("refused");
            return None;
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let fault = if self.resting().get(&host).is_some_and(|until| *until > Instant::now()) {
            "did not answer a moment ago".into()
        } else {
            match self.post(client, url, report).await {
                Ok(200..=299) => {
                    if self.failing().remove(&host) {
                        tracing::info!("{host} takes what it is told again");
                    }
                    count("taken");
                    return None;
                }
                // The receiver does not want it, and will not.
                Ok(status @ 400..=499) if status != 408 && status != 429 => {
                    tracing::debug!("{host} refuses a report with {status}");
                    count("refused");
                    return None;
                }
                Ok(status) => format!("HTTP {status}"),
                Err(fault) => {
                    if fault.is_timeout() {
                        self.rest(host.clone());
                    }
                    fault.without_url().to_string()
                }
            }
        };
        if self.fails(&host) {
            tracing::warn!(
                "{host} does not take what it is told ({fault}); it is tried again for 21 minutes"
            );
        }
        let wait = WAITS.get(report.tries as usize).copied().map(Duration::from_secs);
        if wait.is_none() {
            tracing::warn!("{host} does not take a report: {fault}");
            count("lost");
        }
        report.tries += 1;
        wait
    }

    fn resting(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.resting.lock()
    }

    fn failing(&self) -> MutexGuard<'_, HashSet<String>> {
        self.failing.lock()
    }

    /// Remembers that a host fails; returns whether that is news.
    fn fails(&self, host: &str) -> bool {
        let mut failing = self.failing();
        if failing.len() >= REMEMBERED {
            failing.clear();
        }
        failing.insert(host.to_owned())
    }

    fn rest(&self, host: String) {
        let mut resting = self.resting();
        if resting.len() >= REMEMBERED {
            resting.clear();
        }
        resting.insert(host, Instant::now() + REST);
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

/// The key, as each of the two signatures uses it.
struct Keys {
    /// Its text.
    plain: hmac::Key,
    /// The bytes that it stands for, where it is written as Standard Webhooks write theirs; else its text.
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
                        "callbacks.signing_key begins with {STANDARD_KEY}, and the rest is no BASE64 of a key"
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
        let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={seconds},v1={hex}")
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
    async fn memory_holds_no_more_than_there_is_room_for() {
        // Nobody answers here, so nothing leaves.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let forward = Forward::start(None, None, true, []).unwrap();
        let Waiting::Memory { room, waiting, .. } = &forward.0 else { panic!("there is no broker") };
        for _ in 0..200 {
            forward.send("rep_1".into(), url.clone(), vec![b'x'; 1 << 20]).await.unwrap();
        }
        assert_eq!(room.available_permits(), ROOM % 1025);
        assert_eq!(forward.waiting(), ROOM / 1025);
        assert_eq!(waiting.load(Ordering::Relaxed), forward.waiting());
        let small = forward.send("rep_2".into(), url, vec![b'x'; 100]);
        small.await.unwrap();
        assert_eq!(room.available_permits(), ROOM % 1025 - 1);
    }

    #[test]
    fn a_standard_signature_is_the_specifications() {
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
