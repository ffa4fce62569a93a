//! A Redis server or cluster, as the ledger and the limiter see it: scripts by their digest, lost
//! connections made anew, answers that pass tried again, writes that wait for replicas.
//!
//! Every script that is run here may be run twice: a connection that is lost leaves open whether
//! the server took it. It knows no key and no campaign.

mod address;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisFuture, ServerErrorKind, ToRedisArgs, Value,
};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection_slot::ConnectionSlot;
use address::{Address, config, refusal};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long it is waited for replicas, in milliseconds.
const REPLICAS: u32 = 500;
/// How many such waits are asked for at once. They block their connection one after the other, and the last
/// of them must still be answered in time.
const REPLICA_WAITS: usize = 8;
/// How many slots a cluster has.
const SLOTS: u16 = 16384;
/// The first wait before something is tried again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long what passes is tried again before it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// A person waits for the answer.
    Short,
    /// A worker has nothing better to do than to wait until Redis is back.
    Endless,
}

impl RetryPolicy {
    fn is_over(self, since: Instant) -> bool {
        match self {
            Self::Short => since.elapsed() > Duration::from_secs(5),
            Self::Endless => false,
        }
    }
}

/// What Redis did not do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RedisClientError {
    /// It can't be reached, or takes no writes.
    #[error("{0}")]
    Away(String),
    /// It refused for good.
    #[error("{0}")]
    Refused(String),
}

/// A script of Lua, known by its digest.
pub struct Script {
    text: String,
    digest: String,
}

impl Script {
    /// A script by its text.
    pub fn new(text: &str) -> Self {
        Self { digest: redis::Script::new(text).get_hash().to_owned(), text: text.to_owned() }
    }
}

/// A server, or all of a cluster's. Cheap to clone; clones share a connection.
#[derive(Clone)]
pub struct RedisClient {
    shared: Arc<Shared>,
}

struct Shared {
    address: Arc<Address>,
    policy: RetryPolicy,
    /// The connections: one for what waits for replicas, because that blocks it, and one for all else.
    connections: [ConnectionSlot<Connection, RedisError>; 2],
    /// Who may wait for replicas now; the others wait here, and nobody takes the server for away.
    replica_waits: Semaphore,
    /// Whether the last thing asked of it was answered.
    is_here: AtomicBool,
    /// How many questions are asked again and again because the server takes no writes.
    refused_writes: AtomicU64,
    /// How many commands were tried again.
    retries: AtomicU64,
    /// Whether it was told that the server is away, and not yet that it is back.
    was_reported: AtomicBool,
    /// The server's clock at the moment `since`.
    clock: AtomicI64,
    since: Instant,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl RedisClient {
    /// A server by its address; several addresses of one cluster are separated by commas. Whether
    /// it is a cluster is asked of the server. Or the master that sentinels name:
    /// `redis+sentinel://host:26379,host:26379/service/0`.
    ///
    /// # Errors
    ///
    /// When an address is none, or, with `RetryPolicy::Short`, when the server can't be reached.
    pub async fn connect(addresses: &SecretString, policy: RetryPolicy) -> Result<Self, RedisClientError> {
        // Installed once for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = Address::read(addresses)?;
        let shared = Shared {
            address: Arc::new(address),
            policy,
            connections: Default::default(),
            replica_waits: Semaphore::new(REPLICA_WAITS),
            is_here: AtomicBool::new(false),
            retries: AtomicU64::new(0),
            refused_writes: AtomicU64::new(0),
            was_reported: AtomicBool::new(false),
            clock: AtomicI64::new(0),
            since: Instant::now(),
        };
        let client = Self { shared: Arc::new(shared) };
        let (seconds, micros): (i64, i64) = client.command(&redis::cmd("TIME")).await?;
        client.set_clock(seconds * 1000 + micros / 1000);
        Ok(client)
    }

    /// Whether the server answered what it was last asked.
    pub fn is_here(&self) -> bool {
        self.shared.is_here.load(Ordering::Relaxed)
    }

    /// Returns how many commands were tried again, as they are while the server is away or refuses for a while.
    pub fn retries(&self) -> u64 {
        self.shared.retries.load(Ordering::Relaxed)
    }

    /// Runs a script.
    ///
    /// # Errors
    ///
    /// When the server refuses, or does not answer for longer than the policy allows.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<T, RedisClientError> {
        let mut packed = Packed::default();
        for arg in args {
            arg.write_redis_args(&mut packed);
        }
        self.run_packed(script, keys, &[&packed]).await
    }

