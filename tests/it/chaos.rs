//! A fleet on bad days: workers, Redis and RabbitMQ killed, workers frozen past their claims, lines
//! cut and stalled. Nobody gets a message twice, nobody is left out, and what is in doubt is listed.
//!
//! A short run is part of the tests; `just chaos` has 200 faults over 100,000 messages.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flowcast::sandbox::Behaviour;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Worker};
use crate::line::Line;
use crate::servers::{DURABLE, RabbitProcess, RedisProcess};
use crate::support::{World, sandbox};

pub const WORKERS: usize = 3;
const CONCURRENCY: u64 = 2;
const BATCH: u64 = 20;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// All that can have a bad day.
pub struct Scene {
    pub fleet: Fleet,
    pub workers: Vec<Worker>,
    /// The first worker that may be killed.
    pub killed_from: usize,
    /// Workers that are frozen, and until when.
    pub frozen: Vec<(usize, Instant)>,
    pub redis: RedisProcess,
    pub rabbit: RabbitProcess,
    /// To Redis, to RabbitMQ and to the provider.
    lines: [Arc<Line>; 3],
    pub chance: StdRng,
}

impl Scene {
    /// Servers and their lines; no worker yet. `limits` are the account's.
    pub async fn new(world: World, limits: &str, provider: &str, chance: StdRng) -> Self {
        let (redis, rabbit) = (RedisProcess::start(DURABLE), RabbitProcess::start());
        let provider = provider.rsplit(':').next().unwrap().parse().unwrap();
        let lines = [Line::to(redis.port).await, Line::to(rabbit.port).await, Line::to(provider).await];
        let account = format!("{limits}\nconcurrency = {CONCURRENCY}\ntimeout = \"1s\"");
        let fleet = Fleet::on(
            world,
            &format!("redis://127.0.0.1:{}/0", lines[0].port),
            &format!("amqp://guest:guest@127.0.0.1:{}/%2f", lines[1].port),
            &format!("http://127.0.0.1:{}", lines[2].port),
            &account,
        );
        let (workers, frozen) = (Vec::new(), Vec::new());
        Self { fleet, workers, killed_from: 0, frozen, redis, rabbit, lines, chance }
    }

