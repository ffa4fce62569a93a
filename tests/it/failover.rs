//! Redis masters that are killed and frozen, with Sentinel and in a cluster of real processes.

use std::time::{Duration, Instant};

use flowcast::sandbox::Behaviour;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::fleet::{Fleet, until};
use crate::servers::{DURABLE, RedisProcess, amqp_url, free_port, wait};
use crate::support::{World, phone, sandbox};

/// Returns the number of fail-overs; `FLOWCAST_FAILOVERS=20` is full size.
fn failovers() -> u64 {
    std::env::var("FLOWCAST_FAILOVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(2)
}

/// Messages per second.
const RATE: u64 = 400;

/// Redis servers that fail over.
trait Servers {
    fn url(&self) -> String;
    fn all(&mut self) -> &mut Vec<RedisProcess>;
    /// Returns the index of the master with the campaign's keys, if there is one.
    fn master(&self) -> Option<usize>;
    /// Whether a master that was promoted has a replica.
    const HAS_ANOTHER_REPLICA: bool;
}

/// A master, two replicas, and three sentinels.
struct WithSentinels {
    servers: Vec<RedisProcess>,
    sentinels: Vec<RedisProcess>,
}

/// Returns the options of [`DURABLE`] as lines of a configuration file.
fn durable() -> String {
    DURABLE.split(" --").map(|option| option.trim_start_matches("--").to_owned() + "\n").collect()
}

impl WithSentinels {
    fn start() -> Self {
        let quick = "repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n";
        let master = RedisProcess::configured("", &format!("{}{quick}", durable()));
        let port = master.port;
        let mut servers = vec![master];
        for _ in 0..2 {
            let more = format!("{}{quick}replicaof 127.0.0.1 {port}\n", durable());
            servers.push(RedisProcess::configured("", &more));
        }
        wait("the replicas", || servers[0].responds("INFO replication", "connected_slaves:2"));
        let watch = format!(
            "sentinel monitor campaigns 127.0.0.1 {port} 2\nsentinel down-after-milliseconds campaigns 1000\n\
             sentinel failover-timeout campaigns 4000\n"
        );
        let sentinels: Vec<_> = (0..3).map(|_| RedisProcess::configured("--sentinel", &watch)).collect();
        for sentinel in &sentinels {
            wait("the sentinels to know each other", || {
                sentinel.responds("SENTINEL CKQUORUM campaigns", "+OK 3 usable")
                    && sentinel.responds("INFO sentinel", "slaves=2")
            });
        }
        Self { servers, sentinels }
    }
}

impl Servers for WithSentinels {
    const HAS_ANOTHER_REPLICA: bool = true;

    fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/campaigns/0", hosts.join(","))
    }

    fn all(&mut self) -> &mut Vec<RedisProcess> {
        &mut self.servers
    }

    fn master(&self) -> Option<usize> {
        let named = |server: &RedisProcess| {
            let port = format!("\r\n{}\r\n", server.port);
            self.sentinels
                .iter()
                .all(|sentinel| sentinel.responds("SENTINEL GET-MASTER-ADDR-BY-NAME campaigns", &port))
        };
        let nth = self.servers.iter().position(named)?;
        self.servers[nth].responds("INFO replication", "role:master").then_some(nth)
    }
}

/// A cluster of three masters with a replica each.
struct Cluster(Vec<RedisProcess>);

impl Cluster {
    fn start() -> Self {
        let (nodes, addresses): (Vec<RedisProcess>, Vec<String>) = (0..6)
            .map(|_| {
                let bus = free_port();
                let more = format!(
                    "{}cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1500\n\
                     repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n",
                    durable()
                );
                let node = RedisProcess::configured("", &more);
                let address = format!("127.0.0.1:{}@{bus}", node.port);
                (node, address)
            })
            .unzip();
        let made = std::process::Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        for node in &nodes {
            wait("the cluster", || node.responds("CLUSTER INFO", "cluster_state:ok"));
        }
        wait("its replicas", || {
            nodes.iter().filter(|node| node.responds("INFO replication", "connected_slaves:1")).count() == 3
        });
        Self(nodes)
    }
}

impl Servers for Cluster {
    const HAS_ANOTHER_REPLICA: bool = false;

    fn url(&self) -> String {
        self.0.iter().map(RedisProcess::url).collect::<Vec<_>>().join(",")
    }

    fn all(&mut self) -> &mut Vec<RedisProcess> {
        &mut self.0
    }

    fn master(&self) -> Option<usize> {
        // A node that does not own the slot responds with MOVED.
        let owns = |node: &RedisProcess| {
            node.responds("INFO replication", "role:master")
                && node.responds("EXISTS flowcast:{c1}:campaign", ":1\r\n")
        };
        self.0.iter().position(owns)
    }
}

/// Restarts a killed server, or thaws a frozen one.
fn bring_back(server: &mut RedisProcess, is_frozen: bool) {
    if is_frozen {
        server.signal(Signal::SIGCONT);
    } else {
        server.restart();
    }
}