    /// Runs a script whose arguments are packed already, in parts.
    ///
    /// # Errors
    ///
    /// As [`RedisClient::run`].
    pub async fn run_packed<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&Packed],
    ) -> Result<T, RedisClientError> {
        self.ask(Question::Script(script, keys, args)).await
    }

    /// Runs a script, and waits a moment until so many replicas have what it wrote. Returns how many have it
    /// by then.
    ///
    /// # Errors
    ///
    /// As [`RedisClient::run`].
    pub async fn run_replicated<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&Packed],
        replicas: u32,
    ) -> Result<(T, u32), RedisClientError> {
        let _turn = self.shared.replica_waits.acquire().await;
        self.ask(Question::Replicated(script, keys, args, replicas)).await
    }

    /// The server's clock, in milliseconds since 1970, as it was last seen and went on since.
    pub fn clock(&self) -> i64 {
        self.shared.clock.load(Ordering::Relaxed) + self.elapsed()
    }

    /// A server has told its clock.
    pub fn set_clock(&self, milliseconds: i64) {
        self.shared.clock.store(milliseconds - self.elapsed(), Ordering::Relaxed);
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.shared.since.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Runs a command.
    ///
    /// # Errors
    ///
    /// As [`RedisClient::run`].
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisClientError> {
        self.ask(Question::Command(command)).await
    }

    /// Runs commands on keys of one slot together.
    ///
    /// # Errors
    ///
    /// As [`RedisClient::run`].
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &redis::Pipeline,
    ) -> Result<T, RedisClientError> {
        self.ask(Question::Pipeline(pipeline)).await
    }

    /// Whether writes are taken, as far as anybody writes.
    pub fn takes_writes(&self) -> bool {
        self.shared.refused_writes.load(Ordering::Relaxed) == 0
    }

    /// Why a write is not taken now, if the server says so. It is tried once; a server that does not answer says nothing.
    pub async fn refusal_to_write(&self, command: &Cmd) -> Option<WriteRefusal> {
        let (_, mut connection) = self.connection(0).await.ok()?;
        let asked: Result<Value, RedisError> = command.query_async(&mut connection).await;
        WriteRefusal::of(&asked.err()?)
    }

    async fn ask<T: FromRedisValue>(&self, question: Question<'_>) -> Result<T, RedisClientError> {
        let since = Instant::now();
        let mut wait = WAITS.0;
        let mut refused = None;
        loop {
            let fault = match self.connection(question.lane()).await {
                Ok((nth, mut connection)) => match question.put(&mut connection).await {
                    Ok(answer) => {
                        self.shared.is_here.store(true, Ordering::Relaxed);
                        if self.shared.was_reported.swap(false, Ordering::Relaxed) {
                            tracing::info!("Redis is back");
                        }
                        return T::from_redis_value(answer).map_err(|fault| {
                            RedisClientError::Refused(format!("answered something else: {fault}"))
                        });
                    }
                    Err(fault) => {
                        if is_stale(&fault) {
                            self.shared.connections[question.lane()].forget(nth);
                        }
                        fault
                    }
                },
                Err(fault) => fault,
            };
            if !passes(&fault) {
                return Err(RedisClientError::Refused(format!("refused: {}", words(&fault))));
            }
            let refusal = WriteRefusal::of(&fault);
            if let Some(refusal) = refusal {
                refused.get_or_insert_with(|| Refused::begins(&self.shared, refusal));
            } else {
                self.shared.is_here.store(false, Ordering::Relaxed);
            }
            self.shared.retries.fetch_add(1, Ordering::Relaxed);
            // A person is told in the end.
            if refusal.is_none()
                && self.shared.policy == RetryPolicy::Endless
                && !self.shared.was_reported.swap(true, Ordering::Relaxed)
            {
                tracing::warn!("Redis is away, sending stops until it is back: {}", words(&fault));
            }
            if self.shared.policy.is_over(since) {
                return Err(RedisClientError::Away(words(&fault)));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
        }
    }

    /// The connection, made if there is none.
    async fn connection(&self, lane: usize) -> Result<(u64, Connection), RedisError> {
        let open = |_| {
            let address = self.shared.address.clone();
            async move { address.open().await }
        };
        self.shared.connections[lane].get(|_| true, open).await
    }
}

