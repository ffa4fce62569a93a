//! The fleet's ledger: Redis, one server or a cluster.
//!
//! Data that several workers change are written by one script (`swap.lua`), which compares what a worker's decision was
//! based on with the present data, and writes if they are equal. Keys of a campaign share its hash tag, so that they are
//! on one node of a cluster. Times are the server's. `docs/redis.md` describes the layout.
//!
//! Each call is idempotent, because a lost connection leaves open whether the first call was executed: a claim is
//! identified by its token, a checkpoint by the row it continues from, an outcome by the state.

mod audit;
mod batches;
mod breakers;
mod campaign_hash;
mod campaigns;
mod data_loss;
mod hash_payload;
mod journal;
mod layout;
mod moving;
mod notices;
mod pages;
mod plans;
mod reporting;
mod sent;
mod suppression;
mod transaction;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use secrecy::SecretString;

use self::layout::Keys;
use super::{Clock, Ledger, LedgerError, new_key};
use crate::campaign::{CampaignId, counted};
pub use crate::redis_client::RetryPolicy;
use crate::redis_client::{RedisClient, RedisClientError};

/// The callback key that is used if none is configured.
const CALLBACK_KEY: &str = "flowcast:callback_key";
/// Names of the callback keys of all workers, by the time when a worker last recorded them.
const KEY_NAMES: &str = "flowcast:callback_key_names";
/// Retention of the names, in milliseconds: as long as providers repeat a report.
const KEY_NAMES_KEPT_MS: i64 = 7 * 86_400_000;
/// Callback keys of stores that were moved here.
const FURTHER_KEYS: &str = "flowcast:further_callback_keys";
/// Maximum number of concurrent commands.
const WINDOW: usize = 64;

/// A ledger in Redis.
#[derive(Clone)]
pub struct Redis {
    client: RedisClient,
    /// Identifies this worker, and with a number its claims.
    session: u32,
    claims: Arc<AtomicU64>,
    request_timeout: Duration,
    /// Number of replicas that must have a claim before its request.
    replicas: u32,
    /// Whether too few replicas had the last claim.
    lacks_replicas: Arc<AtomicBool>,
    /// Whether the server accepts hashes as payloads (`hash_payload.rs`): until it rejects one.
    takes_dumps: Arc<AtomicBool>,
    /// The recent writes of this worker, if it sends.
    journal: Option<Arc<journal::Journal>>,
    /// Why the journal cannot be written.
    lacks_room: Arc<Mutex<Option<String>>>,
    compared: data_loss::SharedCompared,
    /// Allows one comparison at a time, because each reads the journal.
    comparing: Arc<tokio::sync::Mutex<()>>,
    /// Locked during a presence heartbeat and the comparison that may follow it, so that no job is registered before an
    /// emptied server is detected.
    presence: Arc<tokio::sync::Mutex<()>>,
}

impl From<RedisClientError> for LedgerError {
    fn from(error: RedisClientError) -> Self {
        match error {
            RedisClientError::Away(text) => Self::Away(format!("is unavailable: {text}")),
            RedisClientError::Refused(text) | RedisClientError::KeyExists(text) => Self::Away(text),
            RedisClientError::Address(_) => Self::Away(error.to_string()),
        }
    }
}

impl Redis {
    /// Connects to the ledger.
    ///
    /// `request_timeout` is the maximum duration of a request of this worker; claims are valid a little longer.
    ///
    /// # Errors
    ///
    /// If the server is unreachable or cannot be used.
    pub async fn connect(
        addresses: &SecretString,
        policy: RetryPolicy,
        request_timeout: Duration,
    ) -> Result<Self, LedgerError> {
        let client = RedisClient::connect(addresses, policy).await?;
        Ok(Self::on(client, request_timeout))
    }

    /// Returns the ledger on a connected client.
    pub fn on(client: RedisClient, request_timeout: Duration) -> Self {
        Self {
            client,
            session: rand::random(),
            claims: Arc::default(),
            request_timeout,
            replicas: 0,
            lacks_replicas: Arc::default(),
            takes_dumps: Arc::new(AtomicBool::new(true)),
            journal: None,
            lacks_room: Arc::default(),
            compared: Arc::default(),
            comparing: Arc::default(),
            presence: Arc::default(),
        }
    }

    /// Returns the ledger with the number of replicas that must have a claim before its request.
    ///
    /// A failover to one of them loses no message that may have been sent.
    #[must_use]
    pub fn with_replicas(self, replicas: u32) -> Self {
        Self { replicas, ..self }
    }

    /// Returns the ledger with a journal, for a worker that sends.
    ///
    /// The journal is a file in `folder` with the recent writes of the worker, in case the server loses them.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn with_journal(self, folder: &Path) -> Result<Self, LedgerError> {
        let journal = journal::Journal::create(folder, self.session).map_err(|error| {
            let folder = folder.display();
            LedgerError::Storage(format!(
                "needs a journal: cannot create it in the folder for temporary files (TMPDIR), {folder}: {error}"
            ))
        })?;
        Ok(Self { journal: Some(Arc::new(journal)), ..self })
    }
}

impl Clock for Redis {
    fn now(&self) -> i64 {
        self.client.clock()
    }
}

impl Ledger for Redis {
    fn health_error(&self) -> Option<String> {
        if let Some(why) = self.lacks_room.lock().clone() {
            return Some(why);
        }
        let lacks = self.lacks_replicas.load(Ordering::Relaxed);
        lacks.then(|| {
            format!("Redis has fewer than {} (redis.replicas)", counted(self.replicas.into(), "replica"))
        })
    }

    async fn write_error(&self, id: &CampaignId) -> Result<Option<String>, LedgerError> {
        // Only a write shows it, on the node that has the campaign: a server's own report may be outdated.
        let refusal =
            self.client.refusal_to_write(redis::cmd("SET").arg((Keys(id).probe(), 1, "PX", 1))).await;
        Ok(refusal.map(|refusal| refusal.to_string()))
    }

    async fn callback_key_names(&self, own: Vec<String>) -> Result<Vec<String>, LedgerError> {
        let now = self.now();
        let mut pipe = redis::pipe();
        pipe.cmd("ZREMRANGEBYSCORE").arg((KEY_NAMES, "-inf", now - KEY_NAMES_KEPT_MS)).ignore();
        for name in own {
            pipe.cmd("ZADD").arg((KEY_NAMES, now, name)).ignore();
        }
        pipe.cmd("ZRANGE").arg((KEY_NAMES, 0, -1));
        let (all,): (Vec<String>,) = self.client.pipeline(&pipe).await?;
        Ok(all)
    }

    async fn reserve_id(&self, fingerprint: &str, id: &CampaignId) -> Result<(), LedgerError> {
        self.name_unnamed(fingerprint, id).await
    }

    async fn further_callback_keys(&self) -> Result<Vec<String>, LedgerError> {
        Ok(self.client.command(redis::cmd("SMEMBERS").arg(FURTHER_KEYS)).await?)
    }

    async fn callback_key(&self) -> Result<String, LedgerError> {
        self.client.command::<()>(redis::cmd("SET").arg((CALLBACK_KEY, new_key(), "NX"))).await?;
        Ok(self.client.command(redis::cmd("GET").arg(CALLBACK_KEY)).await?)
    }
}
