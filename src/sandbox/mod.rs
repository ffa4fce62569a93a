//! A provider to try things on: Exotel's API on a real port, as strict as the documents.
//!
//! It knows the domain at most, so that it judges requests by the documents and not by what
//! flowcast happens to send. It keeps its own record of what it took, which tests hold against the
//! ledger's.

mod answers;
mod callbacks;
mod record;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use base64::prelude::{BASE64_STANDARD, Engine};
use governor::clock::{Clock, MonotonicClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::campaign::content::CONTENT;
use crate::campaign::{BATCH_LIMIT, Phone, Rate, rules};
use callbacks::Callbacks;
use record::Record;
pub use record::Taken;

/// How a sandbox behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How long it takes to answer.
    pub latency: Duration,
    /// The share of messages that it accepts, 0 to 1.
    pub accept_rate: f64,
    /// The share of requests that it answers with 500 or 503, having taken nothing.
    pub error_rate: f64,
    /// The share of requests whose answer it cuts off, having taken them.
    pub cut_rate: f64,
    /// How many requests it allows.
    pub rate_limit: Option<Rate>,
    /// What chance begins with: the same seed refuses the same recipients.
    pub seed: u64,
    /// Whether it remembers each message, for `GET /messages`.
    pub remember: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            accept_rate: 1.0,
            error_rate: 0.0,
            cut_rate: 0.0,
            rate_limit: None,
            seed: 1,
            remember: true,
        }
    }
}

/// A sandbox that listens. It ends when it is dropped.
pub struct Sandbox {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    behaviour: Behaviour,
    limiter: Option<DefaultDirectRateLimiter>,
    requests: AtomicU64,
    record: Record,
    callbacks: Callbacks,
}

impl Sandbox {
    /// Starts one; port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// When the address can't be listened on.
    pub async fn start(listen: SocketAddr, behaviour: Behaviour) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let quota = |rate: Rate| Some(Quota::with_period(rate.period())?.allow_burst(rate.burst()));
        let shared = Arc::new(Shared {
            limiter: behaviour.rate_limit.and_then(quota).map(RateLimiter::direct),
            requests: AtomicU64::new(0),
            record: Record::new(behaviour.remember),
            callbacks: Callbacks::start().map_err(std::io::Error::other)?,
            behaviour,
        });
        let router = Router::new()
            .route("/v2/accounts/{account_sid}/messages", post(take))
            .route("/stats", get(stats))
            .route("/messages", get(messages))
            .layer(DefaultBodyLimit::max(8 << 20))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            if let Err(fault) = axum::serve(listener, router).await {
                tracing::error!("the sandbox ended: {fault}");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// The numbers of `GET /stats`.
    pub fn stats(&self) -> Value {
        self.shared.stats()
    }

    /// How many messages it took.
    pub fn count(&self) -> u64 {
        self.shared.record.count()
    }

    /// What it took, in order.
    pub fn taken(&self) -> Vec<Taken> {
        self.shared.record.taken()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn stats(&self) -> Value {
        let mut stats = self.record.stats();
        stats["requests"] = json!(self.requests.load(Ordering::Relaxed));
        stats["callbacks"] = self.callbacks.stats();
        stats
    }

    /// A number from 0 to 1 that depends on the seed and on `what` alone.
    fn chance(&self, what: &[u8]) -> f64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.behaviour.seed.to_le_bytes()).update(what);
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        u64::from_le_bytes(bytes) as f64 / u64::MAX as f64
    }
}

async fn stats(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    axum::Json(shared.stats())
}

/// Every message that was taken, a JSON object a line.
async fn messages(State(shared): State<Arc<Shared>>) -> String {
    let line = |taken: &Taken| json!({ "sid": taken.sid, "to": taken.to, "custom_data": taken.custom_data });
    shared.record.taken().iter().map(|taken| format!("{}\n", line(taken))).collect()
}

async fn take(
    State(shared): State<Arc<Shared>>,
    Path(_account_sid): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let nth = shared.requests.fetch_add(1, Ordering::Relaxed);
    if !shared.behaviour.latency.is_zero() {
        tokio::time::sleep(shared.behaviour.latency).await;
    }
    let response = answer(&shared, nth, &headers, &body);
    shared.record.answered(response.status().as_u16());
    response
}