/// Why a server takes no writes though it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteRefusal {
    /// It has as much as `maxmemory` allows.
    Full,
    /// It can't write to its disk.
    Disk,
    /// It has too few replicas (`min-replicas-to-write`).
    Replicas,
}

impl WriteRefusal {
    fn of(fault: &RedisError) -> Option<Self> {
        let says = |code: &str| {
            // A script reports what its command was answered inside its own error.
            fault.code() == Some(code)
                || fault.detail().is_some_and(|text| text.contains(&format!("{code} ")))
        };
        let is_full = fault.detail().is_some_and(|text| text.contains("used memory > 'maxmemory'"));
        if says("OOM") || is_full {
            Some(Self::Full)
        } else if says("MISCONF") {
            Some(Self::Disk)
        } else {
            says("NOREPLICAS").then_some(Self::Replicas)
        }
    }
}

impl fmt::Display for WriteRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "Redis is full: give it more memory (maxmemory)",
            Self::Disk => "Redis can't write to its disk: look at the server, and whether its disk is full",
            Self::Replicas => "Redis has fewer replicas than its min-replicas-to-write",
        })
    }
}

/// Counts a question whose writes are refused, as long as it is asked again and again.
struct Refused<'a>(&'a Shared);

impl<'a> Refused<'a> {
    fn begins(shared: &'a Shared, refusal: WriteRefusal) -> Self {
        if shared.refused_writes.fetch_add(1, Ordering::Relaxed) == 0 && shared.policy == RetryPolicy::Endless
        {
            tracing::warn!("{refusal}; sending stops until it takes writes again");
        }
        Self(shared)
    }
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        if self.0.refused_writes.fetch_sub(1, Ordering::Relaxed) == 1 && self.0.policy == RetryPolicy::Endless
        {
            tracing::info!("Redis takes writes again");
        }
    }
}

/// What is asked of a server.
enum Question<'q> {
    Script(&'q Script, &'q [String], &'q [&'q Packed]),
    Command(&'q Cmd),
    Pipeline(&'q redis::Pipeline),
    /// A script, and how many replicas must have what it wrote.
    Replicated(&'q Script, &'q [String], &'q [&'q Packed], u32),
}

impl Question<'_> {
    async fn put(&self, connection: &mut Connection) -> Result<Value, RedisError> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Pipeline(pipeline) => pipeline.query_async(connection).await,
            Self::Script(script, keys, args) => {
                match script.by_digest(keys, args).query_async(connection).await {
                    Err(fault) if is_unknown(&fault) => {
                        script.by_text(keys, args).query_async(connection).await
                    }
                    answer => answer,
                }
            }
            Self::Replicated(script, keys, args, replicas) => {
                match connection.replicate(script.by_digest(keys, args), keys, *replicas).await {
                    Err(fault) if is_unknown(&fault) => {
                        connection.replicate(script.by_text(keys, args), keys, *replicas).await
                    }
                    answer => answer,
                }
            }
        }
    }

    /// Which of the connections it goes over.
    fn lane(&self) -> usize {
        usize::from(matches!(self, Self::Replicated(..)))
    }
}

