//! RabbitMQ as a cluster of three nodes, real processes: killed, frozen, cut off from each other and from
//! the workers while a campaign runs.

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

/// How many faults there are, of kinds in turns from one by chance on; `FLOWCAST_BROKER_FAULTS=20` is full size.
fn faults() -> u64 {
    std::env::var("FLOWCAST_BROKER_FAULTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// How many messages are sent a second while a node is missing.
const RATE: u64 = 200;
/// How many while it comes back, which may take minutes on a busy machine: the campaign is to outlast it.
const SLOW: u64 = 20;

/// How a node goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    /// From the other nodes: it sees that it is alone, and pauses.
    Cut,
    /// The workers' lines to it.
    Lines,
}

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Freeze, Fault::Cut, Fault::Lines];

/// Changes how many messages a second may go out.
fn limit_to(fleet: &Fleet, rate: u64) {
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    let (before, behind) = config.split_once("messages = \"").unwrap();
    let (_, rest) = behind.split_once("/s").unwrap();
    fleet.world.write("flowcast.toml", format!("{before}messages = \"{rate}/s{rest}"));
}

/// Nothing more goes wrong: what is left goes out as fast as it can, which is told by its going on.
async fn send_the_rest(fleet: &Fleet, sandbox: &Sandbox, rows: u64) {
    limit_to(fleet, 100_000);
    while sandbox.count() < rows {
        let then = sandbox.count();
        until("more to be sent", || sandbox.count() > then).await;
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
async fn a_node_after_the_other_goes_wrong_and_nobody_is_sent_to_twice() {
    let seed = rand::random_range(0..1_000_000);
    let mut chance = StdRng::seed_from_u64(seed);
    // More than goes out meanwhile, however slow the machine is.
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
    until("it to be on its way", || sandbox.count() > 200).await;
    let mut longest = Duration::ZERO;
    let first = chance.random_range(0..FAULTS.len());
    for nth in 0..faults() {
        let error = FAULTS[(first + usize::try_from(nth).unwrap()) % FAULTS.len()];
        let node = chance.random_range(0..3);
        limit_to(&fleet, RATE);
        let (begun, then) = (Instant::now(), sandbox.count());
        match error {
            Fault::Kill => cluster.kill(node),
            Fault::Freeze => cluster.signal(node, Signal::SIGSTOP),
            Fault::Cut => cluster.cut(node, true),
            Fault::Lines => lines[node].cut(),
        }
        // As much as two workers have in hand, and some more.
        let (mut last, mut gap) = ((then, Instant::now()), Duration::ZERO);
        until("sending to go on", || {
            let count = sandbox.count();
            gap = gap.max(last.1.elapsed());
            if count != last.0 {
                last = (count, Instant::now());
            }
            count > then + 5 * RATE
        })
        .await;
        let took = begun.elapsed();
        longest = longest.max(gap);
        limit_to(&fleet, SLOW);
        match error {
            Fault::Kill => cluster.restart(node),
            Fault::Freeze => cluster.signal(node, Signal::SIGCONT),
            Fault::Cut => cluster.cut(node, false),
            Fault::Lines => {}
        }
        cluster.await_whole(&[node]);
        eprintln!(
            "node {node} {error:?}: {gap:.1?} without sending, 1,000 more after {took:.1?}, all nodes again after {:.1?}",
            begun.elapsed()
        );
    }
    assert!(sandbox.count() < rows, "seed {seed}: all was sent before the last fault was over");
    send_the_rest(&fleet, &sandbox, rows).await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows, "seed {seed}: {status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0, "seed {seed}");
    assert_eq!(sandbox.count(), rows, "seed {seed}");
    eprintln!("accepted {rows}, in doubt 0, sent twice 0; at most {longest:.1?} without sending");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_most_of_its_nodes_the_status_says_so_and_it_goes_on_by_itself() {
    let (sandbox, provider) = sandbox(Behaviour::default()).await;
    let mut cluster = RabbitCluster::start();
    let (lines, url) = lines(&cluster).await;
    let limits = format!("limits = {{ messages = \"{SLOW}/s,burst=10\", requests = \"100000/s\" }}");
    let rows = 40_000;
    let fleet = Fleet::on(World::new(rows), &redis_url(), &url, &provider, &limits);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 100).await;
    let says = async |part: &str| {
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
    // A node that is alone pauses.
    cluster.kill(1);
    cluster.kill(2);
    says("cannot connect to any of the 3 RabbitMQ nodes").await;
    let ended = fleet.world.run(&["doctor"]).await;
    assert!(ended.out.contains(&format!("127.0.0.1:{}", lines[1].port)), "{}", ended.out);
    cluster.restart(1);
    cluster.restart(2);
    cluster.await_whole(&[1, 2]);
    until("the status to be quiet", || fleet.status("c1")["reason"].is_null()).await;
    let then = sandbox.count();
    until("sending to go on", || sandbox.count() > then + 200).await;
    // One that is told to ignore it takes connections, and its queues have no leader.
    for node in &cluster.nodes {
        node.evaluate("application:set_env(rabbit, cluster_partition_handling, ignore).");
    }
    cluster.kill(0);
    cluster.kill(1);
    says("most of").await;
    cluster.restart(0);
    cluster.restart(1);
    until("the status to be quiet", || fleet.status("c1")["reason"].is_null()).await;
    let then = sandbox.count();
    until("sending to go on", || sandbox.count() > then + 200).await;
    assert!(sandbox.count() < rows, "all was sent before the nodes were back");
    send_the_rest(&fleet, &sandbox, rows).await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows, "{status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}
