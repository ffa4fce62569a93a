//! Traces that an OTLP endpoint receives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use flowcast::sandbox::Behaviour;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::Method;
use serde_json::json;

use crate::fleet::{Fleet, until};
use crate::service::{FAST, Service, TOKENS};
use crate::support::{Reaction, Scripted, World, accept, job, phone, sandbox};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An OTLP endpoint with the requests that it received.
#[derive(Clone, Default)]
struct Endpoint(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Endpoint {
    async fn start() -> (Self, String) {
        let endpoint = Self::default();
        let received = endpoint.clone();
        let receive = move |body: Bytes| async move {
            received.0.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
            StatusCode::OK
        };
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(receive));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (endpoint, url)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap().clone();
        let scopes = requests.into_iter().flat_map(|request| request.resource_spans);
        scopes.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    fn count(&self, name: &str) -> usize {
        self.spans().iter().filter(|span| span.name == name).count()
    }
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: Option<Any>| match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let all = span.attributes.iter().cloned();
    all.map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect()
}

fn env(url: &str) -> Vec<(String, String)> {
    [("OTEL_EXPORTER_OTLP_ENDPOINT", url), ("OTEL_BSP_SCHEDULE_DELAY", "100")]
        .map(|(name, value)| (name.into(), value.into()))
        .into()
}

/// Asserts that the spans of all workers form one trace with one root, each below its parent.
fn assert_tree(spans: &[Span]) {
    let by_name = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let traces: BTreeSet<_> = spans.iter().map(|span| span.trace_id.clone()).collect();
    assert_eq!(traces.len(), 1, "{spans:?}");
    let jobs = by_name("job");
    assert!(jobs.len() == 1 && jobs[0].parent_span_id.is_empty(), "{jobs:?}");
    let batches = by_name("batch");
    for span in batches.iter().chain(&by_name("plan")) {
        assert_eq!(span.parent_span_id, jobs[0].span_id, "{span:?}");
    }
    let batches: BTreeSet<_> = batches.iter().map(|span| span.span_id.clone()).collect();
    for span in by_name("request") {
        assert!(batches.contains(&span.parent_span_id), "{span:?}");
    }
    assert!(spans.iter().all(|span| span.end_time_unix_nano >= span.start_time_unix_nano));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_one_trace_from_job_to_batch_to_request_on_two_workers() {
    let (endpoint, otlp) = Endpoint::start().await;
    let (_sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(20), ..Behaviour::default() }).await;
    let mut fleet = Fleet::new(2_000, &url, FAST);
    fleet.world.env.extend(env(&otlp));
    let _workers = [fleet.worker(), fleet.worker()];
    publish(&fleet, PARENT).await;
    fleet.until_state("c1", "completed").await;
    until("all spans", || endpoint.count("request") == 20 && endpoint.count("plan") == 1).await;
    until("the spans of the job and its batches", || {
        endpoint.count("job") == 1 && endpoint.count("batch") == 20
    })
    .await;
    let spans = endpoint.spans();
    assert_tree(&spans);
    let job = spans.iter().find(|span| span.name == "job").unwrap();
    assert_eq!(attributes(job)["flowcast.rows"], "2000");
    // The trace is linked to the span of the publisher.
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let link = &job.links[0];
    assert_eq!(format!("00-{}-{}-01", hex(&link.trace_id), hex(&link.span_id)), PARENT);
    let request = attributes(spans.iter().find(|span| span.name == "request").unwrap());
    assert_eq!(
        (request["http.response.status_code"].as_str(), request["flowcast.messages"].as_str()),
        ("202", "100")
    );
    // Spans contain no phone numbers, names or credentials.
    let all = format!("{spans:?}");
    for secret in [&phone(1)[1..], "acme1", "s3cr3t-token", "name 1"] {
        assert!(!all.contains(secret), "{secret}");
    }
    let resources = endpoint.0.lock().unwrap().clone();
    let named = |text: &str| format!("{:?}", resources[0].resource_spans[0].resource).contains(text);
    assert!(named("\"flowcast\"") && named(env!("CARGO_PKG_VERSION")));
}

/// Publishes the job with a trace context.
async fn publish(fleet: &Fleet, traceparent: &str) {
    let connection = Connection::connect(&fleet.amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let body = std::fs::read(fleet.world.path("job.json")).unwrap();
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.into()));
    let properties = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    for _ in 0..500 {
        let published =
            channel.basic_publish("".into(), "flowcast.jobs".into(), options, &body, properties.clone());
        let confirmed = published.await.unwrap().await.unwrap();
        // The message is refused or returned until the queue is declared.
        if matches!(confirmed, Confirmation::Ack(None)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("timed out waiting for the job queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_api_is_linked_to_its_request_and_a_failure_is_marked() {
    let (endpoint, otlp) = Endpoint::start().await;
    let provider = Scripted::start(|nth, to| match nth {
        0 => Reaction::Answer(503, "", "<html>".into()),
        _ => accept(to),
    })
    .await;
    let mut world = World::new(150);
    world.env.extend(env(&otlp));
    let service = Service::in_world(world, "", &provider.url, TOKENS, FAST).await;
    let request = service.request(Method::POST, "/campaigns", "act-1").header("traceparent", PARENT);
    let mut job = job();
    job["audience"] = json!({ "recipients": (0..150).map(|n| json!({ "phone": phone(n), "name": "x" })).collect::<Vec<_>>() });
    let response = service.send(request.json(&job)).await;
    assert_eq!(response.status, 201, "{response:?}");
    service.until_state("c1", "completed").await;
    until("all spans", || endpoint.count("request") == 2 && endpoint.count("job") == 1).await;
    until("the batches", || endpoint.count("batch") == 2 && endpoint.count("plan") == 1).await;
    let spans = endpoint.spans();
    assert_tree(&spans);
    assert_eq!(spans.iter().find(|span| span.name == "job").unwrap().links.len(), 1);
    let failed = |span: &&Span| span.status.as_ref().is_some_and(|status| status.code == 2);
    let failed: Vec<_> = spans.iter().filter(failed).map(attributes).collect();
    assert!(failed.len() == 1 && failed[0]["error.type"] == "503", "{failed:?}");
    // The server's responses are measured by route.
    let metrics =
        service.client.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    let of_route = |route: &str| {
        metrics
            .lines()
            .any(|line| line.contains("http_server_request_duration_seconds_bucket") && line.contains(route))
    };
    assert!(of_route("http_route=\"/api/v1/campaigns/{id}\"") && !of_route("c1\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_endpoint_does_not_affect_a_campaign() {
    let mut world = World::new(300);
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    world.env.extend(env("http://127.0.0.1:1"));
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(ended.err.matches("dropping spans").count(), 1, "{}", ended.err);
}

#[test]
fn an_invalid_endpoint_is_refused_at_the_start() {
    for (name, value, hint) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http:// or https:// URL"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
    ] {
        let mut world = World::new(1);
        world.env.push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), "http://127.0.0.1:1".into()));
        world.env.push((name.into(), value.into()));
        let ended = world.flowcast(&["status", "c1"]);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.err.contains(name) && ended.err.contains(hint), "{}", ended.err);
    }
}