fn answer(shared: &Arc<Shared>, nth: u64, headers: &HeaderMap, body: &[u8]) -> Response {
    if !is_authorized(headers) {
        return answers::refused(
            StatusCode::UNAUTHORIZED,
            "Necessary credentials were either missing or invalid",
        );
    }
    if let Some(limiter) = &shared.limiter
        && let Err(not_yet) = limiter.check()
    {
        return answers::limited(not_yet.wait_time_from(MonotonicClock.now()), shared.behaviour.rate_limit);
    }
    if shared.chance(&[b"error", &nth.to_le_bytes()[..]].concat()) < shared.behaviour.error_rate {
        let status = if nth.is_multiple_of(2) {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        return answers::refused(status, "Something went wrong at our end. Please try again");
    }
    let messages = match messages_of(body) {
        Ok(messages) => messages,
        Err(fault) => return answers::refused(StatusCode::BAD_REQUEST, &fault),
    };
    let entries: Vec<Value> = messages.iter().map(|message| entry(shared, &message)).collect();
    if shared.chance(&[b"cut", &nth.to_le_bytes()[..]].concat()) < shared.behaviour.cut_rate {
        return answers::cut_off();
    }
    answers::accepted(&entries)
}

/// Basic authentication with a key and a token.
fn is_authorized(headers: &HeaderMap) -> bool {
    let pair = || {
        let value = headers.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?;
        let pair = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
        let (key, token) = pair.split_once(':')?;
        (!key.is_empty() && !token.is_empty()).then_some(())
    };
    pair().is_some()
}

/// A message of a request that is in order.
struct Message<'a> {
    to: &'a str,
    custom_data: Option<&'a str>,
    status_callback: Option<&'a str>,
}

/// A request in order: its messages, and what stands around them.
struct Ordered {
    messages: Vec<Value>,
    around: Value,
}

impl Ordered {
    fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.messages.iter().map(|message| {
            // The innermost wins: message, channel, request.
            let nearest = |name: &str| {
                [message, &self.around["whatsapp"], &self.around]
                    .into_iter()
                    .find_map(|place| place.get(name)?.as_str())
            };
            Message {
                to: message["to"].as_str().unwrap_or_default(),
                custom_data: nearest("custom_data"),
                status_callback: nearest("status_callback"),
            }
        })
    }
}

/// Reads a request as strictly as the documents allow.
fn messages_of(body: &[u8]) -> Result<Ordered, String> {
    let mut request: Value = serde_json::from_slice(body).map_err(|fault| format!("not JSON: {fault}"))?;
    known(&request, "", &["custom_data", "status_callback", "whatsapp"])?;
    known(&request["whatsapp"], "/whatsapp", &["custom_data", "status_callback", "messages"])?;
    let Value::Array(messages) = request["whatsapp"]["messages"].take() else {
        return Err("/whatsapp/messages is missing".into());
    };
    if messages.is_empty() || messages.len() > BATCH_LIMIT {
        return Err("More than 100 messages specified in a request, or none".into());
    }
    for (index, message) in messages.iter().enumerate() {
        let place = format!("/whatsapp/messages/{index}");
        known(message, &place, &["custom_data", "status_callback", "from", "to", "content"])?;
        for field in ["from", "to"] {
            let number = message.get(field).and_then(Value::as_str).unwrap_or_default();
            number.parse::<Phone>().map_err(|fault| format!("{place}/{field}: {fault}"))?;
        }
        let content = message.get("content").ok_or_else(|| format!("{place}/content is missing"))?;
        if let Some(problem) = rules::check_rendered(&CONTENT, content, &format!("{place}/content")).first() {
            return Err(problem.to_string());
        }
    }
    Ok(Ordered { messages, around: request })
}

fn known(value: &Value, place: &str, fields: &[&str]) -> Result<(), String> {
    let map = value.as_object().ok_or_else(|| format!("{place} must be an object"))?;
    match map.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(unknown) => Err(format!("{place}/{unknown} is unknown")),
        None => Ok(()),
    }
}

/// Takes one message, or refuses it by chance; the same recipient fares the same with one seed.
fn entry(shared: &Arc<Shared>, message: &Message<'_>) -> Value {
    let chance = shared.chance(message.to.as_bytes());
    if chance >= shared.behaviour.accept_rate {
        shared.record.rejected();
        return answers::refused_entry((chance * 1e9) as usize);
    }
    let sid = uuid::Uuid::now_v7().simple().to_string();
    shared.record.accepted(&sid, message.to, message.custom_data);
    if let Some(url) = message.status_callback {
        shared.callbacks.report(url, &sid, message.to, message.custom_data);
    }
    answers::accepted_entry(&sid)
}
