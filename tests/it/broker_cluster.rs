//! A RabbitMQ cluster of three real nodes that are killed, frozen, and cut off from each other and from the workers while a
//! campaign runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowcast::sandbox::{Behaviour, Sandbox};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::fleet::{Fleet, until};
use crate::line::Line;
use crate::servers::{RabbitCluster, redis_url};
use crate::support::{World, sandbox};

/// Returns the number of faults; `FLOWCAST_BROKER_FAULTS=20` is full size. Their kinds follow in turn after a random one.
fn faults() -> u64 {
    std::env::var("FLOWCAST_BROKER_FAULTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Messages per second while a node is missing.
const RATE: u64 = 200;
/// Messages per second while a node comes back: few, because that may take minutes and must end before the campaign does.
const SLOW: u64 = 20;

/// A fault of a node.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    /// Cuts the node off from the others: it has no majority and pauses.
    Cut,
    /// Cuts the workers' connections to the node.
    Lines,
}

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Freeze, Fault::Cut, Fault::Lines];

/// Changes the limit of messages per second.
fn limit_to(fleet: &Fleet, rate: u64) {
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    let (before, after) = config.split_once("messages = \"").unwrap();
    let (_, rest) = after.split_once("/s").unwrap();
    fleet.world.write("flowcast.toml", format!("{before}messages = \"{rate}/s{rest}"));
}

/// Sends the remaining messages at full speed after the last fault; fails if sending stops.
async fn send_the_rest(fleet: &Fleet, sandbox: &Sandbox, rows: u64) {
    limit_to(fleet, 100_000);
    while sandbox.count() < rows {
        let before = sandbox.count();
        until("more to be sent", || sandbox.count() > before).await;
    }
}

async fn lines(cluster: &RabbitCluster) -> (Vec<Arc<Line>>, String) {
    let mut lines = Vec::new();
    for node in &cluster.nodes {
        lines.push(Line::to(node.port).await);
    }
    let ports: Vec<u16> = lines.iter().map(|line| line.port).collect();
    (lines, RabbitCluster::url(&ports))
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_fail_one_after_another_cause_no_second_send() {
    let seed = rand::random_range(0..1_000_000);
    let mut rng = StdRng::seed_from_u64(seed);
    // More than is sent during the faults, even on a slow machine.
    let rows = faults() * 8_000;
    eprintln!("seed {seed}, {} faults over {rows} messages", faults());
    let behaviour = Behaviour { latency: Duration::from_millis(50), ..Behaviour::default() };
    let (sandbox, provider) = sandbox(behaviour).await;
    let mut cluster = RabbitCluster::start();
    let (lines, url) = lines(&cluster).await;
    let limits = format!("limits = {{ messages = \"{RATE}/s,burst=10\", requests = \"100000/s\" }}");
    let fleet =
        Fleet::on(World::new(rows), &redis_url(), &url, &provider, &format!("{limits}\nconcurrency = 4"));
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 200).await;
    let mut longest = Duration::ZERO;
    let first = rng.random_range(0..FAULTS.len());
    for nth in 0..faults() {
        let fault = FAULTS[(first + usize::try_from(nth).unwrap()) % FAULTS.len()];
        let node = rng.random_range(0..3);
        limit_to(&fleet, RATE);
        let (start, before) = (Instant::now(), sandbox.count());
        match fault {
            Fault::Kill => cluster.kill(node),
            Fault::Freeze => cluster.signal(node, Signal::SIGSTOP),
            Fault::Cut => cluster.partition(node, true),
            Fault::Lines => lines[node].cut(),
        }
        // More than two workers have already claimed.
        let (mut last, mut gap) = ((before, Instant::now()), Duration::ZERO);
        until("sending to continue", || {
            let count = sandbox.count();
            gap = gap.max(last.1.elapsed());
            if count != last.0 {
                last = (count, Instant::now());
            }
            count > before + 5 * RATE
        })
        .await;
        let took = start.elapsed();
        longest = longest.max(gap);
        limit_to(&fleet, SLOW);
        match fault {
            Fault::Kill => cluster.restart(node),
            Fault::Freeze => cluster.signal(node, Signal::SIGCONT),
            Fault::Cut => cluster.partition(node, false),
            Fault::Lines => {}
        }
        cluster.await_healthy(&[node]);
        eprintln!(
            "node {node} {fault:?}: {gap:.1?} without sending, 1,000 more after {took:.1?}, all nodes again after {:.1?}",
            start.elapsed()
        );
    }
    assert!(sandbox.count() < rows, "seed {seed}: the campaign must outlast the last fault");
    send_the_rest(&fleet, &sandbox, rows).await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows, "seed {seed}: {status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0, "seed {seed}");
    assert_eq!(sandbox.count(), rows, "seed {seed}");
    eprintln!("accepted {rows}, in doubt 0, sent twice 0; at most {longest:.1?} without sending");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_of_nodes_the_status_says_so_and_sending_resumes_automatically() {
    let (sandbox, provider) = sandbox(Behaviour::default()).await;
    let mut cluster = RabbitCluster::start();
    let (lines, url) = lines(&cluster).await;
    let limits = format!("limits = {{ messages = \"{SLOW}/s,burst=10\", requests = \"100000/s\" }}");
    let rows = 40_000;
    let fleet = Fleet::on(World::new(rows), &redis_url(), &url, &provider, &limits);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 100).await;
    let await_reason = async |part: &str| {
        let mut reason = String::new();
        until(&format!("the status to say {part:?}"), || {
            let now = fleet.status("c1")["reason"].to_string();
            if now != reason {
                eprintln!("{now}");
            }
            reason = now;
            reason.contains(part)
        })
        .await;
    };
    // A node without a majority pauses.
    cluster.kill(1);
    cluster.kill(2);
    await_reason("cannot connect to any of the 3 RabbitMQ nodes").await;
    let ended = fleet.world.run(&["doctor"]).await;
    assert!(ended.out.contains(&format!("127.0.0.1:{}", lines[1].port)), "{}", ended.out);
    cluster.restart(1);
    cluster.restart(2);
    cluster.await_healthy(&[1, 2]);
    until("the status to have no reason", || fleet.status("c1")["reason"].is_null()).await;
    let before = sandbox.count();
    until("sending to continue", || sandbox.count() > before + 200).await;
    // A node that ignores partitions accepts connections, but its queues have no leader.
    for node in &cluster.nodes {
        node.evaluate("application:set_env(rabbit, cluster_partition_handling, ignore).");
    }
    cluster.kill(0);
    cluster.kill(1);
    await_reason("most of").await;
    cluster.restart(0);
    cluster.restart(1);
    until("the status to have no reason", || fleet.status("c1")["reason"].is_null()).await;
    let before = sandbox.count();
    until("sending to continue", || sandbox.count() > before + 200).await;
    assert!(sandbox.count() < rows, "the campaign must outlast the outage");
    send_the_rest(&fleet, &sandbox, rows).await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows, "{status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}
