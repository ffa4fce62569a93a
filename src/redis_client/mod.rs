//! The client of Redis that the ledger and the limiter use: scripts by digest, reconnection, retries of transient errors,
//! and writes that wait for replicas.
//!
//! Any script may run twice: when a connection is lost, it is unknown whether the server ran the script. This module knows
//! no keys and no campaigns.

mod address;
mod arguments;
mod connection;
mod errors;
mod survey;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::{sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue, RedisError, ToRedisArgs, Value};
use secrecy::SecretString;
use tokio::{sync::Semaphore, time::Instant};

pub use self::arguments::{Packed, Script};
pub use self::errors::WriteRefusal;
pub use self::survey::{RedisNode, probe_nodes};
use crate::backoff::Backoff;
use crate::shared_connection::SharedConnection;
use address::Address;
use connection::Connection;
use errors::{code, is_stale, is_unknown, passes, words};

/// Timeout for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Timeout for connecting.
const CONNECT: Duration = Duration::from_secs(3);
/// Maximum of concurrent waits for replicas. They block their connection one after the other, and the last of them must
/// still be answered within the timeout.
const REPLICA_WAITS: usize = 8;
/// Delays before a command is retried.
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// How long transient errors are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// For 5 s: a person waits for the answer.
    Short,
    /// Forever (workers).
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

/// Error of a command.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RedisClientError {
    /// The configured address is invalid.
    #[error("has an invalid address in redis.url: {0}")]
    Address(String),
    /// Redis is unreachable, or accepts no writes.
    #[error("{0}")]
    Away(String),
    /// Redis refused permanently.
    #[error("{0}")]
    Refused(String),
    /// Redis refused to restore a key that exists.
    #[error("{0}")]
    KeyExists(String),
}

/// Client of a server or of a cluster. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct RedisClient {
    shared: Arc<ClientState>,
}

struct ClientState {
    address: Address,
    policy: RetryPolicy,
    /// Connections: one for commands, and one for writes that wait for replicas, because a wait blocks its connection.
    connections: [SharedConnection<Connection, RedisError>; 2],
    /// Permits for waits for replicas. Without them a queue of waits would look like an unreachable server.
    replica_waits: Semaphore,
    /// Whether the last command was answered.
    is_here: AtomicBool,
    /// Commands that are being retried because the server accepts no writes.
    refused_writes: AtomicU64,
    /// Retries so far.
    retries: AtomicU64,
    /// Whether an outage was logged whose end was not.
    was_reported: AtomicBool,
    /// The server's clock at `since`, in milliseconds since 1970.
    clock: AtomicI64,
    since: Instant,
}

impl RedisClient {
    /// Connects to a server, a cluster or the master that sentinels name.
    ///
    /// Addresses of a cluster's nodes are separated by commas; the server says whether it belongs to a cluster. Sentinels
    /// are given as `redis+sentinel://host:26379,host:26379/service/0`.
    ///
    /// # Errors
    ///
    /// When an address is invalid, or, with `RetryPolicy::Short`, when the server is unreachable.
    pub async fn connect(addresses: &SecretString, policy: RetryPolicy) -> Result<Self, RedisClientError> {
        // Installing it again has no effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = ClientState {
            address: Address::read(addresses)?,
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

    /// Whether the server answered the last command.
    pub fn is_here(&self) -> bool {
        self.shared.is_here.load(Ordering::Relaxed)
    }

    /// Returns the number of retries so far.
    ///
    /// Commands are retried while the server is unreachable or refuses temporarily.
    pub fn retries(&self) -> u64 {
        self.shared.retries.load(Ordering::Relaxed)
    }

    /// Runs a script.
    ///
    /// # Errors
    ///
    /// When the server refuses, or is unreachable for longer than the policy allows.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: impl ToRedisArgs,
    ) -> Result<T, RedisClientError> {
        let mut packed = Packed::default();
        for arg in args.to_redis_args() {
            packed.push(&arg);
        }
        self.run_packed(script, keys, &[&packed]).await
    }

