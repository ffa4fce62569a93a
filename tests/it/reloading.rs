//! Changes of the configuration while workers run, and jobs that wait for their account.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flowcast::campaign::Callbacks;
use flowcast::sandbox::{Behaviour, Sandbox};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::fleet::{Fleet, LONG, until};
use crate::servers::{broker, free_port};
use crate::service::{FAST, Service, TOKENS};
use crate::support::{World, job, job_with, phone, sandbox};

/// Adds an account to the configuration.
fn add_account(world: &World, name: &str, url: &str) {
    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
    let more = format!(
        "[accounts.{name}]\nprovider = \"exotel\"\nbase_url = \"{url}\"\naccount_sid = \"acme1\"\napi_key = \"k\"\napi_token = \"t\"\n"
    );
    world.write("flowcast.toml", format!("{config}\n{more}"));
}

/// Returns how many recipients got a message from either sandbox, and asserts that no recipient got two.
fn count_recipients(sandboxes: [&Sandbox; 2]) -> usize {
    let mut all: Vec<String> =
        sandboxes.iter().flat_map(|sandbox| sandbox.taken()).map(|message| message.to).collect();
    all.sort();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count, "a recipient got two messages");
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_campaign_uses_the_changed_account() {
    const LIMITS: &str = "limits = { messages = \"400/s,burst=20\", requests = \"1000/s\" }";
    let ((before, old), (after, new)) =
        (sandbox(Behaviour::default()).await, sandbox(Behaviour::default()).await);
    let fleet = Fleet::new(4_000, &old, LIMITS);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the first messages to be sent", || before.count() > 100).await;
    fleet.configure(&new, LIMITS);
    until("both workers to reload the account", || fleet.log().matches("account changed").count() >= 2).await;
    until("the new address to be used", || after.count() > 0).await;
    fleet.until_state("c1", "completed").await;
    assert_eq!(count_recipients([&before, &after]), 4_000);
    assert!(before.count() < 4_000, "the new address must be used");

    // An invalid change of the account is ignored.
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    let broken = config.replace("api_token = \"s3cr3t-token\"", "api_token = { file = \"nowhere\" }");
    assert_ne!(broken, config);
    fleet.world.write("flowcast.toml", broken);
    until("the error to be logged", || {
        fleet.log().matches("main.api_token: cannot read nowhere").count() >= 2
    })
    .await;
    let list: Vec<Value> = (0..3).map(|row| json!({ "phone": phone(9_000 + row), "name": "x" })).collect();
    let mut more = job_with("/audience", json!({ "recipients": list }));
    more["id"] = json!("c2");
    broker(&fleet.amqp).await.submit(more.to_string().into_bytes()).await.unwrap();
    fleet.until_state("c2", "completed").await;
    assert_eq!(count_recipients([&before, &after]), 4_003);

    // Keys that need a restart are logged.
    fleet.world.write("flowcast.toml", config.replace("root = \".\"", "root = \"elsewhere\""));
    until("the key to be logged", || fleet.log().contains("need a restart: audiences.root")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_waits_while_its_account_is_not_configured() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(1_000, &url, "limits = { messages = \"100/s,burst=10\" }");
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 20).await;
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    fleet.world.write("flowcast.toml", config.replace("[accounts.main]", "[accounts.other]"));
    until("the campaign to wait", || {
        let reason = fleet.status("c1")["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("the account \"main\" is not configured")
    })
    .await;
    assert!(sandbox.count() < 1_000);
    fleet.world.write("flowcast.toml", config.replace("100/s,burst=10", "100000/s"));
    fleet.until_state("c1", "completed").await;
    assert_eq!((sandbox.count(), sandbox.stats()["sent_twice"].clone()), (1_000, json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_limit_of_recipients_counts_earlier_recipients() {
    const LIMITS: &str = "limits = { messages = \"200/s,burst=10\", requests = \"1000/s\" }";
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let service = Service::start_with(true, &url, TOKENS, LIMITS).await;
    let world = &service.fleet.world;
    world.write_audience(1_500);
    let submitted = service.post("/campaigns", &job()).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    until("the first messages to be sent", || sandbox.count() > 20).await;
    let paused = service.post("/campaigns/c1/pause", &json!({})).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
    world.write("flowcast.toml", config.replace("burst=10\"", "burst=10\", recipients = \"1200/d\""));
    until("the worker to reload the limits", || service.fleet.log().contains("limits changed")).await;
    let resumed = service.post("/campaigns/c1/resume", &json!({})).await;
    assert_eq!(resumed.status, 200, "{resumed:?}");
    until("the limit to be used up", || sandbox.count() >= 1_200).await;
    let waits = || service.fleet.status("c1")["reason"].to_string();
    until("the campaign to wait", || waits().contains("limits")).await;
    assert_eq!(sandbox.count(), 1_200);

    // The account is removed and added again, and its limits still count earlier recipients.
    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
    world.write("flowcast.toml", config.replace("[accounts.main]", "[accounts.other]"));
    until("the campaign to wait for the account", || waits().contains("is not configured")).await;
    world.write("flowcast.toml", config);
    until("the campaign to wait again", || waits().contains("limits")).await;
    assert_eq!(sandbox.count(), 1_200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_key_in_a_file_is_replaced_by_writing_the_file() {
    const KEYS: [&str; 2] = ["the key of yesterday", "the key of tomorrow"];
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let (fleet, port) = (Fleet::new(1, &url, FAST), free_port());
    fleet.world.write("key", KEYS[0]);
    let http = format!(
        "listen = \"127.0.0.1:{port}\"\npublic_url = \"https://flowcast.example.com\"\n[callbacks]\nkeys = [{{ file = \"key\" }}]\n"
    );
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    fleet.world.write("flowcast.toml", config.replace("listen = \"127.0.0.1:0\"\n", &http));
    let service = Service::run(fleet, port, &["worker"]).await;
    let status_with = async |key: &str| {
        let callbacks = Callbacks::new(&service.url.parse().unwrap(), "main", &[key]).unwrap();
        let response = service.client.post(callbacks.of_account()).json(&json!({})).send().await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(status_with(KEYS[0]).await, 200);
    assert_ne!(status_with(KEYS[1]).await, 200);
    service.fleet.world.write("key", KEYS[1]);
    while status_with(KEYS[1]).await != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The provider retries reports to earlier addresses, until their key is unknown or is configured again.
    while status_with(KEYS[0]).await != 503 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_an_account_that_no_worker_has_yet() {
    // More jobs than a worker prefetches, some of them without an id.
    const WITH_ID: usize = 40;
    const WITHOUT_ID: usize = 20;
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(20, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let job_of_new_account = |id: Option<String>| {
        let mut job = job_with("/account", json!("new"));
        match id {
            Some(id) => job["id"] = json!(id),
            None => drop(job.as_object_mut().unwrap().remove("id")),
        }
        job.to_string().into_bytes()
    };
    for nth in 0..WITH_ID {
        broker.submit(job_of_new_account(Some(format!("w{nth}")))).await.unwrap();
    }
    for _ in 0..WITHOUT_ID {
        broker.submit(job_of_new_account(None)).await.unwrap();
    }
    let _workers = [fleet.worker(), fleet.worker()];
    until("all jobs to wait", || fleet.log().matches("a job waits until").count() >= WITH_ID + WITHOUT_ID)
        .await;
    // They do not delay other jobs.
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    assert!(fleet.log().contains("the account \\\"new\\\" is not configured"), "{}", fleet.log());
    add_account(&fleet.world, "new", &url);
    let campaigns = 1 + WITH_ID + WITHOUT_ID;
    until("all campaigns to complete", || {
        let listed = fleet.world.flowcast(&["campaigns", "--json"]);
        let listed: Vec<Value> = serde_json::from_str(&listed.out).unwrap_or_default();
        listed.len() == campaigns && listed.iter().all(|campaign| campaign["state"] == "completed")
    })
    .await;
    assert_eq!(sandbox.count(), campaigns as u64 * 20);
    assert_eq!(broker.buried(10).await.unwrap().0, []);
}

/// A worker is killed while it defers jobs: each job with an id becomes one campaign, and one without an id at most one.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_jobs_wait_registers_no_campaign_twice() {
    const WITH_ID: usize = 60;
    const WITHOUT_ID: usize = 40;
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(2, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let mut job = job_with("/account", json!("new"));
    for nth in 0..WITH_ID {
        job["id"] = json!(format!("w{nth}"));
        broker.submit(job.to_string().into_bytes()).await.unwrap();
    }
    job.as_object_mut().unwrap().remove("id");
    // The jobs differ, because identical ones could not be told apart after a redelivery.
    for nth in 0..WITHOUT_ID {
        job["name"] = json!(format!("nameless {nth}"));
        broker.submit(job.to_string().into_bytes()).await.unwrap();
    }
    for waiting in [5, 30, 60] {
        let mut worker = fleet.worker();
        until("more jobs to wait", || fleet.log().matches("a job waits until").count() >= waiting).await;
        worker.kill();
    }
    add_account(&fleet.world, "new", &url);
    let _worker = fleet.worker();
    let start = Instant::now();
    loop {
        let listed = fleet.ok(&["campaigns", "--json"]).await.out;
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let name = |job: &Value| job["name"].as_str().map(str::to_owned);
        let mut without_id: BTreeSet<String> = listed.iter().filter_map(name).collect();
        let with_id = listed.iter().filter(|campaign| name(campaign).is_none()).count();
        assert_eq!(
            with_id + without_id.len(),
            listed.len(),
            "a job without an id is two campaigns: {listed:?}"
        );
        let dead = broker.buried(100).await.unwrap().0;
        for dead in dead {
            assert!(dead.error.contains("delivered before"), "{dead:?}");
            without_id.extend(name(&serde_json::from_slice(&dead.data).unwrap()));
        }
        if (with_id, without_id.len()) == (WITH_ID, WITHOUT_ID) {
            break;
        }
        assert!(start.elapsed() < LONG, "{with_id} with an id and {without_id:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A worker died after it had deferred a job and before the acknowledgement: the original is redelivered to a worker that has
/// the account.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_and_its_redelivered_original_are_one_campaign() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(3, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let mut job = job_with("/account", json!("new"));
    job.as_object_mut().unwrap().remove("id");
    broker.submit(job.to_string().into_bytes()).await.unwrap();
    let mut worker = fleet.worker();
    until("the job to wait", || fleet.log().contains("a job waits until")).await;
    worker.kill();
    add_account(&fleet.world, "new", &url);
    publish_waiting(&fleet, &job, &[("flowcast-again", AMQPValue::Boolean(true))]).await;
    let _worker = fleet.worker();
    until("the messages of the original to be sent", || sandbox.count() == 3).await;
    // The deferred copy is delivered, and belongs to the same campaign.
    until("both to be registered", || fleet.log().matches("campaign registered").count() == 2).await;
    let listed = fleet.ok(&["campaigns", "--json"]).await.out;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&listed).unwrap().len(), 1, "{listed}");
    assert_eq!(sandbox.count(), 3);
}

/// Publishes a document to the queue of waiting jobs, with headers.
async fn publish_waiting(fleet: &Fleet, job: &Value, headers: &[(&str, AMQPValue)]) {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), value.clone());
    }
    let properties = BasicProperties::default().with_headers(table);
    let connection = Connection::connect(&fleet.amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let body = job.to_string().into_bytes();
    let sent = channel.basic_publish(
        "".into(),
        "flowcast.jobs.waiting".into(),
        BasicPublishOptions::default(),
        &body,
        properties,
    );
    sent.await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_dead_lettered_after_an_hour_without_its_account() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(2, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let deferred_before = |minutes: i64| {
        [
            ("flowcast-put-off-at", AMQPValue::LongLongInt(now - minutes * 60_000)),
            ("flowcast-id", AMQPValue::LongString("given".into())),
        ]
    };
    let job = |id: &str| {
        let mut job = job_with("/account", json!("mian"));
        job["id"] = json!(id);
        job
    };
    publish_waiting(&fleet, &job("young"), &deferred_before(58)).await;
    publish_waiting(&fleet, &job("old"), &deferred_before(61)).await;
    // Invalid headers of other programs stop no worker, and let no job wait without end.
    for at in [i64::MAX, i64::MIN] {
        let mut headers = deferred_before(0);
        headers[0].1 = AMQPValue::LongLongInt(at);
        publish_waiting(&fleet, &job(if at > 0 { "tomorrow" } else { "long-ago" }), &headers).await;
    }
    // Without an id and redelivered: it may already wait under a generated id.
    let mut without_id = job("x");
    without_id.as_object_mut().unwrap().remove("id");
    publish_waiting(&fleet, &without_id, &[("flowcast-again", AMQPValue::Boolean(true))]).await;
    let _worker = fleet.worker();
    let mut dead_letters = Vec::new();
    while dead_letters.len() < 3 {
        dead_letters = broker.buried(10).await.unwrap().0;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("the other jobs to wait", || fleet.log().matches("a job waits until").count() >= 2).await;
    dead_letters.sort_by_key(|dead| (dead.error.len(), dead.data != job("old").to_string().into_bytes()));
    assert_eq!(dead_letters[0].data, job("old").to_string().into_bytes());
    assert_eq!(dead_letters.remove(1).data, job("long-ago").to_string().into_bytes());
    assert_eq!(dead_letters[1].data, without_id.to_string().into_bytes());
    insta::assert_snapshot!(dead_letters[0].error, @r#"the account "mian" is not configured; did you mean "main"?; the job waited for an hour"#);
    insta::assert_snapshot!(dead_letters[1].error, @r#"the account "mian" is not configured; did you mean "main"?; the job has no id and was delivered before, so a copy may be waiting under a generated id; requeue the job only if no such campaign starts within an hour"#);
    assert!(dead_letters.iter().all(|job| job.pointer == "/account"));
    assert_eq!(broker.buried(10).await.unwrap().0.len(), 3);
}
