//! A fleet during faults: workers, Redis and RabbitMQ are killed, workers are frozen past their claims, connections are cut
//! and stalled. No message is sent twice, no recipient is skipped, and messages in doubt are listed.
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

/// Returns the number in an environment variable, or a default.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A fleet with its servers and connections, all of which faults can hit.
pub struct Scene {
    pub fleet: Fleet,
    pub workers: Vec<Worker>,
    /// Index of the first worker that may be killed.
    pub killed_from: usize,
    /// Indexes of frozen workers, and until when they are frozen.
    pub frozen: Vec<(usize, Instant)>,
    pub redis: RedisProcess,
    pub rabbit: RabbitProcess,
    /// Connections to Redis, RabbitMQ and the provider.
    lines: [Arc<Line>; 3],
    pub rng: StdRng,
}

impl Scene {
    /// Starts the servers and their lines, but no worker; `limits` are the account's.
    pub async fn new(world: World, limits: &str, provider: &str, rng: StdRng) -> Self {
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
        Self { fleet, workers, killed_from: 0, frozen, redis, rabbit, lines, rng }
    }

    /// Injects one fault and returns its name.
    pub async fn inject_fault(&mut self, kind: u64) -> &'static str {
        let nth = self.rng.random_range(0..WORKERS);
        match kind {
            0 => {
                let nth = nth.max(self.killed_from);
                if self.frozen.iter().all(|(frozen, _)| *frozen != nth) {
                    self.workers[nth].kill();
                    self.workers[nth] = self.fleet.worker();
                }
                "worker killed"
            }
            1 => {
                if self.frozen.is_empty() {
                    self.workers[nth].signal(Signal::SIGSTOP);
                    // Longer than its claims, which are valid for the timeout and ten seconds.
                    self.frozen.push((nth, Instant::now() + Duration::from_secs(13)));
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
                let line = self.lines[self.rng.random_range(0..3)].clone();
                line.stalled.store(true, Ordering::Relaxed);
                self.pause(200, 2500).await;
                line.stalled.store(false, Ordering::Relaxed);
                "line stalled"
            }
        }
    }

    /// Sleeps for a random time.
    pub async fn pause(&mut self, min_ms: u64, max_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(min_ms..max_ms))).await;
    }

    /// Thaws the frozen workers whose time is over, or all of them.
    pub fn thaw(&mut self, all: bool) {
        let workers = &self.workers;
        self.frozen.retain(|(nth, until)| {
            let over = all || *until <= Instant::now();
            if over {
                workers[*nth].signal(Signal::SIGCONT);
            }
            !over
        });
    }

    async fn status(&self) -> Value {
        let ended = self.fleet.world.run(&["status", "c1", "--json"]).await;
        serde_json::from_str(&ended.out).unwrap_or_default()
    }

    /// Resumes the campaign as an operator would: a few lost responses in a row hold it, as they should.
    async fn resume_if_held(&self) -> Value {
        let status = self.status().await;
        if status["state"] == "held" {
            self.fleet.world.run(&["resume", "c1"]).await;
        }
        status
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_that_fails_at_random_sends_nothing_twice_and_loses_nothing() {
    let (rows, faults) = (number("FLOWCAST_CHAOS_ROWS", 5_000), number("FLOWCAST_CHAOS_FAULTS", 10));
    let seed = number("FLOWCAST_CHAOS_SEED", rand::random_range(0..1_000_000));
    eprintln!("seed {seed}, {faults} faults over {rows} messages");
    let (sandbox, provider) =
        sandbox(Behaviour { latency: Duration::from_millis(150), ..Behaviour::default() }).await;
    // Slow enough for the campaign to last as long as the faults.
    let rate = (rows / (faults * 2).max(1)).max(BATCH);
    let limits = format!("limits = {{ messages = \"{rate}/s,burst={BATCH}\", requests = \"100000/s\" }}");
    let mut scene = Scene::new(World::new(rows), &limits, &provider, StdRng::seed_from_u64(seed)).await;
    scene.workers = (0..WORKERS).map(|_| scene.fleet.worker()).collect();
    scene.fleet.submit().await;

    let mut injected = HashMap::<&str, u64>::new();
    for nth in 0..faults {
        scene.pause(200, 1500).await;
        // The first faults cover all kinds, later ones are random; servers start slowly, so they are killed less often.
        let kinds = [0, 0, 0, 1, 2, 4, 5, 6, 7, 5, 7, 0, 3];
        let kind = if nth < 8 { nth } else { kinds[scene.rng.random_range(0..kinds.len())] };
        *injected.entry(scene.inject_fault(kind).await).or_default() += 1;
        scene.thaw(false);
        scene.resume_if_held().await;
    }
    let last_frozen = scene.frozen.iter().map(|(_, until)| *until).max();
    tokio::time::sleep(
        last_frozen.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now())),
    )
    .await;
    scene.thaw(true);
    let (start, timeout) = (Instant::now(), Duration::from_secs(120 + rows / rate));
    let mut last = scene.resume_if_held().await;
    while last["state"] != "completed" {
        assert!(
            start.elapsed() < timeout,
            "seed {seed}: the campaign must complete: {last}\n{}",
            tail(&scene.fleet.log())
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        last = scene.resume_if_held().await;
    }

    let mut sids_by_recipient = HashMap::<String, Vec<String>>::new();
    for message in sandbox.taken() {
        sids_by_recipient.entry(message.to).or_default().push(message.sid);
    }
    let twice = sids_by_recipient.values().filter(|sids| sids.len() > 1).count();
    let report = scene.fleet.world.report("c1");
    let mut seen = HashSet::new();
    let (mut accepted, mut in_doubt, mut lost) = (0_u64, 0_u64, 0_u64);
    for line in &report {
        let recipient = line["recipient"].as_str().unwrap();
        assert!(seen.insert(recipient.to_owned()), "seed {seed}: {recipient} must be listed once");
        match line["state"].as_str().unwrap() {
            "accepted" => {
                accepted += 1;
                let sids = sids_by_recipient.get(recipient).map(Vec::as_slice).unwrap_or_default();
                assert!(sids.contains(&line["sid"].as_str().unwrap().to_owned()), "seed {seed}: {line}");
            }
            "in_doubt" => in_doubt += 1,
            _ => lost += 1,
        }
    }
    eprintln!(
        "seed {seed}: {injected:?}: accepted {accepted}, in doubt {in_doubt}, sent twice {twice}, lost {lost}"
    );
    assert_eq!((twice, lost), (0, 0), "seed {seed}");
    assert_eq!((report.len() as u64, accepted + in_doubt), (rows, rows), "seed {seed}");
    assert_eq!(last["counts"]["in_doubt"], json!(in_doubt), "seed {seed}");
    // What the provider accepted is accepted or in doubt here, and no more is in doubt than was in flight.
    let reached = sids_by_recipient.len() as u64;
    assert!(reached >= accepted && reached <= accepted + in_doubt, "seed {seed}");
    assert!(
        in_doubt > 0 || faults < 100,
        "seed {seed}: a fault must hit a request, or the test proves nothing"
    );
    assert!(in_doubt <= faults * WORKERS as u64 * CONCURRENCY * BATCH, "seed {seed}");
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
