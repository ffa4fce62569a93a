//! An account that can send, with its provider, connections and limits; and all accounts of a process.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::RETRY;
use crate::campaign::problem::{nearest, quoted};
use crate::campaign::{BATCH_LIMIT, Callbacks, PriceList};
use crate::limiter::AccountLimits;
use crate::provider::{Kind, Provider, Transport};

/// Maximum number of batches in flight if each takes many requests.
const AHEAD: usize = 16;
/// Approximate number of messages taken from the queue ahead if the concurrency is adaptive.
///
/// More would keep them from other workers.
const MESSAGES_AHEAD: usize = 32 * BATCH_LIMIT;
/// Longest pause after a 429, whatever the provider asks for.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Credentials and limits at one provider.
pub struct Account {
    /// The provider's adapter: builds requests and parses responses.
    pub provider: Box<dyn Provider>,
    /// The connections to the provider.
    pub transport: Transport,
    /// The rate limits, which an account keeps when its configuration is reloaded.
    pub limits: Arc<AccountLimits>,
    /// The callback URLs, if flowcast receives reports.
    pub callbacks: Option<Arc<Callbacks>>,
    /// The kind of provider.
    pub kind: &'static Kind,
    /// How long messages are indexed by their recipients' numbers; `None` disables the index.
    pub answers_within: Option<Duration>,
    /// The price list, if it is configured.
    pub prices: Option<PriceList>,
    /// Digest of the configuration it was opened with, which shows whether it must be reopened.
    pub opened_with: Option<blake3::Hash>,
    limited: AtomicU32,
}

/// An account, or the reason why it cannot be used.
pub type OpenAccount = Result<Arc<Account>, String>;

/// The accounts of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Accounts(Arc<watch::Sender<Arc<BTreeMap<String, OpenAccount>>>>);

impl Accounts {
    /// Returns accounts from a map by name.
    pub fn new(accounts: BTreeMap<String, OpenAccount>) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(accounts))))
    }

    /// Replaces the accounts.
    ///
    /// A campaign continues with the new account as soon as its requests in flight have their outcomes.
    pub fn replace(&self, accounts: BTreeMap<String, OpenAccount>) {
        self.0.send_replace(Arc::new(accounts));
    }

    /// Returns a receiver that is notified when the accounts are replaced.
    pub fn changes(&self) -> watch::Receiver<Arc<BTreeMap<String, OpenAccount>>> {
        self.0.subscribe()
    }

    /// Returns an account by name.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the account, and a hint.
    pub fn get(&self, name: &str) -> OpenAccount {
        let all = self.all();
        all.get(name).cloned().unwrap_or_else(|| {
            let near = nearest(name, all.keys().map(String::as_str));
            Err(format!("the account {} is not configured{near}", quoted(name)))
        })
    }

    /// Returns all accounts by name.
    pub fn all(&self) -> Arc<BTreeMap<String, OpenAccount>> {
        self.0.borrow().clone()
    }

    /// Returns the accounts that can be used, by name.
    pub fn usable(&self) -> Vec<(String, Arc<Account>)> {
        let all = self.all();
        all.iter().filter_map(|(name, account)| Some((name.clone(), account.clone().ok()?))).collect()
    }
}

impl Account {
    /// Returns an account with default settings.
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

    /// Returns how many requests of one batch may be in flight.
    pub(super) fn at_once(&self, batch_size: usize) -> usize {
        batch_size.div_ceil(self.kind.per_request).clamp(1, self.limits.concurrency.limit())
    }

    /// Returns how many senders a campaign needs to use all permits.
    ///
    /// If a batch takes one request, that is twice the number of permits, so that a sender is always waiting for the next
    /// one. If a batch takes many requests, it is one more than needed, so that the last requests of a batch delay no other.
    pub(super) fn senders(&self, batch_size: usize) -> usize {
        let limit = self.limits.concurrency.limit();
        let at_once = self.at_once(batch_size);
        let busy = if at_once == 1 { 2 * limit } else { limit.div_ceil(at_once) + 1 };
        busy.min(self.ahead(batch_size))
    }

    /// Returns how many batches of this size a worker takes from the queue ahead.
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

    /// Returns how long the account must pause after a 429.
    pub(super) fn pause(&self, retry_after: Option<Duration>) -> Duration {
        let times = self.limited.fetch_add(1, Ordering::Relaxed);
        retry_after.unwrap_or_else(|| RETRY.delay_after(times)).min(LONGEST_PAUSE)
    }

    /// Resets the back-off after an accepted message.
    pub(super) fn note_accepted(&self) {
        self.limited.store(0, Ordering::Relaxed);
    }
}
