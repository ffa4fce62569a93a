//! A simulated provider for tests: the interfaces of all providers on one port, as strict as the documents, with
//! injected errors.
//!
//! It uses only the domain, so that it checks requests against the documents and not against what flowcast sends. It
//! keeps its own record of accepted messages, which tests compare with the ledger.

mod api;
mod callbacks;
mod exotel;
mod kaleyra;
mod meta;
mod record;
mod rules;

use std::sync::atomic::{AtomicU64, Ordering};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::{DefaultBodyLimit, RawPathParams, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, body::Bytes, routing::MethodFilter};
use governor::clock::{Clock, MonotonicClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::campaign::Rate;
use crate::routing::{get, on, post};
use api::{Api, Error, Message, Subject, come_back, cut_off};
use callbacks::Callbacks;
pub use callbacks::Reporting;
use exotel::Exotel;
use kaleyra::Kaleyra;
use meta::Meta;
pub use record::AcceptedMessage;
use record::Record;

/// The behaviour of a sandbox.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Delay before each response.
    pub latency: Duration,
    /// Share of messages that it accepts, 0 to 1.
    pub accept_rate: f64,
    /// Share of requests that get 500 or 503 and of which nothing is accepted.
    pub error_rate: f64,
    /// Share of requests that are accepted but whose response is cut off.
    pub cut_rate: f64,
    /// Injected errors: a provider's code, and the share of requests or messages that get it.
    pub faults: BTreeMap<String, f64>,
    /// How it sends reports.
    pub reporting: Reporting,
    /// Request limit.
    pub rate_limit: Option<Rate>,
    /// Seed of the random numbers: the same seed rejects the same recipients.
    pub seed: u64,
    /// Whether it records each message, for `GET /messages`.
    pub remember: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            accept_rate: 1.0,
            error_rate: 0.0,
            cut_rate: 0.0,
            faults: BTreeMap::new(),
            reporting: Reporting::default(),
            rate_limit: None,
            seed: 1,
            remember: true,
        }
    }
}

/// A running sandbox. It stops when it is dropped.
pub struct Sandbox {
    /// The address on which it listens.
    pub address: SocketAddr,
    shared: Arc<SandboxState>,
    server: tokio::task::JoinHandle<()>,
}

struct SandboxState {
    behaviour: Behaviour,
    /// The injected errors: those of the behaviour, until they are changed.
    faults: RwLock<BTreeMap<String, f64>>,
    limiter: Option<DefaultDirectRateLimiter>,
    requests: AtomicU64,
    record: Record,
    callbacks: Callbacks,
}

impl Sandbox {
    /// Starts a sandbox; port 0 selects a free port.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address.
    pub async fn start(listen: SocketAddr, behaviour: Behaviour) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let quota = |rate: Rate| Some(Quota::with_period(rate.period())?.allow_burst(rate.burst()));
        let shared = Arc::new(SandboxState {
            limiter: behaviour.rate_limit.and_then(quota).map(RateLimiter::direct),
            requests: AtomicU64::new(0),
            record: Record::new(behaviour.remember),
            callbacks: Callbacks::start().map_err(std::io::Error::other)?,
            faults: RwLock::new(behaviour.faults.clone()),
            behaviour,
        });
        let router = Router::new()
            .merge(speaks::<Exotel>())
            .merge(speaks::<Kaleyra>())
            .merge(speaks::<Meta>())
            .route("/stats", get(stats))
            .route("/messages", get(messages))
            .route("/faults", on(MethodFilter::PUT, change_faults))
            .layer(DefaultBodyLimit::max(8 << 20))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            if let Err(fault) = axum::serve(listener, router).await {
                tracing::error!(error = %fault, "the sandbox stopped");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// Returns the counts of `GET /stats`.
    pub fn stats(&self) -> Value {
        self.shared.stats()
    }

    /// Changes the injected errors.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = (&'static str, f64)>) {
        let faults = faults.into_iter().map(|(code, share)| (code.to_owned(), share)).collect();
        *self.shared.faults.write() = faults;
    }

    /// Returns the number of accepted messages.
    pub fn count(&self) -> u64 {
        self.shared.record.count()
    }

    /// Returns the accepted messages, in order.
    pub fn taken(&self) -> Vec<AcceptedMessage> {
        self.shared.record.taken()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl SandboxState {
    fn stats(&self) -> Value {
        let mut stats = self.record.stats();
        stats["requests"] = json!(self.requests.load(Ordering::Relaxed));
        stats["callbacks"] = self.callbacks.stats();
        stats
    }

    /// Returns the random number for an event of a request.
    fn chance_of(&self, what: &str, nth: u64) -> f64 {
        self.chance(&[what.as_bytes(), &nth.to_le_bytes()[..]].concat())
    }

    /// Returns a number from 0 to 1 that depends only on the seed and on `what`.
    fn chance(&self, what: &[u8]) -> f64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.behaviour.seed.to_le_bytes()).update(what);
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        u64::from_le_bytes(bytes) as f64 / u64::MAX as f64
    }
}

