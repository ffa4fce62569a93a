//! Mixed campaigns for a long time, with reports, replies and occasional faults: memory, file descriptors, queues and keys
//! must not grow.
//!
//! The tests include a short run; `just soak` takes an hour with one fault per minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use flowcast::sandbox::{Behaviour, Reporting};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::chaos::{Scene, WORKERS};
use crate::fleet::until;
use crate::servers::free_port;
use crate::support::{World, job, sandbox};

fn seconds() -> u64 {
    std::env::var("FLOWCAST_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// Kind of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// A flow, to which some recipients reply.
    Flow,
    /// With a few recipients, listed in the job.
    Few,
    Scheduled,
    /// Paused while it sends, and resumed.
    Paused,
    Cancelled,
}

const KINDS: [Kind; 6] = [Kind::Text, Kind::Flow, Kind::Few, Kind::Scheduled, Kind::Paused, Kind::Cancelled];

/// Resources of a worker.
#[derive(Clone, Copy, Debug)]
struct Resources {
    /// Resident memory, in MiB.
    memory: u64,
    files: usize,
}

fn resources(pid: u32) -> Resources {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    Resources {
        memory: kibibytes >> 10,
        files: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
    }
}

struct Soak {
    scene: Scene,
    /// Started campaigns, with their kind and number of recipients.
    campaigns: BTreeMap<String, (Kind, u64)>,
    ended: BTreeSet<String>,
}

/// Retention of ended campaigns.
const RETENTION: Duration = Duration::from_secs(30);

impl Soak {
    /// Writes an audience and a job, and submits the job.
    async fn start_campaign(&mut self, nth: u64, kind: Kind) {
        let id = format!("soak-{nth}");
        let rows: u64 = if kind == Kind::Few { 5 } else { self.scene.rng.random_range(100..700) };
        let phone = |row: u64| format!("+91{}", 7_000_000_000 + nth * 1_000 + row);
        let mut job = job();
        job["id"] = id.as_str().into();
        if kind == Kind::Few {
            let recipients = (0..rows).map(|row| json!({ "phone": phone(row), "name": "Asha" }));
            job["audience"] = json!({ "recipients": recipients.collect::<Vec<_>>() });
        } else {
            let mut csv = String::from("phone,name\n");
            for row in 0..rows {
                writeln!(csv, "{},name {row}", phone(row)).unwrap();
            }
            self.scene.fleet.world.write(&format!("{id}.csv"), csv);
            job["audience"] = json!({ "csv": { "path": format!("{id}.csv") } });
        }
        match kind {
            Kind::Flow => {
                job["message"] = json!({
                    "type": "interactive",
                    "interactive": {
                        "type": "flow", "body": { "text": "Dear {{ name }}, book a visit." },
                        "action": { "name": "flow", "parameters": {
                            "flow_message_version": "3", "flow_id": "1323000000000001",
                            "flow_token": "{{ message_ref }}", "flow_cta": "Book now",
                            "flow_action": "navigate", "flow_action_payload": { "screen": "BOOK" },
                        } },
                    },
                });
            }
            Kind::Scheduled => {
                let start = jiff::Timestamp::now() + Duration::from_secs(5);
                job["schedule"] = json!({ "start_at": start.to_string() });
            }
            _ => {}
        }
        self.scene.fleet.world.write_job(&job);
        // The broker may be unavailable.
        let start = Instant::now();
        while self.scene.fleet.world.run(&["submit", "job.json"]).await.status != Some(0) {
            assert!(start.elapsed() < Duration::from_mins(2), "cannot submit {id}");
        }
        self.campaigns.insert(id, (kind, rows));
    }

    /// Resumes, pauses and cancels campaigns as an operator would.
    async fn operate(&mut self) {
        let is_active = |(id, _): &(&String, &(Kind, u64))| !self.ended.contains(*id);
        let waiting: Vec<(String, Kind, u64)> = self
            .campaigns
            .iter()
            .filter(is_active)
            .map(|(id, (kind, rows))| (id.clone(), *kind, *rows))
            .collect();
        let world = &self.scene.fleet.world;
        for (id, kind, rows) in waiting {
            let ended = world.run(&["status", &id, "--json"]).await;
            let status: Value = serde_json::from_str(&ended.out).unwrap_or_default();
            let sent = status["counts"]["accepted"].as_u64().unwrap_or_default();
            let action = match status["state"].as_str().unwrap_or_default() {
                "completed" | "cancelled" => {
                    // Every recipient has a final state; some recipients of a cancelled campaign may not be planned.
                    let count = |state: &str| status["counts"][state].as_u64().unwrap();
                    let is_settled = count("pending") + count("sending") == 0;
                    assert!(kind == Kind::Cancelled || is_settled && count("total") == rows, "{status}");
                    if is_settled {
                        self.ended.insert(id);
                    }
                    continue;
                }
                "held" | "paused" => "resume",
                "running" if kind == Kind::Cancelled && sent > 20 => "cancel",
                "running" if kind == Kind::Paused && sent > 20 && self.scene.rng.random_bool(0.3) => "pause",
                _ => continue,
            };
            world.run(&[action, &id]).await;
        }
    }

    fn queues(&self) -> BTreeSet<String> {
        self.scene.rabbit.queues().into_keys().collect()
    }

    /// Waits until only known queues exist: the queue of a campaign is removed after its end has been published.
    async fn until_queues_are(&self, known: &BTreeSet<String>, what: &str) {
        let start = Instant::now();
        loop {
            let left: Vec<String> = self.queues().difference(known).cloned().collect();
            if left.is_empty() {
                return;
            }
            let campaign = |name: &String| self.campaigns.get(name.trim_start_matches("flowcast.batches."));
            assert!(
                start.elapsed() < Duration::from_mins(4),
                "{what}: {:?} are left\n{}",
                left.iter().map(|name| (name, campaign(name))).collect::<Vec<_>>(),
                self.scene.fleet.log()
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Returns the keys in Redis that do not expire.
    fn keys(&self) -> BTreeSet<String> {
        let client = redis::Client::open(self.scene.redis.url().as_str()).unwrap();
        let mut server = client.get_connection().unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server).unwrap();
        let is_persistent = |key: &String| redis::cmd("TTL").arg(key).query(&mut server) == Ok(-1);
        keys.into_iter().filter(is_persistent).collect()
    }
}

/// Starts servers and workers. Returns them with the process id of the worker that is never killed.
async fn start(provider: &str, chance: StdRng) -> (Scene, u32) {
    let limits = "limits = { messages = \"400/s,burst=20\", requests = \"1000/s\" }";
    let mut scene = Scene::new(World::new(1), limits, provider, chance).await;
    // The first worker is never killed, so that it can be measured; it receives the reports.
    let port = free_port();
    let config = std::fs::read_to_string(scene.fleet.world.path("flowcast.toml")).unwrap();
    let config = config
        .replace(
            "listen = \"127.0.0.1:0\"",
            &format!("listen = \"127.0.0.1:0\"\npublic_url = \"http://127.0.0.1:{port}\""),
        )
        .replace("[redis]\n", "[redis]\nkeep_for = \"30s\"\n");
    scene.fleet.world.write("flowcast.toml", config);
    let mut steady = scene.fleet.world.command(&["worker"]);
    steady.env("FLOWCAST_HTTP__LISTEN", format!("127.0.0.1:{port}"));
    scene.killed_from = 1;
    scene.workers.push(scene.fleet.start(steady));
    scene.workers.extend((1..WORKERS).map(|_| scene.fleet.worker()));
    let pid = scene.workers[0].pid();
    until("the worker to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    (scene, pid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_run_leaks_no_memory_files_queues_or_keys() {
    let (seed, length) = (rand::random_range(0..1_000_000), Duration::from_secs(seconds()));
    eprintln!("seed {seed}, {} s", length.as_secs());
    let reporting = Reporting {
        delay: Duration::from_secs(3),
        shuffle: 0.1,
        repeat: 0.05,
        lose: 0.02,
        fail: 0.05,
        read: 0.7,
        reply: 0.3,
        ..Reporting::default()
    };
    let latency = Duration::from_millis(50);
    let (sandbox, provider) =
        sandbox(Behaviour { latency, reporting, accept_rate: 0.98, ..Behaviour::default() }).await;
    let (scene, pid) = start(&provider, StdRng::seed_from_u64(seed)).await;
    let mut soak = Soak { scene, campaigns: BTreeMap::new(), ended: BTreeSet::new() };
    // Some keys and queues stay after the first campaign, such as the audit log and the callback key.
    soak.start_campaign(0, Kind::Flow).await;
    until("the first campaign", || soak.scene.fleet.status("soak-0")["state"] == "completed").await;
    // The list of campaigns does not exist while it is empty.
    let is_lasting = |name: &String| !name.contains("soak-") && name != "flowcast:campaigns";
    let lasting = |names: BTreeSet<String>| names.into_iter().filter(is_lasting).collect();
    until("the queues to be declared", || soak.queues().len() > 5).await;
    let (queues, keys): (BTreeSet<String>, BTreeSet<String>) = (lasting(soak.queues()), lasting(soak.keys()));

    let every = Duration::from_secs((seconds() / 60).clamp(2, 10));
    let (started_at, mut nth, mut faults) = (Instant::now(), 1, BTreeMap::<&str, u32>::new());
    let fault_every = Duration::from_mins(1).min(length / 3);
    let (mut next_campaign, mut next_fault) = (started_at, started_at + fault_every);
    let (mut warm, mut most) = (None, resources(pid));
    while started_at.elapsed() < length {
        if Instant::now() >= next_campaign {
            next_campaign += every;
            let kind = KINDS[usize::try_from(nth).unwrap() % KINDS.len()];
            soak.start_campaign(nth, kind).await;
            nth += 1;
        }
        if Instant::now() >= next_fault {
            next_fault += fault_every;
            let kind = soak.scene.rng.random_range(0..8);
            *faults.entry(soak.scene.inject_fault(kind).await).or_default() += 1;
            let now = resources(pid);
            most = Resources { memory: most.memory.max(now.memory), files: most.files.max(now.files) };
            eprintln!(
                "{:>5.0} s: {} campaigns, {} messages, worker {} MiB and {} files, {} queues, {} keys",
                started_at.elapsed().as_secs_f64(),
                nth,
                sandbox.count(),
                now.memory,
                now.files,
                soak.queues().len(),
                soak.keys().len()
            );
            if started_at.elapsed() > length / 6 {
                warm.get_or_insert(now);
            }
        }
        soak.scene.thaw(false);
        soak.operate().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Frozen processes continue, and all campaigns must end.
    let last = soak.scene.frozen.iter().map(|(_, until)| *until).max();
    tokio::time::sleep(last.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now())))
        .await;
    soak.scene.thaw(true);
    let end = Instant::now();
    while soak.ended.len() < soak.campaigns.len() {
        assert!(
            end.elapsed() < Duration::from_mins(4),
            "seed {seed}: {:?} of {:?}",
            soak.ended,
            soak.campaigns.keys()
        );
        soak.operate().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    soak.until_queues_are(&queues, &format!("seed {seed}, faults {faults:?}")).await;
    until("the queues to be empty", || soak.scene.rabbit.queues().values().sum::<u64>() == 0).await;
    // Reports arrive until a few seconds later, and unused connections are closed after a while.
    let warm = warm.unwrap_or(most);
    // A few more connections to the provider are not a leak.
    until("the file descriptors to be closed", || resources(pid).files <= warm.files + 16).await;
    let last = resources(pid);
    eprintln!(
        "{} campaigns, {} messages, faults {faults:?}: worker {} MiB and {} files when it was warm, at most {} and {}, at the end {} and {}",
        soak.campaigns.len(),
        sandbox.count(),
        warm.memory,
        warm.files,
        most.memory,
        most.files,
        last.memory,
        last.files
    );
    assert!(last.memory <= warm.memory + warm.memory / 4 + 8, "seed {seed}: {warm:?} {last:?}");
    assert_eq!(sandbox.stats()["sent_twice"], 0, "seed {seed}");
    // A worker that starts removes campaigns whose retention is over.
    tokio::time::sleep(RETENTION).await;
    let nth = WORKERS - 1;
    soak.scene.workers[nth].kill();
    soak.scene.workers[nth] = soak.scene.fleet.worker();
    until("the campaigns' keys to be removed", || !soak.keys().iter().any(|key| key.contains("soak-"))).await;
    assert_eq!(soak.keys(), keys, "seed {seed}");
    eprintln!("{} keys and {} queues at the beginning and at the end", keys.len(), queues.len());
}
