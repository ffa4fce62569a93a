//! A fleet: real workers on a real broker and a real Redis.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flowcast::sandbox::Behaviour;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::servers::{amqp_url, redis_url};
use crate::support::{CommandOutput, Reaction, Scripted, World, accept, job, job_with, phone, sandbox};

/// Timeout of a wait: far longer than anything here takes.
pub const LONG: Duration = Duration::from_mins(3);

/// Waits until a condition holds.
pub async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        let checked = Instant::now();
        if is_true() {
            return;
        }
        assert!(start.elapsed() < LONG, "timed out waiting for {what}");
        // A check that starts a process is repeated less often, because it shares the cores with what it waits for.
        tokio::time::sleep((2 * checked.elapsed()).max(Duration::from_millis(20))).await;
    }
}

/// A worker process that is killed when the test ends.
pub struct Worker {
    child: Child,
}

impl Worker {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Kills the worker with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the worker ends, and returns its exit status.
    pub async fn exit_status(mut self) -> Option<i32> {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap().code()).await.unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A world whose configuration names a broker and a Redis.
pub struct Fleet {
    pub world: World,
    pub redis: String,
    pub amqp: String,
}

impl Fleet {
    /// Creates a fleet on its own servers; `account` is more TOML of the account.
    pub fn on(world: World, redis: &str, amqp: &str, provider: &str, account: &str) -> Self {
        let fleet = Self { world, redis: redis.into(), amqp: amqp.into() };
        fleet.configure(provider, account);
        fleet
    }

    /// Creates a fleet on the servers that tests share.
    pub fn new(rows: u64, provider: &str, account: &str) -> Self {
        Self::on(World::new(rows), &redis_url(), &amqp_url(), provider, account)
    }

    pub fn configure(&self, url: &str, account: &str) {
        self.configure_at("exotel", url, account);
    }

    pub fn configure_at(&self, provider: &str, url: &str, account: &str) {
        let servers = format!(
            "[redis]\nurl = \"{}\"\n[amqp]\nurl = \"{}\"\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
            self.redis, self.amqp
        );
        self.world.write_account(provider, url, &format!("{account}\n{servers}"));
    }

    pub fn worker(&self) -> Worker {
        self.worker_with(&["worker"])
    }

    pub fn worker_with(&self, args: &[&str]) -> Worker {
        self.start(self.world.command(args))
    }

    /// Starts a worker whose journal is in another folder.
    pub fn worker_in(&self, folder: &std::path::Path) -> Worker {
        let mut command = self.world.command(&["worker"]);
        command.env("TMPDIR", folder);
        self.start(command)
    }

    pub fn start(&self, mut command: std::process::Command) -> Worker {
        let log = std::fs::File::options().create(true).append(true).open(self.world.path("log")).unwrap();
        Worker { child: command.stdout(Stdio::null()).stderr(log).spawn().unwrap() }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.world.path("log")).unwrap_or_default()
    }

    pub async fn submit(&self) {
        let ended = self.world.run(&["submit", "job.json"]).await;
        assert_eq!(ended.status, Some(0), "{ended:?}");
    }

    /// Returns the campaign's status, or null if there is none yet.
    pub fn status(&self, id: &str) -> Value {
        let ended = self.world.flowcast(&["status", id, "--json"]);
        serde_json::from_str(&ended.out).unwrap_or_default()
    }

    pub async fn until_state(&self, id: &str, state: &str) -> Value {
        let mut status = Value::Null;
        until(&format!("{id} to be {state}"), || {
            status = self.status(id);
            status["state"] == state
        })
        .await;
        status
    }

    pub async fn ok(&self, args: &[&str]) -> CommandOutput {
        let ended = self.world.run(args).await;
        assert_eq!(ended.status, Some(0), "{ended:?}");
        ended
    }
}

