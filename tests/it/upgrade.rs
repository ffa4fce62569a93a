//! This version continues with data of earlier versions: stores, Redis keys and batches from the middle of a campaign.
//!
//! Each folder of `tests/fixtures` is one layout. A folder is added when a layout changes, and none is ever changed or removed
//! (`FLOWCAST_KEEP_FIXTURES=1 cargo test --test it layout_has_a_fixture` writes them).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flowcast::queue::{Queue, RabbitMq};
use flowcast::sandbox::Behaviour;
use nix::sys::signal::Signal;

use crate::fleet::{Fleet, until};
use crate::servers::{DURABLE, RedisProcess, amqp_url, broker};
use crate::support::{World, phone, sandbox};

const ROWS: u64 = 600;
/// Limits that are slow enough to interrupt a campaign.
const ACCOUNT: &str =
    "limits = { messages = \"200/s,burst=20\", requests = \"1000/s\" }\nconcurrency = 2\ntimeout = \"2s\"";
/// Names of the current layouts.
const STORE: &str = "store-14";
const REDIS: &str = "redis-1";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Returns the fixtures whose names start with a prefix.
fn fixtures_of(prefix: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let matches = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
    let mut found: Vec<_> = all.filter(matches).collect();
    found.sort();
    found
}

/// Creates a folder with the job and the audience of a fixture.
fn world(fixture: &Path) -> World {
    let world = World::new(1);
    for name in ["job.json", "audience.csv"] {
        world.write(name, std::fs::read(fixture.join(name)).unwrap());
    }
    world
}

async fn slow_sandbox() -> (flowcast::sandbox::Sandbox, String) {
    sandbox(Behaviour { latency: Duration::from_millis(20), ..Behaviour::default() }).await
}

