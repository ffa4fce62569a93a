//! Traces: a job, its planning, its batches and their requests as spans, exported by OTLP over HTTP.
//!
//! Nothing is exported unless OpenTelemetry's environment variables name an endpoint. Spans never contain phone numbers,
//! message texts or secrets. Sending never waits for the export: spans that cannot be exported are dropped.
//!
//! All workers derive the same trace id from the id of a campaign and its time of submission.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use std::{cell::Cell, collections::HashMap, sync::OnceLock};

use async_trait::async_trait;
use jiff::Timestamp;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, propagation::TextMapPropagator};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator};
use tokio::runtime::Handle;
use url::Url;
use uuid::Uuid;

use crate::campaign::CampaignId;

/// Variables that name an endpoint; without them nothing is exported.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Default timeout for an export; `OTEL_EXPORTER_OTLP_TIMEOUT` overrides it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the last export when the process ends.
const LAST: Duration = Duration::from_secs(5);

/// Tracer, set while spans are exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Exporter of spans.
pub struct Exporter(SdkTracerProvider);

/// Starts the export of spans if the environment names an endpoint.
///
/// Must be called within the runtime.
///
/// # Errors
///
/// When a variable is invalid.
pub fn start() -> Result<Option<Exporter>, String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let Some(variable) = ENDPOINTS.into_iter().find(|name| set(name).is_some()) else { return Ok(None) };
    let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if is_off {
        return Ok(None);
    }
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(protocol) = set(name).filter(|protocol| protocol != "http/protobuf") {
            return Err(format!("{name} is `{protocol}`; only http/protobuf is supported"));
        }
    }
    let endpoint = set(variable).unwrap_or_default();
    if !endpoint.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        return Err(format!("{variable} must be an http:// or https:// URL, e.g. http://127.0.0.1:4318"));
    }
    let timeout = match set("OTEL_EXPORTER_OTLP_TIMEOUT") {
        None => TIMEOUT,
        Some(text) => match text.parse() {
            Ok(milliseconds) => Duration::from_millis(milliseconds),
            Err(_) => return Err("OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds".into()),
        },
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(OtlpHttpClient::new(timeout)?)
        .build()
        .map_err(|error| format!("cannot export traces: {error}"))?;
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", Uuid::now_v7().to_string()));
    let is_named = set("OTEL_SERVICE_NAME").is_some()
        || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|given| given.contains("service.name="));
    if !is_named {
        resource = resource.with_service_name("flowcast");
    }
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_id_generator(DeterministicIdGenerator::default())
        .with_resource(resource.build())
        .build();
    let _ = TRACER.set(provider.tracer("flowcast"));
    Ok(Some(Exporter(provider)))
}

impl Exporter {
    /// Exports the remaining spans.
    pub async fn end(self) {
        // The shutdown blocks its thread until the endpoint answers, and the answer needs the runtime.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(error = %error, "cannot export the last spans");
        }
    }
}

