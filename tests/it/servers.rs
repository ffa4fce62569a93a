//! Real servers for tests: private instances on free ports, in temporary folders, that end with the tests.
//!
//! `FLOWCAST_TEST_REDIS_URL` and `FLOWCAST_TEST_AMQP_URL` name existing servers instead. The programs of Redis are searched
//! in `PATH`, those of RabbitMQ in `FLOWCAST_TEST_RABBITMQ` or else in Debian's folder; `scripts/matrix` sets other ones.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use flowcast::ledger::{Redis, RetryPolicy};
use flowcast::queue::rabbitmq::Broker;
use flowcast::redis_client::RedisClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::Mutex;

/// Maximum duration of a server's start.
const START_TIMEOUT: Duration = Duration::from_mins(5);
/// Timeout for the request of a claim.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a free port. Another program may take it before it is used, but no other test gets the same one.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Below the range of ephemeral ports.
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(12_000 + (std::process::id() * 97 + nth) % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until a condition is true.
pub fn wait(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < START_TIMEOUT, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process with all its children, in a process group of its own.
///
/// The group ends when this is dropped, and also when the tests are killed: a shell waits for the end of its input and then
/// kills the group.
struct Group {
    shell: Child,
    group: i32,
}

impl Group {
    fn start(folder: &Path, command: &str, environment: &[(&str, String)]) -> Self {
        // The shell ends after the server: until then the server's ports are in use.
        let script = format!(
            "set -m\ntrap 'kill -9 -- -$! 2>/dev/null; wait $!' EXIT\ntrap exit TERM INT HUP\n\
             {command} >>log 2>&1 </dev/null &\necho $!\nread -r _\n"
        );
        let mut shell = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first line is the id of the group.
        let mut line = Vec::new();
        let mut byte = [0];
        let out = shell.stdout.as_mut().unwrap();
        while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        let group = String::from_utf8(line).unwrap().trim().parse().unwrap();
        Self { shell, group }
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(-self.group), signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A Redis that can be killed and started again on the same data.
pub struct RedisProcess {
    pub port: u16,
    pub folder: tempfile::TempDir,
    options: String,
    process: Option<Group>,
}

impl RedisProcess {
    pub fn start(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut redis = Self { port: free_port(), folder, options: options.into(), process: None };
        redis.restart();
        redis
    }

    /// Starts one with a configuration file, which the server may rewrite; `args` follow the file's name.
    pub fn configured(args: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = format!("port {port}\nbind 127.0.0.1\nsave \"\"\n{settings}\n");
        std::fs::write(folder.path().join("redis.conf"), file).unwrap();
        let mut redis = Self { port, folder, options: args.into(), process: None };
        redis.restart();
        redis
    }

    /// Starts it on the same port and data.
    pub fn restart(&mut self) {
        let command = if self.folder.path().join("redis.conf").exists() {
            format!("redis-server redis.conf {}", self.options)
        } else {
            format!("redis-server --port {} --bind 127.0.0.1 --save '' --dir . {}", self.port, self.options)
        };
        self.process = Some(Group::start(self.folder.path(), &command, &[]));
        let port = self.port;
        wait("Redis", || {
            response_contains(port, "PING\r\nQUIT\r\n", "+PONG")
                || response_contains(port, "PING\r\nQUIT\r\n", "-NOAUTH")
        });
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends it a signal, e.g. to freeze it and to let it continue.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Returns whether the response to a command contains `expected`.
    pub fn responds(&self, command: &str, expected: &str) -> bool {
        response_contains(self.port, &format!("{command}\r\nQUIT\r\n"), expected)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }
}

/// Returns whether a server's response to a request starts with `expected`.
fn response_starts_with(port: u16, request: &[u8], expected: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut response = vec![0; expected.len()];
    stream.write_all(request).is_ok() && stream.read_exact(&mut response).is_ok() && response == expected
}

/// Options of a Redis that loses no acknowledged write.
pub const DURABLE: &str = "--appendonly yes --appendfsync always --maxmemory-policy noeviction";

/// Returns the URL of the Redis that tests share, each with a database of its own.
fn shared_redis() -> &'static str {
    static SHARED: OnceLock<(String, Option<RedisProcess>)> = OnceLock::new();
    let (url, _) = SHARED.get_or_init(|| {
        if let Ok(url) = std::env::var("FLOWCAST_TEST_REDIS_URL") {
            return (url.trim_end_matches('/').to_owned(), None);
        }
        let redis = RedisProcess::start(&format!("{DURABLE} --databases 1000"));
        (format!("redis://127.0.0.1:{}", redis.port), Some(redis))
    });
    url
}

/// Returns the URL of an empty database.
pub fn redis_url() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let url = format!("{}/{nth}", shared_redis());
    let client = redis::Client::open(url.as_str()).unwrap();
    let _: () = redis::cmd("FLUSHDB").query(&mut client.get_connection().unwrap()).unwrap();
    url
}

/// The store of a ledger in Redis.
pub struct RedisStore {
    pub url: String,
    _guard: Option<Box<dyn Send + Sync>>,
}

pub fn redis_store() -> RedisStore {
    RedisStore { url: redis_url(), _guard: None }
}

impl RedisStore {
    pub fn at(url: String, guard: impl Send + Sync + 'static) -> Self {
        Self { url, _guard: Some(Box::new(guard)) }
    }

    pub async fn ledger(&self) -> Redis {
        Redis::connect(&self.url.as_str().into(), RetryPolicy::Short, REQUEST_TIMEOUT).await.unwrap()
    }

    pub async fn server(&self) -> RedisClient {
        RedisClient::connect(&self.url.as_str().into(), RetryPolicy::Short).await.unwrap()
    }

    /// Makes all claims expire.
    pub async fn expire_claims(&self) {
        let server = self.server().await;
        for campaign in ["c1", "c2"] {
            let key = format!("flowcast:{{{campaign}}}:claims");
            let claims: Vec<String> =
                server.command(redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1)).await.unwrap();
            for claim in claims {
                let _: u64 = server.command(redis::cmd("ZADD").arg(&key).arg(0).arg(claim)).await.unwrap();
            }
        }
    }
}

/// A Redis Cluster of three nodes.
pub struct RedisCluster(Vec<RedisProcess>);

impl RedisCluster {
    pub fn start() -> Self {
        // By default the cluster bus uses the node's port plus 10,000, which another server may have.
        let (nodes, addresses): (Vec<RedisProcess>, Vec<String>) = (0..3)
            .map(|_| {
                let bus = free_port();
                let node = RedisProcess::start(&format!(
                    "{DURABLE} --cluster-enabled yes --cluster-port {bus} --cluster-node-timeout 2000"
                ));
                let address = format!("127.0.0.1:{}@{bus}", node.port);
                (node, address)
            })
            .unzip();
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .arg("--cluster-yes")
            .output()
            .unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let port = nodes[0].port;
        wait("the cluster", || response_contains(port, "CLUSTER INFO\r\n", "cluster_state:ok"));
        Self(nodes)
    }

    pub fn url(&self) -> String {
        self.0.iter().map(RedisProcess::url).collect::<Vec<_>>().join(",")
    }
}

/// Returns a store in an empty cluster. A cluster has one database, so only one test uses it at a time.
pub async fn cluster_store() -> RedisStore {
    static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
    static LOCK: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);
    let guard = LOCK.clone().lock_owned().await;
    let cluster = CLUSTER.get_or_init(RedisCluster::start);
    for node in &cluster.0 {
        let client = redis::Client::open(node.url().as_str()).unwrap();
        let _: () = redis::cmd("FLUSHALL").query(&mut client.get_connection().unwrap()).unwrap();
    }
    RedisStore::at(cluster.url(), guard)
}

fn response_contains(port: u16, request: &str, expected: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    if stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).contains(expected)
}