impl Script {
    fn by_digest(&self, keys: &[String], args: &[&Packed]) -> Cmd {
        redis::cmd("EVALSHA").arg(&self.digest).arg(keys.len()).arg(keys).arg(args).clone()
    }

    fn by_text(&self, keys: &[String], args: &[&Packed]) -> Cmd {
        redis::cmd("EVAL").arg(&self.text).arg(keys.len()).arg(keys).arg(args).clone()
    }
}

/// Whether a server that has restarted, or a node that is new, wants to be told a script's text.
fn is_unknown(fault: &RedisError) -> bool {
    fault.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

impl Connection {
    /// Does something, and waits until so many replicas have it; both go out together, because `WAIT` tells
    /// of what its own connection has written. Answers what was answered, and how many have it.
    async fn replicate(&mut self, command: Cmd, keys: &[String], replicas: u32) -> Result<Value, RedisError> {
        let mut both = redis::pipe();
        both.add_command(command).cmd("WAIT").arg(replicas).arg(REPLICAS);
        let answers = match self {
            Self::One(connection) => connection.req_packed_commands(&both, 0, 2).await?,
            Self::Cluster(connection) => {
                let slot = slot(keys.first().map_or("", String::as_str));
                let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                connection.route_pipeline(both, 0, 2, route).await?
            }
        };
        Value::Array(answers).extract_error()
    }
}

/// The slot of a key in a cluster: of what stands between braces, where something does.
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(hashed.as_bytes()) % SLOTS
}

/// What one server tells of itself.
pub struct Node {
    facts: HashMap<String, String>,
    settings: HashMap<String, String>,
    /// Its clock.
    pub time: jiff::Timestamp,
}

impl Node {
    /// A line of its `INFO`.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// A setting, where it tells any.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Whether it is a node of a cluster.
    pub fn is_cluster(&self) -> bool {
        self.fact("cluster_enabled") == Some("1")
    }
}

/// Asks each server of an address for what it tells of itself.
///
/// # Errors
///
/// When the address is none.
pub async fn survey(
    addresses: &SecretString,
) -> Result<Vec<Result<Node, RedisClientError>>, RedisClientError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut nodes = Vec::new();
    for client in Address::read(addresses)?.each().await {
        let asked = match client {
            Ok(client) => ask_node(&client).await,
            Err(fault) => Err(fault),
        };
        nodes.push(asked.map_err(|fault| RedisClientError::Away(words(&fault))));
    }
    Ok(nodes)
}

async fn ask_node(client: &Client) -> Result<Node, RedisError> {
    let mut one = match client.get_multiplexed_async_connection_with_config(&config()).await {
        Ok(one) => one,
        Err(fault) => return Err(refusal(client).await.unwrap_or(fault)),
    };
    let info: String = redis::cmd("INFO").query_async(&mut one).await?;
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    let facts = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let asked = jiff::Timestamp::now();
    let (seconds, micros): (i64, i32) = redis::cmd("TIME").query_async(&mut one).await?;
    // Its answer was made half a round trip ago.
    let half = jiff::Timestamp::now().duration_since(asked) / 2;
    let time = jiff::Timestamp::new(seconds, micros * 1000).unwrap_or_default() + half;
    let mut settings = HashMap::new();
    for name in ["appendfsync", "maxmemory-policy"] {
        // Hosted servers forbid it; then nothing is known.
        let asked: Result<HashMap<String, String>, _> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut one).await;
        settings.extend(asked.unwrap_or_default());
    }
    Ok(Node { facts, settings, time })
}

