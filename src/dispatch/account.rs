//! An account, ready to send: its provider, its connections, its limits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::backoff::backoff;
use crate::limiter::AccountLimits;
use crate::provider::{Provider, Transport};

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
    /// How many requests may be under way at once.
    pub concurrency: usize,
    limited: AtomicU32,
}

impl Account {
    /// An account with its limits.
    pub fn new(
        provider: Box<dyn Provider>,
        transport: Transport,
        limits: AccountLimits,
        concurrency: usize,
    ) -> Self {
        Self { provider, transport, limits, concurrency, limited: AtomicU32::new(0) }
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
