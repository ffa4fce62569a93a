//! The HTTP server of a worker: liveness, readiness, metrics, the API and the dashboard.

mod access;
mod api;
mod connections;
mod dashboard;
mod health;
mod problem;

use std::time::{Duration, Instant};
use std::{io::ErrorKind, net::SocketAddr};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::context::FutureExt;
use tokio::net::TcpListener;
use tracing::Instrument;

pub use access::Access;
pub use api::{Api, router as api_router};
pub use dashboard::router as dashboard_router;
pub use health::Health;
use problem::Problem;

use crate::dispatch::Accounts;
use crate::routing::get;
use crate::traces;

/// Maximum number of open connections.
const CONNECTIONS: usize = 4096;
/// Header with a request's id, and the maximum length of an id that a client chose.
const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_LENGTH: usize = 128;
/// Interval between upkeep runs of the metrics' histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// Histogram buckets for durations, in seconds.
const SECONDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// A server that runs until this is dropped.
pub struct Http {
    /// The address it listens on.
    pub address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct ServerState {
    health: Health,
    metrics: PrometheusHandle,
}

/// Why the HTTP server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The configured address is invalid.
    #[error("{0:?} is not an address (http.listen); the form is 127.0.0.1:8080")]
    Address(String),
    /// The address is not available.
    #[error("{0}")]
    Failed(String),
}

impl HttpError {
    fn from_listening(listen: &str, error: &std::io::Error) -> Self {
        if error.kind() == ErrorKind::InvalidInput {
            return Self::Address(listen.into());
        }
        Self::Failed(format!("cannot listen on {listen} (http.listen): {error}"))
    }
}

/// Checks that an address can be resolved, without listening on it.
///
/// # Errors
///
/// When it is invalid, or its host is unknown.
pub async fn check_address(listen: &str) -> Result<(), HttpError> {
    let found = tokio::net::lookup_host(listen).await;
    found.map(drop).map_err(|error| HttpError::from_listening(listen, &error))
}

impl Http {
    /// Starts to listen, and to collect metrics for the whole process.
    ///
    /// If the port is in use, e.g. by another worker on this machine, a free one is used, because sending must not fail for
    /// that. `more` has additional routes.
    ///
    /// # Errors
    ///
    /// When the address is invalid, or cannot be listened on.
    pub async fn start(listen: &str, health: Health, more: Router) -> Result<Self, HttpError> {
        let cannot_listen = |error: std::io::Error| HttpError::from_listening(listen, &error);
        let listener = match (TcpListener::bind(listen).await, listen.parse::<SocketAddr>()) {
            (Err(error), Ok(address)) if error.kind() == ErrorKind::AddrInUse => {
                tracing::warn!(
                    "the address {listen} (http.listen) is in use, possibly by another worker; using a free port"
                );
                TcpListener::bind((address.ip(), 0)).await.map_err(cannot_listen)?
            }
            (bound, _) => bound.map_err(cannot_listen)?,
        };
        let address = listener.local_addr().map_err(cannot_listen)?;
        let metrics = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| HttpError::Failed(format!("cannot collect metrics: {error}")))?;
        describe();
        let router = Router::new()
            .route("/healthz", get(alive))
            .route("/readyz", get(ready))
            .route("/metrics", get(render))
            .with_state(ServerState { health: health.clone(), metrics: metrics.clone() })
            .merge(more)
            .layer(middleware::from_fn(with_metrics));
        let places = places();
        let server = tokio::spawn(async move {
            let upkeep = async {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    metrics.run_upkeep();
                }
            };
            let watch = async {
                loop {
                    tokio::time::sleep(health::LOOP_INTERVAL).await;
                    health.look_at_loop();
                }
            };
            tokio::select! {
                () = connections::serve(listener, router, places) => {}
                () = upkeep => {}
                () = watch => {}
            }
        });
        Ok(Self { address, server })
    }
}

/// Returns the maximum number of open connections: half of the process's open-file limit, because sending needs the rest.
fn places() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most = open.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    most.map_or(CONNECTIONS, |most| (most / 2).min(CONNECTIONS)).max(16)
}

/// Returns the id of a request for its log lines and its response: the client's, if it is valid, otherwise a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=REQUEST_ID_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    given.filter(is_plain).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

