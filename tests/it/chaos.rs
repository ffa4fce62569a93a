//! A fleet on bad days: workers, Redis and RabbitMQ killed, workers frozen past their claims, lines
//! cut and stalled. Nobody gets a message twice, nobody is left out, and what is in doubt is listed.
//!
//! A short run is part of the tests; `just chaos` has 200 faults over 100,000 messages.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowcast::sandbox::Behaviour;
use nix::sys::signal::{Signal, kill};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, Worker};
use crate::servers::{DURABLE, RabbitProcess, RedisProcess};
use crate::support::{World, sandbox};

const WORKERS: usize = 3;
const CONCURRENCY: u64 = 2;
const BATCH: u64 = 20;

/// A line between workers and a server that can be cut and stalled.
struct Line {
    port: u16,
    cut: std::sync::Mutex<CancellationToken>,
    stalled: Arc<AtomicBool>,
}

impl Line {
    async fn to(server: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stalled = Arc::new(AtomicBool::new(false));
        let line = Arc::new(Self { port, cut: std::sync::Mutex::default(), stalled });
        let this = line.clone();
        tokio::spawn(async move {
            loop {
                let (here, _) = listener.accept().await.unwrap();
                let cut = this.cut.lock().unwrap().clone();
                let stalled = this.stalled.clone();
                tokio::spawn(async move {
                    let Ok(there) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let (here_in, here_out) = here.into_split();
                    let (there_in, there_out) = there.into_split();
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = carry(here_in, there_out, &stalled) => {}
                        () = carry(there_in, here_out, &stalled) => {}
                    }
                });
            }
        });
        line
    }

    /// Closes every connection on it.
    fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }
}

async fn carry(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    stalled: &AtomicBool,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        while stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_bad_days_nothing_is_sent_twice_and_nothing_is_lost() {
    let (rows, faults) = (number("FLOWCAST_CHAOS_ROWS", 8_000), number("FLOWCAST_CHAOS_FAULTS", 14));
    let seed = number("FLOWCAST_CHAOS_SEED", rand::random_range(0..1_000_000));
    let mut chance = StdRng::seed_from_u64(seed);
    eprintln!("seed {seed}, {faults} faults over {rows} messages");

    let (sandbox, provider) =
        sandbox(Behaviour { latency: Duration::from_millis(150), ..Behaviour::default() }).await;
    let mut redis = RedisProcess::start(DURABLE);
    let mut rabbit = RabbitProcess::start();
    let lines = [
        Line::to(redis.port).await,
        Line::to(rabbit.port).await,
        Line::to(provider.rsplit(':').next().unwrap().parse().unwrap()).await,
    ];
    // So slow that the campaign lasts as long as the faults.
    let rate = rows / (faults * 2).max(1);
    let account = format!(
        "limits = {{ messages = \"{rate}/s,burst={BATCH}\", requests = \"100000/s\" }}\nconcurrency = {CONCURRENCY}\ntimeout = \"1s\""
    );
    let fleet = Fleet::on(
        World::new(rows),
        &format!("redis://127.0.0.1:{}/0", lines[0].port),
        &format!("amqp://guest:guest@127.0.0.1:{}/%2f", lines[1].port),
        &format!("http://127.0.0.1:{}", lines[2].port),
        &account,
    );
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| fleet.worker()).collect();
    fleet.submit().await;

    let status = async || {
        let ended = fleet.world.run(&["status", "c1", "--json"]).await;
        serde_json::from_str::<Value>(&ended.out).unwrap_or_default()
    };
    let mut frozen: Vec<(usize, Instant)> = Vec::new();
    let mut done = HashMap::<&str, u64>::new();
    for nth in 0..faults {
        tokio::time::sleep(Duration::from_millis(chance.random_range(200..1500))).await;
        // Each kind of fault comes early, and then chance chooses; servers start slowly, so less often.
        let kind =
            if nth < 8 { nth } else { [0, 0, 0, 1, 2, 4, 5, 6, 7, 5, 7, 0, 3][chance.random_range(0..13)] };
        let who = chance.random_range(0..WORKERS);
        let name = match kind {
            0 => {
                if frozen.iter().all(|(frozen, _)| *frozen != who) {
                    workers[who].kill();
                    workers[who] = fleet.worker();
                }
                "worker killed"
            }
            1 => {
                if frozen.is_empty() {
                    workers[who].signal(Signal::SIGSTOP);
                    // Past its claims, which hold for the time-out and ten seconds.
                    frozen.push((who, Instant::now() + Duration::from_secs(13)));
                }
                "worker frozen past its claim"
            }
            2 => {
                redis.kill();
                tokio::time::sleep(Duration::from_millis(chance.random_range(0..1500))).await;
                redis.restart();
                "Redis killed"
            }
            3 => {
                rabbit.kill();
                rabbit.restart();
                "RabbitMQ killed"
            }
            4 => {
                lines[0].cut();
                "line to Redis cut"
            }
            5 => {
                lines[1].cut();
                "line to RabbitMQ cut"
            }
            6 => {
                lines[2].cut();
                "line to the provider cut"
            }
            _ => {
                let line = &lines[chance.random_range(0..3)];
                line.stalled.store(true, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(chance.random_range(200..2500))).await;
                line.stalled.store(false, Ordering::Relaxed);
                "line stalled"
            }
        };
        *done.entry(name).or_default() += 1;
        frozen.retain(|(who, until)| {
            let over = *until <= Instant::now();
            if over {
                kill(workers[*who].pid(), Signal::SIGCONT).unwrap();
            }
            !over
        });
        // A few answers lost in a row hold the campaign, as they should; a person lets it go on.
        if status().await["state"] == "held" {
            fleet.world.run(&["resume", "c1"]).await;
        }
    }
    while let Some((who, until)) = frozen.pop() {
        tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
        kill(workers[who].pid(), Signal::SIGCONT).unwrap();
    }
    let start = Instant::now();
    let last = loop {
        let now = status().await;
        match now["state"].as_str() {
            Some("completed") => break now,
            Some("held") => {
                fleet.world.run(&["resume", "c1"]).await;
            }
            _ => {}
        }
        let patience = Duration::from_secs(120 + rows / rate.max(1));
        assert!(start.elapsed() < patience, "seed {seed}: it does not end: {now}\n{}", tail(&fleet.log()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    };

    let mut taken = HashMap::<String, Vec<String>>::new();
    for message in sandbox.taken() {
        taken.entry(message.to).or_default().push(message.sid);
    }
    let twice = taken.values().filter(|sids| sids.len() > 1).count();
    let report = fleet.world.report("c1");
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
