//! Traces: a job, its planning, its batches and their requests as spans, told by OTLP over HTTP.
//!
//! Nothing is told unless the environment names an endpoint, by OpenTelemetry's own variables. A span never
//! holds a number, a text or a secret, and sending never waits for one: what can't be told is dropped.
//!
//! All workers find the trace of a campaign without asking each other: its ids are made of the campaign's
//! id and of when it was submitted.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use jiff::Timestamp;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use url::Url;
use uuid::Uuid;

use crate::campaign::CampaignId;

/// The variables that name an endpoint; without one of them nothing is told.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How long an endpoint may take to answer, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last spans.
const LAST: Duration = Duration::from_secs(5);

/// Set while spans are told.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Tells spans until it is ended.
pub struct Exporter(SdkTracerProvider);

/// Starts to tell spans, where the environment names an endpoint. To be called within the runtime.
///
/// # Errors
///
/// What is wrong with the variables.
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
            return Err(format!("{name} is `{protocol}`, and traces are told by http/protobuf alone"));
        }
    }
    let endpoint = set(variable).unwrap_or_default();
    if !endpoint.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        return Err(format!("{variable} is no http or https address, as http://127.0.0.1:4318 is one"));
    }
    let timeout = match set("OTEL_EXPORTER_OTLP_TIMEOUT") {
        None => TIMEOUT,
        Some(text) => match text.parse() {
            Ok(milliseconds) => Duration::from_millis(milliseconds),
            Err(_) => return Err("OTEL_EXPORTER_OTLP_TIMEOUT is no number of milliseconds".into()),
        },
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Poster::new(timeout)?)
        .build()
        .map_err(|fault| format!("traces can't be told: {fault}"))?;
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
        .with_id_generator(Ids::default())
        .with_resource(resource.build())
        .build();
    let _ = TRACER.set(provider.tracer("flowcast"));
    Ok(Some(Exporter(provider)))
}

impl Exporter {
    /// Tells what is left.
    pub async fn end(self) {
        // It waits on its thread for the endpoint, and that needs the runtime.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST)).await;
        if let Ok(Err(fault)) = ended {
            tracing::warn!("the last traces could not be told: {fault}");
        }
    }
}

/// Whoever handed something in may trace it, too: the context that its W3C `traceparent` names.
pub fn from_outside(traceparent: Option<&str>) -> Context {
    let (Some(_), Some(traceparent)) = (TRACER.get(), traceparent) else { return Context::new() };
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// The id of the trace that a context is part of, for log lines.
pub fn trace_id(context: &Context) -> Option<String> {
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// The trace of a campaign.
#[derive(Clone, Copy)]
pub struct Trace(Option<(TraceId, SpanId)>);

impl Trace {
    /// The same wherever it is asked for.
    pub fn of(id: &CampaignId, submitted_at: Timestamp) -> Self {
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

    /// A job that was taken in: the root of the trace. It is linked to what the current context names.
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

    /// Work of a campaign that lasts as long as the context that is returned, by its name.
    fn work(self, name: &'static str, kind: SpanKind, attributes: Vec<KeyValue>) -> Context {
        let (Some(tracer), Some((trace, job))) = (TRACER.get(), self.0) else { return Context::new() };
        let job = SpanContext::new(trace, job, TraceFlags::SAMPLED, true, TraceState::NONE);
        let parent = Context::new().with_remote_span_context(job);
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        parent.with_span(tracer.build_with_context(builder, &parent))
    }

    /// The planning of a campaign.
    pub fn plan(self) -> Context {
        self.work("plan", SpanKind::Producer, Vec::new())
    }

    /// One run of a batch: its number, how many of its messages are left, and which attempt it is.
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

/// A request that is under way.
pub struct RequestSpan(Option<opentelemetry_sdk::trace::Span>);

/// Begins a request for so many messages, within the current context.
pub fn request(account: &str, endpoint: &Url, messages: usize) -> RequestSpan {
    let Some(tracer) = TRACER.get() else { return RequestSpan(None) };
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("flowcast.account", account.to_owned()),
        KeyValue::new("flowcast.messages", i64::try_from(messages).unwrap_or(i64::MAX)),
    ];
    // Never the path: an account's id is in it.
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
    /// Ends it with the status of its answer, or with what kind of failure came instead.
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
    /// The ids of the span that is just being made, where they are not left to chance.
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Makes ids: those that are asked for, or ones by chance.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// Posts spans. The exporter has a thread of its own; connections are the runtime's.
#[derive(Debug)]
struct Poster {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the last spans could not be told.
    is_away: AtomicBool,
}

impl Poster {
    fn new(timeout: Duration) -> Result<Self, String> {
        // Installed once for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|fault| format!("traces can't be told: {fault}"))?;
        Ok(Self { client, runtime: Handle::current(), is_away: AtomicBool::new(false) })
    }
}

#[async_trait]
impl HttpClient for Poster {
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
        let trouble = match &answered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the endpoint answers {}", answer.status())),
            Err(fault) => Some(fault.to_string()),
        };
        // Said once, not with each part.
        match (trouble, self.is_away.load(Ordering::Relaxed)) {
            (Some(trouble), false) => {
                self.is_away.store(true, Ordering::Relaxed);
                tracing::warn!("traces are dropped, because they can't be told: {trouble}");
            }
            (None, true) => {
                self.is_away.store(false, Ordering::Relaxed);
                tracing::info!("traces are told again");
            }
            _ => {}
        }
        Ok(answered?)
    }
}