/// Measures the time until the response body begins, and adopts the request's id and trace.
///
/// The metric's label is the route's pattern, because each id in a path would create a series.
async fn with_metrics(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&request);
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(String::new, |path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
        _ => "_OTHER".to_owned(),
    };
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let outside = traces::from_outside(traceparent);
    let span = tracing::info_span!(
        "request", request_id = %id, http.request.method = %method, http.route = %route,
        trace_id = traces::trace_id(&outside),
    );
    let mut response = next.run(request).with_context(outside).instrument(span.clone()).await;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    metrics::histogram!(
        "http_server_request_duration_seconds",
        "http_request_method" => method,
        "http_route" => route,
        "http_response_status_code" => response.status().as_str().to_owned(),
    )
    .record(begun.elapsed());
    response
}

impl Drop for Http {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Creates every counter that an alert watches with the value 0, also for each account. Prometheus sees no increase if a
/// series begins with its first incident.
pub fn count_from_zero(accounts: &Accounts) {
    for account in accounts.all().keys() {
        for state in ["accepted", "rejected", "in_doubt", "pending"] {
            metrics::counter!("flowcast_messages_total", "account" => account.clone(), "state" => state)
                .absolute(0);
        }
        metrics::counter!("flowcast_breaker_opened_total", "account" => account.clone()).absolute(0);
    }
    for result in [
        "accepted",
        "forged",
        "unreadable",
        "no_report",
        "notice",
        "unmatched",
        "other_account",
        "unknown_key",
    ] {
        metrics::counter!("flowcast_callbacks_total", "result" => result).absolute(0);
    }
    for result in ["accepted", "rejected", "dropped"] {
        metrics::counter!("flowcast_forwards_total", "result" => result).absolute(0);
    }
    for reason in ["claim_expired", "no_clear_response"] {
        metrics::counter!("flowcast_messages_in_doubt_total", "reason" => reason).absolute(0);
    }
    metrics::counter!("flowcast_events_lost_total").absolute(0);
    metrics::counter!("flowcast_suppressed_total").absolute(0);
    metrics::counter!("flowcast_messages_replanned_total").absolute(0);
    metrics::counter!("flowcast_restored_messages_total").absolute(0);
    metrics::counter!("flowcast_jobs_dead_lettered_total").absolute(0);
    metrics::counter!("flowcast_jobs_deferred_total").absolute(0);
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("flowcast_messages_total", "Messages by state after a response of the provider");
    describe_counter!(
        "flowcast_messages_in_doubt_total",
        "Messages that became in doubt while a worker was sending, by reason"
    );
    describe_histogram!("flowcast_request_duration_seconds", "Response time of the provider, by account");
    describe_gauge!("flowcast_campaigns_supervised", "Campaigns that this worker supervises");
    describe_counter!("flowcast_callbacks_total", "Provider callbacks by result");
    describe_counter!(
        "flowcast_forwards_total",
        "Reports forwarded to a job's status_callback, and events to webhooks, by final result"
    );
    describe_counter!(
        "flowcast_events_lost_total",
        "Events about reports that were not published; the ledger has the facts"
    );
    describe_counter!(
        "flowcast_suppressed_total",
        "Recipients suppressed because they replied with a stop word"
    );
    describe_counter!(
        "flowcast_breaker_opened_total",
        "Breakers opened for an account, a sender number or a Flow"
    );
    describe_counter!(
        "flowcast_messages_replanned_total",
        "Messages planned again because the broker lost their batches"
    );
    describe_counter!(
        "flowcast_restored_messages_total",
        "Messages whose outcomes Redis lost and a worker wrote again"
    );
    describe_counter!("flowcast_jobs_dead_lettered_total", "Jobs moved to the dead-letter queue");
    describe_counter!(
        "flowcast_jobs_deferred_total",
        "Jobs deferred because their account is not configured"
    );
    describe_histogram!(
        "http_server_request_duration_seconds",
        metrics::Unit::Seconds,
        "Response time of the API and the pages until the body begins"
    );
    describe_gauge!("flowcast_dependency_up", "Availability of what the worker needs: 1 for available");
}

async fn alive(State(shared): State<ServerState>) -> Response {
    if shared.health.is_stalled() {
        return Problem::away("the worker's loop makes no progress; restart the worker").into_response();
    }
    "ok\n".into_response()
}

async fn ready(State(shared): State<ServerState>) -> Response {
    let Some(missing) = shared.health.missing() else {
        return Problem::away("not connected yet").into_response();
    };
    if missing.is_empty() {
        "ready\n".into_response()
    } else {
        Problem::away(format!("unavailable: {}", missing.join(", "))).into_response()
    }
}

async fn render(State(shared): State<ServerState>) -> Response {
    for (name, is_here) in shared.health.look().unwrap_or_default() {
        metrics::gauge!("flowcast_dependency_up", "dependency" => name).set(if is_here { 1.0 } else { 0.0 });
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shared.metrics.render()).into_response()
}