/// Returns the path of a program of RabbitMQ.
fn rabbitmq(program: &str) -> String {
    let folder = std::env::var("FLOWCAST_TEST_RABBITMQ");
    format!("{}/{program}", folder.as_deref().unwrap_or("/usr/lib/rabbitmq/bin"))
}

/// A RabbitMQ node that can be killed and started again on the same data.
pub struct RabbitProcess {
    pub port: u16,
    management: u16,
    folder: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
    _epmd: Group,
    process: Option<Group>,
}

impl RabbitProcess {
    /// Creates a user who has only `permissions`, on the first virtual host, and returns its URL.
    pub fn url_of_user(&self, permissions: &str) -> String {
        let created = http(self.management, "PUT", "/api/users/flowcast", r#"{"password":"pw","tags":""}"#);
        assert!(created.contains("201") || created.contains("204"), "{created}");
        self.allow("%2f", "flowcast", permissions);
        format!("amqp://flowcast:pw@127.0.0.1:{}/%2f", self.port)
    }

    fn allow(&self, host: &str, user: &str, permissions: &str) {
        let path = format!("/api/permissions/{host}/{user}");
        let allowed = http(self.management, "PUT", &path, permissions);
        assert!(allowed.contains("201") || allowed.contains("204"), "{allowed}");
    }

    pub fn start() -> Self {
        Self::with_data_in(None)
    }

    /// Starts one that keeps its data in a folder.
    pub fn with_data_in(data: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, dist, epmd_port, management) = (free_port(), free_port(), free_port(), free_port());
        let home = folder.path().display().to_string();
        let environment = vec![
            ("HOME", home.clone()),
            ("RABBITMQ_NODENAME", format!("flowcast{port}@localhost")),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", port.to_string()),
            ("RABBITMQ_DIST_PORT", dist.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("ERL_EPMD_PORT", epmd_port.to_string()),
            ("RABBITMQ_MNESIA_BASE", format!("{}/mnesia", data.unwrap_or(folder.path()).display())),
            ("RABBITMQ_LOG_BASE", format!("{home}/log-files")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{home}/plugins")),
            ("RABBITMQ_PID_FILE", format!("{home}/pid")),
            ("RABBITMQ_CONFIG_FILE", format!("{home}/rabbitmq")),
        ];
        std::fs::write(folder.path().join("plugins"), "[rabbitmq_management].\n").unwrap();
        // By default RabbitMQ 4 refuses messages above 16 MiB, and 3.10 those above 128 MiB. Jobs that are too large must
        // reach a worker.
        let config = format!(
            "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\nmax_message_size = 134217728\nvm_memory_high_watermark.absolute = 2GB\ndisk_free_limit.absolute = 50MB\n"
        );
        std::fs::write(folder.path().join("rabbitmq.conf"), config).unwrap();
        // The node's own epmd runs in the foreground: one that the node starts would outlive the node.
        let epmd = Group::start(folder.path(), &format!("epmd -address 127.0.0.1 -port {epmd_port}"), &[]);
        let mut rabbit = Self { port, management, folder, environment, _epmd: epmd, process: None };
        rabbit.restart();
        rabbit
    }

    pub fn restart(&mut self) {
        self.process =
            Some(Group::start(self.folder.path(), &rabbitmq("rabbitmq-server"), &self.environment));
        let (port, management) = (self.port, self.management);
        wait("RabbitMQ", || response_starts_with(port, b"AMQP\x00\x00\x09\x01", b"\x01"));
        wait("RabbitMQ's management", || http(management, "GET", "/api/overview", "").contains("200 OK"));
    }

    /// Kills it with SIGKILL, and waits until its port is free.
    pub fn kill(&mut self) {
        self.process = None;
        let port = self.port;
        wait("RabbitMQ's end", || TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Returns its queues with the number of messages in each.
    pub fn queues(&self) -> std::collections::BTreeMap<String, u64> {
        let response = http(self.management, "GET", "/api/queues", "");
        let json = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let queues: Vec<serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
        let queue = |queue: &serde_json::Value| {
            (queue["name"].as_str().unwrap().to_owned(), queue["messages"].as_u64().unwrap_or_default())
        };
        queues.iter().map(queue).collect()
    }

    /// Saves the list of quorum queues.
    ///
    /// RabbitMQ saves it half a second after a change, so a newer queue does not survive a SIGKILL.
    pub fn save_queues(&self) {
        self.control(&["eval", "[ok = dets:sync(Table) || Table <- dets:all()]."]);
    }

    /// Runs `rabbitmqctl` on this node.
    pub fn control(&self, args: &[&str]) {
        let output = Command::new(rabbitmq("rabbitmqctl"))
            .args(args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Sends an HTTP request as the broker's default user and returns the response as text.
fn http(port: u16, method: &str, path: &str, body: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(request.as_bytes());
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

/// Returns the URL of an empty virtual host on the broker that tests share.
pub fn amqp_url() -> String {
    static SHARED: OnceLock<RabbitProcess> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if let Ok(url) = std::env::var("FLOWCAST_TEST_AMQP_URL") {
        return url;
    }
    let rabbit = SHARED.get_or_init(RabbitProcess::start);
    let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let created = http(rabbit.management, "PUT", &format!("/api/vhosts/{name}"), "{}");
    assert!(created.contains("201 Created"), "{created}");
    rabbit.allow(&name, "guest", r#"{"configure":".*","write":".*","read":".*"}"#);
    format!("amqp://guest:guest@127.0.0.1:{}/{name}", rabbit.port)
}

pub async fn broker(url: &str) -> Broker {
    Broker::connect(&url.into(), true).await.unwrap()
}

/// Secret by which the nodes of a cluster authenticate each other.
const COOKIE: &str = "FLOWCASTCLUSTER";
/// Time after which nodes regard a silent one as down.
const NET_TICK: Duration = Duration::from_secs(5);

/// A RabbitMQ cluster of three nodes on this machine, each of which can be killed, frozen and partitioned from the others.
pub struct RabbitCluster {
    pub nodes: Vec<RabbitNode>,
    folder: tempfile::TempDir,
    _epmd: Group,
}

pub struct RabbitNode {
    pub port: u16,
    name: String,
    environment: Vec<(&'static str, String)>,
    process: Option<Group>,
}

impl RabbitCluster {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (home, epmd_port) = (folder.path().display().to_string(), free_port());
        let epmd = Group::start(folder.path(), &format!("epmd -address 127.0.0.1 -port {epmd_port}"), &[]);
        // Otherwise the first node starts an epmd of its own.
        wait("epmd", || TcpStream::connect(("127.0.0.1", epmd_port)).is_ok());
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let names: Vec<String> = ports.iter().map(|port| format!("flowcast{port}@localhost")).collect();
        let config = format!(
            "vm_memory_high_watermark.absolute = 2GB\ndisk_free_limit.absolute = 50MB\n\
             cluster_partition_handling = pause_minority\nnet_ticktime = {}\n",
            NET_TICK.as_secs()
        );
        std::fs::write(folder.path().join("rabbitmq.conf"), config).unwrap();
        std::fs::write(folder.path().join("plugins"), "[].\n").unwrap();
        // Written first, otherwise each node generates one.
        let cookie = folder.path().join(".erlang.cookie");
        std::fs::write(&cookie, COOKIE).unwrap();
        std::fs::set_permissions(&cookie, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        let node = |(port, name): (u16, String)| {
            let environment = vec![
                ("HOME", home.clone()),
                ("RABBITMQ_NODENAME", name.clone()),
                ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
                ("RABBITMQ_NODE_PORT", port.to_string()),
                ("RABBITMQ_DIST_PORT", free_port().to_string()),
                ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
                ("ERL_EPMD_PORT", epmd_port.to_string()),
                ("RABBITMQ_MNESIA_BASE", format!("{home}/mnesia")),
                ("RABBITMQ_LOG_BASE", format!("{home}/log-files")),
                ("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{home}/plugins")),
                ("RABBITMQ_PID_FILE", format!("{home}/pid-{port}")),
                ("RABBITMQ_CONFIG_FILE", format!("{home}/rabbitmq")),
                // Few threads: three nodes and the tests share two cores.
                ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +SDio 1 +sbwt none".into()),
            ];
            RabbitNode { port, name, environment, process: None }
        };
        let nodes = ports.into_iter().zip(names).map(node).collect();
        let mut cluster = Self { nodes, folder, _epmd: epmd };
        (0..3).for_each(|nth| cluster.start_node(nth));
        (0..3).for_each(|nth| cluster.await_node(nth));
        // The nodes are joined explicitly: versions discover each other in different ways.
        let first = cluster.nodes[0].name.clone();
        for node in &cluster.nodes[1..] {
            for args in [&["stop_app"][..], &["join_cluster", &first], &["start_app"]] {
                node.control(args);
            }
        }
        cluster.await_healthy(&[]);
        cluster
    }

    /// Waits until all nodes see each other and each quorum queue has all its members.
    ///
    /// The state must last long enough for an earlier failure to be noticed. Nodes of `failed` are restarted if the cluster does
    /// not recover without that, as an operator of RabbitMQ would do.
    pub fn await_healthy(&mut self, failed: &[usize]) {
        for attempt in 0..5 {
            // A node that was frozen for longer than a tick does not rejoin; on a busy machine a node takes longer.
            let timeout = Duration::from_secs(30 << attempt);
            let (start, mut healthy_since) = (Instant::now(), None);
            while start.elapsed() < timeout || healthy_since.is_some() {
                if !self.is_healthy() {
                    healthy_since = None;
                } else if healthy_since.get_or_insert_with(Instant::now).elapsed() > 2 * NET_TICK {
                    return;
                }
                // Each check starts an Erlang virtual machine on the two cores that the nodes use.
                std::thread::sleep(Duration::from_secs(1));
            }
            for &nth in failed {
                eprintln!("restarting node {nth}: it has not rejoined the cluster");
                self.kill(nth);
                self.restart(nth);
            }
        }
        panic!("timed out waiting for the cluster to be healthy");
    }

    fn is_healthy(&self) -> bool {
        self.nodes[0].evaluate(
            "{All, Running} = case erlang:function_exported(rabbit_nodes, list_members, 0) of \
                 true -> {list_members, list_running}; false -> {all, all_running} end, \
             Nodes = lists:sort(rabbit_nodes:All()), \
             Sees = fun(Node) -> case rpc:call(Node, rabbit_nodes, Running, [], 5000) of \
                 Seen when is_list(Seen) -> lists:sort(Seen) == Nodes; _ -> false end end, \
             Has = fun(Queue) -> [{_, Members}, {_, Online}] = \
                 rabbit_quorum_queue:info(Queue, [members, online]), \
                 length(Members) == length(Online) end, \
             length(Nodes) == 3 andalso lists:all(Sees, Nodes) \
                 andalso lists:all(Has, rabbit_amqqueue:list_by_type(quorum)).",
        ) == "true"
    }

    fn start_node(&mut self, nth: usize) {
        let command = rabbitmq("rabbitmq-server");
        let process = Group::start(self.folder.path(), &command, &self.nodes[nth].environment);
        self.nodes[nth].process = Some(process);
    }

    /// Waits until a node accepts connections.
    fn await_node(&self, nth: usize) {
        let port = self.nodes[nth].port;
        wait("a node of RabbitMQ", || response_starts_with(port, b"AMQP\x00\x00\x09\x01", b"\x01"));
    }

    /// Starts a killed node on the same data, without waiting.
    pub fn restart(&mut self, nth: usize) {
        self.start_node(nth);
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, nth: usize) {
        self.nodes[nth].process = None;
    }

    pub fn signal(&self, nth: usize, signal: Signal) {
        self.nodes[nth].process.as_ref().unwrap().signal(signal);
    }

    /// Partitions a node from the others, or ends that. Clients still reach it.
    pub fn partition(&self, nth: usize, is_partitioned: bool) {
        let cookie = if is_partitioned { "CUT" } else { COOKIE };
        let others = self.nodes.iter().filter(|other| other.port != self.nodes[nth].port);
        let others: Vec<String> = others.map(|other| format!("'{}'", other.name)).collect();
        // In one command: RabbitMQ treats a node that only some others reach as a partial partition.
        self.nodes[nth].evaluate(&format!(
            "[begin erlang:set_cookie(N, '{cookie}'), erlang:disconnect_node(N) end || N <- [{}]].",
            others.join(", ")
        ));
    }

    /// Returns a URL with the addresses of several nodes.
    pub fn url(ports: &[u16]) -> String {
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("amqp://guest:guest@{}/%2f", hosts.join(","))
    }
}

impl RabbitNode {
    /// Evaluates an Erlang expression on this node.
    pub fn evaluate(&self, expression: &str) -> String {
        String::from_utf8_lossy(&self.output(&["eval", expression]).stdout).trim().to_owned()
    }

    /// Runs `rabbitmqctl` on this node.
    fn control(&self, args: &[&str]) {
        let output = self.output(args);
        assert!(output.status.success(), "{output:?}");
    }

    fn output(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(rabbitmq("rabbitmqctl"));
        command.args(args).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.output().unwrap()
    }
}
