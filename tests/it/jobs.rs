//! Jobs and control documents that other systems publish; invalid ones go unchanged to the dead-letter queue, and the worker
//! continues.

use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use flowcast::queue::rabbitmq::Broker;
use flowcast::queue::{DeadLetter, DeadLetterAction};
use flowcast::sandbox::Behaviour;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fleet::{Fleet, until};
use crate::servers::broker;
use crate::support::{World, job, job_with, phone, sandbox};

const FAST: &str =
    "limits = { messages = \"100000/s\", requests = \"10000/s\" }\nconcurrency = 2\ntimeout = \"2s\"";

async fn fleet(rows: u64) -> (Fleet, flowcast::sandbox::Sandbox, Broker) {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(rows, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    (fleet, sandbox, broker)
}

/// Waits until the dead-letter queue has at least `count` jobs, and returns them.
async fn dead_letters(broker: &Broker, count: usize) -> Vec<DeadLetter> {
    let start = std::time::Instant::now();
    loop {
        let (found, _) = broker.buried(100).await.unwrap();
        if found.len() >= count {
            return found;
        }
        assert!(start.elapsed() < std::time::Duration::from_mins(1), "{found:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_is_dead_lettered_unchanged_with_the_reason_and_the_worker_continues() {
    let (fleet, sandbox, broker) = fleet(20).await;
    let _worker = fleet.worker();
    let with = |pointer: &str, value: Value, id: &str| {
        let mut job = job_with(pointer, value);
        job["id"] = json!(id);
        job.to_string().into_bytes()
    };
    let csv = |path: &str| json!({ "csv": { "path": path } });
    let url = |url: &str| json!({ "csv": { "url": url } });
    broker.submit(job().to_string().into_bytes()).await.unwrap();
    fleet.until_state("c1", "completed").await;
    let mut changed = job_with("/message/text/body", json!("Other words"));
    changed["id"] = json!("c1");
    let mut large = job();
    large["name"] = json!("x".repeat(17 << 20));
    let jobs: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"{ no json".to_vec(), "is not JSON", ""),
        (b"\xff\xfe\x00".to_vec(), "not UTF-8", ""),
        (Vec::new(), "is not JSON", ""),
        (large.to_string().into_bytes(), "a job has at most", ""),
        (with("/version", json!(9), "v"), "this flowcast reads version 1", "/version"),
        (changed.to_string().into_bytes(), "already exists with different content", "/id"),
        (with("/audience", csv("none.csv"), "b"), "no such file", "/audience/csv/path"),
        (with("/audience", csv("../secret.csv"), "d"), "is outside the audience root", "/audience/csv/path"),
        (with("/audience", csv("/etc/passwd"), "e"), "is outside the audience root", "/audience/csv/path"),
        (with("/audience", url("https://10.0.0.1/a.csv"), "f"), "", "/audience/csv/url"),
        (with("/audience", url("http://169.254.169.254/latest"), "g"), "", "/audience/csv/url"),
        (
            with("/message/text/body", json!("{{ nmae }}"), "h"),
            "did you mean \"name\"?",
            "/message/text/body",
        ),
        (with("/id", json!("x}:job"), "x}:job"), "an id has", "/id"),
        (br#"{"version":1,"control":"pause","id":"nobody"}"#.to_vec(), "there is no campaign nobody", "/id"),
        (br#"{"version":1,"control":"stop","id":"c1"}"#.to_vec(), "\"stop\" is unknown", "/control"),
    ];
    for (job, ..) in &jobs {
        broker.submit(job.clone()).await.unwrap();
    }
    let dead = dead_letters(&broker, jobs.len()).await;
    assert_eq!(dead.len(), jobs.len());
    for (data, error, pointer) in &jobs {
        let found = dead.iter().find(|dead| dead.data == *data).expect("dead-lettered unchanged");
        assert!(found.error.contains(error), "{error:?}: {}", found.error);
        assert_eq!(found.pointer, *pointer, "{}", found.error);
    }
    // The worker continues.
    fleet.world.write_job(&json!({ "version": 1, "id": "after", "account": "main", "from": "+912248931479",
        "audience": { "csv": { "path": "audience.csv" } }, "message": { "type": "text", "text": { "body": "x" } } }));
    fleet.submit().await;
    fleet.until_state("after", "completed").await;
    assert_eq!(sandbox.count(), 40);

    // An operator lists them, fixes one and requeues it.
    let listed = fleet.ok(&["dead", "list", "--json"]).await;
    let listed: Vec<Value> = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed.len(), jobs.len());
    assert!(listed.iter().any(|dead| dead["id"] == "b" && dead["pointer"] == "/audience/csv/path"));
    fleet.world.write("none.csv", format!("phone,name\n{},x\n", phone(9_999)));
    assert_eq!(fleet.ok(&["dead", "requeue", "b"]).await.out, "requeued: 1\n");
    fleet.until_state("b", "completed").await;
    let text = fleet.ok(&["dead", "list"]).await.out;
    assert!(text.contains("is outside the audience root") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(fleet.ok(&["dead", "discard", "--all"]).await.out, format!("discarded: {}\n", jobs.len() - 1));
    assert!(fleet.ok(&["dead", "list"]).await.out.contains("no dead-lettered jobs"));
    assert_eq!(broker.unbury(DeadLetterAction::Discard, |_, _| true).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_copies_of_a_job_are_one_campaign() {
    let (fleet, sandbox, broker) = fleet(300).await;
    let job = job().to_string().into_bytes();
    for _ in 0..4 {
        broker.submit(job.clone()).await.unwrap();
    }
    let _workers = [fleet.worker(), fleet.worker()];
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 300);
    broker.submit(job).await.unwrap();
    let mut other = job_with("/audience", json!({ "recipients": [{ "phone": phone(9_999), "name": "x" }] }));
    other["id"] = json!("c2");
    broker.submit(other.to_string().into_bytes()).await.unwrap();
    fleet.until_state("c2", "completed").await;
    assert_eq!((sandbox.count(), sandbox.stats()["sent_twice"].clone()), (301, json!(0)));
    assert_eq!(broker.buried(10).await.unwrap().0, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_without_an_id_is_its_own_campaign() {
    let (fleet, sandbox, broker) = fleet(3).await;
    let mut job = job();
    job.as_object_mut().unwrap().remove("id");
    for _ in 0..2 {
        broker.submit(job.to_string().into_bytes()).await.unwrap();
    }
    let _worker = fleet.worker();
    until("both campaigns to be sent", || sandbox.count() == 6).await;
    let listed = fleet.ok(&["campaigns", "--json"]).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&listed.out).unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_submits_controls_and_receives_events() {
    let (fleet, _sandbox, _broker) = fleet(250).await;
    let _worker = fleet.worker();
    until("the worker", || fleet.log().contains("health and metrics")).await;
    let script = r##"
import json, pika, sys
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
mine = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(mine, "flowcast.events", "#")
# Declared as any other system would.
channel.queue_declare("flowcast.jobs", durable=True, arguments={"x-queue-type": "quorum"})
channel.confirm_delivery()
properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
channel.basic_publish("flowcast.jobs", "job", open(sys.argv[2]).read(), properties, mandatory=True)
for method, properties_, body in channel.consume(mine, inactivity_timeout=60):
    event = json.loads(body)
    print(method.routing_key, event["id"], json.dumps(event["counts"]), flush=True)
    print("EVENT", body.decode(), flush=True)
    assert event["event"] == method.routing_key == properties_.type and event["event_id"] == properties_.message_id
    if event["event"] == "campaign.completed":
        break
document = json.dumps({"version": 1, "control": "retry", "id": event["id"], "codes": ["500"]})
channel.basic_publish("", "flowcast.jobs", document, properties, mandatory=True)
connection.close()
"##;
    let (amqp, path) = (fleet.amqp.clone(), fleet.world.path("job.json"));
    let ended = tokio::task::spawn_blocking(move || {
        Command::new("/usr/bin/python3").args(["-c", script, &amqp]).arg(path).output().unwrap()
    })
    .await
    .unwrap();
    let out = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let events: Vec<Value> = out
        .lines()
        .filter_map(|line| line.strip_prefix("EVENT "))
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    events.iter().for_each(assert_as_documented);
    let results = tokio::task::spawn_blocking(move || {
        crate::schemas::validate(&crate::schemas::schema("event"), &events)
    });
    assert!(results.await.unwrap().iter().all(|passes| *passes), "{out}");
    assert!(out.contains("campaign.running c1") && out.contains("\"accepted\": 250"), "{out}");
    // An operator can read the SIDs with redis-cli.
    let read = Command::new("redis-cli")
        .args(["-u", &fleet.redis, "HGET", "flowcast:{c1}:batch:2", &phone(250)])
        .output()
        .unwrap();
    let value = String::from_utf8(read.stdout).unwrap();
    assert!(value.starts_with("accepted ") && value.trim().len() == 9 + 32, "{value}");
    until("the control document", || fleet.log().contains("\"action\":\"retry\"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_submitter_and_the_status_get_the_reason_of_a_refusal() {
    let (fleet, _sandbox, broker) = fleet(3).await;
    // `submit` can read the audience folder, and the file is not in it.
    fleet.world.write_job(&job_with("/audience", json!({ "csv": { "path": "nowhere.csv" } })));
    let refused = fleet.world.run(&["submit", "job.json", "--json"]).await;
    assert_eq!(refused.status, Some(2), "{refused:?}");
    let error: Value = serde_json::from_str(&refused.err).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("nowhere.csv"), "{error}");
    assert_eq!(broker.buried(10).await.unwrap().0, []);

    // Another system does not check its job, and the worker refuses it.
    let mut document = job();
    document["audience"] = json!({ "csv": { "path": "none.csv" } });
    broker.submit(document.to_string().into_bytes()).await.unwrap();
    let _worker = fleet.worker();
    until("the job to be refused", || fleet.log().contains("refused")).await;
    let listed = fleet.ok(&["dead", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let name = listed[0]["name"].as_str().unwrap();
    let status = fleet.world.run(&["status", "c1"]).await;
    assert_eq!(status.status, Some(2), "{status:?}");
    assert!(
        status.err.contains("a job with this id was refused: ") && status.err.contains("none.csv"),
        "{status:?}"
    );
    // Named by its digest, as in the list.
    let done = fleet.ok(&["dead", "discard", &name[..8]]).await;
    assert!(done.out.contains("discarded: 1"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_documents_do_what_the_commands_do() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(5_000, &url, "limits = { messages = \"500/s,burst=50\", requests = \"1000/s\" }");
    let broker = broker(&fleet.amqp).await;
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 100).await;
    let submit = async |control: &str| {
        let document = json!({ "version": 1, "id": "c1", "control": control });
        broker.submit(document.to_string().into_bytes()).await.unwrap();
    };
    submit("pause").await;
    fleet.until_state("c1", "paused").await;
    submit("resume").await;
    fleet.until_state("c1", "running").await;
    submit("cancel").await;
    fleet.until_state("c1", "cancelled").await;
    assert_eq!(broker.buried(10).await.unwrap().0, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_messages_are_published_as_events_after_the_ledger_has_them() {
    let (_sandbox, url) = sandbox(Behaviour { accept_rate: 0.5, ..Behaviour::default() }).await;
    let fleet = Fleet::new(40, &url, FAST);
    let mut events = listen(&fleet, &["message.#"]).await;
    let _worker = fleet.worker();
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    let rejected = status["counts"]["rejected"].as_u64().unwrap();
    assert!(rejected > 0);
    for _ in 0..rejected {
        let event = next_event(&mut events).await;
        assert_eq!((&event["event"], &event["id"]), (&json!("message.rejected"), &json!("c1")));
        assert!(event["recipient"].as_str().unwrap().starts_with("+91"), "{event}");
        assert!(event["message_ref"].as_str().unwrap().starts_with("c1.0."), "{event}");
        assert!(!event["code"].as_str().unwrap().is_empty());
    }
}

/// Binds a queue to the events and consumes it: gets what is published from now on.
pub async fn listen(fleet: &Fleet, keys: &[&str]) -> lapin::Consumer {
    broker(&fleet.amqp).await;
    let connection =
        lapin::Connection::connect(&fleet.amqp, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let exclusive = lapin::options::QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap();
    let name = queue.name().clone();
    for key in keys {
        let options = lapin::options::QueueBindOptions::default();
        let (exchange, key) = ("flowcast.events".into(), (*key).into());
        channel.queue_bind(name.clone(), exchange, key, options, FieldTable::default()).await.unwrap();
    }
    let options = lapin::options::BasicConsumeOptions { no_ack: true, ..Default::default() };
    channel.basic_consume(name, "".into(), options, FieldTable::default()).await.unwrap()
}

/// Returns the next event and checks it against the documentation.
pub async fn next_event(events: &mut lapin::Consumer) -> Value {
    use futures_util::StreamExt;
    let event = tokio::time::timeout(std::time::Duration::from_mins(1), events.next()).await;
    let event = serde_json::from_slice(&event.unwrap().unwrap().unwrap().data).unwrap();
    assert_as_documented(&event);
    event
}

/// Checks the names, types and enumerated values of an event against its schema. A full validator does so in
/// [`a_python_client_submits_controls_and_receives_events`].
fn assert_as_documented(event: &Value) {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| crate::schemas::schema("event"));
    let name = event["event"].as_str().unwrap();
    let is_meant =
        |arm: &&Value| arm["properties"]["event"]["enum"].as_array().unwrap().contains(&event["event"]);
    let arm = SCHEMA["oneOf"].as_array().unwrap().iter().find(is_meant).unwrap();
    for field in arm["required"].as_array().unwrap() {
        assert!(event.get(field.as_str().unwrap()).is_some(), "an event must have {field}: {event}");
    }
    for (field, value) in event.as_object().unwrap() {
        let rule = arm["properties"].get(field);
        let rule = rule.unwrap_or_else(|| panic!("{field} must be documented: {event}"));
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let is_kind = match &rule["type"] {
            Value::String(only) => only == kind,
            Value::Array(kinds) => kinds.contains(&json!(kind)),
            _ => rule["enum"].as_array().is_none_or(|words| words.contains(value)),
        };
        assert!(is_kind, "{field} must be as documented: {event}");
    }
    let page = include_str!("../../docs/reference/events.md");
    assert!(page.contains(&format!("`{name}`")), "{name} must be documented");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_provides_health_metrics_and_a_log() {
    let (fleet, _sandbox, _broker) = fleet(30).await;
    let _worker = fleet.worker();
    until("the worker", || fleet.log().contains("health and metrics on http://")).await;
    let log = fleet.log();
    let address = log.split("http://").nth(1).unwrap().split(['"', ' ']).next().unwrap().to_owned();
    let get = async |path: &str| {
        let url = format!("http://{address}{path}");
        let response = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await, (200, "ok\n".into()));
    assert_eq!(get("/readyz").await, (200, "ready\n".into()));
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    let (status, metrics) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "flowcast_messages_total{account=\"main\",state=\"accepted\"} 30",
        "flowcast_dependency_up{dependency=\"redis\"} 1",
        "flowcast_dependency_up{dependency=\"rabbitmq\"} 1",
        "flowcast_request_duration_seconds_count{account=\"main\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // Its log is JSON and contains no phone number.
    let log = fleet.log();
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    assert!(!log.contains("+9198") && !log.contains("s3cr3t"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_its_servers_logs_it() {
    let mut redis = crate::servers::RedisProcess::start("");
    redis.kill();
    let (_refuses, url) = crate::support::refusing_address();
    let fleet =
        Fleet::on(crate::support::World::new(1), &redis.url(), &crate::servers::amqp_url(), &url, FAST);
    let _worker = fleet.worker();
    until("the missing server to be logged", || fleet.log().contains("Redis is unreachable")).await;
    redis.restart();
    until("the worker to work", || fleet.log().contains("working on Redis and RabbitMQ")).await;
    assert!(fleet.log().contains("Redis is back"), "{}", fleet.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_with_one_configuration_run_on_one_machine() {
    let (fleet, _sandbox, _broker) = fleet(30).await;
    let port = crate::servers::free_port();
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    fleet.world.write("flowcast.toml", config.replace("127.0.0.1:0", &format!("127.0.0.1:{port}")));
    let _first = fleet.worker();
    until("the first worker", || fleet.log().contains(&format!("http://127.0.0.1:{port}"))).await;
    let _second = fleet.worker();
    until("the second worker", || fleet.log().matches("health and metrics on").count() == 2).await;
    assert!(fleet.log().contains("is in use, possibly by another worker"), "{}", fleet.log());
}

/// Since RabbitMQ 4.0, a queue drops a message that was returned to it 20 times.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_can_be_listed_any_number_of_times() {
    let (fleet, _sandbox, broker) = fleet(1).await;
    let _worker = fleet.worker();
    for nth in 0..3 {
        broker.submit(format!("no json {nth}").into_bytes()).await.unwrap();
    }
    let listed = dead_letters(&broker, 3).await;
    for _ in 0..25 {
        // The broker returns what was listed a moment later.
        assert_eq!(dead_letters(&broker, 3).await, listed);
    }
    let connection = lapin::Connection::connect(&fleet.amqp, lapin::ConnectionProperties::default()).await;
    let channel = connection.unwrap().create_channel().await.unwrap();
    let start = std::time::Instant::now();
    let oldest = loop {
        let options = lapin::options::BasicGetOptions::default();
        if let Some(oldest) = channel.basic_get("flowcast.dead".into(), options).await.unwrap() {
            break oldest;
        }
        assert!(start.elapsed() < std::time::Duration::from_mins(1), "the letters must be returned");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let returns = oldest.properties.headers().as_ref().unwrap().inner().get("x-delivery-count").cloned();
    assert!(returns.and_then(|count| count.as_long_long_int()).is_none_or(|count| count < 15), "{oldest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_wrong_and_how_to_fix_it() {
    let (fleet, _sandbox, _broker) = fleet(1).await;
    let ended = fleet.ok(&["doctor"]).await;
    for part in [
        "accounts.main",
        "accepts the credentials",
        "a worker will listen on",
        "appendfsync always",
        "noeviction",
        "all queues and exchanges exist",
        "agree",
    ] {
        assert!(ended.out.contains(part), "{part}\n{}", ended.out);
    }
    // A Redis without persistence, and a broker and a provider that cannot be reached.
    let redis = crate::servers::RedisProcess::start("--appendonly no --maxmemory-policy allkeys-lru");
    let world = World::new(1);
    let bad = Fleet::on(world, &redis.url(), "amqp://guest:guest@127.0.0.1:1/%2f", "http://127.0.0.1:1", "");
    let mut command = bad.world.command(&["doctor", "--json"]);
    let ended = command.env("FLOWCAST_HTTP__LISTEN", "8080").output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let findings: Vec<Value> = serde_json::from_slice(&ended.stdout).unwrap();
    let texts: String =
        findings.iter().filter(|f| f["grade"] == "bad").map(|f| f["text"].to_string()).collect();
    for part in [
        "set appendonly yes",
        "set maxmemory-policy noeviction",
        "is RabbitMQ running",
        "cannot connect to the provider",
        "is not an address (http.listen)",
    ] {
        assert!(texts.contains(part), "{part}\n{texts}");
    }
    assert!(!String::from_utf8(ended.stdout).unwrap().contains("s3cr3t"));
}

/// Returns the number of control documents ahead of an urgent one; `FLOWCAST_CONTROLS=10000` is full size.
fn controls() -> u32 {
    std::env::var("FLOWCAST_CONTROLS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_does_not_wait_for_control_documents_of_other_campaigns() {
    let (fleet, sandbox, broker) = fleet(2_000).await;
    let mut slow = job();
    slow["limits"] = json!({ "messages": "10/s" });
    fleet.world.write_job(&slow);
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 0).await;
    for nth in 0..controls() {
        let document = json!({ "version": 1, "control": "resume", "id": format!("nobody-{nth}") });
        broker.submit(document.to_string().into_bytes()).await.unwrap();
    }
    broker.submit(br#"{"version":1,"control":"pause","id":"c1"}"#.to_vec()).await.unwrap();
    let start = std::time::Instant::now();
    fleet.until_state("c1", "paused").await;
    eprintln!("paused {:.1?} after the last of {} control documents", start.elapsed(), controls());
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_cancel_are_read_ahead_and_not_undone_by_earlier_controls() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(50_000, &url, "limits = { messages = \"500/s,burst=50\", requests = \"1000/s\" }");
    let broker = broker(&fleet.amqp).await;
    let mut other =
        job_with("/audience", json!({ "recipients": [{ "phone": "+919700000001", "name": "Asha" }] }));
    other["id"] = json!("c2");
    fleet.world.write_job(&other);
    fleet.submit().await;
    fleet.world.write_job(&job());
    fleet.submit().await;
    let document = |id: &str, control: &str| {
        json!({ "version": 1, "id": id, "control": control }).to_string().into_bytes()
    };
    let worker = fleet.worker();
    fleet.until_state("c2", "completed").await;
    until("the campaign to be sending", || sandbox.count() > 100).await;
    worker.signal(Signal::SIGTERM);
    worker.exit_status().await;
    // No worker consumes while all of it is published.
    broker.submit(document("c1", "resume")).await.unwrap();
    for _ in 0..1_000 {
        broker.submit(document("c2", "retry")).await.unwrap();
    }
    for control in ["resume", "pause", "resume", "pause"] {
        broker.submit(document("c1", control)).await.unwrap();
    }
    let _worker = fleet.worker();
    let channel = crate::rabbitmq::channel(&fleet.amqp).await;
    let waiting = async || {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = channel.queue_declare("flowcast.jobs.waiting".into(), passive, FieldTable::default());
        queue.await.unwrap().message_count()
    };
    fleet.until_state("c1", "paused").await;
    assert!(waiting().await > 0, "the pause must not wait for earlier controls");
    // The campaign stays paused, and the earlier controls are not errors. A job behind all of them is done last.
    other["id"] = json!("c3");
    broker.submit(other.to_string().into_bytes()).await.unwrap();
    fleet.until_state("c3", "completed").await;
    assert_eq!(fleet.status("c1")["state"], "paused");
    assert_eq!(broker.buried(10).await.unwrap().0, []);
    // Later controls take effect.
    broker.submit(document("c1", "resume")).await.unwrap();
    fleet.until_state("c1", "running").await;
    // A cancellation is final, and earlier controls are not errors.
    for control in ["pause", "retry", "cancel"] {
        broker.submit(document("c1", control)).await.unwrap();
    }
    fleet.until_state("c1", "cancelled").await;
    until("all rows to be counted", || fleet.status("c1")["counts"]["total"] == 50_000).await;
    other["id"] = json!("c4");
    broker.submit(other.to_string().into_bytes()).await.unwrap();
    fleet.until_state("c4", "completed").await;
    assert_eq!(broker.buried(10).await.unwrap().0, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_dead_lettered_jobs_are_requeued_or_discarded_in_bulk() {
    const MANY: u64 = 600;
    let (fleet, _sandbox, broker) = fleet(1).await;
    let channel = crate::rabbitmq::channel(&fleet.amqp).await;
    let mut job = job();
    for nth in 0..MANY {
        job["id"] = json!(format!("refused-{nth}"));
        job["audience"] = json!({ "csv": { "path": "none.csv" } });
        let body = job.to_string().into_bytes();
        let options = lapin::options::BasicPublishOptions::default();
        channel
            .basic_publish(
                "".into(),
                "flowcast.dead".into(),
                options,
                &body,
                lapin::BasicProperties::default(),
            )
            .await
            .unwrap();
    }
    let count = || async { broker.buried(1).await.unwrap() };
    until_async("all jobs to be listed", async || count().await.1 == MANY as u32 - 1).await;
    // Requeued jobs are refused again, once each.
    let _worker = fleet.worker();
    let done = fleet.ok(&["dead", "requeue", "--all"]).await;
    assert!(done.out.contains(&format!("requeued: {MANY}")), "{}", done.out);
    until_async("all jobs to be refused again", async || count().await.1 == MANY as u32 - 1).await;
    let done = fleet.ok(&["dead", "discard", "--all"]).await;
    assert!(done.out.contains(&format!("discarded: {MANY}")), "{}", done.out);
    assert_eq!(count().await, (Vec::new(), 0));
    let done = fleet.ok(&["dead", "discard", "--all"]).await;
    assert!(done.out.contains("discarded: 0"), "{}", done.out);
}

/// Waits until a condition holds.
async fn until_async(what: &str, is_true: impl AsyncFn() -> bool) {
    let start = std::time::Instant::now();
    while !is_true().await {
        assert!(start.elapsed() < Duration::from_mins(5), "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
