//! What earlier versions wrote, this one goes on with: stores, Redis keys and batches that were kept in the middle of a
//! campaign. Each folder of `tests/fixtures` is one layout; a new one is added when a layout changes, and none is ever
//! changed or removed (`FLOWCAST_KEEP_FIXTURES=1 cargo test --test it keeps_what_it_writes` writes them).

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
/// Slow enough to be met in the middle.
const ACCOUNT: &str =
    "limits = { messages = \"200/s,burst=20\", requests = \"1000/s\" }\nconcurrency = 2\ntimeout = \"2s\"";
/// What the last layouts are called.
const STORE: &str = "store-14";
const REDIS: &str = "redis-1";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The fixtures whose names begin so.
fn kept(kind: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let is_kind = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(kind);
    let mut kept: Vec<_> = all.filter(is_kind).collect();
    kept.sort();
    kept
}

/// A world with a kept job and its audience.
fn world(fixture: &Path) -> World {
    let world = World::new(1);
    for name in ["job.json", "audience.csv"] {
        world.write(name, std::fs::read(fixture.join(name)).unwrap());
    }
    world
}

async fn slow() -> (flowcast::sandbox::Sandbox, String) {
    sandbox(Behaviour { latency: Duration::from_millis(20), ..Behaviour::default() }).await
}

