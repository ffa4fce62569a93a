//! The limits of an account, and how a sender waits for its permit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::shared::{self, ReservationBatcher};
use super::{
    Admission, CampaignLimits, Concurrency, EARLIER, LONGEST_WAIT, Line, Rates, Reservation, SENDERS, STEP,
    Wanted, process::Buckets,
};
use crate::campaign::Phone;
use crate::redis_client::{RedisClient, RedisClientError};
use crate::runtime::chance;

/// Resolution of the runtime's timer.
const TIMER: Duration = Duration::from_millis(1);

/// Rate limits of an account, and the permits of its requests in flight.
pub struct AccountLimits {
    name: String,
    rates: watch::Sender<Rates>,
    /// Limit of requests in flight.
    pub concurrency: Concurrency,
    turn: Mutex<()>,
    /// Lock of each sender number.
    senders: parking_lot::Mutex<HashMap<Phone, Arc<Mutex<()>>>>,
    /// Whether the shared buckets last had room for as many requests as this worker has in flight. Senders then ask
    /// without queueing for the locks.
    has_room: AtomicBool,
    buckets: Backend,
}

/// Home of the buckets.
enum Backend {
    Process(Box<Buckets>),
    Shared(RedisClient),
}

impl AccountLimits {
    /// Creates the limits of an account that sends from this process only.
    pub fn new(rates: Rates, concurrency: Concurrency) -> Self {
        Self::with(String::new(), rates, concurrency, Backend::Process(Box::default()))
    }

    /// Creates the limits of an account that many workers share.
    pub fn shared(name: &str, rates: Rates, concurrency: Concurrency, server: RedisClient) -> Self {
        Self::with(name.into(), rates, concurrency, Backend::Shared(server))
    }

    fn with(name: String, rates: Rates, concurrency: Concurrency, buckets: Backend) -> Self {
        Self {
            name,
            rates: watch::Sender::new(rates),
            turn: Mutex::default(),
            senders: parking_lot::Mutex::default(),
            has_room: AtomicBool::new(false),
            concurrency,
            buckets,
        }
    }

    /// Returns the current rate limits.
    pub fn rates(&self) -> Rates {
        *self.rates.borrow()
    }

    /// Throttles a flow, and returns whether it was not throttled before.
    ///
    /// Messages that open it go out at 10 an hour, for all workers and campaigns of the account. The limit doubles each
    /// time that an hour's worth has gone out, in an hour or more, without another report of throttling: `WhatsApp` reports
    /// when a flow is throttled, but never when that ends.
    ///
    /// # Errors
    ///
    /// When Redis refuses.
    pub async fn throttle(&self, flow: &str) -> Result<bool, RedisClientError> {
        match &self.buckets {
            Backend::Process(buckets) => Ok(buckets.throttle(flow)),
            Backend::Shared(server) => shared::throttle(server, &self.name, flow).await,
        }
    }

    /// Changes the rate limits, also for senders that are waiting.
    pub fn set_rates(&self, rates: Rates) {
        if let Backend::Process(buckets) = &self.buckets {
            buckets.change(rates);
        }
        self.rates.send_replace(rates);
    }

    /// Restores the recipients that were messaged before this process started, and
    /// how long ago.
    ///
    /// Shared buckets have them already.
    pub fn cache(&self, recipients: Vec<(Phone, Duration)>) {
        if let Backend::Process(buckets) = &self.buckets {
            buckets.cache(recipients);
        }
    }