/// Returns the context of a W3C `traceparent` from outside.
pub fn from_outside(traceparent: Option<&str>) -> Context {
    let (Some(_), Some(traceparent)) = (TRACER.get(), traceparent) else { return Context::new() };
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// Returns the id of the trace of a context, for log lines.
pub fn trace_id(context: &Context) -> Option<String> {
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// Trace of a campaign.
#[derive(Clone, Copy)]
pub struct TraceHandle(Option<(TraceId, SpanId)>);

impl TraceHandle {
    /// Returns the trace of a campaign, the same in all workers.
    pub fn for_campaign(id: &CampaignId, submitted_at: Timestamp) -> Self {
        if TRACER.get().is_none() {
            return Self(None);
        }
        let digest = blake3::hash(format!("{id} {}", submitted_at.as_millisecond()).as_bytes());
        let (trace, rest) = digest.as_bytes().split_at(16);
        let id = |bytes: &[u8]| bytes.iter().fold(0_u128, |id, byte| id << 8 | u128::from(*byte));
        #[expect(clippy::cast_possible_truncation, reason = "eight bytes are read")]
        let span = id(&rest[..8]) as u64;
        Self(Some((id(trace).into(), span.into())))
    }

    /// Records the span of a job, the root of the trace.
    ///
    /// The span is linked to the current context.
    pub fn job(self, begun: SystemTime, account: &str, rows: u64) {
        let (Some(tracer), Some(ids)) = (TRACER.get(), self.0) else { return };
        let outside = Context::current().span().span_context().clone();
        let mut builder = SpanBuilder::from_name("job")
            .with_kind(SpanKind::Consumer)
            .with_start_time(begun)
            .with_attributes([
                KeyValue::new("flowcast.account", account.to_owned()),
                KeyValue::new("flowcast.rows", i64::try_from(rows).unwrap_or(i64::MAX)),
            ]);
        if outside.is_valid() {
            builder = builder.with_links(vec![Link::with_context(outside)]);
        }
        NEXT.set(Some(ids));
        tracer.build_with_context(builder, &Context::new()).end();
        NEXT.set(None);
    }

    /// Starts a span of a campaign, which ends with the returned context.
    fn work(self, name: &'static str, kind: SpanKind, attributes: Vec<KeyValue>) -> Context {
        let (Some(tracer), Some((trace, job))) = (TRACER.get(), self.0) else { return Context::new() };
        let job = SpanContext::new(trace, job, TraceFlags::SAMPLED, true, TraceState::NONE);
        let parent = Context::new().with_remote_span_context(job);
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        parent.with_span(tracer.build_with_context(builder, &parent))
    }

    /// Starts the span of the planning.
    pub fn plan(self) -> Context {
        self.work("plan", SpanKind::Producer, Vec::new())
    }

    /// Starts the span of an attempt to send the rest of a batch.
    pub fn batch(self, number: u32, left: usize, attempt: u32) -> Context {
        if self.0.is_none() {
            return Context::new();
        }
        let attributes = vec![
            KeyValue::new("flowcast.batch", i64::from(number)),
            KeyValue::new("flowcast.attempt", i64::from(attempt)),
            KeyValue::new("messaging.batch.message_count", i64::try_from(left).unwrap_or(i64::MAX)),
        ];
        self.work("batch", SpanKind::Consumer, attributes)
    }
}

/// Span of a request in flight.
pub struct RequestSpan(Option<opentelemetry_sdk::trace::Span>);

/// Starts the span of a request within the current context.
pub fn request(account: &str, endpoint: &Url, messages: usize) -> RequestSpan {
    let Some(tracer) = TRACER.get() else { return RequestSpan(None) };
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("flowcast.account", account.to_owned()),
        KeyValue::new("flowcast.messages", i64::try_from(messages).unwrap_or(i64::MAX)),
    ];
    // Never the path, which contains the id of the account.
    if let Some(host) = endpoint.host_str() {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
    }
    if let Some(port) = endpoint.port_or_known_default() {
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    let builder = SpanBuilder::from_name("request").with_kind(SpanKind::Client).with_attributes(attributes);
    RequestSpan(Some(tracer.build_with_context(builder, &Context::current())))
}

impl RequestSpan {
    /// Ends the span with the HTTP status, or with the kind of failure.
    pub fn end(self, answered: Result<u16, &'static str>) {
        let Some(mut span) = self.0 else { return };
        let failed = match answered {
            Ok(status) => {
                span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
                (status >= 400).then(|| status.to_string())
            }
            Err(kind) => Some(kind.to_owned()),
        };
        if let Some(kind) = failed {
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// Marks the span of a context as failed.
pub fn failed(context: &Context) {
    context.span().set_status(Status::error(""));
}

thread_local! {
    /// Ids of the span that is being created, if they are not random.
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Generator of ids: those in `NEXT`, or random ones.
#[derive(Debug, Default)]
struct DeterministicIdGenerator(RandomIdGenerator);

impl IdGenerator for DeterministicIdGenerator {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// HTTP client of the exporter. The exporter has its own thread; the connections belong to the runtime.
#[derive(Debug)]
struct OtlpHttpClient {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the last export failed.
    is_away: AtomicBool,
}

impl OtlpHttpClient {
    fn new(timeout: Duration) -> Result<Self, String> {
        // Installing it again has no effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("cannot export traces: {error}"))?;
        Ok(Self { client, runtime: Handle::current(), is_away: AtomicBool::new(false) })
    }
}

#[async_trait]
impl HttpClient for OtlpHttpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answered = self.runtime.spawn(async move {
            let request = reqwest::Request::try_from(request)?;
            let response = client.execute(request).await?;
            let status = response.status();
            let mut answer = Response::new(response.bytes().await?);
            *answer.status_mut() = status;
            Ok::<_, reqwest::Error>(answer)
        });
        let answered = answered.await?.map_err(reqwest::Error::without_url);
        let error = match &answered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the endpoint answered {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        // Logged once, not for each export.
        match (&error, self.is_away.swap(error.is_some(), Ordering::Relaxed)) {
            (Some(error), false) => tracing::warn!(error, "dropping spans: cannot export them"),
            (None, true) => tracing::info!("exporting spans again"),
            _ => {}
        }
        Ok(answered?)
    }
}