/// Whether the connection that brought this is of no use any more.
fn is_stale(fault: &RedisError) -> bool {
    // A master that became a replica answers READONLY on a connection that lives on.
    fault.is_io_error()
        || fault.is_connection_dropped()
        || fault.is_cluster_error()
        || fault.code() == Some("READONLY")
}

/// Whether the same may work a moment later.
fn passes(fault: &RedisError) -> bool {
    const PASSING: [&str; 10] = [
        "LOADING",
        "TRYAGAIN",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "READONLY",
        "MOVED",
        "ASK",
        "OOM",
        "MISCONF",
        "NOREPLICAS",
    ];
    fault.is_io_error()
        || fault.is_connection_dropped()
        || fault.is_timeout()
        || fault.is_connection_refusal()
        || fault.is_cluster_error()
        || fault.code().is_some_and(|code| PASSING.contains(&code))
        // A script reports what its command was answered inside its own error.
        || fault.detail().is_some_and(|text| {
            PASSING.iter().any(|code| text.contains(&format!("{code} "))) || text.contains("used memory > 'maxmemory'")
        })
}

/// The fault with what to do about it. Redis never says a secret back.
fn words(fault: &RedisError) -> String {
    let mut text = match (fault.code(), fault.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (None, Some(detail)) if fault.is_io_error() => format!("refuses the connection: {detail}"),
        _ => fault.to_string(),
    };
    let remedy = match fault.code() {
        Some("READONLY") => Some("it is a replica: point redis.url to the master"),
        Some("OOM") => Some("it is full: give it more memory (maxmemory)"),
        Some("MISCONF") => Some("it can't write to its disk: look at the server"),
        Some("NOAUTH" | "WRONGPASS") => Some("set user and password in redis.url"),
        _ if fault.kind() == ErrorKind::AuthenticationFailed => Some("set user and password in redis.url"),
        Some("NOPERM") => {
            Some("give the user what deploy/redis/users.acl has, on keys flowcast:* and {flowcast:*")
        }
        _ if fault.is_connection_refusal() => Some("is it running, and is redis.url right?"),
        _ => None,
    };
    if let Some(remedy) = remedy {
        let _ = write!(text, " ({remedy})");
    }
    text
}

/// An argument of a script.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number.
    Number(u64),
}

impl ToRedisArgs for Arg<'_> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        match self {
            Self::Text(text) => out.write_arg(text.as_bytes()),
            Self::Bytes(bytes) => out.write_arg(bytes),
            Self::Number(number) => out.write_arg_fmt(number),
        }
    }
}

/// Many arguments of a script, written one after the other into one buffer.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    /// Where each argument ends.
    ends: Vec<usize>,
}

impl Packed {
    /// Adds an argument.
    pub fn push(&mut self, arg: &[u8]) {
        self.bytes.extend_from_slice(arg);
        self.ends.push(self.bytes.len());
    }

    /// Adds a number.
    pub fn push_number(&mut self, number: usize) {
        self.push(number.to_string().as_bytes());
    }
}

impl redis::RedisWrite for Packed {
    fn write_arg(&mut self, arg: &[u8]) {
        self.push(arg);
    }

    fn writer_for_next_arg(&mut self) -> impl std::io::Write + '_ {
        self.ends.push(self.bytes.len());
        PackedWriter(self)
    }
}

struct PackedWriter<'p>(&'p mut Packed);

impl std::io::Write for PackedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.bytes.extend_from_slice(bytes);
        if let Some(end) = self.0.ends.last_mut() {
            *end = self.0.bytes.len();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl ToRedisArgs for Packed {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        let mut start = 0;
        for end in &self.ends {
            out.write_arg(&self.bytes[start..*end]);
            start = *end;
        }
    }

    fn num_of_args(&self) -> usize {
        self.ends.len()
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Arg<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Arg<'_> {
    fn from(flag: bool) -> Self {
        Self::Number(u64::from(flag))
    }
}
