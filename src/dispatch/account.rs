//! An account, ready to send: its provider, its connections, its limits; and the accounts of a process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::RETRY;
use crate::campaign::problem::{nearest, quoted};
use crate::campaign::{BATCH_LIMIT, Callbacks, PriceList};
use crate::limiter::AccountLimits;
use crate::provider::{Kind, Provider, Transport};

/// The most batches that are sent at once where each is many requests.
const AHEAD: usize = 16;
/// About so many messages are taken from the queue ahead where the account does not say how many requests
/// may be under way: more would be missing to another worker.
const MESSAGES_AHEAD: usize = 32 * BATCH_LIMIT;
/// However long a provider says to wait, it is asked again after this.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Credentials and limits at one provider.
pub struct Account {
    /// Builds requests and reads answers.
    pub provider: Box<dyn Provider>,
    /// Its connections.
    pub transport: Transport,
    /// Its buckets. An account that is opened again with another configuration keeps them.
    pub limits: Arc<AccountLimits>,
    /// Where its reports come to, where flowcast takes them.
    pub callbacks: Option<Arc<Callbacks>>,
    /// Its provider.
    pub kind: &'static Kind,
    /// For how long its messages are found by the numbers that answer them; `None` is not at all.
    pub answers_within: Option<Duration>,
    /// What a message costs, where the configuration says so.
    pub prices: Option<PriceList>,
    /// The digest of what it was opened with, which tells whether it must be opened again.
    pub opened_with: Option<blake3::Hash>,
    limited: AtomicU32,
}

/// An account, or why it can't be used.
pub type Opened = Result<Arc<Account>, String>;

/// The accounts of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Accounts(Arc<watch::Sender<Arc<BTreeMap<String, Opened>>>>);

impl Accounts {
    /// Accounts by name.
    pub fn new(accounts: BTreeMap<String, Opened>) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(accounts))))
    }

    /// From now on these are the accounts. A campaign of one that is another now goes on with it as soon as the requests
    /// that are out have their outcomes.
    pub fn replace(&self, accounts: BTreeMap<String, Opened>) {
        self.0.send_replace(Arc::new(accounts));
    }

    /// Tells when they are replaced.
    pub fn changes(&self) -> watch::Receiver<Arc<BTreeMap<String, Opened>>> {
        self.0.subscribe()
    }

    /// An account, or why it can't be used.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to do.
    pub fn get(&self, name: &str) -> Opened {
        let all = self.all();
        all.get(name).cloned().unwrap_or_else(|| {
            let near = nearest(name, all.keys().map(String::as_str));
            Err(format!("the account {} is not configured{near}", quoted(name)))
        })
    }

    /// All of them by name.
    pub fn all(&self) -> Arc<BTreeMap<String, Opened>> {
        self.0.borrow().clone()
    }

    /// Those that can be used, by name.
    pub fn usable(&self) -> Vec<(String, Arc<Account>)> {
        let all = self.all();
        all.iter().filter_map(|(name, account)| Some((name.clone(), account.clone().ok()?))).collect()
    }
}

impl Account {
    /// An account with its limits.
    pub fn new(
        kind: &'static Kind,
        provider: Box<dyn Provider>,
        transport: Transport,
        limits: impl Into<Arc<AccountLimits>>,
        callbacks: Option<Arc<Callbacks>>,
    ) -> Self {
        Self {
            kind,
            provider,
            transport,
            limits: limits.into(),
            callbacks,
            answers_within: None,
            prices: None,
            opened_with: None,
            limited: AtomicU32::new(0),
        }
    }

    /// How many requests of one batch may be under way at once.
    pub(super) fn at_once(&self, batch_size: usize) -> usize {
        batch_size.div_ceil(self.kind.per_request).clamp(1, self.limits.concurrency.limit())
    }

    /// How many batches of a campaign are sent at once: as many as fill all slots again as soon as they are
    /// free, and one more where a batch is many requests, so that its last ones hold nobody up.
    pub(super) fn senders(&self, batch_size: usize) -> usize {
        let limit = self.limits.concurrency.limit();
        let at_once = self.at_once(batch_size);
        let busy = if at_once == 1 { 2 * limit } else { limit.div_ceil(at_once) + 1 };
        busy.min(self.ahead(batch_size))
    }

    /// How many batches of such a size a worker takes from the queue ahead.
    pub(super) fn ahead(&self, batch_size: usize) -> usize {
        let most = 2 * self.limits.concurrency.most();
        if self.kind.per_request == 1 {
            most.min(AHEAD)
        } else if self.limits.concurrency.is_fixed() {
            most
        } else {
            (MESSAGES_AHEAD / batch_size.max(1)).min(most)
        }
    }

    /// The provider said that it is too much: how long everything of this account must wait.
    pub(super) fn pause(&self, retry_after: Option<Duration>) -> Duration {
        let times = self.limited.fetch_add(1, Ordering::Relaxed);
        retry_after.unwrap_or_else(|| RETRY.delay_after(times)).min(LONGEST_PAUSE)
    }

    /// The provider took something again.
    pub(super) fn went_well(&self) {
        self.limited.store(0, Ordering::Relaxed);
    }
}