    /// Waits until a request of the campaign to these recipients may go out.
    ///
    /// The future may be dropped at any point; at worst some tokens are wasted.
    ///
    /// # Errors
    ///
    /// When Redis refuses. While Redis is unreachable, this waits.
    pub async fn acquire(
        &self,
        campaign: &CampaignLimits,
        from: Phone,
        recipients: &[Phone],
    ) -> Result<Admission, RedisClientError> {
        let sender = self.sender(from);
        let (mut in_campaign, mut in_sender, mut in_account, mut place) = (None, None, None, None);
        let mut changes = self.rates.subscribe();
        loop {
            let has_room = self.has_room.load(Ordering::Relaxed);
            if !has_room {
                if in_campaign.is_none() {
                    in_campaign = Some(campaign.turn.lock().await);
                }
                if in_sender.is_none() {
                    in_sender = Some(sender.lock().await);
                }
            }
            if place.is_none() {
                // Never closed, so a permit becomes free eventually.
                place = Some(match self.concurrency.permit().await {
                    Some(place) => place,
                    None => return Ok(Admission::Deferred(STEP)),
                });
            }
            if !has_room && in_account.is_none() {
                in_account = Some(self.turn.lock().await);
            }
            let wanted = Wanted { rates: *changes.borrow_and_update(), campaign, from, recipients };
            let asked = self.ask(wanted, has_room).await?;
            let (wait, line) = match (asked, place.take()) {
                (Reservation::At(due, _), Some(granted)) => {
                    // Other senders of the account need not wait until then; those of the number are due later anyway.
                    drop(in_account.take());
                    wait_exactly(due).await;
                    return Ok(Admission::Granted(granted));
                }
                (Reservation::Full(wait), _) => return Ok(Admission::Deferred(wait)),
                (Reservation::OneByOne, _) => return Ok(Admission::OneByOne),
                (Reservation::Only(some), _) => return Ok(Admission::Only(some)),
                (Reservation::Later(wait, line), kept) => {
                    // A wait for the whole account keeps all locks, and so the order of the senders.
                    place = kept.filter(|_| line == Line::Account);
                    (wait, line)
                }
                (Reservation::At(..), None) => continue,
            };
            // In a single process a wait of any length ends as soon as a limit is raised.
            if wait > LONGEST_WAIT && matches!(self.buckets, Backend::Shared(_)) {
                return Ok(Admission::Deferred(wait));
            }
            if line < Line::Account {
                drop(in_account.take());
            }
            if line < Line::Sender {
                drop(in_sender.take());
            }
            // Workers that wait for the same time ask one after the other, in random order.
            let before = EARLIER.mul_f64(0.5 + chance() / 2.0);
            tokio::select! {
                biased;
                // Never closed while `self` is borrowed.
                _ = changes.changed() => {}
                () = sleep(wait.saturating_sub(before)) => {}
            }
        }
    }

    /// Asks the buckets for tokens, alone or together with others of the campaign.
    async fn ask(&self, wanted: Wanted<'_>, together: bool) -> Result<Reservation, RedisClientError> {
        let asked = match &self.buckets {
            Backend::Process(buckets) => buckets.ask(&wanted),
            Backend::Shared(server) => {
                let asker = ReservationBatcher {
                    server,
                    account: &self.name,
                    wanted,
                    concurrency: self.concurrency.limit(),
                };
                if together { asker.ask_together().await? } else { asker.ask().await? }
            }
        };
        self.has_room.store(matches!(asked, Reservation::At(_, true)), Ordering::Relaxed);
        Ok(asked)
    }

    /// Returns the lock of a sender number.
    fn sender(&self, from: Phone) -> Arc<Mutex<()>> {
        let mut senders = self.senders.lock();
        // Jobs may name any numbers, so locks that are not in use are removed.
        if senders.len() >= SENDERS {
            senders.retain(|_, line| Arc::strong_count(line) > 1);
        }
        senders.entry(from).or_default().clone()
    }

    /// Pauses the account for all workers after a 429, then halves its rate.
    ///
    /// The rate recovers step by step.
    ///
    /// # Errors
    ///
    /// When Redis refuses.
    pub async fn slow_down(&self, wait: Duration) -> Result<(), RedisClientError> {
        match &self.buckets {
            Backend::Process(buckets) => buckets.slow_down(wait),
            Backend::Shared(server) => shared::slow_down(server, &self.name, wait).await?,
        }
        Ok(())
    }
}

/// Waits until a time, to the microsecond.
///
/// Tokio's timer has a resolution of 1 ms and fires up to 1 ms late. Where a batch fills the burst, that time is lost, so the
/// last millisecond is spent spinning. Only the first sender of a number does so.
async fn wait_exactly(until: Instant) {
    sleep_until(until.checked_sub(TIMER).unwrap_or(until)).await;
    let mut now = Instant::now();
    while now < until {
        tokio::task::yield_now().await;
        let before = std::mem::replace(&mut now, Instant::now());
        if now == before {
            // A paused clock, e.g. in a simulation, only advances while tasks sleep.
            return sleep_until(until).await;
        }
    }
}