/// Asserts that only unsettled messages of the fixture were sent, and all pending ones.
fn assert_sends_the_rest(before: &[(String, String)], sandbox: &flowcast::sandbox::Sandbox) {
    let sent: Vec<String> = sandbox.taken().into_iter().map(|message| message.to).collect();
    let settled: Vec<&String> = before
        .iter()
        .filter(|(_, state)| state != "pending" && state != "sending")
        .map(|(to, _)| to)
        .collect();
    assert!(settled.len() > 50, "the fixture was written too early: {}", settled.len());
    assert!(settled.iter().all(|to| !sent.contains(to)), "a settled message was sent again");
    for row in 1..=ROWS {
        let to = phone(row);
        let was_sending = before.iter().any(|(known, state)| *known == to && state == "sending");
        assert!(was_sending || sent.contains(&to) || settled.contains(&&to), "{to} is lost");
    }
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

fn states(world: &World) -> Vec<(String, String)> {
    let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_owned();
    world.report("c1").iter().map(|line| (field(line, "recipient"), field(line, "state"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_of_earlier_versions_continue_mid_campaign() {
    for fixture in fixtures_of("store-") {
        let world = world(&fixture);
        world.write("flowcast.db", std::fs::read(fixture.join("flowcast.db")).unwrap());
        let (sandbox, url) = slow_sandbox().await;
        world.write_config(&url, ACCOUNT);
        let before = states(&world);
        let ended = world.run(&["run", "job.json"]).await;
        assert!(matches!(ended.status, Some(0 | 3)), "{}: {ended:?}", fixture.display());
        let counts = world.status("c1")["counts"].clone();
        let count = |state: &str| counts[state].as_u64().unwrap();
        assert_eq!((count("total"), count("accepted") + count("in_doubt")), (ROWS, ROWS), "{counts}");
        assert_sends_the_rest(&before, &sandbox);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_layout_7_continues_mid_campaign() {
    // Layout 7 differs from layout 8 only by a missing column.
    let fixture = fixtures().join("store-8");
    let world = world(&fixture);
    world.write("flowcast.db", std::fs::read(fixture.join("flowcast.db")).unwrap());
    let store = rusqlite::Connection::open(world.path("flowcast.db")).unwrap();
    store.execute_batch("ALTER TABLE campaign DROP COLUMN doubt_below; PRAGMA user_version = 7").unwrap();
    drop(store);
    let (sandbox, url) = slow_sandbox().await;
    world.write_config(&url, ACCOUNT);
    let before = states(&world);
    let ended = world.run(&["run", "job.json"]).await;
    assert!(matches!(ended.status, Some(0 | 3)), "{ended:?}");
    assert_sends_the_rest(&before, &sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_two_versions_share_a_queue() {
    let (sandbox, url) = slow_sandbox().await;
    let fleet = Fleet::new(4_000, &url, ACCOUNT);
    let mut job = crate::support::job();
    job["limits"] = serde_json::json!({ "messages": "200/s,burst=20" });
    fleet.world.write_job(&job);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 200).await;
    fleet.ok(&["pause", "c1"]).await;
    until("no message to be in flight", || fleet.status("c1")["counts"]["sending"] == 0).await;
    // Half of the queued batches are published again in the format of the first version: one batch per message, in JSON.
    let broker = broker(&fleet.amqp).await;
    let queue = RabbitMq::open(&broker, &"c1".parse().unwrap(), 4);
    let connection = lapin::Connection::connect(&fleet.amqp, lapin::ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let (mut queued, mut first) = (Vec::new(), 0);
    while let Ok(batch) = tokio::time::timeout(Duration::from_secs(2), queue.next()).await {
        queued.push(batch.unwrap());
    }
    assert!(queued.len() >= 8, "{} batches are queued", queued.len());
    for (nth, (batch, receipt)) in queued.into_iter().enumerate() {
        if nth % 2 == 0 {
            first += 1;
            let json = serde_json::to_vec(&batch).unwrap();
            let published = channel.basic_publish(
                "".into(),
                "flowcast.batches.c1".into(),
                lapin::options::BasicPublishOptions::default(),
                &json,
                lapin::BasicProperties::default().with_delivery_mode(2),
            );
            published.await.unwrap();
        } else {
            queue.publish(vec![batch]).await.unwrap();
        }
        queue.acknowledge(receipt).await.unwrap();
    }
    queue.close().await;
    eprintln!("{first} batches of the first version");
    fleet.ok(&["resume", "c1"]).await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 4_000, "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (4_000, &serde_json::json!(0)));
    // No batch was lost and planned again, or dead-lettered.
    assert!(!fleet.log().contains("planned again"), "{}", fleet.log());
    assert_eq!(broker.buried(1).await.unwrap().0.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keys_of_earlier_versions_continue_mid_campaign() {
    for fixture in fixtures_of("redis-") {
        let mut redis = RedisProcess::start("--appendonly no");
        redis.kill();
        std::fs::write(
            redis.folder.path().join("dump.rdb"),
            std::fs::read(fixture.join("dump.rdb")).unwrap(),
        )
        .unwrap();
        redis.restart();
        let (sandbox, url) = slow_sandbox().await;
        let fleet = Fleet::on(world(&fixture), &redis.url(), &amqp_url(), &url, ACCOUNT);
        let before = states(&fleet.world);
        let _worker = fleet.worker();
        fleet.ok(&["resume", "c1"]).await;
        let status = fleet.until_state("c1", "completed").await;
        let count = |state: &str| status["counts"][state].as_u64().unwrap();
        assert_eq!((count("total"), count("accepted") + count("in_doubt")), (ROWS, ROWS), "{status}");
        assert_sends_the_rest(&before, &sandbox);
    }
}

/// Returns whether the tests write fixtures.
fn writes_fixtures() -> bool {
    std::env::var("FLOWCAST_KEEP_FIXTURES").is_ok()
}

/// Creates the folder of a fixture with the job and the audience.
fn create_fixture(name: &str, world: &World) -> PathBuf {
    let folder = fixtures().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["job.json", "audience.csv"] {
        std::fs::copy(world.path(file), folder.join(file)).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_layout_has_a_fixture() {
    if !writes_fixtures() {
        assert!(
            fixtures().join(STORE).join("flowcast.db").exists(),
            "the current layout of stores has no fixture"
        );
        return;
    }
    let world = World::new(ROWS);
    let (sandbox, url) = slow_sandbox().await;
    world.write_config(&url, ACCOUNT);
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    until("the first messages to be sent", || sandbox.count() > 200).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let store = rusqlite::Connection::open(world.path("flowcast.db")).unwrap();
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(store);
    std::fs::copy(world.path("flowcast.db"), create_fixture(STORE, &world).join("flowcast.db")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_layout_has_a_fixture() {
    if !writes_fixtures() {
        assert!(
            fixtures().join(REDIS).join("dump.rdb").exists(),
            "the current layout of Redis' keys has no fixture"
        );
        return;
    }
    let redis = RedisProcess::start(DURABLE);
    let (sandbox, url) = slow_sandbox().await;
    let fleet = Fleet::on(World::new(ROWS), &redis.url(), &amqp_url(), &url, ACCOUNT);
    let worker = fleet.worker();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 200).await;
    fleet.ok(&["pause", "c1"]).await;
    until("no message to be in flight", || fleet.status("c1")["counts"]["sending"] == 0).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    assert!(redis.responds("SAVE", "+OK"));
    std::fs::copy(redis.folder.path().join("dump.rdb"), create_fixture(REDIS, &fleet.world).join("dump.rdb"))
        .unwrap();
}
