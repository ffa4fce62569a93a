//! Hands reports on to the address that a job names, as the provider would have sent them.
//!
//! Signed, with retries, and never to an address inside: a job comes from outside, and its address is
//! hostile until it is looked at.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, mpsc};
use url::{Host, Url};

/// How many reports wait to be handed on; beyond that they are lost, and counted.
const WAITING: usize = 20_000;
/// How many are on their way at once.
const AT_ONCE: usize = 32;
/// How long an address may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The waits between tries.
const WAITS: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// The header with the signature: `t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY`.
const SIGNATURE: &str = "flowcast-signature";

/// Hands bodies on.
#[derive(Clone)]
pub struct Forward(mpsc::Sender<(String, Vec<u8>)>);

/// What is needed to hand a body on.
struct Sender {
    client: reqwest::Client,
    key: Option<hmac::Key>,
    allow_private: bool,
}

impl Forward {
    /// Starts to hand on what comes, signed with a key. `allow_private` is for networks in which the
    /// receivers are inside.
    ///
    /// # Errors
    ///
    /// When TLS can't be set up.
    pub fn start(key: Option<&SecretString>, allow_private: bool) -> Result<Self, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("flowcast/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Outside { allow_private }))
            .build()
            .map_err(|fault| format!("can't set up HTTP: {fault}"))?;
        let key = key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes()));
        let sender = Arc::new(Sender { client, key, allow_private });
        let (queue, mut receiver) = mpsc::channel::<(String, Vec<u8>)>(WAITING);
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(AT_ONCE));
            while let Some((url, body)) = receiver.recv().await {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let sender = sender.clone();
                tokio::spawn(async move {
                    sender.hand_on(&url, &body, place).await;
                });
            }
        });
        Ok(Self(queue))
    }

    /// Hands a body on, some time.
    pub(super) fn send(&self, url: String, body: Vec<u8>) {
        if self.0.try_send((url, body)).is_err() {
            count("lost");
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!("flowcast_forwarded_total", "result" => result).increment(1);
}

impl Sender {
    async fn hand_on(&self, url: &str, body: &[u8], place: tokio::sync::OwnedSemaphorePermit) {
        let Some(url) = self.judged(url) else {
            tracing::warn!("a job's status_callback is no address outside; nothing is handed on to it");
            return count("refused");
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut place = Some(place);
        for wait in WAITS.map(Some).into_iter().chain([None]) {
            let fault = match self.post(url.clone(), body.to_vec()).await {
                Ok(status) if (200..300).contains(&status) => return count("taken"),
                // The receiver does not want it, and will not.
                Ok(status @ 400..=499) if status != 408 && status != 429 => {
                    tracing::debug!("{host} refuses a report with {status}");
                    return count("refused");
                }
                Ok(status) => format!("HTTP {status}"),
                Err(fault) => fault.without_url().to_string(),
            };
            // Others go on while this one waits.
            place = None;
            let Some(wait) = wait else {
                tracing::warn!("{host} does not take a report: {fault}");
                return count("lost");
            };
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
        drop(place);
    }

    /// An address, if it may be spoken to. A name is looked at when it is resolved.
    fn judged(&self, url: &str) -> Option<Url> {
        let url: Url = url.parse().ok()?;
        let is_outside = match url.host()? {
            Host::Domain(_) => true,
            Host::Ipv4(ip) => is_public(ip.into()),
            Host::Ipv6(ip) => is_public(ip.into()),
        };
        let is_plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty();
        (is_plain && (is_outside || self.allow_private)).then_some(url)
    }

    async fn post(&self, url: Url, body: Vec<u8>) -> Result<u16, reqwest::Error> {
        let mut request = self.client.post(url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header(SIGNATURE, signature(key, jiff::Timestamp::now().as_second(), &body));
        }
        Ok(request.body(body).send().await?.status().as_u16())
    }
}

fn signature(key: &hmac::Key, seconds: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

/// Resolves names to addresses outside alone, at the very moment of connecting: a name can't change its
/// mind in between.
struct Outside {
    allow_private: bool,
}

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if found.is_empty() {
                return Err("the name stands for no address outside".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the Internet's, and not of some network inside.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let is_special = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_multicast()
                || ip.is_documentation()
                || a == 0
                || a >= 240
                // Carriers' own, protocol assignments, benchmarks.
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b));
            !is_special
        }
        IpAddr::V6(ip) => {
            if let Some(ip) = ip.to_ipv4() {
                return is_public(ip.into());
            }
            let [first, second, ..] = ip.segments();
            // NAT64 and 6to4 hide an address of version 4 inside.
            let hides = first == 0x64 && second == 0xff9b || first == 0x2002;
            let is_global = first & 0xe000 == 0x2000;
            is_global && !hides && !(first == 0x2001 && second == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_told_from_those_outside() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["8.8.8.8", "100.128.0.1", "2606:4700::1111"] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[tokio::test]
    async fn a_name_of_an_address_inside_is_not_resolved() {
        let outside = Outside { allow_private: false };
        assert!(outside.resolve("localhost".parse().unwrap()).await.is_err());
        let any = Outside { allow_private: true };
        assert!(any.resolve("localhost".parse().unwrap()).await.is_ok());
    }

    #[test]
    fn a_signature_is_hmac_sha256_of_time_and_body() {
        // `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key`
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let expected = "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
        assert_eq!(signature(&key, 1_700_000_000, b"{\"a\":1}"), expected);
    }
}