/// Kills and freezes masters in turn while a campaign runs.
async fn send_during_failovers<S: Servers>(mut servers: S, name: &str) {
    let rows = failovers() * 15 * RATE;
    let behaviour = Behaviour { latency: Duration::from_millis(100), ..Behaviour::default() };
    let (sandbox, url) = sandbox(behaviour).await;
    let limits = format!("limits = {{ messages = \"{RATE}/s,burst=10\", requests = \"1000/s\" }}");
    let account = format!("{limits}\nconcurrency = 8\ntimeout = \"5s\"");
    let fleet = Fleet::on(World::new(rows), &servers.url(), &amqp_url(), &url, &account);
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    fleet.world.write("flowcast.toml", config.replace("[redis]\n", "[redis]\nreplicas = 1\n"));
    let mut job = crate::support::job();
    // Small requests, so that many claims are in flight when a master is killed.
    job["limits"] = json!({ "messages": format!("{RATE}/s,burst=10") });
    fleet.world.write_job(&job);
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 200).await;
    for nth in 0..failovers() {
        let mut master = None;
        until("a master", || {
            master = servers.master();
            master.is_some()
        })
        .await;
        let old = master.unwrap();
        let (freezes, start) = (nth % 2 == 1, Instant::now());
        if freezes {
            servers.all()[old].signal(Signal::SIGSTOP);
        } else {
            servers.all()[old].kill();
        }
        let before = sandbox.count();
        until("another master", || servers.master().is_some_and(|new| new != old)).await;
        let named = start.elapsed();
        if !S::HAS_ANOTHER_REPLICA {
            bring_back(&mut servers.all()[old], freezes);
        }
        until("sending to continue", || sandbox.count() > before + RATE).await;
        let how = if freezes { "frozen" } else { "killed" };
        eprintln!(
            "{name}: {how}, another master after {named:.1?}, sending again after {:.1?}",
            start.elapsed()
        );
        if S::HAS_ANOTHER_REPLICA {
            bring_back(&mut servers.all()[old], freezes);
        }
        // The old master must follow the new one before the next fault.
        until("the old master to follow", || {
            let server = &servers.all()[old];
            server.responds("INFO replication", "role:slave")
                && server.responds("INFO replication", "master_link_status:up")
        })
        .await;
    }
    let mut status = serde_json::Value::Null;
    // The rest may take as long as the whole campaign, and expired claims a little longer.
    let timeout = Duration::from_secs(rows / RATE) + Duration::from_mins(2);
    let waited = tokio::time::timeout(timeout, async {
        while status["state"] != "completed" {
            tokio::time::sleep(Duration::from_millis(200)).await;
            status = fleet.status("c1");
        }
    });
    assert!(waited.await.is_ok(), "the campaign must complete: {status}");
    let stats = sandbox.stats();
    assert_eq!(stats["sent_twice"], 0, "{stats} {status}");
    let counts = &status["counts"];
    let of = |state: &str| counts[state].as_u64().unwrap();
    assert_eq!((of("total"), of("accepted") + of("in_doubt")), (rows, rows), "{status}");
    eprintln!("{name}: accepted {}, in doubt {}, sent twice 0", of("accepted"), of("in_doubt"));
    // No message is lost: all that are not in doubt were accepted.
    let accepted: std::collections::HashSet<String> =
        sandbox.taken().into_iter().map(|message| message.to).collect();
    for line in fleet.world.report("c1") {
        let is_known = line["state"] == "in_doubt" || accepted.contains(line["recipient"].as_str().unwrap());
        assert!(is_known, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_with_sentinels_send_nothing_twice() {
    send_during_failovers(WithSentinels::start(), "sentinel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_in_a_cluster_send_nothing_twice() {
    send_during_failovers(Cluster::start(), "cluster").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enough_replicas_nothing_is_sent_and_the_status_says_why() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let master = RedisProcess::start(DURABLE);
    let fleet = Fleet::on(World::new(300), &master.url(), &amqp_url(), &url, "timeout = \"1s\"");
    let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
    fleet.world.write("flowcast.toml", config.replace("[redis]\n", "[redis]\nreplicas = 1\n"));
    let ended = fleet.world.run(&["doctor"]).await;
    assert!(ended.out.contains("nothing is sent until enough replicas are connected"), "{}", ended.out);
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the status to say why", || {
        let status = fleet.status("c1");
        status["reason"].as_str().is_some_and(|reason| reason.contains("fewer than 1 replica"))
    })
    .await;
    assert_eq!(sandbox.count(), 0);
    // After a pause, messages that were claimed and not sent are not in doubt.
    fleet.ok(&["pause", "c1"]).await;
    until("the claims to be released", || fleet.status("c1")["counts"]["sending"] == 0).await;
    assert_eq!(fleet.status("c1")["counts"]["in_doubt"], 0);
    let _replica = RedisProcess::start(&format!("{DURABLE} --replicaof 127.0.0.1 {}", master.port));
    fleet.ok(&["resume", "c1"]).await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 300, "{status}");
    assert!(sandbox.taken().iter().any(|message| message.to == phone(1)));
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}