/// Nobody whom the fixture knows as reached, or in doubt, is sent to again, and everybody else is.
fn is_the_rest(before: &[(String, String)], sandbox: &flowcast::sandbox::Sandbox) {
    let taken: Vec<String> = sandbox.taken().into_iter().map(|taken| taken.to).collect();
    let settled: Vec<&String> = before
        .iter()
        .filter(|(_, state)| state != "pending" && state != "sending")
        .map(|(to, _)| to)
        .collect();
    assert!(settled.len() > 50, "the fixture was kept too early: {}", settled.len());
    assert!(settled.iter().all(|to| !taken.contains(to)), "somebody is sent to again");
    for row in 1..=ROWS {
        let to = phone(row);
        let was_sending = before.iter().any(|(known, state)| *known == to && state == "sending");
        assert!(was_sending || taken.contains(&to) || settled.contains(&&to), "{to} is lost");
    }
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

fn states(world: &World) -> Vec<(String, String)> {
    let of = |line: &serde_json::Value, field: &str| line[field].as_str().unwrap().to_owned();
    world.report("c1").iter().map(|line| (of(line, "recipient"), of(line, "state"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_of_earlier_versions_go_on_in_the_middle_of_a_campaign() {
    for fixture in kept("store-") {
        let world = world(&fixture);
        world.write("flowcast.db", std::fs::read(fixture.join("flowcast.db")).unwrap());
        let (sandbox, url) = slow().await;
        world.write_config(&url, ACCOUNT);
        let before = states(&world);
        let ended = world.run(&["run", "job.json"]).await;
        assert!(matches!(ended.status, Some(0 | 3)), "{}: {ended:?}", fixture.display());
        let counts = world.status("c1")["counts"].clone();
        let of = |state: &str| counts[state].as_u64().unwrap();
        assert_eq!((of("total"), of("accepted") + of("in_doubt")), (ROWS, ROWS), "{counts}");
        is_the_rest(&before, &sandbox);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_the_layout_before_goes_on_too() {
    // Layout 7 had one column less, and nothing else was different.
    let fixture = fixtures().join("store-8");
    let world = world(&fixture);
    world.write("flowcast.db", std::fs::read(fixture.join("flowcast.db")).unwrap());
    let store = rusqlite::Connection::open(world.path("flowcast.db")).unwrap();
    store.execute_batch("ALTER TABLE campaign DROP COLUMN doubt_below; PRAGMA user_version = 7").unwrap();
    drop(store);
    let (sandbox, url) = slow().await;
    world.write_config(&url, ACCOUNT);
    let before = states(&world);
    let ended = world.run(&["run", "job.json"]).await;
    assert!(matches!(ended.status, Some(0 | 3)), "{ended:?}");
    is_the_rest(&before, &sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_two_versions_travel_side_by_side() {
    let (sandbox, url) = slow().await;
    let fleet = Fleet::new(4_000, &url, ACCOUNT);
    let mut job = crate::support::job();
    job["limits"] = serde_json::json!({ "messages": "200/s,burst=20" });
    fleet.world.write_job(&job);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 200).await;
    fleet.ok(&["pause", "c1"]).await;
    until("nothing to be under way", || fleet.status("c1")["counts"]["sending"] == 0).await;
    // Half of what is queued is put back as the first version wrote it: one batch a message, JSON.
    let broker = broker(&fleet.amqp).await;
    let queue = RabbitMq::open(&broker, &"c1".parse().unwrap(), 4);
    let connection = lapin::Connection::connect(&fleet.amqp, lapin::ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let (mut taken, mut first) = (Vec::new(), 0);
    while let Ok(batch) = tokio::time::timeout(Duration::from_secs(2), queue.next()).await {
        taken.push(batch.unwrap());
    }
    assert!(taken.len() >= 8, "{} batches are queued", taken.len());
    for (nth, (batch, receipt)) in taken.into_iter().enumerate() {
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
    // None of them was lost and planned again, and none was buried.
    assert!(!fleet.log().contains("planned again"), "{}", fleet.log());
    assert_eq!(broker.buried(1).await.unwrap().0.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keys_of_earlier_versions_go_on_in_the_middle_of_a_campaign() {
    for fixture in kept("redis-") {
        let mut redis = RedisProcess::start("--appendonly no");
        redis.kill();
        std::fs::write(
            redis.folder.path().join("dump.rdb"),
            std::fs::read(fixture.join("dump.rdb")).unwrap(),
        )
        .unwrap();
        redis.restart();
        let (sandbox, url) = slow().await;
        let fleet = Fleet::on(world(&fixture), &redis.url(), &amqp_url(), &url, ACCOUNT);
        let before = states(&fleet.world);
        let _worker = fleet.worker();
        fleet.ok(&["resume", "c1"]).await;
        let status = fleet.until_state("c1", "completed").await;
        let of = |state: &str| status["counts"][state].as_u64().unwrap();
        assert_eq!((of("total"), of("accepted") + of("in_doubt")), (ROWS, ROWS), "{status}");
        is_the_rest(&before, &sandbox);
    }
}

/// Whether fixtures are to be written.
fn keeps() -> bool {
    std::env::var("FLOWCAST_KEEP_FIXTURES").is_ok()
}

fn keep(name: &str, world: &World) -> PathBuf {
    let folder = fixtures().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["job.json", "audience.csv"] {
        std::fs::copy(world.path(file), folder.join(file)).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_keeps_what_it_writes() {
    if !keeps() {
        assert!(fixtures().join(STORE).join("flowcast.db").exists(), "the last layout of stores is not kept");
        return;
    }
    let world = World::new(ROWS);
    let (sandbox, url) = slow().await;
    world.write_config(&url, ACCOUNT);
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    until("it to be on its way", || sandbox.count() > 200).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let store = rusqlite::Connection::open(world.path("flowcast.db")).unwrap();
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(store);
    std::fs::copy(world.path("flowcast.db"), keep(STORE, &world).join("flowcast.db")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_what_it_writes() {
    if !keeps() {
        assert!(
            fixtures().join(REDIS).join("dump.rdb").exists(),
            "the last layout of Redis' keys is not kept"
        );
        return;
    }
    let redis = RedisProcess::start(DURABLE);
    let (sandbox, url) = slow().await;
    let fleet = Fleet::on(World::new(ROWS), &redis.url(), &amqp_url(), &url, ACCOUNT);
    let worker = fleet.worker();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 200).await;
    fleet.ok(&["pause", "c1"]).await;
    until("nothing to be under way", || fleet.status("c1")["counts"]["sending"] == 0).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    assert!(redis.says("SAVE", "+OK"));
    std::fs::copy(redis.folder.path().join("dump.rdb"), keep(REDIS, &fleet.world).join("dump.rdb")).unwrap();
}