    /// Does one thing that goes wrong, and names it.
    pub async fn fault(&mut self, kind: u64) -> &'static str {
        let who = self.chance.random_range(0..WORKERS);
        match kind {
            0 => {
                let who = who.max(self.killed_from);
                if self.frozen.iter().all(|(frozen, _)| *frozen != who) {
                    self.workers[who].kill();
                    self.workers[who] = self.fleet.worker();
                }
                "worker killed"
            }
            1 => {
                if self.frozen.is_empty() {
                    self.workers[who].signal(Signal::SIGSTOP);
                    // Past its claims, which hold for the time-out and ten seconds.
                    self.frozen.push((who, Instant::now() + Duration::from_secs(13)));
                }
                "worker frozen past its claim"
            }
            2 => {
                self.redis.kill();
                self.pause(0, 1500).await;
                self.redis.restart();
                "Redis killed"
            }
            3 => {
                self.rabbit.kill();
                self.rabbit.restart();
                "RabbitMQ killed"
            }
            4 => {
                self.lines[0].cut();
                "line to Redis cut"
            }
            5 => {
                self.lines[1].cut();
                "line to RabbitMQ cut"
            }
            6 => {
                self.lines[2].cut();
                "line to the provider cut"
            }
            _ => {
                let line = self.lines[self.chance.random_range(0..3)].clone();
                line.stalled.store(true, Ordering::Relaxed);
                self.pause(200, 2500).await;
                line.stalled.store(false, Ordering::Relaxed);
                "line stalled"
            }
        }
    }

    pub async fn pause(&mut self, least: u64, most: u64) {
        tokio::time::sleep(Duration::from_millis(self.chance.random_range(least..most))).await;
    }

    /// Lets frozen workers go on whose time is over, or all of them.
    pub fn thaw(&mut self, all: bool) {
        let workers = &self.workers;
        self.frozen.retain(|(who, until)| {
            let over = all || *until <= Instant::now();
            if over {
                workers[*who].signal(Signal::SIGCONT);
            }
            !over
        });
    }

    async fn status(&self) -> Value {
        let ended = self.fleet.world.run(&["status", "c1", "--json"]).await;
        serde_json::from_str(&ended.out).unwrap_or_default()
    }

    /// A few answers lost in a row hold the campaign, as they should; a person lets it go on.
    async fn resume_if_held(&self) -> Value {
        let status = self.status().await;
        if status["state"] == "held" {
            self.fleet.world.run(&["resume", "c1"]).await;
        }
        status
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_bad_days_nothing_is_sent_twice_and_nothing_is_lost() {
    let (rows, faults) = (number("FLOWCAST_CHAOS_ROWS", 5_000), number("FLOWCAST_CHAOS_FAULTS", 10));
    let seed = number("FLOWCAST_CHAOS_SEED", rand::random_range(0..1_000_000));
    eprintln!("seed {seed}, {faults} faults over {rows} messages");
    let (sandbox, provider) =
        sandbox(Behaviour { latency: Duration::from_millis(150), ..Behaviour::default() }).await;
    // So slow that the campaign lasts as long as the faults.
    let rate = (rows / (faults * 2).max(1)).max(BATCH);
    let limits = format!("limits = {{ messages = \"{rate}/s,burst={BATCH}\", requests = \"100000/s\" }}");
    let mut scene = Scene::new(World::new(rows), &limits, &provider, StdRng::seed_from_u64(seed)).await;
    scene.workers = (0..WORKERS).map(|_| scene.fleet.worker()).collect();
    scene.fleet.submit().await;

    let mut done = HashMap::<&str, u64>::new();
    for nth in 0..faults {
        scene.pause(200, 1500).await;
        // Each kind comes early, and then chance chooses; servers start slowly, so less often.
        let kinds = [0, 0, 0, 1, 2, 4, 5, 6, 7, 5, 7, 0, 3];
        let kind = if nth < 8 { nth } else { kinds[scene.chance.random_range(0..kinds.len())] };
        *done.entry(scene.fault(kind).await).or_default() += 1;
        scene.thaw(false);
        scene.resume_if_held().await;
    }
    let last_frozen = scene.frozen.iter().map(|(_, until)| *until).max();
    tokio::time::sleep(
        last_frozen.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now())),
    )
    .await;
    scene.thaw(true);
    let (start, patience) = (Instant::now(), Duration::from_secs(120 + rows / rate));
    let mut last = scene.resume_if_held().await;
    while last["state"] != "completed" {
        assert!(
            start.elapsed() < patience,
            "seed {seed}: it does not end: {last}\n{}",
            tail(&scene.fleet.log())
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        last = scene.resume_if_held().await;
    }

    let mut taken = HashMap::<String, Vec<String>>::new();
    for message in sandbox.taken() {
        taken.entry(message.to).or_default().push(message.sid);
    }
    let twice = taken.values().filter(|sids| sids.len() > 1).count();
    let report = scene.fleet.world.report("c1");
    let mut seen = HashSet::new();
    let (mut accepted, mut in_doubt, mut lost) = (0_u64, 0_u64, 0_u64);
    for line in &report {
        let recipient = line["recipient"].as_str().unwrap();
        assert!(seen.insert(recipient.to_owned()), "seed {seed}: {recipient} is listed twice");
        match line["state"].as_str().unwrap() {
            "accepted" => {
                accepted += 1;
                let sids = taken.get(recipient).map(Vec::as_slice).unwrap_or_default();
                assert!(sids.contains(&line["sid"].as_str().unwrap().to_owned()), "seed {seed}: {line}");
            }
            "in_doubt" => in_doubt += 1,
            _ => lost += 1,
        }
    }
    eprintln!(
        "seed {seed}: {done:?}: accepted {accepted}, in doubt {in_doubt}, sent twice {twice}, lost {lost}"
    );
    assert_eq!((twice, lost), (0, 0), "seed {seed}");
    assert_eq!((report.len() as u64, accepted + in_doubt), (rows, rows), "seed {seed}");
    assert_eq!(last["counts"]["in_doubt"], json!(in_doubt), "seed {seed}");
    // What the provider took is accepted or in doubt, and no more is in doubt than was under way.
    assert!(taken.len() as u64 >= accepted && taken.len() as u64 <= accepted + in_doubt, "seed {seed}");
    assert!(in_doubt > 0 || faults < 100, "seed {seed}: no fault met a request, so this has shown nothing");
    assert!(in_doubt <= faults * WORKERS as u64 * CONCURRENCY * BATCH, "seed {seed}");
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