const FAST: &str = "limits = { messages = \"100000/s\", requests = \"10000/s\" }\nconcurrency = 4";

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_job_is_sent_by_all_workers_and_completed() {
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() }).await;
    let fleet = Fleet::new(5_000, &url, FAST);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 5_000, "{status}");
    assert!(status["started_at"].is_string() && status["finished_at"].is_string());
    let stats = sandbox.stats();
    assert_eq!((&stats["accepted"], &stats["sent_twice"]), (&json!(5_000), &json!(0)));
    // The report has the provider's SID of each message.
    let report = fleet.world.report("c1");
    assert_eq!(report.len(), 5_000);
    let messages = sandbox.taken();
    assert!(report.iter().all(|line| line["state"] == "accepted" && line["attempts"] == 1));
    let line = report.iter().find(|line| line["recipient"] == phone(77)).unwrap();
    let message = messages.iter().find(|message| message.to == phone(77)).unwrap();
    assert_eq!(line["sid"], message.sid);
    // So do the contract's keys.
    let mut redis = redis::Client::open(fleet.redis.as_str()).unwrap().get_connection().unwrap();
    let value: String =
        redis::cmd("HGET").arg("flowcast:{c1}:batch:0").arg(phone(77)).query(&mut redis).unwrap();
    assert_eq!(value, format!("accepted {}", message.sid));
    let job: String = redis::cmd("GET").arg("flowcast:{c1}:job").query(&mut redis).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&job).unwrap(), job_value());
}

