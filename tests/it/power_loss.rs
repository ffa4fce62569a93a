//! Redis restarts with older data: after a loss of power or from a backup, with and without workers whose journals have the
//! lost writes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flowcast::sandbox::{Behaviour, Sandbox};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Worker, until};
use crate::schemas::blocks;
use crate::servers::{RedisProcess, amqp_url, free_port};
use crate::support::{World, sandbox};

/// Returns the number of power losses; `FLOWCAST_POWER_LOSSES=20` is full size.
fn losses() -> u64 {
    std::env::var("FLOWCAST_POWER_LOSSES").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Messages per second.
const RATE: u64 = 400;
/// Redis' usual settings: it acknowledges a write before the write is on disk.
const EVERY_SECOND: &str = "--appendonly yes --appendfsync everysec --maxmemory-policy noeviction";
/// Duration whose writes are lost with the power.
const LOST: Duration = Duration::from_secs(1);

/// Returns the file to which Redis appends its writes.
fn append_only_file(redis: &RedisProcess) -> PathBuf {
    let files = std::fs::read_dir(redis.folder.path().join("appendonlydir")).unwrap();
    let incremental = |path: &PathBuf| path.to_string_lossy().ends_with(".incr.aof");
    files.map(|file| file.unwrap().path()).filter(incremental).max().unwrap()
}

/// Kills Redis and removes the writes of its last second. Returns how many bytes were removed.
async fn lose_power(redis: &mut RedisProcess) -> u64 {
    let file = append_only_file(redis);
    let size = || std::fs::metadata(&file).unwrap().len();
    let mut sizes = VecDeque::from([(Instant::now(), size())]);
    let start = Instant::now();
    while start.elapsed() < LOST {
        tokio::time::sleep(Duration::from_millis(10)).await;
        sizes.push_back((Instant::now(), size()));
    }
    redis.kill();
    let (end, (_, earlier)) = (size(), sizes.pop_front().unwrap());
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(earlier).unwrap();
    end - earlier
}

/// Prepares a fleet on a Redis of its own, with the job of a slow campaign.
async fn slow_fleet(rows: u64, redis: &RedisProcess) -> (Fleet, Sandbox) {
    let behaviour = Behaviour { latency: Duration::from_millis(100), ..Behaviour::default() };
    let (sandbox, url) = sandbox(behaviour).await;
    let limits = format!("limits = {{ messages = \"{RATE}/s,burst=10\", requests = \"1000/s\" }}");
    let account = format!("{limits}\nconcurrency = 8\ntimeout = \"5s\"");
    let fleet = Fleet::on(World::new(rows), &redis.url(), &amqp_url(), &url, &account);
    let mut job = crate::support::job();
    job["limits"] = json!({ "messages": format!("{RATE}/s,burst=10") });
    fleet.world.write_job(&job);
    (fleet, sandbox)
}

/// Starts a worker as if on another machine: no other worker can read its journal.
fn worker_on_another_machine(fleet: &Fleet) -> (Worker, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let worker = fleet.worker_in(folder.path());
    (worker, folder)
}

async fn until_completed(fleet: &Fleet, timeout: Duration) -> Value {
    let mut status = Value::Null;
    let waited = tokio::time::timeout(timeout, async {
        while status["state"] != "completed" {
            tokio::time::sleep(Duration::from_millis(200)).await;
            status = fleet.status("c1");
        }
    });
    assert!(waited.await.is_ok(), "the campaign does not complete: {status}\n{}", fleet.log());
    status
}

/// Asserts that no message was sent twice or lost: each one is accepted, by the provider too, or in doubt.
fn assert_each_message_sent_at_most_once(fleet: &Fleet, sandbox: &Sandbox, rows: u64, status: &Value) {
    assert_eq!(sandbox.stats()["sent_twice"], 0, "{status}\n{}", fleet.log());
    let count = |state: &str| status["counts"][state].as_u64().unwrap();
    assert_eq!((count("total"), count("accepted") + count("in_doubt")), (rows, rows), "{status}");
    let accepted: HashMap<String, String> =
        sandbox.taken().into_iter().map(|message| (message.to, message.sid)).collect();
    let mut seen = HashSet::new();
    for line in fleet.world.report("c1") {
        let recipient = line["recipient"].as_str().unwrap().to_owned();
        if line["state"] == "accepted" {
            assert_eq!(line["sid"].as_str(), accepted.get(&recipient).map(String::as_str), "{line}");
        } else {
            assert_eq!(line["state"], "in_doubt", "{line}");
        }
        assert!(seen.insert(recipient), "{line}");
    }
    assert_eq!(seen.len() as u64, rows);
    eprintln!("accepted {}, in doubt {}, sent twice 0, lost 0", count("accepted"), count("in_doubt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_lost_with_the_power_are_restored_before_anything_is_sent() {
    let rows = losses() * 1_900 + 2_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(rows, &redis).await;
    let _workers = [fleet.worker(), worker_on_another_machine(&fleet).0];
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 200).await;
    for _ in 0..losses() {
        let bytes = lose_power(&mut redis).await;
        let (then, start) = (sandbox.count(), Instant::now());
        redis.restart();
        until("sending to continue", || sandbox.count() > then + RATE).await;
        eprintln!("{bytes} bytes lost, messages of a second sent {:.1?} after the restart", start.elapsed());
    }
    let status = until_completed(&fleet, Duration::from_secs(rows / RATE + 60)).await;
    assert!(fleet.log().contains("restored outcomes that Redis lost"), "{}", fleet.log());
    assert_each_message_sent_at_most_once(&fleet, &sandbox, rows, &status);
    assert!(status["counts"]["in_doubt"].as_u64().unwrap() <= losses() * 160, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_restores_the_lost_writes_of_dead_workers_on_its_machine() {
    let rows = 4_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(rows, &redis).await;
    let (mut first, mut second) = (fleet.worker(), fleet.worker());
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 800).await;
    lose_power(&mut redis).await;
    // All workers that sent are killed: the next worker on the machine reads their journals.
    first.kill();
    second.kill();
    redis.restart();
    let _third = fleet.worker();
    let status = until_completed(&fleet, Duration::from_mins(2)).await;
    assert!(fleet.log().contains("compared the journal of a dead worker of this machine"), "{}", fleet.log());
    assert_each_message_sent_at_most_once(&fleet, &sandbox, rows, &status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_with_unknown_lost_writes_is_held_until_an_operator_recovers_it() {
    let rows = 10_000 + losses() * 2_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(rows, &redis).await;
    let (mut lost, machine) = worker_on_another_machine(&fleet);
    let _other = fleet.worker();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 800).await;
    // One machine is lost with its journal, and another one loses power.
    lose_power(&mut redis).await;
    lost.kill();
    drop(machine);
    redis.restart();
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("1 worker") && reason.contains("flowcast recover c1"), "{reason}");
    let then = sandbox.count();
    // A plain resume is followed by another hold, and sends nothing.
    fleet.ok(&["resume", "c1"]).await;
    until("the campaign to be held again", || fleet.status("c1")["state"] == "held").await;
    let shown = fleet.ok(&["recover", "c1", "--dry-run"]).await;
    assert!(shown.out.contains("has not reported what it sent"), "{}", shown.out);
    assert_eq!(
        (sandbox.count(), &fleet.status("c1")["counts"]["in_doubt"]),
        (then, &status["counts"]["in_doubt"])
    );
    let recovery = fleet.ok(&["recover", "c1", "--json"]).await;
    let recovery: Value = serde_json::from_str(&recovery.out).unwrap();
    assert_eq!(recovery["gap"]["silent"].as_array().map(Vec::len), Some(1), "{recovery}");
    assert_eq!(recovery["recovered"]["state"], "running", "{recovery}");
    assert!(recovery["recovered"]["messages"].as_u64().unwrap() > 0, "{recovery}");
    let status = until_completed(&fleet, Duration::from_secs(rows / RATE + 60)).await;
    assert_each_message_sent_at_most_once(&fleet, &sandbox, rows, &status);
    // Messages that the rate limit cannot have admitted before were sent after the recovery.
    assert!(status["counts"]["accepted"].as_u64().unwrap() > 1_000, "{status}");
    let again = fleet.ok(&["recover", "c1"]).await;
    assert!(again.out.contains("no lost writes are known"), "{}", again.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_sends_no_message_again() {
    let rows = 3_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(rows, &redis).await;
    let worker = fleet.worker();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 800).await;
    let backup = std::fs::read(append_only_file(&redis)).unwrap();
    until_completed(&fleet, Duration::from_mins(1)).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    redis.kill();
    std::fs::write(append_only_file(&redis), backup).unwrap();
    redis.restart();
    let (_worker, _folder) = worker_on_another_machine(&fleet);
    let status = fleet.until_state("c1", "held").await;
    assert!(status["counts"]["accepted"].as_u64().unwrap() < rows, "{status}");
    fleet.ok(&["recover", "c1"]).await;
    let status = until_completed(&fleet, Duration::from_mins(1)).await;
    assert_each_message_sent_at_most_once(&fleet, &sandbox, rows, &status);
    // The messages in doubt can be resolved like any other.
    fleet.ok(&["resolve", "c1", "--abandon"]).await;
    assert_eq!(fleet.status("c1")["counts"]["in_doubt"], 0);
}

/// Runs a block of the page on backups, identified by its first line, as a reader does.
async fn run_documented_block(fleet: &Fleet, block: &str, redis: &RedisProcess) -> String {
    let blocks = blocks("docs/operations/backups.md", "sh");
    let script = blocks.into_iter().find(|script| script.starts_with(&format!("# {block}\n"))).unwrap();
    // The port on the page may be in use.
    let script = format!("set -euo pipefail\n{}", script.replace("6390", &free_port().to_string()));
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_flowcast")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut bash = tokio::process::Command::new("bash");
    bash.arg("-c").arg(script).current_dir(fleet.world.path("")).env("PATH", path);
    bash.env("REDIS_URL", redis.url()).env("REDIS_DIR", redis.folder.path());
    let ended = bash.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{block}: {out}\n{err}");
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_backed_up_and_restored_as_documented() {
    let rows = 3_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(rows, &redis).await;
    let worker = fleet.worker();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 600).await;
    run_documented_block(&fleet, "back up", &redis).await;
    let then = sandbox.count();
    until("more to be sent", || sandbox.count() > then + 400).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    redis.kill();
    run_documented_block(&fleet, "restore", &redis).await;
    redis.restart();
    let output = run_documented_block(&fleet, "recover", &redis).await;
    assert!(
        output.contains("campaign c1: running, ")
            && output.contains("in doubt because they may have been sent"),
        "{output}"
    );
    let (_worker, _folder) = worker_on_another_machine(&fleet);
    let status = until_completed(&fleet, Duration::from_mins(1)).await;
    assert_each_message_sent_at_most_once(&fleet, &sandbox, rows, &status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_backed_up_and_restored_as_documented() {
    let rows = 2_000;
    let redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(rows, &redis).await;
    let world = &fleet.world;
    let mut child =
        world.command(&["run", "job.json", "--store", "flowcast.db"]).stderr(Stdio::null()).spawn().unwrap();
    until("the first messages to be sent", || sandbox.count() > 300).await;
    run_documented_block(&fleet, "back up a store", &redis).await;
    let then = sandbox.count();
    until("more to be sent", || sandbox.count() > then + 400).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let output = run_documented_block(&fleet, "restore a store", &redis).await;
    assert!(output.contains("campaign c1: running, "), "{output}");
    let ended = world.run(&["run", "job.json", "--store", "flowcast.db", "--json"]).await;
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["state"], "completed", "{last}");
    assert_eq!(sandbox.stats()["sent_twice"], 0, "{last}");
    let count = |state: &str| last["counts"][state].as_u64().unwrap();
    assert_eq!(count("accepted") + count("in_doubt"), rows, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_removed_after_its_retention_is_not_registered_again() {
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(300, &redis).await;
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    fleet.world.write("flowcast.toml", config.replace("[redis]\n", "[redis]\nkeep_for = \"1s\"\n"));
    let _worker = fleet.worker();
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    // A worker that starts later removes campaigns whose retention is over.
    let finished = fleet.status("c1")["finished_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    until("the retention to be over", || jiff::Timestamp::now() > finished + Duration::from_secs(1)).await;
    let _other = fleet.worker();
    until("the campaign to be removed", || fleet.status("c1").is_null()).await;
    // The journal of the first worker still has the campaign.
    redis.kill();
    redis.restart();
    until("the journal to be compared", || fleet.log().contains("comparing this worker's journal")).await;
    let mut other = crate::support::job();
    other["id"] = "c2".into();
    other["audience"] = serde_json::json!({ "recipients": [{ "phone": "+919700000001", "name": "Asha" }] });
    fleet.world.write_job(&other);
    fleet.submit().await;
    fleet.until_state("c2", "completed").await;
    assert!(fleet.status("c1").is_null(), "{}", fleet.log());
    assert!(!fleet.log().contains("registering it again"), "{}", fleet.log());
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (301, &serde_json::json!(0)));
    // The id is free again, and the new campaign does not depend on the messages of the removed one.
    redis.kill();
    redis.restart();
    fleet.world.write_job(&crate::support::job());
    fleet.world.write_audience(400);
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 400, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_redis_lost_completely_is_registered_again() {
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(1_000, &redis).await;
    let _worker = fleet.worker();
    until("the worker", || fleet.log().contains("working on Redis")).await;
    let file = append_only_file(&redis);
    let then = std::fs::metadata(&file).unwrap().len();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 200).await;
    redis.kill();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(then).unwrap();
    redis.restart();
    let status = until_completed(&fleet, Duration::from_mins(1)).await;
    assert_each_message_sent_at_most_once(&fleet, &sandbox, 1_000, &status);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_causes_no_second_message_and_keeps_opt_outs() {
    let redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(1_000, &redis).await;
    // A recipient whose message has not been sent when the server is emptied.
    let suppressed = crate::support::phone(990);
    fleet.ok(&["suppress", "add", &suppressed]).await;
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 200).await;
    assert!(redis.responds("FLUSHALL", "+OK"));
    // The campaign seems to be lost and is submitted again.
    fleet.submit().await;
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("Redis was emptied") && reason.contains("flowcast recover c1"), "{reason}");
    // Journals that workers report later hold the campaign again.
    until("both workers to report their journals", || {
        fleet.log().matches("Redis was emptied while this worker ran").count() == 2
    })
    .await;
    until("the suppression list to be restored", || {
        fleet.world.flowcast(&["suppress", "list"]).out.contains(&suppressed)
    })
    .await;
    // A plain resume sends nothing: an operator must decide that unknown messages may have been sent.
    fleet.ok(&["resume", "c1"]).await;
    fleet.until_state("c1", "held").await;
    let sent = sandbox.count();
    let recovered = fleet.ok(&["recover", "c1"]).await;
    assert!(recovered.out.contains("in doubt because they may have been sent"), "{recovered:?}");
    let status = until_completed(&fleet, Duration::from_mins(2)).await;
    let count = |state: &str| status["counts"][state].as_u64().unwrap();
    // No message was sent twice, and after the recovery none was sent at all.
    assert_eq!(sandbox.stats()["sent_twice"], 0);
    assert_eq!(
        (count("accepted") + count("in_doubt") + count("skipped"), count("total")),
        (1_000, 1_000),
        "{status}"
    );
    assert!(
        count("accepted") > 100 && count("accepted") <= sent && sandbox.count() == sent,
        "{status}, {sent} sent"
    );
    assert!(sandbox.taken().iter().all(|message| message.to != suppressed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_recovery_is_completed_by_the_next() {
    let rows = 2_000;
    let redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = slow_fleet(rows, &redis).await;
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the first messages to be sent", || sandbox.count() > 400).await;
    assert!(redis.responds("FLUSHALL", "+OK"));
    fleet.until_state("c1", "held").await;
    until("the worker to report its journal", || {
        fleet.log().contains("Redis was emptied while this worker ran")
    })
    .await;
    let sent = sandbox.count();
    // Each recovery is killed later than the one before, until one completes.
    for nth in 0..40 {
        let mut recovery = fleet.world.command(&["recover", "c1"]).stdout(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(nth * 10)).await;
        let _ = recovery.kill();
        if recovery.wait().unwrap().success() {
            break;
        }
    }
    // A recovery that was killed between its last two writes has only the resume left.
    fleet.ok(&["recover", "c1"]).await;
    if fleet.status("c1")["state"] == "held" {
        fleet.ok(&["resume", "c1"]).await;
    }
    let status = until_completed(&fleet, Duration::from_mins(2)).await;
    let count = |state: &str| status["counts"][state].as_u64().unwrap();
    assert_eq!((count("accepted") + count("in_doubt"), count("total")), (rows, rows), "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (sent, &json!(0)), "{status}");
}