    /// Runs a script with packed arguments.
    ///
    /// # Errors
    ///
    /// See [`RedisClient::run`].
    pub async fn run_packed<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&Packed],
    ) -> Result<T, RedisClientError> {
        self.ask(Request::Script(script, keys, args)).await
    }

    /// Runs a script, and waits up to 500 ms until replicas have what it wrote.
    ///
    /// Returns the number of replicas that have it; `replicas` of them end the wait.
    ///
    /// # Errors
    ///
    /// See [`RedisClient::run`].
    pub async fn run_replicated<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&Packed],
        replicas: u32,
    ) -> Result<(T, u32), RedisClientError> {
        let _turn = self.shared.replica_waits.acquire().await;
        self.ask(Request::Replicated(script, keys, args, replicas)).await
    }

    /// Returns the server's clock, in milliseconds since 1970.
    ///
    /// It is the clock as last seen, plus the time since then.
    pub fn clock(&self) -> i64 {
        self.shared.clock.load(Ordering::Relaxed) + self.elapsed()
    }

    /// Sets the server's clock, in milliseconds since 1970.
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
    /// See [`RedisClient::run`].
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisClientError> {
        self.ask(Request::Command(command)).await
    }

    /// Runs a pipeline of commands on keys of one slot.
    ///
    /// # Errors
    ///
    /// See [`RedisClient::run`].
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &redis::Pipeline,
    ) -> Result<T, RedisClientError> {
        self.ask(Request::Pipeline(pipeline)).await
    }

    /// Whether no write is being refused.
    pub fn takes_writes(&self) -> bool {
        self.shared.refused_writes.load(Ordering::Relaxed) == 0
    }

    /// Tries a write once, and returns why the server refuses it.
    ///
    /// `None` means that the server accepts the write or does not answer.
    pub async fn refusal_to_write(&self, command: &Cmd) -> Option<WriteRefusal> {
        let (_, mut connection) = self.connection(0).await.ok()?;
        let asked: Result<Value, RedisError> = command.query_async(&mut connection).await;
        WriteRefusal::classify(&asked.err()?)
    }

    async fn ask<T: FromRedisValue>(&self, question: Request<'_>) -> Result<T, RedisClientError> {
        let since = Instant::now();
        let mut retry = RETRY;
        let mut refused = None;
        loop {
            let error = match self.connection(question.connection_index()).await {
                Ok((nth, mut connection)) => match question.send(&mut connection).await {
                    Ok(answer) => {
                        self.shared.is_here.store(true, Ordering::Relaxed);
                        if self.shared.was_reported.swap(false, Ordering::Relaxed) {
                            tracing::info!("Redis is back");
                        }
                        return T::from_redis_value(answer).map_err(|error| {
                            RedisClientError::Refused(format!("returned an unexpected value: {error}"))
                        });
                    }
                    Err(error) => {
                        if is_stale(&error) {
                            self.shared.connections[question.connection_index()].forget(nth);
                        }
                        error
                    }
                },
                Err(error) => error,
            };
            if !passes(&error) {
                let refused = format!("refused: {}", words(&error));
                return Err(match code(&error) {
                    Some("BUSYKEY") => RedisClientError::KeyExists(refused),
                    _ => RedisClientError::Refused(refused),
                });
            }
            let refusal = WriteRefusal::classify(&error);
            if let Some(refusal) = refusal {
                refused.get_or_insert_with(|| Refused::begins(&self.shared, refusal));
            } else {
                self.shared.is_here.store(false, Ordering::Relaxed);
            }
            self.shared.retries.fetch_add(1, Ordering::Relaxed);
            // With a short policy, the caller reports the error.
            if refusal.is_none()
                && self.shared.policy == RetryPolicy::Endless
                && !self.shared.was_reported.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(error = words(&error), "Redis is unreachable; sending stops until it is back");
            }
            if self.shared.policy.is_over(since) {
                return Err(RedisClientError::Away(words(&error)));
            }
            tokio::time::sleep(retry.next_delay()).await;
        }
    }

    /// Returns a connection; opens it if necessary.
    async fn connection(&self, lane: usize) -> Result<(u64, Connection), RedisError> {
        let open = |_| {
            let shared = self.shared.clone();
            async move { shared.address.open().await }
        };
        self.shared.connections[lane].get(|_| true, open).await
    }
}

/// Counts a command while it is retried because the server refuses writes.
struct Refused<'a>(&'a ClientState);

impl<'a> Refused<'a> {
    fn begins(shared: &'a ClientState, refusal: WriteRefusal) -> Self {
        if shared.refused_writes.fetch_add(1, Ordering::Relaxed) == 0 && shared.policy == RetryPolicy::Endless
        {
            tracing::warn!(error = %refusal, "sending stops until Redis accepts writes again");
        }
        Self(shared)
    }
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        if self.0.refused_writes.fetch_sub(1, Ordering::Relaxed) == 1 && self.0.policy == RetryPolicy::Endless
        {
            tracing::info!("Redis accepts writes again");
        }
    }
}

/// Command for a server.
enum Request<'q> {
    Script(&'q Script, &'q [String], &'q [&'q Packed]),
    Command(&'q Cmd),
    Pipeline(&'q redis::Pipeline),
    /// A script, and the replicas that must have what it wrote.
    Replicated(&'q Script, &'q [String], &'q [&'q Packed], u32),
}

impl Request<'_> {
    async fn send(&self, connection: &mut Connection) -> Result<Value, RedisError> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Pipeline(pipeline) => pipeline.query_async(connection).await,
            Self::Script(script, keys, args) => {
                match script.by_digest(keys, args).query_async(connection).await {
                    Err(error) if is_unknown(&error) => {
                        script.by_text(keys, args).query_async(connection).await
                    }
                    answer => answer,
                }
            }
            Self::Replicated(script, keys, args, replicas) => {
                match connection.replicate(script.by_digest(keys, args), keys, *replicas).await {
                    Err(error) if is_unknown(&error) => {
                        connection.replicate(script.by_text(keys, args), keys, *replicas).await
                    }
                    answer => answer,
                }
            }
        }
    }

    /// Returns the index of its connection.
    fn connection_index(&self) -> usize {
        usize::from(matches!(self, Self::Replicated(..)))
    }
}