fn job_value() -> Value {
    job()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_campaign_behind_a_big_one_finishes_in_seconds() {
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(50), ..Behaviour::default() }).await;
    let fleet =
        Fleet::new(100_000, &url, "limits = { messages = \"2000/s,burst=100\", requests = \"10000/s\" }");
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the big campaign to be sending", || sandbox.count() > 1000).await;
    let small: Vec<Value> =
        (0..200).map(|nth| json!({ "phone": phone(500_000 + nth), "name": "x" })).collect();
    let mut job = job_with("/audience", json!({ "recipients": small }));
    job["id"] = json!("small");
    fleet.world.write_job(&job);
    let start = Instant::now();
    fleet.submit().await;
    let status = fleet.until_state("small", "completed").await;
    assert_eq!(status["counts"]["accepted"], 200);
    // The big campaign takes fifty seconds.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(fleet.status("c1")["state"], "running");
    // Planning stays a bounded number of batches ahead of sending.
    let counts = &fleet.status("c1")["counts"];
    assert!(counts["pending"].as_u64().unwrap() <= 300 * 100, "{counts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_url_key_and_limit_continues_the_plan_of_a_dead_worker() {
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() }).await;
    let account = |limit: &str, more: &str| {
        format!("limits = {{ messages = \"{limit}\", requests = \"10000/s\" }}\ntimeout = \"1s\"\n{more}")
    };
    let fleet = Fleet::new(40_000, &url, &account("4000/s,burst=100", ""));
    let set_url_and_key = |host: &str, key: char| {
        let key = key.to_string().repeat(32);
        let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
        let http = format!("[http]\npublic_url = \"https://{host}\"");
        let config = config.replace("[http]", &http);
        fleet.world.write("flowcast.toml", format!("{config}[callbacks]\nkeys = [\"{key}\"]\n"));
    };
    set_url_and_key("first.example", 'a');
    let mut first = fleet.worker();
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 2_000).await;
    first.kill();
    assert_eq!(fleet.status("c1")["planned"], false, "the worker must be killed while it plans");
    fleet.configure(&url, &account("50000/s,burst=70", ""));
    set_url_and_key("second.example/under", 'b');
    let mut second = fleet.worker();
    let before = sandbox.count();
    until("the second worker to continue", || sandbox.count() > before + 2_000).await;
    second.kill();
    // The third worker has no URL at all.
    fleet.configure(&url, &account("50000/s", ""));
    let _third = fleet.worker();
    let counts = fleet.until_state("c1", "completed").await["counts"].clone();
    assert_eq!(
        counts["accepted"].as_u64().unwrap() + counts["in_doubt"].as_u64().unwrap(),
        40_000,
        "{counts}"
    );
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_finishes_requests_in_flight() {
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(300), ..Behaviour::default() }).await;
    let fleet = Fleet::new(20_000, &url, FAST);
    let worker = fleet.worker();
    fleet.submit().await;
    until("requests in flight", || sandbox.stats()["requests"].as_u64().unwrap() >= 4).await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0), "{}", fleet.log());
    let counts = &fleet.status("c1")["counts"];
    assert_eq!((&counts["sending"], &counts["in_doubt"]), (&json!(0), &json!(0)));
    assert_eq!(counts["accepted"], sandbox.count());
    let _worker = fleet.worker();
    fleet.until_state("c1", "completed").await;
    let stats = sandbox.stats();
    assert_eq!((&stats["accepted"], &stats["sent_twice"]), (&json!(20_000), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_paused_resumed_and_cancelled() {
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() }).await;
    let fleet =
        Fleet::new(50_000, &url, "limits = { messages = \"2000/s,burst=50\", requests = \"10000/s\" }");
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 500).await;
    fleet.ok(&["pause", "c1"]).await;
    until("nothing in flight", || fleet.status("c1")["counts"]["sending"] == 0).await;
    let sent = sandbox.count();
    let status = fleet.status("c1");
    assert_eq!((&status["state"], &status["reason"]), (&json!("paused"), &json!("paused by an operator")));
    assert_eq!(status["counts"]["accepted"], sent);
    // When another campaign is completed, the workers have checked all campaigns.
    let mut other =
        job_with("/audience", json!({ "recipients": [{ "phone": "+919700000001", "name": "Asha" }] }));
    other["id"] = json!("c2");
    fleet.world.write_job(&other);
    fleet.submit().await;
    fleet.until_state("c2", "completed").await;
    assert_eq!(sandbox.count(), sent + 1, "a paused campaign must send nothing");
    let sent = sent + 1;
    fleet.ok(&["resume", "c1"]).await;
    until("the campaign to continue", || sandbox.count() > sent + 500).await;
    fleet.ok(&["cancel", "c1"]).await;
    until("the campaign to end", || {
        let counts = fleet.status("c1")["counts"].clone();
        counts["pending"] == 0 && counts["sending"] == 0
    })
    .await;
    let status = fleet.status("c1");
    assert_eq!(status["state"], "cancelled");
    assert!(status["skipped"]["cancelled"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
    let ended = fleet.world.run(&["resume", "c1"]).await;
    assert_eq!(ended.status, Some(2), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_messages_are_sent_again_without_the_audience() {
    // At first every tenth number is rejected.
    let provider = Scripted::start(|nth, to| {
        let refuse = |to: &str| nth < 10 && to.ends_with('0');
        let entries = to.iter().map(|to| {
            if refuse(to) { crate::support::failure(500_001, "no") } else { crate::support::success(to) }
        });
        Reaction::Answer(202, "", crate::support::entries(entries))
    })
    .await;
    let fleet = Fleet::new(1_000, &provider.url, FAST);
    let worker = fleet.worker();
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["rejected"], json!({ "500001": 100 }), "{status}");
    // Neither the audience nor the worker that read it is left.
    std::fs::remove_file(fleet.world.path("audience.csv")).unwrap();
    worker.signal(Signal::SIGTERM);
    worker.exit_status().await;
    let _worker = fleet.worker();
    let ended = fleet.ok(&["retry", "c1", "--code", "no-such-code"]).await;
    assert!(ended.out.contains("0 messages will be sent again"), "{ended:?}");
    let ended = fleet.ok(&["retry", "c1", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap()["messages"], 100);
    until("all messages to be accepted", || fleet.status("c1")["counts"]["accepted"] == 1000).await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["rejected"], json!({}));
    assert_eq!((provider.times(&phone(10)), provider.times(&phone(11))), (2, 1));
    let report = fleet.world.report("c1");
    let line = report.iter().find(|line| line["recipient"] == phone(10)).unwrap();
    assert_eq!((&line["attempts"], &line["sid"]), (&json!(2), &json!(format!("sid-{}", phone(10)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_dead_worker_are_in_doubt_until_an_operator_decides() {
    // The first request never gets a response.
    let provider = Scripted::start(|nth, to| if nth == 0 { Reaction::Hang } else { accept(to) }).await;
    let fleet = Fleet::new(
        300,
        &provider.url,
        "limits = { messages = \"100000/s\", requests = \"10000/s\" }\nconcurrency = 1\ntimeout = \"1s\"",
    );
    let mut first = fleet.worker();
    fleet.submit().await;
    until("the request", || provider.requests().len() == 1).await;
    first.kill();
    assert_eq!(fleet.status("c1")["counts"]["sending"], 100);
    let _second = fleet.worker();
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!((&status["counts"]["in_doubt"], &status["counts"]["accepted"]), (&json!(100), &json!(200)));
    assert_eq!(provider.requests().len(), 3, "messages in doubt must not be sent again automatically");
    let listed = fleet.ok(&["report", "c1", "--state", "in_doubt"]).await.out;
    assert_eq!(listed.lines().count(), 101);
    assert!(listed.contains("its claim expired"), "{listed}");
    fleet.ok(&["resolve", "c1", "--resend"]).await;
    until("all messages to be accepted", || fleet.status("c1")["counts"]["accepted"] == 300).await;
    assert_eq!(provider.times(&phone(1)) + provider.times(&phone(101)) + provider.times(&phone(201)), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_the_broker_lost_are_planned_again() {
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() }).await;
    let fleet = Fleet::new(
        20_000,
        &url,
        "limits = { messages = \"2000/s,burst=100\", requests = \"10000/s\" }\nconcurrency = 2",
    );
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 1000).await;
    purge(&fleet.amqp, "flowcast.batches.c1").await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 20_000, "{status}");
    assert!(fleet.log().contains("pending messages are in no queue; planning them again"), "{}", fleet.log());
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

async fn purge(amqp: &str, queue: &str) {
    let connection = lapin::Connection::connect(amqp, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_purge(queue.into(), lapin::options::QueuePurgeOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

/// Watches a campaign right after it was submitted, as the README does: a worker may not have registered it yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_can_be_watched_before_it_is_registered() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(3, &url, "");
    let watching = fleet.ok(&["status", "c1", "--watch", "--json"]);
    let submitting = async {
        fleet.submit().await;
        fleet.worker()
    };
    let (watched, _worker) = tokio::join!(watching, submitting);
    assert!(watched.out.contains("completed"), "{watched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_worker_pauses_resumes_and_recovers_on_one_machine() {
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() }).await;
    let world = World::new(20_000);
    let limits = "limits = { messages = \"5000/s,burst=50\", requests = \"10000/s\" }";
    world.write_config(
        &url,
        &format!("{limits}\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\""),
    );
    let fleet = Fleet { world, redis: String::new(), amqp: String::new() };
    fleet.submit().await;
    assert_eq!(fleet.status("c1")["state"], "scheduled");
    let mut worker = fleet.worker_with(&["worker", "--embedded"]);
    until("the campaign to be sending", || sandbox.count() > 500).await;
    fleet.ok(&["pause", "c1"]).await;
    until("nothing in flight", || fleet.status("c1")["counts"]["sending"] == 0).await;
    let sent = sandbox.count();
    assert_eq!(fleet.status("c1")["counts"]["accepted"], sent);
    fleet.ok(&["resume", "c1"]).await;
    until("the campaign to continue", || sandbox.count() > sent + 500).await;
    worker.kill();
    let worker = fleet.worker_with(&["worker", "--embedded"]);
    let status = fleet.until_state("c1", "completed").await;
    let counts = &status["counts"];
    assert_eq!(counts["accepted"].as_u64().unwrap() + counts["in_doubt"].as_u64().unwrap(), 20_000);
    assert_eq!(sandbox.stats()["sent_twice"], 0);
    // Watching ends when the campaign has ended.
    let watched = fleet.ok(&["status", "c1", "--watch", "--json"]).await;
    assert_eq!(watched.out.lines().count(), 1);
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_worker_sends_rejected_messages_again_without_the_audience() {
    let provider = Scripted::start(|nth, to| {
        let entries = to.iter().map(|to| {
            if nth == 0 { crate::support::failure(500_001, "no") } else { crate::support::success(to) }
        });
        Reaction::Answer(202, "", crate::support::entries(entries))
    })
    .await;
    let world = World::new(150);
    world.write_config(
        &provider.url,
        "concurrency = 1\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\"",
    );
    let fleet = Fleet { world, redis: String::new(), amqp: String::new() };
    fleet.submit().await;
    let worker = fleet.worker_with(&["worker", "--embedded"]);
    let status = fleet.until_state("c1", "completed").await;
    let rejected = status["counts"]["rejected"].as_u64().unwrap();
    assert!(rejected > 0, "{status}");
    std::fs::remove_file(fleet.world.path("audience.csv")).unwrap();
    fleet.ok(&["retry", "c1"]).await;
    // Even if the worker ends before it has sent them.
    worker.signal(Signal::SIGTERM);
    worker.exit_status().await;
    let _worker = fleet.worker_with(&["worker", "--embedded"]);
    until("all messages to be accepted", || fleet.status("c1")["counts"]["accepted"] == 150).await;
    fleet.until_state("c1", "completed").await;
    let sent: usize = provider.requests().iter().map(Vec::len).sum();
    assert_eq!(sent as u64, 150 + rejected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_an_unknown_campaign_creates_no_store() {
    let world = World::new(1);
    let ended = world.run(&["pause", "c1"]).await;
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.err.contains("no such store"), "{}", ended.err);
    assert!(!world.path("flowcast.db").exists());
}

/// Checks that a campaign that an operator stops accounts for all its rows, in whatever state it was.
async fn check_stopped_campaigns(fleet: Fleet, arguments: &[&str]) {
    let job = |id: &str, schedule: Value| {
        let mut job = job_with("/schedule", schedule);
        job["id"] = json!(id);
        job
    };
    let in_seconds =
        |seconds: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    fleet.world.write_job(&job("later", json!({ "start_at": in_seconds(3600) })));
    fleet.submit().await;
    let ends = in_seconds(15);
    fleet
        .world
        .write_job(&job("ends", json!({ "start_at": in_seconds(3600), "expires_at": in_seconds(3700) })));
    fleet.submit().await;
    fleet.world.write_job(&job("paused", json!({ "expires_at": ends })));
    fleet.submit().await;
    let _worker = fleet.worker_with(arguments);
    // Cancelled before anything of it was planned.
    until("the campaign to be registered", || fleet.world.flowcast(&["status", "later"]).status == Some(0))
        .await;
    fleet.ok(&["cancel", "later"]).await;
    let status = fleet.until_state("later", "cancelled").await;
    assert_eq!((&status["counts"]["total"], &status["skipped"]["cancelled"]), (&json!(3_000), &json!(3_000)));
    // Paused until it expires.
    until("some messages to be sent", || {
        let status = fleet.world.flowcast(&["status", "paused", "--json"]);
        status.status == Some(0)
            && serde_json::from_str::<Value>(&status.out).unwrap()["counts"]["accepted"].as_u64() > Some(0)
    })
    .await;
    fleet.ok(&["pause", "paused"]).await;
    let status = fleet.until_state("paused", "completed").await;
    let (counts, skipped) = (&status["counts"], &status["skipped"]);
    assert!(jiff::Timestamp::now() >= ends.parse().unwrap());
    assert_eq!(
        (&counts["total"], &counts["pending"], &counts["sending"]),
        (&json!(3_000), &json!(0), &json!(0))
    );
    let accepted = counts["accepted"].as_u64().unwrap();
    assert_eq!(skipped["expired"].as_u64(), Some(3_000 - accepted), "{status}");
    // A campaign that waits for its start is unchanged.
    assert_eq!(fleet.status("ends")["state"], "scheduled");
}

#[tokio::test(flavor = "multi_thread")]
async fn unplanned_rows_are_accounted_for_by_an_embedded_worker() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(3_000);
    let limits = "limits = { messages = \"100/s,burst=50\" }";
    world.write_config(
        &url,
        &format!("{limits}\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\""),
    );
    check_stopped_campaigns(
        Fleet { world, redis: String::new(), amqp: String::new() },
        &["worker", "--embedded"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unplanned_rows_are_accounted_for_by_a_fleet() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(3_000, &url, "limits = { messages = \"100/s,burst=50\" }");
    check_stopped_campaigns(fleet, &["worker"]).await;
}

/// A worker declares a deleted queue again. If it is killed before it sees that the campaign has ended, other workers remove
/// the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_left_by_a_dead_worker_is_removed() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(3_000, &url, FAST);
    let _survivor = fleet.worker();
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    let mut killed = fleet.worker();
    until("both workers to start", || fleet.log().matches("health and metrics").count() == 2).await;
    let connection =
        lapin::Connection::connect(&fleet.amqp, lapin::ConnectionProperties::default()).await.unwrap();
    let queue_exists = async |is_passive: bool| {
        let channel = connection.create_channel().await.unwrap();
        let options =
            lapin::options::QueueDeclareOptions { passive: is_passive, durable: true, ..Default::default() };
        let mut arguments = lapin::types::FieldTable::default();
        arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("quorum".into()));
        channel.queue_declare("flowcast.batches.c1".into(), options, arguments).await.is_ok()
    };
    while queue_exists(true).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(queue_exists(false).await);
    // After two heartbeats each worker has seen the other one.
    let mut redis = redis::Client::open(fleet.redis.as_str()).unwrap().get_connection().unwrap();
    let mut heartbeats = || -> std::collections::BTreeMap<String, String> {
        redis::cmd("ZRANGE")
            .arg("flowcast:workers")
            .arg(0)
            .arg(-1)
            .arg("WITHSCORES")
            .query(&mut redis)
            .unwrap()
    };
    for _ in 0..2 {
        let before = heartbeats();
        until("a heartbeat of both workers", || {
            let now = heartbeats();
            now.len() == 2 && now.iter().all(|(worker, at)| before.get(worker) != Some(at))
        })
        .await;
    }
    killed.kill();
    let start = Instant::now();
    while queue_exists(true).await {
        assert!(start.elapsed() < LONG, "the queue must be removed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_limit_is_used_up_and_applies_when_it_is_lowered() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let limits = |recipients: &str| {
        format!(
            "limits = {{ recipients = \"{recipients}\", messages = \"200/s,burst=100\", requests = \"1000/s\" }}"
        )
    };
    let fleet = Fleet::new(1_000, &url, &limits("250/d"));
    let is_deferred = |id: &str| {
        fleet.status(id)["reason"].as_str().is_some_and(|reason| reason.contains("deferred messages are due"))
    };
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    // The limit is not a multiple of a batch.
    until("the limit to be used up", || sandbox.count() >= 250).await;
    until("the rest to be deferred", || is_deferred("c1")).await;
    assert_eq!(sandbox.count(), 250);
    fleet.ok(&["cancel", "c1"]).await;

    // Another fleet, whose limit is lowered while it sends.
    let fleet = Fleet::new(1_000, &url, &limits("1000/d"));
    let is_deferred = |id: &str| {
        fleet.status(id)["reason"].as_str().is_some_and(|reason| reason.contains("deferred messages are due"))
    };
    let _workers = [fleet.worker(), fleet.worker()];
    let before = sandbox.count();
    fleet.submit().await;
    until("some messages to be sent", || sandbox.count() > before + 100).await;
    fleet.configure(&url, &limits("50/d"));
    until("both workers to apply the limit", || fleet.log().matches("limits changed").count() >= 2).await;
    let at_change = sandbox.count();
    until("the rest to be deferred", || is_deferred("c1")).await;
    // At most one batch of each worker was admitted before the limit applied.
    let late = sandbox.count() - at_change;
    assert!(late <= 200, "only one batch of each worker may be sent after the change: {late}");
    assert!(sandbox.count() - before < 1_000, "the old limit must not be used up");
}
