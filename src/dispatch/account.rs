//! An account, ready to send: its provider, its connections, its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::backoff::backoff;
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
    /// Its buckets.
    pub limits: AccountLimits,
    /// Where its reports come to, where flowcast takes them.
    pub callbacks: Option<Arc<Callbacks>>,
    /// Its provider.
    pub kind: &'static Kind,
    /// For how long its messages are found by the numbers that answer them; `None` is not at all.
    pub answers_within: Option<Duration>,
    /// What a message costs, where the configuration says so.
    pub prices: Option<PriceList>,
    limited: AtomicU32,
}

impl Account {
    /// An account with its limits.
    pub fn new(
        kind: &'static Kind,
        provider: Box<dyn Provider>,
        transport: Transport,
        limits: AccountLimits,
        callbacks: Option<Arc<Callbacks>>,
    ) -> Self {
        Self {
            kind,
            provider,
            transport,
            limits,
            callbacks,
            answers_within: None,
            prices: None,
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
        retry_after.unwrap_or_else(|| backoff(times)).min(LONGEST_PAUSE)
    }

    /// The provider took something again.
    pub(super) fn went_well(&self) {
        self.limited.store(0, Ordering::Relaxed);
    }
}