async fn stats(State(shared): State<Arc<SandboxState>>) -> Json<Value> {
    Json(shared.stats())
}

/// Returns all accepted messages as JSON lines.
async fn messages(State(shared): State<Arc<SandboxState>>) -> String {
    let line = |taken: &AcceptedMessage| json!({ "sid": taken.sid, "to": taken.to, "custom_data": taken.custom_data });
    shared.record.taken().iter().map(|taken| format!("{}\n", line(taken))).collect()
}

/// Returns whether any interface has an error with this code.
pub fn has_error(code: &str) -> bool {
    Exotel::error(code).is_some() || Kaleyra::error(code).is_some() || Meta::error(code).is_some()
}

/// Changes the injected errors: `{"E110": 1.0}` refuses every request as for a lack of balance, `{}` none.
async fn change_faults(
    State(shared): State<Arc<SandboxState>>,
    Json(faults): Json<BTreeMap<String, f64>>,
) -> Response {
    if let Some(code) = faults.keys().find(|code| !has_error(code)) {
        return (StatusCode::BAD_REQUEST, format!("unknown code {code:?}: no provider has it\n"))
            .into_response();
    }
    *shared.faults.write() = faults;
    StatusCode::NO_CONTENT.into_response()
}

/// Returns the routes of an interface.
fn speaks<A: Api>() -> Router<Arc<SandboxState>> {
    A::PATHS.iter().fold(Router::new(), |router, path| router.route(path, post(receive::<A>)))
}

async fn receive<A: Api>(
    State(shared): State<Arc<SandboxState>>,
    path: RawPathParams,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let nth = shared.requests.fetch_add(1, Ordering::Relaxed);
    if !shared.behaviour.latency.is_zero() {
        tokio::time::sleep(shared.behaviour.latency).await;
    }
    shared.callbacks.make_room().await;
    let path: Vec<String> = path.iter().map(|(_, value)| value.to_owned()).collect();
    let response = answer::<A>(&shared, nth, &path, &headers, &body);
    shared.record.answered(response.status().as_u16());
    response
}

fn answer<A: Api>(
    shared: &Arc<SandboxState>,
    nth: u64,
    path: &[String],
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let whole = |code: &str| match A::error(code) {
        Some(Error::Whole(response)) => response,
        _ => A::malformed("unknown error code"),
    };
    if !A::is_authorized(headers) {
        return whole(A::UNAUTHORIZED);
    }
    if let Some(limiter) = &shared.limiter
        && let Err(not_yet) = limiter.check()
    {
        let wait = not_yet.wait_time_from(MonotonicClock.now());
        return come_back(A::limited(nth), wait, shared.behaviour.rate_limit);
    }
    let faults = shared.faults.read().clone();
    for (code, share) in &faults {
        if shared.chance_of(code, nth) < *share
            && let Some(Error::Whole(response)) = A::error(code)
        {
            return response;
        }
    }
    if shared.chance_of("error", nth) < shared.behaviour.error_rate {
        return whole(A::BROKEN[nth as usize % A::BROKEN.len()]);
    }
    let messages = match A::read(path, body) {
        Ok(messages) => messages,
        Err(why) => return A::malformed(&why),
    };
    let answers: Vec<_> =
        messages.iter().map(|message| take_message::<A>(shared, nth, message, &faults)).collect();
    if shared.chance_of("cut", nth) < shared.behaviour.cut_rate {
        return cut_off();
    }
    A::answer(&answers)
}

/// Accepts one message, or rejects it with an injected error or at random. With one seed a recipient always has the
/// same outcome.
fn take_message<A: Api>(
    shared: &Arc<SandboxState>,
    nth: u64,
    message: &Message,
    faults: &BTreeMap<String, f64>,
) -> Result<String, String> {
    for (code, share) in faults {
        let what = [code.as_bytes(), &nth.to_le_bytes(), message.to.as_bytes()].concat();
        if shared.chance(&what) < *share && matches!(A::error(code), Some(Error::Message)) {
            shared.record.rejected();
            return Err(code.clone());
        }
    }
    let chance = shared.chance(message.to.as_bytes());
    if chance >= shared.behaviour.accept_rate {
        shared.record.rejected();
        return Err(A::REFUSALS[(chance * 1e9) as usize % A::REFUSALS.len()].into());
    }
    let sid = A::id(&uuid::Uuid::now_v7().simple().to_string());
    let reference = message.reference.as_deref();
    shared.record.accepted(&sid, &message.to, reference);
    let how = &shared.behaviour.reporting;
    if let Some(url) = message.status_callback.clone().or_else(|| how.url.clone()) {
        let of = Subject {
            url,
            sid: sid.clone(),
            to: message.to.clone(),
            from: message.from.clone(),
            reference: message.reference.clone(),
            flow_token: message.flow_token.clone(),
        };
        shared.callbacks.report::<A>(how, of, |what| shared.chance_of(&format!("{what}{sid}"), nth));
    }
    Ok(sid)
}
