//! What is changed in the configuration while workers run, and what a job does whose account is not there yet.

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

/// A configuration with one more account.
fn add_account(world: &World, name: &str, url: &str) {
    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
    let more = format!(
        "[accounts.{name}]\nprovider = \"exotel\"\nbase_url = \"{url}\"\naccount_sid = \"acme1\"\napi_key = \"k\"\napi_token = \"t\"\n"
    );
    world.write("flowcast.toml", format!("{config}\n{more}"));
}

/// Whom both wrote to, each once.
fn recipients(sandboxes: [&Sandbox; 2]) -> usize {
    let mut all: Vec<String> =
        sandboxes.iter().flat_map(|sandbox| sandbox.taken()).map(|taken| taken.to).collect();
    all.sort();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count, "somebody was written to twice");
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_goes_on_with_what_its_account_is_now() {
    const LIMITS: &str = "limits = { messages = \"400/s,burst=20\", requests = \"1000/s\" }";
    let ((before, old), (after, new)) =
        (sandbox(Behaviour::default()).await, sandbox(Behaviour::default()).await);
    let fleet = Fleet::new(4_000, &old, LIMITS);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("some to be sent", || before.count() > 100).await;
    fleet.configure(&new, LIMITS);
    until("both workers to know", || fleet.log().matches("account changed").count() >= 2).await;
    until("the new one to be used", || after.count() > 0).await;
    fleet.until_state("c1", "completed").await;
    assert_eq!(recipients([&before, &after]), 4_000);
    assert!(before.count() < 4_000, "the old address was used to the end");

    // One that can't be used any more stays as it was.
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    let broken = config.replace("api_token = \"s3cr3t-token\"", "api_token = { file = \"nowhere\" }");
    assert_ne!(broken, config);
    fleet.world.write("flowcast.toml", broken);
    until("the log to say it", || fleet.log().matches("main.api_token: cannot read nowhere").count() >= 2)
        .await;
    let list: Vec<Value> = (0..3).map(|row| json!({ "phone": phone(9_000 + row), "name": "x" })).collect();
    let mut more = job_with("/audience", json!({ "recipients": list }));
    more["id"] = json!("c2");
    broker(&fleet.amqp).await.submit(more.to_string().into_bytes()).await.unwrap();
    fleet.until_state("c2", "completed").await;
    assert_eq!(recipients([&before, &after]), 4_003);

    // What takes effect with a start alone is named.
    fleet.world.write("flowcast.toml", config.replace("root = \".\"", "root = \"elsewhere\""));
    until("the log to say it", || fleet.log().contains("need a restart: audiences.root")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_waits_while_its_account_is_taken_out() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(1_000, &url, "limits = { messages = \"100/s,burst=10\" }");
    let _worker = fleet.worker();
    fleet.submit().await;
    until("some to be sent", || sandbox.count() > 20).await;
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
async fn a_limit_of_recipients_that_is_new_counts_those_of_before() {
    const LIMITS: &str = "limits = { messages = \"200/s,burst=10\", requests = \"1000/s\" }";
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let service = Service::start_with(true, &url, TOKENS, LIMITS).await;
    let world = &service.fleet.world;
    world.write_audience(1_500);
    let submitted = service.post("/campaigns", &job()).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    until("some to be sent", || sandbox.count() > 20).await;
    let paused = service.post("/campaigns/c1/pause", &json!({})).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
    world.write("flowcast.toml", config.replace("burst=10\"", "burst=10\", recipients = \"1200/d\""));
    until("the worker to know", || service.fleet.log().contains("limits changed")).await;
    let resumed = service.post("/campaigns/c1/resume", &json!({})).await;
    assert_eq!(resumed.status, 200, "{resumed:?}");
    until("the limit to be used up", || sandbox.count() >= 1_200).await;
    let waits = || service.fleet.status("c1")["reason"].to_string();
    until("the campaign to wait", || waits().contains("limits")).await;
    assert_eq!(sandbox.count(), 1_200);

    // It is taken out and put back, under the limits that it had.
    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
    world.write("flowcast.toml", config.replace("[accounts.main]", "[accounts.other]"));
    until("the campaign to wait for it", || waits().contains("is not configured")).await;
    world.write("flowcast.toml", config);
    until("the campaign to wait again", || waits().contains("limits")).await;
    assert_eq!(sandbox.count(), 1_200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_callbacks_in_a_file_is_replaced_by_writing_the_file() {
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
    let answers = async |key: &str| {
        let callbacks = Callbacks::new(&service.url.parse().unwrap(), "main", &[key]).unwrap();
        let asked = service.client.post(callbacks.of_account()).json(&json!({})).send().await.unwrap();
        asked.status().as_u16()
    };
    assert_eq!(answers(KEYS[0]).await, 200);
    assert_ne!(answers(KEYS[1]).await, 200);
    service.fleet.world.write("key", KEYS[1]);
    while answers(KEYS[1]).await != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Reports to the addresses of before come again, until its name is forgotten or the key is put back beside the new one.
    while answers(KEYS[0]).await != 503 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_an_account_that_no_worker_knows_yet() {
    // More than are taken at once, and some without an id.
    const NAMED: usize = 40;
    const NAMELESS: usize = 20;
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(20, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let of_new = |id: Option<String>| {
        let mut job = job_with("/account", json!("new"));
        match id {
            Some(id) => job["id"] = json!(id),
            None => drop(job.as_object_mut().unwrap().remove("id")),
        }
        job.to_string().into_bytes()
    };
    for nth in 0..NAMED {
        broker.submit(of_new(Some(format!("w{nth}")))).await.unwrap();
    }
    for _ in 0..NAMELESS {
        broker.submit(of_new(None)).await.unwrap();
    }
    let _workers = [fleet.worker(), fleet.worker()];
    until("all to wait", || fleet.log().matches("a job waits until").count() >= NAMED + NAMELESS).await;
    // They hold nobody up.
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    assert!(fleet.log().contains("the account \\\"new\\\" is not configured"), "{}", fleet.log());
    add_account(&fleet.world, "new", &url);
    let campaigns = 1 + NAMED + NAMELESS;
    until("all to be there", || {
        let listed = fleet.world.flowcast(&["campaigns", "--json"]);
        let listed: Vec<Value> = serde_json::from_str(&listed.out).unwrap_or_default();
        listed.len() == campaigns && listed.iter().all(|campaign| campaign["state"] == "completed")
    })
    .await;
    assert_eq!(sandbox.count(), campaigns as u64 * 20);
    assert_eq!(broker.buried(10).await.unwrap().0, []);
}

/// A worker that dies while it puts jobs off: those with an id are one campaign each, and none without an id is two.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_jobs_wait_makes_no_campaign_twice() {
    const NAMED: usize = 60;
    const NAMELESS: usize = 40;
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(2, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let mut job = job_with("/account", json!("new"));
    for nth in 0..NAMED {
        job["id"] = json!(format!("w{nth}"));
        broker.submit(job.to_string().into_bytes()).await.unwrap();
    }
    job.as_object_mut().unwrap().remove("id");
    // Of several that are the same to the byte, one that is delivered again may be any.
    for nth in 0..NAMELESS {
        job["name"] = json!(format!("nameless {nth}"));
        broker.submit(job.to_string().into_bytes()).await.unwrap();
    }
    for waiting in [5, 30, 60] {
        let mut worker = fleet.worker();
        until("some to wait", || fleet.log().matches("a job waits until").count() >= waiting).await;
        worker.kill();
    }
    add_account(&fleet.world, "new", &url);
    let _worker = fleet.worker();
    let start = Instant::now();
    loop {
        let listed = fleet.ok(&["campaigns", "--json"]).await.out;
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let name = |job: &Value| job["name"].as_str().map(str::to_owned);
        let mut nameless: BTreeSet<String> = listed.iter().filter_map(name).collect();
        let named = listed.iter().filter(|campaign| name(campaign).is_none()).count();
        assert_eq!(named + nameless.len(), listed.len(), "a job without an id is two campaigns: {listed:?}");
        let dead = broker.buried(100).await.unwrap().0;
        for dead in dead {
            assert!(dead.error.contains("delivered before"), "{dead:?}");
            nameless.extend(name(&serde_json::from_slice(&dead.data).unwrap()));
        }
        if (named, nameless.len()) == (NAMED, NAMELESS) {
            break;
        }
        assert!(start.elapsed() < LONG, "{named} with an id and {nameless:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A worker died after it had put a job off and before that was acknowledged: the original comes again, to one that has the account.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_and_its_original_are_one_campaign() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(3, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let mut job = job_with("/account", json!("new"));
    job.as_object_mut().unwrap().remove("id");
    broker.submit(job.to_string().into_bytes()).await.unwrap();
    let mut worker = fleet.worker();
    until("it to wait", || fleet.log().contains("a job waits until")).await;
    worker.kill();
    add_account(&fleet.world, "new", &url);
    put(&fleet, &job, &[("flowcast-again", AMQPValue::Boolean(true))]).await;
    let _worker = fleet.worker();
    until("the original to be sent", || sandbox.count() == 3).await;
    // Its copy comes back, and is known.
    until("both to be registered", || fleet.log().matches("campaign registered").count() == 2).await;
    let listed = fleet.ok(&["campaigns", "--json"]).await.out;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&listed).unwrap().len(), 1, "{listed}");
    assert_eq!(sandbox.count(), 3);
}

/// Puts a document where jobs wait, with headers.
async fn put(fleet: &Fleet, job: &Value, headers: &[(&str, AMQPValue)]) {
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
async fn a_job_waits_an_hour_for_its_account_and_is_refused_then() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(2, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let put_off_at = |minutes: i64| {
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
    put(&fleet, &job("young"), &put_off_at(58)).await;
    put(&fleet, &job("old"), &put_off_at(61)).await;
    // What somebody else writes into the headers stops nobody, and lets nothing wait for ever.
    for at in [i64::MAX, i64::MIN] {
        let mut headers = put_off_at(0);
        headers[0].1 = AMQPValue::LongLongInt(at);
        put(&fleet, &job(if at > 0 { "tomorrow" } else { "long-ago" }), &headers).await;
    }
    // Without an id, and delivered before: it may wait already under the id that it was given then.
    let mut nameless = job("x");
    nameless.as_object_mut().unwrap().remove("id");
    put(&fleet, &nameless, &[("flowcast-again", AMQPValue::Boolean(true))]).await;
    let _worker = fleet.worker();
    let mut buried = Vec::new();
    while buried.len() < 3 {
        buried = broker.buried(10).await.unwrap().0;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("the others to wait", || fleet.log().matches("a job waits until").count() >= 2).await;
    buried.sort_by_key(|buried| (buried.error.len(), buried.data != job("old").to_string().into_bytes()));
    assert_eq!(buried[0].data, job("old").to_string().into_bytes());
    assert_eq!(buried.remove(1).data, job("long-ago").to_string().into_bytes());
    assert_eq!(buried[1].data, nameless.to_string().into_bytes());
    insta::assert_snapshot!(buried[0].error, @r#"the account "mian" is not configured; did you mean "main"?. It waited for an hour"#);
    insta::assert_snapshot!(buried[1].error, @r#"the account "mian" is not configured; did you mean "main"?. It has no id and was delivered before, so it may already be waiting under a generated id: requeue it only if no campaign of it begins within an hour"#);
    assert!(buried.iter().all(|job| job.pointer == "/account"));
    assert_eq!(broker.buried(10).await.unwrap().0.len(), 3);
}
