//! The fleet's ledger: Redis, one server or a cluster.
//!
//! Whatever others change too is changed by one script (`swap.lua`), which compares what a worker has
//! judged with what is there and writes if it is the same. Keys of a campaign share its hash tag, so that
//! they are on one node of a cluster. Times are the server's. `docs/redis.md` has the layout for people.
//!
//! Each call may be made twice, because a lost connection leaves open whether the first was taken: a
//! claim is known by its token, a checkpoint by the row it goes on from, an outcome by the state.

mod audit;
mod batches;
mod breakers;
mod campaigns;
mod dump;
mod history;
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

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::SecretString;

use layout::Keys;

use super::{Ledger, LedgerError, Store, new_key};
use crate::campaign::{CampaignId, counted};
pub use crate::redis_client::RetryPolicy;
use crate::redis_client::{RedisClient, RedisClientError};

/// The key that seals the addresses of reports where none is configured.
const CALLBACK_KEY: &str = "flowcast:callback_key";
/// Which keys workers open addresses of reports with, by name.
const KEY_NAMES: &str = "flowcast:callback_key_names";
/// As long as providers come again with a report.
const KEY_NAMES_KEPT_MS: i64 = 7 * 86_400_000;
/// Keys of stores that were moved here.
const FURTHER_KEYS: &str = "flowcast:further_callback_keys";
/// How many commands are on their way at once where many are sent.
const WINDOW: usize = 64;

/// A ledger in Redis.
#[derive(Clone)]
pub struct Redis {
    client: RedisClient,
    /// Names this worker, and with a number its claims.
    session: u32,
    claims: Arc<AtomicU64>,
    request_timeout: Duration,
    /// How many replicas must have a claim before its request goes out.
    replicas: u32,
    /// Whether the last claim waited for replicas in vain.
    lacks_replicas: Arc<AtomicBool>,
    /// Whether the server makes hashes from payloads (`dump.rs`): unless it has refused one.
    takes_dumps: Arc<AtomicBool>,
    /// What this worker has written lately; none where nothing is sent.
    journal: Option<Arc<journal::Journal>>,
    /// Why the journal can't be written to.
    lacks_room: Arc<Mutex<Option<String>>>,
    compared: history::SharedCompared,
    /// One comparison at a time: each reads the journal.
    comparing: Arc<tokio::sync::Mutex<()>>,
    /// Held while the worker says that it is there, until what it learned by that is done: a job that comes meanwhile is
    /// not registered as if nothing of it had been sent.
    presence: Arc<tokio::sync::Mutex<()>>,
}

impl From<RedisClientError> for LedgerError {
    fn from(fault: RedisClientError) -> Self {
        match fault {
            RedisClientError::Away(text) => Self::Away(format!("is away: {text}")),
            RedisClientError::Refused(text) => Self::Away(text),
        }
    }
}

impl Redis {
    /// The ledger at an address. `request_timeout` is the longest that a request of this worker takes:
    /// a claim holds a little longer.
    ///
    /// # Errors
    ///
    /// When the server can't be reached or used.
    pub async fn connect(
        addresses: &SecretString,
        policy: RetryPolicy,
        request_timeout: Duration,
    ) -> Result<Self, LedgerError> {
        let client = RedisClient::connect(addresses, policy).await?;
        Ok(Self::on(client, request_timeout))
    }

    /// The ledger on a server that is known.
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
}

impl Redis {
    /// The same, where so many replicas must have a claim before its request goes out: then a fail-over to
    /// one of those forgets no message that may have been sent.
    #[must_use]
    pub fn with_replicas(self, replicas: u32) -> Self {
        Self { replicas, ..self }
    }

    /// The same, for a worker that sends: it keeps what it has written lately in a file in a folder of this machine,
    /// in case that the server forgets it.
    ///
    /// # Errors
    ///
    /// When the file can't be made.
    pub fn with_journal(self, folder: &Path) -> Result<Self, LedgerError> {
        let journal = journal::Journal::create(folder, self.session).map_err(|fault| {
            let folder = folder.display();
            LedgerError::Storage(format!(
                "needs a journal beside it, in the folder for temporary files (TMPDIR): {folder}: {fault}"
            ))
        })?;
        Ok(Self { journal: Some(Arc::new(journal)), ..self })
    }
}

impl Store for Redis {
    fn now(&self) -> i64 {
        self.client.clock()
    }
}

impl Ledger for Redis {
    fn trouble(&self) -> Option<String> {
        if let Some(why) = self.lacks_room.lock().clone() {
            return Some(why);
        }
        let lacks = self.lacks_replicas.load(Ordering::Relaxed);
        lacks.then(|| {
            format!("Redis has fewer than {} (redis.replicas)", counted(self.replicas.into(), "replica"))
        })
    }

    async fn write_trouble(&self, id: &CampaignId) -> Result<Option<String>, LedgerError> {
        // A write says it, on the node that has the campaign: what a server tells of itself may be of a moment before.
        let mut probe = redis::cmd("SET");
        probe.arg(Keys(id).probe()).arg(1).arg("PX").arg(1);
        Ok(self.client.refusal_to_write(&probe).await.map(|refusal| refusal.to_string()))
    }

    async fn callback_key_names(&self, own: Vec<String>) -> Result<Vec<String>, LedgerError> {
        let now = self.now();
        let mut pipe = redis::pipe();
        pipe.cmd("ZREMRANGEBYSCORE").arg(KEY_NAMES).arg("-inf").arg(now - KEY_NAMES_KEPT_MS).ignore();
        for name in own {
            pipe.cmd("ZADD").arg(KEY_NAMES).arg(now).arg(name).ignore();
        }
        pipe.cmd("ZRANGE").arg(KEY_NAMES).arg(0).arg(-1);
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
        let mut make = redis::cmd("SET");
        make.arg(CALLBACK_KEY).arg(new_key()).arg("NX");
        let _: Option<String> = self.client.command(&make).await?;
        Ok(self.client.command(redis::cmd("GET").arg(CALLBACK_KEY)).await?)
    }
}
