//! Redis that comes back older than it was: after a loss of power, from a backup, with and without those who know
//! what it has forgotten.

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

/// How often the power goes; `FLOWCAST_POWER_LOSSES=20` is the whole of it.
fn losses() -> u64 {
    std::env::var("FLOWCAST_POWER_LOSSES").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// How many messages are sent a second.
const RATE: u64 = 400;
/// Redis as it is set up by most: it answers before the disk has it.
const EVERY_SECOND: &str = "--appendonly yes --appendfsync everysec --maxmemory-policy noeviction";
/// How much of it a loss of power takes.
const LOST: Duration = Duration::from_secs(1);

/// The file that grows, of those that hold its data.
fn growing(redis: &RedisProcess) -> PathBuf {
    let files = std::fs::read_dir(redis.folder.path().join("appendonlydir")).unwrap();
    let incremental = |path: &PathBuf| path.to_string_lossy().ends_with(".incr.aof");
    files.map(|file| file.unwrap().path()).filter(incremental).max().unwrap()
}

/// Kills Redis, and takes what it wrote in its last second. Returns how many bytes that were.
async fn lose_power(redis: &mut RedisProcess) -> u64 {
    let file = growing(redis);
    let size = || std::fs::metadata(&file).unwrap().len();
    let mut sizes = VecDeque::from([(Instant::now(), size())]);
    let begun = Instant::now();
    while begun.elapsed() < LOST {
        tokio::time::sleep(Duration::from_millis(10)).await;
        sizes.push_back((Instant::now(), size()));
    }
    redis.kill();
    let (end, (_, then)) = (size(), sizes.pop_front().unwrap());
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(then).unwrap();
    end - then
}

/// A fleet on a Redis of its own, with a campaign that takes its time.
async fn begin(rows: u64, redis: &RedisProcess) -> (Fleet, Sandbox) {
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

/// A worker on another machine: nobody else gets at what it keeps there.
fn elsewhere(fleet: &Fleet) -> (Worker, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let worker = fleet.worker_in(folder.path());
    (worker, folder)
}

async fn until_completed(fleet: &Fleet, longest: Duration) -> Value {
    let mut status = Value::Null;
    let waited = tokio::time::timeout(longest, async {
        while status["state"] != "completed" {
            tokio::time::sleep(Duration::from_millis(200)).await;
            status = fleet.status("c1");
        }
    });
    assert!(waited.await.is_ok(), "it does not end: {status}\n{}", fleet.log());
    status
}

/// Nobody got it twice, and nobody is lost: who is accepted got it, and who is not is in doubt.
fn nobody_twice_nobody_lost(fleet: &Fleet, sandbox: &Sandbox, rows: u64, status: &Value) {
    assert_eq!(sandbox.stats()["sent_twice"], 0, "{status}\n{}", fleet.log());
    let of = |state: &str| status["counts"][state].as_u64().unwrap();
    assert_eq!((of("total"), of("accepted") + of("in_doubt")), (rows, rows), "{status}");
    let taken: HashMap<String, String> =
        sandbox.taken().into_iter().map(|taken| (taken.to, taken.sid)).collect();
    let mut seen = HashSet::new();
    for line in fleet.world.report("c1") {
        let recipient = line["recipient"].as_str().unwrap().to_owned();
        if line["state"] == "accepted" {
            assert_eq!(line["sid"].as_str(), taken.get(&recipient).map(String::as_str), "{line}");
        } else {
            assert_eq!(line["state"], "in_doubt", "{line}");
        }
        assert!(seen.insert(recipient), "{line}");
    }
    assert_eq!(seen.len() as u64, rows);
    eprintln!("accepted {}, in doubt {}, sent twice 0, lost 0", of("accepted"), of("in_doubt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_loss_of_power_took_is_written_again_before_anything_is_sent() {
    let rows = losses() * 1_900 + 2_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(rows, &redis).await;
    let _workers = [fleet.worker(), elsewhere(&fleet).0];
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 200).await;
    for _ in 0..losses() {
        let bytes = lose_power(&mut redis).await;
        let (then, begun) = (sandbox.count(), Instant::now());
        redis.restart();
        until("sending to go on", || sandbox.count() > then + RATE).await;
        eprintln!("{bytes} bytes lost, sending again for a second after {:.1?}", begun.elapsed());
    }
    let status = until_completed(&fleet, Duration::from_secs(rows / RATE + 60)).await;
    assert!(fleet.log().contains("restored outcomes that Redis lost"), "{}", fleet.log());
    nobody_twice_nobody_lost(&fleet, &sandbox, rows, &status);
    assert!(status["counts"]["in_doubt"].as_u64().unwrap() <= losses() * 160, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_died_with_it_is_spoken_for_by_those_on_its_machine() {
    let rows = 4_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(rows, &redis).await;
    let (mut first, mut second) = (fleet.worker(), fleet.worker());
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 800).await;
    lose_power(&mut redis).await;
    // None of those that sent lives on: whoever is started on the machine next knows what they did.
    first.kill();
    second.kill();
    redis.restart();
    let _third = fleet.worker();
    let status = until_completed(&fleet, Duration::from_mins(2)).await;
    assert!(fleet.log().contains("compared the journal of a dead worker of this machine"), "{}", fleet.log());
    nobody_twice_nobody_lost(&fleet, &sandbox, rows, &status);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_knows_what_was_sent_the_campaign_is_held_until_a_person_decides() {
    let rows = 10_000 + losses() * 2_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(rows, &redis).await;
    let (mut lost, machine) = elsewhere(&fleet);
    let _other = fleet.worker();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 800).await;
    // A machine goes, with what it knew, and the power of another.
    lose_power(&mut redis).await;
    lost.kill();
    drop(machine);
    redis.restart();
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("1 worker") && reason.contains("flowcast recover c1"), "{reason}");
    let then = sandbox.count();
    // Resumed as it is, it is held again, and nothing has gone out.
    fleet.ok(&["resume", "c1"]).await;
    until("it to be held again", || fleet.status("c1")["state"] == "held").await;
    let shown = fleet.ok(&["recover", "c1", "--dry-run"]).await;
    assert!(shown.out.contains("has not reported what it sent"), "{}", shown.out);
    assert_eq!(
        (sandbox.count(), &fleet.status("c1")["counts"]["in_doubt"]),
        (then, &status["counts"]["in_doubt"])
    );
    let told = fleet.ok(&["recover", "c1", "--json"]).await;
    let told: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(told["gap"]["silent"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["recovered"]["state"], "running", "{told}");
    assert!(told["recovered"]["messages"].as_u64().unwrap() > 0, "{told}");
    let status = until_completed(&fleet, Duration::from_secs(rows / RATE + 60)).await;
    nobody_twice_nobody_lost(&fleet, &sandbox, rows, &status);
    // What can't have been sent, at its rate, was sent.
    assert!(status["counts"]["accepted"].as_u64().unwrap() > 1_000, "{status}");
    let again = fleet.ok(&["recover", "c1"]).await;
    assert!(again.out.contains("no lost writes are known"), "{}", again.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_restored_sends_nothing_again() {
    let rows = 3_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(rows, &redis).await;
    let worker = fleet.worker();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 800).await;
    let backup = std::fs::read(growing(&redis)).unwrap();
    until_completed(&fleet, Duration::from_mins(1)).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    redis.kill();
    std::fs::write(growing(&redis), backup).unwrap();
    redis.restart();
    let (_worker, _folder) = elsewhere(&fleet);
    let status = fleet.until_state("c1", "held").await;
    assert!(status["counts"]["accepted"].as_u64().unwrap() < rows, "{status}");
    fleet.ok(&["recover", "c1"]).await;
    let status = until_completed(&fleet, Duration::from_mins(1)).await;
    nobody_twice_nobody_lost(&fleet, &sandbox, rows, &status);
    // They are doubts like others: a person may have them sent again, and knows that some get it twice.
    fleet.ok(&["resolve", "c1", "--abandon"]).await;
    assert_eq!(fleet.status("c1")["counts"]["in_doubt"], 0);
}

/// Runs a block of the page on operations, known by its first line, as its reader would.
async fn as_on_the_page(fleet: &Fleet, block: &str, redis: &RedisProcess) -> String {
    let blocks = blocks("docs/operations/backups.md", "sh");
    let script = blocks.into_iter().find(|script| script.starts_with(&format!("# {block}\n"))).unwrap();
    // The page's port may be in use here.
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
async fn a_backup_of_redis_is_made_and_restored_as_the_page_says() {
    let rows = 3_000;
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(rows, &redis).await;
    let worker = fleet.worker();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 600).await;
    as_on_the_page(&fleet, "back up", &redis).await;
    let then = sandbox.count();
    until("more to be sent", || sandbox.count() > then + 400).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    redis.kill();
    as_on_the_page(&fleet, "restore", &redis).await;
    redis.restart();
    let said = as_on_the_page(&fleet, "recover", &redis).await;
    assert!(
        said.contains("campaign c1: running, ") && said.contains("that may have been sent are in doubt"),
        "{said}"
    );
    let (_worker, _folder) = elsewhere(&fleet);
    let status = until_completed(&fleet, Duration::from_mins(1)).await;
    nobody_twice_nobody_lost(&fleet, &sandbox, rows, &status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_store_is_made_and_restored_as_the_page_says() {
    let rows = 2_000;
    let redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(rows, &redis).await;
    let world = &fleet.world;
    let mut child =
        world.command(&["run", "job.json", "--store", "flowcast.db"]).stderr(Stdio::null()).spawn().unwrap();
    until("it to be on its way", || sandbox.count() > 300).await;
    as_on_the_page(&fleet, "back up a store", &redis).await;
    let then = sandbox.count();
    until("more to be sent", || sandbox.count() > then + 400).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let said = as_on_the_page(&fleet, "restore a store", &redis).await;
    assert!(said.contains("campaign c1: running, "), "{said}");
    let ended = world.run(&["run", "job.json", "--store", "flowcast.db", "--json"]).await;
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["state"], "completed", "{last}");
    assert_eq!(sandbox.stats()["sent_twice"], 0, "{last}");
    let of = |state: &str| last["counts"][state].as_u64().unwrap();
    assert_eq!(of("accepted") + of("in_doubt"), rows, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_was_forgotten_on_purpose_stays_so() {
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(300, &redis).await;
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    fleet.world.write("flowcast.toml", config.replace("[redis]\n", "[redis]\nkeep_for = \"1s\"\n"));
    let _worker = fleet.worker();
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    // One that begins later forgets what ended longer ago than it is kept.
    let finished = fleet.status("c1")["finished_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    until("it to be kept no longer", || jiff::Timestamp::now() > finished + Duration::from_secs(1)).await;
    let _other = fleet.worker();
    until("it to be forgotten", || fleet.status("c1").is_null()).await;
    // The first still knows of it, and of all that it sent.
    redis.kill();
    redis.restart();
    until("it to be compared", || fleet.log().contains("comparing this worker's journal")).await;
    let mut other = crate::support::job();
    other["id"] = "c2".into();
    other["audience"] = serde_json::json!({ "recipients": [{ "phone": "+919700000001", "name": "Asha" }] });
    fleet.world.write_job(&other);
    fleet.submit().await;
    fleet.until_state("c2", "completed").await;
    assert!(fleet.status("c1").is_null(), "{}", fleet.log());
    assert!(!fleet.log().contains("registering it again"), "{}", fleet.log());
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (301, &serde_json::json!(0)));
    // Its id is free, and what was sent under it before is nothing to the new one.
    redis.kill();
    redis.restart();
    fleet.world.write_job(&crate::support::job());
    fleet.world.write_audience(400);
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 400, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_was_forgotten_altogether_is_registered_again() {
    let mut redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(1_000, &redis).await;
    let _worker = fleet.worker();
    until("the worker", || fleet.log().contains("working on Redis")).await;
    let file = growing(&redis);
    let then = std::fs::metadata(&file).unwrap().len();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 200).await;
    redis.kill();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(then).unwrap();
    redis.restart();
    let status = until_completed(&fleet, Duration::from_mins(1)).await;
    nobody_twice_nobody_lost(&fleet, &sandbox, 1_000, &status);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_sends_nothing_twice_and_forgets_nobody_who_said_stop() {
    let redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(1_000, &redis).await;
    // In the audience, and not sent to yet when the server is emptied.
    let stopped = crate::support::phone(990);
    fleet.ok(&["suppress", "add", &stopped]).await;
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 200).await;
    assert!(redis.says("FLUSHALL", "+OK"));
    // Whoever looks sees no campaign, and submits it again.
    fleet.submit().await;
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("Redis was emptied") && reason.contains("flowcast recover c1"), "{reason}");
    // What a worker says later holds it again.
    until("both workers to have written what they know", || {
        fleet.log().matches("Redis was emptied while this worker ran").count() == 2
    })
    .await;
    until("the list to be there again", || {
        fleet.world.flowcast(&["suppress", "list"]).out.contains(&stopped)
    })
    .await;
    // Resuming alone sends nothing: a person has to say that what nobody knows may have been sent.
    fleet.ok(&["resume", "c1"]).await;
    fleet.until_state("c1", "held").await;
    let sent = sandbox.count();
    let recovered = fleet.ok(&["recover", "c1"]).await;
    assert!(recovered.out.contains("that may have been sent are in doubt"), "{recovered:?}");
    let status = until_completed(&fleet, Duration::from_mins(2)).await;
    let of = |state: &str| status["counts"][state].as_u64().unwrap();
    // What is known as accepted was taken, and nobody got it twice; nobody else was sent to.
    assert_eq!(sandbox.stats()["sent_twice"], 0);
    assert_eq!((of("accepted") + of("in_doubt") + of("skipped"), of("total")), (1_000, 1_000), "{status}");
    assert!(
        of("accepted") > 100 && of("accepted") <= sent && sandbox.count() == sent,
        "{status}, {sent} sent"
    );
    assert!(sandbox.taken().iter().all(|taken| taken.to != stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_killed_is_done_by_the_next() {
    let rows = 2_000;
    let redis = RedisProcess::start(EVERY_SECOND);
    let (fleet, sandbox) = begin(rows, &redis).await;
    let _worker = fleet.worker();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 400).await;
    assert!(redis.says("FLUSHALL", "+OK"));
    fleet.until_state("c1", "held").await;
    until("the worker to have written what it knows", || {
        fleet.log().contains("Redis was emptied while this worker ran")
    })
    .await;
    let sent = sandbox.count();
    // At a different moment each time, until one of them is done before it is killed.
    for nth in 0..40 {
        let mut recovery = fleet.world.command(&["recover", "c1"]).stdout(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(nth * 10)).await;
        let _ = recovery.kill();
        if recovery.wait().unwrap().success() {
            break;
        }
    }
    // One that was killed behind its last write but one says so, and leaves the rest to whoever resumes it.
    fleet.ok(&["recover", "c1"]).await;
    if fleet.status("c1")["state"] == "held" {
        fleet.ok(&["resume", "c1"]).await;
    }
    let status = until_completed(&fleet, Duration::from_mins(2)).await;
    let of = |state: &str| status["counts"][state].as_u64().unwrap();
    assert_eq!((of("accepted") + of("in_doubt"), of("total")), (rows, rows), "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (sent, &json!(0)), "{status}");
}
